//! The metadata quorum, for those who look after it: DescribeQuorum (KIP-595), AddRaftVoter, RemoveRaftVoter (KIP-853).

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::image::Image;
use firn_model::ids::{METADATA_TOPIC, TopicId};
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::describe_quorum_response::{
    Listener, Node, PartitionData, ReplicaState, TopicData,
};
use firn_protocol::library::messages::{
    AddRaftVoterRequest, AddRaftVoterResponse, ApiKey, BrokerId, DescribeQuorumRequest,
    DescribeQuorumResponse, RemoveRaftVoterRequest, RemoveRaftVoterResponse,
};
use firn_protocol::library::protocol::StrBytes;
use firn_quorum::members::MemberState;
use firn_quorum::types::Member;
use uuid::Uuid;

use crate::api::errors::Failure;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use crate::milliseconds::milliseconds;
use crate::peers::votes::{self, VoteError};

/// How long a client waits at most until a vote is given or taken.
const VOTE_MAX: Duration = Duration::from_secs(10);

pub fn describe(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: DescribeQuorumRequest = request.decode(ApiKey::DescribeQuorum)?;
    let version = request.header.api_version;
    // As in Kafka, it is asked about the metadata's one partition alone.
    let named = asked.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(|partition| (&*topic.topic_name.0, partition.partition_index))
    });
    let is_metadata = named.eq([(METADATA_TOPIC, 0)]);
    let topics = asked.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            let index = partition.partition_index;
            if !is_metadata {
                let error = ResponseError::UnknownTopicOrPartition;
                return PartitionData::default().with_partition_index(index).with_error_code(error.code());
            }
            metadata_partition(context, version)
        });
        TopicData::default().with_topic_name(topic.topic_name.clone()).with_partitions(partitions.collect())
    });
    let mut body = DescribeQuorumResponse::default().with_topics(topics.collect());
    if version >= 2 {
        body = body.with_nodes(nodes(context, &context.controller.image()));
    }
    reply(ApiKey::DescribeQuorum, &request.header, &body)
}

fn metadata_partition(context: &Context, version: i16) -> PartitionData {
    let Some(members) = context.controller.members() else {
        let error = ResponseError::NotLeaderOrFollower;
        return PartitionData::default().with_error_code(error.code());
    };
    let progress = context.controller.progress();
    let now_ms = context.now_ms();
    let states = |members: &[MemberState]| {
        let state = |known: &MemberState| {
            let state = ReplicaState::default()
                .with_replica_id(BrokerId(known.member.broker_id))
                .with_log_end_offset(known.end_offset);
            let state = match version {
                2.. => state.with_replica_directory_id(directory(&known.member.directory_id)),
                _ => state,
            };
            let ago_ms = known.heard_ago.and_then(|ago| i64::try_from(ago.as_millis()).ok());
            let heard_ms = ago_ms.map_or(-1, |ago| now_ms - ago);
            // Since when a member is behind is not known.
            let caught_up_ms = if known.end_offset >= progress.committed { heard_ms } else { -1 };
            match version {
                1.. => state.with_last_fetch_timestamp(heard_ms).with_last_caught_up_timestamp(caught_up_ms),
                _ => state,
            }
        };
        members.iter().map(state).collect()
    };
    PartitionData::default()
        .with_leader_id(BrokerId(context.node_id))
        .with_leader_epoch(i32::try_from(progress.term).unwrap_or(i32::MAX))
        .with_high_watermark(progress.committed)
        .with_current_voters(states(&members.voters))
        .with_observers(states(&members.observers))
}

/// Gives a broker a vote that follows the metadata.
pub async fn add_voter(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: AddRaftVoterRequest = request.decode(ApiKey::AddRaftVoter)?;
    let patience = milliseconds(asked.timeout_ms).min(VOTE_MAX);
    let member = member(context, asked.cluster_id, asked.voter_id, asked.voter_directory_id);
    let added = match member {
        Ok(member) => votes::add(&context.membership, member, patience).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    let body = AddRaftVoterResponse::default().with_error_message(None);
    let body = match added {
        Ok(()) => body,
        Err(failure) => body.with_error_code(failure.code.code()).with_error_message(failure.text()),
    };
    reply(ApiKey::AddRaftVoter, &request.header, &body)
}

/// Takes a broker's vote: it follows the metadata from then on.
pub async fn remove_voter(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: RemoveRaftVoterRequest = request.decode(ApiKey::RemoveRaftVoter)?;
    let member = member(context, asked.cluster_id, asked.voter_id, asked.voter_directory_id);
    let removed = match member {
        Ok(member) => votes::remove(&context.membership, member, VOTE_MAX).await.map_err(Failure::from),
        Err(failure) => Err(failure),
    };
    let body = RemoveRaftVoterResponse::default().with_error_message(None);
    let body = match removed {
        Ok(()) => body,
        Err(failure) => body.with_error_code(failure.code.code()).with_error_message(failure.text()),
    };
    reply(ApiKey::RemoveRaftVoter, &request.header, &body)
}

/// Who is meant, if it is of this cluster.
fn member(
    context: &Context,
    cluster_id: Option<StrBytes>,
    broker_id: i32,
    directory_id: Uuid,
) -> Result<Member, Failure> {
    match cluster_id.filter(|id| **id != *context.cluster_id) {
        Some(other) => {
            let message = format!("This cluster is {}, and not {}", context.cluster_id, &*other);
            Err(Failure::new(ResponseError::InconsistentClusterId, message))
        }
        None => Ok(Member { broker_id, directory_id: TopicId(directory_id).to_string() }),
    }
}

impl From<VoteError> for Failure {
    fn from(error: VoteError) -> Self {
        let code = match error {
            VoteError::Propose(error) => return Self::from(error),
            VoteError::NotFound { .. } => ResponseError::VoterNotFound,
            VoteError::Duplicate(_) => ResponseError::DuplicateVoter,
            VoteError::Last(_) => ResponseError::InvalidRequest,
            VoteError::TimedOut(_) => ResponseError::RequestTimedOut,
        };
        Self::new(code, error.to_string())
    }
}

/// A directory's id as the protocol has it; all zeroes if it is none.
fn directory(id: &str) -> Uuid {
    TopicId::parse(id).map_or(Uuid::nil(), |id| id.0)
}

/// Where the members are reached, as far as they have registered.
fn nodes(context: &Context, image: &Image) -> Vec<Node> {
    let members = context.controller.members().map_or_else(Vec::new, |members| members.voters);
    let ids: BTreeSet<i32> = members.iter().map(|known| known.member.broker_id).collect();
    let node = |id: i32| {
        let listeners = image.broker(id)?.endpoints.iter().map(|endpoint| {
            Listener::default()
                .with_name(StrBytes::from_string(endpoint.listener.clone()))
                .with_host(StrBytes::from_string(endpoint.host.clone()))
                .with_port(endpoint.port)
        });
        Some(Node::default().with_node_id(BrokerId(id)).with_listeners(listeners.collect()))
    };
    ids.into_iter().filter_map(node).collect()
}
