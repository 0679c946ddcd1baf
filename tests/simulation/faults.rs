//! What befalls a run: which fault comes when, and how it ends, all of it from the seed.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use firn_storage::disk::Disk;
use firn_storage::simulated::{Faults as DiskFaults, SimulatedDisk};
use turmoil::Sim;

use crate::broker::{Broker, Death, zone};
use crate::bucket::Bucket;
use crate::shared::Shared;
use crate::story::About;
use crate::trace::Trace;

/// Most clock that a broker's machine gains or loses at a time.
const CLOCK_JUMP_MS: i64 = 300_000;
/// Room that a disk has left when it is about to be full.
const ROOM_LEFT_BYTES: u64 = 8 << 10;

/// How long work that waits for a disk takes at most, in microseconds, while nothing is wrong with the disks.
const DISK_LATENCY_US: u64 = 4_000;
/// And while they are slow.
const SLOW_DISK_US: u64 = 400_000;

/// How slow the disks are at the moment. Clones are the same.
#[derive(Debug, Clone)]
pub struct DiskLatency(Rc<Cell<u64>>);

impl Default for DiskLatency {
    fn default() -> Self {
        Self(Rc::new(Cell::new(DISK_LATENCY_US)))
    }
}

impl DiskLatency {
    /// How long the next piece of work takes.
    pub fn next(&self, random: &mut fastrand::Rng) -> Duration {
        Duration::from_micros(random.u64(..self.0.get()))
    }
}

/// What can befall a broker, or what all of them need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Dies,
    /// It is told to stop, and is started when it has.
    Stops,
    /// From a client, or from another broker; one way, or both.
    CutOff,
    HeldBack,
    SlowNetwork,
    ClockJump,
    FailingDisk,
    FullDisk,
    /// Clients still reach it, and no other broker does, or not at once.
    Isolated,
    SlowDisks,
    /// What stands in one room has one fuse.
    RoomDies,
    ZoneDies,
    StoreOutage,
}

/// Each as often as it stands here.
const KINDS: [Kind; 15] = [
    Kind::Dies,
    Kind::Dies,
    Kind::Dies,
    Kind::Stops,
    Kind::CutOff,
    Kind::HeldBack,
    Kind::SlowNetwork,
    Kind::ClockJump,
    Kind::FailingDisk,
    Kind::FullDisk,
    Kind::Isolated,
    Kind::SlowDisks,
    Kind::RoomDies,
    Kind::ZoneDies,
    Kind::StoreOutage,
];

/// What comes at random intervals until the run is over.
pub struct Faults {
    random: fastrand::Rng,
    trace: Trace,
    clients: Vec<String>,
    disk_latency: DiskLatency,
    shared: Rc<Shared>,
    next: Duration,
    /// Whom the last fault struck: misfortunes come in rows.
    struck: usize,
    /// Of what a disk does not keep, and when it next loses something.
    rot: (fastrand::Rng, Duration),
    /// How long each fault lasts, if all last equally long.
    lasts: Option<Duration>,
    /// What is wrong now, and until when.
    pending: Vec<(Duration, Cure)>,
}

/// How a fault ends.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Cure {
    /// A broker, by its number.
    Start(usize),
    /// It was asked to stop, and is started when it has.
    StartOnceStopped(usize),
    /// Between two hosts.
    Repair(String, String),
    Release(String, String),
    Latency,
    DiskLatency,
    Bucket,
    /// A machine's disk is as good as new; its broker has to start again.
    Disk(usize),
    Room(usize),
}

impl Faults {
    pub fn new(
        mut random: fastrand::Rng,
        trace: Trace,
        clients: Vec<String>,
        disk_latency: DiskLatency,
        shared: Rc<Shared>,
    ) -> Self {
        let next = Duration::from_millis(random.u64(1_000..4_000));
        let rot = (random.clone().fork(), Duration::from_secs(10));
        Self {
            random,
            trace,
            clients,
            disk_latency,
            shared,
            next,
            struck: 0,
            rot,
            lasts: None,
            pending: Vec::new(),
        }
    }

    /// Whatever befalls the brokers lasts so long.
    pub fn that_last(mut self, lasts: Duration) -> Self {
        self.lasts = Some(lasts);
        self
    }

    fn note(&self, now: Duration, what: impl std::fmt::Display) {
        self.trace.note_at(now, About::Run, "FAULT", what);
    }

