//! What the `firn` command can do: run a broker, for development or by a configuration file, or talk to a cluster.

mod dev;
mod providers;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use firn_model::broker_config::{BrokerConfig, Parsed};
use firn_model::config_definition::ConfigError;
use firn_model::config_providers::{self, ProviderError};
use firn_model::properties::{self, PropertiesError};
use rustix::process::{Pid, Signal, getppid, set_parent_process_death_signal};
use tokio::signal::unix::{SignalKind, signal};

use crate::environment::Environment;
use crate::node::{Node, StartError, Stopped};
use crate::open_files;
use crate::registration::Ended;
use dev::Dev;
use dev::error::DevError;
use dev::place::PidFile;
use dev::processes::READY;

/// Threads that serve connections, for each core: one may wait for the disk while another works.
const WORKERS_PER_CORE: usize = 2;
/// How long a stopped process waits for threads that do not end: the logs are closed, and nothing comes of it any more.
const STOP_PATIENCE: Duration = Duration::from_secs(2);

/// A Kafka-compatible broker: hot segments on local disk, cold segments in an object store.
#[derive(Debug, Parser)]
#[command(name = "firn", version, about, propagate_version = true)]
pub struct Firn {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a broker, or several, on this machine, with nothing to configure
    Dev(Dev),
    /// Run a broker by a configuration file in the format of Kafka's server.properties
    Serve(Serve),
    #[command(flatten)]
    Client(Box<firn_cli::command::Command>),
    /// Print a script that completes this command's arguments, for example: firn completion bash
    Completion {
        /// The shell that is to read it
        shell: Shell,
    },
}

#[derive(Debug, Args)]
struct Serve {
    /// The file, with Kafka's key names
    #[arg(long, short, value_name = "FILE", required_unless_present = "file")]
    config: Option<PathBuf>,
    /// The same, as Kafka's own command takes it
    #[arg(value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,
    /// Keep the process's id in this file for as long as it runs
    #[arg(long, value_name = "FILE")]
    pid_file: Option<PathBuf>,
    /// Stop when the process with this id ends, which must be the one that started this one
    #[arg(long, value_name = "PID", hide = true)]
    with_parent: Option<i32>,
}

/// Why a command fails before a broker runs.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error("cannot use {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {source}")]
    Properties { path: PathBuf, source: PropertiesError },
    #[error("{path}: {source}")]
    Providers { path: PathBuf, source: ProviderError },
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Start(#[from] StartError),
    #[error(transparent)]
    Dev(#[from] DevError),
    #[error("name the broker's configuration file: firn serve --config server.properties")]
    NoFile,
    #[error("cannot ask to be stopped with process {parent}, which started this one: {source}")]
    Parent { parent: i32, source: std::io::Error },
    #[error("process {parent}, which started this one, has ended already")]
    Orphan { parent: i32 },
    #[error("stopped before the broker was ready")]
    Interrupted,
    #[error("stopped, because {0}")]
    Ended(#[from] Ended),
    #[error("cannot start the runtime: {0}")]
    Runtime(std::io::Error),
}

/// Carries the command out; the exit code is the process's.
pub fn run(firn: Firn) -> ExitCode {
    let result = match firn.command {
        Command::Dev(dev) => develop(&dev),
        Command::Serve(serve) => serve.run(),
        Command::Client(command) => return client(*command),
        Command::Completion { shell } => return complete(shell),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

fn failure(error: &dyn std::error::Error) -> ExitCode {
    // Nothing else can be done when even standard error is closed.
    writeln!(std::io::stderr(), "firn: {error}").ok();
    ExitCode::FAILURE
}

/// Reads the command line. Where that fails, or only help was wanted, it has been said, and the process ends with the
/// code: clap's 2 for misuse, but 1 where Kafka's tools, and so the scripts that call them, have 1.
pub fn parse(given: impl IntoIterator<Item = OsString>) -> Result<Firn, ExitCode> {
    let arguments = arguments(given);
    if let Some(told) = unknown_tool(&arguments) {
        writeln!(std::io::stderr(), "{told}").ok();
        return Err(ExitCode::FAILURE);
    }
    Firn::try_parse_from(&arguments).map_err(|error| {
        // Where even that cannot be printed, the exit code still tells.
        error.print().ok();
        ExitCode::from(misuse(&arguments, &error))
    })
}

/// What to say of a tool of Kafka's that is not here: which there are.
fn unknown_tool(arguments: &[OsString]) -> Option<String> {
    let named = arguments.get(1)?.to_str().filter(|name| name.starts_with("kafka-"))?;
    let command = Firn::command();
    let tools = command.get_subcommands().map(clap::Command::get_name);
    let tools: Vec<&str> = tools.filter(|name| name.starts_with("kafka-")).collect();
    (!tools.contains(&named))
        .then(|| format!("error: there is no {named} here; there are {}", tools.join(", ")))
}

fn misuse(arguments: &[OsString], error: &clap::Error) -> u8 {
    let tool = arguments.get(1).and_then(|name| name.to_str()).is_some_and(|name| name.starts_with("kafka-"));
    if tool && error.use_stderr() { 1 } else { u8::try_from(error.exit_code()).unwrap_or(2) }
}

/// The command line, where the name of the program stands for a subcommand when it is that of one of Kafka's tools: a
/// link named `kafka-topics`, or `kafka-topics.sh`, is then all that scripts need.
pub fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut given = given.into_iter();
    let program = given.next().unwrap_or_default();
    let plain = |name: &str| name.strip_suffix(".sh").unwrap_or(name).to_owned();
    let is_tool = |name: &&str| name.starts_with("kafka-");
    let link = Path::new(&program).file_name().and_then(OsStr::to_str).filter(is_tool).map(plain);
    match link {
        // Usage then names the tool once.
        Some(tool) => ["firn".into(), tool.into()].into_iter().chain(given).collect(),
        None => {
            let first = given.next();
            let first = first.map(|first| match first.to_str().filter(is_tool) {
                Some(tool) => plain(tool).into(),
                None => first,
            });
            std::iter::once(program).chain(first).chain(given).collect()
        }
    }
}

/// Runs one of the commands that talk to a cluster. They wait for one thing at a time: one thread will do.
fn client(command: firn_cli::command::Command) -> ExitCode {
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(firn_cli::command::run(command));
            // A thread that reads standard input cannot be woken, and there is nothing left to wait for.
            runtime.shutdown_background();
            code
        }
        Err(error) => failure(&CommandError::Runtime(error)),
    }
}

fn complete(shell: Shell) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Firn::command(), "firn", &mut script);
    match std::io::stdout().write_all(&script) {
        Ok(()) => ExitCode::SUCCESS,
        // A reader that has seen enough, as `head` does, is no failure.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        Err(error) => failure(&error),
    }
}

