//! Compaction of a log whose beginning is cold: one pass over what the store has and what the disk has.
//!
//! The owner fetches and uploads, the cleaner judges. Order: the keys of the dirty part are gathered, cold segments
//! first; then the cold segments are cleaned from copies, each put back before the next is fetched; the local segments
//! come last. A tombstone gets its delete horizon when it is cleaned, and goes in a pass after that one: by then every
//! older record of its key, cold ones included, is gone. A pass that fails half way has only taken away what was
//! superseded, and the next one begins at the same offset.
//!
//! Copies are temporary files in the partition's directory. Each is removed when it is let go of; after a crash the next
//! open removes them.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::cleaner::{Compacted, CompactionTask, DirtyKeys, Source, group_by_size};
use crate::cleaner_limits::CleanerLimits;
use crate::directory::Directory;
use crate::disk::{DiskFile, OpenMode, write_all_at};
use crate::error::{StorageError, failed_to};
use crate::file_names::{CLEANED, INDEX, LOG, TEMPORARY, TIME_INDEX, TXN_INDEX, segment_file};
use crate::open_files::read_file;
use crate::partition_log::PartitionLog;
use crate::task_gate::TaskGate;
use crate::txn_index::{AbortedTxn, decode};

/// A segment in the store, as the log has to know it to decide whether to compact.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ColdSegment {
    /// First offset that it serves.
    pub from: i64,
    /// Offset after the last that it serves.
    pub to: i64,
    /// Bytes of its log.
    pub bytes: u64,
    /// -1 when no record has a timestamp.
    pub max_timestamp: i64,
    /// It holds offsets that others serve, and is not merged with its neighbours.
    pub serves_in_part: bool,
}

/// A compaction of a log and its tier, under way.
#[derive(Debug)]
pub struct TieredCompaction {
    task: CompactionTask,
    /// Where the disk began.
    cold_end: i64,
    keys: DirtyKeys,
    /// Aborted transactions with records that are cold and markers that are not.
    aborted: Vec<AbortedTxn>,
}

/// Where a copy begins and ends, and what of it counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CopyRange {
    pub base_offset: i64,
    /// Offset after the copy's last.
    pub end_offset: i64,
    /// Offsets that it serves: `[from, to)`. Keys of others are not looked at.
    pub from: i64,
    pub to: i64,
}

/// A cold segment's log, being fetched or fetched.
#[derive(Debug)]
pub struct SegmentCopy {
    range: CopyRange,
    bytes: u64,
    aborted: Vec<AbortedTxn>,
    log: TemporaryFile,
}

/// What is left of one or several copies.
#[derive(Debug)]
pub struct CleanedCopy {
    pub base_offset: i64,
    /// Inclusive.
    pub last_offset: i64,
    /// -1 when no record has a timestamp.
    pub max_timestamp: i64,
    pub bytes: u64,
    pub offset_index: Bytes,
    pub time_index: Bytes,
    pub transaction_index: Bytes,
    log: TemporaryFile,
}

impl PartitionLog {
    /// Begins to compact the log together with `stored`, what the store serves, in the order of offsets; `None` when it
    /// is clean enough. See [`PartitionLog::compaction_task`].
    ///
    /// Where the disk begins only the log knows, and segments leave it at any time: what of `stored` is cold is decided
    /// here. It must be there as a whole. A pass that cleaned around a hole, and then called everything clean, would
    /// leave in it for ever what was superseded, or bring it back.
    pub fn tiered_compaction(
        &self,
        now_ms: i64,
        limit_offset: i64,
        limits: CleanerLimits,
        stored: Vec<ColdSegment>,
    ) -> Result<Option<TieredCompaction>, StorageError> {
        let cold_end = self.local_start_offset();
        let cold = below(stored, cold_end);
        let first = cold.first().map_or(0, |first| first.from);
        let hole = first_hole(&cold, self.log_start_offset(), cold_end);
        let Some(task) = self.task_with(now_ms, limit_offset, limits, cold)? else {
            return Ok(None);
        };
        if let Some((from, to)) = hole {
            return Err(StorageError::NotInStore { log: self.topic_partition.to_string(), from, to });
        }
        let aborted = self.aborted_transactions(first, cold_end)?;
        Ok(Some(TieredCompaction { keys: DirtyKeys::new(&task), task, cold_end, aborted }))
    }
}

