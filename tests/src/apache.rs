//! Apache Kafka 4.3.1: its broker as peer, and the command line tools by the names that people know.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::java::{self, RunningTool, ToolOutput};
use crate::process::{TempDir, run_ok};
use crate::tools;

const VERSION: &str = "4.3.1";
const OLD_VERSION: &str = "0.10.2.2";

/// The lines of server.properties for one KRaft node that is broker and controller.
pub fn properties(port: u16, controller_port: u16) -> Vec<String> {
    vec![
        "process.roles=broker,controller".to_owned(),
        "node.id=1".to_owned(),
        format!("controller.quorum.voters=1@127.0.0.1:{controller_port}"),
        format!("listeners=PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"),
        format!("advertised.listeners=PLAINTEXT://127.0.0.1:{port}"),
        "controller.listener.names=CONTROLLER".to_owned(),
        "listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT".to_owned(),
        "offsets.topic.replication.factor=1".to_owned(),
        "transaction.state.log.replication.factor=1".to_owned(),
        "transaction.state.log.min.isr=1".to_owned(),
    ]
}

/// What Kafka wants done to a data directory before its first start.
pub fn format_storage(config: &Path) {
    let mut command = Command::new("java");
    command.arg("-cp").arg(tools::kafka_class_path(VERSION)).arg("kafka.tools.StorageTool");
    command.args(["format", "-t", "kO8oQzFtQvWd6dVbC7hQ0g", "--ignore-formatted", "-c"]).arg(config);
    run_ok(&mut command, "", Duration::from_secs(60));
}

pub fn broker_command(config: &Path, heap: &str) -> Command {
    let mut command = Command::new("java");
    command.args([
        &format!("-Xms{heap}"),
        &format!("-Xmx{heap}"),
        // Apache's own kafka-run-class.sh starts a broker with these.
        "-server",
        "-XX:+UseG1GC",
        "-XX:MaxGCPauseMillis=20",
        "-XX:InitiatingHeapOccupancyPercent=35",
        "-XX:+ExplicitGCInvokesConcurrent",
        "-Djava.awt.headless=true",
    ]);
    command.arg("-cp").arg(tools::kafka_class_path(VERSION)).arg("kafka.Kafka").arg(config);
    command
}

/// kafka-topics.sh
pub fn topics(address: &str, arguments: &[&str]) -> ToolOutput {
    java::tool("org.apache.kafka.tools.TopicCommand", &with_server(address, arguments), "")
}

/// kafka-configs.sh
pub fn configs(address: &str, arguments: &[&str]) -> ToolOutput {
    java::tool("kafka.admin.ConfigCommand", &with_server(address, arguments), "")
}

/// kafka-consumer-groups.sh
pub fn consumer_groups(address: &str, arguments: &[&str]) -> ToolOutput {
    java::tool(
        "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
        &with_server(address, arguments),
        "",
    )
}

/// kafka-get-offsets.sh
pub fn get_offsets(address: &str, arguments: &[&str]) -> ToolOutput {
    java::tool("org.apache.kafka.tools.GetOffsetShell", &with_server(address, arguments), "")
}

/// kafka-delete-records.sh, for one partition.
pub fn delete_records(address: &str, topic: &str, partition: i32, before: i64) -> ToolOutput {
    let work = TempDir::new("delete-records");
    let path = work.path().join("offsets.json");
    let offsets = serde_json::json!({"version": 1,
        "partitions": [{"topic": topic, "partition": partition, "offset": before}]});
    std::fs::write(&path, offsets.to_string()).expect("write the offsets");
    let arguments = ["--offset-json-file", path.to_str().expect("UTF-8")];
    java::tool("org.apache.kafka.tools.DeleteRecordsCommand", &with_server(address, &arguments), "")
}

/// kafka-log-dirs.sh
pub fn log_dirs(address: &str, arguments: &[&str]) -> ToolOutput {
    java::tool("org.apache.kafka.tools.LogDirsCommand", &with_server(address, arguments), "")
}

/// kafka-cluster.sh
pub fn cluster(address: &str, command: &str) -> ToolOutput {
    java::tool("org.apache.kafka.tools.ClusterTool", &[command, "--bootstrap-server", address], "")
}

/// kafka-metadata-quorum.sh; with the properties of the controller that is meant, if one is.
pub fn metadata_quorum(address: &str, arguments: &[&str], properties: Option<&str>) -> ToolOutput {
    let work = TempDir::new("metadata-quorum");
    let path = work.path().join("controller.properties");
    let mut all = vec!["--bootstrap-server", address];
    if let Some(properties) = properties {
        std::fs::write(&path, properties).expect("write the properties");
        all.extend(["--command-config", path.to_str().expect("UTF-8")]);
    }
    all.extend(arguments);
    java::tool("org.apache.kafka.tools.MetadataQuorumCommand", &all, "")
}

/// kafka-cluster.sh unregister
pub fn unregister(address: &str, broker: i32) -> ToolOutput {
    let id = broker.to_string();
    let arguments = ["unregister", "--bootstrap-server", address, "--id", &id];
    java::tool("org.apache.kafka.tools.ClusterTool", &arguments, "")
}

