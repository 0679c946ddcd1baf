//! Applies records to the image: the only way that it changes, the same when live and when replayed.
//!
//! A record that cannot follow from the image is an error, never a guess: the file that holds it is damaged, or was
//! written by a program with a fault. The image is then as it was before that record.

use std::sync::Arc;

use firn_model::ids::{TopicId, collision_key, validate_topic_name};

use crate::image::{Broker, Image, NO_LEADER, Partition, Topic};
use crate::record::{
    BrokerChangeRecord, BrokerRecord, ConfigRecord, ConfigResource, FeatureRecord, MetadataRecord,
    PartitionChangeRecord, PartitionRecord, ProducerIdsRecord, RemoteDeleteRecord, RemoteDeleteState,
    ResourceKind, TopicRecord,
};

/// Why a record cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApplyError {
    #[error("topic '{name}' exists already")]
    DuplicateTopic { name: String },
    #[error("topic id {topic_id} is taken already")]
    DuplicateTopicId { topic_id: TopicId },
    #[error("topic '{name}' cannot exist: {reason}")]
    InvalidTopic { name: String, reason: String },
    #[error("there is no topic with id {topic_id}")]
    UnknownTopicId { topic_id: TopicId },
    #[error("the objects of topic {topic_id} cannot be deleted: {reason}")]
    InvalidRemoteDelete { topic_id: TopicId, reason: &'static str },
    #[error("there is no topic '{name}' to configure")]
    UnknownTopic { name: String },
    #[error("topic {topic_id} has {existing} partitions, so partition {partition} cannot be its next")]
    PartitionOutOfOrder { topic_id: TopicId, partition: i32, existing: usize },
    #[error("topic {topic_id} has no partition {partition}")]
    UnknownPartition { topic_id: TopicId, partition: i32 },
    #[error("partition {partition} of topic {topic_id} cannot be so: {reason}")]
    InvalidPartition { topic_id: TopicId, partition: i32, reason: &'static str },
    #[error("broker {broker_id} is not registered")]
    UnknownBroker { broker_id: i32 },
    #[error("broker {broker_id} is at epoch {current}, which {proposed} does not follow")]
    BrokerEpochWentBack { broker_id: i32, current: i64, proposed: i64 },
    #[error("broker id {broker_id} is negative")]
    InvalidBrokerId { broker_id: i32 },
    #[error("the next producer id is {current}, and cannot go back to {proposed}")]
    ProducerIdWentBack { current: i64, proposed: i64 },
}

impl Image {
    /// Applies one record. On an error the image has not changed.
    pub fn apply(&mut self, record: &MetadataRecord) -> Result<(), ApplyError> {
        match record {
            MetadataRecord::Broker(record) => self.apply_broker(record),
            MetadataRecord::BrokerChange(record) => self.apply_broker_change(record),
            MetadataRecord::UnregisterBroker(record) => self.apply_unregister(record.broker_id),
            MetadataRecord::Topic(record) => self.apply_topic(record),
            MetadataRecord::Partition(record) => self.apply_partition(record),
            MetadataRecord::PartitionChange(record) => self.apply_partition_change(record),
            MetadataRecord::RemoveTopic(record) => self.apply_remove_topic(record.topic_id),
            MetadataRecord::RemoteDelete(record) => self.apply_remote_delete(record),
            MetadataRecord::Config(record) => self.apply_config(record),
            MetadataRecord::ProducerIds(record) => self.apply_producer_ids(record),
            MetadataRecord::Feature(record) => {
                self.apply_feature(record);
                Ok(())
            }
        }
    }

    /// Applies the records of one decision: all, or on an error none.
    pub fn apply_all(&mut self, records: &[MetadataRecord]) -> Result<(), ApplyError> {
        let mut next = self.clone();
        records.iter().try_for_each(|record| next.apply(record))?;
        *self = next;
        Ok(())
    }

    fn apply_broker(&mut self, record: &BrokerRecord) -> Result<(), ApplyError> {
        let broker_id = record.broker_id;
        if broker_id < 0 {
            return Err(ApplyError::InvalidBrokerId { broker_id });
        }
        if let Some(current) = self.last_broker_epoch(broker_id)
            && record.broker_epoch <= current
        {
            return Err(ApplyError::BrokerEpochWentBack {
                broker_id,
                current,
                proposed: record.broker_epoch,
            });
        }
        let broker = Broker {
            id: broker_id,
            incarnation_id: record.incarnation_id,
            epoch: record.broker_epoch,
            endpoints: record.endpoints.clone(),
            rack: record.rack.clone(),
            fenced: record.fenced,
            directory_ids: record.directory_ids.clone(),
            noted: record.noted,
            marks: record.marks,
        };
        self.brokers.insert_mut(broker_id, Arc::new(broker));
        Arc::make_mut(&mut self.former_epochs).remove(&broker_id);
        Ok(())
    }

    fn apply_broker_change(&mut self, record: &BrokerChangeRecord) -> Result<(), ApplyError> {
        let (broker_id, proposed) = (record.broker_id, record.broker_epoch);
        let broker = self.broker(broker_id).ok_or(ApplyError::UnknownBroker { broker_id })?;
        if broker.epoch != proposed {
            return Err(ApplyError::BrokerEpochWentBack { broker_id, current: broker.epoch, proposed });
        }
        let changed = Broker {
            fenced: record.fenced.unwrap_or(broker.fenced),
            marks: record.marks.unwrap_or(broker.marks),
            ..broker.clone()
        };
        self.brokers.insert_mut(broker_id, Arc::new(changed));
        Ok(())
    }

    fn apply_unregister(&mut self, broker_id: i32) -> Result<(), ApplyError> {
        let epoch = self.broker(broker_id).ok_or(ApplyError::UnknownBroker { broker_id })?.epoch;
        self.brokers.remove_mut(&broker_id);
        Arc::make_mut(&mut self.former_epochs).insert(broker_id, epoch);
        self.configs.remove_mut(&ConfigResource::broker(broker_id));
        Ok(())
    }

    fn apply_topic(&mut self, record: &TopicRecord) -> Result<(), ApplyError> {
        if let Err(invalid) = validate_topic_name(&record.name) {
            return Err(ApplyError::InvalidTopic {
                name: record.name.clone(),
                reason: invalid.reason.to_owned(),
            });
        }
        if record.topic_id == TopicId::ZERO {
            let reason = "its id is all zeros, which stands for no topic".to_owned();
            return Err(ApplyError::InvalidTopic { name: record.name.clone(), reason });
        }
        if self.topic_ids.contains_key(record.name.as_str()) {
            return Err(ApplyError::DuplicateTopic { name: record.name.clone() });
        }
        if self.topics.contains_key(&record.topic_id) || self.remote_deletes.contains_key(&record.topic_id) {
            return Err(ApplyError::DuplicateTopicId { topic_id: record.topic_id });
        }
        let topic =
            Topic { name: Arc::from(record.name.as_str()), id: record.topic_id, partitions: Vec::new() };
        self.topic_ids.insert_mut(topic.name.clone(), topic.id);
        if let Some(key) = collision_key(&topic.name) {
            self.collision_keys.insert_mut(key, topic.name.clone());
        }
        self.topics.insert_mut(topic.id, Arc::new(topic));
        Ok(())
    }

    fn apply_partition(&mut self, record: &PartitionRecord) -> Result<(), ApplyError> {
        let (topic_id, partition) = (record.topic_id, record.partition);
        let new = Partition {
            replicas: record.replicas.clone(),
            adding_replicas: record.adding_replicas.clone(),
            removing_replicas: record.removing_replicas.clone(),
            isr: record.isr.clone(),
            elr: record.elr.clone(),
            last_known_elr: record.last_known_elr.clone(),
            leader: record.leader,
            leader_epoch: record.leader_epoch,
            partition_epoch: record.partition_epoch,
        };
        new.check().map_err(|reason| ApplyError::InvalidPartition { topic_id, partition, reason })?;
        let topic = self.topics.get(&topic_id).ok_or(ApplyError::UnknownTopicId { topic_id })?;
        let existing = topic.partitions.len();
        if usize::try_from(partition) != Ok(existing) {
            return Err(ApplyError::PartitionOutOfOrder { topic_id, partition, existing });
        }
        let topic = self.topics.get_mut(&topic_id).ok_or(ApplyError::UnknownTopicId { topic_id })?;
        Arc::make_mut(topic).partitions.push(Arc::new(new));
        self.partition_count += 1;
        Ok(())
    }

    fn apply_partition_change(&mut self, record: &PartitionChangeRecord) -> Result<(), ApplyError> {
        let (topic_id, partition) = (record.topic_id, record.partition);
        let unknown = || ApplyError::UnknownPartition { topic_id, partition };
        let topic = self.topics.get(&topic_id).ok_or(ApplyError::UnknownTopicId { topic_id })?;
        let mut next = Partition::clone(topic.partition(partition).ok_or_else(unknown)?);
        if let Some(replicas) = &record.replicas {
            next.replicas.clone_from(replicas);
        }
        if let Some(adding) = &record.adding_replicas {
            next.adding_replicas.clone_from(adding);
        }
        if let Some(removing) = &record.removing_replicas {
            next.removing_replicas.clone_from(removing);
        }
        if let Some(isr) = &record.isr {
            next.isr.clone_from(isr);
        }
        if let Some(elr) = &record.elr {
            next.elr.clone_from(elr);
        }
        if let Some(known) = &record.last_known_elr {
            next.last_known_elr.clone_from(known);
        }
        if let Some(leader) = record.leader {
            next.leader = leader;
            next.leader_epoch = next.leader_epoch.saturating_add(1);
        }
        next.partition_epoch = next.partition_epoch.saturating_add(1);
        next.check().map_err(|reason| ApplyError::InvalidPartition { topic_id, partition, reason })?;
        let topic = self.topics.get_mut(&topic_id).ok_or_else(unknown)?;
        let index = usize::try_from(partition).map_err(|_| unknown())?;
        *Arc::make_mut(topic).partitions.get_mut(index).ok_or_else(unknown)? = Arc::new(next);
        Ok(())
    }

    fn apply_remove_topic(&mut self, topic_id: TopicId) -> Result<(), ApplyError> {
        let topic = self.topics.get(&topic_id).ok_or(ApplyError::UnknownTopicId { topic_id })?.clone();
        self.topics.remove_mut(&topic_id);
        self.topic_ids.remove_mut(&topic.name);
        if let Some(key) = collision_key(&topic.name)
            && self.collision_keys.get(&key) == Some(&topic.name)
        {
            self.collision_keys.remove_mut(&key);
        }
        self.configs.remove_mut(&ConfigResource::topic(&*topic.name));
        self.partition_count -= topic.partitions.len();
        Ok(())
    }

    fn apply_remote_delete(&mut self, record: &RemoteDeleteRecord) -> Result<(), ApplyError> {
        let topic_id = record.topic_id;
        let refuse = |reason| Err(ApplyError::InvalidRemoteDelete { topic_id, reason });
        if self.topics.contains_key(&topic_id) {
            return refuse("the topic exists");
        }
        if validate_topic_name(&record.topic).is_err() {
            return refuse("no topic can have this name");
        }
        let marked = self.remote_deletes.contains_key(&topic_id);
        match record.state {
            RemoteDeleteState::Marked if marked => refuse("they are being deleted already"),
            RemoteDeleteState::Finished if !marked => refuse("they were not to be deleted"),
            RemoteDeleteState::Marked => {
                self.remote_deletes.insert_mut(topic_id, Arc::from(record.topic.as_str()));
                Ok(())
            }
            RemoteDeleteState::Finished => {
                self.remote_deletes.remove_mut(&topic_id);
                Ok(())
            }
        }
    }

    fn apply_config(&mut self, record: &ConfigRecord) -> Result<(), ApplyError> {
        let resource = &record.resource;
        if resource.kind == ResourceKind::Topic && !self.topic_ids.contains_key(resource.name.as_str()) {
            return Err(ApplyError::UnknownTopic { name: resource.name.clone() });
        }
        if !self.configs.contains_key(resource) {
            self.configs.insert_mut(resource.clone(), Arc::default());
        }
        let Some(overrides) = self.configs.get_mut(resource).map(Arc::make_mut) else { return Ok(()) };
        match &record.value {
            Some(value) => overrides.insert(record.name.clone(), value.clone()),
            None => overrides.remove(&record.name),
        };
        if overrides.is_empty() {
            self.configs.remove_mut(resource);
        }
        Ok(())
    }

    fn apply_producer_ids(&mut self, record: &ProducerIdsRecord) -> Result<(), ApplyError> {
        if record.next_producer_id <= self.next_producer_id {
            let (current, proposed) = (self.next_producer_id, record.next_producer_id);
            return Err(ApplyError::ProducerIdWentBack { current, proposed });
        }
        self.next_producer_id = record.next_producer_id;
        Ok(())
    }

    fn apply_feature(&mut self, record: &FeatureRecord) {
        let features = Arc::make_mut(&mut self.features);
        if record.level == 0 {
            features.remove(&record.name);
        } else {
            features.insert(record.name.clone(), record.level);
        }
    }
}

impl Partition {
    /// What is true of every partition, or why this cannot be one.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        let twice = |ids: &[i32]| {
            ids.iter().enumerate().any(|(index, id)| ids.iter().take(index).any(|other| other == id))
        };
        if self.replicas.is_empty() {
            return Err("it has no replica");
        }
        let (adding, removing) = (&self.adding_replicas, &self.removing_replicas);
        let all = [&self.replicas, adding, removing, &self.isr, &self.elr, &self.last_known_elr];
        if all.into_iter().any(|ids| twice(ids)) {
            return Err("a replica is named twice");
        }
        if !adding.iter().chain(removing).all(|id| self.replicas.contains(id)) {
            return Err("a broker that is no replica moves");
        }
        if [adding, removing].into_iter().any(|ids| ids.len() == self.replicas.len()) {
            return Err("no replica is of before, or none is to stay");
        }
        if self.replicas.iter().any(|id| *id < 0) {
            return Err("a replica's id is negative");
        }
        if !self.isr.iter().all(|id| self.replicas.contains(id)) {
            return Err("its ISR has a broker that is no replica");
        }
        if !self.elr.iter().chain(&self.last_known_elr).all(|id| self.replicas.contains(id)) {
            return Err("a broker that is no replica may lead it");
        }
        if self.elr.iter().any(|id| self.isr.contains(id)) {
            return Err("a replica is in sync, and eligible because it is not");
        }
        if self.leader != NO_LEADER && !self.isr.contains(&self.leader) {
            return Err("its leader is not in its ISR");
        }
        if self.leader_epoch < 0 || self.partition_epoch < 0 {
            return Err("an epoch is negative");
        }
        Ok(())
    }
}

#[cfg(test)]
#[path = "apply_tests.rs"]
mod tests;
