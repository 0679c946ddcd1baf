//! Opening a log: from what a clean shutdown left, or from what a crash did.
//!
//! After a clean shutdown the last segment's tail is compared with the recovery point, and the newest leader epochs with a few
//! headers; no records are read. After
//! a crash everything from the recovery point on is read and its checksums verified; the log ends where the first batch
//! is not whole, and what follows is cut off. Below the recovery point everything was synced, so damage there is no torn
//! write: the log refuses to open rather than lose acknowledged records without a word. So it does wherever something is not
//! whole, when the checkpoint of the recovery points was damaged.
//!
//! What recovery finds valid it syncs before the log opens: what a reader has seen once, no later power cut takes back.
//! Every step can be cut short and is repeated by the next open.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;

use crate::directory::Directory;
use crate::disk::{DirEntry, Disk, OpenMode};
use crate::epochs::EpochCache;
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{
    INDEX, LEADER_EPOCHS, LOG, PARTITION_METADATA, RECOVERY_POINTS, SNAPSHOT, TIME_INDEX, TXN_INDEX,
    parse_segment_file,
};
use crate::index::OffsetEntry;
use crate::leftovers;
use crate::open_files::{Part, read_file};
use crate::partition_log::{PartitionLog, Unsynced};
use crate::scan::{BatchScan, HeaderWalk, Step};
use crate::segment::{Home, Segment};
use crate::truncate::cut_indexes;

/// What to open.
#[derive(Debug)]
pub(crate) struct Opening<'a> {
    pub(crate) directory: &'a Arc<Directory>,
    pub(crate) path: &'a Path,
    pub(crate) topic_partition: &'a TopicPartition,
    pub(crate) topic_id: TopicId,
    pub(crate) config: Arc<TopicConfig>,
    pub(crate) now_ms: i64,
    /// The directory was shut down cleanly.
    pub(crate) clean: bool,
    /// The partition's directory was created just now.
    pub(crate) is_new: bool,
}

/// The files of a partition's directory, sorted out.
#[derive(Debug, Default)]
struct Found {
    logs: BTreeMap<i64, u64>,
    indexes: BTreeMap<i64, u64>,
    time_indexes: BTreeMap<i64, u64>,
    txn_indexes: BTreeSet<i64>,
    snapshots: BTreeSet<i64>,
    has_epochs: bool,
}

impl Found {
    fn of(entries: &[DirEntry]) -> Self {
        let mut found = Self::default();
        for entry in entries.iter().filter(|entry| !entry.is_dir) {
            found.has_epochs |= entry.name == LEADER_EPOCHS;
            let Some((offset, suffix)) = parse_segment_file(&entry.name) else { continue };
            match suffix {
                LOG => {
                    found.logs.insert(offset, entry.len);
                }
                INDEX => {
                    found.indexes.insert(offset, entry.len);
                }
                TIME_INDEX => {
                    found.time_indexes.insert(offset, entry.len);
                }
                TXN_INDEX => {
                    found.txn_indexes.insert(offset);
                }
                SNAPSHOT => {
                    found.snapshots.insert(offset);
                }
                _ => {}
            }
        }
        found
    }
}

