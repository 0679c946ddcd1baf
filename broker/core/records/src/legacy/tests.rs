//! Messages against the formats' descriptions, byte by byte, and there and back through every codec.

use super::*;
use crate::batch::batches;
use proptest::prelude::*;

const LIMIT: usize = 1 << 20;
const OLD_CODECS: [Codec; 4] = [Codec::None, Codec::Gzip, Codec::Snappy, Codec::Lz4];

/// Offset, timestamp, key, value of each record of one kind of set or another.
type Row = (i64, i64, Option<Vec<u8>>, Option<Vec<u8>>);

fn rows_of_batches(bytes: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    for found in batches(bytes) {
        let (header, batch) = found.unwrap();
        batch::verify_crc(batch).unwrap();
        let payload =
            compression::decompress(header.codec().unwrap(), &batch[HEADER_LENGTH..], LIMIT).unwrap();
        for record in records(header.record_count, &payload) {
            let record = record.unwrap();
            rows.push((
                header.base_offset + i64::from(record.offset_delta),
                header.record_timestamp(record.timestamp_delta),
                record.key.map(<[u8]>::to_vec),
                record.value.map(<[u8]>::to_vec),
            ));
        }
    }
    rows
}

/// Reads a message set as an old consumer does.
fn rows_of_messages(set: &[u8]) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut rest = set;
    while !rest.is_empty() {
        let outer = message::read(&mut rest).unwrap();
        if outer.codec == Codec::None {
            rows.push(row(&outer, outer.offset));
            continue;
        }
        let inner = compression::decompress_message_set(outer.codec, outer.value.unwrap(), LIMIT).unwrap();
        let mut inner = inner.as_slice();
        let mut messages = Vec::new();
        while !inner.is_empty() {
            messages.push(message::read(&mut inner).unwrap());
        }
        let last = messages.last().unwrap().offset;
        for message in &messages {
            let offset = match outer.format {
                MessageFormat::V0 => message.offset,
                MessageFormat::V1 => outer.offset - last + message.offset,
            };
            rows.push(row(message, offset));
        }
    }
    rows
}

fn row(message: &Message<'_>, offset: i64) -> Row {
    (offset, message.timestamp, message.key.map(<[u8]>::to_vec), message.value.map(<[u8]>::to_vec))
}

fn plain<'a>(format: MessageFormat, value: &'a [u8]) -> Message<'a> {
    let codec = Codec::None;
    Message { offset: 0, format, codec, log_append_time: false, timestamp: -1, key: None, value: Some(value) }
}

