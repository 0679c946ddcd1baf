//! Who goes where, and what stays: off brokers that are emptied or lost, into empty racks, from the many to the few.

use super::testing::{LIMITS, World};
use super::*;
use crate::decide::create_partitions::{MorePartitions, create_partitions};
use crate::decide::reassignments::{Reassignment, alter_reassignments};
use crate::decide::testing::{code, config, create, topic};

type Ids = &'static [i32];

const GIB: u64 = 1 << 30;

#[test]
fn replicas_leave_who_is_to_be_emptied() {
    // racks; partitions; where they are to be then, and how many are stuck. Broker 0 is emptied.
    type Row = (&'static [&'static str], &'static [Ids], &'static [Ids], usize);
    #[rustfmt::skip] // one cluster a line
    let table: [Row; 8] = [
        // To who is left, in the same place of the list.
        (&["", "", ""], &[&[0, 1]], &[&[2, 1]], 0),
        (&["", "", ""], &[&[1, 0]], &[&[1, 2]], 0),
        // What is not there is not moved.
        (&["", "", ""], &[&[1, 2]], &[&[1, 2]], 0),
        // To the rack that it leaves, though another broker has fewer replicas.
        (&["a", "b", "c", "a", "b"], &[&[0, 1, 2], &[3]], &[&[3, 1, 2], &[3]], 0),
        // To another, if there is none in it; the least crowded.
        (&["a", "b", "c", "b", "c"], &[&[0, 1, 2], &[1]], &[&[3, 1, 2], &[1]], 0),
        // To the one with the fewest replicas.
        (&["", "", "", ""], &[&[0], &[1], &[2]], &[&[3], &[1], &[2]], 0),
        // Who has one already can take no other.
        (&["", ""], &[&[0, 1], &[0]], &[&[0, 1], &[1]], 1),
        (&["", "", ""], &[&[0, 1], &[0, 2], &[0]], &[&[2, 1], &[1, 2], &[1]], 0),
    ];
    for (row, (racks, before, then, stuck)) in table.into_iter().enumerate() {
        let mut world = World::new(racks);
        world.topic("snow", before);
        world.drain(0);
        let plan = world.evacuate(LIMITS);
        assert_eq!(
            (world.targets("snow"), plan.stuck),
            (then.iter().map(|ids| ids.to_vec()).collect(), stuck),
            "row {row}"
        );
        // Nothing has gone before the others have it.
        for (now, was) in world.partitions().values().zip(before) {
            assert_eq!((&*now.isr, now.leader), (*was, was[0]), "row {row}");
        }
        assert!(world.evacuate(LIMITS).moves.is_empty(), "row {row}: it is under way");
        world.finish();
        for now in world.partitions().values().filter(|now| !now.replicas.contains(&0)) {
            assert!(!now.is_reassigning() && now.isr.len() == now.replicas.len(), "row {row}: {now:?}");
        }
    }
}

#[test]
fn who_is_fenced_cordoned_or_emptied_too_takes_nothing() {
    let mut world = World::new(&["", "", "", "", ""]);
    world.topic("snow", &[&[0], &[1]]);
    world.drain(0);
    world.drain(1);
    world.cordon(2);
    world.fence(3);
    world.evacuate(LIMITS);
    assert_eq!(world.targets("snow"), [[4], [4]]);
}

#[test]
fn what_is_lost_is_created_anew() {
    let mut world = World::new(&["", "", "", ""]);
    let id = world.topic("snow", &[&[0, 1, 2], &[1, 2, 3], &[0]]);
    world.fence(0);
    assert!(world.evacuate(LIMITS).moves.is_empty(), "it may come back");
    assert!(!world.unregister(0), "it alone has the records of one");
    world.drain(0);
    let plan = world.evacuate(LIMITS);
    assert_eq!(
        (plan.moves.len(), plan.stuck),
        (1, 1),
        "nobody leads what it alone has: there is nothing to copy"
    );
    world.set(0, "firn.broker.drain", None);
    world.finish();
    assert_eq!(world.targets("snow"), [&[3, 1, 2][..], &[1, 2, 3], &[0]]);
    let now = &world.partitions()[&(id, 0)];
    assert_eq!((&*now.replicas, now.isr.len()), (&[3, 1, 2][..], 3));

    let mut world = World::new(&["", "", "", ""]);
    let id = world.topic("snow", &[&[0, 1, 2]]);
    world.fence(0);
    world.drain(0);
    assert!(world.unregister(0));
    assert!(!world.image.is_draining(0), "the next one with its id is there to be used");
    let plan = world.evacuate(LIMITS);
    assert_eq!((plan.moves.len(), plan.stuck, world.targets("snow")), (1, 0, vec![vec![3, 1, 2]]));
    // Those that have the records stay in sync, and a third is before anything goes.
    assert_eq!(world.partitions()[&(id, 0)].isr, [1, 2]);
    world.finish();
    assert_eq!(world.partitions()[&(id, 0)].isr, [3, 1, 2]);
    assert!(world.evacuate(LIMITS).moves.is_empty());
}

