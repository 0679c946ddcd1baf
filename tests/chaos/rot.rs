//! Disks that do not keep what was written, one broker's at a time: bits flip, blocks become zeros, files end early, under brokers
//! that run and under brokers that do not. Nobody reads anything else than was written, and within a minute the disk has it again.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use fastrand::Rng;
use firn_tests::checker::check;
use firn_tests::faults::FileSystem;
use firn_tests::ledger;
use firn_tests::librdkafka::{Dumped, dump};
use firn_tests::process::wait_for;
use firn_tests::questions::Questions;
use firn_tests::wire;

use crate::clients::Producers;
use crate::machine::{self, Equipment, Machine};

const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;
const PRODUCERS: usize = 2;
/// Records a second of each.
const RATE: u32 = 300;
/// Records before the first wound: several segments.
const RECORDS_BEFORE: u64 = 40_000;
/// Wounds of one disk before it is to be mended.
const WOUNDS_AT_ONCE: usize = 30;
/// Within this all is mended, from when it was hurt.
const MENDED_WITHIN: Duration = Duration::from_secs(60);
/// What a write past the page cache is a multiple of.
const BLOCK: u64 = 4096;

/// How the broker is while its disk is hurt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Meanwhile {
    Runs,
    IsStopped,
    IsKilled,
}

struct Run {
    began: Instant,
    questions: Questions,
    machines: Vec<Machine>,
    rng: Rng,
    /// What was read last, by partition.
    read: BTreeMap<i32, Dumped>,
    wounds: usize,
    by_kind: BTreeMap<&'static str, usize>,
    slowest: Duration,
}

