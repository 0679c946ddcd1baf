//! Taking old segments away: by time, by size, and below the log start.
//!
//! Order: the log start is raised on disk, the files are renamed to `.deleted`, the directory is synced, and the files
//! themselves go after `file.delete.delay.ms`. A crash in between leaves segments below the log start, which the next
//! retention takes, or `.deleted` files, which the next open removes. With a tier, nothing local goes that the owner
//! has not said to be in the tier, and the log start stays: the records are still the partition's. That it stays is on
//! disk before the first of them goes, or the next open could not tell them from records that were deleted.

use crate::disk::OpenMode;
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{DELETED, SEGMENT_SUFFIXES, SNAPSHOT, segment_file};
use crate::partition_log::PartitionLog;

/// What a retention pass took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retained {
    pub segments: usize,
    pub bytes: u64,
    pub log_start_offset: i64,
}

/// What may be kept locally at most; -1 is no limit.
#[derive(Debug, Clone, Copy)]
struct Limits {
    ms: i64,
    bytes: i64,
}

impl PartitionLog {
    /// Removes the oldest segments that are past their time, too many bytes, or below the log start. Only segments
    /// wholly below `limit_offset` (the high watermark) go.
    pub fn retain(&mut self, now_ms: i64, limit_offset: i64) -> Result<Retained, StorageError> {
        self.directory.check()?;
        self.remove_doomed(now_ms)?;
        self.rebuild_suspect_indexes()?;
        let count = self.segments_to_drop(now_ms, limit_offset)?;
        let mut retained = Retained { log_start_offset: self.log_start_offset, ..Retained::default() };
        if count == 0 {
            return Ok(retained);
        }
        if count == self.segments.len() {
            self.roll(now_ms).map_err(|error| self.fail_unless_short(error))?;
        }
        let count = self.with_known_producers(count);
        if count == 0 {
            return Ok(retained);
        }
        if !self.is_tiered() {
            let start = self.segments.get(count).map_or(self.end_offset, |segment| segment.base_offset);
            self.set_log_start_offset(start)?;
        } else {
            self.directory.keep_log_start(&self.topic_partition, self.log_start_offset)?;
        }
        retained.bytes = self.segments.iter().take(count).map(|segment| segment.size).sum();
        self.drop_first(count, now_ms).map_err(|error| self.fail_unless_short(error))?;
        retained.segments = count;
        retained.log_start_offset = self.log_start_offset;
        Ok(retained)
    }

    /// Of the first `count` segments those behind which a snapshot tells of the producers: what wrote to them is known only by it once
    /// they have gone. One may be missing for want of room.
    fn with_known_producers(&self, mut count: usize) -> usize {
        let is_known =
            |count: usize| self.producers.is_empty() || self.snapshots.contains(&self.segment_end(count - 1));
        while count > 0 && !is_known(count) {
            count -= 1;
        }
        count
    }

    fn is_tiered(&self) -> bool {
        self.config.copies_to_tier()
    }

    fn limits(&self) -> Limits {
        let config = &self.config;
        if !config.cleanup_policy.delete && !self.is_tiered() {
            return Limits { ms: -1, bytes: -1 };
        }
        Limits { ms: config.effective_local_retention_ms(), bytes: config.effective_local_retention_bytes() }
    }

