//! Consumer groups: who leads them, who is in them, and what they have read. The rules are `firn_coordinators`'.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use firn_coordinators::error::GroupError;
use firn_coordinators::partitioning::partition_for;
use firn_coordinators::requests::{
    JoinReply, JoinRequest, LeaveRequest, LeavingMember, MemberOfGroup, Reply, SyncRequest,
};
use firn_metadata::decide::DecisionError;
use firn_metadata::decide::create_topics::NewTopic;
use firn_metadata::image::NO_LEADER;
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::delete_groups_response::DeletableGroupResult;
use firn_protocol::library::messages::describe_groups_response::{
    DescribedGroup as DescribedGroupRow, DescribedGroupMember,
};
use firn_protocol::library::messages::find_coordinator_response::Coordinator;
use firn_protocol::library::messages::join_group_response::JoinGroupResponseMember;
use firn_protocol::library::messages::leave_group_response::MemberResponse;
use firn_protocol::library::messages::list_groups_response::ListedGroup as ListedGroupRow;
use firn_protocol::library::messages::{
    ApiKey, BrokerId, DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest,
    DescribeGroupsResponse, FindCoordinatorRequest, FindCoordinatorResponse, GroupId, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, LeaveGroupResponse,
    ListGroupsRequest, ListGroupsResponse, SyncGroupRequest, SyncGroupResponse,
};
use firn_protocol::library::protocol::StrBytes;

use crate::api::authorized::{Resource, operations};
use crate::api::distinct::distinct;
use crate::api::errors::Failure;
use crate::api::topics::ask_for_topics;
use crate::api::{Answer, ApiError, reply};
use crate::connection::Peer;
use crate::context::Context;
use crate::coordinator_runtime::OFFSETS_TOPIC;

/// Kinds of coordinators (FindCoordinator's key type).
const KEY_TYPE_GROUP: i8 = 0;

fn text(value: impl Into<String>) -> StrBytes {
    StrBytes::from_string(value.into())
}

/// Bytes that outlive their request: a slice would keep the whole frame.
fn kept(bytes: &Bytes) -> Bytes {
    Bytes::copy_from_slice(bytes)
}

fn optional(value: Option<String>) -> Option<StrBytes> {
    value.map(StrBytes::from_string)
}

fn code(error: Option<GroupError>) -> i16 {
    error.map_or(0, GroupError::code)
}

/// The partition of `__consumer_offsets` that holds a group.
pub(super) fn shard_of(context: &Context, group: &str) -> i32 {
    let count = context.controller.image().topic(OFFSETS_TOPIC).map_or(0, |topic| topic.partitions.len());
    partition_for(group, i32::try_from(count).unwrap_or(i32::MAX))
}

pub async fn find_coordinator(
    context: &Arc<Context>,
    peer: &Peer,
    request: Request,
) -> Result<Answer, ApiError> {
    let asked: FindCoordinatorRequest = request.decode(ApiKey::FindCoordinator)?;
    let found = if asked.key_type == KEY_TYPE_GROUP {
        ensure_offsets_topic(context).await
    } else {
        let message =
            format!("Coordinators of type {} are not served yet: only those of groups are", asked.key_type);
        Err(Failure::new(ResponseError::InvalidRequest, message))
    };
    let image = context.controller.image();
    let find = |key: &str| -> Result<(i32, StrBytes, i32), Failure> {
        found.clone()?;
        let shard = image.topic(OFFSETS_TOPIC).and_then(|topic| topic.partition(shard_of(context, key)));
        let leader = shard.map_or(NO_LEADER, |partition| partition.leader);
        let broker = image.broker(leader).filter(|broker| !broker.fenced);
        let endpoint = broker.and_then(|broker| broker.endpoint(&peer.listener)).ok_or_else(|| {
            let message = format!("Nobody leads the partition of {OFFSETS_TOPIC} that has it");
            Failure::new(ResponseError::CoordinatorNotAvailable, message)
        })?;
        Ok((leader, text(endpoint.host.clone()), i32::from(endpoint.port)))
    };
    let body = if request.header.api_version >= 4 {
        let coordinators = asked.coordinator_keys.into_iter().map(|key| {
            let row = Coordinator::default();
            let row = match find(&key) {
                Ok((node, host, port)) => row.with_node_id(BrokerId(node)).with_host(host).with_port(port),
                Err(failure) => row
                    .with_node_id(BrokerId(NO_LEADER))
                    .with_port(-1)
                    .with_error_code(failure.code.code())
                    .with_error_message(failure.text()),
            };
            row.with_key(key)
        });
        FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
    } else {
        let body = FindCoordinatorResponse::default();
        match find(&asked.key) {
            Ok((node, host, port)) => body.with_node_id(BrokerId(node)).with_host(host).with_port(port),
            Err(failure) => {
                let body =
                    body.with_node_id(BrokerId(NO_LEADER)).with_port(-1).with_error_code(failure.code.code());
                match request.header.api_version {
                    1.. => body.with_error_message(failure.text()),
                    _ => body,
                }
            }
        }
    };
    reply(ApiKey::FindCoordinator, &request.header, &body)
}

