//! `firn dev`: a cluster by one command, which outlives the loss of a broker and leaves nothing behind.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use firn_client::cluster::Cluster;
use firn_client::connection::ConnectionOptions;
use firn_client::consumer::{Consumer, Start};
use firn_client::error::{Error, ResponseError};
use firn_client::producer::{Outgoing, Producer, ProducerOptions};
use firn_client::topics::{self, NewTopic};
use firn_tests::process::{Process, TempDir, free_ports_in_a_row, run, wait_for};
use firn_tests::{apache, java, tools, wire};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;
use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(60);
/// How soon the others must do without a broker that was killed.
const FAILOVER: Duration = Duration::from_secs(15);
const BROKERS: u16 = 3;
const PARTITIONS: i32 = 6;
const RECORDS: usize = 10;

/// Partition and value.
type Record = (i32, String);

/// A cluster of three by one command. The process goes before the directory that it writes to.
#[derive(Debug)]
struct Dev {
    process: Process,
    runtime: Runtime,
    port: u16,
    work: TempDir,
}

fn dev(arguments: &[&str], data: &Path) -> Command {
    let mut command = Command::new(tools::firn());
    command.arg("dev").args(arguments).arg("--data").arg(data);
    command
}

/// Whether a process runs: one that nobody has waited for yet does not.
fn runs(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).expect("a process id");
    kill_process(pid, Signal::KILL).expect("kill a broker");
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970");
    now.as_millis() as i64
}

impl Dev {
    /// Starts three brokers in zones a, b and a, and waits until they say that they are ready.
    fn start() -> Dev {
        let work = TempDir::new("dev-cluster");
        let port = free_ports_in_a_row(2 * BROKERS);
        let (first, http) = (port.to_string(), (port + BROKERS).to_string());
        let arguments = ["--brokers", "3", "--port", &first, "--http-port", &http, "--zones", "a,b"];
        let process = Process::start("dev", dev(&arguments, &work.path().join("data")), work.path());
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let mut dev = Dev { process, runtime: runtime.expect("a runtime"), port, work };
        wait_for("the ready line", DEADLINE, || {
            dev.process.assert_running();
            dev.process.stdout().ends_with('\n').then_some(())
        });
        dev
    }

    fn address(&self, id: u16) -> String {
        format!("127.0.0.1:{}", self.port + id)
    }

    fn directory(&self, id: u16) -> PathBuf {
        self.work.path().join("data").join(format!("broker-{id}"))
    }

    fn pid_file(&self, id: u16) -> PathBuf {
        self.directory(id).join("broker.pid")
    }

    fn pid(&self, id: u16) -> u32 {
        let text = std::fs::read_to_string(self.pid_file(id)).expect("read broker.pid");
        text.strip_suffix('\n').and_then(|pid| pid.parse().ok()).expect("a process id on a line")
    }

    fn pids(&self) -> Vec<u32> {
        (0..BROKERS).map(|id| self.pid(id)).collect()
    }

    /// A client of these brokers, which asks the first that it reaches.
    fn client(&self, ids: impl IntoIterator<Item = u16>) -> Arc<Cluster> {
        let addresses = ids.into_iter().map(|id| self.address(id)).collect();
        let options = ConnectionOptions { deadline: Duration::from_secs(5), ..ConnectionOptions::default() };
        Arc::new(Cluster::new(addresses, options))
    }

    /// Asks until there is an answer, and the answer is right.
    fn until<T>(
        &self,
        what: &str,
        deadline: Duration,
        mut ask: impl AsyncFnMut(Arc<Cluster>) -> Result<Option<T>, Error>,
    ) -> T {
        wait_for(what, deadline, || match self.runtime.block_on(ask(self.client(0..BROKERS))) {
            Ok(answer) => answer,
            Err(error) => {
                eprintln!("{what}: {error}");
                None
            }
        })
    }

