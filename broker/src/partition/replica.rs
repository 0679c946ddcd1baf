//! What a replica is: its partition's leader, or a follower; and what each does with the other's log.
//!
//! The controller says who leads, in which epoch, and who is in sync (`turn`). A follower asks its leader for what comes after
//! its own log (`position`), keeps what it gets as it is (`append_fetched`), and cuts what the leader's history does not have
//! (`cut`). By asking it tells the leader how much of the log it vouches for (`read_for_replica`), which moves the high
//! watermark. A replica that has turned meanwhile takes nothing that was fetched before: every step names its epoch.

use std::ops::RangeInclusive;
use std::sync::Arc;

use bytes::Bytes;
use firn_metadata::image::{self, NO_LEADER};
use firn_model::topic_config::TopicConfig;
use firn_records::batch::{BatchHeader, batches, verify_crc};
use firn_replication::follower::{self, EpochEnd};
use firn_replication::leader::{Beginning, InSync, Leader, Report};
use firn_storage::error::{AppendError, ReadError};
use firn_storage::local_start::LocalStart;
use firn_storage::partition_log::PartitionLog;
use firn_storage::read::LogSlice;
use tokio::time::Instant;

use super::state::State;
use super::waiting::Awaited;
use super::{Offsets, Partition, PartitionError};
use crate::replication::throttles::Side;

pub(super) enum Role {
    Leads(Leader),
    /// Follows this broker, or, as long as there is no leader, nobody.
    Follows(i32),
}

impl Role {
    pub(super) const NONE: Self = Self::Follows(NO_LEADER);
}

/// A follower's request for what comes after its log.
#[derive(Debug, Clone, Copy)]
pub struct ReplicaFetch {
    pub replica: i32,
    pub broker_epoch: i64,
    pub leader_epoch: i32,
    /// It has all before.
    pub from: i64,
    /// Of the last record that it has, -1 if it has none.
    pub last_epoch: i32,
    /// Where its log starts.
    pub log_start: i64,
}

/// What a follower gets.
#[derive(Debug)]
pub enum ReplicaRead {
    Records(Offsets, LogSlice),
    /// It follows another history than this log's: this one's last epoch not beyond the follower's ends here.
    Diverged(Offsets, EpochEnd),
    /// What it asks for is not here: it begins anew at the log's start.
    OutOfRange(Offsets),
    /// What it asks for is in the tier alone: it begins where the leader's disk does.
    InTier(Offsets),
    /// There is more, but it is throttled: it may have some from then on (KIP-73).
    HeldBack(Offsets, Instant),
}

/// Where a follower stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub leader_epoch: i32,
    pub offset: i64,
    /// Of the last record, -1 if there is none.
    pub last_epoch: i32,
    pub log_start: i64,
    /// What it fetches counts, and may be held back (`follower.replication.throttled.replicas`).
    pub is_throttled: bool,
}

impl Partition {
    /// Is from now on what the controller says, unless it has been told of something newer.
    pub fn turn(self: &Arc<Self>, now: &image::Partition) {
        let mut state = self.state.lock();
        if now.partition_epoch <= state.partition_epoch {
            return;
        }
        state.partition_epoch = now.partition_epoch;
        if now.leader_epoch == state.leader_epoch {
            // Only who is in sync has changed, or replicas have come.
            let log_end = state.log.as_ref().map_or(0, PartitionLog::end_offset);
            if let Role::Leads(leader) = &mut state.role {
                let settled = now.original_replicas().count();
                leader.reassigned(&now.replicas, settled, log_end, self.began.elapsed());
                leader.settled(&now.isr);
                state.advance();
            }
            return;
        }
        state.leader_epoch = now.leader_epoch;
        state.may_be_next = state.leader().is_none();
        if now.leader == self.replication.node_id {
            self.begin_to_lead(&mut state, now);
        } else {
            state.begin_to_follow(now.leader);
            self.replication.followed.set(self, Some(now.leader).filter(|leader| *leader != NO_LEADER));
        }
    }

