//! Brokers in one process, each on a disk of its own, that form a cluster: founded once, joined, left and come back to.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod topics;

use std::path::Path;

use brokers::{Cluster, controller, stop_all, wait_for};
use firn::node::{Node, Stopped};
use firn_client::connection::Connection;
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::describe_quorum_request::{PartitionData, TopicData};
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::{
    DeleteTopicsRequest, DescribeQuorumRequest, FindCoordinatorRequest, InitProducerIdRequest,
    MetadataRequest, ProducerId, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::disk::Disk;
use firn_storage::simulated::SimulatedDisk;
use topics::create_topic;

const METADATA: &str = "/data/__cluster_metadata-0";

/// Broker ids and directories of those with a vote.
fn voters(node: &Node) -> Option<Vec<(i32, String)>> {
    let members = node.context.controller.members()?;
    assert_eq!(members.observers, [], "nobody is left without a vote");
    Some(
        members.voters.into_iter().map(|known| (known.member.broker_id, known.member.directory_id)).collect(),
    )
}

fn directory(node: &Node) -> String {
    node.context.log_dirs.first().dir.identity().directory_id.clone()
}

/// The topic, as a broker answers for it: the leaders of its partitions.
async fn leaders(client: &Connection, topic: &'static str) -> Vec<i32> {
    let asked = MetadataRequestTopic::default().with_name(Some(TopicName(StrBytes::from_static_str(topic))));
    let request =
        MetadataRequest::default().with_topics(Some(vec![asked])).with_allow_auto_topic_creation(false);
    let told = client.call(&request).await.unwrap();
    told.topics[0].partitions.iter().map(|partition| partition.leader_id.0).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_broker_answers_for_the_cluster() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let leads = controller(&nodes).await;
    let cluster_id = &nodes[0].context.cluster_id;
    assert!(nodes.iter().all(|node| node.context.cluster_id == *cluster_id));
    wait_for("three votes", || voters(&nodes[leads]).filter(|voters| voters.len() == 3)).await;
    for id in 0..3 {
        let client = cluster.connect(id).await;
        let topic = ["one", "two", "three"][id];
        create_topic(&client, topic, 3, &[]).await;
        // What it was told of, it knows.
        let mut led = leaders(&client, topic).await;
        led.sort_unstable();
        assert_eq!(led, [0, 1, 2], "each leads one");

        let quorum = TopicData::default()
            .with_topic_name(TopicName(StrBytes::from_static_str("__cluster_metadata")))
            .with_partitions(vec![PartitionData::default()]);
        let quorum = client.call(&DescribeQuorumRequest::default().with_topics(vec![quorum])).await.unwrap();
        let quorum = &quorum.topics[0].partitions[0];
        assert_eq!((quorum.error_code, quorum.leader_id.0), (0, leads as i32));
        assert_eq!(quorum.current_voters.len(), 3);

        let wanted = InitProducerIdRequest::default()
            .with_transactional_id(None)
            .with_producer_id(ProducerId(-1))
            .with_producer_epoch(-1);
        let given = client.call(&wanted).await.unwrap();
        assert_eq!(given.error_code, 0);

        let keys = ["a", "b", "c", "d", "e", "f"].map(StrBytes::from_static_str).to_vec();
        let find = FindCoordinatorRequest::default().with_coordinator_keys(keys);
        let found = client.call(&find).await.unwrap().coordinators;
        assert!(found.iter().all(|found| found.error_code == 0), "{found:?}");
        let offsets = leaders(&client, "__consumer_offsets").await;
        assert!(found.iter().all(|found| offsets.contains(&found.node_id.0)), "{found:?} {offsets:?}");

        let topic = DeleteTopicState::default().with_name(Some(TopicName(StrBytes::from_static_str(topic))));
        let deleted = client.call(&DeleteTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        assert_eq!(deleted.responses[0].error_code, 0);
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_that_stops_hands_its_part_over() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let leads = controller(&nodes).await;
    wait_for("three votes", || voters(&nodes[leads]).filter(|voters| voters.len() == 3)).await;
    let old = nodes.remove(leads);
    let term = old.context.controller.progress().term;
    assert_eq!(old.stop().await, Stopped::Cleanly);
    // Nobody had to find out by waiting: by then it has heard of another.
    let heir = controller(&nodes).await;
    assert!(nodes[heir].context.controller.progress().term > term);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_on_another_disk_takes_the_place_of_the_one_before() {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    create_topic(&cluster.connect(0).await, "kept", 3, &[]).await;
    let wiped = (controller(&nodes).await + 1) % 3;
    let before = directory(&nodes[wiped]);
    nodes.remove(wiped).stop().await;
    cluster.disks[wiped] = SimulatedDisk::new();
    let node = cluster.start(wiped, &[0, 1, 2]).await.unwrap();
    let after = directory(&node);
    assert_ne!(before, after);
    assert!(node.context.controller.image().topic("kept").is_some());
    let leads = controller(&nodes).await;
    let is_right = |voters: &Vec<(i32, String)>| {
        voters.len() == 3
            && voters.contains(&(wiped as i32, after.clone()))
            && !voters.contains(&(wiped as i32, before.clone()))
    };
    wait_for("its vote", || voters(&nodes[leads]).filter(is_right)).await;
    nodes.push(node);
    stop_all(nodes).await;
}

/// With its log it has lost its votes: as the same member it could elect who lacks what was agreed on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_has_lost_its_metadata_alone_is_another_member() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    create_topic(&cluster.connect(0).await, "kept", 3, &[]).await;
    let robbed = (controller(&nodes).await + 1) % 3;
    let before = directory(&nodes[robbed]);
    nodes.remove(robbed).stop().await;
    let disk = &cluster.disks[robbed];
    for file in disk.files(Path::new(METADATA)).unwrap() {
        disk.remove_file(&file).unwrap();
    }
    // Otherwise the log is known to have been longer, and nothing starts.
    disk.remove_file(Path::new("/data/recovery-point-offset-checkpoint")).unwrap();
    let node = cluster.start(robbed, &[0, 1, 2]).await.unwrap();
    assert_ne!(directory(&node), before);
    assert!(
        node.context.led("kept", 0).is_ok()
            || node.context.led("kept", 1).is_ok()
            || node.context.led("kept", 2).is_ok()
    );
    nodes.push(node);
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_alone_is_joined_by_others() {
    let cluster = Cluster::new(3);
    let alone = cluster.start(0, &[0]).await.unwrap();
    create_topic(&cluster.connect(0).await, "old", 1, &[]).await;
    let cluster_id = alone.context.cluster_id.clone();
    assert_eq!(alone.stop().await, Stopped::Cleanly);
    let nodes = cluster.start_all().await;
    for node in &nodes {
        assert_eq!(node.context.cluster_id, cluster_id);
        assert!(node.context.controller.image().topic("old").is_some());
    }
    let leads = controller(&nodes).await;
    wait_for("three votes", || voters(&nodes[leads]).filter(|voters| voters.len() == 3)).await;
    stop_all(nodes).await;
    // Alone, it could agree to nothing.
    let error = cluster.start(1, &[1]).await.unwrap_err().to_string();
    assert!(error.contains("controller.quorum.voters") && error.contains("[0, 2]"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_clusters_do_not_become_one() {
    let cluster = Cluster::new(2);
    for id in 0..2 {
        cluster.start(id, &[id]).await.unwrap().stop().await;
    }
    // The first that sees it says so.
    let refused = tokio::select! {
        refused = cluster.start(0, &[0, 1]) => refused,
        refused = cluster.start(1, &[0, 1]) => refused,
    };
    let error = refused.unwrap_err().to_string();
    assert!(error.contains("not of one cluster"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_majority_is_enough_to_go_on_and_to_come_back() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    create_topic(&cluster.connect(0).await, "kept", 3, &[]).await;
    nodes.pop().unwrap().stop().await;
    controller(&nodes).await;
    create_topic(&cluster.connect(0).await, "later", 1, &[]).await;
    stop_all(nodes).await;
    // All listed, and one stays away.
    let (one, other) = tokio::join!(cluster.start(0, &[0, 1, 2]), cluster.start(1, &[0, 1, 2]));
    let mut nodes = vec![one.unwrap(), other.unwrap()];
    controller(&nodes).await;
    nodes.push(cluster.start(2, &[0, 1, 2]).await.unwrap());
    for node in &nodes {
        let knows = || {
            let image = node.context.controller.image();
            (image.topic("kept").is_some() && image.topic("later").is_some()).then_some(())
        };
        wait_for("both topics", knows).await;
    }
    stop_all(nodes).await;
}