/// Creates `__consumer_offsets` when the first group asks for its coordinator.
async fn ensure_offsets_topic(context: &Context) -> Result<(), Failure> {
    let image = context.controller.image();
    if image.topic(OFFSETS_TOPIC).is_some() {
        return Ok(());
    }
    let config = context.config();
    let others = context.membership.peers().others().count();
    // Who is cordoned gets none.
    let cordoned = image.brokers().filter(|broker| image.is_cordoned(broker.id)).count();
    let brokers = i16::try_from((1 + others).saturating_sub(cordoned).max(1)).unwrap_or(i16::MAX);
    let topic = NewTopic {
        name: OFFSETS_TOPIC.to_owned(),
        num_partitions: config.offsets.topic_num_partitions,
        replication_factor: config.offsets.topic_replication_factor.min(brokers),
        assignments: Vec::new(),
        configs: [
            ("cleanup.policy", "compact".to_owned()),
            ("compression.type", "producer".to_owned()),
            ("segment.bytes", config.offsets.topic_segment_bytes.to_string()),
            ("remote.storage.enable", "false".to_owned()),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), Some(value)))
        .collect(),
    };
    let created = ask_for_topics(context, vec![topic]).await;
    match created.map(|created| created.into_iter().next()) {
        Ok(Some((_, Err(error)))) if !matches!(error, DecisionError::TopicAlreadyExists(_)) => {
            Err(Failure::new(ResponseError::CoordinatorNotAvailable, error.to_string()))
        }
        Ok(_) => Ok(()),
        // Clients ask again, and there may be a controller by then.
        Err(error) => Err(Failure::new(ResponseError::CoordinatorNotAvailable, error.to_string())),
    }
}

pub async fn join(context: &Arc<Context>, peer: &Peer, request: Request) -> Result<Answer, ApiError> {
    let asked: JoinGroupRequest = request.decode(ApiKey::JoinGroup)?;
    let version = request.header.api_version;
    let join = JoinRequest {
        group_id: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        group_instance_id: asked.group_instance_id.as_ref().map(ToString::to_string),
        client_id: request.header.client_id.clone().unwrap_or_default(),
        client_host: format!("/{}", peer.address.ip()),
        require_known_member_id: version >= 4,
        supports_skipping_assignment: version >= 9,
        session_timeout_ms: asked.session_timeout_ms,
        rebalance_timeout_ms: asked.rebalance_timeout_ms,
        protocol_type: asked.protocol_type.to_string(),
        protocols: asked
            .protocols
            .into_iter()
            .map(|one| (one.name.to_string(), kept(&one.metadata)))
            .collect(),
        random: context.environment.random.bits(),
        room: context.groups.room_for_members(),
    };
    let shard = shard_of(context, &join.group_id);
    let member_id = join.member_id.clone();
    let asked = context.groups.ask(shard, |group, now_ms, token| group.join(now_ms, join, token)).await;
    let joined = match asked {
        Ok(Reply::Join(joined)) => joined,
        other => JoinReply {
            error: Some(unexpected(other)),
            generation: -1,
            protocol_type: None,
            protocol_name: None,
            leader: String::new(),
            skip_assignment: false,
            member_id,
            members: Vec::new(),
        },
    };
    reply(ApiKey::JoinGroup, &request.header, &join_response(joined, version))
}

fn join_response(joined: JoinReply, version: i16) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        let row = JoinGroupResponseMember::default()
            .with_member_id(text(member.member_id))
            .with_metadata(member.metadata);
        if version >= 5 { row.with_group_instance_id(optional(member.group_instance_id)) } else { row }
    });
    // Before version 7 the name was not nullable.
    let name =
        if version >= 7 { joined.protocol_name } else { Some(joined.protocol_name.unwrap_or_default()) };
    let mut body = JoinGroupResponse::default()
        .with_error_code(code(joined.error))
        .with_generation_id(joined.generation)
        .with_protocol_name(optional(name))
        .with_leader(text(joined.leader))
        .with_member_id(text(joined.member_id))
        .with_members(members.collect());
    if version >= 7 {
        body = body.with_protocol_type(optional(joined.protocol_type));
    }
    if version >= 9 {
        body = body.with_skip_assignment(joined.skip_assignment);
    }
    body
}

