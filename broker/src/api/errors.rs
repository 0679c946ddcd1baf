//! Kafka's error codes: every error of the crates below is given its code here, and nowhere else.

use firn_metadata::decide::DecisionError;
use firn_model::ids::validate_topic_name;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::protocol::StrBytes;
use firn_records::legacy::LegacyError;
use firn_records::validate::{InvalidKind, InvalidRecords};
use firn_storage::error::{AppendError, ReadError, StorageError};

use crate::cold::ColdError;
use crate::partition::PartitionError;
use crate::partitions::NoSuchPartition;
use crate::peers::ask_error::AskError;
use firn_quorum::quorum::ProposeError;

/// What a client is told: a code that its library knows, and words for the person who reads its log.
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: ResponseError,
    pub message: String,
    /// Records that are at fault, by their place in the batch (KIP-467).
    pub record_errors: Vec<(i32, String)>,
}

impl Failure {
    pub fn new(code: ResponseError, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), record_errors: Vec::new() }
    }

    /// The message as replies carry it.
    pub fn text(&self) -> Option<StrBytes> {
        Some(StrBytes::from_string(self.message.clone()))
    }
}

/// Why there is no topic of this name: there may be one some day, or never.
pub fn missing(name: &str) -> ResponseError {
    match validate_topic_name(name) {
        Ok(()) => ResponseError::UnknownTopicOrPartition,
        Err(_) => ResponseError::InvalidTopicException,
    }
}

impl From<NoSuchPartition> for Failure {
    fn from(error: NoSuchPartition) -> Self {
        let code = match error {
            NoSuchPartition::TopicId(_) => ResponseError::UnknownTopicId,
            NoSuchPartition::Elsewhere { .. } => ResponseError::NotLeaderOrFollower,
            NoSuchPartition::Topic(_) | NoSuchPartition::Partition { .. } => {
                ResponseError::UnknownTopicOrPartition
            }
        };
        Self::new(code, error.to_string())
    }
}

impl From<InvalidRecords> for Failure {
    fn from(error: InvalidRecords) -> Self {
        let code = match error.kind {
            InvalidKind::Corrupt => ResponseError::CorruptMessage,
            InvalidKind::TooLarge => ResponseError::MessageTooLarge,
            InvalidKind::Timestamp => ResponseError::InvalidTimestamp,
            InvalidKind::Record => ResponseError::InvalidRecord,
            InvalidKind::ProducerEpoch => ResponseError::InvalidProducerEpoch,
            InvalidKind::Compression => ResponseError::UnsupportedCompressionType,
        };
        Self { code, message: error.message, record_errors: error.record_errors }
    }
}

impl From<LegacyError> for Failure {
    fn from(error: LegacyError) -> Self {
        let code = match error {
            LegacyError::UnsupportedCodec(_) => ResponseError::UnsupportedCompressionType,
            _ => ResponseError::CorruptMessage,
        };
        Self::new(code, error.to_string())
    }
}

impl From<PartitionError> for Failure {
    fn from(error: PartitionError) -> Self {
        Self::from(&error)
    }
}

impl From<&PartitionError> for Failure {
    fn from(error: &PartitionError) -> Self {
        let code = match error {
            PartitionError::Closed | PartitionError::NotLeader | PartitionError::NotReplica(_) => {
                ResponseError::NotLeaderOrFollower
            }
            // The one that says nothing but to send it again.
            PartitionError::NotEnoughReplicas { .. } | PartitionError::BehindRefused => {
                ResponseError::NotEnoughReplicas
            }
            PartitionError::FencedLeaderEpoch { .. } => ResponseError::FencedLeaderEpoch,
            PartitionError::UnknownLeaderEpoch { .. } => ResponseError::UnknownLeaderEpoch,
            PartitionError::Fetched(_) => ResponseError::CorruptMessage,
            // Clients retry it, and the disk may have room by then.
            PartitionError::DiskFull(_) => ResponseError::KafkaStorageError,
            PartitionError::Append(error) => append_code(error),
            PartitionError::Read(ReadError::OffsetOutOfRange { .. } | ReadError::BelowLocalStart { .. }) => {
                ResponseError::OffsetOutOfRange
            }
            PartitionError::Read(ReadError::Storage(error)) | PartitionError::Storage(error) => {
                storage_code(error)
            }
        };
        Self::new(code, error.to_string())
    }
}

