//! Cutting a log, at either end.
//!
//! Order at the tail: the recovery point (and the high watermark) on disk is lowered first, so that whatever lies above the cut after a crash is
//! read again and checked; then whole segments are removed from the top down and the directory is synced, so that a
//! crash leaves a shorter log and never one with a hole; then the last segment is cut and synced, so that no cut record
//! can come back behind a new one. At the head, the new log start is on disk before anybody is told of it.

use crate::check::Damage;
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{SEGMENT_SUFFIXES, SNAPSHOT, segment_file};
use crate::open_files::Part;
use crate::partition_log::PartitionLog;
use crate::scan::{HeaderWalk, Located, Step};
use crate::segment::{Home, Segment};

impl PartitionLog {
    /// Removes every batch that reaches `offset` or above; batches go whole, so the log may then end below it. Nothing
    /// happens when it ends there already, nor when what has to be read for the cut is damaged ([`StorageError::Corrupt`]).
    pub fn truncate_to(&mut self, offset: i64) -> Result<(), StorageError> {
        self.directory.check()?;
        if offset >= self.end_offset {
            return Ok(());
        }
        if self.segments.first().is_none_or(|first| offset < first.base_offset) {
            return match self.log_start_offset < self.local_start_offset() {
                // What lies between is in the tier, and still the log's.
                true => self.truncate_to_log_start(),
                false => self.truncate_fully_and_start_at(offset),
            };
        }
        if offset < self.cleaned_offset && self.is_of_tiered_topic() {
            return self.truncate_to_log_start();
        }
        if let Some(damage) = self.damage_before_cut(offset)? {
            return Err(damage.error);
        }
        let cut_at = self.batch_edge_below(offset)?;
        self.directory.lower_to(&self.topic_partition, cut_at)?;
        self.lower_cleaned_offset(cut_at)?;
        self.cut_tail(cut_at).map_err(|error| self.fail(error))
    }

    /// A log that loses records by which it was compacted may lack, below the cut, what they superseded, and what the leader has. Of
    /// a tiered topic it is not to pass for a whole one: it would take the place of a better one in the tier.
    fn is_of_tiered_topic(&self) -> bool {
        self.config.remote_storage_enable || self.log_start_offset < self.local_start_offset()
    }

    /// Removes every record from the disk. The log goes on at its start, where it has been told of no record.
    fn truncate_to_log_start(&mut self) -> Result<(), StorageError> {
        let start = self.log_start_offset;
        self.directory.lower_to(&self.topic_partition, start)?;
        self.lower_cleaned_offset(0)?;
        self.start_empty_at(start).map_err(|error| self.fail(error))
    }

    /// What is written above a cut is dirty, whatever the cleaner did there before.
    pub(crate) fn lower_cleaned_offset(&mut self, offset: i64) -> Result<(), StorageError> {
        if self.cleaned_offset > offset {
            self.cleaned_offset = offset;
            self.directory.note_cleaned(&self.topic_partition, offset)?;
        }
        Ok(())
    }

    /// What keeps the log from being cut there: batches that do not say where they lie, or which producers wrote what is kept.
    /// A cut that took their places on trust might drop what is acknowledged. Records are not read.
    pub fn damage_before_cut(&self, offset: i64) -> Result<Option<Damage>, StorageError> {
        // Where the producers are read from again.
        let from = self.snapshots.range(..=offset).next_back();
        let first = from.and_then(|from| self.segment_for(*from)).unwrap_or(0);
        for (index, segment) in self.segments.iter().enumerate().skip(first) {
            let Some(rules) = self.rules_at(index) else { break };
            let file = segment.file(self.home(), Part::Log)?;
            let mut walk = HeaderWalk::new(file.as_ref(), 0, segment.size);
            let mut expected = segment.base_offset;
            while expected <= offset {
                let due = expected;
                let wrong = match walk.next().map_err(failed_to("read", &rules.path))? {
                    Step::Batch(Located { header, .. }) => {
                        expected = header.next_offset();
                        rules.wrong(&header, due)
                    }
                    Step::End => break,
                    Step::Invalid { reason } => Some(reason),
                };
                if let Some(reason) = wrong {
                    return Ok(Some(rules.damage(due, reason)));
                }
            }
            if expected > offset {
                break;
            }
        }
        Ok(None)
    }

