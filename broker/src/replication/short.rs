//! Replicas here for which the disk has no room: what a client or a leader sent last could not be appended.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::partition::PartitionKey;

/// What others are to lead, and not to wait for (`registration.rs`), each with the leader epoch in which that was so.
#[derive(Debug, Default)]
pub struct Short(Mutex<BTreeMap<PartitionKey, i32>>);

impl Short {
    pub fn add(&self, key: PartitionKey, leader_epoch: i32) {
        self.0.lock().insert(key, leader_epoch);
    }

    pub fn remove(&self, key: &PartitionKey) {
        self.0.lock().remove(key);
    }

    pub fn all(&self) -> BTreeMap<PartitionKey, i32> {
        self.0.lock().clone()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }
}