#[test]
fn a_move_to_who_is_lost_then_goes_elsewhere() {
    let mut world = World::new(&["", "", "", ""]);
    world.topic("snow", &[&[0, 1]]);
    world.drain(0);
    world.evacuate(LIMITS);
    assert_eq!(world.targets("snow"), [[2, 1]]);
    world.fence(2);
    assert!(world.evacuate(LIMITS).moves.is_empty(), "it may come back");
    assert!(world.unregister(2));
    world.evacuate(LIMITS);
    assert_eq!(world.targets("snow"), [[3, 1]]);
    world.finish();
    let now = world.partitions().into_values().next().unwrap();
    assert_eq!((now.replicas, now.isr), (vec![3, 1], vec![3, 1]));
}

#[test]
fn no_more_is_copied_at_a_time_than_may_be() {
    let mut world = World::new(&["", "", "", ""]);
    world.topic("snow", &[&[0, 1] as &[i32]; 6]);
    world.drain(0);
    let narrow = |moves_max, moves_per_broker_max| Limits { moves_max, moves_per_broker_max, ..LIMITS };
    assert_eq!(evacuate(&world.image, narrow(4, 100)).moves.len(), 4);
    // All are sent by their leader, which is 0.
    assert_eq!(evacuate(&world.image, narrow(100, 3)).moves.len(), 3);
    let plan = world.evacuate(narrow(2, 100));
    assert_eq!((plan.moves.len(), plan.stuck), (2, 0));
    assert!(world.evacuate(narrow(2, 100)).moves.is_empty(), "two are under way");
    assert_eq!(world.evacuate(narrow(3, 100)).moves.len(), 1, "there is room for another");
    world.finish();
    assert_eq!(world.evacuate(narrow(3, 100)).moves.len(), 3, "and for the rest");
    // What waits for somebody who is away is not copied, and keeps nobody waiting.
    world.finish();
    world.drain(1);
    let to = world.targets("snow").concat().into_iter().filter(|id| *id == 2).count();
    assert!(to > 0, "{:?}", world.targets("snow"));
    assert_eq!(world.evacuate(narrow(1, 100)).moves.len(), 1);
    let moving = world.partitions().into_values().find(|now| now.is_reassigning()).unwrap();
    world.fence(moving.adding_replicas[0]);
    assert_eq!(world.evacuate(narrow(1, 100)).moves.len(), 1);
}

#[test]
fn replicas_are_spread_evenly() {
    // racks; partitions; how many moves there are, and how many replicas brokers have then.
    type Row = (&'static [&'static str], &'static [Ids], usize, &'static [usize]);
    #[rustfmt::skip] // one cluster a line
    let table: [Row; 7] = [
        // Even enough.
        (&["", ""], &[&[0], &[1], &[0]], 0, &[2, 1]),
        (&["", "", ""], &[&[0, 1], &[1, 2], &[2, 0]], 0, &[2, 2, 2]),
        // No more moves than it takes.
        (&["", ""], &[&[0], &[0], &[0], &[0]], 2, &[2, 2]),
        (&["", "", "", ""], &[&[0], &[1], &[2], &[0], &[1], &[2], &[0], &[1], &[2]], 2, &[2, 2, 3, 2]),
        // Only within racks, where another rack has its share already.
        (&["a", "b", "b"], &[&[0, 1], &[1, 0], &[0, 1], &[1, 0]], 2, &[4, 2, 2]),
        // Out of a rack that has more than its share, though no broker has many.
        (&["a", "a", "b"], &[&[0, 1], &[2, 0]], 1, &[1, 1, 2]),
        // Two racks for three replicas have two and one.
        (&["a", "a", "b", "b"], &[&[0, 1, 2]], 0, &[1, 1, 1, 0]),
    ];
    for (row, (racks, before, moves, then)) in table.into_iter().enumerate() {
        let mut world = World::new(racks);
        world.topic("snow", before);
        let plan = even(&world.image, LIMITS, None, false);
        let begun = world.decide(|image, rules| begin(image, rules, &plan.moves));
        assert_eq!((plan.moves.len(), begun), (moves, moves), "row {row}: {plan:?}");
        let all = world.targets("snow").concat();
        let counts: Vec<usize> =
            (0..).zip(racks).map(|(id, _)| all.iter().filter(|one| **one == id).count()).collect();
        assert_eq!(counts, then, "row {row}: {:?}", world.targets("snow"));
        world.finish();
        assert!(even(&world.image, LIMITS, None, false).moves.is_empty(), "row {row}: it rests");
    }
}

