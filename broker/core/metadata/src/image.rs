//! The whole metadata as one value.
//!
//! A clone is O(1) and shares everything with the original: readers hold a snapshot for as long as they like. The maps
//! are persistent trees, so a change copies the path to what it changes, and nothing if nobody else holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::definitions::{CORDONED, DRAIN, VOTER};
use firn_model::config_definition::ConfigError;
use firn_model::ids::{TopicId, TopicName, TopicPartition};
use rpds::RedBlackTreeMapSync;
use serde::{Deserialize, Serialize};

use crate::record::{
    BrokerRecord, ConfigRecord, ConfigResource, Endpoint, FeatureRecord, MetadataRecord, Overrides,
    PartitionRecord, ProducerIdsRecord, RemoteDeleteState, TopicRecord, UnregisterBrokerRecord,
};

/// No leader.
pub const NO_LEADER: i32 = -1;

/// A broker as it last registered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    pub incarnation_id: uuid::Uuid,
    pub epoch: i64,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<String>,
    pub fenced: bool,
    pub directory_ids: Vec<String>,
    pub noted: bool,
    pub marks: u64,
}

/// A topic and its partitions, by index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: TopicName,
    pub id: TopicId,
    pub partitions: Vec<Arc<Partition>>,
}

/// Who has a partition's records, and who leads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partition {
    /// The preferred leader first. While replicas move (KIP-455), those of before and those to come.
    pub replicas: Vec<i32>,
    /// Those that are not of before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub adding_replicas: Vec<i32>,
    /// Those that are not to stay.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub removing_replicas: Vec<i32>,
    pub isr: Vec<i32>,
    /// Replicas out of sync that have every acknowledged record all the same, and may lead if nobody in sync can (KIP-966).
    pub elr: Vec<i32>,
    /// Replicas that were in sync or eligible when fewer than `min.insync.replicas` came to be in sync, and are neither now.
    pub last_known_elr: Vec<i32>,
    /// `NO_LEADER`, or one of the ISR.
    pub leader: i32,
    /// Grows with each new leader.
    pub leader_epoch: i32,
    /// Grows with each change.
    pub partition_epoch: i32,
}

/// The whole metadata.
#[derive(Debug, Clone)]
pub struct Image {
    pub(crate) brokers: RedBlackTreeMapSync<i32, Arc<Broker>>,
    /// The last epochs of brokers that were unregistered: if one comes back, what it said before is told apart.
    pub(crate) former_epochs: Arc<BTreeMap<i32, i64>>,
    pub(crate) features: Arc<BTreeMap<String, i16>>,
    pub(crate) topics: RedBlackTreeMapSync<TopicId, Arc<Topic>>,
    pub(crate) topic_ids: RedBlackTreeMapSync<TopicName, TopicId>,
    /// Topics by what their names must not share.
    pub(crate) collision_keys: RedBlackTreeMapSync<String, TopicName>,
    pub(crate) configs: RedBlackTreeMapSync<ConfigResource, Arc<Overrides>>,
    /// Deleted topics whose objects may still be in the store.
    pub(crate) remote_deletes: RedBlackTreeMapSync<TopicId, TopicName>,
    pub(crate) next_producer_id: i64,
    pub(crate) partition_count: usize,
}

/// Whether a topic of these overrides is to be tiered whatever the brokers' default, in any of the spellings that Kafka takes.
pub(crate) fn asks_for_tier(overrides: &Overrides) -> bool {
    let asked = overrides.get("remote.storage.enable");
    asked.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
}

static NO_OVERRIDES: Overrides = BTreeMap::new();

impl Default for Image {
    fn default() -> Self {
        Self {
            brokers: RedBlackTreeMapSync::new_sync(),
            former_epochs: Arc::default(),
            features: Arc::default(),
            topics: RedBlackTreeMapSync::new_sync(),
            topic_ids: RedBlackTreeMapSync::new_sync(),
            collision_keys: RedBlackTreeMapSync::new_sync(),
            configs: RedBlackTreeMapSync::new_sync(),
            remote_deletes: RedBlackTreeMapSync::new_sync(),
            next_producer_id: 0,
            partition_count: 0,
        }
    }
}

/// Two images are equal when they say the same; what is derived from the rest is not compared.
impl PartialEq for Image {
    fn eq(&self, other: &Self) -> bool {
        self.brokers == other.brokers
            && self.former_epochs == other.former_epochs
            && self.features == other.features
            && self.topics == other.topics
            && self.configs == other.configs
            && self.remote_deletes == other.remote_deletes
            && self.next_producer_id == other.next_producer_id
    }
}

