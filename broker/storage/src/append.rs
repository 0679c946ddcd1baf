//! Appending batches to a log.
//!
//! Order: check everything, roll if need be, write the bytes, and only then change what memory says. A write that fails
//! or falls short is undone by cutting the file back to its known end before anything else may be appended; if even
//! that fails, the directory stops. So the file below the known end is always whole batches, and what a crash finds
//! behind it was never acknowledged.
//!
//! Index entries wait in memory and reach their files in bunches: an index may be shorter than its log at any time.

use std::io::IoSlice;

use firn_records::batch::{BatchHeader, PATCHABLE_LENGTH, patched_prefix};
use firn_records::control::EndTransactionMarker;

use crate::disk::write_all_vectored_at;
use crate::error::{AppendError, StorageError, failed_to};
use crate::open_files::Part;
use crate::partition_log::PartitionLog;
use crate::producers::{AppendOrigin, BatchMetadata, Staged};
use crate::recent::RecentBatch;
use crate::segment::Segment;

/// Where batches landed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    /// Offset of the first record.
    pub base_offset: i64,
    /// Offset of the last record.
    pub last_offset: i64,
    /// The largest timestamp of the batches.
    pub max_timestamp: i64,
    pub log_start_offset: i64,
    /// Nothing was written: the producer sent these records before, and these are the offsets they got then.
    pub duplicate: bool,
}

/// A batch at its place in the log.
#[derive(Debug, Clone, Copy)]
struct Placed {
    /// With the offsets and the leader epoch that it is stored with.
    header: BatchHeader,
    prefix: [u8; PATCHABLE_LENGTH],
    start: usize,
}

impl PartitionLog {
    /// Appends whole, validated batches: `bytes` holds them back to back, `headers` describes them in order. Only
    /// their base offsets and leader epochs change. Nothing is durable before a flush.
    pub fn append(
        &mut self,
        bytes: &[u8],
        headers: &[BatchHeader],
        leader_epoch: i32,
        origin: AppendOrigin,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        self.directory.check()?;
        let placed = self.place(bytes, headers, leader_epoch)?;
        if origin == AppendOrigin::Client
            && let Some(known) = headers.iter().find_map(|header| self.producers.find_duplicate(header))
        {
            return Ok(self.duplicate(&known));
        }
        self.append_placed(bytes, &placed, origin, now_ms)
    }

    /// Appends batches as a leader has them: at their own offsets, in their own epochs, between which there may be a gap
    /// where the leader's log was compacted. What a leader checks is not checked again. Nothing is durable before a flush.
    pub fn append_fetched(
        &mut self,
        bytes: &[u8],
        headers: &[BatchHeader],
        now_ms: i64,
    ) -> Result<(), AppendError> {
        self.directory.check()?;
        let placed = self.place_fetched(bytes, headers)?;
        let mut rest = placed.as_slice();
        // Segments are to be no longer than those that a leader makes.
        while !rest.is_empty() {
            let (some, others) = rest.split_at(self.fitting(rest));
            self.append_placed(bytes, some, AppendOrigin::Leader, now_ms)?;
            rest = others;
        }
        Ok(())
    }

    /// How many of these batches, one at least, one segment takes.
    fn fitting(&self, batches: &[Placed]) -> usize {
        let bytes_max = usize::try_from(self.config.segment_bytes).unwrap_or(0);
        let mut bytes = 0;
        let fits = |batch: &&Placed| {
            bytes += batch.header.size_in_bytes();
            bytes <= bytes_max
        };
        batches.iter().take_while(fits).count().max(1)
    }

