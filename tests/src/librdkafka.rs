//! The C client of tests/performance/client.c, and kcat: both are librdkafka.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use crate::process;
use crate::tools;

/// A member of a group that reads the topic and commits, and prints what it was told, until it is killed.
pub fn member(address: &str, topic: &str, partitions: i32, group: &str) -> Command {
    let mut command = client("group", address, topic, partitions);
    command.args(["--group", group, "-X", "session.timeout.ms=10000", "-X", "socket.timeout.ms=10000"]);
    command
}

fn client(command: &str, address: &str, topic: &str, partitions: i32) -> Command {
    let mut client = Command::new(tools::program("firn-rdkafka"));
    client.args([command, "--brokers", address, "--topic", topic, "--partitions", &partitions.to_string()]);
    client
}

/// The client with options of its own; standard output must be one JSON line of figures.
pub fn figures(
    command: &str,
    address: &str,
    topic: &str,
    partitions: i32,
    arguments: &[&str],
) -> serde_json::Value {
    run(client(command, address, topic, partitions).args(arguments))
}

/// The same, as a process that gets the processors when nobody else wants them.
pub fn figures_in_the_background(
    command: &str,
    address: &str,
    topic: &str,
    partitions: i32,
    arguments: &[&str],
) -> serde_json::Value {
    let client = client(command, address, topic, partitions);
    let mut idle = Command::new("chrt");
    idle.args(["--idle", "0"]).arg(client.get_program()).args(client.get_args());
    run(idle.args(arguments))
}

fn run(client: &mut Command) -> serde_json::Value {
    let out = process::run_ok(client, "", Duration::from_secs(900));
    serde_json::from_str(out.trim()).unwrap_or_else(|error| panic!("{error} in {out}"))
}

/// An idempotent acks=all load of numbered records.
#[derive(Debug)]
pub struct Load {
    child: Child,
    acknowledged: Arc<AtomicU64>,
    ledger: Option<std::thread::JoinHandle<Ledger>>,
}

/// librdkafka's `RD_KAFKA_OFFSET_INVALID`.
const OFFSET_INVALID: i64 = -1001;

/// What the broker acknowledged.
#[derive(Debug, Default, Clone)]
pub struct Ledger {
    /// Partition to (offset, value) in the order of the acknowledgements.
    pub acknowledged: BTreeMap<i32, Vec<(i64, String)>>,
    /// Partition to values that are known to be there, and not where: of a batch whose answer was lost librdkafka learns by
    /// that to a later one.
    pub unplaced: BTreeMap<i32, Vec<String>>,
    pub failures: BTreeMap<String, u64>,
}

impl Ledger {
    pub fn len(&self) -> usize {
        let placed: usize = self.acknowledged.values().map(Vec::len).sum();
        placed + self.unplaced.values().map(Vec::len).sum::<usize>()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Adds what another load was told.
    pub fn add(&mut self, other: Ledger) {
        for (partition, acknowledged) in other.acknowledged {
            self.acknowledged.entry(partition).or_default().extend(acknowledged);
        }
        for (partition, unplaced) in other.unplaced {
            self.unplaced.entry(partition).or_default().extend(unplaced);
        }
        for (error, count) in other.failures {
            *self.failures.entry(error).or_default() += count;
        }
    }
}

impl Load {
    /// Runs until it is killed, or to `count` records when that is not 0. `rate` is records a second, 0 for no limit.
    pub fn start(
        address: &str,
        topic: &str,
        partitions: i32,
        count: u64,
        rate: u32,
        settings: &[&str],
    ) -> Load {
        let mut command = client("load", address, topic, partitions);
        command.args(["--count", &count.to_string(), "--rate", &rate.to_string(), "--size", "100"]);
        Load::run(command, settings)
    }

    /// Runs until it is killed, with `keys` keys in each partition and values of `size` bytes.
    pub fn start_keyed(
        address: &str,
        topic: &str,
        partitions: i32,
        keys: u64,
        size: usize,
        rate: u32,
    ) -> Load {
        let mut command = client("load", address, topic, partitions);
        command.args(["--keys", &keys.to_string(), "--size", &size.to_string(), "--rate", &rate.to_string()]);
        Load::run(command, &[])
    }

