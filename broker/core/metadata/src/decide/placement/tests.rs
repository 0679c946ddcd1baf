//! Leaders in turn, followers even, racks apart; for any shift, and for partitions that join others.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

fn seats_in(racks: &[Option<&str>]) -> Vec<Seat> {
    let seat = |(rack, broker_id): (&Option<&str>, i32)| Seat { broker_id, rack: rack.map(str::to_owned) };
    racks.iter().zip(0..).map(seat).collect()
}

/// How often each broker is among these, in order of count.
fn spread(brokers: i32, chosen: impl Iterator<Item = i32>) -> Vec<usize> {
    let mut counts: BTreeMap<i32, usize> = (0..brokers).map(|id| (id, 0)).collect();
    chosen.for_each(|id| *counts.entry(id).or_default() += 1);
    let mut counts: Vec<_> = counts.into_values().collect();
    counts.sort_unstable();
    counts
}

#[test]
fn thirteen_partitions_over_three_brokers_are_led_four_four_five() {
    let seats = seats_in(&[None, None, None]);
    for shift in 0..7 {
        let placed = place(&seats, &[], 13, 3, shift).unwrap();
        assert_eq!(spread(3, placed.iter().map(|replicas| replicas[0])), [4, 4, 5]);
        assert!(placed.iter().all(|replicas| replicas.iter().collect::<BTreeSet<_>>().len() == 3));
    }
}

#[test]
fn followers_of_one_leader_take_turns() {
    let placed = place(&seats_in(&[None, None, None, None]), &[], 12, 2, 0).unwrap();
    let of_zero: BTreeSet<_> =
        placed.iter().filter(|replicas| replicas[0] == 0).map(|replicas| replicas[1]).collect();
    assert_eq!(of_zero.len(), 3, "{placed:?}");
}

#[test]
fn what_one_of_three_led_goes_to_the_two_others_alike() {
    let seats = seats_in(&[None, None, None]);
    for (partitions, led) in [(12, [0, 6, 6]), (13, [0, 6, 7]), (30, [0, 15, 15])] {
        for (shift, lost) in (0..7).flat_map(|shift| [(shift, 0), (shift, 1), (shift, 2)]) {
            let placed = place(&seats, &[], partitions, 3, shift).unwrap();
            let next = placed.iter().filter_map(|replicas| replicas.iter().copied().find(|id| *id != lost));
            assert_eq!(spread(3, next), led, "shift {shift}, without {lost}: {placed:?}");
        }
    }
}

#[test]
fn replicas_stand_on_different_racks() {
    let racks = [Some("a"), Some("a"), Some("b"), Some("b"), Some("c"), Some("c")];
    let placed = place(&seats_in(&racks), &[], 18, 3, 4).unwrap();
    for replicas in &placed {
        let on: BTreeSet<_> = replicas.iter().map(|id| racks[*id as usize]).collect();
        assert_eq!(on.len(), 3, "{replicas:?}");
    }
    assert_eq!(spread(6, placed.iter().map(|replicas| replicas[0])), [3; 6]);
    assert_eq!(spread(6, placed.into_iter().flatten()), [9; 6]);
}

#[test]
fn two_racks_for_three_replicas_both_have_one() {
    let racks = [Some("a"), Some("a"), Some("a"), Some("b")];
    for replicas in place(&seats_in(&racks), &[], 8, 3, 0).unwrap() {
        assert!(replicas.contains(&3), "{replicas:?} is on one rack");
    }
}

#[test]
fn new_partitions_even_out_with_those_that_are_there() {
    let seats = seats_in(&[None, None, None]);
    let mut all = place(&seats, &[], 4, 2, 1).unwrap();
    all.extend(place(&seats, &all.clone(), 5, 2, 1).unwrap());
    assert_eq!(all, place(&seats, &[], 9, 2, 1).unwrap());
    let lopsided = vec![vec![0], vec![0], vec![0]];
    let added = place(&seats, &lopsided, 6, 1, 0).unwrap();
    assert_eq!(spread(3, added.iter().map(|replicas| replicas[0])), [0, 3, 3]);
}

#[test]
fn what_cannot_be_placed_is_none() {
    assert_eq!(place(&seats_in(&[None]), &[], 1, 2, 0), None);
    assert_eq!(place(&[], &[], 1, 1, 0), None);
    assert_eq!(place(&seats_in(&[None]), &[], 1, 0, 0), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn any_cluster_is_led_evenly_and_replicated_on_distinct_brokers(
        racks in proptest::collection::vec(proptest::option::of("[a-c]"), 1..9),
        partitions in 1..40usize,
        factor in 1..4usize,
        shift in any::<u64>(),
    ) {
        let racks: Vec<_> = racks.iter().map(Option::as_deref).collect();
        let seats = seats_in(&racks);
        prop_assume!(factor <= seats.len());
        let placed = place(&seats, &[], partitions, factor, shift).unwrap();
        prop_assert_eq!(placed.len(), partitions);
        for replicas in &placed {
            prop_assert_eq!(replicas.iter().collect::<BTreeSet<_>>().len(), factor);
            let on: BTreeSet<_> = replicas.iter().map(|id| rack_of(&seats[*id as usize])).collect();
            let racks: BTreeSet<_> = seats.iter().map(rack_of).collect();
            prop_assert_eq!(on.len(), factor.min(racks.len()));
        }
        let leads = spread(racks.len() as i32, placed.iter().map(|replicas| replicas[0]));
        prop_assert!(leads[leads.len() - 1] - leads[0] <= 1);
    }
}
