//! From the start of the process to its first answer, and what it weighs when it idles.

use std::time::Duration;

use firn_tests::cluster::System;

use crate::Plan;
use crate::pair;
use crate::report::{Figure, Goal, Report};

const SECTION: &str = "start";

pub fn measure(plan: &Plan, report: &mut Report) {
    let mut seconds = [Vec::new(), Vec::new()];
    let mut idle = [Vec::new(), Vec::new()];
    for _ in 0..plan.runs {
        for (at, system) in [System::Firn, System::Kafka].into_iter().enumerate() {
            let mut broker = pair::broker(system, SECTION);
            broker.stop();
            seconds[at].push(broker.start_again().as_secs_f64());
            // What a start leaves behind settles before it is weighed.
            std::thread::sleep(Duration::from_secs(if plan.quick { 2 } else { 10 }));
            idle[at].push(broker.process().rss_bytes() as f64 / 1e6);
        }
    }
    let [firn, kafka] = seconds;
    report.add(Figure {
        section: SECTION,
        name: "start to first answer".to_owned(),
        unit: "s",
        firn,
        kafka,
        goal: Goal::ratio_at_most(0.05),
    });
    let [firn, kafka] = idle;
    report.add(Figure {
        section: SECTION,
        name: "resident memory, idle".to_owned(),
        unit: "MB",
        firn,
        kafka,
        goal: Goal::ratio_at_most(0.06),
    });
}
