//! Deletes what nothing needs: below the log start, superseded, of a lost branch, left behind by uploads.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;

use firn_model::ids::TopicId;
use firn_tier::collect::Graveyard;
use firn_tier::lineage::Compaction;
use firn_tier::names::{Found, ObjectName, classify, is_partition_folder, topic_folder};
use firn_tier::select::{Facts, Garbage, needed_after};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use object_store::path::Path;

use crate::bucket::Bucket;
use crate::cache::Piece;
use crate::error::TierError;
use crate::partition::{Inner, Listing, PartitionView, TieredPartition};
use crate::tier::Tier;
use crate::traffic::Traffic;

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Collected {
    pub deleted: usize,
    /// Garbage whose grace period is not over.
    pub waiting: usize,
}

impl TieredPartition {
    /// Moves the tier's start to `offset`, if it is not there yet, and deletes the objects that end at or before `offset`. Readers see
    /// the new start first. What cannot be deleted now is garbage for [`TieredPartition::collect_garbage`]. Returns how many went.
    pub async fn delete_below(&self, offset: i64) -> Result<usize, TierError> {
        let below: Vec<ObjectName> = {
            let mut state = self.inner.state.lock();
            state.view.log_start_offset = state.view.log_start_offset.max(offset);
            state.reselect();
            if let Some(newer) = state.selection.newer.first() {
                return Err(TierError::Deposed { epoch: newer.leader_epoch });
            }
            let garbage = state.selection.garbage.iter();
            let goes =
                |name: &ObjectName, why: Garbage| why == Garbage::BelowStart && name.end_offset() <= offset;
            garbage.filter(|(name, why)| goes(name, **why)).map(|(name, _)| *name).collect()
        };
        let mut deleted = 0;
        for name in below {
            self.inner.delete_object(&name).await?;
            deleted += 1;
        }
        Ok(deleted)
    }

    /// Lists anew, and deletes what has been garbage in every listing for `grace_ms`, but for what lies before the log's start and
    /// reaches beyond `deleted_to`: it may be another replica's still, which leads next. `parts_at` tells, for each other replica, where its history
    /// would part from this one if it led next, however it was elected: what was compacted by records that it may not have does not stand in for what was not.
    /// Only the leader may do this, and `grace_ms` must be longer than a deposed leader can fail to notice, and than an upload's call deadline.
    pub async fn collect_garbage(
        &self,
        view: PartitionView,
        deleted_to: i64,
        parts_at: &[RangeInclusive<i64>],
        now_ms: i64,
        grace_ms: i64,
    ) -> Result<Collected, TierError> {
        let listing: Listing = self.refresh(view).await?;
        if listing.deposed {
            let epoch = self.inner.selection().newer.first().map_or(-1, |name| name.leader_epoch);
            return Err(TierError::Deposed { epoch });
        }
        let left_behind = left_behind_streams(&self.inner.shared.bucket, &self.inner.directory).await?;
        let (due, by_file_name) = self.inner.due(deleted_to, parts_at, left_behind, now_ms, grace_ms);
        let mut deleted = 0;
        for file_name in due {
            match by_file_name.get(&file_name) {
                Some(name) => self.inner.delete_object(name).await?,
                None => {
                    delete_leftover(
                        &self.inner.shared.bucket,
                        &self.inner.directory,
                        &file_name,
                        &self.inner.traffic,
                    )
                    .await?;
                }
            }
            let mut state = self.inner.state.lock();
            state.graveyard.buried(&file_name);
            state.staged.remove(&file_name);
            deleted += 1;
        }
        self.inner.shared.metrics.collected_objects.add(deleted as u64);
        Ok(Collected { deleted, waiting: self.inner.state.lock().graveyard.len() })
    }

    /// Deletes all that is ours in the partition's folder; what others put there stays. For a topic that is deleted:
    /// an upload still under way may land after it, so the caller repeats this once their deadlines have passed.
    /// Returns how many objects went.
    pub async fn delete_all(&self) -> Result<usize, TierError> {
        let deleted =
            delete_folder(&self.inner.shared.bucket, &self.inner.directory, &self.inner.traffic).await?;
        let mut state = self.inner.state.lock();
        state.facts.clear();
        state.objects.clear();
        state.staged.clear();
        state.reselect();
        Ok(deleted)
    }
}

fn compacted_to(facts: &BTreeMap<ObjectName, Facts>, name: &ObjectName) -> i64 {
    match facts.get(name) {
        Some(Facts::Read { compaction, .. }) => compaction.to,
        _ => Compaction::NONE.to,
    }
}

/// Deletes all that is ours in a partition's folder.
async fn delete_folder(bucket: &Bucket, folder: &Path, topic: &Traffic) -> Result<usize, TierError> {
    let listed = bucket.list(folder).await?.into_iter().map(|meta| meta.location);
    let ours = listed.filter(|path| match below(path, folder).as_slice() {
        [file] => classify(file) != Found::Foreign,
        _ => false,
    });
    let objects = delete_objects(bucket, ours.collect(), topic).await?;
    let mut streams = 0;
    for file_name in left_behind_streams(bucket, folder).await? {
        delete_leftover(bucket, folder, &file_name, topic).await?;
        streams += 1;
    }
    Ok(objects + streams)
}

