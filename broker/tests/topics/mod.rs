//! Topics, as the suites make them.

#![allow(dead_code, reason = "each suite uses a part of it")]

use firn_client::connection::Connection;
use firn_protocol::library::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use firn_protocol::library::messages::{CreateTopicsRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use uuid::Uuid;

/// Creates a topic of one replica, and returns its id.
pub async fn create_topic(
    client: &Connection,
    name: &'static str,
    partitions: i32,
    configs: &[(&'static str, &'static str)],
) -> Uuid {
    create_replicated(client, name, partitions, 1, configs).await
}

/// Creates a topic, and returns its id.
pub async fn create_replicated(
    client: &Connection,
    name: &'static str,
    partitions: i32,
    factor: i16,
    configs: &[(&'static str, &'static str)],
) -> Uuid {
    let config = |(name, value): &(&'static str, &'static str)| {
        CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str(name))
            .with_value(Some(StrBytes::from_static_str(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(name)))
        .with_num_partitions(partitions)
        .with_replication_factor(factor)
        .with_configs(configs.iter().map(config).collect());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]);
    let created = client.call(&request).await.unwrap().topics.remove(0);
    assert_eq!(created.error_code, 0, "{:?}", created.error_message);
    created.topic_id
}
