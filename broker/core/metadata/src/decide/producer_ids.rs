//! AllocateProducerIds: each broker hands out ids from a block that is its alone (KIP-730).

use serde::{Deserialize, Serialize};

use super::{Decision, DecisionError};
use crate::image::Image;
use crate::record::{MetadataRecord, ProducerIdsRecord};

/// How many ids a block has, as in Kafka.
pub const PRODUCER_ID_BLOCK_LENGTH: i64 = 1000;

/// Ids that belong to one broker: `first` and the `PRODUCER_ID_BLOCK_LENGTH - 1` after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProducerIdBlock {
    pub first: i64,
    pub length: i64,
}

/// Gives a block to a broker. It may hand ids out once the record is applied. Ids of a block that a broker had left when
/// it stopped are never used again.
pub fn allocate_producer_ids(
    image: &Image,
    broker_id: i32,
) -> Result<Decision<ProducerIdBlock>, DecisionError> {
    if image.broker(broker_id).is_none() {
        return Err(DecisionError::BrokerIdNotRegistered(format!("Broker {broker_id} is not registered")));
    }
    let first = image.next_producer_id();
    let next_producer_id = first.checked_add(PRODUCER_ID_BLOCK_LENGTH).ok_or_else(|| {
        DecisionError::UnknownServerError(format!("All producer ids up to {first} have been given out"))
    })?;
    Ok(Decision {
        records: vec![MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id, next_producer_id })],
        reply: ProducerIdBlock { first, length: PRODUCER_ID_BLOCK_LENGTH },
    })
}

#[cfg(test)]
#[path = "producer_ids_tests.rs"]
mod tests;
