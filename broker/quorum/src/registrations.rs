//! What the log of one member tells of the brokers before it takes part in the quorum.

use std::collections::BTreeMap;

use firn_metadata::incarnations::Registered;
use firn_metadata::record::{BrokerChangeRecord, Endpoint, MetadataRecord};
use openraft::EntryPayload;

use crate::electorate::Electorate;
use crate::error::QuorumError;
use crate::log_store::{Found, READ_BYTES};
use crate::types::StoredMembership;

/// What is known of the brokers, agreed on or not.
#[derive(Debug, Default)]
pub struct Known {
    /// The last registration of each: its directories were told of it before anybody else was.
    pub registered: BTreeMap<i32, Registered>,
    /// Where each one said then that it is.
    pub endpoints: BTreeMap<i32, Vec<Endpoint>>,
    pub electorate: Electorate,
}

impl Known {
    fn take_in(&mut self, broker_id: i32, registered: Registered, endpoints: &[Endpoint]) {
        let is_older = |known: &Registered| known.broker_epoch > registered.broker_epoch;
        if !self.registered.get(&broker_id).is_some_and(is_older) {
            self.registered.insert(broker_id, registered);
            self.endpoints.insert(broker_id, endpoints.to_vec());
        }
    }

    fn take_marks(&mut self, change: &BrokerChangeRecord) {
        if let Some(known) = self.registered.get_mut(&change.broker_id)
            && known.broker_epoch == change.broker_epoch
        {
            known.marks = change.marks.map_or(known.marks, |marks| known.marks.max(marks));
        }
    }
}

impl Found {
    /// Offset after the last entry that there is, in the log or in a snapshot.
    pub fn end_offset(&self) -> i64 {
        let snapshot =
            self.last.map_or(0, |last| i64::try_from(last.index()).map_or(i64::MAX, |last| last + 1));
        snapshot.max(self.store.end_offset())
    }

    /// What there is, in the log and in the snapshot, of the brokers.
    pub fn known(&self) -> Result<Known, QuorumError> {
        let mut known = Known { electorate: (&self.content.members).into(), ..Known::default() };
        for broker in self.content.image.brokers() {
            known.take_in(broker.id, broker.into(), &broker.endpoints);
        }
        let mut next = self.last.map_or(0, |last| last.index() + 1);
        loop {
            let entries = self.store.read(next, u64::MAX, READ_BYTES)?;
            let Some(last) = entries.last() else { return Ok(known) };
            next = last.log_id.index() + 1;
            for entry in entries {
                match entry.payload {
                    EntryPayload::Normal(change) => {
                        for record in &change.records {
                            match record {
                                MetadataRecord::Broker(record) => {
                                    known.take_in(record.broker_id, record.into(), &record.endpoints);
                                }
                                MetadataRecord::BrokerChange(record) => known.take_marks(record),
                                _ => {}
                            }
                        }
                    }
                    EntryPayload::Membership(members) => {
                        known.electorate = (&StoredMembership::new(Some(entry.log_id), members)).into();
                    }
                    EntryPayload::Blank => {}
                }
            }
        }
    }
}
