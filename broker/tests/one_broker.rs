//! A whole broker in this process, on a disk that forgets what was not synced, met by a client over loopback.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared by several suites")]
mod world;

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::Node;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::describe_configs_request::DescribeConfigsResource;
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::offset_fetch_request::OffsetFetchRequestGroup;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{
    CreateTopicsRequest, DeleteTopicsRequest, DescribeClusterRequest, FindCoordinatorRequest,
    InitProducerIdRequest, MetadataRequest, ProduceRequest, TopicName,
};
use firn_protocol::library::messages::{
    DescribeConfigsRequest, DescribeGroupsRequest, GroupId, OffsetFetchRequest,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::Producer;
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};

use world::{TOPIC, World, batch_of, create, produce_to, try_start_in, used_bytes};

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
    world.disk.set_faults(Faults { sync_lies: Some(""), ..Faults::default() });
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

/// Too many files are open: what needs another one fails, and nothing is broken.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn running_out_of_files_stops_no_directory() {
    let world = World::start_with("log.flush.offset.checkpoint.interval.ms=1\n").await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["before", "and"])).await.error_code, 0);
    world.disk.set_faults(Faults { out_of_files: true, ..Faults::default() });
    let partition = world.node.context.partitions.by_name(TOPIC, 0).unwrap();
    assert!(partition.with_log(|log| log.delete_records_before(1)).unwrap().is_err());
    assert!(world.node.context.log_dirs.first().dir.checkpoint().is_err());
    assert!(partition.retain(i64::MAX / 2).is_err());
    // What a flush needs to open it cannot, and who waits for it is told.
    partition.with_log(|log| log.start_epoch(1)).unwrap();
    let unflushed = world.produce(batch_of(Producer::NONE, &["unflushed"])).await;
    assert_eq!(unflushed.error_code, ResponseError::KafkaStorageError.code());
    let missing = TopicName(StrBytes::from_static_str("missing"));
    let topic =
        CreatableTopic::default().with_name(missing).with_num_partitions(1).with_replication_factor(1);
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    world.client.call(&request).await.unwrap();
    world.disk.set_faults(Faults::default());
    assert_eq!(world.node.context.log_dirs.first().dir.failed(), None);
    assert_eq!(world.produce(batch_of(Producer::NONE, &["after"])).await.error_code, 0);
    assert_eq!(world.values().await.len(), 4, "what was not acknowledged may be there");
    create(&world.client, "later").await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_reads_on_and_takes_writes_again() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["before"])).await.error_code, 0);
    let capacity_bytes = Some(used_bytes(&world.disk));
    world.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
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
        let other = world.connect().await;
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
            let other = world.connect().await;
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

/// A request may name a thing as often as it likes: the reply has it once, and stays as small as what is named.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_named_again_and_again_is_answered_once() {
    let world = World::start().await;
    let named = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(TOPIC))));
    let metadata = MetadataRequest::default().with_topics(Some(vec![named; 5_000]));
    assert_eq!(world.client.call(&metadata).await.unwrap().topics.len(), 1);
    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str(TOPIC));
    let describe = DescribeConfigsRequest::default().with_resources(vec![resource; 5_000]);
    assert_eq!(world.client.call(&describe).await.unwrap().results.len(), 1);
    let group = GroupId(StrBytes::from_static_str("readers"));
    let describe = DescribeGroupsRequest::default().with_groups(vec![group.clone(); 5_000]);
    assert_eq!(world.client.call(&describe).await.unwrap().groups.len(), 1);
    let all = OffsetFetchRequestGroup::default().with_group_id(group).with_topics(None);
    let fetch = OffsetFetchRequest::default().with_groups(vec![all; 5_000]);
    assert_eq!(world.client.call(&fetch).await.unwrap().groups.len(), 1);
    world.node.stop().await;
}

/// Somebody else has filled the disk. Topics that cannot be made are refused, those that were made by then get their logs
/// once there is room, and changes of the metadata go on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_that_a_full_disk_refused_are_made_when_there_is_room() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["before"])).await.error_code, 0);
    let try_to_create = async |name: String| {
        let name = TopicName(StrBytes::from_string(name));
        let topic =
            CreatableTopic::default().with_name(name).with_num_partitions(1).with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        world.client.call(&request).await.unwrap().topics.remove(0)
    };
    // Room for nothing, for the record of the change, for a part of what its log needs, for all of it.
    let mut made = Vec::new();
    for number in 0..60 {
        world.disk.set_faults(Faults::default());
        let capacity_bytes = Some(used_bytes(&world.disk) + number * 10);
        world.disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
        let created = try_to_create(format!("t{number}")).await;
        if created.error_code == 0 {
            made.push(created.topic_id);
        } else {
            assert_eq!(created.error_code, ResponseError::KafkaStorageError.code());
        }
    }
    assert!((1..60).contains(&made.len()), "{} were made", made.len());
    world.disk.set_faults(Faults::default());
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    made.push(loop {
        let created = try_to_create("after".to_owned()).await;
        if created.error_code == 0 {
            break created.topic_id;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "metadata cannot be changed: {:?}",
            created.error_message
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    });
    for topic_id in made {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
        while produce_to(&world.client, topic_id, &[0], batch_of(Producer::NONE, &["after"])).await != [0] {
            assert!(tokio::time::Instant::now() < deadline, "a topic that was made cannot be written to");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    world.node.stop().await;
}
