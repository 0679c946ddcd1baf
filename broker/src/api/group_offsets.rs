//! What groups have read: OffsetCommit, OffsetFetch, OffsetDelete.

use std::collections::HashSet;
use std::sync::Arc;

use firn_coordinators::error::GroupError;
use firn_coordinators::requests::{
    CommitRequest, DeleteOffsetsRequest, FetchRequest, FetchedOffset, MemberOfGroup, OffsetToCommit,
    PartitionOutcome, Reply,
};
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use firn_protocol::library::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use firn_protocol::library::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use firn_protocol::library::messages::{
    ApiKey, GroupId, OffsetCommitRequest, OffsetCommitResponse, OffsetDeleteRequest, OffsetDeleteResponse,
    OffsetFetchRequest, OffsetFetchResponse, TopicName,
};
use firn_protocol::library::protocol::StrBytes;

use crate::api::groups::shard_of;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use crate::milliseconds::milliseconds;

/// The first version of OffsetFetch that asks for several groups.
const SEVERAL_GROUPS_SINCE: i16 = 8;

/// The first version of OffsetCommit whose client knows that a group may not be there.
const GROUP_NOT_FOUND_SINCE: i16 = 9;

fn topic_name(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

fn code(error: Option<GroupError>) -> i16 {
    error.map_or(0, GroupError::code)
}

/// Rows of topics, from what is known of their partitions: neighbours of one topic go together.
fn by_topic<T>(all: impl IntoIterator<Item = (String, T)>) -> Vec<(String, Vec<T>)> {
    let mut topics: Vec<(String, Vec<T>)> = Vec::new();
    for (topic, one) in all {
        match topics.last_mut() {
            Some((last, partitions)) if *last == topic => partitions.push(one),
            _ => topics.push((topic, vec![one])),
        }
    }
    topics
}

pub async fn commit(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: OffsetCommitRequest = request.decode(ApiKey::OffsetCommit)?;
    let member = MemberOfGroup {
        group_id: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        group_instance_id: asked.group_instance_id.as_ref().map(ToString::to_string),
        generation: asked.generation_id_or_member_epoch,
    };
    let image = context.controller.image();
    let mut offsets = Vec::new();
    let mut rows: Vec<(String, (i32, i16))> = Vec::new();
    for topic in &asked.topics {
        for partition in &topic.partitions {
            let name = topic.name.to_string();
            // An offset of a partition that does not exist would never be forgotten.
            let known =
                image.topic(&name).filter(|topic| topic.partition(partition.partition_index).is_some());
            let Some(known) = known else {
                rows.push((name, (partition.partition_index, ResponseError::UnknownTopicOrPartition.code())));
                continue;
            };
            offsets.push(OffsetToCommit {
                topic: name.clone(),
                topic_id: known.id,
                partition: partition.partition_index,
                offset: partition.committed_offset,
                leader_epoch: partition.committed_leader_epoch,
                metadata: partition.committed_metadata.as_ref().map(ToString::to_string),
            });
        }
    }
    let commit = CommitRequest {
        member,
        retention_time_ms: (asked.retention_time_ms >= 0).then_some(asked.retention_time_ms),
        offsets: offsets.clone(),
    };
    let shard = shard_of(context, &commit.member.group_id);
    let patience = milliseconds(context.config().offsets.commit_timeout_ms);
    let outcomes = match context
        .groups
        .ask_within(patience, shard, |group, now_ms, token| group.commit_offsets(now_ms, commit, token))
        .await
    {
        Ok(Reply::Commit(outcomes)) => outcomes,
        other => {
            let error = other.err().unwrap_or(GroupError::UnknownServerError);
            let outcome = |one: OffsetToCommit| PartitionOutcome {
                topic: one.topic,
                partition: one.partition,
                error: Some(error),
            };
            offsets.into_iter().map(outcome).collect()
        }
    };
    let code = |error: Option<GroupError>| match error {
        // To a client from before KIP-848 a group that has gone is a generation that has.
        Some(GroupError::GroupIdNotFound) if request.header.api_version < GROUP_NOT_FOUND_SINCE => {
            GroupError::IllegalGeneration.code()
        }
        error => code(error),
    };
    rows.extend(outcomes.into_iter().map(|one| (one.topic, (one.partition, code(one.error)))));
    rows.sort();
    let topics = by_topic(rows).into_iter().map(|(topic, partitions)| {
        let partitions = partitions.into_iter().map(|(index, error)| {
            OffsetCommitResponsePartition::default().with_partition_index(index).with_error_code(error)
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic_name(&topic))
            .with_partitions(partitions.collect())
    });
    let body = OffsetCommitResponse::default().with_topics(topics.collect());
    reply(ApiKey::OffsetCommit, &request.header, &body)
}

pub async fn fetch(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: OffsetFetchRequest = request.decode(ApiKey::OffsetFetch)?;
    let version = request.header.api_version;
    let body = if version >= SEVERAL_GROUPS_SINCE {
        let mut groups = Vec::with_capacity(asked.groups.len());
        let mut whole = HashSet::new();
        for group in
            asked.groups.iter().filter(|group| group.topics.is_some() || whole.insert(&group.group_id))
        {
            let partitions = group.topics.as_ref().map(|topics| {
                topics.iter().flat_map(|topic| named(&topic.name, &topic.partition_indexes)).collect()
            });
            let found = committed(context, &group.group_id, partitions).await;
            groups.push(group_row(group.group_id.clone(), found));
        }
        OffsetFetchResponse::default().with_groups(groups)
    } else {
        let partitions = asked.topics.as_ref().map(|topics| {
            topics.iter().flat_map(|topic| named(&topic.name, &topic.partition_indexes)).collect()
        });
        single_group(committed(context, &asked.group_id, partitions).await, &asked, version)
    };
    reply(ApiKey::OffsetFetch, &request.header, &body)
}

fn named(topic: &str, partitions: &[i32]) -> Vec<(String, i32)> {
    partitions.iter().map(|partition| (topic.to_owned(), *partition)).collect()
}

/// What a group has committed of these partitions, or of all, as their topics are now.
pub(crate) async fn committed(
    context: &Arc<Context>,
    group_id: &str,
    partitions: Option<Vec<(String, i32)>>,
) -> Result<Vec<FetchedOffset>, GroupError> {
    let everything = partitions.is_none();
    let fetch = FetchRequest { group_id: group_id.to_owned(), partitions };
    let shard = shard_of(context, group_id);
    let asked = context.groups.ask(shard, |group, _, token| group.fetch_offsets(&fetch, token)).await;
    let Reply::Fetch(mut found) = asked? else { return Err(GroupError::UnknownServerError) };
    let image = context.controller.image();
    for one in &mut found {
        let id = image.topic(&one.topic).map(|topic| topic.id);
        one.committed = one.committed.take().filter(|committed| committed.is_of(id));
    }
    if everything {
        found.retain(|one| one.committed.is_some());
    }
    Ok(found)
}

fn group_row(group_id: GroupId, found: Result<Vec<FetchedOffset>, GroupError>) -> OffsetFetchResponseGroup {
    let row = OffsetFetchResponseGroup::default().with_group_id(group_id);
    let found = match found {
        Ok(found) => found,
        Err(error) => return row.with_error_code(error.code()),
    };
    let topics =
        by_topic(found.into_iter().map(|one| (one.topic.clone(), one))).into_iter().map(|(topic, found)| {
            let partitions = found.into_iter().map(|one| {
                let row = OffsetFetchResponsePartitions::default().with_partition_index(one.partition);
                match one.committed {
                    Some(committed) => row
                        .with_committed_offset(committed.offset)
                        .with_committed_leader_epoch(committed.leader_epoch)
                        .with_metadata(Some(StrBytes::from_string(committed.metadata))),
                    None => row.with_committed_offset(-1).with_metadata(Some(StrBytes::default())),
                }
            });
            OffsetFetchResponseTopics::default()
                .with_name(topic_name(&topic))
                .with_partitions(partitions.collect())
        });
    row.with_topics(topics.collect())
}

fn single_group(
    found: Result<Vec<FetchedOffset>, GroupError>,
    asked: &OffsetFetchRequest,
    version: i16,
) -> OffsetFetchResponse {
    let (found, error) = match found {
        Ok(found) => (found, 0),
        // Before version 2 an error goes with each partition.
        Err(error) => {
            let topics = asked.topics.iter().flatten();
            let partitions = topics.flat_map(|topic| named(&topic.name, &topic.partition_indexes));
            let nothing = |(topic, partition)| FetchedOffset { topic, partition, committed: None };
            (partitions.map(nothing).collect(), error.code())
        }
    };
    let topics =
        by_topic(found.into_iter().map(|one| (one.topic.clone(), one))).into_iter().map(|(topic, found)| {
            let partitions = found.into_iter().map(|one| {
                let row = OffsetFetchResponsePartition::default()
                    .with_partition_index(one.partition)
                    .with_error_code(error);
                match one.committed {
                    Some(committed) => {
                        let row = row
                            .with_committed_offset(committed.offset)
                            .with_metadata(Some(StrBytes::from_string(committed.metadata)));
                        if version >= 5 {
                            row.with_committed_leader_epoch(committed.leader_epoch)
                        } else {
                            row
                        }
                    }
                    None => row.with_committed_offset(-1).with_metadata(Some(StrBytes::default())),
                }
            });
            OffsetFetchResponseTopic::default()
                .with_name(topic_name(&topic))
                .with_partitions(partitions.collect())
        });
    let body = OffsetFetchResponse::default().with_topics(topics.collect());
    if version >= 2 { body.with_error_code(error) } else { body }
}

pub async fn delete(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: OffsetDeleteRequest = request.decode(ApiKey::OffsetDelete)?;
    let named = asked.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (topic.name.to_string(), partition.partition_index))
    });
    let image = context.controller.image();
    let exists =
        |topic: &str, index| image.topic(topic).is_some_and(|topic| topic.partition(index).is_some());
    let (known, unknown): (Vec<_>, Vec<_>) = named.partition(|(topic, index)| exists(topic, *index));
    let unknown = unknown.into_iter().map(|(topic, partition)| PartitionOutcome {
        topic,
        partition,
        error: Some(GroupError::UnknownTopicOrPartition),
    });
    let delete = DeleteOffsetsRequest { group_id: asked.group_id.to_string(), partitions: known };
    let shard = shard_of(context, &delete.group_id);
    let deleted = context.groups.ask(shard, |group, _, token| group.delete_offsets(delete, token)).await;
    let body = match deleted {
        Ok(Reply::DeleteOffsets(Ok(outcomes))) => {
            let mut outcomes: Vec<PartitionOutcome> = outcomes.into_iter().chain(unknown).collect();
            outcomes.sort_by(|a, b| (&a.topic, a.partition).cmp(&(&b.topic, b.partition)));
            let rows = by_topic(outcomes.into_iter().map(|one| (one.topic.clone(), one)));
            let topics = rows.into_iter().map(|(topic, outcomes)| {
                let partitions = outcomes.into_iter().map(|one| {
                    OffsetDeleteResponsePartition::default()
                        .with_partition_index(one.partition)
                        .with_error_code(code(one.error))
                });
                OffsetDeleteResponseTopic::default()
                    .with_name(topic_name(&topic))
                    .with_partitions(partitions.collect())
            });
            OffsetDeleteResponse::default().with_topics(topics.collect())
        }
        Ok(Reply::DeleteOffsets(Err(error))) => OffsetDeleteResponse::default().with_error_code(error.code()),
        other => {
            let error = other.err().unwrap_or(GroupError::UnknownServerError);
            OffsetDeleteResponse::default().with_error_code(error.code())
        }
    };
    reply(ApiKey::OffsetDelete, &request.header, &body)
}
