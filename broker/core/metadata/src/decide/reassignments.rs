//! AlterPartitionReassignments: replicas move to other brokers, go back, or go elsewhere (KIP-455, KIP-860).
//!
//! A move is only begun here, unless all that are to stay are in sync already: it is done by whatever change brings the last of
//! them into the ISR (`leadership.rs`).

use std::collections::BTreeSet;

use super::create_topics::check_assignment;
use super::partitions::{Rules, change, is_active};
use super::{Decision, DecisionError};
use crate::image::{Image, Partition, Topic};
use crate::leadership::Turn;
use crate::reassignment::Assignment;
use crate::record::MetadataRecord;

/// What is asked of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reassignment {
    pub topic: String,
    pub partition: i32,
    /// Its replicas, the preferred leader first; `None`: it is to go back to where it was before it began to move.
    pub replicas: Option<Vec<i32>>,
}

/// Decides partition by partition, in the order of the request.
pub fn alter_reassignments(
    image: &Image,
    rules: Rules<'_>,
    asked: &[Reassignment],
    may_change_factor: bool,
) -> Decision<Vec<Result<(), DecisionError>>> {
    let mut decision = Decision { records: Vec::new(), reply: Vec::with_capacity(asked.len()) };
    let mut seen = BTreeSet::new();
    for one in asked {
        let decided = match seen.insert((one.topic.as_str(), one.partition)) {
            true => alter(image, rules, one, may_change_factor),
            false => Err(DecisionError::InvalidRequest(format!(
                "Partition {}-{} is in the request more than once",
                one.topic, one.partition
            ))),
        };
        decision.reply.push(decided.map(|record| decision.records.extend(record)));
    }
    decision
}

fn alter(
    image: &Image,
    rules: Rules<'_>,
    asked: &Reassignment,
    may_change_factor: bool,
) -> Result<Option<MetadataRecord>, DecisionError> {
    let (topic, now) = find(image, &asked.topic, asked.partition)?;
    let assignment = match &asked.replicas {
        None => cancelled(topic, asked.partition, now)?,
        Some(target) => {
            check_assignment(image, asked.partition, target, target.len(), &now.replicas)?;
            if !may_change_factor {
                check_factor(topic, asked.partition, now, target)?;
            }
            Assignment::towards(now, target)
        }
    };
    let turn = Turn { assignment: Some(assignment), ..Turn::of(now, rules.min_isr(image, topic)) };
    let next = turn.settle(|id| is_active(image, id));
    Ok(change(topic.id, usize::try_from(asked.partition).unwrap_or(usize::MAX), now, &next))
}

/// The partition of this name.
pub(super) fn find<'a>(
    image: &'a Image,
    topic: &str,
    partition: i32,
) -> Result<(&'a Topic, &'a Partition), DecisionError> {
    let unknown = |what: String| DecisionError::UnknownTopicOrPartition(format!("There is no {what}"));
    let found = image.topic(topic).ok_or_else(|| unknown(format!("topic '{topic}'")))?;
    let missing = || unknown(format!("partition {partition} of topic '{topic}'"));
    Ok((found, found.partition(partition).ok_or_else(missing)?))
}

fn cancelled(topic: &Topic, partition: i32, now: &Partition) -> Result<Assignment, DecisionError> {
    if !now.is_reassigning() {
        return Err(DecisionError::NoReassignmentInProgress(format!(
            "No replicas of {}-{partition} are moving",
            topic.name
        )));
    }
    let vouch = if now.isr.is_empty() { &now.elr } else { &now.isr };
    if !now.original_replicas().any(|id| vouch.contains(&id)) {
        return Err(DecisionError::InvalidReplicaAssignment(format!(
            "{}-{partition} cannot go back to {:?}: none of them is in sync, and acknowledged records would be lost",
            topic.name,
            now.original_replicas().collect::<Vec<_>>()
        )));
    }
    Ok(Assignment::cancelled(now))
}

/// Who asks may insist on as many replicas as there are, or are to be (KIP-860).
fn check_factor(topic: &Topic, partition: i32, now: &Partition, target: &[i32]) -> Result<(), DecisionError> {
    let count = now.target_replicas().count();
    if count == target.len() {
        return Ok(());
    }
    Err(DecisionError::InvalidReplicationFactor(format!(
        "{}-{partition} has {count} replica(s) and would have {}, which the request does not allow",
        topic.name,
        target.len()
    )))
}

#[cfg(test)]
#[path = "reassignments_tests.rs"]
mod tests;
