//! What a request names more than once: Kafka's APIs refuse it rather than guess which one is meant.

use std::collections::BTreeSet;

/// The keys that are there more than once.
pub fn repeated<K: Ord>(keys: impl IntoIterator<Item = K>) -> BTreeSet<K> {
    let mut seen = BTreeSet::new();
    keys.into_iter().filter_map(|key| seen.replace(key)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_is_not_twice() {
        assert_eq!(repeated(["a", "b", "a", "c", "a", "b"]), BTreeSet::from(["a", "b"]));
        assert!(repeated([1, 2, 3]).is_empty());
    }
}
