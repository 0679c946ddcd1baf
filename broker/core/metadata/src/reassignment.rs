//! Where a partition's replicas are while they move, and where they are to be (KIP-455).
//!
//! A partition that moves has the replicas of before and those to come, in one list: first where they are to be, in their
//! order, and then those that go. What is not of before is `adding`, what is not to stay is `removing`. So the target can always
//! be told, and what the partition had before, too: a move that is replaced by another goes back, when it is given up, to
//! where the first one began. What the first one had begun and the second does not want is then both.

use crate::image::Partition;

/// The replicas of a partition, and which of them come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Assignment {
    pub replicas: Vec<i32>,
    pub adding: Vec<i32>,
    pub removing: Vec<i32>,
}

impl Assignment {
    fn of_settled(replicas: Vec<i32>) -> Self {
        Self { replicas, adding: Vec::new(), removing: Vec::new() }
    }

    /// The move of a partition to `target`; what an earlier one has begun, and nobody needs, is given up.
    pub fn towards(now: &Partition, target: &[i32]) -> Self {
        let original: Vec<i32> = now.original_replicas().collect();
        let has_records = |id: &i32| now.isr.contains(id) || now.elr.contains(id);
        let goes = |id: &i32| !target.contains(id) && (original.contains(id) || has_records(id));
        let removing: Vec<i32> = now.replicas.iter().copied().filter(goes).collect();
        let replicas: Vec<i32> = target.iter().chain(&removing).copied().collect();
        let adding = replicas.iter().copied().filter(|id| !original.contains(id)).collect();
        Self { replicas, adding, removing }
    }

    /// The way back to where the partition was before.
    pub fn cancelled(now: &Partition) -> Self {
        Self::of_settled(now.original_replicas().collect())
    }
}

impl Partition {
    /// Whether its replicas move.
    pub fn is_reassigning(&self) -> bool {
        !self.adding_replicas.is_empty() || !self.removing_replicas.is_empty()
    }

    /// Its replicas before they began to move.
    pub fn original_replicas(&self) -> impl Iterator<Item = i32> {
        self.replicas.iter().copied().filter(|id| !self.adding_replicas.contains(id))
    }

    /// Its replicas once they have moved.
    pub fn target_replicas(&self) -> impl Iterator<Item = i32> {
        self.replicas.iter().copied().filter(|id| !self.removing_replicas.contains(id))
    }

    /// How many replicas have to be in sync where `min.insync.replicas` is this: no more than there are, and while they move no
    /// more than there were. Otherwise a partition that gets more replicas could not be written to until they have caught up.
    pub fn min_in_sync(&self, min_isr: usize) -> usize {
        min_isr.min(self.original_replicas().count()).max(1)
    }

    /// Where its replicas are once the move is done, if it can be done now: all that are to stay are in sync.
    pub(crate) fn completed(&self) -> Option<Assignment> {
        let done = self.is_reassigning() && self.target_replicas().all(|id| self.isr.contains(&id));
        done.then(|| Assignment::of_settled(self.target_replicas().collect()))
    }

