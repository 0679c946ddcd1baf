//! Brokers as child processes: started together, their lines told apart, stopped together.
//!
//! A child asks the kernel to be ended with the thread that started it, so that none outlives a parent that is killed.
//! Children are therefore started by the main thread, which is there until the process ends.
//!
//! A child is signalled by the task alone that waits for it, and before it has been waited for: after that its id may be
//! another process's.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};

use firn_model::properties;
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::error::DevError;
use super::place::{PID_FILE, PidFile};
use crate::open_files;

/// How the line begins by which a broker says that it serves clients.
pub const READY: &str = "firn is ready on ";
/// The configuration file in a broker's directory.
pub const CONFIG: &str = "server.properties";
/// News of brokers that wait to be heard.
const EVENTS_AHEAD: usize = 16;

/// A broker to be run.
#[derive(Debug)]
pub struct Broker {
    pub id: u16,
    /// Where its files are. It is there already.
    pub directory: PathBuf,
    pub properties: BTreeMap<String, String>,
    /// The command that starts it again by itself.
    pub again: String,
}

/// What happened to a broker.
#[derive(Debug)]
enum Event {
    Ready(u16),
    /// It has ended, and how: a verb and what belongs to it.
    Ended(u16, String),
}

/// Runs the brokers until SIGINT or SIGTERM, and says `ready` on standard output when all serve clients.
pub fn run(brokers: &[Broker], ready: &str) -> Result<(), DevError> {
    open_files::raise();
    // This thread and no other: see the module.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(DevError::Runtime)?.block_on(supervise(brokers, ready))
}

async fn supervise(brokers: &[Broker], ready: &str) -> Result<(), DevError> {
    let mut signals = Signals::listen().map_err(DevError::Runtime)?;
    let (events, mut told) = mpsc::channel(EVENTS_AHEAD);
    let stop = CancellationToken::new();
    let started = start_all(brokers, &events, &stop);
    drop(events);
    let result = match started {
        Ok(()) => watch(brokers, ready, &mut told, &mut signals).await,
        Err(error) => Err(error),
    };
    stop.cancel();
    // Whatever came, nobody is left behind: the last one's end closes the channel.
    while told.recv().await.is_some() {}
    result
}

fn start_all(
    brokers: &[Broker],
    events: &mpsc::Sender<Event>,
    stop: &CancellationToken,
) -> Result<(), DevError> {
    for broker in brokers {
        let child = start(broker)?;
        tokio::spawn(attend(broker.id, broker.directory.clone(), child, events.clone(), stop.clone()));
    }
    Ok(())
}

#[expect(
    clippy::disallowed_methods,
    reason = "a process and the file that it reads, not this one's own data"
)]
fn start(broker: &Broker) -> Result<Child, DevError> {
    let config = broker.directory.join(CONFIG);
    let properties = properties::write(&broker.properties);
    let text = format!("# firn dev writes this anew at each start.\n{properties}");
    std::fs::write(&config, text).map_err(|source| DevError::Path { path: config.clone(), source })?;
    let failed = |source| DevError::Start { id: broker.id, source };
    let mut command = Command::new(std::env::current_exe().map_err(failed)?);
    command.arg("serve").arg("--config").arg(&config);
    command.arg("--with-parent").arg(std::process::id().to_string());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().map_err(failed)
}

/// Follows the brokers until they are to be stopped.
async fn watch(
    brokers: &[Broker],
    ready: &str,
    told: &mut mpsc::Receiver<Event>,
    signals: &mut Signals,
) -> Result<(), DevError> {
    let mut starting: BTreeSet<u16> = brokers.iter().map(|broker| broker.id).collect();
    let mut left = brokers.len();
    loop {
        let event = tokio::select! {
            // First, as a terminal's Ctrl-C reaches the brokers, too: that they end then is no news.
            biased;
            () = signals.wait() => {
                return if starting.is_empty() { Ok(()) } else { Err(DevError::Interrupted) };
            }
            event = told.recv() => event,
        };
        match event {
            Some(Event::Ready(id)) => {
                if starting.remove(&id) && starting.is_empty() {
                    // A closed standard output does not stop them.
                    writeln!(io::stdout(), "{ready}").ok();
                }
            }
            Some(Event::Ended(id, how)) if !starting.is_empty() => {
                return Err(DevError::NotReady { id, how });
            }
            Some(Event::Ended(id, how)) => {
                left = left.saturating_sub(1);
                let again = brokers.iter().find(|broker| broker.id == id).map(|broker| broker.again.as_str());
                say(&loss(id, &how, left, again.unwrap_or_default()));
            }
            None => return Err(DevError::NoneLeft),
        }
    }
}

