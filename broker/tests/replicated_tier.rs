//! Partitions of several replicas whose first records are in the object store: whoever leads serves them, and a new replica
//! copies none of them.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use brokers::{Cluster, stop_all, wait_for};
use bytes::Bytes;
use firn::node::{Node, Stopped};
use firn::partition::Offsets;
use firn_client::connection::Connection;
use firn_protocol::library::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use firn_protocol::library::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, FetchRequest, IncrementalAlterConfigsRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::batches;
use firn_storage::simulated::PowerCut;
use replicas::{TOPIC, leader, produce, replica, state};
use uuid::Uuid;

const TIERED: [(&str, &str); 6] = [
    ("remote.storage.enable", "true"),
    ("segment.bytes", "1048576"),
    ("local.retention.ms", "1"),
    ("min.insync.replicas", "2"),
    ("file.delete.delay.ms", "0"),
    // The records are as old as time.
    ("retention.ms", "-1"),
];

/// A directory that goes with the test.
struct Store(PathBuf);

impl Store {
    fn new() -> Store {
        static STORES: AtomicUsize = AtomicUsize::new(0);
        let (process, number) = (std::process::id(), STORES.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(format!("firn-replicated-tier-{process}-{number}"));
        std::fs::create_dir(&path).unwrap();
        Store(path)
    }

    fn objects(&self) -> usize {
        fn count(path: &Path) -> usize {
            let entries = std::fs::read_dir(path).unwrap().map(Result::unwrap);
            entries.map(|entry| if entry.path().is_dir() { count(&entry.path()) } else { 1 }).sum()
        }
        count(&self.0)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn cluster(count: usize, store: &Store) -> Cluster {
    let mut cluster = Cluster::new(count);
    cluster.more = format!(
        "firn.store.url=file://{}\nfirn.store.garbage.grace.ms=100\nremote.log.manager.task.interval.ms=20\n\
         log.retention.check.interval.ms=20\nlog.cleaner.backoff.ms=50\n",
        store.0.display()
    );
    cluster
}

/// Three to a segment.
fn value(number: i64) -> String {
    format!("{number} ").repeat(300_000 / (number.to_string().len() + 1))
}

async fn produce_all(client: &Connection, topic: Uuid, numbers: std::ops::Range<i64>) {
    for number in numbers {
        let told = produce(client, topic, -1, &value(number)).await;
        assert_eq!((told.error_code, told.base_offset), (0, number), "{:?}", told.error_message);
    }
}

/// Everything from `from` on, as a consumer gets it from this broker.
async fn consume(client: &Connection, topic: Uuid, from: i64, to: i64) {
    let mut next = from;
    let mut turns = 0;
    while next < to {
        turns += 1;
        assert!(turns < 1_000, "stuck at {next}");
        let asked = FetchPartition::default().with_fetch_offset(next).with_partition_max_bytes(1 << 20);
        let asked = FetchTopic::default().with_topic_id(topic).with_partitions(vec![asked]);
        let request =
            FetchRequest::default().with_max_wait_ms(1_000).with_min_bytes(1).with_topics(vec![asked]);
        let reply = client.call(&request).await.unwrap();
        let part = reply.responses.into_iter().next().unwrap().partitions.remove(0);
        assert_eq!(part.error_code, 0, "at {next}");
        let records: Bytes = part.records.unwrap_or_default();
        for batch in batches(&records) {
            let (header, batch) = batch.unwrap();
            if header.last_offset() < next {
                continue;
            }
            assert_eq!(header.base_offset, next);
            let text = value(next);
            assert!(batch.windows(text.len()).any(|part| part == text.as_bytes()), "the record at {next}");
            next = header.last_offset() + 1;
        }
    }
}

fn offsets(node: &Node) -> Offsets {
    replica(node).offsets().unwrap()
}

fn in_sync(node: &Node, topic: Uuid) -> Option<Vec<i32>> {
    Some(state(node, topic)?.isr)
}

/// Until the disk of each has nothing before `offset`, and the log still begins at 0.
async fn cold_below(nodes: &[Node], offset: i64) {
    for node in nodes {
        let is_cold = || (offsets(node).local_start >= offset).then_some(());
        wait_for("cold records on every broker", is_cold).await;
        assert_eq!(offsets(node).log_start, 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_cold_is_served_by_whoever_leads() {
    let store = Store::new();
    let cluster = cluster(3, &store);
    let mut nodes = cluster.start_all().await;
    let topic = topics::create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &TIERED).await;
    let mut end = 0;
    for _ in 0..3 {
        let leads = leader(&nodes, topic).await;
        let id = nodes[leads].context.node_id;
        let client = cluster.connect(id as usize).await;
        produce_all(&client, topic, end..end + 20).await;
        end += 20;
        cold_below(&nodes, end - 5).await;
        consume(&client, topic, 0, end).await;
        // A follower finds what its leader has copied.
        let follower = nodes[(leads + 1) % 3].context.node_id;
        wait_for("all committed at the follower", || {
            (offsets(&nodes[(leads + 1) % 3]).high_watermark == end).then_some(())
        })
        .await;
        consume(&cluster.connect(follower as usize).await, topic, 0, end).await;
        assert_eq!(nodes.remove(leads).stop().await, Stopped::Cleanly);
        let next = leader(&nodes, topic).await;
        let client = cluster.connect(nodes[next].context.node_id as usize).await;
        consume(&client, topic, 0, end).await;
        nodes.push(cluster.start(id as usize, &[0, 1, 2]).await.unwrap());
        let all = || in_sync(&nodes[0], topic).filter(|isr| isr.len() == 3);
        wait_for("three in sync", all).await;
    }
    stop_all(nodes).await;
}

/// There is no other replica to ask.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_rotted_on_the_only_disk_comes_back_from_the_store() {
    let store = Store::new();
    let mut cluster = cluster(1, &store);
    cluster.more += "firn.log.scrub.interval.ms=100\n";
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let mut config = TIERED.to_vec();
    // All stays on the disk, too.
    config.retain(|(name, _)| *name != "local.retention.ms" && *name != "min.insync.replicas");
    let topic = topics::create_replicated(&client, TOPIC, 1, 1, &config).await;
    produce_all(&client, topic, 0..20).await;
    let is_copied = || (offsets(&nodes[0]).tiered_end >= 15).then_some(());
    wait_for("records in the store", is_copied).await;
    let segments = cluster.disks[0].files(&Path::new("/data").join(format!("{TOPIC}-0"))).unwrap();
    let is_first = |path: &&PathBuf| path.ends_with("00000000000000000000.log");
    let first = segments.iter().find(is_first).unwrap();
    let middle = cluster.disks[0].contents(first).unwrap().len() as u64 / 2;
    assert!(cluster.disks[0].flip_bit(first, middle, 5));
    let damaged = &nodes[0].context.replication.damaged;
    wait_for("what has rotted to be mended", || (damaged.mended() == 1).then_some(())).await;
    assert_eq!((damaged.left(), offsets(&nodes[0]).local_start), (0, 0));
    consume(&client, topic, 0, 20).await;
    stop_all(nodes).await;
}

/// What it copies is what its leader has on the disk; all before it serves from the store.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_begins_anew_copies_nothing_that_is_cold() {
    let store = Store::new();
    let mut cluster = cluster(3, &store);
    let mut nodes = cluster.start_all().await;
    let topic = topics::create_replicated(&cluster.connect(0).await, TOPIC, 1, 2, &TIERED).await;
    let leads = leader(&nodes, topic).await;
    let id = nodes[leads].context.node_id;
    produce_all(&cluster.connect(id as usize).await, topic, 0..40).await;
    let holders: Vec<i32> = in_sync(&nodes[0], topic).unwrap();
    let new = (0..3).find(|id| !holders.contains(id)).unwrap();
    wait_for("cold records", || (offsets(&nodes[leads]).local_start > 30).then_some(())).await;
    // One of the two moves to the third broker.
    let index = ReassignablePartition::default()
        .with_partition_index(0)
        .with_replicas(Some(vec![BrokerId(id), BrokerId(new)]));
    let moved = ReassignableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![index]);
    let request =
        AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![moved]);
    let told = cluster.connect(0).await.call(&request).await.unwrap();
    assert_eq!(told.responses[0].partitions[0].error_code, 0, "{:?}", told.responses[0].partitions[0]);
    let arrived = || in_sync(&nodes[0], topic).filter(|isr| isr.len() == 2 && isr.contains(&new));
    wait_for("the move's end", arrived).await;
    let place = nodes.iter().position(|node| node.context.node_id == new).unwrap();
    let (theirs, ours) = (offsets(&nodes[leads]), offsets(&nodes[place]));
    assert!(ours.local_start > 30 && ours.log_start == 0, "{ours:?}, {theirs:?}");
    // The move began another epoch, in which nothing is written yet.
    let epochs = |node: &Node| {
        let known = replica(node).with_log(|log| log.epoch_entries().to_vec()).unwrap();
        known.into_iter().filter(|entry| entry.start_offset < 40).collect::<Vec<_>>()
    };
    assert_eq!(epochs(&nodes[place]), epochs(&nodes[leads]));
    // It leads, when the other is gone, and has it all. And so it does after a loss of power.
    let position = nodes.iter().position(|node| node.context.node_id == id).unwrap();
    assert_eq!(nodes.remove(position).stop().await, Stopped::Cleanly);
    assert_eq!(nodes[leader(&nodes, topic).await].context.node_id, new);
    consume(&cluster.connect(new as usize).await, topic, 0, 40).await;
    stop_all(nodes).await;
    for disk in &mut cluster.disks {
        *disk = disk.after_power_cut(PowerCut::DropUnsynced);
    }
    let nodes = cluster.start_all().await;
    let leads = nodes[leader(&nodes, topic).await].context.node_id;
    consume(&cluster.connect(leads as usize).await, topic, 0, 40).await;
    stop_all(nodes).await;
}

async fn alter(client: &Connection, configs: &[(&'static str, &'static str)]) {
    let set = |(name, value): &(&'static str, &'static str)| {
        AlterableConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    };
    let resource = AlterConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str(TOPIC))
        .with_configs(configs.iter().map(set).collect());
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let told = client.call(&request).await.unwrap().responses.remove(0);
    assert_eq!(told.error_code, 0, "{:?}", told.error_message);
}

