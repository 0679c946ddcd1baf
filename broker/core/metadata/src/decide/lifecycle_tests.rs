//! Brokers fall silent, are heard of again, and come back without what they had.

use firn_model::broker_config::BrokerConfig;

use uuid::Uuid;

use super::*;
use crate::decide::brokers::{Registration, note_marks, register_broker};
use crate::decide::create_topics::NewTopic;
use crate::decide::testing::{apply, code, create, image_of, registration, topic};
use crate::image::{NO_LEADER, Partition};
use crate::incarnations::Incarnations;

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

/// It may have lost what it had not flushed: it fetches before it counts as in sync, and what it leads goes on in an epoch
/// that tells what it lost from what is written now.
#[test]
fn who_restarts_quickly_catches_up_before_it_is_in_sync() {
    let mut image = cluster();
    let before = image.clone();
    assert_eq!(register(&mut image, &registration(1, 77)), 1);
    assert!(
        partitions(&before, "single").eq(partitions(&image, "single")),
        "nobody else has anything of them"
    );
    for (was, is) in partitions(&before, "double").zip(partitions(&image, "double")) {
        let led = i32::from(was.leader == 1);
        assert!(is.leader != 1 && !is.isr.contains(&1), "{was:?} -> {is:?}");
        assert_eq!(is.leader_epoch, was.leader_epoch + led);
    }
    let alone = image.clone();
    register(&mut image, &registration(2, 78));
    for (was, is) in partitions(&alone, "double").zip(partitions(&image, "double")) {
        let led = i32::from(was.leader == 2);
        assert_eq!(is.leader_epoch, was.leader_epoch + led);
        if was.isr == [2] {
            assert_eq!((is.leader, &is.isr), (2, &was.isr), "nobody has more than it");
        }
    }
}

/// Where records are acknowledged before they are flushed, a crash may have taken some of them.
#[test]
fn who_crashed_vouches_for_what_was_flushed_at_once() {
    let config = BrokerConfig::default();
    for (flush_messages, cleanly, vouches) in
        [("1", false, true), ("1", true, true), ("1000", false, false), ("1000", true, true)]
    {
        let mut image = image_of(3);
        let configs = [("flush.messages", flush_messages), ("min.insync.replicas", "2")];
        let configs = configs.map(|(name, value)| (name.to_owned(), Some(value.to_owned())));
        let creation = create(&image, &[NewTopic { configs: configs.to_vec(), ..topic("late", 1, 2) }]);
        apply(&mut image, &creation);
        let id = partitions(&image, "late").next().unwrap().leader;
        let restarted = Registration { was_stopped_cleanly: cleanly, ..registration(id, 77) };
        let decision = register_broker(&image, Rules { config: &config }, &restarted).unwrap();
        apply(&mut image, &decision);
        let now = partitions(&image, "late").next().unwrap();
        assert!(now.leader != id && !now.isr.contains(&id));
        assert_eq!(now.elr.contains(&id), vouches, "flush.messages={flush_messages}, cleanly: {cleanly}");
    }
}

/// Others lead what lay on a disk that has failed, if they can; what lies elsewhere stays as it is.
#[test]
fn what_lay_on_a_disk_that_has_failed_is_led_by_others() {
    let config = BrokerConfig::default();
    let before = cluster();
    let topics = ["single", "double"].map(|name| before.topic(name).unwrap().id);
    let lost = [(topics[0], 0), (topics[0], 1), (topics[1], 0), (topics[1], 9)];
    for broker_id in 0..3 {
        let mut image = before.clone();
        let epoch = image.broker(broker_id).unwrap().epoch;
        let rules = Rules { config: &config };
        assert_eq!(
            code(&hand_over(&image, rules, (broker_id, epoch + 1), &lost, false).unwrap_err()),
            "StaleBrokerEpoch"
        );
        let decision = hand_over(&image, rules, (broker_id, epoch), &lost, false).unwrap();
        apply(&mut image, &decision);
        for name in ["single", "double"] {
            let all = partitions(&before, name).zip(partitions(&image, name)).enumerate();
            for (index, (was, now)) in all {
                let is_lost = lost.contains(&(before.topic(name).unwrap().id, index as i32));
                if !is_lost || !was.isr.contains(&broker_id) {
                    assert_eq!(was, now);
                } else if was.isr.len() > 1 {
                    assert!(
                        now.leader != NO_LEADER && now.leader != broker_id && !now.isr.contains(&broker_id)
                    );
                    assert_eq!(now.leader_epoch, was.leader_epoch + 1, "though it did not lead");
                } else {
                    assert_eq!(was, now, "nobody else can");
                }
            }
        }
        assert!(
            hand_over(&image, rules, (broker_id, epoch), &lost, false).unwrap().records.is_empty(),
            "once"
        );
    }
}

