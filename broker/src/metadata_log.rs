//! The metadata on disk: a log of records in the first data directory, in the format of any other log.
//!
//! Order of a change: the records are appended as one batch, flushed, and only then applied. A crash before the flush
//! leaves nothing or a torn batch that recovery cuts; nobody has been told of the change. A batch is applied whole or not
//! at all, live and at the start alike.

use std::sync::Arc;

use firn_metadata::image::Image;
use firn_metadata::record::{MetadataRecord, RecordError};
use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_records::batch::{self, BatchError, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::compression::CompressionError;
use firn_records::record::{RecordError as BadRecord, records};
use firn_records::validate::ValidatedBatches;
use firn_storage::error::{AppendError, ReadError, StorageError};
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use uuid::Uuid;

/// Kafka's name and id of the metadata partition.
pub const METADATA_TOPIC: &str = "__cluster_metadata";
const TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));
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
    #[error("metadata log, offset {offset}: {source}")]
    Record { offset: i64, source: RecordError },
    #[error("metadata log, batch at offset {offset}: {reason}")]
    Batch { offset: i64, reason: String },
    #[error("metadata record cannot be written: {0}")]
    Encode(#[from] RecordError),
    #[error("metadata batch cannot be built: {0}")]
    Build(#[from] CompressionError),
}

#[derive(Debug)]
pub struct MetadataLog {
    log: PartitionLog,
}

impl MetadataLog {
    /// Opens the log and replays it.
    pub fn open(dir: &LogDir, now_ms: i64) -> Result<(Self, Image), MetadataError> {
        let config = TopicConfig { retention_ms: -1, ..TopicConfig::default() };
        let mut log =
            dir.open_log(&TopicPartition::new(METADATA_TOPIC, 0), TOPIC_ID, Arc::new(config), now_ms)?;
        log.start_epoch(0);
        let image = replay(&log)?;
        Ok((Self { log }, image))
    }

    /// Appends the records of one decision and brings them to stable storage.
    pub fn write(&mut self, records: &[MetadataRecord], now_ms: i64) -> Result<(), MetadataError> {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for record in records {
            builder.push(now_ms, None, Some(&record.encode()?), &[]);
        }
        let bytes = builder.build()?;
        let batches = ValidatedBatches::trusted(bytes).map_err(|error| self.bad_batch(&error))?;
        self.log.append(&batches.bytes, &batches.headers, 0, AppendOrigin::Coordinator, now_ms)?;
        if let Some(task) = self.log.flush_task()? {
            let flushed = task.run()?;
            self.log.flushed(flushed);
        }
        Ok(())
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

fn replay(log: &PartitionLog) -> Result<Image, MetadataError> {
    let mut image = Image::default();
    let mut offset = log.log_start_offset();
    while offset < log.end_offset() {
        let bytes = log
            .read(offset, log.end_offset(), REPLAY_BYTES, true)?
            .read()
            .map_err(|error| MetadataError::Batch { offset, reason: format!("cannot be read: {error}") })?;
        for found in batch::batches(&bytes) {
            let bad = |reason: String| MetadataError::Batch { offset, reason };
            let (header, batch) = found.map_err(|error: BatchError| bad(error.to_string()))?;
            batch::verify_crc(batch).map_err(|error| bad(error.to_string()))?;
            let decoded = decode(header.record_count, &batch[HEADER_LENGTH..], offset)?;
            image.apply_all(&decoded).map_err(|error| bad(error.to_string()))?;
            offset = header.next_offset();
        }
    }
    Ok(image)
}

fn decode(count: i32, payload: &[u8], offset: i64) -> Result<Vec<MetadataRecord>, MetadataError> {
    let bad = |error: BadRecord| MetadataError::Batch { offset, reason: error.to_string() };
    let mut decoded = Vec::new();
    for record in records(count, payload) {
        let value = record.map_err(bad)?.value.unwrap_or_default();
        let record =
            MetadataRecord::decode(value).map_err(|source| MetadataError::Record { offset, source })?;
        decoded.push(record);
    }
    Ok(decoded)
}
