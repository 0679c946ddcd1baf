//! One member of the quorum: proposes changes, and says how far the log has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::image::Image;
use firn_metadata::record::MetadataRecord;
use firn_storage::partition_log::PartitionLog;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, RaftError};
use openraft::{Config, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::Mutex as AsyncMutex;
use tokio::time::Instant;

use crate::error::QuorumError;
use crate::log_store::{Found, LogStore};
use crate::machine::{Machine, Observer};
use crate::network::Alone;
use crate::types::{Change, Member, Outcome, Types, broker_of};

/// How long a change may take, with those that it waits for. What takes longer may yet be made.
const PROPOSAL_MAX: Duration = Duration::from_secs(30);
/// How long a member that has failed may take to end.
const END_MAX: Duration = Duration::from_secs(5);
/// How often a decision is made anew because other entries came in between: new leaders, new members.
const ATTEMPTS_MAX: usize = 16;

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error(transparent)]
    Refused(#[from] DecisionError),
    #[error("the metadata cannot be changed: {0}")]
    Failed(#[from] QuorumError),
    #[error("the metadata could not be changed within {PROPOSAL_MAX:?}: the change may yet be made")]
    TimedOut,
    #[error("another broker is the controller now: ask again")]
    NotController,
    #[error(
        "the metadata cannot be changed any more: the broker is stopping, or its metadata log has failed"
    )]
    Closed,
}

/// How far the metadata log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether this member is the controller.
    pub leads: bool,
    /// The broker that is the controller, as far as it is known here.
    pub leader: Option<i32>,
    /// The broker that this member voted for last, as long as it runs.
    pub voted_for: Option<i32>,
    pub term: u64,
    /// Offset after the last entry.
    pub end_offset: i64,
    /// Offset after the last entry that a majority has.
    pub committed: i64,
    /// Records and changes that this process made as the controller, and how long all of the changes took together.
    pub records: u64,
    pub changes: u64,
    pub changing: Duration,
}

/// The members of the quorum, as the controller knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    pub voters: Vec<MemberState>,
    /// Those that have the log and no vote.
    pub observers: Vec<MemberState>,
}

/// A member, and how much of the log it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    pub member: Member,
    /// Offset after the last entry that it is known to have.
    pub end_offset: i64,
}

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    records: u64,
    changes: u64,
    changing: Duration,
}

/// A member of the quorum. See the module.
pub struct Quorum {
    raft: Raft<Types, Machine>,
    store: LogStore,
    machine: Machine,
    /// One decision at a time: each is to see what the one before has changed.
    deciding: AsyncMutex<()>,
    counted: Mutex<Counted>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Quorum {
    /// Starts the only member of a quorum, and returns once it leads it and knows all that was ever changed.
    pub async fn start_alone(found: Found) -> Result<Self, QuorumError> {
        let machine = Machine::new(&found);
        let Found { store, member, .. } = found;
        let config = Config {
            cluster_name: "metadata".to_owned(),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: store.limits().entries_kept,
            enable_pre_vote: Some(true),
            // What was committed is not kept, so a leader that comes back must be elected to know.
            enable_leader_restore: Some(false),
            // Nobody else could be elected, and nobody waits for heartbeats.
            enable_tick: false,
            ..Config::default()
        };
        let config = config.validate().map_err(|error| QuorumError::Raft(error.to_string()))?;
        let raft = Raft::new(member.id(), Arc::new(config), Alone, store.clone(), machine.clone()).await?;
        let quorum =
            Self { raft, store, machine, deciding: AsyncMutex::default(), counted: Mutex::default() };
        quorum.lead(member).await?;
        Ok(quorum)
    }

    async fn lead(&self, member: Member) -> Result<(), QuorumError> {
        if self.raft.is_initialized().await? {
            self.check_member(&member)?;
            self.raft.trigger().elect(false).await?;
        } else {
            let begun = self.raft.initialize(BTreeMap::from([(member.id(), member)])).await;
            begun.map_err(|error| QuorumError::Raft(error.to_string()))?;
        }
        let settled = |metrics: &openraft::RaftMetrics<Types>| {
            metrics.running_state.is_err()
                || (metrics.state == ServerState::Leader
                    && metrics.last_log_index == metrics.last_applied.map(|last| last.index()))
        };
        let metrics = self.raft.wait(None).metrics(settled, "the first leader").await;
        metrics.map_err(|error| QuorumError::Raft(error.to_string()))?.running_state?;
        Ok(())
    }

    /// That the log is this member's: another could never be elected.
    fn check_member(&self, member: &Member) -> Result<(), QuorumError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let members = metrics.membership_config.membership();
        match members.nodes().next() {
            None => Err(QuorumError::NoMembers),
            Some((_, other)) if members.get_node(&member.id()) != Some(member) => {
                let (broker_id, directory_id) = (other.broker_id, other.directory_id.clone());
                let here = member.directory_id.clone();
                Err(QuorumError::AnotherMember { broker_id, directory_id, here })
            }
            _ => Ok(()),
        }
    }

    /// The metadata as they stand. Costs nothing and does not change under its holder.
    pub fn image(&self) -> Image {
        self.machine.published().image
    }

    /// Lets `begin` act on the image as it is, and the observer that it returns on each change from there on. Changes wait
    /// meanwhile.
    pub fn observe<T, E>(
        &self,
        begin: impl FnOnce(&Image) -> Result<(Arc<dyn Observer>, T), E>,
    ) -> Result<T, E> {
        self.machine.observe(begin)
    }