pub fn run(wounds: usize, seed: u64, file_system: FileSystem) -> ExitCode {
    let machines = machine::start_all(Equipment { file_system, disk_mib: 2048, own_clock: false });
    let questions = Questions::of(machine::addresses());
    questions.create(TOPIC, PARTITIONS, &[("min.insync.replicas", "2")]);
    let producers = Producers::start(PRODUCERS, &questions.addresses(), TOPIC, PARTITIONS, RATE);
    producers.wait_for_more(RECORDS_BEFORE);
    let mut run = Run {
        began: Instant::now(),
        questions,
        machines,
        rng: Rng::with_seed(seed),
        read: BTreeMap::new(),
        wounds: 0,
        by_kind: BTreeMap::new(),
        slowest: Duration::ZERO,
    };
    let states = [Meanwhile::Runs, Meanwhile::IsStopped, Meanwhile::Runs, Meanwhile::IsKilled];
    for round in 0.. {
        if run.wounds >= wounds {
            break;
        }
        let count = WOUNDS_AT_ONCE.min(wounds - run.wounds);
        run.round(round % run.machines.len(), states[round % states.len()], count);
    }
    producers.wait_for_more(1_000);
    let told = producers.end();
    assert!(told.failures.is_empty(), "producers gave records up: {:?}", told.failures);
    run.read_all();
    let history = ledger::history(&run.questions.addresses(), TOPIC, PARTITIONS, &told)
        .unwrap_or_else(|wrong| panic!("{wrong}"));
    let anomalies = check(&history);
    run.questions.wait_in_sync(TOPIC, PARTITIONS, 3);
    for machine in &mut run.machines {
        machine.ask_to_stop();
        machine.wait_stopped();
    }
    let bytes = same_everywhere(&run.machines);
    for (kind, count) in &run.by_kind {
        println!("{kind:<50}{count:>6}");
    }
    println!(
        "{} wounds of seed {seed} on {file_system:?}: {} records acknowledged, {} lost, doubled, reordered or corrupt; \
         mended within {:.1} s; {bytes} bytes of each partition's log are the same on all three",
        run.wounds,
        told.len(),
        anomalies.len(),
        run.slowest.as_secs_f64(),
    );
    anomalies.iter().take(20).for_each(|found| println!("  {found}"));
    assert!(run.slowest <= MENDED_WITHIN, "it took too long");
    if anomalies.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

impl Run {
    fn round(&mut self, place: usize, meanwhile: Meanwhile, count: usize) {
        match meanwhile {
            Meanwhile::Runs => {}
            Meanwhile::IsStopped => {
                self.machines[place].ask_to_stop();
                self.machines[place].wait_stopped();
            }
            Meanwhile::IsKilled => self.machines[place].kill(),
        }
        for _ in 0..count {
            let kind = self.hurt(place, meanwhile);
            *self.by_kind.entry(kind).or_default() += 1;
            self.wounds += 1;
        }
        let hurt = Instant::now();
        if meanwhile != Meanwhile::Runs {
            self.machines[place].start();
            self.machines[place].wait_ready();
        }
        self.read_all();
        let looks = self.metric(place, "firn_log_scrubs_total");
        // One that had begun before may have passed by.
        wait_for("a disk to be mended", MENDED_WITHIN * 2, || {
            self.machines.iter_mut().for_each(Machine::assert_running);
            let looked = self.metric(place, "firn_log_scrubs_total") >= looks + 2.0;
            (looked && self.metric(place, "firn_log_damaged_places") == 0.0).then_some(())
        });
        self.questions.wait_in_sync(TOPIC, PARTITIONS, 3);
        let took = hurt.elapsed();
        self.slowest = self.slowest.max(took);
        remove_set_aside(&self.machines[place].data());
        println!(
            "{:>7.1} s  {} wounds so far; broker {}, while it {}: mended within {:.1} s",
            self.began.elapsed().as_secs_f64(),
            self.wounds,
            place + 1,
            match meanwhile {
                Meanwhile::Runs => "ran",
                Meanwhile::IsStopped => "was stopped",
                Meanwhile::IsKilled => "was dead",
            },
            took.as_secs_f64(),
        );
    }

    fn metric(&self, place: usize, name: &str) -> f64 {
        let address = self.machines[place].http_address();
        // It opens a moment after the port for clients.
        wait_for("the side port", MENDED_WITHIN, || wire::http_get(&address, "/metrics").ok());
        wire::metric(&address, name).unwrap_or_default()
    }

    /// Reads everything, which has to be what it was, and more.
    fn read_all(&mut self) {
        let now = dump(&self.questions.addresses(), TOPIC, PARTITIONS, &BTreeMap::new());
        for (partition, before) in &self.read {
            let records = &now[partition].records;
            let same = records.iter().zip(&before.records).take_while(|(now, before)| now == before).count();
            assert!(
                same == before.records.len(),
                "partition {partition}, record {same}: {:?} was read, and before {:?}",
                records.get(same),
                before.records[same],
            );
        }
        self.read = now;
    }

    /// Hurts one file of one replica, and says how.
    fn hurt(&mut self, place: usize, meanwhile: Meanwhile) -> &'static str {
        let partition = self.rng.i32(0..PARTITIONS);
        let directory = self.machines[place].data().join(format!("{TOPIC}-{partition}"));
        let mut logs = files(&directory, "log");
        if meanwhile == Meanwhile::Runs {
            // What is written to is the broker's: a write beside it here would take away what it writes.
            logs.pop();
        }
        let others: Vec<PathBuf> = ["index", "timeindex", "snapshot", "leader-epoch-checkpoint"]
            .iter()
            .flat_map(|end| files(&directory, end))
            .filter(|path| std::fs::metadata(path).is_ok_and(|file| file.len() > 0))
            .collect();
        let draw = self.rng.u8(0..10);
        if draw == 0 && meanwhile != Meanwhile::Runs {
            let mut small = files(&self.machines[place].data(), "offset-checkpoint");
            small.extend(files(&directory, "partition.metadata"));
            let path = &small[self.rng.usize(0..small.len())];
            flip(&mut self.rng, path).expect("flip a bit");
            return "a bit of a checkpoint or a name, of a broker that is down";
        }
        if draw < 2 && meanwhile != Meanwhile::Runs && !others.is_empty() {
            let other = &others[self.rng.usize(0..others.len())];
            flip(&mut self.rng, other).expect("flip a bit");
            return "a bit beside a log, of a broker that is down";
        }
        let path = &logs[self.rng.usize(0..logs.len())];
        let done = match (draw, meanwhile) {
            (0..=6, Meanwhile::Runs) => flip_past_cache(&mut self.rng, path).map(|()| "a bit under a broker"),
            (0..=6, _) => flip(&mut self.rng, path).map(|()| "a bit of a broker that is down"),
            (7..=8, Meanwhile::Runs) => {
                wipe_past_cache(&mut self.rng, path).map(|()| "a block of zeros under a broker")
            }
            (7..=8, _) => wipe(&mut self.rng, path).map(|()| "a block of zeros of a broker that is down"),
            (_, Meanwhile::Runs) => cut(&mut self.rng, path).map(|()| "a file cut short under a broker"),
            (_, _) => cut(&mut self.rng, path).map(|()| "a file cut short of a broker that is down"),
        };
        match done {
            Ok(kind) => kind,
            // It was mended, or rolled, meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => self.hurt(place, meanwhile),
            Err(error) => panic!("{}: {error}", path.display()),
        }
    }
}

