//! Unclean elections on a compacted topic whose beginning is in the object store: what the leader of before compacted there by
//! records that are lost with it must not be lost, too.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use brokers::{Cluster, stop_all, wait_for, wait_for_answer};
use firn::node::{Node, Stopped};
use firn_client::connection::Connection;
use firn_protocol::library::messages::elect_leaders_request::TopicPartitions;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{ElectLeadersRequest, FetchRequest, ProduceRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::{HEADER_LENGTH, batches};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::record::records;
use replicas::{TOPIC, leader, replica, state};
use uuid::Uuid;

/// Three records fill a segment.
const VALUE_BYTES: usize = 300_000;
const COMPACTED: [(&str, &str); 8] = [
    ("cleanup.policy", "compact"),
    ("min.cleanable.dirty.ratio", "0"),
    ("remote.storage.enable", "true"),
    ("segment.bytes", "1048576"),
    ("local.retention.bytes", "1"),
    ("min.insync.replicas", "1"),
    ("file.delete.delay.ms", "0"),
    ("retention.ms", "-1"),
];

/// A directory that goes with the test.
struct Store(PathBuf);

impl Drop for Store {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

impl Store {
    /// Objects that begin where the log does.
    fn first_objects(&self) -> BTreeSet<String> {
        fn visit(path: &Path, found: &mut BTreeSet<String>) {
            // A folder may come and go while it is looked at.
            for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                match entry.path().is_dir() {
                    true => visit(&entry.path(), found),
                    false if name.starts_with(&format!("{:020}-", 0)) && name.ends_with(".seg") => {
                        found.insert(name);
                    }
                    false => {}
                }
            }
        }
        let mut found = BTreeSet::new();
        visit(&self.0, &mut found);
        found
    }
}

async fn write(client: &Connection, topic: Uuid, key: u8) -> i64 {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(0, Some(&[key]), Some(&[7; VALUE_BYTES]), &[]);
    let data = PartitionProduceData::default().with_records(Some(builder.build().unwrap()));
    let data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let told = client.call(&request).await.unwrap().responses.remove(0).partition_responses.remove(0);
    assert_eq!(told.error_code, 0, "{:?}", told.error_message);
    told.base_offset
}

/// Offset and key of what a consumer gets first.
async fn first_records(client: &Connection, topic: Uuid) -> Vec<(i64, u8)> {
    let asked = FetchPartition::default().with_fetch_offset(0).with_partition_max_bytes(1 << 20);
    let asked = FetchTopic::default().with_topic_id(topic).with_partitions(vec![asked]);
    let request = FetchRequest::default().with_max_wait_ms(1_000).with_min_bytes(1).with_topics(vec![asked]);
    let fetched = async || {
        let reply = client.call(&request).await.unwrap();
        let part = reply.responses.into_iter().next().unwrap().partitions.remove(0);
        let mut found = Vec::new();
        for batch in batches(&part.records.unwrap_or_default()) {
            let (header, batch) = batch.unwrap();
            for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
                let record = record.unwrap();
                found.push((header.base_offset + i64::from(record.offset_delta), record.key.unwrap()[0]));
            }
        }
        (!found.is_empty()).then_some(found)
    };
    wait_for_answer("the first records", fetched).await
}

async fn elect_uncleanly(client: &Connection) {
    let topic = TopicName(StrBytes::from_static_str(TOPIC));
    let named = TopicPartitions::default().with_topic(topic).with_partitions(vec![0]);
    let request =
        ElectLeadersRequest::default().with_election_type(1).with_topic_partitions(Some(vec![named]));
    let elected = async || {
        let told = client.call(&request).await.unwrap();
        let result = told.replica_election_results.first().map(|topic| topic.partition_result[0].error_code);
        ((told.error_code, result) == (0, Some(0))).then_some(())
    };
    wait_for_answer("an unclean election", elected).await;
}

