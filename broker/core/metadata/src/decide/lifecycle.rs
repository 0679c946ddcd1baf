//! Brokers live by their heartbeats: who falls silent is put behind a fence, and let out when it is heard of again
//! (KIP-631).

use firn_model::ids::TopicId;

use super::partitions::{Return, Rules, come_back, leave, leave_these};
use super::{Decision, DecisionError};
use crate::image::Image;
use crate::record::{BrokerChangeRecord, MetadataRecord};

/// That the broker is registered, and is the incarnation that registered last.
pub fn check_epoch(image: &Image, broker_id: i32, broker_epoch: i64) -> Result<(), DecisionError> {
    match image.broker(broker_id) {
        None => Err(DecisionError::BrokerIdNotRegistered(format!("Broker {broker_id} is not registered"))),
        Some(broker) if broker.epoch != broker_epoch => Err(DecisionError::StaleBrokerEpoch(format!(
            "Broker {broker_id} is at epoch {}, and {broker_epoch} is that of another incarnation",
            broker.epoch
        ))),
        Some(_) => Ok(()),
    }
}

/// The broker is there: if it was behind a fence, it is let out.
pub fn heartbeat(
    image: &Image,
    rules: Rules<'_>,
    broker_id: i32,
    broker_epoch: i64,
) -> Result<Decision<()>, DecisionError> {
    check_epoch(image, broker_id, broker_epoch)?;
    if image.broker(broker_id).is_none_or(|broker| !broker.fenced) {
        return Ok(Decision { records: Vec::new(), reply: () });
    }
    let mut records = vec![fenced(broker_id, broker_epoch, false)];
    records.extend(come_back(image, rules, broker_id, Return::HeardOf));
    Ok(Decision { records, reply: () })
}

/// The broker has not been heard of for too long.
pub fn fence(image: &Image, rules: Rules<'_>, broker_id: i32) -> Decision<()> {
    let Some(broker) = image.broker(broker_id).filter(|broker| !broker.fenced) else {
        return Decision { records: Vec::new(), reply: () };
    };
    let mut records = vec![fenced(broker_id, broker.epoch, true)];
    records.extend(leave(image, rules, broker_id));
    Decision { records, reply: () }
}

/// The broker, of this id and epoch, is there, and the disk under these partitions has failed (KIP-112), or has not kept what it
/// had, so that it `gives_up` what it vouched for: others lead them, wherever somebody can.
pub fn hand_over(
    image: &Image,
    rules: Rules<'_>,
    (broker_id, broker_epoch): (i32, i64),
    partitions: &[(TopicId, i32)],
    gives_up: bool,
) -> Result<Decision<()>, DecisionError> {
    check_epoch(image, broker_id, broker_epoch)?;
    Ok(Decision { records: leave_these(image, rules, broker_id, partitions, gives_up), reply: () })
}

fn fenced(broker_id: i32, broker_epoch: i64, fenced: bool) -> MetadataRecord {
    MetadataRecord::BrokerChange(BrokerChangeRecord {
        broker_id,
        broker_epoch,
        fenced: Some(fenced),
        marks: None,
    })
}

#[cfg(test)]
#[path = "lifecycle_tests.rs"]
mod tests;
