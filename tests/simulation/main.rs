//! Whole brokers and their clients on one thread, in virtual time, with faults from a seed: `firn-sim run --seed 7`.
//!
//! A run that breaks a promise prints its seed, what it broke and how it came to that; the same seed does the same again, with
//! every event by `--print`. Each seed has a process of its own, so that nothing of another is in it.

#![allow(clippy::print_stdout, reason = "this is a command")]

mod broker;
mod bucket;
mod client;
mod consumer;
mod environment;
mod faults;
mod group;
mod judge;
mod many_hosts;
mod operator;
mod producer;
mod randomness;
mod reading;
mod replicas;
mod run;
mod scale;
mod shared;
mod soak;
mod story;
mod trace;
mod trials;
mod trimmer;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use run::{Settings, run};

/// Simulates brokers, their clients and their misfortunes.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Run one seed.
    Run(Seed),
    /// Many brokers: how long they take to register, to have many partitions, and to go on without a zone.
    Scale {
        /// How many brokers; each number is a run of its own.
        #[arg(long, value_delimiter = ',', default_values_t = [10, 100, 300])]
        brokers: Vec<usize>,
        /// Partitions for each broker.
        #[arg(long, default_value_t = 10)]
        partitions: usize,
    },
    /// Run one seed after another, on every processor, until there were enough of them or one breaks a promise.
    Soak {
        /// The first seed.
        #[arg(long, default_value_t = 1)]
        from: u64,
        /// How many seeds; without end if none is said.
        #[arg(long)]
        seeds: Option<u64>,
        /// Virtual seconds of work and faults of each.
        #[arg(long, default_value_t = 120)]
        seconds: u64,
    },
}

/// A seed, and what is to be otherwise than it has it.
#[derive(Debug, Args)]
struct Seed {
    #[arg(long)]
    seed: u64,
    /// How many brokers; if none is said, one, three or five, as the seed has it.
    #[arg(long)]
    brokers: Option<usize>,
    /// How many of them have a vote on the metadata; if it is not said, all, or three of five, as the seed has it.
    #[arg(long)]
    voters: Option<usize>,
    /// How many of them have each partition; if it is not said, one, two or three, as the seed has it.
    #[arg(long)]
    replication_factor: Option<usize>,
    /// Whether what is older goes to an object store; if it is not said, as the seed has it.
    #[arg(long)]
    tiered: Option<bool>,
    /// Whether one broker's disk does not keep everything; if it is not said, as the seed has it.
    #[arg(long)]
    rots: Option<bool>,
    /// Whether somebody moves partitions, empties brokers and changes who votes; if it is not said, as the seed has it.
    #[arg(long)]
    operated: Option<bool>,
    /// Whether one misfortune comes at a time, and writes have to go on meanwhile; if it is not said, as the seed has it.
    #[arg(long)]
    alone: Option<bool>,
    /// Virtual seconds of work and faults.
    #[arg(long, default_value_t = 120)]
    seconds: u64,
    /// Print every event.
    #[arg(long)]
    print: bool,
    /// The disk says that it has synced files, and has not: what a run must notice.
    #[arg(long)]
    lying_disk: bool,
}

impl Seed {
    fn settings(&self) -> Settings {
        let seed = self.seed;
        let brokers = self.brokers.unwrap_or([3, 1, 3, 3, 1, 3, 5, 3][seed as usize % 8]);
        // Most of the cases are in what most clusters do.
        let by_seed = [3, 3, 2, 3, 1][seed as usize / 8 % 5];
        let replication_factor = self.replication_factor.unwrap_or(by_seed).min(brokers);
        // The others have to be enough.
        let alone = self.alone.unwrap_or(seed % 4 == 2) && replication_factor > 2;
        Settings {
            seed,
            alone,
            brokers,
            voters: self.voters.unwrap_or([3, 5][seed as usize / 8 % 2]).min(brokers),
            replication_factor,
            tiered: self.tiered.unwrap_or(seed % 5 < 2),
            // Others have what it loses.
            rots: self.rots.unwrap_or(seed % 3 == 1) && replication_factor > 2 && !alone,
            operated: self.operated.unwrap_or((seed / 3).is_multiple_of(2)) && brokers > 1 && !alone,
            lasts: Duration::from_secs(self.seconds),
            lying_disk: self.lying_disk,
            print: self.print,
        }
    }
}

/// How it came to a broken promise, and how to see the rest.
fn tell(what: &str, story: &[String]) {
    println!(
        "\nWhat befell the brokers until this was seen, and the last that clients of its partition did: {what}"
    );
    for line in story {
        println!("{line}");
    }
    let command: Vec<String> = std::env::args().collect();
    println!("\nEvery event of it: {} --print", command.join(" "));
}

fn main() -> ExitCode {
    match Arguments::parse().action {
        Action::Run(seed) => {
            let settings = seed.settings();
            let outcome = run(&settings);
            println!(
                "seed {}: {} broken promises, {} records acknowledged in {:.1} virtual seconds, trace {:016x} of {} events",
                settings.seed,
                outcome.broken.len(),
                outcome.acknowledged,
                outcome.virtual_time.as_secs_f64(),
                outcome.trace,
                outcome.events
            );
            for broken in &outcome.broken {
                println!("  {broken}");
            }
            if let Some((what, story)) = outcome.first.filter(|_| !settings.print) {
                tell(&what, &story);
            }
            if outcome.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
        }
        Action::Soak { from, seeds, seconds } => soak::soak(from, seeds, seconds),
        Action::Scale { brokers, partitions } => scale::scale(&brokers, partitions),
    }
}
