//! Brokers in one process whose throttled replicas are copied at a limited rate (KIP-73), while everything else goes on.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod brokers;
mod replicas;
mod topics;

use std::time::Duration;

use brokers::{Cluster, NOT_CONTROLLER, stop_all, wait_for, wait_for_answer};
use firn::node::Node;
use firn_client::connection::Connection;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use firn_protocol::library::messages::incremental_alter_configs_request::{
    AlterConfigsResource, AlterableConfig,
};
use firn_protocol::library::messages::{
    AlterPartitionReassignmentsRequest, BrokerId, IncrementalAlterConfigsRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use replicas::{TOPIC, leader, produce, state};
use tokio::time::Instant;
use topics::create_replicated;
use uuid::Uuid;

const TOPIC_RESOURCE: i8 = 2;
const BROKER_RESOURCE: i8 = 4;

/// Sets a config, or, to nothing, deletes it.
async fn alter(client: &Connection, kind: i8, resource: &str, name: &str, value: Option<&str>) -> i16 {
    let text = |text: &str| StrBytes::from_string(text.to_owned());
    let config = AlterableConfig::default()
        .with_name(text(name))
        .with_config_operation(i8::from(value.is_none()))
        .with_value(value.map(text));
    let resource = AlterConfigsResource::default()
        .with_resource_type(kind)
        .with_resource_name(text(resource))
        .with_configs(vec![config]);
    let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
    let altered = async || {
        let code = client.call(&request).await.unwrap().responses.remove(0).error_code;
        (code != NOT_CONTROLLER).then_some(code)
    };
    wait_for_answer("a controller", altered).await
}

/// The rate of one side on all brokers.
async fn set_rate(client: &Connection, side: &str, rate: &str) {
    let name = format!("{side}.replication.throttled.rate");
    assert_eq!(alter(client, BROKER_RESOURCE, "", &name, Some(rate)).await, 0);
}

async fn throttle(client: &Connection, topic: &str, side: &str, replicas: Option<&str>) {
    let name = format!("{side}.replication.throttled.replicas");
    assert_eq!(alter(client, TOPIC_RESOURCE, topic, &name, replicas).await, 0);
}

async fn reassign(client: &Connection, replicas: &[i32]) {
    let ids = replicas.iter().map(|id| BrokerId(*id)).collect();
    let partition = ReassignablePartition::default().with_replicas(Some(ids));
    let topic = ReassignableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    let request = AlterPartitionReassignmentsRequest::default().with_topics(vec![topic]);
    let told = client.call(&request).await.unwrap();
    assert_eq!((told.error_code, told.responses[0].partitions[0].error_code), (0, 0), "{told:?}");
}

/// Until the partition is on these brokers, and all are in sync.
async fn moved(nodes: &[Node], topic: Uuid, replicas: &[i32]) {
    let is_there = || {
        let now = state(&nodes[0], topic)?;
        (now.replicas == replicas && now.adding_replicas.is_empty() && now.isr.len() == replicas.len())
            .then_some(())
    };
    wait_for("the end of the move", is_there).await;
}

/// Both sides' bytes, of all brokers.
fn throttled_bytes(nodes: &[Node]) -> [u64; 2] {
    let throttles = || nodes.iter().map(|node| &node.context.replication.throttles);
    [throttles().map(|both| both.leader.bytes()).sum(), throttles().map(|both| both.follower.bytes()).sum()]
}

const BATCH: usize = 100_000;
const BATCHES: usize = 80;
const RATE: u32 = 2_000_000;
/// How many of the batches `replica.fetch.max.bytes` has room for.
const FETCH_MAX: i64 = 10;

async fn fill(client: &Connection, topic: Uuid) {
    let value = "x".repeat(BATCH);
    for _ in 0..BATCHES {
        assert_eq!(produce(client, topic, -1, &value).await.error_code, 0);
    }
}

/// Each side by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_takes_the_time_that_the_throttle_of_either_side_gives_it() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let topic = create_replicated(&client, TOPIC, 1, 1, &[]).await;
    let first = nodes[leader(&nodes, topic).await].context.node_id;
    fill(&cluster.connect(first as usize).await, topic).await;
    let bytes = BATCH * BATCHES;
    let mut leads = first;
    for (place, side) in ["leader", "follower"].into_iter().enumerate() {
        let next = (leads + 1) % 3;
        let throttled = if side == "leader" { leads } else { next };
        throttle(&client, TOPIC, side, Some(&format!("0:{throttled}"))).await;
        set_rate(&client, side, &RATE.to_string()).await;
        let began = Instant::now();
        reassign(&client, &[next]).await;
        moved(&nodes, topic, &[next]).await;
        // A fetch, and a second's worth that may have been saved up, go before the throttle holds anything back.
        let held = bytes - (1 << 20) - RATE as usize;
        let least = Duration::from_secs_f64(held as f64 / f64::from(RATE));
        assert!(began.elapsed() >= least, "{side}: {:?} instead of {least:?}", began.elapsed());
        assert!(throttled_bytes(&nodes)[place] >= bytes as u64, "{side}: {:?}", throttled_bytes(&nodes));
        throttle(&client, TOPIC, side, None).await;
        leads = next;
    }
    stop_all(nodes).await;
}

