//! What groups are told, and what becomes of them, while the disk keeps the broker waiting.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod held_disk;
mod topics;

use std::sync::Arc;
use std::time::Duration;

use firn::environment::Environment;
use firn::node::Node;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::join_group_request::JoinGroupRequestProtocol;
use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use firn_protocol::library::messages::{
    DeleteTopicsRequest, DescribeGroupsRequest, FindCoordinatorRequest, GroupId, JoinGroupRequest,
    OffsetCommitRequest, OffsetFetchRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::simulated::PowerCut;
use held_disk::{Held, HeldDisk};
use tokio::time::Instant;
use topics::create_topic;

const DEADLINE: Duration = Duration::from_secs(10);

fn text(text: &'static str) -> StrBytes {
    StrBytes::from_static_str(text)
}

async fn start(disk: &HeldDisk, settings: &str) -> (Node, Connection) {
    let common =
        "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n";
    let properties = properties::parse(&format!("{common}{settings}")).unwrap();
    let parsed = BrokerConfig::from_properties(&properties).unwrap();
    let environment = Environment { disk: Arc::new(disk.clone()), ..Environment::system() };
    let node = Node::start(parsed.config, environment).await.unwrap();
    let client = connect(&node).await;
    (node, client)
}

async fn connect(node: &Node) -> Connection {
    Connection::connect(&node.addresses[0].to_string(), ConnectionOptions::default()).await.unwrap()
}

/// Makes the topic that groups commit offsets of, and the one that holds them.
async fn make_topics(client: &Connection) {
    create_topic(client, "t", 1, &[]).await;
    let coordinator = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")]);
    client.call(&coordinator).await.unwrap();
}

/// The error code of one commit.
async fn commit(client: &Connection, group: &'static str, offset: i64) -> i16 {
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(offset);
    let topic =
        OffsetCommitRequestTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    client.call(&request).await.unwrap().topics[0].partitions[0].error_code
}

/// Joins as a member who will never be heard of again.
async fn join(client: &Connection, group: &'static str, session: Duration) {
    let session_ms = i32::try_from(session.as_millis()).unwrap();
    let protocol = JoinGroupRequestProtocol::default().with_name(text("range"));
    let request = JoinGroupRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_session_timeout_ms(session_ms)
        .with_rebalance_timeout_ms(session_ms)
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol]);
    let named = client.call(&request).await.unwrap();
    assert_eq!(named.error_code, ResponseError::MemberIdRequired.code());
    let joined = client.call(&request.with_member_id(named.member_id)).await.unwrap();
    assert_eq!(joined.error_code, 0);
}

async fn state(client: &Connection, group: &'static str) -> String {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    client.call(&request).await.unwrap().groups[0].group_state.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_takes_too_long_is_to_be_tried_again() {
    let disk = HeldDisk::new();
    let settings = "offsets.topic.num.partitions=1\noffsets.commit.timeout.ms=200\n";
    let (node, client) = start(&disk, settings).await;
    make_topics(&client).await;
    assert_eq!(commit(&client, "g", 1).await, 0);

    let held = disk.hold(Held::SyncsIn("__consumer_offsets-0"));
    let late = tokio::time::timeout(DEADLINE, commit(&client, "g", 2)).await;
    assert_eq!(late.expect("within the timeout"), ResponseError::CoordinatorNotAvailable.code());

    drop(held);
    let deadline = Instant::now() + DEADLINE;
    while commit(&client, "g", 3).await != 0 {
        assert!(Instant::now() < deadline, "commits are taken again");
    }
    node.stop().await;
}

/// The offset that a group has committed; -1 is none.
async fn committed(client: &Connection, group: &'static str) -> i64 {
    let topics =
        OffsetFetchRequestTopics::default().with_name(TopicName(text("t"))).with_partition_indexes(vec![0]);
    let wanted = OffsetFetchRequestGroup::default()
        .with_group_id(GroupId(text(group)))
        .with_topics(Some(vec![topics]));
    let fetched = client.call(&OffsetFetchRequest::default().with_groups(vec![wanted])).await.unwrap();
    fetched.groups[0].topics[0].partitions[0].committed_offset
}

