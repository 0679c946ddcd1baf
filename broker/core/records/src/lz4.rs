//! The LZ4 frame format, as far as record batches use it.
//!
//! The blocks are the library's work. The frame is read here for two reasons: message format 0 computes the frame's
//! header checksum over the wrong bytes (KAFKA-3160), and a frame's header may ask for megabytes of buffers that its few
//! bytes will never fill, so each block is decoded by itself, into as much room as it can need.

use std::hash::Hasher;
use std::io::{self, ErrorKind, Write};

use lz4_flex::frame::{BlockMode, BlockSize, FrameEncoder, FrameInfo};
use twox_hash::XxHash32;

/// How the checksum of a frame's header is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum HeaderChecksum {
    /// As the LZ4 frame format says.
    Standard,
    /// Over the frame's magic, too: as message format 0 has it. Readers of message sets do not check it, since not all
    /// writers made the mistake.
    Broken,
}

/// Why a frame cannot be decompressed.
#[derive(Debug)]
pub(crate) struct Lz4Error(pub(crate) io::Error);

const MAGIC: [u8; 4] = 0x184d_2204u32.to_le_bytes();
/// Bytes of a frame up to the header's checksum, when it names neither content size nor dictionary.
const CHECKSUM_AT: usize = 6;
/// How far back a block may refer into those before it.
const WINDOW_BYTES: usize = 64 << 10;
/// No byte of a block makes more than 255 bytes of output.
const EXPANSION_MAX: usize = 255;
/// Bit of a block's length that says that the block is stored uncompressed.
const STORED: u32 = 1 << 31;

/// Compresses into one frame of independent 64 KiB blocks, the only kind that Kafka's Java client reads.
pub(crate) fn compress(payload: &[u8], checksum: HeaderChecksum) -> io::Result<Vec<u8>> {
    let info = FrameInfo::new().block_mode(BlockMode::Independent).block_size(BlockSize::Max64KB);
    let mut encoder = FrameEncoder::with_frame_info(info, Vec::with_capacity(payload.len() / 2 + 64));
    encoder.write_all(payload)?;
    let mut frame = encoder.finish().map_err(io::Error::other)?;
    if checksum == HeaderChecksum::Broken
        && let Some((header, rest)) = frame.split_at_mut_checked(CHECKSUM_AT)
        && let Some(byte) = rest.first_mut()
    {
        *byte = header_checksum(header);
    }
    Ok(frame)
}

/// One frame, read block by block; bytes after its end mark are not looked at, as in Kafka's reader.
#[derive(Debug)]
pub(crate) struct Frame<'a> {
    bytes: &'a [u8],
    header: Header,
    /// What came out so far: how much, its checksum, and its end where blocks refer back.
    total: u64,
    checksum: XxHash32,
    history: Vec<u8>,
}

/// A block of a frame.
#[derive(Debug)]
pub(crate) struct Block<'a> {
    bytes: &'a [u8],
    stored: bool,
    bytes_max: usize,
}

impl<'a> Block<'a> {
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// True when the bytes are the output as they are.
    pub(crate) fn is_stored(&self) -> bool {
        self.stored
    }

    /// The most that can come out of it.
    pub(crate) fn decompressed_bytes_max(&self) -> usize {
        self.bytes_max.min(self.bytes.len().saturating_mul(EXPANSION_MAX))
    }
}

impl<'a> Frame<'a> {
    pub(crate) fn open(mut bytes: &'a [u8], checksum: HeaderChecksum) -> Result<Self, Lz4Error> {
        let header = read_header(&mut bytes, checksum)?;
        Ok(Self { bytes, header, total: 0, checksum: XxHash32::with_seed(0), history: Vec::new() })
    }

    /// What the header says of the output, if it does.
    pub(crate) fn content_size(&self) -> Option<u64> {
        self.header.content_size
    }

