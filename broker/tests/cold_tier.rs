//! A whole broker in this process over an object store that hangs, is away, or has more than it should.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn::environment::Environment;
use firn::node::{Node, StartError};
use firn::partition::Offsets;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
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
    CreateTopicsRequest, DeleteTopicsRequest, FetchRequest, IncrementalAlterConfigsRequest,
    ListOffsetsRequest, ProduceRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::error::StorageError;
use firn_storage::simulated::SimulatedDisk;
use firn_tiering::faults::{FaultPlan, FaultyStore};
use firn_tiering::options::TierOptions;
use firn_tiering::store::Store;
use firn_tiering::tier::Tier;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::time::Instant;
use uuid::Uuid;

const TOPIC: &str = "history";
const DEADLINE: Duration = Duration::from_secs(30);
/// Bytes of a batch; two fill a segment.
const BATCH_BYTES: usize = 600_000;
const BATCHES: i64 = 6;

/// What outlives a broker.
#[derive(Clone)]
struct Ground {
    disk: SimulatedDisk,
    store: Store,
}

struct World {
    ground: Ground,
    faults: FaultyStore,
    node: Node,
    client: Connection,
    topic_id: Uuid,
}

/// Starts a broker as soon as the one before has let go of its directory: a segment that it was uploading is let go of
/// when its last read returns.
async fn start_once_unlocked(
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
    fn new() -> Self {
        Self { disk: SimulatedDisk::new(), store: Store::memory() }
    }

    fn config(more: &str) -> BrokerConfig {
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

    fn environment(&self) -> Environment {
        Environment { disk: Arc::new(self.disk.clone()), ..Environment::system() }
    }

    async fn broker(&self, more: &str, plan: FaultPlan) -> (FaultyStore, Node, Connection) {
        let config = Self::config(more);
        let (faults, store) = FaultyStore::wrap(self.store.clone(), 1, plan);
        let options = TierOptions {
            attempt_timeout: Duration::from_millis(300),
            call_deadline: Duration::from_secs(20),
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
    async fn segments(&self) -> Vec<String> {
        use futures_util::TryStreamExt;
        let all: Vec<_> = self.store.objects.list(None).try_collect().await.unwrap();
        let keys = all.into_iter().map(|meta| meta.location.to_string());
        keys.filter(|key| key.ends_with(".seg")).collect()
    }
}

impl World {
    /// A topic of two partitions, of which only the newest segments stay on the disk, and records in both.
    async fn start(more: &str, plan: FaultPlan) -> World {
        let ground = Ground::new();
        let (faults, node, client) = ground.broker(more, plan).await;
        let config = |(name, value): (&'static str, &'static str)| {
            CreatableTopicConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
        };
        let configs = [
            ("remote.storage.enable", "true"),
            ("segment.bytes", "1048576"),
            ("local.retention.bytes", "1"),
            ("retention.ms", "-1"),
        ];
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_num_partitions(2)
            .with_replication_factor(1)
            .with_configs(configs.into_iter().map(config).collect());
        let created = client.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        assert_eq!(created.topics[0].error_code, 0, "{:?}", created.topics[0].error_message);
        let topic_id = created.topics[0].topic_id;
        let world = World { ground, faults, node, client, topic_id };
        for partition in 0..2 {
            for number in 0..BATCHES {
                world.produce(partition, number).await;
            }
        }
        world
    }

    async fn start_again(self, more: &str, plan: FaultPlan) -> World {
        self.node.stop().await;
        let (faults, node, client) = self.ground.broker(more, plan).await;
        World { faults, node, client, ..self }
    }

    /// One record, whose timestamp is its offset.
    async fn produce(&self, partition: i32, timestamp: i64) {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(timestamp, None, Some(&vec![b'v'; BATCH_BYTES]), &[]);
        let data = PartitionProduceData::default()
            .with_index(partition)
            .with_records(Some(builder.build().unwrap()));
        let topic = TopicProduceData::default().with_topic_id(self.topic_id).with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let response = self.client.call(&request).await.unwrap();
        assert_eq!(response.responses[0].partition_responses[0].error_code, 0);
    }

    fn offsets(&self, partition: i32) -> Offsets {
        self.node.context.partitions.by_name(TOPIC, partition).unwrap().offsets().unwrap()
    }

    async fn cold(&self, partition: i32) {
        wait_until("the first segments have left the disk", || self.offsets(partition).local_start >= 4)
            .await;
    }

    /// Fetches these partitions from these offsets on.
    async fn fetch(&self, from: &[(i32, i64)], max_wait_ms: i32) -> Vec<PartitionData> {
        let partitions = from.iter().map(|(partition, offset)| {
            FetchPartition::default()
                .with_partition(*partition)
                .with_fetch_offset(*offset)
                .with_current_leader_epoch(-1)
                .with_partition_max_bytes(1 << 20)
        });
        let topic = FetchTopic::default().with_topic_id(self.topic_id).with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_max_wait_ms(max_wait_ms)
            .with_min_bytes(1)
            .with_max_bytes(50 << 20)
            .with_session_epoch(-1)
            .with_topics(vec![topic]);
        self.client.call(&request).await.unwrap().responses.remove(0).partitions
    }

    async fn list_offset(
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

    async fn alter(&self, configs: &[(&'static str, &'static str)]) {
        let config = |(name, value): &(&'static str, &'static str)| {
            AlterableConfig::default()
                .with_name(StrBytes::from_static_str(name))
                .with_value(Some(StrBytes::from_static_str(value)))
        };
        let resource = AlterConfigsResource::default()
            .with_resource_type(2)
            .with_resource_name(StrBytes::from_static_str(TOPIC))
            .with_configs(configs.iter().map(config).collect());
        let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
        let answer = self.client.call(&request).await.unwrap().responses.remove(0);
        assert_eq!(answer.error_code, 0, "{:?}", answer.error_message);
    }

    async fn delete_topic(&self) {
        let name = TopicName(StrBytes::from_static_str(TOPIC));
        let topic = DeleteTopicState::default().with_name(Some(name));
        let deleted =
            self.client.call(&DeleteTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        assert_eq!(deleted.responses[0].error_code, 0);
    }
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn bytes(partition: &PartitionData) -> usize {
    partition.records.as_ref().map_or(0, Bytes::len)
}

const HUNG: FaultPlan = FaultPlan { hung: Some("/0/"), ..FaultPlan::NONE };

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_whose_uploads_hang_holds_up_no_other() {
    let world = World::start("", HUNG).await;
    world.cold(1).await;
    assert_eq!(world.offsets(0).local_start, 0);
    world.faults.set_plan(FaultPlan::NONE);
    world.cold(0).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hot_records_do_not_wait_for_cold_ones() {
    let world = World::start("remote.fetch.max.wait.ms=300\n", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let world = world.start_again("remote.fetch.max.wait.ms=10000\n", HUNG).await;
    let began = Instant::now();
    let fetched = world.fetch(&[(0, 0), (1, BATCHES - 1)], 10_000).await;
    assert!(began.elapsed() < Duration::from_secs(5), "it waited for the store");
    assert_eq!((fetched[0].error_code, bytes(&fetched[0])), (0, 0), "nothing yet, and no error");
    assert!(bytes(&fetched[1]) > BATCH_BYTES);
    assert_eq!(fetched[0].high_watermark, BATCHES);

    // The read is still under way: it needs no other request to reach its end once the store is back.
    world.faults.set_plan(FaultPlan::NONE);
    let fetched = world.fetch(&[(0, 0)], 10_000).await;
    assert!(bytes(&fetched[0]) > BATCH_BYTES);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cold_fetch_ends_when_its_wait_is_over_and_too_many_are_refused() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    let few =
        "remote.fetch.max.wait.ms=50\nremote.log.reader.threads=1\nremote.log.reader.max.pending.tasks=1\n";
    let world = world.start_again(few, HUNG).await;
    for (offset, expected) in [(0, 0), (1, 0), (0, 0), (2, ResponseError::KafkaStorageError.code())] {
        let began = Instant::now();
        let fetched = world.fetch(&[(0, offset)], 20_000).await;
        assert_eq!((fetched[0].error_code, bytes(&fetched[0])), (expected, 0), "at offset {offset}");
        assert!(began.elapsed() < Duration::from_secs(10), "remote.fetch.max.wait.ms is 50");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_a_timestamp_up_gives_up_when_the_client_says_or_the_config() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    assert_eq!(world.list_offset(0, 1, 0).await.offset, 1);
    let world = world.start_again("remote.list.offsets.request.timeout.ms=50\n", HUNG).await;
    for timeout_ms in [0, 60] {
        let began = Instant::now();
        let found = world.list_offset(0, 1, timeout_ms).await;
        assert_eq!(found.error_code, ResponseError::RequestTimedOut.code());
        assert!(began.elapsed() < Duration::from_secs(10));
    }
    let latest = world.list_offset(0, -1, 0).await;
    assert_eq!((latest.error_code, latest.offset), (0, BATCHES), "what needs no store gets its answer");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_records_with_the_greatest_timestamp_the_first_is_found_hot_or_cold() {
    let world = World::start("", FaultPlan::NONE).await;
    for _ in 0..BATCHES {
        world.produce(0, BATCHES).await;
    }
    let first = BATCHES;
    wait_until("the first of them is cold", || world.offsets(0).local_start > first).await;
    let found = world.list_offset(0, -3, 0).await;
    assert_eq!((found.offset, found.timestamp), (first, BATCHES));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_a_deleted_topic_go_though_the_store_was_away_and_the_broker_stopped() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let stranger = Path::from(format!("{}.txt", world.ground.segments().await[0]));
    world.ground.store.objects.put(&stranger, PutPayload::from_static(b"not Firn's")).await.unwrap();
    world.faults.set_plan(FaultPlan { outage: true, ..FaultPlan::NONE });
    world.delete_topic().await;
    let world = world.start_again("", FaultPlan { outage: true, ..FaultPlan::NONE }).await;
    assert!(!world.ground.segments().await.is_empty(), "the store was away");
    assert_eq!(world.node.context.controller.image().remote_deletes().count(), 1);

    world.faults.set_plan(FaultPlan::NONE);
    let marked = || world.node.context.controller.image().remote_deletes().count();
    wait_until("the deletion is over", || marked() == 0).await;
    assert_eq!(world.ground.segments().await, Vec::<String>::new());
    assert!(world.ground.store.objects.head(&stranger).await.is_ok(), "what is not ours stays");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_tiered_no_more_keeps_its_cold_records_or_loses_them_as_it_is_told() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.alter(&[("remote.storage.enable", "false")]).await;
    assert!(bytes(&world.fetch(&[(0, 0)], 1_000).await[0]) > BATCH_BYTES, "they stay readable");

    world.alter(&[("remote.log.delete.on.disable", "true")]).await;
    wait_until("the log begins where the disk does", || {
        let offsets = world.offsets(0);
        offsets.log_start == offsets.local_start && offsets.log_start > 0
    })
    .await;
    let deadline = Instant::now() + DEADLINE;
    while !world.ground.segments().await.is_empty() {
        assert!(Instant::now() < deadline, "the objects stay");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let start = world.offsets(0).log_start;
    let fetched = world.fetch(&[(0, 0)], 0).await;
    assert_eq!(fetched[0].error_code, ResponseError::OffsetOutOfRange.code());
    assert_eq!(world.list_offset(0, -5, 0).await.offset, -1, "nothing is tiered");

    // Switched on again while the store is away: nothing may leave the disk on the word of what was there once.
    world.faults.set_plan(FaultPlan { outage: true, ..FaultPlan::NONE });
    world.alter(&[("remote.storage.enable", "true")]).await;
    for number in 0..BATCHES {
        world.produce(0, BATCHES + number).await;
    }
    world.node.context.partitions.by_name(TOPIC, 0).unwrap().retain(i64::MAX / 2).unwrap();
    assert_eq!(world.offsets(0).local_start, start);
    world.faults.set_plan(FaultPlan::NONE);
    wait_until("it is cold again", || world.offsets(0).local_start > start).await;
    assert!(bytes(&world.fetch(&[(0, start)], 1_000).await[0]) > BATCH_BYTES);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_without_the_store_is_refused_and_costs_no_record() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.cold(1).await;
    let (ground, topic_id) = (world.ground.clone(), world.topic_id);
    let objects = ground.segments().await;
    world.node.stop().await;
    let started = start_once_unlocked(&Ground::config(""), ground.environment(), None).await;
    let refused = started.unwrap_err();
    assert!(matches!(&refused, StartError::NoStore { first, count: 1 } if first == TOPIC), "{refused}");
    let (faults, node, client) = ground.broker("", FaultPlan::NONE).await;
    let world = World { ground, faults, node, client, topic_id };
    assert!(bytes(&world.fetch(&[(0, 0)], 10_000).await[0]) > BATCH_BYTES);
    assert_eq!(world.ground.segments().await, objects);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_copying_is_disabled_retention_goes_on() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    world.alter(&[("remote.log.copy.disable", "true"), ("local.retention.bytes", "-2")]).await;
    for _ in 0..BATCHES {
        world.produce(0, 1).await;
    }
    assert_eq!(world.offsets(0).log_start, 0);
    world.alter(&[("retention.bytes", "1000000")]).await;
    wait_until("the log start has followed the retention", || world.offsets(0).log_start > BATCHES).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_tiered_is_known_after_a_restart_before_anything_is_uploaded() {
    let world = World::start("", FaultPlan::NONE).await;
    world.cold(0).await;
    let world = world.start_again("", HUNG).await;
    let local_start = world.offsets(0).local_start;
    assert_eq!(world.list_offset(0, -4, 0).await.offset, local_start, "where the disk begins");
    assert_eq!(world.list_offset(0, -5, 0).await.offset, local_start - 1, "the last that the store has");
    world.node.stop().await;
}
