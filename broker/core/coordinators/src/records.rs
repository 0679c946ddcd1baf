//! The records of `__consumer_offsets`, in the formats that Kafka 4 writes and every older one it reads.
//!
//! Written: OffsetCommitKey 1, OffsetCommitValue 4 (1 where the commit names its own expiry), GroupMetadataKey 2,
//! GroupMetadataValue 3, as `GroupCoordinatorRecordHelpers` does. Read: values 0 to 4 (4 is the flexible form of KIP-915).
use crate::wire::{
    Reader, put_bytes, put_compact_string, put_nullable_string, put_string, put_tagged_fields,
};
use bytes::{BufMut, Bytes, BytesMut};
use firn_model::ids::TopicId;

/// The tag of `OffsetCommitValue.topicId`, since version 4.
const TOPIC_ID_TAG: u32 = 0;

/// One record to append; a `None` value is a tombstone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsRecord {
    pub key: Bytes,
    pub value: Option<Bytes>,
}

/// Why a record could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error(
        "a {record} record of __consumer_offsets (version {version}) is malformed: the partition may be corrupt"
    )]
    Malformed { record: &'static str, version: i16 },
    #[error("a {record} record of __consumer_offsets has version {version}, which is newer than this broker")]
    UnknownVersion { record: &'static str, version: i16 },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Key {
    Offset {
        group: String,
        topic: String,
        partition: i32,
    },
    Group {
        group: String,
    },
    /// Another kind of record (KIP-848 and later): it is stepped over.
    Other,
}

/// A committed offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CommittedOffset {
    pub offset: i64,
    /// -1 where the client gave none.
    pub leader_epoch: i32,
    pub metadata: String,
    pub commit_timestamp_ms: i64,
    /// Set only by commits that name a retention (OffsetCommit v2 to v4).
    pub expire_timestamp_ms: Option<i64>,
    /// The topic as it was then. `ZERO` is unknown: the record names an expiry, or was written before Kafka 4.1.
    pub topic_id: TopicId,
}

impl CommittedOffset {
    /// Whether it was committed for the topic that has its name now. One that was deleted and made anew has another id,
    /// and its offsets count other records.
    pub fn is_of(&self, topic_id: Option<TopicId>) -> bool {
        self.topic_id == TopicId::ZERO || topic_id == Some(self.topic_id)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GroupValue {
    pub protocol_type: String,
    pub generation: i32,
    pub protocol: Option<String>,
    pub leader: Option<String>,
    pub state_timestamp_ms: i64,
    pub members: Vec<MemberValue>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct MemberValue {
    pub member_id: String,
    pub group_instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub subscription: Bytes,
    pub assignment: Bytes,
}

pub(crate) fn offset_key(group: &str, topic: &str, partition: i32) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(1);
    put_string(&mut out, group);
    put_string(&mut out, topic);
    out.put_i32(partition);
    out.freeze()
}

pub(crate) fn group_key(group: &str) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(2);
    put_string(&mut out, group);
    out.freeze()
}

pub(crate) fn offset_value(value: &CommittedOffset) -> Bytes {
    let mut out = BytesMut::new();
    if let Some(expiry) = value.expire_timestamp_ms {
        out.put_i16(1);
        out.put_i64(value.offset);
        put_string(&mut out, &value.metadata);
        out.put_i64(value.commit_timestamp_ms);
        out.put_i64(expiry);
    } else {
        out.put_i16(4);
        out.put_i64(value.offset);
        out.put_i32(value.leader_epoch);
        put_compact_string(&mut out, &value.metadata);
        out.put_i64(value.commit_timestamp_ms);
        let id = value.topic_id.to_bytes();
        let known: &[(u32, &[u8])] = &[(TOPIC_ID_TAG, &id)];
        put_tagged_fields(&mut out, if value.topic_id == TopicId::ZERO { &[] } else { known });
    }
    out.freeze()
}

pub(crate) fn group_value(value: &GroupValue) -> Bytes {
    let mut out = BytesMut::new();
    out.put_i16(3);
    put_string(&mut out, &value.protocol_type);
    out.put_i32(value.generation);
    put_nullable_string(&mut out, value.protocol.as_deref());
    put_nullable_string(&mut out, value.leader.as_deref());
    out.put_i64(value.state_timestamp_ms);
    out.put_i32(i32::try_from(value.members.len()).unwrap_or(i32::MAX));
    for member in &value.members {
        put_string(&mut out, &member.member_id);
        put_nullable_string(&mut out, member.group_instance_id.as_deref());
        put_string(&mut out, &member.client_id);
        put_string(&mut out, &member.client_host);
        out.put_i32(member.rebalance_timeout_ms);
        out.put_i32(member.session_timeout_ms);
        put_bytes(&mut out, &member.subscription);
        put_bytes(&mut out, &member.assignment);
    }
    out.freeze()
}

pub(crate) fn decode_key(bytes: Bytes) -> Result<Key, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = reader.i16().ok_or(RecordError::Malformed { record: "key", version: -1 })?;
    let key = match version {
        0 | 1 => (|| {
            Some(Key::Offset { group: reader.string()?, topic: reader.string()?, partition: reader.i32()? })
        })(),
        2 => reader.string().map(|group| Key::Group { group }),
        _ => Some(Key::Other),
    };
    key.ok_or(RecordError::Malformed { record: "key", version })
}

