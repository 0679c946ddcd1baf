//! The LZ4 frame format, as far as record batches use it.
//!
//! The blocks are the library's work. The frame is read here for two reasons: message format 0 computes the frame's
//! header checksum over the wrong bytes (KAFKA-3160), and a frame's header may ask for megabytes of buffers that its few
//! bytes will never fill, so each block is decoded straight into what comes out.

use std::io::{self, ErrorKind, Write};

use lz4_flex::block::DecompressError;
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
pub(crate) enum Lz4Error {
    TooLarge,
    Malformed(io::Error),
}

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

/// Decompresses one frame; bytes after its end mark are not looked at, as in Kafka's reader.
pub(crate) fn decompress(
    payload: &[u8],
    limit: usize,
    checksum: HeaderChecksum,
) -> Result<Vec<u8>, Lz4Error> {
    let mut bytes = payload;
    let frame = read_header(&mut bytes, checksum)?;
    if frame.content_size.is_some_and(|size| size > limit as u64) {
        return Err(Lz4Error::TooLarge);
    }
    let mut out = Vec::new();
    loop {
        let length = u32::from_le_bytes(take(&mut bytes)?);
        if length == 0 {
            break;
        }
        let block = take_slice(&mut bytes, (length & !STORED) as usize)?;
        if frame.block_checksums && XxHash32::oneshot(0, block).to_le_bytes() != take(&mut bytes)? {
            return Err(malformed("a block's checksum is wrong"));
        }
        if length & STORED != 0 {
            store_block(&frame, block, &mut out, limit)?;
        } else {
            decompress_block(&frame, block, &mut out, limit)?;
        }
    }
    if frame.content_checksum && XxHash32::oneshot(0, &out).to_le_bytes() != take(&mut bytes)? {
        return Err(malformed("the content's checksum is wrong"));
    }
    if frame.content_size.is_some_and(|size| size != out.len() as u64) {
        return Err(malformed("the content's size is not what the header says"));
    }
    Ok(out)
}

/// What a frame's header says.
#[derive(Debug)]
struct Frame {
    independent: bool,
    block_checksums: bool,
    content_checksum: bool,
    content_size: Option<u64>,
    block_bytes_max: usize,
}

fn read_header(bytes: &mut &[u8], checksum: HeaderChecksum) -> Result<Frame, Lz4Error> {
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
    Ok(Frame {
        independent: flags & 0b10_0000 != 0,
        block_checksums: flags & 0b1_0000 != 0,
        content_checksum: flags & 0b100 != 0,
        content_size,
        block_bytes_max,
    })
}

fn store_block(frame: &Frame, block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Lz4Error> {
    if block.len() > frame.block_bytes_max {
        return Err(malformed("a block is larger than the header allows"));
    }
    if block.len() > limit.saturating_sub(out.len()) {
        return Err(Lz4Error::TooLarge);
    }
    out.extend_from_slice(block);
    Ok(())
}

fn decompress_block(frame: &Frame, block: &[u8], out: &mut Vec<u8>, limit: usize) -> Result<(), Lz4Error> {
    let start = out.len();
    let possible = frame.block_bytes_max.min(block.len().saturating_mul(EXPANSION_MAX));
    let room = possible.min(limit.saturating_sub(start));
    out.resize(start + room, 0);
    let (before, output) = out.split_at_mut(start);
    let result = if frame.independent {
        lz4_flex::block::decompress_into(block, output)
    } else {
        let window = before.get(start.saturating_sub(WINDOW_BYTES)..).unwrap_or_default();
        lz4_flex::block::decompress_into_with_dict(block, output, window)
    };
    match result {
        Ok(written) => {
            out.truncate(start + written);
            Ok(())
        }
        Err(DecompressError::OutputTooSmall { .. }) if room < possible => Err(Lz4Error::TooLarge),
        Err(error) => Err(Lz4Error::Malformed(io::Error::new(ErrorKind::InvalidData, error))),
    }
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
    Lz4Error::Malformed(io::Error::new(ErrorKind::UnexpectedEof, "the frame is cut off"))
}

fn malformed(why: &'static str) -> Lz4Error {
    Lz4Error::Malformed(io::Error::new(ErrorKind::InvalidData, why))
}
