//! Three brokers as child processes that are one cluster, of Firn or of Apache Kafka.

use std::time::Duration;

use firn_client::cluster::Cluster;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_client::consumer::{self, Start};
use firn_client::topics::{self, NewTopic, Partition};
use firn_protocol::library::messages::describe_quorum_request::{PartitionData, TopicData};
use firn_protocol::library::messages::{DescribeQuorumRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use tokio::runtime::Runtime;

use crate::cluster::{Broker, BrokerOptions, System};
use crate::process::{free_ports, wait_for};

const DEADLINE: Duration = Duration::from_secs(120);

#[derive(Debug)]
pub struct Trio {
    pub brokers: Vec<Broker>,
    runtime: Runtime,
}

impl Trio {
    /// Starts three brokers, with ids 1, 2 and 3, and waits until all answer.
    pub fn start(options: &BrokerOptions) -> Trio {
        let (ports, controllers): ([u16; 3], [u16; 3]) = (free_ports(), free_ports());
        let voters = match options.system {
            // Each keeps the metadata, and is found where its clients find it.
            System::Firn => ports,
            System::Kafka => controllers,
        };
        let voters: Vec<String> =
            (1..).zip(voters).map(|(id, port)| format!("{id}@127.0.0.1:{port}")).collect();
        let of_one = |(id, (port, controller)): (i32, (u16, u16))| {
            let mut options = options.clone();
            options.data = options.data.map(|data| data.join(id.to_string()));
            let own_id = if options.system == System::Firn { "broker.id" } else { "node.id" };
            let options =
                options.with(own_id, &id.to_string()).with("controller.quorum.voters", &voters.join(","));
            let mut broker = Broker::prepare(options, port, controller);
            broker.start_unready();
            broker
        };
        let mut brokers: Vec<Broker> = (1..).zip(ports.into_iter().zip(controllers)).map(of_one).collect();
        brokers.iter_mut().for_each(Broker::wait_ready);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        Trio { brokers, runtime: runtime.expect("a runtime") }
    }

    /// Where clients find it.
    pub fn addresses(&self) -> String {
        self.brokers.iter().map(Broker::address).collect::<Vec<_>>().join(",")
    }

    /// Asks one broker after another until there is an answer, and it is right.
    fn until<T>(&self, what: &str, mut ask: impl AsyncFnMut(&Connection) -> Option<T>) -> T {
        let mut turn = 0;
        wait_for(what, DEADLINE, || {
            turn += 1;
            let address = self.brokers[turn % self.brokers.len()].address();
            let options =
                ConnectionOptions { deadline: Duration::from_secs(5), ..ConnectionOptions::default() };
            self.runtime.block_on(async { ask(&Connection::connect(&address, options).await.ok()?).await })
        })
    }

    /// Creates a topic whose every partition is on all three, and waits until all are in sync.
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
        let addresses = self.brokers.iter().map(Broker::address).collect();
        let cluster = Cluster::new(addresses, options);
        let all: Vec<i32> = (0..partitions).collect();
        for topic in topics {
            wait_for("partitions that are served", DEADLINE, || {
                let ends = consumer::offsets(&cluster, topic, &all, Start::Latest);
                self.runtime.block_on(ends).ok()
            });
        }
    }

    /// Stops all three at once, in an orderly way.
    pub fn stop(&mut self) {
        std::thread::scope(|scope| {
            for broker in &mut self.brokers {
                scope.spawn(|| broker.stop());
            }
        });
    }

    /// Starts all three again, and waits until they answer.
    pub fn start_again(&mut self) {
        self.brokers.iter_mut().for_each(Broker::start_unready);
        self.brokers.iter_mut().for_each(Broker::wait_ready);
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
