//! The walk of [`crate::shape`] over records that come in pieces, as a decoder gives them: what is kept between two pieces
//! is less than one small record, however large the records are.
//!
//! It takes and refuses what the walk over a whole payload does; a property test holds the two together.

use crate::record::RecordError;
use crate::shape::{Shape, read_shape};
use crate::varint::{read_i32, read_i64};

/// Records up to this size are put together when they lie on both sides of a seam; of larger ones the keys, values and
/// headers are passed over without being kept.
const WHOLE_BYTES_MAX: usize = 16 << 10;
/// Longest encoding of a number in a record.
const VARINT_BYTES_MAX: usize = 10;

/// See the module.
#[derive(Debug)]
pub(crate) struct ShapeStream {
    count: i32,
    index: i32,
    /// The beginning of what comes next: a small record, or a number of a large one.
    kept: Vec<u8>,
    large: Option<Large>,
    trailing: usize,
}

/// A record that is too large to be put together.
#[derive(Debug)]
struct Large {
    /// Bytes of it that have not been read.
    left: usize,
    /// Bytes of the field that is being passed over.
    skip: usize,
    next: Field,
    shape: Shape,
}

/// The number that comes next in a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Field {
    Attributes,
    TimestampDelta,
    OffsetDelta,
    KeyLength,
    ValueLength,
    HeaderCount,
    HeaderName { headers: i32 },
    HeaderValue { headers: i32 },
    End,
}

impl ShapeStream {
    /// A walk over `count` records.
    pub(crate) fn new(count: i32) -> Result<Self, RecordError> {
        if count < 0 {
            return Err(RecordError::BadCount(count));
        }
        Ok(Self { count, index: 0, kept: Vec::new(), large: None, trailing: 0 })
    }

    /// Walks on over `piece`; calls `see` with each record that ends in it, and its index.
    pub(crate) fn feed(
        &mut self,
        mut piece: &[u8],
        see: &mut impl FnMut(i32, Shape),
    ) -> Result<(), RecordError> {
        while !piece.is_empty() {
            if self.index >= self.count {
                self.trailing = self.trailing.saturating_add(piece.len());
                return Ok(());
            }
            if self.large.is_some() {
                self.feed_large(&mut piece, see)?;
            } else if self.kept.is_empty() {
                self.feed_small(&mut piece, see)?;
            } else {
                self.feed_seam(&mut piece, see)?;
            }
        }
        Ok(())
    }

    /// Nothing more comes: all records must have been there, and nothing else.
    pub(crate) fn finish(self) -> Result<(), RecordError> {
        if self.index < self.count {
            return Err(RecordError::Malformed { index: self.index });
        }
        match self.trailing {
            0 => Ok(()),
            bytes => Err(RecordError::TrailingBytes { bytes }),
        }
    }

    /// Records that lie in the piece as a whole; keeps the beginning of one that does not.
    #[inline]
    fn feed_small(&mut self, piece: &mut &[u8], see: &mut impl FnMut(i32, Shape)) -> Result<(), RecordError> {
        let (mut bytes, mut index) = (*piece, self.index);
        while index < self.count
            && let Some((shape, rest)) = read_shape(bytes)
        {
            see(index, shape);
            index += 1;
            bytes = rest;
        }
        (*piece, self.index) = (bytes, index);
        if index >= self.count {
            return Ok(());
        }
        let mut body = bytes;
        match self.length_of(&mut body)? {
            Some(length) if length <= body.len() => return Err(self.malformed()),
            Some(length) if length > WHOLE_BYTES_MAX => {
                *piece = body;
                self.begin_large(length);
            }
            _ => {
                self.kept.extend_from_slice(bytes);
                *piece = &[];
            }
        }
        Ok(())
    }

