//! What the log hands to the tier: sealed segments with everything that belongs to them.
//!
//! The tier takes copies; the log learns only a number, the tiered end offset, and keeps its segments until then.

use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::{StorageError, failed_to};
use crate::file_names::{INDEX, SNAPSHOT, TIME_INDEX, TXN_INDEX, segment_file};
use crate::open_files::{Part, read_file};
use crate::partition_log::PartitionLog;

/// A segment that no append will change, as far as it can be told without reading files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SealedSegmentMetadata {
    pub base_offset: i64,
    /// Inclusive: the offset before the next segment's base.
    pub last_offset: i64,
    /// Bytes of the `.log`.
    pub bytes: u64,
    /// -1 when no record has a timestamp.
    pub max_timestamp: i64,
    /// Epoch of the last record; -1 if the log knows none.
    pub leader_epoch: i32,
}

/// A sealed segment with its files. The small ones are read; the log itself is held open, whatever becomes of its name.
#[derive(Debug, Clone)]
pub struct SealedSegment {
    pub metadata: SealedSegmentMetadata,
    pub log: Arc<dyn DiskFile>,
    pub offset_index: Bytes,
    pub time_index: Bytes,
    /// Empty when no transaction was aborted in it.
    pub transaction_index: Bytes,
    /// Producers as of the segment's end; empty when the snapshot is gone.
    pub producer_snapshot: Bytes,
    /// Leader epochs up to the segment's end, as `leader-epoch-checkpoint` spells them.
    pub leader_epochs: Bytes,
}

impl PartitionLog {
    /// Sealed segments that end above `from_offset`, and at or below `below_offset`, the oldest first. Where another replica's segments
    /// ended elsewhere, the first may begin below `from_offset`.
    pub fn sealed_segments(
        &self,
        from_offset: i64,
        below_offset: i64,
    ) -> Result<Vec<SealedSegmentMetadata>, StorageError> {
        let sealed = self.segments.len().saturating_sub(1);
        let mut found = Vec::new();
        for (index, segment) in self.segments.iter().enumerate().take(sealed) {
            let end = self.segment_end(index);
            if end <= from_offset || end > below_offset || segment.size == 0 {
                continue;
            }
            found.push(SealedSegmentMetadata {
                base_offset: segment.base_offset,
                last_offset: end - 1,
                bytes: segment.size,
                max_timestamp: segment.largest_timestamp(self.home())?.timestamp,
                leader_epoch: self.epochs.epoch_for_offset(end - 1).unwrap_or(-1),
            });
        }
        Ok(found)
    }

    /// How many sealed segments there are that [`PartitionLog::sealed_segments`] would tell of, and their bytes. Reads no file.
    pub fn sealed_size(&self, from_offset: i64, below_offset: i64) -> (usize, u64) {
        let sealed = self.segments.len().saturating_sub(1);
        let all = self.segments.iter().enumerate().take(sealed);
        let within = all.filter(|(index, segment)| {
            let end = self.segment_end(*index);
            end > from_offset && end <= below_offset && segment.size > 0
        });
        within.fold((0, 0), |(count, bytes), (_, segment)| (count + 1, bytes + segment.size))
    }

    /// The sealed segment that begins at `base_offset`, with its files; `None` when it is no more.
    pub fn sealed_segment(&self, base_offset: i64) -> Result<Option<SealedSegment>, StorageError> {
        let Ok(index) = self.segments.binary_search_by_key(&base_offset, |segment| segment.base_offset)
        else {
            return Ok(None);
        };
        let end = self.segment_end(index);
        let Some(metadata) = self.sealed_segments(end - 1, end)?.into_iter().next() else {
            return Ok(None);
        };
        let Some(segment) = self.segments.get(index) else { return Ok(None) };
        let mut epochs = self.epochs.clone();
        epochs.truncate_from_end(end);
        let small = |name: String| -> Result<Bytes, StorageError> {
            let bytes = read_file(self.directory.disk.as_ref(), &self.path.join(name))?;
            Ok(bytes.unwrap_or_default().into())
        };
        let path = self.home().log_path(base_offset);
        let log = segment.file(self.home(), Part::Log)?;
        let held = log.len().map_err(failed_to("measure", &path))?;
        if held < segment.size {
            return Err(StorageError::corrupt(&path, format!("{held} bytes where {} were", segment.size)));
        }
        Ok(Some(SealedSegment {
            metadata,
            log,
            offset_index: small(segment_file(base_offset, INDEX))?,
            time_index: small(segment_file(base_offset, TIME_INDEX))?,
            transaction_index: small(segment_file(base_offset, TXN_INDEX))?,
            producer_snapshot: small(segment_file(end, SNAPSHOT))?,
            leader_epochs: epochs.encode().into(),
        }))
    }
}
