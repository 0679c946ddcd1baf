//! The first lab of a Kafka training: start a server, create a topic, list it, produce four lines, consume them.

use std::process::Command;
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::librdkafka::kcat;
use firn_tests::process::run_ok;
use firn_tests::segments::Offsets;
use firn_tests::tools;

use crate::{finish, sorted_lines};

const LINES: &str = "This is message 1\nThis is message 2\nThis is message 3\nMessage 4\n";
const ROUND_ROBIN: &str = "partitioner.class=org.apache.kafka.clients.producer.RoundRobinPartitioner";

#[test]
fn the_lab_with_apaches_own_tools() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let created = apache::topics(
        &address,
        &["--create", "--replication-factor", "1", "--partitions", "13", "--topic", "my-topic"],
    );
    assert_eq!(created.ok().trim(), "Created topic my-topic.");
    assert_eq!(apache::topics(&address, &["--list"]).ok().trim(), "my-topic");

    apache::console_producer(&address, "my-topic", &["--command-property", ROUND_ROBIN], LINES).ok();
    let consumed = apache::console_consumer(&address, "my-topic", 4, &["--from-beginning"]).wait().ok();
    assert_eq!(sorted_lines(&consumed), sorted_lines(LINES));

    let listed = apache::topics(&address, &["--list"]).ok();
    assert_eq!(sorted_lines(&listed), ["__consumer_offsets", "my-topic"]);
    finish(broker, Offsets::Dense);
}

#[test]
fn the_lab_through_our_own_commands() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let firn = |arguments: &[&str], input: &str| {
        let mut command = Command::new(tools::firn());
        command.args(arguments).env("FIRN_BOOTSTRAP", &address);
        run_ok(&mut command, input, Duration::from_secs(30))
    };
    firn(&["topic", "create", "my-topic", "--partitions", "13"], "");
    assert!(firn(&["topic", "list"], "").contains("my-topic  13"));
    firn(&["produce", "my-topic"], LINES);
    let consumed = firn(&["consume", "my-topic", "--from-beginning", "--max", "4"], "");
    assert_eq!(sorted_lines(&consumed), sorted_lines(LINES));

    // The same under the names that people know.
    let created = firn(
        &[
            "kafka-topics",
            "--create",
            "--bootstrap-server",
            &address,
            "--partitions",
            "1",
            "--replication-factor",
            "1",
            "--topic",
            "known",
        ],
        "",
    );
    assert_eq!(created.trim(), "Created topic known.");
    firn(&["kafka-console-producer", "--bootstrap-server", &address, "--topic", "known"], LINES);
    let known = ["--topic", "known", "--from-beginning", "--max-messages", "4"];
    let consumed =
        firn(&[&["kafka-console-consumer", "--bootstrap-server", &address][..], &known].concat(), "");
    assert_eq!(consumed, LINES);
    finish(broker, Offsets::Dense);
}

#[test]
fn one_partition_keeps_the_order() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "ordered", 1, &[]);
    let lines: String = (0..500).map(|number| format!("line {number}\n")).collect();
    apache::console_producer(&address, "ordered", &[], &lines).ok();
    let consumed = apache::console_consumer(&address, "ordered", 500, &["--from-beginning"]).wait().ok();
    assert_eq!(consumed, lines);
    finish(broker, Offsets::Dense);
}

#[test]
fn order_is_kept_inside_each_of_thirteen_partitions() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "spread", 13, &[]);
    let lines: String = (0..130).map(|number| format!("{number}\n")).collect();
    apache::console_producer(&address, "spread", &["--command-property", ROUND_ROBIN], &lines).ok();
    let arguments = ["--from-beginning", "--formatter-property", "print.partition=true"];
    let consumed = apache::console_consumer(&address, "spread", 130, &arguments).wait().ok();
    let mut last = std::collections::BTreeMap::new();
    for line in consumed.lines() {
        let (partition, number) = line.split_once('\t').expect("Partition:P<tab>value");
        let number: u32 = number.parse().expect("a number");
        assert!(last.insert(partition.to_owned(), number).is_none_or(|before| before < number), "{consumed}");
    }
    assert!(last.len() > 6, "records are spread over the partitions: {last:?}");
    finish(broker, Offsets::Dense);
}

#[test]
fn the_lab_with_the_console_tools_of_2017() {
    if System::under_test() == System::Kafka {
        // Apache Kafka 4 refuses these clients; serving them is Firn's own promise.
        return;
    }
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "my-topic", 13, &[]);
    apache::old_console_producer(&address, "my-topic", LINES);
    let consumed = apache::old_console_consumer(&address, "my-topic", 4);
    assert_eq!(sorted_lines(&consumed), sorted_lines(LINES), "old producer to old consumer");

    let new = apache::console_consumer(&address, "my-topic", 4, &["--from-beginning"]).wait().ok();
    assert_eq!(sorted_lines(&new), sorted_lines(LINES), "old producer to new consumer");

    apache::create_topic(&address, "newer", 3, &[]);
    for codec in ["none", "gzip", "snappy", "lz4"] {
        apache::console_producer(
            &address,
            "newer",
            &["--compression-codec", codec],
            &format!("by {codec}\n"),
        )
        .ok();
    }
    let old = apache::old_console_consumer(&address, "newer", 4);
    let wanted = sorted_lines("by none\nby gzip\nby snappy\nby lz4\n");
    assert_eq!(sorted_lines(&old), wanted, "new producer to old consumer");
    finish(broker, Offsets::Dense);
}

#[test]
fn the_lab_with_kcat() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "my-topic", 13, &[]);
    let listing = kcat(&address, &["-L", "-t", "my-topic"], "");
    assert!(listing.contains("topic \"my-topic\" with 13 partitions"), "{listing}");
    kcat(&address, &["-P", "-t", "my-topic", "-K", ":"], "a:1\nb:2\na:3\nc:4\n");
    let read = kcat(&address, &["-C", "-t", "my-topic", "-e", "-q", "-o", "beginning", "-f", "%k:%s\n"], "");
    assert_eq!(sorted_lines(&read), ["a:1", "a:3", "b:2", "c:4"]);
    finish(broker, Offsets::Dense);
}

#[test]
fn the_same_key_goes_to_the_same_partition_whichever_client_sends_it() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "keys", 13, &[]);
    let lines: String = (0..40).map(|number| format!("key-{number}:x\n")).collect();
    kcat(&address, &["-P", "-t", "keys", "-K", ":", "-X", "partitioner=murmur2_random"], &lines);
    let arguments = ["--reader-property", "parse.key=true", "--reader-property", "key.separator=:"];
    apache::console_producer(&address, "keys", &arguments, &lines).ok();
    let read = kcat(&address, &["-C", "-t", "keys", "-e", "-q", "-o", "beginning", "-f", "%k %p\n"], "");
    let mut lines = sorted_lines(&read);
    assert_eq!(lines.len(), 80);
    lines.dedup();
    assert_eq!(lines.len(), 40, "two partitions for one key: {lines:?}");
    finish(broker, Offsets::Dense);
}
