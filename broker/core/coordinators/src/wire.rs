//! Kafka's primitive types, read from and written to the records' bytes.
use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Reads one record; every length is checked against the bytes that are there.
pub(crate) struct Reader {
    bytes: Bytes,
    flexible: bool,
}

impl Reader {
    pub(crate) fn new(bytes: Bytes) -> Self {
        Self { bytes, flexible: false }
    }

    pub(crate) fn set_flexible(&mut self, flexible: bool) {
        self.flexible = flexible;
    }

    pub(crate) fn i16(&mut self) -> Option<i16> {
        self.bytes.try_get_i16().ok()
    }

    pub(crate) fn i32(&mut self) -> Option<i32> {
        self.bytes.try_get_i32().ok()
    }

    pub(crate) fn i64(&mut self) -> Option<i64> {
        self.bytes.try_get_i64().ok()
    }

    fn unsigned_varint(&mut self) -> Option<u32> {
        let mut value = 0u32;
        for shift in [0, 7, 14, 21, 28] {
            let byte = self.bytes.try_get_u8().ok()?;
            value |= u32::from(byte & 0x7f).checked_shl(shift)?;
            if byte & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    fn take(&mut self, len: usize) -> Option<Bytes> {
        (len <= self.bytes.len()).then(|| self.bytes.split_to(len))
    }

    /// A length: the outer `None` is malformed, the inner one null.
    fn length(&mut self, short: bool) -> Option<Option<usize>> {
        let length = match (self.flexible, short) {
            (true, _) => i64::from(self.unsigned_varint()?) - 1,
            (false, true) => i64::from(self.i16()?),
            (false, false) => i64::from(self.i32()?),
        };
        Some(usize::try_from(length).ok())
    }

    pub(crate) fn nullable_string(&mut self) -> Option<Option<String>> {
        match self.length(true)? {
            None => Some(None),
            Some(len) => String::from_utf8(self.take(len)?.to_vec()).ok().map(Some),
        }
    }

    pub(crate) fn string(&mut self) -> Option<String> {
        self.nullable_string()?
    }

    pub(crate) fn byte_string(&mut self) -> Option<Bytes> {
        let len = self.length(false)??;
        self.take(len)
    }

    /// An array's count, never more than the bytes that are left.
    pub(crate) fn count(&mut self) -> Option<usize> {
        let count = self.length(false)??;
        (count <= self.bytes.len()).then_some(count)
    }

    /// The tagged fields of a flexible version, each with its tag.
    pub(crate) fn tagged_fields(&mut self) -> Option<Vec<(u32, Bytes)>> {
        let mut fields = Vec::new();
        if self.flexible {
            for _ in 0..self.unsigned_varint()? {
                let tag = self.unsigned_varint()?;
                let len = self.unsigned_varint()? as usize;
                fields.push((tag, self.take(len)?));
            }
        }
        Some(fields)
    }
}

/// What is written of a string. Callers bound theirs; a longer one would be cut at a character.
fn bounded(text: &str) -> &[u8] {
    let mut len = text.len().min(i16::MAX as usize);
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.as_bytes().get(..len).unwrap_or_default()
}

/// Writes a string with a 16-bit length.
pub(crate) fn put_string(out: &mut BytesMut, text: &str) {
    let text = bounded(text);
    out.put_i16(text.len() as i16);
    out.put_slice(text);
}

/// The same for a flexible version.
pub(crate) fn put_compact_string(out: &mut BytesMut, text: &str) {
    let text = bounded(text);
    put_unsigned_varint(out, text.len() as u32 + 1);
    out.put_slice(text);
}

fn put_unsigned_varint(out: &mut BytesMut, mut value: u32) {
    while value >= 0x80 {
        out.put_u8((value & 0x7f) as u8 | 0x80);
        value >>= 7;
    }
    out.put_u8(value as u8);
}

/// Writes the tagged fields of a flexible version, in the order of their tags.
pub(crate) fn put_tagged_fields(out: &mut BytesMut, fields: &[(u32, &[u8])]) {
    put_unsigned_varint(out, fields.len() as u32);
    for (tag, bytes) in fields {
        put_unsigned_varint(out, *tag);
        put_unsigned_varint(out, bytes.len() as u32);
        out.put_slice(bytes);
    }
}

pub(crate) fn put_nullable_string(out: &mut BytesMut, text: Option<&str>) {
    match text {
        Some(text) => put_string(out, text),
        None => out.put_i16(-1),
    }
}

pub(crate) fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    out.put_i32(i32::try_from(bytes.len()).unwrap_or(i32::MAX));
    out.put_slice(bytes);
}