/// Opens one log. See the module.
pub(crate) fn open(opening: Opening<'_>) -> Result<PartitionLog, StorageError> {
    let (recovery_point, log_start) = opening.directory.recall(opening.topic_partition);
    let mut log = PartitionLog {
        directory: Arc::clone(opening.directory),
        gate: Arc::default(),
        path: opening.path.to_owned(),
        topic_partition: opening.topic_partition.clone(),
        topic_id: opening.topic_id,
        config: opening.config,
        segments: Vec::new(),
        log_start_offset: log_start.unwrap_or(0),
        end_offset: 0,
        flushed_offset: 0,
        tiered_end_offset: 0,
        epochs: EpochCache::default(),
        producers: Default::default(),
        snapshots: BTreeSet::new(),
        recent: Default::default(),
        sound: Arc::default(),
        unsynced: Unsynced { is_new: opening.is_new, ..Unsynced::default() },
        generation: 0,
        truncations: 0,
        high_watermark: opening.directory.high_watermark(opening.topic_partition),
        cleaned_offset: opening.directory.cleaned(opening.topic_partition),
        has_gaps: false,
        doomed: Vec::new(),
    };
    if opening.is_new {
        return Ok(log);
    }
    let disk = opening.directory.disk.as_ref();
    let mut entries = leftovers::resolve(disk, opening.path)?;
    if !opening.clean {
        ask_the_disk(disk, opening.path, &entries, recovery_point.unwrap_or(0))?;
        entries = disk.read_dir(opening.path).map_err(failed_to("list", opening.path))?;
    }
    let found = Found::of(&entries);
    log.remove_orphans(&found)?;
    log.snapshots = found.snapshots.clone();
    let epochs_known = log.load_epochs(&found)?;
    for (&base_offset, &bytes) in &found.logs {
        let index_bytes = found.indexes.get(&base_offset).copied().unwrap_or(0);
        let time_bytes = found.time_indexes.get(&base_offset).copied().unwrap_or(0);
        log.segments.push(Segment::of_files(base_offset, bytes, index_bytes, time_bytes, opening.now_ms));
    }
    let clean = opening.clean && log.is_as_it_was_closed(recovery_point)?;
    // The process that created the directory may have ended before its first flush.
    log.unsynced.is_new = !clean || log.segments.is_empty();
    if !clean {
        log.recover_from(recovery_point.unwrap_or(0))?;
    }
    log.rebuild_missing_indexes(&found)?;
    // Of a log whose epochs have to be read from the batches again, they tell nothing of what lies before these.
    let has_epochs = epochs_known && log.epochs_agree();
    let first_epoch_at = log.epochs.entries().first().map(|entry| entry.start_offset).filter(|_| has_epochs);
    if !has_epochs {
        log.rebuild_epochs()?;
    }
    if log_start.is_none() {
        log.guess_log_start(first_epoch_at);
    }
    log.settle(recovery_point, clean)?;
    log.load_producers()?;
    log.remember();
    for segment in &log.segments {
        segment.files.close();
    }
    Ok(log)
}

/// Sees to it that what is read of a log from here on is what the disk has. A sync that failed, before this process began,
/// has left pages in memory that are nowhere else, and that no later sync writes: Linux takes them for written. Records
/// read from there would be served, and found to be duplicates of what is sent again, and gone with the next power cut.
fn ask_the_disk(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[DirEntry],
    recovery_point: i64,
) -> Result<(), StorageError> {
    let base_of = |entry: &DirEntry| match parse_segment_file(&entry.name) {
        Some((base, LOG)) => Some(base),
        _ => None,
    };
    let first = entries.iter().filter_map(base_of).filter(|base| *base <= recovery_point).max().unwrap_or(0);
    let unsure = |entry: &&DirEntry| {
        entry.name == PARTITION_METADATA || base_of(entry).is_some_and(|base| base >= first)
    };
    for entry in entries.iter().filter(unsure) {
        let path = directory.join(&entry.name);
        let file = disk.open(&path, OpenMode::ReadWrite).map_err(failed_to("open", &path))?;
        // What a process that was killed left to be written is written first.
        file.sync_data().map_err(failed_to_sync(&path))?;
        file.drop_cache().map_err(failed_to("read anew", &path))?;
    }
    Ok(())
}

impl PartitionLog {
    /// Removes indexes and snapshots whose segment is gone; the newest snapshot may stand alone.
    fn remove_orphans(&self, found: &Found) -> Result<(), StorageError> {
        let suffixes = [
            (INDEX, found.indexes.keys().copied().collect::<Vec<_>>()),
            (TIME_INDEX, found.time_indexes.keys().copied().collect()),
            (TXN_INDEX, found.txn_indexes.iter().copied().collect()),
        ];
        for (suffix, offsets) in suffixes {
            for offset in offsets.into_iter().filter(|offset| !found.logs.contains_key(offset)) {
                self.remove_if_there(&crate::file_names::segment_file(offset, suffix))?;
            }
        }
        Ok(())
    }

