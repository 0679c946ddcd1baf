//! Between the brokers of a cluster: connections to the others, and what is asked over them.
//!
//! Brokers speak Kafka's framing to each other, on the listeners that their clients use or on one of their own
//! (`controller.listener.names`), and within it one API that is theirs alone (`wire.rs`). How a broker comes into the
//! cluster is in `formation.rs`, what it answers in `membership.rs`.

pub mod ask_error;
pub mod formation;
pub mod heard;
pub mod joining;
mod marks;
pub mod membership;
pub mod own_place;
pub mod unregistration;
pub mod votes;
pub mod wire;
#[cfg(test)]
mod world;

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_client::error::Error;
use firn_metadata::image::Image;
use firn_metadata::record::Endpoint;
use firn_model::broker_config::BrokerConfig;
use firn_quorum::network::{Answer, Lane, Transport};
use firn_quorum::types::Member;
use firn_quorum::wire::{message, read};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::net::{ByteStream, Network};
use wire::{API_KEY, Ask, Told};

/// Longest answer that is read.
const ANSWER_BYTES_MAX: usize = 100 << 20;

/// How long a connection may take to be made.
const CONNECT_MAX: Duration = Duration::from_secs(1);

/// How long it counts that a broker's machine has refused a connection. Whoever has something to say tries again and again.
const REFUSAL_COUNTS: Duration = Duration::from_millis(300);

/// Messages of one line arrive in order, and wait for each other: what takes long has a line of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Line {
    /// Messages of the quorum.
    Quorum(Lane),
    /// Who a broker is, and that it is there.
    Signals,
    /// What the controller has to decide.
    Controller,
    /// Clients' requests that the controller answers.
    Clients,
}

impl Line {
    /// How long nothing may be answered until a connection counts as lost, though nobody has said so: then another is made.
    fn silence_max(self) -> Duration {
        Duration::from_secs(match self {
            Line::Quorum(Lane::Signals) | Line::Signals => 2,
            Line::Quorum(Lane::Entries) => 4,
            // An attempt takes half of it at most (`membership.rs`); who joins waits longer, and asks nothing else meanwhile.
            Line::Controller => 10,
            Line::Clients => 30,
            Line::Quorum(Lane::Snapshots) => 60,
        })
    }
}

/// Why another broker gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum PeerError {
    #[error("broker {0} is not in controller.quorum.voters, nor has it registered")]
    Unknown(i32),
    #[error("broker {broker_id} at {address}: {reason}")]
    Unreachable { broker_id: i32, address: String, reason: String },
    #[error("broker {broker_id} at {address}: no answer within {patience:?}")]
    TimedOut { broker_id: i32, address: String, patience: Duration },
}

/// The other brokers. A clone is another handle to the same connections.
#[derive(Debug, Clone)]
pub struct Peers(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    node_id: i32,
    network: Arc<dyn Network>,
    /// Of all that are listed (`controller.quorum.voters`).
    listed: BTreeMap<i32, String>,
    /// Of those that are not, as they have said themselves.
    learned: Mutex<BTreeMap<i32, String>>,
    /// By these listeners brokers come in; by any, if there are none (`controller.listener.names`).
    listeners: Vec<String>,
    open: Mutex<HashMap<(i32, Line), Open>>,
    /// Those that took no connection when they were last asked for one, and when that was: nobody listens there.
    refusing: Mutex<BTreeMap<i32, Instant>>,
    /// One more refuses.
    refused: Notify,
}

/// A connection, and since when it owes an answer.
#[derive(Debug)]
struct Open {
    connection: Arc<Connection>,
    owes_since: Option<Instant>,
}

impl Peers {
    /// `endpoints` are this broker's.
    pub fn new(config: &BrokerConfig, endpoints: &[Endpoint], network: Arc<dyn Network>) -> Self {
        let voters = config.quorum.voters.iter();
        let peers = Self(Arc::new(Shared {
            node_id: config.node_id,
            network,
            listed: voters.map(|voter| (voter.broker_id, voter.address.clone())).collect(),
            learned: Mutex::default(),
            listeners: config.controller_listeners.iter().map(|listener| listener.name.clone()).collect(),
            open: Mutex::default(),
            refusing: Mutex::default(),
            refused: Notify::new(),
        }));
        // Who is alone asks nobody, nor itself.
        if !peers.is_alone() {
            peers.learn_endpoint(config.node_id, endpoints);
        }
        peers
    }

    /// Of this broker.
    pub fn own_id(&self) -> i32 {
        self.0.node_id
    }

