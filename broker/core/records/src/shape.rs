//! A walk over a batch's records that keeps only what a leader checks, for it sees every record that is produced.
//!
//! It takes and refuses exactly what [`crate::record::records`] does; a property test holds the two together.

use crate::record::{RecordError, read_record};
use crate::varint::{read_i32, unzigzag};

/// What a leader asks of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Shape {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub has_key: bool,
}

/// Calls `see` with each of the `count` records in `payload`, in order, and its index.
#[inline(always)]
pub(crate) fn each_shape(
    count: i32,
    payload: &[u8],
    mut see: impl FnMut(i32, Shape),
) -> Result<(), RecordError> {
    if count < 0 {
        return Err(RecordError::BadCount(count));
    }
    let mut bytes = payload;
    for index in 0..count {
        let shape = match read_common(bytes) {
            Some((shape, rest)) => {
                bytes = rest;
                shape
            }
            None => read_any(&mut bytes).ok_or(RecordError::Malformed { index })?,
        };
        see(index, shape);
    }
    if bytes.is_empty() { Ok(()) } else { Err(RecordError::TrailingBytes { bytes: bytes.len() }) }
}

/// Reads the record that `bytes` begin with; what follows it comes with it. `None` if it is cut off or malformed.
#[inline(always)]
pub(crate) fn read_shape(bytes: &[u8]) -> Option<(Shape, &[u8])> {
    match read_common(bytes) {
        Some(read) => Some(read),
        None => {
            let mut rest = bytes;
            Some((read_any(&mut rest)?, rest))
        }
    }
}

#[inline(never)]
fn read_any(bytes: &mut &[u8]) -> Option<Shape> {
    let record = read_record(bytes)?;
    Some(Shape {
        offset_delta: record.offset_delta,
        timestamp_delta: record.timestamp_delta,
        has_key: record.key.is_some(),
    })
}

/// A record of the common kind: no headers, at least eight bytes, deltas and key length in few bytes. `None` says
/// nothing but that the record is not of that kind, or is malformed. The fields before the key are taken out of one word.
#[inline(always)]
fn read_common(bytes: &[u8]) -> Option<(Shape, &[u8])> {
    let mut after_length = bytes;
    let length = usize::try_from(read_i32(&mut after_length)?).ok()?;
    let (body, rest) = after_length.split_at_checked(length)?;
    // Beginning with the attributes, of which no bit has a meaning yet. The fields take at most 1 + 2 + 3 + 2 bytes.
    let mut word = u64::from_le_bytes(*body.first_chunk()?) >> 8;
    let mut at = 1;
    let timestamp_delta = unzigzag(short_value(&mut word, &mut at)?);
    let offset_delta = if word & 0x80_8080 == 0x8080 {
        let value = (word & 0x7f) | (word >> 1 & 0x3f80) | (word >> 2 & 0x1f_c000);
        word >>= 24;
        at += 3;
        unzigzag(value)
    } else {
        unzigzag(short_value(&mut word, &mut at)?)
    };
    let key_length = unzigzag(short_value(&mut word, &mut at)?);
    let has_key = key_length >= 0;
    let mut value = if has_key { body.get(at + key_length as usize..)? } else { body.get(at..)? };
    let value_length = read_i32(&mut value)?;
    let headers = value.get(value_length.max(0) as usize..)?;
    let common = key_length >= -1 && value_length >= -1 && matches!(headers, [0]);
    common.then_some((Shape { offset_delta: offset_delta as i32, timestamp_delta, has_key }, rest))
}

/// The value of one or two bytes at the low end of `word`.
#[inline(always)]
fn short_value(word: &mut u64, at: &mut usize) -> Option<u64> {
    let low = *word;
    if low & 0x80 == 0 {
        *word = low >> 8;
        *at += 1;
        Some(low & 0x7f)
    } else if low & 0x8000 == 0 {
        *word = low >> 16;
        *at += 2;
        Some((low & 0x7f) | (low >> 1 & 0x3f80))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::records;
    use crate::varint::{write_i32, write_i64};
    use proptest::prelude::*;

    fn by_shapes(count: i32, payload: &[u8]) -> (Vec<Shape>, Option<RecordError>) {
        let mut shapes = Vec::new();
        let result = each_shape(count, payload, |index, shape| {
            assert_eq!(index as usize, shapes.len());
            shapes.push(shape);
        });
        (shapes, result.err())
    }

    fn by_records(count: i32, payload: &[u8]) -> (Vec<Shape>, Option<RecordError>) {
        let mut shapes = Vec::new();
        for record in records(count, payload) {
            match record {
                Err(error) => return (shapes, Some(error)),
                Ok(record) => shapes.push(Shape {
                    offset_delta: record.offset_delta,
                    timestamp_delta: record.timestamp_delta,
                    has_key: record.key.is_some(),
                }),
            }
        }
        (shapes, None)
    }

    /// Mostly sound records: each length may be off by a little, and varints may be longer than they need be.
    fn record() -> impl Strategy<Value = Vec<u8>> {
        let delta = prop_oneof![0..64i64, 0..8192i64, any::<i64>()];
        let offset = prop_oneof![0..64i32, 0..8192i32, 0..1_048_576i32, any::<i32>()];
        let field = || (0..150usize, prop_oneof![6 => Just(0i32), 1 => -2..3i32], prop::bool::weighted(0.8));
        let headers = prop_oneof![5 => Just(0i32), 1 => -1..3i32];
        (delta, offset, field(), field(), headers, prop_oneof![9 => Just(0i32), 1 => -2..3i32]).prop_map(
            |(timestamp, offset, key, value, headers, lie)| {
                let mut body = vec![0];
                write_i64(&mut body, timestamp);
                write_i32(&mut body, offset);
                for (length, lie, present) in [key, value] {
                    let length = if present { length } else { 0 };
                    write_i32(&mut body, if present { length as i32 + lie } else { -1 + lie.min(0) });
                    body.resize(body.len() + length, 1);
                }
                write_i32(&mut body, headers);
                for _ in 0..headers {
                    body.extend_from_slice(&[2, b'h', 1]);
                }
                let mut record = Vec::new();
                write_i32(&mut record, body.len() as i32 + lie);
                record.extend_from_slice(&body);
                record
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(512))]

        #[test]
        fn both_walks_agree(all in prop::collection::vec(record(), 0..6), extra in -1..2i32) {
            let payload = all.concat();
            let count = all.len() as i32 + extra;
            prop_assert_eq!(by_shapes(count, &payload), by_records(count, &payload));
        }

        #[test]
        fn both_walks_agree_on_garbage(payload in prop::collection::vec(prop_oneof![0..24u8, any::<u8>()], 0..80), count in -1..5i32) {
            prop_assert_eq!(by_shapes(count, &payload), by_records(count, &payload));
        }
    }
}
