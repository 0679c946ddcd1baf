//! One batch through the cleaner: what is left of it, with its offsets where they were.
//!
//! A batch of which nothing goes is copied byte for byte. Otherwise it is made again with the same base offset, last
//! offset delta, producer and epoch, so that offsets and sequences mean what they meant (`MemoryRecords.filterTo`).

use firn_records::batch::{BatchHeader, CRC_START, Codec, HEADER_LENGTH};
use firn_records::compression::compress;
use firn_records::record::{Record, records};
use firn_records::varint;

use crate::times::payload;

/// Bit of the attributes that says `base_timestamp` is a delete horizon (KIP-534).
const DELETE_HORIZON: i16 = 0b100_0000;
/// Bits of the attributes that an emptied batch keeps: all but codec and horizon.
const CODEC: i16 = 0b111;

/// What becomes of a batch's records, and of the batch when none is left.
#[derive(Clone, Copy)]
pub(crate) struct Filter<'a> {
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    /// Does this offset hold its key's newest record, as far as is known?
    pub(crate) is_newest: &'a dyn Fn(&[u8], i64) -> bool,
    /// Records at or above are not judged yet.
    pub(crate) end_offset: i64,
}

/// The batch that is to be written.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    Unchanged,
    Rewritten(Vec<u8>),
    /// No record is left.
    Gone,
}

impl Filter<'_> {
    /// Judges a data batch. The error says what is wrong with its records.
    pub(crate) fn apply(&self, header: &BatchHeader, batch: &[u8]) -> Result<Outcome, String> {
        let payload = payload(header, batch)?;
        let horizon = header.has_delete_horizon().then_some(header.base_timestamp);
        let mut kept: Vec<Record<'_>> =
            Vec::with_capacity(usize::try_from(header.record_count).unwrap_or(0).min(65_536));
        let mut tombstones = false;
        for record in records(header.record_count, &payload) {
            let record = record.map_err(|error| error.to_string())?;
            if self.keeps(header, &record, horizon) {
                tombstones |= record.value.is_none();
                kept.push(record);
            }
        }
        if kept.is_empty() {
            return Ok(Outcome::Gone);
        }
        let new_horizon = (tombstones && horizon.is_none())
            .then(|| self.now_ms.saturating_add(self.delete_retention_ms.max(0)));
        if kept.len() == header.record_count as usize && new_horizon.is_none() {
            return Ok(Outcome::Unchanged);
        }
        rebuild(header, &kept, new_horizon).map(Outcome::Rewritten)
    }

    fn keeps(&self, header: &BatchHeader, record: &Record<'_>, horizon: Option<i64>) -> bool {
        let offset = header.base_offset + i64::from(record.offset_delta);
        if offset >= self.end_offset {
            return true;
        }
        // A record without a key has no place in a compacted topic; the broker refuses it, older data may have it.
        let Some(key) = record.key else { return false };
        let value_counts = record.value.is_some() || horizon.is_none_or(|horizon| self.now_ms < horizon);
        value_counts && (self.is_newest)(key, offset)
    }
}

fn rebuild(header: &BatchHeader, kept: &[Record<'_>], new_horizon: Option<i64>) -> Result<Vec<u8>, String> {
    let base_timestamp = new_horizon.unwrap_or(header.base_timestamp);
    let mut plain = Vec::new();
    let mut body = Vec::new();
    let mut max_timestamp = -1;
    for record in kept {
        let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
        max_timestamp = max_timestamp.max(timestamp);
        body.clear();
        body.push(0);
        varint::write_i64(&mut body, timestamp.wrapping_sub(base_timestamp));
        varint::write_i32(&mut body, record.offset_delta);
        write_nullable(&mut body, record.key);
        write_nullable(&mut body, record.value);
        varint::write_i32(&mut body, i32::try_from(record.headers.len()).unwrap_or(i32::MAX));
        for (name, value) in record.headers.iter() {
            write_nullable(&mut body, Some(name));
            write_nullable(&mut body, value);
        }
        varint::write_i32(&mut plain, i32::try_from(body.len()).map_err(|_| "a record over 2 GiB")?);
        plain.extend_from_slice(&body);
    }
    let stored = match header.codec().map_err(|error| error.to_string())? {
        Codec::None => plain,
        codec => compress(codec, None, &plain).map_err(|error| error.to_string())?,
    };
    let attributes = header.attributes | if new_horizon.is_some() { DELETE_HORIZON } else { 0 };
    if header.is_log_append_time() {
        max_timestamp = header.max_timestamp;
    }
    let count = i32::try_from(kept.len()).unwrap_or(i32::MAX);
    Ok(assemble(
        &BatchHeader { base_timestamp, max_timestamp, attributes, record_count: count, ..*header },
        &stored,
    ))
}

/// The batch without its records: it still tells its producer's last sequence, and where the segment ends.
pub(crate) fn emptied(header: &BatchHeader) -> Vec<u8> {
    let attributes = header.attributes & !(CODEC | DELETE_HORIZON);
    assemble(&BatchHeader { base_timestamp: -1, attributes, record_count: 0, ..*header }, &[])
}

fn assemble(header: &BatchHeader, stored: &[u8]) -> Vec<u8> {
    let mut batch = Vec::with_capacity(HEADER_LENGTH + stored.len());
    batch.extend_from_slice(&header.base_offset.to_be_bytes());
    let length = i32::try_from(HEADER_LENGTH - 12 + stored.len()).unwrap_or(i32::MAX);
    batch.extend_from_slice(&length.to_be_bytes());
    batch.extend_from_slice(&header.partition_leader_epoch.to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&[0; 4]);
    batch.extend_from_slice(&header.attributes.to_be_bytes());
    batch.extend_from_slice(&header.last_offset_delta.to_be_bytes());
    batch.extend_from_slice(&header.base_timestamp.to_be_bytes());
    batch.extend_from_slice(&header.max_timestamp.to_be_bytes());
    batch.extend_from_slice(&header.producer_id.to_be_bytes());
    batch.extend_from_slice(&header.producer_epoch.to_be_bytes());
    batch.extend_from_slice(&header.base_sequence.to_be_bytes());
    batch.extend_from_slice(&header.record_count.to_be_bytes());
    batch.extend_from_slice(stored);
    let crc = crc32c::crc32c(batch.get(CRC_START..).unwrap_or_default());
    if let Some(slot) = batch.get_mut(17..CRC_START) {
        slot.copy_from_slice(&crc.to_be_bytes());
    }
    batch
}

fn write_nullable(out: &mut Vec<u8>, field: Option<&[u8]>) {
    match field {
        None => varint::write_i32(out, -1),
        Some(bytes) => {
            varint::write_i32(out, i32::try_from(bytes.len()).unwrap_or(i32::MAX));
            out.extend_from_slice(bytes);
        }
    }
}