/// One broker is this very process; several are processes of their own.
fn develop(dev: &Dev) -> Result<(), CommandError> {
    let place = dev.claim()?;
    match dev.brokers {
        1 => broker(&dev.properties(0, &place.data, &place.store), Some(dev), Some(dev.own_pid_file())),
        _ => Ok(dev.run_processes(&place)?),
    }
}

impl Serve {
    fn run(&self) -> Result<(), CommandError> {
        if let Some(parent) = self.with_parent {
            stop_with(parent)?;
        }
        broker(&self.properties()?, None, self.pid_file.clone())
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "there is no broker yet: its configuration says on which disk it is"
    )]
    fn properties(&self) -> Result<BTreeMap<String, String>, CommandError> {
        let path = self.config.as_ref().or(self.file.as_ref()).ok_or(CommandError::NoFile)?;
        let text = std::fs::read_to_string(path)
            .map_err(|source| CommandError::Read { path: path.clone(), source })?;
        let parsed = properties::parse(&text)
            .map_err(|source| CommandError::Properties { path: path.clone(), source })?;
        config_providers::resolve(parsed, providers::look_up)
            .map_err(|source| CommandError::Providers { path: path.clone(), source })
    }
}

/// Lets the kernel send SIGTERM when the process that started this one ends, however it ends.
fn stop_with(parent: i32) -> Result<(), CommandError> {
    set_parent_process_death_signal(Some(Signal::TERM))
        .map_err(|error| CommandError::Parent { parent, source: error.into() })?;
    // Who ended before the kernel was asked is not told of.
    match Pid::as_raw(getppid()) == parent {
        true => Ok(()),
        false => Err(CommandError::Orphan { parent }),
    }
}

