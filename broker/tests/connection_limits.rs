//! The limits on connections hold for all listeners together.

#![allow(clippy::unwrap_used, clippy::panic, reason = "in a test a panic is how a failure is told")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::Node;
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_storage::simulated::SimulatedDisk;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn start(limit: &str) -> Node {
    start_with(limit, 10_000).await
}

async fn start_with(limit: &str, open_files_max: usize) -> Node {
    let text = format!(
        "listeners=INSIDE://127.0.0.1:0,OUTSIDE://127.0.0.1:0\nlistener.security.protocol.map=INSIDE:PLAINTEXT,OUTSIDE:PLAINTEXT\n\
         log.dirs=/data\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n{limit}\n"
    );
    let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
    let disk = Arc::new(SimulatedDisk::new());
    let environment = Environment { disk, open_files_max, ..Environment::system() };
    Node::start(parsed.config, environment).await.unwrap()
}

/// A connection that is served, or none: asked for the versions, the broker answers or has closed.
async fn served(address: SocketAddr) -> Option<TcpStream> {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff]).await.ok()?;
    let size = stream.read_u32().await.ok()?;
    let mut answer = vec![0; size as usize];
    stream.read_exact(&mut answer).await.ok()?;
    Some(stream)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_counts_the_connections_of_every_listener() {
    for limit in
        ["max.connections=2", "max.connections.per.ip=2", "max.connections.per.ip.overrides=127.0.0.1:2"]
    {
        let node = start(limit).await;
        let [inside, outside] = node.addresses[..] else { panic!("two listeners") };
        let first = served(inside).await;
        let second = served(outside).await;
        assert!(first.is_some() && second.is_some(), "{limit}");
        for address in [inside, outside] {
            assert!(served(address).await.is_none(), "{limit}: a third connection");
        }
        drop(first);
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while served(outside).await.is_none() {
            assert!(tokio::time::Instant::now() < deadline, "{limit}: the place of one that left is free");
            tokio::task::yield_now().await;
        }
        node.stop().await;
    }
}

/// Clients get no more than half of what the process may have open, here 4 of 8: the rest is for files.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_leave_descriptors_for_files() {
    let node = start_with("", 8).await;
    let mut held = Vec::new();
    for number in 0..4 {
        held.push(served(node.addresses[number % 2]).await.unwrap());
    }
    assert!(served(node.addresses[0]).await.is_none(), "a fifth");
    drop(held.pop());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while served(node.addresses[1]).await.is_none() {
        assert!(tokio::time::Instant::now() < deadline, "the place of one that left is free");
        tokio::task::yield_now().await;
    }
    node.stop().await;
}
