//! A snapshot of the metadata: the records that make the image, in one file (KIP-630).
//!
//! The file is `<end offset>-<epoch>.checkpoint` and stands for all of the log below that offset. It holds batches as the
//! log does: a control record that says when it was made, one record that says who the members were, the image's records,
//! and a control record that says that nothing is missing. Without the last one, or with a batch that is damaged, it is
//! no snapshot.

use firn_metadata::image::Image;
use firn_metadata::record::{MetadataRecord, RecordError, VERSION};
use firn_records::batch::{self, BatchHeader, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::compression::CompressionError;
use firn_records::control::ControlType;
use firn_records::record::records;
use serde::{Deserialize, Serialize};

use crate::entry::{WrittenMembership, read_json};
use crate::quorum_state::WrittenLogId;
use crate::types::{LogId, StoredMembership, log_id};

/// Ends the names of snapshots.
pub const CHECKPOINT: &str = ".checkpoint";
/// A batch is full with this many bytes of records.
const BATCH_BYTES: usize = 1 << 20;

/// Why a snapshot cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error(transparent)]
    Encode(#[from] RecordError),
    #[error(transparent)]
    Build(#[from] CompressionError),
}

/// What a snapshot stands for: everything below an offset, of which the last record has this epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct SnapshotId {
    pub end_offset: i64,
    pub epoch: i32,
}

impl SnapshotId {
    pub fn file_name(self) -> String {
        format!("{:020}-{:010}{CHECKPOINT}", self.end_offset, self.epoch)
    }

    /// Reads a file's name; `None` if it is not a snapshot's.
    pub fn parse(name: &str) -> Option<Self> {
        let (end_offset, epoch) = name.strip_suffix(CHECKPOINT)?.split_once('-')?;
        let id = Self { end_offset: end_offset.parse().ok()?, epoch: epoch.parse().ok()? };
        (id.end_offset >= 0 && id.epoch >= 0 && id.file_name() == name).then_some(id)
    }

    /// The last entry that it stands for; `None` before the first.
    pub fn last(self) -> Option<LogId> {
        let (end, epoch) = (u64::try_from(self.end_offset).ok()?, u64::try_from(self.epoch).ok()?);
        Some(log_id(epoch, end.checked_sub(1)?))
    }

    /// Of the snapshot that stands for everything up to `last`.
    pub fn of(last: Option<LogId>) -> Self {
        let Some(last) = last else { return Self { end_offset: 0, epoch: 0 } };
        let (term, index) = (last.committed_leader_id().term, last.index());
        // Both were read from, or written to, a log whose offsets and epochs have these types.
        Self { end_offset: index as i64 + 1, epoch: term as i32 }
    }
}

/// What a snapshot says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Content {
    pub image: Image,
    /// The members, as the last entry that named them has them.
    pub members: StoredMembership,
}

#[derive(Serialize, Deserialize)]
struct WrittenMembers {
    v: u16,
    members: Members,
}

#[derive(Serialize, Deserialize)]
struct Members {
    /// Where the log said so; nowhere, as long as there are none.
    since: Option<WrittenLogId>,
    membership: WrittenMembership,
}

/// The bytes of a snapshot.
pub fn encode(content: &Content, now_ms: i64) -> Result<Vec<u8>, SnapshotError> {
    let mut out = Output { bytes: Vec::new(), next_offset: 0 };
    // SnapshotHeaderRecord: its version, then the time up to which it knows.
    let mut header = [0; 11];
    header[2..10].copy_from_slice(&now_ms.to_be_bytes());
    out.control(ControlType::SnapshotHeader, &header, now_ms)?;
    let members = Members {
        since: content.members.log_id().map(WrittenLogId::from),
        membership: content.members.membership().into(),
    };
    let mut batch = out.batch(false);
    let value =
        serde_json::to_vec(&WrittenMembers { v: VERSION, members }).map_err(RecordError::Unwritable)?;
    batch.push(now_ms, None, Some(&value), &[]);
    for record in content.image.to_records() {
        batch.push(now_ms, None, Some(&record.encode()?), &[]);
        if batch.uncompressed_size() >= BATCH_BYTES {
            out.finish(batch)?;
            batch = out.batch(false);
        }
    }
    if !batch.is_empty() {
        out.finish(batch)?;
    }
    out.control(ControlType::SnapshotFooter, &[0; 3], now_ms)?;
    Ok(out.bytes)
}

struct Output {
    bytes: Vec<u8>,
    next_offset: i64,
}

impl Output {
    fn batch(&self, control: bool) -> BatchBuilder {
        BatchBuilder::at_offset(BatchOptions { control, ..BatchOptions::default() }, self.next_offset)
    }

    fn control(&mut self, kind: ControlType, value: &[u8], now_ms: i64) -> Result<(), SnapshotError> {
        let mut batch = self.batch(true);
        batch.push(now_ms, Some(&kind.key()), Some(value), &[]);
        self.finish(batch)
    }

    fn finish(&mut self, batch: BatchBuilder) -> Result<(), SnapshotError> {
        self.next_offset += i64::from(batch.count());
        self.bytes.extend_from_slice(&batch.build()?);
        Ok(())
    }
}