impl Image {
    /// Brokers, by id.
    pub fn brokers(&self) -> impl Iterator<Item = &Broker> {
        self.brokers.values().map(AsRef::as_ref)
    }

    pub fn broker(&self, id: i32) -> Option<&Broker> {
        self.brokers.get(&id).map(AsRef::as_ref)
    }

    /// The epoch in which a broker was last registered, though it may be no more.
    pub fn last_broker_epoch(&self, id: i32) -> Option<i64> {
        self.broker(id).map(|broker| broker.epoch).or_else(|| self.former_epochs.get(&id).copied())
    }

    /// Levels of the cluster's features, by name.
    pub fn features(&self) -> &BTreeMap<String, i16> {
        &self.features
    }

    /// Topics, by name.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<Topic>> {
        self.topic_ids.values().filter_map(|id| self.topics.get(id))
    }

    pub fn topic(&self, name: &str) -> Option<&Arc<Topic>> {
        self.topics.get(self.topic_ids.get(name)?)
    }

    pub fn topic_by_id(&self, id: TopicId) -> Option<&Arc<Topic>> {
        self.topics.get(&id)
    }

    pub fn partition(&self, topic_partition: &TopicPartition) -> Option<&Arc<Partition>> {
        self.topic(&topic_partition.topic)?.partition(topic_partition.partition)
    }

    /// The same, by its topic's id.
    pub fn partition_by_id(&self, topic: TopicId, index: i32) -> Option<&Arc<Partition>> {
        self.topic_by_id(topic)?.partition(index)
    }

    pub fn topic_count(&self) -> usize {
        self.topics.size()
    }

    /// Of all topics together.
    pub fn partition_count(&self) -> usize {
        self.partition_count
    }

    /// What was set on a resource; empty if nothing was.
    pub fn overrides(&self, resource: &ConfigResource) -> &Overrides {
        self.configs.get(resource).map_or(&NO_OVERRIDES, |overrides| overrides)
    }

    /// What was set on a topic; empty if nothing was.
    pub fn topic_overrides(&self, name: &str) -> &Overrides {
        self.overrides(&ConfigResource::topic(name))
    }

    /// Whether a topic was told to be tiered (`remote.storage.enable`), in any of the spellings that Kafka takes.
    pub fn asks_for_tier(&self, topic: &str) -> bool {
        asks_for_tier(self.topic_overrides(topic))
    }

    /// A broker's configuration with the dynamic configs that this image has for it laid over its file.
    pub fn broker_config(&self, from_file: &BrokerConfig) -> Result<BrokerConfig, ConfigError> {
        let own = ConfigResource::broker(from_file.node_id);
        from_file.with_dynamic(self.overrides(&ConfigResource::cluster_default()), self.overrides(&own))
    }

    /// Whether a broker is to be emptied.
    pub fn is_draining(&self, broker_id: i32) -> bool {
        let set = self.overrides(&ConfigResource::broker(broker_id)).get(DRAIN);
        set.is_some_and(|value| value.trim().eq_ignore_ascii_case("true"))
    }

    /// Whether a broker is to have a vote on the metadata, if operators have said so.
    pub fn wants_vote(&self, broker_id: i32) -> Option<bool> {
        let set = self.overrides(&ConfigResource::broker(broker_id)).get(VOTER)?;
        set.trim().parse().ok()
    }

    /// Whether a broker gets no new replicas: its directories are cordoned (KIP-1066), or it is to be emptied.
    pub fn is_cordoned(&self, broker_id: i32) -> bool {
        let set = self.overrides(&ConfigResource::broker(broker_id)).get(CORDONED);
        set.is_some_and(|value| value.trim() == "*") || self.is_draining(broker_id)
    }

    /// Deleted topics whose objects may still be in the store.
    pub fn remote_deletes(&self) -> impl Iterator<Item = (TopicId, &TopicName)> {
        self.remote_deletes.iter().map(|(id, name)| (*id, name))
    }

    /// Whether the objects of this deleted topic may still be in the store.
    pub fn has_remote_delete(&self, id: TopicId) -> bool {
        self.remote_deletes.contains_key(&id)
    }

    /// The first producer id that no broker was given.
    pub fn next_producer_id(&self) -> i64 {
        self.next_producer_id
    }

    /// The name of the topic that a new one of this name would collide with (`.` and `_` are one to Kafka's metrics).
    pub fn collides_with(&self, name: &str) -> Option<&TopicName> {
        self.collision_keys.get(&firn_model::ids::collision_key(name)?).filter(|other| ***other != *name)
    }

    /// The records that make this image out of an empty one: a snapshot.
    pub fn to_records(&self) -> Vec<MetadataRecord> {
        let mut records =
            Vec::with_capacity(self.partition_count + self.topics.size() + self.configs.size() + 16);
        for (name, level) in self.features.iter() {
            records.push(MetadataRecord::Feature(FeatureRecord { name: name.clone(), level: *level }));
        }
        for (id, epoch) in self.former_epochs.iter() {
            records.push(MetadataRecord::Broker(BrokerRecord::former(*id, *epoch)));
            records.push(MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { broker_id: *id }));
        }
        records.extend(self.brokers.values().map(|broker| MetadataRecord::Broker(broker.to_record())));
        for topic in self.topics() {
            topic.to_records(&mut records);
        }
        for (resource, overrides) in self.configs.iter() {
            records.extend(overrides.iter().map(|(name, value)| {
                MetadataRecord::Config(ConfigRecord {
                    resource: resource.clone(),
                    name: name.clone(),
                    value: Some(value.clone()),
                })
            }));
        }
        records.extend(
            self.remote_deletes()
                .map(|(id, name)| MetadataRecord::remote_delete(id, name, RemoteDeleteState::Marked)),
        );
        if self.next_producer_id > 0 {
            let next_producer_id = self.next_producer_id;
            records.push(MetadataRecord::ProducerIds(ProducerIdsRecord {
                broker_id: NO_LEADER,
                next_producer_id,
            }));
        }
        records
    }
}

