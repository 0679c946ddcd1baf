//! One partition's cold part: what the bucket holds of it, as last listed, and what of that serves.
//!
//! Order and crash safety: an upload counts only once it has been listed and read back (`upload`), so a crash before
//! that leaves garbage and the local segment. A listing never takes away what this process has verified, unless the
//! store says on asking that it is gone: a stale page must not move the tier's end back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firn_tier::collect::Graveyard;
use firn_tier::lineage::{Compaction, Keys, LeaderEpochs};
use firn_tier::names::{Found, ObjectName, PartitionPath, classify};
use firn_tier::select::{Facts, Selection, View, select};
use futures_util::{StreamExt, stream};
use object_store::path::Path;
use parking_lot::Mutex;

use crate::error::{ReadError, TierError};
use crate::footers::FooterOutcome;
use crate::tier::Shared;
use crate::traffic::Traffic;

/// What the broker knows of the partition's log, and the bucket does not.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PartitionView {
    /// The log's leader epochs **from its log start offset on**, the current leader's own epoch included even if it
    /// has written nothing yet. Empty only to rebuild a partition from the bucket alone.
    pub leader_epochs: LeaderEpochs,
    pub log_start_offset: i64,
    /// Log end offset of this replica, or `i64::MAX` to trust whatever the bucket holds.
    pub log_end_offset: i64,
}

/// A listing, summed up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Listing {
    /// Offsets that the tier serves without a hole, end exclusive: the last such run.
    pub range: Option<(i64, i64)>,
    /// Ranges inside the tier that nothing serves.
    pub holes: Vec<(i64, i64)>,
    /// Objects that serve.
    pub segments: usize,
    /// Bytes of their logs.
    pub log_bytes: u64,
    pub garbage: usize,
    /// Uploads under way or left behind.
    pub staged: usize,
    /// Names of other origin: left alone.
    pub foreign: usize,
    /// Objects that are not what their names say.
    pub damaged: usize,
    /// The bucket holds objects of a later leader epoch: this broker leads no more.
    pub deposed: bool,
}

/// What the bucket holds of a partition, counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sizes {
    /// Objects of segments, whether they serve or not.
    pub objects: usize,
    /// Objects that serve, and the bytes of their logs.
    pub segments: usize,
    pub log_bytes: u64,
    /// Objects that nothing needs and that are not deleted yet, and the bytes of their logs.
    pub garbage: usize,
    pub garbage_bytes: u64,
    /// Ranges inside the tier that nothing serves.
    pub holes: usize,
    /// Names of other origin: left alone.
    pub foreign: usize,
    /// Objects that are not what their names say.
    pub damaged: usize,
}