    /// The record whose beginning was kept.
    fn feed_seam(&mut self, piece: &mut &[u8], see: &mut impl FnMut(i32, Shape)) -> Result<(), RecordError> {
        let mut body = self.kept.as_slice();
        let wanted = match self.length_of(&mut body)? {
            Some(length) if length > WHOLE_BYTES_MAX => {
                // Only a length that was cut apart gets here, so that nothing but the length was kept.
                self.kept.clear();
                self.begin_large(length);
                return Ok(());
            }
            Some(length) => length.saturating_sub(body.len()),
            None => 1,
        };
        let (more, rest) = piece.split_at(wanted.min(piece.len()));
        self.kept.extend_from_slice(more);
        *piece = rest;
        let mut body = self.kept.as_slice();
        if self.length_of(&mut body)?.is_some_and(|length| length <= body.len()) {
            let (shape, _) = read_shape(&self.kept).ok_or_else(|| self.malformed())?;
            self.kept.clear();
            see(self.index, shape);
            self.index += 1;
        }
        Ok(())
    }

    fn begin_large(&mut self, length: usize) {
        let shape = Shape { offset_delta: 0, timestamp_delta: 0, has_key: false };
        self.large = Some(Large { left: length, skip: 0, next: Field::Attributes, shape });
    }

    fn feed_large(&mut self, piece: &mut &[u8], see: &mut impl FnMut(i32, Shape)) -> Result<(), RecordError> {
        let malformed = self.malformed();
        let Some(large) = &mut self.large else { return Ok(()) };
        if large.skip > 0 {
            let skipped = large.skip.min(piece.len());
            *piece = piece.get(skipped..).unwrap_or_default();
            large.skip -= skipped;
            large.left = large.left.checked_sub(skipped).ok_or(malformed)?;
        } else if let Some((byte, rest)) = piece.split_first() {
            *piece = rest;
            large.left = large.left.checked_sub(1).ok_or(malformed)?;
            self.kept.push(*byte);
            if *byte < 0x80 || large.next == Field::Attributes {
                large.read(&self.kept).ok_or(malformed)?;
                self.kept.clear();
            } else if self.kept.len() >= VARINT_BYTES_MAX {
                return Err(malformed);
            }
        }
        if large.skip > large.left {
            return Err(malformed);
        }
        if large.next == Field::End && large.skip == 0 {
            if large.left > 0 {
                return Err(malformed);
            }
            let shape = large.shape;
            self.large = None;
            see(self.index, shape);
            self.index += 1;
        }
        Ok(())
    }

    /// The length that a record begins with; `None` while it is cut off.
    fn length_of(&self, bytes: &mut &[u8]) -> Result<Option<usize>, RecordError> {
        let given = bytes.len();
        match read_i32(bytes) {
            Some(length) => usize::try_from(length).map(Some).map_err(|_| self.malformed()),
            None if given < 5 => Ok(None),
            None => Err(self.malformed()),
        }
    }

    fn malformed(&self) -> RecordError {
        RecordError::Malformed { index: self.index }
    }
}

