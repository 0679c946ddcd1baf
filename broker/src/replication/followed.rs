//! Whom each follower here fetches from, as the metadata say.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::partition::{Partition, PartitionKey};

/// Which partitions are fetched from which broker.
#[derive(Debug, Default)]
pub struct Followed {
    inner: Mutex<Inner>,
    arrived: Notify,
}

#[derive(Debug, Default)]
struct Inner {
    leaders: BTreeMap<PartitionKey, i32>,
    sources: BTreeMap<i32, Arc<Source>>,
    /// Brokers that nothing was fetched from before.
    new: Vec<i32>,
}

/// What has changed of the partitions that one broker leads and this one follows.
#[derive(Debug, Default)]
pub struct Source {
    changes: Mutex<BTreeMap<PartitionKey, Option<Arc<Partition>>>>,
    changed: Notify,
}

impl Followed {
    /// The partition is fetched from `leader` from now on, or from nobody. It may follow the same in another epoch.
    pub fn set(&self, partition: &Arc<Partition>, leader: Option<i32>) {
        let key = partition.key();
        let mut inner = self.inner.lock();
        let before = match leader {
            Some(leader) => inner.leaders.insert(key, leader),
            None => inner.leaders.remove(&key),
        };
        if let Some(before) = before.filter(|before| leader != Some(*before)) {
            inner.source(before).push(key, None);
        }
        if let Some(leader) = leader {
            inner.source(leader).push(key, Some(partition.clone()));
        }
        if !inner.new.is_empty() {
            self.arrived.notify_one();
        }
    }

    pub fn source(&self, leader: i32) -> Arc<Source> {
        self.inner.lock().source(leader)
    }

    /// Brokers that something is to be fetched from, and was not before the last call; waits for one.
    pub async fn new_sources(&self) -> Vec<i32> {
        loop {
            let new = std::mem::take(&mut self.inner.lock().new);
            if !new.is_empty() {
                return new;
            }
            self.arrived.notified().await;
        }
    }
}

impl Inner {
    fn source(&mut self, leader: i32) -> Arc<Source> {
        let source = self.sources.entry(leader).or_insert_with(|| {
            self.new.push(leader);
            Arc::default()
        });
        source.clone()
    }
}

impl Source {
    fn push(&self, key: PartitionKey, partition: Option<Arc<Partition>>) {
        self.changes.lock().insert(key, partition);
        self.changed.notify_one();
    }

    /// What has changed since the last call; `None` stands for a partition that is not fetched from there any more.
    pub fn take(&self) -> BTreeMap<PartitionKey, Option<Arc<Partition>>> {
        std::mem::take(&mut self.changes.lock())
    }

    /// Resolves once partitions are waiting to be fetched.
    pub async fn until_more(&self) {
        while !self.changes.lock().values().any(Option::is_some) {
            self.changed.notified().await;
        }
    }
}