impl Sizes {
    pub fn add(&mut self, other: &Sizes) {
        self.objects += other.objects;
        self.segments += other.segments;
        self.log_bytes += other.log_bytes;
        self.garbage += other.garbage;
        self.garbage_bytes += other.garbage_bytes;
        self.holes += other.holes;
        self.foreign += other.foreign;
        self.damaged += other.damaged;
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Object {
    pub size: u64,
    /// Read back by this process, as `ReadBack` asks: it holds a log compacted to this offset, -1 if never. It may be
    /// more than its footer says, if compacting once more would take nothing away.
    pub verified: Option<i64>,
}

#[derive(Debug, Default)]
pub(crate) struct State {
    pub facts: BTreeMap<ObjectName, Facts>,
    pub objects: BTreeMap<ObjectName, Object>,
    pub view: PartitionView,
    pub selection: Arc<Selection>,
    pub graveyard: Graveyard<String>,
    /// The leader epoch in which the garbage was seen.
    pub collected_in: Option<i32>,
    pub staged: BTreeSet<String>,
    /// Staged names of this process's own uploads: not garbage while they last.
    pub uploading: BTreeSet<String>,
    pub foreign: usize,
    pub sizes: Sizes,
}

impl State {
    pub(crate) fn reselect(&mut self) {
        let selection = select(&self.facts, &self.selected_by());
        let serving: BTreeSet<ObjectName> = selection.chain.iter().map(|link| link.name).collect();
        self.sizes = Sizes {
            objects: self.objects.len(),
            segments: serving.len(),
            log_bytes: serving.iter().map(|name| name.log_bytes).sum(),
            garbage: selection.garbage.len(),
            garbage_bytes: selection.garbage.keys().map(|name| name.log_bytes).sum(),
            holes: selection.holes().len(),
            foreign: self.foreign,
            damaged: self.facts.values().filter(|facts| **facts == Facts::Damaged).count(),
        };
        self.selection = Arc::new(selection);
    }

    /// What this broker knows of the log, as [`select`] asks for it.
    pub(crate) fn selected_by(&self) -> View<'_> {
        View {
            start_offset: self.view.log_start_offset,
            end_offset: self.view.log_end_offset,
            leader_epochs: &self.view.leader_epochs,
            keys_end: i64::MAX,
        }
    }

    /// Whether the records that a compaction went by are of the log as this broker knows it.
    pub(crate) fn has_keys_of(&self, compaction: &Compaction) -> bool {
        self.view.leader_epochs.keys(compaction) == Keys::Ours
    }

    /// Whether an object lacks what nothing supersedes in the log as this broker knows it.
    fn is_of_lost_keys(&self, name: &ObjectName) -> bool {
        let facts = self.facts.get(name);
        matches!(facts, Some(Facts::Read { compaction, .. }) if !self.has_keys_of(compaction))
    }

    pub(crate) fn forget(&mut self, name: &ObjectName) {
        self.facts.remove(name);
        self.objects.remove(name);
    }

    pub(crate) fn remember(&mut self, name: ObjectName, object: Object, facts: Facts) {
        self.objects.insert(name, object);
        self.facts.insert(name, facts);
    }

    fn listing(&self) -> Listing {
        Listing {
            range: self.selection.last_run(),
            holes: self.selection.holes(),
            segments: self.sizes.segments,
            log_bytes: self.sizes.log_bytes,
            garbage: self.sizes.garbage,
            staged: self.staged.len(),
            foreign: self.foreign,
            damaged: self.sizes.damaged,
            deposed: !self.selection.newer.is_empty(),
        }
    }
}

/// One partition's cold part. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TieredPartition {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub shared: Arc<Shared>,
    pub handle: u64,
    pub traffic: Arc<Traffic>,
    pub directory: Path,
    pub state: Mutex<State>,
    refreshing: tokio::sync::Mutex<()>,
}

impl Inner {
    pub(crate) fn object_path(&self, file_name: &str) -> Path {
        self.directory.clone().join(file_name)
    }

    pub(crate) fn path_of(&self, name: &ObjectName) -> Path {
        self.object_path(&name.to_string())
    }

    pub(crate) fn selection(&self) -> Arc<Selection> {
        self.state.lock().selection.clone()
    }

    pub(crate) fn size_of(&self, name: &ObjectName) -> Option<u64> {
        self.state.lock().objects.get(name).map(|object| object.size)
    }
}

