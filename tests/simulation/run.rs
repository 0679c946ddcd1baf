//! One run: brokers, their clients and what befalls them, from a seed.

use std::rc::Rc;
use std::time::Duration;

use firn_blocking as blocking;
use firn_tests::checker;

use crate::broker::{Broker, PORT, host};
use crate::faults::{DiskLatency, Faults};
use crate::shared::{PARTITIONS, Shared};
use crate::story::Broken;
use crate::trace::Trace;
use crate::trials::{self, Trials};
use crate::{consumer, judge, operator, producer, randomness, trimmer};

/// How long a message takes at most while nothing is wrong.
pub const LATENCY_MAX: Duration = Duration::from_millis(5);
/// How finely time passes.
const TICK: Duration = Duration::from_millis(2);
/// More than the metadata want to have.
const RESERVE_BYTES: u64 = 2 << 20;
/// How long the judge may take, after the last fault.
const JUDGING_MAX: Duration = Duration::from_secs(90);

#[derive(Debug, Clone)]
pub struct Settings {
    pub seed: u64,
    /// How many brokers there are.
    pub brokers: usize,
    /// How many of them have a vote on the metadata.
    pub voters: usize,
    pub replication_factor: usize,
    /// What is older goes to an object store.
    pub tiered: bool,
    /// One broker's disk does not keep everything.
    pub rots: bool,
    /// Somebody moves partitions, empties brokers and changes who votes.
    pub operated: bool,
    /// One misfortune comes at a time, and the others have to go on without whom it strikes.
    pub alone: bool,
    /// How long there is work and faults, in virtual time.
    pub lasts: Duration,
    /// The disk says that it has synced files, and has not: to see that it is found.
    pub lying_disk: bool,
    /// Print the trace.
    pub print: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Two runs of a seed have the same.
    pub trace: u64,
    pub events: u64,
    pub virtual_time: Duration,
    pub acknowledged: usize,
    /// Promises that were broken, in words.
    pub broken: Vec<String>,
    /// The one that was seen first, and how it came to it.
    pub first: Option<(String, Vec<String>)>,
}

/// Runs a seed. A thread runs one at most.
pub fn run(settings: &Settings) -> Outcome {
    randomness::follow(settings.seed);
    let mut random = fastrand::Rng::with_seed(settings.seed);
    let (disk_latency, mut of_disks) = (DiskLatency::default(), random.fork());
    let latency = disk_latency.clone();
    blocking::do_in_place(move || latency.next(&mut of_disks));
    let trace = Trace::new(settings.print);
    let mut sim = turmoil::Builder::new()
        .rng_seed(random.u64(..))
        .tick_duration(TICK)
        .min_message_latency(Duration::from_micros(100))
        .max_message_latency(LATENCY_MAX)
        .simulation_duration(settings.lasts + JUDGING_MAX)
        // What was held back comes all at once.
        .tcp_capacity(4096)
        .enable_random_order()
        .build();
    let count = settings.brokers;
    let addresses = (0..count).map(|number| format!("{}:{PORT}", sim.lookup(host(number)))).collect();
    let rotten = settings.rots.then(|| settings.seed as usize / 3 % count);
    let Settings { replication_factor, tiered, .. } = *settings;
    let lag_ms = if settings.seed % 11 < 4 { 600 } else { 3_000 };
    let reserve_bytes = if settings.seed % 13 < 7 { RESERVE_BYTES } else { 0 };
    let shared =
        Shared::new(addresses, replication_factor, lag_ms, reserve_bytes, tiered, rotten, trace.clone());
    let lying = settings.lying_disk;
    let voters = settings.voters;
    let new = |number| Broker::new(number, voters, random.u64(..), lying, shared.clone(), trace.clone());
    let brokers: Vec<Rc<Broker>> = (0..count).map(new).collect();
    for broker in &brokers {
        let life = broker.clone();
        sim.host(broker.host(), move || life.clone().life());
    }
    let names = add_clients(&mut sim, &shared, &mut random);
    if settings.operated {
        let (shared, random) = (shared.clone(), random.fork());
        sim.client("operator", async move {
            operator::operate(shared, random).await;
            Ok(())
        });
    }
    let mut faults = Faults::new(random.fork(), trace.clone(), names, disk_latency, shared.clone());
    let mut trials = settings.alone.then(|| Trials::new(random.fork(), shared.clone()));
    if trials.is_some() {
        faults = faults.that_last(trials::LASTS);
    }
    let mut failed = None;
    loop {
        match sim.step() {
            Ok(true) => break,
            Ok(false) => {}
            Err(error) => {
                failed = Some(error.to_string());
                break;
            }
        }
        if sim.elapsed() < settings.lasts {
            match &mut trials {
                Some(trials) => trials.step(&mut faults, &mut sim, &brokers),
                None => faults.step(&mut sim, &brokers),
            }
        } else if !shared.over.get() || faults.is_pending() {
            faults.end(&mut sim, &brokers);
            shared.over.set(true);
        }
    }
    outcome(sim.elapsed(), failed, &shared)
}

/// What came of a run that has ended, and may have failed.
fn outcome(elapsed: Duration, failed: Option<String>, shared: &Shared) -> Outcome {
    let history = shared.history.borrow();
    let at_last = |partition, what| Broken { at: elapsed, partition, what };
    let mut broken: Vec<Broken> = failed.into_iter().map(|what| at_last(None, what)).collect();
    broken.extend(shared.broken.borrow().iter().cloned());
    let found = checker::check(&history);
    broken.extend(found.iter().map(|anomaly| at_last(Some(anomaly.partition), anomaly.to_string())));
    let first = broken.iter().min_by_key(|broken| broken.at);
    let (hash, events) = shared.trace.end();
    Outcome {
        trace: hash,
        events,
        virtual_time: elapsed,
        acknowledged: history.acknowledged(),
        first: first.map(|first| (first.what.clone(), shared.trace.story(first))),
        broken: broken.into_iter().map(|broken| broken.what).collect(),
    }
}

/// Two producers and two consumers of each partition, on a host of their own, and who begins and ends the run. The names
/// of the hosts.
fn add_clients(sim: &mut turmoil::Sim<'_>, shared: &Rc<Shared>, random: &mut fastrand::Rng) -> Vec<String> {
    let of_setting_up = shared.clone();
    sim.client("set-up", async move {
        judge::set_up(of_setting_up).await;
        Ok(())
    });
    let mut names = Vec::new();
    let trims = random.bool();
    for partition in 0..PARTITIONS {
        let name = format!("clients-{partition}");
        let shared = shared.clone();
        let (one, other) = (random.fork(), random.fork());
        let (third, fourth) = (random.fork(), random.fork());
        let fifth = trims.then(|| random.fork());
        sim.client(name.as_str(), async move {
            let number = partition as u32 * 2;
            let trimming = async {
                if let Some(fifth) = fifth {
                    trimmer::trim(shared.clone(), partition, fifth).await;
                }
            };
            tokio::join!(
                producer::produce(shared.clone(), partition, one),
                producer::produce(shared.clone(), partition, other),
                consumer::consume(shared.clone(), number, partition, third),
                consumer::consume(shared.clone(), number + 1, partition, fourth),
                trimming,
            );
            Ok(())
        });
        names.push(name);
    }
    let of_judging = shared.clone();
    sim.client("judge", async move {
        judge::judge(of_judging).await;
        Ok(())
    });
    names
}
