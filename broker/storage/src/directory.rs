//! What the logs of one log directory share: its disk, its open files, its checkpoints, and its health.
//!
//! Fail-stop: once a sync, or the undoing of a failed write, has failed, nobody knows what the disk holds. The whole
//! directory is then offline until the process restarts and recovery reads what is really there. Nothing is retried.
//!
//! The checkpoints bound recovery, so they err on one side only. A recovery point on disk never exceeds what was
//! synced: it is lowered, durably, before a log is cut below it, and so is a high watermark, which never exceeds what was
//! committed. A log start on disk
//! goes back only with a log that begins anew.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use firn_model::ids::TopicPartition;
use parking_lot::Mutex;

use crate::checkpoint::{self, DirSync};
use crate::disk::Disk;
use crate::error::StorageError;
use crate::file_names::{CLEANER_OFFSETS, HIGH_WATERMARKS, LOG_START_OFFSETS, RECOVERY_POINTS};
use crate::open_files::OpenFiles;

/// Settings of a log directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogDirOptions {
    /// Segment files held open at most. Files with unsynced writes may exceed it for a while.
    pub open_files_max: usize,
    /// Bytes of the file system that clients leave free, and of which compaction takes half at most.
    pub reserve_bytes: u64,
}

impl Default for LogDirOptions {
    fn default() -> Self {
        Self { open_files_max: 8192, reserve_bytes: 0 }
    }
}

/// Recovery points, log starts and high watermarks, as they were last given; what is on disk may be older.
#[derive(Debug, Default)]
pub(crate) struct Checkpoints {
    pub(crate) recovery_points: BTreeMap<TopicPartition, i64>,
    pub(crate) log_starts: BTreeMap<TopicPartition, i64>,
    /// Where they are not 0.
    pub(crate) high_watermarks: BTreeMap<TopicPartition, i64>,
    /// Ends of what the cleaner has done; lost, it only begins again.
    pub(crate) cleaned: BTreeMap<TopicPartition, i64>,
    /// The recovery points were damaged: of what is not among them any of it may have been synced.
    pub(crate) points_are_lost: bool,
    /// The log starts were damaged: a log that is not among them may start before its first segment.
    pub(crate) starts_are_lost: bool,
}

#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) path: PathBuf,
    pub(crate) pool: OpenFiles,
    reserve_bytes: u64,
    checkpoints: Mutex<Checkpoints>,
    failed: OnceLock<String>,
    /// No compaction begins, and those under way end.
    compaction_stopped: AtomicBool,
}

impl Directory {
    pub(crate) fn new(
        disk: Arc<dyn Disk>,
        path: &Path,
        options: LogDirOptions,
        checkpoints: Checkpoints,
    ) -> Self {
        Self {
            pool: OpenFiles::new(Arc::clone(&disk), options.open_files_max),
            disk,
            path: path.to_owned(),
            reserve_bytes: options.reserve_bytes,
            checkpoints: Mutex::new(checkpoints),
            failed: OnceLock::new(),
            compaction_stopped: AtomicBool::new(false),
        }
    }

    /// Why the directory stopped, if it did.
    pub(crate) fn failed(&self) -> Option<&str> {
        self.failed.get().map(String::as_str)
    }

    /// Stops the directory; the first reason stays.
    pub(crate) fn fail(&self, error: &StorageError) {
        if self.failed.set(error.to_string()).is_ok() {
            tracing::error!(directory = %self.path.display(), %error, "the log directory is offline until the broker restarts");
        }
    }

    /// Refuses everything once the directory has stopped.
    pub(crate) fn check(&self) -> Result<(), StorageError> {
        match self.failed() {
            None => Ok(()),
            Some(reason) => Err(StorageError::Offline {
                what: format!("log directory {}", self.path.display()),
                reason: reason.to_owned(),
            }),
        }
    }

    /// Refuses bytes of compaction that would leave less than half of the reserve: retention, deletion and checkpoints,
    /// which make room, need some themselves. The other half is compaction's: it makes room, too, where clients have filled
    /// the disk as far as they may.
    pub(crate) fn check_room(&self, path: &Path, bytes: usize) -> Result<(), StorageError> {
        match self.disk.space(&self.path) {
            Ok(space) if space.free < (self.reserve_bytes / 2).saturating_add(bytes as u64) => {
                Err(StorageError::DiskFull { action: "write", path: path.to_owned() })
            }
            // Who cannot be asked will say so when it is written to.
            _ => Ok(()),
        }
    }

