//! What the fuzz target and the replay of its corpus do with one input. It panics where a promise is broken.
//!
//! The first byte chooses the topic's policy, the others are the request's records. Since no mutation finds a CRC, the
//! records are tried a second time with lengths and CRC that fit.

use bytes::Bytes;
use firn_model::topic_config::TimestampType;
use firn_records::batch::{self, BatchHeader, Codec, HEADER_LENGTH, LOG_OVERHEAD};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::compaction::{self, Filtered};
use firn_records::compression::decompress;
use firn_records::legacy::{self, MessageFormat};
use firn_records::lookup;
use firn_records::record::records;
use firn_records::validate::{Compression, ProducePolicy, ValidatedBatches, validate};

pub const NOW_MS: i64 = 1_700_000_000_000;
const LIMIT: usize = 64 << 10;
const CODECS: [Codec; 5] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

pub fn batch_validator(data: &[u8]) {
    let Some((choice, bytes)) = data.split_first() else { return };
    let policy = policy(*choice);
    all_readers(bytes, &policy);
    for codec in CODECS {
        if let Ok(out) = decompress(codec, bytes, LIMIT) {
            assert!(out.len() <= LIMIT, "{codec:?} gave {} bytes", out.len());
        }
    }
    if let Some(fitting) = with_fitting_header(bytes) {
        all_readers(&fitting, &policy);
    }
}

fn policy(choice: u8) -> ProducePolicy {
    let is_set = |bit: u8| choice >> bit & 1 == 1;
    ProducePolicy {
        max_message_bytes: if is_set(0) { 200 } else { 1 << 20 },
        timestamp_type: if is_set(1) { TimestampType::LogAppendTime } else { TimestampType::CreateTime },
        timestamp_before_max_ms: if is_set(2) { 86_400_000 } else { i64::MAX },
        timestamp_after_max_ms: if is_set(3) { 3_600_000 } else { i64::MAX },
        compression: match choice >> 4 & 0b11 {
            0 => Compression::Producer,
            1 => Compression::Fixed(Codec::None, None),
            2 => Compression::Fixed(Codec::Lz4, None),
            _ => Compression::Fixed(Codec::Gzip, Some(1)),
        },
        compacted: is_set(6),
        single_batch: is_set(7),
        zstd_allowed: true,
        decompressed_bytes_max: LIMIT,
    }
}

fn all_readers(bytes: &[u8], policy: &ProducePolicy) {
    let given = Bytes::copy_from_slice(bytes);
    if let Ok(valid) = validate(given, policy, NOW_MS) {
        check_valid(&valid, policy);
    }
    for (header, whole) in batch::batches(bytes).flatten() {
        check_stored(&header, whole);
    }
    for format in [MessageFormat::V0, MessageFormat::V1] {
        drop(legacy::downconvert(bytes, format, 1, LIMIT));
    }
    if let Ok(batches) = legacy::upconvert(bytes, LIMIT)
        && let Ok(valid) = validate(batches, policy, NOW_MS)
    {
        check_valid(&valid, policy);
    }
}

/// What the validator lets through is whole, sound, says what it lists, and would be let through again.
fn check_valid(valid: &ValidatedBatches, policy: &ProducePolicy) {
    let found: Vec<_> = batch::batches(&valid.bytes).map(Result::unwrap).collect();
    assert_eq!(found.iter().map(|(header, _)| *header).collect::<Vec<_>>(), valid.headers);
    assert_eq!(found.iter().map(|(_, whole)| whole.len()).sum::<usize>(), valid.bytes.len());
    assert!(!found.is_empty());
    for (header, whole) in found {
        batch::verify_crc(whole).unwrap();
        assert!(whole.len() <= policy.max_message_bytes);
        assert_eq!(header.last_offset_delta, header.record_count - 1);
        if header.codec() == Ok(Codec::None) {
            let deltas = records(header.record_count, &whole[HEADER_LENGTH..]);
            assert!(deltas.map(|record| record.unwrap().offset_delta).eq(0..header.record_count));
            for format in [MessageFormat::V0, MessageFormat::V1] {
                let converted = legacy::downconvert(whole, format, 0, LIMIT).unwrap();
                assert_eq!(converted.next_offset, Some(header.next_offset()));
            }
        }
    }
    if policy.timestamp_type == TimestampType::CreateTime {
        let again = validate(valid.bytes.clone(), policy, NOW_MS).unwrap();
        assert_eq!(again.bytes, valid.bytes);
    }
}

/// Readers of the log meet batches that no validator saw: they may refuse, and not panic.
fn check_stored(header: &BatchHeader, whole: &[u8]) {
    drop(lookup::max_timestamp(header, whole, &(1..i64::MAX), LIMIT));
    drop(lookup::first_at_or_after(header, whole, NOW_MS, 1, LIMIT));
    let every_other = compaction::filter(header, whole, None, LIMIT, |offset, _| offset % 2 == 0);
    if let Ok(Filtered::Rewritten(left)) = every_other {
        let (kept, _) = batch::batches(&left).next().unwrap().unwrap();
        assert_eq!((kept.base_offset, kept.next_offset()), (header.base_offset, header.next_offset()));
        batch::verify_crc(&left).unwrap();
    }
    batch::verify_crc(&compaction::emptied(header)).unwrap();
}

/// `bytes` as one batch, with magic, length and CRC that fit.
fn with_fitting_header(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut batch = bytes.to_vec();
    let length = i32::try_from(bytes.len().checked_sub(LOG_OVERHEAD)?).ok()?;
    batch.get_mut(..HEADER_LENGTH)?;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[16] = 2;
    let computed = match batch::verify_crc(&batch) {
        Err(batch::BatchError::WrongCrc { computed, .. }) => computed,
        _ => return None,
    };
    batch[17..21].copy_from_slice(&computed.to_be_bytes());
    Some(batch)
}

/// Inputs to begin with: sound batches of every codec, and what they become as old message sets.
#[allow(dead_code, reason = "the fuzz target takes them from the corpus")]
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (choice, codec) in (0u8..).step_by(0x11).zip(CODECS) {
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        builder.push(NOW_MS, Some(b"key"), Some(b"value value value value"), &[]);
        builder.push(NOW_MS + 1, None, None, &[(b"name", Some(b"value")), (b"name", None)]);
        builder.push(NOW_MS - 70_000, Some(b""), Some(&[b'x'; 200]), &[]);
        let batch = builder.build().unwrap();
        seeds.push([&[choice], &batch[..]].concat());
        for format in [MessageFormat::V0, MessageFormat::V1] {
            if let Ok(set) = legacy::downconvert(&batch, format, 0, LIMIT) {
                seeds.push([&[choice], &set.messages[..]].concat());
            }
        }
        seeds.push([&[choice & 0x7f], &batch[..], &batch[..]].concat());
    }
    seeds
}
