//! CreateTopics: checks names, counts, assignments and configs, and places the partitions.

use std::collections::{BTreeMap, BTreeSet};

use firn_model::broker_config::BrokerConfig;
use firn_model::ids::{METADATA_TOPIC, TopicId, collision_key, validate_topic_name};
use firn_model::repeated::repeated;
use firn_model::topic_config::TopicConfig;
use serde::{Deserialize, Serialize};

use super::placement::{place, seats};
use super::{Decision, DecisionError, PartitionBudget};
use crate::image::Image;
use crate::record::{ConfigRecord, ConfigResource, MetadataRecord, Overrides, PartitionRecord, TopicRecord};

/// "Let the broker choose", for counts and factors.
pub const BROKER_DEFAULT: i32 = -1;

/// A topic to create. Brokers ask the controller for it in this form.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewTopic {
    pub name: String,
    /// `BROKER_DEFAULT`, or at least 1; `BROKER_DEFAULT` if `assignments` are given.
    pub num_partitions: i32,
    /// `BROKER_DEFAULT`, or at least 1; `BROKER_DEFAULT` if `assignments` are given.
    pub replication_factor: i16,
    /// Partition and its replicas, leader first; empty: the broker places them.
    pub assignments: Vec<(i32, Vec<i32>)>,
    pub configs: Vec<(String, Option<String>)>,
}

/// A topic that is created once the records are applied, or that could be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CreatedTopic {
    pub topic_id: TopicId,
    pub num_partitions: i32,
    pub replication_factor: i16,
    pub overrides: Overrides,
}

/// Each topic's name and what became of it, in the order of the request.
pub type CreatedTopics = Vec<(String, Result<CreatedTopic, DecisionError>)>;

/// Decides on a CreateTopics request, topic by topic. `broker` has its dynamic configs laid over it; `new_topic_id`
/// draws a random id that is not reserved.
pub fn create_topics(
    image: &Image,
    topics: &[NewTopic],
    validate_only: bool,
    broker: &BrokerConfig,
    new_topic_id: &mut dyn FnMut() -> TopicId,
) -> Decision<CreatedTopics> {
    let twice = repeated(topics.iter().map(|topic| topic.name.as_str()));
    let mut creation = Creation {
        image,
        broker,
        budget: PartitionBudget::new(broker.topics.partitions_per_request_max),
        collision_keys: BTreeMap::new(),
        records: Vec::new(),
    };
    let mut reply = Vec::with_capacity(topics.len());
    let mut answered = BTreeSet::new();
    for topic in topics {
        if twice.contains(topic.name.as_str()) {
            if answered.insert(topic.name.as_str()) {
                let reason = format!("Topic '{}' is in the request more than once", topic.name);
                reply.push((topic.name.clone(), Err(DecisionError::InvalidRequest(reason))));
            }
            continue;
        }
        reply.push((topic.name.clone(), creation.create(topic, new_topic_id)));
    }
    let records = if validate_only { Vec::new() } else { creation.records };
    Decision { records, reply }
}

struct Creation<'a> {
    image: &'a Image,
    broker: &'a BrokerConfig,
    budget: PartitionBudget,
    /// Of the topics that this request creates.
    collision_keys: BTreeMap<String, String>,
    records: Vec<MetadataRecord>,
}

