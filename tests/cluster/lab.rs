//! The second lab of a Kafka training: three servers from three files of Kafka 0.10, a topic that outlives one of them, and consumers that
//! each see everything, or share it, and stand in for one another.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::process::Command;
use std::time::Duration;

use firn_tests::cluster::System;
use firn_tests::java;
use firn_tests::process::{Process, TempDir, free_ports, wait_for};
use firn_tests::{apache, tools, wire};
use serde_json::json;

const DEADLINE: Duration = Duration::from_secs(120);
const TOPIC: &str = "my-failsafe-topic";
const PARTITIONS: usize = 13;
const RSS_MAX: u64 = 300 << 20;
const ROUND_ROBIN: [&str; 2] =
    ["--command-property", "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner"];

/// What Kafka 0.10.2 is shipped with as `config/server.properties`, with what the text has changed in it, and one line more.
fn server_properties(id: usize, port: u16, voters: &str) -> String {
    format!(
        "broker.id={id}\n\
         port={port}\n\
         num.network.threads=3\n\
         num.io.threads=8\n\
         socket.send.buffer.bytes=102400\n\
         socket.receive.buffer.bytes=102400\n\
         socket.request.max.bytes=104857600\n\
         log.dirs=./logs/kafka-{id}\n\
         num.partitions=1\n\
         num.recovery.threads.per.data.dir=1\n\
         log.retention.hours=168\n\
         log.segment.bytes=1073741824\n\
         log.retention.check.interval.ms=300000\n\
         zookeeper.connect=localhost:2181\n\
         zookeeper.connection.timeout.ms=6000\n\
         controller.quorum.voters={voters}\n"
    )
}

/// Ports that nobody listens on, nor on those beside them, where the side doors will be.
fn ports() -> [u16; 3] {
    wait_for("free ports", DEADLINE, || {
        let ports: [u16; 3] = free_ports();
        let beside = |port: u16| port.checked_add(10_000).unwrap_or(port.saturating_sub(10_000));
        let is_free = |port: &u16| TcpListener::bind(("0.0.0.0", beside(*port))).is_ok();
        ports.iter().all(is_free).then_some(ports)
    })
}

/// The processes go before the directory that they write to.
struct Lab {
    servers: Vec<Process>,
    ports: [u16; 3],
    work: TempDir,
}

impl Lab {
    fn start() -> Lab {
        let (ports, work) = (ports(), TempDir::new("lab"));
        let voters: Vec<String> =
            ports.iter().enumerate().map(|(id, port)| format!("{id}@localhost:{port}")).collect();
        let start = |(id, port): (usize, &u16)| {
            let config = format!("server-{id}.properties");
            let text = server_properties(id, *port, &voters.join(","));
            std::fs::write(work.path().join(&config), text).expect("write a server.properties");
            let mut command = Command::new(tools::firn());
            command.args(["serve", "--config", &config]).current_dir(work.path());
            Process::start(&format!("server-{id}"), command, work.path())
        };
        let servers = ports.iter().enumerate().map(start).collect();
        let mut lab = Lab { servers, ports, work };
        for id in 0..3 {
            let address = format!("127.0.0.1:{}", lab.ports[id]);
            wait_for("a server's first answer", DEADLINE, || {
                lab.servers[id].assert_running();
                wire::answers(&address).then_some(())
            });
        }
        lab
    }

    fn addresses(&self, ids: &[usize]) -> String {
        let addresses: Vec<String> = ids.iter().map(|id| format!("localhost:{}", self.ports[*id])).collect();
        addresses.join(",")
    }

    fn send(&self, ids: &[usize], lines: &str) {
        apache::console_producer(&self.addresses(ids), TOPIC, &ROUND_ROBIN, lines).ok();
    }

    /// A console consumer that runs until it is stopped.
    fn member(&self, name: &str, ids: &[usize]) -> Process {
        let arguments = ["--group", "mygroup", "--from-beginning"];
        let command = apache::console_consumer_command(&self.addresses(ids), TOPIC, &arguments);
        Process::start(name, command, self.work.path())
    }

    /// The rows of `--describe`.
    fn described(&self, ids: &[usize]) -> Vec<Row> {
        let told = apache::topics(&self.addresses(ids), &["--describe", "--topic", TOPIC]).ok();
        told.lines().filter(|line| line.contains("Partition: ")).map(Row::read).collect()
    }

    fn rss(&self) -> u64 {
        self.servers.iter().map(Process::rss_bytes).sum()
    }
}

/// One partition, as `--describe` shows it.
#[derive(Debug)]
struct Row {
    leader: i32,
    replicas: BTreeSet<i32>,
    in_sync: BTreeSet<i32>,
}

impl Row {
    fn read(line: &str) -> Row {
        let words: Vec<&str> = line.split_whitespace().collect();
        let after = |name: &str| {
            let place = words.iter().position(|word| *word == name).expect("a column");
            words[place + 1]
        };
        let ids = |name: &str| after(name).split(',').map(|id| id.parse().expect("an id")).collect();
        Row {
            leader: after("Leader:").parse().expect("an id"),
            replicas: ids("Replicas:"),
            in_sync: ids("Isr:"),
        }
    }
}

/// How many partitions each of the leaders has, the least first.
fn led(rows: &[Row]) -> Vec<usize> {
    let mut led: BTreeMap<i32, usize> = BTreeMap::new();
    for row in rows {
        *led.entry(row.leader).or_default() += 1;
    }
    let mut led: Vec<usize> = led.into_values().collect();
    led.sort_unstable();
    led
}