#[test]
fn a_share_of_the_average_is_even_enough() {
    let mut world = World::new(&["", ""]);
    let of_zero: Vec<Ids> = vec![&[0]; 14];
    world.topic("snow", &of_zero);
    let of_one: Vec<Ids> = vec![&[1]; 6];
    world.topic("ice", &of_one);
    let within = |imbalance_percentage| {
        even(&world.image, Limits { imbalance_percentage, ..LIMITS }, None, false).moves.len()
    };
    // They differ by 8, and have 10 on average.
    assert_eq!((within(0), within(10), within(40), within(69), within(70)), (4, 3, 2, 1, 0));
}

#[test]
fn nothing_is_moved_that_is_not_whole() {
    let mut world = World::new(&["", "", ""]);
    world.topic("snow", &[&[0, 1], &[0, 1], &[0, 1], &[0, 1]]);
    world.fence(1);
    assert!(even(&world.image, LIMITS, None, true).moves.is_empty(), "one replica of each is away");
    world.hear_of(1);
    assert!(even(&world.image, LIMITS, None, true).moves.is_empty(), "and not in sync yet");
    world.finish();
    assert!(!even(&world.image, LIMITS, None, true).moves.is_empty());
}

#[test]
fn a_cordoned_broker_gives_and_takes_nothing() {
    let mut world = World::new(&["", "", ""]);
    world.topic("snow", &[&[0] as &[i32]; 6]);
    world.cordon(1);
    world.even(LIMITS, None);
    assert_eq!(world.targets("snow").concat().iter().filter(|id| **id == 2).count(), 3);
    world.set(1, "cordoned.log.dirs", Some(""));
    world.cordon(0);
    world.finish();
    world.even(LIMITS, None);
    assert!(world.targets("snow").concat().contains(&1), "{:?}", world.targets("snow"));
}

#[test]
fn bytes_are_spread_evenly() {
    // partitions with their bytes; where they are to be then
    type Row = (&'static [(Ids, u64)], &'static [Ids]);
    #[rustfmt::skip] // one cluster a line
    let table: [Row; 5] = [
        // As many replicas, but not as many bytes: a large one goes for a small one.
        (&[(&[0], 40 * GIB), (&[0], 40 * GIB), (&[1], GIB), (&[1], 2 * GIB)], &[&[1], &[0], &[0], &[1]]),
        // Alone, where there are more replicas, too.
        (&[(&[0], 40 * GIB), (&[0], 40 * GIB), (&[1], GIB)], &[&[1], &[0], &[1]]),
        // That would only change who has much.
        (&[(&[0], 40 * GIB), (&[1], 0)], &[&[0], &[1]]),
        // Not worth it.
        (&[(&[0], GIB / 2), (&[0], GIB / 2), (&[1], 0), (&[1], 0)], &[&[0], &[0], &[1], &[1]]),
        (&[(&[0], 100 * GIB), (&[0], 4 * GIB), (&[1], 100 * GIB), (&[1], 0)], &[&[0], &[0], &[1], &[1]]),
    ];
    for (row, (before, then)) in table.into_iter().enumerate() {
        let mut world = World::new(&["", ""]);
        let replicas: Vec<Ids> = before.iter().map(|(replicas, _)| *replicas).collect();
        let id = world.topic("snow", &replicas);
        let sizes: Sizes = (0..).zip(before).map(|(index, (_, bytes))| ((id, index), *bytes)).collect();
        world.even(LIMITS, Some(&sizes));
        assert_eq!(world.targets("snow"), then, "row {row}");
        world.finish();
        assert!(world.even(LIMITS, Some(&sizes)).moves.is_empty(), "row {row}: it rests");
    }
}

