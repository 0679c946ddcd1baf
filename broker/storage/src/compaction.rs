//! Compaction of a log: what is due, and how cleaned segments take the place of the old ones.
//!
//! Order of the swap, a group of segments at a time, the oldest first: the indexes are renamed to `.swap` and the
//! directory synced; the log is renamed to `.log.swap` and the directory synced, which is the commit; the old files are
//! renamed to `.deleted` and the directory synced; the `.swap` files get their names, the log last, and the directory is
//! synced again. A crash before the commit leaves the old segments, after it `leftovers` finishes the rest. So a
//! tombstone never goes before the records it buries: those lie in the same or an older group. A shortage before a
//! group's commit ends the pass there, with the log whole; the directory is held open, so that none can come after it.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;

use crate::cleaner::{CleanedGroup, Compacted, CompactionTask, Source};
use crate::cleaner_limits::CleanerLimits;
use crate::cold_compaction::ColdSegment;
use crate::disk::DiskDir;
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{
    CLEANED, DELETED, INDEX, LOG, SEGMENT_SUFFIXES, SNAPSHOT, SWAP, TIME_INDEX, TXN_INDEX, segment_file,
};
use crate::partition_log::PartitionLog;

/// How much of a log is worth cleaning.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dirt {
    pub first_dirty_offset: i64,
    /// Segments from here on are active, too young, undecided or not flushed.
    pub first_uncleanable_offset: i64,
    pub clean_bytes: u64,
    pub dirty_bytes: u64,
    /// Older than `max.compaction.lag.ms`: clean it whatever the ratio.
    pub overdue: bool,
}

impl Dirt {
    /// Dirty bytes by all cleanable ones, 0 to 1.
    pub fn ratio(&self) -> f64 {
        let all = self.clean_bytes + self.dirty_bytes;
        if all == 0 { 0.0 } else { self.dirty_bytes as f64 / all as f64 }
    }

    /// Adds the next segment that may be cleaned.
    fn count(&mut self, end_offset: i64, bytes: u64) {
        self.first_uncleanable_offset = end_offset;
        let is_clean = end_offset <= self.first_dirty_offset;
        *if is_clean { &mut self.clean_bytes } else { &mut self.dirty_bytes } += bytes;
    }
}

/// What a compaction did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CompactionStats {
    pub segments_before: usize,
    pub segments_after: usize,
    pub bytes_before: u64,
    pub bytes_after: u64,
    /// False when the log changed meanwhile and the work was thrown away.
    pub applied: bool,
}

impl PartitionLog {
    /// How dirty the log is below `limit_offset` (the last stable offset). `None` when it is not compacted at all.
    pub fn dirt(&self, now_ms: i64, limit_offset: i64) -> Result<Option<Dirt>, StorageError> {
        self.dirt_with(now_ms, limit_offset, &[])
    }

    /// The same of a log whose beginning, `cold`, has left the disk.
    pub(crate) fn dirt_with(
        &self,
        now_ms: i64,
        limit_offset: i64,
        cold: &[ColdSegment],
    ) -> Result<Option<Dirt>, StorageError> {
        if !self.config.cleanup_policy.compact {
            return Ok(None);
        }
        let limit = limit_offset.min(self.flushed_offset);
        let lag_ms = self.config.min_compaction_lag_ms;
        let first_base = self.segments.first().map_or(self.end_offset, |first| first.base_offset);
        let first_offset = cold.first().map_or(first_base, |first| first.from);
        let first_dirty_offset = self.cleaned_offset.max(first_offset);
        let mut dirt = Dirt {
            first_dirty_offset,
            first_uncleanable_offset: first_offset,
            clean_bytes: 0,
            dirty_bytes: 0,
            overdue: false,
        };
        let too_young = |end: i64, largest: i64| {
            lag_ms > 0 && end > first_dirty_offset && largest > now_ms.saturating_sub(lag_ms)
        };
        for segment in cold {
            if too_young(segment.to, segment.max_timestamp) {
                return Ok(Some(dirt));
            }
            dirt.count(segment.to, segment.bytes);
        }
        for (index, segment) in self.segments.iter().enumerate() {
            let end = self.segment_end(index);
            let largest = segment.largest_timestamp(self.home())?.timestamp;
            let is_active = index + 1 == self.segments.len();
            if is_active || end > limit || too_young(end, largest) {
                break;
            }
            dirt.count(end, segment.size);
            if end > first_dirty_offset {
                let first = segment.first_timestamp(self.home())?.unwrap_or(now_ms);
                dirt.overdue |= now_ms.saturating_sub(first) > self.config.max_compaction_lag_ms;
            }
        }
        Ok(Some(dirt))
    }

