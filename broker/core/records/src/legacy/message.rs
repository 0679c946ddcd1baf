//! One message of format 0 or 1, as it lies in a message set: offset, length, CRC-32, then the message.

use crate::batch::{BatchError, Codec};
use crate::legacy::{LegacyError, MessageFormat};

/// Bytes of a message set's entry before the message: offset and length.
const ENTRY_OVERHEAD: usize = 12;
/// Where the magic byte lies in an entry, in every format.
pub(crate) const MAGIC_OFFSET: usize = 16;
/// Bytes of a message's CRC, which covers all after it.
const CRC_LENGTH: usize = 4;
const CODEC_MASK: u8 = 0b111;
/// Attribute of format 1: the timestamp is the broker's.
const LOG_APPEND_TIME: u8 = 0b1000;
const NO_TIMESTAMP: i64 = -1;

/// A message, or the wrapper of a compressed set of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    pub offset: i64,
    pub format: MessageFormat,
    /// Not `None` in a wrapper, whose value is a message set.
    pub codec: Codec,
    pub log_append_time: bool,
    /// Milliseconds; -1 in format 0, which has none.
    pub timestamp: i64,
    pub key: Option<&'a [u8]>,
    pub value: Option<&'a [u8]>,
}

/// Reads the message at the front of `set`, which must not be empty, checks its CRC, and moves past it.
pub(crate) fn read<'a>(set: &mut &'a [u8]) -> Result<Message<'a>, LegacyError> {
    let mut bytes = *set;
    let offset = i64::from_be_bytes(take(&mut bytes)?);
    let length = i32::from_be_bytes(take(&mut bytes)?);
    let length =
        usize::try_from(length).map_err(|_| LegacyError::Malformed("a message's length is negative"))?;
    let (mut body, rest) = bytes.split_at_checked(length).ok_or(CUT_OFF)?;
    let stored = u32::from_be_bytes(take(&mut body)?);
    let checked = body;
    let [magic, attributes] = take(&mut body)?;
    let format = MessageFormat::from_magic(magic as i8)?;
    // The format comes first: the CRC of a later format lies elsewhere, and its error would mislead.
    let computed = crc32(checked);
    if stored != computed {
        return Err(BatchError::WrongCrc { stored, computed }.into());
    }
    let codec = match attributes & CODEC_MASK {
        0 => Codec::None,
        1 => Codec::Gzip,
        2 => Codec::Snappy,
        3 => Codec::Lz4,
        other => return Err(BatchError::UnknownCodec(other.into()).into()),
    };
    let timestamp = match format {
        MessageFormat::V0 => NO_TIMESTAMP,
        MessageFormat::V1 => i64::from_be_bytes(take(&mut body)?),
    };
    let log_append_time = format == MessageFormat::V1 && attributes & LOG_APPEND_TIME != 0;
    let key = take_nullable(&mut body)?;
    let value = take_nullable(&mut body)?;
    if !body.is_empty() {
        return Err(LegacyError::Malformed("bytes follow a message's value within its length"));
    }
    *set = rest;
    Ok(Message { offset, format, codec, log_append_time, timestamp, key, value })
}

/// Appends `message` to `set`.
pub(crate) fn write(set: &mut Vec<u8>, message: &Message<'_>) {
    let start = set.len();
    set.extend_from_slice(&message.offset.to_be_bytes());
    set.extend_from_slice(&[0; ENTRY_OVERHEAD - 8 + CRC_LENGTH]);
    let mut attributes = match message.codec {
        Codec::None => 0,
        Codec::Gzip => 1,
        Codec::Snappy => 2,
        Codec::Lz4 => 3,
        Codec::Zstd => 4,
    };
    match message.format {
        MessageFormat::V0 => set.extend_from_slice(&[0, attributes]),
        MessageFormat::V1 => {
            if message.log_append_time {
                attributes |= LOG_APPEND_TIME;
            }
            set.extend_from_slice(&[1, attributes]);
            set.extend_from_slice(&message.timestamp.to_be_bytes());
        }
    }
    for field in [message.key, message.value] {
        match field {
            None => set.extend_from_slice(&(-1i32).to_be_bytes()),
            Some(field) => {
                set.extend_from_slice(&(field.len() as i32).to_be_bytes());
                set.extend_from_slice(field);
            }
        }
    }
    let body_at = start + ENTRY_OVERHEAD + CRC_LENGTH;
    let crc = crc32(&set[body_at..]);
    let length = (set.len() - start - ENTRY_OVERHEAD) as i32;
    set[start + 8..start + ENTRY_OVERHEAD].copy_from_slice(&length.to_be_bytes());
    set[start + ENTRY_OVERHEAD..body_at].copy_from_slice(&crc.to_be_bytes());
}

const CUT_OFF: LegacyError = LegacyError::Malformed("a message is cut off");

fn take<const N: usize>(bytes: &mut &[u8]) -> Result<[u8; N], LegacyError> {
    let (taken, rest) = bytes.split_first_chunk().ok_or(CUT_OFF)?;
    *bytes = rest;
    Ok(*taken)
}

/// A length of -1 is null; any other negative length is malformed.
fn take_nullable<'a>(bytes: &mut &'a [u8]) -> Result<Option<&'a [u8]>, LegacyError> {
    let length = i32::from_be_bytes(take(bytes)?);
    if length == -1 {
        return Ok(None);
    }
    let length = usize::try_from(length)
        .map_err(|_| LegacyError::Malformed("a key's or value's length is negative"))?;
    let (taken, rest) = bytes.split_at_checked(length).ok_or(CUT_OFF)?;
    *bytes = rest;
    Ok(Some(taken))
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}
