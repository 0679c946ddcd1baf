//! Consuming what is in the page cache.

use crate::Plan;
use crate::pair::{self, Flush, Load, Pair};
use crate::report::{Goal, Report};

const SECTION: &str = "consume";

pub fn measure(plan: &Plan, report: &mut Report) {
    let pair = Pair::start(SECTION);
    let flush = Flush::KafkasDefault;
    let first = Load { size: 1024, codec: "none", partitions: 6, flush, bytes: plan.amount(2_000_000_000) };
    consume(
        &pair,
        1,
        first,
        "the first fetches, 1 KiB, none, 6 partitions",
        (Goal::NONE, Goal::NONE),
        report,
    );
    pair.warm_up(plan);
    for size in [1024, 100] {
        let bytes = plan.amount(if size == 1024 { 3_000_000_000 } else { 600_000_000 });
        for codec in ["none", "lz4"] {
            for partitions in [1, 13] {
                let plural = if partitions == 1 { "" } else { "s" };
                let name = format!("{size} B, {codec}, {partitions} partition{plural}");
                let load = Load { size, codec, partitions, flush, bytes };
                let goals = match (size, codec) {
                    (1024, "none") => (Goal::ratio_at_least(1.2), Goal::ratio_at_most(0.7)),
                    _ => (Goal::NONE, Goal::NONE),
                };
                consume(&pair, plan.runs, load, &name, goals, report);
            }
        }
    }
}

/// Reads what was written before, `runs` times from each; the goals are of the speed and of the broker's CPU.
fn consume(pair: &Pair, runs: usize, load: Load, name: &str, goals: (Goal, Goal), report: &mut Report) {
    let topics = pair.alternate(1, |broker| {
        let topic = pair::create(broker, &load);
        pair::produce_into(broker, &topic, &load);
        topic
    });
    let topic_of = |broker: &firn_tests::cluster::Broker| {
        if std::ptr::eq(broker, &raw const pair.firn) { &topics.0[0] } else { &topics.1[0] }
    };
    let (firn, kafka) = pair.alternate(runs, |broker| {
        pair::consume_from(broker, topic_of(broker), load.partitions, load.bytes / load.size)
    });
    pair::add(report, SECTION, name, [&firn, &kafka], goals);
    pair::delete(&pair.firn, &topics.0[0]);
    pair::delete(&pair.kafka, &topics.1[0]);
}