#[test]
fn preferred_leaders_are_spread_evenly_without_a_copy() {
    let mut world = World::new(&["", "", ""]);
    world.topic("snow", &[&[0, 1, 2] as &[i32]; 9]);
    let plan = world.even(LIMITS, None);
    let leaders: Vec<i32> = world.targets("snow").iter().map(|replicas| replicas[0]).collect();
    let count = |id: i32| leaders.iter().filter(|one| **one == id).count();
    assert_eq!((plan.moves.len(), count(0), count(1), count(2)), (6, 3, 3, 3), "{leaders:?}");
    assert!(world.partitions().values().all(|now| !now.is_reassigning() && now.isr.len() == 3));
    assert!(world.even(LIMITS, None).moves.is_empty());
}

#[test]
fn what_has_changed_meanwhile_is_not_begun() {
    let mut world = World::new(&["", "", "", ""]);
    let id = world.topic("snow", &[&[0, 1], &[0, 1], &[0, 1]]);
    world.drain(0);
    let plan = evacuate(&world.image, LIMITS);
    assert_eq!(plan.moves.len(), 3);
    let to: Vec<i32> = plan.moves.iter().map(|one| one.to[0]).collect();
    // An operator moves one himself, and who was to take the third is cordoned.
    let asked = Reassignment { topic: "snow".to_owned(), partition: 0, replicas: Some(vec![1, 3]) };
    world.decide(|image, rules| alter_reassignments(image, rules, &[asked], true))[0].clone().unwrap();
    world.cordon(to[2]);
    let begun = world.decide(|image, rules| begin(image, rules, &plan.moves));
    assert_eq!(begun, usize::from(to[1] != to[2]), "{plan:?}");
    assert_eq!(world.targets("snow")[0], [1, 3]);
    let gone = Move { topic_id: id, partition: 7, from: vec![0], to: vec![1] };
    let nowhere = Move { topic_id: TopicId::ZERO, ..gone.clone() };
    assert_eq!(world.decide(|image, rules| begin(image, rules, &[gone, nowhere])), 0);
}

#[test]
fn new_partitions_are_placed_on_nobody_who_is_cordoned() {
    let mut world = World::new(&["", "", ""]);
    world.cordon(0);
    world.drain(1);
    let told = create(&world.image, &[topic("ice", 6, 1)]);
    world.decide(|_, _| told);
    assert!(world.targets("ice").iter().all(|replicas| replicas == &[2]));
    let refused = create(&world.image, &[topic("snow", 1, 2)]).reply.remove(0).1.unwrap_err();
    assert_eq!(code(&refused), "InvalidReplicationFactor");
    assert!(
        refused.to_string().contains("only 1 broker(s) are registered and take new replicas: 2 are cordoned"),
        "{refused}"
    );
    // Nor if somebody says so.
    let by_hand = crate::decide::create_topics::NewTopic {
        name: "snow".to_owned(),
        num_partitions: -1,
        replication_factor: -1,
        assignments: vec![(0, vec![2, 1])],
        configs: Vec::new(),
    };
    let refused = create(&world.image, &[by_hand]).reply.remove(0).1.unwrap_err();
    assert_eq!(code(&refused), "InvalidReplicaAssignment");
    assert!(refused.to_string().contains("broker 1, which gets no new replicas"), "{refused}");
    let more = |assignments| MorePartitions { name: "ice".to_owned(), count: 7, assignments };
    let add =
        |world: &World, more| create_partitions(&world.image, &[more], false, &config(&[])).reply.remove(0).1;
    assert_eq!(code(&add(&world, more(Some(vec![vec![0]]))).unwrap_err()), "InvalidReplicaAssignment");
    assert_eq!(add(&world, more(None)), Ok(()));
    // Who has a replica keeps it, and may lead.
    world.set(0, "cordoned.log.dirs", None);
    world.topic("snow", &[&[0, 2]]);
    world.cordon(0);
    let mut reassign = |replicas: &[i32]| {
        let asked =
            Reassignment { topic: "snow".to_owned(), partition: 0, replicas: Some(replicas.to_vec()) };
        world.decide(|image, rules| alter_reassignments(image, rules, &[asked], true)).remove(0)
    };
    assert_eq!(reassign(&[2, 0]), Ok(()));
    assert_eq!(code(&reassign(&[2, 1]).unwrap_err()), "InvalidReplicaAssignment");
}