/// Runs a broker until SIGINT or SIGTERM.
fn broker(
    properties: &BTreeMap<String, String>,
    dev: Option<&Dev>,
    pid_file: Option<PathBuf>,
) -> Result<(), CommandError> {
    let Parsed { config, warnings } = BrokerConfig::from_properties(properties)?;
    firn_telemetry::logging::start(config.log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    open_files::raise();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores * WORKERS_PER_CORE)
        .enable_all()
        .build()
        .map_err(CommandError::Runtime)?;
    let result = runtime.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt()).map_err(CommandError::Runtime)?;
        let mut terminate = signal(SignalKind::terminate()).map_err(CommandError::Runtime)?;
        let mut stop = async || {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        };
        // A store that does not answer may keep the start waiting, and must not keep it from being stopped.
        let node = tokio::select! {
            started = Node::start(config, Environment::system()) => started?,
            () = stop() => return Err(CommandError::Interrupted),
        };
        // Not before: a broker that may run in the same directory, and keeps this one from starting, has its own.
        let _pid_file = pid_file.and_then(|path| {
            let written = PidFile::write(path, std::process::id());
            written.inspect_err(|error| tracing::warn!("no file tells this process: {error}")).ok()
        });
        announce(&node, dev);
        let ended = tokio::select! {
            () = stop() => None,
            why = node.ended() => Some(why),
        };
        tracing::info!("stopping");
        match node.stop().await {
            Stopped::Cleanly => tracing::info!("stopped cleanly"),
            Stopped::Uncleanly => tracing::warn!("stopped, but not cleanly: the next start checks the logs"),
        }
        ended.map_or(Ok(()), |why| Err(why.into()))
    });
    runtime.shutdown_timeout(STOP_PATIENCE);
    result
}

/// One line on standard output when clients are served; in development also what to try next.
fn announce(node: &Node, dev: Option<&Dev>) {
    let addresses: Vec<String> = node.addresses.iter().map(SocketAddr::to_string).collect();
    let mut line = format!("{READY}{}", addresses.join(", "));
    if let Some(address) = node.http_address {
        line.push_str(&format!("; metrics on http://{address}/metrics"));
    }
    if let (Some(dev), Some(address)) = (dev, addresses.first()) {
        line.push_str(&dev.next_steps(address, &dev::program()));
    }
    // A closed standard output does not stop a broker.
    writeln!(std::io::stdout(), "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn dispatched(line: &str) -> Vec<OsString> {
        arguments(line.split(' ').map(OsString::from))
    }

    #[test]
    fn a_link_named_as_a_tool_of_kafka_is_that_tool() {
        assert_eq!(dispatched("firn topic list"), ["firn", "topic", "list"]);
        let path = "/opt/bin/kafka-topics.sh";
        assert_eq!(dispatched(&format!("{path} --list")), ["firn", "kafka-topics", "--list"]);
        assert_eq!(dispatched("firn kafka-topics.sh --list"), ["firn", "kafka-topics", "--list"]);
        assert!(Firn::try_parse_from(dispatched("kafka-topics --list --bootstrap-server h:1")).is_ok());
    }

    #[test]
    fn usage_names_a_tool_once_and_one_that_is_not_here_says_which_are() {
        let told = Firn::try_parse_from(dispatched("/opt/kafka-topics.sh --lost")).unwrap_err().to_string();
        assert!(told.contains("Usage: firn kafka-topics ") && !told.contains(".sh"), "{told}");
        assert_eq!(unknown_tool(&dispatched("firn topic list")), None);
        assert_eq!(unknown_tool(&dispatched("kafka-topics.sh --list")), None);
        let told = unknown_tool(&dispatched("/opt/kafka-acls.sh --list")).unwrap();
        assert!(told.starts_with("error: there is no kafka-acls here; there are kafka-topics, "), "{told}");
    }

    /// Names of what says nothing of itself.
    fn silent(command: &clap::Command, path: &str, found: &mut Vec<String>) {
        for argument in command.get_arguments() {
            let own = !matches!(argument.get_id().as_str(), "help" | "version");
            if own && argument.get_help().is_none() {
                found.push(format!("{path} {}", argument.get_id()));
            }
        }
        for inner in command.get_subcommands().filter(|inner| inner.get_name() != "help") {
            let path = format!("{path} {}", inner.get_name());
            if inner.get_about().is_none() {
                found.push(path.clone());
            }
            silent(inner, &path, found);
        }
    }

    #[test]
    fn everything_that_can_be_typed_has_a_description() {
        let mut found = Vec::new();
        silent(&Firn::command(), "firn", &mut found);
        assert_eq!(found, Vec::<String>::new());
    }

    #[test]
    fn misuse_ends_as_scripts_of_kafka_expect() {
        for (line, code) in [
            ("firn topic describe", 2),
            ("firn --help", 0),
            ("firn kafka-topics --create --list --bootstrap-server h:1", 1),
            ("/bin/kafka-configs.sh --describe", 1),
            ("kafka-consumer-groups --help", 0),
        ] {
            let arguments = dispatched(line);
            let error = Firn::try_parse_from(&arguments).unwrap_err();
            assert_eq!(misuse(&arguments, &error), code, "{line}");
        }
    }

    #[test]
    fn the_command_line_is_consistent_and_completes() {
        Firn::command().debug_assert();
        let mut script = Vec::new();
        clap_complete::generate(Shell::Bash, &mut Firn::command(), "firn", &mut script);
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("kafka-consumer-groups") && script.contains("serve"), "{script}");
    }
}