    /// Why the image must not have it so.
    pub(crate) fn unsound(&self) -> Option<&'static str> {
        let is_done = || self.completed().map(|_| "all that are to stay are in sync, and it moves on");
        self.check().err().or_else(is_done)
    }

    /// Takes an assignment over. Who is no replica any more is not in sync either.
    pub(crate) fn assign(&mut self, assignment: Assignment) {
        let Assignment { replicas, adding, removing } = assignment;
        for ids in [&mut self.isr, &mut self.elr, &mut self.last_known_elr] {
            ids.retain(|id| replicas.contains(id));
        }
        (self.replicas, self.adding_replicas, self.removing_replicas) = (replicas, adding, removing);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partition(replicas: &[i32], adding: &[i32], removing: &[i32], isr: &[i32]) -> Partition {
        Partition {
            replicas: replicas.to_vec(),
            adding_replicas: adding.to_vec(),
            removing_replicas: removing.to_vec(),
            isr: isr.to_vec(),
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader: isr[0],
            leader_epoch: 5,
            partition_epoch: 9,
        }
    }

    #[test]
    fn where_replicas_are_on_their_way() {
        type Ids = &'static [i32];
        // now: replicas, adding, removing, in sync; target; then: replicas, adding, removing
        type Row = ((Ids, Ids, Ids, Ids), Ids, (Ids, Ids, Ids));
        let table: [Row; 8] = [
            ((&[1, 2, 3], &[], &[], &[1, 2, 3]), &[4, 5, 6], (&[4, 5, 6, 1, 2, 3], &[4, 5, 6], &[1, 2, 3])),
            ((&[1, 2, 3], &[], &[], &[1, 2, 3]), &[2, 4], (&[2, 4, 1, 3], &[4], &[1, 3])),
            ((&[1, 2, 3], &[], &[], &[1, 2, 3]), &[3, 2, 1], (&[3, 2, 1], &[], &[])),
            ((&[1], &[], &[], &[1]), &[1, 2], (&[1, 2], &[2], &[])),
            // Another move instead: what has begun to come and has nothing yet goes at once.
            ((&[4, 1, 2], &[4], &[2], &[1, 2]), &[1, 5], (&[1, 5, 2], &[5], &[2])),
            // If it is in sync it stays until the end, and is no replica of before all the same.
            ((&[4, 1, 2], &[4], &[2], &[4, 1]), &[1, 5], (&[1, 5, 4, 2], &[5, 4], &[4, 2])),
            // The same once more.
            ((&[4, 1, 2], &[4], &[2], &[1]), &[4, 1], (&[4, 1, 2], &[4], &[2])),
            // Back to where it was, by another move.
            ((&[4, 1, 2], &[4], &[2], &[1]), &[1, 2], (&[1, 2], &[], &[])),
        ];
        for (row, (now, target, then)) in table.into_iter().enumerate() {
            let now = partition(now.0, now.1, now.2, now.3);
            let moved = Assignment::towards(&now, target);
            assert_eq!((&*moved.replicas, &*moved.adding, &*moved.removing), then, "row {row}");
            let mut next = now.clone();
            next.assign(moved);
            assert!(next.original_replicas().all(|id| now.original_replicas().any(|one| one == id)));
            assert!(next.target_replicas().eq(target.iter().copied()), "row {row}");
            let back = Assignment::cancelled(&next);
            assert_eq!(back.replicas.len(), now.original_replicas().count(), "row {row}");
        }
    }

    #[test]
    fn a_move_is_done_when_all_that_stay_are_in_sync() {
        let done = |isr: &[i32]| {
            let now = partition(&[4, 2, 1], &[4], &[1], isr);
            now.completed().map(|done| (done.replicas, done.adding.len() + done.removing.len()))
        };
        assert_eq!(done(&[1, 2]), None);
        assert_eq!(done(&[1, 4]), None, "2 stays, and is not in sync");
        assert_eq!(done(&[2, 4]), Some((vec![4, 2], 0)));
        assert_eq!(done(&[1, 2, 4]), Some((vec![4, 2], 0)));
        assert_eq!(partition(&[1, 2], &[], &[], &[1, 2]).completed(), None, "it does not move");
    }

    #[test]
    fn no_more_have_to_be_in_sync_than_there_were() {
        assert_eq!(partition(&[1, 2, 3], &[2, 3], &[], &[1]).min_in_sync(2), 1);
        assert_eq!(partition(&[1, 2, 3], &[], &[], &[1]).min_in_sync(2), 2);
        assert_eq!(partition(&[4, 1, 2], &[4], &[1, 2], &[1]).min_in_sync(2), 2);
        assert_eq!(partition(&[1, 2], &[], &[], &[1]).min_in_sync(5), 2);
        assert_eq!(partition(&[1, 2], &[], &[], &[1]).min_in_sync(0), 1);
    }
}
