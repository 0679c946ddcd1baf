//! One segment of a log: a run of batches in one file, and the two sparse indexes over it.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use firn_records::batch::BatchHeader;

use crate::disk::DiskFile;
use crate::error::{StorageError, failed_to};
use crate::file_names::{LOG, segment_file};
use crate::index::{Index, OffsetEntry, TimeEntry};
use crate::open_files::{OpenFiles, Part, SegmentFiles};
use crate::scan::{HeaderWalk, Located, Step};

/// Where a log's files are and who opens them.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Home<'a> {
    pub(crate) pool: &'a OpenFiles,
    pub(crate) directory: &'a Path,
}

impl Home<'_> {
    pub(crate) fn log_path(&self, base_offset: i64) -> std::path::PathBuf {
        self.directory.join(segment_file(base_offset, LOG))
    }
}

/// A timestamp and the last offset of the batch that reached it first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TimestampOffset {
    pub(crate) timestamp: i64,
    pub(crate) offset: i64,
    /// The batch has records: of one that was emptied only the header still says a time, at which nobody finds a record.
    pub(crate) of_record: bool,
}

impl TimestampOffset {
    /// Of a segment without a timestamp.
    pub(crate) fn none(base_offset: i64) -> Self {
        Self { timestamp: -1, offset: base_offset, of_record: false }
    }

    /// The larger one of what is known and a batch after it. A time of records counts for more than any other.
    pub(crate) fn or_later(self, header: &BatchHeader) -> Self {
        let of_record = header.record_count > 0;
        if (self.of_record, self.timestamp) >= (of_record, header.max_timestamp) {
            return self;
        }
        Self { timestamp: header.max_timestamp, offset: header.last_offset(), of_record }
    }
}

/// See the module. `size` and the offsets are the owner's truth; the file may have junk behind after a failed write.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) base_offset: i64,
    /// Bytes of whole batches in the log file.
    pub(crate) size: u64,
    pub(crate) index: Index<OffsetEntry>,
    pub(crate) times: Index<TimeEntry>,
    pub(crate) files: Arc<SegmentFiles>,
    /// The largest timestamp; not known of a sealed segment until somebody asks.
    largest: OnceLock<TimestampOffset>,
    /// `max_timestamp` of the first batch, for rolling by time.
    first_timestamp: OnceLock<i64>,
    pub(crate) created_ms: i64,
    bytes_since_index: u64,
    /// Log, indexes and snapshot of a sealed segment are all on stable storage.
    pub(crate) synced: bool,
    /// An index entry did not match its batch.
    index_suspect: AtomicBool,
}

impl Segment {
    /// An empty segment whose file is created by its first write.
    pub(crate) fn new(base_offset: i64, now_ms: i64) -> Self {
        let segment = Self::of_files(base_offset, 0, 0, 0, now_ms);
        segment.set_largest(TimestampOffset::none(base_offset));
        segment
    }

    /// A segment found on disk, by the lengths of its files.
    pub(crate) fn of_files(
        base_offset: i64,
        log_bytes: u64,
        index_bytes: u64,
        time_index_bytes: u64,
        now_ms: i64,
    ) -> Self {
        Self {
            base_offset,
            size: log_bytes,
            index: Index::of_file_length(index_bytes),
            times: Index::of_file_length(time_index_bytes),
            files: Arc::default(),
            largest: OnceLock::new(),
            first_timestamp: OnceLock::new(),
            created_ms: now_ms,
            bytes_since_index: 0,
            synced: false,
            index_suspect: AtomicBool::new(false),
        }
    }

    pub(crate) fn file(&self, home: Home<'_>, part: Part) -> Result<Arc<dyn DiskFile>, StorageError> {
        self.files.get(home.pool, home.directory, self.base_offset, part)
    }

    /// The file, unless there is no need to open it.
    pub(crate) fn file_if(
        &self,
        home: Home<'_>,
        part: Part,
        needed: bool,
    ) -> Result<Option<Arc<dyn DiskFile>>, StorageError> {
        if needed { self.file(home, part).map(Some) } else { Ok(None) }
    }

    pub(crate) fn part_path(&self, home: Home<'_>, part: Part) -> std::path::PathBuf {
        home.directory.join(segment_file(self.base_offset, part.suffix()))
    }

