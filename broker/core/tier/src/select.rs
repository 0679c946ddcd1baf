//! Which objects serve which offsets, and which are garbage: the manifest, worked out from a listing.
//!
//! What is below the high watermark never changes, so objects that overlap agree, but for two cases:
//! - an **unclean election** leaves objects of a lost branch. The reader's own leader epochs say up to where an
//!   object is true ([`LeaderEpochs::standing`]); beyond that it serves nothing.
//! - **compaction** takes records away. An object compacted further must win wherever it reaches, or a record whose
//!   tombstone is gone already would come back. But one that was compacted by records of a lost branch may lack what
//!   nothing supersedes on this one: it serves where there is no other, and of several the one that was compacted least.
//!
//! So overlaps are settled by one total order, greatest first: compacted further by records of this branch, less far by
//! those of another, leader epoch, last offset, then the lower base offset, fewer bytes, greater timestamp.
//!
//! Where one history lets an object go another would need it, the next leader's may be the other one. So a leader keeps
//! what each of its replicas would choose if it were elected with what it has now ([`needed_after`]), and what it
//! condemns all the same waits for a grace, after which those that it might have been needed by have told where they are,
//! and leaders of before have ended. For the same reason an object of an epoch that the reader has not reached is never
//! garbage.
//!
//! An object covers its whole range `[base, last]`, holes left by compaction included. Offsets that no object
//! covers are a hole in the tier and are reported as such, never skipped silently.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::ops::RangeInclusive;

use crate::footer::Footer;
use crate::lineage::{Compaction, Keys, LeaderEpochs, Standing};
use crate::names::ObjectName;

/// What has been learned of an object from its footer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Facts {
    /// The footer has not been read.
    #[default]
    Unread,
    Read {
        leader_epochs: LeaderEpochs,
        compaction: Compaction,
    },
    /// The object is not what its name says: it serves nothing, and only its uploader's retry replaces it.
    Damaged,
}

impl From<&Footer> for Facts {
    fn from(footer: &Footer) -> Self {
        Facts::Read { leader_epochs: footer.leader_epochs.clone(), compaction: footer.compaction }
    }
}

/// The offsets a reader cares about, and its history of leaders.
#[derive(Debug, Clone, Copy)]
pub struct View<'a> {
    /// Log start offset: what ends at or before it is garbage.
    pub start_offset: i64,
    /// Offsets from here on are served by nobody; the reader's log end, or `i64::MAX`.
    pub end_offset: i64,
    /// The reader's own leader epochs, its current epoch included; empty when all is to be rebuilt from the bucket.
    pub leader_epochs: &'a LeaderEpochs,
    /// Records from here on are of another branch, whatever the leader epochs say: `i64::MAX` but for a reader that lacks them.
    pub keys_end: i64,
}

/// An object and the offsets it serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Link {
    pub name: ObjectName,
    pub from: i64,
    /// Exclusive.
    pub to: i64,
}

/// Why an object is garbage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Garbage {
    /// It ends at or before the log start offset.
    BelowStart,
    /// None of its records is of this history.
    LostBranch,
    /// Others serve all of its offsets.
    Superseded,
}

/// A listing, judged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Selection {
    /// What serves, in the order of offsets, without overlap; from `start_offset` on, holes possible.
    pub chain: Vec<Link>,
    pub garbage: BTreeMap<ObjectName, Garbage>,
    /// Written, or compacted, in epochs the reader has not reached: it is no longer the leader and must collect nothing.
    pub newer: Vec<ObjectName>,
    /// Cannot be judged by name: read their footers, then select again. They serve nothing before.
    pub needs_footer: Vec<ObjectName>,
}

impl Selection {
    /// Offsets from the chain's start up to which it has no hole. `None` if it is empty.
    pub fn first_run(&self) -> Option<(i64, i64)> {
        let first = self.chain.first()?;
        let end = self
            .chain
            .iter()
            .skip(1)
            .fold(first.to, |end, link| if link.from == end { link.to } else { end });
        Some((first.from, end))
    }

    /// The offset up to which all from `offset` on is served: `offset` itself if it is not.
    pub fn served_until(&self, offset: i64) -> i64 {
        let index = self.chain.partition_point(|link| link.to <= offset);
        let rest = self.chain.get(index..).unwrap_or_default();
        rest.iter().fold(offset, |end, link| if link.from <= end { link.to } else { end })
    }