    /// False when the batches have to be asked instead.
    fn load_epochs(&mut self, found: &Found) -> Result<bool, StorageError> {
        let path = self.path.join(LEADER_EPOCHS);
        if !found.has_epochs {
            return Ok(false);
        }
        self.gate.epochs_on_disk.store(true, Ordering::Relaxed);
        let Some(bytes) = read_file(self.directory.disk.as_ref(), &path)? else { return Ok(false) };
        match EpochCache::parse(&bytes) {
            Ok(epochs) => self.epochs = epochs,
            Err(reason) => {
                tracing::warn!(file = %path.display(), reason, "leader epochs are read from the batches again");
                return Ok(false);
            }
        }
        self.unsynced.epochs_synced = self.epochs.changes();
        Ok(true)
    }

    /// Does the last segment end, on a batch's edge, exactly at the recovery point? Then nothing was written since.
    fn is_as_it_was_closed(&mut self, recovery_point: Option<i64>) -> Result<bool, StorageError> {
        let home = Home { pool: &self.directory.pool, directory: &self.path };
        let Some(last) = self.segments.last() else {
            self.end_offset = self.log_start_offset;
            return Ok(true);
        };
        let Some(end) = tail_end(last, home)? else { return Ok(false) };
        if recovery_point != Some(end) {
            return Ok(false);
        }
        self.end_offset = end;
        let Some(last) = self.segments.last_mut() else { return Ok(true) };
        let times = last.file_if(home, Part::TimeIndex, last.times.has_written())?;
        let path = last.part_path(home, Part::TimeIndex);
        last.times.load_last(times.as_deref()).map_err(failed_to("read", &path))?;
        last.largest_timestamp(home)?;
        for segment in &mut self.segments {
            segment.synced = true;
        }
        Ok(true)
    }

    /// Reads and checks everything from the recovery point on, and cuts the log where it stops being whole.
    fn recover_from(&mut self, recovery_point: i64) -> Result<(), StorageError> {
        let first = self.segment_for(recovery_point).unwrap_or(0);
        for segment in self.segments.iter_mut().take(first) {
            segment.synced = true;
        }
        self.end_offset = self.segments.first().map_or(self.log_start_offset, |segment| segment.base_offset);
        let mut index = first;
        while index < self.segments.len() {
            let whole = self.recover_segment(index, recovery_point)?;
            index += 1;
            // Segments meet without a hole, compacted ones too: the cleaner keeps each one's last batch, if only its
            // header. So a hole above the recovery point is a tail that was never written, and what follows it was
            // never acknowledged.
            let next = self.segments.get(index).map(|next| next.base_offset);
            let hole = next.filter(|base| self.end_offset >= recovery_point && *base > self.end_offset);
            if let Some(base) = hole
                && let Some(why) =
                    why_synced(&self.directory, &self.topic_partition, self.end_offset, recovery_point)
            {
                let reason = format!("offsets {} to {} are missing; {why}", self.end_offset, base - 1);
                return Err(StorageError::corrupt(&self.path, reason));
            }
            if !whole || hole.is_some() {
                self.remove_segments_from(index)?;
                self.sync_names()?;
            }
        }
        Ok(())
    }