/// The files of a directory whose names end so, behind a dot or a dash if there is more, by their names.
fn files(directory: &Path, end: &str) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(directory) else { return Vec::new() };
    let is_one = |path: &PathBuf| {
        let name = path.file_name().map_or_else(Default::default, |name| name.to_string_lossy());
        name.strip_suffix(end).is_some_and(|before| before.is_empty() || before.ends_with(['.', '-']))
    };
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<PathBuf> = paths.filter(is_one).collect();
    found.sort();
    found
}

fn flip(rng: &mut Rng, path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path)?;
    let at = rng.u64(0..file.metadata()?.len().max(1));
    let mut byte = [0];
    file.read_at(&mut byte, at)?;
    file.write_all_at(&[byte[0] ^ (1 << rng.u8(0..8))], at)?;
    file.sync_data()
}

fn wipe(rng: &mut Rng, path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    let len = file.metadata()?.len();
    let at = rng.u64(0..len.max(1)) / BLOCK * BLOCK;
    file.write_all_at(&vec![0; BLOCK.min(len - at) as usize], at)?;
    file.sync_data()
}

fn cut(rng: &mut Rng, path: &Path) -> io::Result<()> {
    let file = std::fs::OpenOptions::new().write(true).open(path)?;
    let len = file.metadata()?.len();
    file.set_len(rng.u64(0..len.max(1)))?;
    file.sync_data()
}

/// Changes a whole block of the disk under the page cache.
fn past_cache(rng: &mut Rng, path: &Path, change: impl FnOnce(&mut Rng, &mut [u8])) -> io::Result<()> {
    let direct = i32::try_from(rustix::fs::OFlags::DIRECT.bits()).map_err(io::Error::other)?;
    let file = std::fs::OpenOptions::new().read(true).write(true).custom_flags(direct).open(path)?;
    let blocks = file.metadata()?.len() / BLOCK;
    if blocks == 0 {
        return Err(io::ErrorKind::NotFound.into());
    }
    let at = rng.u64(0..blocks) * BLOCK;
    // Direct reads and writes need memory that is as aligned as the disk.
    let mut memory = vec![0u8; 2 * BLOCK as usize];
    let from = memory.as_ptr().align_offset(BLOCK as usize);
    let block = &mut memory[from..from + BLOCK as usize];
    file.read_exact_at(block, at)?;
    change(rng, block);
    file.write_all_at(block, at)
}

fn flip_past_cache(rng: &mut Rng, path: &Path) -> io::Result<()> {
    past_cache(rng, path, |rng, block| block[rng.usize(0..block.len())] ^= 1 << rng.u8(0..8))
}

fn wipe_past_cache(rng: &mut Rng, path: &Path) -> io::Result<()> {
    past_cache(rng, path, |_, block| block.fill(0))
}

/// What an operator does who has seen that all is in sync again.
fn remove_set_aside(data: &Path) {
    for entry in std::fs::read_dir(data).expect("list the data").filter_map(Result::ok) {
        if entry.file_name().to_string_lossy().ends_with("-stray") {
            std::fs::remove_dir_all(entry.path()).expect("remove what was set aside");
        }
    }
}

/// All logs are the same, byte for byte, however their segments are cut; returns how long they are together.
fn same_everywhere(machines: &[Machine]) -> usize {
    let mut bytes = 0;
    for partition in 0..PARTITIONS {
        let log = |machine: &Machine| -> Vec<u8> {
            let directory = machine.data().join(format!("{TOPIC}-{partition}"));
            let segments = files(&directory, "log");
            segments.iter().flat_map(|path| std::fs::read(path).expect("read a log")).collect()
        };
        let first = log(&machines[0]);
        for machine in &machines[1..] {
            assert!(log(machine) == first, "partition {partition} differs from one broker to another");
        }
        bytes += first.len();
    }
    bytes
}
