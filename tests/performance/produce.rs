//! Producing as fast as it goes: record size × codec × partitions × flush, throughput and what it costs the broker.

use crate::Plan;
use crate::pair::{self, Flush, Load, Pair};
use crate::report::{Figure, Goal, Report};

const SECTION: &str = "produce";

pub fn measure(plan: &Plan, report: &mut Report) {
    let pair = Pair::start(SECTION);
    let first = Load {
        size: 1024,
        codec: "none",
        partitions: 6,
        flush: Flush::KafkasDefault,
        bytes: plan.amount(2_000_000_000),
    };
    let (firn, kafka) = pair.alternate(1, |broker| pair::produce(broker, &first));
    pair::add(
        report,
        SECTION,
        "as started, 1 KiB, none, 6 partitions, page cache",
        [&firn, &kafka],
        (Goal::NONE, Goal::NONE),
    );
    pair.warm_up(plan);
    for flush in Flush::BOTH {
        for (size, codec, partitions) in loads() {
            let full = match (flush, size) {
                (Flush::KafkasDefault, 1024) => 2_000_000_000,
                (Flush::KafkasDefault, _) => 600_000_000,
                (Flush::EachMessage, 1024) => 1_000_000_000,
                (Flush::EachMessage, _) => 300_000_000,
            };
            let load = Load { size, codec, partitions, flush, bytes: plan.amount(full) };
            let (firn, kafka) = pair.alternate(plan.runs, |broker| pair::produce(broker, &load));
            let plural = if partitions == 1 { "" } else { "s" };
            let name = format!("{size} B, {codec}, {partitions} partition{plural}, {}", flush.name());
            pair::add(report, SECTION, &name, [&firn, &kafka], goals(&load));
        }
    }
    let rss = |broker: &firn_tests::cluster::Broker| vec![broker.process().peak_rss_bytes() as f64 / 1e6];
    report.add(Figure {
        section: SECTION,
        name: "most resident memory under load".to_owned(),
        unit: "MB",
        firn: rss(&pair.firn),
        kafka: rss(&pair.kafka),
        goal: Goal::ratio_at_most(0.15),
    });
}

fn loads() -> impl Iterator<Item = (u64, &'static str, i32)> {
    let sizes = [1024, 100].into_iter();
    sizes.flat_map(|size| {
        ["none", "lz4"].into_iter().flat_map(move |codec| [1, 13].map(|partitions| (size, codec, partitions)))
    })
}

fn goals(load: &Load) -> (Goal, Goal) {
    match (load.flush, load.size, load.codec) {
        (Flush::KafkasDefault, 1024, "none") => {
            (Goal { ratio_min: Some(1.4), value_min: Some(700.0), ..Goal::NONE }, Goal::ratio_at_most(0.4))
        }
        (Flush::KafkasDefault, 100, "none") => (Goal::ratio_at_least(1.2), Goal::ratio_at_most(0.2)),
        (Flush::EachMessage, 1024, "none") => (Goal::ratio_at_least(3.0), Goal::NONE),
        _ => (Goal::NONE, Goal::NONE),
    }
}
