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
    pub(super) fn min_isr(&self, image: &Image, topic: &Topic) -> usize {
        usize::try_from(self.topic_config(image, topic).min_insync_replicas).unwrap_or(1)
    }

    pub(super) fn topic_config(&self, image: &Image, topic: &Topic) -> TopicConfig {
        TopicConfig::of_existing(image.topic_overrides(&topic.name), self.config).0
    }
}

/// Whether a broker may lead, and be in sync with a leader.
pub(super) fn is_active(image: &Image, broker_id: i32) -> bool {
    image.broker(broker_id).is_some_and(|broker| !broker.fenced)
}

/// What changes a partition from what it is to `next`; nothing if it is that.
pub(super) fn change(
    topic_id: TopicId,
    index: usize,
    now: &Partition,
    next: &Partition,
) -> Option<MetadataRecord> {
    if now == next {
        return None;
    }
    let changed = |now: &[i32], next: &[i32]| (now != next).then(|| next.to_vec());
    Some(MetadataRecord::PartitionChange(PartitionChangeRecord {
        topic_id,
        partition: i32::try_from(index).unwrap_or(i32::MAX),
        replicas: changed(&now.replicas, &next.replicas),
        adding_replicas: changed(&now.adding_replicas, &next.adding_replicas),
        removing_replicas: changed(&now.removing_replicas, &next.removing_replicas),
        isr: changed(&now.isr, &next.isr),
        elr: changed(&now.elr, &next.elr),
        last_known_elr: changed(&now.last_known_elr, &next.last_known_elr),
        // A leader epoch is raised by naming the leader, though it be the same.
        leader: (now.leader_epoch != next.leader_epoch).then_some(next.leader),
    }))
}

/// `min.insync.replicas` is to be another: who is eligible beside those in sync follows from it. Left as they were, replicas
/// that lack what is acknowledged from now on could lead.
pub(super) fn min_isr_changes(
    image: &Image,
    now: Rules<'_>,
    next: impl Fn(&Topic) -> TopicConfig,
) -> Vec<MetadataRecord> {
    turn_all(image, |topic, partition| {
        if partition.elr.is_empty() && partition.last_known_elr.is_empty() {
            return None;
        }
        let min_isr = usize::try_from(next(topic).min_insync_replicas).unwrap_or(1);
        if min_isr == now.min_isr(image, topic) {
            return None;
        }
        Some(Turn::of(partition, min_isr).settle(|id| is_active(image, id)))
    })
}

/// The broker leads nothing any more, wherever somebody else can; where nobody can, its partitions have no leader.
pub(super) fn leave(image: &Image, rules: Rules<'_>, broker_id: i32) -> Vec<MetadataRecord> {
    turn_all(image, |topic, partition| left(image, rules, broker_id, topic, partition, false))
}

/// Of these partitions the broker leads none that somebody else can lead. The others stay as they are. Each is in another leader
/// epoch from then on: what the broker asked for before counts no more. One that gives a replica up vouches for nothing of it, in sync or
/// not.
pub(super) fn leave_these(
    image: &Image,
    rules: Rules<'_>,
    broker_id: i32,
    these: &[(TopicId, i32)],
    gives_up: bool,
) -> Vec<MetadataRecord> {
    let changes = these.iter().filter_map(|(id, index)| {
        let topic = image.topic_by_id(*id)?;
        let now = topic.partition(*index)?;
        let next = match now.isr.contains(&broker_id) {
            true => left(image, rules, broker_id, topic, now, gives_up)?,
            false if gives_up && now.replicas.contains(&broker_id) => {
                let mut next = Partition::clone(now);
                next.elr.retain(|id| *id != broker_id);
                next.last_known_elr.retain(|id| *id != broker_id);
                next
            }
            false => return None,
        };
        let next = Some(next).filter(|next| next.leader != NO_LEADER)?;
        let leader_epoch = next.leader_epoch.max(now.leader_epoch + 1);
        let next = Partition { leader_epoch, ..next };
        change(*id, usize::try_from(*index).ok()?, now, &next)
    });
    changes.collect()
}

