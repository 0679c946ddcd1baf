//! The metadata on disk: a log of records in the first data directory, in the format of any other log, and a snapshot
//! of what it said before it was cut.
//!
//! Order of a change: the records are appended as one batch, flushed, and only then applied. A crash before the flush
//! leaves nothing or a torn batch that recovery cuts; nobody has been told of the change. A batch is applied whole or not
//! at all, live and at the start alike.
//!
//! Order of a snapshot: it is written whole and durable; then the log, of which it says everything, is emptied and goes
//! on at its offset; then older snapshots go. A start takes the newest snapshot that is whole and replays what the log
//! has from there. So a crash before the snapshot has its name leaves the log, one after it both, and no crash neither.

use std::sync::Arc;

use firn_metadata::image::Image;
use firn_metadata::record::{MetadataRecord, RecordError};
use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_records::batch::{self, BatchError, BatchHeader, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::compression::CompressionError;
use firn_records::record::records;
use firn_records::validate::ValidatedBatches;
use firn_storage::error::{AppendError, ReadError, StorageError};
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use uuid::Uuid;

use crate::metadata_snapshot::{self, SnapshotId};

/// Kafka's name and id of the metadata partition.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
const TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));
/// One controller writes the log, for good.
pub const EPOCH: i32 = 0;
/// Bytes that are read at a time when the log is replayed.
const REPLAY_BYTES: usize = 4 << 20;

