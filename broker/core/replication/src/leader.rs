//! What a leader knows of its followers, and what follows from it: who is in sync, and how far records are committed.
//!
//! A record is committed once every replica in sync has it (on stable storage, where the topic asks for that: a follower
//! fetches from where its log is durable). In sync is who is in the ISR that the controller has agreed to, and, until it has
//! answered, who is in the one that it was asked for: records count as committed by the larger of the two (KIP-497).
//! What was asked for counts until the partition's epoch has moved: a report that seems lost, or was refused when it was
//! sent again, may still be on its way to a controller that takes it. So a report that is refused is withdrawn by another
//! one, which moves the epoch. With fewer than `min.insync.replicas` in sync nothing more is committed (KIP-966).

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

/// A follower's last fetches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    /// Of the incarnation that fetched; the controller refuses another one.
    broker_epoch: i64,
    /// Where its log starts and ends.
    log_start: i64,
    end_offset: i64,
    fetched_at: Duration,
    /// Where the leader's log ended then.
    leader_end: i64,
    /// When it last had all that there was.
    caught_up_at: Duration,
}

impl Seen {
    /// Of a follower that has not fetched yet.
    fn nothing(leader_end: i64, now: Duration) -> Self {
        Self {
            broker_epoch: -1,
            log_start: -1,
            end_offset: -1,
            fetched_at: now,
            leader_end,
            caught_up_at: now,
        }
    }
}

/// A replica, and the broker epoch that it fetched with; -1 where none is known.
pub type InSync = (i32, i64);

/// Asked for, and in force some day, unless the partition's epoch moves before.
#[derive(Debug, Clone)]
struct Proposed {
    isr: Vec<InSync>,
    /// It was refused, and is to be so for good.
    withdrawn: bool,
}

/// What the controller is to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub isr: Vec<InSync>,
    /// The ISR is what it was, and the partition's epoch is to move: what was reported before must not come to be in force.
    pub withdraws: bool,
}

/// The leader's side of one partition, in one leader epoch. Times are what a monotonic clock says.
#[derive(Debug, Clone)]
pub struct Leader {
    broker_id: i32,
    replicas: Vec<i32>,
    /// How many replicas there were before they began to move, or there are: no more have to be in sync.
    settled_replicas: usize,
    /// `min.insync.replicas`.
    min_isr: usize,
    /// `replica.lag.time.max.ms`.
    lag_max: Duration,
    isr: BTreeSet<i32>,
    proposed: Option<Proposed>,
    /// Where the log ended when this leader began: who has not fetched up to here may have another history.
    began_at_offset: i64,
    /// Where the leader's own log is durable.
    own_end: i64,
    high_watermark: i64,
    followers: BTreeMap<i32, Seen>,
}

/// What a leader starts with.
#[derive(Debug, Clone)]
pub struct Beginning {
    pub broker_id: i32,
    pub replicas: Vec<i32>,
    /// How many there were before they began to move, or there are.
    pub settled_replicas: usize,
    pub isr: Vec<i32>,
    pub min_isr: usize,
    pub lag_max: Duration,
    /// How long whoever led before may take itself for the leader still (`broker.session.timeout.ms`), and serve what it takes for the newest.
    pub lease: Duration,
    pub log_end: i64,
    /// As far as it knew it as a follower.
    pub high_watermark: i64,
}

impl Leader {
    /// Begins to lead `now`. Followers have as long as any to show that they are in sync, and as long as one of them may not know of this
    /// leader: as long as that one is in sync, nothing is committed of which it does not know.
    pub fn new(beginning: Beginning, now: Duration) -> Self {
        let Beginning { broker_id, replicas, settled_replicas, isr, .. } = beginning;
        let Beginning { min_isr, lag_max, lease, log_end, high_watermark, .. } = beginning;
        let caught_up_at = now + lease.saturating_sub(lag_max);
        let unseen = Seen { caught_up_at, ..Seen::nothing(log_end, now) };
        let followers = replicas.iter().filter(|id| **id != broker_id).map(|id| (*id, unseen)).collect();
        Self {
            broker_id,
            replicas,
            settled_replicas,
            min_isr,
            lag_max,
            isr: isr.into_iter().collect(),
            proposed: None,
            began_at_offset: log_end,
            own_end: high_watermark,
            high_watermark,
            followers,
        }
    }