/// At a rate of next to nothing: replicas in sync, and topics that are not throttled, are copied as ever; and what is held back
/// goes on at once when the rate is another, or the topic is throttled no more.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_throttle_holds_back_whom_it_is_for_until_it_is_lifted() {
    let cluster = Cluster::new(3);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    let topic = create_replicated(&client, TOPIC, 1, 1, &[]).await;
    let two = [("min.insync.replicas", "2")];
    let others = [
        create_replicated(&client, "rain", 3, 3, &two).await,
        create_replicated(&client, "fog", 3, 3, &two).await,
    ];
    let mut leads = nodes[leader(&nodes, topic).await].context.node_id;
    fill(&cluster.connect(leads as usize).await, topic).await;
    let clients = [cluster.connect(0).await, cluster.connect(1).await, cluster.connect(2).await];
    for side in ["leader", "follower"] {
        throttle(&client, "rain", side, Some("*")).await;
        for lifted in ["rate", "topic"] {
            throttle(&client, TOPIC, side, Some("*")).await;
            set_rate(&client, side, "1").await;
            let next = (leads + 1) % 3;
            let before = throttled_bytes(&nodes);
            reassign(&client, &[next]).await;
            wait_for("the first batches", || (throttled_bytes(&nodes) != before).then_some(())).await;
            for other in others.repeat(10) {
                for partition in 0..3 {
                    written(&clients, other, partition).await;
                }
            }
            let now = state(&nodes[0], topic).unwrap();
            assert_eq!((now.adding_replicas, now.isr), (vec![next], vec![leads]), "{side}: it is held back");
            let has = nodes[next as usize].context.partitions.by_name(TOPIC, 0).unwrap().offsets().unwrap();
            assert!(has.log_end <= FETCH_MAX, "{side}: {} batches came", has.log_end);
            let began = Instant::now();
            match lifted {
                "rate" => set_rate(&client, side, "1000000000").await,
                _ => throttle(&client, TOPIC, side, None).await,
            }
            moved(&nodes, topic, &[next]).await;
            assert!(began.elapsed() < Duration::from_secs(30), "{side} {lifted}: {:?}", began.elapsed());
            leads = next;
        }
        throttle(&client, "rain", side, None).await;
        throttle(&client, TOPIC, side, None).await;
    }
    stop_all(nodes).await;
}

/// Writes a record that all in sync have, to whoever leads.
async fn written(clients: &[Connection], topic: Uuid, partition: i32) {
    let began = Instant::now();
    for client in clients.iter().cycle() {
        if replicas::produce_to(client, topic, partition, -1, "a drop").await.error_code == 0 {
            break;
        }
    }
    assert!(began.elapsed() < Duration::from_secs(10), "it waited {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_no_throttle_is_refused() {
    let cluster = Cluster::new(1);
    let nodes = cluster.start_all().await;
    let client = cluster.connect(0).await;
    create_replicated(&client, TOPIC, 1, 1, &[]).await;
    for side in ["leader", "follower"] {
        let (rate, replicas) =
            (format!("{side}.replication.throttled.rate"), format!("{side}.replication.throttled.replicas"));
        let code = alter(&client, BROKER_RESOURCE, "0", &rate, Some("-1")).await;
        assert_eq!(code, ResponseError::InvalidRequest.code());
        let code = alter(&client, TOPIC_RESOURCE, TOPIC, &replicas, Some("0:1,0")).await;
        assert_eq!(code, ResponseError::InvalidConfig.code());
        assert_eq!(alter(&client, BROKER_RESOURCE, "0", &rate, Some("0")).await, 0);
        assert_eq!(alter(&client, BROKER_RESOURCE, "0", &rate, None).await, 0);
    }
    stop_all(nodes).await;
}
