//! Who has a vote, as one member's log says, and whether enough of them have been heard to know of all that was agreed on.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::types::{StoredMembership, broker_of};

/// The members that have a vote. See the module.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Electorate {
    /// Term and index of the entry that says so, agreed on or not; none before there are members.
    since: Option<(u64, u64)>,
    /// Two sets while the voters change: each must agree.
    voters: Vec<BTreeSet<u64>>,
}

impl Electorate {
    /// Whichever of these was later. Who was away names an old one.
    #[must_use]
    pub fn later(self, other: &Self) -> Self {
        if other.since > self.since { other.clone() } else { self }
    }

    /// Whose votes they are.
    pub fn brokers(&self) -> BTreeSet<i32> {
        self.voters.iter().flatten().copied().map(broker_of).collect()
    }

    /// Whether one of these members, `own` left aside, has what was agreed on when these votes were the last: of every majority one is
    /// among them, though `own` was of it. If the votes have changed since, one of them knows that they have. Where `own` has the
    /// only vote nobody else is known to have anything.
    pub fn is_represented_by(&self, heard: &BTreeSet<u64>, own: u64) -> bool {
        let is_enough = |voters: &BTreeSet<u64>| {
            let heard = voters.intersection(heard).filter(|id| **id != own).count();
            heard >= voters.len().div_ceil(2)
        };
        !self.voters.is_empty() && self.voters.iter().all(is_enough)
    }
}

impl From<&StoredMembership> for Electorate {
    fn from(stored: &StoredMembership) -> Self {
        Self {
            since: stored.log_id().map(|id| (id.committed_leader_id().term, id.index())),
            voters: stored.membership().get_joint_config().clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::Member;

    fn ids(ids: &[u64]) -> BTreeSet<u64> {
        ids.iter().copied().collect()
    }

    fn electorate(since: (u64, u64), voters: &[&[u64]]) -> Electorate {
        Electorate { since: Some(since), voters: voters.iter().map(|voters| ids(voters)).collect() }
    }

    #[test]
    fn enough_are_heard_once_one_of_every_majority_is() {
        for (voters, heard, own, is_enough) in [
            // This one was of the majority perhaps, and the other of it is one of the two.
            (&[&[1, 2, 3][..]][..], &[2][..], 1, false),
            (&[&[1, 2, 3]], &[2, 3], 1, true),
            (&[&[1, 2, 3, 4, 5]], &[2, 3], 1, false),
            (&[&[1, 2, 3, 4, 5]], &[2, 3, 4], 1, true),
            (&[&[1, 2, 3, 4]], &[2, 3], 1, true),
            (&[&[1, 2]], &[2], 1, true),
            // Who has no vote counts for nothing, this one itself least of all.
            (&[&[4, 5, 6]], &[1, 2, 3, 5], 4, false),
            (&[&[4, 5, 6]], &[5, 6], 1, true),
            (&[&[4, 5, 6]], &[4, 5], 4, false),
            // Between two halves of a change.
            (&[&[1, 2, 3], &[4, 5, 6]], &[2, 3, 4], 1, false),
            (&[&[1, 2, 3], &[4, 5, 6]], &[2, 3, 4, 5], 1, true),
            // It decided alone, or knows of no votes.
            (&[&[1]], &[2, 3], 1, false),
            (&[&[2]], &[2], 1, true),
            (&[], &[2, 3], 1, false),
        ] {
            let found = electorate((1, 1), voters).is_represented_by(&ids(heard), own);
            assert_eq!(found, is_enough, "{voters:?} {heard:?} {own}");
        }
    }

    #[test]
    fn the_later_one_counts_and_names_brokers() {
        let member = |broker_id| Member { broker_id, directory_id: "disk".to_owned() }.id();
        let (old, new) =
            (electorate((2, 9), &[&[member(1)]]), electorate((3, 4), &[&[member(4)], &[member(5)]]));
        assert_eq!(old.clone().later(&new), new);
        assert_eq!(new.clone().later(&old), new);
        assert_eq!(Electorate::default().later(&old), old);
        assert_eq!(new.brokers(), BTreeSet::from([4, 5]));
    }
}
