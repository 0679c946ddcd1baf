//! The heavy part of compaction, run without the log's lock: reads sealed segments, writes `.cleaned` ones.
//!
//! First the newest offset of each key in the dirty part is gathered, as far as memory goes; then every segment up to
//! there is copied, leaving out what is superseded. Aborted transactions' records go, markers stay as they are. Each new
//! segment keeps its last batch, emptied if need be: so segments still meet without a hole and recovery can read what
//! range a new segment stands for. Each producer's last batch stays too, for its sequence. All is synced at the end;
//! until the log swaps the files in, nothing of it counts.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use crate::cleaner_limits::CleanerLimits;
use crate::cold_compaction::ColdSegment;
use crate::directory::Directory;
use crate::disk::{DiskFile, OpenMode, write_all_at};
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{CLEANED, INDEX, LOG, TIME_INDEX, TXN_INDEX, segment_file};
use crate::offset_map::OffsetMap;
use crate::rewrite::Filter;
use crate::scan::{BatchScan, Located, Step};
use crate::segment::Segment;
use crate::task_gate::TaskGate;
use crate::txn_index::AbortedTxn;
use bytes::Bytes;
use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::batch::BatchHeader;
use firn_records::compaction::{Filtered, emptied};
use firn_records::lookup;
use firn_records::record::records;

/// Bytes gathered before they are written.
const WRITE_BYTES: usize = 1 << 20;

/// A segment to clean.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    pub(crate) base_offset: i64,
    /// Offset after its last.
    pub(crate) end_offset: i64,
    pub(crate) size: u64,
    /// Opened when it is read, and no longer: a log may have thousands of segments.
    pub(crate) path: PathBuf,
    pub(crate) aborted: Vec<AbortedTxn>,
}

/// Everything that the cleaner needs to know. See the module.
#[derive(Debug)]
pub struct CompactionTask {
    pub(crate) directory: Arc<Directory>,
    pub(crate) gate: Arc<TaskGate>,
    pub(crate) partition_path: PathBuf,
    pub(crate) generation: u64,
    /// What has left the disk, in the order of offsets; empty unless the log is compacted together with its tier.
    pub(crate) cold: Vec<ColdSegment>,
    pub(crate) sources: Vec<Source>,
    pub(crate) first_dirty_offset: i64,
    /// Last offset of each producer's last batch.
    pub(crate) last_of_producer: BTreeMap<i64, i64>,
    pub(crate) now_ms: i64,
    pub(crate) delete_retention_ms: i64,
    pub(crate) segment_bytes: u64,
    pub(crate) index_interval_bytes: u64,
    pub(crate) limits: CleanerLimits,
}

/// New segments, ready to be swapped in by [`crate::partition_log::PartitionLog::compacted`].
#[derive(Debug)]
pub struct Compacted {
    pub(crate) generation: u64,
    pub(crate) groups: Vec<CleanedGroup>,
    pub(crate) clean_end_offset: i64,
    pub(crate) bytes_before: u64,
}

/// One new segment and the range of old ones that it replaces.
#[derive(Debug)]
pub(crate) struct CleanedGroup {
    pub(crate) segment: Segment,
    pub(crate) end_offset: i64,
    pub(crate) aborted: Vec<AbortedTxn>,
    /// It holds other bytes than what it was made from.
    pub(crate) changed: bool,
}

impl CleanedGroup {
    /// What there is beside the log.
    pub(crate) fn derived(&self) -> Vec<&'static str> {
        let mut derived = vec![INDEX, TIME_INDEX];
        if !self.aborted.is_empty() {
            derived.push(TXN_INDEX);
        }
        derived
    }
}

/// The newest offset of each dirty key, as far as memory suffices.
#[derive(Debug)]
pub(crate) struct DirtyKeys {
    map: OffsetMap,
    first_dirty_offset: i64,
    /// Up to where keys have been gathered: nothing at or above is judged.
    pub(crate) end_offset: i64,
    full: bool,
}

impl DirtyKeys {
    pub(crate) fn new(task: &CompactionTask) -> Self {
        Self {
            map: OffsetMap::new(task.limits.dedupe_buffer_bytes),
            first_dirty_offset: task.first_dirty_offset,
            end_offset: task.first_dirty_offset,
            full: false,
        }
    }