    fn run(mut command: Command, settings: &[&str]) -> Load {
        for setting in ["enable.idempotence=true", "acks=all", "linger.ms=1", "message.timeout.ms=300000"] {
            command.args(["-X", setting]);
        }
        for setting in settings {
            command.args(["-X", setting]);
        }
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("start the load");
        let mut out = BufReader::new(child.stdout.take().expect("a pipe"));
        let acknowledged = Arc::new(AtomicU64::new(0));
        let count = Arc::clone(&acknowledged);
        let ledger = std::thread::spawn(move || {
            let mut ledger = Ledger::default();
            let mut line = String::new();
            // The line that the kill cut short tells nothing.
            while out.read_line(&mut line).is_ok_and(|_| line.ends_with('\n')) {
                let words: Vec<&str> = line.trim_end_matches('\n').split(' ').collect();
                match words[..] {
                    ["A", partition, offset, value] => {
                        let partition = partition.parse().expect("a partition");
                        let offset: i64 = offset.parse().expect("an offset");
                        let value = number(value).to_owned();
                        match offset {
                            OFFSET_INVALID => ledger.unplaced.entry(partition).or_default().push(value),
                            _ => ledger.acknowledged.entry(partition).or_default().push((offset, value)),
                        }
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    ["F", _, _, error] => *ledger.failures.entry(error.to_owned()).or_default() += 1,
                    _ => {}
                }
                line.clear();
            }
            ledger
        });
        Load { child, acknowledged, ledger: Some(ledger) }
    }

    /// How many records were acknowledged so far.
    pub fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Waits until this many more records are acknowledged than now.
    pub fn wait_for_more(&self, records: u64) {
        self.wait_for(self.acknowledged() + records);
    }

    /// Waits until this many records are acknowledged in all.
    pub fn wait_for(&self, records: u64) {
        process::wait_for("more acknowledgements", Duration::from_secs(60), || {
            (self.acknowledged() >= records).then_some(())
        });
    }

    /// Kills the client and gives what had been acknowledged to it.
    pub fn kill(mut self) -> Ledger {
        self.child.kill().expect("kill the load");
        self.finish()
    }

    /// Sends nothing more, and gives what was acknowledged once all that was sent is.
    pub fn end(mut self) -> Ledger {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child's id is positive");
        kill_process(pid, Signal::TERM).expect("ask the load to end");
        process::wait_for("the acknowledgement of all that was sent", Duration::from_secs(300), || {
            self.child.try_wait().expect("wait for the load")
        });
        self.finish()
    }

    /// Waits for a counted load's end.
    pub fn wait(mut self) -> Ledger {
        self.finish()
    }

    fn finish(&mut self) -> Ledger {
        self.child.wait().expect("reap the load");
        self.ledger.take().expect("finished once").join().expect("the ledger is read")
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        if self.ledger.is_some() {
            self.child.kill().unwrap_or_default();
            self.child.wait().map(drop).unwrap_or_default();
        }
    }
}

/// The number that a load record carries, without its padding.
pub fn number(value: &str) -> &str {
    value.trim_end_matches(['.', '\0'])
}

/// One partition as `dump` found it: its bounds and, in order, offset and value of each record.
#[derive(Debug, Default, Clone)]
pub struct Dumped {
    pub start_offset: i64,
    pub end_offset: i64,
    pub records: Vec<(i64, String)>,
}

/// Everything that a topic holds at or after the given offsets.
pub fn dump(address: &str, topic: &str, partitions: i32, from: &BTreeMap<i32, i64>) -> BTreeMap<i32, Dumped> {
    let from: Vec<String> = from.iter().map(|(partition, offset)| format!("{partition}:{offset}")).collect();
    let mut command = client("dump", address, topic, partitions);
    if !from.is_empty() {
        command.args(["--from", &from.join(",")]);
    }
    let out = process::run_ok(&mut command, "", Duration::from_secs(90));
    let mut found: BTreeMap<i32, Dumped> = BTreeMap::new();
    for line in out.lines() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_else(|| panic!("a short line: {line}"));
        let kind = word();
        let entry = found.entry(word().parse().expect("a partition")).or_default();
        if kind == "E" {
            entry.start_offset = word().parse().expect("an offset");
            entry.end_offset = word().parse().expect("an offset");
        } else {
            let offset = word().parse().expect("an offset");
            entry.records.push((offset, number(word()).to_owned()));
        }
    }
    found
}

/// kcat with these arguments and this input; it must succeed.
pub fn kcat(address: &str, arguments: &[&str], input: &str) -> String {
    let mut command = Command::new("kcat");
    process::run_ok(command.args(["-b", address]).args(arguments), input, Duration::from_secs(60))
}
