//! Brokers in one process, one of which has no room on its disk any more: others decide and lead in its place, until it has some.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use brokers::{Cluster, controller, stop_all, wait_for, wait_for_answer};
use firn::node::Node;
use firn::registration::takes_records;
use firn_storage::disk::Disk;
use firn_storage::simulated::{Faults, SimulatedDisk};
use replicas::{TOPIC, produce_to, state_of};
use uuid::Uuid;

const PARTITIONS: i32 = 3;

fn has_room(disk: &SimulatedDisk, has_room: bool) {
    disk.set_faults(Faults { capacity_bytes: (!has_room).then_some(0), ..Faults::default() });
}

async fn three() -> (Cluster, Vec<Node>, Uuid) {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let topic = create(&cluster).await;
    (cluster, nodes, topic)
}

async fn create(cluster: &Cluster) -> Uuid {
    let configs = [("min.insync.replicas", "2")];
    topics::create_replicated(&cluster.connect(0).await, TOPIC, PARTITIONS, 3, &configs).await
}

/// Writes to every partition, where it is led by then, until that is acknowledged by all in sync.
async fn all_are_written_to(cluster: &Cluster, nodes: &[Node], topic: Uuid) {
    for partition in 0..PARTITIONS {
        let written = async || {
            let leads = usize::try_from(state_of(&nodes[0], topic, partition)?.leader).ok()?;
            let client = cluster.connect(leads).await;
            let told = produce_to(&client, topic, partition, -1, "flake").await;
            (told.error_code == 0).then_some(())
        };
        wait_for_answer("a record in every partition", written).await;
    }
}

async fn all_are_in_sync(nodes: &[Node], topic: Uuid) {
    let three = |partition| state_of(&nodes[0], topic, partition).is_some_and(|now| now.isr.len() == 3);
    wait_for("three in sync", || (0..PARTITIONS).all(three).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_controller_without_room_lets_another_decide() {
    let (cluster, mut nodes, topic) = three().await;
    let full = controller(&nodes).await;
    let full_id = nodes[full].context.node_id;
    has_room(&cluster.disks[full_id as usize], false);
    let full_node = nodes.remove(full);
    let heir = controller(&nodes).await;
    assert_ne!(nodes[heir].context.node_id, full_id);
    all_are_written_to(&cluster, &nodes, topic).await;
    has_room(&cluster.disks[full_id as usize], true);
    nodes.push(full_node);
    all_are_in_sync(&nodes, topic).await;
    stop_all(nodes).await;
}

/// Records have to leave a reserve, in which the metadata have room: so it knows all that is decided, and has its lease.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_has_no_room_for_records_leads_nothing_and_is_not_waited_for() {
    const RESERVE_BYTES: u64 = 64 << 20;
    let mut cluster = Cluster::new(3);
    cluster.more = format!("firn.disk.reserve.bytes={RESERVE_BYTES}\n");
    let nodes = cluster.start_all().await;
    let topic = create(&cluster).await;
    all_are_in_sync(&nodes, topic).await;
    let full = (controller(&nodes).await + 1) % 3;
    let full_id = nodes[full].context.node_id;
    let disk = &cluster.disks[full_id as usize];
    let space = disk.space(Path::new("/")).unwrap();
    let capacity_bytes = Some(space.total - space.free + RESERVE_BYTES / 2);
    disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    wait_for("no room", || (!takes_records(&nodes[full].context)).then_some(())).await;
    all_are_written_to(&cluster, &nodes, topic).await;
    let image = nodes[full].context.controller.image();
    assert!(!image.broker(full_id).unwrap().fenced);
    let is_out = |partition| {
        let now = state_of(&nodes[full], topic, partition)?;
        (now.leader != full_id && !now.isr.contains(&full_id)).then_some(())
    };
    for partition in 0..PARTITIONS {
        wait_for("its absence", || is_out(partition)).await;
    }
    has_room(disk, true);
    all_are_in_sync(&nodes, topic).await;
    wait_for("room", || takes_records(&nodes[full].context).then_some(())).await;
    stop_all(nodes).await;
}

/// It is heard of, and cannot learn what is decided: so it would keep what it leads, and serve none of it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_has_no_room_for_metadata_leads_nothing() {
    let (cluster, mut nodes, topic) = three().await;
    let full = (controller(&nodes).await + 1) % 3;
    let full_id = nodes[full].context.node_id;
    has_room(&cluster.disks[full_id as usize], false);
    let full_node = nodes.remove(full);
    let other = nodes[0].context.node_id as usize;
    topics::create_replicated(&cluster.connect(other).await, "ice", 1, 2, &[]).await;
    let led_elsewhere = |partition| {
        let leader = state_of(&nodes[0], topic, partition)?.leader;
        (leader >= 0 && leader != full_id).then_some(())
    };
    for partition in 0..PARTITIONS {
        wait_for("another leader", || led_elsewhere(partition)).await;
    }
    all_are_written_to(&cluster, &nodes, topic).await;
    has_room(&cluster.disks[full_id as usize], true);
    nodes.push(full_node);
    all_are_in_sync(&nodes, topic).await;
    stop_all(nodes).await;
}

/// Whoever makes room need not know that it has to be started again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_starts_without_room_waits_for_some() {
    let (cluster, mut nodes, topic) = three().await;
    all_are_in_sync(&nodes, topic).await;
    let (full, all) = (2, [0, 1, 2]);
    nodes.remove(full).stop().await;
    let disk = &cluster.disks[full];
    has_room(disk, false);
    let refused = Arc::new(AtomicBool::new(false));
    disk.set_probe(Some({
        let refused = refused.clone();
        Arc::new(move |_, _, _, path| {
            let is_told = path.to_string_lossy().contains("firn-incarnations");
            refused.fetch_or(is_told, Ordering::Relaxed);
        })
    }));
    let room = async {
        wait_for("a start without room", || refused.load(Ordering::Relaxed).then_some(())).await;
        has_room(disk, true);
    };
    let (started, ()) = tokio::join!(cluster.start(full, &all), room);
    nodes.push(started.unwrap());
    all_are_in_sync(&nodes, topic).await;
    stop_all(nodes).await;
}
