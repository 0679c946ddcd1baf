//! One member of the quorum: proposes changes, and says how far the log has come.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::image::Image;
use firn_metadata::record::MetadataRecord;
use firn_storage::partition_log::PartitionLog;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ClientWriteError, Fatal, InitializeError, RaftError};
use openraft::raft::AppendEntriesRequest;
use openraft::storage::{Snapshot, SnapshotMeta};
use openraft::{Config, Instant as _, Raft, ServerState, SnapshotPolicy};
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, watch};
use tokio::time::Instant;

use crate::error::{QuorumError, Unusable};
use crate::log_store::{Found, LogStore};
use crate::machine::{Machine, Observer, Published};
use crate::network::{Peers, Transport};
use crate::snapshot;
use crate::types::{Change, LogId, Member, Outcome, Types, Vote, broker_of};
use crate::wire::{Ask, Told, WireError};

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
        "no broker is the controller: more than half of those that have a vote on the metadata have to run, and to reach each other"
    )]
    NoController,
    #[error(
        "the metadata cannot be changed any more: the broker is stopping, or its metadata log has failed"
    )]
    Closed,
}

/// Why another member gets no answer.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("this member has ended: {0}")]
    Ended(#[from] Fatal<Types>),
    #[error(transparent)]
    Log(#[from] QuorumError),
}

impl From<RaftError<Types>> for AnswerError {
    fn from(error: RaftError<Types>) -> Self {
        match error {
            RaftError::Fatal(fatal) => fatal.into(),
            RaftError::APIError(never) => match never {},
        }
    }
}

/// How soon a leader is missed.
#[derive(Debug, Clone, Copy)]
pub struct Timing {
    pub heartbeat: Duration,
    /// Who has heard of a leader votes for no other for as long as the greater of these, and stands for election itself when a time
    /// between the two has passed after that.
    pub election_min: Duration,
    pub election_max: Duration,
}

/// How far the metadata log has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Whether this member is the controller, hears from a majority that it is, and knows all that earlier ones have decided.
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

#[derive(Debug, Default, Clone, Copy)]
struct Counted {
    records: u64,
    changes: u64,
    changing: Duration,
}

/// A member of the quorum. See the module.
pub struct Quorum {
    pub(crate) raft: Raft<Types, Machine>,
    store: LogStore,
    machine: Machine,
    pub(crate) member: Member,
    /// How long after a majority has heard of its leader nobody else is elected; none where there is no other member.
    lease: Option<Duration>,
    /// One decision at a time: each is to see what the one before has changed.
    deciding: AsyncMutex<()>,
    /// Why the log here is of no use any more, if that has shown.
    unusable: watch::Sender<Option<Unusable>>,
    counted: Mutex<Counted>,
}

impl std::fmt::Debug for Quorum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Quorum").field("progress", &self.progress()).finish_non_exhaustive()
    }
}

impl Quorum {
    /// Starts a member. It has no leader yet; a new one belongs to no quorum until it founds one, or is taken in. Without
    /// `timing` it stands for election only when it is told to, and tells nobody that it leads: it is the only one.
    pub async fn start(
        found: Found,
        timing: Option<Timing>,
        transport: Arc<dyn Transport>,
    ) -> Result<Self, QuorumError> {
        let machine = Machine::new(&found);
        let Found { store, member, .. } = found;
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let mut config = Config {
            cluster_name: "metadata".to_owned(),
            snapshot_policy: SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: store.limits().entries_kept,
            enable_pre_vote: Some(true),
            // What was committed is not kept, so a leader that comes back must be elected to know.
            enable_leader_restore: Some(false),
            enable_tick: timing.is_some(),
            // Who gets a vote has every entry, and so something on its disk to be known by.
            replication_lag_threshold: 0,
            // A member whose disk has lost entries gets them anew, and does not bring the leader down.
            allow_log_reversion: Some(true),
            ..Config::default()
        };
        if let Some(Timing { heartbeat, election_min, election_max }) = timing {
            config.heartbeat_interval = ms(heartbeat);
            config.election_timeout_min = ms(election_min);
            config.election_timeout_max = ms(election_max);
        }
        let config = config.validate().map_err(|error| QuorumError::Raft(error.to_string()))?;
        let peers = Peers(transport);
        let raft = Raft::new(member.id(), Arc::new(config), peers, store.clone(), machine.clone()).await?;
        let lease = timing.map(|timing| timing.election_max);
        Ok(Self {
            raft,
            store,
            machine,
            member,
            lease,
            deciding: AsyncMutex::default(),
            unusable: watch::Sender::new(None),
            counted: Mutex::default(),
        })
    }

    /// Leads the quorum of which this is the only member, which may have to be founded.
    pub async fn lead_alone(&self) -> Result<(), QuorumError> {
        if self.is_founded().await? {
            self.check_member()?;
            self.check_alone()?;
            self.stand_for_election().await?;
        } else {
            self.found([self.member.clone()]).await?;
        }
        self.settled().await
    }

