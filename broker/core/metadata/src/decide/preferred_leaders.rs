//! Partitions are given back to their preferred leaders, the first of their replicas (`auto.leader.rebalance.enable`).
//!
//! Leaders gather on those that stayed while others were away. As in Kafka 4 whoever is in sync gets back what it is to lead,
//! however few that is: a percentage below which nothing happens, as Kafka had before, leaves it to chance who leads.

use firn_model::ids::TopicId;

use super::Decision;
use super::partitions::{Rules, change, is_active};
use crate::image::Image;
use crate::leadership::{Election, Turn};

/// Gives back as many as this at most, to brokers that have room for them; the reply tells how many. Each makes clients look for its
/// leader anew, so what is left may wait for a moment.
pub fn give_back(
    image: &Image,
    rules: Rules<'_>,
    takes: impl Fn(i32, TopicId, i32) -> bool,
    partitions_max: usize,
) -> Decision<usize> {
    let all = image.topics().flat_map(|topic| topic.partitions.iter().enumerate().map(move |at| (topic, at)));
    let changes = all.filter_map(|(topic, (index, now))| {
        let preferred = *now.replicas.first()?;
        let has_room = || takes(preferred, topic.id, i32::try_from(index).unwrap_or(i32::MAX));
        let may_lead = now.isr.contains(&preferred) && is_active(image, preferred) && has_room();
        // Who is to be emptied is not given more to do.
        if preferred == now.leader || !may_lead || image.is_draining(preferred) {
            return None;
        }
        let turn = Turn { election: Election::Preferred, ..Turn::of(now, rules.min_isr(image, topic)) };
        change(topic.id, index, now, &turn.settle(|id| is_active(image, id)))
    });
    let records: Vec<_> = changes.take(partitions_max).collect();
    Decision { reply: records.len(), records }
}

#[cfg(test)]
mod tests {
    use firn_model::broker_config::BrokerConfig;

    use super::*;
    use crate::decide::create_topics::NewTopic;
    use crate::decide::isr::{IsrReport, alter_partitions};
    use crate::decide::lifecycle::{fence, heartbeat};
    use crate::decide::testing::{apply, create, image_of};
    use crate::record::{ConfigRecord, ConfigResource, MetadataRecord};

    fn decide<R>(image: &mut Image, decide: impl FnOnce(&Image, Rules<'_>) -> Decision<R>) -> R {
        let config = BrokerConfig::default();
        let decision = decide(image, Rules { config: &config });
        apply(image, &decision);
        decision.reply
    }

    /// Three brokers, and as many partitions as there are lists of replicas.
    fn image(assignments: &[&[i32]]) -> Image {
        let mut image = image_of(3);
        let assignments = (0..).zip(assignments).map(|(index, replicas)| (index, replicas.to_vec()));
        let new = NewTopic {
            name: "snow".to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: assignments.collect(),
            configs: Vec::new(),
        };
        let creation = create(&image, &[new]);
        apply(&mut image, &creation);
        image
    }

    /// Everybody has room.
    fn give_up_to(partitions_max: usize, image: &mut Image) -> usize {
        decide(image, |image, rules| give_back(image, rules, |_, _, _| true, partitions_max))
    }

    fn leaders(image: &Image) -> Vec<i32> {
        image.topic("snow").unwrap().partitions.iter().map(|one| one.leader).collect()
    }

    fn catches_up(image: &mut Image, index: i32, isr: &[i32]) {
        let topic = image.topic("snow").unwrap().clone();
        let now = topic.partition(index).unwrap();
        let report = IsrReport {
            topic_id: topic.id,
            partition: index,
            leader_epoch: now.leader_epoch,
            partition_epoch: now.partition_epoch,
            isr: isr.iter().map(|id| (*id, -1)).collect(),
            withdraws: false,
        };
        let told = decide(image, |image, rules| {
            alter_partitions(image, rules, now.leader, 0, std::slice::from_ref(&report)).unwrap()
        });
        assert!(told[0].is_ok(), "{told:?}");
    }

    #[test]
    fn who_is_in_sync_again_leads_again() {
        let mut image = image(&[&[0, 1, 2], &[1, 2, 0], &[0, 2, 1]]);
        assert_eq!(leaders(&image), [0, 1, 0]);
        assert_eq!(give_up_to(10, &mut image), 0, "all is well");
        decide(&mut image, |image, rules| fence(image, rules, 0));
        assert_eq!(leaders(&image), [1, 1, 2]);
        assert_eq!(give_up_to(10, &mut image), 0, "it is away");
        decide(&mut image, |image, rules| heartbeat(image, rules, 0, 0).unwrap());
        assert_eq!(give_up_to(10, &mut image), 0, "it lacks records");
        catches_up(&mut image, 0, &[0, 1, 2]);
        let full = |image: &Image, rules: Rules<'_>| give_back(image, rules, |id, _, _| id != 0, 10);
        assert_eq!(decide(&mut image, full), 0, "it has no room");
        assert_eq!(give_up_to(10, &mut image), 1);
        assert_eq!(leaders(&image), [0, 1, 2]);
        let now = image.topic("snow").unwrap().partition(0).unwrap();
        assert_eq!((now.isr.len(), now.leader_epoch), (3, 2), "who is in sync stays so");
        catches_up(&mut image, 2, &[0, 1, 2]);
        assert_eq!(give_up_to(10, &mut image), 1);
        assert_eq!(leaders(&image), [0, 1, 0]);
    }

    #[test]
    fn what_is_left_comes_next() {
        let mut image = image(&[&[0, 1] as &[i32]; 5]);
        decide(&mut image, |image, rules| fence(image, rules, 0));
        decide(&mut image, |image, rules| heartbeat(image, rules, 0, 0).unwrap());
        (0..5).for_each(|index| catches_up(&mut image, index, &[0, 1]));
        let given: Vec<usize> = (0..4).map(|_| give_up_to(2, &mut image)).collect();
        assert_eq!((given, leaders(&image)), (vec![2, 2, 1, 0], vec![0; 5]));
    }

    #[test]
    fn who_is_to_be_emptied_is_given_nothing_back() {
        let mut image = image(&[&[0, 1], &[1, 0]]);
        decide(&mut image, |image, rules| fence(image, rules, 0));
        decide(&mut image, |image, rules| heartbeat(image, rules, 0, 0).unwrap());
        catches_up(&mut image, 0, &[0, 1]);
        let mark = |value: Option<&str>| {
            let (resource, name) = (ConfigResource::broker(0), "firn.broker.drain".to_owned());
            let record = ConfigRecord { resource, name, value: value.map(str::to_owned) };
            Decision { records: vec![MetadataRecord::Config(record)], reply: () }
        };
        decide(&mut image, |_, _| mark(Some("true")));
        assert_eq!(give_up_to(10, &mut image), 0);
        decide(&mut image, |_, _| mark(None));
        assert_eq!(give_up_to(10, &mut image), 1);
        assert_eq!(leaders(&image), [0, 1]);
    }
}
