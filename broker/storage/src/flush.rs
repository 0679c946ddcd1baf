//! Making a log durable: group commit, run outside the log's lock.
//!
//! Order in a flush: the leader epochs, then every file with unsynced bytes, then the directory's names, then (for a
//! new partition) the parent's. Only when all of it succeeded does the recovery point move. A task that is dropped, or
//! whose log was cut meanwhile, moves nothing.
//!
//! The first flush of a new partition is what its first producer waits for, so it syncs only what a crash must not take:
//! `partition.metadata` (or a namesake would inherit the records), the segment, and the names of both and of the
//! directory. An only epoch that began with the first record is left to the next checkpoint: its batches say the same.
//!
//! A failed sync stops the whole log directory, from inside `FlushTask::run`: no caller can forget it, nobody retries.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::checkpoint::{self, DirSync};
use crate::directory::Directory;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{LEADER_EPOCHS, PARTITION_METADATA, SNAPSHOT, TXN_INDEX, segment_file};
use crate::open_files::Part;
use crate::partition_log::PartitionLog;
use crate::segment::Segment;
use crate::task_gate::TaskGate;

/// What has to be synced, with everything needed to do it. See the module.
#[derive(Debug)]
pub struct FlushTask {
    directory: Arc<Directory>,
    gate: Arc<TaskGate>,
    partition_path: PathBuf,
    files: Vec<(PathBuf, Arc<dyn DiskFile>)>,
    epochs: Option<Vec<u8>>,
    sync_names: bool,
    done: FlushedUpTo,
}

/// Proof of a flush: give it to [`PartitionLog::flushed`].
#[derive(Debug)]
pub struct FlushedUpTo {
    offset: i64,
    truncations: u64,
    names: u64,
    epochs: u64,
    created: bool,
    sealed: Vec<i64>,
    checkpointed: bool,
}

impl FlushedUpTo {
    /// First offset that the flush did not cover.
    pub fn offset(&self) -> i64 {
        self.offset
    }
}

impl FlushTask {
    /// Syncs. Call it without holding the log's lock; it takes as long as the disk takes.
    pub fn run(self) -> Result<FlushedUpTo, StorageError> {
        let one_at_a_time = self.gate.flush();
        let in_place = self.gate.pass(&self.partition_path)?;
        self.directory.check()?;
        let disk = self.directory.disk.as_ref();
        let stop = |error: StorageError| {
            self.directory.fail(&error);
            error
        };
        let stop_unless_short = |error: StorageError| if error.is_shortage() { error } else { stop(error) };
        if let Some(epochs) = &self.epochs {
            self.gate.epochs_on_disk.store(true, Ordering::Relaxed);
            checkpoint::replace(disk, &self.partition_path, LEADER_EPOCHS, epochs, DirSync::ByCaller)
                .map_err(stop_unless_short)?;
        }
        for (path, file) in &self.files {
            file.sync_data().map_err(failed_to_sync(path)).map_err(stop)?;
        }
        if self.sync_names {
            disk.sync_dir(&self.partition_path)
                .map_err(failed_to_sync(&self.partition_path))
                .map_err(stop_unless_short)?;
        }
        if self.done.created {
            disk.sync_dir(&self.directory.path)
                .map_err(failed_to_sync(&self.directory.path))
                .map_err(stop_unless_short)?;
        }
        // Another log of the directory may have failed meanwhile; acknowledging is then no longer ours to allow.
        self.directory.check()?;
        drop((in_place, one_at_a_time));
        Ok(self.done)
    }
}

impl PartitionLog {
    /// What to sync so that everything appended so far is durable; `None` when it is already.
    pub fn flush_task(&self) -> Result<Option<FlushTask>, StorageError> {
        self.directory.check()?;
        if self.flushed_offset >= self.end_offset { Ok(None) } else { self.task(false).map(Some) }
    }

    /// As `flush_task`, and brings indexes and the producers' snapshot to disk too, so that recovery after a crash
    /// reads only what comes after. Meant for the same rhythm as [`crate::log_dir::LogDir::checkpoint`].
    pub fn checkpoint_task(&mut self) -> Result<Option<FlushTask>, StorageError> {
        self.directory.check()?;
        let current = self.snapshots.last().is_some_and(|last| *last >= self.end_offset);
        // A segment that was sealed for its age, with nothing appended since, has indexes that no flush has synced.
        let active = self.segments.len().saturating_sub(1);
        let sealed_are_synced = self.segments.iter().take(active).all(|segment| segment.synced);
        if self.segments.iter().all(|segment| segment.size == 0)
            || (current && sealed_are_synced && self.flushed_offset >= self.end_offset)
        {
            // Where the epochs begin tells where the log does, should the checkpoint of the log starts be lost.
            let epochs_are_synced = self.epochs.changes() == self.unsynced.epochs_synced;
            return if epochs_are_synced { self.flush_task() } else { self.task(true).map(Some) };
        }
        self.complete_active_indexes().map_err(|error| self.fail_unless_short(error))?;
        if !current {
            self.write_snapshot().map_err(|error| self.fail_unless_short(error))?;
            self.remove_stray_snapshots()?;
        }
        self.task(true).map(Some)
    }

