//! Replicas move, go back, go elsewhere, and what comes in between; what cannot be is refused by name.

use firn_model::broker_config::BrokerConfig;

use super::*;
use crate::decide::create_partitions::{MorePartitions, create_partitions};
use crate::decide::create_topics::NewTopic;
use crate::decide::delete_topics::{TopicSelector, delete_topics};
use crate::decide::isr::{IsrError, IsrReport, alter_partitions};
use crate::decide::lifecycle::{fence, heartbeat};
use crate::decide::testing::{apply, code, create, image_of};
use crate::image::NO_LEADER;

/// Six brokers, and a topic of one partition on the first of them; two have to be in sync.
struct World {
    image: Image,
    config: BrokerConfig,
}

impl World {
    fn of(replicas: &[i32]) -> World {
        let mut image = image_of(6);
        let new = NewTopic {
            name: "snow".to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, replicas.to_vec())],
            configs: vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))],
        };
        let creation = create(&image, &[new]);
        apply(&mut image, &creation);
        World { image, config: BrokerConfig::default() }
    }

    fn now(&self) -> &Partition {
        self.image.topic("snow").unwrap().partition(0).unwrap()
    }

    fn decide<R>(&mut self, decide: impl FnOnce(&Image, Rules<'_>) -> Decision<R>) -> R {
        let decision = decide(&self.image, Rules { config: &self.config });
        apply(&mut self.image, &decision);
        decision.reply
    }

    fn ask(&mut self, replicas: Option<&[i32]>, may_change_factor: bool) -> Result<(), DecisionError> {
        let asked = asked("snow", 0, replicas);
        self.decide(|image, rules| alter_reassignments(image, rules, &[asked], may_change_factor)).remove(0)
    }

    fn to(&mut self, replicas: &[i32]) {
        self.ask(Some(replicas), true).unwrap();
    }

    fn back(&mut self) -> Result<(), DecisionError> {
        self.ask(None, true)
    }

    fn fence(&mut self, broker: i32) {
        self.decide(|image, rules| fence(image, rules, broker));
    }

    fn hear_of(&mut self, broker: i32) {
        self.decide(|image, rules| heartbeat(image, rules, broker, 0).unwrap());
    }

    /// The leader says who is in sync with it.
    fn in_sync(&mut self, isr: &[i32]) -> Result<Partition, IsrError> {
        let report = self.report(isr);
        self.take(report)
    }

    fn report(&self, isr: &[i32]) -> IsrReport {
        let now = self.now();
        IsrReport {
            topic_id: self.image.topic("snow").unwrap().id,
            partition: 0,
            leader_epoch: now.leader_epoch,
            partition_epoch: now.partition_epoch,
            isr: isr.iter().map(|id| (*id, 0)).collect(),
            withdraws: false,
        }
    }

    fn take(&mut self, report: IsrReport) -> Result<Partition, IsrError> {
        let leader = self.now().leader;
        self.decide(|image, rules| alter_partitions(image, rules, leader, 0, &[report]).unwrap()).remove(0)
    }

    /// Replicas, adding, removing.
    fn replicas(&self) -> (&[i32], &[i32], &[i32]) {
        let now = self.now();
        (&now.replicas, &now.adding_replicas, &now.removing_replicas)
    }
}

fn asked(topic: &str, partition: i32, replicas: Option<&[i32]>) -> Reassignment {
    Reassignment { topic: topic.to_owned(), partition, replicas: replicas.map(<[i32]>::to_vec) }
}

#[test]
fn a_partition_moves_to_other_brokers_once_they_have_it() {
    let mut world = World::of(&[0, 1, 2]);
    let before = world.now().clone();
    world.to(&[3, 4, 5]);
    assert_eq!(world.replicas(), (&[3, 4, 5, 0, 1, 2][..], &[3, 4, 5][..], &[0, 1, 2][..]));
    let begun = world.now().clone();
    assert_eq!(
        (&begun.isr, begun.leader),
        (&before.isr, before.leader),
        "who leads, and who is in sync, stays"
    );
    assert_eq!(
        (begun.leader_epoch, begun.partition_epoch),
        (before.leader_epoch, before.partition_epoch + 1)
    );
    world.in_sync(&[0, 1, 2, 3, 5]).unwrap();
    assert!(world.now().is_reassigning(), "4 is not in sync");
    let done = world.in_sync(&[0, 1, 2, 3, 4, 5]).unwrap();
    assert_eq!(done, *world.now());
    assert_eq!(world.replicas(), (&[3, 4, 5][..], &[][..], &[][..]));
    assert_eq!((&*done.isr, done.leader), (&[3, 4, 5][..], 3), "the leader has moved, too");
    assert_eq!(done.leader_epoch, begun.leader_epoch + 1);
}

