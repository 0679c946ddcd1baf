//! Who leads a partition, who is in sync, and who may lead although it is not (ELR), after something has changed: the rules
//! of Kafka's `PartitionChangeBuilder` and of KIP-966.
//!
//! While as many replicas are in sync as `min.insync.replicas` asks for, the ISR alone says who has every acknowledged
//! record. When it falls below, nothing more is acknowledged, so whoever leaves from then on still has all of it: it is
//! eligible, as long as it does not lose its disk. So the last one in sync may leave, too, and the ISR be empty.

use std::collections::BTreeSet;

use crate::image::{NO_LEADER, Partition};

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
}

impl Turn<'_> {
    /// What the partition is then; `alive` says who may lead at all.
    pub fn settle(&self, alive: impl Fn(i32) -> bool) -> Partition {
        let now = self.now;
        let mut next = now.clone();
        next.isr = self.isr.iter().copied().filter(|id| !self.lost.contains(id)).collect();
        self.settle_eligible(&mut next);
        next.leader = self.leader(&next, &alive);
        if next.leader != NO_LEADER && !next.isr.contains(&next.leader) {
            // It has every acknowledged record, and the others have to fetch from it.
            next.isr = vec![next.leader];
            next.elr.retain(|id| *id != next.leader);
        }
        next.leader_epoch += i32::from(next.leader != now.leader);
        next.partition_epoch += i32::from(next != *now);
        next
    }

    fn settle_eligible(&self, next: &mut Partition) {
        if next.isr.len() >= self.min_isr.min(next.replicas.len()).max(1) {
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
        if in_sync(next.leader) {
            return next.leader;
        }
        let first = |may: &dyn Fn(i32) -> bool| next.replicas.iter().copied().find(|id| may(*id));
        first(&in_sync).or_else(|| first(&eligible)).unwrap_or(NO_LEADER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Replicas 1, 2, 3 of which at least two have to be in sync.
    fn partition(isr: &[i32], elr: &[i32], leader: i32) -> Partition {
        Partition {
            replicas: vec![1, 2, 3],
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
        Turn { now, isr: isr.to_vec(), min_isr: 2, lost: &lost }.settle(|id| alive.contains(&id))
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

    #[test]
    fn who_was_eligible_and_lost_its_disk_is_remembered() {
        let after = turn(&partition(&[], &[2, 3], -1), &[], &[], &[2]);
        assert_eq!((after.elr, after.last_known_elr), (vec![3], vec![2]));
    }

    /// Two replicas were in sync when the last record was acknowledged. Whatever happens then but the loss of disks, who
    /// leads is one of those two, or one that was in sync with a leader since.
    #[test]
    fn a_leader_has_always_what_was_acknowledged() {
        let mut seed = 7u64;
        let mut roll = move |below: u64| {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed % below
        };
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