    /// The next block; `None` at the end mark.
    pub(crate) fn next_block(&mut self) -> Result<Option<Block<'a>>, Lz4Error> {
        let length = u32::from_le_bytes(take(&mut self.bytes)?);
        if length == 0 {
            return Ok(None);
        }
        let bytes = take_slice(&mut self.bytes, (length & !STORED) as usize)?;
        if self.header.block_checksums && XxHash32::oneshot(0, bytes).to_le_bytes() != take(&mut self.bytes)?
        {
            return Err(malformed("a block's checksum is wrong"));
        }
        let block = Block { bytes, stored: length & STORED != 0, bytes_max: self.header.block_bytes_max };
        if block.stored && bytes.len() > block.bytes_max {
            return Err(malformed("a block is larger than the header allows"));
        }
        Ok(Some(block))
    }

    /// Decompresses a block into `room`, which has its `decompressed_bytes_max`; returns how many bytes it became.
    pub(crate) fn decompress(&self, block: &Block<'_>, room: &mut [u8]) -> Result<usize, Lz4Error> {
        let room = room.get_mut(..block.decompressed_bytes_max()).unwrap_or_default();
        let written = if self.header.independent {
            lz4_flex::block::decompress_into(block.bytes, room)
        } else {
            lz4_flex::block::decompress_into_with_dict(block.bytes, room, &self.history)
        };
        written.map_err(|error| Lz4Error(io::Error::new(ErrorKind::InvalidData, error)))
    }

    /// What the next block may refer to.
    pub(crate) fn history(&self) -> &[u8] {
        &self.history
    }

    /// Takes note of what came out: to be called with every piece.
    pub(crate) fn note(&mut self, piece: &[u8]) {
        self.total += piece.len() as u64;
        if self.header.content_checksum {
            self.checksum.write(piece);
        }
        if !self.header.independent {
            let kept = self.history.len().min(WINDOW_BYTES.saturating_sub(piece.len()));
            self.history.drain(..self.history.len() - kept);
            let new = piece.get(piece.len().saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
            self.history.extend_from_slice(new);
        }
    }

    /// After the end mark: what the frame says of its content must be so.
    pub(crate) fn finish(mut self) -> Result<(), Lz4Error> {
        if self.header.content_checksum && self.checksum.finish_32().to_le_bytes() != take(&mut self.bytes)? {
            return Err(malformed("the content's checksum is wrong"));
        }
        if self.header.content_size.is_some_and(|size| size != self.total) {
            return Err(malformed("the content's size is not what the header says"));
        }
        Ok(())
    }
}

/// What a frame's header says.
#[derive(Debug)]
struct Header {
    independent: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_bytes_max: usize,
}

fn read_header(bytes: &mut &[u8], checksum: HeaderChecksum) -> Result<Header, Lz4Error> {
    if take::<4>(bytes)? != MAGIC {
        return Err(malformed("there is no frame"));
    }
    let descriptor = *bytes;
    let [flags, block_descriptor] = take(bytes)?;
    if flags >> 6 != 1 {
        return Err(malformed("the frame's version is unknown"));
    }
    if flags & 0b11 != 0 || block_descriptor & 0b1000_1111 != 0 {
        return Err(malformed("the frame needs a dictionary or has reserved bits set"));
    }
    let block_bytes_max = match block_descriptor >> 4 {
        size @ 4..=7 => 1usize << (8 + 2 * size),
        _ => return Err(malformed("the frame's block size is unknown")),
    };
    let content_size = match flags & 0b1000 {
        0 => None,
        _ => Some(u64::from_le_bytes(take(bytes)?)),
    };
    let descriptor = descriptor.get(..descriptor.len() - bytes.len()).unwrap_or_default();
    let [stored] = take(bytes)?;
    if checksum == HeaderChecksum::Standard && stored != header_checksum(descriptor) {
        return Err(malformed("the header's checksum is wrong"));
    }
    Ok(Header {
        independent: flags & 0b10_0000 != 0,
        block_checksums: flags & 0b1_0000 != 0,
        content_checksum: flags & 0b100 != 0,
        content_size,
        block_bytes_max,
    })
}

fn header_checksum(descriptor: &[u8]) -> u8 {
    (XxHash32::oneshot(0, descriptor) >> 8) as u8
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], Lz4Error> {
    let (taken, rest) = bytes.split_first_chunk().ok_or_else(cut_off)?;
    *bytes = rest;
    Ok(*taken)
}

fn take_slice<'a>(bytes: &mut &'a [u8], length: usize) -> Result<&'a [u8], Lz4Error> {
    let (taken, rest) = bytes.split_at_checked(length).ok_or_else(cut_off)?;
    *bytes = rest;
    Ok(taken)
}

fn cut_off() -> Lz4Error {
    Lz4Error(io::Error::new(ErrorKind::UnexpectedEof, "the frame is cut off"))
}

fn malformed(why: &'static str) -> Lz4Error {
    Lz4Error(io::Error::new(ErrorKind::InvalidData, why))
}