impl TieredPartition {
    pub(crate) fn new(shared: Arc<Shared>, path: PartitionPath) -> Self {
        let directory = shared.bucket.store.below_prefix(&path.to_string());
        let handle = shared.next_handle();
        let state = State {
            view: PartitionView { log_end_offset: i64::MAX, ..PartitionView::default() },
            ..State::default()
        };
        let inner = Inner {
            traffic: shared.metrics.topics.topic(&path.topic_partition.topic),
            shared,
            handle,
            directory,
            state: Mutex::new(state),
            refreshing: tokio::sync::Mutex::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Lists the partition's folder and works out what serves, for the log as `view` describes it. A leader does this
    /// when it begins to lead, and before it collects; a follower when it hears of a tiered end it cannot serve.
    pub async fn refresh(&self, view: PartitionView) -> Result<Listing, TierError> {
        let _one_at_a_time = self.inner.refreshing.lock().await;
        self.inner.state.lock().view = view;
        let listed = self.inner.shared.bucket.list(&self.inner.directory).await?;
        let mut segments = BTreeMap::new();
        let (mut staged, mut foreign) = (BTreeSet::new(), 0);
        for meta in listed {
            let below = meta.location.prefix_match(&self.inner.directory);
            let parts: Vec<_> = below.map(|parts| parts.collect()).unwrap_or_default();
            let [file_name] = parts.as_slice() else {
                foreign += 1;
                continue;
            };
            match classify(file_name.as_ref()) {
                Found::Segment(name) => {
                    segments.insert(name, meta.size);
                }
                Found::Staged => {
                    staged.insert(file_name.as_ref().to_owned());
                }
                Found::Foreign => foreign += 1,
            }
        }
        self.keep_unlisted(&mut segments).await?;
        self.merge(segments, staged, foreign);
        self.read_needed_footers().await?;
        Ok(self.inner.state.lock().listing())
    }

    /// Takes a new view of the log without asking the store: after the log start has moved, or a leader epoch began.
    pub fn follow(&self, view: PartitionView) {
        let mut state = self.inner.state.lock();
        if state.view != view {
            state.view = view;
            state.reselect();
        }
    }

    /// What the last listing and the uploads since then amount to.
    pub fn listing(&self) -> Listing {
        self.inner.state.lock().listing()
    }

    /// The same, counted; costs nothing.
    pub fn sizes(&self) -> Sizes {
        self.inner.state.lock().sizes
    }

    /// Offsets that the tier serves without a hole, end exclusive.
    pub fn tiered_range(&self) -> Option<(i64, i64)> {
        self.inner.selection().last_run()
    }

    /// Up to where local segments from `from_offset` on may be deleted: all below is in objects that this process has
    /// listed and read back. `from_offset` itself if nothing is. What the log has compacted, below `cleaned_offset`,
    /// must be as clean in the store: else a record would come back whose tombstone is gone. An object that was compacted by
    /// records of a lost branch may lack what only the disk has.
    ///
    /// A new leader must let a grace period pass before it deletes by this: after an unclean election its predecessor
    /// may still be deleting objects that this branch of history needs (`firn-tier`'s model finds that trace).
    pub fn verified_end(&self, from_offset: i64, cleaned_offset: i64) -> i64 {
        let state = self.inner.state.lock();
        let mut end = from_offset;
        for link in state.selection.chain.iter().filter(|link| link.to > from_offset) {
            let needed = if link.from < cleaned_offset { cleaned_offset } else { -1 };
            let verified = state.objects.get(&link.name).and_then(|object| object.verified);
            let is_clean = verified.is_some_and(|compacted_to| compacted_to >= needed);
            if link.from > end || !is_clean || state.is_of_lost_keys(&link.name) {
                break;
            }
            end = link.to;
        }
        end
    }

    /// The serving links in order: what `firn_tier::retention` works on.
    pub fn chain(&self) -> Vec<firn_tier::select::Link> {
        self.inner.selection().chain.clone()
    }

    /// Objects that are known and that a listing left out are asked for by name: without the newest of two objects, the
    /// one that it replaced would serve again what compaction took away.
    async fn keep_unlisted(&self, segments: &mut BTreeMap<ObjectName, u64>) -> Result<(), TierError> {
        let missing: Vec<ObjectName> = {
            let state = self.inner.state.lock();
            state.objects.keys().copied().filter(|name| !segments.contains_key(name)).collect()
        };
        for name in missing {
            if let Some(size) = self.inner.shared.bucket.size(&self.inner.path_of(&name)).await? {
                segments.insert(name, size);
            }
        }
        Ok(())
    }

    fn merge(&self, segments: BTreeMap<ObjectName, u64>, staged: BTreeSet<String>, foreign: usize) {
        let mut state = self.inner.state.lock();
        let known = std::mem::take(&mut state.objects);
        let mut facts = std::mem::take(&mut state.facts);
        for (name, size) in segments {
            let before = known.get(&name).filter(|object| object.size == size);
            let fact = facts.remove(&name).filter(|_| before.is_some()).unwrap_or_default();
            // A damaged object may have been replaced by a whole one since.
            let fact = if fact == Facts::Damaged { Facts::Unread } else { fact };
            let fact = if size <= name.log_bytes { Facts::Damaged } else { fact };
            let verified = before.and_then(|object| object.verified);
            state.remember(name, Object { size, verified }, fact);
        }
        state.staged = staged;
        state.foreign = foreign;
        state.reselect();
    }

    async fn read_needed_footers(&self) -> Result<(), TierError> {
        const AT_ONCE: usize = 8;
        loop {
            let needed = self.inner.selection().needs_footer.clone();
            if needed.is_empty() {
                return Ok(());
            }
            let outcomes: Vec<(ObjectName, Result<FooterOutcome, ReadError>)> = stream::iter(needed)
                .map(|name| async move { (name, self.inner.judge_footer(&name).await) })
                .buffer_unordered(AT_ONCE)
                .collect()
                .await;
            let mut state = self.inner.state.lock();
            let mut undecided = false;
            for (name, outcome) in outcomes {
                match outcome? {
                    FooterOutcome::Read(read) => {
                        state.facts.insert(name, Facts::from(&read.footer));
                    }
                    FooterOutcome::Damaged(reason) => {
                        tracing::warn!(%name, %reason, "object in the tier is damaged; it serves nothing");
                        state.facts.insert(name, Facts::Damaged);
                    }
                    // It stays unread, which also keeps everything it touches from being collected.
                    FooterOutcome::NewerFormat => undecided = true,
                }
            }
            state.reselect();
            if undecided {
                return Ok(());
            }
        }
    }
}