    /// Checks one segment; false when it was cut, so that nothing may follow it.
    fn recover_segment(&mut self, index: usize, recovery_point: i64) -> Result<bool, StorageError> {
        let home = Home { pool: &self.directory.pool, directory: &self.path };
        let interval = self.config.index_interval_bytes.max(0) as u64;
        let may_have_gaps = self.may_have_gaps();
        let next_base = self.segments.get(index + 1).map_or(i64::MAX, |next| next.base_offset);
        let Some(segment) = self.segments.get_mut(index) else { return Ok(true) };
        let path = home.log_path(segment.base_offset);
        let file = segment.file(home, Part::Log)?;
        let (start, bytes) = (start_of_scan(segment, home, recovery_point)?, segment.size);
        let largest = segment.largest_below(home, start.position)?;
        segment.rewind(start.position, largest);
        let mut expected = start.offset;
        let mut scan = BatchScan::new(file.as_ref(), start.position, bytes);
        let reason = loop {
            match scan.next().map_err(failed_to("read", &path))? {
                Step::Batch((located, _)) => {
                    let header = located.header;
                    // Where the scan begins, `expected` says only what comes after.
                    let is_exact = start.position == 0 || located.position > start.position;
                    let is_gap = is_exact && header.base_offset > expected && expected >= recovery_point;
                    // A leader's log may have been compacted before this one was told so.
                    self.has_gaps |= is_gap && !may_have_gaps;
                    if header.base_offset < expected || header.last_offset() >= next_base {
                        break format!("offset {} where {expected} is due", header.base_offset);
                    }
                    segment.batch_appended(&header, interval);
                    // What the file says from here on may be of a tail that was cut: the batches know better. Below the recovery
                    // point it was written before them, and a batch's own epoch is under no checksum.
                    let is_known = self.epochs.epoch_for_offset(header.base_offset).is_some();
                    if header.base_offset >= recovery_point || !is_known {
                        self.epochs.truncate_from_end(header.base_offset);
                        self.epochs.assign(header.partition_leader_epoch, header.base_offset);
                    }
                    expected = header.next_offset();
                }
                Step::End => {
                    self.end_offset = expected;
                    segment.push_time_entry();
                    unless_short(segment.write_indexes(home))?;
                    return Ok(true);
                }
                Step::Invalid { reason } => break reason,
            }
        };
        self.end_offset = expected;
        if let Some(why) = why_synced(&self.directory, &self.topic_partition, expected, recovery_point) {
            return Err(StorageError::corrupt(&path, format!("{reason}; {why}")));
        }
        let cut = bytes - segment.size;
        tracing::warn!(file = %path.display(), reason, cut_bytes = cut, end_offset = expected, "the tail of an unfinished write is cut off");
        file.set_len(segment.size).map_err(failed_to("cut", &path))?;
        segment.push_time_entry();
        unless_short(segment.write_indexes(home))?;
        Ok(false)
    }

    fn rebuild_missing_indexes(&mut self, found: &Found) -> Result<(), StorageError> {
        let home = Home { pool: &self.directory.pool, directory: &self.path };
        let interval = self.config.index_interval_bytes.max(0) as u64;
        let active = self.segments.len().saturating_sub(1);
        for (index, segment) in self.segments.iter_mut().enumerate() {
            let has_both = segment.index.entries() > 0 && segment.times.entries() > 0;
            let small = segment.size <= interval;
            let there = found.time_indexes.contains_key(&segment.base_offset);
            if segment.size > 0 && !has_both && !(there && small) && index < active {
                unless_short(segment.rebuild_indexes(home, interval))?;
            }
        }
        Ok(())
    }

    /// Nothing was noted of where the log starts: a tiered one at 0, another with its first segment. What was noted and is lost
    /// leaves two more: a log may have been tiered once, and what it had then is still in the store, before the
    /// first segment. Its first leader epoch begins where the log does, or before.
    fn guess_log_start(&mut self, first_epoch_at: Option<i64>) {
        let Some(first) = self.segments.first().filter(|_| !self.config.remote_storage_enable) else {
            // It may be tiered no more at the next start.
            self.directory.doubts_start(&self.topic_partition, self.log_start_offset);
            return;
        };
        let guess = first_epoch_at.map_or(first.base_offset, |epoch| epoch.min(first.base_offset));
        let is_lost = self.directory.doubts_start(&self.topic_partition, guess);
        self.log_start_offset = if is_lost { guess } else { first.base_offset };
    }

    /// Makes what was found the log's state, and durable.
    fn settle(&mut self, recovery_point: Option<i64>, clean: bool) -> Result<(), StorageError> {
        if self.end_offset < self.log_start_offset {
            // The log start is always durable, records perhaps not: what was deleted stays deleted.
            return self.start_empty_at(self.log_start_offset);
        }
        if let Some(point) = recovery_point.filter(|point| *point > self.end_offset) {
            return Err(StorageError::corrupt(
                &self.path,
                format!("it ends at offset {}, but all below {point} had been synced", self.end_offset),
            ));
        }
        self.high_watermark = self.high_watermark.min(self.end_offset);
        self.epochs.truncate_from_end(self.end_offset);
        self.epochs.truncate_from_start(self.log_start_offset);
        if clean {
            self.remove_snapshots_above(self.end_offset)?;
            self.flushed_offset = self.end_offset;
            return Ok(());
        }
        self.unsynced.names_changed += 1;
        self.flushed_offset = recovery_point.unwrap_or(0).min(self.end_offset);
        // A snapshot above may have been kept by the crash, and the index of aborted transactions beside it not: the
        // batches are read again, and tell both. What lies before the first batch no batch can tell.
        let first = self.segments.first().map_or(self.end_offset, |segment| segment.base_offset);
        self.remove_snapshots_above(self.flushed_offset.max(first))?;
        self.sync_recovered()
    }

