//! The header of a record batch, format v2 (KIP-98), read from and patched in place.
//!
//! A batch is stored and sent as the producer made it. Only the base offset and the partition leader epoch are
//! patched by a broker; both lie before the CRC's range, so the checksum stays the producer's own.

use crate::batch::BatchError::{BadLength, TooShort, UnsupportedMagic};

/// Bytes of a v2 batch before its records.
pub const HEADER_LENGTH: usize = 61;
/// Bytes before the batch length counts: base offset and the length itself.
pub const LOG_OVERHEAD: usize = 12;
/// Bytes that a broker may patch without touching the CRC: base offset, length, leader epoch.
pub const PATCHABLE_LENGTH: usize = 16;
/// Where the CRC's range begins.
pub const CRC_START: usize = 21;

/// The codec of a batch's records, as its attributes name it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Codec {
    None,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// Why bytes are not a batch.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("a batch needs {needed} bytes, {have} are there")]
    TooShort { needed: usize, have: usize },
    #[error("batch length {0} is impossible")]
    BadLength(i32),
    #[error("message format {0} is not served here")]
    UnsupportedMagic(i8),
    #[error("CRC is {stored:08x} in the batch and {computed:08x} over its bytes")]
    WrongCrc { stored: u32, computed: u32 },
    #[error("compression codec {0} is unknown")]
    UnknownCodec(i16),
}

/// A v2 batch's header, decoded. Offsets are absolute, times milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchHeader {
    pub base_offset: i64,
    /// Counts from after itself to the batch's end.
    pub batch_length: i32,
    pub partition_leader_epoch: i32,
    pub magic: i8,
    pub crc: u32,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl BatchHeader {
    /// Reads the header at the start of `bytes`, which may hold less than the whole batch, but not less than the
    /// header. Checks the magic and that the length can hold a header; not the CRC.
    pub fn parse(bytes: &[u8]) -> Result<Self, BatchError> {
        let Some(header) = bytes.first_chunk::<HEADER_LENGTH>() else {
            return Err(TooShort { needed: HEADER_LENGTH, have: bytes.len() });
        };
        let magic = header[16] as i8;
        if magic != 2 {
            return Err(UnsupportedMagic(magic));
        }
        let batch_length = i32_at(header, 8);
        if batch_length < (HEADER_LENGTH - LOG_OVERHEAD) as i32 {
            return Err(BadLength(batch_length));
        }
        Ok(Self {
            base_offset: i64_at(header, 0),
            batch_length,
            partition_leader_epoch: i32_at(header, 12),
            magic,
            crc: i32_at(header, 17) as u32,
            attributes: i16_at(header, 21),
            last_offset_delta: i32_at(header, 23),
            base_timestamp: i64_at(header, 27),
            max_timestamp: i64_at(header, 35),
            producer_id: i64_at(header, 43),
            producer_epoch: i16_at(header, 51),
            base_sequence: i32_at(header, 53),
            record_count: i32_at(header, 57),
        })
    }

    /// Bytes of the whole batch, from its base offset to its last record's end.
    pub fn size_in_bytes(&self) -> usize {
        self.batch_length as usize + LOG_OVERHEAD
    }

    /// Offset of the last record that the batch was written with; compaction may have taken that record away.
    pub fn last_offset(&self) -> i64 {
        self.base_offset.wrapping_add(i64::from(self.last_offset_delta))
    }

    pub fn next_offset(&self) -> i64 {
        self.last_offset().wrapping_add(1)
    }

    pub fn codec(&self) -> Result<Codec, BatchError> {
        match self.attributes & 0b111 {
            0 => Ok(Codec::None),
            1 => Ok(Codec::Gzip),
            2 => Ok(Codec::Snappy),
            3 => Ok(Codec::Lz4),
            4 => Ok(Codec::Zstd),
            other => Err(BatchError::UnknownCodec(other)),
        }
    }

    pub fn is_log_append_time(&self) -> bool {
        self.attributes & 0b1000 != 0
    }

    /// Time of a record in milliseconds: the leader's for the whole batch, or the producer's for each record.
    pub fn record_timestamp(&self, timestamp_delta: i64) -> i64 {
        if self.is_log_append_time() {
            self.max_timestamp
        } else {
            self.base_timestamp.saturating_add(timestamp_delta)
        }
    }

    pub fn is_transactional(&self) -> bool {
        self.attributes & 0b1_0000 != 0
    }

    /// A control batch holds transaction markers or the like; clients skip it.
    pub fn is_control(&self) -> bool {
        self.attributes & 0b10_0000 != 0
    }

    /// Set by the cleaner: `base_timestamp` is then the time from which tombstones may go (KIP-534).
    pub fn has_delete_horizon(&self) -> bool {
        self.attributes & 0b100_0000 != 0
    }

    pub fn has_producer_id(&self) -> bool {
        self.producer_id >= 0
    }
}

/// Checks the CRC of `batch`, which must be one whole batch.
pub fn verify_crc(batch: &[u8]) -> Result<(), BatchError> {
    if batch.len() < HEADER_LENGTH {
        return Err(TooShort { needed: HEADER_LENGTH, have: batch.len() });
    }
    let stored = i32_at(batch, 17) as u32;
    let computed = crc32c::crc32c(&batch[CRC_START..]);
    if stored == computed { Ok(()) } else { Err(BatchError::WrongCrc { stored, computed }) }
}

/// The CRC of what has `crc` and `more` bytes behind it; that of nothing is 0. A batch's covers what lies from `CRC_START` on.
pub fn extend_crc(crc: u32, more: &[u8]) -> u32 {
    crc32c::crc32c_append(crc, more)
}

/// The first bytes of `batch`, with another base offset and leader epoch: all that a broker changes on append.
pub fn patched_prefix(
    batch: &[u8; PATCHABLE_LENGTH],
    base_offset: i64,
    leader_epoch: i32,
) -> [u8; PATCHABLE_LENGTH] {
    let mut prefix = *batch;
    prefix[0..8].copy_from_slice(&base_offset.to_be_bytes());
    prefix[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
    prefix
}

/// Walks whole batches in `bytes`. Ends at the first error, or quietly where fewer bytes are left than a batch needs
/// (`remainder` tells how many).
#[derive(Debug, Clone)]
pub struct Batches<'a> {
    bytes: &'a [u8],
}

/// The batches that lie back to back in `bytes`.
pub fn batches(bytes: &[u8]) -> Batches<'_> {
    Batches { bytes }
}

impl<'a> Batches<'a> {
    /// Bytes not yet walked.
    pub fn remainder(&self) -> &'a [u8] {
        self.bytes
    }
}

impl<'a> Iterator for Batches<'a> {
    type Item = Result<(BatchHeader, &'a [u8]), BatchError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.len() < HEADER_LENGTH {
            return None;
        }
        let header = match BatchHeader::parse(self.bytes) {
            Ok(header) => header,
            Err(error) => {
                self.bytes = &[];
                return Some(Err(error));
            }
        };
        let size = header.size_in_bytes();
        if self.bytes.len() < size {
            return None;
        }
        let (batch, rest) = self.bytes.split_at(size);
        self.bytes = rest;
        Some(Ok((header, batch)))
    }
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    let mut raw = [0; 2];
    raw.copy_from_slice(&bytes[at..at + 2]);
    i16::from_be_bytes(raw)
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    let mut raw = [0; 4];
    raw.copy_from_slice(&bytes[at..at + 4]);
    i32::from_be_bytes(raw)
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[at..at + 8]);
    i64::from_be_bytes(raw)
}
