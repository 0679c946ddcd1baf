//! What happens to partitions when brokers come and go.

use std::collections::BTreeSet;

use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;
use firn_model::topic_config::TopicConfig;

use crate::image::{Image, NO_LEADER, Partition, Topic};
use crate::leadership::Turn;
use crate::record::{MetadataRecord, PartitionChangeRecord};

/// What the decisions know beside the image.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// The controller's own configuration: its defaults are every topic's.
    pub config: &'a BrokerConfig,
}

impl Rules<'_> {
    fn min_isr(&self, image: &Image, topic: &Topic) -> usize {
        let (config, _) = TopicConfig::of_existing(image.topic_overrides(&topic.name), self.config);
        usize::try_from(config.min_insync_replicas).unwrap_or(1)
    }
}

/// Whether a broker may lead, and be in sync with a leader.
pub(super) fn is_active(image: &Image, broker_id: i32) -> bool {
    image.broker(broker_id).is_some_and(|broker| !broker.fenced)
}

/// What changes a partition from what it is to `next`; nothing if it is that.
fn change(topic_id: TopicId, index: usize, now: &Partition, next: &Partition) -> Option<MetadataRecord> {
    if now == next {
        return None;
    }
    let changed = |now: &[i32], next: &[i32]| (now != next).then(|| next.to_vec());
    Some(MetadataRecord::PartitionChange(PartitionChangeRecord {
        topic_id,
        partition: i32::try_from(index).unwrap_or(i32::MAX),
        replicas: changed(&now.replicas, &next.replicas),
        isr: changed(&now.isr, &next.isr),
        elr: changed(&now.elr, &next.elr),
        last_known_elr: changed(&now.last_known_elr, &next.last_known_elr),
        // A leader epoch is raised by naming the leader, though it be the same.
        leader: (now.leader_epoch != next.leader_epoch).then_some(next.leader),
    }))
}

/// The broker leads nothing any more, wherever somebody else can; where nobody can, its partitions have no leader.
pub(super) fn leave(image: &Image, rules: Rules<'_>, broker_id: i32) -> Vec<MetadataRecord> {
    let alive = |id: i32| id != broker_id && is_active(image, id);
    let nobody = BTreeSet::new();
    turn_all(image, |topic, partition| {
        if !partition.isr.contains(&broker_id) {
            return None;
        }
        let isr = partition.isr.iter().copied().filter(|id| *id != broker_id).collect();
        let min_isr = rules.min_isr(image, topic);
        let turn = Turn { now: partition, isr, min_isr, lost: &nobody };
        Some(turn.settle(alive))
    })
}

/// The broker may lead again: partitions that wait for it have a leader. With `lost` it has come without what it had, and
/// vouches for nothing. What it alone had is lost in any case: that partition begins anew, in another leader epoch, so that
/// readers can tell.
pub(super) fn come_back(image: &Image, rules: Rules<'_>, broker_id: i32, lost: bool) -> Vec<MetadataRecord> {
    let alive = |id: i32| id == broker_id || is_active(image, id);
    let (nobody, itself) = (BTreeSet::new(), BTreeSet::from([broker_id]));
    turn_all(image, |topic, partition| {
        let waits = partition.leader == NO_LEADER && partition.replicas.contains(&broker_id);
        let had = partition.isr.contains(&broker_id) || partition.elr.contains(&broker_id);
        let is_alone = partition.replicas == [broker_id];
        let has_lost = lost && had;
        if !waits && !has_lost {
            return None;
        }
        let lost = if has_lost && !is_alone { &itself } else { &nobody };
        let (min_isr, isr) = (rules.min_isr(image, topic), partition.isr.clone());
        let mut next = Turn { now: partition, isr, min_isr, lost }.settle(alive);
        if has_lost && is_alone && next.leader_epoch == partition.leader_epoch {
            next.leader_epoch += 1;
            next.partition_epoch += 1;
        }
        Some(next)
    })
}

/// What `next` makes of each partition that it has something to say of.
fn turn_all(image: &Image, next: impl Fn(&Topic, &Partition) -> Option<Partition>) -> Vec<MetadataRecord> {
    let mut records = Vec::new();
    for topic in image.topics() {
        for (index, now) in topic.partitions.iter().enumerate() {
            if let Some(next) = next(topic, now) {
                records.extend(change(topic.id, index, now, &next));
            }
        }
    }
    records
}
