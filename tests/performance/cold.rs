//! Reading what has left the disk: against a plain ranged read of the same store, and beside a hot producer.

use std::path::PathBuf;
use std::time::Duration;

use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::librdkafka;
use firn_tests::process::wait_for;
use firn_tests::store::Minio;

use crate::Plan;
use crate::latency::paced;
use crate::pair::{self, Flush, Load};
use crate::report::{Figure, Goal, Report};

const SECTION: &str = "cold";
const TOPIC: &str = "history";
const PARTITIONS: i32 = 4;
/// Bytes a second that are read cold where an operator wants the hot topics to be left alone.
const PACE: u64 = 50_000_000;
const UPLOAD_DEADLINE: Duration = Duration::from_secs(900);

pub fn measure(plan: &Plan, report: &mut Report) {
    let minio = Minio::start();
    let mut options: BrokerOptions = pair::options(System::Firn, SECTION)
        .with("firn.store.url", &minio.url())
        .with("log.retention.check.interval.ms", "1000")
        .with("remote.log.manager.task.interval.ms", "1000");
    options.environment = minio.environment();
    let mut broker = Broker::start(options);
    let bytes = plan.amount(10_000_000_000);
    fill(&broker, bytes);
    wait_until_cold(&broker.data());
    let uploading_mb = broker.process().peak_rss_bytes() as f64 / 1e6;

    let (mut cold, mut plain, mut share) = (Vec::new(), Vec::new(), Vec::new());
    let (mut reader_cpu, mut broker_cpu, mut store_cpu) = (Vec::new(), Vec::new(), Vec::new());
    let mut reading_mb = Vec::new();
    for _ in 0..plan.runs {
        // A restart forgets every cached chunk.
        broker.stop();
        broker.start_again();
        let before = minio.process().cpu_seconds();
        let read = pair::consume_from(&broker, TOPIC, PARTITIONS, bytes / 1024);
        store_cpu.push((minio.process().cpu_seconds() - before) / (bytes as f64 / 1e9));
        reader_cpu.push(read.client_cpu_per_gb);
        broker_cpu.push(read.broker_cpu_per_gb);
        reading_mb.push(broker.process().peak_rss_bytes() as f64 / 1e6);
        let ranged = minio.ranged_read_mb_per_second();
        cold.push(read.mb_per_second);
        plain.push(ranged);
        share.push(read.mb_per_second / ranged);
    }
    let rows = [
        ("cold read, 1 KiB records, 4 partitions, MinIO", "MB/s", cold, Goal::NONE),
        ("a plain ranged read of the same objects", "MB/s", plain, Goal::NONE),
        ("Firn's share of the plain read", "of 1", share, Goal::at_least(0.8)),
        ("CPU of the broker for a cold GB", "s/GB", broker_cpu, Goal::NONE),
        ("CPU of the store for it", "s/GB", store_cpu, Goal::NONE),
        ("CPU of the consumer for it", "s/GB", reader_cpu, Goal::NONE),
        ("most memory of the broker, taking and cooling it", "MB", vec![uploading_mb], Goal::NONE),
        ("most memory of the broker, reading it cold", "MB", reading_mb, Goal::NONE),
    ];
    for (name, unit, firn, goal) in rows {
        report.add(Figure { section: SECTION, name: name.to_owned(), unit, firn, kafka: Vec::new(), goal });
    }
    // They stand for other machines.
    minio.process().give_way();
    beside_a_hot_producer(plan, report, &mut broker, bytes);
}

fn fill(broker: &Broker, bytes: u64) {
    let configs = [
        "remote.storage.enable=true",
        "segment.bytes=134217728",
        "local.retention.bytes=1",
        Flush::KafkasDefault.topic_config(),
    ];
    pair::create_topic(broker, TOPIC, PARTITIONS, &configs);
    let load = Load { size: 1024, codec: "none", partitions: PARTITIONS, flush: Flush::KafkasDefault, bytes };
    pair::produce_into(broker, TOPIC, &load);
}