/// What a partition is without the broker, if that is in sync with it.
fn left(
    image: &Image,
    rules: Rules<'_>,
    broker_id: i32,
    topic: &Topic,
    partition: &Partition,
    gives_up: bool,
) -> Option<Partition> {
    if !partition.isr.contains(&broker_id) {
        return None;
    }
    let isr = partition.isr.iter().copied().filter(|id| *id != broker_id).collect();
    let lost = if gives_up { BTreeSet::from([broker_id]) } else { BTreeSet::new() };
    let turn = Turn { isr, lost: &lost, ..Turn::of(partition, rules.min_isr(image, topic)) };
    let mut next = turn.settle(|id| id != broker_id && is_active(image, id));
    next.last_known_elr.retain(|id| !lost.contains(id));
    Some(next)
}

/// The broker is fenced, and never comes back as what it was: it vouches for nothing.
pub(super) fn give_up(image: &Image, rules: Rules<'_>, broker_id: i32) -> Vec<MetadataRecord> {
    let itself = BTreeSet::from([broker_id]);
    turn_all(image, |topic, partition| {
        if !partition.isr.contains(&broker_id) && !partition.elr.contains(&broker_id) {
            return None;
        }
        let turn = Turn { lost: &itself, ..Turn::of(partition, rules.min_isr(image, topic)) };
        Some(turn.settle(|id| is_active(image, id)))
    })
}

/// How a broker comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Return {
    /// It was silent.
    HeardOf,
    /// It has started anew, with what it had; what was not flushed may be missing if it was not stopped cleanly.
    Restarted { cleanly: bool },
    /// Without one of its directories, or with one that is not what it was. Nobody knows what lay there, so it vouches for nothing that somebody else vouches for.
    Robbed,
    /// Without what it had.
    Empty,
}

/// The broker may lead again: partitions that wait for it have a leader.
///
/// Who has started anew may have less than it had: it is in sync with another leader only once it has fetched from it, and
/// where it leads itself it does so in another epoch, for others may have what it has not. Who comes empty vouches for nothing.
/// What it alone had is lost in any case: that partition begins anew, in another leader epoch, so that readers can tell.
pub(super) fn come_back(image: &Image, rules: Rules<'_>, broker_id: i32, how: Return) -> Vec<MetadataRecord> {
    let alive = |id: i32| id == broker_id || is_active(image, id);
    let (nobody, itself) = (BTreeSet::new(), BTreeSet::from([broker_id]));
    turn_all(image, |topic, partition| {
        if !partition.replicas.contains(&broker_id) {
            return None;
        }
        let in_sync = partition.isr.contains(&broker_id);
        let had = in_sync || partition.elr.contains(&broker_id);
        let is_alone = partition.replicas == [broker_id];
        let others = |ids: &[i32]| ids.iter().any(|id| *id != broker_id);
        let has_changed = match how {
            Return::HeardOf => false,
            Return::Restarted { .. } | Return::Robbed => had && !is_alone,
            Return::Empty => had,
        };
        if partition.leader != NO_LEADER && !has_changed {
            return None;
        }
        let others_vouch = others(&partition.isr) || others(&partition.elr);
        let is_flushed_late = || rules.topic_config(image, topic).flush_messages > 1;
        let lost = match how {
            Return::Empty => had && !is_alone,
            Return::Robbed => has_changed && others_vouch,
            Return::Restarted { cleanly: false } => has_changed && others_vouch && is_flushed_late(),
            Return::Restarted { cleanly: true } | Return::HeardOf => false,
        };
        let leaves = has_changed && others(&partition.isr);
        let isr = partition.isr.iter().copied().filter(|id| !leaves || *id != broker_id).collect();
        let lost = if lost { &itself } else { &nobody };
        let mut next = Turn { isr, lost, ..Turn::of(partition, rules.min_isr(image, topic)) }.settle(alive);
        let leads_on = next.leader == broker_id && next.leader_epoch == partition.leader_epoch;
        if has_changed && leads_on {
            next.leader_epoch += 1;
            next.partition_epoch += i32::from(next.partition_epoch == partition.partition_epoch);
        }
        (next != *partition).then_some(next)
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
