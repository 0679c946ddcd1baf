//! A consumer of message sets meets a log with transaction markers, which it cannot see.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::sync::Arc;

use firn::environment::Environment;
use firn::node::Node;
use firn::partition::Acks;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::{CreateTopicsRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::control::{EndTransactionMarker, TransactionResult};
use firn_records::legacy;
use firn_records::validate::ValidatedBatches;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::SimulatedDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const NOW_MS: i64 = 1_700_000_000_000;
const MARKERS: i64 = 5;

async fn start() -> Node {
    start_with("").await
}

async fn start_with(more: &str) -> Node {
    let text = format!(
        "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n{more}"
    );
    let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
    let environment = Environment { disk: Arc::new(SimulatedDisk::new()), ..Environment::system() };
    let node = Node::start(parsed.config, environment).await.unwrap();
    let client =
        Connection::connect(&node.addresses[0].to_string(), ConnectionOptions::default()).await.unwrap();
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("t")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let created = client.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
    assert_eq!(created.topics[0].error_code, 0);
    node
}

async fn append(node: &Node, batch: BatchBuilder) {
    let batches = ValidatedBatches::trusted(batch.build().unwrap()).unwrap();
    let partition = node.context.partitions.by_name("t", 0).unwrap();
    let appended = partition.append(&batches, AppendOrigin::Coordinator, Acks::All, NOW_MS).unwrap();
    if let Some(awaited) = appended.awaited {
        awaited.await.unwrap().unwrap();
    }
}

fn marker() -> BatchBuilder {
    let marker = EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 0 };
    let producer = Producer { id: 7, epoch: 0, base_sequence: -1 };
    let options = BatchOptions { control: true, transactional: true, producer, ..BatchOptions::default() };
    let mut batch = BatchBuilder::new(options);
    batch.push(NOW_MS, Some(&marker.key()), Some(&marker.value()), &[]);
    batch
}

/// Error code and message set of a Fetch of version 2, which takes no more than one batch at a time.
async fn fetch(node: &Node, from: i64) -> (i16, Vec<u8>) {
    let mut stream = ask(node, from, 1).await;
    let size = stream.read_u32().await.unwrap();
    let mut answer = vec![0; size as usize];
    stream.read_exact(&mut answer).await.unwrap();
    // Correlation id, throttle time, topics, its name, partitions, index; then the code, the high watermark, the size.
    let code = i16::from_be_bytes(answer[23..25].try_into().unwrap());
    (code, answer[37..].to_vec())
}

/// Sends a Fetch of version 2, and leaves the reply to be read.
async fn ask(node: &Node, from: i64, max_bytes: i32) -> TcpStream {
    let mut frame = vec![0, 1, 0, 2, 0, 0, 0, 1, 0xff, 0xff];
    for number in [-1i32, 0, 1, 1] {
        frame.extend_from_slice(&number.to_be_bytes());
    }
    frame.extend_from_slice(&[0, 1, b't', 0, 0, 0, 1, 0, 0, 0, 0]);
    frame.extend_from_slice(&from.to_be_bytes());
    frame.extend_from_slice(&max_bytes.to_be_bytes());
    let mut stream = TcpStream::connect(node.addresses[0]).await.unwrap();
    stream.write_all(&(frame.len() as u32).to_be_bytes()).await.unwrap();
    stream.write_all(&frame).await.unwrap();
    stream
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn markers_alone_do_not_stop_an_old_consumer() {
    let node = start().await;
    for _ in 0..MARKERS {
        append(&node, marker()).await;
    }
    let (code, messages) = fetch(&node, 0).await;
    assert_eq!((code, messages.len()), (0, 0), "there is nothing to see yet");
    let mut batch = BatchBuilder::new(BatchOptions::default());
    batch.push(NOW_MS, Some(b"key"), Some(b"seen"), &[]);
    append(&node, batch).await;
    let (code, messages) = fetch(&node, 0).await;
    assert_eq!(code, 0);
    assert!(legacy::is_message_set(&messages), "{messages:?}");
    assert_eq!(i64::from_be_bytes(messages[..8].try_into().unwrap()), MARKERS);
    assert!(messages.ends_with(b"seen"));
    let (code, messages) = fetch(&node, MARKERS + 1).await;
    assert_eq!((code, messages.len()), (0, 0), "the end of the log");
    node.stop().await;
}

/// What is converted lies in memory until it is read: many who do not read theirs get a bounded part of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn old_consumers_that_stop_reading_do_not_take_the_memory() {
    let node = start_with("firn.fetch.records.bytes=1048576\nsocket.send.buffer.bytes=4096\n").await;
    for _ in 0..8 {
        let mut batch = BatchBuilder::new(BatchOptions::default());
        batch.push(NOW_MS, None, Some(&vec![b'v'; 500_000]), &[]);
        append(&node, batch).await;
    }
    let mut stopped = Vec::new();
    while !node.context.record_memory.is_short() {
        assert!(stopped.len() < 50, "their memory is not bounded");
        let stream = ask(&node, 0, 4 << 20).await;
        let began = tokio::time::timeout(std::time::Duration::from_millis(300), stream.readable()).await;
        stopped.push((stream, began));
    }
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while fetch(&node, 0).await.1.len() < 500_000 {
        assert!(tokio::time::Instant::now() < deadline, "it gets nothing");
    }
    node.stop().await;
}