    pub(crate) fn task(&self, checkpoint: bool) -> Result<FlushTask, StorageError> {
        let mut files = Vec::new();
        let mut sealed = Vec::new();
        if self.unsynced.is_new {
            self.add_if_there(PARTITION_METADATA.to_owned(), &mut files)?;
        }
        let active = self.segments.len().saturating_sub(1);
        for (index, segment) in self.segments.iter().enumerate().filter(|(_, segment)| !segment.synced) {
            self.add_part(segment, Part::Log, &mut files)?;
            if index < active {
                sealed.push(segment.base_offset);
            }
            if index < active || checkpoint {
                self.add_derived(segment, self.segment_end(index), &mut files)?;
            }
        }
        let epochs_changed = self.epochs.changes() != self.unsynced.epochs_synced
            && (checkpoint || !self.batches_tell_the_epochs());
        let names_changed = self.unsynced.names_changed != self.unsynced.names_synced;
        Ok(FlushTask {
            directory: Arc::clone(&self.directory),
            gate: Arc::clone(&self.gate),
            partition_path: self.path.clone(),
            files,
            epochs: epochs_changed.then(|| self.epochs.encode()),
            sync_names: names_changed || epochs_changed || self.unsynced.is_new,
            done: FlushedUpTo {
                offset: self.end_offset,
                truncations: self.truncations,
                names: self.unsynced.names_changed,
                epochs: if epochs_changed { self.epochs.changes() } else { self.unsynced.epochs_synced },
                created: self.unsynced.is_new,
                sealed,
                checkpointed: checkpoint,
            },
        })
    }

    /// Without the epochs' file, would recovery find the same ones in the batches?
    fn batches_tell_the_epochs(&self) -> bool {
        let ([segment], [only]) = (self.segments.as_slice(), self.epochs.entries()) else { return false };
        let from = only.start_offset;
        !self.gate.epochs_on_disk.load(Ordering::Relaxed)
            && (from, from) == (segment.base_offset, self.log_start_offset)
            && from < self.end_offset
    }

    fn add_part(
        &self,
        segment: &Segment,
        part: Part,
        files: &mut Vec<(PathBuf, Arc<dyn DiskFile>)>,
    ) -> Result<(), StorageError> {
        files.push((segment.part_path(self.home(), part), segment.file(self.home(), part)?));
        Ok(())
    }

    /// Adds what can be rebuilt from the log, but had better not be.
    fn add_derived(
        &self,
        segment: &Segment,
        end_offset: i64,
        files: &mut Vec<(PathBuf, Arc<dyn DiskFile>)>,
    ) -> Result<(), StorageError> {
        if segment.index.entries() > 0 {
            self.add_part(segment, Part::Index, files)?;
        }
        if segment.times.entries() > 0 {
            self.add_part(segment, Part::TimeIndex, files)?;
        }
        self.add_if_there(segment_file(segment.base_offset, TXN_INDEX), files)?;
        self.add_if_there(segment_file(end_offset, SNAPSHOT), files)
    }

    fn add_if_there(
        &self,
        name: String,
        files: &mut Vec<(PathBuf, Arc<dyn DiskFile>)>,
    ) -> Result<(), StorageError> {
        let path = self.path.join(name);
        match self.directory.disk.open(&path, OpenMode::ReadWrite) {
            Ok(file) => files.push((path, file)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(failed_to("open", &path)(error)),
        }
        Ok(())
    }

    /// Takes note of a successful flush: moves the recovery point.
    pub fn flushed(&mut self, done: FlushedUpTo) {
        if done.truncations != self.truncations {
            return;
        }
        self.flushed_offset = self.flushed_offset.max(done.offset.min(self.end_offset));
        self.unsynced.names_synced = self.unsynced.names_synced.max(done.names);
        self.unsynced.epochs_synced = self.unsynced.epochs_synced.max(done.epochs);
        if done.created {
            self.unsynced.is_new = false;
        }
        for segment in &mut self.segments {
            if done.sealed.binary_search(&segment.base_offset).is_ok() {
                segment.synced = true;
                segment.files.set_unsynced(false);
            }
        }
        if done.offset == self.end_offset
            && let Some(active) = self.segments.last_mut()
        {
            active.files.set_unsynced(false);
            active.synced = done.checkpointed && !active.index.has_pending();
        }
    }

    /// Brings everything to disk for a clean shutdown. The log is then reopened without reading a batch.
    pub fn close(mut self) -> Result<(), StorageError> {
        if let Some(task) = self.checkpoint_task()? {
            let done = task.run()?;
            self.flushed(done);
        }
        self.remove_doomed(i64::MAX)?;
        self.remember();
        Ok(())
    }

    /// Notes this log's recovery point, log start and high watermark for the directory's next checkpoint. They are told by the log
    /// itself, so that nobody can note them of a log that is gone: another of its name would inherit them.
    pub fn remember(&self) {
        let (flushed, start) = (self.flushed_offset, self.log_start_offset);
        self.directory.remember(&self.topic_partition, flushed, start, self.high_watermark());
    }
}

#[cfg(test)]
#[path = "flush_tests.rs"]
mod tests;
