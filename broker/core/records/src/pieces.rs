//! Decompression piece by piece: what is held is one window, whatever comes out in all.
//!
//! A window is what the library needs to have in one place: some kilobytes of a stream (for zstd, beside what the frame's
//! own window holds of what has come out), or a block. A block that makes much more of itself than its bytes is expanded here, through
//! a window of 64 KiB, since the library would want room for all of it.

use std::io::{self, Read};

use crate::batch::Codec;
use crate::compression::CompressionError;
use crate::expand::{self, ExpandError};
use crate::lz4::{Frame, HeaderChecksum, Lz4Error};

/// Most bytes of a stream's window.
const WINDOW_BYTES: usize = 64 << 10;
/// Windows as large as zstd's own tools take, which the highest levels of its encoder need.
const ZSTD_WINDOW_LOG_MAX: u32 = 27;
/// What a xerial ("snappy-java") stream begins with: the magic, then two versions that readers do not check.
pub(crate) const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
pub(crate) const XERIAL_HEADER_LENGTH: usize = 16;
/// How many times its own bytes a block may take of memory at once, or this many bytes.
const BLOCK_GROWTH: usize = 8;
const BLOCK_BYTES_MIN: usize = 256 << 10;
/// Snappy makes at most 64 bytes out of a 3-byte copy.
const SNAPPY_GROWTH_MAX: usize = 22;

/// Decompresses `payload` and gives every piece of it to `take`, in order, at most `limit` bytes in all.
pub(crate) fn decompress_pieces<E: From<CompressionError>>(
    codec: Codec,
    payload: &[u8],
    limit: usize,
    lz4_checksum: HeaderChecksum,
    take: &mut dyn FnMut(&[u8]) -> Result<(), E>,
) -> Result<(), E> {
    let mut output = Output { codec, compressed: payload.len(), limit, total: 0, take };
    match codec {
        Codec::None => output.piece(payload),
        Codec::Gzip => output.read_all(flate2::bufread::MultiGzDecoder::new(payload)),
        Codec::Zstd => {
            let malformed = |source| CompressionError::Malformed { codec, source };
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(malformed)?;
            output.read_all(decoder)
        }
        Codec::Lz4 => output.lz4(payload, lz4_checksum),
        Codec::Snappy => output.snappy(payload),
    }
}

struct Output<'a, E> {
    codec: Codec,
    compressed: usize,
    limit: usize,
    total: usize,
    take: &'a mut dyn FnMut(&[u8]) -> Result<(), E>,
}

impl<E: From<CompressionError>> Output<'_, E> {
    fn piece(&mut self, piece: &[u8]) -> Result<(), E> {
        if piece.len() > self.limit - self.total {
            return Err(self.too_large());
        }
        self.total += piece.len();
        (self.take)(piece)
    }

    fn too_large(&self) -> E {
        CompressionError::TooLarge { compressed: self.compressed, limit: self.limit }.into()
    }

    fn malformed(&self, source: io::Error) -> E {
        CompressionError::Malformed { codec: self.codec, source }.into()
    }

    fn read_all(&mut self, mut reader: impl Read) -> Result<(), E> {
        let mut window = vec![0; self.compressed.saturating_mul(4).clamp(1 << 10, WINDOW_BYTES)];
        loop {
            let read = reader.read(&mut window).map_err(|source| self.malformed(source))?;
            match window.get(..read) {
                None | Some([]) => return Ok(()),
                Some(piece) => self.piece(piece)?,
            }
        }
    }

    fn lz4(&mut self, payload: &[u8], checksum: HeaderChecksum) -> Result<(), E> {
        let failed = |output: &Self, Lz4Error(source)| output.malformed(source);
        let mut frame = Frame::open(payload, checksum).map_err(|error| failed(self, error))?;
        if frame.content_size().is_some_and(|size| size > self.limit as u64) {
            return Err(self.too_large());
        }
        let mut room = Vec::new();
        while let Some(block) = frame.next_block().map_err(|error| failed(self, error))? {
            let most = block.decompressed_bytes_max();
            if block.is_stored() {
                frame.note(block.bytes());
                self.piece(block.bytes())?;
            } else if most <= room_for_block(block.bytes().len()) {
                if room.len() < most {
                    room.resize(most, 0);
                }
                let written = frame.decompress(&block, &mut room).map_err(|error| failed(self, error))?;
                let piece = room.get(..written).unwrap_or_default();
                frame.note(piece);
                self.piece(piece)?;
            } else {
                let mut left = most;
                let history = frame.history().to_vec();
                let expanded = expand::lz4_block(block.bytes(), &history, &mut |piece: &[u8]| {
                    left = left.checked_sub(piece.len()).ok_or_else(|| self.too_long_a_block())?;
                    frame.note(piece);
                    self.piece(piece)
                });
                expanded.map_err(|error| self.expansion(error))?;
            }
        }
        frame.finish().map_err(|error| failed(self, error))
    }

    fn snappy(&mut self, payload: &[u8]) -> Result<(), E> {
        let mut room = Vec::new();
        if !payload.starts_with(&XERIAL_MAGIC) {
            return self.snappy_block(payload, &mut room);
        }
        let mut blocks = payload.get(XERIAL_HEADER_LENGTH..).ok_or_else(|| self.cut_off())?;
        while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
            let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| self.cut_off())?;
            let (block, rest) = rest.split_at_checked(length).ok_or_else(|| self.cut_off())?;
            self.snappy_block(block, &mut room)?;
            blocks = rest;
        }
        if blocks.is_empty() { Ok(()) } else { Err(self.cut_off()) }
    }

    fn snappy_block(&mut self, block: &[u8], room: &mut Vec<u8>) -> Result<(), E> {
        let size =
            snap::raw::decompress_len(block).map_err(|error| self.malformed(io::Error::other(error)))?;
        if size > self.limit - self.total {
            return Err(self.too_large());
        }
        if size > block.len().saturating_mul(SNAPPY_GROWTH_MAX).saturating_add(64) {
            return Err(self.malformed(invalid("a block claims more than it can hold")));
        }
        if size > room_for_block(block.len()) {
            let mut left = size;
            let expanded = expand::snappy_block(block, &mut |piece: &[u8]| {
                left = left.checked_sub(piece.len()).ok_or_else(|| self.too_long_a_block())?;
                self.piece(piece)
            });
            expanded.map_err(|error| self.expansion(error))?;
            return if left == 0 { Ok(()) } else { Err(self.cut_off()) };
        }
        if room.len() < size {
            room.resize(size, 0);
        }
        let piece = room.get_mut(..size).unwrap_or_default();
        snap::raw::Decoder::new()
            .decompress(block, piece)
            .map_err(|error| self.malformed(io::Error::other(error)))?;
        self.piece(piece)
    }

    fn expansion(&self, error: ExpandError<E>) -> E {
        match error {
            ExpandError::Malformed => self.malformed(invalid("a block is malformed")),
            ExpandError::Taker(error) => error,
        }
    }

    fn too_long_a_block(&self) -> E {
        self.malformed(invalid("a block holds more than it may"))
    }

    fn cut_off(&self) -> E {
        self.malformed(io::Error::new(io::ErrorKind::UnexpectedEof, "the stream is cut off"))
    }
}

fn room_for_block(compressed: usize) -> usize {
    compressed.saturating_mul(BLOCK_GROWTH).max(BLOCK_BYTES_MIN)
}

fn invalid(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why)
}
