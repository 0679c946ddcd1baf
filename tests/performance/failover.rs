//! How long nothing is acknowledged when a broker of three is lost: killed, stopped, or killed as the controller.
//!
//! What is measured is one record after another, each idempotent and with acks=all, by a client that asks who leads now as soon as
//! its connection ends, with the pauses of Java's (100 ms at first). Beside it goes the load of a C client, of which everything that
//! was acknowledged is looked for at the end.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firn_client::cluster::Cluster;
use firn_client::connection::ConnectionOptions;
use firn_client::error::Error;
use firn_client::producer::{Outgoing, Producer, ProducerOptions};
use firn_tests::cluster::System;
use firn_tests::librdkafka::{Ledger, Load, dump};
use firn_tests::process::wait_for;
use firn_tests::trio::Trio;

use crate::Plan;
use crate::pair;
use crate::report::{Figure, Goal, Report, quantile};

const SECTION: &str = "failover";
const TOPIC: &str = "failover";
/// Records a second of the C client.
const RATE: u32 = 1_000;
/// Acknowledgements that are waited for before and after a loss.
const STEADY: u64 = 200;
const DEADLINE: Duration = Duration::from_secs(60);

/// Who is lost, and how.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Loss {
    LeaderKilled,
    LeaderStopped,
    ControllerKilled,
}

impl Loss {
    const ALL: [(Loss, &'static str, f64); 3] = [
        (Loss::LeaderKilled, "kill -9 of a leader", 1.0),
        (Loss::LeaderStopped, "an orderly stop of a leader", 0.1),
        (Loss::ControllerKilled, "kill -9 of the controller", 1.0),
    ];
}

pub fn measure(plan: &Plan, report: &mut Report) {
    let mut gaps: BTreeMap<(&str, &str), Vec<f64>> = BTreeMap::new();
    for system in [System::Firn, System::Kafka] {
        let mut trio =
            Trio::start(&pair::options(system, SECTION).with("offsets.topic.replication.factor", "3"));
        trio.create(TOPIC, 1, &[("min.insync.replicas", "2")]);
        let load = Load::start(&trio.addresses(), TOPIC, 1, 0, RATE, &[]);
        let probe = Probe::start(&trio);
        for (loss, name, _) in Loss::ALL {
            for _ in 0..losses(plan, system, loss) {
                let gap = lose(&mut trio, &probe, loss);
                eprintln!("   {} {name}: {gap:.3} s", system.name());
                gaps.entry((system.name(), name)).or_default().push(gap);
            }
        }
        drop(probe);
        check(&trio, &load.kill());
    }
    for (_, name, goal) in Loss::ALL {
        let of = |system: System| gaps.get(&(system.name(), name)).cloned().unwrap_or_default();
        let (firn, kafka) = (of(System::Firn), of(System::Kafka));
        let p99 = |gaps: &[f64]| vec![quantile(gaps, 0.99)];
        report.add(Figure {
            section: SECTION,
            name: format!("write gap after {name}, p99 of {}", firn.len()),
            unit: "s",
            firn: p99(&firn),
            kafka: p99(&kafka),
            goal: Goal::at_most(goal),
        });
        report.add(Figure {
            section: SECTION,
            name: format!("write gap after {name}"),
            unit: "s",
            firn,
            kafka,
            goal: Goal::NONE,
        });
    }
}

/// Kafka waits for nine seconds each time.
fn losses(plan: &Plan, system: System, loss: Loss) -> usize {
    match (system, loss) {
        _ if plan.quick => 2,
        (System::Firn, Loss::LeaderKilled) => 30,
        (System::Firn, _) => 15,
        (System::Kafka, _) => 5,
    }
}

/// Loses a broker and takes it back; returns for how many seconds nothing was acknowledged.
fn lose(trio: &mut Trio, probe: &Probe, loss: Loss) -> f64 {
    let lost = match loss {
        Loss::LeaderKilled | Loss::LeaderStopped => trio.leader(TOPIC, 0),
        Loss::ControllerKilled => trio.controller(),
    };
    probe.wait_for_more(STEADY);
    probe.forget_pauses();
    match loss {
        Loss::LeaderStopped => trio.brokers[lost].stop(),
        Loss::LeaderKilled | Loss::ControllerKilled => trio.brokers[lost].kill(),
    }
    probe.wait_for_more(STEADY);
    let gap = probe.longest_pause();
    trio.brokers[lost].start_again();
    trio.wait_in_sync(TOPIC, 1, 3);
    gap.as_secs_f64()
}

/// Writes one record after another.
#[derive(Debug)]
struct Probe {
    ended: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    longest_pause: Arc<Mutex<Duration>>,
    thread: Option<JoinHandle<()>>,
}

impl Probe {
    fn start(trio: &Trio) -> Probe {
        let (ended, acknowledged, longest) =
            (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default(), Arc::<Mutex<Duration>>::default());
        let addresses = trio.brokers.iter().map(|broker| broker.address()).collect();
        let thread = std::thread::spawn({
            let (ended, acknowledged, longest) = (ended.clone(), acknowledged.clone(), longest.clone());
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                let mut last = Instant::now();
                let mut told = || {
                    let pause = std::mem::replace(&mut last, Instant::now());
                    let mut longest = longest.lock().unwrap_or_else(PoisonError::into_inner);
                    *longest = longest.max(last - pause);
                    acknowledged.fetch_add(1, Ordering::Relaxed);
                };
                let options =
                    ConnectionOptions { deadline: Duration::from_secs(5), ..ConnectionOptions::default() };
                let cluster = Arc::new(Cluster::new(addresses, options));
                runtime.expect("a runtime").block_on(async {
                    while !ended.load(Ordering::Relaxed) {
                        // It gives up after some attempts: another takes its place.
                        write(&cluster, &ended, &mut told).await.ok();
                    }
                });
            }
        });
        Probe { ended, acknowledged, longest_pause: longest, thread: Some(thread) }
    }

