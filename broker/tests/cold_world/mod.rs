//! A broker in this process over a simulated disk and an object store with faults, both of which outlive it.

#[path = "../topics/mod.rs"]
mod topics;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn::environment::Environment;
use firn::node::{Node, StartError};
use firn::partition::Offsets;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use firn_protocol::library::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use firn_protocol::library::messages::list_offsets_response::ListOffsetsPartitionResponse;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{
    DeleteTopicsRequest, FetchRequest, IncrementalAlterConfigsRequest, ListOffsetsRequest, ProduceRequest,
    TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::error::StorageError;
use firn_storage::simulated::SimulatedDisk;
use firn_tiering::faults::{FaultPlan, FaultyStore};
use firn_tiering::options::TierOptions;
use firn_tiering::store::Store;
use firn_tiering::tier::Tier;
use object_store::ObjectStore;
use tokio::time::Instant;
use topics::create_topic;
use uuid::Uuid;

pub const TOPIC: &str = "history";
pub const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a batch; two fill a segment.
pub const BATCH_BYTES: usize = 600_000;
pub const BATCHES: i64 = 6;

/// What outlives a broker.
#[derive(Clone)]
pub struct Ground {
    pub disk: SimulatedDisk,
    pub store: Store,
    /// How long an operation of the store is tried again before it fails.
    pub call_deadline: Duration,
}

pub struct World {
    pub ground: Ground,
    pub faults: FaultyStore,
    pub node: Node,
    pub client: Connection,
    pub topic_id: Uuid,
}

/// Starts a broker as soon as the one before has let go of its directory: a segment that it was uploading is let go of
/// when its last read returns.
pub async fn start_once_unlocked(
    config: &BrokerConfig,
    environment: Environment,
    tier: Option<Tier>,
) -> Result<Node, StartError> {
    let deadline = Instant::now() + DEADLINE;
    loop {
        match Node::start_with_tier(config.clone(), environment.clone(), tier.clone()).await {
            Err(StartError::Storage(StorageError::Locked { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            started => return started,
        }
    }
}

impl Ground {
    pub fn new() -> Self {
        Self { disk: SimulatedDisk::new(), store: Store::memory(), call_deadline: Duration::from_secs(20) }
    }

    pub fn config(more: &str) -> BrokerConfig {
        let text = format!(
            "node.id=1\nlisteners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.port=-1\n\
             offsets.topic.num.partitions=1\nfirn.disk.reserve.bytes=0\nfirn.store.url=memory://\n\
             firn.store.garbage.grace.ms=200\nremote.log.manager.task.interval.ms=20\n\
             log.retention.check.interval.ms=20\nlog.segment.delete.delay.ms=0\n{more}"
        );
        let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
        assert_eq!(parsed.warnings, Vec::<String>::new());
        parsed.config
    }

    pub fn environment(&self) -> Environment {
        Environment { disk: Arc::new(self.disk.clone()), ..Environment::system() }
    }

    pub async fn broker(&self, more: &str, plan: FaultPlan) -> (FaultyStore, Node, Connection) {
        let config = Self::config(more);
        let (faults, store) = FaultyStore::wrap(self.store.clone(), 1, plan);
        let options = TierOptions {
            attempt_timeout: Duration::from_millis(300),
            call_deadline: self.call_deadline,
            backoff_max: Duration::from_millis(200),
            ..TierOptions::default()
        };
        let tier = Tier::with_store(store, options);
        let environment = self.environment();
        let node = start_once_unlocked(&config, environment, Some(tier)).await.unwrap();
        let address = node.addresses[0].to_string();
        let client = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
        (faults, node, client)
    }

    /// The objects' keys, without what is not of segments.
    pub async fn segments(&self) -> Vec<String> {
        use futures_util::TryStreamExt;
        let all: Vec<_> = self.store.objects.list(None).try_collect().await.unwrap();
        let keys = all.into_iter().map(|meta| meta.location.to_string());
        keys.filter(|key| key.ends_with(".seg")).collect()
    }
}

impl World {
    /// A topic of two partitions, of which only the newest segments stay on the disk, and records in both.
    pub async fn start(more: &str, plan: FaultPlan) -> World {
        let world = Self::with_topic(Ground::new(), more, plan, &[("retention.ms", "-1")]).await;
        for partition in 0..2 {
            for number in 0..BATCHES {
                world.produce(partition, number).await;
            }
        }
        world
    }

    /// The same topic, empty, with these configs as well.
    pub async fn with_topic(
        ground: Ground,
        more: &str,
        plan: FaultPlan,
        configs: &[(&'static str, &'static str)],
    ) -> World {
        let (faults, node, client) = ground.broker(more, plan).await;
        let tiered =
            [("remote.storage.enable", "true"), ("segment.bytes", "1048576"), ("local.retention.bytes", "1")];
        let configs: BTreeMap<_, _> = tiered.iter().chain(configs).copied().collect();
        let configs: Vec<_> = configs.into_iter().collect();
        let topic_id = create_topic(&client, TOPIC, 2, &configs).await;
        World { ground, faults, node, client, topic_id }
    }

    pub async fn start_again(self, more: &str, plan: FaultPlan) -> World {
        self.node.stop().await;
        let (faults, node, client) = self.ground.broker(more, plan).await;
        World { faults, node, client, ..self }
    }

    /// One record, whose timestamp is its offset.
    pub async fn produce(&self, partition: i32, timestamp: i64) {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(timestamp, None, Some(&vec![b'v'; BATCH_BYTES]), &[]);
        self.produce_batch(partition, builder.build().unwrap()).await;
    }

    pub async fn produce_batch(&self, partition: i32, batch: Bytes) {
        let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch));
        let topic = TopicProduceData::default().with_topic_id(self.topic_id).with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let response = self.client.call(&request).await.unwrap();
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }

    pub fn offsets(&self, partition: i32) -> Offsets {
        self.node.context.partitions.by_name(TOPIC, partition).unwrap().offsets().unwrap()
    }

    pub async fn cold(&self, partition: i32) {
        wait_until("the first segments have left the disk", || self.offsets(partition).local_start >= 4)
            .await;
    }

    /// Fetches these partitions from these offsets on.
    pub async fn fetch(&self, from: &[(i32, i64)], max_wait_ms: i32) -> Vec<PartitionData> {
        let request = self.fetch_request(from, max_wait_ms);
        self.client.call(&request).await.unwrap().responses.remove(0).partitions
    }

    pub fn fetch_request(&self, from: &[(i32, i64)], max_wait_ms: i32) -> FetchRequest {
        let partitions = from.iter().map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(1 << 20)
        });
        let topic = FetchTopic::default().with_topic_id(self.topic_id).with_partitions(partitions.collect());
        FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic])
    }

    pub async fn list_offset(
        &self,
        partition: i32,
        timestamp: i64,
        timeout_ms: i32,
    ) -> ListOffsetsPartitionResponse {
        let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![asked]);
        let request = ListOffsetsRequest::default()
            .with_replica_id((-1).into())
            .with_timeout_ms(timeout_ms)
            .with_topics(vec![topic]);
        self.client.call(&request).await.unwrap().topics.remove(0).partitions.remove(0)
    }

    pub async fn alter(&self, configs: &[(&'static str, &'static str)]) {
        self.alter_resource(2, TOPIC, configs).await;
    }

    /// Sets dynamic configs of all brokers.
    pub async fn alter_broker(&self, configs: &[(&'static str, &'static str)]) {
        self.alter_resource(4, "", configs).await;
    }

    /// How long copies, and cold reads, have waited for their turn.
    pub fn throttled(&self) -> (Duration, Duration) {
        let tier = self.node.context.cold.tier().unwrap().metrics();
        (tier.copy_throttled, tier.fetch_throttled)
    }

    async fn alter_resource(&self, kind: i8, name: &'static str, configs: &[(&'static str, &'static str)]) {
        let config = |(name, value): &(&'static str, &'static str)| {
            AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(kind)
            .with_resource_name(StrBytes::from_static_str(name))
            .with_configs(configs.iter().map(config).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.client.call(&request).await.unwrap().responses.remove(0);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    }

    pub async fn delete_topic(&self) {
        let name = TopicName(StrBytes::from_static_str(TOPIC));
        let topic = DeleteTopicState::default().with_name(Some(name));
        let deleted =
            self.client.call(&DeleteTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        assert_eq!(deleted.responses[0].error_code, 0);
    }
}

pub async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

pub fn bytes(partition: &PartitionData) -> usize {
    partition.records.as_ref().map_or(0, Bytes::len)
}
