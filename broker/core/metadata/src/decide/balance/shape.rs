//! The cluster as a plan sees it: brokers with what they have, partitions with where they are to be, and what is being copied.

use std::collections::BTreeMap;

use firn_model::ids::TopicId;

use super::{Limits, Move, Sizes, leaves, takes};
use crate::decide::partitions::is_active;
use crate::image::{Image, NO_LEADER, Partition};

/// A registered broker.
#[derive(Debug)]
pub(super) struct Seat<'a> {
    pub broker_id: i32,
    rack: Option<&'a str>,
    is_there: bool,
    /// It may be given replicas.
    pub takes: bool,
    /// Its replicas may be moved for the sake of evenness.
    pub gives: bool,
    /// It is to have none.
    pub leaves: bool,
    pub replicas: usize,
    pub leads: usize,
    pub bytes: u64,
    /// Copies that it sends or gets.
    copies: usize,
}

/// A partition, and where it is to be.
#[derive(Debug)]
pub(super) struct Placed<'a> {
    topic_id: TopicId,
    topic: usize,
    index: i32,
    pub now: &'a Partition,
    pub replicas: Vec<i32>,
    pub bytes: u64,
    /// It is being copied, or will be.
    copied: bool,
}

#[derive(Debug)]
pub(super) struct Shape<'a> {
    limits: Limits,
    seats: BTreeMap<i32, Seat<'a>>,
    pub placed: Vec<Placed<'a>>,
    /// How many replicas of a topic a broker has.
    of_topic: BTreeMap<(usize, i32), usize>,
    /// Partitions that are being copied.
    copied: usize,
}

impl<'a> Shape<'a> {
    pub(super) fn of(image: &'a Image, limits: Limits, sizes: &Sizes) -> Self {
        let seats = image.brokers().map(|broker| {
            let leaves = leaves(image, broker.id);
            let seat = Seat {
                broker_id: broker.id,
                rack: broker.rack.as_deref(),
                is_there: is_active(image, broker.id),
                takes: takes(image, broker.id),
                gives: !broker.fenced && !leaves,
                leaves,
                replicas: 0,
                leads: 0,
                bytes: 0,
                copies: 0,
            };
            (broker.id, seat)
        });
        let (placed, of_topic) = (Vec::with_capacity(image.partition_count()), BTreeMap::new());
        let mut shape = Self { limits, seats: seats.collect(), placed, of_topic, copied: 0 };
        for (topic, found) in image.topics().enumerate() {
            for (index, now) in (0..).zip(&found.partitions) {
                shape.place(Placed {
                    topic_id: found.id,
                    topic,
                    index,
                    now,
                    replicas: now.target_replicas().collect(),
                    bytes: sizes.get(&(found.id, index)).copied().unwrap_or(0),
                    copied: false,
                });
            }
        }
        shape
    }

    /// Whether a broker has yet to get what a partition has. What waits for somebody who is away is not copied.
    fn gets(&self, now: &Partition, broker_id: i32) -> bool {
        let is_there = self.seats.get(&broker_id).is_some_and(|seat| seat.is_there);
        is_there && now.adding_replicas.contains(&broker_id) && !now.isr.contains(&broker_id)
    }

    fn place(&mut self, mut placed: Placed<'a>) {
        for (place, id) in placed.replicas.iter().enumerate() {
            if let Some(seat) = self.seats.get_mut(id) {
                seat.replicas += 1;
                seat.leads += usize::from(place == 0);
                seat.bytes += placed.bytes;
            }
            *self.of_topic.entry((placed.topic, *id)).or_default() += 1;
        }
        let now = placed.now;
        let getting: Vec<i32> =
            now.adding_replicas.iter().copied().filter(|id| self.gets(now, *id)).collect();
        placed.copied = now.leader != NO_LEADER && !getting.is_empty();
        if placed.copied {
            self.copied += 1;
            for id in getting.into_iter().chain([now.leader]) {
                self.seats.entry(id).and_modify(|seat| seat.copies += 1);
            }
        }
        self.placed.push(placed);
    }