impl Large {
    /// Takes in the number in `bytes`; `None` if it is not one.
    fn read(&mut self, mut bytes: &[u8]) -> Option<()> {
        let length = |mut bytes: &[u8]| {
            let length = read_i32(&mut bytes)?;
            (length >= -1).then_some(length)
        };
        self.next = match self.next {
            Field::Attributes => Field::TimestampDelta,
            Field::TimestampDelta => {
                self.shape.timestamp_delta = read_i64(&mut bytes)?;
                Field::OffsetDelta
            }
            Field::OffsetDelta => {
                self.shape.offset_delta = read_i32(&mut bytes)?;
                Field::KeyLength
            }
            Field::KeyLength => {
                let length = length(bytes)?;
                self.shape.has_key = length >= 0;
                self.skip = length.max(0) as usize;
                Field::ValueLength
            }
            Field::ValueLength => {
                self.skip = length(bytes)?.max(0) as usize;
                Field::HeaderCount
            }
            Field::HeaderCount => match read_i32(&mut bytes)? {
                0 => Field::End,
                headers if headers > 0 => Field::HeaderName { headers },
                _ => return None,
            },
            Field::HeaderName { headers } => {
                // A header needs a name.
                self.skip = usize::try_from(length(bytes)?).ok()?;
                Field::HeaderValue { headers }
            }
            Field::HeaderValue { headers } => {
                self.skip = length(bytes)?.max(0) as usize;
                if headers == 1 { Field::End } else { Field::HeaderName { headers: headers - 1 } }
            }
            Field::End => return None,
        };
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shape::each_shape;
    use crate::varint::{write_i32, write_i64};

    type Walked = (Vec<(i32, Shape)>, Result<(), RecordError>);

    fn whole(count: i32, payload: &[u8]) -> Walked {
        let mut seen = Vec::new();
        let result = each_shape(count, payload, |index, shape| seen.push((index, shape)));
        (seen, result)
    }

    /// The payload in pieces, cut at these places.
    fn in_pieces(count: i32, payload: &[u8], cuts: &[usize]) -> Walked {
        let mut seen = Vec::new();
        let mut see = |index, shape| seen.push((index, shape));
        let mut at = 0;
        let result = ShapeStream::new(count).and_then(|mut stream| {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut % (payload.len() + 1)).collect();
            cuts.push(payload.len());
            cuts.sort_unstable();
            for cut in cuts {
                stream.feed(&payload[at..cut], &mut see)?;
                assert!(stream.kept.len() <= WHOLE_BYTES_MAX + VARINT_BYTES_MAX);
                at = cut;
            }
            stream.finish()
        });
        (seen, result)
    }

    fn record(value: usize, headers: usize, lie: i32) -> Vec<u8> {
        let mut body = vec![0];
        write_i64(&mut body, -70_000);
        write_i32(&mut body, 3);
        write_i32(&mut body, 5);
        body.extend_from_slice(b"a key");
        write_i32(&mut body, value as i32);
        body.resize(body.len() + value, b'v');
        write_i32(&mut body, headers as i32 + lie.clamp(0, 1));
        for index in 0..headers {
            write_i32(&mut body, 300);
            body.resize(body.len() + 300, b'h');
            write_i32(&mut body, if index % 2 == 0 { -1 } else { 2 });
            body.resize(body.len() + if index % 2 == 0 { 0 } else { 2 }, b'x');
        }
        let mut record = Vec::new();
        write_i32(&mut record, body.len() as i32 + lie);
        record.extend_from_slice(&body);
        record
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn pieces_are_walked_like_a_whole(
            records in prop::collection::vec(
                (prop_oneof![4 => 0..200usize, 1 => 16_000..40_000usize], 0..3usize, prop_oneof![9 => Just(0i32), 1 => -2..3i32]), 0..6),
            extra in -1..2i32,
            trailing in 0..3usize,
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut payload: Vec<u8> = records.iter().flat_map(|(value, headers, lie)| record(*value, *headers, *lie)).collect();
            payload.resize(payload.len() + trailing, 0x55);
            let count = records.len() as i32 + extra;
            prop_assert_eq!(in_pieces(count, &payload, &cuts), whole(count, &payload));
        }

        #[test]
        fn garbage_in_pieces_is_walked_like_a_whole(
            payload in prop::collection::vec(prop_oneof![0..24u8, any::<u8>()], 0..80),
            count in -1..5i32,
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            prop_assert_eq!(in_pieces(count, &payload, &cuts), whole(count, &payload));
        }
    }

    #[test]
    fn each_seam_of_a_large_record_is_passed() {
        let payload = [record(20_000, 2, 0), record(3, 1, 0)].concat();
        for cut in (0..60).chain(20_000..payload.len()) {
            assert_eq!(in_pieces(2, &payload, &[cut, cut + 1]), whole(2, &payload), "cut at {cut}");
        }
    }
}