/// What `bytes` say. The error says why they are not a whole snapshot.
pub fn decode(bytes: &[u8]) -> Result<Content, String> {
    let mut image = Image::default();
    let mut members = None;
    let mut last = None;
    let mut next_offset = 0;
    let mut batches = batch::batches(bytes);
    for found in batches.by_ref() {
        let (header, batch) = found.map_err(|error| error.to_string())?;
        batch::verify_crc(batch).map_err(|error| error.to_string())?;
        let bad = |reason: String| format!("record {}: {reason}", header.base_offset);
        if header.base_offset != next_offset {
            return Err(bad(format!("{next_offset} is due")));
        }
        let first = next_offset == 0;
        next_offset = header.next_offset();
        let control = control_type(&header, batch).map_err(bad)?;
        if first != (control == Some(ControlType::SnapshotHeader)) {
            return Err(bad("it does not begin with one header".to_owned()));
        }
        if last == Some(ControlType::SnapshotFooter) {
            return Err(bad("something follows the footer".to_owned()));
        }
        if control.is_none() {
            decode_batch(&header, batch, &mut members, &mut image).map_err(bad)?;
        }
        last = control;
    }
    match (last, members, batches.remainder()) {
        (Some(ControlType::SnapshotFooter), Some(members), []) => Ok(Content { image, members }),
        _ => Err(format!("it ends after {next_offset} records, without its footer")),
    }
}

/// Takes in the records of one batch, of which the first of all says who the members are.
fn decode_batch(
    header: &BatchHeader,
    batch: &[u8],
    members: &mut Option<StoredMembership>,
    image: &mut Image,
) -> Result<(), String> {
    for record in records(header.record_count, batch.get(HEADER_LENGTH..).unwrap_or_default()) {
        let value = record.map_err(|error| error.to_string())?.value.unwrap_or_default();
        if members.is_none() {
            *members = Some(decode_members(value)?);
            continue;
        }
        let record = MetadataRecord::decode(value).map_err(|error| error.to_string())?;
        image.apply(&record).map_err(|error| error.to_string())?;
    }
    Ok(())
}

fn decode_members(value: &[u8]) -> Result<StoredMembership, String> {
    let written: WrittenMembers = read_json(value)?;
    let Members { since, membership } = written.members;
    let membership = match since {
        Some(_) => membership.try_into()?,
        None => Default::default(),
    };
    Ok(StoredMembership::new(since.map(LogId::from), membership))
}

/// What a control batch says; `None` for one of data.
fn control_type(header: &BatchHeader, batch: &[u8]) -> Result<Option<ControlType>, String> {
    if !header.is_control() {
        return Ok(None);
    }
    let payload = batch.get(HEADER_LENGTH..).unwrap_or_default();
    let record =
        records(header.record_count, payload).next().transpose().map_err(|error| error.to_string())?;
    let kind = record.and_then(|record| ControlType::parse(record.key?));
    kind.map(Some).ok_or_else(|| "a control batch without a type".to_owned())
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use firn_metadata::record::{FeatureRecord, MetadataRecord, TopicRecord};
    use firn_model::ids::TopicId;
    use uuid::Uuid;

    use super::*;
    use crate::types::{Member, Membership};

    fn content(topics: u32) -> Content {
        let member = Member { broker_id: 1, directory_id: "d".to_owned() };
        let membership = Membership::new(vec![BTreeSet::from([1])], BTreeMap::from([(1, member)])).unwrap();
        Content { image: image(topics), members: StoredMembership::new(Some(log_id(2, 5)), membership) }
    }

    fn image(topics: u32) -> Image {
        let mut image = Image::default();
        image
            .apply(&MetadataRecord::Feature(FeatureRecord { name: "metadata.version".to_owned(), level: 7 }))
            .unwrap();
        for number in 1..=topics {
            let topic = TopicRecord {
                name: format!("{number}-{}", "t".repeat(200)),
                topic_id: TopicId(Uuid::from_u128(number.into())),
            };
            image.apply(&MetadataRecord::Topic(topic)).unwrap();
        }
        image
    }

    #[test]
    fn a_snapshot_says_what_the_image_says() {
        for topics in [0, 1, 10_000] {
            let content = content(topics);
            let bytes = encode(&content, 1_700_000_000_000).unwrap();
            assert!(topics < 10_000 || bytes.len() > 2 * BATCH_BYTES, "several batches");
            assert_eq!(decode(&bytes), Ok(content));
        }
        let nobody = Content::default();
        assert_eq!(decode(&encode(&nobody, 1).unwrap()), Ok(nobody), "before there are members");
    }

    #[test]
    fn a_snapshot_that_is_not_whole_is_none() {
        let bytes = encode(&content(3), 1).unwrap();
        for length in 0..bytes.len() {
            assert!(decode(&bytes[..length]).is_err(), "{length} bytes of {}", bytes.len());
        }
        let mut twice = bytes.clone();
        twice.extend_from_slice(&bytes);
        assert!(decode(&twice).is_err());
        for at in 17..bytes.len() {
            let mut damaged = bytes.clone();
            damaged[at] ^= 0x10;
            // A leader epoch is not covered by the checksum, and nobody asks for it here.
            if let Ok(read) = decode(&damaged) {
                assert_eq!(read, content(3), "byte {at}");
            }
        }
    }

    #[test]
    fn names_are_kafkas() {
        let id = SnapshotId { end_offset: 42, epoch: 3 };
        assert_eq!(id.file_name(), "00000000000000000042-0000000003.checkpoint");
        assert_eq!(SnapshotId::parse(&id.file_name()), Some(id));
        assert_eq!((id.last(), SnapshotId::of(Some(log_id(3, 41)))), (Some(log_id(3, 41)), id));
        assert_eq!(SnapshotId { end_offset: 0, epoch: 0 }.last(), None);
        for bad in
            ["leader-epoch-checkpoint", "42-3.checkpoint", "00000000000000000042-0000000003.checkpoint.tmp"]
        {
            assert_eq!(SnapshotId::parse(bad), None, "{bad}");
        }
    }
}
