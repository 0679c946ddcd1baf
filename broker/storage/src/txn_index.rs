//! `.txnindex`: the aborted transactions whose markers lie in a segment (Kafka's `TransactionIndex`, KIP-98).

use std::path::Path;

use crate::disk::{Disk, OpenMode, write_all_at};
use crate::error::{StorageError, failed_to};
use crate::file_names::{TXN_INDEX, segment_file};
use crate::open_files::read_file;
use crate::partition_log::PartitionLog;
use crate::producers::CompletedTxn;

const VERSION: i16 = 0;
const ENTRY_LENGTH: usize = 34;

/// An aborted transaction, as a fetch response lists it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct AbortedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The abort marker's offset.
    pub last_offset: i64,
    /// The last stable offset when the marker was written: no transaction indexed later began before it.
    pub last_stable_offset: i64,
}

impl AbortedTxn {
    pub(crate) fn encode(&self) -> [u8; ENTRY_LENGTH] {
        let mut bytes = [0; ENTRY_LENGTH];
        let fields = [self.producer_id, self.first_offset, self.last_offset, self.last_stable_offset];
        bytes[..2].copy_from_slice(&VERSION.to_be_bytes());
        for (slot, field) in bytes[2..].chunks_exact_mut(8).zip(fields) {
            slot.copy_from_slice(&field.to_be_bytes());
        }
        bytes
    }
}

/// Reads the entries of an index file. Stops at the first that cannot be one.
pub(crate) fn decode(bytes: &[u8]) -> Vec<AbortedTxn> {
    let mut entries: Vec<AbortedTxn> = Vec::new();
    for chunk in bytes.chunks_exact(ENTRY_LENGTH) {
        let Some((version, fields)) = chunk.split_first_chunk::<2>() else { break };
        let mut fields =
            fields.chunks_exact(8).filter_map(|field| Some(i64::from_be_bytes(*field.first_chunk()?)));
        let (Some(producer_id), Some(first_offset), Some(last_offset), Some(last_stable_offset)) =
            (fields.next(), fields.next(), fields.next(), fields.next())
        else {
            break;
        };
        let rising = entries.last().is_none_or(|last| last.last_offset < last_offset);
        // A marker lies behind the first record: zeros, which a crash may leave for an entry, are none.
        if i16::from_be_bytes(*version) != VERSION || first_offset >= last_offset || !rising {
            break;
        }
        entries.push(AbortedTxn { producer_id, first_offset, last_offset, last_stable_offset });
    }
    entries
}

/// What a file has of aborted transactions; nothing if it is not there.
pub(crate) fn aborted_in(disk: &dyn Disk, path: &Path) -> Result<Vec<AbortedTxn>, StorageError> {
    Ok(read_file(disk, path)?.map(|bytes| decode(&bytes)).unwrap_or_default())
}

impl PartitionLog {
    /// Adds an aborted transaction to the index of the segment that holds its marker.
    pub(crate) fn append_aborted(
        &self,
        segment_base: i64,
        completed: &CompletedTxn,
        last_stable_offset: i64,
    ) -> Result<(), StorageError> {
        let mut entries = self.aborted_of_segment(segment_base)?;
        let entry = AbortedTxn {
            producer_id: completed.producer_id,
            first_offset: completed.first_offset,
            last_offset: completed.last_offset,
            last_stable_offset,
        };
        // An entry of an append that was undone is overwritten.
        entries.retain(|known| known.last_offset < completed.last_offset);
        let at = entries.len() * ENTRY_LENGTH;
        let path = self.path.join(segment_file(segment_base, TXN_INDEX));
        let file = self.directory.disk.open(&path, OpenMode::Create).map_err(failed_to("open", &path))?;
        write_all_at(file.as_ref(), &entry.encode(), at as u64).map_err(failed_to("write", &path))?;
        file.set_len((at + ENTRY_LENGTH) as u64).map_err(failed_to("cut", &path))
    }

    /// Keeps only the entries whose markers lie below `offset`.
    pub(crate) fn truncate_aborted(&self, segment_base: i64, offset: i64) -> Result<(), StorageError> {
        let entries = self.aborted_of_segment(segment_base)?;
        let path = self.path.join(segment_file(segment_base, TXN_INDEX));
        if !self.directory.disk.exists(&path).map_err(failed_to("look for", &path))? {
            return Ok(());
        }
        let kept = entries.iter().filter(|entry| entry.last_offset < offset).count();
        let file = self.directory.disk.open(&path, OpenMode::Create).map_err(failed_to("open", &path))?;
        file.set_len((kept * ENTRY_LENGTH) as u64).map_err(failed_to("cut", &path))
    }

    pub(crate) fn aborted_of_segment(&self, segment_base: i64) -> Result<Vec<AbortedTxn>, StorageError> {
        aborted_in(self.directory.disk.as_ref(), &self.path.join(segment_file(segment_base, TXN_INDEX)))
    }

    /// Aborted transactions that a reader of `[from_offset, upper_offset)` must know of.
    pub fn aborted_transactions(
        &self,
        from_offset: i64,
        upper_offset: i64,
    ) -> Result<Vec<AbortedTxn>, StorageError> {
        let first = self.segment_for(from_offset).unwrap_or(0);
        let mut found = Vec::new();
        for segment in self.segments.get(first..).unwrap_or_default() {
            for entry in self.aborted_of_segment(segment.base_offset)? {
                if entry.last_offset >= from_offset && entry.first_offset < upper_offset {
                    found.push(entry);
                }
                if entry.last_stable_offset >= upper_offset {
                    return Ok(found);
                }
            }
        }
        Ok(found)
    }
}
