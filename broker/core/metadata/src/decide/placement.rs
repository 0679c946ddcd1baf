//! Which brokers get a new partition's replicas: leaders in turn, replicas on as many racks as there are, loads even.
//!
//! The brokers stand in a ring on which racks alternate. A partition's leader is the broker that leads the fewest of the
//! topic's partitions, the next in the ring if several do. Each follower is, in this order: on a rack that has no replica
//! of the partition yet, one with the fewest replicas of the topic, and the next in the ring. The ring's start is shifted
//! for each topic, so that many small topics do not all begin on the same broker.

use std::collections::BTreeMap;

use crate::image::Image;

/// A broker that may take replicas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seat {
    pub broker_id: i32,
    pub rack: Option<String>,
}

/// The brokers of the image that may take replicas, by id: those that are not fenced, or all, if there are too few of those for
/// so many replicas. Who is fenced comes back one day, and catches up. Who is cordoned takes none in any case.
pub fn seats(image: &Image, replication_factor: usize) -> Vec<Seat> {
    let open: Vec<_> = image.brokers().filter(|broker| !image.is_cordoned(broker.id)).collect();
    let unfenced = open.iter().filter(|broker| !broker.fenced).count();
    let may_take = |fenced: bool| !fenced || unfenced < replication_factor;
    let brokers = open.into_iter().filter(|broker| may_take(broker.fenced));
    brokers.map(|broker| Seat { broker_id: broker.id, rack: broker.rack.clone() }).collect()
}

/// Places `partitions` more partitions of a topic that has `existing` ones (each a list of replicas, leader first).
/// `shift` is the topic's own start in the ring. `None` if there are fewer seats than replicas, or no replica is asked for.
pub fn place(
    seats: &[Seat],
    existing: &[Vec<i32>],
    partitions: usize,
    replication_factor: usize,
    shift: u64,
) -> Option<Vec<Vec<i32>>> {
    if replication_factor == 0 || replication_factor > seats.len() {
        return None;
    }
    let mut ring = Ring::new(seats, shift);
    for replicas in existing {
        ring.count(replicas);
    }
    Some((0..partitions).map(|_| ring.next(replication_factor)).collect())
}

#[derive(Debug)]
struct Place<'a> {
    broker_id: i32,
    /// A broker without a rack is a rack of its own.
    rack: (Option<&'a str>, i32),
    leads: usize,
    replicas: usize,
}

#[derive(Debug)]
struct Ring<'a> {
    places: Vec<Place<'a>>,
    /// Partitions placed so far: followers' turns shift with each round, so that a broker's followers are not all one, and what it
    /// leads goes to all the others alike when it is lost.
    placed: usize,
}

impl<'a> Ring<'a> {
    fn new(seats: &'a [Seat], shift: u64) -> Self {
        let mut racks: BTreeMap<(Option<&str>, i32), Vec<i32>> = BTreeMap::new();
        for seat in seats {
            racks.entry(rack_of(seat)).or_default().push(seat.broker_id);
        }
        // One of each rack, then the second of each, and so on.
        let mut order: Vec<(usize, usize, Place<'a>)> = Vec::with_capacity(seats.len());
        for (rack_index, (rack, brokers)) in racks.into_iter().enumerate() {
            for (turn, broker_id) in brokers.into_iter().enumerate() {
                order.push((turn, rack_index, Place { broker_id, rack, leads: 0, replicas: 0 }));
            }
        }
        order.sort_by_key(|(turn, rack_index, _)| (*turn, *rack_index));
        let mut places: Vec<_> = order.into_iter().map(|(_, _, place)| place).collect();
        let start = usize::try_from(shift % places.len().max(1) as u64).unwrap_or(0);
        places.rotate_left(start);
        Self { places, placed: 0 }
    }

    fn count(&mut self, replicas: &[i32]) {
        for (index, broker_id) in replicas.iter().enumerate() {
            if let Some(place) = self.places.iter_mut().find(|place| place.broker_id == *broker_id) {
                place.leads += usize::from(index == 0);
                place.replicas += 1;
            }
        }
        self.placed += 1;
    }

    fn next(&mut self, replication_factor: usize) -> Vec<i32> {
        let leader = self.places.iter().enumerate().min_by_key(|(index, place)| (place.leads, *index));
        let Some((leader, broker_id)) = leader.map(|(index, place)| (index, place.broker_id)) else {
            return Vec::new();
        };
        let mut replicas = vec![broker_id];
        let mut racks = vec![self.places.get(leader).map(|place| place.rack)];
        let size = self.places.len();
        // From one of the others on: a turn that began at the leader would be its neighbour's once more.
        let turn = leader + 1 + (self.placed / size) % size.saturating_sub(1).max(1);
        while replicas.len() < replication_factor {
            let free =
                self.places.iter().enumerate().filter(|(_, place)| !replicas.contains(&place.broker_id));
            let best = free.min_by_key(|(index, place)| {
                (racks.contains(&Some(place.rack)), place.replicas, (index + size - turn % size) % size)
            });
            let Some((_, place)) = best else { break };
            replicas.push(place.broker_id);
            racks.push(Some(place.rack));
        }
        self.count(&replicas);
        replicas
    }
}

fn rack_of(seat: &Seat) -> (Option<&str>, i32) {
    match &seat.rack {
        Some(rack) => (Some(rack), -1),
        None => (None, seat.broker_id),
    }
}

#[cfg(test)]
mod tests;
