//! An entry's bytes: a batch of one record, whose offset is the entry's index and whose leader epoch its term.
//!
//! The record's key says the same again, term and index in eight bytes each, big endian: the batch's checksum covers the key, and neither
//! its offset nor its leader epoch. Its value is one JSON object: `{"v":1,"entry":{"change":{…}}}`, `{"v":1,"entry":{"membership":{…}}}` or
//! `{"v":1,"entry":"blank"}`, with which a leader begins. `v` is the format of metadata records, and follows their rules.
//! The bytes follow from the entry alone, so every member has the same.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use firn_metadata::record::{RecordError, VERSION};
use firn_records::batch::{BatchHeader, HEADER_LENGTH, PATCHABLE_LENGTH, patched_prefix, verify_crc};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::record::{Record, records};
use openraft::EntryPayload;
use openraft::entry::RaftEntry;
use serde::{Deserialize, Serialize};

use crate::types::{Change, Entry, LogId, Member, Membership, log_id};

/// As Kafka says that there is none.
const NO_TIMESTAMP: i64 = -1;
/// Bytes of the term and of the index in a record's key.
const PLACE_BYTES: usize = 16;

#[derive(Serialize, Deserialize)]
struct Written<C> {
    v: u16,
    entry: Body<C>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Body<C> {
    Blank,
    Change(C),
    Membership(WrittenMembership),
}

#[derive(Deserialize)]
struct WrittenVersion {
    v: u16,
}

/// Members in JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WrittenMembership {
    /// Two sets while the voters change: each must agree.
    voters: Vec<BTreeSet<u64>>,
    /// Voters and learners.
    members: BTreeMap<u64, Member>,
}

impl From<&Membership> for WrittenMembership {
    fn from(membership: &Membership) -> Self {
        Self {
            voters: membership.get_joint_config().clone(),
            members: membership.nodes().map(|(id, member)| (*id, member.clone())).collect(),
        }
    }
}

impl TryFrom<WrittenMembership> for Membership {
    type Error = String;

    fn try_from(written: WrittenMembership) -> Result<Self, String> {
        Membership::new(written.voters, written.members).map_err(|error| error.to_string())
    }
}

/// The batch of an entry. Its offset and leader epoch are given where it is appended.
pub fn encode(entry: &Entry) -> Result<Bytes, String> {
    let (body, timestamp) = match &entry.payload {
        EntryPayload::Blank => (Body::Blank, NO_TIMESTAMP),
        EntryPayload::Normal(change) => (Body::Change(change), change.at_ms),
        EntryPayload::Membership(membership) => (Body::Membership(membership.into()), NO_TIMESTAMP),
    };
    let value = serde_json::to_vec(&Written { v: VERSION, entry: body })
        .map_err(|error| RecordError::Unwritable(error).to_string())?;
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(timestamp, Some(&place(&entry.log_id)), Some(&value), &[]);
    builder.build().map_err(|error| error.to_string())
}

fn place(id: &LogId) -> [u8; PLACE_BYTES] {
    let mut place = [0; PLACE_BYTES];
    let (term, index) = place.split_at_mut(PLACE_BYTES / 2);
    term.copy_from_slice(&id.committed_leader_id().term.to_be_bytes());
    index.copy_from_slice(&id.index().to_be_bytes());
    place
}

/// How many bytes a change takes in the log.
pub fn size(change: &Change) -> Result<usize, String> {
    encode(&Entry::new(log_id(0, 0), EntryPayload::Normal(change.clone()))).map(|bytes| bytes.len())
}

/// The batch of an entry as it lies in the log, with its offset and leader epoch.
pub fn encode_placed(entry: &Entry) -> Result<Vec<u8>, String> {
    let (term, index) = (entry.log_id.committed_leader_id().term, entry.log_id.index());
    let (Ok(epoch), Ok(offset)) = (i32::try_from(term), i64::try_from(index)) else {
        return Err(format!("term {term} or index {index} is too large"));
    };
    let mut bytes = encode(entry)?.to_vec();
    if let Some(prefix) = bytes.first_chunk_mut::<PATCHABLE_LENGTH>() {
        *prefix = patched_prefix(prefix, offset, epoch);
    }
    Ok(bytes)
}

/// Reads an entry's batch. The error says what is wrong with it.
pub fn decode(header: &BatchHeader, batch: &[u8]) -> Result<Entry, String> {
    let (id, record) = check(header, batch)?;
    let payload = decode_value(record.value.unwrap_or_default())?;
    Ok(Entry::new(id, payload))
}

