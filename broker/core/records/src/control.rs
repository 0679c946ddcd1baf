//! Records of control batches: the markers that end a transaction (KIP-98).
//!
//! A control record's key says what it is: a version and a type, 16 bits each. Newer versions only add to what older ones
//! hold, so readers take what they know and skip the rest, as Kafka's `ControlRecordType` and `EndTransactionMarker` do.

use crate::batch::{BatchHeader, HEADER_LENGTH};
use crate::record::{Record, records};

const CONTROL_VERSION: i16 = 0;
const MARKER_VERSION: i16 = 0;

/// What a control record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ControlType {
    Abort,
    Commit,
    LeaderChange,
    SnapshotHeader,
    SnapshotFooter,
    KraftVersion,
    KraftVoters,
    /// Of a later protocol: carried, not understood.
    Unknown(i16),
}

impl ControlType {
    /// Reads a control record's key; `None` if it is cut off or of an impossible version.
    pub fn parse(key: &[u8]) -> Option<Self> {
        let (version, rest) = key.split_first_chunk()?;
        if i16::from_be_bytes(*version) < 0 {
            return None;
        }
        Some(match i16::from_be_bytes(*rest.first_chunk()?) {
            0 => Self::Abort,
            1 => Self::Commit,
            2 => Self::LeaderChange,
            3 => Self::SnapshotHeader,
            4 => Self::SnapshotFooter,
            5 => Self::KraftVersion,
            6 => Self::KraftVoters,
            other => Self::Unknown(other),
        })
    }

    /// The key that says so.
    pub fn key(self) -> [u8; 4] {
        let number: i16 = match self {
            Self::Abort => 0,
            Self::Commit => 1,
            Self::LeaderChange => 2,
            Self::SnapshotHeader => 3,
            Self::SnapshotFooter => 4,
            Self::KraftVersion => 5,
            Self::KraftVoters => 6,
            Self::Unknown(other) => other,
        };
        let [version_high, version_low] = CONTROL_VERSION.to_be_bytes();
        let [high, low] = number.to_be_bytes();
        [version_high, version_low, high, low]
    }
}

/// How a transaction ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TransactionResult {
    Abort,
    Commit,
}

/// The record that ends a producer's transaction in a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EndTransactionMarker {
    pub result: TransactionResult,
    /// Epoch of the transaction coordinator that wrote it.
    pub coordinator_epoch: i32,
}

impl EndTransactionMarker {
    /// The marker that `record`, of a control batch, holds; `None` if it is something else.
    pub fn read(record: &Record<'_>) -> Option<Self> {
        let result = match ControlType::parse(record.key?)? {
            ControlType::Abort => TransactionResult::Abort,
            ControlType::Commit => TransactionResult::Commit,
            _ => return None,
        };
        let (version, rest) = record.value?.split_first_chunk()?;
        if i16::from_be_bytes(*version) < MARKER_VERSION {
            return None;
        }
        Some(Self { result, coordinator_epoch: i32::from_be_bytes(*rest.first_chunk()?) })
    }

    /// The marker of a whole batch; `None` if that is no control batch, or its record is gone or something else.
    pub fn of_batch(header: &BatchHeader, batch: &[u8]) -> Option<Self> {
        if !header.is_control() {
            return None;
        }
        let payload = batch.get(HEADER_LENGTH..header.size_in_bytes())?;
        Self::read(&records(header.record_count, payload).next()?.ok()?)
    }

    /// Key of the record.
    pub fn key(&self) -> [u8; 4] {
        match self.result {
            TransactionResult::Abort => ControlType::Abort.key(),
            TransactionResult::Commit => ControlType::Commit.key(),
        }
    }

    /// Value of the record.
    pub fn value(&self) -> [u8; 6] {
        let [high, low] = MARKER_VERSION.to_be_bytes();
        let [a, b, c, d] = self.coordinator_epoch.to_be_bytes();
        [high, low, a, b, c, d]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::batches;
    use crate::builder::{BatchBuilder, BatchOptions, Producer};

    fn control_batch(key: &[u8], value: &[u8]) -> bytes::Bytes {
        let mut builder = BatchBuilder::new(BatchOptions {
            control: true,
            transactional: true,
            producer: Producer { id: 9, epoch: 2, base_sequence: -1 },
            ..BatchOptions::default()
        });
        builder.push(1, Some(key), Some(value), &[]);
        builder.build().unwrap()
    }

    fn marker_of(batch: &[u8]) -> Option<EndTransactionMarker> {
        let (header, batch) = batches(batch).next().unwrap().unwrap();
        EndTransactionMarker::of_batch(&header, batch)
    }

    #[test]
    fn markers_are_written_and_read() {
        for result in [TransactionResult::Abort, TransactionResult::Commit] {
            let marker = EndTransactionMarker { result, coordinator_epoch: 0x0102_0304 };
            assert_eq!(marker.value(), [0, 0, 1, 2, 3, 4]);
            assert_eq!(marker.key(), [0, 0, 0, (result == TransactionResult::Commit).into()]);
            assert_eq!(marker_of(&control_batch(&marker.key(), &marker.value())), Some(marker));
        }
    }

    #[test]
    fn later_versions_are_read_as_far_as_they_are_known() {
        let batch = control_batch(&[0, 1, 0, 1, 0xff], &[0, 1, 0, 0, 0, 5, 0xff, 0xff]);
        let expected = EndTransactionMarker { result: TransactionResult::Commit, coordinator_epoch: 5 };
        assert_eq!(marker_of(&batch), Some(expected));
    }

    #[test]
    fn other_records_are_no_markers() {
        for (key, value) in [
            (&[0, 0, 0, 2][..], &[0u8; 6][..]),
            (&[0, 0, 0, 99], &[0; 6]),
            (&[0xff, 0xff, 0, 1], &[0; 6]),
            (&[0, 0, 0], &[0; 6]),
            (&[0, 0, 0, 1], &[0; 5]),
            (&[0, 0, 0, 1], &[0xff; 6]),
        ] {
            assert_eq!(marker_of(&control_batch(key, value)), None, "{key:?} {value:?}");
        }
        let mut data = BatchBuilder::new(BatchOptions::default());
        data.push(1, Some(&[0, 0, 0, 1]), Some(&[0; 6]), &[]);
        assert_eq!(marker_of(&data.build().unwrap()), None, "clients may write what they like");
        for kind in [0, 1, 2, 3, 4, 5, 6, 7, -1] {
            let [high, low] = i16::to_be_bytes(kind);
            let key = [0, 0, high, low];
            assert_eq!(ControlType::parse(&key).unwrap().key(), key);
        }
    }
}