    /// Where the log will end when it is cut at `offset`: behind the last batch that lies wholly below. Compaction may have left
    /// a gap there, and a log that were said to end within it would seem to have lost what lay there.
    fn batch_edge_below(&self, offset: i64) -> Result<i64, StorageError> {
        let floor = self.segment_for(offset).and_then(|index| self.segments.get(index));
        floor.map_or(Ok(offset), |segment| segment.end_below(self.home(), offset))
    }

    fn cut_tail(&mut self, offset: i64) -> Result<(), StorageError> {
        self.generation += 1;
        self.truncations += 1;
        self.forget_places();
        // A snapshot of what is cut must not come back either: it would speak for the records written there next.
        self.remove_snapshots_above(offset)?;
        let kept = self.segments.partition_point(|segment| segment.base_offset <= offset);
        self.remove_segments_from(kept)?;
        self.sync_names()?;
        self.end_offset = self.cut_last_segment(offset)?;
        self.flushed_offset = self.flushed_offset.min(self.end_offset);
        self.high_watermark = self.high_watermark.min(self.end_offset);
        self.tiered_end_offset = self.tiered_end_offset.min(self.end_offset);
        self.epochs.truncate_from_end(self.end_offset);
        self.load_producers()
    }

    /// Cuts the last segment before the batch that holds `offset`, and says where it ends.
    fn cut_last_segment(&mut self, offset: i64) -> Result<i64, StorageError> {
        let home = Home { pool: &self.directory.pool, directory: &self.path };
        let Some(last) = self.segments.last_mut() else { return Ok(offset) };
        let base_offset = last.base_offset;
        let cut_at = last.end_below(home, offset)?;
        let Some(located) = last.locate(home, offset)? else { return Ok(cut_at) };
        let log = last.file(home, Part::Log)?;
        let path = home.log_path(base_offset);
        cut_indexes(last, home, cut_at)?;
        log.set_len(located.position).map_err(failed_to("cut", &path))?;
        log.sync_data().map_err(failed_to_sync(&path))?;
        let largest = last.largest_below(home, located.position)?;
        last.rewind(located.position, largest);
        self.truncate_aborted(base_offset, cut_at)?;
        Ok(cut_at)
    }

    /// Empties the log and lets it go on at `offset`, which is its start as well.
    pub fn truncate_fully_and_start_at(&mut self, offset: i64) -> Result<(), StorageError> {
        self.directory.check()?;
        self.directory.lower_to(&self.topic_partition, offset)?;
        self.lower_cleaned_offset(0)?;
        self.directory.raise_log_start(&self.topic_partition, offset)?;
        self.start_empty_at(offset).map_err(|error| self.fail(error))
    }

    pub(crate) fn start_empty_at(&mut self, offset: i64) -> Result<(), StorageError> {
        self.log_start_offset = offset;
        self.clear()?;
        let segment = Segment::new(offset, 0);
        segment.file(self.home(), Part::Log)?;
        self.segments.push(segment);
        self.sync_names()
    }

    /// Leaves a log without records, which ends where it starts.
    pub(crate) fn clear(&mut self) -> Result<(), StorageError> {
        self.generation += 1;
        self.truncations += 1;
        self.forget_places();
        self.remove_segments_from(0)?;
        self.remove_snapshots_above(-1)?;
        self.sync_names()?;
        self.end_offset = self.log_start_offset;
        self.flushed_offset = self.log_start_offset;
        self.high_watermark = self.log_start_offset;
        self.tiered_end_offset = 0;
        self.epochs.clear();
        self.producers = Default::default();
        Ok(())
    }

    /// Removes the files of the segments from `index` on, the newest first.
    pub(crate) fn remove_segments_from(&mut self, index: usize) -> Result<(), StorageError> {
        if self.segments.len() <= index {
            return Ok(());
        }
        while self.segments.len() > index {
            let Some(segment) = self.segments.pop() else { break };
            segment.files.close();
            for suffix in SEGMENT_SUFFIXES {
                self.remove_if_there(&segment_file(segment.base_offset, suffix))?;
            }
            self.snapshots.remove(&segment.base_offset);
        }
        Ok(())
    }