    /// Takes the keys of `source`'s dirty batches in `[from, to)`. Sources come in the order of offsets.
    pub(crate) fn gather(
        &mut self,
        task: &CompactionTask,
        source: &Source,
        from: i64,
        to: i64,
    ) -> Result<(), StorageError> {
        let from = from.max(self.first_dirty_offset);
        if self.full || to <= from {
            return Ok(());
        }
        task.each_batch(source, |located, batch| {
            let header = &located.header;
            if self.full || header.base_offset < from || header.base_offset >= to {
                return Ok(());
            }
            if !header.is_control() && !is_aborted(source, header) {
                let payload = lookup::payload(header, batch, BATCH_DECOMPRESSED_BYTES_MAX)
                    .map_err(|error| error.to_string())?;
                for record in records(header.record_count, &payload) {
                    let record = record.map_err(|error| error.to_string())?;
                    let offset = header.base_offset + i64::from(record.offset_delta);
                    // What a batch half read has put into the map is above the end, where nothing is judged.
                    if record.key.is_some_and(|key| !self.map.put(key, offset)) {
                        self.full = true;
                        return Ok(());
                    }
                }
            }
            self.end_offset = header.next_offset();
            Ok(())
        })?;
        if !self.full {
            self.end_offset = to;
        }
        Ok(())
    }
}

/// Runs of segments that fit one segment together (Kafka's `groupSegmentsBySize`), as numbers of segments. `extent` says
/// of a segment its base offset, the offset after its last, and its bytes.
pub(crate) fn group_by_size<T>(
    segments: &[T],
    segment_bytes: u64,
    extent: impl Fn(&T) -> (i64, i64, u64),
) -> Vec<usize> {
    let mut groups = Vec::new();
    let mut rest = segments;
    while let Some(first) = rest.first() {
        let first_base = extent(first).0;
        let mut bytes = 0u64;
        let fits = rest
            .iter()
            .take_while(|segment| {
                let (base_offset, end_offset, size) = extent(segment);
                bytes = bytes.saturating_add(size);
                base_offset == first_base
                    || (bytes <= segment_bytes && end_offset - first_base <= i64::from(i32::MAX))
            })
            .count();
        groups.push(fits);
        rest = rest.get(fits..).unwrap_or_default();
    }
    groups
}

impl CompactionTask {
    /// Cleans, unless it is stopped. Call it without holding the log's lock. After an error nothing of it stays on the
    /// disk, which may be full.
    pub fn run(self) -> Result<Compacted, StorageError> {
        let mut keys = DirtyKeys::new(&self);
        self.gather_local(&mut keys)?;
        self.clean_local(&keys)
    }

    pub(crate) fn gather_local(&self, keys: &mut DirtyKeys) -> Result<(), StorageError> {
        self.directory.check()?;
        for source in &self.sources {
            keys.gather(self, source, source.base_offset, source.end_offset)?;
        }
        Ok(())
    }

    pub(crate) fn clean_local(&self, keys: &DirtyKeys) -> Result<Compacted, StorageError> {
        self.directory.check()?;
        let sources: Vec<&Source> =
            self.sources.iter().filter(|source| source.base_offset < keys.end_offset).collect();
        let extent = |source: &&Source| (source.base_offset, source.end_offset, source.size);
        let mut groups = Vec::new();
        let mut rest = sources.as_slice();
        for count in group_by_size(&sources, self.segment_bytes, extent) {
            let (group, after) = rest.split_at(count);
            match self.clean_group(group, keys, true) {
                Ok(cleaned) => groups.push(cleaned),
                Err(error) => {
                    groups.iter().for_each(|done| self.remove_cleaned(done.segment.base_offset));
                    return Err(error);
                }
            }
            rest = after;
        }
        Ok(Compacted {
            generation: self.generation,
            groups,
            clean_end_offset: keys.end_offset,
            bytes_before: sources.iter().map(|source| source.size).sum(),
        })
    }

    /// Writes what is left of the sources as one `.cleaned` segment, and syncs it if it is to be `durable`.
    pub(crate) fn clean_group(
        &self,
        group: &[&Source],
        keys: &DirtyKeys,
        durable: bool,
    ) -> Result<CleanedGroup, StorageError> {
        let (base_offset, group_end) = match (group.first(), group.last()) {
            (Some(first), Some(last)) => (first.base_offset, last.end_offset),
            _ => return Err(StorageError::corrupt(&self.partition_path, "an empty group of segments")),
        };
        let cleaned = self.write_group(group, base_offset, group_end, keys, durable);
        cleaned.inspect_err(|_| self.remove_cleaned(base_offset))
    }

