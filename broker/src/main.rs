//! The `firn` binary.

use std::process::ExitCode;

fn main() -> ExitCode {
    match firn::commands::parse(std::env::args_os()) {
        Ok(firn) => firn::commands::run(firn),
        Err(code) => code,
    }
}