    /// Called after every step: ends what is due, and begins what comes next.
    pub fn step(&mut self, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let now = sim.elapsed();
        self.end_due(now, sim, brokers);
        if now >= self.next {
            self.next = now + Duration::from_millis(self.random.u64(200..5_000));
            self.strike(now, sim, brokers);
        }
        if let Some(rotten) = self.shared.rotten
            && now >= self.rot.1
        {
            self.rot.1 = now + Duration::from_millis(self.rot.0.u64(500..4_000));
            self.rot(now, &brokers[rotten]);
        }
    }

    /// Ends what is due.
    pub fn end_due(&mut self, now: Duration, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let due: Vec<Cure> =
            self.pending.extract_if(.., |(at, _)| *at <= now).map(|(_, cure)| cure).collect();
        for cure in due {
            self.cure(now, cure, sim, brokers);
        }
    }

    /// Flips a bit of a log, below what is known to be flushed at the next start: above, what does not look whole looks like a write
    /// that was not finished. Or of what the next start has to know of what is committed.
    fn rot(&mut self, now: Duration, broker: &Broker) {
        let disk = broker.disk();
        if self.rot.0.u8(..4) == 0 {
            return self.flip_bit(now, broker, Path::new("/data/replication-offset-checkpoint"));
        }
        let points = recovery_points(&disk);
        let below = |path: &&PathBuf| {
            let log = path.parent().and_then(Path::file_name).map(|name| name.to_string_lossy().into_owned());
            let next = log.as_ref().and_then(|log| next_segment(&disk, path, log));
            next.is_some_and(|next| {
                log.and_then(|log| points.get(&log).copied()).is_some_and(|point| next <= point)
            })
        };
        let files = disk.files(Path::new("/data")).unwrap_or_default();
        let sealed: Vec<&PathBuf> = files.iter().filter(below).collect();
        if !sealed.is_empty() {
            let path = sealed[self.rot.0.usize(..sealed.len())];
            self.flip_bit(now, broker, path);
        }
    }

    fn flip_bit(&mut self, now: Duration, broker: &Broker, path: &Path) {
        let disk = broker.disk();
        let len = disk.contents(path).map_or(0, |bytes| bytes.len() as u64);
        if len > 0 {
            let (byte, bit) = (self.rot.0.u64(..len), self.rot.0.u8(..8));
            self.note(
                now,
                format_args!(
                    "the disk of {} flips bit {bit} of byte {byte} of {}",
                    broker.host(),
                    path.display()
                ),
            );
            disk.flip_bit(path, byte, bit);
        }
    }

    /// Ends everything that is wrong.
    pub fn end(&mut self, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let now = sim.elapsed();
        self.note(now, "no more faults");
        for (_, cure) in std::mem::take(&mut self.pending) {
            self.cure(now, cure, sim, brokers);
        }
        self.shared.bucket.iter().for_each(Bucket::end_faults);
    }

