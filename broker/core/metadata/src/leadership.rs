//! Who leads a partition, who is in sync, and who may lead although it is not (ELR), after something has changed: the rules
//! of Kafka's `PartitionChangeBuilder` and of KIP-966.
//!
//! While as many replicas are in sync as `min.insync.replicas` asks for, the ISR alone says who has every acknowledged
//! record. When it falls below, nothing more is acknowledged, so whoever leaves from then on still has all of it: it is
//! eligible, as long as it does not lose its disk. So the last one in sync may leave, too, and the ISR be empty.
//!
//! A move of replicas (`reassignment.rs`) is done in the very change that makes it possible. Whoever is a replica no more, is
//! so from the next leader epoch on: what a leader knew of it does not count if it ever comes back.

use std::collections::BTreeSet;

use crate::image::{NO_LEADER, Partition};
use crate::reassignment::Assignment;

/// Which leader is wanted (KIP-460).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Election<'a> {
    /// The one that there is, or another that has every acknowledged record.
    Clean,
    /// The first of the replicas, if it is in sync.
    Preferred,
    /// Rather one that lacks acknowledged records than none, the first of these that is there: somebody has asked for it.
    Unclean(&'a [i32]),
}

static NOBODY: BTreeSet<i32> = BTreeSet::new();

/// Something that happened to a partition, and what its successor is made of.
#[derive(Debug)]
pub struct Turn<'a> {
    pub now: &'a Partition,
    /// The replicas in sync from now on, as far as they are alive.
    pub isr: Vec<i32>,
    /// `min.insync.replicas` of the topic.
    pub min_isr: usize,
    /// Replicas that came back without what they had: they vouch for nothing.
    pub lost: &'a BTreeSet<i32>,
    /// Where the replicas are from now on, if it is another place.
    pub assignment: Option<Assignment>,
    pub election: Election<'a>,
}

impl<'a> Turn<'a> {
    /// Nothing has happened.
    pub fn of(now: &'a Partition, min_isr: usize) -> Self {
        let (isr, lost) = (now.isr.clone(), &NOBODY);
        Self { now, isr, min_isr, lost, assignment: None, election: Election::Clean }
    }

    /// What the partition is then; `alive` says who may lead at all.
    pub fn settle(&self, alive: impl Fn(i32) -> bool) -> Partition {
        let now = self.now;
        let mut next = now.clone();
        next.isr = self.isr.iter().copied().filter(|id| !self.lost.contains(id)).collect();
        if let Some(assignment) = &self.assignment {
            next.assign(assignment.clone());
        }
        if let Some(done) = next.completed() {
            next.assign(done);
        }
        self.settle_eligible(&mut next);
        next.leader = self.leader(&next, &alive);
        if next.leader != NO_LEADER && !next.isr.contains(&next.leader) {
            self.lead_alone(&mut next);
        }
        let goes = now.replicas.iter().any(|id| !next.replicas.contains(id));
        next.leader_epoch += i32::from(next.leader != now.leader || goes);
        next.partition_epoch += i32::from(next != *now);
        next
    }

    /// The new leader was not in sync, and the others have to fetch from it.
    fn lead_alone(&self, next: &mut Partition) {
        let is_clean = next.elr.contains(&next.leader);
        next.isr = vec![next.leader];
        next.elr.retain(|id| *id != next.leader);
        // What others have beyond an unclean leader is of another history; and where one in sync is enough, this one goes on
        // without the others.
        if !is_clean || next.min_in_sync(self.min_isr) <= 1 {
            (next.elr, next.last_known_elr) = (Vec::new(), Vec::new());
        }
        if let Some(done) = next.completed() {
            next.assign(done);
        }
    }

    fn settle_eligible(&self, next: &mut Partition) {
        if next.isr.len() >= next.min_in_sync(self.min_isr) {
            (next.elr, next.last_known_elr) = (Vec::new(), Vec::new());
            return;
        }
        let now = self.now;
        let vouched = |id: &i32| now.isr.contains(id) || now.elr.contains(id);
        let in_sync = |id: &i32| next.isr.contains(id);
        let of = |keep: &dyn Fn(&i32) -> bool| next.replicas.iter().copied().filter(|id| keep(id)).collect();
        let elr: Vec<i32> = of(&|id| vouched(id) && !in_sync(id) && !self.lost.contains(id));
        let known: Vec<i32> =
            of(&|id| (vouched(id) || now.last_known_elr.contains(id)) && !in_sync(id) && !elr.contains(id));
        (next.elr, next.last_known_elr) = (elr, known);
    }

