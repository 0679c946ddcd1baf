//! Leader epochs: which branch of history an object lies on.
//!
//! A leader epoch has one leader, and a replica cuts its log to where it agrees with the leader before it copies more
//! (KIP-101, KIP-279). So if two histories give one offset the same epoch, they hold the same records up to it: the
//! log matching property. An unclean election may make two branches; a later leader's history then gives the offsets
//! of the lost branch other epochs, and that is what tells its objects apart.
//!
//! It tells also by whose keys an object was compacted. One that lies wholly below the point where the branches part may
//! lack a record because a newer one of its key stood beyond: on the branch that is lost, so that the older one counts again.

use crate::names::ObjectName;

/// One line of Kafka's leader-epoch-checkpoint: the epoch's first offset.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochStart {
    pub epoch: i32,
    pub start_offset: i64,
}

/// A log's history of leaders: epochs and start offsets, both strictly rising.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct LeaderEpochs(Vec<EpochStart>);

/// How far records were compacted, and in which history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Compaction {
    /// By all records below this offset; -1 for a log as it was written.
    pub to: i64,
    /// Leader epoch of the last offset below `to`, as the cleaner knew it. `None` where nothing was compacted, and where an
    /// object does not say (footers of format 1): it is believed to be of every branch.
    pub epoch: Option<i32>,
}

impl Compaction {
    /// Of a log as it was written.
    pub const NONE: Self = Self { to: -1, epoch: None };
}

/// What a history says of the records by which an object was compacted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keys {
    /// They are of this branch, or there are none.
    Ours,
    /// Some are of another: the object may lack records that nothing supersedes on this one.
    Lost,
    /// The last was written in an epoch this history has not reached: its reader has been deposed.
    Newer,
}

/// What a history says of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Every record is of this branch.
    Whole,
    /// Records below the offset are of this branch, the rest of another.
    Until(i64),
    /// No record is known to be of this branch.
    Lost,
    /// Written in an epoch this history has not reached: its reader has been deposed, and must judge nothing.
    Newer,
    /// The name does not tell: the object's own history is needed.
    NeedsEpochs,
}

impl LeaderEpochs {
    /// Takes the entries in order. `None` if epochs or offsets do not rise, or one is negative.
    pub fn new(entries: Vec<EpochStart>) -> Option<Self> {
        let rising = entries
            .iter()
            .zip(entries.iter().skip(1))
            .all(|(a, b)| a.epoch < b.epoch && a.start_offset < b.start_offset);
        let positive = entries.first().is_none_or(|first| first.epoch >= 0 && first.start_offset >= 0);
        (rising && positive).then_some(Self(entries))
    }

    /// Takes entries as a checkpoint holds them. An epoch whose leader wrote nothing shares its start with the next:
    /// it owns no offset and is left out. What does not rise is left out, too.
    pub fn from_checkpoint(entries: impl IntoIterator<Item = EpochStart>) -> Self {
        let mut kept: Vec<EpochStart> = Vec::new();
        for entry in entries {
            while kept.last().is_some_and(|last| last.start_offset >= entry.start_offset) {
                kept.pop();
            }
            if entry.epoch >= 0
                && entry.start_offset >= 0
                && kept.last().is_none_or(|l| l.epoch < entry.epoch)
            {
                kept.push(entry);
            }
        }
        Self(kept)
    }

    pub fn entries(&self) -> &[EpochStart] {
        &self.0
    }

    pub fn latest(&self) -> Option<EpochStart> {
        self.0.last().copied()
    }

    /// Epoch in which `offset` was, or will be, written. `None` before the first entry.
    pub fn epoch_at(&self, offset: i64) -> Option<i32> {
        let after = self.0.partition_point(|entry| entry.start_offset <= offset);
        after.checked_sub(1).and_then(|index| self.0.get(index)).map(|entry| entry.epoch)
    }

    /// First offset after `epoch`'s; `i64::MAX` for the latest. `None` if the epoch owns no offset here.
    pub fn end_of(&self, epoch: i32) -> Option<i64> {
        let index = self.0.binary_search_by_key(&epoch, |entry| entry.epoch).ok()?;
        Some(self.0.get(index + 1).map_or(i64::MAX, |next| next.start_offset))
    }

    /// The part of the history that covers `[base, last]`, as an object keeps it.
    pub fn slice(&self, base_offset: i64, last_offset: i64) -> Self {
        let first = self.0.partition_point(|entry| entry.start_offset <= base_offset).saturating_sub(1);
        let end = self.0.partition_point(|entry| entry.start_offset <= last_offset);
        Self(self.0.get(first..end.max(first)).unwrap_or_default().to_vec())
    }

    /// First offset from which `self` and `other` may differ: the end of the greatest epoch that both have.
    /// `None` if they share no epoch.
    pub fn common_end(&self, other: &Self) -> Option<i64> {
        self.0.iter().rev().find_map(|entry| {
            let ours = self.end_of(entry.epoch)?;
            other.end_of(entry.epoch).map(|theirs| ours.min(theirs))
        })
    }

    /// What this history says of the records that a compaction went by. As in [`LeaderEpochs::standing`], what ends before this
    /// history begins is taken as it is.
    pub fn keys(&self, compaction: &Compaction) -> Keys {
        let (Some(first), Some(latest)) = (self.0.first(), self.latest()) else { return Keys::Ours };
        match compaction.epoch {
            Some(epoch) if epoch > latest.epoch => Keys::Newer,
            Some(epoch) if compaction.to > first.start_offset => match self.end_of(epoch) {
                Some(end) if compaction.to <= end => Keys::Ours,
                _ => Keys::Lost,
            },
            _ => Keys::Ours,
        }
    }

    /// How a compaction by all records of this history below `to` is noted.
    pub fn compaction(&self, to: i64) -> Compaction {
        Compaction { to, epoch: to.checked_sub(1).and_then(|last| self.epoch_at(last)) }
    }

    /// What this history says of `name`, whose own history is `epochs` if it has been read.
    ///
    /// An object that ends before this history begins cannot be judged and is taken as it is: a log that keeps its
    /// epochs from the log start on, as Kafka's does with remote storage, never gets there.
    pub fn standing(&self, name: &ObjectName, epochs: Option<&LeaderEpochs>) -> Standing {
        let (Some(first), Some(latest)) = (self.0.first(), self.latest()) else { return Standing::Whole };
        if name.leader_epoch > latest.epoch {
            return Standing::Newer;
        }
        if name.last_offset < first.start_offset {
            return Standing::Whole;
        }
        if self.epoch_at(name.last_offset) == Some(name.leader_epoch) {
            return Standing::Whole;
        }
        let until = match (self.end_of(name.leader_epoch), epochs) {
            (Some(end), _) => Some(end),
            (None, Some(epochs)) => self.common_end(epochs),
            (None, None) => return Standing::NeedsEpochs,
        };
        // An end past the last offset contradicts the test above: such an object's name or history is not true.
        match until {
            Some(end) if name.base_offset < end && end <= name.last_offset => Standing::Until(end),
            _ => Standing::Lost,
        }
    }
}

#[cfg(test)]
#[path = "lineage/tests.rs"]
mod tests;
