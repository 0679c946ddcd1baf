//! The broker of a run: a whole one, with its disk, which outlives its crashes.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;

use firn::node::Node;
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_storage::simulated::{Faults as DiskFaults, PowerCut, SimulatedDisk};
use tokio::sync::Notify;
use turmoil::Sim;

use crate::environment::{VirtualClock, environment};
use crate::replicas::Watch;
use crate::shared::Shared;
use crate::story::About;
use crate::trace::Trace;

pub const PORT: u16 = 9092;

/// The host of a broker, by its number from 0.
pub fn host(number: usize) -> String {
    format!("broker-{number}")
}

/// How many zones there are.
pub const ZONES: usize = 3;

/// The zone that a broker stands in.
pub fn zone(number: usize) -> usize {
    number % ZONES
}

/// Small segments, so that logs roll; chores that come round several times in a run.
const PROPERTIES: &str = "\
    listeners=PLAINTEXT://0.0.0.0:9092\n\
    log.dirs=/data\n\
    firn.http.port=-1\n\
    auto.create.topics.enable=false\n\
    offsets.topic.num.partitions=2\n\
    broker.session.timeout.ms=2000\n\
    broker.heartbeat.interval.ms=300\n\
    log.flush.offset.checkpoint.interval.ms=3000\n\
    log.cleaner.backoff.ms=4000\n\
    log.cleaner.threads=1\n\
    firn.replica.rebalance.check.interval.seconds=7\n\
    leader.imbalance.check.interval.seconds=5\n\
    num.recovery.threads.per.data.dir=1\n";

/// Of a broker with an object store.
const TIERED: &str = "\
    firn.store.url=memory://\n\
    firn.store.garbage.grace.ms=8000\n\
    remote.log.manager.task.interval.ms=1000\n\
    log.retention.check.interval.ms=2000\n";

/// Of a broker whose disk does not keep everything.
const ROTTEN: &str = "firn.log.scrub.interval.ms=2000\nfirn.log.scrub.max.bytes.per.second=1e9\n";

/// What the paths of the logs of the topic that is judged have in common. A disk that lies of a broker's own files leaves
/// none that starts again, which is safe, and tells nothing.
const LOGS: &str = "/ledger-";

/// How a broker dies.
#[derive(Debug, Clone, Copy)]
pub enum Death {
    /// The machine lives on, with all that it still has to write.
    Killed,
    PowerCut(PowerCut),
}

impl Death {
    pub fn of(random: &mut fastrand::Rng) -> Self {
        let seed = random.u64(..);
        match random.u8(..4) {
            0 => Death::Killed,
            1 => Death::PowerCut(PowerCut::DropUnsynced),
            2 => Death::PowerCut(PowerCut::TornLastWrite { seed }),
            _ => Death::PowerCut(PowerCut::Some { seed }),
        }
    }
}

pub struct Broker {
    number: usize,
    /// How many of the brokers are listed as voters, the first ones.
    voters: usize,
    host: String,
    pub clock: VirtualClock,
    shared: Rc<Shared>,
    trace: Trace,
    disk: RefCell<SimulatedDisk>,
    lying_disk: bool,
    starts: Cell<u64>,
    seed: u64,
    running: Cell<bool>,
    /// Of the broker that runs now.
    stop: RefCell<Rc<Notify>>,
}

impl Broker {
    pub fn new(
        number: usize,
        voters: usize,
        seed: u64,
        lying_disk: bool,
        shared: Rc<Shared>,
        trace: Trace,
    ) -> Rc<Self> {
        let broker = Self {
            number,
            voters,
            host: host(number),
            clock: VirtualClock::default(),
            shared,
            trace,
            disk: RefCell::new(SimulatedDisk::new()),
            lying_disk,
            starts: Cell::new(0),
            seed,
            running: Cell::new(false),
            stop: RefCell::default(),
        };
        broker.watch_disk();
        Rc::new(broker)
    }

    pub fn host(&self) -> &str {
        &self.host
    }

    pub fn disk(&self) -> SimulatedDisk {
        self.disk.borrow().clone()
    }

    pub fn is_running(&self) -> bool {
        self.running.get()
    }

