//! How brokers have registered, as far as the log of one member tells before it takes part in the quorum.

use std::collections::BTreeMap;

use firn_metadata::incarnations::Registered;
use firn_metadata::record::MetadataRecord;
use openraft::EntryPayload;

use crate::error::QuorumError;
use crate::log_store::{Found, READ_BYTES};

impl Found {
    /// Offset after the last entry that there is, in the log or in a snapshot.
    pub fn end_offset(&self) -> i64 {
        let snapshot =
            self.last.map_or(0, |last| i64::try_from(last.index()).map_or(i64::MAX, |last| last + 1));
        snapshot.max(self.store.end_offset())
    }

    /// The last registration of each broker, agreed on or not: its directories were told of it before anybody else was.
    pub fn registrations(&self) -> Result<BTreeMap<i32, Registered>, QuorumError> {
        let brokers = self.content.image.brokers();
        let mut found: BTreeMap<i32, Registered> = brokers.map(|broker| (broker.id, broker.into())).collect();
        let mut next = self.last.map_or(0, |last| last.index() + 1);
        loop {
            let entries = self.store.read(next, u64::MAX, READ_BYTES)?;
            let Some(last) = entries.last() else { return Ok(found) };
            next = last.log_id.index() + 1;
            for entry in entries {
                let EntryPayload::Normal(change) = entry.payload else { continue };
                for record in &change.records {
                    let MetadataRecord::Broker(record) = record else { continue };
                    let later = Registered::later(found.remove(&record.broker_id), Some(record.into()));
                    found.extend(later.map(|later| (record.broker_id, later)));
                }
            }
        }
    }
}
