//! Brokers in one process, one of which has a disk that fails: others lead what lay there, and nothing is lost.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::path::Path;
use std::sync::Arc;

use brokers::{Cluster, stop_all, wait_for};
use firn::node::{Node, Stopped};
use firn::registration::Ended;
use firn_client::connection::Connection;
use firn_storage::simulated::{Faults, Operation, PowerCut, SimulatedDisk};
use replicas::{TOPIC, produce_to, state_of};
use uuid::Uuid;

async fn produce(client: &Connection, topic: Uuid, partition: i32) -> i16 {
    produce_to(client, topic, partition, -1, "flake").await.error_code
}

/// From now on nothing can be synced below `path`.
fn fail(disk: &SimulatedDisk, path: &'static str) {
    let failing = move |disk: &SimulatedDisk, number, operation: Operation, on: &Path| {
        if on.starts_with(path) && matches!(operation, Operation::SyncData) {
            disk.set_faults(Faults { io_error_at: Some(number), ..disk.faults() });
        }
    };
    disk.set_probe(Some(Arc::new(failing)));
}

/// Until each broker has opened so many partitions of the topic.
async fn opened(nodes: &[Node], topic: &str, partitions: i32) {
    for node in nodes {
        let is_open = |index| node.context.partitions.by_name(topic, index).is_ok();
        wait_for("the topic's partitions", || (0..partitions).all(is_open).then_some(())).await;
    }
}

async fn in_sync(nodes: &[Node], topic: Uuid, partition: i32, ids: &[i32]) {
    let all_say = || {
        nodes.iter().all(|node| {
            state_of(node, topic, partition).is_some_and(|now| {
                let mut isr = now.isr.clone();
                isr.sort_unstable();
                isr == ids
            })
        })
    };
    wait_for("these in sync", || all_say().then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_whose_only_disk_fails_hands_over_and_ends() {
    let mut cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let configs = [("min.insync.replicas", "2")];
    let topic = topics::create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &configs).await;
    opened(&nodes, TOPIC, 1).await;
    let leads = state_of(&nodes[0], topic, 0).unwrap().leader as usize;
    let client = cluster.connect(leads).await;
    assert_eq!(produce(&client, topic, 0).await, 0);
    fail(&cluster.disks[leads], "/data");
    assert_ne!(produce(&client, topic, 0).await, 0);
    let Ended::DiskFailed { path, reason } = nodes[leads].ended().await else { panic!("another reason") };
    assert!(path == Path::new("/data") && !reason.is_empty(), "{path:?} {reason}");
    assert_eq!(nodes.remove(leads).stop().await, Stopped::Uncleanly);
    let others: Vec<i32> = (0..3).filter(|id| *id != leads as i32).collect();
    in_sync(&nodes, topic, 0, &others).await;
    let next = state_of(&nodes[0], topic, 0).unwrap().leader as usize;
    assert_eq!(produce(&cluster.connect(next).await, topic, 0).await, 0);
    // The disk works again, and has what it had synced.
    cluster.disks[leads] = cluster.disks[leads].after_power_cut(PowerCut::DropUnsynced);
    nodes.push(cluster.start(leads, &[0, 1, 2]).await.unwrap());
    in_sync(&nodes, topic, 0, &[0, 1, 2]).await;
    stop_all(nodes).await;
}

/// What lies on the other disk goes on as it was, and so does the broker.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_with_a_disk_left_hands_over_what_lay_on_the_other() {
    let mut cluster = Cluster::new(3);
    cluster.more = "log.dirs=/data,/more\n".to_owned();
    let nodes = cluster.start_all().await;
    let configs = [("min.insync.replicas", "2")];
    let topic = topics::create_replicated(&cluster.connect(0).await, TOPIC, 6, 3, &configs).await;
    opened(&nodes, TOPIC, 6).await;
    let on = |node: &Node, partition: i32| {
        let open = node.context.partitions.by_name(TOPIC, partition).unwrap();
        open.data_dir().dir.path().to_owned()
    };
    let led = |path: &str| {
        let leads = |partition: &i32| state_of(&nodes[0], topic, *partition).unwrap().leader == 1;
        (0..6).filter(leads).find(|partition| on(&nodes[1], *partition) == Path::new(path))
    };
    let (Some(fails), Some(stays)) = (led("/more"), led("/data")) else { panic!("both disks are led from") };
    let client = cluster.connect(1).await;
    for partition in [fails, stays] {
        assert_eq!(produce(&client, topic, partition).await, 0);
    }
    fail(&cluster.disks[1], "/more");
    assert_ne!(produce(&client, topic, fails).await, 0);
    in_sync(&nodes, topic, fails, &[0, 2]).await;
    let next = state_of(&nodes[0], topic, fails).unwrap().leader as usize;
    assert_eq!(produce(&cluster.connect(next).await, topic, fails).await, 0);
    assert_eq!(produce(&client, topic, stays).await, 0);
    assert_eq!(state_of(&nodes[0], topic, stays).unwrap().leader, 1);
    // What comes now goes where a disk works.
    let more = topics::create_replicated(&client, "more", 2, 3, &configs).await;
    opened(&nodes, "more", 2).await;
    for partition in 0..2 {
        in_sync(&nodes, more, partition, &[0, 1, 2]).await;
        let open = nodes[1].context.partitions.by_name("more", partition).unwrap();
        assert_eq!(open.data_dir().dir.path(), Path::new("/data"));
    }
    cluster.disks[1].set_probe(None);
    futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
}
