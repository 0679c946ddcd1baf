//! From a request's frame to its reply: parse, look up the API, hand over, encode.
//!
//! Each API is a file of this folder and thin: it decodes, asks the part that knows, and encodes. Error codes are given
//! in `errors.rs` alone.

pub mod authorized;
mod brokers;
pub mod cluster;
pub mod configs;
mod distinct;
pub mod elections;
pub mod errors;
pub mod features;
pub mod fetch;
pub mod group_offsets;
pub mod groups;
mod leaders;
pub mod offsets;
pub mod produce;
pub mod quorum;
pub mod reassignments;
pub mod topics;
pub mod unregister;

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_protocol::frame::{self, DecodeError, FrameError, Request, RequestHeader};
use firn_protocol::library::messages::ApiKey;
use firn_protocol::library::protocol::Encodable;
use firn_protocol::{response, versions};
use tokio::time::Instant;

use crate::connection::Peer;
use crate::context::Context;
use crate::lobby::Lobby;
use crate::net::Chunk;
use crate::peers::wire::API_KEY;

/// How long a request waits for a controller to be elected. Longer than clients wait is of no use to them.
const CONTROLLER_PATIENCE: Duration = Duration::from_secs(25);

/// A reply that waits for something.
pub type LaterReply = Pin<Box<dyn Future<Output = Result<Vec<Chunk>, ApiError>> + Send>>;

/// What a handler answers.
#[allow(missing_debug_implementations, reason = "a future shows nothing")]
pub enum Answer {
    Now(Vec<Chunk>),
    /// The work is done and only the reply waits: the connection may take its next request meanwhile.
    Later(LaterReply),
    /// The client expects no reply (produce with acks=0).
    None,
}