fn wait_until_cold(data: &std::path::Path) {
    wait_for("the tier to take everything sealed", UPLOAD_DEADLINE, || {
        let logs = |partition: i32| {
            let directory: PathBuf = data.join(format!("{TOPIC}-{partition}"));
            let entries = std::fs::read_dir(directory).expect("the partition's directory").flatten();
            entries.filter(|entry| entry.path().extension().is_some_and(|found| found == "log")).count()
        };
        (0..PARTITIONS).all(|partition| logs(partition) <= 1).then_some(())
    });
}

/// p99 of a paced producer and consumer on a hot topic: alone, and while another client reads the cold one. That
/// client and the store get the processors when nobody else wants them, as if they had their own.
fn beside_a_hot_producer(plan: &Plan, report: &mut Report, broker: &mut Broker, bytes: u64) {
    let seconds = if plan.quick { 5 } else { 20 };
    let load = Load { size: 100, codec: "none", partitions: 1, flush: Flush::KafkasDefault, bytes: 0 };
    let (mut alone, mut beside, mut change) = (Vec::new(), Vec::new(), Vec::new());
    let (mut beside_slow, mut change_slow) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        set_pace(broker, None);
        broker.stop();
        broker.start_again();
        let hot = pair::create(broker, &load);
        let quiet = paced(broker, &hot, 1_000, seconds, 0).p99_ms;
        let percent = |busy: f64| (busy - quiet) / quiet * 100.0;
        let busy = hot_beside_reader(broker, &hot, seconds, bytes / 1024);
        alone.push(quiet);
        beside.push(busy);
        change.push(percent(busy));
        // What the reads have left in memory is not read again.
        broker.stop();
        broker.start_again();
        set_pace(broker, Some(PACE));
        // The client runs for two seconds before it measures.
        let records = bytes.min(PACE * (seconds + 2)) / 1024;
        let busy = hot_beside_reader(broker, &hot, seconds, records);
        beside_slow.push(busy);
        change_slow.push(percent(busy));
    }
    let rows = [
        ("hot p99, 1,000 a second, nothing else", "ms", alone, Goal::NONE),
        (
            "hot p99 while a consumer reads cold, it and the store on the same two cores, idle class",
            "ms",
            beside,
            Goal::NONE,
        ),
        ("change", "%", change, Goal::at_most(10.0)),
        (
            "the same for 1.1 GB, remote.log.manager.fetch.max.bytes.per.second at 50 MB/s",
            "ms",
            beside_slow,
            Goal::NONE,
        ),
        ("change, paced", "%", change_slow, Goal::at_most(10.0)),
    ];
    for (name, unit, firn, goal) in rows {
        report.add(Figure { section: SECTION, name: name.to_owned(), unit, firn, kafka: Vec::new(), goal });
    }
}

/// p99 in milliseconds on the hot topic while another client reads `records` of the cold one.
fn hot_beside_reader(broker: &Broker, hot: &str, seconds: u64, records: u64) -> f64 {
    std::thread::scope(|scope| {
        let count = records.to_string();
        let reader = scope.spawn(move || {
            let arguments = ["--count", &count, "-X", "queued.min.messages=1000000"];
            let address = broker.address();
            librdkafka::figures_in_the_background("consume", &address, TOPIC, PARTITIONS, &arguments)
        });
        let busy = paced(broker, hot, 1_000, seconds, 0).p99_ms;
        reader.join().expect("the cold reader ends");
        busy
    })
}

/// Sets, or takes away, the pace of cold reads on the running broker.
fn set_pace(broker: &Broker, bytes_per_second: Option<u64>) {
    const KEY: &str = "remote.log.manager.fetch.max.bytes.per.second";
    let unlimited = i64::MAX.unsigned_abs();
    let setting = format!("{KEY}={}", bytes_per_second.unwrap_or(unlimited));
    pair::command(broker, &["config", "set", "--all-brokers", &setting]);
}
