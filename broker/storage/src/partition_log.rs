//! One partition's log: the segments, and every offset that the rest of the broker asks for.
//!
//! The owner wraps it in a lock; what takes long (syncing, compacting) is handed out as a task that runs without it.
//! The log's verbs live in their own rooms: append, read, flush, truncate, retention, times, tier_handover, compaction.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;

use crate::directory::Directory;
use crate::epochs::{EpochCache, EpochEntry};
use crate::error::StorageError;
use crate::producers::Producers;
use crate::recent::RecentBatches;
use crate::segment::{Home, Segment};
use crate::sound::Sound;
use crate::task_gate::TaskGate;

/// The log of one partition. See the module.
#[derive(Debug)]
pub struct PartitionLog {
    pub(crate) directory: Arc<Directory>,
    pub(crate) gate: Arc<TaskGate>,
    pub(crate) path: PathBuf,
    pub(crate) topic_partition: TopicPartition,
    pub(crate) topic_id: TopicId,
    pub(crate) config: Arc<TopicConfig>,
    /// Rising base offsets; the last one is appended to. Empty until the first record.
    pub(crate) segments: Vec<Segment>,
    pub(crate) log_start_offset: i64,
    pub(crate) end_offset: i64,
    /// Everything below is on stable storage: Kafka's recovery point.
    pub(crate) flushed_offset: i64,
    /// Everything below is committed, as the owner last said, or as the checkpoint has it.
    pub(crate) high_watermark: i64,
    /// First offset that the tier does not have; 0 while it has none.
    pub(crate) tiered_end_offset: i64,
    pub(crate) epochs: EpochCache,
    pub(crate) producers: Producers,
    /// Offsets of the producer snapshots on disk.
    pub(crate) snapshots: BTreeSet<i64>,
    pub(crate) recent: RecentBatches,
    pub(crate) sound: Arc<Sound>,
    pub(crate) unsynced: Unsynced,
    /// Segments were removed or exchanged this many times: tells an outdated compaction from a current one.
    pub(crate) generation: u64,
    /// The tail was cut this many times: tells an outdated flush from a current one.
    pub(crate) truncations: u64,
    /// Everything below was compacted before; Kafka's cleaner checkpoint.
    pub(crate) cleaned_offset: i64,
    /// Other replicas have gaps, too.
    pub(crate) has_gaps: bool,
    /// Files renamed out of the way, and when they may be removed.
    pub(crate) doomed: Vec<(i64, PathBuf)>,
}

/// What of the log's surroundings is not durable yet. Counters, so that a change during a flush is not lost.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Unsynced {
    /// Names created, renamed or removed in the partition's directory, and how many of those are synced.
    pub(crate) names_changed: u64,
    pub(crate) names_synced: u64,
    pub(crate) epochs_synced: u64,
    /// The directory and its `partition.metadata` were created by this process and never synced.
    pub(crate) is_new: bool,
}

impl PartitionLog {
    pub fn topic_partition(&self) -> &TopicPartition {
        &self.topic_partition
    }

    pub fn topic_id(&self) -> TopicId {
        self.topic_id
    }

    pub fn config(&self) -> &Arc<TopicConfig> {
        &self.config
    }

    /// Takes effect from the next append, roll or retention on.
    pub fn update_config(&mut self, config: Arc<TopicConfig>) {
        self.config = config;
    }

    /// First offset of the partition, wherever it is kept: below, records were deleted.
    pub fn log_start_offset(&self) -> i64 {
        self.log_start_offset
    }

    /// First offset that this disk can serve. At or above the log start; below it the tier has to.
    pub fn local_start_offset(&self) -> i64 {
        self.segments.first().map_or(self.end_offset, |first| first.base_offset).max(self.log_start_offset)
    }

    /// The offset that the next record will have.
    pub fn end_offset(&self) -> i64 {
        self.end_offset
    }

    /// Everything below is on stable storage.
    pub fn flushed_offset(&self) -> i64 {
        self.flushed_offset
    }

    /// First offset that the tier does not have, as the owner last said; 0 while it has none.
    pub fn tiered_end_offset(&self) -> i64 {
        self.tiered_end_offset
    }

    /// First offset that a read_committed consumer may not see yet, given the high watermark.
    pub fn last_stable_offset(&self, high_watermark: i64) -> i64 {
        self.producers
            .first_unstable_offset(high_watermark)
            .map_or(high_watermark, |first| first.min(high_watermark))
    }

