//! What a leader checks before it appends a client's records, and what it rewrites because the topic asks for it.
//!
//! The usual batch passes through: one look at the header, one CRC, one walk over the records, no copy. A compressed batch
//! is opened for it, piece by piece, and the pieces are forgotten: a batch that cannot be read would stop each of its
//! consumers for ever. Only a topic that wants another codec has the whole of it decompressed. (Kafka: LogValidator.)

use std::ops::RangeInclusive;

use bytes::{Bytes, BytesMut};
use firn_model::topic_config::TimestampType;

use crate::batch::{self, BatchError, BatchHeader, Codec, HEADER_LENGTH};
use crate::builder::{self, BatchBuilder, BatchOptions, Producer};
use crate::compression::{self, CompressionError, Level};
use crate::payload::Payload;
use crate::record::{RecordError, records};

/// No timestamp: what message format 0 leaves, and never too old nor too new.
const NO_TIMESTAMP: i64 = -1;
/// Most records of one batch that are named in one refusal.
const RECORD_ERRORS_MAX: usize = 100;

/// What the topic wants its batches compressed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// As the producer sent them.
    Producer,
    /// With this codec and no other.
    Fixed(Codec, Level),
}

/// What a topic asks of the records that are produced to it. Times are milliseconds.
#[derive(Debug, Clone, Copy)]
pub struct ProducePolicy {
    /// `max.message.bytes`: of one batch, as it is stored.
    pub max_message_bytes: usize,
    pub timestamp_type: TimestampType,
    pub timestamp_before_max_ms: i64,
    pub timestamp_after_max_ms: i64,
    pub compression: Compression,
    /// `cleanup.policy` has `compact`: every record needs a key.
    pub compacted: bool,
    /// From Produce 3 on a partition's records are one batch.
    pub single_batch: bool,
    /// From Produce 7 on clients may send zstd (KIP-110).
    pub zstd_allowed: bool,
    /// Most bytes that one batch may have once it is decompressed, where it must be.
    pub decompressed_bytes_max: usize,
}

/// Batches that may be appended: `bytes` holds exactly the batches that `headers` describe, back to back.
#[derive(Debug, Clone)]
pub struct ValidatedBatches {
    pub bytes: Bytes,
    pub headers: Vec<BatchHeader>,
}

impl ValidatedBatches {
    pub fn record_count(&self) -> u64 {
        self.headers.iter().map(|header| header.record_count.max(0) as u64).sum()
    }

    /// For batches that the broker made itself, from its own records or another replica's log.
    /// A batch that is cut off at the end, as a fetch may leave it, is left out.
    pub fn trusted(mut bytes: Bytes) -> Result<Self, BatchError> {
        let mut headers = Vec::with_capacity(1);
        let mut whole = 0;
        for found in batch::batches(&bytes) {
            let (header, batch) = found?;
            headers.push(header);
            whole += batch.len();
        }
        bytes.truncate(whole);
        Ok(Self { bytes, headers })
    }
}

/// What kind of refusal it is: each has an error code of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidKind {
    Corrupt,
    TooLarge,
    Timestamp,
    Record,
    ProducerEpoch,
    Compression,
}

/// Why records are refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct InvalidRecords {
    pub kind: InvalidKind,
    pub message: String,
    /// Records at fault by their place in the batch, and why (KIP-467).
    pub record_errors: Vec<(i32, String)>,
}

impl InvalidRecords {
    fn new(kind: InvalidKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), record_errors: Vec::new() }
    }
}

