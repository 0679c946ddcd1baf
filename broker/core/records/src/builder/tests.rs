//! Built batches against the format's description, byte by byte, and back through the readers.

use super::*;
use crate::batch::{BatchHeader, batches, verify_crc};
use crate::record::{RecordError, records};
use proptest::prelude::*;

#[test]
fn a_batch_is_laid_out_as_kip_98_says() {
    let mut builder = BatchBuilder::new(BatchOptions {
        producer: Producer { id: 7, epoch: 3, base_sequence: 40 },
        ..BatchOptions::default()
    });
    builder.push(1000, Some(b"k"), Some(b"v"), &[]);
    builder.push(1005, None, Some(b"w"), &[(b"h", None)]);
    let batch = builder.build().unwrap();
    let mut expected = Vec::new();
    expected.extend_from_slice(&0i64.to_be_bytes()); // base offset
    expected.extend_from_slice(&69i32.to_be_bytes()); // 49 of header and 20 of records
    expected.extend_from_slice(&(-1i32).to_be_bytes()); // leader epoch
    expected.push(2);
    expected.extend_from_slice(&batch[17..21]); // CRC, checked below
    expected.extend_from_slice(&0i16.to_be_bytes());
    expected.extend_from_slice(&1i32.to_be_bytes());
    expected.extend_from_slice(&1000i64.to_be_bytes());
    expected.extend_from_slice(&1005i64.to_be_bytes());
    expected.extend_from_slice(&7i64.to_be_bytes());
    expected.extend_from_slice(&3i16.to_be_bytes());
    expected.extend_from_slice(&40i32.to_be_bytes());
    expected.extend_from_slice(&2i32.to_be_bytes());
    expected.extend_from_slice(&[16, 0, 0, 0, 2, b'k', 2, b'v', 0]);
    expected.extend_from_slice(&[20, 0, 10, 2, 1, 2, b'w', 2, 2, b'h']);
    expected.push(1);
    assert_eq!(expected.len(), 69 + 12);
    assert_eq!(batch, expected);
    verify_crc(&batch).unwrap();
    let mut wrong = batch.to_vec();
    wrong[HEADER_LENGTH] ^= 1;
    assert!(verify_crc(&wrong).is_err());
}

#[test]
fn lying_counts_are_noticed() {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(0, None, Some(b"only"), &[]);
    let batch = builder.build().unwrap();
    let payload = &batch[HEADER_LENGTH..];
    assert_eq!(records(1, payload).count(), 1);
    assert_eq!(records(0, payload).last(), Some(Err(RecordError::TrailingBytes { bytes: payload.len() })));
    assert_eq!(records(2, payload).last(), Some(Err(RecordError::Malformed { index: 1 })));
    assert_eq!(records(-1, payload).last(), Some(Err(RecordError::BadCount(-1))));
}

type Fields = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(Vec<u8>, Option<Vec<u8>>)>, i64);

fn fields() -> impl Strategy<Value = Fields> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..200));
    let name = proptest::collection::vec(any::<u8>(), 0..20);
    (bytes(), bytes(), proptest::collection::vec((name, bytes()), 0..4), 0..4_000_000_000_000i64)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn what_goes_in_comes_out(all in proptest::collection::vec(fields(), 1..50), codec in 0..5usize) {
        let codec = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd][codec];
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        for (key, value, headers, timestamp) in &all {
            let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_slice(), value.as_deref())).collect();
            builder.push(*timestamp, key.as_deref(), value.as_deref(), &headers);
        }
        let batch = builder.build().unwrap();
        let (header, whole) = batches(&batch).next().unwrap().unwrap();
        prop_assert_eq!(whole.len(), batch.len());
        prop_assert_eq!(header.max_timestamp, all.iter().map(|fields| fields.3).max().unwrap());
        let payload = crate::compression::decompress(header.codec().unwrap(), &batch[HEADER_LENGTH..], 1 << 20).unwrap();
        let read: Vec<Fields> = records(header.record_count, &payload)
            .map(|record| {
                let record = record.unwrap();
                let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
                let headers = record.headers.iter().map(|(name, value)| (name.to_vec(), owned(value))).collect();
                (owned(record.key), owned(record.value), headers, header.base_timestamp + record.timestamp_delta)
            })
            .collect();
        prop_assert_eq!(read, all);
    }

    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), count in any::<i32>()) {
        for record in records(count, &bytes).take(1000).flatten() {
            prop_assert!(record.headers.iter().count() <= bytes.len());
        }
        prop_assert!(BatchHeader::parse(&bytes).is_err() || bytes.len() >= HEADER_LENGTH);
        prop_assert!(batches(&bytes).count() <= 1 + bytes.len() / HEADER_LENGTH);
    }
}
