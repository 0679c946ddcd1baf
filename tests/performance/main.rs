//! `make bench`: Firn and Apache Kafka in one run, the same client program, alternating runs, medians with min and max.
//!
//! Options: `--sections all|NAME,...`, `--runs N` (5), `--quick` (short runs and little warm-up: not for quoting).
//! The table, its figures as JSON and the plot land in `target/bench/`.

mod alone;
mod cluster;
mod cold;
mod consume;
mod failover;
mod latency;
mod machine;
mod pair;
mod partitions;
mod plot;
mod produce;
mod report;
mod starting;

use report::Report;

/// How much of everything.
#[derive(Debug, Clone)]
pub struct Plan {
    pub runs: usize,
    pub quick: bool,
    sections: Vec<String>,
}

impl Plan {
    fn from_arguments() -> Plan {
        let mut plan = Plan { runs: 5, quick: false, sections: vec!["all".to_owned()] };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().unwrap_or_else(|| panic!("{argument} wants a value"));
            match argument.as_str() {
                "--quick" => plan.quick = true,
                "--runs" => plan.runs = value().parse().expect("--runs wants a number"),
                "--sections" => plan.sections = value().split(',').map(str::to_owned).collect(),
                // What cargo itself passes.
                "--bench" => {}
                other => panic!("no such option: {other}; there are --sections, --runs and --quick"),
            }
        }
        if plan.quick {
            plan.runs = plan.runs.min(2);
        }
        plan
    }

    /// `full`, or a twentieth of it in a quick run.
    pub fn amount(&self, full: u64) -> u64 {
        if self.quick { (full / 20).max(1) } else { full }
    }
}

type Section = (&'static str, fn(&Plan, &mut Report));

const SECTIONS: [Section; 9] = [
    ("start", starting::measure),
    ("produce", produce::measure),
    ("consume", consume::measure),
    ("latency", latency::measure),
    ("partitions", partitions::measure),
    ("alone", alone::measure),
    ("cold", cold::measure),
    ("failover", failover::measure),
    ("cluster", cluster::measure),
];

fn main() {
    let plan = Plan::from_arguments();
    for wanted in &plan.sections {
        let known = wanted == "all" || SECTIONS.iter().any(|(name, _)| name == wanted);
        let names: Vec<&str> = SECTIONS.iter().map(|(name, _)| *name).collect();
        assert!(known, "no such section: {wanted}; there are {}", names.join(", "));
    }
    machine::clear_leftovers();
    machine::require_space(&plan);
    let memory = machine::OwnMemory::hold();
    let mut report = Report::new(machine::describe(), plan.quick);
    for (name, measure) in SECTIONS {
        if plan.sections.iter().any(|wanted| wanted == "all" || wanted == name) {
            eprintln!("\n== {name}");
            measure(&plan, &mut report);
            // After each section, so that a long run that is stopped leaves what it has.
            report.write();
        }
    }
    drop(memory);
    println!("{}", report.markdown());
}
