//! A whole broker in this process, on a disk that forgets what was not synced, met by a client over loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn::environment::Environment;
use firn::node::{Node, StartError};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;
use firn_model::properties;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::fetch_response::FetchResponse;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::produce_response::PartitionProduceResponse;
use firn_protocol::library::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, FetchRequest, FindCoordinatorRequest,
    InitProducerIdRequest, MetadataRequest, ProduceRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::{self, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_records::record::records;
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};
use uuid::Uuid;

const TOPIC: &str = "ledger";

/// A broker, a client of it, and the id of its one topic.
struct World {
    disk: SimulatedDisk,
    node: Node,
    client: Connection,
    topic_id: Uuid,
}

async fn try_start_on(disk: SimulatedDisk) -> Result<Node, StartError> {
    try_start_in("/data", disk).await
}

async fn try_start_in(log_dirs: &str, disk: SimulatedDisk) -> Result<Node, StartError> {
    let text = format!(
        "node.id=3\nlisteners=PLAINTEXT://127.0.0.1:0\nlog.dirs={log_dirs}\nfirn.http.port=-1\n\
         offsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\nfirn.disk.reserve.bytes=0\n"
    );
    let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
    assert_eq!(parsed.warnings, Vec::<String>::new());
    let environment = Environment { disk: Arc::new(disk), ..Environment::system() };
    Node::start(parsed.config, environment).await
}

async fn start_on(disk: SimulatedDisk) -> (Node, Connection) {
    let node = try_start_on(disk).await.unwrap();
    let address = node.addresses[0].to_string();
    let client = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
    (node, client)
}

impl World {
    async fn start() -> World {
        let disk = SimulatedDisk::new();
        let (node, client) = start_on(disk.clone()).await;
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let created = client.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        assert_eq!(created.topics[0].error_code, 0, "{:?}", created.topics[0].error_message);
        let topic_id = created.topics[0].topic_id;
        World { disk, node, client, topic_id }
    }

    /// The power goes and comes back; what was not synced may be gone.
    async fn after(self, cut: PowerCut) -> World {
        let disk = self.disk.after_power_cut(cut);
        let (node, client) = start_on(disk.clone()).await;
        World { disk, node, client, topic_id: self.topic_id }
    }

    async fn produce(&self, batch: Bytes) -> PartitionProduceResponse {
        let data = PartitionProduceData::default().with_index(0).with_records(Some(batch));
        let topic = TopicProduceData::default().with_topic_id(self.topic_id).with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let mut response = self.client.call(&request).await.unwrap();
        response.responses.remove(0).partition_responses.remove(0)
    }

    async fn fetch(&self, from: i64, session: (i32, i32), wait: Duration) -> FetchResponse {
        let partition = FetchPartition::default()
            .with_partition(0)
            .with_fetch_offset(from)
            .with_current_leader_epoch(-1)
            .with_partition_max_bytes(1 << 20);
        let topic = FetchTopic::default().with_topic_id(self.topic_id).with_partitions(vec![partition]);
        let request = FetchRequest::default()
            .with_max_wait_ms(wait.as_millis() as i32)
            .with_min_bytes(1)
            .with_max_bytes(1 << 20)
            .with_session_id(session.0)
            .with_session_epoch(session.1)
            .with_topics(if session.1 > 0 { Vec::new() } else { vec![topic] });
        self.client.call(&request).await.unwrap()
    }

    /// All values, by their offsets.
    async fn values(&self) -> Vec<(i64, String)> {
        let mut found = Vec::new();
        loop {
            let from = found.last().map_or(0, |(offset, _)| offset + 1);
            let response = self.fetch(from, (0, -1), Duration::ZERO).await;
            let partition = &response.responses[0].partitions[0];
            assert_eq!(partition.error_code, 0);
            let bytes = partition.records.clone().unwrap_or_default();
            if bytes.is_empty() {
                return found;
            }
            for batch in batch::batches(&bytes) {
                let (header, batch) = batch.unwrap();
                batch::verify_crc(batch).unwrap();
                for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
                    let record = record.unwrap();
                    let offset = header.base_offset + i64::from(record.offset_delta);
                    found.push((offset, String::from_utf8_lossy(record.value.unwrap()).into_owned()));
                }
            }
        }
    }
}

