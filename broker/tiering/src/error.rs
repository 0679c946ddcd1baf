//! What can go wrong with the tier, by what a caller can do about it.

use std::sync::Arc;

use crate::metrics::Operation;

/// Why one call of the store failed for good, after its retries.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{operation} of '{path}' failed after {attempts} attempts: {failure}")]
pub struct StoreError {
    pub operation: Operation,
    pub path: String,
    pub attempts: u32,
    pub failure: Failure,
}

/// Why one attempt failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Failure {
    #[error("{0}")]
    Store(Arc<object_store::Error>),
    #[error("no answer within its deadline")]
    Timeout,
    #[error("the store sent {got} bytes of {expected}")]
    Truncated { expected: u64, got: u64 },
}

impl Failure {
    /// True if the same call may succeed later. What the store says about the object or our rights is final.
    pub fn is_retriable(&self) -> bool {
        use object_store::Error as E;
        match self {
            Failure::Timeout | Failure::Truncated { .. } => true,
            Failure::Store(error) => matches!(**error, E::Generic { .. } | E::JoinError { .. }),
        }
    }

    pub fn is_not_found(&self) -> bool {
        matches!(self, Failure::Store(error) if matches!(**error, object_store::Error::NotFound { .. }))
    }

    /// The object is there already: what a create-only write is told.
    pub fn is_already_there(&self) -> bool {
        use object_store::Error as E;
        matches!(self, Failure::Store(error) if matches!(**error, E::AlreadyExists { .. } | E::Precondition { .. }))
    }
}

impl Failure {
    /// What a file operation in a store that is a directory came to.
    pub(crate) fn of_directory(error: std::io::Error) -> Self {
        use std::io::ErrorKind;

        use object_store::Error as E;
        let (kind, path, source) = (error.kind(), String::new(), Box::new(error));
        Self::from(match kind {
            // A file where a folder could be: the folder is not there.
            ErrorKind::NotFound | ErrorKind::NotADirectory => E::NotFound { path, source },
            ErrorKind::PermissionDenied => E::PermissionDenied { path, source },
            _ => E::Generic { store: "directory", source },
        })
    }
}

impl From<object_store::Error> for Failure {
    fn from(error: object_store::Error) -> Self {
        Failure::Store(Arc::new(error))
    }
}

/// Why the tier did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TierError {
    #[error("store URL '{url}' cannot be used: {reason}; use file:///path, s3://bucket/prefix or memory://")]
    InvalidUrl { url: String, reason: String },
    #[error(
        "store {url} cannot be used: its endpoint is an http:// address, where records and requests travel unencrypted; use https://, or set AWS_ALLOW_HTTP=true if the network can be trusted"
    )]
    Unencrypted { url: String },
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("segment {base_offset}-{last_offset} cannot be uploaded: {reason}")]
    InvalidSegment { base_offset: i64, last_offset: i64, reason: String },
    #[error("reading the local segment failed: {0}")]
    LocalRead(Arc<std::io::Error>),
    #[error("object '{path}' is damaged: {reason}; it is not counted as tiered")]
    Damaged { path: String, reason: String },
    #[error(
        "object '{path}' was written but is not in the store's listing yet; the upload is tried again later"
    )]
    NotListed { path: String },
    #[error(
        "object '{path}' holds another log of the same name, compacted less far; the local segment is kept"
    )]
    Different { path: String },
    #[error("segment {base_offset}-{last_offset} is covered by an object that is compacted further")]
    Superseded { base_offset: i64, last_offset: i64 },
    #[error("the bucket holds objects of leader epoch {epoch}: this broker leads the partition no more")]
    Deposed { epoch: i32 },
}

/// Why a cold read has no answer.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ReadError {
    #[error("offset {offset} is not in the tier, which holds {range:?}")]
    NotTiered { offset: i64, range: Option<(i64, i64)> },
    #[error("object '{path}' holds damaged bytes near position {position}; other copies may be whole")]
    Corrupt { path: String, position: u64 },
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<ReadError> for TierError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => TierError::Store(error),
            ReadError::Corrupt { path, position } => TierError::Damaged {
                path,
                reason: format!("bytes near position {position} do not match their checksum"),
            },
            ReadError::NotTiered { offset, .. } => {
                TierError::Damaged { path: String::new(), reason: format!("offset {offset} is not tiered") }
            }
        }
    }
}
