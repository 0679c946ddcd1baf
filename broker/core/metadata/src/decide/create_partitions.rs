//! CreatePartitions: a topic gets more partitions; it never gets fewer.

use std::collections::BTreeSet;

use firn_model::broker_config::BrokerConfig;
use firn_model::ids::is_internal_topic;
use firn_model::repeated::repeated;

use super::create_topics::{check_assignment, count_of, new_partition, shift_of};
use super::placement::{place, seats};
use super::{Decision, DecisionError, PartitionBudget};
use crate::image::{Image, Topic};
use crate::record::MetadataRecord;

/// How many partitions a topic is to have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MorePartitions {
    pub name: String,
    /// Of all partitions, the existing ones included.
    pub count: i32,
    /// The replicas of each new partition, in order; `None`: the broker places them.
    pub assignments: Option<Vec<Vec<i32>>>,
}

/// Decides on a CreatePartitions request, topic by topic, in its order.
pub fn create_partitions(
    image: &Image,
    topics: &[MorePartitions],
    validate_only: bool,
    broker: &BrokerConfig,
) -> Decision<Vec<(String, Result<(), DecisionError>)>> {
    let twice = repeated(topics.iter().map(|topic| topic.name.as_str()));
    let mut budget = PartitionBudget::new(broker.topics.partitions_per_request_max);
    let mut decision = Decision { records: Vec::new(), reply: Vec::with_capacity(topics.len()) };
    let mut answered = BTreeSet::new();
    for topic in topics {
        let outcome = if twice.contains(topic.name.as_str()) {
            if !answered.insert(topic.name.as_str()) {
                continue;
            }
            Err(DecisionError::InvalidRequest(format!(
                "Topic '{}' is in the request more than once",
                topic.name
            )))
        } else {
            add(image, topic, &mut budget).map(|records| decision.records.extend(records))
        };
        decision.reply.push((topic.name.clone(), outcome));
    }
    if validate_only {
        decision.records.clear();
    }
    decision
}

fn add(
    image: &Image,
    wish: &MorePartitions,
    budget: &mut PartitionBudget,
) -> Result<Vec<MetadataRecord>, DecisionError> {
    let topic = image.topic(&wish.name).ok_or_else(|| {
        DecisionError::UnknownTopicOrPartition(format!("There is no topic '{}'", wish.name))
    })?;
    if is_internal_topic(&wish.name) {
        return Err(DecisionError::InvalidTopicException(format!(
            "Topic '{}' belongs to the broker, which finds what it wrote there by the number of partitions: it cannot be altered",
            wish.name
        )));
    }
    let existing = count_of(topic.partitions.len());
    if wish.count <= existing {
        return Err(DecisionError::InvalidPartitions(match wish.count {
            count if count == existing => format!("Topic '{}' already has {count} partition(s)", wish.name),
            count => format!(
                "Topic '{}' has {existing} partition(s) and cannot be cut down to {count}: partitions can only be added",
                wish.name
            ),
        }));
    }
    let added = usize::try_from(wish.count - existing).unwrap_or(usize::MAX);
    let factor = topic.replication_factor();
    let replicas = match &wish.assignments {
        Some(assignments) => {
            if assignments.len() != added {
                return Err(DecisionError::InvalidReplicaAssignment(format!(
                    "{added} partition(s) are to be added to topic '{}', but {} are assigned",
                    wish.name,
                    assignments.len()
                )));
            }
            budget.take(added)?;
            let mut indexes = assignments.iter().zip(existing..);
            indexes
                .try_for_each(|(replicas, index)| check_assignment(image, index, replicas, factor, &[]))?;
            assignments.clone()
        }
        None => {
            budget.take(added)?;
            placed(image, topic, added, factor)?
        }
    };
    replicas
        .into_iter()
        .zip(existing..)
        .map(|(replicas, index)| new_partition(image, topic.id, index, replicas))
        .collect()
}

fn placed(image: &Image, topic: &Topic, added: usize, factor: usize) -> Result<Vec<Vec<i32>>, DecisionError> {
    let seats = seats(image, factor);
    let existing: Vec<_> =
        topic.partitions.iter().map(|partition| partition.target_replicas().collect()).collect();
    place(&seats, &existing, added, factor, shift_of(topic.id)).ok_or_else(|| {
        DecisionError::InvalidReplicationFactor(format!(
            "Topic '{}' has a replication factor of {factor}, but only {} broker(s) are registered and alive",
            topic.name,
            seats.len()
        ))
    })
}

#[cfg(test)]
mod tests;
