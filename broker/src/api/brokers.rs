//! What other brokers ask (`peers/wire.rs`), in a frame of Kafka's.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use firn_model::ids::TopicId;
use firn_protocol::frame::{self, FrameError, Request};
use firn_protocol::versions;
use firn_quorum::wire::{message, read};
use firn_storage::local_start::LocalStart;

use super::{Answer, ApiError, dispatch};
use crate::api::elections::log_ends;
use crate::balancing::log_sizes;
use crate::connection::Peer;
use crate::context::Context;
use crate::lobby::Lobby;
use crate::net::Chunk;
use crate::partition::PartitionError;
use crate::peers::wire::{Ask, Told};

pub async fn handle(lobby: &Lobby, peer: &Peer, bytes: Bytes) -> Result<Answer, ApiError> {
    let (correlation_id, body) = frame::foreign(&bytes)?;
    let (ask, rest) = read(&body).map_err(|error| ApiError::Broker(error.to_string()))?;
    let (told, rest) = match ask {
        Ask::Client { listener } => match client(lobby, peer, &listener, rest).await {
            Ok(answer) => answer,
            // On this connection come others' requests, too.
            Err(error) => (Told::Failed(error.to_string()), Bytes::new()),
        },
        Ask::MoreToFetch { broker_id } => {
            // One that is still starting has no fetch that waits.
            if let Some(context) = lobby.opened() {
                context.replica_sessions.answer_now(broker_id);
            }
            (Told::Noted, Bytes::new())
        }
        Ask::Logs(queries) => match lobby.opened() {
            Some(context) => (Told::Logs(log_ends(&context, &queries)), Bytes::new()),
            None => (Told::Failed("the broker is starting".to_owned()), Bytes::new()),
        },
        Ask::LogSizes => match lobby.opened() {
            Some(context) => (Told::LogSizes(log_sizes(&context).await), Bytes::new()),
            None => (Told::Failed("the broker is starting".to_owned()), Bytes::new()),
        },
        Ask::LocalStart { topic_id, partition, leader_epoch } => match lobby.opened() {
            Some(context) => local_start(&context, TopicId(topic_id), partition, leader_epoch).await,
            None => (Told::Failed("the broker is starting".to_owned()), Bytes::new()),
        },
        ask => lobby.membership.answer(ask, &rest).await,
    };
    let said = message(&told, &rest).map_err(|error| ApiError::Broker(error.to_string()))?;
    let mut reply = BytesMut::with_capacity(8 + said.len());
    let size = i32::try_from(4 + said.len()).map_err(|error| ApiError::Broker(error.to_string()))?;
    reply.put_i32(size);
    reply.put_i32(correlation_id);
    reply.put_slice(&said);
    Ok(Answer::Now(vec![Chunk::Bytes(reply.freeze())]))
}

/// What another broker has to know that begins to follow a partition whose first records are in the tier alone.
async fn local_start(context: &Context, topic: TopicId, index: i32, leader_epoch: i32) -> (Told, Bytes) {
    let found = match context.partitions.by_id(topic, index) {
        Ok(partition) => firn_blocking::run(move || partition.local_start(leader_epoch)).await,
        Err(_) => Err(PartitionError::Closed),
    };
    match found {
        Ok(LocalStart { log_start_offset, offset, leader_epochs, producers }) => {
            let leader_epochs = leader_epochs.iter().map(|entry| (entry.epoch, entry.start_offset)).collect();
            (Told::LocalStart { log_start_offset, offset, leader_epochs }, producers)
        }
        Err(error) => (Told::Failed(error.to_string()), Bytes::new()),
    }
}

/// Answers a client that another broker speaks for.
async fn client(
    lobby: &Lobby,
    peer: &Peer,
    listener: &str,
    request: Bytes,
) -> Result<(Told, Bytes), ApiError> {
    // One that is still starting is asked again.
    let Some(context) = lobby.opened().filter(|context| context.controller.progress().leads) else {
        return Ok((Told::NotController, Bytes::new()));
    };
    let cut_off = FrameError::CutOff(request.len());
    let (key, version) = frame::api_of(&request).ok_or(cut_off)?;
    let api = versions::served(key, version).ok_or(FrameError::Unsupported { key, version })?;
    let peer = Peer { address: peer.address, listener: Arc::from(listener) };
    let answer = Box::pin(dispatch(&context, &peer, api, Request::parse(api, request)?)).await?;
    let chunks = match answer {
        Answer::Now(chunks) => chunks,
        Answer::Later(reply) => reply.await?,
        Answer::None => Vec::new(),
    };
    let mut reply = BytesMut::new();
    for chunk in chunks {
        match chunk {
            Chunk::Bytes(bytes) | Chunk::Records(bytes) => reply.put_slice(&bytes),
            Chunk::Log(_) => return Err(ApiError::Broker("a controller's reply has no records".to_owned())),
        }
    }
    Ok((Told::Client { end_offset: context.controller.applied_to() }, reply.freeze()))
}
