//! The process's own log: for people on a terminal, or as JSON for machines. Goes to standard error.

use std::io::IsTerminal;

use firn_model::broker_config::settings::LogFormat;
use tracing_subscriber::EnvFilter;

/// What is logged unless `FIRN_LOG` says otherwise. The consensus library warns of each message to a member that is away, dozens of times a second:
/// that somebody is away the broker tells itself, once.
const DEFAULT_FILTER: &str = "info,openraft=error";

/// Starts the log. `FIRN_LOG` filters it, in the form `level` or `target=level,…`. A second call changes nothing.
#[expect(
    clippy::disallowed_methods,
    reason = "how a process logs is said to the process, and no broker goes by it"
)]
pub fn start(format: LogFormat) {
    let filter = EnvFilter::try_from_env("FIRN_LOG").unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Human => {
            let colours = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            builder.with_ansi(colours).with_target(false).try_init()
        }
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    // Only a test that starts several brokers in one process gets here twice.
    started.ok();
}