/// The error that stands for a reply of another kind, or for none.
fn unexpected(reply: Result<Reply, GroupError>) -> GroupError {
    reply.err().unwrap_or(GroupError::UnknownServerError)
}

pub async fn sync(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: SyncGroupRequest = request.decode(ApiKey::SyncGroup)?;
    // From version 5 on a member says what it thinks was agreed on (KIP-559).
    if request.header.api_version >= 5 && (asked.protocol_type.is_none() || asked.protocol_name.is_none()) {
        let refused = GroupError::InconsistentGroupProtocol.code();
        return reply(
            ApiKey::SyncGroup,
            &request.header,
            &SyncGroupResponse::default().with_error_code(refused),
        );
    }
    let sync = SyncRequest {
        member: MemberOfGroup {
            group_id: asked.group_id.to_string(),
            member_id: asked.member_id.to_string(),
            group_instance_id: asked.group_instance_id.as_ref().map(ToString::to_string),
            generation: asked.generation_id,
        },
        protocol_type: asked.protocol_type.as_ref().map(ToString::to_string),
        protocol_name: asked.protocol_name.as_ref().map(ToString::to_string),
        assignments: asked
            .assignments
            .into_iter()
            .map(|one| (one.member_id.to_string(), kept(&one.assignment)))
            .collect(),
    };
    let shard = shard_of(context, &sync.member.group_id);
    let synced = context.groups.ask(shard, |group, now_ms, token| group.sync(now_ms, sync, token)).await;
    let body = match synced {
        Ok(Reply::Sync(Ok(assigned))) => {
            let body = SyncGroupResponse::default().with_assignment(assigned.assignment);
            if request.header.api_version >= 5 {
                body.with_protocol_type(optional(assigned.protocol_type))
                    .with_protocol_name(optional(assigned.protocol_name))
            } else {
                body
            }
        }
        Ok(Reply::Sync(Err(error))) => SyncGroupResponse::default().with_error_code(error.code()),
        other => SyncGroupResponse::default().with_error_code(unexpected(other).code()),
    };
    reply(ApiKey::SyncGroup, &request.header, &body)
}

pub async fn heartbeat(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: HeartbeatRequest = request.decode(ApiKey::Heartbeat)?;
    let member = MemberOfGroup {
        group_id: asked.group_id.to_string(),
        member_id: asked.member_id.to_string(),
        group_instance_id: asked.group_instance_id.as_ref().map(ToString::to_string),
        generation: asked.generation_id,
    };
    let shard = shard_of(context, &member.group_id);
    let beaten =
        context.groups.ask(shard, |group, now_ms, token| group.heartbeat(now_ms, member, token)).await;
    let error = match beaten {
        Ok(Reply::Heartbeat(outcome)) => outcome.err(),
        other => Some(unexpected(other)),
    };
    reply(ApiKey::Heartbeat, &request.header, &HeartbeatResponse::default().with_error_code(code(error)))
}

pub async fn leave(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: LeaveGroupRequest = request.decode(ApiKey::LeaveGroup)?;
    let version = request.header.api_version;
    let members = if version >= 3 {
        let member =
            |member: &firn_protocol::library::messages::leave_group_request::MemberIdentity| LeavingMember {
                member_id: member.member_id.to_string(),
                group_instance_id: member.group_instance_id.as_ref().map(ToString::to_string),
            };
        asked.members.iter().map(member).collect()
    } else {
        vec![LeavingMember { member_id: asked.member_id.to_string(), group_instance_id: None }]
    };
    let leave = LeaveRequest { group_id: asked.group_id.to_string(), members };
    let shard = shard_of(context, &leave.group_id);
    let left = context.groups.ask(shard, |group, now_ms, token| group.leave(now_ms, leave, token)).await;
    let body = match left {
        // Old versions name one member, and its error is the reply's.
        Ok(Reply::Leave(Ok(outcomes))) if version < 3 => {
            let error = outcomes.first().and_then(|outcome| outcome.error);
            LeaveGroupResponse::default().with_error_code(code(error))
        }
        Ok(Reply::Leave(Ok(outcomes))) => {
            let members = outcomes.into_iter().map(|outcome| {
                MemberResponse::default()
                    .with_member_id(text(outcome.member_id))
                    .with_group_instance_id(optional(outcome.group_instance_id))
                    .with_error_code(code(outcome.error))
            });
            LeaveGroupResponse::default().with_members(members.collect())
        }
        Ok(Reply::Leave(Err(error))) => LeaveGroupResponse::default().with_error_code(error.code()),
        other => LeaveGroupResponse::default().with_error_code(unexpected(other).code()),
    };
    reply(ApiKey::LeaveGroup, &request.header, &body)
}

