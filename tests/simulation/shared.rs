//! What all clients of a run share: the topic, the history, and the promises that the history does not know of.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use firn_protocol::library::protocol::StrBytes;
use firn_tests::history::History;
use uuid::Uuid;

use crate::bucket::Bucket;
use crate::replicas::Promised;
use crate::story::{About, Broken};
use crate::trace::Trace;

pub const TOPIC: &str = "ledger";
pub const PARTITIONS: i32 = 3;
pub const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);
/// How long a partition may go without an acknowledgement while one misfortune comes at a time, and its replicas, once that is over, out of
/// sync. A client may wait for its whole patience for a broker that is gone, and once more where it asks for another one.
pub const AWAY_MAX: Duration = Duration::from_secs(16);
/// How long after the last fault a partition may take to be writable.
pub const WRITABLE_WITHIN: Duration = Duration::from_secs(30);

/// How the topic stands by the latest metadata that a broker knows.
#[derive(Debug, Default, Clone, Copy)]
pub struct Standing {
    /// Up to which change they are known.
    pub applied_to: i64,
    /// Whether each replica is in sync.
    pub is_whole: bool,
    /// Whether each partition has its replicas in different zones.
    pub is_spread: bool,
}

/// What all clients of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Where each broker is.
    pub brokers: Vec<String>,
    pub replication_factor: usize,
    /// `replica.lag.time.max.ms`; it may be shorter than the brokers' leases.
    pub lag_ms: u64,
    /// `firn.disk.reserve.bytes`: what records have to leave, and the metadata need not.
    pub reserve_bytes: u64,
    /// Where what is older goes.
    pub bucket: Option<Bucket>,
    /// The broker whose disk does not keep everything, by its number.
    pub rotten: Option<usize>,
    pub trace: Trace,
    pub history: RefCell<History>,
    pub promised: Promised,
    /// The topic's id, once it is there.
    pub topic: Cell<Option<Uuid>>,
    /// Faults and new work have ended.
    pub over: Cell<bool>,
    /// Promises that were broken, and that the history does not know of.
    pub broken: RefCell<Vec<Broken>>,
    producers: Cell<u32>,
    /// Where each consumer of a partition stands.
    positions: RefCell<BTreeMap<(i32, u32), i64>>,
    /// Up to where somebody wanted records of a partition to be deleted.
    deleted: RefCell<BTreeMap<i32, i64>>,
    /// When a record of each partition was last acknowledged.
    pub acknowledged: RefCell<BTreeMap<i32, Duration>>,
    /// Brokers that say that they have no room for records, by their numbers.
    pub without_room: RefCell<BTreeSet<usize>>,
    /// How the topic stands.
    pub standing: Cell<Standing>,
    /// Clients that have not ended.
    pub working: Cell<u32>,
}

impl Shared {
    pub fn new(
        brokers: Vec<String>,
        replication_factor: usize,
        lag_ms: u64,
        reserve_bytes: u64,
        tiered: bool,
        rotten: Option<usize>,
        trace: Trace,
    ) -> Rc<Self> {
        Rc::new(Self {
            rotten,
            brokers,
            replication_factor,
            lag_ms,
            reserve_bytes,
            bucket: tiered.then(Bucket::new),
            trace,
            history: RefCell::default(),
            promised: Promised::default(),
            topic: Cell::new(None),
            over: Cell::new(false),
            broken: RefCell::default(),
            producers: Cell::new(0),
            positions: RefCell::default(),
            deleted: RefCell::default(),
            acknowledged: RefCell::default(),
            without_room: RefCell::default(),
            standing: Cell::default(),
            working: Cell::new(0),
        })
    }

    pub fn next_producer(&self) -> u32 {
        self.producers.replace(self.producers.get() + 1)
    }

    /// A consumer stands there.
    pub fn has_read(&self, consumer: u32, partition: i32, next: i64) {
        self.positions.borrow_mut().insert((partition, consumer), next);
    }

    /// Up to where all consumers of a partition have read it.
    pub fn read_by_all(&self, partition: i32) -> i64 {
        let positions = self.positions.borrow();
        let own = positions.range((partition, 0)..=(partition, u32::MAX)).map(|(_, next)| *next);
        own.min().unwrap_or(0)
    }

    /// Somebody wants all of a partition below an offset to be deleted.
    pub fn deletes(&self, partition: i32, before: i64) {
        let mut deleted = self.deleted.borrow_mut();
        let known = deleted.entry(partition).or_default();
        *known = (*known).max(before);
    }

    /// Up to where that is so.
    pub fn deleted(&self, partition: i32) -> i64 {
        self.deleted.borrow().get(&partition).copied().unwrap_or(0)
    }

    /// A promise was broken, of this partition if it is of one.
    pub fn broke(&self, partition: Option<i32>, what: String) {
        self.broke_at(turmoil::sim_elapsed().unwrap_or_default(), partition, what);
    }

    /// The same, as whoever is on none of the hosts sees it.
    pub fn broke_at(&self, at: Duration, partition: Option<i32>, what: String) {
        self.trace.note_at(at, partition.map_or(About::Others, About::Partition), "BROKEN", &what);
        self.broken.borrow_mut().push(Broken { at, partition, what });
    }

    pub async fn topic(&self) -> Uuid {
        loop {
            if let Some(topic) = self.topic.get() {
                return topic;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }
}

pub fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}
