//! A broker as a child process. The suites are about Firn; with `FIRN_TEST_SYSTEM=kafka` the same tests run against
//! Apache Kafka, which is how a test proves that it asks for Kafka's behaviour and not for ours.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use crate::process::{Process, TempDir, free_ports, wait_for};
use crate::{apache, tools, wire};

const READY_DEADLINE: Duration = Duration::from_secs(60);
const STOP_DEADLINE: Duration = Duration::from_secs(60);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum System {
    Firn,
    Kafka,
}

impl System {
    /// The system that this run of the suites is about.
    pub fn under_test() -> System {
        match std::env::var("FIRN_TEST_SYSTEM").as_deref() {
            Ok("kafka") => System::Kafka,
            Ok("firn") | Err(_) => System::Firn,
            Ok(other) => panic!("FIRN_TEST_SYSTEM={other}: expected firn or kafka"),
        }
    }

    pub fn name(self) -> &'static str {
        match self {
            System::Firn => "firn",
            System::Kafka => "kafka",
        }
    }
}

/// How a broker is started. `properties` are lines of a `server.properties` over the defaults of `settings`.
#[derive(Debug, Clone)]
pub struct BrokerOptions {
    pub system: System,
    pub properties: Vec<(String, String)>,
    pub environment: Vec<(String, String)>,
    /// Where the log directory lies; a temporary directory of the broker's own when absent.
    pub data: Option<PathBuf>,
    /// The most address space that the process may have, in KiB (`ulimit -v`); Firn only.
    pub address_space_kib_max: Option<u64>,
    /// Kafka's `-Xms` and `-Xmx`.
    pub heap: &'static str,
}

impl Default for BrokerOptions {
    fn default() -> BrokerOptions {
        BrokerOptions {
            system: System::under_test(),
            properties: Vec::new(),
            environment: Vec::new(),
            data: None,
            address_space_kib_max: None,
            heap: "512m",
        }
    }
}

impl BrokerOptions {
    pub fn with(mut self, key: &str, value: &str) -> BrokerOptions {
        self.properties.push((key.to_owned(), value.to_owned()));
        self
    }

    pub fn on(mut self, data: &Path) -> BrokerOptions {
        self.data = Some(data.to_path_buf());
        self
    }
}

#[derive(Debug)]
pub struct Broker {
    options: BrokerOptions,
    process: Option<Process>,
    port: u16,
    http_port: u16,
    work: TempDir,
}

impl Broker {
    /// Starts a broker and waits until it answers.
    pub fn start(options: BrokerOptions) -> Broker {
        let [port] = free_ports();
        Broker::start_on_port(options, port)
    }

    /// As `start`, on a port that the caller has chosen.
    pub fn start_on_port(options: BrokerOptions, port: u16) -> Broker {
        let [controller_port] = free_ports();
        let mut broker = Broker::prepare(options, port, controller_port);
        broker.start_again();
        broker
    }

    /// A broker that is not started yet.
    pub fn prepare(options: BrokerOptions, port: u16, controller_port: u16) -> Broker {
        let [http_port] = free_ports();
        let work = TempDir::new(options.system.name());
        let broker = Broker { options, process: None, port, http_port, work };
        broker.write_config(controller_port);
        if broker.options.system == System::Kafka {
            apache::format_storage(&broker.config_path());
        }
        broker
    }

    /// Starts a stopped or killed broker on its data, and gives the time to its first answer.
    pub fn start_again(&mut self) -> Duration {
        let started = Instant::now();
        self.start_unready();
        self.wait_ready();
        started.elapsed()
    }

    /// Starts the process and does not wait for it.
    pub fn start_unready(&mut self) {
        assert!(self.process.is_none(), "the broker runs already");
        let mut command = self.command();
        command.envs(self.options.environment.iter().cloned());
        self.process = Some(Process::start("broker", command, self.work.path()));
    }

    pub fn wait_ready(&mut self) {
        let address = self.address();
        let process = self.process.as_mut().expect("the broker was started");
        wait_for("the broker's first answer", READY_DEADLINE, || {
            process.assert_running();
            wire::answers(&address).then_some(())
        });
    }

    fn command(&self) -> Command {
        let config = self.config_path();
        match (self.options.system, self.options.address_space_kib_max) {
            (System::Kafka, _) => apache::broker_command(&config, self.options.heap),
            (System::Firn, None) => {
                let mut command = Command::new(tools::firn());
                command.arg("serve").arg("--config").arg(config);
                command
            }
            (System::Firn, Some(kib)) => {
                let mut command = Command::new("sh");
                command
                    .args(["-c", &format!("ulimit -v {kib} && exec \"$0\" serve --config \"$1\"")])
                    .arg(tools::firn())
                    .arg(config);
                command
            }
        }
    }

    fn write_config(&self, controller_port: u16) {
        let mut lines = match self.options.system {
            System::Firn => vec![
                format!("listeners=PLAINTEXT://127.0.0.1:{}", self.port),
                "broker.id=1".to_owned(),
                format!("firn.http.port={}", self.http_port),
            ],
            System::Kafka => apache::properties(self.port, controller_port),
        };
        lines.push(format!("log.dirs={}", self.data().display()));
        lines.push("group.initial.rebalance.delay.ms=0".to_owned());
        let firn_only = |key: &str| key.starts_with("firn.");
        for (key, value) in &self.options.properties {
            // A file says each key once.
            lines.retain(|line| line.split_once('=').is_none_or(|(known, _)| known != key));
            if self.options.system == System::Firn || !firn_only(key) {
                lines.push(format!("{key}={value}"));
            }
        }
        std::fs::write(self.config_path(), lines.join("\n") + "\n").expect("write server.properties");
    }

    pub fn config_path(&self) -> PathBuf {
        self.work.path().join("server.properties")
    }

    /// The log directory.
    pub fn data(&self) -> PathBuf {
        self.options.data.clone().unwrap_or_else(|| self.work.path().join("data"))
    }

    /// Where clients connect, as `127.0.0.1:PORT`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Where `/metrics` is, as `127.0.0.1:PORT`.
    pub fn http_address(&self) -> String {
        format!("127.0.0.1:{}", self.http_port)
    }

    pub fn process(&self) -> &Process {
        self.process.as_ref().expect("the broker runs")
    }

    pub fn process_mut(&mut self) -> &mut Process {
        self.process.as_mut().expect("the broker runs")
    }

    /// SIGTERM; it must end cleanly.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("the broker runs");
        let status = process.stop(STOP_DEADLINE);
        // A JVM that SIGTERM ends says so by 128 + 15.
        let clean = if self.options.system == System::Kafka { 143 } else { 0 };
        assert_eq!(status, clean, "a clean stop\n{}\n{}", process.stdout(), process.stderr());
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.process.take().expect("the broker runs").kill();
    }

    /// The value of one sample in `/metrics`, summed over its labels; None when there is no such name.
    pub fn metric(&self, name: &str) -> Option<f64> {
        wire::metric(&self.http_address(), name)
    }
}
