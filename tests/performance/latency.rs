//! One record at a time, from produce to consume, at a fixed rate.

use firn_tests::cluster::Broker;
use firn_tests::librdkafka;
use serde_json::Value;

use crate::Plan;
use crate::pair::{self, Flush, Load, Pair};
use crate::report::{Figure, Goal, Report};

const SECTION: &str = "latency";

/// What one run of the paced client showed.
#[derive(Debug, Clone, Copy)]
pub struct Paced {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub broker_cores: f64,
    pub client_cores: f64,
}

/// A paced run against one topic of one broker.
pub fn paced(broker: &Broker, topic: &str, rate: u64, seconds: u64, linger_ms: u64) -> Paced {
    let (rate, seconds, linger) = (rate.to_string(), seconds.to_string(), format!("linger.ms={linger_ms}"));
    let mut arguments = vec!["--rate", &rate, "--seconds", &seconds, "--size", "100", "-X", &linger];
    for setting in
        ["acks=all", "socket.nagle.disable=true", "fetch.wait.max.ms=500", "fetch.error.backoff.ms=0"]
    {
        arguments.extend(["-X", setting]);
    }
    let before = broker.process().cpu_seconds();
    let figures: Value = librdkafka::figures("latency", &broker.address(), topic, 1, &arguments);
    let cpu = broker.process().cpu_seconds() - before;
    let number = |key: &str| figures[key].as_f64().unwrap_or_else(|| panic!("no {key} in {figures}"));
    // The client runs for two seconds before it measures; the broker's processor time is of those as well, its own is not.
    Paced {
        p50_ms: number("p50_ms"),
        p99_ms: number("p99_ms"),
        broker_cores: cpu / (number("seconds") + 2.0),
        client_cores: number("client_cpu_seconds") / number("seconds"),
    }
}

pub fn measure(plan: &Plan, report: &mut Report) {
    let pair = Pair::start(SECTION);
    let seconds = if plan.quick { 5 } else { 12 };
    let run = |runs, flush, rate, linger_ms| {
        let load = Load { size: 100, codec: "none", partitions: 1, flush, bytes: 0 };
        pair.alternate(runs, |broker| {
            let topic = pair::create(broker, &load);
            let paced = paced(broker, &topic, rate, seconds, linger_ms);
            pair::delete(broker, &topic);
            paced
        })
    };
    let (firn, kafka) = run(1, Flush::KafkasDefault, 1_000, 0);
    add(report, "as started, 1000 a second, linger 0, page cache", (&firn, &kafka), [Goal::NONE; 3]);
    pair.warm_up(plan);
    for flush in Flush::BOTH {
        for (rate, linger_ms) in [(1_000, 0), (10_000, 0), (10_000, 5)] {
            let (firn, kafka) = run(plan.runs, flush, rate, linger_ms);
            let name = format!("{rate} a second, linger {linger_ms}, {}", flush.name());
            add(report, &name, (&firn, &kafka), goals(flush, rate, linger_ms));
        }
    }
}

/// For p50, p99 and the broker's CPU.
fn goals(flush: Flush, rate: u64, linger_ms: u64) -> [Goal; 3] {
    match (flush, rate, linger_ms) {
        (Flush::KafkasDefault, 1_000, 0) => {
            [Goal::ratio_at_most(0.5), Goal::ratio_at_most(0.33), Goal::ratio_at_most(0.15)]
        }
        (Flush::KafkasDefault, 10_000, 0) => [Goal::NONE, Goal::at_most(10.0), Goal::NONE],
        _ => [Goal::NONE; 3],
    }
}

fn add(report: &mut Report, name: &str, (firn, kafka): (&[Paced], &[Paced]), goals: [Goal; 3]) {
    type Field = fn(&Paced) -> f64;
    let rows: [(&str, &'static str, Field); 4] = [
        ("p50", "ms", |run| run.p50_ms),
        ("p99", "ms", |run| run.p99_ms),
        ("broker CPU", "cores", |run| run.broker_cores),
        ("client CPU", "cores", |run| run.client_cores),
    ];
    for ((what, unit, field), goal) in rows.into_iter().zip(goals.into_iter().chain([Goal::NONE])) {
        report.add(Figure {
            section: SECTION,
            name: format!("{name}: {what}"),
            unit,
            firn: firn.iter().map(field).collect(),
            kafka: kafka.iter().map(field).collect(),
            goal,
        });
    }
}
