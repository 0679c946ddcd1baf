//! Topics, as an administrator sees them: create, list, describe, delete.

use std::collections::BTreeMap;

use firn_model::ids::TopicId;
use firn_protocol::library::messages::create_partitions_request::CreatePartitionsTopic;
use firn_protocol::library::messages::create_topics_request::{
    CreatableReplicaAssignment, CreatableTopic, CreatableTopicConfig,
};
use firn_protocol::library::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use firn_protocol::library::messages::delete_topics_request::DeleteTopicState;
use firn_protocol::library::messages::describe_topic_partitions_request::{Cursor, TopicRequest};
use firn_protocol::library::messages::describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition;
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::metadata_response::MetadataResponseTopic;
use firn_protocol::library::messages::{
    BrokerId, CreatePartitionsRequest, CreateTopicsRequest, DeleteRecordsRequest, DeleteTopicsRequest,
    DescribeTopicPartitionsRequest, MetadataRequest, TopicName,
};
use firn_protocol::library::protocol::StrBytes;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{Error, check};

/// How long the broker may take over a change, in milliseconds; below the deadline of a call.
const CHANGE_TIMEOUT_MS: i32 = 20_000;
/// From here on topics to delete are named by state rather than by a list of names (KIP-516).
const DELETE_BY_STATE_VERSION: i16 = 6;
/// Partitions described in one reply (Java's default).
const PARTITIONS_AT_ONCE: i32 = 2000;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewTopic {
    pub name: String,
    /// None: the broker's `num.partitions`.
    pub partitions: Option<i32>,
    /// None: the broker's `default.replication.factor`.
    pub replication_factor: Option<i16>,
    /// The brokers of each partition; none: the cluster chooses.
    pub assignments: Vec<Vec<i32>>,
    pub configs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: String,
    /// As Kafka writes it: 22 letters of base64 for URLs.
    pub id: String,
    pub internal: bool,
    /// By partition index.
    pub partitions: Vec<Partition>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// None while no replica can lead.
    pub leader: Option<i32>,
    pub replicas: Vec<i32>,
    pub in_sync: Vec<i32>,
    /// Eligible leader replicas (KIP-966), and those known last, where the broker was asked in full and tells.
    pub eligible: Option<Vec<i32>>,
    pub last_eligible: Option<Vec<i32>>,
}

/// Creates one topic; any broker passes it on to the controller.
pub async fn create(connection: &Connection, topic: &NewTopic) -> Result<(), Error> {
    let configs = topic.configs.iter().map(|(name, value)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    });
    let assignments = (0..).zip(&topic.assignments).map(|(index, brokers)| {
        CreatableReplicaAssignment::default()
            .with_partition_index(index)
            .with_broker_ids(brokers.iter().copied().map(BrokerId).collect())
    });
    let wanted = CreatableTopic::default()
        .with_name(TopicName(text(&topic.name)))
        .with_num_partitions(topic.partitions.unwrap_or(-1))
        .with_replication_factor(topic.replication_factor.unwrap_or(-1))
        .with_assignments(assignments.collect())
        .with_configs(configs.collect());
    let request = CreateTopicsRequest::default().with_topics(vec![wanted]).with_timeout_ms(CHANGE_TIMEOUT_MS);
    let reply = connection.call(&request).await?;
    for result in &reply.topics {
        check(result.error_code, result.error_message.as_deref(), || format!("create topic {}", topic.name))?;
    }
    Ok(())
}

/// Deletes one topic with its data.
pub async fn delete(connection: &Connection, name: &str) -> Result<(), Error> {
    let mut request = DeleteTopicsRequest::default().with_timeout_ms(CHANGE_TIMEOUT_MS);
    if connection.version_of::<DeleteTopicsRequest>()? >= DELETE_BY_STATE_VERSION {
        request.topics = vec![DeleteTopicState::default().with_name(Some(TopicName(text(name))))];
    } else {
        request.topic_names = vec![TopicName(text(name))];
    }
    let reply = connection.call(&request).await?;
    for result in &reply.responses {
        check(result.error_code, result.error_message.as_deref(), || format!("delete topic {name}"))?;
    }
    Ok(())
}

/// Gives a topic more partitions: `count` in all.
pub async fn add_partitions(connection: &Connection, name: &str, count: i32) -> Result<(), Error> {
    let wanted = CreatePartitionsTopic::default()
        .with_name(TopicName(text(name)))
        .with_count(count)
        .with_assignments(None);
    let request =
        CreatePartitionsRequest::default().with_topics(vec![wanted]).with_timeout_ms(CHANGE_TIMEOUT_MS);
    let reply = connection.call(&request).await?;
    for result in &reply.results {
        let what = || format!("add partitions to topic {name}");
        check(result.error_code, result.error_message.as_deref(), what)?;
    }
    Ok(())
}

/// The topics named, or all, by name. A name that does not exist is an error.
pub async fn describe(connection: &Connection, names: Option<&[String]>) -> Result<Vec<Topic>, Error> {
    let wanted = names.map(|names| {
        names
            .iter()
            .map(|name| MetadataRequestTopic::default().with_name(Some(TopicName(text(name)))))
            .collect()
    });
    let request = MetadataRequest::default().with_topics(wanted).with_allow_auto_topic_creation(false);
    let reply = connection.call(&request).await?;
    let mut topics = reply.topics.iter().map(topic).collect::<Result<Vec<_>, _>>()?;
    topics.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(topics)
}

