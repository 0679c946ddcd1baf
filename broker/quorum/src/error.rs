//! Why the quorum's log cannot be read or written.

use std::io;

use firn_model::ids::METADATA_TOPIC;
use firn_storage::error::{AppendError, ReadError, StorageError};

use crate::snapshot::SnapshotError;

/// Why the metadata cannot be read or changed. The broker does not start, or changes nothing any more, rather than guess.
#[derive(Debug, thiserror::Error)]
pub enum QuorumError {
    #[error("metadata log: {0}")]
    Storage(#[from] StorageError),
    #[error("metadata log: {0}")]
    Append(#[from] AppendError),
    #[error("metadata log: {0}")]
    Read(#[from] ReadError),
    #[error("metadata log, entry {index}: {reason}")]
    Entry { index: i64, reason: String },
    #[error(
        "metadata log, entry {index}: {reason}: the log is damaged. If other brokers keep the metadata, start this one with an empty directory, and they fill it; otherwise restore {METADATA_TOPIC}-0 from a backup"
    )]
    Damaged { index: i64, reason: String },
    #[error(
        "metadata log, entries {} to {} were agreed on, and the controller has others: most of the brokers that keep the metadata have lost them, on disks that were put back or damaged, and this log is the last to hold them. Keep a copy of it; to go on without what it says, start this broker with an empty directory, and the others fill it",
        .0.from, .0.last
    )]
    AgreedOn(Lost),
    #[error(
        "the metadata log begins at offset {log_start}, and no whole snapshot holds what was before: restore the newest .checkpoint file of {METADATA_TOPIC}-0 from a backup"
    )]
    NoSnapshot { log_start: i64 },
    #[error(
        "the metadata log has entries, but {METADATA_TOPIC}-0/quorum-state is missing, and with it the votes that were given: restore the file from a backup. If a Firn from before there was a quorum wrote the directory, begin with an empty one"
    )]
    NoQuorumState,
    #[error("{METADATA_TOPIC}-0/quorum-state cannot be read: {0}")]
    QuorumState(String),
    #[error(
        "the metadata are those of broker {broker_id} on log directory {directory_id}, and this is directory {here}: they were copied without their meta.properties; restore that file, too, or begin with an empty directory"
    )]
    AnotherMember { broker_id: i32, directory_id: String, here: String },
    #[error(
        "{METADATA_TOPIC}-0/quorum-state says that there were votes, and the metadata log names no member: the log is lost; restore it, or begin with an empty directory"
    )]
    NoMembers,
    #[error(
        "brokers {others:?} keep the metadata as well, and nothing can be changed without them: name all of them in controller.quorum.voters, or start as many by firn dev --brokers"
    )]
    OtherMembers { others: Vec<i32> },
    #[error("snapshot of the metadata: {0}")]
    Snapshot(#[from] SnapshotError),
    #[error("{0}")]
    Raft(String),
    #[error("the metadata log is closed")]
    Closed,
}

/// Entries that were agreed on, and that whoever leads does not have: its log has others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lost {
    pub from: i64,
    pub last: i64,
}

/// Why a member's log is of no use any more, though it can be read and written.
#[derive(Debug, Clone)]
pub(crate) enum Unusable {
    /// What is agreed on here, and whoever leads does not have.
    Lost(Lost),
    Damaged {
        index: i64,
        reason: String,
    },
}

impl From<Unusable> for QuorumError {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Lost(lost) => QuorumError::AgreedOn(lost),
            Unusable::Damaged { index, reason } => QuorumError::Damaged { index, reason },
        }
    }
}

impl QuorumError {
    /// True when the log is as it was before, and the same succeeds once there is room or a free file descriptor.
    pub fn is_shortage(&self) -> bool {
        match self {
            QuorumError::Storage(error)
            | QuorumError::Append(AppendError::Storage(error))
            | QuorumError::Read(ReadError::Storage(error)) => error.is_shortage(),
            QuorumError::Append(AppendError::DiskFull { .. }) => true,
            _ => false,
        }
    }
}

impl From<QuorumError> for io::Error {
    fn from(error: QuorumError) -> Self {
        io::Error::other(error)
    }
}