    /// Ids of the brokers that are listed.
    pub fn listed(&self) -> impl Iterator<Item = i32> {
        self.0.listed.keys().copied()
    }

    /// Whether a broker is listed: it has a vote from when it joins.
    pub fn is_listed(&self, broker_id: i32) -> bool {
        self.0.listed.contains_key(&broker_id)
    }

    /// Ids of the others that are listed: by them the cluster is found.
    pub fn others(&self) -> impl Iterator<Item = i32> {
        self.listed().filter(|id| *id != self.0.node_id)
    }

    /// Where a broker is: as it is listed, or has said.
    pub fn address(&self, broker_id: i32) -> Option<String> {
        let listed = self.0.listed.get(&broker_id).cloned();
        listed.or_else(|| self.0.learned.lock().get(&broker_id).cloned())
    }

    /// Takes note of where all are that have registered.
    pub fn learn_all(&self, image: &Image) {
        image.brokers().for_each(|broker| self.learn_endpoint(broker.id, &broker.endpoints));
    }

    /// Takes note of where the others are that had registered so before this start.
    pub fn learn_others(&self, known: &BTreeMap<i32, Vec<Endpoint>>) {
        let others = known.iter().filter(|(id, _)| **id != self.0.node_id);
        others.for_each(|(id, endpoints)| self.learn_endpoint(*id, endpoints));
    }

    /// Takes note of where a broker is that has registered so.
    pub fn learn_endpoint(&self, broker_id: i32, endpoints: &[Endpoint]) {
        if let Some(address) = self.address_in(endpoints) {
            self.learn(broker_id, address);
        }
    }

    /// Where brokers find one that has registered so.
    pub fn address_in(&self, endpoints: &[Endpoint]) -> Option<String> {
        let is_for_brokers = |endpoint: &&Endpoint| self.0.listeners.contains(&endpoint.listener);
        endpoints.iter().find(is_for_brokers).or(endpoints.first()).map(Endpoint::address)
    }

    /// Takes note of where a broker is, which is not listed: of one that has registered, has a vote, or has answered there.
    pub fn learn(&self, broker_id: i32, address: String) {
        let mut learned = self.0.learned.lock();
        if self.is_listed(broker_id) || learned.get(&broker_id) == Some(&address) {
            return;
        }
        learned.insert(broker_id, address);
        // Whatever is open leads to where it was.
        self.0.open.lock().retain(|(id, _), _| *id != broker_id);
    }

    /// Whether there is no other broker, and never will be.
    pub fn is_alone(&self) -> bool {
        self.others().next().is_none()
    }

    /// Asks a broker. `rest` goes behind the question, and what came behind the answer is returned with it.
    pub async fn ask(
        &self,
        broker_id: i32,
        line: Line,
        ask: &Ask,
        rest: &[u8],
        patience: Duration,
    ) -> Result<(Told, Bytes), PeerError> {
        let address = &self.address(broker_id).ok_or(PeerError::Unknown(broker_id))?;
        let failed = |reason: String| PeerError::Unreachable { broker_id, address: address.clone(), reason };
        let message = message(ask, rest).map_err(|error| failed(error.to_string()))?;
        let place = (broker_id, line);
        let connection = match self.open(place) {
            Some(connection) => connection,
            None => self.open_line(place, address, patience).await.map_err(failed)?,
        };
        match connection.send(API_KEY, 0, &message, patience).await {
            Ok(answer) => {
                self.answered(place, &connection);
                read(&answer).map_err(|error| failed(error.to_string()))
            }
            Err(Error::Timeout { .. }) => {
                Err(PeerError::TimedOut { broker_id, address: address.clone(), patience })
            }
            Err(error) => Err(failed(error.to_string())),
        }
    }

    /// Asks whoever is at an address, which need not be a broker's: nothing is remembered of it.
    pub async fn ask_at(&self, address: &str, ask: &Ask, patience: Duration) -> Result<Told, String> {
        let asking = async {
            let message = message(ask, &[]).map_err(|error| error.to_string())?;
            let connecting = self.0.network.connect(address.to_owned());
            let stream = connecting.await.map_err(|error| error.to_string())?;
            let connection = self.line_over(stream, address);
            let answer = connection.send(API_KEY, 0, &message, patience).await;
            let answer = answer.map_err(|error| error.to_string())?;
            read(&answer).map(|(told, _)| told).map_err(|error| error.to_string())
        };
        let asked = tokio::time::timeout(patience, asking).await;
        asked.unwrap_or_else(|_| Err(format!("no answer within {patience:?}")))
    }