fn topic(found: &MetadataResponseTopic) -> Result<Topic, Error> {
    let name = found.name.as_ref().map_or_else(String::new, |name| name.0.to_string());
    check(found.error_code, None, || format!("describe topic {name}"))?;
    let mut partitions: Vec<Partition> = found
        .partitions
        .iter()
        .map(|partition| Partition {
            index: partition.partition_index,
            leader: Some(partition.leader_id.0).filter(|leader| *leader >= 0),
            replicas: ids(&partition.replica_nodes),
            in_sync: ids(&partition.isr_nodes),
            eligible: None,
            last_eligible: None,
        })
        .collect();
    partitions.sort_by_key(|partition| partition.index);
    Ok(Topic { name, id: TopicId(found.topic_id).to_string(), internal: found.is_internal, partitions })
}

/// The topics named, by name, with all that a broker tells of their partitions.
pub async fn describe_in_full(connection: &Connection, names: &[String]) -> Result<Vec<Topic>, Error> {
    if names.is_empty() || connection.version_of::<DescribeTopicPartitionsRequest>().is_err() {
        return describe(connection, Some(names)).await;
    }
    let wanted = names.iter().map(|name| TopicRequest::default().with_name(TopicName(text(name))));
    let mut request = DescribeTopicPartitionsRequest::default()
        .with_topics(wanted.collect())
        .with_response_partition_limit(PARTITIONS_AT_ONCE);
    let mut found: BTreeMap<String, Topic> = BTreeMap::new();
    loop {
        let reply = connection.call(&request).await?;
        for part in &reply.topics {
            let name = part.name.as_ref().map_or_else(String::new, |name| name.0.to_string());
            check(part.error_code, None, || format!("describe topic {name}"))?;
            let topic = found.entry(name.clone()).or_insert_with(|| Topic {
                name,
                id: TopicId(part.topic_id).to_string(),
                internal: part.is_internal,
                partitions: Vec::new(),
            });
            topic.partitions.extend(part.partitions.iter().map(partition_in_full));
        }
        let Some(next) = reply.next_cursor else { break };
        let next = (next.topic_name, next.partition_index);
        // A broker that does not go forward would never end.
        let before =
            request.cursor.as_ref().map(|cursor| (cursor.topic_name.clone(), cursor.partition_index));
        if before.is_some_and(|before| before >= next) {
            return Err(Error::Records(format!(
                "the description of topics repeats itself at {}",
                next.0.as_str()
            )));
        }
        request.cursor = Some(Cursor::default().with_topic_name(next.0).with_partition_index(next.1));
    }
    let mut topics: Vec<Topic> = found.into_values().collect();
    for topic in &mut topics {
        topic.partitions.sort_by_key(|partition| partition.index);
    }
    Ok(topics)
}

fn partition_in_full(found: &DescribeTopicPartitionsResponsePartition) -> Partition {
    let known = |brokers: &Option<Vec<BrokerId>>| Some(brokers.as_deref().map_or_else(Vec::new, ids));
    Partition {
        index: found.partition_index,
        leader: Some(found.leader_id.0).filter(|leader| *leader >= 0),
        replicas: ids(&found.replica_nodes),
        in_sync: ids(&found.isr_nodes),
        eligible: known(&found.eligible_leader_replicas),
        last_eligible: known(&found.last_known_elr),
    }
}

/// Deletes the records before an offset in each of the partitions of a topic, -1 for all; tells the first offsets that are
/// left, or why not.
pub async fn delete_records(
    cluster: &Cluster,
    topic: &str,
    before: &BTreeMap<i32, i64>,
) -> Result<BTreeMap<i32, Result<i64, Error>>, Error> {
    let ask = async || {
        let route = cluster.find(topic, false).await?;
        let mut ended = BTreeMap::new();
        let mut leaders: BTreeMap<&str, Vec<DeleteRecordsPartition>> = BTreeMap::new();
        for (partition, offset) in before {
            match route.leader(*partition) {
                Ok(leader) => {
                    let partition = DeleteRecordsPartition::default()
                        .with_partition_index(*partition)
                        .with_offset(*offset);
                    leaders.entry(leader).or_default().push(partition);
                }
                Err(error) => drop(ended.insert(*partition, Err(error))),
            }
        }
        for (leader, partitions) in leaders {
            let wanted = DeleteRecordsTopic::default().with_name(route.topic()).with_partitions(partitions);
            let request =
                DeleteRecordsRequest::default().with_topics(vec![wanted]).with_timeout_ms(CHANGE_TIMEOUT_MS);
            let reply = cluster.at(leader).await?.call(&request).await?;
            for result in reply.topics.iter().flat_map(|topic| &topic.partitions) {
                let index = result.partition_index;
                let done = check(result.error_code, None, || {
                    format!("delete records of partition {index} of topic {topic}")
                });
                ended.insert(index, done.map(|()| result.low_watermark));
            }
        }
        Ok(ended)
    };
    cluster.retry.run(ask).await
}

fn ids(brokers: &[BrokerId]) -> Vec<i32> {
    brokers.iter().map(|broker| broker.0).collect()
}

pub(crate) fn text(value: &str) -> StrBytes {
    StrBytes::from_string(value.to_owned())
}

#[cfg(test)]
mod tests {
    use firn_protocol::library::messages::metadata_response::MetadataResponsePartition;

    use super::*;

    #[test]
    fn partitions_come_in_order_and_may_lack_a_leader() {
        let partition = |index, leader| {
            MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(leader))
        };
        let found = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text("orders"))))
            .with_partitions(vec![partition(1, -1), partition(0, 4)]);
        let told = topic(&found).unwrap();
        assert_eq!(told.id, "A".repeat(22));
        assert_eq!(
            told.partitions.iter().map(|found| (found.index, found.leader)).collect::<Vec<_>>(),
            [(0, Some(4)), (1, None)]
        );
        let refused = topic(&found.with_error_code(3)).unwrap_err().to_string();
        assert_eq!(
            refused,
            "cannot describe topic orders: there is no such topic or partition (UnknownTopicOrPartition)"
        );
    }
}