    fn begin_to_lead(self: &Arc<Self>, state: &mut State, now: &image::Partition) {
        let Some(log) = &mut state.log else { return };
        log.start_epoch(now.leader_epoch);
        let beginning = Beginning {
            broker_id: self.replication.node_id,
            replicas: now.replicas.clone(),
            settled_replicas: now.original_replicas().count(),
            isr: now.isr.clone(),
            lag_max: self.replication.lag_max,
            lease: self.replication.lease_max(),
            log_end: log.end_offset(),
            high_watermark: state.high_watermark,
            min_isr: state.min_isr(),
        };
        state.role = Role::Leads(Leader::new(beginning, self.began.elapsed()));
        self.replication.followed.set(self, None);
        state.advance();
        state.readers.wake_all();
    }

    /// The epoch in which this broker leads it, if it does.
    pub fn led_in(&self) -> Option<i32> {
        let state = self.state.lock();
        self.leader(&state).map(|_| state.leader_epoch)
    }

    /// The leader's part, if it is this broker's, for all that it can know: out of touch with the controller it does not know
    /// whether another has been elected, whose records and sequences it lacks; and once its disk has failed, another may be at any
    /// time. Where nobody else has a replica, nobody is.
    pub(super) fn leader<'a>(&self, state: &'a State) -> Option<&'a Leader> {
        let is_last_known = || self.replication.is_in_touch() && !self.data_dir.dir.has_failed();
        state.leader().filter(|leader| !leader.has_followers() || is_last_known())
    }

    /// A leader serves readers for as long as it can know that it leads; a follower, what it knows to be committed (KIP-392).
    pub(super) fn serves_readers(&self, state: &State) -> bool {
        match &state.role {
            Role::Leads(_) => self.leader(state).is_some(),
            Role::Follows(leader) => *leader != NO_LEADER,
        }
    }

    /// Whether other brokers have it, too, as far as this one knows, which leads it.
    pub fn has_replicas(&self) -> bool {
        self.state.lock().leader().is_some_and(Leader::has_followers)
    }

    /// Whether this broker leads it, for all that it can know.
    pub fn is_led_here(&self) -> bool {
        self.led_in().is_some()
    }

    /// Whether readers find anything here.
    pub fn is_readable(&self) -> bool {
        self.serves_readers(&self.state.lock())
    }

    /// Which of these brokers a reader is better sent to that wants what follows `offset`; nobody, unless this one leads.
    pub fn nearest(&self, offset: i64, brokers: &[i32]) -> Option<i32> {
        let mut state = self.state.lock();
        let nearest = self.leader(&state)?.nearest(offset, brokers)?;
        // From now on followers hear at once how far records are committed: readers wait for it there.
        if !std::mem::replace(&mut state.is_read_elsewhere, true) {
            state.readers.committed(true);
        }
        Some(nearest)
    }

    /// Whether this leader has come to know, from its followers, up to where what it found when it began is committed.
    pub fn knows_what_is_committed(&self) -> bool {
        self.state.lock().leader().is_none_or(Leader::knows_what_is_committed)
    }

    /// Deletes what lies below `offset` (KIP-107). Resolves once every replica in sync has done so: the next leader does not have
    /// it either.
    pub fn delete_before(&self, offset: i64) -> Result<Option<Awaited>, PartitionError> {
        let mut state = self.state.lock();
        self.leader(&state).ok_or(PartitionError::NotLeader)?;
        state.with_log(|log| log.delete_records_before(offset))??;
        Ok(state.when_deleted(offset))
    }

    /// Resolves once all that is in the log now is committed; `None` if it is.
    pub fn all_committed(self: &Arc<Self>) -> Option<Awaited> {
        let mut state = self.state.lock();
        let end = state.log.as_ref().map(PartitionLog::end_offset)?;
        let awaited = state.when_committed(end)?;
        if state.wants_flush() {
            self.start_flush(&mut state);
        }
        // After a failed flush nothing comes any more.
        if state.has_failed() {
            state.refuse_waiting();
        }
        Some(awaited)
    }

    /// Reads for a follower, to the log's end, and takes note of how much it has.
    pub fn read_for_replica(
        self: &Arc<Self>,
        fetch: ReplicaFetch,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ReplicaRead, PartitionError> {
        let now = self.began.elapsed();
        let mut state = self.state.lock();
        let state = &mut *state;
        let (ours, theirs) = (state.leader_epoch, fetch.leader_epoch);
        let Role::Leads(leader) = &mut state.role else { return Err(PartitionError::NotLeader) };
        let log = state.log.as_ref().ok_or(PartitionError::Closed)?;
        if theirs < ours {
            return Err(PartitionError::FencedLeaderEpoch { ours, theirs });
        }
        if theirs > ours {
            return Err(PartitionError::UnknownLeaderEpoch { ours, theirs });
        }
        let (start, end) = (log.log_start_offset(), log.end_offset());
        let has_history = fetch.last_epoch >= 0 && fetch.from >= start;
        if has_history && let Some((epoch, end_offset)) = log.epoch_end_offset(fetch.last_epoch) {
            if epoch < fetch.last_epoch || end_offset < fetch.from {
                let offsets = state.offsets_of(log);
                return Ok(ReplicaRead::Diverged(offsets, EpochEnd { epoch, end_offset }));
            }
        } else if !(start..=end).contains(&fetch.from) || has_history {
            return Ok(ReplicaRead::OutOfRange(state.offsets_of(log)));
        }
        if !leader.fetched(fetch.replica, fetch.broker_epoch, fetch.from, end, now) {
            return Err(PartitionError::NotReplica(fetch.replica));
        }
        leader.starts_at(fetch.replica, fetch.log_start);
        let comes_back = leader.has_caught_up(fetch.replica, start);
        let is_in_sync = leader.isr().contains(&fetch.replica);
        state.advance();
        if comes_back {
            self.replication.in_sync.look_at(self);
        }
        let log = state.log.as_ref().ok_or(PartitionError::Closed)?;
        let throttle = self.leader_throttle(&state.config);
        if let Some(until) =
            throttle.and_then(|side| side.held_until(is_in_sync)).filter(|_| fetch.from < end)
        {
            return Ok(ReplicaRead::HeldBack(state.offsets_of(log), until));
        }
        match log.read(fetch.from, end, max_bytes, at_least_one) {
            Ok(slice) => {
                if let Some(side) = throttle {
                    side.copied(slice.len, is_in_sync);
                }
                Ok(ReplicaRead::Records(state.offsets_of(log), slice))
            }
            Err(ReadError::BelowLocalStart { .. }) => Ok(ReplicaRead::InTier(state.offsets_of(log))),
            Err(error) => Err(self.noted(log.segment_at(fetch.from), error)),
        }
    }

    /// What followers get counts there, if it is throttled where this broker leads.
    fn leader_throttle(&self, config: &TopicConfig) -> Option<&Side> {
        let throttled = &config.leader_replication_throttled_replicas;
        let is_throttled = throttled.contains(self.name.partition, self.replication.node_id);
        is_throttled.then_some(&self.replication.throttles.leader)
    }

    /// What a follower has to know that begins where the disk of this leader, one of this epoch, does.
    pub fn local_start(&self, leader_epoch: i32) -> Result<LocalStart, PartitionError> {
        let state = self.state.lock();
        let (ours, theirs) = (state.leader_epoch, leader_epoch);
        self.leader(&state).ok_or(PartitionError::NotLeader)?;
        if ours != theirs {
            return Err(PartitionError::FencedLeaderEpoch { ours, theirs });
        }
        Ok(state.log.as_ref().ok_or(PartitionError::Closed)?.local_start()?)
    }

    /// Up to where every replica in sync has deleted its records, a future leader among them; `None` while that cannot be known.
    pub fn deleted_everywhere(&self) -> Option<i64> {
        let state = self.state.lock();
        let start = state.log.as_ref()?.log_start_offset();
        Some(self.leader(&state)?.low_watermark(start)).filter(|low| *low >= 0)
    }

    /// Where the other replicas' histories would part from this leader's, if they led next; `None` if this broker does not lead.
    pub fn parts_at(&self) -> Option<Vec<RangeInclusive<i64>>> {
        Some(self.leader(&self.state.lock())?.parts_at())
    }

    /// Lets go what this leader, one of this epoch, has on its disk below `end`: up to there the tier has a log that is compacted as
    /// far as this one.
    pub fn tiered_to(&self, leader_epoch: i32, end: impl FnOnce(i64) -> i64) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        let (ours, theirs) = (state.leader_epoch, leader_epoch);
        if state.leader().is_none() || ours != theirs {
            return Err(PartitionError::FencedLeaderEpoch { ours, theirs });
        }
        state.with_log(|log| log.set_tiered_end_offset(end(log.cleaned_offset())))
    }

    /// What the controller is to be told of who is in sync, and of which leader epoch and partition epoch it is; `may_join` says
    /// whom it would take in.
    pub fn in_sync_report(&self, may_join: impl Fn(InSync) -> bool) -> Option<(i32, i32, Report)> {
        let now = self.began.elapsed();
        let mut state = self.state.lock();
        let state = &mut *state;
        let log = state.log.as_ref()?;
        let (start, end) = (log.log_start_offset(), log.end_offset());
        let Role::Leads(leader) = &mut state.role else { return None };
        let report = leader.report(start, end, now, may_join)?;
        Some((state.leader_epoch, state.partition_epoch, report))
    }

    /// The controller does not want what it was told in this epoch of the partition.
    pub fn report_refused(&self, partition_epoch: i32) {
        let mut state = self.state.lock();
        if state.partition_epoch == partition_epoch
            && let Role::Leads(leader) = &mut state.role
        {
            leader.refused();
        }
    }

    /// Where this follower of `leader` stands; `None` if it is none.
    pub fn position(&self, leader: i32) -> Option<Position> {
        let state = self.state.lock();
        let log = state.log.as_ref()?;
        let Role::Follows(followed) = state.role else { return None };
        let offset = state.vouched_end();
        let log_start = log.log_start_offset();
        let last = offset.checked_sub(1).filter(|last| *last >= log_start);
        let last_epoch = last.and_then(|last| log.epoch_for_offset(last)).unwrap_or(-1);
        let throttled = &state.config.follower_replication_throttled_replicas;
        let is_throttled = throttled.contains(self.name.partition, self.replication.node_id);
        let leader_epoch = state.leader_epoch;
        let position = Position { leader_epoch, offset, last_epoch, log_start, is_throttled };
        (followed == leader && !state.has_failed()).then_some(position)
    }

    /// Appends what the leader of this epoch has sent, as it is; what is here already is passed over, and so is a batch that
    /// was cut short at the end. Resolves once it is as durable as the topic asks.
    pub fn append_fetched(
        self: &Arc<Self>,
        leader_epoch: i32,
        bytes: &Bytes,
        now_ms: i64,
    ) -> Result<Option<Awaited>, PartitionError> {
        let fetched = checked(bytes, leader_epoch)?;
        let mut state = self.state.lock();
        state.followed_in(leader_epoch)?;
        let admitted = self.data_dir.guard.admit(bytes.len()).map_err(PartitionError::from);
        let appended =
            admitted.and_then(|()| self.append_new(&mut state, leader_epoch, bytes, &fetched, now_ms));
        self.noting_room(&state, bytes.len(), appended)?;
        let end = state.followed_in(leader_epoch)?.end_offset();
        state.unflushed_since.get_or_insert(now_ms);
        if state.wants_flush() {
            self.start_flush(&mut state);
        }
        state.advance();
        Ok(state.when_vouched_for(end))
    }

    fn append_new(
        self: &Arc<Self>,
        state: &mut State,
        leader_epoch: i32,
        bytes: &Bytes,
        fetched: &[(usize, BatchHeader)],
        now_ms: i64,
    ) -> Result<(), PartitionError> {
        let log = state.followed_in(leader_epoch)?;
        // Where two logs have an offset of the same epoch, they are the same up to there.
        let is_here = |(_, header): &&(usize, BatchHeader)| {
            header.next_offset() <= log.end_offset()
                && log.epoch_for_offset(header.last_offset()) == Some(header.partition_leader_epoch)
        };
        let known = fetched.iter().take_while(is_here).count();
        let new = fetched.get(known..).unwrap_or_default();
        if let (Some((from, first)), Some((last, header))) = (new.first(), new.last()) {
            let bytes = bytes.slice(*from..*last + header.size_in_bytes());
            let headers: Vec<BatchHeader> = new.iter().map(|(_, header)| *header).collect();
            self.make_way(state, leader_epoch, first.base_offset, bytes.len())?;
            state.followed_in(leader_epoch)?.append_fetched(&bytes, &headers, now_ms)?;
        }
        Ok(())
    }

    /// Lets the log end where the leader's next batch begins, if it reaches beyond; so many bytes are about to be appended.
    fn make_way(
        self: &Arc<Self>,
        state: &mut State,
        leader_epoch: i32,
        base: i64,
        bytes: usize,
    ) -> Result<(), PartitionError> {
        let log = state.followed_in(leader_epoch)?;
        if base >= log.end_offset() {
            return Ok(());
        }
        if !log.is_empty() {
            return self.truncate(state, leader_epoch, base);
        }
        Ok(log.begin_before_log_start(base, bytes)?)
    }

    /// Takes over how far the leader of this epoch says that records are committed. Returns where this log is to start, if the
    /// leader's, which starts at `log_start`, has been cut at its beginning: to be noted, and then followed (`follow_log_start`).
    ///
    /// What the leader has deleted it cannot compare. If this log did not know it to be committed before, it may be another leader's,
    /// and counts as committed only once this log starts behind it, and so gives it to nobody.
    pub fn follow_offsets(
        &self,
        leader_epoch: i32,
        high_watermark: i64,
        log_start: i64,
    ) -> Result<Option<i64>, PartitionError> {
        let mut state = self.state.lock();
        state.followed_in(leader_epoch)?;
        let committed = high_watermark.min(state.vouched_end());
        if log_start <= state.high_watermark {
            state.raise_high_watermark(committed);
        }
        let start = log_start.min(committed.max(state.high_watermark));
        let own = state.followed_in(leader_epoch)?.log_start_offset();
        Ok(Some(start).filter(|start| *start > own))
    }

    /// Takes over where the tier ends, as the leader of this epoch says, whose log is compacted up to `cleaned`. What is compacted
    /// further here stays until the leader's is: the tier may have records of which only this log knows the tombstones to be gone.
    /// And so does everything as long as this log lacks records by which the leader's is compacted: if it led without them, what they
    /// supersede would count again.
    pub fn follow_tiered_end(&self, leader_epoch: i32, end: i64, cleaned: i64) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        let committed = state.high_watermark;
        let log = state.followed_in(leader_epoch)?;
        if log.cleaned_offset() <= cleaned && cleaned <= log.end_offset() {
            log.follow_tiered_end_offset(end.min(committed));
        }
        Ok(())
    }

    /// Lets the log start where the leader of this epoch has let its own start. The leader is told so by the next fetch, and tells
    /// who wanted the records to be gone: so it is noted on the disk before.
    pub fn follow_log_start(&self, leader_epoch: i32, start: i64) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        state.followed_in(leader_epoch)?.follow_log_start(start);
        let committed = start.min(state.vouched_end());
        state.raise_high_watermark(committed);
        Ok(())
    }

    /// Cuts what the leader of this epoch, whose history parts from this one there, does not have.
    pub fn cut(self: &Arc<Self>, leader_epoch: i32, parts_at: EpochEnd) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        let log = state.followed_in(leader_epoch)?;
        let own = |epoch| {
            let (epoch, end_offset) = log.epoch_end_offset(epoch)?;
            Some(EpochEnd { epoch, end_offset })
        };
        let to = follower::cut(parts_at, log.end_offset(), own).ok_or_else(|| {
            AppendError::InvalidBatches(format!("epoch {} is beyond all of this log's", parts_at.epoch))
        })?;
        self.truncate(&mut state, leader_epoch, to)
    }

    fn truncate(
        self: &Arc<Self>,
        state: &mut State,
        leader_epoch: i32,
        to: i64,
    ) -> Result<(), PartitionError> {
        let log = state.followed_in(leader_epoch)?;
        let from = log.end_offset();
        if let Err(error) = log.truncate_to(to) {
            if let Some(damage) = log.damage_before_cut(to)? {
                self.is_damaged(damage.segment, &damage);
            }
            return Err(error.into());
        }
        let end = log.end_offset();
        if end < state.high_watermark {
            tracing::warn!(
                partition = %self.name, end, high_watermark = state.high_watermark,
                "committed records are cut, because a leader was elected that does not have them"
            );
        } else {
            tracing::info!(partition = %self.name, from, end, "cut what the leader does not have");
        }
        state.high_watermark = state.high_watermark.min(end);
        Ok(())
    }

    /// Gives all records up, and goes on where the disk of the leader of this epoch begins: what lies before is in the tier.
    pub fn begin_at_local_start(&self, leader_epoch: i32, start: &LocalStart) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        let log = state.followed_in(leader_epoch)?;
        let begun = log.begin_at_local_start(start);
        let (log_start, offset) = (log.log_start_offset(), log.end_offset());
        // Also where a full disk has cut it short: what the log had is gone by then.
        state.high_watermark = state.high_watermark.min(offset);
        begun?;
        tracing::info!(partition = %self.name, log_start, offset, "goes on where the leader's disk begins: what is before is in the tier");
        state.high_watermark = offset;
        Ok(())
    }

    /// Gives all records up, and goes on where the leader's log starts.
    pub fn begin_at(&self, leader_epoch: i32, log_start: i64) -> Result<(), PartitionError> {
        let mut state = self.state.lock();
        let log = state.followed_in(leader_epoch)?;
        let end = log.end_offset();
        tracing::warn!(partition = %self.name, end, log_start, "the leader has nothing that follows this log: begins anew");
        let begun = log.truncate_fully_and_start_at(log_start);
        let end = state.followed_in(leader_epoch)?.end_offset();
        // Also where a full disk has cut it short: what the log had is gone by then.
        state.high_watermark = if begun.is_ok() { end } else { state.high_watermark.min(end) };
        Ok(begun?)
    }
}

