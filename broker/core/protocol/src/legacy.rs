//! The dialects of clients back to 0.10 that the library does not speak any more (KIP-896).
//!
//! A request is rewritten into the oldest version that the library knows; a reply is written by hand where its layout
//! differs. Only old clients pay for it, with one copy of their request.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::{
    ApiKey, CreateTopicsResponse, DeleteTopicsResponse, ListOffsetsResponse, ProduceResponse,
};
use kafka_protocol::protocol::StrBytes;

use crate::bounds::BoundsError;

/// Version of the request's header: 0 has no client id, 2 has tagged fields.
pub fn header_version(api: ApiKey, version: i16) -> i16 {
    let oldest = oldest_in_library(api);
    api.request_header_version(version.max(oldest))
}

/// The oldest version that the library decodes.
fn oldest_in_library(api: ApiKey) -> i16 {
    api.valid_versions().min
}

/// The body in a version that the library decodes, and that version.
pub fn upgraded(api: ApiKey, version: i16, body: &Bytes) -> Result<(i16, Bytes), BoundsError> {
    let oldest = oldest_in_library(api);
    if version >= oldest {
        return Ok((version, body.clone()));
    }
    let body = match (api, version) {
        // No transactional id yet.
        (ApiKey::Produce, _) => inserted(body, 0, &(-1i16).to_be_bytes())?,
        // replica id, max wait, min bytes; then the limit of the whole reply, and the isolation level.
        (ApiKey::Fetch, 0..=2) => inserted(body, 12, &[0x7f, 0xff, 0xff, 0xff, 0])?,
        (ApiKey::Fetch, _) => inserted(body, 16, &[0])?,
        (ApiKey::ListOffsets, _) => list_offsets_1(body)?,
        // validate_only came with version 1.
        (ApiKey::CreateTopics, 0) => inserted(body, body.len(), &[0])?,
        _ => body.clone(),
    };
    Ok((oldest, body))
}

fn inserted(body: &Bytes, at: usize, bytes: &[u8]) -> Result<Bytes, BoundsError> {
    let (before, after) = body.split_at_checked(at).ok_or(BoundsError::CutOff { at: body.len() })?;
    Ok([before, bytes, after].concat().into())
}

/// ListOffsets 0 asks for several offsets a partition; since version 1 it is one, and the field is gone.
fn list_offsets_1(body: &[u8]) -> Result<Bytes, BoundsError> {
    let mut reader = Reader { body, at: 0 };
    let mut out = BytesMut::with_capacity(body.len());
    out.put_slice(reader.take(4)?);
    let topics = reader.count()?;
    out.put_i32(topics);
    for _ in 0..topics {
        let length = reader.take(2)?;
        out.put_slice(length);
        out.put_slice(reader.take(usize::from(u16::from_be_bytes([length[0], length[1]])))?);
        let partitions = reader.count()?;
        out.put_i32(partitions);
        for _ in 0..partitions {
            out.put_slice(reader.take(12)?);
            reader.take(4)?;
        }
    }
    out.put_slice(&body[reader.at..]);
    Ok(out.freeze())
}

struct Reader<'a> {
    body: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], BoundsError> {
        let taken = self.body.get(self.at..).and_then(|rest| rest.get(..length));
        let taken = taken.ok_or(BoundsError::CutOff { at: self.at })?;
        self.at += length;
        Ok(taken)
    }

    fn count(&mut self) -> Result<i32, BoundsError> {
        let at = self.at;
        let bytes = self.take(4)?;
        let count = i32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
        if count < 0 || count as usize > self.body.len() {
            return Err(BoundsError::Length { length: i64::from(count), at });
        }
        Ok(count)
    }
}

/// A reply that has a layout of its own in old versions.
pub trait LegacyReply {
    /// The body in `version`; `None` where the library writes it.
    fn legacy(&self, version: i16) -> Option<Bytes>;
}

impl LegacyReply for ProduceResponse {
    fn legacy(&self, version: i16) -> Option<Bytes> {
        if version > 2 {
            return None;
        }
        let mut out = BytesMut::new();
        out.put_i32(self.responses.len() as i32);
        for topic in &self.responses {
            put_string(&mut out, &topic.name);
            out.put_i32(topic.partition_responses.len() as i32);
            for partition in &topic.partition_responses {
                out.put_i32(partition.index);
                out.put_i16(partition.error_code);
                out.put_i64(partition.base_offset);
                if version >= 2 {
                    out.put_i64(partition.log_append_time_ms);
                }
            }
        }
        if version >= 1 {
            out.put_i32(self.throttle_time_ms);
        }
        Some(out.freeze())
    }
}

impl LegacyReply for ListOffsetsResponse {
    fn legacy(&self, version: i16) -> Option<Bytes> {
        if version > 0 {
            return None;
        }
        let mut out = BytesMut::new();
        out.put_i32(self.topics.len() as i32);
        for topic in &self.topics {
            put_string(&mut out, &topic.name);
            out.put_i32(topic.partitions.len() as i32);
            for partition in &topic.partitions {
                out.put_i32(partition.partition_index);
                out.put_i16(partition.error_code);
                // A list of offsets, newest first; a client that asks for one takes the first.
                let found = partition.offset >= 0;
                out.put_i32(i32::from(found));
                if found {
                    out.put_i64(partition.offset);
                }
            }
        }
        Some(out.freeze())
    }
}

impl LegacyReply for CreateTopicsResponse {
    fn legacy(&self, version: i16) -> Option<Bytes> {
        if version > 1 {
            return None;
        }
        let mut out = BytesMut::new();
        out.put_i32(self.topics.len() as i32);
        for topic in &self.topics {
            put_string(&mut out, &topic.name);
            out.put_i16(topic.error_code);
            if version == 1 {
                put_nullable_string(&mut out, topic.error_message.as_ref());
            }
        }
        Some(out.freeze())
    }
}

impl LegacyReply for DeleteTopicsResponse {
    fn legacy(&self, version: i16) -> Option<Bytes> {
        if version > 0 {
            return None;
        }
        let mut out = BytesMut::new();
        out.put_i32(self.responses.len() as i32);
        for topic in &self.responses {
            put_nullable_string(&mut out, topic.name.as_deref());
            out.put_i16(topic.error_code);
        }
        Some(out.freeze())
    }
}

fn put_string(out: &mut BytesMut, value: &StrBytes) {
    // Names that come from requests or from the image are at most 32,767 bytes long.
    out.put_i16(value.len() as i16);
    out.put_slice(value.as_bytes());
}

fn put_nullable_string(out: &mut BytesMut, value: Option<&StrBytes>) {
    match value {
        Some(value) => put_string(out, value),
        None => out.put_i16(-1),
    }
}
