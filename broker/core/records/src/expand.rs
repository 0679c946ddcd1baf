//! Blocks of LZ4 and Snappy that make a great deal out of a few bytes, expanded through a window of 64 KiB.
//!
//! The libraries want room for a whole block at once, and a block of runs is a hundred times its bytes. Both formats are
//! literals and copies of what came a little before, so a window is all that is needed. Slower than the libraries, which
//! do all blocks of common data. (LZ4 block format; Snappy's format_description. No encoder of Snappy refers further back
//! than 64 KiB, for it compresses in fragments of that size; a block that does is refused here.)

/// How far back a copy may refer.
const WINDOW_BYTES: usize = 64 << 10;
/// Bytes gathered before they are given away.
const GATHERED_BYTES: usize = 64 << 10;

/// Why a block is not expanded.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum ExpandError<E> {
    Malformed,
    /// Whoever takes the pieces wants no more.
    Taker(E),
}

/// Expands one LZ4 block, behind what `history` holds.
pub(crate) fn lz4_block<E>(
    block: &[u8],
    history: &[u8],
    take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), ExpandError<E>> {
    let mut window = Window::new(history, take);
    let mut bytes = block;
    loop {
        let token = byte(&mut bytes)?;
        let literals = long_length(usize::from(token >> 4), &mut bytes)?;
        window.literals(slice(&mut bytes, literals)?)?;
        if bytes.is_empty() {
            // The last sequence is literals alone.
            return window.finish();
        }
        let offset = u16::from_le_bytes([byte(&mut bytes)?, byte(&mut bytes)?]);
        let length = long_length(usize::from(token & 0x0f), &mut bytes)?;
        window.copy(usize::from(offset), length.saturating_add(4))?;
    }
}

/// Expands one Snappy block; that it holds what it claims is the caller's to check.
pub(crate) fn snappy_block<E>(
    block: &[u8],
    take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), ExpandError<E>> {
    let mut window = Window::new(&[], take);
    let mut bytes = block;
    // The length, which the caller knows.
    while byte(&mut bytes)? >= 0x80 {}
    while !bytes.is_empty() {
        let tag = usize::from(byte(&mut bytes)?);
        let upper = tag >> 2;
        match tag & 0b11 {
            0 => {
                let length = if upper < 60 { upper } else { little_endian(&mut bytes, upper - 59)? };
                window.literals(slice(&mut bytes, length.saturating_add(1))?)?;
            }
            1 => {
                let offset = (tag >> 5) << 8 | usize::from(byte(&mut bytes)?);
                window.copy(offset, 4 + (upper & 0b111))?;
            }
            width => {
                let offset = little_endian(&mut bytes, if width == 2 { 2 } else { 4 })?;
                window.copy(offset, upper + 1)?;
            }
        }
    }
    window.finish()
}

struct Window<'a, E> {
    /// What came before, up to the window's size, then what is not given away yet.
    bytes: Vec<u8>,
    given: usize,
    take: &'a mut dyn FnMut(&[u8]) -> Result<(), E>,
}