fn version_of(reader: &mut Reader, record: &'static str) -> Result<i16, RecordError> {
    let version = reader.i16().ok_or(RecordError::Malformed { record, version: -1 })?;
    if !(0..=4).contains(&version) {
        return Err(RecordError::UnknownVersion { record, version });
    }
    reader.set_flexible(version >= 4);
    Ok(version)
}

pub(crate) fn decode_offset(bytes: Bytes) -> Result<CommittedOffset, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = version_of(&mut reader, "OffsetCommitValue")?;
    let mut read = || {
        let offset = reader.i64()?;
        let leader_epoch = if version >= 3 { reader.i32()? } else { -1 };
        let metadata = reader.string()?;
        let commit_timestamp_ms = reader.i64()?;
        let expiry = if version == 1 { reader.i64()? } else { -1 };
        let expire_timestamp_ms = (expiry != -1).then_some(expiry);
        let mut topic_id = TopicId::ZERO;
        for (tag, bytes) in reader.tagged_fields()? {
            if tag == TOPIC_ID_TAG {
                topic_id = TopicId::from_bytes(bytes.as_ref().try_into().ok()?);
            }
        }
        Some(CommittedOffset {
            offset,
            leader_epoch,
            metadata,
            commit_timestamp_ms,
            expire_timestamp_ms,
            topic_id,
        })
    };
    read().ok_or(RecordError::Malformed { record: "OffsetCommitValue", version })
}

pub(crate) fn decode_group(bytes: Bytes) -> Result<GroupValue, RecordError> {
    let mut reader = Reader::new(bytes);
    let version = version_of(&mut reader, "GroupMetadataValue")?;
    let mut read = || {
        let protocol_type = reader.string()?;
        let generation = reader.i32()?;
        let protocol = reader.nullable_string()?;
        let leader = reader.nullable_string()?;
        let state_timestamp_ms = if version >= 2 { reader.i64()? } else { -1 };
        let count = reader.count()?;
        let mut members = Vec::new();
        for _ in 0..count {
            members.push(decode_member(&mut reader, version)?);
        }
        reader.tagged_fields()?;
        Some(GroupValue { protocol_type, generation, protocol, leader, state_timestamp_ms, members })
    };
    read().ok_or(RecordError::Malformed { record: "GroupMetadataValue", version })
}

fn decode_member(reader: &mut Reader, version: i16) -> Option<MemberValue> {
    let member_id = reader.string()?;
    let group_instance_id = if version >= 3 { reader.nullable_string()? } else { None };
    let client_id = reader.string()?;
    let client_host = reader.string()?;
    let rebalance_timeout = if version >= 1 { Some(reader.i32()?) } else { None };
    let session_timeout_ms = reader.i32()?;
    let subscription = reader.byte_string()?;
    let assignment = reader.byte_string()?;
    reader.tagged_fields()?;
    Some(MemberValue {
        member_id,
        group_instance_id,
        client_id,
        client_host,
        rebalance_timeout_ms: rebalance_timeout.unwrap_or(session_timeout_ms),
        session_timeout_ms,
        subscription,
        assignment,
    })
}

/// The topics of a `ConsumerProtocolSubscription`, or `None` where the bytes are not one.
pub(crate) fn subscribed_topics(subscription: &Bytes) -> Option<Vec<String>> {
    let mut reader = Reader::new(subscription.clone());
    if reader.i16()? < 0 {
        return None;
    }
    (0..reader.count()?).map(|_| reader.string()).collect()
}

#[cfg(test)]
#[path = "records_tests.rs"]
mod tests;