#[test]
fn what_can_be_done_at_once_is() {
    // now in sync; target; then: replicas, in sync, leader epochs
    type Row = (&'static [i32], &'static [i32], (&'static [i32], &'static [i32], i32));
    let table: [Row; 5] = [
        (&[0, 1, 2], &[2, 1, 0], (&[2, 1, 0], &[0, 1, 2], 0)),
        (&[0, 1, 2], &[0, 1], (&[0, 1], &[0, 1], 1)),
        // The leader goes.
        (&[0, 1, 2], &[1, 2], (&[1, 2], &[1, 2], 1)),
        (&[0, 1], &[0, 1], (&[0, 1], &[0, 1], 1)),
        (&[0, 1, 2], &[0, 1, 2], (&[0, 1, 2], &[0, 1, 2], 0)),
    ];
    for (row, (isr, target, then)) in table.into_iter().enumerate() {
        let mut world = World::of(&[0, 1, 2]);
        world.in_sync(isr).unwrap();
        world.to(target);
        let now = world.now();
        assert!(!now.is_reassigning(), "row {row}: {now:?}");
        assert_eq!((&*now.replicas, &*now.isr, now.leader_epoch), then, "row {row}");
    }
    // One that stays is not in sync: it is waited for.
    let mut world = World::of(&[0, 1, 2]);
    world.in_sync(&[0, 1]).unwrap();
    world.to(&[0, 2]);
    assert_eq!(world.replicas(), (&[0, 2, 1][..], &[][..], &[1][..]));
    world.in_sync(&[0, 1, 2]).unwrap();
    assert_eq!(world.replicas(), (&[0, 2][..], &[][..], &[][..]));
}

/// A partition of one replica gets more: it can be written to all the while.
#[test]
fn more_replicas_do_not_keep_writers_out_until_they_are_there() {
    let mut world = World::of(&[0]);
    assert_eq!(world.now().min_in_sync(2), 1);
    world.to(&[0, 1, 2]);
    assert_eq!((world.now().min_in_sync(2), world.now().elr.len()), (1, 0));
    world.in_sync(&[0, 1]).unwrap();
    assert_eq!(world.now().min_in_sync(2), 1);
    world.in_sync(&[0, 1, 2]).unwrap();
    assert_eq!((world.now().min_in_sync(2), world.now().is_reassigning()), (2, false));
    assert_eq!(world.now().leader_epoch, 0, "nobody went");
}

#[test]
fn a_move_is_given_up() {
    let mut world = World::of(&[0, 1, 2]);
    assert_eq!(code(&world.back().unwrap_err()), "NoReassignmentInProgress");
    world.to(&[3, 1, 4]);
    world.in_sync(&[0, 1, 2, 3]).unwrap();
    world.back().unwrap();
    assert_eq!(world.replicas(), (&[1, 0, 2][..], &[][..], &[][..]));
    let now = world.now();
    assert_eq!((&*now.isr, now.leader, now.leader_epoch), (&[1, 0, 2][..], 0, 1));
    assert_eq!(code(&world.back().unwrap_err()), "NoReassignmentInProgress");
}

#[test]
fn a_move_that_would_lose_records_is_not_given_up() {
    let mut world = World::of(&[0, 1]);
    world.to(&[3, 4]);
    world.in_sync(&[0, 1, 3]).unwrap();
    world.fence(0);
    world.fence(1);
    let now = world.now();
    assert_eq!((&*now.isr, now.leader), (&[3][..], 3), "{now:?}");
    let refused = world.back().unwrap_err();
    assert_eq!(code(&refused), "InvalidReplicaAssignment");
    // One of before that is eligible only because nobody else is there is enough, though.
    world.fence(3);
    let now = world.now();
    assert!(now.isr.is_empty() && now.elr.contains(&1) && now.leader == NO_LEADER, "{now:?}");
    world.back().unwrap();
    let now = world.now();
    assert_eq!((now.leader, now.elr.contains(&3), now.elr.contains(&1)), (NO_LEADER, false, true));
    world.hear_of(1);
    assert_eq!((world.now().leader, &*world.now().isr), (1, &[1][..]));
}

/// Given up in the end, it is where it was before the first of the moves.
#[test]
fn another_move_takes_the_place_of_the_first() {
    let mut world = World::of(&[0, 1, 2]);
    world.to(&[3, 4, 5]);
    world.in_sync(&[0, 1, 2, 3]).unwrap();
    let epoch = world.now().leader_epoch;
    world.to(&[0, 4, 1]);
    // 5 has nothing and goes; 3 is in sync and stays until the move is done.
    assert_eq!(world.replicas(), (&[0, 4, 1, 3, 2][..], &[4, 3][..], &[3, 2][..]));
    assert_eq!(world.now().leader_epoch, epoch + 1, "what is known of 5 does not count any more");
    let mut given_up = World { image: world.image.clone(), config: world.config.clone() };
    given_up.back().unwrap();
    assert_eq!(given_up.replicas(), (&[0, 1, 2][..], &[][..], &[][..]));
    world.in_sync(&[0, 1, 2, 3, 4]).unwrap();
    assert_eq!(world.replicas(), (&[0, 4, 1][..], &[][..], &[][..]));
}