    /// The last run without a hole: what a log whose local part begins at its end can be read through.
    pub fn last_run(&self) -> Option<(i64, i64)> {
        let last = self.chain.last()?;
        let from = self
            .chain
            .iter()
            .rev()
            .skip(1)
            .fold(last.from, |from, link| if link.to == from { link.from } else { from });
        Some((from, last.to))
    }

    /// The link that serves `offset`, or the first after it.
    pub fn link_at(&self, offset: i64) -> Option<&Link> {
        self.chain.get(self.chain.partition_point(|link| link.to <= offset))
    }

    /// Ranges between the chain's links that nothing serves, ends exclusive.
    pub fn holes(&self) -> Vec<(i64, i64)> {
        let next = self.chain.iter().skip(1);
        self.chain.iter().zip(next).filter(|(a, b)| a.to < b.from).map(|(a, b)| (a.to, b.from)).collect()
    }
}

/// An object's place in the order: the greater one serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    compacted: Compacted,
    leader_epoch: i32,
    last_offset: i64,
    base_offset: Reverse<i64>,
    log_bytes: Reverse<u64>,
    max_timestamp: i64,
}

/// How clean an object is to a reader: the greater the better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Compacted {
    ByAnotherBranch(Reverse<i64>),
    ByThisBranch(i64),
}

impl Compacted {
    fn to(compaction: &Compaction, view: &View<'_>) -> Self {
        let is_lost = view.leader_epochs.keys(compaction) == Keys::Lost || compaction.to > view.keys_end;
        if is_lost {
            Self::ByAnotherBranch(Reverse(compaction.to))
        } else {
            Self::ByThisBranch(compaction.to)
        }
    }
}

/// An object that is true on `[from, to)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Candidate {
    rank: Rank,
    from: i64,
    to: i64,
    name: ObjectName,
}

/// The objects that a replica would choose if it led from now on, and histories parted somewhere in `parts_at`. Where the
/// point is not known, it has at least all records before the first, and nothing else is told of it: the least
/// compacted objects can be used wherever it is.
pub fn needed_after(
    parts_at: &RangeInclusive<i64>,
    objects: &BTreeMap<ObjectName, Facts>,
    view: &View<'_>,
) -> BTreeSet<ObjectName> {
    let theirs =
        View { end_offset: view.end_offset.min(*parts_at.end()), keys_end: *parts_at.start(), ..*view };
    select(objects, &theirs).chain.iter().map(|link| link.name).collect()
}

/// Judges `objects` for `view`.
pub fn select(objects: &BTreeMap<ObjectName, Facts>, view: &View<'_>) -> Selection {
    let mut selection = Selection::default();
    let mut candidates = Vec::with_capacity(objects.len());
    for (name, facts) in objects {
        judge(name, facts, view, &mut selection, &mut candidates);
    }
    candidates.sort_unstable_by_key(|candidate| (candidate.from, candidate.name));
    withhold_unread_overlaps(&mut candidates, objects, &mut selection);
    selection.chain = sweep(&candidates);
    mark_superseded(objects, &candidates, view, &mut selection);
    selection
}

fn judge(
    name: &ObjectName,
    facts: &Facts,
    view: &View<'_>,
    selection: &mut Selection,
    candidates: &mut Vec<Candidate>,
) {
    let (epochs, compaction) = match facts {
        Facts::Unread | Facts::Damaged => (None, &Compaction::NONE),
        Facts::Read { leader_epochs, compaction } => (Some(leader_epochs), compaction),
    };
    let end = match view.leader_epochs.standing(name, epochs) {
        Standing::Newer => return selection.newer.push(*name),
        Standing::Whole => name.end_offset(),
        Standing::Until(end) => end,
        Standing::Lost => {
            selection.garbage.insert(*name, Garbage::LostBranch);
            return;
        }
        Standing::NeedsEpochs => return selection.needs_footer.push(*name),
    };
    if end <= view.start_offset {
        selection.garbage.insert(*name, Garbage::BelowStart);
        return;
    }
    if *facts == Facts::Damaged {
        return;
    }
    if view.leader_epochs.keys(compaction) == Keys::Newer {
        selection.newer.push(*name);
    }
    let (from, to) = (name.base_offset.max(view.start_offset), end.min(view.end_offset));
    if from < to {
        let rank = rank(name, Compacted::to(compaction, view));
        candidates.push(Candidate { rank, from, to, name: *name });
    }
}

