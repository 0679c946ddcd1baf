//! Brokers in one process, whose disks do not keep what was written: no reader gets anything else than was written, and what
//! is lost here comes back from another replica.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::path::{Path, PathBuf};
use std::time::Duration;

use brokers::{Cluster, stop_all, wait_for};
use bytes::Bytes;
use firn::node::{Node, Stopped};
use firn_client::configs::{self, Resource};
use firn_client::connection::Connection;
use firn_protocol::library::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{DeleteRecordsRequest, FetchRequest, ProduceRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::batches;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::simulated::SimulatedDisk;
use replicas::{TOPIC, leader, replica, state};
use tokio::time::Instant;
use uuid::Uuid;

const RECORDS: i64 = 60;
/// Within this all is mended, from when it is noticed.
const MENDED_WITHIN: Duration = Duration::from_secs(60);

/// Writes a record, large, so that few fill a segment; returns its offset.
async fn write(client: &Connection, topic: Uuid, number: i64) -> i64 {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    let value = format!("{number:060000}");
    builder.push(0, Some(&number.to_be_bytes()), Some(value.as_bytes()), &[]);
    let data = PartitionProduceData::default().with_records(Some(builder.build().unwrap()));
    let data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let written = client.call(&request).await.unwrap().responses.remove(0).partition_responses.remove(0);
    assert_eq!(written.error_code, 0);
    written.base_offset
}

/// What a client gets that reads from an offset on.
async fn fetch(client: &Connection, topic: Uuid, offset: i64) -> PartitionData {
    let wanted = FetchPartition::default().with_fetch_offset(offset).with_partition_max_bytes(1 << 20);
    let wanted = FetchTopic::default().with_topic_id(topic).with_partitions(vec![wanted]);
    let request = FetchRequest::default().with_max_bytes(1 << 20).with_topics(vec![wanted]);
    client.call(&request).await.unwrap().responses.remove(0).partitions.remove(0)
}

/// All records of the log, which nobody may give otherwise than they are in `whole`; asks again where there is an error.
async fn read_all(client: &Connection, topic: Uuid, whole: &[u8]) {
    let (mut from, mut sent) = (0, Vec::new());
    let deadline = Instant::now() + MENDED_WITHIN;
    while from < RECORDS {
        let part = fetch(client, topic, from).await;
        let records = part.records.unwrap_or_default();
        for (header, batch) in batches(&records).map_while(Result::ok) {
            sent.extend_from_slice(batch);
            from = header.next_offset();
        }
        assert!(whole.starts_with(&sent), "other records than were written, before offset {from}");
        assert!(Instant::now() < deadline, "not mended: {from} of {RECORDS}, {}", part.error_code);
        if records.is_empty() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    assert_eq!(sent.len(), whole.len());
}

fn whole(node: &Node) -> Bytes {
    let mut all = Vec::new();
    let mut from = 0;
    while from < RECORDS {
        let read = replica(node).with_log(|log| log.read(from, RECORDS, 1 << 20, true)).unwrap().unwrap();
        let bytes = read.read().unwrap();
        let last = batches(&bytes).map(Result::unwrap).last().unwrap().0;
        from = last.next_offset();
        all.extend_from_slice(&bytes);
    }
    all.into()
}

fn segments(disk: &SimulatedDisk) -> Vec<PathBuf> {
    let mut files = disk.files(&Path::new("/data").join(format!("{TOPIC}-0"))).unwrap();
    files.retain(|path| path.extension().is_some_and(|end| end == "log"));
    files.sort();
    files
}

/// Flips a bit in each of a disk's segments.
fn rot(disk: &SimulatedDisk) -> usize {
    let all = segments(disk);
    all.iter()
        .filter(|path| {
            let len = disk.contents(path).unwrap().len() as u64;
            len > 0 && disk.flip_bit(path, len * 2 / 3, 5)
        })
        .count()
}

async fn start(more: &str) -> (Cluster, Vec<Node>, Uuid, Bytes) {
    start_with(more, ("cleanup.policy", "delete")).await
}

async fn start_with(more: &str, config: (&'static str, &'static str)) -> (Cluster, Vec<Node>, Uuid, Bytes) {
    let mut cluster = Cluster::new(3);
    cluster.more = more.to_owned();
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let configs = [("segment.bytes", "1048576"), ("min.insync.replicas", "2"), config];
    let topic = topics::create_replicated(&client, TOPIC, 1, 3, &configs).await;
    let leads = leader(&nodes, topic).await;
    let client = cluster.connect(leads).await;
    for number in 0..RECORDS {
        assert_eq!(write(&client, topic, number).await, number);
    }
    replicated_all(&nodes).await;
    let written = whole(&nodes[leads]);
    (cluster, nodes, topic, written)
}

async fn replicated_all(nodes: &[Node]) {
    for node in nodes {
        let has_all = || (replica(node).offsets().unwrap().high_watermark == RECORDS).then_some(());
        wait_for("all records on every broker", has_all).await;
    }
}

fn mended(node: &Node) -> u64 {
    node.context.replication.damaged.mended()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_disk_rots_serves_nothing_wrong_and_mends_it_from_its_followers() {
    let (cluster, nodes, topic, written) = start("").await;
    let leads = leader(&nodes, topic).await;
    let wounds = rot(&cluster.disks[leads]);
    assert!(wounds > 2, "{wounds} segments");
    read_all(&cluster.connect(leads).await, topic, &written).await;
    assert_eq!((mended(&nodes[leads]), whole(&nodes[leads])), (wounds as u64, written));
    assert_eq!(nodes[leads].context.replication.damaged.left(), 0);
    // It leads on, and what is written now follows.
    assert_eq!(leader(&nodes, topic).await, leads);
    let client = cluster.connect(leads).await;
    assert_eq!(write(&client, topic, RECORDS).await, RECORDS);
    stop_all(nodes).await;
}

/// Nobody reads there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rot_of_a_follower_is_found_by_looking_and_mended_from_the_leader() {
    let (cluster, nodes, topic, written) = start("firn.log.scrub.interval.ms=100\n").await;
    let follows = (leader(&nodes, topic).await + 1) % 3;
    let wounds = rot(&cluster.disks[follows]);
    let began = Instant::now();
    wait_for("all to be mended", || (mended(&nodes[follows]) == wounds as u64).then_some(())).await;
    assert!(began.elapsed() < MENDED_WITHIN);
    assert_eq!(whole(&nodes[follows]), written);
    stop_all(nodes).await;
}

/// Nobody reads there, and it is long until somebody looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_compaction_cannot_read_comes_back_from_the_leader() {
    let (cluster, nodes, topic, written) =
        start("log.cleaner.backoff.ms=50\nlog.cleaner.min.cleanable.ratio=0\n").await;
    let follows = (leader(&nodes, topic).await + 1) % 3;
    assert!(rot(&cluster.disks[follows]) > 2);
    let client = cluster.connect(0).await;
    let policy = [("cleanup.policy".to_owned(), Some("compact,delete".to_owned()))];
    configs::alter(&client, &Resource::Topic(TOPIC.to_owned()), &policy).await.unwrap();
    let began = Instant::now();
    wait_for("the log that was written", || {
        // In between there is none.
        let replica = nodes[follows].context.partitions.by_name(TOPIC, 0).ok()?;
        let mut all = Vec::new();
        let mut from = 0;
        while from < RECORDS {
            let read = replica.with_log(|log| log.read(from, RECORDS, 1 << 20, true)).ok()?.ok()?;
            let bytes = read.read().ok()?;
            from = batches(&bytes).map_while(Result::ok).last()?.0.next_offset();
            all.extend_from_slice(&bytes);
        }
        (all == written).then_some(())
    })
    .await;
    assert!(began.elapsed() < MENDED_WITHIN);
    stop_all(nodes).await;
}

/// There is nobody else: what is sound is served, and what is not is an error for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_rot_of_the_only_replica_is_an_error_where_it_is_and_nowhere_else() {
    let cluster = Cluster::new(1);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let topic = topics::create_topic(&client, TOPIC, 1, &[("segment.bytes", "1048576")]).await;
    for number in 0..RECORDS {
        assert_eq!(write(&client, topic, number).await, number);
    }
    let (disk, all) = (&cluster.disks[0], segments(&cluster.disks[0]));
    let len = disk.contents(&all[0]).unwrap().len() as u64;
    assert!(disk.flip_bit(&all[0], len - 1, 0), "in the last batch of the first segment");
    let next = replica(&nodes[0]).segment_from(1).unwrap();
    let (mut from, deadline) = (0, Instant::now() + MENDED_WITHIN);
    loop {
        let part = fetch(&client, topic, from).await;
        let records = part.records.unwrap_or_default();
        from =
            batches(&records).map_while(Result::ok).last().map_or(from, |(header, _)| header.next_offset());
        if part.error_code != 0 {
            assert_eq!(
                (part.error_code, from),
                (56, next - 1),
                "KAFKA_STORAGE_ERROR, at the one that is lost"
            );
            break;
        }
        assert!(from < next && Instant::now() < deadline, "offset {from} was read");
    }
    assert_eq!(fetch(&client, topic, next).await.error_code, 0, "what comes after is served");
    assert_eq!(write(&client, topic, RECORDS).await, RECORDS);
    stop_all(nodes).await;
}

