//! The records that change the metadata, and their bytes.
//!
//! A record is one JSON object: `{"v":1,"record":{"topic":{…}}}`. Files with these records outlive the program that wrote
//! them, so the format changes only like this:
//! - A record kind and a field, once released, keep their name and meaning for ever.
//! - A field that an older reader may overlook is added with `#[serde(default)]`; `v` stays.
//! - A field, or a kind, that an older reader must not overlook raises `VERSION`. A reader refuses a greater `v` than its
//!   own, and a kind that it does not know, rather than go on with half of the truth.
//! - Fields that a reader does not know are overlooked.
//!
//! Golden vectors in the tests hold the bytes of every kind: a change of them is a change of the format.

use std::collections::BTreeMap;

use firn_model::ids::TopicId;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The newest format that this program reads, and the one it writes.
pub const VERSION: u16 = 1;

/// One change of the metadata.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MetadataRecord {
    Broker(BrokerRecord),
    BrokerChange(BrokerChangeRecord),
    UnregisterBroker(UnregisterBrokerRecord),
    Topic(TopicRecord),
    Partition(PartitionRecord),
    PartitionChange(PartitionChangeRecord),
    RemoveTopic(RemoveTopicRecord),
    RemoteDelete(RemoteDeleteRecord),
    Config(ConfigRecord),
    ProducerIds(ProducerIdsRecord),
    Feature(FeatureRecord),
}

impl MetadataRecord {
    pub fn remote_delete(topic_id: TopicId, topic: &str, state: RemoteDeleteState) -> Self {
        MetadataRecord::RemoteDelete(RemoteDeleteRecord { topic_id, topic: topic.to_owned(), state })
    }
}

/// A broker joins, or comes back with another incarnation or address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerRecord {
    pub broker_id: i32,
    /// New at each start of the process.
    pub incarnation_id: Uuid,
    /// Grows with each registration, so that what an older incarnation says can be told apart.
    pub broker_epoch: i64,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<String>,
    /// A fenced broker leads nothing and is in no ISR.
    pub fenced: bool,
    /// Its log directories (`directory.id` in meta.properties): a broker that has none of those of before has lost what it
    /// had.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub directory_ids: Vec<String>,
    /// They were told of this incarnation before it registered. Without that they may know nothing of it, and are no copies.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noted: bool,
    /// As in `BrokerChangeRecord`; in a snapshot alone, for each registration begins at none.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub marks: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl BrokerRecord {
    /// Of a broker that was unregistered, in a snapshot, where its end follows.
    pub(crate) fn former(broker_id: i32, broker_epoch: i64) -> Self {
        Self {
            broker_id,
            incarnation_id: Uuid::nil(),
            broker_epoch,
            endpoints: Vec::new(),
            rack: None,
            fenced: true,
            directory_ids: Vec::new(),
            noted: false,
            marks: 0,
        }
    }
}

/// Where clients reach a broker, by listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    pub listener: String,
    pub host: String,
    pub port: u16,
}

impl Endpoint {
    /// Host and port.
    pub fn address(&self) -> String {
        match self.host.contains(':') {
            true => format!("[{}]:{}", self.host, self.port),
            false => format!("{}:{}", self.host, self.port),
        }
    }
}

/// A registered broker is put behind a fence, or let out, or has left a mark in its directories. What is left out stays.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BrokerChangeRecord {
    pub broker_id: i32,
    /// Of the registration that this is about.
    pub broker_epoch: i64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fenced: Option<bool>,
    /// So many marks it has left, each before this: a directory with fewer is a copy from before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub marks: Option<u64>,
}

/// A broker leaves for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnregisterBrokerRecord {
    pub broker_id: i32,
}

/// A topic is created. Its partitions follow, from 0 without a gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TopicRecord {
    pub name: String,
    #[serde(with = "topic_id")]
    pub topic_id: TopicId,
}

/// A partition is created.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionRecord {
    #[serde(with = "topic_id")]
    pub topic_id: TopicId,
    pub partition: i32,
    /// The preferred leader first.
    pub replicas: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding_replicas: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing_replicas: Vec<i32>,
    pub isr: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub elr: Vec<i32>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub last_known_elr: Vec<i32>,
    /// -1: nobody leads it.
    pub leader: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
}

