//! A broker's disk has no room for what is written to some of its replicas: others lead these, and do not wait for it.
//!
//! It is there and has all that was acknowledged, so nothing is lost by waiting, and nothing gained by letting somebody lead whose disk is as
//! full. Once it can append again it catches up, and is in sync again as any follower is.
//!
//! Who led stays in sync at first: until it knows of its successor it takes itself for the leader, and as long as it is waited for, nothing is
//! committed of which it does not know. As a follower it says once more that it has no room.

use firn_model::ids::TopicId;

use super::lifecycle::check_epoch;
use super::partitions::{Rules, change, is_active};
use super::{Decision, DecisionError};
use crate::image::Image;
use crate::leadership::Turn;
use crate::record::MetadataRecord;

/// A replica for which there is no room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ShortReplica {
    pub topic_id: TopicId,
    pub partition: i32,
    /// In which its broker knows that it leads, or follows. In another one it may be the other.
    pub leader_epoch: i32,
}

/// Of the partitions that have enough in sync without the broker (`min.insync.replicas`), it leads none that another one with room can
/// lead, and as a follower it is in sync with none. The reply tells how many that are.
pub fn make_way(
    image: &Image,
    rules: Rules<'_>,
    (broker_id, broker_epoch): (i32, i64),
    short: &[ShortReplica],
    takes: impl Fn(i32, TopicId, i32) -> bool,
) -> Result<Decision<usize>, DecisionError> {
    check_epoch(image, broker_id, broker_epoch)?;
    let changes = short.iter().filter_map(|short| {
        let topic = image.topic_by_id(short.topic_id)?;
        let now = topic.partition(short.partition)?;
        let may_lead =
            |id: i32| id != broker_id && is_active(image, id) && takes(id, short.topic_id, short.partition);
        // In another epoch it does not know whether it leads; and where all in sync are needed, nothing is gained.
        let is_known = now.leader_epoch == short.leader_epoch && now.isr.contains(&broker_id);
        let min_isr = rules.min_isr(image, topic);
        if !is_known || now.isr.len() <= now.min_in_sync(min_isr) {
            return None;
        }
        let mut turn = Turn::of(now, min_isr);
        let next = match now.leader == broker_id {
            true => now.isr.iter().any(|id| may_lead(*id)).then(|| turn.settle(may_lead))?,
            false => {
                turn.isr.retain(|id| *id != broker_id);
                turn.settle(|id| is_active(image, id))
            }
        };
        change(short.topic_id, usize::try_from(short.partition).ok()?, now, &next)
    });
    let records: Vec<MetadataRecord> = changes.collect();
    Ok(Decision { reply: records.len(), records })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::lifecycle::fence;
    use crate::decide::testing::{apply, config, create, image_of, topic};

    #[test]
    fn who_has_no_room_leads_nothing_and_is_not_waited_for_where_others_are_enough() {
        // The leader is the first of those in sync. What comes of it: who leads, and who is in sync.
        let all = [0, 1, 2];
        for (isr, min_isr, broker, roomy, comes) in [
            (&all[..], 2, 0, &[1, 2][..], Some((1, &all[..]))),
            (&all, 2, 0, &[2], Some((2, &all))),
            // Nobody else can append either.
            (&all, 2, 0, &[], None),
            (&all, 2, 0, &[0], None),
            (&[0, 1], 1, 0, &[1, 2], Some((1, &[0, 1]))),
            (&[0, 1], 1, 0, &[2], None),
            // It would be waited for.
            (&[0, 1], 2, 0, &[1, 2], None),
            (&[0], 1, 0, &[1, 2], None),
            // A follower: whoever leads goes on, with room or without.
            (&all, 2, 2, &[0, 1], Some((0, &[0, 1]))),
            (&all, 2, 1, &[], Some((0, &[0, 2]))),
            (&[0, 1], 1, 1, &[], Some((0, &[0]))),
            // It is needed.
            (&all, 3, 1, &[0, 2], None),
            (&[0, 1], 2, 1, &[0], None),
            // It is not in sync as it is.
            (&[0, 1], 2, 2, &[0, 1], None),
        ] {
            let config = config(&[("min.insync.replicas", &min_isr.to_string())]);
            let rules = Rules { config: &config };
            let mut image = image_of(3);
            let mut new = topic("snow", -1, -1);
            new.assignments = [(0, all.to_vec())].into();
            let creation = create(&image, &[new]);
            apply(&mut image, &creation);
            for away in all.iter().filter(|id| !isr.contains(id)) {
                let decision = fence(&image, rules, *away);
                apply(&mut image, &decision);
            }
            let partition = |image: &Image| image.topic("snow").unwrap().partitions[0].clone();
            assert_eq!((partition(&image).leader, &*partition(&image).isr), (isr[0], isr));
            let (topic_id, leader_epoch) = (image.topic("snow").unwrap().id, partition(&image).leader_epoch);
            let itself = (broker, image.broker(broker).unwrap().epoch);
            let told = |image: &Image, leader_epoch| {
                let short = [ShortReplica { topic_id, partition: 0, leader_epoch }];
                make_way(image, rules, itself, &short, |id, _, _| roomy.contains(&id)).unwrap()
            };
            // It does not know of its successor yet, and may serve what it knows.
            assert_eq!(told(&image, leader_epoch - 1).records, []);
            let decision = told(&image, leader_epoch);
            apply(&mut image, &decision);
            let now = partition(&image);
            let came = (decision.reply > 0).then_some((now.leader, &*now.isr));
            assert_eq!(came, comes, "{isr:?} of {min_isr}, {broker} has no room and {roomy:?} have some");
        }
    }
}
