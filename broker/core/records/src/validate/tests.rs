//! The checks as a table: a batch, a policy, and what becomes of it.

use super::*;

const NOW: i64 = 1_700_000_000_000;

fn policy() -> ProducePolicy {
    ProducePolicy {
        max_message_bytes: 1 << 20,
        timestamp_type: TimestampType::CreateTime,
        timestamp_before_max_ms: i64::MAX,
        timestamp_after_max_ms: 3_600_000,
        compression: Compression::Producer,
        compacted: false,
        single_batch: true,
        zstd_allowed: true,
        decompressed_bytes_max: 1 << 20,
    }
}

fn batch_of(codec: Codec, records: &[(i64, Option<&str>)]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for (timestamp, key) in records {
        builder.push(*timestamp, key.map(str::as_bytes), Some(b"value"), &[]);
    }
    builder.build().unwrap()
}

/// `batch` with other bytes at `at`, and a CRC that fits them.
fn altered(batch: &Bytes, at: usize, bytes: &[u8]) -> Bytes {
    let mut batch = batch.to_vec();
    batch[at..at + bytes.len()].copy_from_slice(bytes);
    builder::seal(&mut batch);
    batch.into()
}

fn kind(bytes: Bytes, policy: &ProducePolicy) -> InvalidKind {
    validate(bytes, policy, NOW).unwrap_err().kind
}

#[test]
fn a_good_batch_passes_as_it_is() {
    for codec in [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let batch = batch_of(codec, &[(NOW, Some("a")), (NOW + 5, None)]);
        let valid = validate(batch.clone(), &policy(), NOW).unwrap();
        assert_eq!(valid.bytes.as_ptr(), batch.as_ptr(), "no copy");
        assert_eq!(valid.headers.len(), 1);
        assert_eq!(valid.record_count(), 2);
    }
}

#[test]
fn bad_batches_are_refused_each_with_its_kind() {
    let good = batch_of(Codec::None, &[(NOW, Some("a")), (NOW, Some("b"))]);
    let mut flipped = good.to_vec();
    flipped[70] ^= 1;
    let table: Vec<(&str, Bytes, InvalidKind)> = vec![
        ("empty", Bytes::new(), InvalidKind::Record),
        ("cut off", good.slice(..good.len() - 1), InvalidKind::Record),
        ("a flipped bit", flipped.into(), InvalidKind::Corrupt),
        ("two batches", [good.clone(), good.clone()].concat().into(), InvalidKind::Record),
        ("magic 1", altered(&good, 16, &[1]), InvalidKind::Record),
        ("magic 3", altered(&good, 16, &[3]), InvalidKind::Corrupt),
        ("base offset 1", altered(&good, 0, &1i64.to_be_bytes()), InvalidKind::Record),
        ("transaction of nobody", altered(&good, 21, &0x10i16.to_be_bytes()), InvalidKind::Record),
        ("negative length", altered(&good, 8, &(-5i32).to_be_bytes()), InvalidKind::Corrupt),
        ("codec 7", altered(&good, 21, &7i16.to_be_bytes()), InvalidKind::Corrupt),
        ("control", altered(&good, 21, &0x20i16.to_be_bytes()), InvalidKind::Record),
        ("more records than offsets", altered(&good, 57, &3i32.to_be_bytes()), InvalidKind::Record),
        ("no records", altered(&good, 57, &0i32.to_be_bytes()), InvalidKind::Record),
        ("producer without epoch", altered(&good, 43, &9i64.to_be_bytes()), InvalidKind::ProducerEpoch),
        (
            "producer without sequence",
            altered(&good, 43, &[&9i64.to_be_bytes()[..], &[0, 0]].concat()),
            InvalidKind::Record,
        ),
        ("offset delta 0 twice", altered(&good, good.len() - 13, &[0]), InvalidKind::Record),
        ("too new", batch_of(Codec::None, &[(NOW + 3_600_001, None)]), InvalidKind::Timestamp),
        ("too new, compressed", batch_of(Codec::Lz4, &[(NOW + 3_600_001, None)]), InvalidKind::Timestamp),
    ];
    for (name, bytes, expected) in table {
        let found = validate(bytes, &policy(), NOW);
        assert_eq!(found.as_ref().map_err(|error| error.kind).err(), Some(expected), "{name}: {found:?}");
    }
}

#[test]
fn policies_are_obeyed() {
    let small = ProducePolicy { max_message_bytes: 80, ..policy() };
    assert_eq!(
        kind(batch_of(Codec::None, &[(NOW, Some("a")), (NOW, Some("b"))]), &small),
        InvalidKind::TooLarge
    );
    let no_zstd = ProducePolicy { zstd_allowed: false, ..policy() };
    assert_eq!(kind(batch_of(Codec::Zstd, &[(NOW, None)]), &no_zstd), InvalidKind::Compression);
    let recent = ProducePolicy { timestamp_before_max_ms: 1000, ..policy() };
    for codec in [Codec::None, Codec::Gzip] {
        assert_eq!(
            kind(batch_of(codec, &[(NOW, None), (NOW - 1001, None)]), &recent),
            InvalidKind::Timestamp
        );
        validate(batch_of(codec, &[(NOW - 1000, None), (NO_TIMESTAMP, None)]), &recent, NOW).unwrap();
    }
    let several = ProducePolicy { single_batch: false, ..policy() };
    let one = batch_of(Codec::None, &[(NOW, None)]);
    assert_eq!(validate([one.clone(), one].concat().into(), &several, NOW).unwrap().headers.len(), 2);
}

