//! What a partition's lock guards.

use std::sync::Arc;
use std::time::Duration;

use firn_model::topic_config::TopicConfig;
use firn_replication::leader::Leader;
use firn_storage::partition_log::PartitionLog;

use super::refusals::Refusals;
use super::waiting::{Awaited, Readers, Waiting};
use super::{Offsets, PartitionError, replica::Role};

pub(super) struct State {
    /// `None` once the partition is closed or deleted.
    pub(super) log: Option<PartitionLog>,
    pub(super) config: Arc<TopicConfig>,
    pub(super) role: Role,
    pub(super) leader_epoch: i32,
    /// Of the assignment that this replica obeys; -1 before the first.
    pub(super) partition_epoch: i32,
    pub(super) high_watermark: i64,
    /// Since when records wait for `flush.ms`; `None` while all are flushed.
    pub(super) unflushed_since: Option<i64>,
    /// A flush runs, or is about to.
    pub(super) flushing: bool,
    /// A flush failed: nothing more will be durable.
    failed: bool,
    awaiting_vouched: Waiting,
    awaiting_commit: Waiting,
    /// Log starts.
    awaiting_deletion: Waiting,
    /// `flush.ms` is over for what lies below this offset, whatever `flush.messages` is.
    pub(super) flush_due_to: i64,
    pub(super) refusals: Refusals,
    /// It did not lead last: whoever takes it for the leader may have heard of an election before this broker has.
    pub(super) may_be_next: bool,
    pub(super) readers: Readers,
    /// Its readers have been sent to followers.
    pub(super) is_read_elsewhere: bool,
}

impl State {
    pub(super) fn new(log: PartitionLog, config: Arc<TopicConfig>) -> Self {
        Self {
            high_watermark: log.high_watermark(),
            log: Some(log),
            config,
            role: Role::NONE,
            leader_epoch: -1,
            partition_epoch: -1,
            unflushed_since: None,
            flushing: false,
            failed: false,
            awaiting_vouched: Waiting::default(),
            awaiting_commit: Waiting::default(),
            awaiting_deletion: Waiting::default(),
            flush_due_to: 0,
            refusals: Refusals::default(),
            may_be_next: false,
            readers: Readers::default(),
            is_read_elsewhere: false,
        }
    }

    /// The leader's part, if it is this broker's.
    pub(super) fn leader(&self) -> Option<&Leader> {
        match &self.role {
            Role::Leads(leader) => Some(leader),
            Role::Follows(_) => None,
        }
    }

    /// Runs `act` on the log; followers are told where it starts then, and where the tier ends.
    pub(super) fn with_log<T>(
        &mut self,
        act: impl FnOnce(&mut PartitionLog) -> T,
    ) -> Result<T, PartitionError> {
        let log = self.log.as_mut().ok_or(PartitionError::Closed)?;
        let (start, tiered_end) = (log.log_start_offset(), log.tiered_end_offset());
        let done = act(log);
        if log.log_start_offset() != start {
            self.readers.log_start_moved();
        } else if log.tiered_end_offset() != tiered_end {
            self.readers.tiered_end_moved();
        }
        Ok(done)
    }

    /// Records have been appended here: the followers that had all before are up to date as of `now`.
    pub(super) fn appended_from(&mut self, offset: i64, now: Duration) {
        if let Role::Leads(leader) = &mut self.role {
            leader.appended_from(offset, now);
        }
    }

    pub(super) fn offsets_of(&self, log: &PartitionLog) -> Offsets {
        Offsets {
            log_start: log.log_start_offset(),
            local_start: log.local_start_offset(),
            high_watermark: self.high_watermark,
            last_stable: log.last_stable_offset(self.high_watermark),
            log_end: log.end_offset(),
            tiered_end: log.tiered_end_offset(),
            cleaned: log.cleaned_offset(),
        }
    }

    pub(super) fn wants_flush(&self) -> bool {
        let Some(log) = &self.log else { return false };
        let unflushed = log.end_offset() - log.flushed_offset();
        let is_due = log.flushed_offset() < self.flush_due_to;
        !self.failed && unflushed > 0 && (unflushed >= self.config.flush_messages || is_due)
    }

    /// How far this replica vouches for what it has: as in Kafka to the end, unless so many records (`flush.messages`) are
    /// not flushed that they have to be first.
    pub(super) fn vouched_end(&self) -> i64 {
        let Some(log) = &self.log else { return 0 };
        let (flushed, end) = (log.flushed_offset(), log.end_offset());
        if end - flushed >= self.config.flush_messages { flushed } else { end }
    }

    /// Moves what follows from the log's own offsets as far as it may go, and tells those who waited for it.
    pub(super) fn advance(&mut self) {
        let Some(log) = &self.log else { return };
        if log.flushed_offset() >= log.end_offset() {
            self.unflushed_since = None;
        }
        let log_start = log.log_start_offset();
        let vouched = self.vouched_end();
        self.awaiting_vouched.reached(vouched);
        if let Role::Leads(leader) = &mut self.role {
            leader.flushed(vouched);
            self.awaiting_deletion.reached(leader.low_watermark(log_start));
            let committed = leader.high_watermark();
            self.raise_high_watermark(committed);
        }
    }

    pub(super) fn raise_high_watermark(&mut self, to: i64) {
        let Some(log) = &mut self.log else { return };
        if to > self.high_watermark {
            self.high_watermark = to;
            log.high_watermark_moved(to);
            self.awaiting_commit.reached(to);
            self.readers.committed(self.is_read_elsewhere);
        }
    }

    pub(super) fn update_config(&mut self, config: Arc<TopicConfig>) {
        self.config = config;
        let min_isr = self.min_isr();
        if let Role::Leads(leader) = &mut self.role {
            leader.set_min_isr(min_isr);
        }
        self.advance();
    }

    pub(super) fn min_isr(&self) -> usize {
        usize::try_from(self.config.min_insync_replicas).unwrap_or(1)
    }

    /// Resolves once this replica vouches for what lies below `end`; `None` if it does.
    pub(super) fn when_vouched_for(&mut self, end: i64) -> Option<Awaited> {
        (self.vouched_end() < end).then(|| self.awaiting_vouched.wait_for(end))
    }

    /// Resolves once what lies below `end` is committed; `None` if it is.
    pub(super) fn when_committed(&mut self, end: i64) -> Option<Awaited> {
        (self.high_watermark < end).then(|| self.awaiting_commit.wait_for(end))
    }

    /// Resolves once no log in sync starts below `start`; `None` if none does.
    pub(super) fn when_deleted(&mut self, start: i64) -> Option<Awaited> {
        let log_start = self.log.as_ref().map_or(0, PartitionLog::log_start_offset);
        let reached = self.leader().is_none_or(|leader| leader.low_watermark(log_start) >= start);
        (!reached).then(|| self.awaiting_deletion.wait_for(start))
    }

    pub(super) fn fail(&mut self) {
        self.failed = true;
        self.refuse_waiting();
    }

    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Tells those who wait for records that they are not durable now.
    pub(super) fn refuse_waiting(&mut self) {
        self.awaiting_vouched.fail();
        self.awaiting_commit.fail();
    }

    /// Tells everybody who waits that nothing comes from here any more.
    pub(super) fn dismiss_waiting(&mut self) {
        self.awaiting_vouched.dismiss();
        self.awaiting_commit.dismiss();
        self.awaiting_deletion.dismiss();
        self.readers.wake_all();
    }
}
