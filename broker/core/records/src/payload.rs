//! The records of a batch, compressed or not, walked without a copy of them all.

use crate::batch::{BatchError, BatchHeader, Codec, HEADER_LENGTH};
use crate::compression::CompressionError;
use crate::lz4::HeaderChecksum;
use crate::pieces::decompress_pieces;
use crate::record::RecordError;
use crate::shape::{Shape, each_shape};
use crate::stream_shape::ShapeStream;

/// What a walk over a batch's records reads.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Payload<'a> {
    Plain(&'a [u8]),
    Compressed { codec: Codec, bytes: &'a [u8], decompressed_bytes_max: usize },
}

impl<'a> Payload<'a> {
    /// The records of a whole batch.
    pub(crate) fn of(
        header: &BatchHeader,
        batch: &'a [u8],
        decompressed_bytes_max: usize,
    ) -> Result<Self, BatchError> {
        let bytes = batch
            .get(HEADER_LENGTH..header.size_in_bytes())
            .ok_or(BatchError::TooShort { needed: header.size_in_bytes(), have: batch.len() })?;
        Ok(match header.codec()? {
            Codec::None => Payload::Plain(bytes),
            codec => Payload::Compressed { codec, bytes, decompressed_bytes_max },
        })
    }

    /// Calls `see` with every record and its index.
    #[inline]
    pub(crate) fn each_shape<E: From<CompressionError> + From<RecordError>>(
        self,
        count: i32,
        mut see: impl FnMut(i32, Shape),
    ) -> Result<(), E> {
        match self {
            Payload::Plain(bytes) => Ok(each_shape(count, bytes, see)?),
            Payload::Compressed { codec, bytes, decompressed_bytes_max } => {
                let mut shapes = ShapeStream::new(count)?;
                let checksum = HeaderChecksum::Standard;
                decompress_pieces(codec, bytes, decompressed_bytes_max, checksum, &mut |piece| {
                    Ok::<_, E>(shapes.feed(piece, &mut see)?)
                })?;
                Ok(shapes.finish()?)
            }
        }
    }
}
