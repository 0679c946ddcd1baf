//! Off the brokers that are to have no replicas: each replica there is replaced by one on another broker, in the same place of the
//! list, so that the order in which replicas are preferred stays.

use super::shape::Shape;
use crate::image::NO_LEADER;

/// Replaces what there is room for. How many partitions have a replica that cannot be replaced, now or ever.
pub(super) fn evacuate(shape: &mut Shape<'_>) -> usize {
    let mut stuck = 0;
    for at in 0..shape.placed.len() {
        let Some(placed) = shape.placed.get(at) else { break };
        let leaving: Vec<i32> = placed.replicas.iter().copied().filter(|id| shape.leaves(*id)).collect();
        if leaving.is_empty() {
            continue;
        }
        // Nobody has anything for a new replica to copy.
        if placed.now.leader == NO_LEADER {
            stuck += 1;
            continue;
        }
        let mut is_stuck = false;
        for from in leaving {
            match replacement(shape, at) {
                Replacement::Broker(to) => shape.replace(at, from, to),
                Replacement::Later => {}
                Replacement::Nobody => is_stuck = true,
            }
        }
        stuck += usize::from(is_stuck);
    }
    stuck
}

/// Who is to have a replica instead.
enum Replacement {
    Broker(i32),
    /// Those who could are busy.
    Later,
    Nobody,
}

/// In the rack with the fewest of the replicas that stay, and there the broker with the fewest replicas.
fn replacement(shape: &Shape<'_>, at: usize) -> Replacement {
    let Some(placed) = shape.placed.get(at) else { return Replacement::Nobody };
    let staying: Vec<i32> = placed.replicas.iter().copied().filter(|id| !shape.leaves(*id)).collect();
    let may = shape.seats().filter(|seat| seat.takes && !placed.replicas.contains(&seat.broker_id));
    let may: Vec<_> = may.map(|seat| (shape.crowd(&staying, seat.broker_id), seat)).collect();
    // Rather later than where it would stay in the wrong rack.
    let Some(least) = may.iter().map(|(crowd, _)| *crowd).min() else { return Replacement::Nobody };
    let best = may.iter().filter(|(crowd, _)| *crowd == least).map(|(_, seat)| seat);
    let free = best.filter(|seat| shape.has_room_for(&[(at, seat.broker_id)]));
    let chosen = free.min_by_key(|seat| (seat.replicas, seat.broker_id));
    chosen.map_or(Replacement::Later, |seat| Replacement::Broker(seat.broker_id))
}
