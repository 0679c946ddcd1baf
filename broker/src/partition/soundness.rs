//! What of a log may be handed out: nothing that the disk has not kept as it was written.

use std::fmt;
use std::sync::Arc;

use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::error::{ReadError, StorageError};
use firn_storage::mend::{Looked, Mended, MendingTask};
use firn_storage::partition_log::PartitionLog;
use firn_storage::read::LogSlice;

use super::{Partition, PartitionError};

impl Partition {
    /// As much of a slice, read from `from` on, as is what it was; at least one batch of it, unless it was empty. What was
    /// appended or looked at a moment ago is known to be, and costs no look.
    pub async fn checked(self: &Arc<Self>, slice: LogSlice, from: i64) -> Result<LogSlice, PartitionError> {
        if slice.is_known() {
            return Ok(slice);
        }
        let partition = self.clone();
        firn_blocking::run(move || partition.check(slice, from)).await
    }

    /// The same, where the caller's thread may wait for the disk.
    pub fn check(self: &Arc<Self>, mut slice: LogSlice, from: i64) -> Result<LogSlice, PartitionError> {
        let Some(rules) = self.with_log(|log| log.rules_of(&slice))? else {
            return Ok(LogSlice::empty(from));
        };
        let Some(damage) = slice.check(from, &rules) else { return Ok(slice) };
        self.is_damaged(damage.segment, &damage);
        if slice.len > 0 { Ok(slice) } else { Err(damage.error.into()) }
    }

    /// Takes note that the log is not what it was, if that is what the error says.
    pub(super) fn noted(self: &Arc<Self>, segment: i64, error: ReadError) -> PartitionError {
        if let ReadError::Storage(error @ StorageError::Corrupt { .. }) = &error {
            self.is_damaged(segment, error);
        }
        error.into()
    }

    /// What lies in the segment that begins at this offset is not what it was.
    pub(super) fn is_damaged(self: &Arc<Self>, segment: i64, error: &dyn fmt::Display) {
        if self.replication.damaged.found(self, segment) {
            tracing::error!(partition = %self.name, segment, %error, "the disk has not kept what was written");
        }
    }

    /// Forgets what needs no second look, but for the newest: called every half minute.
    pub fn age(&self) {
        self.with_log(|log| log.age()).ok();
    }

    /// A look at the segment that holds `offset`; `None` if there is none. If it is to be mended, it is sealed first.
    pub fn mending_task(
        &self,
        offset: i64,
        sealed: bool,
        now_ms: i64,
    ) -> Result<Option<MendingTask>, PartitionError> {
        self.with_log(|log| {
            if sealed && log.is_active_at(offset) {
                log.roll(now_ms)?;
            }
            // It remembers no keys.
            Ok(log.mending_task(offset, now_ms, CleanerLimits::of_memory(0))?)
        })?
    }

    /// Whether a segment is what it was, as far as was looked; if it is not, note is taken of that.
    pub fn judge(self: &Arc<Self>, segment: i64, task: &MendingTask, looked: &Looked) -> bool {
        let is_sound = looked.missing.is_empty();
        if !is_sound && self.is_current(task) {
            self.is_damaged(segment, &looked.reason);
        }
        is_sound
    }

    /// Whether what the task has found is of the log as it is.
    pub fn is_current(&self, task: &MendingTask) -> bool {
        self.with_log(|log| log.is_current(task)).unwrap_or(false)
    }

    /// Looks at a whole segment: false if it is not what it was, of which note is taken.
    pub fn is_sound(self: &Arc<Self>, segment: i64, now_ms: i64) -> Result<bool, PartitionError> {
        let Some(task) = self.mending_task(segment, false, now_ms)? else { return Ok(true) };
        let looked = task.look()?;
        Ok(self.judge(segment, &task, &looked))
    }

    /// Whether compaction may have taken batches away.
    pub fn may_have_gaps(&self) -> Result<bool, PartitionError> {
        self.with_log(|log| log.may_have_gaps())
    }

    /// The base offset of the first segment here at or above an offset.
    pub fn segment_from(&self, offset: i64) -> Option<i64> {
        self.with_log(|log| log.segment_from(offset)).ok().flatten()
    }

    /// Puts a mended segment in its place; false when the log has changed too much since it was looked at.
    pub fn mended(&self, mended: Mended, now_ms: i64) -> Result<bool, PartitionError> {
        Ok(self.with_log(|log| log.mended(mended, now_ms))??)
    }

    /// Other replicas have the same gaps between batches.
    pub fn tolerate_gaps(&self) {
        self.with_log(PartitionLog::tolerate_gaps).ok();
    }
}