    /// How many segments, from the oldest on, are to go.
    fn segments_to_drop(&self, now_ms: i64, limit_offset: i64) -> Result<usize, StorageError> {
        let limits = self.limits();
        let mut excess = match u64::try_from(limits.bytes) {
            Ok(allowed) => self.size_bytes().saturating_sub(allowed),
            Err(_) => 0,
        };
        let mut count = 0;
        for (index, segment) in self.segments.iter().enumerate() {
            let end = self.segment_end(index);
            let is_active = index + 1 == self.segments.len();
            if end > limit_offset || (is_active && segment.size == 0) {
                break;
            }
            let below_start = end <= self.log_start_offset;
            if self.is_tiered() && !below_start && end > self.tiered_end_offset {
                break;
            }
            let too_old = limits.ms >= 0 && {
                let largest = segment.largest_timestamp(self.home())?.timestamp;
                let newest = if largest >= 0 { largest } else { segment.created_ms };
                now_ms.saturating_sub(newest) > limits.ms
            };
            // Kafka keeps at least `retention.bytes`: a segment goes only if the rest still fills the limit.
            let too_many = excess > 0 && excess >= segment.size;
            if !(below_start && !is_active || too_old || too_many) {
                break;
            }
            excess = excess.saturating_sub(segment.size);
            count = index + 1;
        }
        Ok(count)
    }

    fn drop_first(&mut self, count: usize, now_ms: i64) -> Result<(), StorageError> {
        self.generation += 1;
        let delete_at = now_ms.saturating_add(self.config.file_delete_delay_ms.max(0));
        self.sync_producers_before(count)?;
        let tiered = self.is_tiered();
        let dropped: Vec<_> = self.segments.drain(..count).collect();
        for segment in dropped {
            segment.files.close();
            self.doom_files(segment.base_offset, delete_at)?;
            self.snapshots.remove(&segment.base_offset);
            if tiered {
                // One by one: of names that are synced together a crash may take any, and leave a hole in the log.
                self.sync_names()?;
            }
        }
        if tiered { Ok(()) } else { self.sync_names() }
    }

    /// Without the first segments, what their producers sent last is known only by the snapshot behind them.
    fn sync_producers_before(&self, count: usize) -> Result<(), StorageError> {
        let Some(last) = self.segments.get(..count).and_then(<[_]>::last) else { return Ok(()) };
        if last.synced { Ok(()) } else { self.sync_snapshot(self.segment_end(count - 1)) }
    }

    pub(crate) fn sync_snapshot(&self, offset: i64) -> Result<(), StorageError> {
        let path = self.path.join(segment_file(offset, SNAPSHOT));
        match self.directory.disk.open(&path, OpenMode::ReadWrite) {
            Ok(file) => file.sync_data().map_err(failed_to_sync(&path)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed_to("open", &path)(error)),
        }
    }

    /// Renames a segment's files out of the way, to be removed at `delete_at`.
    pub(crate) fn doom_files(&mut self, base_offset: i64, delete_at: i64) -> Result<(), StorageError> {
        for suffix in SEGMENT_SUFFIXES {
            let name = segment_file(base_offset, suffix);
            let (from, to) = (self.path.join(&name), self.path.join(format!("{name}{DELETED}")));
            match self.directory.disk.rename(&from, &to) {
                Ok(()) => self.doomed.push((delete_at, to)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed_to("rename", &from)(error)),
            }
        }
        Ok(())
    }

    /// Removes renamed files whose delay is over.
    pub(crate) fn remove_doomed(&mut self, now_ms: i64) -> Result<(), StorageError> {
        let (due, waiting) = std::mem::take(&mut self.doomed).into_iter().partition(|(at, _)| *at <= now_ms);
        self.doomed = waiting;
        let due: Vec<(i64, std::path::PathBuf)> = due;
        for (_, path) in due {
            match self.directory.disk.remove_file(&path) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(self.fail_unless_short(failed_to("remove", &path)(error)));
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// First offset that the tier does not have, as the owner has verified it. Local retention goes no further.
    pub fn set_tiered_end_offset(&mut self, offset: i64) {
        self.tiered_end_offset = self.tiered_end_offset.max(offset);
    }

    /// The same, as the leader has verified it: it may say less than one before.
    pub fn follow_tiered_end_offset(&mut self, offset: i64) {
        self.tiered_end_offset = offset.min(self.end_offset);
    }

    /// The tier is to be emptied: local retention must not rely on it from here on.
    pub fn forget_tiered(&mut self) {
        self.tiered_end_offset = 0;
    }
}
