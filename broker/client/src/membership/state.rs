//! What a member makes of what its coordinator answers; no I/O.

use firn_protocol::library::error::ResponseError;

use crate::error::Error;

/// Who this process is in its group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Empty until the coordinator has given one.
    pub(crate) member_id: String,
    /// -1 outside of any generation.
    pub(crate) generation: i32,
}

impl Identity {
    pub(crate) const NONE: Self = Self { member_id: String::new(), generation: -1 };

    /// Whether to join again after this error, with what is still true of the identity; otherwise it is final.
    pub(crate) fn rejoins_after(&mut self, error: &Error) -> bool {
        if error.is(ResponseError::UnknownMemberId) {
            // The coordinator took this member for dead and knows it no more.
            *self = Self::NONE;
            return true;
        }
        if error.is(ResponseError::IllegalGeneration) {
            self.generation = -1;
            return true;
        }
        error.is(ResponseError::RebalanceInProgress)
    }
}

/// Whether the coordinator is elsewhere, not ready yet, or out of reach: the same question may be answered later.
pub(crate) fn passes(error: &Error) -> bool {
    match error {
        Error::Connect { .. } | Error::Closed { .. } | Error::Timeout { .. } => true,
        Error::Refused { .. } => [
            ResponseError::CoordinatorLoadInProgress,
            ResponseError::CoordinatorNotAvailable,
            ResponseError::NotCoordinator,
        ]
        .into_iter()
        .any(|passing| error.is(passing)),
        Error::Address { .. } | Error::Unsupported { .. } | Error::Malformed { .. } | Error::Records(_) => {
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(error: ResponseError) -> Error {
        Error::Refused { what: "try".to_owned(), code: error.code(), message: None }
    }

    #[test]
    fn each_refusal_takes_from_the_identity_what_is_no_longer_true() {
        let identity = || Identity { member_id: "m".to_owned(), generation: 4 };
        let after = |error| {
            let mut identity = identity();
            identity.rejoins_after(&refused(error)).then_some((identity.member_id, identity.generation))
        };
        assert_eq!(after(ResponseError::RebalanceInProgress), Some(("m".to_owned(), 4)));
        assert_eq!(after(ResponseError::IllegalGeneration), Some(("m".to_owned(), -1)));
        assert_eq!(after(ResponseError::UnknownMemberId), Some((String::new(), -1)));
        for last in [
            ResponseError::FencedInstanceId,
            ResponseError::GroupMaxSizeReached,
            ResponseError::InconsistentGroupProtocol,
            ResponseError::GroupAuthorizationFailed,
        ] {
            assert_eq!(after(last), None, "{last:?}");
        }
    }

    #[test]
    fn a_coordinator_that_moves_is_asked_again_and_a_refusal_is_not() {
        assert!(passes(&refused(ResponseError::NotCoordinator)));
        assert!(passes(&refused(ResponseError::CoordinatorLoadInProgress)));
        assert!(passes(&Error::Closed { peer: "p".to_owned(), reason: "r".to_owned() }));
        assert!(!passes(&refused(ResponseError::RebalanceInProgress)));
        assert!(!passes(&refused(ResponseError::FencedInstanceId)));
    }
}
