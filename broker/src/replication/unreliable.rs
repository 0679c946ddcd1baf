//! Logs that lie here and are not to be relied on: they could not be opened, or have been closed for it.

use std::collections::BTreeMap;

use firn_model::ids::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::partition::PartitionKey;

/// Why a log is not to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Why {
    /// It does not open, or is not there.
    Unopened,
    /// It is being closed: nothing is done with it yet.
    Closing,
    /// It was closed: parts of it are not what they were.
    Closed,
}

/// A log that is not to be relied on.
#[derive(Debug, Clone)]
pub struct Log {
    pub name: TopicPartition,
    pub why: Why,
    /// Nothing is asked of a leader in this broker's name any more, in this leader epoch or a later one.
    pub leader_epoch: i32,
}

/// What is to begin anew (`anew.rs`). Nobody opens it meanwhile.
#[derive(Debug, Default)]
pub struct Unreliable {
    logs: Mutex<BTreeMap<PartitionKey, Log>>,
    arrived: Notify,
}

impl Unreliable {
    pub fn add(&self, key: PartitionKey, log: Log) {
        self.logs.lock().insert(key, log);
        self.arrived.notify_one();
    }

    pub fn contains(&self, key: &PartitionKey) -> bool {
        self.logs.lock().contains_key(key)
    }

    pub fn remove(&self, key: &PartitionKey) {
        self.logs.lock().remove(key);
    }

    pub fn all(&self) -> BTreeMap<PartitionKey, Log> {
        self.logs.lock().clone()
    }

    pub async fn until_more(&self) {
        self.arrived.notified().await;
    }
}
