//! Message formats 0 and 1, which clients before 0.11 write and read, to and from record batches.
//!
//! The log holds batches of format 2 alone. What an old producer sends is converted before it is checked like any other
//! batch; what an old consumer fetches is converted on its way out. A compressed set is a message ("wrapper") whose value
//! is the set: its offset is that of its last message, and the offsets within are absolute in format 0 and relative to
//! the first in format 1 (KIP-31). (Kafka: `AbstractLegacyRecordBatch`, `RecordsUtil.downConvert`.)

use bytes::Bytes;

use crate::batch::{self, BatchError, BatchHeader, Codec, HEADER_LENGTH};
use crate::builder::{BatchBuilder, BatchOptions};
use crate::compression::{self, CompressionError};
use crate::legacy::message::{MAGIC_OFFSET, Message};
use crate::lz4::HeaderChecksum;
use crate::record::{RecordError, records};

mod message;

/// A message format before record batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum MessageFormat {
    V0,
    /// With timestamps (KIP-32) and relative inner offsets (KIP-31).
    V1,
}

impl MessageFormat {
    fn from_magic(magic: i8) -> Result<Self, LegacyError> {
        match magic {
            0 => Ok(Self::V0),
            1 => Ok(Self::V1),
            other => Err(BatchError::UnsupportedMagic(other).into()),
        }
    }
}