fn take(nodes: &mut Vec<Node>, id: i32) -> Node {
    nodes.remove(nodes.iter().position(|node| node.context.node_id == id).unwrap())
}

/// Keys 0 and 1 are written once while both replicas are in sync, and are cold. Then one is away, both keys get new values, and
/// the store is compacted by these. With the broker that has them they are lost: the first ones count again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_superseded_by_lost_records_alone_is_there_again() {
    let store = Store(std::env::temp_dir().join(format!("firn-unclean-tier-{}", std::process::id())));
    std::fs::create_dir(&store.0).unwrap();
    let mut cluster = Cluster::new(3);
    cluster.more = format!(
        "firn.store.url=file://{}\nfirn.store.garbage.grace.ms=100\nremote.log.manager.task.interval.ms=20\n\
         log.retention.check.interval.ms=20\nlog.cleaner.backoff.ms=50\n",
        store.0.display()
    );
    let mut nodes = cluster.start_all().await;
    let topic = topics::create_replicated(&cluster.connect(0).await, TOPIC, 1, 2, &COMPACTED).await;
    let place = leader(&nodes, topic).await;
    let first = nodes[place].context.node_id;
    let second = *state(&nodes[0], topic).unwrap().replicas.iter().find(|id| **id != first).unwrap();
    let client = cluster.connect(first as usize).await;
    for key in 0..12 {
        write(&client, topic, key).await;
    }
    for node in nodes.iter().filter(|node| [first, second].contains(&node.context.node_id)) {
        let is_cold = || (replica(node).offsets().unwrap().local_start > 2).then_some(());
        wait_for("cold records", is_cold).await;
    }
    assert_eq!(first_records(&client, topic).await[..2], [(0, 0), (1, 1)]);
    let written = store.first_objects();
    assert_eq!(take(&mut nodes, second).stop().await, Stopped::Cleanly);
    let alone = || state(&nodes[0], topic).filter(|state| *state.isr == [first]).map(drop);
    wait_for("one in sync", alone).await;
    let mut of_passes = Vec::new();
    for key in [0, 1] {
        write(&client, topic, key).await;
        let compacted = async || {
            if first_records(&client, topic).await[0].1 > key {
                return Some(());
            }
            write(&client, topic, 200).await;
            None
        };
        wait_for_answer(&format!("key {key} to be compacted away"), compacted).await;
        of_passes.push(store.first_objects().difference(&written).cloned().collect::<BTreeSet<_>>());
    }
    assert!(!of_passes[0].is_empty());
    // What the first pass left is garbage since the second; what nobody compacted is what the other replica would need.
    let is_collected = || of_passes[0].is_disjoint(&store.first_objects()).then_some(());
    wait_for("the first pass' object to be collected", is_collected).await;

    assert_eq!(take(&mut nodes, first).stop().await, Stopped::Cleanly);
    nodes.push(cluster.start(second as usize, &[0, 1, 2]).await.unwrap());
    let client = cluster.connect(second as usize).await;
    elect_uncleanly(&client).await;
    leader(&nodes, topic).await;
    let served = first_records(&client, topic).await;
    assert!(served.starts_with(&[(0, 0), (1, 1)]), "a value is lost that nothing supersedes: {served:?}");
    // The next leader compacts by what it has, and who led before takes over what that has.
    for key in [2, 200, 201, 202] {
        write(&client, topic, key).await;
    }
    nodes.push(cluster.start(first as usize, &[0, 1, 2]).await.unwrap());
    let both = || state(&nodes[0], topic).filter(|state| state.isr.len() == 2).map(drop);
    wait_for("both in sync", both).await;
    assert_eq!(take(&mut nodes, second).stop().await, Stopped::Cleanly);
    leader(&nodes, topic).await;
    let client = cluster.connect(first as usize).await;
    let served = first_records(&client, topic).await;
    assert!(served.starts_with(&[(0, 0), (1, 1)]), "it lacks what it had compacted away: {served:?}");
    stop_all(nodes).await;
}