/// How many partitions each member of the group has, the least first, once they share all of them.
fn shares(address: &str, members: usize) -> Vec<usize> {
    wait_for("members that share the partitions", DEADLINE, || {
        let told = apache::consumer_groups(address, &["--describe", "--group", "mygroup", "--members"]);
        let rows = told.out.lines().filter(|line| line.starts_with("mygroup"));
        let mut shares: Vec<usize> = rows
            .filter_map(|row| row.split_whitespace().last().and_then(|count| count.parse().ok()))
            .collect();
        shares.sort_unstable();
        (shares.len() == members && shares.iter().sum::<usize>() == PARTITIONS).then_some(shares)
    })
}

fn lines(member: &Process) -> Vec<String> {
    member.stdout().lines().map(str::to_owned).collect()
}

fn messages(range: std::ops::RangeInclusive<usize>) -> BTreeSet<String> {
    range.map(|number| format!("m{number}")).collect()
}

fn as_input(messages: &BTreeSet<String>) -> String {
    messages.iter().map(|message| format!("{message}\n")).collect()
}

/// Waits until these have all of the messages between them, and holds against it that none came twice.
fn received(members: &[&Process], wanted: &BTreeSet<String>) {
    let all = || -> Vec<String> { members.iter().flat_map(|member| lines(member)).collect() };
    wait_for("all messages", DEADLINE, || {
        let found: BTreeSet<String> = all().into_iter().collect();
        wanted.is_subset(&found).then_some(())
    });
    let found = all();
    for message in wanted {
        assert_eq!(found.iter().filter(|line| *line == message).count(), 1, "{message} in {found:?}");
    }
}

#[test]
fn three_servers_from_the_texts_own_files_share_a_topic_and_outlive_one_of_them() {
    if System::under_test() == System::Kafka {
        // Apache Kafka 4 does not start from such files.
        return;
    }
    let mut lab = Lab::start();
    for server in &lab.servers {
        for ignored in ["zookeeper.connect", "zookeeper.connection.timeout.ms", "num.network.threads"] {
            let told = format!("Configuration {ignored} has no effect: ");
            assert!(server.stderr().contains(&told), "{}", server.stderr());
        }
    }
    let two = lab.addresses(&[0, 1]);
    let arguments = ["--create", "--replication-factor", "3", "--partitions", "13", "--topic", TOPIC];
    assert_eq!(apache::topics(&two, &arguments).ok().trim(), format!("Created topic {TOPIC}."));
    let rows = wait_for("all replicas in sync", DEADLINE, || {
        Some(lab.described(&[0, 1])).filter(|rows| rows.iter().all(|row| row.in_sync == row.replicas))
    });
    assert_eq!(rows.len(), PARTITIONS);
    assert!(rows.iter().all(|row| row.replicas == BTreeSet::from([0, 1, 2])), "{rows:?}");
    assert_eq!(led(&rows), [4, 4, 5], "{rows:?}");

    // Two servers are named, and whatever the third one leads is written and read all the same.
    let first: Vec<_> =
        (0..PARTITIONS).map(|index| json!({"partition": index, "value": format!("a{index}")})).collect();
    for sent in java::produce(&two, TOPIC, &[], &first) {
        sent.expect("acknowledged");
    }
    let all = ["--from-beginning", "--formatter-property", "print.partition=true"];
    let alone = [0, 1, 2]
        .map(|id| apache::console_consumer(&lab.addresses(&[id, (id + 1) % 3]), TOPIC, PARTITIONS, &all));
    for consumer in alone {
        let told = consumer.wait().ok();
        let found: BTreeSet<&str> = told.lines().collect();
        let wanted: Vec<String> =
            (0..PARTITIONS).map(|index| format!("Partition:{index}\ta{index}")).collect();
        assert_eq!(found, wanted.iter().map(String::as_str).collect(), "each sees every message");
    }

    let names = ["first", "second", "third"];
    let [one, other, mut third] = names.map(|name| lab.member(name, &[0, 1, 2]));
    assert_eq!(shares(&two, 3), [4, 4, 5]);
    lab.send(&[0, 1], &as_input(&messages(1..=7)));
    received(&[&one, &other, &third], &messages(1..=7));

    // The console consumer of Apache leaves its group when it is stopped.
    third.stop(DEADLINE);
    assert_eq!(shares(&two, 2), [6, 7]);
    let had = lines(&third).len();
    lab.send(&[0, 1], &as_input(&messages(8..=14)));
    received(&[&one, &other], &messages(8..=14));
    assert_eq!(lines(&third).len(), had);
    received(&[&one, &other, &third], &messages(1..=14));
    let rss = lab.rss();
    assert!(rss <= RSS_MAX, "{} MB", rss >> 20);

    lab.servers[0].kill();
    lab.servers.remove(0);
    let rest = lab.addresses(&[1, 2]);
    let rows = wait_for("two in sync", DEADLINE, || {
        let two = BTreeSet::from([1, 2]);
        Some(lab.described(&[1, 2]))
            .filter(|rows| rows.iter().all(|row| row.in_sync == two && row.leader > 0))
    });
    assert_eq!((rows.len(), led(&rows)), (PARTITIONS, vec![6, 7]), "{rows:?}");
    lab.send(&[1, 2], "m15\n");
    apache::old_console_producer(&rest, TOPIC, "m16\n");
    received(&[&one, &other], &messages(15..=16));
    // The consumer of the text's own time, of all that was sent.
    let count = PARTITIONS + 16;
    let old = apache::old_console_consumer(&rest, TOPIC, count);
    let found: BTreeSet<String> = old.lines().map(str::to_owned).collect();
    assert!(found.len() == count && messages(1..=16).is_subset(&found), "{old}");
    for mut member in [one, other] {
        member.stop(DEADLINE);
    }
    for server in &mut lab.servers {
        assert_eq!(server.stop(DEADLINE), 0, "{}", server.stderr());
    }
}
