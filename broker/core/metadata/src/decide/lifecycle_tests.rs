//! Brokers fall silent, are heard of again, and come back without what they had.

use firn_model::broker_config::BrokerConfig;

use super::*;
use crate::decide::brokers::{Registration, register_broker};
use crate::decide::testing::{apply, code, create, image_of, registration, topic};
use crate::image::{NO_LEADER, Partition};

/// Brokers 0, 1, 2, and topics of one and of two replicas; every broker leads some of each.
fn cluster() -> Image {
    let mut image = image_of(3);
    let creation = create(&image, &[topic("single", 3, 1), topic("double", 3, 2)]);
    apply(&mut image, &creation);
    image
}

fn partitions<'a>(image: &'a Image, topic: &str) -> impl Iterator<Item = &'a Partition> {
    image.topic(topic).unwrap().partitions.iter().map(|partition| &**partition)
}

fn led_by(image: &Image, broker_id: i32) -> usize {
    image.topics().flat_map(|topic| &topic.partitions).filter(|one| one.leader == broker_id).count()
}

fn fence_it(image: &mut Image, broker_id: i32) {
    let config = BrokerConfig::default();
    let decision = fence(image, Rules { config: &config }, broker_id);
    apply(image, &decision);
}

fn hear_of(image: &mut Image, broker_id: i32, epoch: i64) -> Result<usize, DecisionError> {
    let config = BrokerConfig::default();
    let decision = heartbeat(image, Rules { config: &config }, broker_id, epoch)?;
    apply(image, &decision);
    Ok(decision.records.len())
}

fn register(image: &mut Image, registration: &Registration) -> i64 {
    let config = BrokerConfig::default();
    let decision = register_broker(image, Rules { config: &config }, registration).unwrap();
    apply(image, &decision);
    decision.reply
}

#[test]
fn who_is_behind_the_fence_leads_nothing_and_leads_again_when_it_is_heard_of() {
    let mut image = cluster();
    let before = image.clone();
    fence_it(&mut image, 1);
    assert!(image.broker(1).unwrap().fenced);
    assert_eq!(led_by(&image, 1), 0);
    for (was, is) in partitions(&before, "double").zip(partitions(&image, "double")) {
        assert!(is.leader != NO_LEADER && !is.isr.contains(&1), "{was:?} -> {is:?}");
        assert_eq!(is.leader_epoch, was.leader_epoch + i32::from(was.leader == 1));
    }
    let orphans: Vec<_> = partitions(&image, "single").filter(|one| one.leader == NO_LEADER).collect();
    assert_eq!(orphans.len(), 1);
    assert_eq!((&*orphans[0].isr, &*orphans[0].elr), (&[][..], &[1][..]), "it has what was acknowledged");

    let again = image.clone();
    fence_it(&mut image, 1);
    assert_eq!(image, again, "once is enough");

    assert_eq!(hear_of(&mut image, 1, 0).unwrap(), 2, "the fence, and the partition that waits");
    assert!(!image.broker(1).unwrap().fenced);
    for (was, is) in partitions(&before, "single").zip(partitions(&image, "single")) {
        let turns = if was.leader == 1 { 2 } else { 0 };
        assert_eq!((is.leader, is.leader_epoch), (was.leader, was.leader_epoch + turns));
    }
    assert_eq!(hear_of(&mut image, 1, 0).unwrap(), 0, "nothing is new");
}

#[test]
fn another_incarnation_is_not_heard() {
    let mut image = cluster();
    assert_eq!(code(&hear_of(&mut image, 7, 0).unwrap_err()), "BrokerIdNotRegistered");
    register(&mut image, &registration(1, 77));
    assert_eq!(code(&hear_of(&mut image, 1, 0).unwrap_err()), "StaleBrokerEpoch");
    assert_eq!(hear_of(&mut image, 1, 1).unwrap(), 0);
}

#[test]
fn a_quick_restart_moves_no_partition() {
    let mut image = cluster();
    let before = image.clone();
    assert_eq!(register(&mut image, &registration(1, 77)), 1);
    assert!(partitions(&before, "single").eq(partitions(&image, "single")));
    assert!(partitions(&before, "double").eq(partitions(&image, "double")));
}

#[test]
fn a_restart_after_a_fence_brings_the_partitions_back() {
    let mut image = cluster();
    fence_it(&mut image, 1);
    register(&mut image, &registration(1, 77));
    assert!(!image.broker(1).unwrap().fenced);
    assert!(partitions(&image, "single").all(|one| one.leader != NO_LEADER));
}

#[test]
fn who_comes_without_its_disk_vouches_for_nothing_that_others_have() {
    let mut image = cluster();
    let with = |ids: &[&str], incarnation| Registration {
        directory_ids: ids.iter().map(|id| id.to_string()).collect(),
        ..registration(1, incarnation)
    };
    register(&mut image, &with(&["one", "two"], 70));
    let before = image.clone();
    register(&mut image, &with(&["two", "three"], 71));
    assert!(partitions(&before, "double").eq(partitions(&image, "double")), "one of its disks was there");
    register(&mut image, &with(&["four"], 72));
    for one in partitions(&image, "double") {
        assert!(one.leader != NO_LEADER && !one.isr.contains(&1), "{one:?}");
    }
    // Nobody else will ever have it, and what is written there now is told from what was.
    for (was, is) in partitions(&before, "single").zip(partitions(&image, "single")) {
        let begins_anew = i32::from(was.leader == 1);
        assert_eq!((is.leader, is.leader_epoch), (was.leader, was.leader_epoch + begins_anew));
    }
}