/// What of `stored` lies below `local_start`.
fn below(mut stored: Vec<ColdSegment>, local_start: i64) -> Vec<ColdSegment> {
    stored.truncate(stored.partition_point(|segment| segment.from < local_start));
    if let Some(last) = stored.last_mut().filter(|last| last.to > local_start) {
        last.to = local_start;
        last.serves_in_part = true;
    }
    stored
}

/// The first offsets in `[from, to)` that no segment serves.
fn first_hole(cold: &[ColdSegment], from: i64, to: i64) -> Option<(i64, i64)> {
    let mut served = from;
    for segment in cold {
        if segment.from > served {
            return Some((served, segment.from));
        }
        served = served.max(segment.to);
    }
    (served < to).then_some((served, to))
}

impl TieredCompaction {
    /// Offset after the last cold one.
    pub fn cold_end(&self) -> i64 {
        self.cold_end
    }

    /// The cold segments whose keys must be gathered, by their place in what the pass began with.
    pub fn dirty_cold(&self) -> Vec<usize> {
        let dirty = |segment: &ColdSegment| segment.to > self.task.first_dirty_offset;
        self.task.cold.iter().enumerate().filter(|(_, cold)| dirty(cold)).map(|(index, _)| index).collect()
    }

    /// Takes the transaction indexes of all cold segments, as their objects carry them.
    pub fn add_transaction_index(&mut self, encoded: &[u8]) {
        self.aborted.extend(decode(encoded));
        self.aborted.sort_unstable_by_key(|txn| (txn.last_offset, txn.producer_id));
        self.aborted.dedup();
    }

    /// A file for the log of one cold segment.
    pub fn receive(&self, range: CopyRange) -> Result<SegmentCopy, StorageError> {
        self.task.directory.check_compaction()?;
        let name = format!("{}.cold{TEMPORARY}", segment_file(range.base_offset, LOG));
        let log = TemporaryFile::create(&self.task, &name)?;
        let reaches =
            |txn: &&AbortedTxn| txn.last_offset >= range.base_offset && txn.first_offset < range.end_offset;
        let aborted = self.aborted.iter().filter(reaches).copied().collect();
        Ok(SegmentCopy { range, bytes: 0, aborted, log })
    }

    /// Takes the keys of a dirty cold segment. They come in the order of offsets, and before [`Self::gather_local`].
    pub fn gather(&mut self, copy: &SegmentCopy) -> Result<(), StorageError> {
        self.keys.gather(&self.task, &copy.source(), copy.range.from, copy.range.to)
    }

    /// Takes the keys of what is on the disk.
    pub fn gather_local(&mut self) -> Result<(), StorageError> {
        self.task.gather_local(&mut self.keys)
    }

    /// Up to where this pass compacts, known once all keys are gathered.
    pub fn end_offset(&self) -> i64 {
        self.keys.end_offset
    }

    /// The cold segments to clean, as runs that fit one segment together, by their places in the pass's list.
    pub fn cold_groups(&self) -> Vec<std::ops::Range<usize>> {
        let below_end = self.task.cold.partition_point(|cold| cold.from < self.keys.end_offset);
        let cold = self.task.cold.get(..below_end).unwrap_or_default();
        let mut groups = Vec::new();
        let mut start = 0;
        // A hole between two segments stays one: a merged object would claim the offsets in it.
        let together =
            |a: &ColdSegment, b: &ColdSegment| !a.serves_in_part && !b.serves_in_part && a.to == b.from;
        for run in cold.chunk_by(together) {
            let extent = |segment: &ColdSegment| (segment.from, segment.to, segment.bytes);
            for count in group_by_size(run, self.task.segment_bytes, extent) {
                groups.push(start..start + count);
                start += count;
            }
        }
        groups
    }