    fn append_placed(
        &mut self,
        bytes: &[u8],
        placed: &[Placed],
        origin: AppendOrigin,
        now_ms: i64,
    ) -> Result<Appended, AppendError> {
        let (Some(first), Some(last)) = (placed.first(), placed.last()) else {
            return Err(AppendError::InvalidBatches("there is none".to_owned()));
        };
        let staged = self.stage(bytes, placed, origin)?;
        let (base_offset, last_offset) = (first.header.base_offset, last.header.last_offset());
        let max_timestamp = placed.iter().map(|batch| batch.header.max_timestamp).max().unwrap_or(-1);
        let size = placed.iter().map(|batch| batch.header.size_in_bytes()).sum();
        self.roll_if_needed(size, max_timestamp, last_offset, now_ms)?;
        self.write(bytes, placed, &staged)?;
        self.commit(placed, staged);
        Ok(Appended {
            base_offset,
            last_offset,
            max_timestamp,
            log_start_offset: self.log_start_offset,
            duplicate: false,
        })
    }

    fn duplicate(&self, known: &BatchMetadata) -> Appended {
        Appended {
            base_offset: known.first_offset(),
            last_offset: known.last_offset,
            max_timestamp: known.timestamp,
            log_start_offset: self.log_start_offset,
            duplicate: true,
        }
    }

    /// Gives each batch its offsets, and checks that the headers describe the bytes.
    fn place(
        &self,
        bytes: &[u8],
        headers: &[BatchHeader],
        leader_epoch: i32,
    ) -> Result<Vec<Placed>, AppendError> {
        if bytes.len() > self.config.segment_bytes.max(0) as usize {
            return Err(AppendError::RecordListTooLarge {
                bytes: bytes.len(),
                segment_bytes: self.config.segment_bytes,
            });
        }
        let mut offset = self.end_offset;
        laid_out(bytes, headers, |header, prefix| {
            if header.last_offset_delta < 0 || offset.checked_add(1 << 32).is_none() {
                let delta = header.last_offset_delta;
                return Err(invalid(format!("last offset delta {delta} at offset {offset}")));
            }
            let placed = BatchHeader { base_offset: offset, partition_leader_epoch: leader_epoch, ..*header };
            let prefix = patched_prefix(prefix, offset, leader_epoch);
            offset = placed.next_offset();
            Ok((placed, prefix))
        })
    }

    /// Takes each batch at the place that it says, and checks that the headers describe the bytes, and that they go on
    /// where the log ends.
    fn place_fetched(&self, bytes: &[u8], headers: &[BatchHeader]) -> Result<Vec<Placed>, AppendError> {
        let mut offset = self.end_offset;
        let mut epoch = self.epochs.latest().map_or(-1, |entry| entry.epoch);
        laid_out(bytes, headers, |header, prefix| {
            if header.base_offset < offset || header.last_offset_delta < 0 {
                let base = header.base_offset;
                return Err(invalid(format!("a batch at {base} does not follow offset {offset}")));
            }
            if header.partition_leader_epoch < epoch {
                let theirs = header.partition_leader_epoch;
                return Err(invalid(format!("epoch {theirs} does not follow {epoch}")));
            }
            (offset, epoch) = (header.next_offset(), header.partition_leader_epoch);
            Ok((*header, *prefix))
        })
    }

    fn stage(&self, bytes: &[u8], placed: &[Placed], origin: AppendOrigin) -> Result<Staged, AppendError> {
        let mut staged = Staged::default();
        for batch in placed {
            let bytes = bytes.get(batch.start..).unwrap_or_default();
            let marker = EndTransactionMarker::of_batch(&batch.header, bytes);
            self.producers.stage(&mut staged, &batch.header, marker, origin)?;
        }
        Ok(staged)
    }

