//! What can go wrong between a client and a cluster, shaped by what the caller can do about it.

pub use firn_protocol::library::error::ResponseError;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// What was given is no address of a broker.
    #[error("'{address}' is no address of a broker: {reason}")]
    Address { address: String, reason: String },
    /// No connection was made; trying again later, or another address, may help.
    #[error("cannot connect to {address}: {reason}; check the address and that the broker runs")]
    Connect { address: String, reason: String },
    /// The connection ended before the reply; whether the request took effect is not known.
    #[error("the connection to {peer} ended before it answered: {reason}")]
    Closed { peer: String, reason: String },
    /// No reply within the deadline; whether the request took effect is not known.
    #[error("{peer} did not answer {api} within {deadline_ms} ms")]
    Timeout { peer: String, api: String, deadline_ms: u128 },
    /// The two sides have no version of this API in common.
    #[error("{peer} serves no version of {api} that this client speaks")]
    Unsupported { peer: String, api: String },
    /// A message could not be written or read.
    #[error("{api} with {peer}: {reason}")]
    Malformed { peer: String, api: String, reason: String },
    /// Record batches could not be written or read.
    #[error("cannot handle records: {0}")]
    Records(String),
    /// The cluster understood the request and refused it.
    #[error("cannot {what}: {}", refusal(*code, message.as_deref()))]
    Refused { what: String, code: i16, message: Option<String> },
}

impl Error {
    /// Whether the same request may succeed later, perhaps at another broker.
    pub fn is_retriable(&self) -> bool {
        match self {
            Self::Connect { .. } | Self::Closed { .. } | Self::Timeout { .. } => true,
            Self::Refused { code, .. } => {
                ResponseError::try_from_code(*code).is_some_and(|error| error.is_retriable())
            }
            Self::Address { .. } | Self::Unsupported { .. } | Self::Malformed { .. } | Self::Records(_) => {
                false
            }
        }
    }

    /// Whether a reply refused with this error.
    pub fn is(&self, error: ResponseError) -> bool {
        matches!(self, Self::Refused { code, .. } if *code == error.code())
    }
}

fn refusal(code: i16, message: Option<&str>) -> String {
    let name = ResponseError::try_from_code(code)
        .map_or_else(|| "no error".to_owned(), |error| format!("{error:?}"));
    match message.or_else(|| meaning(code)) {
        Some(message) => format!("{message} ({name})"),
        None => name,
    }
}

/// What an error means whose replies have no room for a message.
fn meaning(code: i16) -> Option<&'static str> {
    match ResponseError::try_from_code(code)? {
        ResponseError::UnknownTopicOrPartition => Some("there is no such topic or partition"),
        ResponseError::OffsetOutOfRange => Some("the partition does not hold that offset"),
        ResponseError::InvalidTopicException => {
            Some("a topic's name is up to 249 letters, digits, '.', '_' and '-', and not '.' or '..' alone")
        }
        ResponseError::GroupIdNotFound => {
            Some("there is no such group; firn group list shows those that there are")
        }
        ResponseError::NonEmptyGroup => Some("the group has members; stop its consumers first"),
        // Offsets are committed from outside only where nobody is inside.
        ResponseError::UnknownMemberId => {
            Some("the group has members, and this client is none of them; stop its consumers first")
        }
        ResponseError::GroupSubscribedToTopic => Some("the group reads that topic; stop its consumers first"),
        ResponseError::InvalidGroupId => Some("a group's name cannot be empty"),
        _ => None,
    }
}

/// Turns an error code of a reply into an error that says what was asked.
pub(crate) fn check(code: i16, message: Option<&str>, what: impl FnOnce() -> String) -> Result<(), Error> {
    if code == 0 {
        return Ok(());
    }
    Err(Error::Refused { what: what(), code, message: message.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_without_a_message_say_what_to_do() {
        let told = |what: &str, error: ResponseError| {
            Error::Refused { what: what.to_owned(), code: error.code(), message: None }.to_string()
        };
        assert_eq!(
            told("delete group readers", ResponseError::NonEmptyGroup),
            "cannot delete group readers: the group has members; stop its consumers first (NonEmptyGroup)"
        );
        assert_eq!(
            told("describe group readers", ResponseError::GroupIdNotFound),
            "cannot describe group readers: there is no such group; firn group list shows those that there are (GroupIdNotFound)"
        );
        let live = told("reset group readers", ResponseError::UnknownMemberId);
        assert!(live.contains("stop its consumers first (UnknownMemberId)"), "{live}");
        let bad = told("describe topic bad topic", ResponseError::InvalidTopicException);
        assert!(bad.contains("a topic's name is up to 249 letters, digits"), "{bad}");
    }
}
