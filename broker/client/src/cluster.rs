//! A cluster seen from outside: which brokers it has, who leads a partition, who coordinates a group.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::{
    DescribeLogDirsRequest, FindCoordinatorRequest, MetadataRequest, MetadataResponse, TopicName,
};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::connection::{Connection, ConnectionOptions};
use crate::error::{Error, check};
use crate::retry::Retry;
use crate::topics::text;

/// From here on coordinators are asked for in batches (KIP-699).
const COORDINATORS_VERSION: i16 = 4;

/// Connections to brokers, made when they are first needed and shared from then on.
#[derive(Debug)]
pub struct Cluster {
    bootstrap: Vec<String>,
    options: ConnectionOptions,
    connections: Mutex<BTreeMap<String, Arc<Connection>>>,
    pub(crate) retry: Retry,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    pub id: Option<String>,
    pub controller: Option<i32>,
    pub brokers: Vec<Broker>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    pub id: i32,
    /// `host:port`.
    pub address: String,
    pub rack: Option<String>,
}

/// What one broker keeps of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replica {
    pub broker: i32,
    pub directory: String,
    pub topic: String,
    pub partition: i32,
    /// Bytes on this broker's disk.
    pub size: i64,
}

/// Where the partitions of a topic are led.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    pub name: String,
    /// Nil where the broker does not know topic ids.
    pub id: Uuid,
    /// For each partition its leader's `host:port`, none while nobody leads.
    pub leaders: BTreeMap<i32, Option<String>>,
}

impl Route {
    pub(crate) fn topic(&self) -> TopicName {
        TopicName(text(&self.name))
    }

    /// Whether a reply speaks of this topic: by name in older versions, by id in newer ones.
    pub(crate) fn is(&self, name: &TopicName, id: Uuid) -> bool {
        name.0.as_str() == self.name || (!id.is_nil() && id == self.id)
    }

    pub(crate) fn leader(&self, partition: i32) -> Result<&str, Error> {
        // LEADER_NOT_AVAILABLE, or UNKNOWN_TOPIC_OR_PARTITION.
        let missing = |code| Error::Refused {
            what: format!("reach partition {partition} of topic {}", self.name),
            code,
            message: None,
        };
        let leader = self.leaders.get(&partition).ok_or_else(|| missing(3))?;
        leader.as_deref().ok_or_else(|| missing(5))
    }
}

impl Cluster {
    /// `bootstrap` holds `host:port` of brokers to ask first. Connects to none yet.
    pub fn new(bootstrap: Vec<String>, options: ConnectionOptions) -> Self {
        Self { bootstrap, options, connections: Mutex::default(), retry: Retry::STANDARD }
    }

