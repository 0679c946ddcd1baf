//! How long each broker has been silent: the controller's own memory, which no record holds. A new controller gives every
//! broker a whole lease from when it began to lead.
//!
//! A heartbeat renews a lease only if the broker has the metadata in force that it was told of before: who is there and knows nothing
//! new, for its disk is full or hangs, would keep what others can lead, and serve none of it.

use std::collections::BTreeMap;
use std::time::Duration;

/// Leases by broker. Time is what a monotonic clock says, since any moment.
#[derive(Debug, Clone)]
pub struct Leases {
    /// `broker.session.timeout.ms`.
    lease: Duration,
    /// When each that has a lease was heard of.
    heard: BTreeMap<i32, Duration>,
    /// Up to which offset of the metadata each has been told that there are changes, when it last had all that it was told of before.
    told: BTreeMap<i32, i64>,
}

impl Leases {
    /// Of these brokers, which are all heard of `now`.
    pub fn new(lease: Duration, brokers: impl IntoIterator<Item = i32>, now: Duration) -> Self {
        Self { lease, heard: brokers.into_iter().map(|id| (id, now)).collect(), told: BTreeMap::new() }
    }

    /// The broker has the metadata in force up to `applied_to`, and is about to be told that there are changes up to `end_offset`.
    /// Whether it keeps up; where it does not, it is as if nothing had been heard of it.
    pub fn keeps_up(&mut self, broker_id: i32, applied_to: i64, end_offset: i64) -> bool {
        if self.told.get(&broker_id).is_some_and(|told| applied_to < *told) {
            return false;
        }
        self.told.insert(broker_id, end_offset);
        true
    }

    /// The broker is there. Whether it had a lease until now: if not, it is fenced, or about to be.
    pub fn hear(&mut self, broker_id: i32, now: Duration) -> bool {
        let before = self.heard.get(&broker_id).copied();
        self.heard.insert(broker_id, before.map_or(now, |before| before.max(now)));
        before.is_some()
    }

    /// Whether the broker has been heard of since it was forgotten.
    pub fn has(&self, broker_id: i32) -> bool {
        self.heard.contains_key(&broker_id)
    }

    /// Nobody waits for this broker any more: it is fenced, or gone.
    pub fn forget(&mut self, broker_id: i32) {
        self.heard.remove(&broker_id);
    }

    /// Brokers whose leases are over, the longest silent first.
    pub fn lapsed(&self, now: Duration) -> Vec<i32> {
        let mut lapsed: Vec<_> =
            self.heard.iter().filter(|(_, heard)| now.saturating_sub(**heard) >= self.lease).collect();
        lapsed.sort_by_key(|(id, heard)| (**heard, **id));
        lapsed.into_iter().map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn who_is_there_and_learns_nothing_does_not_keep_up() {
        let mut leases = Leases::new(at(500), [1], at(0));
        assert!(leases.keeps_up(1, 10, 20), "nothing is known of what it was told");
        assert!(!leases.keeps_up(1, 10, 30));
        assert!(!leases.keeps_up(1, 19, 40));
        leases.forget(1);
        assert!(!leases.keeps_up(1, 19, 50), "fenced or not");
        assert!(leases.keeps_up(1, 20, 60), "it need not have what came since");
        assert!(!leases.keeps_up(1, 59, 60));
        assert!(leases.keeps_up(2, 0, 60));
    }

    #[test]
    fn who_is_silent_for_a_lease_has_lapsed() {
        let mut leases = Leases::new(at(500), [1, 2], at(1_000));
        assert_eq!(leases.lapsed(at(1_499)), [0i32; 0]);
        assert!(leases.hear(1, at(1_400)));
        // What was said before is not heard again.
        assert!(leases.hear(1, at(1_200)));
        assert!(!leases.hear(3, at(1_100)), "it had none");
        assert_eq!(leases.lapsed(at(1_500)), [2]);
        assert_eq!(leases.lapsed(at(5_000)), [2, 3, 1]);
        leases.forget(2);
        assert_eq!([1, 2, 3].map(|id| leases.has(id)), [true, false, true]);
        assert_eq!(leases.lapsed(at(1_600)), [3]);
        for id in [1, 3] {
            leases.forget(id);
        }
        assert_eq!(leases.lapsed(at(9_000)), [0i32; 0]);
    }
}
