//! A reply's frame: size, header, body.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::ApiKey;
use kafka_protocol::protocol::Encodable;

use crate::frame::RequestHeader;
use crate::legacy::LegacyReply;
use crate::versions;

/// A reply that cannot be put into the version that was asked for.
#[derive(Debug, thiserror::Error)]
#[error("{api:?} version {version}: the reply cannot be encoded: {message}")]
pub struct EncodeError {
    pub api: ApiKey,
    pub version: i16,
    pub message: String,
}

/// The whole frame of a reply to the request with `header`.
pub fn encode(api: ApiKey, header: &RequestHeader, body: &impl Encodable) -> Result<Bytes, EncodeError> {
    encode_at(api, header.api_version, header.correlation_id, body)
}

/// The same, in a version that is not the request's: for ApiVersions, which answers unknown ones in version 0.
pub fn encode_at(
    api: ApiKey,
    version: i16,
    correlation_id: i32,
    body: &impl Encodable,
) -> Result<Bytes, EncodeError> {
    let failed = |error| EncodeError { api, version, message: format!("{error:#}") };
    let version = versions::spelled_as(api, version);
    let size = body.compute_size(version).map_err(failed)?;
    let mut frame = start(api, version, correlation_id, size);
    body.encode(&mut frame, version).map_err(failed)?;
    Ok(finish(frame))
}

/// For replies that old clients expect in a layout that the library does not write any more.
pub fn encode_with_legacy<T: Encodable + LegacyReply>(
    api: ApiKey,
    header: &RequestHeader,
    body: &T,
) -> Result<Bytes, EncodeError> {
    let Some(bytes) = body.legacy(header.api_version) else { return encode(api, header, body) };
    let mut frame = start(api, header.api_version, header.correlation_id, bytes.len());
    frame.put_slice(&bytes);
    Ok(finish(frame))
}

fn start(api: ApiKey, version: i16, correlation_id: i32, size: usize) -> BytesMut {
    let mut frame = BytesMut::with_capacity(9 + size);
    frame.put_i32(0);
    frame.put_i32(correlation_id);
    if api.response_header_version(version) >= 1 {
        // No tagged fields.
        frame.put_u8(0);
    }
    frame
}

fn finish(mut frame: BytesMut) -> Bytes {
    let size = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&size.to_be_bytes());
    frame.freeze()
}
