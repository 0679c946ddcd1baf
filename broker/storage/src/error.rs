//! What can go wrong with a log on disk, shaped by what the caller can do about it.

use std::io;
use std::path::{Path, PathBuf};

/// A storage operation that failed. Every variant names the file or directory and what was being done.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: io::Error },
    /// Nothing was changed: the same call succeeds once there is room.
    #[error("cannot {action} {}: no space is left on the device; free some and try again", path.display())]
    DiskFull { action: &'static str, path: PathBuf },
    /// Nothing was changed: the same call succeeds once files or connections have been closed.
    #[error("cannot {action} {}: too many files are open; let the broker open more (ulimit -n, LimitNOFILE)", path.display())]
    OutOfFiles { action: &'static str, path: PathBuf },
    #[error("{} is locked by another process: stop it, or choose another log directory", path.display())]
    Locked { path: PathBuf },
    #[error("{} is damaged: {reason}", path.display())]
    Corrupt { path: PathBuf, reason: String },
    #[error("{} says {key} is '{found}', but this broker has '{wanted}': is it another broker's directory?", path.display())]
    WrongOwner { path: PathBuf, key: &'static str, found: String, wanted: String },
    /// The log, or its whole directory, stopped at an earlier failure and stays so until the broker restarts.
    #[error("{what} is offline: {reason}")]
    Offline { what: String, reason: String },
    /// The log is as it was; nothing needs to be done.
    #[error(
        "compaction was stopped, since the broker stops or a segment left the disk meanwhile: it is begun again"
    )]
    CompactionStopped,
    /// Nothing was changed.
    #[error(
        "{log} is not compacted while offsets [{from}, {to}) are neither on the disk nor known to be in the object store"
    )]
    NotInStore { log: String, from: i64, to: i64 },
    #[error("offset {offset} is outside {log}, which holds [{start}, {end}]")]
    OffsetOutOfRange { log: String, offset: i64, start: i64, end: i64 },
}

impl StorageError {
    /// True when freeing space is all that is needed.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, StorageError::DiskFull { .. })
    }

    /// True when the disk is as sound as before, and only space or file descriptors are short.
    pub fn is_shortage(&self) -> bool {
        matches!(self, StorageError::DiskFull { .. } | StorageError::OutOfFiles { .. })
    }

    pub fn corrupt(path: &Path, reason: impl Into<String>) -> Self {
        StorageError::Corrupt { path: path.to_owned(), reason: reason.into() }
    }
}

/// True for the errors that only say that the device or the quota is full.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// True for the errors of a process, or a machine, that has as many files open as it may. Only opening gives them, so
/// nothing has been written.
fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(code, Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE))
}

/// Gives an I/O error its verb and object, and tells a full disk from a broken one.
pub(crate) fn failed_to(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| {
        if is_full(&source) {
            StorageError::DiskFull { action, path }
        } else if is_out_of_files(&source) {
            StorageError::OutOfFiles { action, path }
        } else {
            StorageError::Io { action, path, source }
        }
    }
}

/// Gives a failed sync its object. A full disk is no shortage here: what was to be synced may be lost, and a second try
/// proves nothing. Only the opening of what is to be synced may find too many files open, before anything was tried.
pub(crate) fn failed_to_sync(path: &Path) -> impl FnOnce(io::Error) -> StorageError {
    let path = path.to_owned();
    move |source| match is_out_of_files(&source) {
        true => StorageError::OutOfFiles { action: "sync", path },
        false => StorageError::Io { action: "sync", path, source },
    }
}

/// Why batches were not appended. Nothing of them is in the log.
#[derive(Debug, thiserror::Error)]
pub enum AppendError {
    /// Kafka's OUT_OF_ORDER_SEQUENCE_NUMBER.
    #[error("producer {producer_id} sent sequence {sequence} where {expected} follows")]
    OutOfOrderSequence { producer_id: i64, sequence: i32, expected: i32 },
    /// Kafka's INVALID_PRODUCER_EPOCH: a newer instance of the producer has written since.
    #[error("producer {producer_id} has epoch {epoch}, but epoch {current} has written since")]
    InvalidProducerEpoch { producer_id: i64, epoch: i16, current: i16 },
    /// Kafka's INVALID_TXN_STATE: a plain write in the middle of the producer's own transaction.
    #[error("producer {producer_id} has an open transaction, and sent a batch outside it")]
    InvalidTxnState { producer_id: i64 },
    /// Kafka's TRANSACTION_COORDINATOR_FENCED.
    #[error("marker of coordinator epoch {epoch} for producer {producer_id} comes after epoch {current}")]
    TransactionCoordinatorFenced { producer_id: i64, epoch: i32, current: i32 },
    /// Kafka's RECORD_LIST_TOO_LARGE: the batches together do not fit one segment.
    #[error("{bytes} bytes do not fit a segment of {segment_bytes} (segment.bytes)")]
    RecordListTooLarge { bytes: usize, segment_bytes: i32 },
    /// The caller handed over bytes that are not the batches it named.
    #[error("not a sequence of whole batches: {0}")]
    InvalidBatches(String),
    /// Retriable; the log is as it was.
    #[error("no space is left for {bytes} bytes in {log}")]
    DiskFull { bytes: usize, log: String },
    #[error(transparent)]
    Storage(StorageError),
}

impl From<StorageError> for AppendError {
    fn from(error: StorageError) -> Self {
        AppendError::Storage(error)
    }
}

/// Why nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is outside the log, which holds [{log_start_offset}, {end_offset}]")]
    OffsetOutOfRange { offset: i64, log_start_offset: i64, end_offset: i64 },
    /// The offset is part of the log, but only the tier still has it.
    #[error("offset {offset} is below the local log, which starts at {local_start_offset}")]
    BelowLocalStart { offset: i64, local_start_offset: i64 },
    #[error(transparent)]
    Storage(#[from] StorageError),
}