#[test]
fn a_compacted_topic_names_the_records_without_a_key() {
    let compacted = ProducePolicy { compacted: true, ..policy() };
    for codec in [Codec::None, Codec::Lz4] {
        let batch = batch_of(codec, &[(NOW, Some("a")), (NOW, None), (NOW, Some("c")), (NOW, None)]);
        let error = validate(batch, &compacted, NOW).unwrap_err();
        assert_eq!(error.kind, InvalidKind::Record);
        assert_eq!(error.record_errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [1, 3]);
    }
    validate(batch_of(Codec::Zstd, &[(NOW, Some("a"))]), &compacted, NOW).unwrap();
}

#[test]
fn log_append_time_is_stamped_and_the_crc_follows() {
    let stamped = ProducePolicy { timestamp_type: TimestampType::LogAppendTime, ..policy() };
    for codec in [Codec::None, Codec::Snappy] {
        let valid = validate(batch_of(codec, &[(5, None), (i64::MAX / 2, None)]), &stamped, NOW).unwrap();
        assert!(valid.headers[0].is_log_append_time());
        assert_eq!(valid.headers[0].max_timestamp, NOW);
        batch::verify_crc(&valid.bytes).unwrap();
    }
    let claims = altered(&batch_of(Codec::None, &[(NOW, None)]), 21, &0b1000i16.to_be_bytes());
    assert_eq!(kind(claims.clone(), &stamped), InvalidKind::Timestamp, "only the broker may say so");
    let valid = validate(claims, &policy(), NOW).unwrap();
    assert!(!valid.headers[0].is_log_append_time(), "where it means nothing it is taken away, as Kafka does");
}

#[test]
fn what_the_broker_made_is_trusted_but_for_a_cut_off_end() {
    let batch = batch_of(Codec::None, &[(NOW, None)]);
    let two = [batch.clone(), batch.clone()].concat();
    let trusted = ValidatedBatches::trusted(two[..two.len() - 1].to_vec().into()).unwrap();
    assert_eq!((trusted.bytes, trusted.headers.len()), (batch, 1));
}

#[test]
fn one_record_out_of_time_decides_the_code() {
    let policy = ProducePolicy { compacted: true, timestamp_before_max_ms: 10, ..policy() };
    let batch = batch_of(Codec::None, &[(NOW, None), (NOW - 11, Some("b")), (NOW, Some("c"))]);
    let error = validate(batch, &policy, NOW).unwrap_err();
    assert_eq!(error.kind, InvalidKind::Timestamp);
    assert_eq!(error.record_errors.iter().map(|(index, _)| *index).collect::<Vec<_>>(), [0, 1]);
}

#[test]
fn a_wrong_max_timestamp_is_put_right() {
    let lying =
        altered(&batch_of(Codec::None, &[(NOW, None), (NOW - 7, None)]), 35, &(NOW - 7).to_be_bytes());
    let valid = validate(lying, &policy(), NOW).unwrap();
    assert_eq!(valid.headers[0].max_timestamp, NOW);
    batch::verify_crc(&valid.bytes).unwrap();
}

#[test]
fn a_fixed_codec_is_applied_to_what_comes_with_another() {
    let wants =
        ProducePolicy { compression: Compression::Fixed(Codec::Zstd, None), single_batch: false, ..policy() };
    let gzip = batch_of(Codec::Gzip, &[(NOW, Some("a")), (NOW + 1, None)]);
    let zstd = batch_of(Codec::Zstd, &[(NOW, Some("b"))]);
    let bytes: Bytes = [zstd.clone(), gzip, zstd.clone()].concat().into();
    let valid = validate(bytes, &wants, NOW).unwrap();
    let found: Vec<_> = batch::batches(&valid.bytes).map(Result::unwrap).collect();
    assert_eq!(found.len(), 3);
    assert_eq!(found[0].1, zstd, "what has the codec already stays as it is");
    for ((header, batch), listed) in found.iter().zip(&valid.headers) {
        assert_eq!(header, listed);
        assert_eq!(header.codec(), Ok(Codec::Zstd));
        batch::verify_crc(batch).unwrap();
        let payload = compression::decompress(Codec::Zstd, &batch[HEADER_LENGTH..], 1000).unwrap();
        assert_eq!(
            records(header.record_count, &payload).filter(Result::is_ok).count(),
            header.record_count as usize
        );
    }
    let bomb = ProducePolicy { decompressed_bytes_max: 10, ..wants };
    assert_eq!(kind(batch_of(Codec::Gzip, &[(NOW, Some("a"))]), &bomb), InvalidKind::TooLarge);
}

