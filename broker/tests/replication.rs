//! Brokers in one process that copy partitions from each other: what is acknowledged is everywhere, whoever leads.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::path::Path;

use brokers::{Cluster, stop_all, wait_for};
use firn::node::Stopped;
use firn_client::connection::Connection;
use firn_protocol::library::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{
    DeleteRecordsRequest, FetchRequest, FetchResponse, FindCoordinatorRequest, ProduceRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_storage::simulated::PowerCut;
use firn_telemetry::metrics::ReplicationTraffic;
use replicas::{TOPIC, batch, leader, produce, replicated, state};
use topics::create_replicated;
use uuid::Uuid;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_acknowledged_is_everywhere_whoever_leads() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let configs = [("min.insync.replicas", "2")];
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &configs).await;
    let mut acknowledged = 0;
    for round in 0..3 {
        let leads = leader(&nodes, topic).await;
        let id = nodes[leads].context.node_id;
        let client = cluster.connect(id as usize).await;
        for acks in [-1, 1, -1] {
            let told = produce(&client, topic, acks, &format!("{round} {acks}")).await;
            assert_eq!((told.error_code, told.base_offset), (0, acknowledged));
            acknowledged += 1;
        }
        replicated(&nodes, acknowledged).await;
        assert_eq!(nodes.remove(leads).stop().await, Stopped::Cleanly);
        let next = leader(&nodes, topic).await;
        assert_eq!(state(&nodes[next], topic).unwrap().isr.len(), 2);
        let client = cluster.connect(nodes[next].context.node_id as usize).await;
        assert_eq!(produce(&client, topic, -1, "while one is away").await.base_offset, acknowledged);
        acknowledged += 1;
        nodes.push(cluster.start(id as usize, &[0, 1, 2]).await.unwrap());
        replicated(&nodes, acknowledged).await;
        let all_in_sync = || state(&nodes[0], topic).filter(|now| now.isr.len() == 3);
        wait_for("three in sync", all_in_sync).await;
    }
    let counted = |of: fn(&ReplicationTraffic) -> u64| -> u64 {
        nodes.iter().map(|node| of(&node.context.metrics.replication)).sum()
    };
    assert!(counted(|traffic| traffic.bytes_in.get()) > 0);
    assert!(counted(|traffic| traffic.bytes_out.get()) > 0);
    assert!(counted(|traffic| traffic.isr_expands.get()) > 0, "who was started last has come back");
    stop_all(nodes).await;
}

/// Whoever is told that records are deleted is not to see them again, though all brokers lose their power in that moment and
/// whichever of them leads then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_deleted_is_so_on_the_disks_of_all() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &[]).await;
    let leads = leader(&nodes, topic).await;
    let client = cluster.connect(nodes[leads].context.node_id as usize).await;
    for value in ["one", "two", "three"] {
        assert_eq!(produce(&client, topic, -1, value).await.error_code, 0);
    }
    for before in 1..=2 {
        let deleted = DeleteRecordsPartition::default().with_offset(before);
        let deleted = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_partitions(vec![deleted]);
        let request = DeleteRecordsRequest::default().with_topics(vec![deleted]).with_timeout_ms(30_000);
        let told = client.call(&request).await.unwrap().topics.remove(0).partitions.remove(0);
        assert_eq!((told.error_code, told.low_watermark), (0, before));
        for (id, disk) in cluster.disks.iter().enumerate() {
            let left = disk.after_power_cut(PowerCut::DropUnsynced);
            let starts = left.contents(Path::new("/data/log-start-offset-checkpoint")).unwrap_or_default();
            let starts = String::from_utf8(starts).unwrap();
            let due = format!("{TOPIC} 0 {before}");
            assert!(starts.lines().any(|line| line.trim_end() == due), "broker {id}: {starts}");
        }
    }
    stop_all(nodes).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_too_few_in_sync_records_are_refused_that_all_are_to_have() {
    let cluster = Cluster::new(3);
    let mut nodes = cluster.start_all().await;
    let configs = [("min.insync.replicas", "3")];
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &configs).await;
    let away = (leader(&nodes, topic).await + 1) % 3;
    let id = nodes[away].context.node_id;
    nodes.remove(away).stop().await;
    wait_for("an ISR of two", || state(&nodes[0], topic).filter(|now| now.isr.len() == 2)).await;
    let leads = leader(&nodes, topic).await;
    let client = cluster.connect(nodes[leads].context.node_id as usize).await;
    let refused = produce(&client, topic, -1, "for three").await;
    assert_eq!(refused.error_code, 19, "NOT_ENOUGH_REPLICAS: {:?}", refused.error_message);
    assert_eq!(produce(&client, topic, 1, "for one").await.error_code, 0);
    nodes.push(cluster.start(id as usize, &[0, 1, 2]).await.unwrap());
    replicated(&nodes, 1).await;
    wait_for("three in sync", || state(&nodes[0], topic).filter(|now| now.isr.len() == 3)).await;
    assert_eq!(produce(&client, topic, -1, "for three").await.error_code, 0);
    stop_all(nodes).await;
}

/// Groups' offsets have as many replicas as there are brokers, so the next coordinator knows them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_offsets_of_groups_are_on_every_broker() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let keys = vec![StrBytes::from_static_str("group")];
    let find = FindCoordinatorRequest::default().with_coordinator_keys(keys);
    let found = cluster.connect(1).await.call(&find).await.unwrap().coordinators;
    assert_eq!(found[0].error_code, 0);
    let image = nodes[1].context.controller.image();
    assert!(image.topic("__consumer_offsets").unwrap().partitions.iter().all(|one| one.replicas.len() == 3));
    stop_all(nodes).await;
}

