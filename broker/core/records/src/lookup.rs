//! Finds records in one stored batch by their time: the last step of ListOffsets, after the time index.

use std::borrow::Cow;
use std::ops::Range;

use crate::batch::{BatchError, BatchHeader};
use crate::compression::{self, CompressionError};
use crate::payload::Payload;
use crate::record::RecordError;

/// Why a stored batch cannot be looked into.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Compression(#[from] CompressionError),
    #[error(transparent)]
    Record(#[from] RecordError),
}

/// A record's place and time (milliseconds).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimedOffset {
    pub offset: i64,
    pub timestamp: i64,
}

/// The bytes of a whole batch's records, decompressed if they must be, to at most `decompressed_bytes_max` bytes.
pub fn payload<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    decompressed_bytes_max: usize,
) -> Result<Cow<'a, [u8]>, LookupError> {
    Ok(match Payload::of(header, batch, decompressed_bytes_max)? {
        Payload::Plain(bytes) => Cow::Borrowed(bytes),
        Payload::Compressed { codec, bytes, decompressed_bytes_max } => {
            Cow::Owned(compression::decompress(codec, bytes, decompressed_bytes_max)?)
        }
    })
}

/// The first record of a batch at or after both `timestamp` and `from_offset`; `None` if there is none.
pub fn first_at_or_after(
    header: &BatchHeader,
    batch: &[u8],
    timestamp: i64,
    from_offset: i64,
    decompressed_bytes_max: usize,
) -> Result<Option<TimedOffset>, LookupError> {
    if header.max_timestamp < timestamp || header.last_offset() < from_offset {
        return Ok(None);
    }
    find(header, batch, decompressed_bytes_max, |found, record| {
        found.is_none() && record.timestamp >= timestamp && record.offset >= from_offset
    })
}

/// Of a batch's records with these offsets the first that has the greatest timestamp of them; `None` if there is none,
/// since compaction may have left holes (KIP-734).
pub fn max_timestamp(
    header: &BatchHeader,
    batch: &[u8],
    offsets: &Range<i64>,
    decompressed_bytes_max: usize,
) -> Result<Option<TimedOffset>, LookupError> {
    find(header, batch, decompressed_bytes_max, |found, record| {
        offsets.contains(&record.offset) && found.is_none_or(|found| record.timestamp > found.timestamp)
    })
}

fn find(
    header: &BatchHeader,
    batch: &[u8],
    decompressed_bytes_max: usize,
    is_better: impl Fn(Option<TimedOffset>, TimedOffset) -> bool,
) -> Result<Option<TimedOffset>, LookupError> {
    let payload = Payload::of(header, batch, decompressed_bytes_max)?;
    let mut found = None;
    payload.each_shape::<LookupError>(header.record_count, |_, record| {
        let record = TimedOffset {
            offset: header.base_offset.saturating_add(record.offset_delta.into()),
            timestamp: header.record_timestamp(record.timestamp_delta),
        };
        if is_better(found, record) {
            found = Some(record);
        }
    })?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::Codec;
    use crate::builder::{BatchBuilder, BatchOptions};

    const LIMIT: usize = 1 << 20;
    const ALL: Range<i64> = 0..i64::MAX;

    fn batch(options: BatchOptions, timestamps: &[i64]) -> (BatchHeader, bytes::Bytes) {
        let mut builder = BatchBuilder::at_offset(options, 100);
        for timestamp in timestamps {
            builder.push(*timestamp, None, Some(b"v"), &[]);
        }
        let batch = builder.build().unwrap();
        (BatchHeader::parse(&batch).unwrap(), batch)
    }

    fn at(offset: i64, timestamp: i64) -> Option<TimedOffset> {
        Some(TimedOffset { offset, timestamp })
    }

    #[test]
    fn records_are_found_by_time_in_every_codec() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let (header, batch) =
                batch(BatchOptions { codec, ..BatchOptions::default() }, &[10, 30, 20, 30, 25]);
            let first = |timestamp, from| first_at_or_after(&header, &batch, timestamp, from, LIMIT).unwrap();
            assert_eq!(first(0, 0), at(100, 10));
            assert_eq!(first(11, 0), at(101, 30));
            assert_eq!(first(11, 102), at(102, 20), "records before the log's start do not count");
            assert_eq!(first(26, 104), None);
            assert_eq!(first(31, 0), None);
            assert_eq!(
                max_timestamp(&header, &batch, &ALL, LIMIT).unwrap(),
                at(101, 30),
                "the first of equals"
            );
            let largest = |offsets| max_timestamp(&header, &batch, &offsets, LIMIT).unwrap();
            assert_eq!(largest(102..105), at(103, 30));
            assert_eq!(largest(102..103), at(102, 20));
            assert_eq!(largest(105..200), None);
        }
    }

    #[test]
    fn the_brokers_time_is_that_of_all_records() {
        let options = BatchOptions { log_append_time: true, ..BatchOptions::default() };
        let (header, batch) = batch(options, &[10, 30, 20]);
        assert_eq!(max_timestamp(&header, &batch, &ALL, LIMIT).unwrap(), at(100, 30));
        assert_eq!(first_at_or_after(&header, &batch, 30, 102, LIMIT).unwrap(), at(102, 30));
    }

    #[test]
    fn a_batch_that_is_not_whole_is_an_error() {
        let (header, batch) = batch(BatchOptions::default(), &[10]);
        assert!(max_timestamp(&header, &batch[..batch.len() - 1], &ALL, LIMIT).is_err());
        assert!(max_timestamp(&header, &[], &ALL, LIMIT).is_err());
    }
}
