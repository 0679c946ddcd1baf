//! Records inside a v2 batch (KIP-98): read in place, without copies.

use crate::varint::{read_i32, read_i64};

/// Why a batch's payload does not hold the records that its header promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("record {index} is cut off or malformed")]
    Malformed { index: i32 },
    #[error("{bytes} bytes follow the last record")]
    TrailingBytes { bytes: usize },
    #[error("the batch counts {0} records")]
    BadCount(i32),
}

/// One record. Offset and timestamp are relative to the batch's base.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Record<'a> {
    pub offset_delta: i32,
    pub timestamp_delta: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
    pub headers: Headers<'a>,
}

/// A record's headers, checked when the record was read and decoded when they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Headers<'a> {
    count: i32,
    bytes: &'a [u8],
}

impl<'a> Headers<'a> {
    pub const NONE: Headers<'static> = Headers { count: 0, bytes: &[] };

    pub fn len(&self) -> usize {
        self.count as usize
    }

    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Name and value of each header, in order. Names may repeat.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)> + use<'a> {
        let mut bytes = self.bytes;
        (0..self.count).map_while(move |_| Some((nullable(&mut bytes)??, nullable(&mut bytes)?)))
    }

    /// The encoded headers after their count: what a rewritten record carries unchanged.
    pub(crate) fn encoded(&self) -> &'a [u8] {
        self.bytes
    }
}

/// Walks `count` records in `payload`: the bytes after the batch's header, decompressed.
/// Yields an error, and then nothing, where the bytes are no records, or where some are left over.
pub fn records(count: i32, payload: &[u8]) -> Records<'_> {
    Records { count, index: 0, bytes: payload, done: false }
}

#[derive(Debug, Clone)]
pub struct Records<'a> {
    count: i32,
    index: i32,
    bytes: &'a [u8],
    done: bool,
}

impl<'a> Iterator for Records<'a> {
    type Item = Result<Record<'a>, RecordError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        if self.done {
            return None;
        }
        if self.index >= self.count {
            self.done = true;
            if self.count < 0 {
                return Some(Err(RecordError::BadCount(self.count)));
            }
            let bytes = self.bytes.len();
            return (bytes > 0).then_some(Err(RecordError::TrailingBytes { bytes }));
        }
        let index = self.index;
        self.index += 1;
        let record = read_record(&mut self.bytes).ok_or(RecordError::Malformed { index });
        self.done = record.is_err();
        Some(record)
    }
}

#[inline(always)]
pub(crate) fn read_record<'a>(bytes: &mut &'a [u8]) -> Option<Record<'a>> {
    let length = usize::try_from(read_i32(bytes)?).ok()?;
    let (mut body, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    // One byte of attributes, of which no bit has a meaning yet.
    let (_, after) = body.split_first()?;
    body = after;
    let timestamp_delta = read_i64(&mut body)?;
    let offset_delta = read_i32(&mut body)?;
    let key = nullable(&mut body)?;
    let value = nullable(&mut body)?;
    let count = read_i32(&mut body)?;
    if count < 0 {
        return None;
    }
    let headers = Headers { count, bytes: body };
    for _ in 0..count {
        nullable(&mut body)??;
        nullable(&mut body)?;
    }
    body.is_empty().then_some(Record { offset_delta, timestamp_delta, key, value, headers })
}

/// A length of -1 is null; any other negative length is malformed (the outer `None`).
#[inline(always)]
fn nullable<'a>(bytes: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = read_i32(bytes)?;
    if length < 0 {
        return (length == -1).then_some(None);
    }
    let (value, rest) = bytes.split_at_checked(length as usize)?;
    *bytes = rest;
    Some(Some(value))
}
