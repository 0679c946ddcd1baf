//! Which replicas of a topic are copied no faster than the throttles of brokers allow (KIP-73).

use std::collections::BTreeSet;

/// The value of `leader.replication.throttled.replicas`, or of `follower.replication.throttled.replicas`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ThrottledReplicas {
    /// `*`
    All,
    /// Partition and broker of each.
    These(BTreeSet<(i32, i32)>),
}

impl Default for ThrottledReplicas {
    fn default() -> Self {
        Self::These(BTreeSet::new())
    }
}

impl ThrottledReplicas {
    /// Reads the items of the list: `*` alone, or pairs `partition:broker`. As to Kafka, an empty item says nothing.
    pub fn read(items: &[String]) -> Option<Self> {
        match items {
            [all] if all == "*" => Some(Self::All),
            _ => items.iter().filter(|item| !item.is_empty()).map(|item| replica(item)).collect(),
        }
    }

    /// Whether the replica of this partition on this broker is among them.
    pub fn contains(&self, partition: i32, broker: i32) -> bool {
        match self {
            Self::All => true,
            Self::These(replicas) => replicas.contains(&(partition, broker)),
        }
    }
}

impl FromIterator<(i32, i32)> for ThrottledReplicas {
    fn from_iter<I: IntoIterator<Item = (i32, i32)>>(replicas: I) -> Self {
        Self::These(replicas.into_iter().collect())
    }
}

fn replica(item: &str) -> Option<(i32, i32)> {
    let number =
        |text: &str| text.bytes().all(|digit| digit.is_ascii_digit()).then(|| text.parse().ok()).flatten();
    let (partition, broker) = item.split_once(':')?;
    Some((number(partition)?, number(broker)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config_definition::split_list;

    fn read(text: &str) -> Option<ThrottledReplicas> {
        ThrottledReplicas::read(&split_list(text))
    }

    #[test]
    fn all_some_or_no_replicas_are_throttled() {
        for (text, throttled) in [
            ("", [false, false, false]),
            ("*", [true, true, true]),
            ("0:1", [true, false, false]),
            (" 3:12 , 0:1", [true, false, true]),
            ("0:2,", [false, true, false]),
        ] {
            let replicas = read(text).unwrap();
            let found =
                [(0, 1), (0, 2), (3, 12)].map(|(partition, broker)| replicas.contains(partition, broker));
            assert_eq!(found, throttled, "{text}");
        }
        assert_eq!(read(""), Some(ThrottledReplicas::default()));
    }

    #[test]
    fn what_names_no_replica_is_refused() {
        for text in ["x", "0", "0:", ":1", "0:1:2", "-1:1", "+1:1", "0: 1", "0:99999999999", "*,0:1", "**"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