fn set_of(messages: &[Message<'_>]) -> Vec<u8> {
    let mut set = Vec::new();
    for message in messages {
        message::write(&mut set, message);
    }
    set
}

#[test]
fn a_message_of_format_0_is_laid_out_as_described() {
    let set = set_of(&[Message { offset: 7, key: Some(b"k"), ..plain(MessageFormat::V0, b"value") }]);
    let mut expected = 7i64.to_be_bytes().to_vec();
    expected.extend_from_slice(&20i32.to_be_bytes());
    // CRC-32 (IEEE) of the bytes after it.
    expected.extend_from_slice(&set[12..16]);
    expected.extend_from_slice(&[0, 0, 0, 0, 0, 1, b'k', 0, 0, 0, 5]);
    expected.extend_from_slice(b"value");
    assert_eq!(set, expected);
    assert!(is_message_set(&set));
    assert_eq!(
        rows_of_batches(&upconvert(&set, LIMIT).unwrap()),
        [(0, -1, Some(b"k".to_vec()), Some(b"value".to_vec()))]
    );
}

#[test]
fn the_checksum_is_the_one_of_zlib() {
    // The check value of CRC-32/ISO-HDLC over "123456789".
    let mut crc = flate2::Crc::new();
    crc.update(b"123456789");
    assert_eq!(crc.sum(), 0xcbf4_3926);
}

#[test]
fn a_message_of_format_1_is_laid_out_as_described() {
    let message = Message { timestamp: 0x0102_0304, value: None, ..plain(MessageFormat::V1, b"") };
    let set = set_of(&[message]);
    assert_eq!(set[8..12], 22i32.to_be_bytes());
    assert_eq!(set[16..18], [1, 0]);
    assert_eq!(set[18..26], 0x0102_0304i64.to_be_bytes());
    assert_eq!(set[26..], [0xff; 8], "null key, null value");
    assert_eq!(rows_of_batches(&upconvert(&set, LIMIT).unwrap()), [(0, 0x0102_0304, None, None)]);
}

#[test]
fn runs_of_plain_messages_and_wrappers_become_a_batch_each() {
    for format in [MessageFormat::V0, MessageFormat::V1] {
        for codec in &OLD_CODECS[1..] {
            let inner = set_of(&[plain(format, b"c"), plain(format, b"d")]);
            let value = compression::compress_message_set(*codec, &inner, HeaderChecksum::Broken).unwrap();
            let wrapper = Message { codec: *codec, ..plain(format, &value) };
            let set = set_of(&[plain(format, b"a"), plain(format, b"b"), wrapper, plain(format, b"e")]);
            let converted = upconvert(&set, LIMIT).unwrap();
            let headers: Vec<_> = batches(&converted).map(|found| found.unwrap().0).collect();
            let shape: Vec<_> =
                headers.iter().map(|header| (header.codec().unwrap(), header.record_count)).collect();
            assert_eq!(shape, [(Codec::None, 2), (*codec, 2), (Codec::None, 1)]);
            let values: Vec<_> =
                rows_of_batches(&converted).into_iter().map(|row| row.3.unwrap()[0]).collect();
            assert_eq!(values, b"abcde");
        }
    }
}

#[test]
fn a_wrapper_with_the_brokers_time_gives_it_to_all_within() {
    let inner = set_of(&[Message { timestamp: 5, ..plain(MessageFormat::V1, b"a") }]);
    let value = compression::compress(Codec::Gzip, None, &inner).unwrap();
    let wrapper = Message {
        codec: Codec::Gzip,
        log_append_time: true,
        timestamp: 99,
        ..plain(MessageFormat::V1, &value)
    };
    assert_eq!(rows_of_batches(&upconvert(&set_of(&[wrapper]), LIMIT).unwrap())[0].1, 99);
}

#[test]
fn format_0_has_the_broken_lz4_header_and_format_1_the_right_one() {
    let mut builder = BatchBuilder::new(BatchOptions { codec: Codec::Lz4, ..BatchOptions::default() });
    builder.push(1, None, Some(&[7; 1000]), &[]);
    let batch = builder.build().unwrap();
    for (format, checksum) in [(MessageFormat::V0, 0x1a), (MessageFormat::V1, 0x82)] {
        let set = downconvert(&batch, format, 0, LIMIT).unwrap().messages;
        let wrapper = message::read(&mut &set[..]).unwrap();
        let frame = wrapper.value.unwrap();
        assert_eq!(frame[..6], [0x04, 0x22, 0x4d, 0x18, 0x60, 0x40], "independent blocks of 64 KiB");
        assert_eq!(frame[6], checksum, "{format:?}");
        assert_eq!(
            compression::decompress(Codec::Lz4, frame, LIMIT).is_ok(),
            format == MessageFormat::V1,
            "batches are strict about the header's checksum"
        );
    }
}

#[test]
fn malformed_sets_are_refused() {
    let good = set_of(&[plain(MessageFormat::V1, b"value")]);
    let altered = |at: usize, bytes: &[u8]| {
        let mut set = good.clone();
        set[at..at + bytes.len()].copy_from_slice(bytes);
        let mut crc = flate2::Crc::new();
        crc.update(&set[16..]);
        set[12..16].copy_from_slice(&crc.sum().to_be_bytes());
        set
    };
    let nested = {
        let inner = set_of(&[Message { codec: Codec::Gzip, ..plain(MessageFormat::V1, b"x") }]);
        let value = compression::compress(Codec::Gzip, None, &inner).unwrap();
        set_of(&[Message { codec: Codec::Gzip, ..plain(MessageFormat::V1, &value) }])
    };
    let empty = compression::compress(Codec::Gzip, None, b"").unwrap();
    let mut wrong_crc = good.clone();
    wrong_crc[30] ^= 1;
    let table: Vec<(&str, Vec<u8>)> = vec![
        ("cut off", good[..good.len() - 1].to_vec()),
        ("only an offset", good[..8].to_vec()),
        ("negative length", altered(8, &(-1i32).to_be_bytes())),
        ("length past the end", altered(8, &i32::MAX.to_be_bytes())),
        ("length within the message", altered(8, &10i32.to_be_bytes())),
        ("wrong CRC", wrong_crc),
        ("magic 2", altered(16, &[2])),
        ("zstd", altered(17, &[4])),
        ("negative key length", altered(26, &(-2i32).to_be_bytes())),
        ("key past the end", altered(26, &1000i32.to_be_bytes())),
        ("value shorter than the message", altered(30, &4i32.to_be_bytes())),
        ("nested wrappers", nested),
        ("wrapper of nothing", set_of(&[Message { codec: Codec::Gzip, ..plain(MessageFormat::V1, &empty) }])),
        (
            "wrapper of null",
            set_of(&[Message { codec: Codec::Gzip, value: None, ..plain(MessageFormat::V1, b"") }]),
        ),
    ];
    for (name, set) in table {
        assert!(upconvert(&set, LIMIT).is_err(), "{name}");
    }
    assert!(upconvert(b"", LIMIT).unwrap().is_empty(), "which the validator refuses");
}

#[test]
fn wrappers_share_one_limit() {
    let inner = set_of(&[plain(MessageFormat::V1, &[0; 10_000])]);
    let value = compression::compress(Codec::Gzip, None, &inner).unwrap();
    let wrapper = Message { codec: Codec::Gzip, ..plain(MessageFormat::V1, &value) };
    let set = set_of(&[wrapper, wrapper]);
    assert!(upconvert(&set, 2 * inner.len()).is_ok());
    let error = upconvert(&set, 2 * inner.len() - 1).unwrap_err();
    assert!(matches!(error, LegacyError::Compression(CompressionError::TooLarge { .. })), "{error}");
}

fn batch(base: i64, options: BatchOptions, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::at_offset(options, base);
    for (offset, value) in (base..).zip(values) {
        builder.push_at(offset, 1000 + offset, None, Some(value.as_bytes()), crate::record::Headers::NONE);
    }
    builder.build().unwrap()
}

#[test]
fn old_consumers_see_what_they_can() {
    let control = BatchOptions { control: true, ..BatchOptions::default() };
    let gzip = BatchOptions { codec: Codec::Gzip, ..BatchOptions::default() };
    let log = [
        batch(10, BatchOptions::default(), &["a", "b", "c"]),
        batch(13, control, &["marker"]),
        batch(14, gzip, &["d", "e"]),
        batch(16, control, &["marker"]),
    ]
    .concat();
    for format in [MessageFormat::V0, MessageFormat::V1] {
        let converted = downconvert(&log[..log.len() - 1], format, 12, LIMIT).unwrap();
        let rows = rows_of_messages(&converted.messages);
        let offsets: Vec<_> = rows.iter().map(|row| row.0).collect();
        assert_eq!(offsets, [12, 14, 15], "plain messages from the asked offset on, sets whole");
        assert_eq!(rows[0].1, if format == MessageFormat::V0 { -1 } else { 1012 });
        assert_eq!(converted.next_offset, Some(16), "the batch that is cut off does not count");
    }
    let markers = batch(16, control, &["marker"]);
    let converted = downconvert(&markers, MessageFormat::V1, 16, LIMIT).unwrap();
    assert_eq!((converted.messages.len(), converted.next_offset), (0, Some(17)), "the caller reads on");
}

#[test]
fn zstd_ends_what_an_old_consumer_gets() {
    let zstd = BatchOptions { codec: Codec::Zstd, ..BatchOptions::default() };
    let log = [batch(0, BatchOptions::default(), &["a"]), batch(1, zstd, &["b"])].concat();
    let converted = downconvert(&log, MessageFormat::V1, 0, LIMIT).unwrap();
    assert_eq!((rows_of_messages(&converted.messages).len(), converted.next_offset), (1, Some(1)));
    let error = downconvert(&log, MessageFormat::V1, 1, LIMIT).unwrap_err();
    assert!(matches!(error, LegacyError::UnsupportedCodec(Codec::Zstd)));
}

#[test]
fn the_brokers_time_stands_for_each_records() {
    let options = BatchOptions { log_append_time: true, ..BatchOptions::default() };
    let log = batch(3, options, &["a", "b"]);
    let set = downconvert(&log, MessageFormat::V1, 0, LIMIT).unwrap().messages;
    assert!(message::read(&mut &set[..]).unwrap().log_append_time);
    assert_eq!(rows_of_messages(&set).iter().map(|row| row.1).collect::<Vec<_>>(), [1004, 1004]);
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    let bytes = || proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100));
    let record = (1..4i64, 0..2_000_000_000_000i64, bytes(), bytes());
    proptest::collection::vec(record, 1..30).prop_map(|mut all| {
        let mut offset = 40;
        for row in &mut all {
            offset += row.0;
            row.0 = offset;
        }
        all
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn records_go_down_and_up_again(all in rows(), codec in 0..4usize, old in any::<bool>()) {
        let format = if old { MessageFormat::V0 } else { MessageFormat::V1 };
        let options = BatchOptions { codec: OLD_CODECS[codec], ..BatchOptions::default() };
        // As after compaction: the first record is not at the base offset, and offsets have holes.
        let mut builder = BatchBuilder::at_offset(options, 40);
        for (offset, timestamp, key, value) in &all {
            builder.push_at(*offset, *timestamp, key.as_deref(), value.as_deref(), crate::record::Headers::NONE);
        }
        let set = downconvert(&builder.build().unwrap(), format, 0, LIMIT).unwrap().messages;
        let mut expected = all.clone();
        if old {
            expected.iter_mut().for_each(|row| row.1 = -1);
        }
        prop_assert_eq!(rows_of_messages(&set), expected.clone());
        for (offset, row) in (0..).zip(&mut expected) {
            row.0 = offset;
        }
        prop_assert_eq!(rows_of_batches(&upconvert(&set, LIMIT).unwrap()), expected);
    }

    #[test]
    fn hostile_sets_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..200), format in any::<bool>()) {
        drop(upconvert(&bytes, LIMIT));
        // With a CRC that fits, the bytes behind it are reached.
        if bytes.len() > 30 {
            let length = (bytes.len() - 12) as i32;
            bytes[8..12].copy_from_slice(&length.to_be_bytes());
            bytes[16] = u8::from(format);
            let mut crc = flate2::Crc::new();
            crc.update(&bytes[16..]);
            bytes[12..16].copy_from_slice(&crc.sum().to_be_bytes());
            drop(upconvert(&bytes, LIMIT));
        }
        let format = if format { MessageFormat::V0 } else { MessageFormat::V1 };
        drop(downconvert(&bytes, format, 0, LIMIT));
    }
}