    pub fn high_watermark(&self) -> i64 {
        self.high_watermark
    }

    /// The ISR that the controller has agreed to.
    pub fn isr(&self) -> &BTreeSet<i32> {
        &self.isr
    }

    /// Whether there are other replicas.
    pub fn has_followers(&self) -> bool {
        !self.followers.is_empty()
    }

    /// How many replicas are to be in sync for acks=all.
    pub fn min_isr(&self) -> usize {
        self.min_isr.min(self.settled_replicas)
    }

    /// Whether as many are.
    pub fn is_writable(&self) -> bool {
        self.isr.len() >= self.min_isr()
    }

    /// Whether it has come to know up to where what it found when it began is committed (KIP-207).
    pub fn knows_what_is_committed(&self) -> bool {
        self.high_watermark >= self.began_at_offset
    }

    /// A follower fetches from `offset`: it has all before. False if it is no replica, or has been started anew since.
    pub fn fetched(
        &mut self,
        follower: i32,
        broker_epoch: i64,
        offset: i64,
        log_end: i64,
        now: Duration,
    ) -> bool {
        let Some(seen) = self.followers.get_mut(&follower).filter(|seen| seen.broker_epoch <= broker_epoch)
        else {
            return false;
        };
        if offset >= log_end {
            seen.caught_up_at = seen.caught_up_at.max(now);
        } else if offset >= seen.leader_end {
            // It has now all that there was at its last fetch.
            seen.caught_up_at = seen.caught_up_at.max(seen.fetched_at);
        }
        *seen = Seen { broker_epoch, end_offset: offset, fetched_at: now, leader_end: log_end, ..*seen };
        self.advance();
        true
    }

    /// Records have been appended from this offset on: who had all that was before is up to date as of `now`. A follower is not
    /// heard of for as long as there is nothing for it.
    pub fn appended_from(&mut self, offset: i64, now: Duration) {
        for seen in self.followers.values_mut().filter(|seen| seen.end_offset >= offset) {
            seen.caught_up_at = now;
        }
    }

    /// A follower's log starts here.
    pub fn starts_at(&mut self, follower: i32, log_start: i64) {
        if let Some(seen) = self.followers.get_mut(&follower) {
            seen.log_start = log_start;
        }
    }

    /// Where the logs of all in sync start, or above, if the leader's starts at `own_start` (KIP-107). Nowhere as long as fewer are
    /// in sync than have to be: one that is no more may lead all the same (KIP-966), and has not deleted what was deleted since.
    pub fn low_watermark(&self, own_start: i64) -> i64 {
        if !self.is_writable() {
            return -1;
        }
        let starts = self.isr.iter().filter_map(|id| self.followers.get(id)).map(|seen| seen.log_start);
        starts.min().map_or(own_start, |start| start.min(own_start))
    }

    /// Where the history of each follower would part from this one, if it led next with no more than it has: at its log's end,
    /// or, as long as that is not known, anywhere before this leader began.
    pub fn parts_at(&self) -> Vec<RangeInclusive<i64>> {
        let ends = self.followers.values().map(|seen| seen.end_offset);
        ends.map(|end| if end < 0 { 0..=self.began_at_offset } else { end..=end }).collect()
    }

    /// The leader's own log is durable up to here.
    pub fn flushed(&mut self, own_end: i64) {
        self.own_end = own_end;
        self.advance();
    }

    /// `min.insync.replicas` is another now.
    pub fn set_min_isr(&mut self, min_isr: usize) {
        self.min_isr = min_isr;
        self.advance();
    }

    fn advance(&mut self) {
        if !self.is_writable() {
            return;
        }
        let asked_for = self.proposed.iter().flat_map(|proposed| &proposed.isr).map(|(id, _)| id);
        let ends = self.isr.iter().chain(asked_for).map(|id| self.end_of(*id)).min();
        self.high_watermark = self.high_watermark.max(ends.unwrap_or(self.own_end));
    }