async fn in_sync(node: &Node, topic: Uuid, count: usize) {
    let all = || state(node, topic).is_some_and(|now| now.isr.len() == count && now.leader >= 0);
    wait_for("all in sync", || all().then_some(())).await;
}

/// Compaction is each replica's own: what another one has may hold values whose tombstones are gone here.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_compacted_log_that_rots_begins_anew_once_others_lead() {
    let (cluster, nodes, topic, written) = start_with("", ("cleanup.policy", "compact,delete")).await;
    let leads = leader(&nodes, topic).await;
    assert!(rot(&cluster.disks[leads]) > 2);
    let client = cluster.connect(leads).await;
    let found = async {
        while fetch(&client, topic, 0).await.error_code == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(MENDED_WITHIN, found).await.unwrap();
    let other = (leads + 1) % 3;
    wait_for("another leader", || {
        state(&nodes[other], topic).filter(|now| now.leader >= 0 && now.leader != leads as i32)
    })
    .await;
    let next = state(&nodes[other], topic).unwrap().leader as usize;
    read_all(&cluster.connect(next).await, topic, &written).await;
    assert_eq!(write(&cluster.connect(next).await, topic, RECORDS).await, RECORDS);
    in_sync(&nodes[other], topic, 3).await;
    assert_eq!(whole(&nodes[leads]), written);
    nodes[leads].context.log_dirs.count_strays();
    assert_eq!(nodes[leads].context.log_dirs.strays(), 1, "what it had is set aside");
    stop_all(nodes).await;
}

