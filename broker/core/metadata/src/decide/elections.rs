//! ElectLeaders: the preferred replicas are to lead, or, where nobody can, a replica that may lack acknowledged records
//! (KIP-460).

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};

use firn_model::ids::{TopicId, TopicName};
use serde::{Deserialize, Serialize};

use super::partitions::{Rules, change, is_active};
use super::reassignments::find;
use super::{Decision, DecisionError};
use crate::image::{Image, NO_LEADER, Partition};
use crate::leadership::{Election, Turn};
use crate::record::MetadataRecord;

/// Which election is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ElectionType {
    Preferred,
    Unclean,
}

/// How far a replica's log goes: of two, the greater has more of the partition's last history.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogEnd {
    /// Of the last record; -1 if there is none.
    pub last_epoch: i32,
    pub end_offset: i64,
}

/// Which log is asked about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogQuery {
    #[serde(with = "crate::record::topic_id")]
    pub topic_id: TopicId,
    pub partition: i32,
}

/// How far the logs of brokers go, by partition, as far as they have told.
pub type Logs = BTreeMap<(TopicId, i32), BTreeMap<i32, LogEnd>>;

/// A leader that was elected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elected {
    pub leader: i32,
    /// Who had records that the leader may lack; empty unless the election was unclean.
    pub lost: Vec<i32>,
}

/// What became of a partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub topic: String,
    pub partition: i32,
    pub elected: Result<Elected, DecisionError>,
}

/// Decides partition by partition. Of all of them (`None`), those that need no election are left out of the reply. Unclean, of
/// those who are there whoever has the most leads.
pub fn elect_leaders(
    image: &Image,
    rules: Rules<'_>,
    election: ElectionType,
    partitions: Option<&[(String, i32)]>,
    logs: &Logs,
) -> Decision<Vec<Outcome>> {
    let mut decision = Decision { records: Vec::new(), reply: Vec::new() };
    let mut decide = |topic: &str, partition: i32, leaves_out: bool| {
        let decided = elect(image, rules, election, topic, partition, logs);
        if leaves_out && matches!(decided, Err(DecisionError::ElectionNotNeeded(_))) {
            return;
        }
        let elected = decided.map(|(elected, record)| {
            decision.records.extend(record);
            elected
        });
        decision.reply.push(Outcome { topic: topic.to_owned(), partition, elected });
    };
    match partitions {
        None => {
            for topic in image.topics() {
                (0i32..).zip(&topic.partitions).for_each(|(index, _)| decide(&topic.name, index, true));
            }
        }
        Some(named) => {
            let mut seen = BTreeSet::new();
            for (topic, partition) in named.iter().filter(|one| seen.insert(*one)) {
                decide(topic, *partition, false);
            }
        }
    }
    decision
}

fn elect(
    image: &Image,
    rules: Rules<'_>,
    election: ElectionType,
    topic: &str,
    index: i32,
    logs: &Logs,
) -> Result<(Elected, Option<MetadataRecord>), DecisionError> {
    let (topic, now) = find(image, topic, index)?;
    let is_needed = match election {
        ElectionType::Preferred => now.replicas.first() != Some(&now.leader),
        ElectionType::Unclean => now.leader == NO_LEADER,
    };
    if !is_needed {
        return Err(DecisionError::ElectionNotNeeded(format!(
            "{}-{index} is led by broker {} already",
            topic.name, now.leader
        )));
    }
    let candidates = candidates(now, logs.get(&(topic.id, index)));
    let wanted = match election {
        ElectionType::Preferred => Election::Preferred,
        ElectionType::Unclean => Election::Unclean(&candidates),
    };
    let turn = Turn { election: wanted, ..Turn::of(now, rules.min_isr(image, topic)) };
    let next = turn.settle(|id| is_active(image, id));
    if next.leader == now.leader {
        return Err(not_available(election, &topic.name, index, now));
    }
    let lost = if has_records(now, next.leader) { Vec::new() } else { who_had_records(now) };
    let record = change(topic.id, usize::try_from(index).unwrap_or(usize::MAX), now, &next);
    Ok((Elected { leader: next.leader, lost }, record))
}

/// The replicas, those first that have the most; where that is not known, in their order.
fn candidates(now: &Partition, logs: Option<&BTreeMap<i32, LogEnd>>) -> Vec<i32> {
    let mut all = now.replicas.clone();
    all.sort_by_key(|id| Reverse(logs.and_then(|logs| logs.get(id))));
    all
}

fn not_available(election: ElectionType, topic: &TopicName, index: i32, now: &Partition) -> DecisionError {
    let preferred = now.replicas.first().copied().unwrap_or(NO_LEADER);
    match election {
        ElectionType::Preferred => DecisionError::PreferredLeaderNotAvailable(format!(
            "Broker {preferred}, which should lead {topic}-{index}, is not in sync"
        )),
        ElectionType::Unclean => DecisionError::EligibleLeadersNotAvailable(format!(
            "None of the replicas {:?} of {topic}-{index} is there",
            now.replicas
        )),
    }
}

fn has_records(now: &Partition, id: i32) -> bool {
    now.isr.contains(&id) || now.elr.contains(&id)
}

fn who_had_records(now: &Partition) -> Vec<i32> {
    now.isr.iter().chain(&now.elr).chain(&now.last_known_elr).copied().collect()
}

#[cfg(test)]
#[path = "elections_tests.rs"]
mod tests;