impl Creation<'_> {
    fn create(
        &mut self,
        topic: &NewTopic,
        new_topic_id: &mut dyn FnMut() -> TopicId,
    ) -> Result<CreatedTopic, DecisionError> {
        self.check_name(&topic.name)?;
        let overrides = overrides(topic)?;
        TopicConfig::resolve(&overrides, self.broker)
            .map_err(|error| DecisionError::InvalidConfig(error.to_string()))?;
        let mut topic_id = new_topic_id();
        while topic_id == TopicId::ZERO || self.image.topic_by_id(topic_id).is_some() {
            topic_id = new_topic_id();
        }
        let partitions =
            if topic.assignments.is_empty() { self.placed(topic, topic_id)? } else { self.assigned(topic)? };
        let created = CreatedTopic {
            topic_id,
            num_partitions: count_of(partitions.len()),
            replication_factor: partitions
                .first()
                .map_or(0, |replicas| i16::try_from(replicas.len()).unwrap_or(i16::MAX)),
            overrides,
        };
        let partitions = partitions
            .into_iter()
            .zip(0..)
            .map(|(replicas, index)| new_partition(self.image, topic_id, index, replicas))
            .collect::<Result<Vec<_>, _>>()?;
        if let Some(key) = collision_key(&topic.name) {
            self.collision_keys.insert(key, topic.name.clone());
        }
        self.records.push(MetadataRecord::Topic(TopicRecord { name: topic.name.clone(), topic_id }));
        self.records.extend(created.overrides.iter().map(|(name, value)| {
            let resource = ConfigResource::topic(topic.name.as_str());
            MetadataRecord::Config(ConfigRecord { resource, name: name.clone(), value: Some(value.clone()) })
        }));
        self.records.extend(partitions);
        Ok(created)
    }

    fn check_name(&self, name: &str) -> Result<(), DecisionError> {
        validate_topic_name(name).map_err(|error| DecisionError::InvalidTopicException(error.to_string()))?;
        // The controllers' own log.
        if name == METADATA_TOPIC {
            let reason = format!("Topic '{name}' holds the cluster's own metadata and cannot be created");
            return Err(DecisionError::InvalidRequest(reason));
        }
        if self.image.topic(name).is_some() {
            return Err(DecisionError::TopicAlreadyExists(format!("Topic '{name}' already exists.")));
        }
        let key = collision_key(name);
        let here = key.and_then(|key| self.collision_keys.get(&key)).map(String::as_str);
        if let Some(other) = self.image.collides_with(name).map(|other| &**other).or(here) {
            return Err(DecisionError::InvalidTopicException(format!(
                "Topic '{name}' collides with '{other}': names must differ in more than '.' and '_', which are one in metrics"
            )));
        }
        Ok(())
    }

    /// Partitions where the broker chooses.
    fn placed(&mut self, topic: &NewTopic, topic_id: TopicId) -> Result<Vec<Vec<i32>>, DecisionError> {
        let num_partitions = match topic.num_partitions {
            BROKER_DEFAULT => self.broker.topics.num_partitions,
            count => count,
        };
        let partitions = usize::try_from(num_partitions).ok().filter(|count| *count > 0).ok_or_else(|| {
            DecisionError::InvalidPartitions(format!(
                "Topic '{}' cannot have {num_partitions} partitions: allowed is 1 or more, or -1 for the broker's default",
                topic.name
            ))
        })?;
        let replication_factor = match topic.replication_factor {
            -1 => self.broker.topics.default_replication_factor,
            factor => factor,
        };
        let factor =
            usize::try_from(replication_factor).ok().filter(|count| *count > 0).ok_or_else(|| {
                DecisionError::InvalidReplicationFactor(
                    "Replication factor must be larger than 0, or -1 to use the default value.".to_owned(),
                )
            })?;
        // Refused before anything of that size is made.
        let seats = seats(self.image, factor);
        if factor > seats.len() {
            return Err(too_few_brokers(self.image, factor, seats.len()));
        }
        self.budget.take(partitions)?;
        place(&seats, &[], partitions, factor, shift_of(topic_id))
            .ok_or_else(|| too_few_brokers(self.image, factor, seats.len()))
    }

    /// Partitions where the client chooses.
    fn assigned(&mut self, topic: &NewTopic) -> Result<Vec<Vec<i32>>, DecisionError> {
        for (what, given) in [
            ("number of partitions", topic.num_partitions),
            ("replication factor", i32::from(topic.replication_factor)),
        ] {
            if given != BROKER_DEFAULT {
                return Err(DecisionError::InvalidRequest(format!(
                    "Topic '{}' has its replicas assigned, so its {what} must be -1, not {given}",
                    topic.name
                )));
            }
        }
        self.budget.take(topic.assignments.len())?;
        let mut by_partition = BTreeMap::new();
        for (partition, replicas) in &topic.assignments {
            if by_partition.insert(*partition, replicas.clone()).is_some() {
                let twice =
                    format!("Partition {partition} of topic '{}' is assigned more than once", topic.name);
                return Err(DecisionError::InvalidReplicaAssignment(twice));
            }
        }
        if !by_partition.keys().copied().eq(0..count_of(by_partition.len())) {
            let gap = format!(
                "The assigned partitions of topic '{}' must be 0, 1, 2 and so on, with no gap",
                topic.name
            );
            return Err(DecisionError::InvalidReplicaAssignment(gap));
        }
        let partitions: Vec<_> = by_partition.into_values().collect();
        let factor = partitions.first().map_or(0, Vec::len);
        partitions
            .iter()
            .zip(0..)
            .try_for_each(|(replicas, index)| check_assignment(self.image, index, replicas, factor, &[]))?;
        Ok(partitions)
    }
}

