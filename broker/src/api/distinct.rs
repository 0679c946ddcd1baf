//! Things that a request names, each once: a reply is then no larger than what is named, however often it is.

use std::collections::HashSet;
use std::hash::Hash;

/// `items` in their order, without those whose key came before.
pub fn distinct<T, K: Eq + Hash>(items: impl IntoIterator<Item = T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::new();
    items.into_iter().filter(|item| seen.insert(key(item))).collect()
}
