//! What befalls the machines: which fault comes when, whom it strikes and for how long, all of it from the seed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::machine::{MACHINES, Machine};
use crate::network::{self, CLIENTS};

/// Most that a clock gains or loses at a time.
const CLOCK_JUMP_S: i64 = 3_600;

/// What can happen to a machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Kill,
    Stop,
    /// It comes back and believes what it knew.
    Pause,
    PowerCut,
    FullDisk,
    FrozenDisk,
    SlowDisk,
    ClockJump,
    /// Two brokers do not hear each other.
    CutPair,
    /// One broker does not hear the other.
    CutOneWay,
    /// No other broker hears it, and it hears none; clients do.
    Isolated,
    /// The others do not hear it, and it hears them.
    Mute,
    /// Clients do not reach it, and brokers do.
    CutFromClients,
}

impl Kind {
    pub const ALL: [Kind; 13] = [
        Kind::Kill,
        Kind::Stop,
        Kind::Pause,
        Kind::PowerCut,
        Kind::FullDisk,
        Kind::FrozenDisk,
        Kind::SlowDisk,
        Kind::ClockJump,
        Kind::CutPair,
        Kind::CutOneWay,
        Kind::Isolated,
        Kind::Mute,
        Kind::CutFromClients,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Kill => "kill -9",
            Kind::Stop => "an orderly stop",
            Kind::Pause => "a pause (SIGSTOP, SIGCONT)",
            Kind::PowerCut => "a power cut",
            Kind::FullDisk => "a full disk",
            Kind::FrozenDisk => "a disk that hangs",
            Kind::SlowDisk => "a slow disk",
            Kind::ClockJump => "a jump of the clock",
            Kind::CutPair => "two brokers cut off from each other",
            Kind::CutOneWay => "one way between two brokers cut",
            Kind::Isolated => "a broker cut off from the others",
            Kind::Mute => "a broker that is not heard",
            Kind::CutFromClients => "a broker cut off from clients",
        }
    }
}

/// One fault, as the seed has it.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    pub kind: Kind,
    pub machine: u8,
    /// The other end, for what lies between two.
    other: u8,
    lasts: Duration,
    /// After the one before.
    after: Duration,
    amount: i64,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1} s: broker {}", self.kind.name(), self.lasts.as_secs_f64(), self.machine)?;
        match self.kind {
            Kind::CutPair => write!(f, " and broker {}", self.other),
            Kind::CutOneWay => write!(f, " is not heard by broker {}", self.other),
            Kind::ClockJump => write!(f, ", by {:+} s", self.amount),
            Kind::SlowDisk => write!(f, ", {} writes a second", self.amount),
            _ => Ok(()),
        }
    }
}

impl Fault {
    /// The ways that it cuts, from one machine to another.
    fn ways(&self) -> Vec<(u8, u8)> {
        let one = self.machine;
        let others = (1..=MACHINES).filter(|other| *other != one);
        match self.kind {
            Kind::CutPair => vec![(one, self.other), (self.other, one)],
            Kind::CutOneWay => vec![(one, self.other)],
            Kind::Isolated => others.flat_map(|other| [(one, other), (other, one)]).collect(),
            Kind::Mute => others.map(|other| (one, other)).collect(),
            Kind::CutFromClients => vec![(one, CLIENTS), (CLIENTS, one)],
            _ => Vec::new(),
        }
    }
}

/// All faults of a seed: every one of `kinds` comes once before any comes again.
pub fn of_seed(seed: u64, count: usize, kinds: &[Kind]) -> Vec<Fault> {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut deck: Vec<Kind> = Vec::new();
    let mut faults = Vec::new();
    while faults.len() < count {
        if deck.is_empty() {
            deck = kinds.to_vec();
            random.shuffle(&mut deck);
        }
        let machine = random.u8(1..=MACHINES);
        let other = (machine - 1 + random.u8(1..MACHINES)) % MACHINES + 1;
        // Some last longer than the sessions of brokers and of members.
        let lasts = if random.u8(..5) == 0 { random.u64(9_000..13_000) } else { random.u64(100..4_000) };
        let after = random.u64(200..4_000);
        let (jump, writes) = (random.i64(-CLOCK_JUMP_S..CLOCK_JUMP_S), random.i64(2..40));
        let kind = deck.pop().expect("a new deck has cards");
        let amount = if kind == Kind::ClockJump { jump } else { writes };
        let [lasts, after] = [lasts, after].map(Duration::from_millis);
        faults.push(Fault { kind, machine, other, lasts, after, amount });
    }
    faults
}