impl Tier {
    /// Deletes all that is ours in a topic's folder, whatever its partitions; what others put there stays. For a topic
    /// that is deleted: an upload still under way may land after it, so the caller comes again. Returns how many
    /// objects went.
    pub async fn delete_topic(
        &self,
        cluster_id: &str,
        topic: &str,
        topic_id: TopicId,
    ) -> Result<usize, TierError> {
        let bucket = &self.shared.bucket;
        let folder = bucket.store.below_prefix(&topic_folder(cluster_id, topic, topic_id));
        let listed = bucket.list(&folder).await?.into_iter().map(|meta| meta.location);
        let ours = listed.filter(|path| match below(path, &folder).as_slice() {
            [partition, file] => is_partition_folder(partition) && classify(file) != Found::Foreign,
            _ => false,
        });
        let traffic = self.shared.metrics.topics.topic(topic);
        let mut deleted = delete_objects(bucket, ours.collect(), &traffic).await?;
        for partition in local_partitions(bucket, &folder).await? {
            deleted += delete_folder(bucket, &folder.clone().join(partition), &traffic).await?;
        }
        Ok(deleted)
    }
}

/// The parts of a path below a folder; none if it is not below it.
fn below(path: &Path, folder: &Path) -> Vec<String> {
    let parts = path.prefix_match(folder).into_iter().flatten();
    parts.map(|part| part.as_ref().to_owned()).collect()
}

/// Deletes objects, several at a time.
async fn delete_objects(bucket: &Bucket, paths: Vec<Path>, topic: &Traffic) -> Result<usize, TierError> {
    let count = paths.len();
    let deletes = paths.into_iter().map(|path| async move { bucket.delete(&path, topic).await });
    stream::iter(deletes).buffer_unordered(bucket.options.admin_max).try_collect::<()>().await?;
    bucket.metrics.collected_objects.add(count as u64);
    Ok(count)
}

/// What object_store puts between a name and a number while it streams to a local directory.
const STREAM_MARK: char = '#';

impl Inner {
    /// What is to be deleted now of what was listed last, and the objects among all garbage by their file names.
    fn due(
        &self,
        deleted_to: i64,
        parts_at: &[RangeInclusive<i64>],
        left_behind: Vec<String>,
        now_ms: i64,
        grace_ms: i64,
    ) -> (Vec<String>, BTreeMap<String, ObjectName>) {
        let mut state = self.state.lock();
        let leads_in = state.view.leader_epochs.latest().map(|latest| latest.epoch);
        if state.collected_in != leads_in {
            // What an earlier term condemned, leaders between may have relied on.
            state.graveyard = Graveyard::default();
            state.collected_in = leads_in;
        }
        let needed: BTreeSet<ObjectName> = parts_at
            .iter()
            .flat_map(|parts_at| needed_after(parts_at, &state.facts, &state.selected_by()))
            .collect();
        let is_needed = |name: &ObjectName, why: Garbage| match why {
            Garbage::BelowStart => name.end_offset() > deleted_to,
            Garbage::Superseded => needed.contains(name),
            Garbage::LostBranch => false,
        };
        let garbage = state.selection.garbage.iter().filter(|(name, why)| !is_needed(name, **why));
        let by_file_name: BTreeMap<String, ObjectName> =
            garbage.map(|(name, _)| (name.to_string(), *name)).collect();
        let staged = state.staged.difference(&state.uploading).cloned();
        let streams = left_behind
            .into_iter()
            .filter(|file| !state.uploading.iter().any(|uploading| file.starts_with(uploading.as_str())));
        let all: Vec<String> = by_file_name.keys().cloned().chain(staged).chain(streams).collect();
        let mut due = state.graveyard.due(all, now_ms, grace_ms);
        // The least compacted first, for this may end half way: no value is to be left without a tombstone that went with the rest.
        due.sort_by_key(|file_name| by_file_name.get(file_name).map(|name| compacted_to(&state.facts, name)));
        (due, by_file_name)
    }

    async fn delete_object(&self, name: &ObjectName) -> Result<(), TierError> {
        self.shared.bucket.delete(&self.path_of(name), &self.traffic).await?;
        self.shared.cache.remove(&self.key(name, Piece::Footer));
        let mut state = self.state.lock();
        state.forget(name);
        state.graveyard.buried(&name.to_string());
        state.reselect();
        Ok(())
    }
}

async fn delete_leftover(
    bucket: &Bucket,
    folder: &Path,
    file_name: &str,
    topic: &Traffic,
) -> Result<(), TierError> {
    match &bucket.store.directory {
        Some(root) if file_name.contains(STREAM_MARK) => {
            Ok(bucket.delete_file(root, folder, file_name, topic).await?)
        }
        _ => Ok(bucket.delete(&folder.clone().join(file_name), topic).await?),
    }
}

/// Streams to a local directory that were cut off: files which the store's listing leaves out.
async fn left_behind_streams(bucket: &Bucket, folder: &Path) -> Result<Vec<String>, TierError> {
    let mut names = local_names(bucket, folder).await?;
    names.retain(|name| {
        name.split_once(STREAM_MARK).is_some_and(|(staged, number)| {
            classify(staged) == Found::Staged && number.bytes().all(|b| b.is_ascii_digit())
        })
    });
    Ok(names)
}

/// Folders of partitions below a topic's, in a local directory: even those in which the store lists nothing.
async fn local_partitions(bucket: &Bucket, folder: &Path) -> Result<Vec<String>, TierError> {
    let mut names = local_names(bucket, folder).await?;
    names.retain(|name| is_partition_folder(name));
    Ok(names)
}

/// What a folder of a local directory holds; nothing of any other store.
async fn local_names(bucket: &Bucket, folder: &Path) -> Result<Vec<String>, TierError> {
    match &bucket.store.directory {
        Some(root) => Ok(bucket.file_names(root, folder).await?),
        None => Ok(Vec::new()),
    }
}