pub async fn list(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: ListGroupsRequest = request.decode(ApiKey::ListGroups)?;
    let version = request.header.api_version;
    let words = |filter: &[StrBytes]| filter.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (states, types) = (words(&asked.states_filter), words(&asked.types_filter));
    let mut groups = Vec::new();
    let mut error = None;
    for shard in context.groups.led() {
        match context.groups.ask(shard, |group, _, token| group.list(&states, &types, token)).await {
            Ok(Reply::List(listed)) => groups.extend(listed),
            other => error = Some(unexpected(other)),
        }
    }
    let rows = groups.into_iter().map(|group| {
        let mut row = ListedGroupRow::default()
            .with_group_id(GroupId(text(group.group_id)))
            .with_protocol_type(text(group.protocol_type));
        if version >= 4 {
            row = row.with_group_state(StrBytes::from_static_str(group.state.name()));
        }
        if version >= 5 {
            row = row.with_group_type(StrBytes::from_static_str("classic"));
        }
        row
    });
    let body = ListGroupsResponse::default().with_error_code(code(error)).with_groups(rows.collect());
    reply(ApiKey::ListGroups, &request.header, &body)
}

/// Groups of a request by the shard that holds them.
fn by_shard(context: &Context, groups: &[GroupId]) -> BTreeMap<i32, Vec<String>> {
    let mut by_shard: BTreeMap<i32, Vec<String>> = BTreeMap::new();
    for group in distinct(groups, |group| *group) {
        by_shard.entry(shard_of(context, group)).or_default().push(group.to_string());
    }
    by_shard
}

pub async fn describe(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: DescribeGroupsRequest = request.decode(ApiKey::DescribeGroups)?;
    let version = request.header.api_version;
    let mut rows = Vec::with_capacity(asked.groups.len());
    for (shard, groups) in by_shard(context, &asked.groups) {
        match context.groups.ask(shard, |group, _, token| group.describe(&groups, token)).await {
            Ok(Reply::Describe(described)) => {
                rows.extend(
                    described
                        .into_iter()
                        .map(|group| described_row(group, version, asked.include_authorized_operations)),
                );
            }
            other => {
                let error = unexpected(other);
                rows.extend(groups.into_iter().map(|group| {
                    DescribedGroupRow::default()
                        .with_group_id(GroupId(text(group)))
                        .with_error_code(error.code())
                }));
            }
        }
    }
    let body = DescribeGroupsResponse::default().with_groups(rows);
    reply(ApiKey::DescribeGroups, &request.header, &body)
}

fn described_row(
    group: firn_coordinators::requests::DescribedGroup,
    version: i16,
    asks_operations: bool,
) -> DescribedGroupRow {
    let members = group.members.into_iter().map(|member| {
        let row = DescribedGroupMember::default()
            .with_member_id(text(member.member_id))
            .with_client_id(text(member.client_id))
            .with_client_host(text(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment);
        if version >= 4 { row.with_group_instance_id(optional(member.group_instance_id)) } else { row }
    });
    let mut row = DescribedGroupRow::default()
        .with_group_id(GroupId(text(group.group_id)))
        .with_group_state(StrBytes::from_static_str(group.state.name()))
        .with_protocol_type(text(group.protocol_type))
        .with_protocol_data(text(group.protocol))
        .with_members(members.collect());
    if version >= 3 {
        row = row.with_authorized_operations(operations(Resource::Group, asks_operations));
    }
    // That a group does not exist is an error from version 6 on; before, it is simply dead.
    if version >= 6 {
        row = row
            .with_error_code(code(group.error))
            .with_error_message(group.error.map(|error| text(error.to_string())));
    }
    row
}

pub async fn delete(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: DeleteGroupsRequest = request.decode(ApiKey::DeleteGroups)?;
    let mut rows = Vec::with_capacity(asked.groups_names.len());
    for (shard, groups) in by_shard(context, &asked.groups_names) {
        let names = groups.clone();
        let outcomes =
            match context.groups.ask(shard, |group, _, token| group.delete_groups(names, token)).await {
                Ok(Reply::DeleteGroups(outcomes)) => outcomes,
                other => {
                    let error = unexpected(other);
                    groups.into_iter().map(|group| (group, Some(error))).collect()
                }
            };
        rows.extend(outcomes.into_iter().map(|(group, error)| {
            DeletableGroupResult::default().with_group_id(GroupId(text(group))).with_error_code(code(error))
        }));
    }
    let body = DeleteGroupsResponse::default().with_results(rows);
    reply(ApiKey::DeleteGroups, &request.header, &body)
}
