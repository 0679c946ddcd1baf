//! Brokers join and leave.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::configs::MIN_ISR;
use super::partitions::{Return, Rules, come_back, give_up};
use super::{Decision, DecisionError};
use crate::image::{Broker, Image};
use crate::incarnations::{Noted, Registered, StaleDirectory};
use crate::record::{
    BrokerChangeRecord, BrokerRecord, ConfigRecord, ConfigResource, Endpoint, MetadataRecord,
    UnregisterBrokerRecord,
};

/// What a broker says of itself when it starts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    pub broker_id: i32,
    /// New at each start of the process.
    pub incarnation_id: Uuid,
    pub endpoints: Vec<Endpoint>,
    pub rack: Option<String>,
    pub directory_ids: Vec<String>,
    /// The incarnation before was stopped in an orderly way: what it had is all there.
    #[serde(default)]
    pub was_stopped_cleanly: bool,
    /// A disk has lost what it had synced, though every directory is there.
    #[serde(default)]
    pub is_robbed: bool,
    /// The incarnations that each directory knows of, this one included. An earlier release tells of none.
    #[serde(default)]
    pub noted: Option<Noted>,
}

/// Registers a broker that is ready to lead, or an incarnation of it that follows another; replies with its epoch. The same
/// incarnation again changes nothing, unless what it says of itself has changed.
pub fn register_broker(
    image: &Image,
    rules: Rules<'_>,
    registration: &Registration,
) -> Result<Decision<i64>, DecisionError> {
    let broker_id = registration.broker_id;
    if broker_id < 0 {
        return Err(DecisionError::InvalidRequest(format!("Broker id {broker_id} is negative")));
    }
    let twin = image
        .brokers()
        .find(|broker| broker.id != broker_id && broker.incarnation_id == registration.incarnation_id);
    if let Some(twin) = twin {
        return Err(DecisionError::DuplicateBrokerRegistration(format!(
            "Broker {broker_id} has the incarnation id of broker {}",
            twin.id
        )));
    }
    let previous = image.broker(broker_id);
    let last = previous.map(Registered::from);
    let last = last.as_ref().zip(registration.noted.as_ref());
    if let Some(StaleDirectory { directory_id, incarnation_id }) =
        last.and_then(|(last, noted)| last.stale(noted))
    {
        return Err(DecisionError::InvalidRequest(format!(
            "Log directory {directory_id} of broker {broker_id} is a copy from before: the broker has run since, as incarnation {incarnation_id}. Start it on the directory of then, or on an empty one, which the other brokers fill"
        )));
    }
    if let Some(previous) = previous
        && previous.incarnation_id == registration.incarnation_id
        && previous.endpoints == registration.endpoints
        && previous.rack == registration.rack
        && previous.directory_ids == registration.directory_ids
        && !previous.fenced
    {
        return Ok(Decision { records: Vec::new(), reply: previous.epoch });
    }
    let epoch = image.last_broker_epoch(broker_id).map_or(0, |last| last.saturating_add(1));
    let record = BrokerRecord {
        broker_id,
        incarnation_id: registration.incarnation_id,
        broker_epoch: epoch,
        endpoints: registration.endpoints.clone(),
        rack: registration.rack.clone(),
        fenced: false,
        directory_ids: registration.directory_ids.clone(),
        noted: registration.noted.is_some(),
        marks: 0,
    };
    let is_behind = last.is_some_and(|(last, noted)| last.behind(noted).is_some());
    let how = match previous {
        Some(previous) if has_lost_all(previous, registration) => Return::Empty,
        Some(previous) if previous.incarnation_id == registration.incarnation_id => Return::HeardOf,
        Some(previous) if registration.is_robbed || is_behind || has_lost_some(previous, registration) => {
            Return::Robbed
        }
        Some(_) => Return::Restarted { cleanly: registration.was_stopped_cleanly },
        None => Return::HeardOf,
    };
    let mut records = vec![MetadataRecord::Broker(record)];
    records.extend(common_min_isr(image, rules, broker_id));
    records.extend(come_back(image, rules, broker_id, how));
    Ok(Decision { records, reply: epoch })
}

