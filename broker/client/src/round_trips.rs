//! Round trips with a scripted broker: what is asked, what answers become, and which refusals are asked again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use firn_protocol::library::messages::describe_configs_response::{
    DescribeConfigsResourceResult, DescribeConfigsResult, DescribeConfigsSynonym,
};
use firn_protocol::library::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use firn_protocol::library::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use firn_protocol::library::messages::find_coordinator_response::Coordinator;
use firn_protocol::library::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use firn_protocol::library::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use firn_protocol::library::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use firn_protocol::library::messages::{
    ApiKey, BrokerId, DeleteRecordsResponse, DescribeConfigsResponse, DescribeTopicPartitionsRequest,
    DescribeTopicPartitionsResponse, FetchRequest, FetchResponse, FindCoordinatorResponse,
    ListOffsetsResponse, MetadataResponse, OffsetDeleteResponse, TopicName,
};
use uuid::Uuid;

use crate::cluster::Cluster;
use crate::configs::{self, Resource};
use crate::connection::ConnectionOptions;
use crate::consumer::{Consumer, Start};
use crate::error::Error;
use crate::groups;
use crate::scripted::{Call, listen};
use crate::topics::{self, text};

const APIS: &[ApiKey] = &[
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::Fetch,
    ApiKey::ListOffsets,
    ApiKey::DeleteRecords,
    ApiKey::DescribeConfigs,
    ApiKey::DescribeTopicPartitions,
    ApiKey::OffsetDelete,
];
const TOPIC_ID: Uuid = Uuid::from_u128(7);

fn topic_name() -> TopicName {
    TopicName(text("t"))
}

/// A cluster of one broker with topic `t` of two partitions, and for all else what `script` says.
async fn cluster(mut script: impl FnMut(&Call) -> Option<BytesMut> + Send + 'static) -> Arc<Cluster> {
    let address = listen(APIS, |address| {
        let (host, port) = address.rsplit_once(':').unwrap();
        let (host, port): (_, i32) = (text(host), port.parse().unwrap());
        let broker = MetadataResponseBroker::default().with_host(host.clone()).with_port(port);
        let partition = |index| {
            MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(0))
        };
        let topic = MetadataResponseTopic::default()
            .with_name(Some(topic_name()))
            .with_topic_id(TOPIC_ID)
            .with_partitions(vec![partition(0), partition(1)]);
        let metadata = MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic]);
        Box::new(move |call| match call.api {
            ApiKey::Metadata => script(call).or_else(|| call.reply(&metadata)),
            ApiKey::FindCoordinator => {
                let found = Coordinator::default().with_host(host.clone()).with_port(port);
                call.reply(&FindCoordinatorResponse::default().with_coordinators(vec![found]))
            }
            _ => script(call),
        })
    });
    Arc::new(Cluster::new(vec![address.await], ConnectionOptions::default()))
}

