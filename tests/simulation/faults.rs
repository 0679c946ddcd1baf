//! What befalls a run: which fault comes when, and how it ends, all of it from the seed.

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
    Start,
    /// It was asked to stop, and is started when it has.
    StartOnceStopped,
    Repair(String),
    Release(String),
    Latency,
    /// The machine's disk is as good as new; its broker has to start again.
    Disk,
    Room,
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
    pub fn step(&mut self, sim: &mut Sim<'_>, broker: &Broker) {
        let now = sim.elapsed();
        let due: Vec<Cure> =
            self.pending.extract_if(.., |(at, _)| *at <= now).map(|(_, cure)| cure).collect();
        for cure in due {
            self.cure(now, cure, sim, broker);
        }
        if now >= self.next {
            self.next = now + Duration::from_millis(self.random.u64(200..5_000));
            self.strike(now, sim, broker);
        }
    }

    /// Ends everything that is wrong.
    pub fn end(&mut self, sim: &mut Sim<'_>, broker: &Broker) {
        let now = sim.elapsed();
        self.note(now, "no more faults");
        for (_, cure) in std::mem::take(&mut self.pending) {
            self.cure(now, cure, sim, broker);
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

    fn strike(&mut self, now: Duration, sim: &mut Sim<'_>, broker: &Broker) {
        let client = self.clients[self.random.usize(..self.clients.len())].clone();
        match self.random.u8(..10) {
            0..=2 if broker.is_running() => {
                let seed = self.random.u64(..);
                let cut = match self.random.u8(..4) {
                    0 => PowerCut::DropUnsynced,
                    1 => PowerCut::KeepAll,
                    2 => PowerCut::TornLastWrite { seed },
                    _ => PowerCut::Some { seed },
                };
                self.note(now, format_args!("the power goes: {cut:?}"));
                broker.crash(sim, cut);
                // What was wrong with the running broker went with it.
                self.pending.retain(|(_, cure)| !matches!(cure, Cure::Disk | Cure::Room));
                self.for_a_while(now, Cure::Start);
            }
            3 if broker.is_running() => {
                self.note(now, "the broker is told to stop");
                broker.ask_to_stop();
                self.pending.push((now, Cure::StartOnceStopped));
            }
            4 => {
                let both = self.random.bool();
                self.note(now, format_args!("{client} is cut off{}", if both { "" } else { ", one way" }));
                match both {
                    true => sim.partition(client.as_str(), broker.host()),
                    false if self.random.bool() => sim.partition_oneway(client.as_str(), broker.host()),
                    false => sim.partition_oneway(broker.host(), client.as_str()),
                }
                self.for_a_while(now, Cure::Repair(client));
            }
            5 => {
                self.note(now, format_args!("what {client} says and hears is held back"));
                sim.hold(client.as_str(), broker.host());
                self.for_a_while(now, Cure::Release(client));
            }
            6 => {
                let ms = self.random.u64(1..2_000);
                self.note(now, format_args!("messages take up to {ms} ms"));
                sim.set_max_message_latency(Duration::from_millis(ms));
                self.for_a_while(now, Cure::Latency);
            }
            7 => {
                let ahead_ms = self.random.i64(-CLOCK_JUMP_MS..CLOCK_JUMP_MS);
                self.note(now, format_args!("the broker's clock is {ahead_ms} ms ahead"));
                broker.clock.jump_to(ahead_ms);
            }
            8 if broker.is_running() && !self.pending.iter().any(|(_, cure)| *cure == Cure::Disk) => {
                let disk = broker.disk();
                let at = disk.operations() + self.random.u64(1..40);
                self.note(now, format_args!("the disk fails at operation {at}"));
                disk.set_faults(DiskFaults { io_error_at: Some(at), ..disk.faults() });
                self.for_a_while(now, Cure::Disk);
            }
            9 if broker.is_running() => {
                let disk = broker.disk();
                let Ok(space) = disk.space(std::path::Path::new("/")) else { return };
                let capacity = space.total - space.free + ROOM_LEFT_BYTES;
                self.note(now, format_args!("the disk has {capacity} bytes"));
                disk.set_faults(DiskFaults { capacity_bytes: Some(capacity), ..disk.faults() });
                self.for_a_while(now, Cure::Room);
            }
            _ => {}
        }
    }

    /// Starts the broker, unless that is due later anyway.
    fn start_if_due(&self, sim: &mut Sim<'_>, broker: &Broker) {
        let starts = |cure: &Cure| matches!(cure, Cure::Start | Cure::StartOnceStopped);
        if !self.pending.iter().any(|(_, cure)| starts(cure)) {
            broker.start(sim);
        }
    }

    fn cure(&mut self, now: Duration, cure: Cure, sim: &mut Sim<'_>, broker: &Broker) {
        match cure {
            Cure::Start => {
                self.note(now, "the broker starts");
                broker.start(sim);
            }
            Cure::StartOnceStopped if broker.is_running() => {
                self.pending.push((now + Duration::from_millis(10), Cure::StartOnceStopped));
            }
            Cure::StartOnceStopped => {
                self.note(now, "the broker has stopped, and starts");
                broker.start(sim);
            }
            Cure::Repair(client) => {
                self.note(now, format_args!("{client} is back"));
                sim.repair(client.as_str(), broker.host());
            }
            Cure::Release(client) => {
                self.note(now, format_args!("what {client} says and hears goes on"));
                sim.release(client.as_str(), broker.host());
            }
            Cure::Latency => sim.set_max_message_latency(crate::run::LATENCY_MAX),
            Cure::Disk => {
                self.note(now, "the disk works again, with what it has kept, and the broker starts");
                broker.crash(sim, PowerCut::DropUnsynced);
                self.start_if_due(sim, broker);
            }
            Cure::Room => {
                self.note(now, "the disk has room");
                let disk = broker.disk();
                disk.set_faults(DiskFaults { capacity_bytes: None, ..disk.faults() });
                // It may have been too full to start.
                self.start_if_due(sim, broker);
            }
        }
    }
}