/// That an entry's batch is what was written, where it was written. Returns which entry it is, and what it says.
pub fn check<'a>(header: &BatchHeader, batch: &'a [u8]) -> Result<(LogId, Record<'a>), String> {
    verify_crc(batch).map_err(|error| error.to_string())?;
    let (Ok(index), Ok(term)) =
        (u64::try_from(header.base_offset), u64::try_from(header.partition_leader_epoch))
    else {
        return Err("an entry has an offset and a leader epoch".to_owned());
    };
    let mut found = records(header.record_count, batch.get(HEADER_LENGTH..).unwrap_or_default());
    let (Some(record), None) = (found.next(), found.next()) else {
        return Err(format!(
            "an entry is a batch of one record, and this has {}: the log was written by another program, or by a \
             version of this one from before there was a quorum",
            header.record_count
        ));
    };
    let record = record.map_err(|error| error.to_string())?;
    let id = log_id(term, index);
    // Who wrote it before entries had a key is believed.
    if record.key.is_some_and(|key| key != place(&id)) {
        return Err(format!("it says that it is another entry than the one of term {term} that lies here"));
    }
    Ok((id, record))
}

/// Reads JSON that says its format in `v`, of any up to this program's.
pub(crate) fn read_json<'a, T: Deserialize<'a>>(value: &'a [u8]) -> Result<T, String> {
    let malformed = |error| RecordError::Malformed(error).to_string();
    let WrittenVersion { v } = serde_json::from_slice(value).map_err(malformed)?;
    if v > VERSION {
        return Err(RecordError::TooNew { version: v }.to_string());
    }
    serde_json::from_slice(value).map_err(malformed)
}

fn decode_value(value: &[u8]) -> Result<EntryPayload<Change, u64, Member>, String> {
    let written: Written<Change> = read_json(value)?;
    Ok(match written.entry {
        Body::Blank => EntryPayload::Blank,
        Body::Change(change) => EntryPayload::Normal(change),
        Body::Membership(membership) => EntryPayload::Membership(membership.try_into()?),
    })
}

#[cfg(test)]
mod tests {
    use firn_metadata::record::{MetadataRecord, RemoveTopicRecord};
    use firn_model::ids::TopicId;
    use firn_records::batch::batches;
    use uuid::Uuid;

    use super::*;

    fn entries() -> [(EntryPayload<Change, u64, Member>, &'static str); 3] {
        let records =
            vec![MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: TopicId(Uuid::from_u128(7)) })];
        let member = Member { broker_id: 1, directory_id: "d".to_owned() };
        let membership = Membership::new(
            vec![BTreeSet::from([1]), BTreeSet::from([1, 2])],
            BTreeMap::from([(1, member.clone()), (2, member)]),
        );
        [
            (EntryPayload::Blank, r#"{"v":1,"entry":"blank"}"#),
            (
                EntryPayload::Normal(Change { after: 8, at_ms: 5, records }),
                r#"{"v":1,"entry":{"change":{"after":8,"at_ms":5,"records":[{"remove_topic":{"topic_id":"AAAAAAAAAAAAAAAAAAAABw"}}]}}}"#,
            ),
            (
                EntryPayload::Membership(membership.unwrap()),
                r#"{"v":1,"entry":{"membership":{"voters":[[1],[1,2]],"members":{"1":{"broker_id":1,"directory_id":"d"},"2":{"broker_id":1,"directory_id":"d"}}}}}"#,
            ),
        ]
    }

    #[test]
    fn what_is_written_is_read_and_stays_the_same() {
        for (payload, text) in entries() {
            let entry = Entry::new(log_id(3, 9), payload);
            let bytes = encode_placed(&entry).unwrap();
            let (header, batch) = batches(&bytes).next().unwrap().unwrap();
            assert_eq!(decode(&header, batch).unwrap(), entry);
            let record = records(1, &batch[HEADER_LENGTH..]).next().unwrap().unwrap();
            assert_eq!(std::str::from_utf8(record.value.unwrap()).unwrap(), text);
        }
    }

    #[test]
    fn what_is_no_entry_is_refused() {
        for (value, says) in [
            (r#"{"v":2,"entry":"blank"}"#, "start a newer one"),
            (r#"{"v":1,"entry":"red"}"#, "cannot be read"),
            (r#"{"v":1,"entry":{"membership":{"voters":[[1]],"members":{}}}}"#, "1"),
            ("", "cannot be read"),
        ] {
            let error = decode_value(value.as_bytes()).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
        let mut builder = BatchBuilder::new(BatchOptions::default());
        for _ in 0..2 {
            builder.push(0, None, Some(b"{}"), &[]);
        }
        let bytes = builder.build().unwrap();
        let (header, batch) = batches(&bytes).next().unwrap().unwrap();
        let header = BatchHeader { partition_leader_epoch: 0, ..header };
        assert!(decode(&header, batch).unwrap_err().contains("before there was a quorum"));
    }

    /// Where it lies and of which term it is no less than what it says.
    #[test]
    fn no_bit_of_an_entry_may_be_another() {
        let entry = Entry::new(log_id(1, 12), EntryPayload::Blank);
        let whole = encode_placed(&entry).unwrap();
        for bit in 0..8 * whole.len() {
            let mut damaged = whole.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let read = batches(&damaged).next().and_then(Result::ok);
            assert!(read.is_none_or(|(header, batch)| decode(&header, batch).is_err()), "bit {bit}");
        }
    }
}
