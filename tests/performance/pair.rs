//! Both brokers side by side on one disk, and what they are made to do in turns.

use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::{librdkafka, process, tools};
use serde_json::Value;

use crate::report::{Figure, Goal, Report};
use crate::{Plan, machine};

/// `flush.messages`: as Kafka has it, or an fsync before every acknowledgement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flush {
    KafkasDefault,
    EachMessage,
}

impl Flush {
    pub const BOTH: [Flush; 2] = [Flush::KafkasDefault, Flush::EachMessage];

    pub fn topic_config(self) -> &'static str {
        match self {
            Flush::KafkasDefault => "flush.messages=9223372036854775807",
            Flush::EachMessage => "flush.messages=1",
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            Flush::KafkasDefault => "page cache",
            Flush::EachMessage => "fsync before ack",
        }
    }
}

/// One produce run's load.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    pub size: u64,
    pub codec: &'static str,
    pub partitions: i32,
    pub flush: Flush,
    pub bytes: u64,
}

/// What one run showed.
#[derive(Debug, Clone, Copy)]
pub struct Outcome {
    pub mb_per_second: f64,
    pub broker_cpu_per_gb: f64,
    pub client_cpu_per_gb: f64,
}

pub struct Pair {
    pub firn: Broker,
    pub kafka: Broker,
}

impl Pair {
    pub fn start(label: &str) -> Pair {
        Pair { firn: broker(System::Firn, label), kafka: broker(System::Kafka, label) }
    }

    pub fn get(&self, system: System) -> &Broker {
        match system {
            System::Firn => &self.firn,
            System::Kafka => &self.kafka,
        }
    }

    /// Both in turns, `runs` times: the figures of each.
    pub fn alternate<T>(&self, runs: usize, mut run: impl FnMut(&Broker) -> T) -> (Vec<T>, Vec<T>) {
        let (mut firn, mut kafka) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            firn.push(run(&self.firn));
            kafka.push(run(&self.kafka));
        }
        (firn, kafka)
    }

    /// Kafka's JIT needs gigabytes before it is at its best; Firn gets the same.
    pub fn warm_up(&self, plan: &Plan) {
        let bytes = plan.amount(10_000_000_000);
        for system in [System::Kafka, System::Firn] {
            eprintln!("   warming {}: {:.1} GB in and out", system.name(), bytes as f64 / 1e9);
            let mut left = bytes;
            while left > 0 {
                let piece = left.min(2_500_000_000);
                let load = Load {
                    size: 1024,
                    codec: "none",
                    partitions: 6,
                    flush: Flush::KafkasDefault,
                    bytes: piece,
                };
                let topic = create(self.get(system), &load);
                produce_into(self.get(system), &topic, &load);
                consume_from(self.get(system), &topic, load.partitions, load.bytes / load.size);
                delete(self.get(system), &topic);
                left -= piece;
            }
        }
    }
}

/// A broker of the release build, or Kafka with its gigabyte, on `target/bench/data`.
pub fn broker(system: System, label: &str) -> Broker {
    Broker::start(options(system, label))
}

pub fn options(system: System, label: &str) -> BrokerOptions {
    let options = BrokerOptions { system, heap: "1g", ..BrokerOptions::default() };
    options.on(&data(system, label)).with("log.segment.delete.delay.ms", "500").with("num.partitions", "1")
}

fn data(system: System, label: &str) -> PathBuf {
    let directory = machine::scratch("data").join(format!("{}-{label}", system.name()));
    if directory.exists() {
        std::fs::remove_dir_all(&directory).expect("remove the last run's data");
    }
    std::fs::create_dir_all(&directory).expect("create a data directory");
    directory
}

pub fn create(broker: &Broker, load: &Load) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let topic = format!("bench-{}", NEXT.fetch_add(1, Ordering::Relaxed));
    create_topic(broker, &topic, load.partitions, &[load.flush.topic_config()]);
    topic
}