/// Whoever gives a replica up vouches for nothing of it, and nothing that it has asked for before counts.
#[test]
fn a_replica_that_is_given_up_is_relied_on_by_nobody() {
    let config = BrokerConfig::default();
    let mut image = cluster();
    let topic = image.topic("double").unwrap().id;
    let rules = Rules { config: &config };
    let was = partitions(&image, "double").next().unwrap().clone();
    let (gives_up, stays) = (was.leader, *was.isr.iter().find(|id| **id != was.leader).unwrap());
    let who = (gives_up, image.broker(gives_up).unwrap().epoch);
    for times in 1..=3 {
        let decision = hand_over(&image, rules, who, &[(topic, 0)], true).unwrap();
        apply(&mut image, &decision);
        let now = partitions(&image, "double").next().unwrap();
        assert_eq!((now.leader, &now.isr), (stays, &vec![stays]));
        assert!(now.elr.is_empty() && now.last_known_elr.is_empty());
        assert_eq!(now.leader_epoch, was.leader_epoch + times, "in another epoch each time");
    }
    let who = (stays, image.broker(stays).unwrap().epoch);
    assert!(
        hand_over(&image, rules, who, &[(topic, 0)], true).unwrap().records.is_empty(),
        "nobody else can"
    );
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

#[test]
fn who_comes_without_one_of_its_disks_vouches_for_nothing_that_others_vouch_for() {
    let mut image = cluster();
    let with = |ids: &[&str], incarnation| Registration {
        directory_ids: ids.iter().map(|id| id.to_string()).collect(),
        ..registration(1, incarnation)
    };
    // Each of the two disks with so many marks of the incarnation of before.
    let marked = |marks: [u64; 2], incarnation| {
        let known =
            |marks| Incarnations::from([(Uuid::from_u128(70), marks), (Uuid::from_u128(incarnation), 0)]);
        let noted = ["one", "two"].into_iter().zip(marks).map(|(id, marks)| (id.to_owned(), known(marks)));
        Registration { noted: Some(noted.collect()), ..with(&["one", "two"], incarnation) }
    };
    register(&mut image, &marked([0, 0], 70));
    let epoch = image.broker(1).unwrap().epoch;
    for (told, records) in
        [((1, epoch, 3), 1), ((1, epoch, 3), 0), ((1, epoch, 2), 0), ((1, epoch - 1, 4), 0)]
    {
        let noted = note_marks(&image, &[told]);
        assert_eq!(noted.records.len(), records, "{told:?}");
        apply(&mut image, &noted);
    }
    let configs = vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))];
    let creation = create(&image, &[NewTopic { configs, ..topic("kept", 1, 3) }]);
    apply(&mut image, &creation);
    for id in [0, 2, 1] {
        fence_it(&mut image, id);
    }
    let now = partitions(&image, "kept").next().unwrap();
    assert!(now.isr.is_empty() && now.elr.contains(&1) && now.elr.len() > 1, "{now:?}");
    let robbed = Registration { is_robbed: true, ..with(&["one", "two"], 71) };
    let mut whole = image.clone();
    register(&mut whole, &marked([3, 4], 71));
    assert_eq!(partitions(&whole, "kept").next().unwrap().leader, 1, "it has all its marks, and all else");
    for registration in [with(&["two", "three"], 71), robbed, marked([3, 2], 71)] {
        let mut image = image.clone();
        register(&mut image, &registration);
        let now = partitions(&image, "kept").next().unwrap();
        assert!(now.leader == NO_LEADER && !now.elr.contains(&1), "others have it all: {now:?}");
        assert!(partitions(&image, "single").filter(|one| one.replicas == [1]).all(|one| one.leader == 1));
    }
}

/// With two brokers there is somebody to agree with.
#[test]
fn several_brokers_have_one_default_of_min_insync_replicas() {
    let config = crate::decide::testing::config(&[("min.insync.replicas", "2")]);
    let mut image = Image::default();
    for (id, expected) in [(0, None), (0, None), (1, Some("2")), (2, Some("2"))] {
        let decision =
            register_broker(&image, Rules { config: &config }, &registration(id, 50 + id as u128)).unwrap();
        apply(&mut image, &decision);
        let defaults = image.overrides(&crate::record::ConfigResource::cluster_default());
        assert_eq!(defaults.get("min.insync.replicas").map(String::as_str), expected);
    }
}
