//! The object store of a run: one for all brokers, which outlives them, and has faults of its own.

use std::cell::{Cell, RefCell};
use std::time::Duration;

use firn_tiering::faults::{FaultPlan, FaultyStore};
use firn_tiering::options::TierOptions;
use firn_tiering::store::Store;
use firn_tiering::tier::Tier;

/// What a bucket does as long as a run has faults.
const FAULTY: FaultPlan =
    FaultPlan { faults: 0.03, latency_max: Duration::from_millis(60), ..FaultPlan::NONE };

#[derive(Debug)]
pub struct Bucket {
    store: Store,
    plan: Cell<FaultPlan>,
    /// The ways to it of all brokers there have been.
    ways: RefCell<Vec<FaultyStore>>,
}

impl Bucket {
    pub fn new() -> Self {
        Self { store: Store::memory(), plan: Cell::new(FAULTY), ways: RefCell::default() }
    }

    /// As one broker sees it, between a start and its end.
    pub fn tier(&self, seed: u64) -> Tier {
        let (way, store) = FaultyStore::wrap(self.store.clone(), seed, self.plan.get());
        self.ways.borrow_mut().push(way);
        let options = TierOptions {
            attempt_timeout: Duration::from_secs(1),
            call_deadline: Duration::from_secs(5),
            backoff_max: Duration::from_millis(500),
            seed,
            ..TierOptions::default()
        };
        Tier::with_store(store, options)
    }

    pub fn set_outage(&self, outage: bool) {
        self.follow(FaultPlan { outage, ..self.plan.get() });
    }

    pub fn end_faults(&self) {
        self.follow(FaultPlan::NONE);
    }

    fn follow(&self, plan: FaultPlan) {
        self.plan.set(plan);
        self.ways.borrow().iter().for_each(|way| way.set_plan(plan));
    }
}
