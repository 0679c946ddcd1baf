//! Who is to have a vote on the metadata, where operators have said so (KIP-853's AddRaftVoter and RemoveRaftVoter; the broker's
//! config `firn.controller.voter`).

use std::collections::BTreeSet;

use crate::image::Image;

/// A change of who has a vote, by broker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VoteChange {
    /// It follows the metadata already.
    Give(i32),
    /// It follows the metadata from now on.
    Take(i32),
}

/// What brings the quorum nearer to what operators want, one change at a time: votes are given before any is taken, to nobody who
/// is away, since majorities would miss it; and the last one stays.
pub fn next_change(image: &Image, voters: &BTreeSet<i32>, observers: &BTreeSet<i32>) -> Option<VoteChange> {
    let is_there = |id: i32| image.broker(id).is_some_and(|broker| !broker.fenced);
    let wants = |id: i32, vote: bool| image.wants_vote(id) == Some(vote);
    let mut given = observers.iter().filter(|id| !voters.contains(id) && wants(**id, true) && is_there(**id));
    let mut taken = voters.iter().filter(|id| voters.len() > 1 && wants(**id, false));
    let give = given.next().map(|id| VoteChange::Give(*id));
    give.or_else(|| taken.next().map(|id| VoteChange::Take(*id)))
}

#[cfg(test)]
mod tests {
    use VoteChange::{Give, Take};
    use firn_model::broker_config::definitions::VOTER;

    use super::*;
    use crate::decide::lifecycle::fence;
    use crate::decide::partitions::Rules;
    use crate::decide::testing::{apply, config, image_of};
    use crate::record::{ConfigRecord, ConfigResource, MetadataRecord};

    #[test]
    fn votes_are_given_first_to_those_that_are_there_and_the_last_one_stays() {
        let mut brokers = image_of(6);
        let gone = fence(&brokers, Rules { config: &config(&[]) }, 5);
        apply(&mut brokers, &gone);
        let ids = |ids: &[i32]| ids.iter().copied().collect::<BTreeSet<i32>>();
        for (wishes, voters, observers, next) in [
            (&[][..], &[1, 2, 3][..], &[4][..], None),
            (&[(4, true)], &[1, 2, 3], &[4], Some(Give(4))),
            (&[(4, true)], &[1, 2, 3, 4], &[], None),
            (&[(4, true), (1, false)], &[1, 2, 3], &[4], Some(Give(4))),
            (&[(4, true), (1, false)], &[1, 2, 3, 4], &[], Some(Take(1))),
            (&[(4, true), (1, false)], &[2, 3, 4], &[1], None),
            // It is away, or has not been taken in.
            (&[(5, true)], &[1, 2, 3], &[4, 5], None),
            (&[(4, true)], &[1, 2, 3], &[], None),
            // Of its disk before something may be left among the observers.
            (&[(4, true)], &[1, 2, 3, 4], &[4], None),
            (&[(1, false)], &[1], &[2], None),
            // Who is away may lose its vote.
            (&[(5, false)], &[1, 5], &[2], Some(Take(5))),
        ] {
            let mut image = brokers.clone();
            for (id, vote) in wishes {
                let (resource, name) = (ConfigResource::broker(*id), VOTER.to_owned());
                let wish = ConfigRecord { resource, name, value: Some(vote.to_string()) };
                image.apply(&MetadataRecord::Config(wish)).unwrap();
            }
            assert_eq!(next_change(&image, &ids(voters), &ids(observers)), next, "{wishes:?} {voters:?}");
        }
    }
}
