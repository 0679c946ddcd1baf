//! Rebuilding what is derived from a segment's batches: indexes, largest timestamp, producers, aborted transactions.

use firn_records::batch::BatchHeader;
use firn_records::control::EndTransactionMarker;

use crate::disk::{DiskFile, read_exact_at};
use crate::error::{StorageError, failed_to};
use crate::file_names::{SNAPSHOT, segment_file};
use crate::open_files::{Part, read_file};
use crate::partition_log::PartitionLog;
use crate::producer_snapshot;
use crate::recovery::unless_short;
use crate::scan::{HeaderWalk, Located, Step};
use crate::segment::{Home, Segment, TimestampOffset};

/// The newest epochs: those that a leader may be asked for next.
const EPOCHS_COMPARED: usize = 4;

impl Segment {
    /// The largest timestamp of the batches before `position`, whose index entries are all that is left.
    pub(crate) fn largest_below(
        &self,
        home: Home<'_>,
        position: u64,
    ) -> Result<Option<TimestampOffset>, StorageError> {
        let path = home.log_path(self.base_offset);
        let file = self.file(home, Part::Log)?;
        let mut largest: Option<TimestampOffset> = None;
        let mut from = 0;
        if let Some((known, at)) = self.verified_time_entry(home)?.filter(|(_, at)| *at < position) {
            largest = Some(known);
            from = at;
        }
        let mut walk = HeaderWalk::new(file.as_ref(), from, position);
        loop {
            match walk.next().map_err(failed_to("read", &path))? {
                Step::Batch(located) => {
                    let known = largest.unwrap_or(TimestampOffset::none(self.base_offset));
                    largest = Some(known.or_later(&located.header));
                }
                Step::End => return Ok(largest),
                Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
            }
        }
    }

    /// The last time entry and the position of its batch, if the batch agrees with it.
    pub(crate) fn verified_time_entry(
        &self,
        home: Home<'_>,
    ) -> Result<Option<(TimestampOffset, u64)>, StorageError> {
        if self.times.entries() == 0 {
            return Ok(None);
        }
        let file = self.file_if(home, Part::TimeIndex, self.times.has_written())?;
        let path = self.part_path(home, Part::TimeIndex);
        let Some(last) = self.times.last(file.as_deref()).map_err(failed_to("read", &path))? else {
            return Ok(None);
        };
        let offset = self.base_offset + i64::from(last.relative_offset);
        let Some(located) = self.locate(home, offset)? else { return Ok(None) };
        let header = &located.header;
        let agrees = header.last_offset() == offset && header.max_timestamp == last.timestamp;
        let entry = TimestampOffset { timestamp: last.timestamp, offset, of_record: true };
        Ok((agrees && header.record_count > 0).then_some((entry, located.position)))
    }

    /// Builds both indexes again from the batches' headers.
    pub(crate) fn rebuild_indexes(
        &mut self,
        home: Home<'_>,
        index_interval_bytes: u64,
    ) -> Result<(), StorageError> {
        let size = self.size;
        let path = home.log_path(self.base_offset);
        let log = self.file(home, Part::Log)?;
        let index = self.file(home, Part::Index)?;
        self.index.reset(index.as_ref()).map_err(failed_to("cut", &self.part_path(home, Part::Index)))?;
        let times = self.file(home, Part::TimeIndex)?;
        self.times.reset(times.as_ref()).map_err(failed_to("cut", &self.part_path(home, Part::TimeIndex)))?;
        self.rewind(0, None);
        let mut walk = HeaderWalk::new(log.as_ref(), 0, size);
        loop {
            match walk.next().map_err(failed_to("read", &path))? {
                Step::Batch(located) => self.batch_appended(&located.header, index_interval_bytes),
                Step::End => break,
                Step::Invalid { reason } => {
                    self.size = size;
                    return Err(StorageError::corrupt(&path, reason));
                }
            }
        }
        self.push_time_entry();
        self.write_indexes(home)
    }
}

impl PartitionLog {
    /// Rebuilds the indexes that a reader found wrong.
    pub(crate) fn rebuild_suspect_indexes(&mut self) -> Result<(), StorageError> {
        let home = Home { pool: &self.directory.pool, directory: &self.path };
        let interval = self.config.index_interval_bytes.max(0) as u64;
        for segment in self.segments.iter_mut().filter(|segment| segment.index_is_suspect()) {
            segment.rebuild_indexes(home, interval)?;
        }
        Ok(())
    }

    /// Whether the batches say of each epoch that it begins where it is known to: the file may have no checksum. Nor has what a batch
    /// says of its epoch, so that it takes two of them to say otherwise; and what cannot be read says nothing.
    pub(crate) fn epochs_agree(&self) -> bool {
        let local_start = self.local_start_offset();
        let written = self.epochs.entries().iter().filter(|entry| entry.start_offset < self.end_offset);
        written.rev().take(EPOCHS_COMPARED).all(|entry| {
            let disagrees = |header: &BatchHeader| {
                let known = self.epochs.epoch_for_offset(header.base_offset);
                known.is_some_and(|known| known != header.partition_leader_epoch)
            };
            // The other one is read only if the first disagrees.
            let both = |at: i64, other: fn(&BatchHeader) -> i64| {
                let one = self.header_at(at).filter(disagrees);
                one.and_then(|one| self.header_at(other(&one))).as_ref().is_some_and(disagrees)
            };
            let first_disagree = both(entry.start_offset.max(local_start), BatchHeader::next_offset);
            let has_before = entry.start_offset > local_start;
            let last_disagree = has_before && both(entry.start_offset - 1, |one| one.base_offset - 1);
            !first_disagree && !last_disagree
        })
    }

