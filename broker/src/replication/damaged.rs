//! Where the disk has not kept what was written, as far as anybody has noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::partition::{Partition, PartitionKey};

/// What is to be mended (`mending.rs`).
#[derive(Debug, Default)]
pub struct Damaged {
    state: Mutex<State>,
    arrived: Notify,
    /// Segments that were mended, ever.
    mended: AtomicU64,
    /// Times that everything was looked at, ever.
    scrubs: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    new: Vec<(Arc<Partition>, i64)>,
    /// By partition, the base offset of each segment that is known, and not mended yet.
    known: BTreeMap<PartitionKey, BTreeSet<i64>>,
}

impl Damaged {
    /// The segment that begins at this offset is not what it was. False if that was known.
    pub fn found(&self, partition: &Arc<Partition>, segment: i64) -> bool {
        let mut state = self.state.lock();
        let is_new = state.known.entry(partition.key()).or_default().insert(segment);
        if is_new {
            state.new.push((partition.clone(), segment));
            self.arrived.notify_one();
        }
        is_new
    }

    /// It is what it was, or nobody's any more.
    pub fn is_over(&self, partition: &Partition, segment: i64) {
        let mut state = self.state.lock();
        if let Some(known) = state.known.get_mut(&partition.key()) {
            known.remove(&segment);
            if known.is_empty() {
                state.known.remove(&partition.key());
            }
        }
    }

    /// The partition is gone: nothing of it is kept.
    pub fn forget(&self, partition: &Partition) {
        let mut state = self.state.lock();
        state.known.remove(&partition.key());
        state.new.retain(|(one, _)| one.key() != partition.key());
    }

    pub async fn until_more(&self) {
        self.arrived.notified().await;
    }

    /// What was not known at the last call.
    pub fn take(&self) -> Vec<(Arc<Partition>, i64)> {
        std::mem::take(&mut self.state.lock().new)
    }

    /// Segments that are known and not mended yet.
    pub fn left(&self) -> usize {
        self.state.lock().known.values().map(BTreeSet::len).sum()
    }

    pub fn count_mended(&self) {
        self.mended.fetch_add(1, Ordering::Relaxed);
    }

    pub fn count_scrub(&self) {
        self.scrubs.fetch_add(1, Ordering::Relaxed);
    }

    /// Times that everything was looked at since the broker began.
    pub fn scrubs(&self) -> u64 {
        self.scrubs.load(Ordering::Relaxed)
    }

    /// Segments that were mended since the broker began.
    pub fn mended(&self) -> u64 {
        self.mended.load(Ordering::Relaxed)
    }
}
