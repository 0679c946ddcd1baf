//! Replicas here for which the disk has no room: what a client or a leader sent a moment ago could not be appended.

use std::collections::BTreeMap;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

use crate::partition::PartitionKey;

/// Whoever has something to append tries again more often than that.
const KEPT: Duration = Duration::from_secs(5);

/// When something was refused last, and in which leader epoch.
#[derive(Debug, Clone, Copy)]
struct Refusal {
    at: Instant,
    leader_epoch: i32,
}

/// What others are to lead, and not to wait for (`registration.rs`).
#[derive(Debug, Default)]
pub struct Short(Mutex<BTreeMap<PartitionKey, Refusal>>);

impl Short {
    pub fn refused(&self, key: PartitionKey, leader_epoch: i32) {
        self.0.lock().insert(key, Refusal { at: Instant::now(), leader_epoch });
    }

    /// Each with the leader epoch in which that was so.
    pub fn all(&self) -> BTreeMap<PartitionKey, i32> {
        self.as_of(Instant::now())
    }

    fn as_of(&self, now: Instant) -> BTreeMap<PartitionKey, i32> {
        let mut all = self.0.lock();
        all.retain(|_, refusal| now.saturating_duration_since(refusal.at) < KEPT);
        all.iter().map(|(key, refusal)| (*key, refusal.leader_epoch)).collect()
    }
}

#[cfg(test)]
mod tests {
    use firn_model::ids::TopicId;

    use super::*;

    #[test]
    fn what_is_not_refused_again_is_short_no_more() {
        let (short, key) = (Short::default(), (TopicId::ZERO, 3));
        assert_eq!(short.all(), BTreeMap::new());
        short.refused(key, 7);
        short.refused(key, 8);
        let last = Instant::now();
        assert_eq!(short.as_of(last + KEPT / 2), BTreeMap::from([(key, 8)]));
        assert_eq!(short.as_of(last + KEPT), BTreeMap::new());
        assert_eq!(short.all(), BTreeMap::new(), "it is forgotten");
    }
}
