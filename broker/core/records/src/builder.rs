//! Makes v2 batches: for the broker's own topics, for conversions, and for clients.

use bytes::Bytes;

use crate::batch::{CRC_START, Codec, HEADER_LENGTH, LOG_OVERHEAD};
use crate::compression::{self, CompressionError, Level};
use crate::record::Headers;
use crate::varint::{write_i32, write_i64};

/// The producer that a batch names, for idempotence (KIP-98).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Producer {
    pub id: i64,
    pub epoch: i16,
    pub base_sequence: i32,
}

impl Producer {
    /// No producer id: what is sent without idempotence.
    pub const NONE: Producer = Producer { id: -1, epoch: -1, base_sequence: -1 };
}

/// What a batch's header says beside what follows from its records.
#[derive(Debug, Clone, Copy)]
pub struct BatchOptions {
    pub codec: Codec,
    pub level: Level,
    pub producer: Producer,
    pub transactional: bool,
    pub control: bool,
    pub log_append_time: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            codec: Codec::None,
            level: None,
            producer: Producer::NONE,
            transactional: false,
            control: false,
            log_append_time: false,
        }
    }
}

/// Collects records, then makes one batch of them.
#[derive(Debug)]
pub struct BatchBuilder {
    options: BatchOptions,
    base_offset: i64,
    /// What timestamps are relative to: the first record's, where nothing else was asked for.
    base_timestamp: Option<i64>,
    max_timestamp: i64,
    last_offset_delta: i32,
    count: i32,
    payload: Vec<u8>,
    scratch: Vec<u8>,
}

impl BatchBuilder {
    pub fn new(options: BatchOptions) -> Self {
        Self::at_offset(options, 0)
    }

    /// For batches that stand for records which have their offsets already.
    pub fn at_offset(options: BatchOptions, base_offset: i64) -> Self {
        Self {
            options,
            base_offset,
            base_timestamp: None,
            max_timestamp: -1,
            last_offset_delta: 0,
            count: 0,
            payload: Vec::new(),
            scratch: Vec::new(),
        }
    }

    /// Counts timestamps from `base_timestamp`: where a delete horizon is kept (KIP-534).
    pub(crate) fn with_base_timestamp(self, base_timestamp: i64) -> Self {
        Self { base_timestamp: Some(base_timestamp), ..self }
    }

    /// Adds a record at the next offset. `timestamp` is in milliseconds.
    pub fn push(
        &mut self,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &[(&[u8], Option<&[u8]>)],
    ) {
        let mut encoded = Vec::new();
        for (name, value) in headers {
            write_nullable(&mut encoded, Some(name));
            write_nullable(&mut encoded, *value);
        }
        let offset =
            self.base_offset + if self.count == 0 { 0 } else { i64::from(self.last_offset_delta) + 1 };
        self.push_encoded(offset, timestamp, key, value, headers.len() as i32, &encoded);
    }

    /// Adds a record at `offset`, which must be above those before it, with the headers of another record.
    pub fn push_at(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Headers<'_>,
    ) {
        self.push_encoded(offset, timestamp, key, value, headers.len() as i32, headers.encoded());
    }

    fn push_encoded(
        &mut self,
        offset: i64,
        timestamp: i64,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: i32,
        encoded_headers: &[u8],
    ) {
        let base_timestamp = *self.base_timestamp.get_or_insert(timestamp);
        self.max_timestamp = self.max_timestamp.max(timestamp);
        self.last_offset_delta = (offset - self.base_offset) as i32;
        self.count += 1;
        let record = &mut self.scratch;
        record.clear();
        record.push(0);
        write_i64(record, timestamp.wrapping_sub(base_timestamp));
        write_i32(record, self.last_offset_delta);
        write_nullable(record, key);
        write_nullable(record, value);
        write_i32(record, headers);
        record.extend_from_slice(encoded_headers);
        write_i32(&mut self.payload, record.len() as i32);
        self.payload.extend_from_slice(record);
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub fn count(&self) -> i32 {
        self.count
    }

    /// Bytes that the batch would have without compression.
    pub fn uncompressed_size(&self) -> usize {
        HEADER_LENGTH + self.payload.len()
    }

    /// The finished batch, CRC and all, at leader epoch -1.
    pub fn build(self) -> Result<Bytes, CompressionError> {
        let payload = match self.options.codec {
            Codec::None => self.payload,
            codec => compression::compress(codec, self.options.level, &self.payload)?,
        };
        let mut batch = Vec::with_capacity(HEADER_LENGTH + payload.len());
        batch.extend_from_slice(&self.base_offset.to_be_bytes());
        batch.extend_from_slice(&((HEADER_LENGTH - LOG_OVERHEAD + payload.len()) as i32).to_be_bytes());
        batch.extend_from_slice(&(-1i32).to_be_bytes());
        batch.push(2);
        batch.extend_from_slice(&[0; 4]);
        batch.extend_from_slice(&attributes(&self.options).to_be_bytes());
        batch.extend_from_slice(&self.last_offset_delta.to_be_bytes());
        batch.extend_from_slice(&self.base_timestamp.unwrap_or(-1).to_be_bytes());
        batch.extend_from_slice(&self.max_timestamp.to_be_bytes());
        batch.extend_from_slice(&self.options.producer.id.to_be_bytes());
        batch.extend_from_slice(&self.options.producer.epoch.to_be_bytes());
        batch.extend_from_slice(&self.options.producer.base_sequence.to_be_bytes());
        batch.extend_from_slice(&self.count.to_be_bytes());
        batch.extend_from_slice(&payload);
        seal(&mut batch);
        Ok(batch.into())
    }
}

fn attributes(options: &BatchOptions) -> i16 {
    let codec = match options.codec {
        Codec::None => 0,
        Codec::Gzip => 1,
        Codec::Snappy => 2,
        Codec::Lz4 => 3,
        Codec::Zstd => 4,
    };
    codec
        | i16::from(options.log_append_time) << 3
        | i16::from(options.transactional) << 4
        | i16::from(options.control) << 5
}

/// Computes the CRC of a whole batch and puts it in place.
pub(crate) fn seal(batch: &mut [u8]) {
    let crc = crc32c::crc32c(&batch[CRC_START..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

fn write_nullable(out: &mut Vec<u8>, value: Option<&[u8]>) {
    match value {
        None => write_i32(out, -1),
        Some(value) => {
            write_i32(out, value.len() as i32);
            out.extend_from_slice(value);
        }
    }
}

#[cfg(test)]
mod tests;