/// A partition's leader, ISR or replicas change. What is left out stays. Any change raises the partition epoch by one,
/// and a new leader the leader epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PartitionChangeRecord {
    #[serde(with = "topic_id")]
    pub topic_id: TopicId,
    pub partition: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replicas: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adding_replicas: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub removing_replicas: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isr: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub elr: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_known_elr: Option<Vec<i32>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub leader: Option<i32>,
}

/// A topic is deleted, with its partitions and configs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoveTopicRecord {
    #[serde(with = "topic_id")]
    pub topic_id: TopicId,
}

/// What the object store holds of a deleted topic is to go, or has gone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RemoteDeleteRecord {
    #[serde(with = "topic_id")]
    pub topic_id: TopicId,
    /// The topic's name: it is part of its objects' keys.
    pub topic: String,
    pub state: RemoteDeleteState,
}

/// How far the deletion of a topic's objects is (the first and the last of KIP-405's states).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RemoteDeleteState {
    Marked,
    Finished,
}

/// A config of a topic or a broker is set, or, with no value, deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigRecord {
    pub resource: ConfigResource,
    pub name: String,
    pub value: Option<String>,
}

/// What a config belongs to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ConfigResource {
    pub kind: ResourceKind,
    /// A topic's name, or a broker's id; an empty broker is the default of all of them.
    pub name: String,
}

/// Kinds of resources that have configs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResourceKind {
    Topic,
    Broker,
}

impl ConfigResource {
    pub fn topic(name: impl Into<String>) -> Self {
        Self { kind: ResourceKind::Topic, name: name.into() }
    }

    pub fn broker(id: i32) -> Self {
        Self { kind: ResourceKind::Broker, name: id.to_string() }
    }

    /// The default of all brokers.
    pub fn cluster_default() -> Self {
        Self { kind: ResourceKind::Broker, name: String::new() }
    }
}

/// A block of producer ids is given to a broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdsRecord {
    pub broker_id: i32,
    /// The first id that nobody has.
    pub next_producer_id: i64,
}

/// A feature of the cluster is at this level; 0 is off.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureRecord {
    pub name: String,
    pub level: i16,
}

/// Why bytes are not a record that this program can apply.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    #[error(
        "the metadata record is of format {version}, and this program reads up to {VERSION}: start a newer one"
    )]
    TooNew { version: u16 },
    #[error("the metadata record cannot be read: {0}")]
    Malformed(#[source] serde_json::Error),
    #[error("the metadata record cannot be written: {0}")]
    Unwritable(#[source] serde_json::Error),
}

#[derive(Serialize)]
struct Written<'a> {
    v: u16,
    record: &'a MetadataRecord,
}

#[derive(Deserialize)]
struct Read {
    record: MetadataRecord,
}

#[derive(Deserialize)]
struct ReadVersion {
    v: u16,
}

impl MetadataRecord {
    /// The record's bytes, in format `VERSION`.
    pub fn encode(&self) -> Result<Vec<u8>, RecordError> {
        serde_json::to_vec(&Written { v: VERSION, record: self }).map_err(RecordError::Unwritable)
    }

    /// Reads a record of any format up to `VERSION`.
    pub fn decode(bytes: &[u8]) -> Result<Self, RecordError> {
        match serde_json::from_slice::<ReadVersion>(bytes) {
            Ok(ReadVersion { v }) if v > VERSION => return Err(RecordError::TooNew { version: v }),
            Ok(_) => {}
            Err(error) => return Err(RecordError::Malformed(error)),
        }
        serde_json::from_slice::<Read>(bytes).map(|read| read.record).map_err(RecordError::Malformed)
    }
}

/// The overrides of a resource.
pub type Overrides = BTreeMap<String, String>;

/// A topic id in JSON is what Kafka prints.
pub(crate) mod topic_id {
    use super::TopicId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(crate) fn serialize<S: Serializer>(id: &TopicId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(id)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TopicId, D::Error> {
        let text = String::deserialize(deserializer)?;
        TopicId::parse(&text).ok_or_else(|| D::Error::custom(format!("'{text}' is not a topic id")))
    }
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
