//! Our faces of Kafka's tools beside Apache's own, on the same broker: the same flags, the same output, the same end.

use std::process::Command;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java::ToolOutput;
use firn_tests::process::{TempDir, wait_for};
use firn_tests::segments::Offsets;
use firn_tests::tools;

use crate::groups::{DEADLINE, member, send};
use crate::{finish, sorted_lines};

fn firn(tool: &str, address: &str, arguments: &[&str]) -> ToolOutput {
    let mut command = Command::new(tools::firn());
    command.args([tool, "--bootstrap-server", address]).args(arguments);
    let output = command.output().expect("run firn");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    ToolOutput {
        status: output.status.code().map_or(-1, i64::from),
        out: text(output.stdout),
        err: text(output.stderr),
    }
}

type Tool = fn(&str, &[&str]) -> ToolOutput;

const TOPICS: (&str, Tool) = ("kafka-topics", apache::topics);
const CONFIGS: (&str, Tool) = ("kafka-configs", apache::configs);
const GROUPS: (&str, Tool) = ("kafka-consumer-groups", apache::consumer_groups);
const GET_OFFSETS: (&str, Tool) = ("kafka-get-offsets", apache::get_offsets);

/// Both tools on the same question. Apache's prints what comes out of its hash maps in no order that can be relied upon,
/// so lines are compared sorted.
fn same((name, apache): (&str, Tool), address: &str, arguments: &[&str]) -> String {
    let (theirs, ours) = (apache(address, arguments), firn(name, address, arguments));
    let shown = format!("{arguments:?}\n{}\n{}", ours.out, ours.err);
    assert_eq!(sorted_lines(&ours.out), sorted_lines(&theirs.out), "{shown}");
    assert_eq!(ours.status, theirs.status, "{shown}");
    ours.out
}

#[test]
fn topics_are_listed_and_described_as_apache_does() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let face = |arguments: &[&str]| firn("kafka-topics", &address, arguments);
    let create = ["--create", "--topic", "one", "--partitions", "3", "--config", "retention.ms=60000"];
    assert_eq!(face(&create).ok(), "Created topic one.\n");
    let dotted = ["--create", "--topic", "two.x", "--replica-assignment", "1,1"];
    let created = face(&dotted).ok();
    assert!(created.starts_with("WARNING: ") && created.ends_with("\nCreated topic two.x.\n"), "{created}");
    assert_eq!(face(&["--create", "--topic", "one", "--if-not-exists"]).ok(), "");
    face(&["--alter", "--topic", "one", "--partitions", "4"]).ok();
    for arguments in [
        &["--create", "--topic", "one"][..],
        &["--list"],
        &["--list", "--topic", "o.*"],
        &["--list", "--exclude-internal"],
        &["--describe"],
        &["--describe", "--topic", "one"],
        &["--describe", "--topic", "one,two.*"],
        &["--describe", "--topic", "none"],
        &["--describe", "--topic", "none", "--if-exists"],
        &["--describe", "--topics-with-overrides"],
        &["--describe", "--at-min-isr-partitions"],
        &["--describe", "--under-replicated-partitions"],
        &["--alter", "--topic", "none", "--partitions", "5"],
        &["--alter", "--topic", "one", "--partitions", "2"],
        &["--delete", "--topic", "none"],
        &["--delete", "--topic", "none", "--if-exists"],
    ] {
        // What is printed on a failure ends, with Apache's tool, in a stack trace on standard error.
        same(TOPICS, &address, arguments);
    }
    assert_eq!(face(&["--delete", "--topic", "two.*"]).ok(), "");
    assert_eq!(same(TOPICS, &address, &["--list"]).trim(), "one");
    finish(broker, Offsets::Dense);
}

#[test]
fn configs_are_described_and_changed_as_apache_does() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "one", 1, &["retention.ms=60000"]);
    let changes = "cleanup.policy=[compact,delete],segment.ms=5000";
    for arguments in [
        &["--describe", "--entity-type", "topics", "--entity-name", "one"][..],
        &["--alter", "--entity-type", "topics", "--entity-name", "one", "--add-config", changes],
        &["--describe", "--topic", "one"],
        &["--alter", "--topic", "one", "--delete-config", "retention.ms,segment.ms"],
        &["--describe", "--topic", "one", "--all"],
        &["--describe", "--entity-type", "topics"],
        &["--describe", "--entity-type", "topics", "--entity-name", "none"],
        &["--describe", "--entity-type", "brokers", "--entity-name", "1"],
        &["--describe", "--entity-type", "brokers", "--entity-default"],
        &["--describe", "--broker", "1"],
        &["--alter", "--topic", "one", "--add-config", "nonsense=1"],
        &["--alter", "--topic", "none", "--add-config", "retention.ms=1"],
        &["--alter", "--entity-type", "topics", "--add-config", "retention.ms=1"],
    ] {
        same(CONFIGS, &address, arguments);
    }
    finish(broker, Offsets::Dense);
}

