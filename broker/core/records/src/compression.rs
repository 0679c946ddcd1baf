//! The codecs of record batches, each as Kafka's own clients write and read them.
//!
//! Decompression is told how much it may produce and stops there: a small batch that claims or hides gigabytes costs no
//! more memory than the limit.

use std::io::{self, Read, Write};

use crate::batch::Codec;

/// Why bytes cannot be decompressed, or compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("more than {limit} bytes come out of {compressed} compressed ones")]
    TooLarge { compressed: usize, limit: usize },
    #[error("{codec:?} data is malformed: {source}")]
    Malformed { codec: Codec, source: io::Error },
}

/// Compression levels of each codec; `None` is the codec's own default.
pub type Level = Option<i32>;

/// What a xerial ("snappy-java") stream begins with: the magic, then two versions that readers do not check.
const XERIAL_MAGIC: [u8; 8] = [0x82, b'S', b'N', b'A', b'P', b'P', b'Y', 0];
const XERIAL_HEADER_LENGTH: usize = 16;
/// Uncompressed bytes of one block of a xerial stream, as snappy-java writes them.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// Smallest and largest zstd window (base-2 logarithms of bytes) that a reader must accept; 27 is zstd's own limit.
const ZSTD_WINDOW_LOG: std::ops::RangeInclusive<u32> = 20..=27;

/// Decompresses `payload`, giving at most `limit` bytes.
pub fn decompress(codec: Codec, payload: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    let malformed = |source| CompressionError::Malformed { codec, source };
    match codec {
        Codec::None if payload.len() <= limit => Ok(payload.to_vec()),
        Codec::None => Err(CompressionError::TooLarge { compressed: payload.len(), limit }),
        Codec::Gzip => drain(codec, flate2::read::MultiGzDecoder::new(payload), payload.len(), limit),
        Codec::Lz4 => drain(codec, lz4_flex::frame::FrameDecoder::new(payload), payload.len(), limit),
        Codec::Snappy => decompress_snappy(payload, limit),
        Codec::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(payload).map_err(malformed)?;
            // A window larger than all that may come out is not needed: a frame that asks for one is refused.
            let window_log =
                limit.next_power_of_two().ilog2().clamp(*ZSTD_WINDOW_LOG.start(), *ZSTD_WINDOW_LOG.end());
            decoder.window_log_max(window_log).map_err(malformed)?;
            drain(codec, decoder, payload.len(), limit)
        }
    }
}

fn drain(
    codec: Codec,
    reader: impl Read,
    compressed: usize,
    limit: usize,
) -> Result<Vec<u8>, CompressionError> {
    // Memory grows with what comes out, from a guess that suits text, and never past the limit by more than a byte.
    let mut out = Vec::with_capacity(compressed.saturating_mul(3).min(limit.saturating_add(1)));
    let mut bounded = reader.take(limit as u64 + 1);
    bounded.read_to_end(&mut out).map_err(|source| CompressionError::Malformed { codec, source })?;
    if out.len() > limit {
        return Err(CompressionError::TooLarge { compressed, limit });
    }
    Ok(out)
}

fn decompress_snappy(payload: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    if !payload.starts_with(&XERIAL_MAGIC) {
        let mut out = Vec::new();
        decompress_snappy_block(payload, &mut out, limit, payload.len())?;
        return Ok(out);
    }
    let truncated = || CompressionError::Malformed {
        codec: Codec::Snappy,
        source: io::Error::new(io::ErrorKind::UnexpectedEof, "the stream is cut off"),
    };
    let mut blocks = payload.get(XERIAL_HEADER_LENGTH..).ok_or_else(truncated)?;
    let mut out = Vec::new();
    while let Some((length, rest)) = blocks.split_first_chunk::<4>() {
        let length = usize::try_from(i32::from_be_bytes(*length)).map_err(|_| truncated())?;
        let (block, rest) = rest.split_at_checked(length).ok_or_else(truncated)?;
        decompress_snappy_block(block, &mut out, limit, payload.len())?;
        blocks = rest;
    }
    if blocks.is_empty() { Ok(out) } else { Err(truncated()) }
}

fn decompress_snappy_block(
    block: &[u8],
    out: &mut Vec<u8>,
    limit: usize,
    compressed: usize,
) -> Result<(), CompressionError> {
    let malformed = |source: io::Error| CompressionError::Malformed { codec: Codec::Snappy, source };
    let size = snap::raw::decompress_len(block).map_err(|error| malformed(io::Error::other(error)))?;
    let start = out.len();
    if size > limit.saturating_sub(start) {
        return Err(CompressionError::TooLarge { compressed, limit });
    }
    // Snappy makes at most 64 bytes out of a 3-byte copy: a block that claims more lies.
    if size > block.len().saturating_mul(22).saturating_add(64) {
        return Err(malformed(io::Error::new(
            io::ErrorKind::InvalidData,
            "a block claims more than it can hold",
        )));
    }
    out.resize(start + size, 0);
    snap::raw::Decoder::new()
        .decompress(block, &mut out[start..])
        .map_err(|error| malformed(io::Error::other(error)))?;
    Ok(())
}

/// Compresses `payload`.
pub fn compress(codec: Codec, level: Level, payload: &[u8]) -> Result<Vec<u8>, CompressionError> {
    let failed = |source| CompressionError::Malformed { codec, source };
    match codec {
        Codec::None => Ok(payload.to_vec()),
        Codec::Gzip => {
            let level = level
                .and_then(|level| u32::try_from(level).ok())
                .map_or_else(flate2::Compression::default, |level| flate2::Compression::new(level.min(9)));
            let mut encoder = flate2::write::GzEncoder::new(Vec::with_capacity(payload.len() / 2), level);
            encoder.write_all(payload).and_then(|()| encoder.finish()).map_err(failed)
        }
        Codec::Lz4 => {
            let info = lz4_flex::frame::FrameInfo::new()
                .block_mode(lz4_flex::frame::BlockMode::Independent)
                .block_size(lz4_flex::frame::BlockSize::Max64KB);
            let out = Vec::with_capacity(payload.len() / 2);
            let mut encoder = lz4_flex::frame::FrameEncoder::with_frame_info(info, out);
            encoder.write_all(payload).map_err(failed)?;
            encoder.finish().map_err(|error| failed(io::Error::other(error)))
        }
        Codec::Snappy => compress_xerial(payload).map_err(|error| failed(io::Error::other(error))),
        Codec::Zstd => {
            zstd::bulk::compress(payload, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL)).map_err(failed)
        }
    }
}

fn compress_xerial(payload: &[u8]) -> Result<Vec<u8>, snap::Error> {
    let mut out = Vec::with_capacity(payload.len() / 2 + XERIAL_HEADER_LENGTH);
    out.extend_from_slice(&XERIAL_MAGIC);
    out.extend_from_slice(&1i32.to_be_bytes());
    out.extend_from_slice(&1i32.to_be_bytes());
    let mut encoder = snap::raw::Encoder::new();
    for block in payload.chunks(XERIAL_BLOCK_BYTES) {
        let compressed = encoder.compress_vec(block)?;
        out.extend_from_slice(&(compressed.len() as u32).to_be_bytes());
        out.extend_from_slice(&compressed);
    }
    Ok(out)
}

#[cfg(test)]
mod tests;