/// On either system with Firn's own command: a JVM for every topic would take half of the bench's time.
pub fn create_topic(broker: &Broker, topic: &str, partitions: i32, configs: &[&str]) {
    let partitions = partitions.to_string();
    let mut arguments = vec!["topic", "create", topic, "--partitions", &partitions];
    for config in configs {
        arguments.extend(["--config", config]);
    }
    command(broker, &arguments);
}

pub fn delete(broker: &Broker, topic: &str) {
    command(broker, &["topic", "delete", topic]);
    // What a deleted topic leaves to be written back or unlinked is not the next run's noise.
    machine::settle();
}

/// Firn's command line, against either system.
pub fn command(broker: &Broker, arguments: &[&str]) {
    let mut command = Command::new(tools::firn());
    command.args(arguments).args(["--bootstrap", &broker.address()]);
    process::run_ok(&mut command, "", Duration::from_secs(60));
}

/// One produce run into a topic of its own, which is gone afterwards.
pub fn produce(broker: &Broker, load: &Load) -> Outcome {
    let topic = create(broker, load);
    let outcome = produce_into(broker, &topic, load);
    delete(broker, &topic);
    outcome
}

pub fn produce_into(broker: &Broker, topic: &str, load: &Load) -> Outcome {
    produce_to(&broker.address(), std::slice::from_ref(broker), topic, load)
}

/// The same, into the cluster that these brokers are, which is found at `addresses`.
pub fn produce_to(addresses: &str, brokers: &[Broker], topic: &str, load: &Load) -> Outcome {
    let (count, size) = ((load.bytes / load.size).to_string(), load.size.to_string());
    let codec = format!("compression.codec={}", load.codec);
    let mut arguments = vec!["--count", &count, "--size", &size, "-X", &codec];
    for setting in [
        "acks=all",
        "linger.ms=5",
        "queue.buffering.max.messages=1000000",
        "queue.buffering.max.kbytes=1048576",
    ] {
        arguments.extend(["-X", setting]);
    }
    measured(brokers, || librdkafka::figures("produce", addresses, topic, load.partitions, &arguments))
}

pub fn consume_from(broker: &Broker, topic: &str, partitions: i32, records: u64) -> Outcome {
    let count = records.to_string();
    let arguments = ["--count", &count, "-X", "queued.min.messages=1000000", "-X", "fetch.wait.max.ms=100"];
    let brokers = std::slice::from_ref(broker);
    measured(brokers, || librdkafka::figures("consume", &broker.address(), topic, partitions, &arguments))
}

fn measured(brokers: &[Broker], run: impl FnOnce() -> Value) -> Outcome {
    let cpu_seconds = || brokers.iter().map(|broker| broker.process().cpu_seconds()).sum::<f64>();
    let before = cpu_seconds();
    let figures = run();
    let cpu = cpu_seconds() - before;
    let number = |key: &str| figures[key].as_f64().unwrap_or_else(|| panic!("no {key} in {figures}"));
    let gb = number("bytes") / 1e9;
    let timed_bytes = figures["counted_bytes"].as_f64().unwrap_or(number("bytes"));
    Outcome {
        mb_per_second: timed_bytes / 1e6 / number("seconds"),
        broker_cpu_per_gb: cpu / gb,
        client_cpu_per_gb: number("client_cpu_seconds") / gb,
    }
}

/// Speed and processor time of both, with the goals of the speed and of the brokers' time.
pub fn add(
    report: &mut Report,
    section: &'static str,
    name: &str,
    [firn, kafka]: [&[Outcome]; 2],
    (speed, cpu): (Goal, Goal),
) {
    type Field = fn(&Outcome) -> f64;
    let rows: [(&str, &'static str, Field, Goal); 3] = [
        ("", "MB/s", |outcome| outcome.mb_per_second, speed),
        (": broker CPU", "s/GB", |outcome| outcome.broker_cpu_per_gb, cpu),
        (": client CPU", "s/GB", |outcome| outcome.client_cpu_per_gb, Goal::NONE),
    ];
    for (what, unit, field, goal) in rows {
        report.add(Figure {
            section,
            name: format!("{name}{what}"),
            unit,
            firn: firn.iter().map(field).collect(),
            kafka: kafka.iter().map(field).collect(),
            goal,
        });
    }
}
