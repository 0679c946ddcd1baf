//! Evenly over the brokers: racks first, then the number of replicas, then bytes, then preferred leaders. Each step leaves what the
//! ones before it have reached (see `balance.rs`).

use std::collections::BTreeSet;

use super::shape::{Placed, Seat, Shape};

/// What two brokers may differ by in any case, in bytes: less is not worth a copy.
const BYTES_SLACK: u64 = 1 << 30;
/// What an exchange has to bring, in bytes.
const BYTES_GAIN_MIN: u64 = 32 << 20;
/// Of the smallest partitions of a broker, how many are tried for an exchange.
const SMALLEST_TRIED: usize = 64;

/// Partitions that get another preferred leader by one plan.
const LEADERS_AT_ONCE: usize = 1000;

/// A replica that shares its rack moves where fewer would share it with it.
pub(super) fn zones(shape: &mut Shape<'_>) {
    for at in 0..shape.placed.len() {
        if !shape.has_room() {
            return;
        }
        if !shape.is_settled(at) {
            continue;
        }
        if let Some((from, to)) = out_of_the_crowd(shape, at) {
            shape.replace(at, from, to);
        }
    }
}

fn out_of_the_crowd(shape: &Shape<'_>, at: usize) -> Option<(i32, i32)> {
    let replicas = &shape.placed.get(at)?.replicas;
    let crowded = |seat: &&Seat<'_>| {
        seat.gives && replicas.contains(&seat.broker_id) && shape.crowd(replicas, seat.broker_id) > 1
    };
    let best = shape.seats().filter(crowded).flat_map(|from| {
        let takers = shape.seats().filter(|to| to.takes && shape.has_room_for(&[(at, to.broker_id)]));
        takers.filter_map(move |to| {
            let relief = shape.relief(at, from.broker_id, to.broker_id).filter(|relief| *relief > 0)?;
            Some((relief, from.replicas, std::cmp::Reverse((to.replicas, to.broker_id)), from.broker_id))
        })
    });
    best.max().map(|(_, _, std::cmp::Reverse((_, to)), from)| (from, to))
}

/// A replica moves from a broker with many to one with few.
pub(super) fn replicas(shape: &mut Shape<'_>) {
    let slack = shape.slack(1, |seat| seat.replicas as u64) as usize;
    let by_number = |seat: &Seat<'_>| seat.replicas as u64;
    let mut spent = BTreeSet::new();
    while shape.has_room() {
        let Some(from) = fullest(shape, &spent, by_number) else { return };
        let Some(from) = shape.seats().find(|seat| seat.broker_id == from) else { return };
        let takers = emptiest(shape, |to| to.takes && from.replicas > to.replicas + slack, by_number);
        if takers.is_empty() {
            // Who has fewer has no more reason.
            return;
        }
        let best = shape.settled_on(from.broker_id).filter_map(|(at, placed)| {
            let fits = |to: &&&Seat<'_>| {
                shape.relief(at, from.broker_id, to.broker_id).is_some()
                    && shape.has_room_for(&[(at, to.broker_id)])
            };
            let to = takers.iter().find(fits)?;
            // As many of each topic as the others, and bytes rather evener than before.
            let gap = shape.topic_gap(at, from.broker_id, to.broker_id);
            let off = (2 * placed.bytes).abs_diff(from.bytes.saturating_sub(to.bytes));
            Some((to.replicas, std::cmp::Reverse(gap), off, at, to.broker_id))
        });
        let (best, from) = (best.min(), from.broker_id);
        match best {
            Some((.., at, to)) => shape.replace(at, from, to),
            None => drop(spent.insert(from)),
        }
    }
}

/// The broker with the most of something, of those that give and are not spent.
fn fullest(shape: &Shape<'_>, spent: &BTreeSet<i32>, of: impl Fn(&Seat<'_>) -> u64) -> Option<i32> {
    let may = shape.seats().filter(|seat| seat.gives && !spent.contains(&seat.broker_id));
    may.max_by_key(|seat| (of(seat), std::cmp::Reverse(seat.broker_id))).map(|seat| seat.broker_id)
}

