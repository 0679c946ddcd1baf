//! When garbage may be deleted: after it has been garbage in every listing for a grace period.
//!
//! Two things make it safe, and the model in `tests/model.rs` fails without either: grace is longer than a deposed
//! leader can go on believing, so that what it condemns then it never deletes; and a new leader lets a grace pass before
//! it drops local segments for objects, so that what its predecessor condemned rightly, before two unclean elections
//! brought that branch back, is not the last copy.
//!
//! Grace gives readers that planned with an older listing time to finish, and a leader that was deposed without
//! knowing it time to learn. It counts from when this process first saw the garbage: a restart begins it anew, which
//! keeps garbage longer and never shorter.

use std::collections::BTreeMap;

/// Garbage and since when it has been seen, by whatever names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Graveyard<N> {
    first_seen_ms: BTreeMap<N, i64>,
}

impl<N> Default for Graveyard<N> {
    fn default() -> Self {
        Self { first_seen_ms: BTreeMap::new() }
    }
}

impl<N: Ord + Clone> Graveyard<N> {
    /// Takes all garbage of one fresh listing, and says what of it may be deleted now. What is garbage no more is
    /// forgotten: should it become garbage again, its grace begins anew.
    pub fn due(&mut self, garbage: impl IntoIterator<Item = N>, now_ms: i64, grace_ms: i64) -> Vec<N> {
        let mut seen = BTreeMap::new();
        for name in garbage {
            let since = self.first_seen_ms.get(&name).copied().unwrap_or(now_ms);
            seen.insert(name, since);
        }
        self.first_seen_ms = seen;
        let due = |since: &i64| now_ms.saturating_sub(*since) >= grace_ms;
        self.first_seen_ms.iter().filter(|(_, since)| due(since)).map(|(name, _)| name.clone()).collect()
    }

    /// Forgets what has been deleted.
    pub fn buried(&mut self, name: &N) {
        self.first_seen_ms.remove(name);
    }

    /// How much garbage is known.
    pub fn len(&self) -> usize {
        self.first_seen_ms.len()
    }

    pub fn is_empty(&self) -> bool {
        self.first_seen_ms.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grace_counts_from_first_sight_and_begins_anew_after_a_gap() {
        let mut graveyard = Graveyard::default();
        assert_eq!(graveyard.due(["a"], 1_000, 100), Vec::<&str>::new());
        assert_eq!(graveyard.due(["a", "b"], 1_099, 100), Vec::<&str>::new());
        assert_eq!(graveyard.due(["a", "b"], 1_100, 100), ["a"]);
        graveyard.buried(&"a");
        assert_eq!(graveyard.len(), 1);
        assert_eq!(graveyard.due([], 1_150, 100), Vec::<&str>::new());
        assert_eq!(graveyard.due(["b"], 1_300, 100), Vec::<&str>::new(), "it was needed in between");
        assert_eq!(graveyard.due(["b"], 1_400, 100), ["b"]);
    }
}
