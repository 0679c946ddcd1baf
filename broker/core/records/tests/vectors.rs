//! What Apache Kafka 4.3.1's own `MemoryRecordsBuilder` wrote, in every format and codec, read and written by us.
//!
//! Files of `vectors/` are named by format and codec. They hold three records; those named `-large` hold a fourth, so that
//! the codecs' streams have several blocks. `marker-` files end a transaction.
#![allow(clippy::unwrap_used, reason = "what is run here is a test, its helpers too")]

use std::fs;
use std::path::Path;

use bytes::Bytes;
use firn_model::topic_config::TimestampType;
use firn_records::batch::{BatchHeader, batches, verify_crc};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::control::{EndTransactionMarker, TransactionResult};
use firn_records::legacy::{MessageFormat, downconvert, is_message_set, upconvert};
use firn_records::lookup::payload;
use firn_records::record::records;
use firn_records::validate::{Compression, ProducePolicy, validate};

const LIMIT: usize = 1 << 20;
const NOW_MS: i64 = 1_700_000_000_000;

/// Time, key, value, number of headers.
type Row = (i64, Option<Vec<u8>>, Option<Vec<u8>>, usize);

fn vectors() -> Vec<(String, Bytes)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors");
    let mut found: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap().into()))
        .collect();
    found.retain(|(name, _)| !name.starts_with("marker"));
    found.sort();
    assert_eq!(found.len(), 18);
    found
}

fn vector(name: &str) -> Bytes {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(name)).unwrap().into()
}

fn expected(name: &str) -> Vec<Row> {
    let time = |offset: i64| if name.starts_with("v0") { -1 } else { NOW_MS + offset };
    let headers = if name.starts_with("v2") { 2 } else { 0 };
    let mut rows: Vec<Row> = vec![
        (time(0), Some(b"key".to_vec()), Some(b"value".to_vec()), headers),
        (time(5), None, Some(b"hello hello hello hello hello hello".to_vec()), 0),
        (time(-7), Some(b"gone".to_vec()), None, 0),
    ];
    if name.ends_with("-large") {
        rows.push((time(0), None, Some((0..70_000u32).map(|n| (n % 251) as u8).collect()), 0));
    }
    rows
}

fn rows(bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    for found in batches(bytes) {
        let (header, batch) = found.unwrap();
        verify_crc(batch).unwrap();
        let payload = payload(&header, batch, LIMIT).unwrap();
        for (delta, record) in (0..).zip(records(header.record_count, &payload)) {
            let record = record.unwrap();
            assert_eq!(record.offset_delta, delta);
            rows.push((
                header.record_timestamp(record.timestamp_delta),
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
                record.headers.iter().count(),
            ));
        }
    }
    rows
}

fn policy() -> ProducePolicy {
    ProducePolicy {
        max_message_bytes: LIMIT,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: 1000,
        timestamp_after_max_ms: 1000,
        compression: Compression::Producer,
        compacted: false,
        single_batch: true,
        zstd_allowed: true,
        decompressed_bytes_max: LIMIT,
    }
}

#[test]
fn every_format_and_codec_is_read() {
    for (name, bytes) in vectors() {
        assert_eq!(is_message_set(&bytes), !name.starts_with("v2"), "{name}");
        let batches = if is_message_set(&bytes) { upconvert(&bytes, LIMIT).unwrap() } else { bytes };
        assert_eq!(rows(&batches), expected(&name), "{name}");
        let valid = validate(batches.clone(), &policy(), NOW_MS).unwrap();
        assert_eq!(valid.bytes.as_ptr(), batches.as_ptr(), "{name} passes through");
    }
}

#[test]
fn an_uncompressed_batch_is_written_byte_for_byte_alike() {
    let mut batch = BatchBuilder::new(BatchOptions {
        producer: Producer { id: 77, epoch: 3, base_sequence: 5 },
        ..BatchOptions::default()
    });
    for (index, (time, key, value, _)) in expected("v2-none").into_iter().enumerate() {
        let headers: &[(&[u8], Option<&[u8]>)] =
            if index == 0 { &[(b"trace", Some(&[1, 2])), (b"none", None)] } else { &[] };
        batch.push(time, key.as_deref(), value.as_deref(), headers);
    }
    assert_eq!(batch.build().unwrap(), vector("v2-none"));
}

#[test]
fn uncompressed_messages_are_written_byte_for_byte_alike() {
    let batch = vector("v2-none");
    for (format, name) in [(MessageFormat::V0, "v0-none"), (MessageFormat::V1, "v1-none")] {
        assert_eq!(downconvert(&batch, format, 0, LIMIT).unwrap().messages, vector(name));
    }
}

#[test]
fn compressed_batches_go_down_and_up_again() {
    for (name, bytes) in vectors() {
        if !name.starts_with("v2") || name.contains("zstd") {
            continue;
        }
        for (format, prefix) in [(MessageFormat::V0, "v0"), (MessageFormat::V1, "v1")] {
            let messages = downconvert(&bytes, format, 0, LIMIT).unwrap().messages;
            let again = upconvert(&messages, LIMIT).unwrap();
            assert_eq!(rows(&again), expected(&name.replace("v2", prefix)), "{name} by {format:?}");
            let codec = BatchHeader::parse(&bytes).unwrap().codec();
            assert_eq!(BatchHeader::parse(&again).unwrap().codec(), codec, "{name} by {format:?}");
        }
    }
}

#[test]
fn markers_are_written_byte_for_byte_alike() {
    for (name, result) in
        [("marker-commit", TransactionResult::Commit), ("marker-abort", TransactionResult::Abort)]
    {
        let marker = EndTransactionMarker { result, coordinator_epoch: 9 };
        let mut batch = BatchBuilder::new(BatchOptions {
            producer: Producer { id: 77, epoch: 3, base_sequence: -1 },
            transactional: true,
            control: true,
            ..BatchOptions::default()
        });
        batch.push(NOW_MS, Some(&marker.key()), Some(&marker.value()), &[]);
        let theirs = vector(name);
        assert_eq!(batch.build().unwrap(), theirs, "{name}");
        let header = BatchHeader::parse(&theirs).unwrap();
        assert_eq!(EndTransactionMarker::of_batch(&header, &theirs), Some(marker));
    }
}
