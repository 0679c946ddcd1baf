//! How a log begins whose first records are in the tier alone: a replica that is new, or has been away for long, takes over from its
//! leader what has to be known of them, and only the records that the leader has on its disk.
//!
//! Order: the log start is on disk → what was there goes → leader epochs and producers are on disk → the first, empty,
//! segment. A crash before the last step leaves a log without records that begins at its log start, and that asks again.

use std::sync::atomic::Ordering;

use bytes::Bytes;

use crate::checkpoint::{self, DirSync};
use crate::epochs::EpochEntry;
use crate::error::StorageError;
use crate::file_names::{LEADER_EPOCHS, SNAPSHOT, segment_file};
use crate::open_files::{Part, read_file};
use crate::partition_log::PartitionLog;
use crate::producer_snapshot;
use crate::segment::Segment;

/// Where the disk begins, and what a log knows of all that lies before.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalStart {
    pub log_start_offset: i64,
    /// First offset on the disk.
    pub offset: i64,
    /// Leader epochs of what lies before it.
    pub leader_epochs: Vec<EpochEntry>,
    /// The producers' state there, as a `.snapshot` file has it; empty where that is not known any more.
    pub producers: Bytes,
}

/// For what is written beside the producers: checkpoints of the directory among it.
const ROOM_BYTES: usize = 64 << 10;

impl PartitionLog {
    /// What another replica has to know that begins where this one's disk does.
    pub fn local_start(&self) -> Result<LocalStart, StorageError> {
        let offset = self.local_start_offset();
        let mut epochs = self.epochs.clone();
        epochs.truncate_from_end(offset);
        let snapshot = self.path.join(segment_file(offset, SNAPSHOT));
        Ok(LocalStart {
            log_start_offset: self.log_start_offset,
            offset,
            leader_epochs: epochs.entries().to_vec(),
            producers: read_file(self.directory.disk.as_ref(), &snapshot)?.unwrap_or_default().into(),
        })
    }

    /// Gives up all records, and goes on where `start` says; what lies before is in the tier. What was deleted here stays deleted.
    pub fn begin_at_local_start(&mut self, start: &LocalStart) -> Result<(), StorageError> {
        self.directory.check()?;
        let log_start = self.log_start_offset.max(start.log_start_offset);
        if log_start >= start.offset {
            return self.truncate_fully_and_start_at(log_start);
        }
        let damaged = |reason| StorageError::corrupt(&self.path, format!("what the leader sent: {reason}"));
        let producers = match start.producers.is_empty() {
            true => Default::default(),
            false => producer_snapshot::decode(&start.producers).map_err(damaged)?,
        };
        // On a full disk the log stays what it is: it is better than one that has begun anew and cannot go on.
        self.directory.check_room(&self.path, start.producers.len() + ROOM_BYTES)?;
        self.directory.lower_to(&self.topic_partition, log_start)?;
        self.lower_cleaned_offset(0)?;
        self.directory.raise_log_start(&self.topic_partition, log_start)?;
        self.log_start_offset = log_start;
        self.clear().map_err(|error| self.fail(error))?;
        for entry in &start.leader_epochs {
            self.epochs.assign(entry.epoch, entry.start_offset);
        }
        self.epochs.truncate_from_end(start.offset);
        self.epochs.truncate_from_start(log_start);
        self.producers = producers;
        self.go_on_at(start.offset).map_err(|error| self.fail_unless_short(error))
    }

    /// Lets a log without records begin at `base`, where a batch begins within which it starts: so much of the leader's log was deleted.
    /// `bytes` are about to be appended.
    pub fn begin_before_log_start(&mut self, base: i64, bytes: usize) -> Result<(), StorageError> {
        // On a full disk the log stays what it is: it would end before what is known to be committed.
        self.directory.check_room(&self.path, bytes + ROOM_BYTES)?;
        let start = self.log_start_offset;
        self.truncate_fully_and_start_at(base)?;
        self.set_log_start_offset(start)
    }

    /// The last two steps. Without them the log is one that begins at its log start.
    fn go_on_at(&mut self, offset: i64) -> Result<(), StorageError> {
        let disk = self.directory.disk.clone();
        checkpoint::replace(
            disk.as_ref(),
            &self.path,
            LEADER_EPOCHS,
            &self.epochs.encode(),
            DirSync::ByCaller,
        )?;
        self.gate.epochs_on_disk.store(true, Ordering::Relaxed);
        self.write_snapshot_at(offset)?;
        self.sync_snapshot(offset)?;
        self.sync_names()?;
        self.unsynced.epochs_synced = self.epochs.changes();
        let segment = Segment::new(offset, 0);
        segment.file(self.home(), Part::Log)?;
        self.segments.push(segment);
        self.end_offset = offset;
        self.flushed_offset = offset;
        self.high_watermark = offset;
        self.sync_names()
    }
}
