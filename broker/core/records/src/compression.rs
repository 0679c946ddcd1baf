//! The codecs of record batches, each as Kafka's own clients write and read them.
//!
//! Decompression is told how much it may produce and stops there: a small batch that claims or hides gigabytes costs no
//! more memory than the limit.

use std::io::{self, Write};

use zstd::zstd_safe::{self, zstd_sys::ZSTD_ErrorCode};

use crate::batch::Codec;
use crate::lz4::{self, HeaderChecksum};
use crate::pieces::{XERIAL_HEADER_LENGTH, XERIAL_MAGIC, decompress_pieces};

/// Why bytes cannot be decompressed, or compressed.
#[derive(Debug, thiserror::Error)]
pub enum CompressionError {
    #[error("more than {limit} bytes come out of {compressed} compressed ones")]
    TooLarge { compressed: usize, limit: usize },
    #[error("{codec:?} data is malformed: {source}")]
    Malformed { codec: Codec, source: io::Error },
}

/// Compression level, as far as the codec has any: gzip 1 to 9, zstd its own range. `None` is the codec's default. LZ4 has
/// one level here, the one that Kafka uses by default.
pub type Level = Option<i32>;

/// Uncompressed bytes of one block of a xerial stream, as snappy-java writes them.
const XERIAL_BLOCK_BYTES: usize = 32 << 10;
/// How much room a first attempt at zstd data gets for each of its bytes, and each further one more than the last.
const ZSTD_FIRST_GUESS: usize = 6;
const ZSTD_GROWTH: usize = 4;
const ZSTD_ROOM_MIN: usize = 4 << 10;

/// Decompresses `payload`, the records of a v2 batch, giving at most `limit` bytes.
pub fn decompress(codec: Codec, payload: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    decompress_with(codec, payload, limit, HeaderChecksum::Standard)
}

/// Decompresses the inner set of a message of format 0 or 1, giving at most `limit` bytes. It differs from a batch's
/// records in that LZ4 header checksums are not looked at (KAFKA-3160).
pub fn decompress_message_set(
    codec: Codec,
    payload: &[u8],
    limit: usize,
) -> Result<Vec<u8>, CompressionError> {
    decompress_with(codec, payload, limit, HeaderChecksum::Broken)
}

fn decompress_with(
    codec: Codec,
    payload: &[u8],
    limit: usize,
    lz4_checksum: HeaderChecksum,
) -> Result<Vec<u8>, CompressionError> {
    if codec == Codec::Zstd {
        return decompress_zstd(payload, limit);
    }
    // Memory grows with what comes out, from a guess that suits text.
    let mut out = Vec::with_capacity(payload.len().saturating_mul(3).min(limit));
    decompress_pieces(codec, payload, limit, lz4_checksum, &mut |piece| {
        out.extend_from_slice(piece);
        Ok::<_, CompressionError>(())
    })?;
    Ok(out)
}

/// Decompresses into growing room, so that the output is the window and no frame's header decides how much is
/// allocated: what is allocated stays within a small multiple of what came out, and within the limit.
fn decompress_zstd(payload: &[u8], limit: usize) -> Result<Vec<u8>, CompressionError> {
    const TOO_SMALL: usize = 0usize.wrapping_sub(ZSTD_ErrorCode::ZSTD_error_dstSize_tooSmall as usize);
    let mut decoder = zstd_safe::DCtx::try_create().ok_or_else(|| CompressionError::Malformed {
        codec: Codec::Zstd,
        source: io::ErrorKind::OutOfMemory.into(),
    })?;
    let mut room = payload.len().saturating_mul(ZSTD_FIRST_GUESS).max(ZSTD_ROOM_MIN).min(limit);
    loop {
        let mut out = Vec::with_capacity(room);
        match decoder.decompress(&mut out, payload) {
            // An allocator may give more room than it was asked for.
            Ok(_) if out.len() <= limit => return Ok(out),
            Err(TOO_SMALL) if room < limit => room = room.saturating_mul(ZSTD_GROWTH).min(limit),
            Ok(_) | Err(TOO_SMALL) => {
                return Err(CompressionError::TooLarge { compressed: payload.len(), limit });
            }
            Err(code) => {
                let source = io::Error::new(io::ErrorKind::InvalidData, zstd_safe::get_error_name(code));
                return Err(CompressionError::Malformed { codec: Codec::Zstd, source });
            }
        }
    }
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
        Codec::Lz4 => lz4::compress(payload, HeaderChecksum::Standard).map_err(failed),
        Codec::Snappy => compress_xerial(payload).map_err(|error| failed(io::Error::other(error))),
        Codec::Zstd => {
            zstd::bulk::compress(payload, level.unwrap_or(zstd::DEFAULT_COMPRESSION_LEVEL)).map_err(failed)
        }
    }
}

/// Compresses the inner set of a message of format 0 (with LZ4's broken header checksum) or 1.
pub(crate) fn compress_message_set(
    codec: Codec,
    payload: &[u8],
    lz4_checksum: HeaderChecksum,
) -> Result<Vec<u8>, CompressionError> {
    match codec {
        Codec::Lz4 => lz4::compress(payload, lz4_checksum)
            .map_err(|source| CompressionError::Malformed { codec, source }),
        codec => compress(codec, None, payload),
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
