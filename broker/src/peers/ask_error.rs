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
            AskError::Here(error) => {
                matches!(error, ProposeError::NotController | ProposeError::NoController)
            }
            AskError::Peer(_) | AskError::There { .. } => true,
        }
    }

    /// Whether whoever has to have an answer asks once more: it may pass, or the controller, this broker itself, was too slow and may yet do
    /// what it was asked for.
    pub fn is_unsettled(&self) -> bool {
        self.may_pass() || matches!(self, AskError::Here(ProposeError::TimedOut))
    }
}

#[cfg(test)]
mod tests {
    use firn_metadata::decide::DecisionError;

    use super::*;

    #[test]
    fn who_has_to_have_an_answer_asks_a_slow_controller_again_and_no_other_asks() {
        let refused = || ProposeError::from(DecisionError::InvalidRequest(String::new()));
        for (error, may_pass, is_unsettled) in [
            (ProposeError::NotController, true, true),
            (ProposeError::NoController, true, true),
            (ProposeError::TimedOut, false, true),
            (ProposeError::Closed, false, false),
            (refused(), false, false),
        ] {
            let error = AskError::Here(error);
            assert_eq!((error.may_pass(), error.is_unsettled()), (may_pass, is_unsettled), "{error}");
        }
    }
}