    pub(crate) fn remove_snapshots_above(&mut self, offset: i64) -> Result<(), StorageError> {
        while let Some(last) = self.snapshots.last().copied().filter(|last| *last > offset) {
            self.remove_if_there(&segment_file(last, SNAPSHOT))?;
            self.snapshots.remove(&last);
        }
        Ok(())
    }

    /// Removes snapshots that belong to no segment, but for the newest.
    pub(crate) fn remove_stray_snapshots(&mut self) -> Result<(), StorageError> {
        let newest = self.snapshots.last().copied();
        let strays: Vec<i64> = self
            .snapshots
            .iter()
            .copied()
            .filter(|offset| Some(*offset) != newest)
            .filter(|offset| {
                self.segments.binary_search_by_key(offset, |segment| segment.base_offset).is_err()
            })
            .collect();
        for offset in strays {
            self.remove_if_there(&segment_file(offset, SNAPSHOT))?;
            self.snapshots.remove(&offset);
        }
        Ok(())
    }

    pub(crate) fn remove_if_there(&self, name: &str) -> Result<(), StorageError> {
        let path = self.path.join(name);
        match self.directory.disk.remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(failed_to("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Makes the partition directory's names durable, now.
    pub(crate) fn sync_names(&mut self) -> Result<(), StorageError> {
        self.directory.disk.sync_dir(&self.path).map_err(failed_to_sync(&self.path))?;
        self.unsynced.names_synced = self.unsynced.names_changed;
        Ok(())
    }

    /// Deletes records below `offset` (DeleteRecords): they are gone for readers, durably, when this returns; their
    /// segments go with the next retention. The caller has checked `offset` against the high watermark. Returns the
    /// log start, which never goes back.
    pub fn delete_records_before(&mut self, offset: i64) -> Result<i64, StorageError> {
        if offset > self.end_offset {
            return Err(StorageError::OffsetOutOfRange {
                log: self.topic_partition.to_string(),
                offset,
                start: self.log_start_offset,
                end: self.end_offset,
            });
        }
        self.set_log_start_offset(offset)?;
        Ok(self.log_start_offset)
    }

    /// Raises the log start as a leader has raised its own. Whoever tells others of it has it noted first
    /// ([`crate::log_dir::LogDir::note_log_starts`]): without, it is durable with the next checkpoint.
    pub fn follow_log_start(&mut self, offset: i64) {
        if offset > self.log_start_offset {
            self.start_at(offset);
        }
    }

    /// Raises the log start, durably; also what the tier's retention calls when it removed old objects.
    pub fn set_log_start_offset(&mut self, offset: i64) -> Result<(), StorageError> {
        self.directory.check()?;
        if offset <= self.log_start_offset {
            return Ok(());
        }
        self.directory.raise_log_start(&self.topic_partition, offset)?;
        self.start_at(offset);
        Ok(())
    }

    fn start_at(&mut self, offset: i64) {
        self.log_start_offset = offset;
        self.epochs.truncate_from_start(offset);
        self.producers.log_start_moved(offset);
    }
}

/// Drops the index entries of batches from `offset` on.
pub(crate) fn cut_indexes(segment: &mut Segment, home: Home<'_>, offset: i64) -> Result<(), StorageError> {
    let below = u32::try_from((offset - segment.base_offset).max(0)).unwrap_or(u32::MAX);
    if segment.index.entries() > 0 {
        let file = segment.file_if(home, Part::Index, segment.index.has_written())?;
        let path = segment.part_path(home, Part::Index);
        segment
            .index
            .truncate(file.as_deref(), |entry| entry.relative_offset < below)
            .map_err(failed_to("cut", &path))?;
    }
    if segment.times.entries() > 0 {
        let file = segment.file_if(home, Part::TimeIndex, segment.times.has_written())?;
        let path = segment.part_path(home, Part::TimeIndex);
        segment
            .times
            .truncate(file.as_deref(), |entry| entry.relative_offset < below)
            .map_err(failed_to("cut", &path))?;
    }
    Ok(())
}