    pub(crate) fn set_largest(&self, largest: TimestampOffset) {
        // Only called where nothing is known yet, or with what the file says anyway.
        let _already = self.largest.set(largest);
    }

    /// The largest timestamp of the segment's records, or of its batches when all were emptied; -1 when none has one.
    pub(crate) fn largest_timestamp(&self, home: Home<'_>) -> Result<TimestampOffset, StorageError> {
        if let Some(known) = self.largest.get() {
            return Ok(*known);
        }
        let nothing = TimestampOffset::none(self.base_offset);
        let largest = match self.verified_time_entry(home)? {
            Some((known, _)) => known,
            None => self.largest_below(home, self.size)?.unwrap_or(nothing),
        };
        self.set_largest(largest);
        Ok(largest)
    }

    /// The largest timestamp of what this process has written, -1 if none of it has one.
    pub(crate) fn written_timestamp(&self) -> i64 {
        self.largest.get().map_or(-1, |largest| largest.timestamp)
    }

    /// `max_timestamp` of the first batch; `None` while the segment is empty.
    pub(crate) fn first_timestamp(&self, home: Home<'_>) -> Result<Option<i64>, StorageError> {
        if self.size == 0 {
            return Ok(None);
        }
        if let Some(known) = self.first_timestamp.get() {
            return Ok(Some(*known));
        }
        let file = self.file(home, Part::Log)?;
        let path = home.log_path(self.base_offset);
        match HeaderWalk::new(file.as_ref(), 0, self.size).next().map_err(failed_to("read", &path))? {
            Step::Batch(first) => Ok(Some(*self.first_timestamp.get_or_init(|| first.header.max_timestamp))),
            Step::End => Ok(None),
            Step::Invalid { reason } => Err(StorageError::corrupt(&path, reason)),
        }
    }

    /// Accounts for a batch that was written at the segment's end.
    pub(crate) fn batch_appended(&mut self, header: &BatchHeader, index_interval_bytes: u64) {
        let bytes = header.size_in_bytes() as u64;
        if self.size == 0 {
            self.first_timestamp = OnceLock::from(header.max_timestamp);
        }
        let known = self.largest.get().copied().unwrap_or(TimestampOffset::none(self.base_offset));
        self.largest = OnceLock::from(known.or_later(header));
        if self.bytes_since_index > index_interval_bytes {
            if let (Ok(relative_offset), Ok(position)) =
                (u32::try_from(header.last_offset() - self.base_offset), u32::try_from(self.size))
            {
                self.index.push(OffsetEntry { relative_offset, position });
            }
            self.push_time_entry();
            self.bytes_since_index = 0;
        }
        self.size += bytes;
        self.bytes_since_index += bytes;
        self.synced = false;
    }

    /// Adds the largest timestamp so far to the time index, unless its last entry says so already. No entry is of a batch
    /// without records: Kafka's tools look for a record of that time.
    pub(crate) fn push_time_entry(&mut self) {
        let Some(largest) = self.largest.get().copied() else { return };
        let Ok(relative_offset) = u32::try_from(largest.offset - self.base_offset) else { return };
        let known = self.times.last_in_memory().map(|entry| entry.timestamp);
        if largest.of_record && largest.timestamp >= 0 && known.is_none_or(|known| known < largest.timestamp)
        {
            self.times.push(TimeEntry { timestamp: largest.timestamp, relative_offset });
        }
    }

    /// Writes the index entries that wait in memory.
    pub(crate) fn write_indexes(&mut self, home: Home<'_>) -> Result<(), StorageError> {
        if self.index.has_pending() {
            let file = self.file(home, Part::Index)?;
            let path = self.part_path(home, Part::Index);
            self.index.write_pending(file.as_ref()).map_err(failed_to("write", &path))?;
        }
        if self.times.has_pending() {
            // Kafka's tools open the offset index beside a time index, and object when it is not there.
            self.file(home, Part::Index)?;
            let file = self.file(home, Part::TimeIndex)?;
            let path = self.part_path(home, Part::TimeIndex);
            self.times.write_pending(file.as_ref()).map_err(failed_to("write", &path))?;
        }
        Ok(())
    }

    /// The first batch that holds `offset` or an offset above it; `None` when the segment ends before.
    pub(crate) fn locate(&self, home: Home<'_>, offset: i64) -> Result<Option<Located>, StorageError> {
        Ok(self.locate_in_order(home, offset)?.map(|(located, _)| located))
    }

