//! The one record of a control batch that ends a transaction (Kafka's `EndTransactionMarker`).

use firn_records::batch::{BatchHeader, HEADER_LENGTH};

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTxnMarker {
    pub commit: bool,
    pub coordinator_epoch: i32,
}

/// Reads the marker of a whole control batch; `None` when its record is gone, or is of another control type.
pub(crate) fn end_txn_marker(header: &BatchHeader, batch: &[u8]) -> Option<EndTxnMarker> {
    if !header.is_control() || header.record_count == 0 {
        return None;
    }
    let mut record = batch.get(HEADER_LENGTH..)?;
    let _length = varint(&mut record)?;
    let (_attributes, rest) = record.split_first()?;
    record = rest;
    let _timestamp_delta = varint(&mut record)?;
    let _offset_delta = varint(&mut record)?;
    let key = sized(&mut record)?;
    let value = sized(&mut record)?;
    let commit = match key.get(2..4)? {
        [0, 0] => false,
        [0, 1] => true,
        _ => return None,
    };
    let coordinator_epoch = i32::from_be_bytes(*value.get(2..)?.first_chunk()?);
    Some(EndTxnMarker { commit, coordinator_epoch })
}

fn sized<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(varint(bytes)?).ok()?;
    let (field, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(field)
}

/// A zigzag varint of at most ten bytes.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..70).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift)?;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}
