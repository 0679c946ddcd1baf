//! A client of a run: one connection at a time, to whoever answers what it asks.

use std::rc::Rc;
use std::time::Duration;

use firn_client::connection::{Connection, ConnectionOptions};
use firn_client::error::Error;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::{FindCoordinatorRequest, MetadataRequest};
use firn_protocol::library::protocol::{Request, StrBytes};
use firn_tests::history::Led;
use turmoil::net::TcpStream;
use uuid::Uuid;

use crate::shared::{BETWEEN_ATTEMPTS, Shared};
use crate::story::About;

/// How long a client waits for an answer.
const PATIENCE: Duration = Duration::from_secs(4);

/// Whom a client asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// Any broker; another after each failure.
    Any,
    /// The leader of a partition.
    Leader(Uuid, i32),
    /// One of them, by its number.
    Broker(i32),
    /// The coordinator of a group.
    Coordinator(String),
}

/// A client with one connection, which it makes anew when it has to.
pub struct Client {
    pub name: String,
    pub shared: Rc<Shared>,
    about: About,
    target: Target,
    connection: Option<Connection>,
    /// Whom its connection leads to, if it is to a leader or a coordinator.
    pub asked: String,
    /// How often it has looked for somebody to ask.
    attempts: usize,
}

impl Client {
    /// `about` is what it is there for.
    pub fn new(name: String, about: About, target: Target, shared: Rc<Shared>) -> Self {
        Self { name, shared, about, target, connection: None, asked: String::new(), attempts: 0 }
    }

    pub fn note(&self, what: impl std::fmt::Display) {
        self.shared.trace.note(self.about, &self.name, what);
    }

    /// It was told what it must not be.
    pub fn broke(&self, what: String) {
        let partition = match self.about {
            About::Partition(partition) => Some(partition),
            _ => None,
        };
        self.shared.broke(partition, what);
    }

    /// Asks others from now on.
    pub fn turn_to(&mut self, target: Target) {
        if self.target != target {
            self.target = target;
            self.connection = None;
        }
    }

    async fn connect(&self, address: &str) -> Result<Connection, Error> {
        let failed = |reason: String| Error::Connect { address: address.to_owned(), reason };
        let stream = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await;
        let stream =
            stream.map_err(|_| failed("no answer".to_owned()))?.map_err(|error| failed(error.to_string()))?;
        let options = ConnectionOptions {
            client_id: self.name.clone(),
            deadline: PATIENCE,
            ..ConnectionOptions::default()
        };
        Connection::over(stream, address.to_owned(), options).await
    }

    async fn connect_to_target(&mut self) -> Result<Connection, Error> {
        let brokers = &self.shared.brokers;
        let any = self.connect(&brokers[self.attempts % brokers.len()]).await;
        self.attempts += 1;
        let any = any?;
        let unknown =
            |what: String| Error::Connect { address: what, reason: "nobody answers for it".to_owned() };
        let (host, port) = match &self.target {
            Target::Any => return Ok(any),
            Target::Broker(id) => {
                let metadata = any.call(&MetadataRequest::default().with_topics(Some(Vec::new()))).await?;
                let broker = metadata.brokers.iter().find(|broker| broker.node_id.0 == *id);
                let broker = broker.ok_or_else(|| unknown(format!("broker {id}")))?;
                (broker.host.to_string(), broker.port)
            }
            Target::Leader(topic, partition) => {
                let asked = MetadataRequestTopic::default().with_name(None).with_topic_id(*topic);
                let metadata = any.call(&MetadataRequest::default().with_topics(Some(vec![asked]))).await?;
                let partitions = metadata.topics.first().map(|topic| topic.partitions.as_slice());
                let found =
                    partitions.unwrap_or_default().iter().find(|one| one.partition_index == *partition);
                let leader = found.map(|one| one.leader_id).filter(|leader| leader.0 >= 0);
                if let Some((found, leader)) = found.zip(leader) {
                    let led = Led { partition: *partition, epoch: found.leader_epoch, broker: leader.0 };
                    self.shared.history.borrow_mut().leaders.push(led);
                }
                let broker = metadata.brokers.iter().find(|broker| Some(broker.node_id) == leader);
                let broker = broker.ok_or_else(|| unknown(format!("partition {partition}")))?;
                (broker.host.to_string(), broker.port)
            }
            Target::Coordinator(group) => {
                let key = StrBytes::from_string(group.clone());
                let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![key]);
                let found = any.call(&find).await?;
                let found = found.coordinators.first().filter(|found| found.error_code == 0);
                let broker = found.ok_or_else(|| unknown(format!("group {group}")))?;
                (broker.host.to_string(), broker.port)
            }
        };
        self.asked = format!("{host}:{port}");
        self.connect(&self.asked).await
    }

    /// How many connections it has made so far, or tried to.
    pub fn connections(&self) -> usize {
        self.attempts
    }

    /// Asks once. The connection does not outlive a failure.
    pub async fn ask<R: Request>(&mut self, request: &R) -> Result<R::Response, Error> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => self.connect_to_target().await?,
        };
        let answer = connection.call(request).await?;
        self.connection = Some(connection);
        Ok(answer)
    }

    /// Whoever answered so is not the one to ask, or not now.
    pub fn look_again(&mut self) {
        self.connection = None;
    }

    /// Asks until `good` takes the answer.
    pub async fn ask_until<R: Request, T>(
        &mut self,
        request: &R,
        good: impl Fn(R::Response) -> Result<T, String>,
    ) -> T {
        loop {
            match self.ask(request).await {
                Ok(response) => match good(response) {
                    Ok(answer) => return answer,
                    Err(why) => {
                        self.note(format_args!("tries again: {why}"));
                        self.look_again();
                    }
                },
                Err(error) => self.note(format_args!("tries again: {error}")),
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }
}

pub fn passed(code: i16) -> Result<(), String> {
    match code {
        0 => Ok(()),
        code => Err(format!("{:?}", ResponseError::try_from_code(code))),
    }
}