    /// From a start to a stop, or to wherever a crash cuts it off.
    pub async fn life(self: Rc<Self>) -> turmoil::Result {
        self.running.set(true);
        let stop = Rc::new(Notify::new());
        self.stop.replace(stop.clone());
        let start = self.starts.replace(self.starts.get() + 1);
        let address = |number| format!("{}:{PORT}", turmoil::lookup(host(number)));
        let voters = (0..self.voters).map(|number| format!("{number}@{}", address(number)));
        let factor = self.shared.replication_factor;
        let text = format!(
            "{PROPERTIES}node.id={}\nbroker.rack={}\nadvertised.listeners=PLAINTEXT://{}\n\
             controller.quorum.voters={}\nreplica.lag.time.max.ms={}\nfirn.disk.reserve.bytes={}\noffsets.topic.replication.factor={factor}\nmin.insync.replicas={}\n",
            self.number,
            zone(self.number),
            address(self.number),
            voters.collect::<Vec<_>>().join(","),
            self.shared.lag_ms,
            self.shared.reserve_bytes,
            // Of three, one may be away.
            factor.div_ceil(2),
        ) + self.shared.bucket.as_ref().map_or("", |_| TIERED)
            + self.shared.rotten.map_or("", |_| ROTTEN);
        let parsed = BrokerConfig::from_properties(&properties::parse(&text)?)?;
        assert_eq!(parsed.warnings, Vec::<String>::new());
        let seed = self.seed ^ (start << 32);
        let tier = self.shared.bucket.as_ref().map(|bucket| bucket.tier(seed));
        let environment = environment(self.disk(), self.clock.clone(), seed);
        let started = Node::start_with_tier(parsed.config, environment, tier);
        match started.await {
            Ok(node) => {
                self.trace.note(About::Run, &self.host, format_args!("serves since start {start}"));
                let disk = self.disk();
                disk.set_faults(DiskFaults { sync_lies: self.lying_disk.then_some(LOGS), ..disk.faults() });
                let watch = Watch::new(self.number, self.shared.clone());
                tokio::select! {
                    () = stop.notified() => {}
                    () = watch.watch(&node.context) => {}
                    why = node.ended() => self.trace.note(About::Run, &self.host, format_args!("{why}")),
                }
                self.trace.note(About::Run, &self.host, format_args!("stopped: {:?}", node.stop().await));
            }
            // A disk that is full or fails may keep a broker from starting; nothing else may.
            Err(error) => {
                self.trace.note(About::Run, &self.host, format_args!("does not start: {error}"));
                if !self.disk_is_faulty() {
                    self.shared.broke(None, format!("{} does not start: {error}", self.host));
                }
            }
        }
        self.running.set(false);
        Ok(())
    }

    fn disk_is_faulty(&self) -> bool {
        self.disk().faults() != DiskFaults::default()
    }

    pub fn ask_to_stop(&self) {
        self.stop.borrow().notify_one();
    }

    /// Starts the broker, if it does not run.
    pub fn start(&self, sim: &mut Sim<'_>) {
        if !self.is_running() {
            // Until it has been given a turn, it does not say so itself.
            self.running.set(true);
            sim.bounce(self.host.as_str());
        }
    }

    /// The process ends where it stands, by this. What the next start finds is what that leaves.
    pub fn crash(&self, sim: &mut Sim<'_>, death: Death) {
        sim.crash(self.host.as_str());
        self.running.set(false);
        let after = match death {
            Death::Killed => self.disk().after_kill(),
            Death::PowerCut(cut) => self.disk().after_power_cut(cut),
        };
        self.disk.replace(after);
        self.watch_disk();
    }

    /// Every change of the disk is part of the trace: two runs that differ in one write differ in their hashes.
    fn watch_disk(&self) {
        let disk = self.disk.borrow();
        let (trace, who) = (self.trace.clone(), format!("disk {}", self.number));
        disk.set_probe(Some(Arc::new(
            move |_: &SimulatedDisk, number, operation, path: &std::path::Path| {
                trace.note(About::Disk, &who, format_args!("{number} {operation:?} {}", path.display()));
            },
        )));
    }
}