/// KIP-951: the client need not ask for the metadata first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_asks_a_broker_that_does_not_lead_is_told_who_does_and_where() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let topic = create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &[]).await;
    let leads = leader(&nodes, topic).await;
    let id = nodes[leads].context.node_id;
    let other = nodes[(leads + 1) % 3].context.node_id;
    let wrong = cluster.connect(other as usize).await;
    wait_for("the topic there", || state(&nodes[(leads + 1) % 3], topic)).await;
    let place = (id, i32::from(cluster.port(id as usize)));

    let data = PartitionProduceData::default().with_records(Some(batch("astray")));
    let data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    let request = ProduceRequest::default().with_acks(-1).with_timeout_ms(30_000).with_topic_data(vec![data]);
    let told = wrong.call(&request).await.unwrap();
    let part = &told.responses[0].partition_responses[0];
    assert_eq!((part.error_code, part.current_leader.leader_id.0), (6, id), "NOT_LEADER_OR_FOLLOWER");
    assert_eq!(part.current_leader.leader_epoch, state(&nodes[leads], topic).unwrap().leader_epoch);
    let nodes_told: Vec<_> = told.node_endpoints.iter().map(|node| (node.node_id.0, node.port)).collect();
    assert_eq!(nodes_told, [place]);

    let mut nodes = nodes;
    nodes.remove(leads).stop().await;
    let next = leader(&nodes, topic).await;
    let (id, follows) = (nodes[next].context.node_id, nodes[1 - next].context.node_id);
    let client = cluster.connect(follows as usize).await;
    let told = fetch(&client, topic, Asked { leader_epoch: 0, ..Asked::default() }).await;
    let part = &told.responses[0].partitions[0];
    assert_eq!((part.error_code, part.current_leader.leader_id.0), (74, id), "FENCED_LEADER_EPOCH");
    let nodes_told: Vec<_> = told.node_endpoints.iter().map(|node| (node.node_id.0, node.port)).collect();
    assert_eq!(nodes_told, [(id, i32::from(cluster.port(id as usize)))]);
    stop_all(nodes).await;
}

/// What a client asks for.
#[derive(Debug, Clone, Copy)]
struct Asked {
    leader_epoch: i32,
    offset: i64,
    rack: &'static str,
    wait_ms: i32,
}

impl Default for Asked {
    fn default() -> Self {
        Self { leader_epoch: -1, offset: 0, rack: "", wait_ms: 0 }
    }
}

async fn fetch(client: &Connection, topic: Uuid, asked: Asked) -> FetchResponse {
    let wanted = FetchPartition::default()
        .with_partition_max_bytes(1_000)
        .with_fetch_offset(asked.offset)
        .with_current_leader_epoch(asked.leader_epoch);
    let wanted = FetchTopic::default().with_topic_id(topic).with_partitions(vec![wanted]);
    let request = FetchRequest::default()
        .with_max_wait_ms(asked.wait_ms)
        .with_min_bytes(1)
        .with_max_bytes(1_000)
        .with_rack_id(StrBytes::from_static_str(asked.rack))
        .with_topics(vec![wanted]);
    client.call(&request).await.unwrap()
}

/// KIP-392. Followers ask for more only every twenty seconds, and hear at once of what is committed all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_of_another_rack_is_sent_to_the_replica_there_and_does_not_wait_for_records() {
    const RACKS: [&str; 3] = ["zone-0", "zone-1", "zone-2"];
    let mut cluster = Cluster::new(3);
    cluster.more = "replica.fetch.wait.max.ms=20000\nbroker.rack=zone-NODE\n".to_owned();
    let nodes = cluster.start_all().await;
    let topic =
        create_replicated(&cluster.connect(0).await, TOPIC, 1, 3, &[("min.insync.replicas", "3")]).await;
    let leads = leader(&nodes, topic).await;
    let (id, there) = (nodes[leads].context.node_id, nodes[(leads + 1) % 3].context.node_id);
    let client = cluster.connect(id as usize).await;
    assert_eq!(produce(&client, topic, -1, "first").await.error_code, 0);

    let part = |told: FetchResponse| told.responses[0].partitions[0].clone();
    let asked = Asked { rack: RACKS[there as usize], ..Asked::default() };
    let sent = part(fetch(&client, topic, asked).await);
    assert_eq!((sent.error_code, sent.preferred_read_replica.0), (0, there));
    assert!(sent.records.is_none_or(|records| records.is_empty()));
    for rack in ["", RACKS[id as usize], "elsewhere"] {
        let here = part(fetch(&client, topic, Asked { rack, ..Asked::default() }).await);
        assert_eq!(here.preferred_read_replica.0, -1, "{rack}");
        assert!(here.records.is_some_and(|records| !records.is_empty()), "{rack}");
    }

    let reader = cluster.connect(there as usize).await;
    let asked = Asked { wait_ms: 10_000, ..asked };
    let first = part(fetch(&reader, topic, asked).await);
    assert!(first.records.is_some_and(|records| !records.is_empty()), "it is committed, and known to be");
    let (next, produced) = tokio::join!(
        fetch(&reader, topic, Asked { offset: 1, ..asked }),
        produce(&client, topic, -1, "second")
    );
    assert_eq!(produced.base_offset, 1);
    assert_eq!(part(next).high_watermark, 2);
    let beyond = part(fetch(&reader, topic, Asked { offset: 7, ..asked }).await);
    assert_eq!(beyond.error_code, 6, "NOT_LEADER_OR_FOLLOWER: the client asks the leader");
    stop_all(nodes).await;
}
