//! Takes records out of stored batches, as the log cleaner does, without moving what is left.
//!
//! A batch that loses records keeps its offset range, its producer and its sequence numbers, so that followers, producers
//! and consumers see the same offsets before and after. (Kafka: `MemoryRecords.filterTo`.)

use bytes::Bytes;

use crate::batch::{BatchHeader, CRC_START, HEADER_LENGTH, LOG_OVERHEAD};
use crate::builder::{self, BatchBuilder, BatchOptions, Producer};
use crate::lookup::{self, LookupError};
use crate::record::{Record, records};

const DELETE_HORIZON: i16 = 0b100_0000;

/// What is left of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Filtered {
    /// All of it: the stored bytes stay as they are.
    Unchanged,
    /// Some records, in a batch that takes the old one's place.
    Rewritten(Bytes),
    /// No record. [`emptied`] makes the batch that keeps the place where its producer's sequence is still needed.
    Empty,
}

/// Keeps those records of `batch`, one whole batch, of which `keep` says so, given their offset.
///
/// `delete_horizon_ms` is set in a batch that has none, though no record goes: from then on its tombstones or markers may
/// be taken (KIP-534). Records may be decompressed to `decompressed_bytes_max` bytes, and get the batch's own codec again.
pub fn filter(
    header: &BatchHeader,
    batch: &[u8],
    delete_horizon_ms: Option<i64>,
    decompressed_bytes_max: usize,
    mut keep: impl FnMut(i64, &Record<'_>) -> bool,
) -> Result<Filtered, LookupError> {
    let payload = lookup::payload(header, batch, decompressed_bytes_max)?;
    let horizon = if header.has_delete_horizon() { Some(header.base_timestamp) } else { delete_horizon_ms };
    let mut kept = BatchBuilder::at_offset(options(header)?, header.base_offset);
    if let Some(horizon) = horizon {
        kept = kept.with_base_timestamp(horizon);
    }
    let mut is_complete = true;
    for record in records(header.record_count, &payload) {
        let record = record?;
        let offset = header.base_offset.saturating_add(record.offset_delta.into());
        if keep(offset, &record) {
            let timestamp = header.record_timestamp(record.timestamp_delta);
            kept.push_at(offset, timestamp, record.key, record.value, record.headers);
        } else {
            is_complete = false;
        }
    }
    if kept.is_empty() {
        return Ok(Filtered::Empty);
    }
    if is_complete && horizon.is_some() == header.has_delete_horizon() {
        return Ok(Filtered::Unchanged);
    }
    let mut rewritten = kept.build()?.to_vec();
    let attributes = match horizon {
        Some(_) => header.attributes | DELETE_HORIZON,
        None => header.attributes,
    };
    put_back(&mut rewritten, header, attributes);
    Ok(Filtered::Rewritten(rewritten.into()))
}

/// The batch with no records that keeps `header`'s offsets and its producer's last sequence number.
pub fn emptied(header: &BatchHeader) -> Bytes {
    let mut batch = vec![0; HEADER_LENGTH];
    batch[0..8].copy_from_slice(&header.base_offset.to_be_bytes());
    batch[8..12].copy_from_slice(&((HEADER_LENGTH - LOG_OVERHEAD) as i32).to_be_bytes());
    batch[16] = 2;
    batch[27..35].copy_from_slice(&(-1i64).to_be_bytes());
    batch[35..43].copy_from_slice(&header.max_timestamp.to_be_bytes());
    batch[43..51].copy_from_slice(&header.producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&header.producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&header.base_sequence.to_be_bytes());
    // There is nothing in it to be compressed, nor to be deleted later.
    put_back(&mut batch, header, header.attributes & 0b11_1000);
    batch.into()
}

/// Gives `batch` the leader epoch and last offset that `header` has, and `attributes`.
fn put_back(batch: &mut [u8], header: &BatchHeader, attributes: i16) {
    batch[12..16].copy_from_slice(&header.partition_leader_epoch.to_be_bytes());
    batch[CRC_START..CRC_START + 2].copy_from_slice(&attributes.to_be_bytes());
    batch[23..27].copy_from_slice(&header.last_offset_delta.to_be_bytes());
    builder::seal(batch);
}

fn options(header: &BatchHeader) -> Result<BatchOptions, LookupError> {
    Ok(BatchOptions {
        codec: header.codec()?,
        level: None,
        producer: Producer {
            id: header.producer_id,
            epoch: header.producer_epoch,
            base_sequence: header.base_sequence,
        },
        transactional: header.is_transactional(),
        control: header.is_control(),
        log_append_time: header.is_log_append_time(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::{Codec, batches, verify_crc};

    const LIMIT: usize = 1 << 20;

    fn batch(codec: Codec, log_append_time: bool) -> (BatchHeader, Bytes) {
        let producer = Producer { id: 5, epoch: 1, base_sequence: 30 };
        let options =
            BatchOptions { codec, producer, log_append_time, transactional: true, ..BatchOptions::default() };
        let mut builder = BatchBuilder::at_offset(options, 100);
        for (key, timestamp) in [(b"a", 1000), (b"b", 1500), (b"c", 1200), (b"d", 1300)] {
            builder.push(timestamp, Some(key), Some(b"value"), &[(b"h", Some(b"x"))]);
        }
        let mut bytes = builder.build().unwrap().to_vec();
        bytes[12..16].copy_from_slice(&8i32.to_be_bytes());
        (BatchHeader::parse(&bytes).unwrap(), bytes.into())
    }

    fn rewritten(filtered: Filtered) -> (BatchHeader, Bytes) {
        let Filtered::Rewritten(bytes) = filtered else { panic!("{filtered:?}") };
        verify_crc(&bytes).unwrap();
        let (header, whole) = batches(&bytes).next().unwrap().unwrap();
        assert_eq!(whole.len(), bytes.len());
        (header, bytes)
    }

    #[test]
    fn what_stays_keeps_its_place_and_time() {
        for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
            let (old, bytes) = batch(codec, false);
            let keep = |offset, record: &Record<'_>| record.key == Some(b"b") || offset == 102;
            let (new, bytes) = rewritten(filter(&old, &bytes, None, LIMIT, keep).unwrap());
            let expected = BatchHeader {
                batch_length: new.batch_length,
                crc: new.crc,
                base_timestamp: 1500,
                record_count: 2,
                ..old
            };
            assert_eq!(new, expected, "leader epoch, offsets, producer and sequence are the old ones");
            let payload = lookup::payload(&new, &bytes, LIMIT).unwrap();
            let left: Vec<_> = records(2, &payload)
                .map(|record| record.unwrap())
                .map(|record| (record.offset_delta, new.record_timestamp(record.timestamp_delta)))
                .collect();
            assert_eq!(left, [(1, 1500), (2, 1200)]);
            assert_eq!(records(2, &payload).next().unwrap().unwrap().headers.len(), 1);
        }
    }

    #[test]
    fn a_batch_that_loses_nothing_is_not_touched() {
        let (header, bytes) = batch(Codec::None, false);
        assert_eq!(filter(&header, &bytes, None, LIMIT, |_, _| true).unwrap(), Filtered::Unchanged);
        assert_eq!(filter(&header, &bytes, Some(9), LIMIT, |_, _| false).unwrap(), Filtered::Empty);
    }

    #[test]
    fn a_delete_horizon_is_set_once_and_times_stay() {
        let (header, bytes) = batch(Codec::Lz4, false);
        let (first, bytes) = rewritten(filter(&header, &bytes, Some(77_000), LIMIT, |_, _| true).unwrap());
        assert!(first.has_delete_horizon());
        assert_eq!((first.base_timestamp, first.max_timestamp), (77_000, 1500));
        assert_eq!(
            lookup::max_timestamp(&first, &bytes, &(0..i64::MAX), LIMIT).unwrap().unwrap().timestamp,
            1500
        );
        assert_eq!(filter(&first, &bytes, Some(88_000), LIMIT, |_, _| true).unwrap(), Filtered::Unchanged);
        let (second, _) =
            rewritten(filter(&first, &bytes, Some(88_000), LIMIT, |offset, _| offset < 102).unwrap());
        assert_eq!((second.base_timestamp, second.has_delete_horizon()), (77_000, true));
    }

    #[test]
    fn the_brokers_time_stays_with_fewer_records() {
        let (header, bytes) = batch(Codec::None, true);
        let (new, _) = rewritten(filter(&header, &bytes, None, LIMIT, |offset, _| offset == 100).unwrap());
        assert!(new.is_log_append_time());
        assert_eq!(new.max_timestamp, header.max_timestamp);
    }

    #[test]
    fn an_emptied_batch_keeps_offsets_and_producer() {
        let (header, _) = batch(Codec::Zstd, false);
        let bytes = emptied(&header);
        verify_crc(&bytes).unwrap();
        let (new, _) = batches(&bytes).next().unwrap().unwrap();
        let expected = BatchHeader {
            batch_length: new.batch_length,
            crc: new.crc,
            attributes: header.attributes & !0b111,
            base_timestamp: -1,
            record_count: 0,
            ..header
        };
        assert_eq!(new, expected);
        assert_eq!(new.next_offset(), header.next_offset());
        assert_eq!(filter(&new, &bytes, None, LIMIT, |_, _| true).unwrap(), Filtered::Empty);
    }
}
