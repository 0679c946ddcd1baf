//! Why the controller did not do what a broker asked it for.

use firn_quorum::quorum::ProposeError;

use super::PeerError;

/// Why the controller did not do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    #[error(transparent)]
    Here(#[from] ProposeError),
    #[error("the controller did not answer: {0}")]
    Peer(#[from] PeerError),
    #[error("the controller, broker {controller}: {reason}")]
    There { controller: i32, reason: String },
}

impl AskError {
    /// Whether another broker may be the controller by now, or soon: then it is asked.
    pub fn may_pass(&self) -> bool {
        match self {
            AskError::Here(error) => matches!(error, ProposeError::NotController),
            AskError::Peer(_) | AskError::There { .. } => true,
        }
    }
}
