//! Throttled partitions that a fetcher does not ask for (KIP-73), until the throttle lets them go on: those first that have waited longest.

use std::time::Duration;

use tokio::time::Instant;

use super::sessions::Queue;
use crate::partition::PartitionKey;

/// How soon they are looked at again, whatever the throttle says: they, or it, may be configured otherwise meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

#[derive(Debug, Default)]
pub struct HeldBack {
    waiting: Queue,
    until: Option<Instant>,
}

impl HeldBack {
    /// The partition waits until then.
    pub fn hold(&mut self, key: PartitionKey, until: Instant, now: Instant) {
        self.waiting.push(key);
        let until = until.min(now + LOOK_AGAIN);
        self.until = Some(self.until.map_or(until, |known| known.min(until)));
    }

    pub fn contains(&self, key: &PartitionKey) -> bool {
        self.waiting.contains(key)
    }

    /// When they are to be looked at; `None` if none waits.
    pub fn until(&self) -> Option<Instant> {
        self.until
    }

    /// Lets those go of which `held_until` says nothing, no more than `most` at a time: as many as a reply has room for. The first
    /// that is fetched may hold the others back again, and then it is their turn before its.
    pub fn release(
        &mut self,
        most: usize,
        now: Instant,
        held_until: impl Fn(&PartitionKey) -> Option<Instant>,
    ) -> Vec<PartitionKey> {
        let mut released = Vec::new();
        if self.until.take_if(|until| *until <= now).is_none() {
            return released;
        }
        for key in self.waiting.take() {
            match held_until(&key) {
                Some(until) => self.hold(key, until, now),
                None if released.len() < most => released.push(key),
                None => self.hold(key, now, now),
            }
        }
        released
    }
}

#[cfg(test)]
mod tests {
    use firn_model::ids::TopicId;
    use uuid::Uuid;

    use super::*;

    fn key(index: i32) -> PartitionKey {
        (TopicId(Uuid::from_u128(1)), index)
    }

    #[test]
    fn whoever_waits_longest_goes_first_and_no_more_than_there_is_room_for() {
        let (now, mut held) = (Instant::now(), HeldBack::default());
        let until = now + Duration::from_millis(300);
        for index in [7, 3, 5, 3] {
            held.hold(key(index), until, now);
        }
        assert_eq!((held.until(), held.contains(&key(3))), (Some(until), true));
        assert_eq!(held.release(2, now, |_| None), [], "not yet");
        assert_eq!(held.release(2, until, |_| None), [key(7), key(3)]);
        assert!(!held.contains(&key(7)));
        held.hold(key(7), until, until);
        assert_eq!(held.release(2, until, |_| None), [key(5), key(7)], "at once, and last who has had some");
        assert_eq!((held.until(), held.release(2, until, |_| None)), (None, Vec::new()));
    }

    #[test]
    fn what_is_held_back_for_long_is_looked_at_all_the_same() {
        let (now, mut held) = (Instant::now(), HeldBack::default());
        let far = now + Duration::from_secs(3_600);
        held.hold(key(1), far, now);
        held.hold(key(2), far, now);
        let again = now + LOOK_AGAIN;
        assert_eq!(held.until(), Some(again));
        let throttled = |of: &PartitionKey| (of.1 == 1).then_some(far);
        assert_eq!(held.release(9, again, throttled), [key(2)], "it is throttled no more");
        assert_eq!((held.until(), held.contains(&key(1))), (Some(again + LOOK_AGAIN), true));
    }
}