    /// Creates a topic with as many replicas as the brokers choose, waits until each of the brokers `ids` leads, and gives what
    /// they lead: partition and leader.
    fn create(&self, name: &str, ids: &[i32], deadline: Duration) -> Vec<(i32, i32)> {
        let topic = NewTopic {
            name: name.to_owned(),
            partitions: Some(PARTITIONS),
            replication_factor: None,
            assignments: Vec::new(),
            configs: Default::default(),
        };
        self.until("the topic is created", deadline, async |client| {
            let connection = client.any().await?;
            match topics::create(&connection, &topic).await {
                Err(error) if !error.is(ResponseError::TopicAlreadyExists) => Err(error),
                // There already: an earlier answer was lost.
                _ => Ok(Some(())),
            }
        });
        self.until("every broker of the topic leads", deadline, async |client| {
            let connection = client.any().await?;
            let found = topics::describe(&connection, Some(&[name.to_owned()])).await?;
            let partitions = found.iter().flat_map(|topic| &topic.partitions);
            let led: Vec<(i32, i32)> = partitions
                .filter_map(|partition| Some((partition.index, partition.leader?)))
                .filter(|(_, leader)| ids.contains(leader))
                .collect();
            let leaders: BTreeSet<i32> = led.iter().map(|(_, leader)| *leader).collect();
            Ok((leaders.len() == ids.len()).then_some(led))
        })
    }

    /// Writes to these partitions, and gives what was acknowledged.
    fn write(&self, topic: &str, partitions: &[i32], deadline: Duration) -> BTreeSet<Record> {
        self.until("records are acknowledged", deadline, async |client| {
            let mut producer = Producer::open(client, topic, ProducerOptions::default()).await?;
            let mut written = BTreeSet::new();
            for partition in partitions {
                for number in 0..RECORDS {
                    let value = format!("{topic} {partition} {number}");
                    let record = Outgoing {
                        partition: Some(*partition),
                        // Without a time it would be older than any retention.
                        timestamp: now_ms(),
                        value: Some(Bytes::from(value.clone())),
                        ..Outgoing::default()
                    };
                    producer.send(&record).await?;
                    written.insert((*partition, value));
                }
            }
            producer.flush().await?;
            Ok(Some(written))
        })
    }

    /// Reads all partitions from their beginning until all of `wanted` was there.
    fn read(&self, topic: &str, wanted: &BTreeSet<Record>) {
        self.until("every acknowledged record is read", DEADLINE, async |client| {
            let mut consumer = Consumer::open(client, topic, None, Start::Earliest).await?;
            let mut missing = wanted.clone();
            while !missing.is_empty() {
                let records = consumer.poll(Duration::from_millis(500)).await?;
                if records.is_empty() {
                    eprintln!("{} are missing", missing.len());
                    return Ok(None);
                }
                for record in records {
                    let value = String::from_utf8(record.value.unwrap_or_default().to_vec());
                    missing.remove(&(record.partition, value.expect("UTF-8")));
                }
            }
            Ok(Some(()))
        });
    }

    /// Waits until so many replicas of each partition of the topic are in sync.
    fn in_sync(&self, topic: &str, replicas: usize, deadline: Duration) {
        self.until("replicas are in sync", deadline, async |client| {
            let connection = client.any().await?;
            let found = topics::describe(&connection, Some(&[topic.to_owned()])).await?;
            let mut partitions = found.iter().flat_map(|topic| &topic.partitions);
            Ok(partitions.all(|partition| partition.in_sync.len() == replicas).then_some(()))
        });
    }

    /// What `firn cluster describe` says of a broker.
    fn state_of(&self, id: u16) -> String {
        let mut command = Command::new(tools::firn());
        command.args(["cluster", "describe", "--output", "json", "--bootstrap"]).arg(self.address(0));
        let said = run(&mut command, "", DEADLINE);
        assert!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
        let cluster: serde_json::Value = serde_json::from_slice(&said.stdout).expect("JSON");
        let brokers = cluster["brokers"].as_array().expect("brokers");
        let found = brokers.iter().find(|broker| broker["id"] == id).expect("the broker");
        found["state"].as_str().expect("a state").to_owned()
    }

    /// SIGTERM to the parent: all end, and nothing says that they still run.
    fn stop(&mut self) {
        let pids: Vec<Option<u32>> =
            (0..BROKERS).map(|id| self.pid_file(id).exists().then(|| self.pid(id))).collect();
        assert_eq!(self.process.stop(DEADLINE), 0, "{}", self.process.stderr());
        for pid in pids.into_iter().flatten() {
            assert!(!runs(pid), "process {pid} runs on");
        }
        for id in 0..BROKERS {
            assert!(!self.pid_file(id).exists(), "broker.pid of {id} is left");
        }
    }
}