    /// A connection to any broker.
    pub async fn any(&self) -> Result<Arc<Connection>, Error> {
        let mut last =
            Error::Connect { address: "the cluster".to_owned(), reason: "no address is given".to_owned() };
        for address in &self.bootstrap {
            match self.at(address).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A connection to the broker at `host:port`.
    pub async fn at(&self, address: &str) -> Result<Arc<Connection>, Error> {
        let mut connections = self.connections.lock().await;
        if let Some(connection) = connections.get(address).filter(|connection| connection.is_open()) {
            return Ok(Arc::clone(connection));
        }
        let connection = Arc::new(Connection::connect(address, self.options.clone()).await?);
        connections.insert(address.to_owned(), Arc::clone(&connection));
        Ok(connection)
    }

    /// The brokers, by id.
    pub async fn describe(&self) -> Result<Description, Error> {
        let request = MetadataRequest::default().with_topics(Some(Vec::new()));
        let found = self.retry.run(async || self.any().await?.call(&request).await).await?;
        let mut brokers: Vec<Broker> = addresses(&found)
            .into_iter()
            .map(|(id, address)| {
                let rack = found.brokers.iter().find(|broker| broker.node_id.0 == id);
                Broker { id, address, rack: rack.and_then(|broker| Some(broker.rack.as_ref()?.to_string())) }
            })
            .collect();
        brokers.sort_by_key(|broker| broker.id);
        Ok(Description {
            id: found.cluster_id.map(|id| id.to_string()),
            controller: Some(found.controller_id.0).filter(|id| *id >= 0),
            brokers,
        })
    }

    /// As `route`, with patience for a cluster that is not ready, and none for a topic that is not there and not created.
    pub async fn find(&self, topic: &str, create: bool) -> Result<Route, Error> {
        let passes = |error: &Error| {
            error.is_retriable() && (create || !error.is(ResponseError::UnknownTopicOrPartition))
        };
        self.retry.run_while(passes, async || self.route(topic, create).await).await
    }

    /// Where the partitions of `topic` are led now. Creates the topic where `create` and the broker allow it.
    pub async fn route(&self, topic: &str, create: bool) -> Result<Route, Error> {
        let wanted = MetadataRequestTopic::default().with_name(Some(TopicName(text(topic))));
        let request =
            MetadataRequest::default().with_topics(Some(vec![wanted])).with_allow_auto_topic_creation(create);
        let found = self.any().await?.call(&request).await?;
        let what = || format!("find topic {topic}");
        let Some(topic_found) = found.topics.first() else {
            return Err(Error::Refused { what: what(), code: 3, message: None });
        };
        check(topic_found.error_code, None, what)?;
        let addresses = addresses(&found);
        let partitions = topic_found.partitions.iter();
        let leaders = partitions
            .map(|partition| (partition.partition_index, addresses.get(&partition.leader_id.0).cloned()));
        Ok(Route { name: topic.to_owned(), id: topic_found.topic_id, leaders: leaders.collect() })
    }

    /// A connection to the broker that coordinates `group`.
    pub async fn coordinator(&self, group: &str) -> Result<Arc<Connection>, Error> {
        self.at(&self.find_coordinator(group).await?.address).await
    }

    /// A connection of the caller's own to the broker that coordinates `group`: a broker answers in order, so whoever
    /// shares a connection with a JoinGroup waits as long as it does.
    pub(crate) async fn own_coordinator(&self, group: &str) -> Result<Connection, Error> {
        Connection::connect(&self.find_coordinator(group).await?.address, self.options.clone()).await
    }

    /// The broker that coordinates `group`.
    pub async fn find_coordinator(&self, group: &str) -> Result<Broker, Error> {
        let connection = self.any().await?;
        let mut request = FindCoordinatorRequest::default();
        if connection.version_of::<FindCoordinatorRequest>()? >= COORDINATORS_VERSION {
            request.coordinator_keys = vec![text(group)];
        } else {
            request.key = text(group);
        }
        let reply = connection.call(&request).await?;
        let what = || format!("find the coordinator of group {group}");
        let (code, message, id, host, port) = match reply.coordinators.first() {
            Some(found) => (found.error_code, &found.error_message, found.node_id, &found.host, found.port),
            None => (reply.error_code, &reply.error_message, reply.node_id, &reply.host, reply.port),
        };
        check(code, message.as_deref(), what)?;
        Ok(Broker { id: id.0, address: format!("{host}:{port}"), rack: None })
    }

    /// What each broker keeps on its disks.
    pub async fn replicas(&self) -> Result<Vec<Replica>, Error> {
        let mut replicas = Vec::new();
        let request = DescribeLogDirsRequest::default().with_topics(None);
        for Broker { id: broker, address, .. } in self.describe().await?.brokers {
            let reply = self.at(&address).await?.call(&request).await?;
            for found in &reply.results {
                let directory = found.log_dir.to_string();
                check(found.error_code, None, || format!("describe {directory} of broker {broker}"))?;
                for topic in &found.topics {
                    replicas.extend(topic.partitions.iter().map(|partition| Replica {
                        broker,
                        directory: directory.clone(),
                        topic: topic.name.0.to_string(),
                        partition: partition.partition_index,
                        size: partition.partition_size,
                    }));
                }
            }
        }
        replicas.sort_by(|one, other| {
            (one.broker, &one.topic, one.partition).cmp(&(other.broker, &other.topic, other.partition))
        });
        Ok(replicas)
    }
}

fn addresses(metadata: &MetadataResponse) -> BTreeMap<i32, String> {
    metadata
        .brokers
        .iter()
        .map(|broker| (broker.node_id.0, format!("{}:{}", broker.host, broker.port)))
        .collect()
}