fn overrides(topic: &NewTopic) -> Result<Overrides, DecisionError> {
    let value = |(name, value): &(String, Option<String>)| match value {
        Some(value) => Ok((name.clone(), value.clone())),
        None => Err(DecisionError::InvalidConfig(format!(
            "The configuration {name} has no value: leave it out instead"
        ))),
    };
    topic.configs.iter().map(value).collect()
}

fn too_few_brokers(image: &Image, factor: usize, brokers: usize) -> DecisionError {
    let cordoned = image.brokers().filter(|broker| image.is_cordoned(broker.id)).count();
    let but = match cordoned {
        0 => String::new(),
        _ => format!(" and take new replicas: {cordoned} are cordoned, or to be emptied"),
    };
    DecisionError::InvalidReplicationFactor(format!(
        "Unable to replicate the partition {factor} time(s): The target replication factor of {factor} cannot be reached \
         because only {brokers} broker(s) are registered{but}."
    ))
}

/// Where a topic starts in the ring of brokers: as random as its id.
pub(crate) fn shift_of(topic_id: TopicId) -> u64 {
    topic_id.0.as_u64_pair().1
}

pub(crate) fn count_of(length: usize) -> i32 {
    i32::try_from(length).unwrap_or(i32::MAX)
}

/// Whether a client's choice of replicas for one partition can be, which has these now.
pub(crate) fn check_assignment(
    image: &Image,
    partition: i32,
    replicas: &[i32],
    replication_factor: usize,
    now: &[i32],
) -> Result<(), DecisionError> {
    let refuse = |reason: String| {
        Err(DecisionError::InvalidReplicaAssignment(format!(
            "The replicas assigned to partition {partition} {reason}"
        )))
    };
    if replicas.is_empty() {
        return refuse("are none: at least one broker is needed".to_owned());
    }
    for (index, broker_id) in replicas.iter().enumerate() {
        if replicas.iter().take(index).any(|other| other == broker_id) {
            return refuse(format!("name broker {broker_id} more than once"));
        }
        if image.broker(*broker_id).is_none() {
            return refuse(format!("include broker {broker_id}, but no such broker is registered"));
        }
        if !now.contains(broker_id) && image.is_cordoned(*broker_id) {
            return refuse(format!(
                "include broker {broker_id}, which gets no new replicas: it is cordoned, or to be emptied"
            ));
        }
    }
    if replicas.len() != replication_factor {
        return refuse(format!(
            "are {}, but other partitions of the topic have {replication_factor}",
            replicas.len()
        ));
    }
    Ok(())
}

/// The record of a new partition, led by the first of its replicas that is alive.
pub(crate) fn new_partition(
    image: &Image,
    topic_id: TopicId,
    partition: i32,
    replicas: Vec<i32>,
) -> Result<MetadataRecord, DecisionError> {
    let alive = |id: &i32| image.broker(*id).is_some_and(|broker| !broker.fenced);
    let isr: Vec<i32> = replicas.iter().copied().filter(alive).collect();
    let leader = *isr.first().ok_or_else(|| {
        DecisionError::InvalidReplicaAssignment(format!(
            "All brokers assigned to partition {partition} are fenced"
        ))
    })?;
    Ok(MetadataRecord::Partition(PartitionRecord {
        topic_id,
        partition,
        replicas,
        adding_replicas: Vec::new(),
        removing_replicas: Vec::new(),
        isr,
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader,
        leader_epoch: 0,
        partition_epoch: 0,
    }))
}

#[cfg(test)]
mod tests;
