//! What befalls a run: which fault comes when, and how it ends, all of it from the seed.

use std::rc::Rc;
use std::time::Duration;

use firn_storage::disk::Disk;
use firn_storage::simulated::{Faults as DiskFaults, PowerCut};
use turmoil::Sim;

use crate::broker::Broker;
use crate::trace::Trace;

/// Most clock that a broker's machine gains or loses at a time.
const CLOCK_JUMP_MS: i64 = 300_000;
/// Room that a disk has left when it is about to be full.
const ROOM_LEFT_BYTES: u64 = 8 << 10;

/// What comes at random intervals until the run is over.
pub struct Faults {
    random: fastrand::Rng,
    trace: Trace,
    clients: Vec<String>,
    next: Duration,
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
    /// A machine's disk is as good as new; its broker has to start again.
    Disk(usize),
    Room(usize),
}

impl Faults {
    pub fn new(mut random: fastrand::Rng, trace: Trace, clients: Vec<String>) -> Self {
        let next = Duration::from_millis(random.u64(1_000..4_000));
        Self { random, trace, clients, next, pending: Vec::new() }
    }

    fn note(&self, now: Duration, what: impl std::fmt::Display) {
        self.trace.note_at(now, "FAULT", what);
    }

    /// Called after every step: ends what is due, and begins what comes next.
    pub fn step(&mut self, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let now = sim.elapsed();
        let due: Vec<Cure> =
            self.pending.extract_if(.., |(at, _)| *at <= now).map(|(_, cure)| cure).collect();
        for cure in due {
            self.cure(now, cure, sim, brokers);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.random.u64(200..5_000));
            self.strike(now, sim, brokers);
        }
    }

    /// Ends everything that is wrong.
    pub fn end(&mut self, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let now = sim.elapsed();
        self.note(now, "no more faults");
        for (_, cure) in std::mem::take(&mut self.pending) {
            self.cure(now, cure, sim, brokers);
        }
    }

    /// True while the end of faults has to wait for something.
    pub fn is_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    fn for_a_while(&mut self, now: Duration, cure: Cure) {
        let lasts = match self.random.u8(..4) {
            0 => self.random.u64(5_000..15_000),
            _ => self.random.u64(20..3_000),
        };
        self.pending.push((now + Duration::from_millis(lasts), cure));
    }

    /// Somebody whom a broker talks with: a client, or another broker.
    fn partner(&mut self, struck: usize, brokers: &[Rc<Broker>]) -> String {
        let others = brokers.iter().enumerate().filter(|(number, _)| *number != struck);
        let others = others.map(|(_, broker)| broker.host().to_owned());
        let partners: Vec<String> = self.clients.iter().cloned().chain(others).collect();
        partners[self.random.usize(..partners.len())].clone()
    }

    fn strike(&mut self, now: Duration, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let struck = self.random.usize(..brokers.len());
        let broker = &brokers[struck];
        let host = broker.host();
        let partner = self.partner(struck, brokers);
        match self.random.u8(..11) {
            0..=2 if broker.is_running() => {
                let seed = self.random.u64(..);
                let cut = match self.random.u8(..4) {
                    0 => PowerCut::DropUnsynced,
                    1 => PowerCut::KeepAll,
                    2 => PowerCut::TornLastWrite { seed },
                    _ => PowerCut::Some { seed },
                };
                self.note(now, format_args!("the power of {host} goes: {cut:?}"));
                broker.crash(sim, cut);
                // What was wrong with the running broker went with it.
                let gone = [Cure::Disk(struck), Cure::Room(struck)];
                self.pending.retain(|(_, cure)| !gone.contains(cure));
                self.for_a_while(now, Cure::Start(struck));
            }
            3 if broker.is_running() => {
                self.note(now, format_args!("{host} is told to stop"));
                broker.ask_to_stop();
                self.pending.push((now, Cure::StartOnceStopped(struck)));
            }
            4 => {
                let both = self.random.bool();
                let how = if both { "" } else { ", one way" };
                self.note(now, format_args!("{partner} and {host} are cut off from each other{how}"));
                match both {
                    true => sim.partition(partner.as_str(), host),
                    false if self.random.bool() => sim.partition_oneway(partner.as_str(), host),
                    false => sim.partition_oneway(host, partner.as_str()),
                }
                self.for_a_while(now, Cure::Repair(partner, host.to_owned()));
            }
            5 => {
                self.note(now, format_args!("what {partner} and {host} say to each other is held back"));
                sim.hold(partner.as_str(), host);
                self.for_a_while(now, Cure::Release(partner, host.to_owned()));
            }
            6 => {
                let ms = self.random.u64(1..2_000);
                self.note(now, format_args!("messages take up to {ms} ms"));
                sim.set_max_message_latency(Duration::from_millis(ms));
                self.for_a_while(now, Cure::Latency);
            }
            7 => {
                let ahead_ms = self.random.i64(-CLOCK_JUMP_MS..CLOCK_JUMP_MS);
                self.note(now, format_args!("the clock of {host} is {ahead_ms} ms ahead"));
                broker.clock.jump_to(ahead_ms);
            }
            8 if broker.is_running() && !self.pending.iter().any(|(_, cure)| *cure == Cure::Disk(struck)) => {
                let disk = broker.disk();
                let at = disk.operations() + self.random.u64(1..40);
                self.note(now, format_args!("the disk of {host} fails at operation {at}"));
                disk.set_faults(DiskFaults { io_error_at: Some(at), ..disk.faults() });
                self.for_a_while(now, Cure::Disk(struck));
            }
            // Clients still reach it, and no other broker does.
            10 if brokers.len() > 1 => {
                self.note(now, format_args!("{host} and all other brokers are cut off from each other"));
                for other in brokers.iter().filter(|other| other.host() != host) {
                    sim.partition(other.host(), host);
                    self.for_a_while(now, Cure::Repair(other.host().to_owned(), host.to_owned()));
                }
            }
            9 if broker.is_running() => {
                let disk = broker.disk();
                let Ok(space) = disk.space(std::path::Path::new("/")) else { return };
                let capacity = space.total - space.free + ROOM_LEFT_BYTES;
                self.note(now, format_args!("the disk of {host} has {capacity} bytes"));
                disk.set_faults(DiskFaults { capacity_bytes: Some(capacity), ..disk.faults() });
                self.for_a_while(now, Cure::Room(struck));
            }
            _ => {}
        }
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
            Cure::Latency => sim.set_max_message_latency(crate::run::LATENCY_MAX),
            Cure::Disk(number) => {
                let broker = &brokers[number];
                let host = broker.host();
                self.note(
                    now,
                    format_args!("the disk of {host} works again, with what it has kept, and it starts"),
                );
                broker.crash(sim, PowerCut::DropUnsynced);
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