impl<'a, E> Window<'a, E> {
    fn new(history: &[u8], take: &'a mut dyn FnMut(&[u8]) -> Result<(), E>) -> Self {
        let mut bytes = Vec::with_capacity(WINDOW_BYTES + 2 * GATHERED_BYTES);
        bytes
            .extend_from_slice(history.get(history.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default());
        Self { given: bytes.len(), bytes, take }
    }

    fn literals(&mut self, literals: &[u8]) -> Result<(), ExpandError<E>> {
        for part in literals.chunks(GATHERED_BYTES) {
            self.bytes.extend_from_slice(part);
            self.give()?;
        }
        Ok(())
    }

    fn copy(&mut self, offset: usize, mut length: usize) -> Result<(), ExpandError<E>> {
        if offset == 0 || offset > self.bytes.len().min(WINDOW_BYTES) {
            return Err(ExpandError::Malformed);
        }
        let mut from = self.bytes.len() - offset;
        while length > 0 {
            // A copy may reach into itself: what it has made so far is copied again, twice as much each time.
            let made = self.bytes.len() - from;
            let part = length.min(made).min(GATHERED_BYTES);
            self.bytes.extend_from_within(from..from + part);
            length -= part;
            if self.give()? || part < made {
                from = self.bytes.len() - offset;
            }
        }
        Ok(())
    }

    /// Gives away what has gathered, once it is much, and keeps the window; true if it did.
    fn give(&mut self) -> Result<bool, ExpandError<E>> {
        if self.bytes.len() - self.given < GATHERED_BYTES {
            return Ok(false);
        }
        self.give_all()?;
        let old = self.bytes.len() - WINDOW_BYTES.min(self.bytes.len());
        self.bytes.drain(..old);
        self.given = self.bytes.len();
        Ok(true)
    }

    fn give_all(&mut self) -> Result<(), ExpandError<E>> {
        let gathered = self.bytes.get(self.given..).unwrap_or_default();
        if gathered.is_empty() { Ok(()) } else { (self.take)(gathered).map_err(ExpandError::Taker) }
    }

    fn finish(mut self) -> Result<(), ExpandError<E>> {
        self.give_all()
    }
}

/// A length of four bits, and the bytes that go on with it when they are all set.
fn long_length<E>(nibble: usize, bytes: &mut &[u8]) -> Result<usize, ExpandError<E>> {
    let mut length = nibble;
    if nibble == 15 {
        loop {
            let more = byte(bytes)?;
            length = length.saturating_add(usize::from(more));
            if more < 255 {
                break;
            }
        }
    }
    Ok(length)
}

fn little_endian<E>(bytes: &mut &[u8], width: usize) -> Result<usize, ExpandError<E>> {
    let number = slice(bytes, width)?;
    Ok(number.iter().rev().fold(0, |value, byte| value << 8 | usize::from(*byte)))
}

fn byte<E>(bytes: &mut &[u8]) -> Result<u8, ExpandError<E>> {
    let (byte, rest) = bytes.split_first().ok_or(ExpandError::Malformed)?;
    *bytes = rest;
    Ok(*byte)
}

fn slice<'a, E>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], ExpandError<E>> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or(ExpandError::Malformed)?;
    *bytes = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn gathered(
        expand: impl FnOnce(&mut dyn FnMut(&[u8]) -> Result<(), ()>) -> Result<(), ExpandError<()>>,
    ) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        expand(&mut |piece| {
            out.extend_from_slice(piece);
            Ok(())
        })
        .ok()?;
        Some(out)
    }

    /// Text with runs and repeats of all lengths, and far ones.
    fn text() -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec((any::<u8>(), 1..3usize, 1..4000usize), 0..60).prop_map(|parts| {
            let mut text = Vec::new();
            for (byte, kind, length) in parts {
                match kind {
                    1 => text.extend(std::iter::repeat_n(byte, length)),
                    _ if text.len() > length => text.extend_from_within(text.len() - length..),
                    _ => text.extend((0..length).map(|index| (index as u8).wrapping_mul(byte))),
                }
            }
            text
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn what_the_libraries_make_comes_back(text in text()) {
            let lz4 = lz4_flex::block::compress(&text);
            prop_assert_eq!(gathered(|take| lz4_block(&lz4, &[], take)), Some(text.clone()));
            let snappy = snap::raw::Encoder::new().compress_vec(&text).unwrap();
            prop_assert_eq!(gathered(|take| snappy_block(&snappy, take)), Some(text));
        }

        #[test]
        fn history_is_referred_to(history in text(), text in text()) {
            let all = [history.as_slice(), &text[..text.len().min(10)], &history].concat();
            let after = &all[history.len()..];
            let near = &history[history.len().saturating_sub(WINDOW_BYTES)..];
            let block = lz4_flex::block::compress_with_dict(after, near);
            prop_assert_eq!(gathered(|take| lz4_block(&block, near, take)), Some(after.to_vec()));
        }

        #[test]
        fn garbage_is_what_the_libraries_say_it_is(block in prop::collection::vec(prop_oneof![0..0x20u8, any::<u8>()], 0..60)) {
            let mut room = vec![0; 64 << 10];
            let library = lz4_flex::block::decompress_into(&block, &mut room).ok().map(|written| room[..written].to_vec());
            let ours = gathered(|take| lz4_block(&block, &[], take));
            // The library may be stricter about a block's end.
            prop_assert!(library.is_none() || ours == library, "{:?}", block);
        }
    }

    #[test]
    fn a_copy_of_what_is_not_there_is_refused() {
        assert_eq!(gathered(|take| lz4_block(&[0x10, b'a', 2, 0], &[], take)), None);
        assert_eq!(gathered(|take| lz4_block(&[0x10, b'a', 0, 0], &[], take)), None);
        assert_eq!(gathered(|take| snappy_block(&[5, 0, b'a', 0x05, 2], take)), None);
    }

    #[test]
    fn who_takes_may_stop() {
        let block = lz4_flex::block::compress(&vec![0; 1 << 20]);
        let mut pieces = 0;
        let stopped = lz4_block(&block, &[], &mut |piece| {
            assert!(piece.len() <= 2 * GATHERED_BYTES);
            pieces += 1;
            if pieces == 3 { Err("enough") } else { Ok(()) }
        });
        assert_eq!((stopped, pieces), (Err(ExpandError::Taker("enough")), 3));
    }
}