/// What is said when a broker has ended that nobody here asked to.
fn loss(id: u16, how: &str, left: usize, again: &str) -> String {
    let others = match left {
        0 => "it was the last",
        1 => "the other goes on",
        _ => "the others go on",
    };
    format!("broker {id} {how}; {others}. Start it again: {again}")
}

/// Stays with a broker until its end, or brings that about.
async fn attend(
    id: u16,
    directory: PathBuf,
    mut child: Child,
    events: mpsc::Sender<Event>,
    stop: CancellationToken,
) {
    let (out, err) = (child.stdout.take(), child.stderr.take());
    let life = async {
        let pid_file = child.id().map(|pid| PidFile::write(directory.join(PID_FILE), pid));
        if let Some(Err(error)) = &pid_file {
            say(&format!("broker {id} runs, but has no file that tells its process: {error}"));
        }
        let how = end(&mut child, &stop).await;
        drop(pid_file);
        how
    };
    // Its last lines are copied before its end is told.
    let (how, (), ()) = tokio::join!(life, relay(id, out, Some(&events)), relay(id, err, None));
    // There is always a listener: it waits for this sender.
    events.send(Event::Ended(id, how)).await.ok();
}

/// Waits for a child's end, and asks for it when `stop` says so. Gives how it ended.
async fn end(child: &mut Child, stop: &CancellationToken) -> String {
    let by_itself = tokio::select! {
        status = child.wait() => Some(status),
        () = stop.cancelled() => None,
    };
    let status = match by_itself {
        Some(status) => status,
        None => {
            terminate(child);
            child.wait().await
        }
    };
    match status {
        Ok(status) => manner(status),
        Err(error) => format!("cannot be waited for ({error})"),
    }
}

fn manner(status: ExitStatus) -> String {
    match (status.signal(), status.code()) {
        (Some(signal), _) => format!("was ended by signal {signal}"),
        (None, Some(code)) => format!("ended with exit code {code}"),
        (None, None) => "ended".to_owned(),
    }
}

fn terminate(child: &Child) {
    // None once it has been waited for.
    let pid = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
    if let Some(Err(error)) = pid.map(|pid| kill_process(pid, Signal::TERM)) {
        say(&format!("cannot stop process {}: {error}", Pid::as_raw(pid)));
    }
}

/// Copies lines to standard error until there are no more, except those by which a broker says on its standard output,
/// which comes with `events`, that it is ready.
async fn relay(id: u16, stream: Option<impl AsyncRead + Unpin>, events: Option<&mpsc::Sender<Event>>) {
    let Some(stream) = stream else { return };
    let (mut lines, mut line) = (BufReader::new(stream), Vec::new());
    // A pipe that cannot be read is as good as closed.
    while lines.read_until(b'\n', &mut line).await.is_ok_and(|bytes| bytes > 0) {
        if let Some(events) = events.filter(|_| line.starts_with(READY.as_bytes())) {
            events.send(Event::Ready(id)).await.ok();
        } else {
            // Lines need not be UTF-8.
            let text = line.strip_suffix(b"\n").unwrap_or(&line);
            print(&[format!("[broker {id}] ").as_bytes(), text, b"\n"].concat());
        }
        line.clear();
    }
}

fn say(line: &str) {
    print(format!("{line}\n").as_bytes());
}

/// Prints whole lines at once, so that none comes in between. A closed standard error stops nobody.
fn print(lines: &[u8]) {
    io::stderr().write_all(lines).ok();
}

/// The two signals by which people and init systems stop a process.
#[derive(Debug)]
struct Signals {
    interrupt: unix::Signal,
    terminate: unix::Signal,
}

impl Signals {
    fn listen() -> io::Result<Self> {
        Ok(Self { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_says_how_it_came_who_is_left_and_what_to_do() {
        assert_eq!(
            loss(1, &manner(ExitStatus::from_raw(9)), 2, "firn serve --config d"),
            "broker 1 was ended by signal 9; the others go on. Start it again: firn serve --config d"
        );
        assert_eq!(manner(ExitStatus::from_raw(3 << 8)), "ended with exit code 3");
        assert!(loss(0, "ended", 0, "").contains("it was the last"));
    }
}
