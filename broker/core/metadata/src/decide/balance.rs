//! Where replicas ought to be: off the brokers that are to be emptied or are gone for good (`evacuate`), and spread evenly over
//! the others (`even`).
//!
//! A plan is made of an image, and begun (`begin`) by whatever image there is then. Every move is one of AlterPartitionReassignments':
//! replicas are added first, and the ones that they replace go in the change that brings the last of the new ones into the ISR, so
//! no plan makes the ISR smaller than there are to be replicas.
//!
//! Why it ends: each step of `even` makes one of these numbers smaller and leaves those before it as they are, or smaller, too. In
//! order: how crowded racks are, the squares of the brokers' numbers of replicas, of their bytes, of the partitions that they are to lead. All
//! count a partition where it is to be, so what is under way already is not done twice. Why it rests: two brokers are
//! taken for even while they differ by less than a share of the average, so that a topic that comes or goes moves nothing.

mod evacuation;
mod evenness;
mod shape;

use std::collections::BTreeMap;

use firn_model::ids::TopicId;
use serde::{Deserialize, Serialize};

use super::Decision;
use super::partitions::{Rules, change, is_active};
use crate::image::{Image, NO_LEADER};
use crate::leadership::Turn;
use crate::reassignment::Assignment;
use shape::Shape;

/// How much may be done at a time, and what is even enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Partitions that are copied at a time.
    pub moves_max: usize,
    /// And of those, how many one broker takes part in, by sending or by getting.
    pub moves_per_broker_max: usize,
    /// By how much of the average two brokers may differ, in percent.
    pub imbalance_percentage: usize,
}

/// How many bytes a replica takes on a disk, by partition.
pub type Sizes = BTreeMap<(TopicId, i32), u64>;

/// How many bytes of a partition a broker has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogSize {
    #[serde(with = "crate::record::topic_id")]
    pub topic_id: TopicId,
    pub partition: i32,
    pub bytes: u64,
}

/// One partition's replicas, from where they are to be so far to where they ought to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    pub topic_id: TopicId,
    pub partition: i32,
    pub from: Vec<i32>,
    pub to: Vec<i32>,
}

/// What is to be begun now. What there is no room for comes with a later plan.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    pub moves: Vec<Move>,
    /// Partitions that have to leave a broker and cannot: nobody leads them, or no other broker can take them.
    pub stuck: usize,
}

/// Whether a broker's replicas are to go elsewhere: it is to be emptied, or gone for good.
fn leaves(image: &Image, broker_id: i32) -> bool {
    image.broker(broker_id).is_none() || image.is_draining(broker_id)
}

/// Whether a broker may be given replicas: it is there, and nobody has said otherwise.
fn takes(image: &Image, broker_id: i32) -> bool {
    is_active(image, broker_id) && !image.is_cordoned(broker_id)
}

/// Moves replicas off the brokers that are to be emptied, be they there or not, and off those that were unregistered.
pub fn evacuate(image: &Image, limits: Limits) -> Plan {
    let leaving: Vec<i32> =
        image.brokers().map(|broker| broker.id).filter(|id| image.is_draining(*id)).collect();
    let leaves = |id: i32| leaving.contains(&id) || image.broker(id).is_none();
    let mut partitions = image.topics().flat_map(|topic| &topic.partitions);
    // Looked at after every change of the metadata, and most often there is nothing to do.
    if !partitions.any(|partition| partition.target_replicas().any(leaves)) {
        return Plan::default();
    }
    let mut shape = Shape::of(image, limits, &Sizes::new());
    let stuck = evacuation::evacuate(&mut shape);
    Plan { moves: shape.moves(), stuck }
}

/// Spreads replicas over racks, and evens out how many of them brokers have, how many bytes, if all `sizes` are known, and, if asked
/// for, of how many partitions they are the preferred leaders.
pub fn even(image: &Image, limits: Limits, sizes: Option<&Sizes>, leaders: bool) -> Plan {
    let mut shape = Shape::of(image, limits, sizes.unwrap_or(&Sizes::new()));
    evenness::zones(&mut shape);
    evenness::replicas(&mut shape);
    if sizes.is_some() {
        evenness::bytes(&mut shape);
    }
    if leaders {
        evenness::leaders(&mut shape);
    }
    Plan { moves: shape.moves(), stuck: 0 }
}

/// Begins those of the moves that still make sense; the reply tells how many.
pub fn begin(image: &Image, rules: Rules<'_>, moves: &[Move]) -> Decision<usize> {
    let changes = moves.iter().filter_map(|one| {
        let topic = image.topic_by_id(one.topic_id)?;
        let now = topic.partition(one.partition)?;
        let is_as_planned = now.target_replicas().eq(one.from.iter().copied()) && now.leader != NO_LEADER;
        let mut added = one.to.iter().filter(|id| !one.from.contains(id));
        if !is_as_planned || !added.all(|id| takes(image, *id)) {
            return None;
        }
        let assignment = Some(Assignment::towards(now, &one.to));
        let turn = Turn { assignment, ..Turn::of(now, rules.min_isr(image, topic)) };
        let index = usize::try_from(one.partition).ok()?;
        change(topic.id, index, now, &turn.settle(|id| is_active(image, id)))
    });
    let records: Vec<_> = changes.collect();
    Decision { reply: records.len(), records }
}

#[cfg(test)]
mod convergence_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
