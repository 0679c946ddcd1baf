//! A stop ends soon and cleanly, whoever holds a connection and whatever is being compacted.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod topics;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::{Node, Stopped};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::ProduceRequest;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::simulated::{Faults, Operation, SimulatedDisk};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use topics::create_topic;

const DEADLINE: Duration = Duration::from_secs(30);
const PARTITIONS: i32 = 3;

async fn start(disk: &SimulatedDisk) -> Node {
    let text = "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.host=127.0.0.1\nfirn.http.port=0\n\
                firn.disk.reserve.bytes=0\nlog.cleaner.backoff.ms=10\n";
    let parsed = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap();
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::system() };
    Node::start(parsed.config, environment).await.unwrap()
}

fn assert_stopped_cleanly(disk: &SimulatedDisk) {
    assert!(disk.contents(Path::new("/data/.kafka_cleanshutdown")).is_ok(), "the next start checks no log");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_request_at_the_side_door_does_not_hold_up_a_stop() {
    let disk = SimulatedDisk::new();
    let node = start(&disk).await;
    let address = node.http_address.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    half.write_all(b"GET /metrics HTTP/1.1\r\nhost: ").await.unwrap();
    // Connections are accepted in their order.
    let mut whole = TcpStream::connect(address).await.unwrap();
    whole.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(whole.read_u8().await.is_ok());
    assert_eq!(timeout(DEADLINE, node.stop()).await.unwrap(), Stopped::Cleanly);
    assert_stopped_cleanly(&disk);
    drop(half);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_could_not_write_all_says_so() {
    let disk = SimulatedDisk::new();
    let node = start(&disk).await;
    disk.set_faults(Faults { out_of_files: true, ..Faults::default() });
    assert_eq!(timeout(DEADLINE, node.stop()).await.unwrap(), Stopped::Uncleanly);
    disk.set_faults(Faults::default());
    assert!(disk.contents(Path::new("/data/.kafka_cleanshutdown")).is_err());
}

/// Two sealed segments in each partition, of which the cleaner makes one.
async fn fill(node: &Node) {
    let client =
        Connection::connect(&node.addresses[0].to_string(), ConnectionOptions::default()).await.unwrap();
    let configs =
        [("cleanup.policy", "compact"), ("segment.bytes", "1048576"), ("min.cleanable.dirty.ratio", "0")];
    let topic_id = create_topic(&client, "t", PARTITIONS, &configs).await;
    for _ in 0..3 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(1_000, Some(b"key"), Some(&vec![b'v'; 600_000]), &[]);
        let batch = builder.build().unwrap();
        let data = (0..PARTITIONS).map(|partition| {
            PartitionProduceData::default().with_index(partition).with_records(Some(batch.clone()))
        });
        let topic = TopicProduceData::default().with_topic_id(topic_id).with_partition_data(data.collect());
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let response = client.call(&request).await.unwrap();
        assert!(response.responses[0].partition_responses.iter().all(|one| one.error_code == 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_waits_for_one_batch_of_a_compaction_and_not_for_the_whole_pass() {
    let disk = SimulatedDisk::new();
    let node = start(&disk).await;
    let begun: Arc<Mutex<Vec<PathBuf>>> = Arc::default();
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    disk.set_probe(Some({
        let begun = begun.clone();
        Arc::new(move |_, _, operation, path| {
            if operation == Operation::Create && path.to_string_lossy().ends_with(".log.cleaned") {
                begun.lock().push(path.to_owned());
                released.lock().recv().ok();
            }
        })
    }));
    fill(&node).await;
    let deadline = Instant::now() + DEADLINE;
    while begun.lock().is_empty() {
        assert!(Instant::now() < deadline, "a compaction begins");
        tokio::task::yield_now().await;
    }
    let address = node.addresses[0];
    let stop = tokio::spawn(node.stop());
    while TcpStream::connect(address).await.is_ok() {
        assert!(Instant::now() < deadline, "no connection is taken any more");
        tokio::task::yield_now().await;
    }
    drop(release);
    assert_eq!(timeout(DEADLINE, stop).await.unwrap().unwrap(), Stopped::Cleanly);
    assert_eq!(begun.lock().len(), 1, "of {PARTITIONS} partitions");
    disk.set_probe(None);
    assert_stopped_cleanly(&disk);
    timeout(DEADLINE, start(&disk).await.stop()).await.unwrap();
}
