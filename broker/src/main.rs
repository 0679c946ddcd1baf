//! The `firn` binary.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::process::ExitCode;

#[expect(clippy::disallowed_methods, reason = "what the process was called with begins everything")]
fn main() -> ExitCode {
    match firn::commands::parse(std::env::args_os()) {
        Ok(firn) => firn::commands::run(firn),
        Err(code) => code,
    }
}
