//! Brokers, as an administrator sees them: what is on its way between them, and which are put out.

use std::collections::BTreeSet;

use firn_protocol::library::messages::{
    BrokerId, ListPartitionReassignmentsRequest, UnregisterBrokerRequest,
};

use crate::connection::Connection;
use crate::error::{Error, check};

/// How long the controller may take, in milliseconds; below the deadline of a call.
const TIMEOUT_MS: i32 = 20_000;

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