    /// What to clean now, or `None` when the log is clean enough, or compaction is stopped. `limit_offset` is the last
    /// stable offset. A log whose beginning is cold is never cleaned without it (`cold_compaction`).
    pub fn compaction_task(
        &self,
        now_ms: i64,
        limit_offset: i64,
        limits: CleanerLimits,
    ) -> Result<Option<CompactionTask>, StorageError> {
        if self.log_start_offset < self.local_start_offset() {
            return Ok(None);
        }
        self.task_with(now_ms, limit_offset, limits, Vec::new())
    }

    pub(crate) fn task_with(
        &self,
        now_ms: i64,
        limit_offset: i64,
        limits: CleanerLimits,
        mut cold: Vec<ColdSegment>,
    ) -> Result<Option<CompactionTask>, StorageError> {
        self.directory.check()?;
        if self.directory.is_compaction_stopped() {
            return Ok(None);
        }
        let Some(dirt) = self.dirt_with(now_ms, limit_offset, &cold)? else { return Ok(None) };
        let due = dirt.overdue || dirt.ratio() > self.config.min_cleanable_dirty_ratio;
        if dirt.dirty_bytes == 0 || !due {
            return Ok(None);
        }
        cold.retain(|segment| segment.to <= dirt.first_uncleanable_offset);
        let mut sources = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            let end_offset = self.segment_end(index);
            if end_offset > dirt.first_uncleanable_offset {
                break;
            }
            sources.push(Source {
                base_offset: segment.base_offset,
                end_offset,
                size: segment.size,
                path: self.home().log_path(segment.base_offset),
                aborted: self.aborted_transactions(segment.base_offset, end_offset)?,
            });
        }
        let last_of_producer: BTreeMap<i64, i64> = self
            .producers
            .entries()
            .iter()
            .filter_map(|(id, entry)| Some((*id, entry.last_batch()?.last_offset)))
            .collect();
        Ok(Some(CompactionTask {
            cold,
            sources,
            first_dirty_offset: dirt.first_dirty_offset,
            last_of_producer,
            ..self.rewriting_task(now_ms, limits)
        }))
    }

    /// What writes segments of this log anew has to know, whatever they are to hold.
    pub(crate) fn rewriting_task(&self, now_ms: i64, limits: CleanerLimits) -> CompactionTask {
        CompactionTask {
            directory: Arc::clone(&self.directory),
            gate: Arc::clone(&self.gate),
            partition_path: self.path.clone(),
            generation: self.generation,
            cold: Vec::new(),
            sources: Vec::new(),
            first_dirty_offset: 0,
            last_of_producer: BTreeMap::new(),
            now_ms,
            delete_retention_ms: self.config.delete_retention_ms,
            segment_bytes: self.config.segment_bytes.max(0) as u64,
            index_interval_bytes: self.config.index_interval_bytes.max(0) as u64,
            limits,
        }
    }

    /// Everything below was compacted before, 0 if nothing was: Kafka's cleaner checkpoint.
    pub fn cleaned_offset(&self) -> i64 {
        self.cleaned_offset
    }

    /// Swaps cleaned segments in. When segments were cut or removed since the task was made, the work is dropped.
    pub fn compacted(&mut self, done: Compacted, now_ms: i64) -> Result<CompactionStats, StorageError> {
        self.directory.check()?;
        let mut stats = CompactionStats { bytes_before: done.bytes_before, ..CompactionStats::default() };
        if done.generation != self.generation {
            self.discard(&done.groups)?;
            return Ok(stats);
        }
        let names = match self.directory.disk.open_dir(&self.path) {
            Ok(names) => names,
            Err(error) => return Err(self.give_up(&done.groups, failed_to("open", &self.path)(error))),
        };
        self.generation += 1;
        self.forget_places();
        stats.applied = true;
        // Of the segments that are about to be exchanged the tier has what they were, not what they will be.
        if let Some(first) = done.groups.first() {
            self.tiered_end_offset = self.tiered_end_offset.min(first.segment.base_offset);
        }
        let mut groups = VecDeque::from(done.groups);
        while let Some(group) = groups.front() {
            if let Err(error) = self.stage_swap(group, names.as_ref()) {
                return Err(self.give_up(groups.make_contiguous(), error));
            }
            let Some(group) = groups.pop_front() else { break };
            stats.segments_after += 1;
            stats.bytes_after += group.segment.size;
            let swapped = self.swap_in(group, names.as_ref(), now_ms);
            stats.segments_before += swapped.map_err(|error| self.fail(error))?;
        }
        self.cleaned_offset = done.clean_end_offset;
        self.directory.note_cleaned(&self.topic_partition, self.cleaned_offset)?;
        Ok(stats)
    }

    /// Puts one segment in the place of the one that it was made from.
    pub(crate) fn exchange(
        &mut self,
        group: CleanedGroup,
        names: &dyn DiskDir,
        now_ms: i64,
    ) -> Result<(), StorageError> {
        self.generation += 1;
        self.forget_places();
        if let Err(error) = self.stage_swap(&group, names) {
            return Err(self.give_up(std::slice::from_ref(&group), error));
        }
        self.swap_in(group, names, now_ms).map(drop).map_err(|error| self.fail(error))
    }

    /// Ends a pass at an error that came before these groups counted for anything.
    fn give_up(&self, groups: &[CleanedGroup], error: StorageError) -> StorageError {
        let error = self.fail_unless_short(error);
        match self.discard(groups) {
            Ok(()) => error,
            Err(undo) => self.fail_unless_short(undo),
        }
    }

    /// Removes what was written for groups that have not been committed.
    pub(crate) fn discard(&self, groups: &[CleanedGroup]) -> Result<(), StorageError> {
        for group in groups {
            for suffix in [LOG, INDEX, TIME_INDEX, TXN_INDEX] {
                let name = segment_file(group.segment.base_offset, suffix);
                self.remove_if_there(&format!("{name}{CLEANED}"))?;
                self.remove_if_there(&format!("{name}{SWAP}"))?;
            }
        }
        Ok(())
    }

    /// The first half of an exchange: up to the name that commits it.
    fn stage_swap(&self, group: &CleanedGroup, names: &dyn DiskDir) -> Result<(), StorageError> {
        for suffix in group.derived() {
            self.rename_segment_file(group.segment.base_offset, suffix, CLEANED, SWAP)?;
        }
        names.sync().map_err(failed_to_sync(&self.path))?;
        self.rename_segment_file(group.segment.base_offset, LOG, CLEANED, SWAP)
    }

    /// The second half: the commit, and all that follows from it. Says how many old segments went.
    fn swap_in(
        &mut self,
        group: CleanedGroup,
        names: &dyn DiskDir,
        now_ms: i64,
    ) -> Result<usize, StorageError> {
        let base_offset = group.segment.base_offset;
        let first = self.segments.partition_point(|segment| segment.base_offset < base_offset);
        let after = self.segments.partition_point(|segment| segment.base_offset < group.end_offset);
        let path = self.path.clone();
        let sync = || names.sync().map_err(failed_to_sync(&path));
        sync()?;
        let delete_at = now_ms.saturating_add(self.config.file_delete_delay_ms.max(0));
        let derived = group.derived();
        let old: Vec<_> = self.segments.splice(first..after, [group.segment]).collect();
        for segment in &old {
            segment.files.close();
            self.doom_replaced(segment.base_offset, segment.base_offset == base_offset, delete_at)?;
        }
        sync()?;
        for suffix in derived {
            self.rename_segment_file(base_offset, suffix, SWAP, "")?;
        }
        self.rename_segment_file(base_offset, LOG, SWAP, "")?;
        sync()?;
        Ok(old.len())
    }

    /// Renames a replaced segment's files out of the way. The snapshot at the group's base is still true and stays.
    fn doom_replaced(
        &mut self,
        base_offset: i64,
        is_first: bool,
        delete_at: i64,
    ) -> Result<(), StorageError> {
        for suffix in SEGMENT_SUFFIXES.into_iter().filter(|suffix| !(is_first && *suffix == SNAPSHOT)) {
            let from = self.path.join(segment_file(base_offset, suffix));
            let to = self.path.join(format!("{}{DELETED}", segment_file(base_offset, suffix)));
            match self.directory.disk.rename(&from, &to) {
                Ok(()) => self.doomed.push((delete_at, to)),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                Err(error) => return Err(failed_to("rename", &from)(error)),
            }
        }
        if !is_first {
            self.snapshots.remove(&base_offset);
        }
        Ok(())
    }

    fn rename_segment_file(
        &self,
        base_offset: i64,
        suffix: &str,
        from: &str,
        to: &str,
    ) -> Result<(), StorageError> {
        let name = segment_file(base_offset, suffix);
        let from: PathBuf = self.path.join(format!("{name}{from}"));
        let to: PathBuf = self.path.join(format!("{name}{to}"));
        self.directory.disk.rename(&from, &to).map_err(failed_to("rename", &from))
    }
}