fn indexes(led: &[(i32, i32)]) -> Vec<i32> {
    led.iter().map(|(partition, _)| *partition).collect()
}

#[test]
fn three_brokers_share_a_topic_and_stop_together() {
    let mut dev = Dev::start();
    let line = dev.process.stdout();
    assert_eq!(line.lines().count(), 1, "one ready line: {line}");
    assert!((0..BROKERS).all(|id| line.contains(&dev.address(id))), "{line}");

    let pids = dev.pids();
    assert_eq!(pids.iter().collect::<BTreeSet<_>>().len(), 3, "{pids:?}");
    assert!(pids.iter().all(|pid| runs(*pid) && *pid != dev.process.pid()), "{pids:?}");

    let zones: Vec<(i32, Option<String>)> =
        [(0, "a"), (1, "b"), (2, "a")].map(|(id, zone)| (id, Some(zone.to_owned()))).to_vec();
    for id in 0..BROKERS {
        wait_for("a broker knows all three", DEADLINE, || {
            let described = dev.runtime.block_on(dev.client([id]).describe()).ok()?;
            let found: Vec<_> =
                described.brokers.into_iter().map(|broker| (broker.id, broker.rack)).collect();
            (found == zones).then_some(())
        });
    }

    let led = dev.create("spread", &[0, 1, 2], DEADLINE);
    assert_eq!(indexes(&led), (0..PARTITIONS).collect::<Vec<_>>(), "each is led: {led:?}");
    let written = dev.write("spread", &indexes(&led), DEADLINE);
    dev.read("spread", &written);
    dev.stop();
}

/// Whichever broker they are told of: Apache's own tools, producer and consumers of a group.
#[test]
fn apaches_clients_are_at_home_in_the_cluster() {
    let mut dev = Dev::start();
    apache::create_topic(&dev.address(1), "java", PARTITIONS, &[]);
    apache::topics(&dev.address(2), &["--describe", "--topic", "java"]).ok();
    let records: Vec<_> = (0..60)
        .map(|number| json!({"partition": number % PARTITIONS, "value": format!("record {number}")}))
        .collect();
    let sent = java::produce(&dev.address(2), "java", &[], &records);
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
    assert_eq!(java::read(&dev.address(0), "java", &[]).len(), 60);
    let group = [("group.id", "readers"), ("auto.offset.reset", "earliest")];
    let consumers = [0, 1].map(|id| java::Consumer::open(&dev.address(id), "java", &group));
    let mut seen = BTreeSet::new();
    wait_for("every record, by one of the two", DEADLINE, || {
        let polled = consumers.iter().flat_map(java::Consumer::records);
        seen.extend(polled.map(|record| (record.partition, record.offset)));
        (seen.len() == 60).then_some(())
    });
    consumers.iter().for_each(java::Consumer::commit);
    for consumer in consumers {
        consumer.close(true);
    }
    let described = apache::consumer_groups(&dev.address(1), &["--describe", "--group", "readers"]).ok();
    assert_eq!(
        described.lines().filter(|line| line.contains(" java ")).count(),
        PARTITIONS as usize,
        "{described}"
    );
    dev.stop();
}

