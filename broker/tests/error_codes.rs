//! What a client is told that asks for what makes little sense: the codes are those of Apache Kafka 4.3.1.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared by several suites")]
mod world;

use std::sync::Arc;
use std::time::Duration;

use firn_client::connection::Connection;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::describe_configs_request::DescribeConfigsResource;
use firn_protocol::library::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use firn_protocol::library::messages::fetch_request::{FetchPartition, ForgottenTopic};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use firn_protocol::library::messages::{
    BrokerId, DeleteTopicsRequest, DescribeConfigsRequest, DescribeTopicPartitionsRequest, FetchRequest,
    FindCoordinatorRequest, GroupId, InitProducerIdRequest, ListOffsetsRequest, OffsetCommitRequest,
    OffsetDeleteRequest, ProducerId, SyncGroupRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::Producer;
use tokio::time::Instant;

use world::{TOPIC, World, batch_of, delete};

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

fn topic(name: &'static str) -> TopicName {
    TopicName(text(name))
}

/// Waits long enough for what may happen meanwhile.
fn fetch_of(world: &World, partition: FetchPartition) -> FetchRequest {
    world.fetch_request(vec![partition], Duration::from_secs(10))
}

async fn fetched(client: &Connection, request: &FetchRequest) -> PartitionData {
    client.call(request).await.unwrap().responses.remove(0).partitions.remove(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_producers() {
    let world = World::start().await;
    let sends = |epoch| batch_of(Producer { id: 7, epoch, base_sequence: 0 }, &["snow"]);
    assert_eq!(world.produce(sends(-1)).await.error_code, ResponseError::InvalidProducerEpoch.code());
    assert_eq!(world.produce(sends(0)).await.error_code, 0);

    for (id, epoch, expected) in [
        (-1, -1, 0),
        (7, 0, 0),
        (7, -1, ResponseError::InvalidRequest.code()),
        (-1, 0, ResponseError::InvalidRequest.code()),
    ] {
        let request = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(id))
            .with_producer_epoch(epoch);
        let given = world.client.call(&request).await.unwrap();
        assert_eq!(given.error_code, expected, "id {id} with epoch {epoch}");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_topics() {
    let world = World::start().await;
    let (invalid, unknown, never) = (
        ResponseError::InvalidRequest.code(),
        ResponseError::UnknownTopicOrPartition.code(),
        ResponseError::InvalidTopicException.code(),
    );
    let request = DescribeTopicPartitionsRequest::default()
        .with_topics(["nobody", "no/body"].map(|name| TopicRequest::default().with_name(topic(name))).into());
    let mut codes: Vec<_> = world.client.call(&request).await.unwrap().topics;
    codes.sort_by_key(|topic| topic.name.clone());
    assert_eq!(codes.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [never, unknown]);
    let before_the_first = Cursor::default().with_topic_name(topic(TOPIC)).with_partition_index(-1);
    let request = request.with_cursor(Some(before_the_first));
    let refused = world.client.call(&request).await.unwrap().topics;
    assert_eq!(refused.iter().map(|topic| topic.error_code).collect::<Vec<_>>(), [invalid, invalid]);

    let resource =
        |name| DescribeConfigsResource::default().with_resource_type(2).with_resource_name(text(name));
    let request =
        DescribeConfigsRequest::default().with_resources(["nobody", "no/body"].map(resource).into());
    let described = world.client.call(&request).await.unwrap().results;
    assert_eq!(described.iter().map(|one| one.error_code).collect::<Vec<_>>(), [unknown, never]);

    let twice = vec![DeleteTopicState::default().with_name(Some(topic(TOPIC))); 2];
    let deleted = world.client.call(&DeleteTopicsRequest::default().with_topics(twice)).await.unwrap();
    assert_eq!(deleted.responses.iter().map(|one| one.error_code).collect::<Vec<_>>(), [invalid]);
    assert_eq!(delete(&world.client, TOPIC).await, 0, "it was still there");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_offsets_that_are_listed_twice() {
    let world = World::start().await;
    let asked = |indexes: &[i32]| {
        let partition =
            |index: &i32| ListOffsetsPartition::default().with_partition_index(*index).with_timestamp(-1);
        let partitions = indexes.iter().map(partition).collect();
        let topic = ListOffsetsTopic::default().with_name(topic(TOPIC)).with_partitions(partitions);
        ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic])
    };
    for (indexes, expected) in [
        (&[0][..], vec![0]),
        (&[0, 0], vec![ResponseError::InvalidRequest.code(); 2]),
        (&[0, 5], vec![0, ResponseError::UnknownTopicOrPartition.code()]),
    ] {
        let listed = world.client.call(&asked(indexes)).await.unwrap().topics.remove(0).partitions;
        assert_eq!(listed.iter().map(|one| one.error_code).collect::<Vec<_>>(), expected);
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_groups() {
    let world = World::start().await;
    // The first question makes the topic of the groups, and loading it may take a moment.
    let find = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("nobody")]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while world.client.call(&find).await.unwrap().coordinators[0].error_code != 0 {
        assert!(Instant::now() < deadline, "no coordinator");
    }
    let commit = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("nobody")))
        .with_generation_id_or_member_epoch(3)
        .with_member_id(text("somebody"))
        .with_topics(vec![
            OffsetCommitRequestTopic::default()
                .with_name(topic(TOPIC))
                .with_topic_id(world.topic_id)
                .with_partitions(vec![OffsetCommitRequestPartition::default().with_committed_offset(1)]),
        ]);
    let committed = loop {
        let committed = world.client.call(&commit).await.unwrap().topics.remove(0).partitions.remove(0);
        if committed.error_code != ResponseError::CoordinatorLoadInProgress.code() {
            break committed;
        }
        assert!(Instant::now() < deadline, "the coordinator does not load");
    };
    assert_eq!(committed.error_code, ResponseError::GroupIdNotFound.code());

    let sync = SyncGroupRequest::default()
        .with_group_id(GroupId(text("nobody")))
        .with_member_id(text("somebody"))
        .with_protocol_type(None)
        .with_protocol_name(Some(text("range")));
    let synced = world.client.call(&sync).await.unwrap();
    assert_eq!(synced.error_code, ResponseError::InconsistentGroupProtocol.code());

    // A simple consumer's commit makes a group without members.
    let simple = commit.clone().with_generation_id_or_member_epoch(-1).with_member_id(StrBytes::default());
    assert_eq!(world.client.call(&simple).await.unwrap().topics[0].partitions[0].error_code, 0);
    let delete = |group: &'static str| {
        let topics = [(TOPIC, 0), (TOPIC, 9), ("nowhere", 0)].map(|(name, index)| {
            let partition = OffsetDeleteRequestPartition::default().with_partition_index(index);
            OffsetDeleteRequestTopic::default().with_name(topic(name)).with_partitions(vec![partition])
        });
        OffsetDeleteRequest::default().with_group_id(GroupId(text(group))).with_topics(topics.into())
    };
    let refused = world.client.call(&delete("")).await.unwrap();
    assert_eq!((refused.error_code, refused.topics.len()), (ResponseError::InvalidGroupId.code(), 0));
    let deleted = world.client.call(&delete("nobody")).await.unwrap();
    let codes = deleted.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|one| (topic.name.to_string(), one.partition_index, one.error_code))
    });
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let expected = [(TOPIC, 0, 0), (TOPIC, 9, unknown), ("nowhere", 0, unknown)];
    assert_eq!(codes.collect::<Vec<_>>(), expected.map(|(name, index, code)| (name.to_owned(), index, code)));
    world.node.stop().await;
}

