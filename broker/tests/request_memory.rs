//! Many clients that each send a part of a large request: the memory of all is bounded, each gets its answer in the end,
//! and a small request waits for none of them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firn::api::{self, Answer};
use firn::connection::Peer;
use firn::environment::Environment;
use firn::node::Node;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{CreateTopicsRequest, ProduceRequest, TopicName};
use firn_protocol::library::protocol::{Encodable, StrBytes};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::simulated::SimulatedDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;
const CLIENTS: usize = 12;

/// A broker that takes requests of a megabyte, and holds two megabytes of them.
async fn start() -> Node {
    let text = "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n\
                socket.request.max.bytes=1048576\nqueued.max.request.bytes=2097152\n";
    let parsed = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let environment = Environment { disk: Arc::new(SimulatedDisk::new()), ..Environment::system() };
    Node::start(parsed.config, environment).await.unwrap()
}

/// Metadata version 1 for as many topics of long names as make a frame of about a megabyte.
fn large_frame() -> Vec<u8> {
    let mut body = vec![0, 3, 0, 1, 0, 0, 0, 9, 0xff, 0xff];
    let name = [&[0x00, 0xf9][..], &[b'x'; 249]].concat();
    let count = (MIB - 100) / name.len();
    body.extend_from_slice(&(count as u32).to_be_bytes());
    for _ in 0..count {
        body.extend_from_slice(&name);
    }
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

/// Writes until the broker takes no more for a while; returns how many bytes it took.
async fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> usize {
    let mut written = 0;
    while written < bytes.len() {
        match tokio::time::timeout(Duration::from_millis(300), stream.write(&bytes[written..])).await {
            Ok(more) => written += more.unwrap(),
            Err(_) => break,
        }
    }
    written
}

async fn read_answer(stream: &mut TcpStream) -> i32 {
    let mut head = [0; 8];
    stream.read_exact(&mut head).await.unwrap();
    let [size, correlation] = [0, 4].map(|at| i32::from_be_bytes(head[at..at + 4].try_into().unwrap()));
    let mut rest = vec![0; size as usize - 4];
    stream.read_exact(&mut rest).await.unwrap();
    correlation
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn those_who_wait_for_memory_get_it_in_turn_and_small_requests_need_none() {
    let node = start().await;
    let address = node.addresses[0];
    let frame = Arc::new(large_frame());
    // All begin, and none can end: each lacks its last byte.
    let mut begun = Vec::new();
    for _ in 0..CLIENTS {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let written = write_some(&mut stream, &frame[..frame.len() - 1]).await;
        begun.push((stream, written));
    }
    assert!(node.context.request_memory.is_short(), "{CLIENTS} megabytes do not fit into two");

    // ApiVersions version 0.
    let mut small = TcpStream::connect(address).await.unwrap();
    small.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).await.unwrap();
    assert_eq!(read_answer(&mut small).await, 7);

    let ends = begun.into_iter().map(|(mut stream, written)| {
        let frame = frame.clone();
        tokio::spawn(async move {
            stream.write_all(&frame[written..]).await.unwrap();
            read_answer(&mut stream).await
        })
    });
    for end in ends.collect::<Vec<_>>() {
        let answered = tokio::time::timeout(Duration::from_secs(60), end).await;
        assert_eq!(answered.expect("its turn comes").unwrap(), 9);
    }
    assert!(!node.context.request_memory.is_short());
    node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_stops_in_the_middle_goes_when_others_wait() {
    let node = start().await;
    let address = node.addresses[0];
    let frame = large_frame();
    let mut silent = Vec::new();
    for _ in 0..CLIENTS / 2 {
        let mut stream = TcpStream::connect(address).await.unwrap();
        write_some(&mut stream, &frame[..frame.len() / 5]).await;
        silent.push(stream);
    }
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    while !node.context.request_memory.is_short() {
        assert!(tokio::time::Instant::now() < deadline, "the broker has read what was sent");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut good = TcpStream::connect(address).await.unwrap();
    let answer = async {
        good.write_all(&frame).await.unwrap();
        read_answer(&mut good).await
    };
    // The silent ones hold all there is, and nobody else's patience.
    assert_eq!(tokio::time::timeout(Duration::from_secs(100), answer).await.expect("an answer"), 9);
    node.stop().await;
}

/// Produce version 9, acks=all, of one batch to partition 0 of `topic`.
fn produce_frame(topic: &'static str) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1, None, Some(&vec![7; MIB / 2]), &[]);
    let data = PartitionProduceData::default().with_records(Some(builder.build().unwrap()));
    let topic = TopicProduceData::default()
        .with_name(TopicName(StrBytes::from_static_str(topic)))
        .with_partition_data(vec![data]);
    let produce =
        ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
    let mut frame = BytesMut::new();
    // Api key, version, correlation, no client's name, no tags.
    frame.extend_from_slice(&[0, 0, 0, 9, 0, 0, 0, 5, 0xff, 0xff, 0]);
    produce.encode(&mut frame, 9).unwrap();
    frame.freeze()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reply_that_waits_for_the_disk_holds_nothing_of_its_request() {
    let node = start().await;
    let address = node.addresses[0];
    let client = Connection::connect(&address.to_string(), ConnectionOptions::default()).await.unwrap();
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str("slow")))
        .with_num_partitions(1)
        .with_replication_factor(1);
    let created = client.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
    assert_eq!(created.topics[0].error_code, 0);
    let frame = produce_frame("slow");
    let kept = frame.clone();
    let answer =
        api::handle(&node.context, &Peer { address, listener: "PLAINTEXT".into() }, frame).await.unwrap();
    let Answer::Later(reply) = answer else { panic!("acks=all waits for the disk") };
    assert!(kept.is_unique(), "its memory is for the next request");
    reply.await.unwrap();
    node.stop().await;
}