    /// Does something that no change may come between; `None`, and nothing, while one is being made.
    pub fn between_changes<T>(&self, work: impl FnOnce(&Image) -> T) -> Option<T> {
        self.machine.between_changes(work)
    }

    /// Makes the change that `decide` asks for, and returns its reply once a majority has it on stable storage and it is
    /// in force here. `decide` may be asked more than once.
    pub async fn propose<R>(
        &self,
        decide: impl Fn(&Image) -> Result<Decision<R>, DecisionError>,
    ) -> Result<R, ProposeError> {
        let proposed = tokio::time::timeout(PROPOSAL_MAX, self.decide_and_write(decide)).await;
        proposed.unwrap_or(Err(ProposeError::TimedOut))
    }

    async fn decide_and_write<R>(
        &self,
        decide: impl Fn(&Image) -> Result<Decision<R>, DecisionError>,
    ) -> Result<R, ProposeError> {
        let _alone = self.deciding.lock().await;
        for _ in 0..ATTEMPTS_MAX {
            let now = self.machine.published();
            let Decision { records, reply } = decide(&now.image)?;
            if records.is_empty() {
                return Ok(reply);
            }
            let mut next = now.image;
            next.apply_all(&records).map_err(|error| DecisionError::UnknownServerError(error.to_string()))?;
            let after = now.last.ok_or(ProposeError::NotController)?.index();
            if self.write(after, records).await? == Outcome::Applied {
                return Ok(reply);
            }
        }
        Err(ProposeError::NotController)
    }

    async fn write(&self, after: u64, records: Vec<MetadataRecord>) -> Result<Outcome, ProposeError> {
        let (count, began) = (records.len() as u64, Instant::now());
        let change = Change { after, at_ms: self.store.now_ms(), records };
        let (store, checked) = (self.store.clone(), change.clone());
        firn_blocking::run(move || store.check_room(&checked)).await?;
        let written = match self.raft.client_write(change).await {
            Ok(written) => written,
            Err(error) => {
                if let RaftError::Fatal(_) = error {
                    self.ended().await;
                }
                return Err(propose_error(error));
            }
        };
        if written.data == Outcome::Applied {
            let mut counted = self.counted.lock();
            counted.records += count;
            counted.changes += 1;
            counted.changing += began.elapsed();
        }
        self.snapshot_if_due().await;
        Ok(written.data)
    }

    /// Waits until it shows that this member has ended.
    async fn ended(&self) {
        let over = |metrics: &openraft::RaftMetrics<Types>| metrics.running_state.is_err();
        // Where it cannot be waited for, it is over.
        self.raft.wait(Some(END_MAX)).metrics(over, "the end").await.ok();
    }

    /// Begins a snapshot, if enough was changed since the last one, or long enough ago.
    pub async fn snapshot_if_due(&self) {
        if self.store.snapshot_is_due() {
            // It is due again if this member ends before it is written.
            self.raft.trigger().snapshot().await.ok();
        }
    }

    /// How far the log has come. Waits for nothing.
    pub fn progress(&self) -> Progress {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let counted = *self.counted.lock();
        let after = |index: Option<u64>| index.map_or(0, |index| index as i64 + 1);
        let runs = metrics.running_state.is_ok();
        Progress {
            leads: runs && metrics.state == ServerState::Leader,
            leader: metrics.current_leader.filter(|_| runs).map(broker_of),
            voted_for: runs.then(|| broker_of(metrics.vote.leader_id().voted_for)),
            term: metrics.current_term,
            end_offset: after(metrics.last_log_index),
            committed: after(metrics.cluster_committed.map(|last| last.index())),
            records: counted.records,
            changes: counted.changes,
            changing: counted.changing,
        }
    }

    /// Who the members are; `None` unless this one is the controller, which alone knows how far they are.
    pub fn members(&self) -> Option<Members> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.running_state.is_err() || metrics.state != ServerState::Leader {
            return None;
        }
        let last_of = |id: u64| match &metrics.replication {
            _ if id == metrics.id => metrics.last_log_index,
            Some(others) => others.get(&id).copied().flatten().map(|last| last.index()),
            None => None,
        };
        let membership = metrics.membership_config.membership();
        let state = |id: u64| {
            let member = membership.get_node(&id)?.clone();
            Some(MemberState { member, end_offset: last_of(id).map_or(0, |index| index as i64 + 1) })
        };
        Some(Members {
            voters: membership.voter_ids().filter_map(state).collect(),
            observers: membership.learner_ids().filter_map(state).collect(),
        })
    }

    /// Takes no change any more, once the one under way is in force, and gives the log to whoever closes it.
    pub async fn retire(&self) -> Option<PartitionLog> {
        self.store.stop_waiting();
        // A member that has failed has ended, too.
        self.raft.shutdown().await.ok();
        let (machine, store) = (self.machine.clone(), self.store.clone());
        firn_blocking::run(move || {
            machine.close();
            store.take()
        })
        .await
    }
}

fn propose_error(error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
    match error {
        RaftError::APIError(_) => ProposeError::NotController,
        RaftError::Fatal(Fatal::StorageError(error)) => QuorumError::Raft(error.to_string()).into(),
        RaftError::Fatal(_) => ProposeError::Closed,
    }
}

impl From<Fatal<Types>> for QuorumError {
    fn from(error: Fatal<Types>) -> Self {
        QuorumError::Raft(error.to_string())
    }
}