fn append_code(error: &AppendError) -> ResponseError {
    match error {
        AppendError::OutOfOrderSequence { .. } => ResponseError::OutOfOrderSequenceNumber,
        AppendError::InvalidProducerEpoch { .. } => ResponseError::InvalidProducerEpoch,
        AppendError::InvalidTxnState { .. } => ResponseError::InvalidTxnState,
        AppendError::TransactionCoordinatorFenced { .. } => ResponseError::TransactionCoordinatorFenced,
        AppendError::RecordListTooLarge { .. } => ResponseError::RecordListTooLarge,
        AppendError::InvalidBatches(_) => ResponseError::CorruptMessage,
        AppendError::DiskFull { .. } => ResponseError::KafkaStorageError,
        AppendError::Storage(error) => storage_code(error),
    }
}

fn storage_code(error: &StorageError) -> ResponseError {
    match error {
        StorageError::OffsetOutOfRange { .. } => ResponseError::OffsetOutOfRange,
        _ => ResponseError::KafkaStorageError,
    }
}

impl From<ColdError> for Failure {
    fn from(error: ColdError) -> Self {
        Self::from(&error)
    }
}

impl From<&ColdError> for Failure {
    fn from(error: &ColdError) -> Self {
        match error {
            ColdError::Partition(error) => error.into(),
            ColdError::TooSlow => Self::new(ResponseError::RequestTimedOut, error.to_string()),
            // Clients retry it, and the store may answer by then.
            error => Self::new(ResponseError::KafkaStorageError, error.to_string()),
        }
    }
}

impl From<DecisionError> for Failure {
    fn from(error: DecisionError) -> Self {
        let code = match &error {
            DecisionError::UnknownTopicOrPartition(_) => ResponseError::UnknownTopicOrPartition,
            DecisionError::InvalidTopicException(_) => ResponseError::InvalidTopicException,
            DecisionError::TopicAlreadyExists(_) => ResponseError::TopicAlreadyExists,
            DecisionError::InvalidPartitions(_) => ResponseError::InvalidPartitions,
            DecisionError::InvalidReplicationFactor(_) => ResponseError::InvalidReplicationFactor,
            DecisionError::InvalidReplicaAssignment(_) => ResponseError::InvalidReplicaAssignment,
            DecisionError::InvalidConfig(_) => ResponseError::InvalidConfig,
            DecisionError::InvalidRequest(_) => ResponseError::InvalidRequest,
            DecisionError::PolicyViolation(_) => ResponseError::PolicyViolation,
            DecisionError::TopicDeletionDisabled(_) => ResponseError::TopicDeletionDisabled,
            DecisionError::UnknownTopicId(_) => ResponseError::UnknownTopicId,
            DecisionError::DuplicateBrokerRegistration(_) => ResponseError::DuplicateBrokerRegistration,
            DecisionError::BrokerIdNotRegistered(_) => ResponseError::BrokerIdNotRegistered,
            DecisionError::StaleBrokerEpoch(_) => ResponseError::StaleBrokerEpoch,
            DecisionError::NoReassignmentInProgress(_) => ResponseError::NoReassignmentInProgress,
            DecisionError::ElectionNotNeeded(_) => ResponseError::ElectionNotNeeded,
            DecisionError::PreferredLeaderNotAvailable(_) => ResponseError::PreferredLeaderNotAvailable,
            DecisionError::EligibleLeadersNotAvailable(_) => ResponseError::EligibleLeadersNotAvailable,
            DecisionError::InvalidUpdateVersion(_) => ResponseError::InvalidUpdateVersion,
            DecisionError::UnknownServerError(_) => ResponseError::UnknownServerError,
        };
        Self::new(code, error.to_string())
    }
}

impl From<AskError> for Failure {
    fn from(error: AskError) -> Self {
        match error {
            AskError::Here(error) => error.into(),
            // Clients ask again, and there may be a controller by then.
            AskError::Peer(_) | AskError::There { .. } => {
                Self::new(ResponseError::CoordinatorNotAvailable, error.to_string())
            }
        }
    }
}

impl From<ProposeError> for Failure {
    fn from(error: ProposeError) -> Self {
        match error {
            ProposeError::Refused(refused) => refused.into(),
            ProposeError::Failed(_) | ProposeError::Closed => {
                Self::new(ResponseError::KafkaStorageError, error.to_string())
            }
            ProposeError::TimedOut => Self::new(ResponseError::RequestTimedOut, error.to_string()),
            ProposeError::NotController | ProposeError::NoController => {
                Self::new(ResponseError::NotController, error.to_string())
            }
        }
    }
}
