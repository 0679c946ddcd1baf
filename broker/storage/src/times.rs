//! Finding offsets by time, for ListOffsets.
//!
//! Indexes and headers narrow the search to one batch; only that batch is read and, if need be, decompressed.

use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::batch::BatchHeader;
use firn_records::lookup;

use crate::disk::read_exact_at;
use crate::error::{StorageError, failed_to};
use crate::open_files::Part;
use crate::partition_log::PartitionLog;
use crate::scan::{HeaderWalk, Located, Step};
use crate::segment::Segment;

/// A record's offset and timestamp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OffsetAndTimestamp {
    pub offset: i64,
    pub timestamp: i64,
    /// The epoch under which it was written; -1 if the batch has none.
    pub leader_epoch: i32,
}

impl PartitionLog {
    /// The first local record at or above the log start whose timestamp is at least `timestamp`.
    pub fn offset_for_timestamp(&self, timestamp: i64) -> Result<Option<OffsetAndTimestamp>, StorageError> {
        self.directory.check()?;
        for (index, segment) in self.segments.iter().enumerate() {
            if self.segment_end(index) <= self.log_start_offset
                || segment.largest_timestamp(self.home())?.timestamp < timestamp
            {
                continue;
            }
            let start = self.position_for_timestamp(segment, timestamp)?;
            let found = self.first_in_segment(segment, start, timestamp)?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The first of the local records that have the largest timestamp (ListOffsets' -3, KIP-734).
    pub fn max_timestamp(&self) -> Result<Option<OffsetAndTimestamp>, StorageError> {
        self.directory.check()?;
        let mut largest: Option<(usize, Located)> = None;
        for (index, segment) in self.segments.iter().enumerate() {
            if self.segment_end(index) <= self.log_start_offset || segment.size == 0 {
                continue;
            }
            let found = if segment.base_offset >= self.log_start_offset {
                segment.locate(self.home(), segment.largest_timestamp(self.home())?.offset)?
            } else {
                self.largest_above_start(segment)?
            };
            if let Some(located) = found.filter(|found| found.header.record_count > 0)
                && largest.is_none_or(|(_, known)| known.header.max_timestamp < located.header.max_timestamp)
            {
                largest = Some((index, located));
            }
        }
        let Some((index, located)) = largest else { return Ok(None) };
        let Some(segment) = self.segments.get(index) else { return Ok(None) };
        self.first_in_segment(segment, located.position, located.header.max_timestamp)
    }

    /// The first batch with the largest timestamp among those of `segment` that reach above the log start. A header of a
    /// batch that begins below it is returned with the largest timestamp of the records that count.
    fn largest_above_start(&self, segment: &Segment) -> Result<Option<Located>, StorageError> {
        let start = self.log_start_offset;
        let Some(first) = segment.locate(self.home(), start)? else { return Ok(None) };
        let path = self.home().log_path(segment.base_offset);
        let mut largest: Option<Located> = None;
        self.walk(segment, first.position, |mut located| {
            if located.header.record_count == 0 {
                return Ok(None);
            }
            if located.header.base_offset < start {
                let batch = self.read_batch(segment, &located)?;
                let counts = start..i64::MAX;
                let found =
                    lookup::max_timestamp(&located.header, &batch, &counts, BATCH_DECOMPRESSED_BYTES_MAX)
                        .map_err(|error| StorageError::corrupt(&path, error.to_string()))?;
                let Some(found) = found else { return Ok(None) };
                located.header.max_timestamp = found.timestamp;
            }
            if largest.is_none_or(|known| known.header.max_timestamp < located.header.max_timestamp) {
                largest = Some(located);
            }
            Ok(None::<()>)
        })?;
        Ok(largest)
    }

    /// Where to begin: the batch of the last time entry below `timestamp`, if it agrees with the entry.
    fn position_for_timestamp(&self, segment: &Segment, timestamp: i64) -> Result<u64, StorageError> {
        if segment.times.entries() == 0 {
            return Ok(0);
        }
        let file = segment.file_if(self.home(), Part::TimeIndex, segment.times.has_written())?;
        let path = segment.part_path(self.home(), Part::TimeIndex);
        let entry = segment
            .times
            .find_last(file.as_deref(), |entry| entry.timestamp < timestamp)
            .map_err(failed_to("read", &path))?;
        let Some(entry) = entry else { return Ok(0) };
        let offset = segment.base_offset + i64::from(entry.relative_offset);
        let located = segment.locate(self.home(), offset)?.filter(|located| {
            located.header.last_offset() == offset && located.header.max_timestamp == entry.timestamp
        });
        Ok(located.map_or(0, |located| located.position))
    }

    /// The first record from `position` on, at or above the log start, that is at least as young as `timestamp`. Batches
    /// whose largest timestamp is below it are not opened.
    fn first_in_segment(
        &self,
        segment: &Segment,
        position: u64,
        timestamp: i64,
    ) -> Result<Option<OffsetAndTimestamp>, StorageError> {
        let path = self.home().log_path(segment.base_offset);
        self.walk(segment, position, |located| {
            let header = &located.header;
            if header.last_offset() < self.log_start_offset
                || header.is_control()
                || header.max_timestamp < timestamp
            {
                return Ok(None);
            }
            let batch = self.read_batch(segment, &located)?;
            let start = self.log_start_offset;
            let found =
                lookup::first_at_or_after(header, &batch, timestamp, start, BATCH_DECOMPRESSED_BYTES_MAX)
                    .map_err(|error| StorageError::corrupt(&path, error.to_string()))?;
            Ok(found.map(|found| of(header, found)))
        })
    }

    fn read_batch(&self, segment: &Segment, located: &Located) -> Result<Vec<u8>, StorageError> {
        let path = self.home().log_path(segment.base_offset);
        let file = segment.file(self.home(), Part::Log)?;
        let mut batch = vec![0; located.header.size_in_bytes()];
        read_exact_at(file.as_ref(), &mut batch, located.position).map_err(failed_to("read", &path))?;
        Ok(batch)
    }

    /// Calls `visit` for each batch from `position` on, until it returns something.
    fn walk<T>(
        &self,
        segment: &Segment,
        position: u64,
        mut visit: impl FnMut(Located) -> Result<Option<T>, StorageError>,
    ) -> Result<Option<T>, StorageError> {
        let path = self.home().log_path(segment.base_offset);
        let file = segment.file(self.home(), Part::Log)?;
        let mut walk = HeaderWalk::new(file.as_ref(), position, segment.size);
        loop {
            match walk.next().map_err(failed_to("read", &path))? {
                Step::Batch(located) => {
                    if let Some(found) = visit(located)? {
                        return Ok(Some(found));
                    }
                }
                Step::End => return Ok(None),
                Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
            }
        }
    }
}

fn of(header: &BatchHeader, found: lookup::TimedOffset) -> OffsetAndTimestamp {
    let lookup::TimedOffset { offset, timestamp } = found;
    OffsetAndTimestamp { offset, timestamp, leader_epoch: header.partition_leader_epoch }
}
