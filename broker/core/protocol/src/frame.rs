//! A request's frame: the header, and the body behind it.

use bytes::{Buf, Bytes};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Decodable;

use crate::bounds::{self, BoundsError};
use crate::{legacy, versions};

/// Bytes that every header begins with: api key, version, correlation id.
const FIXED_LENGTH: usize = 8;
/// Longest client id that is kept; a longer one is cut, for it is only ever shown to people.
const CLIENT_ID_LENGTH_MAX: usize = 1024;

/// Why a frame is not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("a request header needs more bytes than the {0} of its frame")]
    CutOff(usize),
    #[error("the client id has an impossible length, {0}")]
    ClientId(i16),
    #[error("api key {key} version {version} is not served")]
    Unsupported { key: i16, version: i16 },
    #[error("the header's tagged fields are malformed")]
    TaggedFields,
}

/// Why a request's body is not what its header says.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    #[error("{api:?} version {version}: {source}")]
    Bounds { api: ApiKey, version: i16, source: BoundsError },
    #[error("{api:?} version {version}: {message}")]
    Malformed { api: ApiKey, version: i16, message: String },
}

/// Who asks for what, in which dialect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestHeader {
    pub api_key: i16,
    pub api_version: i16,
    pub correlation_id: i32,
    pub client_id: Option<String>,
}

#[derive(Debug, Clone)]
pub struct Request {
    pub header: RequestHeader,
    pub body: Bytes,
}

/// Api key and version of a frame, before anything else of it is read.
pub fn api_of(frame: &[u8]) -> Option<(i16, i16)> {
    let fixed = frame.first_chunk::<FIXED_LENGTH>()?;
    Some((i16::from_be_bytes([fixed[0], fixed[1]]), i16::from_be_bytes([fixed[2], fixed[3]])))
}

/// Correlation id of a frame, for a reply to a request that cannot be read further.
pub fn correlation_id_of(frame: &[u8]) -> Option<i32> {
    let fixed = frame.first_chunk::<FIXED_LENGTH>()?;
    Some(i32::from_be_bytes([fixed[4], fixed[5], fixed[6], fixed[7]]))
}

/// Correlation id and body of a frame (without its length) of an API that is none of Kafka's: its header is that of before
/// flexible versions.
pub fn foreign(frame: &Bytes) -> Result<(i32, Bytes), FrameError> {
    let correlation_id = correlation_id_of(frame).ok_or(FrameError::CutOff(frame.len()))?;
    let mut rest = frame.slice(FIXED_LENGTH..);
    client_id(&mut rest)?;
    Ok((correlation_id, rest))
}

impl Request {
    /// Reads the header of `frame` (without its length), which must be of an API and version that are served.
    pub fn parse(api: ApiKey, frame: Bytes) -> Result<Self, FrameError> {
        let cut_off = FrameError::CutOff(frame.len());
        let (api_key, api_version) = api_of(&frame).ok_or(cut_off)?;
        let correlation_id = correlation_id_of(&frame).ok_or(cut_off)?;
        let mut rest = frame.slice(FIXED_LENGTH..);
        let header_version = legacy::header_version(api, api_version);
        let client_id = if header_version >= 1 { client_id(&mut rest)? } else { None };
        if header_version >= 2 {
            skip_tagged_fields(&mut rest)?;
        }
        Ok(Self { header: RequestHeader { api_key, api_version, correlation_id, client_id }, body: rest })
    }

    /// Decodes the body, which must hold exactly one `T`. Bytes and strings in it are slices of the frame.
    pub fn decode<T: Decodable>(&self, api: ApiKey) -> Result<T, DecodeError> {
        let asked = self.header.api_version;
        let bounds = |source| DecodeError::Bounds { api, version: asked, source };
        let (version, mut body) =
            legacy::upgraded(api, versions::spelled_as(api, asked), &self.body).map_err(bounds)?;
        bounds::check(api, version, &body).map_err(bounds)?;
        let malformed = |message| DecodeError::Malformed { api, version: asked, message };
        let request = T::decode(&mut body, version).map_err(|error| malformed(format!("{error:#}")))?;
        if !body.is_empty() {
            return Err(malformed(format!("{} bytes follow its last field", body.len())));
        }
        Ok(request)
    }
}

fn client_id(rest: &mut Bytes) -> Result<Option<String>, FrameError> {
    let cut_off = FrameError::CutOff(rest.len());
    let length = rest.first_chunk::<2>().map(|length| i16::from_be_bytes(*length)).ok_or(cut_off)?;
    rest.advance(2);
    if length < 0 {
        return if length == -1 { Ok(None) } else { Err(FrameError::ClientId(length)) };
    }
    let length = length as usize;
    if length > rest.len() {
        return Err(cut_off);
    }
    let name = rest.split_to(length);
    Ok(Some(String::from_utf8_lossy(&name[..length.min(CLIENT_ID_LENGTH_MAX)]).into_owned()))
}

/// Skips the header's tagged fields; none has a meaning for a broker.
fn skip_tagged_fields(rest: &mut Bytes) -> Result<(), FrameError> {
    let count = varint(rest)?;
    for _ in 0..count {
        varint(rest)?;
        let size = varint(rest)? as usize;
        if size > rest.len() {
            return Err(FrameError::TaggedFields);
        }
        rest.advance(size);
    }
    Ok(())
}

fn varint(rest: &mut Bytes) -> Result<u32, FrameError> {
    let mut value = 0u32;
    for index in 0..5 {
        let byte = *rest.first().ok_or(FrameError::TaggedFields)?;
        rest.advance(1);
        value |= u32::from(byte & 0x7f) << (7 * index);
        if byte < 0x80 {
            return Ok(value);
        }
    }
    Err(FrameError::TaggedFields)
}