fn batch_of(producer: Producer, values: &[&str]) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    for value in values {
        builder.push(1_700_000_000_000, None, Some(value.as_bytes()), &[]);
    }
    builder.build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_a_power_cut_that_drops_all_else() {
    let mut world = World::start().await;
    let mut acknowledged = Vec::new();
    for round in 0..5 {
        for number in 0..10 {
            let value = format!("{round}-{number}");
            let done = world.produce(batch_of(Producer::NONE, &[&value])).await;
            assert_eq!(done.error_code, 0);
            acknowledged.push((done.base_offset, value));
        }
        let cut = if round % 2 == 0 { PowerCut::DropUnsynced } else { PowerCut::Some { seed: round } };
        world = world.after(cut).await;
        assert_eq!(world.values().await, acknowledged);
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_check_notices_a_disk_that_lies() {
    let world = World::start().await;
    world.disk.set_faults(Faults { sync_lies: true, ..Faults::default() });
    assert_eq!(world.produce(batch_of(Producer::NONE, &["lost"])).await.error_code, 0);
    let world = world.after(PowerCut::DropUnsynced).await;
    assert_eq!(world.values().await, []);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_is_never_acknowledged_and_ends_the_directory() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    // The append is the next operation, its sync the one after.
    let sync = world.disk.operations() + 2;
    world.disk.set_faults(Faults { io_error_at: Some(sync), ..Faults::default() });
    let storage_error = ResponseError::KafkaStorageError.code();
    assert_eq!(world.produce(batch_of(Producer::NONE, &["never"])).await.error_code, storage_error);
    world.disk.set_faults(Faults::default());
    let again = world.produce(batch_of(Producer::NONE, &["never either"])).await;
    assert_eq!(again.error_code, storage_error, "a failed sync is not retried");
    assert!(world.node.context.log_dirs.first().dir.failed().is_some());
    let world = world.after(PowerCut::DropUnsynced).await;
    assert_eq!(world.values().await, [(0, "kept".to_owned())]);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_reads_on_and_takes_writes_again() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["before"])).await.error_code, 0);
    let used: u64 = {
        let files = world.disk.files(Path::new("/data")).unwrap();
        files.iter().map(|file| world.disk.contents(file).map_or(0, |bytes| bytes.len() as u64)).sum()
    };
    world.disk.set_faults(Faults { capacity_bytes: Some(used), ..Faults::default() });
    let refused = world.produce(batch_of(Producer::NONE, &["no room"])).await;
    assert_eq!(refused.error_code, ResponseError::KafkaStorageError.code());
    assert_eq!(world.values().await, [(0, "before".to_owned())]);
    world.disk.set_faults(Faults::default());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(10);
    loop {
        let done = world.produce(batch_of(Producer::NONE, &["after"])).await;
        if done.error_code == 0 {
            assert_eq!(done.base_offset, 1);
            break;
        }
        assert!(tokio::time::Instant::now() < deadline, "writes are not taken again");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_that_is_sent_again_after_a_crash_keeps_its_offset() {
    let mut world = World::start().await;
    let given =
        world.client.call(&InitProducerIdRequest::default().with_transactional_id(None)).await.unwrap();
    assert_eq!(given.error_code, 0);
    let producer =
        |base_sequence| Producer { id: given.producer_id.0, epoch: given.producer_epoch, base_sequence };
    for _ in 0..2 {
        assert_eq!(world.produce(batch_of(producer(0), &["a", "b"])).await.base_offset, 0);
        assert_eq!(world.produce(batch_of(producer(2), &["c"])).await.base_offset, 2);
        world = world.after(PowerCut::KeepAll).await;
    }
    let gap = world.produce(batch_of(producer(9), &["gap"])).await;
    assert_eq!(gap.error_code, ResponseError::OutOfOrderSequenceNumber.code());
    let values: Vec<_> = world.values().await.into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, ["a", "b", "c"]);
    let again =
        world.client.call(&InitProducerIdRequest::default().with_transactional_id(None)).await.unwrap();
    assert!(again.producer_id.0 > given.producer_id.0, "an id is given once, restarts or not");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_fetch_wakes_for_what_is_committed() {
    let world = World::start().await;
    let began = tokio::time::Instant::now();
    let (fetched, done) = tokio::join!(world.fetch(0, (0, -1), Duration::from_secs(20)), async {
        let address = world.node.addresses[0].to_string();
        let other = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
        let data = PartitionProduceData::default().with_records(Some(batch_of(Producer::NONE, &["news"])));
        let topic = TopicProduceData::default().with_topic_id(world.topic_id).with_partition_data(vec![data]);
        let request =
            ProduceRequest::default().with_acks(1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        other.call(&request).await.unwrap()
    });
    assert_eq!(done.responses[0].partition_responses[0].error_code, 0);
    let partition = &fetched.responses[0].partitions[0];
    assert!(partition.records.as_ref().is_some_and(|bytes| !bytes.is_empty()));
    assert_eq!(partition.high_watermark, 1);
    assert!(began.elapsed() < Duration::from_secs(15), "it did not sleep to its end");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fetch_session_tells_only_what_is_new() {
    let world = World::start().await;
    let opened = world.fetch(0, (0, 0), Duration::ZERO).await;
    assert!(opened.session_id > 0);
    assert_eq!(opened.responses.len(), 1, "the first reply has every partition");
    let quiet = world.fetch(0, (opened.session_id, 1), Duration::ZERO).await;
    assert_eq!((quiet.session_id, quiet.responses.len()), (opened.session_id, 0));
    assert_eq!(world.produce(batch_of(Producer::NONE, &["news"])).await.error_code, 0);
    let news = world.fetch(0, (opened.session_id, 2), Duration::ZERO).await;
    assert_eq!(news.responses[0].partitions[0].high_watermark, 1);
    let skipped = world.fetch(0, (opened.session_id, 7), Duration::ZERO).await;
    assert_eq!(skipped.error_code, ResponseError::InvalidFetchSessionEpoch.code());
    let unknown = world.fetch(0, (opened.session_id + 1, 1), Duration::ZERO).await;
    assert_eq!(unknown.error_code, ResponseError::FetchSessionIdNotFound.code());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replies_come_in_the_order_of_the_requests() {
    let world = World::start().await;
    let client = &world.client;
    // The connection refuses replies out of order, so that all arrive is the proof.
    let metadata = MetadataRequest::default().with_topics(None);
    let produced = || world.produce(batch_of(Producer::NONE, &["one of many"]));
    let all = tokio::join!(
        produced(),
        produced(),
        client.call(&metadata),
        produced(),
        client.call(&metadata),
        produced()
    );
    let offsets = [all.0.base_offset, all.1.base_offset, all.3.base_offset, all.5.base_offset];
    assert_eq!(offsets, [0, 1, 2, 3]);
    assert_eq!(all.2.unwrap().brokers[0].node_id.0, 3);
    assert!(all.4.is_ok());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_under_load_takes_nothing_else_with_it() {
    let world = World::start().await;
    let name = || TopicName(StrBytes::from_static_str("fleeting"));
    for _ in 0..30 {
        let topic =
            CreatableTopic::default().with_name(name()).with_num_partitions(1).with_replication_factor(1);
        let created =
            world.client.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        let topic_id = created.topics[0].topic_id;
        assert_eq!(created.topics[0].error_code, 0, "{:?}", created.topics[0].error_message);
        let data = PartitionProduceData::default().with_records(Some(batch_of(Producer::NONE, &["going"])));
        let topic = TopicProduceData::default().with_topic_id(topic_id).with_partition_data(vec![data]);
        let produce =
            ProduceRequest::default().with_acks(-1).with_timeout_ms(10_000).with_topic_data(vec![topic]);
        let delete = DeleteTopicsRequest::default()
            .with_topics(vec![DeleteTopicState::default().with_name(Some(name()))]);
        let (produced, deleted) = tokio::join!(world.client.call(&produce), async {
            let address = world.node.addresses[0].to_string();
            let other = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
            other.call(&delete).await.unwrap()
        });
        assert!(produced.is_ok(), "it gets an answer, whichever came first");
        assert_eq!(deleted.responses[0].error_code, 0, "{:?}", deleted.responses[0].error_message);
        assert_eq!(world.node.context.log_dirs.first().dir.failed(), None);
    }
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_in_two_data_directories_is_refused_and_neither_is_touched() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    let disk = world.disk.clone();
    world.node.stop().await;
    drop(world.client);
    try_start_in("/data,/more", disk.clone()).await.unwrap().stop().await;
    disk.create_dir(Path::new("/more/ledger-0")).unwrap();
    let files = disk.files(Path::new("/data/ledger-0")).unwrap();
    for file in &files {
        let copy = Path::new("/more/ledger-0").join(file.file_name().unwrap());
        let bytes = disk.contents(file).unwrap();
        disk.open(&copy, OpenMode::Create).unwrap().write_vectored_at(&[IoSlice::new(&bytes)], 0).unwrap();
    }
    let refused = try_start_in("/data,/more", disk.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("/more/ledger-0") && refused.contains("/data/ledger-0"), "{refused}");
    assert_eq!(disk.files(Path::new("/data/ledger-0")).unwrap(), files);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_is_told_the_address_of_the_listener_it_came_in_by() {
    let text = "node.id=3\nlisteners=INTERNAL://127.0.0.1:0,EXTERNAL://127.0.0.1:0\n\
                listener.security.protocol.map=INTERNAL:PLAINTEXT,EXTERNAL:PLAINTEXT\n\
                advertised.listeners=EXTERNAL://localhost:0\ninter.broker.listener.name=INTERNAL\n\
                log.dirs=/data\nfirn.http.port=-1\noffsets.topic.num.partitions=1\nfirn.disk.reserve.bytes=0\n";
    let parsed = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap();
    let environment = Environment { disk: Arc::new(SimulatedDisk::new()), ..Environment::system() };
    let node = Node::start(parsed.config, environment).await.unwrap();
    for (address, host) in node.addresses.iter().zip(["127.0.0.1", "localhost"]) {
        let client = Connection::connect(&address.to_string(), ConnectionOptions::default()).await.unwrap();
        let expected = (host, i32::from(address.port()));
        let metadata = client.call(&MetadataRequest::default().with_topics(None)).await.unwrap();
        assert_eq!((metadata.brokers[0].host.as_str(), metadata.brokers[0].port), expected);
        let keys = vec![StrBytes::from_static_str("group")];
        let asked = FindCoordinatorRequest::default().with_coordinator_keys(keys);
        let found = client.call(&asked).await.unwrap();
        assert_eq!((found.coordinators[0].host.as_str(), found.coordinators[0].port), expected);
    }
    node.stop().await;
}

const DELETED_TOPIC: &str = "deleted";

/// What a client may do is told to who asks for it, as by a Kafka without an authorizer (KIP-430). The numbers are those
/// that Kafka 4.3.1 answers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_asks_is_told_what_may_be_done() {
    let world = World::start().await;
    let describe =
        |asked| DescribeClusterRequest::default().with_include_cluster_authorized_operations(asked);
    for (asked, operations) in [(true, 8096), (false, i32::MIN)] {
        let cluster = world.client.call(&describe(asked).with_endpoint_type(1)).await.unwrap();
        assert_eq!((cluster.error_code, cluster.brokers.len()), (0, 1));
        assert_eq!(cluster.cluster_authorized_operations, operations);
    }
    for (asked, operations) in [(true, 3576), (false, i32::MIN)] {
        let metadata = MetadataRequest::default().with_include_topic_authorized_operations(asked);
        let metadata = world.client.call(&metadata.with_topics(None)).await.unwrap();
        assert_eq!(metadata.topics[0].topic_authorized_operations, operations);
    }
    for (kind, error) in
        [(2, ResponseError::MismatchedEndpointType), (7, ResponseError::UnsupportedEndpointType)]
    {
        let refused = world.client.call(&describe(false).with_endpoint_type(kind)).await.unwrap();
        assert_eq!(refused.error_code, error.code(), "this is a listener of brokers");
    }
    world.node.stop().await;
}

async fn create(client: &Connection, name: &'static str) -> Uuid {
    let name = TopicName(StrBytes::from_static_str(name));
    let topic = CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
    let created = client.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
    assert_eq!(created.topics[0].error_code, 0, "{:?}", created.topics[0].error_message);
    created.topics[0].topic_id
}

async fn delete(client: &Connection, name: &'static str) -> i16 {
    let name = TopicName(StrBytes::from_static_str(name));
    let topic = DeleteTopicState::default().with_name(Some(name));
    let deleted = client.call(&DeleteTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
    deleted.responses[0].error_code
}

fn directories(disk: &SimulatedDisk) -> Vec<String> {
    let entries = disk.read_dir(Path::new("/data")).unwrap();
    entries.into_iter().filter(|entry| entry.is_dir).map(|entry| entry.name).collect()
}

/// Deletes a topic while the power goes at the operation of that number, as counted from the deletion's first. The world
/// before it and the number of operations that the deletion takes when nothing fails.
async fn deletion_cut_at(operation: Option<u64>) -> (World, u64) {
    let mut world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    let kept = world.topic_id;
    world.topic_id = create(&world.client, DELETED_TOPIC).await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["old", "older"])).await.error_code, 0);
    world.topic_id = kept;
    let before = world.disk.operations();
    let power_off_at = operation.map(|operation| before + operation);
    world.disk.set_faults(Faults { power_off_at, ..Faults::default() });
    let _answer = delete(&world.client, DELETED_TOPIC).await;
    let operations = world.disk.operations() - before;
    (world, operations)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_cut_short_anywhere_leaves_its_topics_name_free() {
    let (world, operations) = deletion_cut_at(None).await;
    world.node.stop().await;
    let (mut set_aside, mut undone) = (0, 0);
    for operation in 1..=operations {
        for cut in [PowerCut::DropUnsynced, PowerCut::KeepAll, PowerCut::Some { seed: operation }] {
            let world = deletion_cut_at(Some(operation)).await.0.after(cut).await;
            let strays = directories(&world.disk).iter().filter(|name| name.ends_with("-stray")).count();
            assert_eq!(world.node.context.log_dirs.strays(), strays);
            set_aside += strays;
            if world.node.context.controller.image().topic(DELETED_TOPIC).is_some() {
                undone += 1;
                assert_eq!(delete(&world.client, DELETED_TOPIC).await, 0, "operation {operation}, {cut:?}");
            }
            let new = World { topic_id: create(&world.client, DELETED_TOPIC).await, ..world };
            let done = new.produce(batch_of(Producer::NONE, &["new"])).await;
            assert_eq!(
                (done.error_code, done.base_offset),
                (0, 0),
                "operation {operation}, {cut:?}: {:?}",
                directories(&new.disk)
            );
            assert_eq!(new.values().await, [(0, "new".to_owned())]);
            // What was set aside is left alone by the next start, and the new topic is as it was.
            let again = new.after(PowerCut::DropUnsynced).await;
            assert_eq!(again.values().await, [(0, "new".to_owned())]);
            assert_eq!(again.node.context.log_dirs.strays(), strays);
            again.node.stop().await;
        }
    }
    assert!(set_aside > 0 && undone > 0, "{set_aside} set aside, {undone} undone: no cut fell in between");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namesake_of_another_topic_is_set_aside_with_all_its_bytes() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["treasure"])).await.error_code, 0);
    let disk = world.disk.clone();
    let log = Path::new("/data/ledger-0/00000000000000000000.log");
    let treasure = disk.contents(log).unwrap();
    world.node.stop().await;
    // As a deletion and a new creation leave it, when the power fails between the first's record and its rename.
    let identity = Path::new("/data/ledger-0/partition.metadata");
    let file = disk.open(identity, OpenMode::CreateEmpty).unwrap();
    let other = format!("version: 0\ntopic_id: {}", TopicId(Uuid::from_u128(77)));
    file.write_vectored_at(&[IoSlice::new(other.as_bytes())], 0).unwrap();
    let (node, client) = start_on(disk.clone()).await;
    let world = World { disk: disk.clone(), node, client, topic_id: world.topic_id };
    assert_eq!(world.values().await, [], "the partition is there, and empty");
    assert_eq!(world.produce(batch_of(Producer::NONE, &["new"])).await.base_offset, 0);
    let stray = directories(&disk).into_iter().find(|name| name.ends_with("-stray")).unwrap();
    assert!(stray.starts_with("ledger-0."), "{stray}");
    let kept = disk.contents(&Path::new("/data").join(stray).join("00000000000000000000.log")).unwrap();
    assert_eq!(kept, treasure);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_metadata_nothing_is_a_stray() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["kept"])).await.error_code, 0);
    let disk = world.disk.clone();
    world.node.stop().await;
    let metadata = Path::new("/data/__cluster_metadata-0");
    for file in disk.files(metadata).unwrap() {
        disk.remove_file(&file).unwrap();
    }
    disk.remove_file(Path::new("/data/recovery-point-offset-checkpoint")).unwrap();
    let meta_properties = Path::new("/data/meta.properties");
    for _ in 0..2 {
        let error = try_start_on(disk.clone()).await.unwrap_err().to_string();
        assert!(error.contains("ledger-0") && error.contains("no metadata"), "{error}");
    }
    disk.remove_file(meta_properties).unwrap();
    for _ in 0..2 {
        let error = try_start_on(disk.clone()).await.unwrap_err().to_string();
        assert!(error.contains("meta.properties"), "{error}");
    }
    assert!(directories(&disk).contains(&"ledger-0".to_owned()));
}