#[test]
fn offsets_are_looked_up_and_records_deleted_as_apache_does() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "one", 3, &[]);
    apache::create_topic(&address, "other", 1, &[]);
    send(&address, "one", 1..=30);
    let work = TempDir::new("faces");
    let path = work.path().join("offsets.json");
    let places = [("one", 0, 4), ("one", 1, -1), ("one", 2, 900)];
    let places = places.map(|(topic, partition, offset)| {
        serde_json::json!({"topic": topic, "partition": partition, "offset": offset})
    });
    let file = serde_json::json!({"version": 1, "partitions": places});
    std::fs::write(&path, file.to_string()).expect("write the offsets");
    let delete = ["--offset-json-file", path.to_str().expect("UTF-8")];
    let deleted = firn("kafka-delete-records", &address, &delete).ok();
    let beyond = "org.apache.kafka.common.errors.OffsetOutOfRangeException: \
                  The requested offset is not within the range of offsets maintained by the server.";
    assert_eq!(
        deleted,
        format!(
            "Executing records delete operation\nRecords delete operation completed:\n\
             partition: one-0\tlow_watermark: 4\npartition: one-1\tlow_watermark: 10\npartition: one-2\terror: {beyond}\n"
        )
    );
    let tool: Tool = |address, arguments| {
        let server = [&["--bootstrap-server", address][..], arguments].concat();
        firn_tests::java::tool("org.apache.kafka.tools.DeleteRecordsCommand", &server, "")
    };
    same(("kafka-delete-records", tool), &address, &delete);
    for arguments in [
        &[][..],
        &["--topic", "one"],
        &["--topic", "o.*", "--partitions", "0,2", "--time", "-2"],
        &["--topic-partitions", "one:1-,other", "--time", "earliest"],
        &["--topic", "one", "--time", "max-timestamp"],
        &["--topic", "one", "--time", "earliest-local"],
        &["--topic", "one", "--time", "latest-tiered"],
        &["--topic", "one", "--time", "earliest-pending-upload"],
        &["--topic", "one", "--time", "-6"],
        &["--topic", "one", "--time", "5"],
        &["--topic", "one", "--time", "9795464066039"],
        &["--topic", "none"],
        &["--exclude-internal-topics"],
    ] {
        same(GET_OFFSETS, &address, arguments);
    }
    finish(broker, Offsets::Dense);
}

#[test]
fn groups_are_described_moved_and_deleted_as_apache_does() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 3, &[]);
    send(&address, "jobs", 1..=30);
    let reader = member(&address, "jobs", &[("enable.auto.commit", "false"), ("client.id", "reader")]);
    wait_for("all thirty", DEADLINE, || (reader.records().len() == 30).then_some(()));
    reader.commit();
    let group = ["--group", "mygroup"];
    for arguments in [
        &["--list"][..],
        &["--list", "--state"],
        &["--list", "--state", "stable", "--type", "classic"],
        &["--list", "--state", "empty"],
        &["--describe", "--group", "mygroup"],
        &["--describe", "--group", "mygroup", "--verbose"],
        &["--describe", "--group", "mygroup", "--members"],
        &["--describe", "--group", "mygroup", "--members", "--verbose"],
        &["--describe", "--group", "mygroup", "--state"],
        &["--describe", "--all-groups", "--state", "--verbose"],
        &["--delete", "--group", "mygroup"],
        &["--delete-offsets", "--group", "mygroup", "--topic", "jobs"],
        &["--reset-offsets", "--group", "mygroup", "--topic", "jobs", "--to-earliest", "--execute"],
    ] {
        same(GROUPS, &address, arguments);
    }
    reader.close(true);
    same(GROUPS, &address, &["--describe", "--all-groups"]);
    same(GROUPS, &address, &["--describe", "--group", "mygroup", "--members"]);
    for scenario in [
        &["--to-earliest"][..],
        &["--to-latest"],
        &["--to-current"],
        &["--to-offset", "4"],
        &["--to-offset", "400"],
        &["--shift-by", "-3"],
        &["--to-datetime", "2020-01-01T00:00:00.000"],
        &["--to-datetime", "2220-01-01T00:00:00.000+01:00"],
        &["--by-duration", "PT1H"],
    ] {
        let head = [&["--reset-offsets"][..], &group, &["--topic", "jobs:0,2", "--dry-run"]].concat();
        same(GROUPS, &address, &[&head[..], scenario].concat());
    }
    // Ours moves, and Apache's sees it.
    let to_four = ["--reset-offsets", "--group", "mygroup", "--all-topics", "--to-offset", "4", "--execute"];
    firn("kafka-consumer-groups", &address, &to_four).ok();
    let described = same(GROUPS, &address, &["--describe", "--group", "mygroup"]);
    assert_eq!(described.matches(" 4               10              6 ").count(), 3, "{described}");
    same(
        GROUPS,
        &address,
        &["--reset-offsets", "--group", "mygroup", "--all-topics", "--to-current", "--export", "--dry-run"],
    );
    same(GROUPS, &address, &["--delete-offsets", "--group", "mygroup", "--topic", "jobs:1"]);
    let left = firn("kafka-consumer-groups", &address, &["--describe", "--group", "mygroup"]).ok();
    assert_eq!(left.matches("mygroup ").count(), 2, "{left}");
    assert_eq!(
        firn("kafka-consumer-groups", &address, &["--delete", "--group", "mygroup"]).ok(),
        "Deletion of requested consumer groups ('mygroup') was successful.\n"
    );
    for arguments in [
        &["--delete", "--group", "mygroup"][..],
        &["--describe", "--group", "mygroup"],
        &["--list"],
        &["--delete-offsets", "--group", "mygroup", "--topic", "none"],
        &["--delete-offsets", "--group", "mygroup", "--topic", "jobs:0"],
        &["--reset-offsets", "--group", "another", "--topic", "jobs", "--to-earliest", "--dry-run"],
    ] {
        same(GROUPS, &address, arguments);
    }
    finish(broker, Offsets::Dense);
}
