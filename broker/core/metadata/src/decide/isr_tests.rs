//! Leaders shrink and expand their ISRs; reports of the past, of others and of the fenced are refused.

use firn_model::broker_config::BrokerConfig;

use super::*;
use crate::decide::brokers::register_broker;
use crate::decide::lifecycle::fence;
use crate::decide::testing::{apply, code, create, image_of, registration, topic};

/// Three brokers, and a topic of one partition with three replicas.
fn cluster() -> Image {
    let mut image = image_of(3);
    let creation = create(&image, &[topic("snow", 1, 3)]);
    apply(&mut image, &creation);
    image
}

fn partition(image: &Image) -> &Partition {
    image.topic("snow").unwrap().partition(0).unwrap()
}

/// What the leader would report, with all in sync whom it names.
fn report(image: &Image, isr: &[i32]) -> IsrReport {
    let now = partition(image);
    IsrReport {
        topic_id: image.topic("snow").unwrap().id,
        partition: 0,
        leader_epoch: now.leader_epoch,
        partition_epoch: now.partition_epoch,
        isr: isr.iter().map(|id| (*id, image.broker(*id).map_or(-1, |broker| broker.epoch))).collect(),
        withdraws: false,
    }
}

fn alter(image: &mut Image, broker: i32, report: IsrReport) -> Result<Partition, IsrError> {
    let config = BrokerConfig::default();
    let epoch = image.broker(broker).unwrap().epoch;
    let mut decision = alter_partitions(image, Rules { config: &config }, broker, epoch, &[report]).unwrap();
    apply(image, &decision);
    decision.reply.remove(0)
}

#[test]
fn the_leader_says_who_is_in_sync() {
    let mut image = cluster();
    let (leader, before) = (partition(&image).leader, partition(&image).clone());
    let other = (leader + 1) % 3;
    let asked = report(&image, &[other, leader]);
    let agreed = alter(&mut image, leader, asked.clone()).unwrap();
    assert_eq!(agreed, *partition(&image));
    assert_eq!(
        (agreed.leader_epoch, agreed.partition_epoch),
        (before.leader_epoch, before.partition_epoch + 1)
    );
    assert_eq!(agreed.isr.iter().collect::<BTreeSet<_>>(), BTreeSet::from([&leader, &other]));
    assert_eq!(alter(&mut image, leader, asked), Err(IsrError::InvalidUpdateVersion), "it is told twice");
    let all = report(&image, &[0, 1, 2]);
    assert_eq!(alter(&mut image, leader, all).unwrap().isr.len(), 3);
    let same = report(&image, &[0, 1, 2]);
    let epoch = partition(&image).partition_epoch;
    assert_eq!(alter(&mut image, leader, same).unwrap().partition_epoch, epoch, "nothing is new");
    let late = report(&image, &[other, leader]);
    let withdrawal = IsrReport { withdraws: true, ..report(&image, &[0, 1, 2]) };
    let withdrawn = alter(&mut image, leader, withdrawal).unwrap();
    assert_eq!((withdrawn.isr.len(), withdrawn.partition_epoch), (3, epoch + 1));
    assert_eq!(alter(&mut image, leader, late), Err(IsrError::InvalidUpdateVersion));
}

#[test]
fn what_cannot_be_is_refused_by_name() {
    let mut image = cluster();
    let leader = partition(&image).leader;
    let other = (leader + 1) % 3;
    let right = report(&image, &[leader, other]);
    let id = TopicId(uuid::Uuid::from_u128(99));
    for (who, report, refused) in [
        (leader, IsrReport { topic_id: id, ..right.clone() }, IsrError::UnknownTopicId),
        (leader, IsrReport { partition: 1, ..right.clone() }, IsrError::UnknownTopicOrPartition),
        (
            leader,
            IsrReport { leader_epoch: right.leader_epoch + 1, ..right.clone() },
            IsrError::NotController,
        ),
        (
            leader,
            IsrReport { partition_epoch: right.partition_epoch + 1, ..right.clone() },
            IsrError::NotController,
        ),
        (
            leader,
            IsrReport { leader_epoch: right.leader_epoch - 1, ..right.clone() },
            IsrError::FencedLeaderEpoch,
        ),
        (other, right.clone(), IsrError::InvalidRequest),
        (leader, IsrReport { isr: vec![(other, 0)], ..right.clone() }, IsrError::InvalidRequest),
        (leader, IsrReport { isr: vec![(leader, 0), (7, 0)], ..right.clone() }, IsrError::InvalidRequest),
        (
            leader,
            IsrReport { isr: vec![(leader, 0), (other, 5)], ..right.clone() },
            IsrError::IneligibleReplica,
        ),
    ] {
        let before = image.clone();
        assert_eq!(alter(&mut image, who, report.clone()), Err(refused), "{report:?}");
        assert_eq!(image, before);
    }
}

/// The leader may have seen it in sync before it was fenced, or on another incarnation.
#[test]
fn who_is_fenced_or_has_started_anew_is_not_taken_in() {
    let mut image = cluster();
    let config = BrokerConfig::default();
    let rules = Rules { config: &config };
    let leader = partition(&image).leader;
    let other = (leader + 1) % 3;
    let fenced = fence(&image, rules, other);
    apply(&mut image, &fenced);
    let late = report(&image, &[0, 1, 2]);
    assert_eq!(alter(&mut image, leader, late), Err(IsrError::IneligibleReplica));
    let seen_before = report(&image, &[0, 1, 2]);
    let back = register_broker(&image, rules, &registration(other, 77)).unwrap();
    apply(&mut image, &back);
    assert_eq!(alter(&mut image, leader, seen_before), Err(IsrError::IneligibleReplica));
    let now = report(&image, &[0, 1, 2]);
    assert_eq!(alter(&mut image, leader, now).unwrap().isr.len(), 3);
}

#[test]
fn another_incarnation_of_the_leader_is_not_heard() {
    let image = cluster();
    let config = BrokerConfig::default();
    let leader = partition(&image).leader;
    let asked = report(&image, &[leader]);
    let refused = alter_partitions(&image, Rules { config: &config }, leader, 9, &[asked]).unwrap_err();
    assert_eq!(code(&refused), "StaleBrokerEpoch");
}