    /// Cleans neighbours into one segment. `None` if there is one and nothing in it has changed.
    pub fn clean_copies(&self, copies: &[SegmentCopy]) -> Result<Option<CleanedCopy>, StorageError> {
        let sources: Vec<Source> = copies.iter().map(SegmentCopy::source).collect();
        let cleaned = self.task.clean_group(&sources.iter().collect::<Vec<_>>(), &self.keys, false)?;
        let base_offset = cleaned.segment.base_offset;
        let file = |suffix| TemporaryFile::open(&self.task, &cleaned_file(base_offset, suffix));
        let (log, index, times) = (file(LOG)?, file(INDEX)?, file(TIME_INDEX)?);
        let transactions = if cleaned.aborted.is_empty() { None } else { Some(file(TXN_INDEX)?) };
        if !cleaned.changed {
            return Ok(None);
        }
        Ok(Some(CleanedCopy {
            base_offset,
            last_offset: cleaned.end_offset - 1,
            max_timestamp: cleaned.segment.written_timestamp(),
            bytes: cleaned.segment.size,
            offset_index: index.content()?,
            time_index: times.content()?,
            transaction_index: transactions.map_or(Ok(Bytes::new()), |file| file.content())?,
            log,
        }))
    }

    /// Cleans what is on the disk, once every cold segment has been cleaned and put back.
    pub fn clean_local(self) -> Result<Compacted, StorageError> {
        self.task.clean_local(&self.keys)
    }
}

impl SegmentCopy {
    /// Adds the next bytes of the log.
    pub fn push(&mut self, bytes: &[u8]) -> Result<(), StorageError> {
        self.log.directory.check_room(&self.log.path, bytes.len())?;
        write_all_at(self.log.file.as_ref(), bytes, self.bytes)
            .map_err(failed_to("write", &self.log.path))?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    fn source(&self) -> Source {
        Source {
            base_offset: self.range.base_offset,
            end_offset: self.range.end_offset,
            size: self.bytes,
            path: self.log.path.clone(),
            aborted: self.aborted.clone(),
        }
    }
}

impl CleanedCopy {
    /// Its log, readable as long as this is held.
    pub fn log(&self) -> Arc<dyn DiskFile> {
        Arc::clone(&self.log.file)
    }
}

fn cleaned_file(base_offset: i64, suffix: &str) -> String {
    format!("{}{CLEANED}", segment_file(base_offset, suffix))
}

/// A file in the partition's directory that goes when it is let go of, unless the directory itself went before.
#[derive(Debug)]
struct TemporaryFile {
    directory: Arc<Directory>,
    gate: Arc<TaskGate>,
    partition_path: PathBuf,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
}

impl TemporaryFile {
    fn create(task: &CompactionTask, name: &str) -> Result<Self, StorageError> {
        Self::with_mode(task, name, OpenMode::CreateEmpty)
    }

    fn open(task: &CompactionTask, name: &str) -> Result<Self, StorageError> {
        Self::with_mode(task, name, OpenMode::Read)
    }

    fn with_mode(task: &CompactionTask, name: &str, mode: OpenMode) -> Result<Self, StorageError> {
        let (directory, gate) = (Arc::clone(&task.directory), Arc::clone(&task.gate));
        let partition_path = task.partition_path.clone();
        let path = partition_path.join(name);
        let file = {
            let _in_place = gate.pass(&partition_path)?;
            directory.disk.open(&path, mode).map_err(failed_to("open", &path))?
        };
        Ok(Self { directory, gate, partition_path, path, file })
    }

    fn content(&self) -> Result<Bytes, StorageError> {
        let bytes = read_file(self.directory.disk.as_ref(), &self.path)?;
        Ok(bytes.unwrap_or_default().into())
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        let Ok(_in_place) = self.gate.pass(&self.partition_path) else { return };
        // What stays behind after an error the next open removes.
        self.directory.disk.remove_file(&self.path).ok();
    }
}
