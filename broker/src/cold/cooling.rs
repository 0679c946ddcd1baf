//! Cooling: sealed segments go to the store, and what is past its retention goes for good.
//!
//! Order: list the partition's folder (once) → upload the sealed segments that are committed, oldest first, each listed
//! and read back → tell the log up to where the store has it, a plain number → local retention deletes below that. A
//! crash anywhere leaves a segment on the disk, an object that the next attempt finds, or both. Partitions are cooled
//! side by side, so that one whose uploads are slow holds up no other.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firn_storage::disk::DiskFile;
use firn_storage::error::StorageError;
use firn_storage::tier_handover::SealedSegment;
use firn_tier::lineage::{Compaction, LeaderEpochs};
use firn_tier::retention::{Retention, retained_start};
use firn_tier::select::Link;
use firn_tiering::partition::TieredPartition;
use firn_tiering::segment::{SegmentSource, SegmentToUpload};
use firn_tiering::tier::Tier;
use tokio_util::sync::CancellationToken;
use tokio_util::task::JoinMap;

use super::{COLLECTIONS_PER_GRACE, Cold, ColdError, Listed, leader_epochs, view};
use crate::partition::{Offsets, Partition, PartitionError, PartitionKey};

impl Cold {
    /// Cools every partition that wants it, again and again, until `shutdown`: as many at a time as
    /// `remote.log.manager.copier.thread.pool.size` says, and each at most once at a time.
    pub async fn run(self: Arc<Self>, period: Duration, shutdown: CancellationToken) {
        if self.tier.is_none() {
            return;
        }
        let mut under_way: JoinMap<PartitionKey, ()> = JoinMap::new();
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = shutdown.cancelled() => break,
            }
            for partition in self.partitions.all() {
                while under_way.try_join_next().is_some() {}
                let key = partition.key();
                if under_way.contains_key(&key) || !self.wants_cooling(&partition) {
                    continue;
                }
                let permit = tokio::select! {
                    permit = self.coolers.acquire() => permit,
                    () = shutdown.cancelled() => break,
                };
                let cold = self.clone();
                under_way.spawn(key, async move {
                    match Box::pin(cold.cool(&partition)).await {
                        Ok(())
                        | Err(ColdError::Partition(
                            PartitionError::Closed | PartitionError::Storage(StorageError::CompactionStopped),
                        )) => {}
                        Err(error) => {
                            tracing::warn!(partition = %partition.name, %error, "cooling failed; it is tried again");
                        }
                    }
                    drop(permit);
                });
            }
        }
        // What was on its way is done again after the next start.
        under_way.shutdown().await;
        self.reads.end().await;
    }

    /// What its leader does: followers drop what that says is in the store.
    fn wants_cooling(&self, partition: &Partition) -> bool {
        if !partition.is_led_here() {
            return false;
        }
        let config = partition.config();
        let has_cold = || partition.offsets().is_ok_and(|offsets| offsets.log_start < offsets.local_start);
        config.remote_storage_enable
            || has_cold()
            || (config.remote_log_delete_on_disable && !self.emptied.lock().contains(&partition.key()))
    }

    async fn cool(&self, partition: &Arc<Partition>) -> Result<(), ColdError> {
        let config = partition.config();
        if !config.remote_storage_enable && config.remote_log_delete_on_disable {
            return self.empty(partition).await;
        }
        self.emptied.lock().remove(&partition.key());
        let (tiered, listed) = self.listed(partition).await?;
        Self::check_continuity(partition, &tiered).await?;
        // Each does its part though the one before could not: what is past its retention goes even if nothing can be
        // put into the store.
        let uploaded = match config.copies_to_tier() {
            true => self.upload(partition, &tiered, listed).await,
            false => Ok(()),
        };
        let compacted = match config.cleanup_policy.compact {
            true => Box::pin(self.compact(partition, &tiered)).await,
            false => Ok(()),
        };
        self.retain(partition, &tiered).await?;
        self.collect(partition, &tiered).await?;
        uploaded.and(compacted)
    }

    /// That the store has what comes right before the disk: else it is another one, and what were copied to it, and then
    /// deleted here, would be one log in two stores.
    async fn check_continuity(partition: &Arc<Partition>, tiered: &TieredPartition) -> Result<(), ColdError> {
        let Offsets { log_start, local_start, .. } = partition.offsets()?;
        let is_continuous =
            || tiered.chain().iter().any(|link| link.from < local_start && link.to >= local_start);
        if log_start >= local_start || is_continuous() {
            return Ok(());
        }
        // They may have been put back meanwhile.
        tiered.refresh(view(partition)?).await?;
        if is_continuous() { Ok(()) } else { Err(ColdError::Discontinuous { log_start, local_start }) }
    }

    /// `remote.log.delete.on.disable`: the log begins where the disk does, and what the store has goes (KIP-950).
    ///
    /// The log forgets what was tiered before anything is deleted, so that it never drops a segment of which the store
    /// has no copy. Once in the life of a process a partition is listed for it even if it has nothing cold: an earlier
    /// process may have stopped half way.
    async fn empty(&self, partition: &Arc<Partition>) -> Result<(), ColdError> {
        let handle = self.handle(&partition.name, partition.topic_id)?;
        let raised = {
            let partition = partition.clone();
            let raise = move || {
                partition.with_log(|log| {
                    log.forget_tiered();
                    log.set_log_start_offset(log.local_start_offset())
                })
            };
            firn_blocking::run(raise).await?.map_err(PartitionError::from)
        };
        raised?;
        if !Self::is_deleted_everywhere(partition)? {
            return Ok(());
        }
        let deleted = handle.tiered.delete_all().await?;
        self.emptied.lock().insert(partition.key());
        if deleted > 0 {
            let objects = deleted;
            tracing::info!(partition = %partition.name, objects, "deleted the cold segments: remote.storage.enable is off");
        }
        Ok(())
    }

    /// Whether no replica in sync, one of which may lead next, counts on what lies before the log's start. Asked again later if not.
    fn is_deleted_everywhere(partition: &Partition) -> Result<bool, PartitionError> {
        let start = partition.offsets()?.log_start;
        Ok(partition.deleted_everywhere().is_some_and(|deleted| deleted >= start))
    }

    /// Whether leaders of before have ended what they may have begun to delete, after an election that was unclean: until then
    /// nothing goes from a disk on the word of a listing (`firn-tier`'s model finds what happens else). No replicas, no such leaders.
    fn is_settled(&self, partition: &Partition, listed: Listed) -> bool {
        let grace = Duration::from_millis(u64::try_from(self.garbage_grace_ms).unwrap_or(0));
        listed.leader_epoch == 0 || !partition.has_replicas() || listed.at.elapsed() >= grace
    }

    /// Tells the log, and by it the followers, up to where the store has it.
    fn tell(
        &self,
        partition: &Partition,
        tiered: &TieredPartition,
        listed: Listed,
        from: i64,
    ) -> Result<(), PartitionError> {
        if !listed.is_led || !self.is_settled(partition, listed) {
            return Ok(());
        }
        partition.tiered_to(listed.leader_epoch, |cleaned| tiered.verified_end(from, cleaned))
    }

    /// Lists the partition's folder and deletes what has been garbage for long enough. A listing is a request to the
    /// store for each partition, so it comes a few times in a grace period, not with every cooling.
    async fn collect(&self, partition: &Arc<Partition>, tiered: &TieredPartition) -> Result<(), ColdError> {
        let now_ms = self.environment.clock.now_ms();
        let pause_ms = (self.garbage_grace_ms / COLLECTIONS_PER_GRACE).max(0);
        {
            let mut collected = self.collected.lock();
            let last = collected.entry(partition.key()).or_insert(now_ms);
            if now_ms.saturating_sub(*last) < pause_ms {
                return Ok(());
            }
            *last = now_ms;
        }
        let deleted_to = partition.deleted_everywhere().unwrap_or(0);
        let Some(parts_at) = partition.parts_at() else { return Ok(()) };
        let (view, grace_ms) = (view(partition)?, self.garbage_grace_ms);
        let collected = tiered.collect_garbage(view, deleted_to, &parts_at, now_ms, grace_ms).await?;
        if collected.deleted > 0 {
            let objects = collected.deleted;
            tracing::info!(partition = %partition.name, objects, "collected garbage from the store");
        }
        Ok(())
    }

    /// Uploads what is sealed, flushed and committed, and not in the store yet; of a compacted log only what is clean.
    async fn upload(
        &self,
        partition: &Arc<Partition>,
        tiered: &TieredPartition,
        listed: Listed,
    ) -> Result<(), ColdError> {
        let offsets = partition.offsets()?;
        // What was told before, by a leader that this broker followed, has been read back by that one.
        let from = offsets.local_start.max(offsets.tiered_end);
        self.tell(partition, tiered, listed, from)?;
        let compacts = partition.config().cleanup_policy.compact;
        let sealed = {
            let (partition, tiered) = (partition.clone(), tiered.clone());
            let find = move || {
                partition.with_log(|log| {
                    let from = tiered.verified_end(from, log.cleaned_offset());
                    let committed = offsets.last_stable.min(log.flushed_offset());
                    let below = if compacts { committed.min(log.cleaned_offset()) } else { committed };
                    log.sealed_segments(from, below)
                })
            };
            firn_blocking::run(find).await?.map_err(PartitionError::from)?
        };
        for metadata in sealed {
            // What is there already is only read back, and leaves the disk the sooner.
            let is_there = |link: &Link| {
                (link.name.base_offset, link.name.last_offset) == (metadata.base_offset, metadata.last_offset)
            };
            if !tiered.chain().iter().any(is_there) {
                self.check_room(metadata.bytes)?;
            }
            // The store is not to have what this disk has not kept: it is mended first.
            let (looked, now_ms) = (partition.clone(), self.environment.clock.now_ms());
            let is_sound = firn_blocking::run(move || looked.is_sound(metadata.base_offset, now_ms));
            if !is_sound.await? {
                return Ok(());
            }
            let (segment, cleaned_offset, history) = {
                let partition = partition.clone();
                let open = move || {
                    let current = partition.leader_epoch();
                    partition.with_log(|log| {
                        let segment = log.sealed_segment(metadata.base_offset);
                        (segment, log.cleaned_offset(), leader_epochs(log, current))
                    })
                };
                let (segment, cleaned_offset, history) = firn_blocking::run(open).await?;
                (segment.map_err(PartitionError::from)?, cleaned_offset, history)
            };
            // Retention or compaction may have taken it meanwhile.
            let Some(segment) = segment else { continue };
            tiered.follow(view(partition)?);
            let uploaded =
                tiered.upload(to_upload(segment, cleaned_offset, history, listed.leader_epoch)).await?;
            self.tell(partition, tiered, listed, from)?;
            tracing::info!(
                partition = %partition.name,
                object = %uploaded.name,
                bytes = uploaded.object_bytes,
                created = uploaded.created,
                "a segment is cold"
            );
        }
        Ok(())
    }

    /// A store that is a directory may share a disk with the logs, and those who make room there need some themselves.
    fn check_room(&self, bytes: u64) -> Result<(), ColdError> {
        let Some(directory) = self.tier.as_ref().and_then(Tier::directory) else { return Ok(()) };
        let reserve = u64::try_from(self.broker_config.borrow().log.disk_reserve_bytes).unwrap_or(0);
        match self.environment.disk.space(directory) {
            Ok(space) if space.free < reserve.saturating_add(bytes) => {
                Err(ColdError::StoreFull { free: space.free, bytes, reserve })
            }
            // Who cannot be asked will say so when it is written to.
            _ => Ok(()),
        }
    }

    /// Moves the log start by the topic's retention, and deletes the objects below it.
    async fn retain(&self, partition: &Arc<Partition>, tiered: &TieredPartition) -> Result<(), ColdError> {
        let config = partition.config();
        let offsets = partition.offsets()?;
        if config.cleanup_policy.delete {
            let local_bytes = partition.with_log(|log| log.size_bytes())?;
            let chain: Vec<_> =
                tiered.chain().into_iter().filter(|link| link.to <= offsets.local_start).collect();
            let retention =
                Retention { retention_ms: config.retention_ms, retention_bytes: config.retention_bytes };
            let now_ms = self.environment.clock.now_ms();
            if let Some(start) = retained_start(&chain, local_bytes, &retention, now_ms) {
                let partition = partition.clone();
                let raise = move || partition.with_log(|log| log.set_log_start_offset(start));
                firn_blocking::run(raise).await?.map_err(PartitionError::from)?;
            }
        }
        // DeleteRecords may have moved it, too. Who leads next has to know of it before.
        let Some(start) = partition.deleted_everywhere() else { return Ok(()) };
        let deleted = tiered.delete_below(start).await?;
        if deleted > 0 {
            tracing::info!(partition = %partition.name, objects = deleted, "deleted cold segments past their retention");
        }
        Ok(())
    }
}

fn to_upload(
    segment: SealedSegment,
    cleaned_offset: i64,
    history: LeaderEpochs,
    uploader_epoch: i32,
) -> SegmentToUpload {
    // Of a log that is compacted no more, the last segment that was may be clean in part.
    let is_clean = segment.metadata.base_offset < cleaned_offset;
    SegmentToUpload {
        base_offset: segment.metadata.base_offset,
        last_offset: segment.metadata.last_offset,
        max_timestamp: segment.metadata.max_timestamp,
        compaction: if is_clean { history.compaction(cleaned_offset) } else { Compaction::NONE },
        uploader_epoch,
        leader_epochs: history,
        log: Arc::new(SegmentFile { file: segment.log, bytes: segment.metadata.bytes }),
        offset_index: segment.offset_index,
        time_index: segment.time_index,
        transaction_index: segment.transaction_index,
        producer_snapshot: segment.producer_snapshot,
    }
}

/// A sealed segment's log as the tier reads it.
#[derive(Debug)]
pub(super) struct SegmentFile {
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) bytes: u64,
}

impl SegmentSource for SegmentFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buffer.freeze())
    }
}
