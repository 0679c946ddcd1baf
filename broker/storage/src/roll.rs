//! When a log begins a new segment, and how.
//!
//! Order: the old segment's last index entries and the producers' snapshot are written, then the new file is created.
//! None of it is synced here: the next flush syncs the sealed files and the directory before it lets the recovery
//! point pass the new segment's base offset.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};

use crate::disk::{DiskFile, OpenMode, write_all_at};
use crate::error::{StorageError, failed_to};
use crate::file_names::{SNAPSHOT, segment_file};
use crate::index::Entry;
use crate::open_files::Part;
use crate::partition_log::PartitionLog;
use crate::producer_snapshot;
use crate::segment::{Home, Segment};

impl PartitionLog {
    /// Begins a new segment when the active one has no room for `bytes`, or is due (Kafka's `LogSegment.shouldRoll`).
    pub(crate) fn roll_if_needed(
        &mut self,
        bytes: usize,
        max_timestamp: i64,
        last_offset: i64,
        now_ms: i64,
    ) -> Result<(), StorageError> {
        let due = match self.segments.last() {
            None => true,
            Some(active) => {
                active.size + bytes as u64 > self.config.segment_bytes.max(0) as u64
                    || self.due_by_time(active, max_timestamp, now_ms)?
                    || self.index_is_full(active)
                    || last_offset - active.base_offset > i64::from(i32::MAX)
            }
        };
        if due { self.roll(now_ms) } else { Ok(()) }
    }

    /// Seals the active segment if it is due by time, without waiting for the next record.
    pub fn roll_if_due(&mut self, now_ms: i64) -> Result<bool, StorageError> {
        let Some(active) = self.segments.last() else { return Ok(false) };
        let waited = now_ms.saturating_sub(active.created_ms);
        if active.size == 0 || waited <= self.max_segment_ms(active.base_offset) {
            return Ok(false);
        }
        self.roll(now_ms)?;
        Ok(true)
    }

    fn due_by_time(&self, active: &Segment, max_timestamp: i64, now_ms: i64) -> Result<bool, StorageError> {
        let Some(first) = active.first_timestamp(self.home())? else { return Ok(false) };
        let waited = if first >= 0 {
            max_timestamp.saturating_sub(first)
        } else {
            now_ms.saturating_sub(active.created_ms)
        };
        Ok(waited > self.max_segment_ms(active.base_offset))
    }

    /// How long the segment may be active: the topic's time less a share of `segment.jitter.ms` that differs from segment
    /// to segment, and is always the same for one.
    fn max_segment_ms(&self, base_offset: i64) -> i64 {
        let max_ms = self.config.max_segment_ms();
        let jitter_max = self.config.segment_jitter_ms.clamp(0, max_ms.max(0));
        if jitter_max == 0 {
            return max_ms;
        }
        let mut hasher = DefaultHasher::new();
        (&self.topic_partition, base_offset).hash(&mut hasher);
        max_ms - (hasher.finish() % jitter_max as u64) as i64
    }

    fn index_is_full(&self, active: &Segment) -> bool {
        let room = self.config.segment_index_bytes.max(0) as usize;
        active.index.entries() as usize >= room / <crate::index::OffsetEntry as Entry>::WIDTH
            || active.times.entries() as usize + 1 >= room / <crate::index::TimeEntry as Entry>::WIDTH
    }

    /// Seals the active segment and begins one at the log's end. An empty active segment stays.
    pub fn roll(&mut self, now_ms: i64) -> Result<(), StorageError> {
        if self
            .segments
            .last()
            .is_some_and(|active| active.size == 0 && active.base_offset == self.end_offset)
        {
            return Ok(());
        }
        self.seal_active()?;
        let segment = Segment::new(self.end_offset, now_ms);
        let file = segment.file(self.home(), Part::Log)?;
        if self.config.preallocate {
            self.reserve(file.as_ref());
        }
        segment.files.set_unsynced(true);
        self.segments.push(segment);
        self.unsynced.names_changed += 1;
        self.recent.clear();
        Ok(())
    }

    /// Reserves the room of a whole segment, if there is so much (`preallocate`). Less will do: the segment's name is
    /// there, and must not lie in the range of offsets of the segment before it.
    fn reserve(&self, file: &dyn DiskFile) {
        let bytes = self.config.segment_bytes.max(0) as u64;
        if let Err(error) = file.reserve(bytes) {
            tracing::warn!(log = %self.topic_partition, bytes, %error, "preallocate: a segment begins without its room reserved");
        }
    }

    fn seal_active(&mut self) -> Result<(), StorageError> {
        if self.segments.is_empty() {
            return Ok(());
        }
        self.complete_active_indexes()?;
        self.release_reserved()?;
        if let Some(active) = self.segments.last_mut() {
            // An earlier checkpoint may have synced all of it, but not what was written just now.
            active.synced = false;
        }
        self.write_snapshot()
    }

    /// Gives back what `preallocate` reserved behind the active segment's last batch: no more will be written there.
    fn release_reserved(&self) -> Result<(), StorageError> {
        match self.segments.last() {
            Some(active) if self.config.preallocate => {
                let path = self.home().log_path(active.base_offset);
                let file = active.file(self.home(), Part::Log)?;
                file.set_len(active.size).map_err(failed_to("cut", &path))
            }
            _ => Ok(()),
        }
    }

    /// Brings the active segment's index files up to its last batch, as Kafka does for a segment it leaves.
    pub(crate) fn complete_active_indexes(&mut self) -> Result<(), StorageError> {
        let home = Home { pool: &self.directory.pool, directory: &self.path };
        if let Some(active) = self.segments.last_mut() {
            active.push_time_entry();
            active.write_indexes(home)?;
        }
        Ok(())
    }

    /// Writes the producers' state at the log's end.
    pub(crate) fn write_snapshot(&mut self) -> Result<(), StorageError> {
        self.write_snapshot_at(self.end_offset)
    }

    /// Writes the producers' state as the one at `offset`. What could not be written whole, on a full disk, is no snapshot
    /// and does not stay: the log may go on past this offset and never come back to it.
    pub(crate) fn write_snapshot_at(&mut self, offset: i64) -> Result<(), StorageError> {
        let path = self.path.join(segment_file(offset, SNAPSHOT));
        let disk = &self.directory.disk;
        let file = disk.open(&path, OpenMode::CreateEmpty).map_err(failed_to("create", &path))?;
        self.unsynced.names_changed += 1;
        if let Err(error) = write_all_at(file.as_ref(), &producer_snapshot::encode(&self.producers), 0) {
            self.snapshots.remove(&offset);
            self.remove_if_there(&segment_file(offset, SNAPSHOT))?;
            return Err(failed_to("write", &path)(error));
        }
        self.snapshots.insert(offset);
        Ok(())
    }
}