#[test]
fn brokers_come_and_go_meanwhile() {
    // The leader goes: another leads, and the move goes on.
    let mut world = World::of(&[0, 1, 2]);
    world.to(&[3, 1, 2]);
    world.fence(0);
    assert_eq!((world.now().leader, world.now().is_reassigning()), (1, true));
    world.in_sync(&[1, 2, 3]).unwrap();
    assert_eq!(world.replicas(), (&[3, 1, 2][..], &[][..], &[][..]));
    assert_eq!(world.now().leader, 1, "it stays, and another may be asked for");
    // The last that had to come is in sync, and one of those that stay goes in the same moment.
    let mut world = World::of(&[0, 1]);
    world.to(&[2, 1]);
    world.fence(1);
    world.in_sync(&[0, 2]).unwrap();
    assert!(world.now().is_reassigning(), "1 is waited for: {:?}", world.now());
    world.hear_of(1);
    world.in_sync(&[0, 1, 2]).unwrap();
    assert_eq!(world.replicas(), (&[2, 1][..], &[][..], &[][..]));
    // What a leader says of before the move is not taken any more.
    let mut world = World::of(&[0, 1, 2]);
    let late = world.report(&[0, 1]);
    world.to(&[0, 1, 3]);
    assert_eq!(world.take(late), Err(IsrError::InvalidUpdateVersion));
}

#[test]
fn topics_go_and_grow_meanwhile() {
    let mut world = World::of(&[0]);
    world.to(&[0, 1, 2]);
    let more = MorePartitions { name: "snow".to_owned(), count: 2, assignments: None };
    let config = world.config.clone();
    let made = world.decide(|image, _| create_partitions(image, &[more], false, &config));
    assert_eq!(made[0].1, Ok(()));
    let added = world.image.topic("snow").unwrap().partition(1).unwrap();
    assert_eq!(added.replicas.len(), 3, "as many as the others are to have");
    world.decide(|image, _| delete_topics(image, &[TopicSelector::Name("snow".to_owned())], &config));
    assert_eq!(code(&world.ask(None, true).unwrap_err()), "UnknownTopicOrPartition");
}

#[test]
fn what_cannot_be_is_refused_and_changes_nothing() {
    let mut world = World::of(&[0, 1, 2]);
    world.fence(5);
    let before = world.image.clone();
    for (asked, expected) in [
        (asked("ice", 0, Some(&[1])), "UnknownTopicOrPartition"),
        (asked("ice", 0, None), "UnknownTopicOrPartition"),
        (asked("snow", 1, Some(&[1])), "UnknownTopicOrPartition"),
        (asked("snow", -1, Some(&[1])), "UnknownTopicOrPartition"),
        (asked("snow", 0, Some(&[])), "InvalidReplicaAssignment"),
        (asked("snow", 0, Some(&[1, 1])), "InvalidReplicaAssignment"),
        (asked("snow", 0, Some(&[1, 7])), "InvalidReplicaAssignment"),
        (asked("snow", 0, Some(&[1, -2])), "InvalidReplicaAssignment"),
        (asked("snow", 0, None), "NoReassignmentInProgress"),
    ] {
        let told = world
            .decide(|image, rules| alter_reassignments(image, rules, std::slice::from_ref(&asked), true));
        assert_eq!(code(told[0].as_ref().unwrap_err()), expected, "{asked:?}");
        assert!(world.image == before, "{asked:?}");
    }
    // To one that is not there now: it comes, some day.
    world.to(&[0, 1, 5]);
    assert!(world.now().is_reassigning());
    let twice = [asked("snow", 0, Some(&[1])), asked("snow", 0, Some(&[2]))];
    let told = world.decide(|image, rules| alter_reassignments(image, rules, &twice, true));
    assert_eq!((told[0].is_ok(), code(told[1].as_ref().unwrap_err())), (true, "InvalidRequest".to_owned()));
}

#[test]
fn as_many_replicas_as_before_if_who_asks_insists() {
    let mut world = World::of(&[0, 1, 2]);
    for target in [&[0, 1][..], &[0, 1, 2, 3]] {
        assert_eq!(code(&world.ask(Some(target), false).unwrap_err()), "InvalidReplicationFactor");
    }
    world.ask(Some(&[3, 4, 5]), false).unwrap();
    // It is to have three, though it has six for now.
    world.ask(Some(&[3, 4, 2]), false).unwrap();
    assert_eq!(code(&world.ask(Some(&[3, 4]), false).unwrap_err()), "InvalidReplicationFactor");
    world.ask(None, false).unwrap();
}
