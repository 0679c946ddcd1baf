//! Brokers in one process, each on a disk of its own.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::{Node, StartError, Stopped};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_storage::simulated::SimulatedDisk;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(60);

/// No controller is there just then: a client asks again.
pub const NOT_CONTROLLER: i16 = 41;

/// Where brokers are, and what they have.
pub struct Cluster {
    ports: Vec<u16>,
    pub disks: Vec<SimulatedDisk>,
    /// Lines of every `server.properties`; NODE stands for the id.
    pub more: String,
}

pub fn free_ports(count: usize) -> Vec<u16> {
    let bound: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
    bound.iter().map(|listener| listener.local_addr().unwrap().port()).collect()
}

impl Cluster {
    pub fn new(count: usize) -> Self {
        Self {
            ports: free_ports(count),
            disks: (0..count).map(|_| SimulatedDisk::new()).collect(),
            more: String::new(),
        }
    }

    /// Starts a broker that is told of these.
    pub async fn start(&self, id: usize, listed: &[usize]) -> Result<Node, StartError> {
        self.start_at(id, listed, self.ports[id], &self.disks[id]).await
    }

    /// The same, where it is not listed perhaps, and on whatever disk.
    pub async fn start_at(
        &self,
        id: usize,
        listed: &[usize],
        port: u16,
        disk: &SimulatedDisk,
    ) -> Result<Node, StartError> {
        let voters = listed.iter().map(|id| format!("{id}@127.0.0.1:{}", self.ports[*id]));
        let text = format!(
            "node.id={id}\nlisteners=PLAINTEXT://127.0.0.1:{port}\nlog.dirs=/data\nfirn.http.port=-1\n\
             offsets.topic.num.partitions=3\nfirn.disk.reserve.bytes=0\n\
             broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\n\
             controller.quorum.voters={}\n{}",
            voters.collect::<Vec<_>>().join(","),
            self.more.replace("NODE", &id.to_string())
        );
        let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
        let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::system() };
        tokio::time::timeout(DEADLINE, Node::start(parsed.config, environment)).await.unwrap()
    }

    pub async fn start_all(&self) -> Vec<Node> {
        self.start_listed(&(0..self.ports.len()).collect::<Vec<_>>()).await
    }

    /// All, of which these are listed.
    pub async fn start_listed(&self, listed: &[usize]) -> Vec<Node> {
        let starts = (0..self.ports.len()).map(|id| self.start(id, listed));
        futures_util::future::join_all(starts).await.into_iter().map(Result::unwrap).collect()
    }

    pub fn port(&self, id: usize) -> u16 {
        self.ports[id]
    }

    pub async fn connect(&self, id: usize) -> Connection {
        let address = format!("127.0.0.1:{}", self.ports[id]);
        Connection::connect(&address, ConnectionOptions::default()).await.unwrap()
    }
}

pub async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    wait_for_answer(what, async || look()).await
}

/// The same where somebody has to be asked.
pub async fn wait_for_answer<T>(what: &str, mut ask: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = ask().await {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The place of the controller among these.
pub async fn controller(nodes: &[Node]) -> usize {
    wait_for("a controller", || nodes.iter().position(|node| node.context.controller.progress().leads)).await
}

pub async fn stop_all(nodes: Vec<Node>) {
    let stopped = futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
    assert!(stopped.iter().all(|stopped| *stopped == Stopped::Cleanly), "{stopped:?}");
}
