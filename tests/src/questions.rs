//! What is asked of a cluster from outside, of whichever broker answers: topics, who leads, who is in sync.

use std::time::Duration;

use firn_client::cluster::Cluster;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_client::consumer::{self, Start};
use firn_client::topics::{self, NewTopic, Partition};
use firn_protocol::library::messages::describe_quorum_request::{PartitionData, TopicData};
use firn_protocol::library::messages::{DescribeQuorumRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use tokio::runtime::Runtime;

use crate::process::wait_for;

const DEADLINE: Duration = Duration::from_secs(300);

/// Asks the brokers at these addresses.
#[derive(Debug)]
pub struct Questions {
    addresses: Vec<String>,
    runtime: Runtime,
}

impl Questions {
    pub fn of(addresses: Vec<String>) -> Questions {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Questions { addresses, runtime: runtime.expect("a runtime") }
    }

    /// Where clients find the cluster.
    pub fn addresses(&self) -> String {
        self.addresses.join(",")
    }

    /// Asks one broker after another until there is an answer, and it is right.
    pub fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut(&Connection) -> Option<T>) -> T {
        let mut turn = 0;
        wait_for(what, DEADLINE, || {
            turn += 1;
            let address = &self.addresses[turn % self.addresses.len()];
            let options =
                ConnectionOptions { deadline: Duration::from_secs(5), ..ConnectionOptions::default() };
            self.runtime.block_on(async { ask(&Connection::connect(address, options).await.ok()?).await })
        })
    }

    /// Creates a topic whose every partition is on three brokers, and waits until all are in sync.
    pub fn create(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        self.create_unready(topic, partitions, configs);
        self.wait_in_sync(topic, partitions, 3);
    }

    /// The same, without waiting.
    pub fn create_unready(&self, topic: &str, partitions: i32, configs: &[(&str, &str)]) {
        let new = NewTopic {
            name: topic.to_owned(),
            partitions: Some(partitions),
            replication_factor: Some(3),
            assignments: Vec::new(),
            configs: configs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect(),
        };
        self.until("three brokers that take a topic", async |connection| {
            topics::create(connection, &new).await.ok()
        });
    }

    /// The partitions, as some broker tells.
    pub fn describe(&self, topic: &str) -> Vec<Partition> {
        self.until("the topic", async |connection| {
            let mut found = topics::describe(connection, Some(&[topic.to_owned()])).await.ok()?;
            found.pop().map(|topic| topic.partitions)
        })
    }

    /// Waits until as many replicas of each partition are in sync.
    pub fn wait_in_sync(&self, topic: &str, partitions: i32, replicas: usize) {
        wait_for("replicas in sync", DEADLINE, || {
            let found = self.describe(topic);
            let all = found.len() == partitions as usize
                && found.iter().all(|one| one.in_sync.len() == replicas && one.leader.is_some());
            all.then_some(())
        });
    }

    /// Waits until each of the topics' partitions is led by a broker that tells where it ends: it knows by then what is committed.
    pub fn wait_served(&self, topics: &[String], partitions: i32) {
        let options = ConnectionOptions { deadline: Duration::from_secs(30), ..ConnectionOptions::default() };
        let cluster = Cluster::new(self.addresses.clone(), options);
        let all: Vec<i32> = (0..partitions).collect();
        for topic in topics {
            wait_for("partitions that are served", DEADLINE, || {
                let ends = consumer::offsets(&cluster, topic, &all, Start::Latest);
                self.runtime.block_on(ends).ok()
            });
        }
    }

    /// The place of the broker that leads a partition.
    pub fn leader(&self, topic: &str, partition: i32) -> usize {
        wait_for("a leader", DEADLINE, || {
            let found = self.describe(topic);
            let leader = found.into_iter().find(|one| one.index == partition)?.leader?;
            usize::try_from(leader - 1).ok()
        })
    }

    /// The place of the broker that is the controller.
    pub fn controller(&self) -> usize {
        let id = self.until("a controller", async |connection| {
            let name = TopicName(StrBytes::from_static_str("__cluster_metadata"));
            let asked =
                TopicData::default().with_topic_name(name).with_partitions(vec![PartitionData::default()]);
            let request = DescribeQuorumRequest::default().with_topics(vec![asked]);
            let told = connection.call(&request).await.ok()?;
            let leader = told.topics.first()?.partitions.first()?.leader_id.0;
            (leader > 0).then_some(leader)
        });
        usize::try_from(id - 1).expect("a broker's id")
    }
}
