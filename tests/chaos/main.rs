//! A cluster of three real brokers, each a machine with a network and a file system of its own, and what befalls it:
//! `firn-chaos run --faults 200`, `firn-chaos cut --cuts 50`, `firn-chaos rot --wounds 1000`.
//!
//! All of it lives in namespaces for mounts and the network that are made anew for each run. They end with it, however it
//! ends, and take everything along: nothing has a name that another run could meet, and nothing is left to clean up.

#![allow(clippy::print_stdout, reason = "this is a command")]

mod clients;
mod faults;
mod machine;
mod network;
mod power;
mod registrar;
mod rot;
mod under_load;

use std::process::{Command, ExitCode};

use clap::{Parser, Subcommand, ValueEnum};
use firn_tests::process::as_root;

/// Said to a process that is in the namespaces already.
const INSIDE: &str = "FIRN_CHAOS_INSIDE";

/// Real brokers and real faults. Needs root, or a sudo that asks nothing.
#[derive(Debug, Parser)]
struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Faults of every kind, one after another and at the same time, under load.
    Run {
        /// How many.
        #[arg(long, default_value_t = 200)]
        faults: usize,
        /// Which come when, and to whom.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        /// As many records are acknowledged at least before it ends.
        #[arg(long, default_value_t = 0)]
        records: u64,
        #[arg(long, default_value = "ext4")]
        file_system: FileSystem,
    },
    /// Disks that do not keep what was written, one broker's at a time.
    Rot {
        /// Flipped bits, wiped blocks and files cut short, in all.
        #[arg(long, default_value_t = 1_000)]
        wounds: usize,
        /// Which, and where.
        #[arg(long, default_value_t = 1)]
        seed: u64,
        #[arg(long, default_value = "ext4")]
        file_system: FileSystem,
    },
    /// The power of all three at once, again and again.
    Cut {
        #[arg(long, default_value_t = 50)]
        cuts: u64,
        #[arg(long, default_value = "ext4")]
        file_system: FileSystem,
        /// Records are acknowledged that lie in memory alone: what must be found.
        #[arg(long)]
        without_fsync: bool,
    },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum FileSystem {
    Ext4,
    Xfs,
}

impl From<FileSystem> for firn_tests::faults::FileSystem {
    fn from(kind: FileSystem) -> Self {
        match kind {
            FileSystem::Ext4 => Self::Ext4,
            FileSystem::Xfs => Self::Xfs,
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if std::env::var_os(INSIDE).is_none() {
        return go_inside();
    }
    network::begin();
    match arguments.action {
        Action::Run { faults, seed, records, file_system } => {
            under_load::run(&under_load::Plan { faults, seed, records, file_system: file_system.into() })
        }
        Action::Rot { wounds, seed, file_system } => rot::run(wounds, seed, file_system.into()),
        Action::Cut { cuts, file_system, without_fsync } => {
            power::run(cuts, file_system.into(), without_fsync)
        }
    }
}

/// The same command, as root and in namespaces of its own.
fn go_inside() -> ExitCode {
    let own = std::env::current_exe().expect("the path of this command");
    let mut command = as_root("unshare");
    // A directory of another user is in nobody's way.
    command.args(["--mount", "--net", "--", "env", &format!("{INSIDE}=1")]);
    for name in ["FIRN_BIN", "FIRN_CACHE", "HOME", "PATH", "TMPDIR"] {
        if let Ok(value) = std::env::var(name) {
            command.arg(format!("{name}={value}"));
        }
    }
    command.arg(own).args(std::env::args_os().skip(1));
    run(command)
}

fn run(mut command: Command) -> ExitCode {
    let status = command.status().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}"));
    if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
