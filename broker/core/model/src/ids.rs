//! Names and ids: topics, partitions, and where a batch's bytes come from.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

/// A topic's name. Shared, because every partition of a topic carries it.
pub type TopicName = Arc<str>;

/// A topic's identity for its whole life: a topic that is deleted and created again has another (KIP-516).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicId(pub Uuid);

impl TopicId {
    /// What requests carry when they name no topic id.
    pub const ZERO: TopicId = TopicId(Uuid::nil());

    /// As it stands in records.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.into_bytes()
    }

    pub fn from_bytes(bytes: [u8; 16]) -> TopicId {
        TopicId(Uuid::from_bytes(bytes))
    }

    /// Reads Kafka's spelling: 22 characters of unpadded URL-safe base64.
    pub fn parse(text: &str) -> Option<TopicId> {
        let mut bytes = [0u8; 16];
        if text.len() != 22 {
            return None;
        }
        let mut bits: u128 = 0;
        for (index, character) in text.bytes().enumerate() {
            let value = ALPHABET.iter().position(|&letter| letter == character)? as u128;
            if index < 21 {
                bits = (bits << 6) | value;
            } else {
                // 22 characters are 132 bits: the last four are padding and must be zero.
                if value & 0b1111 != 0 {
                    return None;
                }
                bits = (bits << 2) | (value >> 4);
            }
        }
        bytes.copy_from_slice(&bits.to_be_bytes());
        Some(TopicId(Uuid::from_bytes(bytes)))
    }
}

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Kafka's spelling: 22 characters of unpadded URL-safe base64.
impl fmt::Display for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = u128::from_be_bytes(*self.0.as_bytes());
        for index in 0..21u32 {
            let letter = ALPHABET[((bits >> (128 - 6 * (index + 1))) & 0x3f) as usize];
            write!(f, "{}", letter as char)?;
        }
        write!(f, "{}", ALPHABET[((bits & 0b11) << 4) as usize] as char)
    }
}

impl fmt::Debug for TopicId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// One partition of one topic, by name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TopicPartition {
    pub topic: TopicName,
    pub partition: i32,
}

impl TopicPartition {
    pub fn new(topic: impl Into<TopicName>, partition: i32) -> Self {
        Self { topic: topic.into(), partition }
    }
}

/// Kafka's spelling, which is also the directory's name: `topic-partition`.
impl fmt::Display for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.topic, self.partition)
    }
}

impl fmt::Debug for TopicPartition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a topic may not have this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("topic name '{name}' is not allowed: {reason}")]
pub struct InvalidTopicName {
    pub name: String,
    pub reason: &'static str,
}

/// Longest topic name, so that `name-partition.uuid-delete` still fits a file name (Kafka's own limit).
pub const TOPIC_NAME_LENGTH_MAX: usize = 249;
/// The topic that the log of the metadata goes by; it is in no list of topics.
pub const METADATA_TOPIC: &str = "__cluster_metadata";

/// Checks a name against Kafka's rules for topics.
pub fn validate_topic_name(name: &str) -> Result<(), InvalidTopicName> {
    let refuse = |reason| Err(InvalidTopicName { name: name.chars().take(300).collect(), reason });
    if name.is_empty() {
        return refuse("it is empty");
    }
    if name == "." || name == ".." {
        return refuse("it cannot be '.' or '..'");
    }
    if name.len() > TOPIC_NAME_LENGTH_MAX {
        return refuse("it is longer than 249 characters");
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-')) {
        return refuse("it may hold only ASCII letters, digits, '.', '_' and '-'");
    }
    Ok(())
}

/// What two topic names must not share: Kafka's metrics turn `.` into `_`, so `a.b` and `a_b` would be one there.
/// `None` for a name without either character, which collides with nothing.
pub fn collision_key(name: &str) -> Option<String> {
    name.contains(['.', '_']).then(|| name.replace('.', "_"))
}

/// True for topics that belong to the broker: clients may read them, but not write, change or delete them.
pub fn is_internal_topic(name: &str) -> bool {
    matches!(
        name,
        "__consumer_offsets" | "__transaction_state" | "__share_group_state" | "__cluster_metadata"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topic_id_is_spelled_as_kafka_spells_it() {
        // Kafka's METADATA_TOPIC_ID is the uuid (0, 1), printed as AAAAAAAAAAAAAAAAAAAAAQ.
        let metadata = TopicId(Uuid::from_u128(1));
        assert_eq!(metadata.to_string(), "AAAAAAAAAAAAAAAAAAAAAQ");
        for value in [0u128, 1, u128::MAX, 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef] {
            let id = TopicId(Uuid::from_u128(value));
            assert_eq!(TopicId::parse(&id.to_string()), Some(id));
        }
        for bad in ["", "AAAAAAAAAAAAAAAAAAAAAR", "AAAAAAAAAAAAAAAAAAAAA", "AAAAAAAAAAAAAAAAAAAA+Q"] {
            assert_eq!(TopicId::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn names_collide_when_they_differ_in_dots_and_underscores_alone() {
        assert_eq!(collision_key("a.b_c"), collision_key("a_b.c"));
        assert_ne!(collision_key("a.b"), collision_key("a-b"));
        assert_eq!(collision_key("ab"), None);
    }

    #[test]
    fn topic_names_follow_kafkas_rules() {
        for good in ["a", "my-topic", "My.Topic_2", &"x".repeat(249)] {
            assert_eq!(validate_topic_name(good), Ok(()));
        }
        for bad in ["", ".", "..", "a b", "a/b", "ä", "a\0", &"x".repeat(250)] {
            assert!(validate_topic_name(bad).is_err(), "{bad:?}");
        }
    }
}
