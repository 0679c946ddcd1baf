//! Brokers that follow the metadata without a vote, and votes that are given and taken while the cluster runs.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;
mod votes;

use std::collections::BTreeSet;

use brokers::{Cluster, controller, free_ports, stop_all, wait_for};
use firn::node::{Node, Stopped};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_protocol::library::messages::{BrokerId, RemoveRaftVoterRequest, UnregisterBrokerRequest};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::simulated::SimulatedDisk;
use replicas::{TOPIC, leader, produce, state};
use topics::create_replicated;
use uuid::Uuid;
use votes::{directory, give, members, set, take_vote};

const VOTERS: [usize; 3] = [0, 1, 2];

/// Three that vote, and two that observe.
async fn start() -> (Cluster, Vec<Node>) {
    let cluster = Cluster::new(5);
    let nodes = cluster.start_listed(&VOTERS).await;
    (cluster, nodes)
}

fn take(nodes: &mut Vec<Node>, id: i32) -> Node {
    let at = nodes.iter().position(|node| node.context.node_id == id).unwrap();
    nodes.remove(at)
}

async fn write(cluster: &Cluster, nodes: &[Node], topic: Uuid, value: &str) {
    let leads = nodes[leader(nodes, topic).await].context.node_id;
    let address = nodes.iter().find(|node| node.context.node_id == leads).unwrap().addresses[0].to_string();
    let client = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
    let told = produce(&client, topic, -1, value).await;
    assert_eq!(told.error_code, 0, "{:?} {}", told.error_message, cluster.port(0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_not_listed_observes_and_does_all_else() {
    let (cluster, mut nodes) = start().await;
    members(&nodes, set([0, 1, 2]), set([3, 4])).await;
    let client = cluster.connect(4).await;
    let topic = create_replicated(&client, TOPIC, 1, 5, &[("min.insync.replicas", "3")]).await;
    write(&cluster, &nodes, topic, "one").await;
    wait_for("all in sync", || state(&nodes[3], topic).filter(|now| now.isr.len() == 5)).await;
    // Both observers lead in the end, since nobody else is left that could, and a majority of the voters is.
    for id in [0, 3] {
        assert_eq!(take(&mut nodes, id).stop().await, Stopped::Cleanly);
    }
    write(&cluster, &nodes, topic, "two").await;
    // One of them comes back elsewhere.
    let port = free_ports(1)[0];
    nodes.push(cluster.start_at(3, &VOTERS, port, &cluster.disks[3]).await.unwrap());
    wait_for("it is in sync", || state(&nodes[0], topic).filter(|now| now.isr.contains(&3))).await;
    members(&nodes, set([0, 1, 2]), set([3, 4])).await;
    // Now its number is taken.
    let twin = cluster.start_at(3, &VOTERS, free_ports(1)[0], &SimulatedDisk::new()).await;
    let error = twin.err().unwrap().to_string();
    assert!(error.contains(&format!("broker 3 runs at 127.0.0.1:{port}")), "{error}");
    assert!(error.contains("another process") && error.contains("node.id"), "{error}");
    write(&cluster, &nodes, topic, "three").await;
    nodes.push(cluster.start(0, &VOTERS).await.unwrap());
    stop_all(nodes).await;
}

/// Its file names brokers that are gone for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_has_shrunk_to_one_starts_again() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    for id in [2, 1] {
        let of_it = directory(nodes.iter().find(|node| node.context.node_id == id).unwrap());
        assert_eq!(take_vote(&client, id, of_it).await, (0, String::new()));
        members(&nodes, (0..id).collect(), set([id])).await;
        assert_eq!(take(&mut nodes, id).stop().await, Stopped::Cleanly);
        let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(id));
        assert_eq!(client.call(&request).await.unwrap().error_code, 0);
        members(&nodes, (0..id).collect(), set([])).await;
    }
    assert_eq!(take(&mut nodes, 0).stop().await, Stopped::Cleanly);
    nodes.push(cluster.start(0, &VOTERS).await.unwrap());
    members(&nodes, set([0]), set([])).await;
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn votes_are_given_and_taken_while_the_cluster_runs() {
    let (cluster, mut nodes) = start().await;
    let client = cluster.connect(4).await;
    let (third, fourth) = (directory(&nodes[3]), directory(&nodes[4]));
    assert_eq!(give(&client, 3, third).await, (0, String::new()));
    members(&nodes, set([0, 1, 2, 3]), set([4])).await;
    for ((broker, directory), code, says) in [
        ((3, third), 126, "has a vote already"),
        ((4, third), 127, "start it first"),
        ((7, fourth), 127, "7"),
    ] {
        let (told, message) = give(&client, broker, directory).await;
        assert!(told == code && message.contains(says), "{told} {message}");
    }
    // The controller itself loses its vote, and goes on without.
    let leads = nodes[controller(&nodes).await].context.node_id;
    let of_it = directory(nodes.iter().find(|node| node.context.node_id == leads).unwrap());
    let topic = create_replicated(&client, TOPIC, 1, 5, &[("min.insync.replicas", "3")]).await;
    assert_eq!(take_vote(&client, leads, of_it).await, (0, String::new()));
    let left = set([0, 1, 2, 3]).into_iter().filter(|id| *id != leads).collect::<BTreeSet<i32>>();
    members(&nodes, left.clone(), set([leads, 4])).await;
    write(&cluster, &nodes, topic, "one").await;
    let (told, message) = take_vote(&client, leads, of_it).await;
    assert!(told == 127 && message.contains("has no vote"), "{told} {message}");
    // It is listed in every file, and asks for no vote all the same when it comes back. One that is not listed keeps its own.
    for id in [leads, 3] {
        assert_eq!(take(&mut nodes, id).stop().await, Stopped::Cleanly);
        nodes.push(cluster.start(id as usize, &VOTERS).await.unwrap());
    }
    wait_for("all in sync", || state(&nodes[0], topic).filter(|now| now.isr.len() == 5)).await;
    members(&nodes, left.clone(), set([leads, 4])).await;
    // The last one stays.
    let client = cluster.connect(4).await;
    let mut left: Vec<i32> = left.into_iter().collect();
    while left.len() > 1 {
        let id = left.pop().unwrap();
        let of_it = directory(nodes.iter().find(|node| node.context.node_id == id).unwrap());
        assert_eq!(take_vote(&client, id, of_it).await, (0, String::new()), "{id}");
    }
    let of_it = directory(nodes.iter().find(|node| node.context.node_id == left[0]).unwrap());
    let (told, message) = take_vote(&client, left[0], of_it).await;
    assert!(told == 42 && message.contains("the only one"), "{told} {message}");
    let other = RemoveRaftVoterRequest::default()
        .with_cluster_id(Some(StrBytes::from_static_str("another")))
        .with_voter_id(left[0])
        .with_voter_directory_id(of_it);
    assert_eq!(client.call(&other).await.unwrap().error_code, 104);
    write(&cluster, &nodes, topic, "two").await;
    stop_all(nodes).await;
}