    fn leader(&self, next: &Partition, alive: &impl Fn(i32) -> bool) -> i32 {
        let in_sync = |id: i32| alive(id) && next.isr.contains(&id);
        let eligible = |id: i32| alive(id) && next.elr.contains(&id);
        if let Some(preferred) = next.replicas.first().filter(|id| in_sync(**id))
            && self.election == Election::Preferred
        {
            return *preferred;
        }
        if in_sync(next.leader) {
            return next.leader;
        }
        let first = |may: &dyn Fn(i32) -> bool| next.replicas.iter().copied().find(|id| may(*id));
        let clean = first(&in_sync).or_else(|| first(&eligible));
        match self.election {
            Election::Unclean(candidates) => clean
                .or_else(|| candidates.iter().copied().find(|id| alive(*id) && next.replicas.contains(id))),
            Election::Clean | Election::Preferred => clean,
        }
        .unwrap_or(NO_LEADER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas 1, 2, 3 of which at least two have to be in sync.
    fn partition(isr: &[i32], elr: &[i32], leader: i32) -> Partition {
        Partition {
            replicas: vec![1, 2, 3],
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            isr: isr.to_vec(),
            elr: elr.to_vec(),
            last_known_elr: Vec::new(),
            leader,
            leader_epoch: 5,
            partition_epoch: 9,
        }
    }

    fn turn(now: &Partition, isr: &[i32], alive: &[i32], lost: &[i32]) -> Partition {
        let lost = lost.iter().copied().collect();
        Turn { isr: isr.to_vec(), lost: &lost, ..Turn::of(now, 2) }.settle(|id| alive.contains(&id))
    }

    #[test]
    fn what_follows_from_what() {
        type Ids = &'static [i32];
        // now: isr, elr, leader; isr asked for, alive, lost; then: isr, elr, leader, leader epoch
        type Row = ((Ids, Ids, i32), (Ids, Ids, Ids), (Ids, Ids, i32, i32));
        let table: [Row; 11] = [
            // Nothing has happened.
            ((&[1, 2, 3], &[], 1), (&[1, 2, 3], &[1, 2, 3], &[]), (&[1, 2, 3], &[], 1, 5)),
            // A follower, then the leader, goes.
            ((&[1, 2, 3], &[], 1), (&[1, 2], &[1, 2], &[]), (&[1, 2], &[], 1, 5)),
            ((&[1, 2, 3], &[], 1), (&[2, 3], &[2, 3], &[]), (&[2, 3], &[], 2, 6)),
            // Below min.insync.replicas, who leaves stays eligible, to the last.
            ((&[2, 3], &[], 2), (&[3], &[3], &[]), (&[3], &[2], 3, 6)),
            ((&[3], &[2], 3), (&[], &[], &[]), (&[], &[2, 3], -1, 6)),
            // The first that comes back leads, though it was not the last to go.
            ((&[], &[2, 3], -1), (&[], &[2], &[]), (&[2], &[3], 2, 6)),
            // Enough are in sync again: nobody else is eligible.
            ((&[2], &[3], 2), (&[2, 3], &[2, 3], &[]), (&[2, 3], &[], 2, 5)),
            // Who was out of sync before is not eligible.
            ((&[], &[2, 3], -1), (&[], &[1], &[]), (&[], &[2, 3], -1, 5)),
            // Who has lost its disk vouches for nothing.
            ((&[], &[2, 3], -1), (&[], &[2, 3], &[2]), (&[3], &[], 3, 6)),
            ((&[], &[2], -1), (&[], &[2], &[2]), (&[], &[], -1, 5)),
            ((&[1, 2], &[], 1), (&[1, 2], &[1, 2], &[1]), (&[2], &[], 2, 6)),
        ];
        for (row, (now, event, then)) in table.into_iter().enumerate() {
            let before = partition(now.0, now.1, now.2);
            let after = turn(&before, event.0, event.1, event.2);
            let shown = (&*after.isr, &*after.elr, after.leader, after.leader_epoch);
            assert_eq!(shown, then, "row {row}");
            assert_eq!(after.partition_epoch, 9 + i32::from(after != before), "row {row}");
            assert_eq!(after.check(), Ok(()), "row {row}");
        }
    }

    /// Two had left while `min.insync.replicas` was 2, and it is 1 when the first of them comes back.
    #[test]
    fn who_leads_alone_and_is_enough_goes_on_without_the_others() {
        let now = partition(&[], &[2, 3], -1);
        let alone = Turn::of(&now, 1).settle(|id| id == 2);
        assert_eq!((&*alone.isr, &*alone.elr, alone.leader), (&[2][..], &[][..], 2));
        let gone = Turn { isr: Vec::new(), ..Turn::of(&alone, 1) }.settle(|id| id == 3);
        assert_eq!((&*gone.elr, gone.leader), (&[2][..], NO_LEADER), "3 lacks what was acknowledged since");
    }

    #[test]
    fn who_was_eligible_and_lost_its_disk_is_remembered() {
        let after = turn(&partition(&[], &[2, 3], -1), &[], &[], &[2]);
        assert_eq!((after.elr, after.last_known_elr), (vec![3], vec![2]));
    }

    struct Dice(u64);

    impl Dice {
        fn roll(&mut self, below: u64) -> u64 {
            self.0 ^= self.0 << 13;
            self.0 ^= self.0 >> 7;
            self.0 ^= self.0 << 17;
            self.0 % below
        }

        fn some_of(&mut self, all: &[i32]) -> Vec<i32> {
            let first = self.roll(all.len() as u64) as usize;
            let count = 1 + self.roll(3) as usize;
            all.iter().cycle().skip(first).take(count).copied().collect()
        }
    }

    /// The same while replicas move, give up, and move elsewhere: a leader has what was acknowledged, and whoever comes back to
    /// where it was a replica before begins with nothing.
    #[test]
    fn a_leader_has_what_was_acknowledged_wherever_replicas_move() {
        let mut dice = Dice(11);
        let all = [1, 2, 3, 4, 5];
        let (mut done, mut cancelled, mut replaced) = (0, 0, 0);
        for _ in 0..2_000 {
            let mut now = partition(&[1, 2, 3], &[], 1);
            let mut has: BTreeSet<i32> = BTreeSet::from([1, 2, 3]);
            for _ in 0..40 {
                let alive: Vec<i32> = all.into_iter().filter(|_| dice.roll(4) > 0).collect();
                let moves = now.is_reassigning();
                let assignment = match dice.roll(4) {
                    0 => Some(Assignment::towards(&now, &dice.some_of(&all))),
                    1 if moves && now.original_replicas().any(|id| now.isr.contains(&id)) => {
                        cancelled += 1;
                        Some(Assignment::cancelled(&now))
                    }
                    _ => None,
                };
                replaced +=
                    u32::from(moves && assignment.as_ref().is_some_and(|next| !next.adding.is_empty()));
                let mut isr: Vec<i32> = now.isr.iter().copied().filter(|id| alive.contains(id)).collect();
                if assignment.is_none() && now.leader != NO_LEADER && alive.contains(&now.leader) {
                    for id in &now.replicas {
                        if alive.contains(id) && !isr.contains(id) && dice.roll(2) == 0 {
                            isr.push(*id);
                            has.insert(*id);
                        }
                    }
                }
                let before = now.clone();
                now = Turn { isr, assignment, ..Turn::of(&before, 2) }.settle(|id| alive.contains(&id));
                assert_eq!(now.check(), Ok(()), "{before:?} -> {now:?}");
                let gone: Vec<i32> =
                    before.replicas.iter().copied().filter(|id| !now.replicas.contains(id)).collect();
                assert_eq!(
                    now.leader_epoch > before.leader_epoch,
                    now.leader != before.leader || !gone.is_empty()
                );
                has.retain(|id| !gone.contains(id));
                done += u32::from(before.is_reassigning() && !now.is_reassigning());
                if now.leader != NO_LEADER {
                    assert!(has.contains(&now.leader), "{before:?} -> {now:?}, and {has:?} have all");
                    if now.isr.len() >= now.min_in_sync(2) {
                        has = now.isr.iter().copied().collect();
                    }
                }
            }
        }
        assert!(done > 1_000 && cancelled > 1_000 && replaced > 1_000, "{done} {cancelled} {replaced}");
    }

    /// Two replicas were in sync when the last record was acknowledged. Whatever happens then but the loss of disks, who
    /// leads is one of those two, or one that was in sync with a leader since.
    #[test]
    fn a_leader_has_always_what_was_acknowledged() {
        let mut dice = Dice(7);
        let mut roll = |below: u64| dice.roll(below);
        for _ in 0..2_000 {
            let mut now = partition(&[1, 2, 3], &[], 1);
            // Who has every acknowledged record.
            let mut has: BTreeSet<i32> = BTreeSet::from([1, 2, 3]);
            for _ in 0..40 {
                let alive: Vec<i32> = [1, 2, 3].into_iter().filter(|_| roll(3) > 0).collect();
                let mut isr: Vec<i32> = now.isr.iter().copied().filter(|id| alive.contains(id)).collect();
                // A follower that is alive may have caught up with a leader.
                if now.leader != NO_LEADER && alive.contains(&now.leader) {
                    for id in &alive {
                        if !isr.contains(id) && roll(2) == 0 {
                            isr.push(*id);
                            has.insert(*id);
                        }
                    }
                }
                now = turn(&now, &isr, &alive, &[]);
                assert_eq!(now.check(), Ok(()));
                if now.leader != NO_LEADER {
                    assert!(has.contains(&now.leader), "{now:?}");
                    if now.isr.len() >= 2 {
                        // It may acknowledge more, which the ISR alone has.
                        has = now.isr.iter().copied().collect();
                    }
                }
            }
        }
    }
}