    fn end_of(&self, replica: i32) -> i64 {
        match self.followers.get(&replica) {
            _ if replica == self.broker_id => self.own_end,
            Some(seen) => seen.end_offset,
            None => -1,
        }
    }

    /// What the controller is to be told, again if need be; nothing once the partition's epoch has moved. `may_join` says whom it
    /// would take into the ISR: a broker that is not fenced, and is in this epoch. The leader's own log begins at `log_start`, and
    /// ends at `log_end`.
    pub fn report(
        &mut self,
        log_start: i64,
        log_end: i64,
        now: Duration,
        may_join: impl Fn(InSync) -> bool,
    ) -> Option<Report> {
        if self.proposed.is_none() {
            let in_sync = |id: &i32| match self.isr.contains(id) {
                true => self.keeps_up(*id, log_end, now),
                false => self.has_caught_up(*id, log_start) && may_join((*id, self.broker_epoch_of(*id))),
            };
            let wanted: BTreeSet<i32> = self.replicas.iter().copied().filter(in_sync).collect();
            if wanted != self.isr {
                let isr = wanted.into_iter().map(|id| (id, self.broker_epoch_of(id))).collect();
                self.proposed = Some(Proposed { isr, withdrawn: false });
            }
        }
        let proposed = self.proposed.as_ref()?;
        Some(match proposed.withdrawn {
            false => Report { isr: proposed.isr.clone(), withdraws: false },
            true => {
                let isr = self.isr.iter().map(|id| (*id, -1)).collect();
                Report { isr, withdraws: true }
            }
        })
    }

    /// Which of these replicas has most of what follows `offset`, if one in sync has anything (KIP-392).
    pub fn nearest(&self, offset: i64, candidates: &[i32]) -> Option<i32> {
        let in_sync = candidates.iter().filter(|id| self.isr.contains(id));
        let has_it = in_sync.filter_map(|id| {
            let seen = self.followers.get(id)?;
            ((0..=offset).contains(&seen.log_start) && seen.end_offset >= offset)
                .then_some((seen.end_offset, *id))
        });
        has_it.max().map(|(_, id)| id)
    }

    /// Whether a replica in sync still is.
    fn keeps_up(&self, replica: i32, log_end: i64, now: Duration) -> bool {
        let Some(seen) = self.followers.get(&replica) else { return true };
        seen.end_offset >= log_end || now.saturating_sub(seen.caught_up_at) <= self.lag_max
    }

    /// Whether a replica that is out of sync has what is committed, and what this leader found when it began; and has deleted what
    /// is deleted here, which it would bring back if it led (KIP-107).
    pub fn has_caught_up(&self, replica: i32, log_start: i64) -> bool {
        let wanted = self.high_watermark.max(self.began_at_offset);
        let has_it = |seen: &Seen| seen.end_offset >= wanted && seen.log_start >= log_start;
        !self.isr.contains(&replica) && self.followers.get(&replica).is_some_and(has_it)
    }

    fn broker_epoch_of(&self, replica: i32) -> i64 {
        self.followers.get(&replica).map_or(-1, |seen| seen.broker_epoch)
    }

    /// The controller does not want what was reported last.
    pub fn refused(&mut self) {
        if let Some(proposed) = &mut self.proposed {
            proposed.withdrawn = true;
        }
    }

    /// Its replicas are these from now on, in the same leader epoch: more than before, for who goes ends the epoch.
    pub fn reassigned(&mut self, replicas: &[i32], settled_replicas: usize, log_end: i64, now: Duration) {
        self.replicas = replicas.to_vec();
        self.settled_replicas = settled_replicas;
        let followers = replicas.iter().copied().filter(|id| *id != self.broker_id);
        let before = std::mem::take(&mut self.followers);
        let seen = |id: i32| before.get(&id).copied().unwrap_or_else(|| Seen::nothing(log_end, now));
        self.followers = followers.map(|id| (id, seen(id))).collect();
    }

    /// The partition's epoch has moved, and this is in force.
    pub fn settled(&mut self, isr: &[i32]) {
        self.isr = isr.iter().copied().collect();
        self.proposed = None;
        self.advance();
    }
}

#[cfg(test)]
#[path = "leader_tests.rs"]
mod tests;