    /// Everything below is committed, as far as the log was told, now or before it was opened.
    pub fn high_watermark(&self) -> i64 {
        self.high_watermark.min(self.end_offset)
    }

    /// Takes note of the high watermark, and lets go of what was only kept until it passed.
    pub fn high_watermark_moved(&mut self, high_watermark: i64) {
        self.high_watermark = high_watermark;
        self.producers.high_watermark_moved(high_watermark);
    }

    /// Bytes of all local segments' batches.
    pub fn size_bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.size).sum()
    }

    /// Whether the disk has room for so many bytes, as far as can be known.
    pub fn has_room(&self, bytes: usize) -> bool {
        // A disk that cannot be asked says so when it is written to.
        self.directory.disk.space(&self.path).map_or(true, |space| space.free >= bytes as u64)
    }

    /// Number of local segments.
    pub fn segment_count(&self) -> usize {
        self.segments.len()
    }

    /// Largest leader epoch that the log knows.
    pub fn latest_epoch(&self) -> Option<i32> {
        self.epochs.latest().map(|entry| entry.epoch)
    }

    pub fn epoch_entries(&self) -> &[EpochEntry] {
        self.epochs.entries()
    }

    /// Epoch and end offset for OffsetForLeaderEpoch (KIP-279): of the largest epoch at or below the one asked for.
    /// `None` where Kafka answers -1 and -1.
    pub fn epoch_end_offset(&self, epoch: i32) -> Option<(i32, i64)> {
        self.epochs.end_offset_for(epoch, self.end_offset)
    }

    /// The leader epoch under which the record at `offset` was written.
    pub fn epoch_for_offset(&self, offset: i64) -> Option<i32> {
        self.epochs.epoch_for_offset(offset)
    }

    /// Notes that a leader of this epoch begins at the log's end. Written to disk before anything of the epoch counts
    /// as flushed.
    pub fn start_epoch(&mut self, leader_epoch: i32) {
        self.epochs.assign(leader_epoch, self.end_offset);
    }

    /// Forgets leaders that began at the log's end and wrote nothing: a leader of before may have written more, which is to
    /// follow.
    pub fn forget_unwritten_epochs(&mut self) {
        self.epochs.truncate_from_end(self.end_offset);
    }

    /// Whether there is no batch on the disk.
    pub fn is_empty(&self) -> bool {
        self.segments.iter().all(|segment| segment.size == 0)
    }

    /// Producers that wrote to this log and have not expired.
    pub fn producers(&self) -> &Producers {
        &self.producers
    }

    /// Forgets producers that have been silent for `expiration_ms` (`producer.id.expiration.ms`).
    pub fn expire_producers(&mut self, now_ms: i64, expiration_ms: i64) {
        self.producers.expire(now_ms, expiration_ms);
    }

    /// Forgets which bytes need no second look, but for the newest: called every half minute.
    pub fn age(&self) {
        self.sound.age();
    }

    /// Forgets what memory knows of where batches lie, because segments are cut or exchanged.
    pub(crate) fn forget_places(&mut self) {
        self.recent.clear();
        // Who still has to do with what was there tells the one of before.
        self.sound = Arc::default();
    }

    pub(crate) fn home(&self) -> Home<'_> {
        Home { pool: &self.directory.pool, directory: &self.path }
    }

    /// Position among the segments of the one that would hold `offset`; `None` when all begin above it.
    pub(crate) fn segment_for(&self, offset: i64) -> Option<usize> {
        self.segments.partition_point(|segment| segment.base_offset <= offset).checked_sub(1)
    }

    /// First offset after the segment at `index`.
    pub(crate) fn segment_end(&self, index: usize) -> i64 {
        self.segments.get(index + 1).map_or(self.end_offset, |next| next.base_offset)
    }

    /// Stops the whole directory unless only space or file descriptors are short, and hands the error on.
    pub(crate) fn fail_unless_short(&self, error: StorageError) -> StorageError {
        if !error.is_shortage() {
            self.directory.fail(&error);
        }
        error
    }

    /// Stops the whole directory, and hands the error on.
    pub(crate) fn fail(&self, error: StorageError) -> StorageError {
        self.directory.fail(&error);
        error
    }
}

#[cfg(test)]
#[path = "partition_log_tests.rs"]
mod tests;