    pub(super) fn seats(&self) -> impl Iterator<Item = &Seat<'a>> {
        self.seats.values()
    }

    pub(super) fn leaves(&self, broker_id: i32) -> bool {
        self.seats.get(&broker_id).is_none_or(|seat| seat.leaves)
    }

    /// Whether nothing is going on with a partition, and nothing is missing: then it may be moved for the sake of evenness.
    pub(super) fn is_settled(&self, at: usize) -> bool {
        self.placed.get(at).is_some_and(|placed| {
            let now = placed.now;
            let has_all = now.replicas.iter().all(|id| now.isr.contains(id));
            let stays = !now.is_reassigning() && now.replicas == placed.replicas;
            stays && has_all && now.leader != NO_LEADER && !now.replicas.iter().any(|id| self.leaves(*id))
        })
    }

    /// Partitions of which a broker is to have a replica, and of which nothing is under way.
    pub(super) fn settled_on(&self, broker_id: i32) -> impl Iterator<Item = (usize, &Placed<'a>)> {
        let has = move |placed: &Placed<'a>| placed.replicas.contains(&broker_id);
        self.placed.iter().enumerate().filter(move |(at, placed)| has(placed) && self.is_settled(*at))
    }

    fn share_rack(&self, one: i32, other: i32) -> bool {
        let rack = |id: i32| self.seats.get(&id).and_then(|seat| seat.rack);
        one == other || rack(one).is_some_and(|rack_of_one| rack(other) == Some(rack_of_one))
    }

    /// How many of these brokers stand in the rack of `broker_id`. One without a rack is a rack of its own.
    pub(super) fn crowd(&self, replicas: &[i32], broker_id: i32) -> usize {
        replicas.iter().filter(|id| self.share_rack(**id, broker_id)).count()
    }

    /// How much less crowded racks are if a partition's replica moves: so many fewer share the one that it leaves than the one that it
    /// comes to, itself not counted.
    pub(super) fn relief(&self, at: usize, from: i32, to: i32) -> Option<usize> {
        let placed = self.placed.get(at)?;
        if placed.replicas.contains(&to) {
            return None;
        }
        let others: Vec<i32> = placed.replicas.iter().copied().filter(|id| *id != from).collect();
        self.crowd(&others, from).checked_sub(self.crowd(&others, to))
    }

    /// By how many replicas of the partition's topic one broker is ahead of the other.
    pub(super) fn topic_gap(&self, at: usize, from: i32, to: i32) -> i64 {
        let topic = self.placed.get(at).map_or(usize::MAX, |placed| placed.topic);
        let count = |id: i32| self.of_topic.get(&(topic, id)).map_or(0, |count| *count as i64);
        count(from) - count(to)
    }

    /// Whether there is room for another partition to be copied, whoever takes part in it.
    pub(super) fn has_room(&self) -> bool {
        self.copied < self.limits.moves_max
    }

    /// Whether there is room for all of these partitions to be copied, each to a broker.
    pub(super) fn has_room_for(&self, moves: &[(usize, i32)]) -> bool {
        let mut copied = self.copied;
        let mut copies: BTreeMap<i32, usize> = BTreeMap::new();
        for (at, to) in moves {
            let Some(placed) = self.placed.get(*at) else { return false };
            *copies.entry(*to).or_default() += 1;
            if !placed.copied {
                copied += 1;
                *copies.entry(placed.now.leader).or_default() += 1;
            }
        }
        let has_room = |(id, more): (&i32, &usize)| {
            let seat = self.seats.get(id);
            seat.is_none_or(|seat| seat.copies + more <= self.limits.moves_per_broker_max)
        };
        copied <= self.limits.moves_max.max(self.copied) && copies.iter().all(has_room)
    }

    /// What two brokers may differ by: one, and a share of the average.
    pub(super) fn slack(&self, least: u64, of: impl Fn(&Seat<'a>) -> u64) -> u64 {
        let (mut sum, mut count) = (0u128, 0u128);
        for seat in self.seats().filter(|seat| seat.gives) {
            sum += u128::from(of(seat));
            count += 1;
        }
        let share = sum * self.limits.imbalance_percentage as u128 / (100 * count.max(1));
        least.saturating_add(u64::try_from(share).unwrap_or(u64::MAX))
    }

    /// A replica is to be elsewhere, in the same place of the list.
    pub(super) fn replace(&mut self, at: usize, from: i32, to: i32) {
        let Some(now) = self.placed.get(at).map(|placed| placed.now) else { return };
        let was_to_get = self.gets(now, from);
        let Some(placed) = self.placed.get_mut(at) else { return };
        let Some(place) = placed.replicas.iter().position(|id| *id == from) else { return };
        placed.replicas.splice(place..=place, [to]);
        let was_copied = std::mem::replace(&mut placed.copied, true);
        let (topic, bytes) = (placed.topic, placed.bytes);
        if let Some(seat) = self.seats.get_mut(&from) {
            seat.replicas -= 1;
            seat.leads -= usize::from(place == 0);
            seat.bytes -= bytes;
            seat.copies -= usize::from(was_copied && was_to_get);
        }
        if let Some(seat) = self.seats.get_mut(&to) {
            seat.replicas += 1;
            seat.leads += usize::from(place == 0);
            seat.bytes += bytes;
            seat.copies += 1;
        }
        self.of_topic.entry((topic, from)).and_modify(|count| *count -= 1);
        *self.of_topic.entry((topic, to)).or_default() += 1;
        if !was_copied {
            self.copied += 1;
            self.seats.entry(now.leader).and_modify(|seat| seat.copies += 1);
        }
    }

    /// Another replica is to be the preferred leader, which copies nothing.
    pub(super) fn prefer(&mut self, at: usize, to: i32) {
        let Some(placed) = self.placed.get_mut(at) else { return };
        let Some(place) = placed.replicas.iter().position(|id| *id == to) else { return };
        placed.replicas.swap(0, place);
        if let Some(from) = placed.replicas.get(place).copied() {
            self.seats.entry(from).and_modify(|seat| seat.leads -= 1);
            self.seats.entry(to).and_modify(|seat| seat.leads += 1);
        }
    }

    /// What differs from what is decided already.
    pub(super) fn moves(self) -> Vec<Move> {
        let differs = |placed: &Placed<'a>| !placed.now.target_replicas().eq(placed.replicas.iter().copied());
        let moves = self.placed.into_iter().filter(differs).map(|placed| Move {
            topic_id: placed.topic_id,
            partition: placed.index,
            from: placed.now.target_replicas().collect(),
            to: placed.replicas,
        });
        moves.collect()
    }
}