    /// Waits until it is known here that another member leads than that of `broker`.
    pub async fn until_another_leads(&self, broker: i32) {
        self.until_led(|leader| leader.is_some_and(|leader| leader != broker)).await;
    }

    /// Waits until it is not known any more here that `broker` leads.
    pub async fn until_deposed(&self, broker: i32) {
        self.until_led(|leader| leader != Some(broker)).await;
    }

    async fn until_led(&self, holds: impl Fn(Option<i32>) -> bool + Send) {
        let led = move |metrics: &openraft::RaftMetrics<Types>| {
            metrics.running_state.is_err() || holds(metrics.current_leader.map(broker_of))
        };
        // Where it cannot be waited for, nobody leads any more.
        self.raft.wait(None).metrics(led, "another leader").await.ok();
    }

    /// Whether this member has ever belonged to a quorum.
    pub async fn is_founded(&self) -> Result<bool, QuorumError> {
        Ok(self.raft.is_initialized().await?)
    }

    /// Begins a quorum of these voters, who must all be new. Several of them may do so, with the same voters.
    pub async fn found(&self, voters: impl IntoIterator<Item = Member>) -> Result<(), QuorumError> {
        let voters: BTreeMap<u64, Member> = voters.into_iter().map(|member| (member.id(), member)).collect();
        match self.raft.initialize(voters).await {
            Ok(()) => Ok(()),
            // Another one of them was faster.
            Err(RaftError::APIError(InitializeError::NotAllowed(_))) => Ok(()),
            Err(error) => Err(QuorumError::Raft(error.to_string())),
        }
    }

    /// Stands for election now, without waiting for the leader to be missed.
    async fn stand_for_election(&self) -> Result<(), QuorumError> {
        Ok(self.raft.trigger().elect(false).await?)
    }

    /// Whether the disk has room for changes to come. Who leads without can make none.
    pub fn has_room(&self) -> bool {
        self.store.has_room()
    }

    /// Hands leadership to another voter (of a controlled shutdown).
    pub async fn hand_over(&self, to: &Member) -> Result<(), QuorumError> {
        Ok(self.raft.trigger().transfer_leader(to.id()).await?)
    }

    /// Waits until there is a leader, and all that it has committed when it was seen is in force here.
    pub async fn settled(&self) -> Result<(), QuorumError> {
        let settled = |metrics: &openraft::RaftMetrics<Types>| {
            let applied = metrics.last_applied.map(|last| last.index());
            metrics.running_state.is_err()
                || (metrics.current_leader.is_some()
                    && metrics.last_log_index.is_some()
                    && metrics.last_log_index == applied)
        };
        let metrics = self.raft.wait(None).metrics(settled, "a leader").await;
        metrics.map_err(|error| QuorumError::Raft(error.to_string()))?.running_state?;
        Ok(())
    }

    /// That the log is this member's: another could never be elected.
    fn check_member(&self) -> Result<(), QuorumError> {
        let member = &self.member;
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

    /// That nobody else has a vote: without them this member could never be elected.
    fn check_alone(&self) -> Result<(), QuorumError> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let voters = metrics.membership_config.voter_ids().filter(|id| *id != metrics.id);
        let others: BTreeSet<i32> = voters.map(broker_of).collect();
        match others.is_empty() {
            true => Ok(()),
            false => Err(QuorumError::OtherMembers { others: others.into_iter().collect() }),
        }
    }

    /// That whoever leads has what is agreed on here. Openraft looks at nothing below what it knows to be committed, and would go on
    /// on top of another history.
    fn check_history(&self, ask: &AppendEntriesRequest<Types>) -> Result<(), QuorumError> {
        let entries = ask.entries.iter().map(|entry| entry.log_id);
        let mut ids = ask.prev_log_id.into_iter().chain(entries);
        ids.try_for_each(|id| self.check_agreed_on(&ask.vote, id))
    }

    fn check_agreed_on(&self, vote: &Vote, id: LogId) -> Result<(), QuorumError> {
        self.store.check_agreed_on(vote, id).inspect_err(|error| self.is_unusable(error))
    }

    /// Takes note of an error after which this member cannot go on.
    fn is_unusable(&self, error: &QuorumError) {
        let unusable = match error {
            QuorumError::AgreedOn(lost) => Unusable::Lost(*lost),
            QuorumError::Damaged { index, reason } => {
                Unusable::Damaged { index: *index, reason: reason.clone() }
            }
            _ => return,
        };
        self.unusable.send_replace(Some(unusable));
    }