/// The objects go once every replica's log begins behind them; and no replica counts on what was there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_tiered_no_more_begins_on_the_disks_of_all() {
    let store = Store::new();
    let cluster = cluster(3, &store);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let topic = topics::create_replicated(&client, TOPIC, 1, 3, &TIERED).await;
    let leads = nodes[leader(&nodes, topic).await].context.node_id;
    produce_all(&cluster.connect(leads as usize).await, topic, 0..20).await;
    cold_below(&nodes, 15).await;
    assert!(store.objects() > 0);
    alter(&client, &[("remote.storage.enable", "false"), ("remote.log.delete.on.disable", "true")]).await;
    for node in &nodes {
        let begins = || Some(offsets(node)).filter(|offsets| offsets.log_start >= 15);
        let found = wait_for("the log to begin on the disk", begins).await;
        assert_eq!(found.tiered_end, 0);
    }
    wait_for("no object", || (store.objects() == 0).then_some(())).await;
    alter(&client, &[("remote.storage.enable", "true"), ("remote.log.delete.on.disable", "false")]).await;
    produce_all(&cluster.connect(leads as usize).await, topic, 20..40).await;
    for node in &nodes {
        wait_for("cold records", || (offsets(node).local_start >= 35).then_some(())).await;
    }
    let start = offsets(&nodes[0]).log_start;
    consume(&cluster.connect(leads as usize).await, topic, start, 40).await;
    stop_all(nodes).await;
}