/// Those that may, the one with the least of something first.
fn emptiest<'s, 'a>(
    shape: &'s Shape<'a>,
    may: impl Fn(&Seat<'a>) -> bool,
    of: impl Fn(&Seat<'a>) -> u64,
) -> Vec<&'s Seat<'a>> {
    let mut seats: Vec<_> = shape.seats().filter(|seat| may(seat)).collect();
    seats.sort_by_key(|seat| (of(seat), seat.broker_id));
    seats
}

/// A large partition moves from a broker with many bytes to one with few: for a small one, or, where there are more replicas than
/// there, for nothing.
pub(super) fn bytes(shape: &mut Shape<'_>) {
    let slack = shape.slack(BYTES_SLACK, |seat| seat.bytes);
    let mut spent = BTreeSet::new();
    while shape.has_room() {
        let Some(from) = fullest(shape, &spent, |seat| seat.bytes) else { return };
        let Some(from) = shape.seats().find(|seat| seat.broker_id == from) else { return };
        let takers =
            emptiest(shape, |to| to.takes && from.bytes > to.bytes.saturating_add(slack), |seat| seat.bytes);
        if takers.is_empty() {
            return;
        }
        let best = takers.iter().find_map(|to| exchange(shape, from, to).map(|found| (found, to.broker_id)));
        let from = from.broker_id;
        match best {
            Some((Exchange { large, small }, to)) => {
                shape.replace(large, from, to);
                if let Some(small) = small {
                    shape.replace(small, to, from);
                }
            }
            None => drop(spent.insert(from)),
        }
    }
}

/// What goes, and what comes for it.
#[derive(Debug, Clone, Copy)]
struct Exchange {
    large: usize,
    small: Option<usize>,
}

/// The exchange that brings two brokers closest together.
fn exchange(shape: &Shape<'_>, from: &Seat<'_>, to: &Seat<'_>) -> Option<Exchange> {
    let apart = from.bytes.checked_sub(to.bytes)?;
    let fits = |at: usize, from: i32, to: i32| shape.relief(at, from, to).is_some();
    let may_come = to.gives && from.takes;
    let mut small: Vec<(usize, &Placed<'_>)> = shape
        .settled_on(to.broker_id)
        .filter(|(at, _)| may_come && fits(*at, to.broker_id, from.broker_id))
        .collect();
    small.sort_by_key(|(at, placed)| (placed.bytes, *at));
    small.truncate(SMALLEST_TRIED);
    let small = small.into_iter().map(|(at, placed)| (Some(at), placed.bytes));
    // Alone it may go where that makes the numbers of replicas no less even.
    let alone = (from.replicas > to.replicas).then_some((None, 0));
    let counterparts: Vec<(Option<usize>, u64)> = alone.into_iter().chain(small).collect();
    let best = shape.settled_on(from.broker_id).filter(|(at, _)| fits(*at, from.broker_id, to.broker_id));
    let best = best.filter_map(|(large, placed)| {
        let found = counterparts.iter().filter_map(|(small, back)| {
            let gain = placed.bytes.checked_sub(*back)?;
            let back_and_forth = [Some((large, to.broker_id)), small.map(|at| (at, from.broker_id))];
            let moves: Vec<_> = back_and_forth.into_iter().flatten().collect();
            let is_better = gain >= BYTES_GAIN_MIN && gain < apart && shape.has_room_for(&moves);
            is_better.then_some((apart.abs_diff(2 * gain), *back, large, *small))
        });
        found.min()
    });
    best.min().map(|(_, _, large, small)| Exchange { large, small })
}

/// Of a partition's replicas another comes to be preferred, where the one that is so far leads many, and the other few.
pub(super) fn leaders(shape: &mut Shape<'_>) {
    let slack = shape.slack(1, |seat| seat.leads as u64) as usize;
    let by_number = |seat: &Seat<'_>| seat.leads as u64;
    let mut spent = BTreeSet::new();
    for _ in 0..LEADERS_AT_ONCE {
        let Some(from) = fullest(shape, &spent, by_number) else { return };
        let Some(from) = shape.seats().find(|seat| seat.broker_id == from) else { return };
        let others = emptiest(shape, |to| to.gives && from.leads > to.leads + slack, by_number);
        if others.is_empty() {
            return;
        }
        let leads = |placed: &Placed<'_>| placed.replicas.first() == Some(&from.broker_id);
        let led =
            shape.placed.iter().enumerate().filter(|(at, placed)| leads(placed) && shape.is_settled(*at));
        let led: Vec<_> = led.collect();
        let best = others.iter().find_map(|to| {
            let (at, _) = led.iter().find(|(_, placed)| placed.replicas.contains(&to.broker_id))?;
            Some((*at, to.broker_id))
        });
        let from = from.broker_id;
        match best {
            Some((at, to)) => shape.prefer(at, to),
            None => drop(spent.insert(from)),
        }
    }
}
