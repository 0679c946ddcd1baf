//! A stop while a disk hangs: it ends, says which directory it gave up, and costs the other directories nothing.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared with the tests of groups")]
mod held_disk;
mod topics;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::{Node, StartError, StopLimits, Stopped};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::ProduceRequest;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::disk::Disk;
use firn_storage::error::StorageError;
use held_disk::{Held, HeldDisk};
use tokio::time::{Instant, timeout};
use topics::create_topic;

const DEADLINE: Duration = Duration::from_secs(30);
const LIMITS: StopLimits =
    StopLimits { tasks: Duration::from_millis(300), directory: Duration::from_millis(300) };
const DIRS: [&str; 2] = ["/one", "/two"];

async fn try_start(disk: &HeldDisk) -> Result<Node, StartError> {
    let text = "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/one,/two\nfirn.http.port=-1\n\
                firn.disk.reserve.bytes=0\n";
    let parsed = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap();
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::system() };
    Node::start(parsed.config, environment).await
}

/// Starts as soon as the broker before has let go of its directories.
async fn start(disk: &HeldDisk) -> Node {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match try_start(disk).await {
            Err(StartError::Storage(StorageError::Locked { .. })) if Instant::now() < deadline => {
                tokio::task::yield_now().await;
            }
            started => return started.unwrap(),
        }
    }
}

async fn connect(node: &Node) -> Connection {
    Connection::connect(&node.addresses[0].to_string(), ConnectionOptions::default()).await.unwrap()
}

/// A topic with a partition in each directory, and a record in both that nothing has synced.
async fn fill(node: &Node) {
    let client = connect(node).await;
    let topic_id = create_topic(&client, "t", 2, &[("flush.messages", "1000000")]).await;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1_000, None, Some(b"kept"), &[]);
    let batch = builder.build().unwrap();
    let data = (0..2).map(|partition| {
        PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()))
    });
    let topic = TopicProduceData::default().with_topic_id(topic_id).with_partition_data(data.collect());
    let request =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let response = client.call(&request).await.unwrap();
    assert!(response.responses[0].partition_responses.iter().all(|one| one.error_code == 0));
    assert_eq!([0, 1].map(|partition| directory_of(node, partition)), DIRS.map(PathBuf::from));
}

fn directory_of(node: &Node, partition: i32) -> PathBuf {
    let partition = node.context.partitions.by_name("t", partition).unwrap();
    partition.data_dir().dir.path().to_owned()
}

/// Of both directories, whether it is marked as shut down cleanly.
fn marked(disk: &HeldDisk) -> [bool; 2] {
    DIRS.map(|dir| disk.exists(&Path::new(dir).join(".kafka_cleanshutdown")).unwrap())
}

async fn assert_nothing_is_lost(disk: &HeldDisk) {
    let node = start(disk).await;
    for partition in 0..2 {
        let offsets = node.context.partitions.by_name("t", partition).unwrap().offsets().unwrap();
        assert_eq!(offsets.log_end, 1, "partition {partition}");
    }
    assert_eq!(timeout(DEADLINE, node.stop()).await.unwrap(), Stopped::Cleanly);
    assert_eq!(marked(disk), [true, true]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_directory_whose_disk_hangs_is_given_up_and_the_other_is_closed() {
    for (hung, expected) in [("t-0", [false, true]), ("t-1", [true, false])] {
        let disk = HeldDisk::new();
        let node = start(&disk).await;
        fill(&node).await;
        let held = disk.hold(Held::SyncsIn(hung));
        assert_eq!(timeout(DEADLINE, node.stop_within(LIMITS)).await.unwrap(), Stopped::Uncleanly);
        assert_eq!(marked(&disk), expected, "{hung} hangs");
        drop(held);
        assert_nothing_is_lost(&disk).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_of_the_metadata_that_hangs_costs_the_other_directory_nothing() {
    let disk = HeldDisk::new();
    let node = start(&disk).await;
    fill(&node).await;
    let held = disk.hold(Held::SyncsIn("__cluster_metadata-0"));
    let before = disk.waiting();
    let client = connect(&node).await;
    let creation = tokio::spawn(async move { create_topic(&client, "late", 1, &[]).await });
    let deadline = Instant::now() + DEADLINE;
    while disk.waiting() == before {
        assert!(Instant::now() < deadline, "nothing is written");
        tokio::task::yield_now().await;
    }
    assert_eq!(timeout(DEADLINE, node.stop_within(LIMITS)).await.unwrap(), Stopped::Uncleanly);
    assert_eq!(marked(&disk), [false, true]);
    creation.abort();
    drop(held);
    assert_nothing_is_lost(&disk).await;
}