/// A topic, and replicas by partition.
pub type Moves<'a> = (&'a str, &'a [(i32, &'a [i32])]);

/// kafka-reassign-partitions.sh; with replicas by partition of a topic, as its JSON file says them.
pub fn reassign(address: &str, arguments: &[&str], moves: Option<Moves<'_>>) -> ToolOutput {
    let work = TempDir::new("reassign");
    let path = work.path().join("moves.json");
    let mut all = arguments.to_vec();
    if let Some((topic, moves)) = moves {
        let row = |(partition, replicas): &(i32, &[i32])| serde_json::json!({"topic": topic, "partition": partition, "replicas": replicas});
        let file = serde_json::json!({"version": 1, "partitions": moves.iter().map(row).collect::<Vec<_>>()});
        std::fs::write(&path, file.to_string()).expect("write the moves");
        all.extend(["--reassignment-json-file", path.to_str().expect("UTF-8")]);
    }
    java::tool("org.apache.kafka.tools.reassign.ReassignPartitionsCommand", &with_server(address, &all), "")
}

/// kafka-leader-election.sh, for one partition.
pub fn elect(address: &str, election: &str, topic: &str, partition: i32) -> ToolOutput {
    let partition = partition.to_string();
    let arguments = ["--election-type", election, "--topic", topic, "--partition", &partition];
    java::tool("org.apache.kafka.tools.LeaderElectionCommand", &with_server(address, &arguments), "")
}

/// kafka-features.sh
pub fn features(address: &str, arguments: &[&str]) -> ToolOutput {
    java::tool("org.apache.kafka.tools.FeatureCommand", &with_server(address, arguments), "")
}

/// kafka-broker-api-versions.sh
pub fn api_versions(address: &str) -> ToolOutput {
    java::tool("org.apache.kafka.tools.BrokerApiVersionsCommand", &with_server(address, &[]), "")
}

/// kafka-console-producer.sh, one record a line.
pub fn console_producer(address: &str, topic: &str, arguments: &[&str], lines: &str) -> ToolOutput {
    let mut all = vec!["--topic", topic];
    all.extend_from_slice(arguments);
    java::tool("org.apache.kafka.tools.ConsoleProducer", &with_server(address, &all), lines)
}

/// kafka-console-consumer.sh, which ends after `count` records, or 30 seconds without one.
pub fn console_consumer(address: &str, topic: &str, count: usize, arguments: &[&str]) -> RunningTool {
    let count = count.to_string();
    let mut all = vec!["--topic", topic, "--max-messages", &count, "--timeout-ms", "30000"];
    all.extend_from_slice(arguments);
    java::start_tool("org.apache.kafka.tools.consumer.ConsoleConsumer", &with_server(address, &all), "")
}

/// kafka-console-consumer.sh as a process of its own, which a signal stops as it stops a person's: in an orderly way.
pub fn console_consumer_command(address: &str, topic: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("java");
    command.args(["-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"]);
    command.arg(tools::kafka_class_path(VERSION)).arg("org.apache.kafka.tools.consumer.ConsoleConsumer");
    command.args(with_server(address, &["--topic", topic])).args(arguments);
    command
}

fn with_server<'a>(address: &'a str, arguments: &[&'a str]) -> Vec<&'a str> {
    let mut all = vec!["--bootstrap-server", address];
    all.extend_from_slice(arguments);
    all
}

/// A new topic with topic configs as `key=value`.
pub fn create_topic(address: &str, topic: &str, partitions: i32, topic_configs: &[&str]) {
    let partitions = partitions.to_string();
    let mut arguments =
        vec!["--create", "--topic", topic, "--partitions", &partitions, "--replication-factor", "1"];
    for config in topic_configs {
        arguments.extend(["--config", config]);
    }
    let out = topics(address, &arguments).ok();
    assert!(out.contains(&format!("Created topic {topic}.")), "{out}");
}

/// The console producer of Apache Kafka 0.10.2.2.
pub fn old_console_producer(address: &str, topic: &str, lines: &str) {
    let mut command = old_tool("kafka.tools.ConsoleProducer");
    command.args(["--broker-list", address, "--topic", topic]);
    run_ok(&mut command, lines, Duration::from_secs(60));
}

/// The console consumer of Apache Kafka 0.10.2.2, from the beginning, for `count` records.
pub fn old_console_consumer(address: &str, topic: &str, count: usize) -> String {
    let mut command = old_tool("kafka.tools.ConsoleConsumer");
    command.args([
        "--bootstrap-server",
        address,
        "--topic",
        topic,
        "--from-beginning",
        "--timeout-ms",
        "30000",
    ]);
    command.args(["--max-messages", &count.to_string()]);
    run_ok(&mut command, "", Duration::from_secs(60))
}

fn old_tool(class: &str) -> Command {
    let mut command = Command::new("java");
    command.arg("-cp").arg(tools::kafka_class_path(OLD_VERSION)).arg(class);
    command
}
