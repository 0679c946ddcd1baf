//! What the group coordinator refuses, in Kafka's words and codes.

/// An error of the group APIs. `code` is the number on the wire (`org.apache.kafka.common.protocol.Errors`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("no such topic or partition; check the name and the number")]
    UnknownTopicOrPartition,
    #[error("offset metadata is longer than offset.metadata.max.bytes; commit less metadata")]
    OffsetMetadataTooLarge,
    #[error("the coordinator is loading its records; retry")]
    CoordinatorLoadInProgress,
    #[error("the coordinator could not store its records; retry")]
    CoordinatorNotAvailable,
    #[error("this broker does not coordinate the group; find the coordinator again")]
    NotCoordinator,
    #[error("the generation is not the group's current one; rejoin")]
    IllegalGeneration,
    #[error("the protocol type or the protocols do not fit the group's; use those of the other members")]
    InconsistentGroupProtocol,
    #[error("the group id is not valid; give one that is not empty and not too long")]
    InvalidGroupId,
    #[error("the member id is not known in the group; rejoin without one")]
    UnknownMemberId,
    #[error("the session timeout is outside group.min.session.timeout.ms to group.max.session.timeout.ms")]
    InvalidSessionTimeout,
    #[error("the commit names too many partitions; split it")]
    InvalidCommitOffsetSize,
    #[error("the group is rebalancing; rejoin")]
    RebalanceInProgress,
    #[error("the request is malformed")]
    InvalidRequest,
    #[error("the group still has members; stop them first")]
    NonEmptyGroup,
    #[error("no such group; firn group list shows those that there are")]
    GroupIdNotFound,
    #[error("join again with the member id that was given")]
    MemberIdRequired,
    #[error("the group has group.max.size members")]
    GroupMaxSizeReached,
    #[error("another member has taken this group.instance.id")]
    FencedInstanceId,
    #[error("the group is subscribed to the topic; stop its members first")]
    GroupSubscribedToTopic,
    #[error("the coordinator failed unexpectedly; see the broker's log")]
    UnknownServerError,
}

impl GroupError {
    /// The error code on the wire.
    pub fn code(self) -> i16 {
        match self {
            Self::UnknownServerError => -1,
            Self::UnknownTopicOrPartition => 3,
            Self::OffsetMetadataTooLarge => 12,
            Self::CoordinatorLoadInProgress => 14,
            Self::CoordinatorNotAvailable => 15,
            Self::NotCoordinator => 16,
            Self::IllegalGeneration => 22,
            Self::InconsistentGroupProtocol => 23,
            Self::InvalidGroupId => 24,
            Self::UnknownMemberId => 25,
            Self::InvalidSessionTimeout => 26,
            Self::RebalanceInProgress => 27,
            Self::InvalidCommitOffsetSize => 28,
            Self::InvalidRequest => 42,
            Self::NonEmptyGroup => 68,
            Self::GroupIdNotFound => 69,
            Self::MemberIdRequired => 79,
            Self::GroupMaxSizeReached => 81,
            Self::FencedInstanceId => 82,
            Self::GroupSubscribedToTopic => 86,
        }
    }
}

/// Why an append to `__consumer_offsets` failed, as far as a group's client should know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendFailure {
    /// Too few in-sync replicas, a full disk, an unknown partition or a timeout: retry.
    NotAvailable,
    /// The partition moved to another broker.
    NotLeader,
    /// The batch exceeds what the offsets topic takes.
    TooLarge,
}

impl AppendFailure {
    pub(crate) fn error(self) -> GroupError {
        match self {
            Self::NotAvailable => GroupError::CoordinatorNotAvailable,
            Self::NotLeader => GroupError::NotCoordinator,
            Self::TooLarge => GroupError::UnknownServerError,
        }
    }
}