    fn write_group(
        &self,
        group: &[&Source],
        base_offset: i64,
        group_end: i64,
        keys: &DirtyKeys,
        durable: bool,
    ) -> Result<CleanedGroup, StorageError> {
        let filter = Filter {
            now_ms: self.now_ms,
            delete_retention_ms: self.delete_retention_ms,
            is_newest: &|key, offset| keys.map.get(key).is_none_or(|newest| offset >= newest),
            end_offset: keys.end_offset,
        };
        let mut output = self.create(base_offset, durable)?;
        let mut changed = group.len() > 1;
        for source in group {
            let mut pending: Option<(BatchHeader, Option<Bytes>)> = None;
            let is_last_source = source.end_offset == group_end;
            self.each_batch(source, |located, batch| {
                // The batch before turned out not to be the last one.
                match pending.take() {
                    Some((header, Some(bytes))) => {
                        output.push(&header, &bytes).map_err(|error| error.to_string())?;
                    }
                    Some((_, None)) => changed = true,
                    None => {}
                }
                let kept = self.judge(source, &located.header, batch, &filter)?;
                changed |= kept.as_ref().is_some_and(|kept| kept != batch);
                pending = Some((located.header, kept));
                Ok(())
            })?;
            match pending {
                Some((header, Some(bytes))) => output.push(&header, &bytes)?,
                Some((header, None)) if is_last_source => {
                    changed |= header.record_count > 0;
                    output.push(&header, &emptied(&header))?;
                }
                _ => {}
            }
        }
        let aborted: Vec<AbortedTxn> =
            group.iter().flat_map(|source| source.own_aborted().copied()).collect();
        let segment = output.finish(&aborted)?;
        Ok(CleanedGroup { segment, end_offset: group_end, aborted, changed })
    }

    /// The bytes to write for a batch, or none.
    fn judge(
        &self,
        source: &Source,
        header: &BatchHeader,
        batch: &[u8],
        filter: &Filter<'_>,
    ) -> Result<Option<Bytes>, String> {
        if header.is_control() {
            return Ok(Some(Bytes::copy_from_slice(batch)));
        }
        let outcome =
            if is_aborted(source, header) { Filtered::Empty } else { filter.apply(header, batch)? };
        Ok(match outcome {
            Filtered::Unchanged => Some(Bytes::copy_from_slice(batch)),
            Filtered::Rewritten(bytes) => Some(bytes),
            Filtered::Empty => {
                let last = self.last_of_producer.get(&header.producer_id);
                (header.has_producer_id() && last == Some(&header.last_offset())).then(|| emptied(header))
            }
        })
    }

    /// Calls `visit` for every batch of a segment, each with its checksum verified, until compaction is stopped. Where a batch says that it
    /// lies is under no checksum, and is held against the ones around it: what is written anew could not be any more.
    fn each_batch(
        &self,
        source: &Source,
        mut visit: impl FnMut(&Located, &[u8]) -> Result<(), String>,
    ) -> Result<(), StorageError> {
        let file = self.open(source)?;
        let mut scan = BatchScan::new(file.as_ref(), 0, source.size);
        let mut due = source.base_offset;
        loop {
            self.directory.check_compaction()?;
            match scan.next().map_err(failed_to("read", &source.path))? {
                Step::Batch((located, batch)) => {
                    let (base, last) = (located.header.base_offset, located.header.last_offset());
                    if base < due || last >= source.end_offset {
                        let reason = format!(
                            "offsets {base} to {last} where {due} is due, before {}",
                            source.end_offset
                        );
                        return Err(StorageError::corrupt(&source.path, reason));
                    }
                    due = located.header.next_offset();
                    visit(&located, batch).map_err(|reason| StorageError::corrupt(&source.path, reason))?;
                    self.spend(batch.len());
                }
                Step::End => return Ok(()),
                Step::Invalid { reason } => return Err(StorageError::corrupt(&source.path, reason)),
            }
        }
    }

    /// Slept off without the gate: who moves or deletes the log does not wait for it.
    fn spend(&self, bytes: usize) {
        self.limits.pace.spend(bytes as u64, &|| self.directory.is_compaction_stopped());
    }

    pub(crate) fn open(&self, source: &Source) -> Result<Arc<dyn DiskFile>, StorageError> {
        let _in_place = self.gate.pass(&self.partition_path)?;
        match self.directory.disk.open(&source.path, OpenMode::Read) {
            // Retention took it. What has been cleaned would not be swapped in.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(StorageError::CompactionStopped),
            opened => opened.map_err(failed_to("open", &source.path)),
        }
    }

    /// Removes a `.cleaned` segment that will not be swapped in.
    pub(crate) fn remove_cleaned(&self, base_offset: i64) {
        let Ok(_in_place) = self.gate.pass(&self.partition_path) else { return };
        for suffix in [LOG, INDEX, TIME_INDEX, TXN_INDEX] {
            let path = self.partition_path.join(format!("{}{CLEANED}", segment_file(base_offset, suffix)));
            // What is not there needs no removing, and what cannot be removed now the next open removes.
            self.directory.disk.remove_file(&path).ok();
        }
    }