/// The client says of which epoch its last record is: a log of another history says where they part (KIP-595).
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_history_that_is_not_the_logs() {
    let world = World::start().await;
    assert_eq!(world.produce(batch_of(Producer::NONE, &["snow", "ice"])).await.error_code, 0);
    let ours = fetched(&world.client, &fetch_of(&world, FetchPartition::default())).await;
    let epoch = ours.current_leader.leader_epoch.max(0);
    let after = |offset, epoch| {
        let partition = FetchPartition::default().with_fetch_offset(offset).with_last_fetched_epoch(epoch);
        fetch_of(&world, partition.with_current_leader_epoch(-1))
    };
    let same = fetched(&world.client, &after(1, epoch)).await;
    assert_eq!((same.error_code, same.diverging_epoch.end_offset), (0, -1));
    assert!(same.records.is_some_and(|records| !records.is_empty()));
    let longer = fetched(&world.client, &after(5, epoch)).await;
    assert_eq!((longer.error_code, longer.diverging_epoch.epoch), (0, epoch));
    assert_eq!(longer.diverging_epoch.end_offset, 2);
    let newer = fetched(&world.client, &after(1, epoch + 1)).await;
    assert_eq!(newer.error_code, ResponseError::OffsetOutOfRange.code());
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_topic_that_is_deleted_while_its_records_are_waited_for() {
    let world = World::start().await;
    let (reader, other) = (world.connect().await, world.connect().await);
    let request = fetch_of(&world, FetchPartition::default().with_current_leader_epoch(-1));
    let partition = world.node.context.partitions.by_name(TOPIC, 0).unwrap();
    let unread = Arc::strong_count(&partition);
    let waiting = fetched(&reader, &request);
    let deleting = async {
        // A fetch that waits holds the partition.
        let deadline = Instant::now() + Duration::from_secs(20);
        while Arc::strong_count(&partition) == unread {
            tokio::task::yield_now().await;
            assert!(Instant::now() < deadline, "the fetch never came");
        }
        delete(&other, TOPIC).await
    };
    let (read, deleted) = tokio::join!(waiting, deleting);
    assert_eq!((read.error_code, deleted), (ResponseError::UnknownTopicOrPartition.code(), 0));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_fetch_session_that_has_forgotten_everything() {
    let world = World::start().await;
    let open = fetch_of(&world, FetchPartition::default().with_current_leader_epoch(-1));
    let opened = world.client.call(&open.with_session_epoch(0).with_max_wait_ms(0)).await.unwrap();
    assert_ne!(opened.session_id, 0);
    let forgotten = ForgottenTopic::default().with_topic_id(world.topic_id).with_partitions(vec![0]);
    let next = |epoch| {
        FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_session_id(opened.session_id)
            .with_session_epoch(epoch)
    };
    let emptied = world.client.call(&next(1).with_forgotten_topics_data(vec![forgotten])).await.unwrap();
    assert_eq!((emptied.error_code, emptied.session_id), (0, 0), "it has ended");
    let after = world.client.call(&next(2)).await.unwrap();
    assert_eq!(after.error_code, ResponseError::FetchSessionIdNotFound.code());
    world.node.stop().await;
}