    /// The same, with the offset that is due where it lies, by what lies before it or by the index.
    pub(crate) fn locate_in_order(
        &self,
        home: Home<'_>,
        offset: i64,
    ) -> Result<Option<(Located, i64)>, StorageError> {
        let path = home.log_path(self.base_offset);
        if self.size == 0 {
            return Ok(None);
        }
        let start = self.indexed_position(home, offset)?;
        let file = self.file(home, Part::Log)?;
        let mut walk = HeaderWalk::new(file.as_ref(), start, self.size);
        let mut due = (start == 0).then_some(self.base_offset);
        loop {
            match walk.next().map_err(failed_to("read", &path))? {
                Step::Batch(located) if located.header.last_offset() >= offset => {
                    return Ok(Some((located, due.unwrap_or(located.header.base_offset))));
                }
                Step::Batch(located) => due = Some(located.header.next_offset()),
                Step::End => return Ok(None),
                Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
            }
        }
    }

    /// First offset after the last batch that lies wholly below `offset`; the segment's base offset if none does.
    pub(crate) fn end_below(&self, home: Home<'_>, offset: i64) -> Result<i64, StorageError> {
        let path = home.log_path(self.base_offset);
        let floor = match self.locate(home, offset)? {
            Some(located) => located.header.base_offset.min(offset),
            None => offset,
        };
        if self.size == 0 {
            return Ok(self.base_offset);
        }
        let start = self.indexed_position(home, floor - 1)?;
        let file = self.file(home, Part::Log)?;
        let mut walk = HeaderWalk::new(file.as_ref(), start, self.size);
        let mut end = self.base_offset;
        loop {
            match walk.next().map_err(failed_to("read", &path))? {
                Step::Batch(located) if located.header.next_offset() <= floor => {
                    end = located.header.next_offset();
                }
                Step::Batch(_) | Step::End => return Ok(end),
                Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
            }
        }
    }

    /// A position at or before the batch that holds `offset`: the index's, when the batch there agrees with it.
    fn indexed_position(&self, home: Home<'_>, offset: i64) -> Result<u64, StorageError> {
        let Ok(relative) = u32::try_from(offset.saturating_sub(self.base_offset).max(0)) else {
            return Ok(0);
        };
        if self.index.entries() == 0 {
            return Ok(0);
        }
        let file = self.file_if(home, Part::Index, self.index.has_written())?;
        let path = self.part_path(home, Part::Index);
        let found = self
            .index
            .find_last(file.as_deref(), |entry| entry.relative_offset <= relative)
            .map_err(failed_to("read", &path))?;
        let Some(entry) = found else { return Ok(0) };
        if self.entry_is_true(home, entry)? {
            return Ok(u64::from(entry.position));
        }
        if !self.index_suspect.swap(true, Ordering::Relaxed) {
            tracing::warn!(file = %path.display(), "an index entry points at no batch of its offset; the index will be rebuilt");
        }
        Ok(0)
    }

    /// Does the batch at the entry's position end at the entry's offset?
    pub(crate) fn entry_is_true(&self, home: Home<'_>, entry: OffsetEntry) -> Result<bool, StorageError> {
        let file = self.file(home, Part::Log)?;
        let path = home.log_path(self.base_offset);
        let step = HeaderWalk::new(file.as_ref(), u64::from(entry.position), self.size)
            .next()
            .map_err(failed_to("read", &path))?;
        let wanted = self.base_offset + i64::from(entry.relative_offset);
        Ok(matches!(step, Step::Batch(located) if located.header.last_offset() == wanted))
    }

    pub(crate) fn index_is_suspect(&self) -> bool {
        self.index_suspect.load(Ordering::Relaxed)
    }

    /// Forgets what is only derived from the batches, before they are read again from `position` on.
    pub(crate) fn rewind(&mut self, position: u64, largest: Option<TimestampOffset>) {
        self.size = position;
        self.bytes_since_index = 0;
        self.first_timestamp = OnceLock::new();
        self.largest = OnceLock::from(largest.unwrap_or(TimestampOffset::none(self.base_offset)));
        self.index_suspect = AtomicBool::new(false);
        self.synced = false;
    }
}