/// Takes note of the marks that brokers have left in their directories: of each its id, its epoch, and how many.
pub fn note_marks(image: &Image, marks: &[(i32, i64, u64)]) -> Decision<()> {
    let is_news = |(id, epoch, marks): &&(i32, i64, u64)| {
        image.broker(*id).is_some_and(|broker| broker.epoch == *epoch && broker.marks < *marks)
    };
    let record = |(broker_id, broker_epoch, marks): &(i32, i64, u64)| {
        let (broker_id, broker_epoch, marks) = (*broker_id, *broker_epoch, Some(*marks));
        MetadataRecord::BrokerChange(BrokerChangeRecord { broker_id, broker_epoch, fenced: None, marks })
    };
    Decision { records: marks.iter().filter(is_news).map(record).collect(), reply: () }
}

/// Brokers' files may differ, and leaders and the controller have to agree on `min.insync.replicas`: as soon as there are
/// several brokers, what the controller's file says is every one's, until somebody changes it.
fn common_min_isr(image: &Image, rules: Rules<'_>, broker_id: i32) -> Option<MetadataRecord> {
    let resource = ConfigResource::cluster_default();
    let is_alone = image.brokers().all(|broker| broker.id == broker_id);
    if is_alone || image.overrides(&resource).contains_key(MIN_ISR) {
        return None;
    }
    let value = Some(rules.config.topic_defaults.min_insync_replicas.to_string());
    Some(MetadataRecord::Config(ConfigRecord { resource, name: MIN_ISR.to_owned(), value }))
}

/// Whether none of the directories of before is there.
pub fn has_lost_all(previous: &Broker, registration: &Registration) -> bool {
    let is_there = |id: &String| registration.directory_ids.contains(id);
    !previous.directory_ids.is_empty() && !previous.directory_ids.iter().any(is_there)
}

/// Whether a directory of before is not there.
fn has_lost_some(previous: &Broker, registration: &Registration) -> bool {
    previous.directory_ids.iter().any(|id| !registration.directory_ids.contains(id))
}

/// Takes a broker out that has gone for good. As in Kafka it stays in the lists of replicas until these are moved, but vouches
/// for nothing any more. What it alone vouches for would be lost by that, so then it stays; and so does one that is there. That it
/// was to be emptied is forgotten: the next one of its id is there to be used.
pub fn unregister_broker(
    image: &Image,
    rules: Rules<'_>,
    broker_id: i32,
) -> Result<Decision<()>, DecisionError> {
    let broker = image.broker(broker_id).ok_or_else(|| {
        DecisionError::BrokerIdNotRegistered(format!("Broker {broker_id} is not registered"))
    })?;
    if !broker.fenced {
        return Err(DecisionError::InvalidRequest(format!(
            "Broker {broker_id} is running: stop it first, or move what it has and then stop it"
        )));
    }
    if let Some((topic, index)) = vouched_for_alone(image, broker_id) {
        return Err(DecisionError::InvalidRequest(format!(
            "Broker {broker_id} alone has the records of {topic}-{index}: start it again, or move that partition and, to give the records up, elect a leader uncleanly"
        )));
    }
    let mut records = give_up(image, rules, broker_id);
    // Its configs go with it.
    records.push(MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { broker_id }));
    Ok(Decision { records, reply: () })
}

/// A partition whose acknowledged records nobody else is known to have.
fn vouched_for_alone(image: &Image, broker_id: i32) -> Option<(&str, usize)> {
    image.topics().find_map(|topic| {
        let mut partitions = topic.partitions.iter();
        let index = partitions.position(|one| {
            let mut vouch = one.isr.iter().chain(&one.elr).peekable();
            vouch.peek().is_some() && vouch.all(|id| *id == broker_id)
        });
        Some((&*topic.name, index?))
    })
}

#[cfg(test)]
#[path = "brokers_tests.rs"]
mod tests;
