//! Who is in sync, as leaders report it and the controller agrees to it (AlterPartition).

use std::collections::BTreeSet;

use firn_model::ids::TopicId;
use serde::{Deserialize, Serialize};

use super::lifecycle::check_epoch;
use super::partitions::{Rules, change, is_active};
use super::{Decision, DecisionError};
use crate::image::{Image, Partition};
use crate::leadership::Turn;
use crate::record::MetadataRecord;

/// A leader says who is in sync with it (AlterPartition, KIP-497, KIP-841, KIP-903).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IsrReport {
    #[serde(with = "crate::record::topic_id")]
    pub topic_id: TopicId,
    pub partition: i32,
    pub leader_epoch: i32,
    pub partition_epoch: i32,
    /// Brokers, with the broker epoch that the leader knows of each; -1 where it knows none.
    pub isr: Vec<(i32, i64)>,
    /// The partition's epoch is to move whatever the ISR is: a report of before must not come to be in force.
    #[serde(default)]
    pub withdraws: bool,
}

/// Why a report is refused, by Kafka's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IsrError {
    UnknownTopicId,
    UnknownTopicOrPartition,
    FencedLeaderEpoch,
    NotController,
    InvalidUpdateVersion,
    InvalidRequest,
    IneligibleReplica,
}

/// Takes the reports of a broker; the replies are the partitions as they are then.
pub fn alter_partitions(
    image: &Image,
    rules: Rules<'_>,
    broker_id: i32,
    broker_epoch: i64,
    reports: &[IsrReport],
) -> Result<Decision<Vec<Result<Partition, IsrError>>>, DecisionError> {
    check_epoch(image, broker_id, broker_epoch)?;
    let mut records = Vec::new();
    let mut reply = Vec::with_capacity(reports.len());
    let mut seen = BTreeSet::new();
    for report in reports {
        let taken = if seen.insert((report.topic_id, report.partition)) {
            take_report(image, rules, broker_id, report)
        } else {
            Err(IsrError::InvalidRequest)
        };
        reply.push(taken.map(|(next, record)| {
            records.extend(record);
            next
        }));
    }
    Ok(Decision { records, reply })
}

fn take_report(
    image: &Image,
    rules: Rules<'_>,
    broker_id: i32,
    report: &IsrReport,
) -> Result<(Partition, Option<MetadataRecord>), IsrError> {
    let topic = image.topic_by_id(report.topic_id).ok_or(IsrError::UnknownTopicId)?;
    let now = topic.partition(report.partition).ok_or(IsrError::UnknownTopicOrPartition)?;
    // Who is ahead of this controller knows another one, that came after it.
    if report.leader_epoch > now.leader_epoch || report.partition_epoch > now.partition_epoch {
        return Err(IsrError::NotController);
    }
    if report.leader_epoch < now.leader_epoch {
        return Err(IsrError::FencedLeaderEpoch);
    }
    if broker_id != now.leader {
        return Err(IsrError::InvalidRequest);
    }
    if report.partition_epoch < now.partition_epoch {
        return Err(IsrError::InvalidUpdateVersion);
    }
    let isr: Vec<i32> = report.isr.iter().map(|(id, _)| *id).collect();
    if !isr.contains(&broker_id) || !isr.iter().all(|id| now.replicas.contains(id)) {
        return Err(IsrError::InvalidRequest);
    }
    // The leader may have seen it in sync before it was fenced, or started anew.
    let eligible = |(id, epoch): &(i32, i64)| {
        is_active(image, *id)
            && (*epoch < 0 || image.broker(*id).is_some_and(|broker| broker.epoch == *epoch))
    };
    if !report.isr.iter().all(eligible) {
        return Err(IsrError::IneligibleReplica);
    }
    // In the order of the replicas, which is how people read it.
    let isr = now.replicas.iter().copied().filter(|id| isr.contains(id)).collect();
    let turn = Turn { isr, ..Turn::of(now, rules.min_isr(image, topic)) };
    let mut next = turn.settle(|id| is_active(image, id));
    if report.withdraws && next == **now {
        next.partition_epoch += 1;
    }
    let index = usize::try_from(report.partition).unwrap_or(usize::MAX);
    let record = change(topic.id, index, now, &next);
    Ok((next, record))
}

#[cfg(test)]
#[path = "isr_tests.rs"]
mod tests;
