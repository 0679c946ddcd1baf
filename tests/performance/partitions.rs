//! Many partitions: creating 1,000 topics of 10, once as started and once warm (after the same had been created and
//! deleted), starting again with them, and what an idle one weighs.

use std::time::Instant;

use firn_tests::cluster::{Broker, System};
use firn_tests::java;

use crate::Plan;
use crate::machine;
use crate::pair;
use crate::report::{Figure, Goal, Report};

const SECTION: &str = "partitions";
const PARTITIONS: u64 = 10;

pub fn measure(plan: &Plan, report: &mut Report) {
    let topics = plan.amount(1_000);
    let mut create = [Vec::new(), Vec::new()];
    let mut create_warm = [Vec::new(), Vec::new()];
    let mut restart = [Vec::new(), Vec::new()];
    let mut weight = Vec::new();
    for _ in 0..plan.runs {
        for (at, system) in [System::Firn, System::Kafka].into_iter().enumerate() {
            let mut broker = pair::broker(system, SECTION);
            let empty = broker.process().rss_bytes();
            let started = Instant::now();
            java::create_topics(&broker.address(), topics, PARTITIONS);
            create[at].push(started.elapsed().as_secs_f64());
            if system == System::Firn {
                let full = broker.process().rss_bytes();
                weight.push(full.saturating_sub(empty) as f64 / (topics * PARTITIONS) as f64 / 1024.0);
            }
            java::delete_topics(&broker.address(), topics);
            // Logs are deleted a while after their topics.
            machine::settle();
            let started = Instant::now();
            java::create_topics(&broker.address(), topics, PARTITIONS);
            create_warm[at].push(started.elapsed().as_secs_f64());
            restart[at].push(restarted(&mut broker, topics));
        }
    }
    let total = topics * PARTITIONS;
    for (how, goal, [firn, kafka]) in
        [("as started", Goal::NONE, create), ("warm", Goal::ratio_at_most(0.2), create_warm)]
    {
        report.add(Figure {
            section: SECTION,
            name: format!("create {topics} topics of {PARTITIONS} partitions, {how}"),
            unit: "s",
            firn,
            kafka,
            goal,
        });
    }
    let [firn, kafka] = restart;
    report.add(Figure {
        section: SECTION,
        name: format!("restart with {total} partitions, until the last topic is served"),
        unit: "s",
        firn,
        kafka,
        goal: Goal::ratio_at_most(0.2),
    });
    report.add(Figure {
        section: SECTION,
        name: "resident memory of an idle partition".to_owned(),
        unit: "KiB",
        firn: weight,
        kafka: Vec::new(),
        goal: Goal::at_most(20.0),
    });
}

/// Stop and start; ends when every partition answers with its end offset.
fn restarted(broker: &mut Broker, topics: u64) -> f64 {
    broker.stop();
    let started = Instant::now();
    broker.start_again();
    java::wait_for_topics(&broker.address(), topics, PARTITIONS);
    started.elapsed().as_secs_f64()
}