/// Why a request gets no reply and its connection is closed.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    #[error("request header: {0}")]
    Frame(#[from] FrameError),
    #[error("malformed request: {0}")]
    Decode(#[from] DecodeError),
    #[error("records sent with acks=0 were refused with error code {0}")]
    RefusedWithoutReply(i16),
    #[error("this broker is still starting")]
    NotOpen,
    #[error("this listener is for the brokers of the cluster (controller.listener.names)")]
    BrokersAlone,
    #[error("message of a broker: {0}")]
    Broker(String),
    #[error("cannot encode the reply: {0}")]
    Encode(#[from] response::EncodeError),
}

/// Encodes a reply whose body is a message of the protocol library.
pub fn reply(api: ApiKey, header: &RequestHeader, body: &impl Encodable) -> Result<Answer, ApiError> {
    Ok(Answer::Now(vec![Chunk::Bytes(response::encode(api, header, body)?)]))
}

/// True for a request that may be handled while replies to earlier ones of its kind still wait: produce alone.
pub fn may_overlap(frame: &[u8]) -> bool {
    frame::api_of(frame).is_some_and(|(key, _)| key == ApiKey::Produce as i16)
}

/// Serves one request: of another broker at once, of a client once this one is open.
pub async fn receive(lobby: &Lobby, peer: &Peer, bytes: Bytes) -> Result<Answer, ApiError> {
    let is_of_broker = frame::api_of(&bytes).is_some_and(|(key, _)| key == API_KEY);
    if is_of_broker && lobby.is_for_brokers(&peer.listener) {
        return brokers::handle(lobby, peer, bytes).await;
    }
    if lobby.is_for_brokers_alone(&peer.listener) {
        return Err(ApiError::BrokersAlone);
    }
    let context = lobby.context().await.ok_or(ApiError::NotOpen)?;
    handle(&context, peer, bytes).await
}

/// Serves a client's request.
pub async fn handle(context: &Arc<Context>, peer: &Peer, bytes: Bytes) -> Result<Answer, ApiError> {
    let cut_off = FrameError::CutOff(bytes.len());
    let (key, version) = frame::api_of(&bytes).ok_or(cut_off)?;
    let Some(api) = versions::served(key, version) else {
        // A client that is newer than this broker asks in a version that it does not know, and is told which it does.
        if key == ApiKey::ApiVersions as i16 {
            return cluster::api_versions_unsupported(frame::correlation_id_of(&bytes).ok_or(cut_off)?);
        }
        return Err(FrameError::Unsupported { key, version }.into());
    };
    let started = Instant::now();
    let answer = match forwarded(context, peer, api, &bytes).await {
        Some(reply) => Ok(Answer::Now(vec![Chunk::Bytes(reply)])),
        None => dispatch(context, peer, api, Request::parse(api, bytes)?).await,
    };
    context.requests.finished(api, started.elapsed());
    answer
}

/// The controller's reply to a request that is the controller's to answer; `None` where this broker is to answer it.
async fn forwarded(context: &Context, peer: &Peer, api: ApiKey, bytes: &Bytes) -> Option<Bytes> {
    let is_for_controller = matches!(
        api,
        ApiKey::CreateTopics
            | ApiKey::DeleteTopics
            | ApiKey::CreatePartitions
            | ApiKey::AlterConfigs
            | ApiKey::IncrementalAlterConfigs
            | ApiKey::DescribeQuorum
            | ApiKey::AlterPartitionReassignments
            | ApiKey::ListPartitionReassignments
            | ApiKey::ElectLeaders
            | ApiKey::UnregisterBroker
            | ApiKey::UpdateFeatures
            | ApiKey::AddRaftVoter
            | ApiKey::RemoveRaftVoter
    );
    match is_for_controller {
        true => context.membership.forward(&peer.listener, bytes, CONTROLLER_PATIENCE).await,
        false => None,
    }
}

async fn dispatch(
    context: &Arc<Context>,
    peer: &Peer,
    api: ApiKey,
    request: Request,
) -> Result<Answer, ApiError> {
    match api {
        ApiKey::Produce => produce::handle(context, peer, request).await,
        ApiKey::Fetch => fetch::handle(context, peer, request).await,
        ApiKey::ListOffsets => offsets::list_offsets(context, request).await,
        ApiKey::OffsetForLeaderEpoch => offsets::offset_for_leader_epoch(context, request).await,
        ApiKey::DeleteRecords => offsets::delete_records(context, request).await,
        ApiKey::ApiVersions => cluster::api_versions(request),
        ApiKey::Metadata => cluster::metadata(context, peer, request).await,
        ApiKey::DescribeCluster => cluster::describe_cluster(context, peer, request),
        ApiKey::DescribeTopicPartitions => cluster::describe_topic_partitions(context, request),
        ApiKey::DescribeLogDirs => cluster::describe_log_dirs(context, request),
        ApiKey::DescribeQuorum => quorum::describe(context, request),
        ApiKey::InitProducerId => cluster::init_producer_id(context, request).await,
        ApiKey::CreateTopics => topics::create(context, request).await,
        ApiKey::DeleteTopics => topics::delete(context, request).await,
        ApiKey::CreatePartitions => topics::create_partitions(context, request).await,
        ApiKey::DescribeConfigs => configs::describe(context, request),
        ApiKey::AlterConfigs => configs::alter(context, request).await,
        ApiKey::IncrementalAlterConfigs => configs::incremental_alter(context, request).await,
        ApiKey::FindCoordinator => groups::find_coordinator(context, peer, request).await,
        ApiKey::JoinGroup => groups::join(context, peer, request).await,
        ApiKey::SyncGroup => groups::sync(context, request).await,
        ApiKey::Heartbeat => groups::heartbeat(context, request).await,
        ApiKey::LeaveGroup => groups::leave(context, request).await,
        ApiKey::ListGroups => groups::list(context, request).await,
        ApiKey::DescribeGroups => groups::describe(context, request).await,
        ApiKey::DeleteGroups => groups::delete(context, request).await,
        ApiKey::OffsetCommit => group_offsets::commit(context, request).await,
        ApiKey::OffsetFetch => group_offsets::fetch(context, request).await,
        ApiKey::OffsetDelete => group_offsets::delete(context, request).await,
        ApiKey::AlterPartitionReassignments => reassignments::alter(context, request).await,
        ApiKey::ListPartitionReassignments => reassignments::list(context, request),
        ApiKey::ElectLeaders => elections::elect(context, request).await,
        ApiKey::UnregisterBroker => unregister::handle(context, request).await,
        ApiKey::UpdateFeatures => features::update(request),
        ApiKey::AddRaftVoter => quorum::add_voter(context, request).await,
        ApiKey::RemoveRaftVoter => quorum::remove_voter(context, request).await,
        other => {
            Err(FrameError::Unsupported { key: other as i16, version: request.header.api_version }.into())
        }
    }
}
