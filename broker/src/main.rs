//! The `firn` binary.

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    firn::commands::run(firn::commands::Firn::parse_from(firn::commands::arguments(std::env::args_os())))
}