    /// Whether the broker's process has ended, as far as can be told: its machine said just now that nobody listens at its address.
    /// It may be back a moment later, and be cut off from here.
    pub fn is_gone(&self, broker_id: i32) -> bool {
        self.0.refusing.lock().get(&broker_id).is_some_and(|refused| refused.elapsed() < REFUSAL_COUNTS)
    }

    /// Resolves once a broker is gone that was not.
    pub async fn until_gone(&self) {
        self.0.refused.notified().await;
    }

    /// The broker has been heard of.
    pub fn is_there(&self, broker_id: i32) {
        self.0.refusing.lock().remove(&broker_id);
    }

    /// A connection to a broker's address, of which is remembered whether there is anybody.
    async fn reach(
        &self,
        broker_id: i32,
        address: &str,
        patience: Duration,
    ) -> Result<Box<dyn ByteStream>, String> {
        let limit = patience.min(CONNECT_MAX);
        let connecting = self.0.network.connect(address.to_owned());
        let connected = tokio::time::timeout(limit, connecting).await;
        let is_refused =
            matches!(&connected, Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused);
        let mut refusing = self.0.refusing.lock();
        if !is_refused {
            refusing.remove(&broker_id);
        } else if refusing.insert(broker_id, Instant::now()).is_none() {
            self.0.refused.notify_one();
        }
        drop(refusing);
        match connected {
            Ok(connected) => connected.map_err(|error| error.to_string()),
            Err(_) => Err(format!("no connection within {limit:?}")),
        }
    }

    /// Another connection to a broker, for requests of Kafka's protocol.
    pub async fn connect(&self, broker_id: i32, options: ConnectionOptions) -> Result<Connection, Error> {
        let address = self.address(broker_id).unwrap_or_default();
        let failed = |reason: String| Error::Connect { address: address.clone(), reason };
        let stream = self.reach(broker_id, &address, CONNECT_MAX).await.map_err(failed)?;
        Connection::over(stream, address.clone(), options).await
    }

    /// The connection to a broker, if there is one that answers; from now on it owes an answer.
    fn open(&self, place: (i32, Line)) -> Option<Arc<Connection>> {
        let mut all = self.0.open.lock();
        let open = all.get_mut(&place)?;
        let is_silent = open.owes_since.is_some_and(|since| since.elapsed() > place.1.silence_max());
        if is_silent || !open.connection.is_open() {
            all.remove(&place);
            return None;
        }
        open.owes_since.get_or_insert_with(Instant::now);
        Some(open.connection.clone())
    }

    async fn open_line(
        &self,
        place: (i32, Line),
        address: &str,
        patience: Duration,
    ) -> Result<Arc<Connection>, String> {
        let stream = self.reach(place.0, address, patience).await?;
        let connection = Arc::new(self.line_over(stream, address));
        let open = Open { connection: connection.clone(), owes_since: Some(Instant::now()) };
        self.0.open.lock().insert(place, open);
        Ok(connection)
    }

    fn line_over(&self, stream: Box<dyn ByteStream>, address: &str) -> Connection {
        let options = ConnectionOptions {
            client_id: format!("broker-{}", self.0.node_id),
            frame_bytes_max: ANSWER_BYTES_MAX,
            ..ConnectionOptions::default()
        };
        Connection::unnegotiated(stream, address.to_owned(), options)
    }

    fn answered(&self, place: (i32, Line), connection: &Arc<Connection>) {
        let mut all = self.0.open.lock();
        // Another may have been made meanwhile.
        if let Some(open) = all.get_mut(&place).filter(|open| Arc::ptr_eq(&open.connection, connection)) {
            open.owes_since = None;
        }
    }
}

impl Transport for Peers {
    fn ask(&self, member: &Member, lane: Lane, message: Bytes, patience: Duration) -> Answer {
        let (peers, broker_id) = (self.clone(), member.broker_id);
        let ask = Ask::Quorum { to: member.id() };
        Box::pin(async move {
            match peers.ask(broker_id, Line::Quorum(lane), &ask, &message, patience).await {
                Ok((Told::Quorum, answer)) => Ok(answer),
                Ok((told, _)) => Err(io::Error::other(format!("broker {broker_id}: {told}"))),
                Err(error @ PeerError::TimedOut { .. }) => {
                    Err(io::Error::new(io::ErrorKind::TimedOut, error))
                }
                Err(error) => Err(io::Error::other(error)),
            }
        })
    }
}