    fn wait_for_more(&self, records: u64) {
        let enough = self.acknowledged.load(Ordering::Relaxed) + records;
        wait_for("acknowledgements", DEADLINE, || {
            (self.acknowledged.load(Ordering::Relaxed) >= enough).then_some(())
        });
    }

    fn longest_pause(&self) -> Duration {
        *self.longest_pause.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn forget_pauses(&self) {
        *self.longest_pause.lock().unwrap_or_else(PoisonError::into_inner) = Duration::ZERO;
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("the probe ends");
        }
    }
}

async fn write(cluster: &Arc<Cluster>, ended: &AtomicBool, told: &mut impl FnMut()) -> Result<(), Error> {
    let mut producer = Producer::open(cluster.clone(), TOPIC, ProducerOptions::default()).await?;
    let record = Outgoing { value: Some(Bytes::from_static(b"probe")), ..Outgoing::default() };
    while !ended.load(Ordering::Relaxed) {
        producer.send(&record).await?;
        producer.flush().await?;
        told();
    }
    Ok(())
}

/// What was acknowledged is there, where it was said to be, and once.
fn check(trio: &Trio, ledger: &Ledger) {
    let dumped = dump(&trio.addresses(), TOPIC, 1, &BTreeMap::new()).remove(&0).unwrap_or_default();
    let found: BTreeMap<i64, &str> =
        dumped.records.iter().map(|(offset, value)| (*offset, value.as_str())).collect();
    for (offset, value) in ledger.acknowledged.values().flatten() {
        assert_eq!(found.get(offset), Some(&value.as_str()), "what was acknowledged at {offset}");
    }
    let mut values: Vec<&str> = found.values().copied().filter(|value| *value != "probe").collect();
    values.sort_unstable();
    let count = values.len();
    values.dedup();
    assert_eq!(values.len(), count, "each record is there once");
    eprintln!("   {} records were acknowledged, and all are there", ledger.len());
}
