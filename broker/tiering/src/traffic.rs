//! What goes to the store and comes from it, counted for each topic under Kafka's names (KIP-405).

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::metrics::Counter;

/// One topic's traffic, or that of all topics.
#[derive(Debug, Default)]
pub(crate) struct Traffic {
    pub copy_bytes: Counter,
    pub copy_requests: Counter,
    pub copy_errors: Counter,
    pub fetch_bytes: Counter,
    pub fetch_requests: Counter,
    pub fetch_errors: Counter,
    pub delete_requests: Counter,
    pub delete_errors: Counter,
}

/// Traffic at one moment. Names follow Kafka's `Remote{Copy,Fetch,Delete}{Bytes,Requests,Errors}PerSec`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TrafficSnapshot {
    pub remote_copy_bytes: u64,
    pub remote_copy_requests: u64,
    pub remote_copy_errors: u64,
    pub remote_fetch_bytes: u64,
    pub remote_fetch_requests: u64,
    pub remote_fetch_errors: u64,
    pub remote_delete_requests: u64,
    pub remote_delete_errors: u64,
}

impl Traffic {
    pub(crate) fn snapshot(&self) -> TrafficSnapshot {
        TrafficSnapshot {
            remote_copy_bytes: self.copy_bytes.get(),
            remote_copy_requests: self.copy_requests.get(),
            remote_copy_errors: self.copy_errors.get(),
            remote_fetch_bytes: self.fetch_bytes.get(),
            remote_fetch_requests: self.fetch_requests.get(),
            remote_fetch_errors: self.fetch_errors.get(),
            remote_delete_requests: self.delete_requests.get(),
            remote_delete_errors: self.delete_errors.get(),
        }
    }
}

/// The traffic of each topic that somebody holds a partition of.
#[derive(Debug, Default)]
pub(crate) struct Topics(Mutex<BTreeMap<String, Weak<Traffic>>>);

impl Topics {
    /// A topic's counters. They last as long as somebody holds them.
    pub(crate) fn topic(&self, name: &str) -> Arc<Traffic> {
        let mut topics = self.0.lock();
        if let Some(held) = topics.get(name).and_then(Weak::upgrade) {
            return held;
        }
        topics.retain(|_, traffic| traffic.strong_count() > 0);
        let traffic = Arc::new(Traffic::default());
        topics.insert(name.to_owned(), Arc::downgrade(&traffic));
        traffic
    }

    pub(crate) fn snapshot(&self) -> BTreeMap<String, TrafficSnapshot> {
        let topics = self.0.lock();
        topics
            .iter()
            .filter_map(|(name, traffic)| Some((name.clone(), traffic.upgrade()?.snapshot())))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topics_numbers_end_with_the_last_who_holds_it() {
        let topics = Topics::default();
        let (one, same) = (topics.topic("one"), topics.topic("one"));
        one.copy_bytes.add(3);
        same.copy_bytes.add(4);
        drop(one);
        assert_eq!(topics.snapshot()["one"].remote_copy_bytes, 7);
        drop(same);
        assert!(topics.snapshot().is_empty());
        let _other = topics.topic("other");
        assert_eq!(topics.0.lock().len(), 1, "what nobody holds takes no room");
    }
}