const CODECS: [Codec; 4] = [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd];

/// A compressed batch of two records whose payload is `payload`, and whose header counts `count`.
fn compressed(codec: Codec, count: i32, payload: &[u8]) -> Bytes {
    let sound = batch_of(codec, &[(NOW, Some("a")), (NOW, Some("b"))]);
    let payload = compression::compress(codec, None, payload).unwrap();
    with_payload(&sound, count, &payload)
}

/// `batch` with these bytes after its header, as they are.
fn with_payload(batch: &Bytes, count: i32, payload: &[u8]) -> Bytes {
    let mut batch = [&batch[..HEADER_LENGTH], payload].concat();
    let length = (batch.len() - batch::LOG_OVERHEAD) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    batch[57..61].copy_from_slice(&count.to_be_bytes());
    batch[23..27].copy_from_slice(&(count - 1).to_be_bytes());
    builder::seal(&mut batch);
    batch.into()
}

#[test]
fn what_a_compressed_batch_holds_must_be_what_its_header_says() {
    let plain = batch_of(Codec::None, &[(NOW, Some("a")), (NOW, Some("b"))]);
    let two = &plain[HEADER_LENGTH..];
    let twice_the_first = [&two[..two.len() / 2], &two[..two.len() / 2]].concat();
    for codec in CODECS {
        validate(compressed(codec, 2, two), &policy(), NOW).unwrap();
        let table: Vec<(&str, Bytes, InvalidKind)> = vec![
            ("garbage", compressed(codec, 2, &[0x55; 300]), InvalidKind::Record),
            ("nothing", compressed(codec, 1, &[]), InvalidKind::Record),
            ("fewer than counted", compressed(codec, 3, two), InvalidKind::Record),
            ("more than counted", compressed(codec, 1, two), InvalidKind::Record),
            ("bytes behind", compressed(codec, 2, &[two, &[0; 7]].concat()), InvalidKind::Record),
            ("cut off", compressed(codec, 2, &two[..two.len() - 1]), InvalidKind::Record),
            ("an offset twice", compressed(codec, 2, &twice_the_first), InvalidKind::Record),
            (
                "no compressed data",
                with_payload(&compressed(codec, 2, two), 2, &[0x55; 300]),
                InvalidKind::Corrupt,
            ),
            (
                "too new",
                batch_of(codec, &[(NOW, None), (NOW + 3_600_001, None), (NOW, None)]),
                InvalidKind::Timestamp,
            ),
        ];
        for (name, bytes, expected) in table {
            let found = validate(bytes, &policy(), NOW);
            assert_eq!(
                found.as_ref().map_err(|error| error.kind).err(),
                Some(expected),
                "{codec:?}, {name}: {found:?}"
            );
        }
    }
}

#[test]
fn a_compressed_batch_that_ends_too_soon_is_refused_wherever_it_is_cut() {
    let records: Vec<_> = (0..200).map(|index| (NOW + index % 7, Some("some key"))).collect();
    for codec in CODECS {
        let whole = batch_of(codec, &records);
        for cut in 1..whole.len() - HEADER_LENGTH {
            let payload = &whole[HEADER_LENGTH..whole.len() - cut];
            // LZ4's end mark, and gzip's sums, come after all the records.
            let refused = validate(with_payload(&whole, 200, payload), &policy(), NOW).is_err();
            assert!(refused, "{codec:?} without its last {cut} bytes");
        }
    }
}

#[test]
fn a_bomb_is_refused_at_the_limit() {
    let limited = ProducePolicy { decompressed_bytes_max: 1 << 20, max_message_bytes: 10 << 20, ..policy() };
    for codec in CODECS {
        let bomb = compressed(codec, 2, &vec![0; 2 << 20]);
        assert!(bomb.len() < 200_000);
        // What is in it is no record either, which is found at its first byte.
        assert!(validate(bomb, &limited, NOW).is_err());
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        builder.push(NOW, None, Some(&vec![0; 2 << 20]), &[]);
        assert_eq!(kind(builder.build().unwrap(), &limited), InvalidKind::TooLarge, "{codec:?}");
        let enough = ProducePolicy { decompressed_bytes_max: 3 << 20, ..limited };
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        builder.push(NOW, None, Some(&vec![0; 2 << 20]), &[]);
        validate(builder.build().unwrap(), &enough, NOW).unwrap();
    }
}

#[test]
fn a_wrong_max_timestamp_of_a_compressed_batch_is_put_right() {
    for codec in CODECS {
        let lying = altered(&batch_of(codec, &[(NOW, None), (NOW - 7, None)]), 35, &(NOW - 7).to_be_bytes());
        let valid = validate(lying, &policy(), NOW).unwrap();
        assert_eq!(valid.headers[0].max_timestamp, NOW);
        batch::verify_crc(&valid.bytes).unwrap();
    }
}