/// Why the metadata cannot be read or changed. The broker does not start, or stops, rather than guess.
#[derive(Debug, thiserror::Error)]
pub enum MetadataError {
    #[error("metadata log: {0}")]
    Storage(#[from] StorageError),
    #[error("metadata log: {0}")]
    Append(#[from] AppendError),
    #[error("metadata log: {0}")]
    Read(#[from] ReadError),
    #[error("metadata log, batch at offset {offset}: {reason}")]
    Batch { offset: i64, reason: String },
    #[error(
        "the metadata log begins at offset {log_start}, and no whole snapshot holds what was before: restore the newest .checkpoint file of {METADATA_TOPIC}-0 from a backup"
    )]
    NoSnapshot { log_start: i64 },
    #[error("metadata record cannot be written: {0}")]
    Encode(#[from] RecordError),
    #[error("metadata batch cannot be built: {0}")]
    Build(#[from] CompressionError),
}

/// How much may be in the log alone, and for how long, until a snapshot is due.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub bytes_max: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0 is for ever.
    pub interval_ms: i64,
}

impl MetadataError {
    /// True when the log is as it was before, and the change succeeds once there is room or a free file descriptor.
    pub fn is_shortage(&self) -> bool {
        match self {
            MetadataError::Storage(error) | MetadataError::Append(AppendError::Storage(error)) => {
                error.is_shortage()
            }
            MetadataError::Append(AppendError::DiskFull { .. }) => true,
            _ => false,
        }
    }
}

/// The log, open for changes. One process has it.
#[derive(Debug)]
pub struct MetadataLog {
    log: PartitionLog,
    limits: SnapshotLimits,
    bytes_since_snapshot: u64,
    /// When the first change came that no snapshot has; `None` while a snapshot has all. It may have come before the
    /// start: then it counts from the start, as in Kafka.
    changed_since_ms: Option<i64>,
}

impl MetadataLog {
    /// Opens the log and makes the image of the newest snapshot and what was written since.
    pub fn open(dir: &LogDir, limits: SnapshotLimits, now_ms: i64) -> Result<(Self, Image), MetadataError> {
        let config = TopicConfig { retention_ms: -1, ..TopicConfig::default() };
        let mut log =
            dir.open_log(&TopicPartition::new(METADATA_TOPIC, 0), TOPIC_ID, Arc::new(config), now_ms)?;
        let (from, image) =
            newest_snapshot(&log)?.map_or((0, Image::default()), |(id, image)| (id.end_offset, image));
        if log.log_start_offset() > from {
            return Err(MetadataError::NoSnapshot { log_start: log.log_start_offset() });
        }
        if log.end_offset() < from {
            log.truncate_fully_and_start_at(from)?;
        }
        log.start_epoch(EPOCH);
        let image = replay(&log, from, image)?;
        let bytes_since_snapshot = log.size_bytes();
        let changed_since_ms = (bytes_since_snapshot > 0).then_some(now_ms);
        Ok((Self { log, limits, bytes_since_snapshot, changed_since_ms }, image))
    }

    /// Appends the records of one decision and brings them to stable storage.
    pub fn write(&mut self, records: &[MetadataRecord], now_ms: i64) -> Result<(), MetadataError> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for record in records {
            builder.push(now_ms, None, Some(&record.encode()?), &[]);
        }
        let bytes = builder.build()?;
        let batches = ValidatedBatches::trusted(bytes).map_err(|error| self.bad_batch(&error))?;
        let before = self.log.end_offset();
        if let Err(error) = self.append_durably(&batches, now_ms) {
            // What is not durable has not happened, and must not come to pass with the next change.
            if error.is_shortage()
                && let Err(undo) = self.log.truncate_to(before)
            {
                let reason = format!("cannot be made durable ({error}), nor taken back ({undo})");
                return Err(MetadataError::Batch { offset: before, reason });
            }
            return Err(error);
        }
        self.bytes_since_snapshot += batches.bytes.len() as u64;
        self.changed_since_ms.get_or_insert(now_ms);
        Ok(())
    }

    fn append_durably(&mut self, batches: &ValidatedBatches, now_ms: i64) -> Result<(), MetadataError> {
        self.log.append(&batches.bytes, &batches.headers, EPOCH, AppendOrigin::Coordinator, now_ms)?;
        if let Some(task) = self.log.flush_task()? {
            let flushed = task.run()?;
            self.log.flushed(flushed);
        }
        Ok(())
    }

    /// Writes a snapshot of `image`, which is all that was written so far, once enough was, or long enough ago; then lets
    /// go of the log below it. On an error the log is as it was, or its directory has failed; the next snapshot is due as if this were one.
    pub fn snapshot_if_due(&mut self, image: &Image, now_ms: i64) -> Result<(), MetadataError> {
        if !self.snapshot_is_due(now_ms) {
            return Ok(());
        }
        self.bytes_since_snapshot = 0;
        self.changed_since_ms = None;
        let id = SnapshotId { end_offset: self.log.end_offset(), epoch: EPOCH };
        self.log.keep_file(&id.file_name(), &metadata_snapshot::encode(image, now_ms)?)?;
        self.log.truncate_fully_and_start_at(id.end_offset)?;
        self.log.start_epoch(EPOCH);
        for older in snapshots(&self.log)?.into_iter().filter(|older| *older < id) {
            self.log.remove_kept_file(&older.file_name())?;
        }
        tracing::info!(offset = id.end_offset, "wrote a snapshot of the metadata");
        Ok(())
    }

    fn snapshot_is_due(&self, now_ms: i64) -> bool {
        let SnapshotLimits { bytes_max, interval_ms } = self.limits;
        let waited = |since| now_ms.saturating_sub(since) >= interval_ms;
        self.bytes_since_snapshot >= bytes_max
            || (interval_ms > 0 && self.changed_since_ms.is_some_and(waited))
    }

    fn bad_batch(&self, error: &BatchError) -> MetadataError {
        MetadataError::Batch { offset: self.log.end_offset(), reason: error.to_string() }
    }

    /// Offset after the last record: how many changes there have been.
    pub fn end_offset(&self) -> i64 {
        self.log.end_offset()
    }

    pub fn close(self) -> Result<(), StorageError> {
        self.log.close()
    }
}

/// Every snapshot, the oldest first.
fn snapshots(log: &PartitionLog) -> Result<Vec<SnapshotId>, MetadataError> {
    let names = log.kept_files(metadata_snapshot::CHECKPOINT)?;
    let mut ids: Vec<_> = names.iter().filter_map(|name| SnapshotId::parse(name)).collect();
    ids.sort();
    Ok(ids)
}

fn newest_snapshot(log: &PartitionLog) -> Result<Option<(SnapshotId, Image)>, MetadataError> {
    for id in snapshots(log)?.into_iter().rev() {
        let name = id.file_name();
        let bytes = log.kept_file(&name)?.unwrap_or_default();
        match metadata_snapshot::decode(&bytes) {
            Ok(image) => return Ok(Some((id, image))),
            Err(reason) => tracing::error!(name, reason, "this snapshot of the metadata is damaged"),
        }
    }
    Ok(None)
}

/// Applies what the log has from `offset` on.
fn replay(log: &PartitionLog, mut offset: i64, mut image: Image) -> Result<Image, MetadataError> {
    while offset < log.end_offset() {
        let bytes = log
            .read(offset, log.end_offset(), REPLAY_BYTES, true)?
            .read()
            .map_err(|error| MetadataError::Batch { offset, reason: format!("cannot be read: {error}") })?;
        for found in batch::batches(&bytes) {
            let bad = |reason: String| MetadataError::Batch { offset, reason };
            let (header, batch) = found.map_err(|error: BatchError| bad(error.to_string()))?;
            batch::verify_crc(batch).map_err(|error| bad(error.to_string()))?;
            let decoded = decode(&header, batch).map_err(bad)?;
            image.apply_all(&decoded).map_err(|error| bad(error.to_string()))?;
            offset = header.next_offset();
        }
    }
    Ok(image)
}

/// The records of one batch, of the log or of a snapshot. The error says what is wrong with them.
pub fn decode(header: &BatchHeader, batch: &[u8]) -> Result<Vec<MetadataRecord>, String> {
    let payload = batch.get(HEADER_LENGTH..).unwrap_or_default();
    let mut decoded = Vec::new();
    for record in records(header.record_count, payload) {
        let record = record.map_err(|error| error.to_string())?;
        let value = record.value.unwrap_or_default();
        decoded.push(MetadataRecord::decode(value).map_err(|error| error.to_string())?);
    }
    Ok(decoded)
}