    fn sync_recovered(&mut self) -> Result<(), StorageError> {
        if self.segments.is_empty() {
            return Ok(());
        }
        match self.task(true)?.run() {
            Ok(done) => {
                self.flushed(done);
                Ok(())
            }
            Err(error) => unless_short(Err(error)),
        }
    }
}

/// Why what is not whole at `offset` is no write that was not finished, and what to do; `None` if it may be one.
fn why_synced(
    directory: &Directory,
    partition: &TopicPartition,
    offset: i64,
    recovery_point: i64,
) -> Option<String> {
    if offset < recovery_point {
        return Some(format!(
            "all below offset {recovery_point} had been synced, so this is no torn write: restore the partition from a replica or the tier, or move its directory away"
        ));
    }
    directory.doubts_end(partition, offset).then(|| {
        format!(
            "{RECOVERY_POINTS} was damaged, so that nobody knows what had been synced: restore the partition from a replica or the tier, or stop the broker and remove that file to have the log end here"
        )
    })
}

/// A shortage must not keep a log from being read: what could not be written waits in memory.
pub(crate) fn unless_short(result: Result<(), StorageError>) -> Result<(), StorageError> {
    match result {
        Err(error) if error.is_shortage() => {
            tracing::warn!(%error, "recovery goes on without");
            Ok(())
        }
        other => other,
    }
}

/// Where recovery begins to read, and the smallest offset it may find there.
#[derive(Debug, Clone, Copy)]
struct Start {
    position: u64,
    offset: i64,
}

/// The last index entry below the recovery point whose batch agrees with it; entries above it are dropped, because
/// they are built again. Without one, the segment's beginning.
fn start_of_scan(segment: &mut Segment, home: Home<'_>, recovery_point: i64) -> Result<Start, StorageError> {
    let beginning = Start { position: 0, offset: segment.base_offset };
    let mut start = beginning;
    if segment.index.entries() > 0
        && let Ok(below) = u32::try_from(recovery_point - segment.base_offset)
    {
        let file = segment.file_if(home, Part::Index, segment.index.has_written())?;
        let path = segment.part_path(home, Part::Index);
        let entry = segment
            .index
            .find_last(file.as_deref(), |entry: &OffsetEntry| entry.relative_offset < below)
            .map_err(failed_to("read", &path))?;
        if let Some(entry) = entry
            && segment.entry_is_true(home, entry)?
        {
            let last = segment.base_offset + i64::from(entry.relative_offset);
            start = Start { position: u64::from(entry.position), offset: segment.base_offset };
            cut_indexes(segment, home, last + 1)?;
        }
    }
    if start.position == 0 {
        cut_indexes(segment, home, segment.base_offset)?;
    }
    Ok(start)
}

/// The offset after the last batch, when the file ends on its edge; `None` when something has to be repaired.
fn tail_end(segment: &Segment, home: Home<'_>) -> Result<Option<i64>, StorageError> {
    if segment.size == 0 {
        return Ok(Some(segment.base_offset));
    }
    let mut position = 0;
    if segment.index.entries() > 0 {
        let file = segment.file_if(home, Part::Index, segment.index.has_written())?;
        let path = segment.part_path(home, Part::Index);
        match segment.index.last(file.as_deref()).map_err(failed_to("read", &path))? {
            Some(entry) if segment.entry_is_true(home, entry)? => position = u64::from(entry.position),
            _ => return Ok(None),
        }
    }
    let path = home.log_path(segment.base_offset);
    let file = segment.file(home, Part::Log)?;
    let mut walk = HeaderWalk::new(file.as_ref(), position, segment.size);
    let mut end = segment.base_offset;
    loop {
        match walk.next().map_err(failed_to("read", &path))? {
            Step::Batch(located) if located.header.base_offset >= end => end = located.header.next_offset(),
            Step::End => return Ok(Some(end)),
            _ => return Ok(None),
        }
    }
}
