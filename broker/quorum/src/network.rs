//! Between the members of a quorum: openraft's calls as messages, which somebody else carries.

use std::fmt::Debug;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{Backoff, RPCOption, RaftNetworkFactory, RaftNetworkV2};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};
use openraft::type_config::alias::{SnapshotOf, VoteOf};
use openraft::{AnyError, OptionalSend};

use crate::snapshot::SnapshotId;
use crate::types::{Member, Types};
use crate::wire::{Ask, Told};

/// The least time that a snapshot is given to arrive.
const SNAPSHOT_PATIENCE: Duration = Duration::from_secs(60);
/// The least time that entries are given: they are answered once they are on stable storage.
const APPEND_PATIENCE: Duration = Duration::from_secs(2);

/// How long to wait before a member that cannot be reached is tried again.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(100);

/// What a message is about: those of one kind may wait for each other, and for no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// Heartbeats, votes: answered at once, and worthless if they come late.
    Signals,
    /// Entries: answered once they are on stable storage.
    Entries,
    Snapshots,
}

/// What comes back from another member.
pub type Answer = Pin<Box<dyn Future<Output = io::Result<Bytes>> + Send>>;

/// Carries messages to other members.
pub trait Transport: Send + Sync + Debug + 'static {
    /// Hands a message to a member, and returns its answer. An error says that nothing is known of what became of it: after
    /// `patience` it is `TimedOut`.
    fn ask(&self, member: &Member, lane: Lane, message: Bytes, patience: Duration) -> Answer;
}

/// Makes connections.
#[derive(Debug, Clone)]
pub(crate) struct Peers(pub Arc<dyn Transport>);

/// The way to one member.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    transport: Arc<dyn Transport>,
    member: Member,
}

impl RaftNetworkFactory<Types> for Peers {
    type Network = Peer;

    async fn new_client(&mut self, _: u64, member: &Member) -> Peer {
        Peer { transport: self.0.clone(), member: member.clone() }
    }
}

impl Peer {
    async fn ask(&self, ask: Ask, lane: Lane, patience: Duration) -> Result<Told, RPCError<Types>> {
        let broken = |error: &dyn std::fmt::Display| {
            let text = format!("broker {}: {error}", self.member.broker_id);
            RPCError::Network(NetworkError::new(&AnyError::error(text)))
        };
        let message = ask.encode().map_err(|error| broken(&error))?;
        let answer = self.transport.ask(&self.member, lane, message, patience).await;
        let answer = answer.map_err(|error| match error.kind() {
            io::ErrorKind::TimedOut => broken(&error),
            _ => {
                let text = format!("broker {}: {error}", self.member.broker_id);
                RPCError::Unreachable(Unreachable::new(&AnyError::error(text)))
            }
        })?;
        Told::decode(&answer).map_err(|error| broken(&error))
    }

    /// Either kind of vote.
    async fn ask_for_vote(
        &self,
        ask: Ask,
        option: &RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        match self.ask(ask, Lane::Signals, option.hard_ttl()).await? {
            Told::Vote(told) => Ok(told),
            _ => Err(self.strange()),
        }
    }

    fn strange(&self) -> RPCError<Types> {
        let text = format!("broker {}: the answer is to another question", self.member.broker_id);
        RPCError::Network(NetworkError::new(&AnyError::error(text)))
    }
}

impl RaftNetworkV2<Types> for Peer {
    type SnapshotData = Bytes;

    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(UNREACHABLE_PAUSE)))
    }

    async fn append_entries(
        &mut self,
        ask: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<Types>, RPCError<Types>> {
        let (lane, patience) = match ask.entries.is_empty() {
            true => (Lane::Signals, option.hard_ttl()),
            false => (Lane::Entries, option.hard_ttl().max(APPEND_PATIENCE)),
        };
        match self.ask(Ask::Append(ask), lane, patience).await? {
            Told::Append(told) => Ok(told),
            _ => Err(self.strange()),
        }
    }

    async fn vote(
        &mut self,
        ask: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_for_vote(Ask::Vote(ask), &option).await
    }

    async fn pre_vote(
        &mut self,
        ask: VoteRequest<Types>,
        option: RPCOption,
    ) -> Result<VoteResponse<Types>, RPCError<Types>> {
        self.ask_for_vote(Ask::PreVote(ask), &option).await
    }

    async fn full_snapshot(
        &mut self,
        vote: VoteOf<Types>,
        snapshot: SnapshotOf<Types, Bytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        option: RPCOption,
    ) -> Result<SnapshotResponse<Types>, StreamingError<Types>> {
        let ask = Ask::Snapshot(vote, SnapshotId::of(snapshot.meta.last_log_id), snapshot.snapshot);
        let patience = option.hard_ttl().max(SNAPSHOT_PATIENCE);
        tokio::select! {
            told = self.ask(ask, Lane::Snapshots, patience) => match told? {
                Told::Snapshot(told) => Ok(told),
                _ => Err(self.strange().into()),
            },
            closed = cancel => Err(StreamingError::Closed(closed)),
        }
    }

    async fn transfer_leader(
        &mut self,
        ask: TransferLeaderRequest<Types>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<Types>, RPCError<Types>> {
        match self.ask(Ask::TransferLeader(ask), Lane::Signals, option.hard_ttl()).await? {
            Told::TransferLeader(told) => Ok(told),
            _ => Err(self.strange()),
        }
    }
}