    /// Looks whether the log is still what was written, from an offset on, a piece of it; returns where to go on, `None` at the
    /// end. A member whose log is not has failed.
    pub async fn scrub(&self, from: i64) -> Result<Option<i64>, QuorumError> {
        let store = self.store.clone();
        let looked = firn_blocking::run(move || store.look_over(from)).await;
        looked.inspect_err(|error| self.is_unusable(error))
    }

    /// Answers another member.
    pub async fn answer(&self, message: &Bytes) -> Result<Bytes, AnswerError> {
        let told = match Ask::decode(message)? {
            Ask::Append(ask) => {
                self.check_history(&ask)?;
                Told::Append(self.raft.append_entries(ask).await?)
            }
            Ask::Vote(ask) => Told::Vote(self.raft.vote(ask).await?),
            Ask::PreVote(ask) => Told::Vote(self.raft.pre_vote(ask).await?),
            Ask::Snapshot(vote, id, bytes) => {
                if let Some(last) = id.last() {
                    self.check_agreed_on(&vote, last)?;
                }
                let decoded = bytes.clone();
                let content = firn_blocking::run(move || snapshot::decode(&decoded)).await;
                let content = content.map_err(WireError::Malformed)?;
                let meta = SnapshotMeta { last_log_id: id.last(), last_membership: content.members };
                let installed =
                    self.raft.install_full_snapshot(vote, Snapshot { meta, snapshot: bytes }).await?;
                Told::Snapshot(installed)
            }
            Ask::TransferLeader(ask) => Told::TransferLeader(self.raft.handle_transfer_leader(ask).await?),
        };
        Ok(told.encode()?)
    }

    /// The metadata as they stand. Costs nothing and does not change under its holder.
    pub fn image(&self) -> Image {
        self.machine.published().image
    }

    /// Waits for metadata of which `holds` is true.
    pub async fn wait_until(&self, holds: impl FnMut(&Published) -> bool) {
        self.machine.wait_until(holds).await;
    }

    /// The metadata as they stand, and the entry that they are of.
    pub fn published(&self) -> Published {
        self.machine.published()
    }

    /// Lets `begin` act on the metadata as they are, and the observer that it returns on each change from there on. Changes
    /// wait meanwhile.
    pub fn observe<T>(&self, begin: impl FnOnce(&Published) -> (Arc<dyn Observer>, T)) -> T {
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
            // What another has decided may not be known here, and a refusal is no better than what it rests on.
            let Progress { leads, leader, .. } = self.progress_at(now.last);
            if !leads {
                return Err(leader.map_or(ProposeError::NoController, |_| ProposeError::NotController));
            }
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

    /// Waits until this member has ended because its log cannot be read or written: it will never know more than it does.
    /// Where it is stopped that never comes.
    pub async fn failed(&self) -> QuorumError {
        let over = |metrics: &openraft::RaftMetrics<Types>| metrics.running_state.is_err();
        let (mut unusable, end) = (self.unusable.subscribe(), self.raft.wait(None));
        let ended = tokio::select! {
            ended = end.metrics(over, "a failure") => ended,
            Ok(unusable) = unusable.wait_for(Option::is_some) => {
                return unusable.clone().map_or(QuorumError::Closed, QuorumError::from);
            }
        };
        match ended.ok().and_then(|metrics| metrics.running_state.err()) {
            Some(Fatal::Stopped) => std::future::pending().await,
            Some(fatal) => fatal.into(),
            // Nothing can be waited for any more, and nobody told that it ends.
            None => Fatal::Panicked.into(),
        }
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
        self.progress_at(self.machine.published().last)
    }

    fn progress_at(&self, applied: Option<LogId>) -> Progress {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let counted = *self.counted.lock();
        let after = |index: Option<u64>| index.map_or(0, |index| index as i64 + 1);
        let runs = metrics.running_state.is_ok();
        // A leader begins with an entry of its own, behind all that there was.
        let knows_all = applied.is_some_and(|last| last.committed_leader_id().term == metrics.current_term);
        // Nobody else can be elected within the lease. Where that is over, somebody may have been.
        let acked = metrics.last_quorum_acked.as_deref();
        let is_heard = self.lease.is_none_or(|lease| acked.is_some_and(|acked| acked.elapsed() < lease));
        // Who leads and is heard by no majority is no leader that anybody could ask.
        let leader = metrics.current_leader.filter(|id| runs && (is_heard || *id != metrics.id));
        Progress {
            leads: runs && metrics.state == ServerState::Leader && knows_all && is_heard,
            leader: leader.map(broker_of),
            voted_for: runs.then(|| broker_of(metrics.vote.leader_id().voted_for)),
            term: metrics.current_term,
            end_offset: after(metrics.last_log_index),
            committed: after(metrics.cluster_committed.map(|last| last.index())),
            records: counted.records,
            changes: counted.changes,
            changing: counted.changing,
        }
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

pub(crate) fn propose_error(error: RaftError<Types, ClientWriteError<Types>>) -> ProposeError {
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