#[tokio::test]
async fn a_topic_that_is_not_there_is_not_waited_for_unless_it_may_be_created() {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let cluster = cluster(move |call| {
        let missing = MetadataResponseTopic::default().with_error_code(3);
        let first = count.fetch_add(1, Ordering::SeqCst) < 2;
        first.then(|| call.reply(&MetadataResponse::default().with_topics(vec![missing])))?
    });
    let cluster = cluster.await;
    let error = cluster.find("t", false).await.unwrap_err();
    assert!(error.is(ResponseError::UnknownTopicOrPartition), "{error}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    assert_eq!(cluster.find("t", true).await.unwrap().leaders.len(), 2);
    assert_eq!(asked.load(Ordering::SeqCst), 3);
}

/// Partition 0 has lost its records before offset 6; 1 is whole and has nothing new.
fn half_lost(call: &Call) -> Option<BytesMut> {
    match call.api {
        ApiKey::ListOffsets => {
            let found = |index, offset| {
                ListOffsetsPartitionResponse::default().with_partition_index(index).with_offset(offset)
            };
            let topic = ListOffsetsTopicResponse::default()
                .with_name(topic_name())
                .with_partitions(vec![found(0, 6), found(1, 0)]);
            call.reply(&ListOffsetsResponse::default().with_topics(vec![topic]))
        }
        ApiKey::Fetch => {
            let request: FetchRequest = call.request();
            let partitions = request.topics[0].partitions.iter().map(|wanted| {
                let lost = wanted.partition == 0 && wanted.fetch_offset < 6;
                PartitionData::default().with_partition_index(wanted.partition).with_error_code(if lost {
                    ResponseError::OffsetOutOfRange.code()
                } else {
                    0
                })
            });
            let topic = FetchableTopicResponse::default()
                .with_topic_id(TOPIC_ID)
                .with_partitions(partitions.collect());
            call.reply(&FetchResponse::default().with_responses(vec![topic]))
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_reader_goes_on_where_records_are_left_unless_it_named_an_offset() {
    let cluster = cluster(half_lost).await;
    let route = cluster.find("t", false).await.unwrap();
    let behind = BTreeMap::from([(0, 2), (1, 0)]);
    let mut reader = Consumer::at(Arc::clone(&cluster), route, behind, Start::Earliest);
    assert_eq!(reader.poll(Duration::ZERO).await.unwrap(), []);
    assert_eq!(reader.positions(), &BTreeMap::from([(0, 6), (1, 0)]));

    let mut strict = Consumer::open(cluster, "t", Some(&[0]), Start::Offset(2)).await.unwrap();
    let error = strict.poll(Duration::ZERO).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot read topic t, partitions [0]: the partition does not hold that offset (OffsetOutOfRange)"
    );
}

#[tokio::test]
async fn records_are_deleted_in_some_partitions_and_not_in_others() {
    let cluster = cluster(|call| {
        let result = |index, code, first| {
            DeleteRecordsPartitionResult::default()
                .with_partition_index(index)
                .with_error_code(code)
                .with_low_watermark(first)
        };
        let topic = DeleteRecordsTopicResult::default()
            .with_name(topic_name())
            .with_partitions(vec![result(0, 0, 4), result(1, 1, -1)]);
        (call.api == ApiKey::DeleteRecords)
            .then(|| call.reply(&DeleteRecordsResponse::default().with_topics(vec![topic])))?
    });
    let before = BTreeMap::from([(0, 4), (1, 900), (7, 1)]);
    let ended = topics::delete_records(&*cluster.await, "t", &before).await.unwrap();
    assert!(matches!(ended.get(&0), Some(Ok(4))), "{ended:?}");
    let refused = |index, error| ended.get(&index).unwrap().as_ref().unwrap_err().is(error);
    assert!(refused(1, ResponseError::OffsetOutOfRange), "{ended:?}");
    assert!(refused(7, ResponseError::UnknownTopicOrPartition), "{ended:?}");
}

/// Describes one partition in each reply, up to `last`, or the first one for ever.
fn paged(call: &Call, last: i32, forward: bool) -> Option<BytesMut> {
    if call.api != ApiKey::DescribeTopicPartitions {
        return None;
    }
    let request: DescribeTopicPartitionsRequest = call.request();
    let index = request.cursor.filter(|_| forward).map_or(0, |cursor| cursor.partition_index);
    let partition = DescribeTopicPartitionsResponsePartition::default()
        .with_partition_index(index)
        .with_eligible_leader_replicas(Some(vec![BrokerId(2)]))
        .with_last_known_elr(None);
    let topic = DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(topic_name()))
        .with_partitions(vec![partition]);
    let next = Cursor::default().with_topic_name(topic_name()).with_partition_index(index + 1);
    let reply = DescribeTopicPartitionsResponse::default().with_topics(vec![topic]);
    call.reply(&reply.with_next_cursor((index < last).then_some(next)))
}

#[tokio::test]
async fn descriptions_come_in_pages_and_end_where_a_broker_repeats_itself() {
    let names = ["t".to_owned()];
    let whole = cluster(|call| paged(call, 2, true)).await;
    let found = topics::describe_in_full(&whole.any().await.unwrap(), &names).await.unwrap();
    let partitions = &found.first().unwrap().partitions;
    assert_eq!(partitions.iter().map(|partition| partition.index).collect::<Vec<_>>(), [0, 1, 2]);
    let first = partitions.first().unwrap();
    assert_eq!((first.eligible.as_deref(), first.last_eligible.as_deref()), (Some(&[2][..]), Some(&[][..])));

    let stuck = cluster(|call| paged(call, 2, false)).await;
    let error = topics::describe_in_full(&stuck.any().await.unwrap(), &names).await.unwrap_err();
    assert!(error.to_string().contains("repeats itself"), "{error}");
}

#[tokio::test]
async fn configs_tell_where_their_values_come_from() {
    let cluster = cluster(|call| {
        let synonym = DescribeConfigsSynonym::default()
            .with_name(text("log.retention.ms"))
            .with_value(Some(text("9")))
            .with_source(5);
        let config = DescribeConfigsResourceResult::default()
            .with_name(text("retention.ms"))
            .with_value(Some(text("5")))
            .with_config_source(1)
            .with_synonyms(vec![synonym]);
        let result = DescribeConfigsResult::default()
            .with_resource_type(2)
            .with_resource_name(text("t"))
            .with_configs(vec![config]);
        (call.api == ApiKey::DescribeConfigs)
            .then(|| call.reply(&DescribeConfigsResponse::default().with_results(vec![result])))?
    });
    let cluster = cluster.await;
    let resources = ["t", "other"].map(|name| Resource::Topic(name.to_owned()));
    let found = configs::describe_all(&cluster.any().await.unwrap(), &resources).await.unwrap();
    let [ours, others] = &found[..] else { panic!("{found:?}") };
    assert_eq!((ours.len(), others.len()), (1, 0), "answers go to whom they name");
    let config = ours.first().unwrap();
    assert_eq!((config.value.as_deref(), config.source), (Some("5"), "DYNAMIC_TOPIC_CONFIG"));
    assert_eq!(config.synonyms.first().unwrap().source, "DEFAULT_CONFIG");
}

#[tokio::test]
async fn offsets_are_deleted_one_by_one() {
    let cluster = cluster(|call| {
        let result = |index, code| {
            OffsetDeleteResponsePartition::default().with_partition_index(index).with_error_code(code)
        };
        let subscribed = ResponseError::GroupSubscribedToTopic.code();
        let topic = OffsetDeleteResponseTopic::default()
            .with_name(topic_name())
            .with_partitions(vec![result(0, 0), result(1, subscribed)]);
        (call.api == ApiKey::OffsetDelete)
            .then(|| call.reply(&OffsetDeleteResponse::default().with_topics(vec![topic])))?
    });
    let places = [("t".to_owned(), 0), ("t".to_owned(), 1)];
    let ended = groups::delete_offsets(&*cluster.await, "g", &places).await.unwrap();
    let [first, second] = &ended.values().collect::<Vec<_>>()[..] else { panic!("{ended:?}") };
    assert!(first.is_ok());
    assert!(
        matches!(second, Err(error @ Error::Refused { .. }) if error.is(ResponseError::GroupSubscribedToTopic))
    );
}