/// What is wrong now, and until when.
#[derive(Debug, Default)]
pub struct Misfortune {
    pending: Vec<(Instant, Fault)>,
    pub struck: BTreeMap<Kind, usize>,
}

impl Misfortune {
    /// Whether a fault may strike: what it would do to a machine or a way is not done already.
    pub fn admits(&self, fault: &Fault) -> bool {
        let ways: BTreeSet<_> = fault.ways().into_iter().collect();
        self.pending.iter().all(|(_, other)| {
            let theirs = other.ways();
            match (ways.is_empty(), theirs.is_empty()) {
                (true, true) => other.machine != fault.machine,
                _ => !theirs.iter().any(|way| ways.contains(way)),
            }
        })
    }

    pub fn strike(&mut self, fault: Fault, machines: &mut [Machine]) {
        let machine = &mut machines[usize::from(fault.machine - 1)];
        match fault.kind {
            Kind::Kill => machine.kill(),
            Kind::Stop => machine.ask_to_stop(),
            Kind::Pause => machine.pause(),
            Kind::PowerCut => {
                machine.kill();
                machine.cut_power_of_disk();
            }
            Kind::FullDisk => machine.fill_disk(),
            Kind::FrozenDisk => machine.freeze_disk(fault.lasts + Duration::from_secs(30)),
            Kind::SlowDisk => machine.slow_disk(u32::try_from(fault.amount).expect("a few writes")),
            Kind::ClockJump => machine.set_clock(fault.amount),
            _ => fault.ways().into_iter().for_each(|(from, to)| network::cut(from, to)),
        }
        *self.struck.entry(fault.kind).or_default() += 1;
        self.pending.push((Instant::now() + fault.lasts, fault));
    }

    /// Ends what is due.
    pub fn cure(&mut self, machines: &mut [Machine]) {
        let now = Instant::now();
        for (at, fault) in self.pending.extract_if(.., |(at, _)| *at <= now).collect::<Vec<_>>() {
            let machine = &mut machines[usize::from(fault.machine - 1)];
            match fault.kind {
                // What it waits for may be another fault's end.
                Kind::Stop if !machine.has_stopped() => {
                    assert!(now - at < Duration::from_secs(90), "broker {} does not stop", fault.machine);
                    self.pending.push((at, fault));
                }
                Kind::Kill | Kind::Stop => machine.start(),
                Kind::Pause => machine.go_on(),
                Kind::PowerCut => {
                    machine.restore_power();
                    machine.start();
                }
                Kind::FullDisk => machine.empty_disk(),
                Kind::FrozenDisk => machine.thaw_disk(),
                Kind::SlowDisk => machine.quicken_disk(),
                Kind::ClockJump => machine.set_clock(0),
                _ => fault.ways().into_iter().for_each(|(from, to)| network::mend(from, to)),
            }
        }
    }

    pub fn is_over(&self) -> bool {
        self.pending.is_empty()
    }
}

impl Fault {
    pub fn after(&self) -> Duration {
        self.after
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_has_the_same_faults_each_time_and_every_kind_before_any_comes_again() {
        let of_seed = |seed, count| of_seed(seed, count, &Kind::ALL);
        let told = |seed| of_seed(seed, 40).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(told(7), told(7));
        assert_ne!(told(7), told(8));
        let first: BTreeSet<Kind> = of_seed(7, Kind::ALL.len()).iter().map(|fault| fault.kind).collect();
        assert_eq!(first.len(), Kind::ALL.len());
        assert!(of_seed(7, 200).iter().all(|fault| fault.machine != fault.other));
    }
}
