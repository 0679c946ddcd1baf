//! Logs that lie here and are not to be relied on: they could not be opened, or have been closed for it.

use std::collections::BTreeMap;

use firn_model::ids::TopicPartition;
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::partition::PartitionKey;

/// What is to begin anew (`anew.rs`). Nobody opens it meanwhile.
#[derive(Debug, Default)]
pub struct Unreliable {
    logs: Mutex<BTreeMap<PartitionKey, TopicPartition>>,
    arrived: Notify,
}

impl Unreliable {
    pub fn add(&self, key: PartitionKey, name: TopicPartition) {
        self.logs.lock().insert(key, name);
        self.arrived.notify_one();
    }

    pub fn contains(&self, key: &PartitionKey) -> bool {
        self.logs.lock().contains_key(key)
    }

    pub fn remove(&self, key: &PartitionKey) {
        self.logs.lock().remove(key);
    }

    pub fn all(&self) -> BTreeMap<PartitionKey, TopicPartition> {
        self.logs.lock().clone()
    }

    pub async fn until_more(&self) {
        self.arrived.notified().await;
    }
}
