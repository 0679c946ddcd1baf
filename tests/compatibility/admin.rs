//! Apache's administration tools: topics, configs, log directories, cluster.

use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java;
use firn_tests::process::wait_for;
use firn_tests::segments::Offsets;
use serde_json::json;

use crate::finish;

#[test]
fn topics_are_described_grown_and_deleted() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "kept", 13, &["retention.ms=1000000"]);
    let described = apache::topics(&address, &["--describe", "--topic", "kept"]).ok();
    assert!(described.contains("PartitionCount: 13"), "{described}");
    assert!(described.contains("ReplicationFactor: 1"), "{described}");
    assert!(described.contains("retention.ms=1000000"), "{described}");
    assert_eq!(described.matches("Leader: 1\tReplicas: 1\tIsr: 1").count(), 13, "{described}");

    let twice = apache::topics(&address, &["--create", "--topic", "kept"]);
    assert_ne!(twice.status, 0);
    assert!(format!("{}{}", twice.out, twice.err).contains("already exists"), "{twice:?}");
    apache::topics(&address, &["--create", "--if-not-exists", "--topic", "kept"]).ok();

    apache::topics(&address, &["--alter", "--topic", "kept", "--partitions", "15"]).ok();
    let described = apache::topics(&address, &["--describe", "--topic", "kept"]).ok();
    assert!(described.contains("PartitionCount: 15"), "{described}");

    apache::create_topic(&address, "gone", 2, &[]);
    java::produce(&address, "gone", &[], &[json!({"value": "x"})]).remove(0).expect("acknowledged");
    apache::topics(&address, &["--delete", "--topic", "gone"]).ok();
    assert_eq!(apache::topics(&address, &["--list"]).ok().trim(), "kept");
    apache::create_topic(&address, "gone", 1, &[]);
    assert!(java::read(&address, "gone", &[]).is_empty(), "a new topic of an old name is empty");

    broker.stop();
    broker.start_again();
    assert_eq!(crate::sorted_lines(&apache::topics(&address, &["--list"]).ok()), ["gone", "kept"]);
    let described = apache::topics(&address, &["--describe", "--topic", "kept"]).ok();
    assert!(described.contains("PartitionCount: 15"), "{described}");
    assert!(described.contains("retention.ms=1000000"), "{described}");
    finish(broker, Offsets::Dense);
}

#[test]
fn the_metadata_quorum_is_described() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "one", 1, &[]);
    let quorum = |what: &str| {
        let arguments = ["--bootstrap-server", &address, "describe", what];
        java::tool("org.apache.kafka.tools.MetadataQuorumCommand", &arguments, "").ok()
    };
    let status = quorum("--status");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("{status}"));
        line.split_once(':').expect("a value").1.trim().to_owned()
    };
    assert_eq!(field("LeaderId"), "1", "{status}");
    assert!(field("HighWatermark").parse::<i64>().expect("a number") > 2, "{status}");
    assert_eq!(field("MaxFollowerLag"), "0", "{status}");
    assert!(field("CurrentVoters").contains("\"id\": 1"), "{status}");
    let replication = quorum("--replication");
    let leaders: Vec<_> = replication.lines().filter(|line| line.contains("Leader")).collect();
    assert!(leaders.iter().any(|line| line.starts_with('1')), "{replication}");
}

#[test]
fn topic_configs_are_reported_with_source_and_default_and_can_be_changed() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "tuned", 1, &[]);
    let entity = ["--entity-type", "topics", "--entity-name", "tuned"];
    let describe =
        |all: &[&str]| apache::configs(&address, &[&["--describe"], &entity[..], all].concat()).ok();
    let all = describe(&["--all"]);
    for default in [
        "retention.ms=604800000",
        "cleanup.policy=delete",
        "compression.type=producer",
        "max.message.bytes=1048588",
        "segment.bytes=1073741824",
        "message.timestamp.type=CreateTime",
        "min.insync.replicas=1",
        "remote.storage.enable=false",
    ] {
        assert!(all.contains(&format!("  {default} ")), "{default} is not in\n{all}");
    }
    assert!(all.contains("DEFAULT_CONFIG:"), "{all}");

    let change =
        |arguments: &[&str]| apache::configs(&address, &[&["--alter"], &entity[..], arguments].concat());
    change(&["--add-config", "retention.ms=5000,cleanup.policy=[compact,delete]"]).ok();
    let changed = describe(&[]);
    assert!(
        changed.contains("retention.ms=5000 ") && changed.contains("cleanup.policy=compact,delete "),
        "{changed}"
    );
    assert!(changed.contains("DYNAMIC_TOPIC_CONFIG:retention.ms=5000"), "{changed}");
    change(&["--delete-config", "retention.ms"]).ok();
    assert!(!describe(&[]).contains("retention.ms=5000"));

    for wrong in ["retention.ms=soon", "cleanup.policy=melt", "no.such.key=1", "segment.bytes=1"] {
        let refused = change(&["--add-config", wrong]);
        assert_ne!(refused.status, 0, "{wrong} was taken");
    }
    finish(broker, Offsets::Dense);
}

#[test]
fn the_cluster_and_its_log_directories_are_described() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let cluster_id = |address: &str| apache::cluster(address, "cluster-id").ok();
    let id = cluster_id(&address);
    assert!(id.starts_with("Cluster ID: "), "{id}");

    apache::create_topic(&address, "data", 1, &[]);
    java::produce(&address, "data", &[], &[json!({"value": "x".repeat(5000)})])
        .remove(0)
        .expect("acknowledged");
    let described = wait_for("a size", Duration::from_secs(10), || {
        let out = apache::log_dirs(&address, &["--describe", "--topic-list", "data"]).ok();
        let json = out.lines().find(|line| line.starts_with('{')).expect("JSON").to_owned();
        let parsed: serde_json::Value = serde_json::from_str(&json).expect("JSON");
        let partition = parsed["brokers"][0]["logDirs"][0]["partitions"][0].clone();
        (partition["size"].as_u64()? > 5000).then_some(partition)
    });
    assert_eq!(described["partition"], "data-0");

    let versions = apache::api_versions(&address).ok();
    for api in [
        "Produce(0)",
        "Fetch(1)",
        "ListOffsets(2)",
        "Metadata(3)",
        "ApiVersions(18)",
        "DescribeTopicPartitions(75)",
    ] {
        assert!(versions.contains(api), "{api} is not in\n{versions}");
    }
    assert!(!versions.contains("UNSUPPORTED Produce"), "{versions}");

    broker.stop();
    broker.start_again();
    assert_eq!(cluster_id(&address), id, "the cluster keeps its id");
    finish(broker, Offsets::Dense);
}
