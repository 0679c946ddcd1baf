//! A cluster of three: records on three replicas, what three idle brokers weigh, and many partitions: creating them, the loss of a
//! broker, and a start of all three.

use std::time::{Duration, Instant};

use firn_tests::cluster::System;
use firn_tests::trio::Trio;

use crate::pair::{self, Flush, Load, Outcome};
use crate::report::{Figure, Goal, Report};
use crate::{Plan, machine};

const SECTION: &str = "cluster";
const PARTITIONS: i32 = 13;
const MIN_ISR: (&str, &str) = ("min.insync.replicas", "2");
/// Partitions of each of the many topics.
const PARTITIONS_EACH: i32 = 100;
/// How long three brokers are left alone before they are weighed.
const IDLE: Duration = Duration::from_secs(15);

pub fn measure(plan: &Plan, report: &mut Report) {
    replicated(plan, report);
    many_partitions(plan, report);
}

fn trio(system: System, label: &str) -> Trio {
    Trio::start(&pair::options(system, label).with("offsets.topic.replication.factor", "3"))
}

/// Both clusters stand side by side, and are given records in turns.
fn replicated(plan: &Plan, report: &mut Report) {
    let trios = [System::Firn, System::Kafka].map(|system| trio(system, SECTION));
    for trio in &trios {
        trio.create("idle", PARTITIONS, &[MIN_ISR]);
    }
    std::thread::sleep(IDLE);
    let weights = trios.each_ref().map(|trio| {
        let all = trio.brokers.iter().map(|broker| broker.process().rss_bytes());
        vec![all.sum::<u64>() as f64 / 1e6]
    });
    let [firn, kafka] = weights;
    report.add(Figure {
        section: SECTION,
        name: format!("resident memory of three idle brokers, {PARTITIONS} partitions on each"),
        unit: "MB",
        firn,
        kafka,
        goal: Goal::at_most(300.0),
    });
    warm_up(plan, &trios);
    for flush in Flush::BOTH {
        let bytes = plan.amount(1_000_000_000);
        let load = Load { size: 1024, codec: "none", partitions: PARTITIONS, flush, bytes };
        let mut outcomes = [Vec::new(), Vec::new()];
        for _ in 0..plan.runs {
            for (trio, outcomes) in trios.iter().zip(&mut outcomes) {
                outcomes.push(produce(trio, &load));
            }
        }
        let goals = match flush {
            Flush::KafkasDefault => (Goal::ratio_at_least(1.5), Goal::ratio_at_most(0.4)),
            Flush::EachMessage => (Goal::NONE, Goal::NONE),
        };
        let name = format!("produce 1 KiB, acks=all, three replicas, {}", flush.name());
        pair::add(report, SECTION, &name, outcomes.each_ref().map(Vec::as_slice), goals);
    }
}

/// Kafka's JIT needs gigabytes before it is at its best; Firn gets the same.
fn warm_up(plan: &Plan, trios: &[Trio]) {
    for trio in trios {
        let mut left = plan.amount(6_000_000_000);
        while left > 0 {
            let bytes = left.min(2_000_000_000);
            let flush = Flush::KafkasDefault;
            produce(trio, &Load { size: 1024, codec: "none", partitions: PARTITIONS, flush, bytes });
            left -= bytes;
        }
    }
}

/// One run into a topic of its own, which is gone afterwards.
fn produce(trio: &Trio, load: &Load) -> Outcome {
    const TOPIC: &str = "records";
    trio.create(
        TOPIC,
        load.partitions,
        &[MIN_ISR, load.flush.topic_config().split_once('=').expect("a config")],
    );
    let outcome = pair::produce_to(&trio.addresses(), &trio.brokers, TOPIC, load);
    pair::delete(&trio.brokers[0], TOPIC);
    outcome
}

/// Firn alone: Apache Kafka with as many does not fit beside a client on two processors.
fn many_partitions(plan: &Plan, report: &mut Report) {
    let topics: Vec<String> = (0..plan.amount(300)).map(|topic| format!("many-{topic}")).collect();
    let count = topics.len() as i32 * PARTITIONS_EACH;
    let (mut create, mut failover, mut restart, mut weight) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut trio = trio(System::Firn, "partitions-of-three");
    let began = Instant::now();
    for topic in &topics {
        trio.create_unready(topic, PARTITIONS_EACH, &[MIN_ISR]);
    }
    eprintln!("   {count} partitions were accepted after {:.1} s", began.elapsed().as_secs_f64());
    let wait_in_sync = |trio: &Trio| {
        topics.iter().for_each(|topic| trio.wait_in_sync(topic, PARTITIONS_EACH, 3));
    };
    wait_in_sync(&trio);
    create.push(began.elapsed().as_secs_f64());
    trio.wait_served(&topics, PARTITIONS_EACH);
    machine::settle();
    weight.extend(trio.brokers.iter().map(|broker| broker.process().rss_bytes() as f64 / 1e6));

    let began = Instant::now();
    trio.brokers[2].kill();
    trio.wait_served(&topics, PARTITIONS_EACH);
    failover.push(began.elapsed().as_secs_f64());
    trio.brokers[2].start_again();
    wait_in_sync(&trio);

    let began = Instant::now();
    trio.stop();
    eprintln!("   all three stopped in {:.1} s", began.elapsed().as_secs_f64());
    let began = Instant::now();
    trio.start_again();
    trio.wait_served(&topics, PARTITIONS_EACH);
    restart.push(began.elapsed().as_secs_f64());

    let rows = [
        (format!("create {count} partitions of three replicas, until all are in sync"), "s", create, 60.0),
        ("kill -9 of one broker, until every partition is served".to_owned(), "s", failover, 5.0),
        ("start of all three, until every partition is served".to_owned(), "s", restart, 10.0),
    ];
    for (name, unit, firn, goal) in rows {
        let goal = Goal::at_most(goal);
        report.add(Figure { section: SECTION, name, unit, firn, kafka: Vec::new(), goal });
    }
    report.add(Figure {
        section: SECTION,
        name: format!("resident memory of a broker with {count} replicas"),
        unit: "MB",
        firn: weight,
        kafka: Vec::new(),
        goal: Goal::NONE,
    });
}
