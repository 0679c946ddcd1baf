//! Whatever the cluster is like: plans come to an end, make nothing worse on the way, and never undo what they did.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::testing::World;
use super::*;
use crate::image::Partition;

/// What is drawn: racks; what is said of each broker; partitions by topic, each with a draw for its replicas and its GiB.
type Drawn = (Vec<&'static str>, Vec<u8>, Vec<Vec<(u64, u64)>>, (usize, usize, usize), u64);

fn drawn() -> impl Strategy<Value = Drawn> {
    let racks = prop::collection::vec(prop::sample::select(vec!["", "a", "a", "b", "b", "c"]), 1..8);
    let said = prop::collection::vec(0..12u8, 8);
    let topics = prop::collection::vec(prop::collection::vec((any::<u64>(), 0..40u64), 1..14), 1..4);
    let limits = (1..6usize, 1..4usize, prop::sample::select(vec![0usize, 10, 50]));
    (racks, said, topics, limits, any::<u64>())
}

struct Dice(u64);

impl Dice {
    fn roll(&mut self, below: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % below.max(1)
    }
}

/// As many brokers as the topic has replicas, in an order that the draw decides.
fn replicas(draw: u64, factor: usize, brokers: usize) -> Vec<i32> {
    let (mut dice, mut left) = (Dice(draw), (0..brokers as i32).collect::<Vec<_>>());
    // Some brokers are drawn far more often than others.
    (0..factor.min(brokers))
        .map(|_| {
            let most = left.len();
            left.remove(dice.roll(most).min(dice.roll(most)))
        })
        .collect()
}

fn build((racks, said, topics, ..): &Drawn) -> (World, Sizes) {
    let mut world = World::new(racks);
    let mut sizes = Sizes::new();
    for (number, partitions) in topics.iter().enumerate() {
        let all: Vec<Vec<i32>> =
            partitions.iter().map(|(draw, _)| replicas(*draw, number % 3 + 1, racks.len())).collect();
        let all: Vec<&[i32]> = all.iter().map(Vec::as_slice).collect();
        let id = world.topic(&format!("topic-{number}"), &all);
        sizes.extend((0..).zip(partitions).map(|(index, (_, gib))| ((id, index), gib << 30)));
    }
    for (id, said) in (0..).zip(said).take(racks.len()) {
        match said {
            0 => world.drain(id),
            1 => world.cordon(id),
            2 => world.fence(id),
            3 => {
                world.fence(id);
                world.unregister(id);
            }
            4 => {
                world.fence(id);
                world.drain(id);
            }
            _ => {}
        }
    }
    (world, sizes)
}

/// What steps towards evenness make smaller, the first of them that they change.
fn potential(world: &World, sizes: &Sizes) -> [u128; 4] {
    let shape = Shape::of(&world.image, super::testing::LIMITS, sizes);
    let crowds = shape.placed.iter().flat_map(|placed| {
        let crowd = |id: &i32| shape.crowd(&placed.replicas, *id) as u128;
        placed.replicas.iter().map(crowd).collect::<Vec<_>>()
    });
    let squares = |of: &dyn Fn(&shape::Seat<'_>) -> u64| {
        shape.seats().filter(|seat| seat.gives).map(|seat| u128::from(of(seat)).pow(2)).sum()
    };
    [
        crowds.sum(),
        squares(&|seat| seat.replicas as u64),
        squares(&|seat| seat.bytes >> 20),
        squares(&|seat| seat.leads as u64),
    ]
}

/// Copies under way: in all, and the most that one broker takes part in.
fn copies(world: &World) -> (usize, usize) {
    let all = world.partitions();
    let is_there = |id: i32| world.image.broker(id).is_some_and(|broker| !broker.fenced);
    let gets = |now: &Partition, id: i32| {
        now.adding_replicas.contains(&id) && !now.isr.contains(&id) && is_there(id)
    };
    let is_copied =
        |now: &&Partition| now.leader != NO_LEADER && now.replicas.iter().any(|id| gets(now, *id));
    let copied: Vec<&Partition> = all.values().filter(is_copied).collect();
    let of = |id: i32| {
        let takes_part = |now: &&&Partition| gets(now, id) || now.leader == id;
        copied.iter().filter(takes_part).count()
    };
    (copied.len(), world.image.brokers().map(|broker| of(broker.id)).max().unwrap_or(0))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn plans_come_to_an_end_and_make_nothing_worse(drawn in drawn()) {
        let (mut world, sizes) = build(&drawn);
        let (moves_max, moves_per_broker_max, imbalance_percentage) = drawn.3;
        let limits = Limits { moves_max, moves_per_broker_max, imbalance_percentage };
        let mut dice = Dice(drawn.4);
        let factors: Vec<usize> = world.partitions().values().map(|now| now.replicas.len()).collect();
        let mut rounds = 0;
        let stuck = loop {
            rounds += 1;
            prop_assert!(rounds < 3_000, "it never ends");
            let before = world.partitions();
            let evacuated = world.evacuate(limits);
            let was = potential(&world, &sizes);
            let evened = world.even(limits, Some(&sizes));
            let is = potential(&world, &sizes);
            prop_assert!(evened.moves.is_empty() || is < was, "{was:?} -> {is:?}: {evened:?}");
            prop_assert!(is[0] <= was[0], "racks are more crowded: {evened:?}");
            let (copied, of_one) = copies(&world);
            prop_assert!(copied <= moves_max && of_one <= moves_per_broker_max, "{copied} copies, {of_one} of one");
            // Some of what is under way gets done.
            let keys: Vec<_> = world.partitions().into_keys().collect();
            let is_last = evacuated.moves.is_empty() && evened.moves.is_empty();
            keys.into_iter().filter(|_| is_last || dice.roll(3) == 0).for_each(|key| world.catch_up(key));
            let after = world.partitions();
            for (((was, is), factor), at) in before.values().zip(after.values()).zip(&factors).zip(0..) {
                prop_assert!(is.isr.len() >= was.isr.len().min(*factor), "{at}: {was:?} -> {is:?}");
                prop_assert_eq!(is.target_replicas().count(), *factor);
            }
            if is_last && before == after {
                break evacuated.stuck;
            }
        };
        // Who is to be empty is so, but for what could not move.
        let left = world.partitions().into_values().filter(|now| now.target_replicas().any(|id| leaves(&world.image, id)));
        prop_assert_eq!(left.count(), stuck);
    }

    /// Without racks, and with nobody who is away, brokers end up with as many as each other.
    #[test]
    fn a_plain_cluster_ends_up_even(
        (_, _, topics, _, seed) in drawn(),
        brokers in 2..7usize,
    ) {
        let racks = vec![""; brokers];
        let (mut world, sizes) = build(&(racks, Vec::new(), topics, (1, 1, 1), seed));
        let limits = Limits { moves_max: 4, moves_per_broker_max: 2, imbalance_percentage: 0 };
        while !world.even(limits, Some(&sizes)).moves.is_empty() {
            world.finish();
        }
        let count = |of: &dyn Fn(&shape::Seat<'_>) -> usize| -> BTreeSet<usize> {
            Shape::of(&world.image, limits, &sizes).seats().map(of).collect()
        };
        let replicas = count(&|seat| seat.replicas);
        prop_assert!(replicas.last().unwrap() - replicas.first().unwrap() <= 1, "{replicas:?}");
    }
}