    pub(crate) fn stop_compaction(&self) {
        self.compaction_stopped.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_compaction_stopped(&self) -> bool {
        self.compaction_stopped.load(Ordering::Relaxed)
    }

    /// Refuses the next step of a compaction once they are stopped.
    pub(crate) fn check_compaction(&self) -> Result<(), StorageError> {
        if self.is_compaction_stopped() { Err(StorageError::CompactionStopped) } else { Ok(()) }
    }

    /// What the checkpoints say of a partition: its recovery point and its log start.
    pub(crate) fn recall(&self, partition: &TopicPartition) -> (Option<i64>, Option<i64>) {
        let checkpoints = self.checkpoints.lock();
        (checkpoints.recovery_points.get(partition).copied(), checkpoints.log_starts.get(partition).copied())
    }

    /// Whether nobody knows how much of a partition was synced, because the checkpoint was damaged: then nothing in its log is taken for
    /// a write that was not finished. What ends at `offset` for now is noted as known to be longer, since the next
    /// start finds a checkpoint that is sound.
    pub(crate) fn doubts_end(&self, partition: &TopicPartition, offset: i64) -> bool {
        let mut checkpoints = self.checkpoints.lock();
        let is_lost = checkpoints.points_are_lost && !checkpoints.recovery_points.contains_key(partition);
        if is_lost {
            checkpoints.recovery_points.insert(partition.clone(), offset + 1);
        }
        is_lost
    }

    /// Whether nobody knows where a log starts, because the checkpoint was damaged. Then it starts at `offset`, which is
    /// noted, be it 0, since the next start finds a checkpoint that is sound.
    pub(crate) fn doubts_start(&self, partition: &TopicPartition, offset: i64) -> bool {
        let mut checkpoints = self.checkpoints.lock();
        let is_lost = checkpoints.starts_are_lost && !checkpoints.log_starts.contains_key(partition);
        if is_lost {
            checkpoints.log_starts.insert(partition.clone(), offset);
        }
        is_lost
    }

    /// What the checkpoint says of a partition's high watermark; 0 if nothing.
    pub(crate) fn high_watermark(&self, partition: &TopicPartition) -> i64 {
        self.checkpoints.lock().high_watermarks.get(partition).copied().unwrap_or(0)
    }

    /// Notes a log's offsets for the next checkpoint.
    pub(crate) fn remember(
        &self,
        partition: &TopicPartition,
        recovery_point: i64,
        log_start_offset: i64,
        high_watermark: i64,
    ) {
        let mut checkpoints = self.checkpoints.lock();
        if high_watermark > 0 {
            checkpoints.high_watermarks.insert(partition.clone(), high_watermark);
        }
        checkpoints.recovery_points.insert(partition.clone(), recovery_point);
        // 0 goes without saying, unless it has been said (`keep_log_start`).
        if log_start_offset > 0 || checkpoints.log_starts.contains_key(partition) {
            // A start that was noted a moment ago, and that the log is about to follow, stays.
            let noted = checkpoints.log_starts.entry(partition.clone()).or_insert(log_start_offset);
            *noted = (*noted).max(log_start_offset);
        }
    }

    /// Has a log start on disk, be it 0, before segments above it leave for the tier: from then on the files do not
    /// tell where the log starts. Costs nothing once it is there.
    pub(crate) fn keep_log_start(&self, partition: &TopicPartition, offset: i64) -> Result<(), StorageError> {
        if self.checkpoints.lock().log_starts.contains_key(partition) {
            return Ok(());
        }
        // What could not be written has not been said: the next call has to try again.
        let noted = self.raise_log_start(partition, offset);
        if noted.is_err() {
            self.checkpoints.lock().log_starts.remove(partition);
        }
        noted
    }

    /// The end of what was compacted, 0 if nothing was.
    pub(crate) fn cleaned(&self, partition: &TopicPartition) -> i64 {
        self.checkpoints.lock().cleaned.get(partition).copied().unwrap_or(0)
    }

    /// Notes, durably, how far the cleaner has come.
    pub(crate) fn note_cleaned(&self, partition: &TopicPartition, offset: i64) -> Result<(), StorageError> {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.cleaned.insert(partition.clone(), offset);
        self.write(CLEANER_OFFSETS, &checkpoints.cleaned, DirSync::Now)
    }

    /// Writes the checkpoints.
    pub(crate) fn write_checkpoints(&self) -> Result<(), StorageError> {
        self.check()?;
        let checkpoints = self.checkpoints.lock();
        self.write(RECOVERY_POINTS, &checkpoints.recovery_points, DirSync::ByCaller)?;
        self.write(HIGH_WATERMARKS, &checkpoints.high_watermarks, DirSync::ByCaller)?;
        self.write(LOG_START_OFFSETS, &checkpoints.log_starts, DirSync::Now)
    }

    /// Durably lowers a recovery point, and a high watermark, before their log is cut at `offset`, so that recovery will read
    /// what is written there next, and nobody takes it for committed. What is low enough costs nothing.
    pub(crate) fn lower_to(&self, partition: &TopicPartition, offset: i64) -> Result<(), StorageError> {
        let mut checkpoints = self.checkpoints.lock();
        if lower(&mut checkpoints.recovery_points, partition, offset) {
            self.write(RECOVERY_POINTS, &checkpoints.recovery_points, DirSync::Now)?;
        }
        if lower(&mut checkpoints.high_watermarks, partition, offset) {
            self.write(HIGH_WATERMARKS, &checkpoints.high_watermarks, DirSync::Now)?;
        }
        Ok(())
    }

    /// Durably raises a log start: a reader who was told of it must never see it go back.
    pub(crate) fn raise_log_start(
        &self,
        partition: &TopicPartition,
        offset: i64,
    ) -> Result<(), StorageError> {
        self.set_log_starts(&[(partition.clone(), offset)])
    }

    /// Notes log starts, durably, all of them at once.
    pub(crate) fn set_log_starts(&self, starts: &[(TopicPartition, i64)]) -> Result<(), StorageError> {
        let mut checkpoints = self.checkpoints.lock();
        checkpoints.log_starts.extend(starts.iter().cloned());
        self.write(LOG_START_OFFSETS, &checkpoints.log_starts, DirSync::Now)
    }

    /// Durably forgets partitions that are gone: another of the same name must not inherit from them.
    pub(crate) fn forget(&self, partitions: &[TopicPartition]) -> Result<(), StorageError> {
        let mut checkpoints = self.checkpoints.lock();
        let (mut had_point, mut had_start, mut had_cleaned) = (false, false, false);
        let mut had_high_watermark = false;
        for partition in partitions {
            had_point |= checkpoints.recovery_points.remove(partition).is_some();
            had_start |= checkpoints.log_starts.remove(partition).is_some();
            had_cleaned |= checkpoints.cleaned.remove(partition).is_some();
            had_high_watermark |= checkpoints.high_watermarks.remove(partition).is_some();
        }
        if had_high_watermark {
            self.write(HIGH_WATERMARKS, &checkpoints.high_watermarks, DirSync::Now)?;
        }
        if had_cleaned {
            self.write(CLEANER_OFFSETS, &checkpoints.cleaned, DirSync::Now)?;
        }
        if had_start {
            self.write(LOG_START_OFFSETS, &checkpoints.log_starts, DirSync::Now)?;
        }
        if had_point {
            self.write(RECOVERY_POINTS, &checkpoints.recovery_points, DirSync::Now)?;
        }
        Ok(())
    }

    fn write(
        &self,
        name: &str,
        offsets: &BTreeMap<TopicPartition, i64>,
        dir_sync: DirSync,
    ) -> Result<(), StorageError> {
        let bytes = checkpoint::encode_offsets(offsets);
        let result = checkpoint::replace(self.disk.as_ref(), &self.path, name, &bytes, dir_sync);
        if let Err(error) = &result
            && !error.is_shortage()
        {
            self.fail(error);
        }
        result
    }
}

/// Whether there was anything to lower.
fn lower(offsets: &mut BTreeMap<TopicPartition, i64>, partition: &TopicPartition, offset: i64) -> bool {
    match offsets.get_mut(partition) {
        Some(noted) if *noted > offset => {
            *noted = offset;
            true
        }
        _ => false,
    }
}