/// Why messages cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum LegacyError {
    /// Not messages of these formats (Kafka: `CORRUPT_MESSAGE`).
    #[error("malformed message set: {0}")]
    Malformed(&'static str),
    /// As above: wrong CRC, magic, codec or batch.
    #[error(transparent)]
    Batch(#[from] BatchError),
    /// As above: the records of a stored batch.
    #[error(transparent)]
    Record(#[from] RecordError),
    #[error(transparent)]
    Compression(#[from] CompressionError),
    /// Old formats have no zstd (KIP-110): the consumer must be newer (Kafka: `UNSUPPORTED_COMPRESSION_TYPE`).
    #[error("{0:?} records cannot be converted to an old message format: use a client that knows the codec")]
    UnsupportedCodec(Codec),
}

/// Whether `bytes` begin with a message of format 0 or 1, not a batch.
pub fn is_message_set(bytes: &[u8]) -> bool {
    matches!(bytes.get(MAGIC_OFFSET), Some(0 | 1))
}

/// Converts an old producer's message set to batches at offsets from 0, as a producer of batches would have sent them.
///
/// Messages that stand alone become one uncompressed batch for each run of them, a wrapper becomes one batch with its
/// codec. Timestamps, keys and values are kept; format 0 has no timestamps: they become -1. Nothing compressed may come to
/// more than `decompressed_bytes_max` bytes, all wrappers together.
pub fn upconvert(set: &[u8], decompressed_bytes_max: usize) -> Result<Bytes, LegacyError> {
    let mut rest = set;
    let mut left = decompressed_bytes_max;
    let mut run = BatchBuilder::new(BatchOptions::default());
    let mut batches = Vec::new();
    while !rest.is_empty() {
        let message = message::read(&mut rest)?;
        if message.codec == Codec::None {
            run.push(message.timestamp, message.key, message.value, &[]);
            continue;
        }
        if !run.is_empty() {
            let whole = std::mem::replace(&mut run, BatchBuilder::new(BatchOptions::default()));
            batches.push(whole.build()?);
        }
        batches.push(upconvert_wrapper(&message, &mut left)?);
    }
    if !run.is_empty() {
        batches.push(run.build()?);
    }
    match <[Bytes; 1]>::try_from(batches) {
        Ok([only]) => Ok(only),
        Err(several) => Ok(several.concat().into()),
    }
}

fn upconvert_wrapper(wrapper: &Message<'_>, left: &mut usize) -> Result<Bytes, LegacyError> {
    let value = wrapper.value.ok_or(LegacyError::Malformed("a compressed message has no value"))?;
    let set = compression::decompress_message_set(wrapper.codec, value, *left)?;
    *left -= set.len();
    let mut batch = BatchBuilder::new(BatchOptions { codec: wrapper.codec, ..BatchOptions::default() });
    let mut rest = set.as_slice();
    while !rest.is_empty() {
        let message = message::read(&mut rest)?;
        if message.codec != Codec::None {
            return Err(LegacyError::Malformed("a compressed message lies within another"));
        }
        if message.format != wrapper.format {
            return Err(LegacyError::Malformed("a compressed set mixes message formats"));
        }
        let timestamp = if wrapper.log_append_time { wrapper.timestamp } else { message.timestamp };
        batch.push(timestamp, message.key, message.value, &[]);
    }
    if batch.is_empty() {
        return Err(LegacyError::Malformed("a compressed set holds no message"));
    }
    Ok(batch.build()?)
}

/// What an old consumer gets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Downconverted {
    pub messages: Bytes,
    /// Offset after the last batch that was looked at; `None` if there was no whole batch. Where `messages` is empty and
    /// this is not, all there was is invisible to the client, which would ask for the same offset for ever: read on
    /// from here on its behalf.
    pub next_offset: Option<i64>,
}

/// Converts whole `batches` out of the log to a message set for a consumer that asked for `from_offset`.
///
/// Headers are dropped and control batches skipped. Uncompressed batches become messages that stand alone, from
/// `from_offset` on; compressed ones become a wrapper of the same codec, whole, for consumers skip what is before their
/// offset. A batch cut off at the end is left out. Records of one batch may come to `decompressed_bytes_max` bytes.
///
/// Zstd does not exist in these formats: batches before the first of it are converted, and if there are none the answer
/// is [`LegacyError::UnsupportedCodec`].
pub fn downconvert(
    batches: &[u8],
    format: MessageFormat,
    from_offset: i64,
    decompressed_bytes_max: usize,
) -> Result<Downconverted, LegacyError> {
    let mut messages = Vec::new();
    let mut next_offset = None;
    for found in batch::batches(batches) {
        let (header, batch) = found?;
        if !header.is_control() {
            let payload = batch.get(HEADER_LENGTH..).unwrap_or_default();
            match header.codec()? {
                Codec::None => downconvert_plain(&header, payload, format, from_offset, &mut messages)?,
                Codec::Zstd if !messages.is_empty() => break,
                Codec::Zstd => return Err(LegacyError::UnsupportedCodec(Codec::Zstd)),
                codec => {
                    let payload = compression::decompress(codec, payload, decompressed_bytes_max)?;
                    downconvert_compressed(&header, codec, &payload, format, &mut messages)?;
                }
            }
        }
        next_offset = Some(header.next_offset());
    }
    Ok(Downconverted { messages: messages.into(), next_offset })
}

fn downconvert_plain(
    header: &BatchHeader,
    payload: &[u8],
    format: MessageFormat,
    from_offset: i64,
    messages: &mut Vec<u8>,
) -> Result<(), LegacyError> {
    for record in records(header.record_count, payload) {
        let record = record?;
        let offset = header.base_offset.saturating_add(record.offset_delta.into());
        if offset < from_offset {
            continue;
        }
        let message = Message {
            offset,
            format,
            codec: Codec::None,
            log_append_time: header.is_log_append_time(),
            timestamp: header.record_timestamp(record.timestamp_delta),
            key: record.key,
            value: record.value,
        };
        message::write(messages, &message);
    }
    Ok(())
}

fn downconvert_compressed(
    header: &BatchHeader,
    codec: Codec,
    payload: &[u8],
    format: MessageFormat,
    messages: &mut Vec<u8>,
) -> Result<(), LegacyError> {
    let mut inner = Vec::new();
    let mut ends: Option<(i32, i32)> = None;
    let mut max_timestamp = i64::MIN;
    for record in records(header.record_count, payload) {
        let record = record?;
        // Compaction may have taken the batch's first record: inner offsets of format 1 count from the first left.
        let (first, _) = *ends.get_or_insert((record.offset_delta, record.offset_delta));
        ends = Some((first, record.offset_delta));
        let timestamp = header.record_timestamp(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        let offset = match format {
            MessageFormat::V0 => header.base_offset.saturating_add(record.offset_delta.into()),
            MessageFormat::V1 => i64::from(record.offset_delta).saturating_sub(first.into()),
        };
        let message = Message {
            offset,
            format,
            codec: Codec::None,
            log_append_time: header.is_log_append_time(),
            timestamp,
            key: record.key,
            value: record.value,
        };
        message::write(&mut inner, &message);
    }
    let Some((_, last)) = ends else { return Ok(()) };
    let checksum = match format {
        MessageFormat::V0 => HeaderChecksum::Broken,
        MessageFormat::V1 => HeaderChecksum::Standard,
    };
    let value = compression::compress_message_set(codec, &inner, checksum)?;
    let wrapper = Message {
        offset: header.base_offset.saturating_add(last.into()),
        format,
        codec,
        log_append_time: header.is_log_append_time(),
        timestamp: max_timestamp,
        key: None,
        value: Some(&value),
    };
    message::write(messages, &wrapper);
    Ok(())
}

#[cfg(test)]
mod tests;