    /// Of the first batch that reaches to `offset`.
    fn header_at(&self, offset: i64) -> Option<BatchHeader> {
        let segment = self.segments.get(self.segment_for(offset)?)?;
        segment.locate(self.home(), offset).ok()?.map(|located| located.header)
    }

    /// Reads the leader epochs from every batch's header.
    pub(crate) fn rebuild_epochs(&mut self) -> Result<(), StorageError> {
        // What lies before is in the tier alone, and no batch here tells of it.
        let first = self.segments.first().map_or(self.end_offset, |first| first.base_offset);
        self.epochs.truncate_from_end(first);
        // The last one, which has to be believed by the one behind it: its epoch is under no checksum.
        let mut last: Option<BatchHeader> = None;
        for segment in &self.segments {
            let home = Home { pool: &self.directory.pool, directory: &self.path };
            let path = home.log_path(segment.base_offset);
            let file = segment.file(home, Part::Log)?;
            let mut walk = HeaderWalk::new(file.as_ref(), 0, segment.size);
            loop {
                match walk.next().map_err(failed_to("read", &path))? {
                    Step::Batch(Located { header, .. }) => {
                        let before = last.replace(header);
                        let before = before
                            .filter(|last| last.partition_leader_epoch <= header.partition_leader_epoch);
                        if let Some(before) = before {
                            self.epochs.assign(before.partition_leader_epoch, before.base_offset);
                        }
                    }
                    Step::End => break,
                    Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
                }
            }
        }
        if let Some(last) = last {
            self.epochs.assign(last.partition_leader_epoch, last.base_offset);
        }
        Ok(())
    }

    /// Builds the producers' state as of the log's end: the newest whole snapshot, then the batches after it.
    pub(crate) fn load_producers(&mut self) -> Result<(), StorageError> {
        self.producers = Default::default();
        let mut from = self.segments.first().map_or(self.end_offset, |first| first.base_offset);
        while let Some(offset) = self.snapshots.last().copied() {
            let name = segment_file(offset, SNAPSHOT);
            let path = self.path.join(&name);
            let decoded = match read_file(self.directory.disk.as_ref(), &path)? {
                _ if offset > self.end_offset => Err("the log ends before it".to_owned()),
                Some(bytes) => producer_snapshot::decode(&bytes),
                None => Err("it is gone".to_owned()),
            };
            match decoded {
                Ok(producers) => {
                    self.producers = producers;
                    from = from.max(offset);
                    break;
                }
                Err(reason) => {
                    tracing::warn!(file = %path.display(), reason, "a producer snapshot is dropped for an older one");
                    self.remove_if_there(&name)?;
                    self.snapshots.remove(&offset);
                }
            }
        }
        self.replay_producers(from)
    }

    fn replay_producers(&mut self, from: i64) -> Result<(), StorageError> {
        if from >= self.end_offset {
            return Ok(());
        }
        let first = self.segment_for(from).unwrap_or(0);
        for index in first..self.segments.len() {
            let Some(base_offset) = self.segments.get(index).map(|segment| segment.base_offset) else {
                break;
            };
            if base_offset > from && !self.snapshots.contains(&base_offset) {
                self.replace_snapshot(base_offset)?;
            }
            let Some(segment) = self.segments.get(index) else { break };
            let size = segment.size;
            let Some(start) = segment.locate(self.home(), from)? else { continue };
            let path = self.home().log_path(base_offset);
            let file = segment.file(self.home(), Part::Log)?;
            let mut walk = HeaderWalk::new(file.as_ref(), start.position, size);
            loop {
                match walk.next().map_err(failed_to("read", &path))? {
                    Step::Batch(located) => self.replay(file.as_ref(), base_offset, &located)?,
                    Step::End => break,
                    Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
                }
            }
        }
        Ok(())
    }

    /// Writes the snapshot at a segment's beginning that is not there, or was not to be relied on after a crash: once the segments
    /// before have gone, nothing else tells of producers that wrote to them.
    fn replace_snapshot(&mut self, offset: i64) -> Result<(), StorageError> {
        unless_short(self.write_snapshot_at(offset))?;
        if self.snapshots.contains(&offset) {
            self.sync_snapshot(offset)?;
            self.sync_names()?;
        }
        Ok(())
    }

    fn replay(
        &mut self,
        file: &dyn DiskFile,
        segment_base: i64,
        located: &Located,
    ) -> Result<(), StorageError> {
        let header = &located.header;
        if !header.has_producer_id() {
            return Ok(());
        }
        let mut marker = None;
        if header.is_control() {
            let mut batch = vec![0; header.size_in_bytes()];
            read_exact_at(file, &mut batch, located.position)
                .map_err(failed_to("read", &self.home().log_path(segment_base)))?;
            marker = EndTransactionMarker::of_batch(header, &batch);
        }
        let Some(completed) = self.producers.replay(header, marker) else { return Ok(()) };
        if completed.aborted {
            let last_stable_offset = self.producers.last_stable_offset_after(&completed);
            self.append_aborted(segment_base, &completed, last_stable_offset)?;
        }
        Ok(())
    }
}
