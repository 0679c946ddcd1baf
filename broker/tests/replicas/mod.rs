//! A partition of several replicas, asked through clients and looked at in each broker.

#![allow(dead_code, reason = "each suite uses a part of it")]

use std::sync::Arc;

use bytes::Bytes;
use firn::node::Node;
use firn::partition::Partition;
use firn_client::connection::Connection;
use firn_metadata::image;
use firn_model::ids::TopicId;
use firn_protocol::library::messages::ProduceRequest;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::produce_response::PartitionProduceResponse;
use firn_records::builder::{BatchBuilder, BatchOptions};
use uuid::Uuid;

use crate::brokers::wait_for;

pub const TOPIC: &str = "snow";

pub fn batch(value: &str) -> Bytes {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(0, None, Some(value.as_bytes()), &[]);
    builder.build().unwrap()
}

pub async fn produce(client: &Connection, topic: Uuid, acks: i16, value: &str) -> PartitionProduceResponse {
    produce_to(client, topic, 0, acks, value).await
}

pub async fn produce_to(
    client: &Connection,
    topic: Uuid,
    partition: i32,
    acks: i16,
    value: &str,
) -> PartitionProduceResponse {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(batch(value)));
    let data = TopicProduceData::default().with_topic_id(topic).with_partition_data(vec![data]);
    let request =
        ProduceRequest::default().with_acks(acks).with_timeout_ms(30_000).with_topic_data(vec![data]);
    client.call(&request).await.unwrap().responses.remove(0).partition_responses.remove(0)
}

pub fn state(node: &Node, topic: Uuid) -> Option<image::Partition> {
    state_of(node, topic, 0)
}

pub fn state_of(node: &Node, topic: Uuid, partition: i32) -> Option<image::Partition> {
    let image = node.context.controller.image();
    Some(image::Partition::clone(image.partition_by_id(TopicId(topic), partition)?))
}

/// The broker that leads, once one of these does and knows it.
pub async fn leader(nodes: &[Node], topic: Uuid) -> usize {
    let leads =
        |node: &Node| node.context.placed_by_id(TopicId(topic), 0).is_ok_and(|found| found.is_led_here());
    wait_for("a leader", || nodes.iter().position(leads)).await
}

pub fn replica(node: &Node) -> Arc<Partition> {
    node.context.partitions.by_name(TOPIC, 0).unwrap()
}

pub fn contents(node: &Node) -> Bytes {
    let slice =
        replica(node).with_log(|log| log.read(log.log_start_offset(), log.end_offset(), 1 << 20, true));
    slice.unwrap().unwrap().read().unwrap()
}

/// Until every broker knows that all these records are committed.
pub async fn replicated(nodes: &[Node], records: i64) {
    for node in nodes {
        let has_all = || (replica(node).offsets().unwrap().high_watermark == records).then_some(());
        wait_for("all records on every broker", has_all).await;
    }
    assert!(nodes.iter().all(|node| contents(node) == contents(&nodes[0])));
}