impl From<BatchError> for InvalidRecords {
    fn from(error: BatchError) -> Self {
        let kind = match error {
            // An old format is a whole message, only not one for this request.
            BatchError::UnsupportedMagic(0 | 1) => InvalidKind::Record,
            _ => InvalidKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

impl From<RecordError> for InvalidRecords {
    fn from(error: RecordError) -> Self {
        Self::new(InvalidKind::Record, error.to_string())
    }
}

impl From<CompressionError> for InvalidRecords {
    fn from(error: CompressionError) -> Self {
        let kind = match error {
            CompressionError::TooLarge { .. } => InvalidKind::TooLarge,
            CompressionError::Malformed { .. } => InvalidKind::Corrupt,
        };
        Self::new(kind, error.to_string())
    }
}

/// Checks `bytes`, a client's records for one partition, and rewrites what `policy` wants otherwise.
pub fn validate(
    bytes: Bytes,
    policy: &ProducePolicy,
    now_ms: i64,
) -> Result<ValidatedBatches, InvalidRecords> {
    let mut headers = Vec::with_capacity(1);
    let mut rewritten: Vec<Bytes> = Vec::new();
    let mut walk = batch::batches(&bytes);
    for found in walk.by_ref() {
        let (header, batch) = found?;
        let checked = check_batch(&header, batch, policy, now_ms)?;
        if let Some((header, batch)) = rewrite(&header, batch, &checked, policy, now_ms)? {
            // From the first batch that changes, all are collected anew.
            if rewritten.is_empty() {
                let before: usize = headers.iter().map(BatchHeader::size_in_bytes).sum();
                rewritten.push(bytes.slice(..before));
            }
            headers.push(header);
            rewritten.push(batch);
        } else {
            if !rewritten.is_empty() {
                rewritten.push(bytes.slice_ref(batch));
            }
            headers.push(header);
        }
    }
    if !walk.remainder().is_empty() {
        // As it is sent again it is no better: Kafka's error for it is not one that clients retry.
        return Err(InvalidRecords::new(InvalidKind::Record, "the last batch is cut off"));
    }
    match headers.len() {
        0 => return Err(InvalidRecords::new(InvalidKind::Record, "there is no batch in the request")),
        1 => {}
        count if policy.single_batch => {
            let message = format!("{count} batches for one partition: a produce request carries exactly one");
            return Err(InvalidRecords::new(InvalidKind::Record, message));
        }
        _ => {}
    }
    let bytes = if rewritten.is_empty() { bytes } else { rewritten.concat().into() };
    match headers.iter().find(|header| header.size_in_bytes() > policy.max_message_bytes) {
        Some(header) => Err(too_large(header.size_in_bytes(), policy)),
        None => Ok(ValidatedBatches { bytes, headers }),
    }
}

fn too_large(size: usize, policy: &ProducePolicy) -> InvalidRecords {
    let message =
        format!("a batch of {size} bytes is larger than max.message.bytes, {}", policy.max_message_bytes);
    InvalidRecords::new(InvalidKind::TooLarge, message)
}

/// What a walk over a batch's records found.
#[derive(Debug)]
struct Checked {
    /// Greatest timestamp of the records.
    max_timestamp: i64,
    /// The records, decompressed, if the batch is to be written with another codec.
    decompressed: Option<Vec<u8>>,
}

fn check_batch(
    header: &BatchHeader,
    batch: &[u8],
    policy: &ProducePolicy,
    now_ms: i64,
) -> Result<Checked, InvalidRecords> {
    if batch.len() > policy.max_message_bytes {
        return Err(too_large(batch.len(), policy));
    }
    batch::verify_crc(batch)?;
    check_header(header, policy)?;
    let codec = header.codec()?;
    if codec == Codec::Zstd && !policy.zstd_allowed {
        return Err(InvalidRecords::new(InvalidKind::Compression, "zstd needs Produce version 7 or above"));
    }
    let decompressed = match policy.compression {
        Compression::Fixed(wanted, _) if wanted != codec && codec != Codec::None => {
            Some(compression::decompress(codec, &batch[HEADER_LENGTH..], policy.decompressed_bytes_max)?)
        }
        _ => None,
    };
    let payload = match &decompressed {
        Some(bytes) => Payload::Plain(bytes),
        None => Payload::of(header, batch, policy.decompressed_bytes_max)?,
    };
    let max_timestamp = check_records(header, payload, policy, now_ms)?;
    Ok(Checked { max_timestamp, decompressed })
}

/// What a client's header may not say.
fn check_header(header: &BatchHeader, policy: &ProducePolicy) -> Result<(), InvalidRecords> {
    let refuse = |message: String| Err(InvalidRecords::new(InvalidKind::Record, message));
    if header.base_offset != 0 {
        return refuse(format!("a producer's batch begins at offset 0, not {}", header.base_offset));
    }
    if header.is_control() {
        return refuse("clients may not write control records".to_owned());
    }
    if header.record_count <= 0 || header.last_offset_delta != header.record_count - 1 {
        return refuse(format!(
            "a batch of {} records cannot end at offset delta {}",
            header.record_count, header.last_offset_delta
        ));
    }
    if header.has_producer_id() && header.producer_epoch < 0 {
        let message = format!("producer {} sent epoch {}", header.producer_id, header.producer_epoch);
        return Err(InvalidRecords::new(InvalidKind::ProducerEpoch, message));
    }
    if header.has_producer_id() && header.base_sequence < 0 {
        return refuse(format!("producer {} sent sequence {}", header.producer_id, header.base_sequence));
    }
    if header.is_transactional() && !header.has_producer_id() {
        return refuse("a transactional batch needs a producer id".to_owned());
    }
    if header.is_log_append_time() && policy.timestamp_type == TimestampType::LogAppendTime {
        let message = "a producer may not say that its timestamps are the broker's (LogAppendTime)";
        return Err(InvalidRecords::new(InvalidKind::Timestamp, message));
    }
    Ok(())
}

/// Walks all records; returns their greatest timestamp.
fn check_records(
    header: &BatchHeader,
    payload: Payload<'_>,
    policy: &ProducePolicy,
    now_ms: i64,
) -> Result<i64, InvalidRecords> {
    let times = allowed_times(policy, now_ms);
    let mut max_timestamp = NO_TIMESTAMP;
    let mut sound = true;
    payload.each_shape::<InvalidRecords>(header.record_count, |index, record| {
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        sound &= record.offset_delta == index
            && (record.has_key || !policy.compacted)
            && is_in_time(timestamp, &times);
    })?;
    if sound { Ok(max_timestamp) } else { Err(faults(header, payload, policy, &times)) }
}

/// Walks the records again to say which are at fault: kept apart, so that good records pay nothing for it.
#[cold]
fn faults(
    header: &BatchHeader,
    payload: Payload<'_>,
    policy: &ProducePolicy,
    times: &RangeInclusive<i64>,
) -> InvalidRecords {
    let mut kind = InvalidKind::Record;
    let mut record_errors: Vec<(i32, String)> = Vec::new();
    let walked: Result<(), InvalidRecords> = payload.each_shape(header.record_count, |index, record| {
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        let message = if record.offset_delta != index {
            format!("its offset delta is {}, not {index}", record.offset_delta)
        } else if policy.compacted && !record.has_key {
            "a compacted topic needs a key in every record".to_owned()
        } else if !is_in_time(timestamp, times) {
            // As in Kafka, one record out of time decides the code for all.
            kind = InvalidKind::Timestamp;
            out_of_time(timestamp, times)
        } else {
            return;
        };
        if record_errors.len() < RECORD_ERRORS_MAX {
            record_errors.push((index, message));
        }
    });
    // They could be read a moment ago.
    if let Err(error) = walked {
        return error;
    }
    let message = match record_errors.first() {
        Some((index, message)) => format!("record {index} of the batch is refused: {message}"),
        None => "the batch is refused".to_owned(),
    };
    InvalidRecords { kind, message, record_errors }
}

/// Timestamps that the topic takes from a producer, in milliseconds.
fn allowed_times(policy: &ProducePolicy, now_ms: i64) -> RangeInclusive<i64> {
    match policy.timestamp_type {
        TimestampType::LogAppendTime => i64::MIN..=i64::MAX,
        TimestampType::CreateTime => {
            now_ms.saturating_sub(policy.timestamp_before_max_ms)
                ..=now_ms.saturating_add(policy.timestamp_after_max_ms)
        }
    }
}

fn is_in_time(timestamp: i64, times: &RangeInclusive<i64>) -> bool {
    times.contains(&timestamp) || timestamp == NO_TIMESTAMP
}

fn out_of_time(timestamp: i64, times: &RangeInclusive<i64>) -> String {
    format!("its timestamp {timestamp} is outside {times:?} (message.timestamp.before/after.max.ms)")
}

/// The batch as the topic wants it; `None` where it may stay as it is.
fn rewrite(
    header: &BatchHeader,
    batch: &[u8],
    checked: &Checked,
    policy: &ProducePolicy,
    now_ms: i64,
) -> Result<Option<(BatchHeader, Bytes)>, InvalidRecords> {
    let codec = header.codec()?;
    let recompressed = match policy.compression {
        Compression::Fixed(wanted, level) if wanted != codec => {
            let payload = checked.decompressed.as_deref().unwrap_or(&batch[HEADER_LENGTH..]);
            Some(recompress(header, payload, wanted, level)?)
        }
        _ => None,
    };
    let log_append_time = policy.timestamp_type == TimestampType::LogAppendTime;
    let max_timestamp = if log_append_time { now_ms } else { checked.max_timestamp };
    if recompressed.is_none()
        && header.max_timestamp == max_timestamp
        && header.is_log_append_time() == log_append_time
    {
        return Ok(None);
    }
    let mut batch = BytesMut::from(recompressed.as_deref().unwrap_or(batch));
    let header = BatchHeader::parse(&batch)?;
    let attributes = if log_append_time { header.attributes | 0b1000 } else { header.attributes & !0b1000 };
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    builder::seal(&mut batch);
    Ok(Some((BatchHeader::parse(&batch)?, batch.freeze())))
}

fn recompress(
    header: &BatchHeader,
    payload: &[u8],
    codec: Codec,
    level: Level,
) -> Result<Bytes, InvalidRecords> {
    let producer = Producer {
        id: header.producer_id,
        epoch: header.producer_epoch,
        base_sequence: header.base_sequence,
    };
    let options = BatchOptions {
        codec,
        level,
        producer,
        transactional: header.is_transactional(),
        control: false,
        log_append_time: header.is_log_append_time(),
    };
    let mut batch = BatchBuilder::new(options);
    for record in records(header.record_count, payload) {
        let record = record?;
        let timestamp = header.base_timestamp.saturating_add(record.timestamp_delta);
        batch.push_at(i64::from(record.offset_delta), timestamp, record.key, record.value, record.headers);
    }
    Ok(batch.build()?)
}

#[cfg(test)]
mod tests;