#[test]
fn the_others_go_on_without_a_broker_and_it_comes_back_and_catches_up() {
    let mut dev = Dev::start();
    let led = dev.create("ledger", &[0, 1, 2], DEADLINE);
    let mut written = dev.write("ledger", &indexes(&led), DEADLINE);

    kill(dev.pid(1));
    let killed = Instant::now();
    let left = || FAILOVER.saturating_sub(killed.elapsed());
    let after = dev.create("after", &[0, 2], left());
    let written_after = dev.write("after", &indexes(&after), left());
    written.extend(dev.write("ledger", &indexes(&led), left()));
    assert!(killed.elapsed() < FAILOVER, "after {:?}", killed.elapsed());
    dev.read("ledger", &written);
    dev.in_sync("ledger", 2, DEADLINE);

    let config = dev.directory(1).join("server.properties");
    let pid_file = dev.pid_file(1);
    let told = format!(" serve --config {} --pid-file {}", config.display(), pid_file.display());
    wait_for("the loss is told", DEADLINE, || {
        dev.process.assert_running();
        let said = dev.process.stderr();
        (said.contains("broker 1 was ended by signal 9; the others go on") && said.contains(&told))
            .then_some(())
    });
    assert!(!pid_file.exists(), "broker.pid tells of a process that has ended");
    wait_for("the cluster says that it is away", DEADLINE, || (dev.state_of(1) == "fenced").then_some(()));

    let mut command = Command::new(tools::firn());
    command.arg("serve").arg("--config").arg(&config).arg("--pid-file").arg(&pid_file);
    let mut again = Process::start("again", command, dev.work.path());
    let address = dev.address(1);
    wait_for("its first answer", DEADLINE, || {
        again.assert_running();
        wire::answers(&address).then_some(())
    });
    dev.in_sync("ledger", 3, DEADLINE);
    dev.in_sync("after", 3, DEADLINE);
    dev.read("ledger", &written);
    dev.read("after", &written_after);
    assert_eq!((dev.state_of(1), dev.pid(1)), ("up".to_owned(), again.pid()));
    assert_eq!(again.stop(DEADLINE), 0, "{}", again.stderr());
    dev.stop();
}

#[test]
fn brokers_end_with_a_parent_that_is_killed() {
    let mut dev = Dev::start();
    let pids = dev.pids();
    dev.process.kill();
    wait_for("the end of all brokers", DEADLINE, || (!pids.iter().any(|pid| runs(*pid))).then_some(()));
}

#[test]
fn a_broker_that_cannot_start_ends_the_others_and_is_named() {
    let work = TempDir::new("dev-taken");
    let port = free_ports_in_a_row(2 * BROKERS);
    let taken = TcpListener::bind(("127.0.0.1", port + 1)).expect("the port of broker 1");
    let (first, http) = (port.to_string(), (port + BROKERS).to_string());
    let arguments = ["--brokers", "3", "--port", &first, "--http-port", &http];
    let mut process = Process::start("dev", dev(&arguments, &work.path().join("data")), work.path());
    assert_eq!(process.wait(DEADLINE), 1, "{}", process.stderr());
    let said = process.stderr();
    let why = format!("127.0.0.1:{}", port + 1);
    assert!(said.lines().any(|line| line.starts_with("[broker 1] ") && line.contains(&why)), "{said}");
    assert!(said.contains("broker 1 ended with exit code 1 before all were ready"), "{said}");
    assert_eq!(process.stdout(), "", "none was ready");
    drop(taken);
    for id in 0..BROKERS {
        assert!(!work.path().join(format!("data/broker-{id}/broker.pid")).exists(), "{id}");
    }
}

#[test]
fn one_broker_is_the_process_that_was_called_and_says_so() {
    let work = TempDir::new("dev-one");
    let data = work.path().join("data");
    let pid_file = data.join("broker-0/broker.pid");
    let mut process = Process::start("dev", dev(&["--port", "0"], &data), work.path());
    wait_for("the ready line", DEADLINE, || {
        process.assert_running();
        process.stdout().ends_with('\n').then_some(())
    });
    let pid = std::fs::read_to_string(&pid_file).expect("read broker.pid");
    assert_eq!(pid, format!("{}\n", process.pid()));
    let second = run(&mut dev(&["--port", "0"], &data), "", DEADLINE);
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(!second.status.success() && said.contains("another firn dev runs there"), "{said}");
    assert!(pid_file.exists(), "the second one took it away");
    assert_eq!(process.stop(DEADLINE), 0, "{}", process.stderr());
    assert!(!pid_file.exists(), "broker.pid is left");
}

#[test]
fn what_cannot_be_is_refused_before_anything_is_written() {
    let work = TempDir::new("dev-refused");
    let data = work.path().join("data");
    for (arguments, said) in [
        (&["--brokers", "0"][..], "--brokers 0"),
        (&["--brokers", "3", "--port", "0"][..], "--port 0 with --brokers 3"),
        (&["--brokers", "3", "--port", "65534"][..], "--port 65534 with --brokers 3"),
        (&["--zones", "a,,b"][..], "--zones"),
    ] {
        let refused = run(&mut dev(arguments, &data), "", DEADLINE);
        let error = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(!refused.status.success() && error.contains(said), "{arguments:?}: {error}");
    }
    assert!(!data.exists());
}