fn cut_short(disk: &SimulatedDisk) {
    let last = segments(disk).pop().unwrap();
    let len = disk.contents(&last).unwrap().len() as u64;
    let file = disk.open(&last, OpenMode::ReadWrite).unwrap();
    file.set_len(len / 2).unwrap();
    file.sync_data().unwrap();
}

/// A log that ends before where it ended is no log to lead with, nor to be in sync with.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_short_while_its_broker_was_stopped_begins_anew() {
    let (cluster, mut nodes, topic, written) = start("").await;
    let leads = leader(&nodes, topic).await;
    assert_eq!(nodes.remove(leads).stop().await, Stopped::Cleanly);
    cut_short(&cluster.disks[leads]);
    nodes.push(cluster.start(leads, &[0, 1, 2]).await.unwrap());
    in_sync(&nodes[0], topic, 3).await;
    assert_eq!(whole(&nodes[2]), written);
    stop_all(nodes).await;
}

/// Ends all at the same moment, so that all are in sync by the metadata, and gives their disks as they are then.
async fn kill_all(cluster: &mut Cluster, nodes: Vec<Node>) {
    let disks = cluster.disks.iter().map(SimulatedDisk::after_kill).collect();
    futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
    cluster.disks = disks;
}

/// A log that is not there at all is not an empty one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_has_gone_while_all_were_down_is_copied_from_others() {
    let (mut cluster, mut nodes, topic, written) = start("").await;
    // The first change of the partition, without which it might never have had a log.
    let moved = leader(&nodes, topic).await;
    assert_eq!(nodes.remove(moved).stop().await, Stopped::Cleanly);
    nodes.insert(moved, cluster.start(moved, &[0, 1, 2]).await.unwrap());
    in_sync(&nodes[0], topic, 3).await;
    let leads = leader(&nodes, topic).await;
    kill_all(&mut cluster, nodes).await;
    let directory = Path::new("/data").join(format!("{TOPIC}-0"));
    for path in cluster.disks[leads].files(&directory).unwrap() {
        cluster.disks[leads].remove_file(&path).unwrap();
    }
    cluster.disks[leads].remove_dir(&directory).unwrap();
    let nodes = cluster.start_all().await;
    let next = leader(&nodes, topic).await;
    read_all(&cluster.connect(next).await, topic, &written).await;
    in_sync(&nodes[0], topic, 3).await;
    assert_eq!(whole(&nodes[leads]), written);
    stop_all(nodes).await;
}

