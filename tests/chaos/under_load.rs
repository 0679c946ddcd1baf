//! Faults one after another, and at the same time, while producers and groups go on; then the history of all that they were
//! told is judged.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use firn_tests::checker::{Kind as Broken, check};
use firn_tests::faults::FileSystem;
use firn_tests::ledger;
use firn_tests::questions::Questions;

use crate::clients::{Groups, Producers};
use crate::faults::{Fault, Kind, Misfortune, of_seed};
use crate::machine::{self, Equipment, Machine};

const TOPIC: &str = "ledger";
const OFFSETS: (&str, i32) = ("__consumer_offsets", 3);
const PARTITIONS: i32 = 6;
const PRODUCERS: usize = 4;
/// Records a second of each producer.
const RATE: u32 = 700;
/// Members of each group.
const GROUPS: [usize; 2] = [1, 2];
/// Acknowledgements that are waited for before the first fault, and after the last.
const STEADY: u64 = 5_000;
const TOLD_EVERY: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, Copy)]
pub struct Plan {
    pub faults: usize,
    pub seed: u64,
    pub records: u64,
    pub file_system: FileSystem,
}

/// How long nothing was acknowledged to anybody.
#[derive(Debug)]
struct Gaps {
    acknowledged: u64,
    since: Instant,
    longest: Duration,
}

impl Gaps {
    fn look(&mut self, acknowledged: u64) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.since);
        if acknowledged != self.acknowledged {
            (self.acknowledged, self.since) = (acknowledged, now);
        }
    }
}

struct Run {
    plan: Plan,
    began: Instant,
    machines: Vec<Machine>,
    producers: Producers,
    misfortune: Misfortune,
    gaps: Gaps,
    told: Instant,
}

impl Run {
    fn say(&self, what: impl std::fmt::Display) {
        println!("{:>8.1} s  {what}", self.began.elapsed().as_secs_f64());
    }

    /// A moment of the run: what is due ends, and what is to be told is told.
    fn step(&mut self) {
        self.misfortune.cure(&mut self.machines);
        self.machines.iter_mut().for_each(Machine::assert_running);
        self.gaps.look(self.producers.acknowledged());
        if self.told.elapsed() >= TOLD_EVERY {
            self.told = Instant::now();
            let struck: usize = self.misfortune.struck.values().sum();
            self.say(format_args!(
                "{struck} faults, {} records acknowledged, longest write gap {:.1} s",
                self.gaps.acknowledged,
                self.gaps.longest.as_secs_f64()
            ));
        }
        std::thread::sleep(Duration::from_millis(5));
    }

    fn strike(&mut self, number: usize, fault: Fault) {
        let due = Instant::now() + fault.after();
        while Instant::now() < due || !self.misfortune.admits(&fault) {
            self.step();
        }
        self.say(format_args!("fault {number} of seed {}: {fault}", self.plan.seed));
        self.misfortune.strike(fault, &mut self.machines);
    }
}

pub fn run(plan: &Plan) -> ExitCode {
    let mut kinds = Kind::ALL.to_vec();
    if !Machine::can_be_slow() {
        println!(
            "without a slow disk: this kernel has no control group that slows one down (blkio, version 1)"
        );
        kinds.retain(|kind| *kind != Kind::SlowDisk);
    }
    let faults = of_seed(plan.seed, plan.faults, &kinds);
    let equipment = Equipment { file_system: plan.file_system, disk_mib: 2048, own_clock: true };
    let machines = machine::start_all(equipment);
    let questions = Questions::of(machine::addresses());
    let addresses = questions.addresses();
    questions.create(TOPIC, PARTITIONS, &[("min.insync.replicas", "2")]);
    let producers = Producers::start(PRODUCERS, &addresses, TOPIC, PARTITIONS, RATE);
    let groups = Groups::start(&GROUPS, &addresses, TOPIC, PARTITIONS);
    producers.wait_for_more(STEADY);
    let now = Instant::now();
    let mut run = Run {
        plan: *plan,
        began: now,
        machines,
        producers,
        misfortune: Misfortune::default(),
        gaps: Gaps { acknowledged: 0, since: now, longest: Duration::ZERO },
        told: now,
    };
    for (number, fault) in (1..).zip(faults) {
        run.strike(number, fault);
    }
    while !run.misfortune.is_over() || run.producers.acknowledged() < plan.records {
        run.step();
    }
    run.say("no more faults");
    judge(run, &questions, groups)
}

/// What must be true once nothing is wrong any more.
fn judge(mut run: Run, questions: &Questions, groups: Groups) -> ExitCode {
    let calm = Instant::now();
    run.machines.iter_mut().for_each(Machine::wait_ready);
    questions.wait_in_sync(TOPIC, PARTITIONS, 3);
    questions.wait_in_sync(OFFSETS.0, OFFSETS.1, 3);
    run.producers.wait_for_more(STEADY);
    run.say(format_args!(
        "every replica is in sync and every producer goes on, {:.1} s after the last fault",
        calm.elapsed().as_secs_f64()
    ));
    let (seed, began) = (run.plan.seed, run.began);
    let told = run.producers.end();
    let mut broken: Vec<String> = Vec::new();
    if !told.failures.is_empty() {
        broken.push(format!("producers gave records up: {:?}", told.failures));
    }
    for partition in 0..PARTITIONS {
        if !told.acknowledged.contains_key(&partition) {
            broken.push(format!("nothing was acknowledged of partition {partition}"));
        }
    }
    let mut history = ledger::history(&questions.addresses(), TOPIC, PARTITIONS, &told)
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    let ends: BTreeMap<i32, i64> = history.finals.iter().map(|last| (last.partition, last.log_end)).collect();
    groups.wait_drained(&ends);
    broken.extend(groups.end(&mut history));
    let anomalies = check(&history);
    broken.extend(anomalies.iter().map(ToString::to_string));
    for machine in &mut run.machines {
        machine.ask_to_stop();
        machine.wait_stopped();
    }
    const LOST: [Broken; 4] = [Broken::Lost, Broken::Unseen, Broken::Vanished, Broken::Hole];
    const DOUBLED: [Broken; 2] = [Broken::Duplicate, Broken::InconsistentOffset];
    const REORDERED: [Broken; 2] = [Broken::Reordered, Broken::SequenceGap];
    let count = |kinds: &[Broken]| anomalies.iter().filter(|found| kinds.contains(&found.kind)).count();
    let [lost, doubled, reordered] = [count(&LOST), count(&DOUBLED), count(&REORDERED)];
    let read: usize = history.polls.iter().map(|poll| poll.records.len()).sum();
    let table = [
        ("seed", seed.to_string()),
        ("lasted", format!("{:.0} s", began.elapsed().as_secs_f64())),
        ("records acknowledged", told.len().to_string()),
        ("records read by groups", read.to_string()),
        ("longest write gap", format!("{:.1} s", run.gaps.longest.as_secs_f64())),
        ("lost", lost.to_string()),
        ("duplicated", doubled.to_string()),
        ("reordered", reordered.to_string()),
        ("other broken promises", (broken.len() - lost - doubled - reordered).to_string()),
    ];
    println!();
    for kind in Kind::ALL {
        println!("{:<40}{:>12}", kind.name(), run.misfortune.struck.get(&kind).copied().unwrap_or(0));
    }
    println!("{:<40}{:>12}", "faults", run.misfortune.struck.values().sum::<usize>());
    for (name, value) in table {
        println!("{name:<40}{value:>12}");
    }
    for what in broken.iter().take(50) {
        println!("  {what}");
    }
    if broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
