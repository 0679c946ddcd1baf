//! A broker over a simulated disk and a store that can be made to fail, and a client of it.

#[path = "../topics/mod.rs"]
mod topics;

use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::Node;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{DeleteTopicsRequest, FetchRequest, ProduceRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::simulated::SimulatedDisk;
use firn_tiering::faults::{FaultPlan, FaultyStore};
use firn_tiering::options::TierOptions;
use firn_tiering::store::Store;
use firn_tiering::tier::Tier;
use tokio::time::Instant;
use uuid::Uuid;

use crate::scrape::Scrape;

const DEADLINE: Duration = Duration::from_secs(30);

pub struct World {
    pub disk: SimulatedDisk,
    pub store: Store,
    pub faults: FaultyStore,
    pub node: Node,
    pub client: Connection,
}

impl World {
    pub async fn start(more: &str) -> World {
        let text = format!(
            "node.id=7\nlisteners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.host=127.0.0.1\n\
             firn.http.port=0\noffsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\n\
             firn.disk.reserve.bytes=0\nfirn.store.url=memory://\n{more}"
        );
        let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
        assert_eq!(parsed.warnings, Vec::<String>::new());
        let (disk, store) = (SimulatedDisk::new(), Store::memory());
        let (faults, faulty) = FaultyStore::wrap(store.clone(), 1, FaultPlan::NONE);
        let options = TierOptions {
            attempt_timeout: Duration::from_millis(200),
            call_deadline: Duration::from_millis(500),
            backoff_max: Duration::from_millis(50),
            retry_burst: 3,
            ..TierOptions::default()
        };
        let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::system() };
        let tier = Tier::with_store(faulty, options);
        let node = Node::start_with_tier(parsed.config, environment, Some(tier)).await.unwrap();
        let client = Connection::connect(&node.addresses[0].to_string(), ConnectionOptions::default()).await;
        World { disk, store, faults, node, client: client.unwrap() }
    }

    pub async fn create_topic(
        &self,
        name: &'static str,
        partitions: i32,
        configs: &[(&'static str, &'static str)],
    ) -> Uuid {
        topics::create_topic(&self.client, name, partitions, configs).await
    }

    pub async fn delete_topic(&self, name: &'static str) {
        let topic = DeleteTopicState::default().with_name(Some(TopicName(StrBytes::from_static_str(name))));
        let deleted =
            self.client.call(&DeleteTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        assert_eq!(deleted.responses[0].error_code, 0);
    }

    /// Produces one batch with a record of `bytes`; gives the error code.
    pub async fn produce(&self, topic: Uuid, partition: i32, bytes: usize) -> i16 {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(1, None, Some(&vec![b'v'; bytes]), &[]);
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(builder.build().unwrap()));
        let topic = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        self.client.call(&request).await.unwrap().responses[0].partition_responses[0].error_code
    }

    /// Fetches from one partition; gives the error code and how many bytes came.
    pub async fn fetch(&self, topic: Uuid, partition: i32, from: i64) -> (i16, usize) {
        fetch(&self.client, topic, partition, from).await
    }

    /// The same over a connection of its own.
    pub async fn fetch_elsewhere(&self, topic: Uuid, partition: i32, from: i64) -> (i16, usize) {
        let address = self.node.addresses[0].to_string();
        let client = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
        fetch(&client, topic, partition, from).await
    }

    pub async fn scrape(&self) -> Scrape {
        Scrape::of(self.node.http_address.unwrap()).await
    }

    /// Scrapes until `holds`.
    pub async fn scrape_until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> Scrape {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let scrape = self.scrape().await;
            if holds(&scrape) {
                return scrape;
            }
            assert!(Instant::now() < deadline, "in vain: {what}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

async fn fetch(client: &Connection, topic: Uuid, partition: i32, from: i64) -> (i16, usize) {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(from)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_wait_ms(10_000)
        .with_min_bytes(1)
        .with_max_bytes(50 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic]);
    let fetched = client.call(&request).await.unwrap().responses.remove(0).partitions.remove(0);
    (fetched.error_code, fetched.records.map_or(0, |records| records.len()))
}