/// Though the broker is in sync by the metadata, and begins together with the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_was_cut_short_while_all_were_stopped_loses_nothing() {
    let mut asked = 0;
    for cut in 0..3 {
        let (cluster, nodes, topic, written) = start("").await;
        let stops = futures_util::future::join_all(nodes.into_iter().map(Node::stop)).await;
        assert!(stops.contains(&Stopped::Cleanly));
        cut_short(&cluster.disks[cut]);
        let nodes = cluster.start_all().await;
        // Who was the last in sync, and has lost records, has to be told to lead all the same; nobody else is asked.
        let alone = state(&nodes[0], topic).unwrap();
        if alone.isr == [cut as i32] || alone.elr.contains(&(cut as i32)) {
            stop_all(nodes).await;
            continue;
        }
        let next = leader(&nodes, topic).await;
        read_all(&cluster.connect(next).await, topic, &written).await;
        in_sync(&nodes[0], topic, 3).await;
        assert_eq!(whole(&nodes[cut]), written);
        stop_all(nodes).await;
        asked += 1;
    }
    assert!(asked > 0, "each time the one that was cut was the last in sync");
}

async fn trim(client: &Connection, before: i64) {
    let partition = DeleteRecordsPartition::default().with_offset(before);
    let topic = DeleteRecordsTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(30_000);
    let told = client.call(&request).await.unwrap().topics.remove(0).partitions.remove(0);
    assert_eq!((told.error_code, told.low_watermark), (0, before));
}

/// Whom the others follow in where the log starts must not have it from a bit that has flipped.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_checkpoint_that_rots_deletes_no_record() {
    const TRIMMED: i64 = 10;
    let (cluster, mut nodes, topic, _) = start("").await;
    let leads = leader(&nodes, topic).await;
    trim(&cluster.connect(leads).await, TRIMMED).await;
    let now = state(&nodes[leads], topic).unwrap();
    let next = *now.replicas.iter().find(|id| **id != now.leader).unwrap() as usize;
    assert_eq!(nodes.remove(next).stop().await, Stopped::Cleanly);
    let (disk, path) = (&cluster.disks[next], Path::new("/data/log-start-offset-checkpoint"));
    let text = String::from_utf8(disk.contents(path).unwrap()).unwrap();
    let digit = text.find(&format!("{TOPIC} 0 {TRIMMED}")).unwrap() + TOPIC.len() + 3;
    assert!(disk.flip_bit(path, digit as u64, 2), "from 10 to 50");
    nodes.insert(next, cluster.start(next, &[0, 1, 2]).await.unwrap());
    in_sync(&nodes[leads], topic, 3).await;
    assert_eq!(nodes.remove(leads).stop().await, Stopped::Cleanly);
    wait_for("the one that was hurt to lead", || {
        state(&nodes[0], topic).filter(|now| now.leader == next as i32)
    })
    .await;
    assert_eq!(write(&cluster.connect(next).await, topic, RECORDS).await, RECORDS);
    nodes.insert(leads, cluster.start(leads, &[0, 1, 2]).await.unwrap());
    in_sync(&nodes[next], topic, 3).await;
    for node in &nodes {
        assert_eq!(replica(node).offsets().unwrap().log_start, TRIMMED);
    }
    let client = cluster.connect(next).await;
    let mut from = TRIMMED;
    while from <= RECORDS {
        let part = fetch(&client, topic, from).await;
        let records = part.records.unwrap_or_default();
        let (last, _) = batches(&records).map_while(Result::ok).last().expect("records");
        from = last.next_offset();
    }
    stop_all(nodes).await;
}