    pub(crate) fn create(&self, base_offset: i64, durable: bool) -> Result<Output<'_>, StorageError> {
        let _in_place = self.gate.pass(&self.partition_path)?;
        let path = self.partition_path.join(format!("{}{CLEANED}", segment_file(base_offset, LOG)));
        let disk = self.directory.disk.as_ref();
        let file = disk.open(&path, OpenMode::CreateEmpty).map_err(failed_to("create", &path))?;
        Ok(Output {
            task: self,
            durable,
            path,
            file,
            buffer: Vec::new(),
            written: 0,
            segment: Segment::new(base_offset, self.now_ms),
        })
    }
}

impl Source {
    /// Aborted transactions whose markers lie in this segment.
    pub(crate) fn own_aborted(&self) -> impl Iterator<Item = &AbortedTxn> {
        self.aborted
            .iter()
            .filter(|txn| txn.last_offset >= self.base_offset && txn.last_offset < self.end_offset)
    }
}

fn is_aborted(source: &Source, header: &BatchHeader) -> bool {
    header.is_transactional()
        && source.aborted.iter().any(|txn| {
            txn.producer_id == header.producer_id
                && txn.first_offset <= header.base_offset
                && header.base_offset <= txn.last_offset
        })
}

/// A `.cleaned` segment being written.
#[derive(Debug)]
pub(crate) struct Output<'a> {
    task: &'a CompactionTask,
    durable: bool,
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    buffer: Vec<u8>,
    written: u64,
    segment: Segment,
}

impl Output<'_> {
    pub(crate) fn push(&mut self, old: &BatchHeader, bytes: &[u8]) -> Result<(), StorageError> {
        let header = BatchHeader::parse(bytes)
            .map_err(|error| StorageError::corrupt(&self.path, error.to_string()))?;
        if header.base_offset != old.base_offset || header.last_offset() != old.last_offset() {
            return Err(StorageError::corrupt(&self.path, "the cleaner moved an offset"));
        }
        self.segment.batch_appended(&header, self.task.index_interval_bytes);
        self.buffer.extend_from_slice(bytes);
        if self.buffer.len() >= WRITE_BYTES { self.write() } else { Ok(()) }
    }

    fn write(&mut self) -> Result<(), StorageError> {
        {
            let _in_place = self.task.gate.pass(&self.task.partition_path)?;
            self.task.directory.check_room(&self.path, self.buffer.len())?;
            write_all_at(self.file.as_ref(), &self.buffer, self.written)
                .map_err(failed_to("write", &self.path))?;
        }
        self.task.spend(self.buffer.len());
        self.written += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Writes the segment and its indexes, and syncs them.
    pub(crate) fn finish(mut self, aborted: &[AbortedTxn]) -> Result<Segment, StorageError> {
        self.write()?;
        self.sync(&self.file, &self.path)?;
        self.segment.push_time_entry();
        let (path, file) = self.sibling(INDEX)?;
        self.segment.index.write_pending(file.as_ref()).map_err(failed_to("write", &path))?;
        self.sync(&file, &path)?;
        let (path, file) = self.sibling(TIME_INDEX)?;
        self.segment.times.write_pending(file.as_ref()).map_err(failed_to("write", &path))?;
        self.sync(&file, &path)?;
        if !aborted.is_empty() {
            let (path, file) = self.sibling(TXN_INDEX)?;
            let bytes: Vec<u8> = aborted.iter().flat_map(AbortedTxn::encode).collect();
            write_all_at(file.as_ref(), &bytes, 0).map_err(failed_to("write", &path))?;
            self.sync(&file, &path)?;
        }
        self.segment.synced = self.durable;
        Ok(self.segment)
    }

    fn sibling(&self, suffix: &str) -> Result<(PathBuf, Arc<dyn DiskFile>), StorageError> {
        let _in_place = self.task.gate.pass(&self.task.partition_path)?;
        let name = format!("{}{CLEANED}", segment_file(self.segment.base_offset, suffix));
        let path = self.task.partition_path.join(name);
        let disk = self.task.directory.disk.as_ref();
        let file = disk.open(&path, OpenMode::CreateEmpty).map_err(failed_to("create", &path))?;
        Ok((path, file))
    }

    /// A failed sync stops the directory, here as everywhere: the device has lost a write.
    fn sync(&self, file: &Arc<dyn DiskFile>, path: &std::path::Path) -> Result<(), StorageError> {
        if !self.durable {
            return Ok(());
        }
        file.sync_data().map_err(failed_to_sync(path)).inspect_err(|error| self.task.directory.fail(error))
    }
}