impl Broker {
    /// Where a client that came in by `listener` finds this broker: under the listener of the same name (KIP-103), or
    /// under its first, if it has none of that name.
    pub fn endpoint(&self, listener: &str) -> Option<&Endpoint> {
        let named = self.endpoints.iter().find(|endpoint| endpoint.listener == listener);
        named.or_else(|| self.endpoints.first())
    }

    fn to_record(&self) -> BrokerRecord {
        BrokerRecord {
            broker_id: self.id,
            incarnation_id: self.incarnation_id,
            broker_epoch: self.epoch,
            endpoints: self.endpoints.clone(),
            rack: self.rack.clone(),
            fenced: self.fenced,
            directory_ids: self.directory_ids.clone(),
            noted: self.noted,
            marks: self.marks,
        }
    }
}

impl Partition {
    /// Whether this broker may be the one whose records count: it is in sync, or eligible, or the last that is known to have been
    /// (KIP-966).
    pub fn relies_on(&self, broker: i32) -> bool {
        [&self.isr, &self.elr, &self.last_known_elr].into_iter().any(|all| all.contains(&broker))
    }

    /// Whether another one than this vouches for all that is acknowledged.
    pub fn others_vouch(&self, broker: i32) -> bool {
        self.isr.iter().chain(&self.elr).any(|id| *id != broker)
    }
}

impl Topic {
    pub fn partition(&self, index: i32) -> Option<&Arc<Partition>> {
        self.partitions.get(usize::try_from(index).ok()?)
    }

    /// The replication factor of its first partition, or the one that it is to have; 0 if there is no partition.
    pub fn replication_factor(&self) -> usize {
        self.partitions.first().map_or(0, |partition| partition.target_replicas().count())
    }

    fn to_records(&self, records: &mut Vec<MetadataRecord>) {
        records.push(MetadataRecord::Topic(TopicRecord { name: self.name.to_string(), topic_id: self.id }));
        for (partition, index) in self.partitions.iter().zip(0..) {
            records.push(MetadataRecord::Partition(PartitionRecord {
                topic_id: self.id,
                partition: index,
                replicas: partition.replicas.clone(),
                adding_replicas: partition.adding_replicas.clone(),
                removing_replicas: partition.removing_replicas.clone(),
                isr: partition.isr.clone(),
                elr: partition.elr.clone(),
                last_known_elr: partition.last_known_elr.clone(),
                leader: partition.leader,
                leader_epoch: partition.leader_epoch,
                partition_epoch: partition.partition_epoch,
            }));
        }
    }
}