impl State {
    pub(super) fn begin_to_follow(&mut self, leader: i32) {
        self.role = Role::Follows(leader);
        if let Some(log) = &mut self.log {
            log.forget_unwritten_epochs();
        }
        self.dismiss_waiting();
    }

    /// The log, if it follows a leader of this epoch.
    fn followed_in(&mut self, leader_epoch: i32) -> Result<&mut PartitionLog, PartitionError> {
        let (ours, theirs) = (self.leader_epoch, leader_epoch);
        match self.role {
            Role::Follows(_) if ours == theirs => self.log.as_mut().ok_or(PartitionError::Closed),
            _ => Err(PartitionError::FencedLeaderEpoch { ours, theirs }),
        }
    }
}

/// The whole batches, with the place of each, once their checksums are right. The leader was one of `leader_epoch` when it was
/// asked; by the time that it sends, its log may have been cut and be another leader's.
fn checked(bytes: &Bytes, leader_epoch: i32) -> Result<Vec<(usize, BatchHeader)>, PartitionError> {
    let mut found = Vec::new();
    let mut at = 0;
    let mut all = batches(bytes);
    for batch in all.by_ref() {
        let (header, batch) = batch?;
        verify_crc(batch)?;
        if header.partition_leader_epoch > leader_epoch {
            let theirs = header.partition_leader_epoch;
            return Err(PartitionError::FencedLeaderEpoch { ours: leader_epoch, theirs });
        }
        found.push((at, header));
        at += batch.len();
    }
    if found.is_empty() && !bytes.is_empty() {
        let what = format!("{} bytes hold no whole batch", bytes.len());
        return Err(AppendError::InvalidBatches(what).into());
    }
    Ok(found)
}

#[cfg(test)]
#[path = "history_tests.rs"]
mod tests;
