//! Brokers, as an administrator sees them: which there are, which vote, what is on its way between them, and which are put out.

use std::collections::BTreeSet;

use firn_model::ids::METADATA_TOPIC;
use firn_protocol::library::messages::describe_quorum_request::{PartitionData, TopicData};
use firn_protocol::library::messages::{
    BrokerId, DescribeClusterRequest, DescribeQuorumRequest, ListPartitionReassignmentsRequest, TopicName,
    UnregisterBrokerRequest,
};

use crate::cluster::Broker;
use crate::connection::Connection;
use crate::error::{Error, check};
use crate::topics::text;

/// How long the controller may take, in milliseconds; below the deadline of a call.
const TIMEOUT_MS: i32 = 20_000;

/// From here on brokers that are fenced are told, too (KIP-1073).
const FENCED_VERSION: i16 = 2;

/// A broker that is registered, whether it is there or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    pub broker: Broker,
    /// The controller does not hear it, or has not let it in yet: nobody is sent to it.
    pub is_fenced: bool,
}

/// All brokers that are registered, by id; of a cluster older than Kafka 4.0 those that are there.
pub async fn registered(connection: &Connection) -> Result<Vec<Registered>, Error> {
    let tells_fenced = connection.version_of::<DescribeClusterRequest>()? >= FENCED_VERSION;
    let request = DescribeClusterRequest::default().with_include_fenced_brokers(tells_fenced);
    let reply = connection.call(&request).await?;
    let what = || "describe the cluster".to_owned();
    check(reply.error_code, reply.error_message.as_deref(), what)?;
    let mut all: Vec<Registered> = reply
        .brokers
        .iter()
        .map(|found| Registered {
            broker: Broker {
                id: found.broker_id.0,
                address: format!("{}:{}", found.host, found.port),
                rack: found.rack.as_ref().map(ToString::to_string),
            },
            is_fenced: found.is_fenced,
        })
        .collect();
    all.sort_by_key(|registered| registered.broker.id);
    Ok(all)
}

/// The brokers that have a vote on the metadata (KIP-595).
pub async fn voters(connection: &Connection) -> Result<BTreeSet<i32>, Error> {
    let partition = PartitionData::default().with_partition_index(0);
    let topic = TopicData::default()
        .with_topic_name(TopicName(text(METADATA_TOPIC)))
        .with_partitions(vec![partition]);
    let reply = connection.call(&DescribeQuorumRequest::default().with_topics(vec![topic])).await?;
    let what = || "describe the quorum".to_owned();
    check(reply.error_code, reply.error_message.as_deref(), what)?;
    let mut voters = BTreeSet::new();
    for partition in reply.topics.iter().flat_map(|topic| &topic.partitions) {
        check(partition.error_code, partition.error_message.as_deref(), what)?;
        voters.extend(partition.current_voters.iter().map(|voter| voter.replica_id.0));
    }
    Ok(voters)
}

/// Partitions whose replicas move.
pub async fn moving(connection: &Connection) -> Result<BTreeSet<(String, i32)>, Error> {
    let request = ListPartitionReassignmentsRequest::default().with_timeout_ms(TIMEOUT_MS).with_topics(None);
    let reply = connection.call(&request).await?;
    let what = || "list the partitions that move".to_owned();
    check(reply.error_code, reply.error_message.as_deref(), what)?;
    let of = |topic: &str, index: i32| (topic.to_owned(), index);
    let topics = reply.topics.iter();
    Ok(topics
        .flat_map(|topic| topic.partitions.iter().map(|partition| of(&topic.name, partition.partition_index)))
        .collect())
}

/// Puts a broker out of the cluster that has stopped for good.
pub async fn unregister(connection: &Connection, broker_id: i32) -> Result<(), Error> {
    let request = UnregisterBrokerRequest::default().with_broker_id(BrokerId(broker_id));
    let reply = connection.call(&request).await?;
    let what = || format!("unregister broker {broker_id}");
    check(reply.error_code, reply.error_message.as_deref(), what)
}