async fn delete(client: &Connection, timeout_ms: i32) -> i16 {
    let topic = DeleteTopicState::default().with_name(Some(TopicName(text("t"))));
    let request = DeleteTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(timeout_ms);
    client.call(&request).await.unwrap().responses[0].error_code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deletion_is_answered_once_the_groups_have_forgotten_the_topic() {
    let disk = HeldDisk::new();
    let (node, client) = start(&disk, "offsets.topic.num.partitions=1\n").await;
    make_topics(&client).await;
    assert_eq!(commit(&client, "g", 7).await, 0);
    assert_eq!(committed(&client, "g").await, 7);

    let held = disk.hold(Held::SyncsIn("__consumer_offsets-0"));
    let other = connect(&node).await;
    let deletion = tokio::spawn(async move { delete(&other, 30_000).await });
    let deadline = Instant::now() + DEADLINE;
    while disk.waiting() == 0 {
        assert!(Instant::now() < deadline, "nothing is stored");
        tokio::task::yield_now().await;
    }
    assert!(!deletion.is_finished());
    drop(held);
    assert_eq!(deletion.await.unwrap(), 0);
    assert_eq!(committed(&client, "g").await, -1);
    node.stop().await;
}

/// A deletion that did not wait, and one that a crash cut short before any group had heard of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_of_a_deleted_topic_are_not_those_of_the_next_one_of_its_name() {
    let disk = HeldDisk::new();
    let settings = "offsets.topic.num.partitions=1\n";
    let (node, client) = start(&disk, settings).await;
    make_topics(&client).await;
    assert_eq!(commit(&client, "g", 7).await, 0);
    let held = disk.hold(Held::SyncsIn("__consumer_offsets-0"));
    assert_eq!(delete(&client, 0).await, 0);
    assert_eq!(committed(&client, "g").await, -1, "though no tombstone is stored");
    create_topic(&client, "t", 1, &[]).await;
    assert_eq!(committed(&client, "g").await, -1);

    let crashed = disk.after_power_cut(PowerCut::DropUnsynced);
    let (survivor, other) = start(&crashed, settings).await;
    assert_eq!(committed(&other, "g").await, -1, "the log still has the offset, and no tombstone");
    assert_eq!(commit(&other, "g", 2).await, 0);
    assert_eq!(committed(&other, "g").await, 2);
    survivor.stop().await;
    drop(held);
    node.stop().await;
}

/// Groups of one partition of `__consumer_offsets` are being loaded, from a disk that hangs. The silent member of a
/// group of another has to go all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn groups_that_are_being_loaded_hold_up_no_timer_of_others() {
    let disk = HeldDisk::new();
    let settings = "offsets.topic.num.partitions=2\ngroup.min.session.timeout.ms=100\n\
                    group.initial.rebalance.delay.ms=0\n";
    let (node, client) = start(&disk, settings).await;
    make_topics(&client).await;
    // By Java's hash the one is in partition 1 and the other in partition 0.
    for group in ["g", "h"] {
        assert_eq!(commit(&client, group, 1).await, 0);
    }
    node.stop().await;

    let (node, client) = start(&disk, settings).await;
    let held = disk.hold(Held::ReadsIn("__consumer_offsets-0"));
    let other = connect(&node).await;
    let loading = tokio::spawn(async move { commit(&other, "h", 2).await });
    let deadline = Instant::now() + DEADLINE;
    while disk.waiting() == 0 {
        assert!(Instant::now() < deadline, "nothing is read");
        tokio::task::yield_now().await;
    }
    join(&client, "g", Duration::from_millis(100)).await;
    while state(&client, "g").await != "Empty" {
        assert!(Instant::now() < deadline, "the silent member is still there");
    }
    assert!(!loading.is_finished());
    drop(held);
    assert_eq!(loading.await.unwrap(), 0);
    node.stop().await;
}
