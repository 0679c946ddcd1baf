//! Errors by the names and in the words that Java's clients have for them, which scripts look for.

use firn_client::error::Error;

pub(super) const UNKNOWN_TOPIC: i16 = 3;
pub(super) const TOPIC_EXISTS: i16 = 36;
pub(super) const GROUP_NOT_FOUND: i16 = 69;

/// Code, class and message.
type Known = (i16, &'static str, &'static str);

/// The errors that Kafka's tools show to people.
const KNOWN: [Known; 9] = [
    (
        1,
        "OffsetOutOfRange",
        "The requested offset is not within the range of offsets maintained by the server.",
    ),
    (UNKNOWN_TOPIC, "UnknownTopicOrPartition", "This server does not host this topic-partition."),
    (15, "CoordinatorNotAvailable", "The coordinator is not available."),
    (16, "NotCoordinator", "This is not the correct coordinator."),
    (25, "UnknownMemberId", "The coordinator is not aware of this member."),
    (40, "InvalidConfiguration", "Configuration is invalid."),
    (68, "GroupNotEmpty", "The group is not empty."),
    (GROUP_NOT_FOUND, "GroupIdNotFound", "The group id does not exist."),
    (
        86,
        "GroupSubscribedToTopic",
        "Deleting offsets of a topic is forbidden while the consumer group is actively subscribed to it.",
    ),
];

/// As Java prints the exception of this error: class and message.
pub(super) fn exception(error: &Error) -> String {
    match known(error) {
        Some((_, name, _)) => {
            format!("org.apache.kafka.common.errors.{name}Exception: {}", message(error))
        }
        None => error.to_string(),
    }
}

/// The message alone.
pub(super) fn message(error: &Error) -> String {
    let Error::Refused { message, .. } = error else { return error.to_string() };
    let standard = known(error).map(|(.., standard)| *standard);
    message.as_deref().or(standard).map_or_else(|| error.to_string(), str::to_owned)
}

fn known(error: &Error) -> Option<&'static Known> {
    let Error::Refused { code, .. } = error else { return None };
    KNOWN.iter().find(|(known, ..)| known == code)
}

/// Whether the cluster understood and refused: such an error is part of a tool's answer.
pub(super) fn is_refusal(error: &Error) -> bool {
    matches!(error, Error::Refused { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_have_the_names_of_java() {
        let refused = |code, message: Option<&str>| Error::Refused {
            what: "delete group g".to_owned(),
            code,
            message: message.map(str::to_owned),
        };
        let told = "org.apache.kafka.common.errors.GroupNotEmptyException: The group is not empty.";
        assert_eq!(exception(&refused(68, None)), told);
        assert_eq!(
            message(&refused(40, Some("Unknown topic config name: x"))),
            "Unknown topic config name: x"
        );
        assert_eq!(message(&refused(36, Some("Topic 't' already exists."))), "Topic 't' already exists.");
        assert_eq!(exception(&refused(58, None)), "cannot delete group g: SaslAuthenticationFailed");
    }
}
