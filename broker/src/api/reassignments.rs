//! Where partitions are to be: AlterPartitionReassignments and ListPartitionReassignments (KIP-455, KIP-860). The decisions are
//! `firn_metadata`'s.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use firn_metadata::decide::partitions::Rules;
use firn_metadata::decide::reassignments::{Reassignment, alter_reassignments};
use firn_metadata::image::{Image, Topic};
use firn_protocol::frame::Request;
use firn_protocol::library::messages::alter_partition_reassignments_response::{
    ReassignablePartitionResponse, ReassignableTopicResponse,
};
use firn_protocol::library::messages::list_partition_reassignments_response::{
    OngoingPartitionReassignment, OngoingTopicReassignment,
};
use firn_protocol::library::messages::{
    AlterPartitionReassignmentsRequest, AlterPartitionReassignmentsResponse, ApiKey, BrokerId,
    ListPartitionReassignmentsRequest, ListPartitionReassignmentsResponse, TopicName,
};
use firn_protocol::library::protocol::StrBytes;

use crate::api::errors::Failure;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;

pub async fn alter(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let alter: AlterPartitionReassignmentsRequest = request.decode(ApiKey::AlterPartitionReassignments)?;
    let ids = |ids: &Vec<BrokerId>| ids.iter().map(|id| id.0).collect();
    let asked = alter.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |partition| Reassignment {
            topic: topic.name.to_string(),
            partition: partition.partition_index,
            replicas: partition.replicas.as_ref().map(ids),
        })
    });
    let asked: Vec<Reassignment> = asked.collect();
    let may_change_factor = alter.allow_replication_factor_change;
    let config = context.config();
    let decide =
        |image: &Image| Ok(alter_reassignments(image, Rules { config: &config }, &asked, may_change_factor));
    let body = AlterPartitionReassignmentsResponse::default();
    let body = match request.header.api_version {
        1.. => body.with_allow_replication_factor_change(may_change_factor),
        _ => body,
    };
    let body = match context.controller.propose(decide).await {
        Ok(decided) => {
            let begun = decided.iter().filter(|one| one.is_ok()).count();
            tracing::info!(begun, asked = asked.len(), "partitions are to move, or are to move no more");
            let mut decided = decided.into_iter();
            let responses = alter.topics.iter().map(|topic| {
                let rows = topic.partitions.iter().zip(decided.by_ref()).map(|(partition, decided)| {
                    let row = ReassignablePartitionResponse::default()
                        .with_partition_index(partition.partition_index)
                        .with_error_message(None);
                    match decided.map_err(Failure::from) {
                        Ok(()) => row,
                        Err(failure) => {
                            row.with_error_code(failure.code.code()).with_error_message(failure.text())
                        }
                    }
                });
                ReassignableTopicResponse::default()
                    .with_name(topic.name.clone())
                    .with_partitions(rows.collect())
            });
            body.with_error_message(None).with_responses(responses.collect())
        }
        Err(error) => {
            let failure = Failure::from(error);
            body.with_error_code(failure.code.code()).with_error_message(failure.text())
        }
    };
    reply(ApiKey::AlterPartitionReassignments, &request.header, &body)
}

pub fn list(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: ListPartitionReassignmentsRequest = request.decode(ApiKey::ListPartitionReassignments)?;
    let image = context.controller.image();
    let topics = match asked.topics {
        None => image.topics().filter_map(|topic| ongoing(topic, |_| true)).collect(),
        Some(topics) => {
            let mut named: BTreeMap<String, BTreeSet<i32>> = BTreeMap::new();
            for topic in topics {
                named.entry(topic.name.to_string()).or_default().extend(topic.partition_indexes);
            }
            let found = named
                .into_iter()
                .filter_map(|(name, indexes)| ongoing(image.topic(&name)?, |index| indexes.contains(&index)));
            found.collect()
        }
    };
    let body = ListPartitionReassignmentsResponse::default().with_error_message(None).with_topics(topics);
    reply(ApiKey::ListPartitionReassignments, &request.header, &body)
}

/// Those of a topic's partitions that move; `None` if none does.
fn ongoing(topic: &Topic, is_asked_for: impl Fn(i32) -> bool) -> Option<OngoingTopicReassignment> {
    let ids = |ids: &[i32]| ids.iter().map(|id| BrokerId(*id)).collect();
    let moving = (0i32..).zip(&topic.partitions).filter(|(_, partition)| partition.is_reassigning());
    let rows = moving.filter(|(index, _)| is_asked_for(*index)).map(|(index, partition)| {
        OngoingPartitionReassignment::default()
            .with_partition_index(index)
            .with_replicas(ids(&partition.replicas))
            .with_adding_replicas(ids(&partition.adding_replicas))
            .with_removing_replicas(ids(&partition.removing_replicas))
    });
    let rows: Vec<_> = rows.collect();
    let name = TopicName(StrBytes::from_string(topic.name.to_string()));
    (!rows.is_empty()).then(|| OngoingTopicReassignment::default().with_name(name).with_partitions(rows))
}
