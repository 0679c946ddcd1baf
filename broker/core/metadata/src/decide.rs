//! Decisions: pure functions from the image and a request to the records that carry it out, and the reply.
//!
//! Nothing changes until the records are applied. A decision that is refused, or only validated, has no records.

pub mod balance;
pub mod brokers;
pub mod configs;
pub mod create_partitions;
pub mod create_topics;
pub mod delete_topics;
pub mod elections;
pub mod features;
pub mod isr;
pub mod lifecycle;
pub mod partitions;
pub mod placement;
pub mod preferred_leaders;
pub mod producer_ids;
pub mod reassignments;
pub mod room;
pub mod votes;

use serde::{Deserialize, Serialize};

use crate::record::MetadataRecord;

/// What to write, and what to answer once it is written (Kafka's `ControllerResult`).
#[derive(Debug, Clone, PartialEq)]
pub struct Decision<R> {
    pub records: Vec<MetadataRecord>,
    pub reply: R,
}

/// Why a request is refused. Variants are named like Kafka's error codes; the text is the error's message. Brokers tell it
/// each other: a variant keeps its name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DecisionError {
    #[error("{0}")]
    UnknownTopicOrPartition(String),
    #[error("{0}")]
    InvalidTopicException(String),
    #[error("{0}")]
    TopicAlreadyExists(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidReplicationFactor(String),
    #[error("{0}")]
    InvalidReplicaAssignment(String),
    #[error("{0}")]
    InvalidConfig(String),
    #[error("{0}")]
    InvalidRequest(String),
    #[error("{0}")]
    PolicyViolation(String),
    #[error("{0}")]
    TopicDeletionDisabled(String),
    #[error("{0}")]
    UnknownTopicId(String),
    #[error("{0}")]
    DuplicateBrokerRegistration(String),
    #[error("{0}")]
    BrokerIdNotRegistered(String),
    #[error("{0}")]
    StaleBrokerEpoch(String),
    #[error("{0}")]
    NoReassignmentInProgress(String),
    #[error("{0}")]
    ElectionNotNeeded(String),
    #[error("{0}")]
    PreferredLeaderNotAvailable(String),
    #[error("{0}")]
    EligibleLeadersNotAvailable(String),
    #[error("{0}")]
    InvalidUpdateVersion(String),
    #[error("{0}")]
    UnknownServerError(String),
}

/// How many partitions a request may still create, over all of its topics.
#[derive(Debug)]
pub(crate) struct PartitionBudget {
    max: usize,
    used: usize,
}

impl PartitionBudget {
    pub(crate) fn new(max: i32) -> Self {
        Self { max: usize::try_from(max).unwrap_or(0), used: 0 }
    }

    /// Takes so many, or refuses.
    pub(crate) fn take(&mut self, partitions: usize) -> Result<(), DecisionError> {
        let used = self.used.saturating_add(partitions);
        if used > self.max {
            return Err(DecisionError::PolicyViolation(format!(
                "A request may create {} partitions, and this one asks for more: create the rest by another request",
                self.max
            )));
        }
        self.used = used;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod testing;