    fn write(&mut self, bytes: &[u8], placed: &[Placed], staged: &Staged) -> Result<(), AppendError> {
        let home = self.home();
        let Some(active) = self.segments.last() else {
            return Err(AppendError::InvalidBatches("the log has no segment".to_owned()));
        };
        let path = home.log_path(active.base_offset);
        let file = active.file(home, Part::Log)?;
        let mut vectors = Vec::with_capacity(placed.len() * 2);
        for batch in placed {
            let end = batch.start + batch.header.size_in_bytes();
            vectors.push(IoSlice::new(&batch.prefix));
            vectors.push(IoSlice::new(bytes.get(batch.start + PATCHABLE_LENGTH..end).unwrap_or_default()));
        }
        active.files.set_unsynced(true);
        let position = active.size;
        self.sound.writing(active.base_offset);
        let result = write_all_vectored_at(file.as_ref(), &mut vectors, position)
            .map_err(failed_to("append to", &path))
            .and_then(|()| self.index_aborted(active, staged));
        let Err(error) = result else {
            let written: u64 = placed.iter().map(|batch| batch.header.size_in_bytes() as u64).sum();
            self.sound.wrote(active.base_offset, file.as_ref(), position..position + written);
            return Ok(());
        };
        if let Err(undo) = file.set_len(position) {
            return Err(self.fail(failed_to("cut a failed write off", &path)(undo)).into());
        }
        let error = self.fail_unless_short(error);
        if error.is_disk_full() {
            let log = self.topic_partition.to_string();
            return Err(AppendError::DiskFull { bytes: bytes.len(), log });
        }
        Err(error.into())
    }

    /// Notes aborted transactions where fetchers look them up.
    fn index_aborted(&self, active: &Segment, staged: &Staged) -> Result<(), StorageError> {
        for completed in staged.completed.iter().filter(|txn| txn.aborted) {
            let last_stable_offset = self.producers.last_stable_offset_after(completed);
            self.append_aborted(active.base_offset, completed, last_stable_offset)?;
        }
        Ok(())
    }

    fn commit(&mut self, placed: &[Placed], staged: Staged) {
        let interval = self.config.index_interval_bytes.max(0) as u64;
        for batch in placed {
            self.epochs.assign(batch.header.partition_leader_epoch, batch.header.base_offset);
            let Some(active) = self.segments.last_mut() else { return };
            self.recent.push(RecentBatch {
                base_offset: batch.header.base_offset,
                position: active.size as u32,
                bytes: batch.header.size_in_bytes() as u32,
            });
            active.batch_appended(&batch.header, interval);
            self.end_offset = batch.header.next_offset();
        }
        self.producers.commit(staged);
        let (directory, path) = (&self.directory, &self.path);
        let home = crate::segment::Home { pool: &directory.pool, directory: path };
        if let Some(active) = self.segments.last_mut()
            && (active.index.wants_write() || active.times.wants_write())
            && let Err(error) = active.write_indexes(home)
        {
            // The entries stay in memory and are written with the next ones; the batches are in the log.
            tracing::warn!(log = %self.topic_partition, %error, "index entries wait in memory");
        }
    }
}

/// A batch's header and first bytes, as they are stored.
type Stored = (BatchHeader, [u8; PATCHABLE_LENGTH]);

fn invalid(what: String) -> AppendError {
    AppendError::InvalidBatches(what)
}

/// The batches, each as `place` has it stored. The headers have to describe the bytes, from the first to the last.
fn laid_out(
    bytes: &[u8],
    headers: &[BatchHeader],
    mut place: impl FnMut(&BatchHeader, &[u8; PATCHABLE_LENGTH]) -> Result<Stored, AppendError>,
) -> Result<Vec<Placed>, AppendError> {
    let mut placed = Vec::with_capacity(headers.len());
    let mut start = 0;
    for header in headers {
        let batch = bytes.get(start..).unwrap_or_default();
        let Some(prefix) = batch.first_chunk().filter(|_| header.size_in_bytes() <= batch.len()) else {
            let (left, length) = (batch.len(), header.batch_length);
            return Err(invalid(format!("{left} bytes are left for a batch of {length}")));
        };
        let (stored, prefix) = place(header, prefix)?;
        placed.push(Placed { header: stored, prefix, start });
        start += header.size_in_bytes();
    }
    match bytes.len() - start {
        0 => Ok(placed),
        left => Err(invalid(format!("{left} bytes follow the last batch"))),
    }
}