    /// True while the end of faults has to wait for something.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn for_a_while(&mut self, now: Duration, cure: Cure) {
        let random_ms = match self.random.u8(..4) {
            0 => self.random.u64(5_000..15_000),
            _ => self.random.u64(20..3_000),
        };
        self.pending.push((now + self.lasts.unwrap_or(Duration::from_millis(random_ms)), cure));
    }

    /// Somebody whom a broker talks with: a client, or another broker.
    fn partner(&mut self, struck: usize, brokers: &[Rc<Broker>]) -> String {
        let others = brokers.iter().enumerate().filter(|(number, _)| *number != struck);
        let others = others.map(|(_, broker)| broker.host().to_owned());
        let partners: Vec<String> = self.clients.iter().cloned().chain(others).collect();
        partners[self.random.usize(..partners.len())].clone()
    }

    fn strike(&mut self, now: Duration, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        if self.random.u8(..3) > 0 {
            self.struck = self.random.usize(..brokers.len());
        }
        let kind = KINDS[self.random.usize(..KINDS.len())];
        self.befall(kind, self.struck, now, sim, brokers);
    }

    /// Lets something befall a broker, if it can.
    pub fn befall(
        &mut self,
        kind: Kind,
        struck: usize,
        now: Duration,
        sim: &mut Sim<'_>,
        brokers: &[Rc<Broker>],
    ) {
        let broker = &brokers[struck];
        let host = broker.host();
        match kind {
            Kind::Dies => self.let_die(now, sim, struck, broker),
            Kind::Stops if broker.is_running() => {
                self.note(now, format_args!("{host} is told to stop"));
                broker.ask_to_stop();
                self.pending.push((now, Cure::StartOnceStopped(struck)));
            }
            Kind::CutOff => {
                let partner = self.partner(struck, brokers);
                self.cut_off(now, sim, host, &partner);
            }
            Kind::HeldBack => {
                let partner = self.partner(struck, brokers);
                self.hold_back(now, sim, host, &partner);
            }
            Kind::SlowNetwork => {
                let ms = self.random.u64(1..2_000);
                self.note(now, format_args!("messages take up to {ms} ms"));
                sim.set_max_message_latency(Duration::from_millis(ms));
                self.for_a_while(now, Cure::Latency);
            }
            Kind::ClockJump => {
                let ahead_ms = self.random.i64(-CLOCK_JUMP_MS..CLOCK_JUMP_MS);
                self.note(now, format_args!("the clock of {host} is {ahead_ms} ms ahead"));
                broker.clock.jump_to(ahead_ms);
            }
            Kind::FailingDisk
                if broker.is_running()
                    && !self.pending.iter().any(|(_, cure)| *cure == Cure::Disk(struck)) =>
            {
                let disk = broker.disk();
                let at = disk.operations() + self.random.u64(1..40);
                self.note(now, format_args!("the disk of {host} fails at operation {at}"));
                disk.set_faults(DiskFaults { io_error_at: Some(at), ..disk.faults() });
                self.for_a_while(now, Cure::Disk(struck));
            }
            Kind::FullDisk if broker.is_running() => {
                let disk = broker.disk();
                let Ok(space) = disk.space(std::path::Path::new("/")) else { return };
                // Records may have to leave more than that, and the metadata have room.
                let left = if self.random.bool() { ROOM_LEFT_BYTES } else { self.shared.reserve_bytes / 2 };
                let capacity = space.total - space.free + left.max(ROOM_LEFT_BYTES);
                self.note(now, format_args!("the disk of {host} has {capacity} bytes"));
                disk.set_faults(DiskFaults { capacity_bytes: Some(capacity), ..disk.faults() });
                self.for_a_while(now, Cure::Room(struck));
            }
            Kind::Isolated => {
                let is_held = self.random.bool();
                for other in brokers.iter().filter(|other| other.host() != host) {
                    match is_held {
                        true => self.hold_back(now, sim, host, other.host()),
                        false => self.cut_off_both_ways(now, sim, host, other.host()),
                    }
                }
            }
            Kind::SlowDisks => {
                let us = self.random.u64(DISK_LATENCY_US..SLOW_DISK_US);
                self.note(now, format_args!("disks take up to {us} us"));
                self.disk_latency.0.set(us);
                self.for_a_while(now, Cure::DiskLatency);
            }
            Kind::RoomDies => {
                let all = self.random.bool();
                for (number, broker) in brokers.iter().enumerate() {
                    if all || number.abs_diff(struck) <= 1 {
                        self.let_die(now, sim, number, broker);
                    }
                }
            }
            Kind::ZoneDies => {
                for (number, broker) in brokers.iter().enumerate() {
                    if zone(number) == zone(struck) {
                        self.let_die(now, sim, number, broker);
                    }
                }
            }
            Kind::StoreOutage => {
                if let Some(bucket) = &self.shared.bucket {
                    self.note(now, "the object store does not answer");
                    bucket.set_outage(true);
                    self.for_a_while(now, Cure::Bucket);
                }
            }
            Kind::Stops | Kind::FailingDisk | Kind::FullDisk => {}
        }
    }

    fn let_die(&mut self, now: Duration, sim: &mut Sim<'_>, number: usize, broker: &Broker) {
        if !broker.is_running() {
            return;
        }
        let death = Death::of(&mut self.random);
        self.note(now, format_args!("{} dies: {death:?}", broker.host()));
        broker.crash(sim, death);
        // What was wrong with the running broker went with it.
        let gone = [Cure::Disk(number), Cure::Room(number)];
        self.pending.retain(|(_, cure)| !gone.contains(cure));
        self.for_a_while(now, Cure::Start(number));
    }

    fn cut_off(&mut self, now: Duration, sim: &mut Sim<'_>, host: &str, partner: &str) {
        if self.random.bool() {
            return self.cut_off_both_ways(now, sim, host, partner);
        }
        let (from, to) = if self.random.bool() { (host, partner) } else { (partner, host) };
        self.note(now, format_args!("nothing that {from} says reaches {to}"));
        sim.partition_oneway(from, to);
        self.for_a_while(now, Cure::Repair(partner.to_owned(), host.to_owned()));
    }

    fn cut_off_both_ways(&mut self, now: Duration, sim: &mut Sim<'_>, host: &str, partner: &str) {
        self.note(now, format_args!("{partner} and {host} are cut off from each other"));
        sim.partition(partner, host);
        self.for_a_while(now, Cure::Repair(partner.to_owned(), host.to_owned()));
    }

    fn hold_back(&mut self, now: Duration, sim: &mut Sim<'_>, host: &str, partner: &str) {
        self.note(now, format_args!("what {partner} and {host} say to each other is held back"));
        sim.hold(partner, host);
        self.for_a_while(now, Cure::Release(partner.to_owned(), host.to_owned()));
    }

    /// Starts a broker, unless that is due later anyway.
    fn start_if_due(&self, sim: &mut Sim<'_>, number: usize, broker: &Broker) {
        let starts = [Cure::Start(number), Cure::StartOnceStopped(number)];
        if !self.pending.iter().any(|(_, cure)| starts.contains(cure)) {
            broker.start(sim);
        }
    }

    fn cure(&mut self, now: Duration, cure: Cure, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        match cure {
            Cure::Start(number) => {
                let broker = &brokers[number];
                self.note(now, format_args!("{} starts", broker.host()));
                broker.start(sim);
            }
            Cure::StartOnceStopped(number) if brokers[number].is_running() => {
                self.pending.push((now + Duration::from_millis(10), Cure::StartOnceStopped(number)));
            }
            Cure::StartOnceStopped(number) => {
                let broker = &brokers[number];
                self.note(now, format_args!("{} has stopped, and starts", broker.host()));
                broker.start(sim);
            }
            Cure::Repair(one, other) => {
                self.note(now, format_args!("{one} and {other} are not cut off any more"));
                sim.repair(one.as_str(), other.as_str());
            }
            Cure::Release(one, other) => {
                self.note(now, format_args!("what {one} and {other} say to each other goes on"));
                sim.release(one.as_str(), other.as_str());
            }
            Cure::Bucket => self.shared.bucket.iter().for_each(|bucket| bucket.set_outage(false)),
            Cure::DiskLatency => self.disk_latency.0.set(DISK_LATENCY_US),
            Cure::Latency => sim.set_max_message_latency(crate::run::LATENCY_MAX),
            Cure::Disk(number) => {
                let broker = &brokers[number];
                let host = broker.host();
                self.note(
                    now,
                    format_args!("the disk of {host} works again, with what it has kept, and it starts"),
                );
                broker.crash(sim, Death::of(&mut self.random));
                self.start_if_due(sim, number, broker);
            }
            Cure::Room(number) => {
                let broker = &brokers[number];
                self.note(now, format_args!("the disk of {} has room", broker.host()));
                let disk = broker.disk();
                disk.set_faults(DiskFaults { capacity_bytes: None, ..disk.faults() });
                // It may have been too full to start.
                self.start_if_due(sim, number, broker);
            }
        }
    }
}

/// By the names of logs, up to where a restart checks nothing.
fn recovery_points(disk: &SimulatedDisk) -> BTreeMap<String, i64> {
    let bytes = disk.contents(Path::new("/data/recovery-point-offset-checkpoint")).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let point = |line: &str| {
        let [topic, partition, offset] = line.split_whitespace().collect::<Vec<_>>()[..] else { return None };
        Some((format!("{topic}-{partition}"), offset.parse().ok()?))
    };
    text.lines().filter_map(point).collect()
}

/// The base offset of the segment that follows a log's file.
fn next_segment(disk: &SimulatedDisk, path: &Path, log: &str) -> Option<i64> {
    let base = |path: &Path| -> Option<i64> {
        (path.extension()? == "log").then(|| path.file_stem()?.to_str()?.parse().ok()).flatten()
    };
    let own = base(path)?;
    let others = disk.files(&Path::new("/data").join(log)).ok()?;
    others.iter().filter_map(|path| base(path)).filter(|other| *other > own).min()
}