fn rank(name: &ObjectName, compacted: Compacted) -> Rank {
    Rank {
        compacted,
        leader_epoch: name.leader_epoch,
        last_offset: name.last_offset,
        base_offset: Reverse(name.base_offset),
        log_bytes: Reverse(name.log_bytes),
        max_timestamp: name.max_timestamp,
    }
}

/// How far an object has been compacted, and by whom, stands in its footer alone, and matters where objects overlap.
fn withhold_unread_overlaps(
    candidates: &mut Vec<Candidate>,
    objects: &BTreeMap<ObjectName, Facts>,
    selection: &mut Selection,
) {
    let unread = |name: &ObjectName| matches!(objects.get(name), Some(Facts::Unread));
    let mut overlapping = vec![false; candidates.len()];
    let mut reaching: Option<(usize, i64)> = None;
    for (index, candidate) in candidates.iter().enumerate() {
        if let Some((earlier, to)) = reaching
            && candidate.from < to
        {
            for at in [earlier, index] {
                if let Some(flag) = overlapping.get_mut(at) {
                    *flag = true;
                }
            }
        }
        if reaching.is_none_or(|(_, to)| candidate.to > to) {
            reaching = Some((index, candidate.to));
        }
    }
    let mut flags = overlapping.into_iter();
    candidates.retain(|candidate| {
        let withheld = flags.next().unwrap_or_default() && unread(&candidate.name);
        if withheld {
            selection.needs_footer.push(candidate.name);
        }
        !withheld
    });
}

/// Walks the offsets once, the best of the objects that reach the current one on top of a heap.
fn sweep(candidates: &[Candidate]) -> Vec<Link> {
    let mut chain: Vec<Link> = Vec::new();
    let mut open: BinaryHeap<Candidate> = BinaryHeap::new();
    let mut waiting = candidates.iter().copied().peekable();
    let mut position = i64::MIN;
    loop {
        while open.peek().is_some_and(|best| best.to <= position) {
            open.pop();
        }
        let next_start = waiting.peek().map(|candidate| candidate.from);
        if let (None, Some(start)) = (open.peek(), next_start) {
            position = position.max(start);
        }
        while let Some(candidate) = waiting.next_if(|candidate| candidate.from <= position) {
            open.push(candidate);
        }
        while open.peek().is_some_and(|best| best.to <= position) {
            open.pop();
        }
        let Some(best) = open.peek() else {
            if waiting.peek().is_none() {
                return chain;
            }
            continue;
        };
        let until = waiting.peek().map_or(best.to, |candidate| candidate.from.min(best.to));
        match chain.last_mut() {
            Some(last) if last.name == best.name && last.to == position => last.to = until,
            _ => chain.push(Link { name: best.name, from: position, to: until }),
        }
        position = until;
    }
}

/// A candidate that serves nowhere is garbage, unless something it might still be needed for has not been read.
fn mark_superseded(
    objects: &BTreeMap<ObjectName, Facts>,
    candidates: &[Candidate],
    view: &View<'_>,
    selection: &mut Selection,
) {
    if !selection.needs_footer.is_empty() {
        return;
    }
    for (name, facts) in objects {
        // A damaged object goes once others serve all it was to hold; its uploader's retry replaces it before that.
        if *facts == Facts::Damaged
            && !selection.newer.contains(name)
            && selection.served_until(name.base_offset.max(view.start_offset)) > name.last_offset
        {
            selection.garbage.entry(*name).or_insert(Garbage::Superseded);
        }
    }
    let serving: BTreeSet<ObjectName> = selection.chain.iter().map(|link| link.name).collect();
    for candidate in candidates {
        // Reaching past the reader's end, it may serve others that know more.
        let beyond = candidate.name.last_offset >= view.end_offset;
        if !serving.contains(&candidate.name) && !beyond {
            selection.garbage.insert(candidate.name, Garbage::Superseded);
        }
    }
}

#[cfg(test)]
#[path = "select/tests.rs"]
mod tests;
