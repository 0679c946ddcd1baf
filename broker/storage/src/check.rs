//! Looking at batches before they are sent, or before they are kept: are they what they were when they were written?
//!
//! A batch's checksum covers its records, and not where it lies, how long it is and in which epoch it was written. Those are
//! held against what the log knows: offsets follow each other, and the epoch is the one that led at that offset.

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use firn_records::batch::{BatchHeader, CRC_START, HEADER_LENGTH, extend_crc};

use crate::disk::{DiskFile, read_full_at};
use crate::epochs::EpochCache;
use crate::error::StorageError;
use crate::partition_log::PartitionLog;
use crate::read::LogSlice;
use crate::scan::{Located, Step, insane};

/// Bytes read at a time: a batch need not fit.
const CHUNK_BYTES: usize = 256 << 10;

/// What the batches of one segment are held against.
#[derive(Debug, Clone)]
pub struct Rules {
    pub(crate) path: PathBuf,
    pub(crate) base_offset: i64,
    /// After the segment's last.
    pub(crate) end_offset: i64,
    /// What lies below is deleted, and may be missing: other replicas, and the store, need not have it either.
    pub(crate) log_start: i64,
    pub(crate) epochs: EpochCache,
    /// Compaction may have taken batches away: between two there may be a gap.
    pub(crate) may_skip: bool,
}

/// What of a segment is not what it was.
#[derive(Debug, thiserror::Error)]
#[error("from offset {offset} on, {error}")]
pub struct Damage {
    /// Base offset of the segment.
    pub segment: i64,
    pub offset: i64,
    pub error: StorageError,
}

impl Rules {
    /// Why a batch with this header cannot lie where the log goes on at `expected`, if so.
    pub(crate) fn wrong(&self, header: &BatchHeader, expected: i64) -> Option<String> {
        self.misplaced(header, expected).or_else(|| self.of_another_epoch(header))
    }

    /// The same, by its offsets alone.
    pub(crate) fn misplaced(&self, header: &BatchHeader, expected: i64) -> Option<String> {
        let (base, last) = (header.base_offset, header.last_offset());
        if base < expected || (base > expected.max(self.log_start) && !self.may_skip) {
            return Some(format!("offset {base} where {expected} is due"));
        }
        if last >= self.end_offset {
            return Some(format!("offset {last} in a segment that ends before {}", self.end_offset));
        }
        None
    }

    /// The same, by its leader epoch.
    pub(crate) fn of_another_epoch(&self, header: &BatchHeader) -> Option<String> {
        let base = header.base_offset;
        let (epoch, written) = (header.partition_leader_epoch, self.epochs.epoch_for_offset(base));
        written
            .filter(|written| *written != epoch)
            .map(|written| format!("leader epoch {epoch} at offset {base}, of epoch {written}"))
    }

    /// What others are to have of a range of offsets; empty, at its end, if none of it is the log's any more.
    pub(crate) fn wanted(&self, range: &Range<i64>) -> Range<i64> {
        range.start.max(self.log_start).min(range.end)..range.end
    }

    pub(crate) fn damage(&self, offset: i64, reason: impl Into<String>) -> Damage {
        Damage { segment: self.base_offset, offset, error: StorageError::corrupt(&self.path, reason) }
    }
}

impl PartitionLog {
    /// What the batches of a slice are held against; `None` if segments have been cut or exchanged meanwhile.
    pub fn rules_of(&self, slice: &LogSlice) -> Option<Rules> {
        let origin = slice.origin.as_ref().filter(|origin| Arc::ptr_eq(&origin.sound, &self.sound))?;
        let is_it = |rules: &Rules| rules.base_offset == origin.segment;
        self.segment_for(origin.segment).and_then(|index| self.rules_at(index)).filter(is_it)
    }

    pub(crate) fn rules_at(&self, index: usize) -> Option<Rules> {
        let base_offset = self.segments.get(index)?.base_offset;
        Some(Rules {
            path: self.home().log_path(base_offset),
            base_offset,
            end_offset: self.segment_end(index),
            log_start: self.log_start_offset,
            epochs: self.epochs.clone(),
            may_skip: self.may_have_gaps(),
        })
    }
}

impl LogSlice {
    /// Whether it may be sent without a look at its checksums: what it holds was appended or looked at a moment ago, and has been
    /// in memory since.
    pub fn is_known(&self) -> bool {
        let (Some(file), Some(origin)) = (&self.file, &self.origin) else { return true };
        let end = self.position + self.len as u64;
        let reach = origin.sound.reach(origin.segment, file.as_ref(), self.position);
        reach.is_ok_and(|reach| reach >= end) && file.is_in_memory(self.position, self.len as u64)
    }

    /// Looks at every batch that is whole, of which the first is to hold `from_offset` if any does. What is not right is cut off,
    /// with all behind it, and said; so is a batch at the end that is cut short.
    pub fn check(&mut self, from_offset: i64, rules: &Rules) -> Option<Damage> {
        let (Some(file), Some(origin)) = (self.file.clone(), self.origin.clone()) else { return None };
        let as_of = origin.sound.looking(origin.segment, file.as_ref());
        let end = self.position + self.len as u64;
        let mut position = self.position;
        let mut checker = Checker::new(file.as_ref(), end);
        let mut expected = None;
        let reason = loop {
            match checker.batch_at(position) {
                Ok(Step::Batch(Located { header, .. })) => {
                    let due = expected.unwrap_or(self.due);
                    if let Some(reason) = rules.wrong(&header, due) {
                        break reason;
                    }
                    if header.last_offset() < from_offset && expected.is_none() {
                        break format!(
                            "a batch up to offset {} where {from_offset} is due",
                            header.last_offset()
                        );
                    }
                    position += header.size_in_bytes() as u64;
                    expected = Some(header.next_offset());
                }
                Ok(Step::End) => break String::new(),
                Ok(Step::Invalid { .. }) if checker.is_cut_short_at(position) && position > self.position => {
                    break String::new();
                }
                Ok(Step::Invalid { reason }) => break reason,
                Err(error) => break format!("it cannot be read: {error}"),
            }
        };
        match as_of {
            Ok(as_of) if reason.is_empty() => {
                origin.sound.looked_at(origin.segment, self.position..position, as_of);
            }
            // Its pages are in memory now.
            _ => origin.sound.forget(origin.segment),
        }
        self.len = usize::try_from(position - self.position).unwrap_or(0);
        if self.len == 0 {
            self.file = None;
        }
        (!reason.is_empty()).then(|| rules.damage(expected.unwrap_or(from_offset), reason))
    }
}

/// Reads batches and their checksums, a piece at a time.
#[derive(Debug)]
pub(crate) struct Checker<'a> {
    file: &'a dyn DiskFile,
    end: u64,
    chunk: Vec<u8>,
    chunk_start: u64,
}

impl<'a> Checker<'a> {
    /// `end` is up to where batches are looked at: the file may be longer.
    pub(crate) fn new(file: &'a dyn DiskFile, end: u64) -> Self {
        Self { file, end, chunk: Vec::new(), chunk_start: 0 }
    }

    /// The batch that begins at `position`, with its checksum verified.
    pub(crate) fn batch_at(&mut self, position: u64) -> io::Result<Step<Located>> {
        let left = self.end.saturating_sub(position);
        if left == 0 {
            return Ok(Step::End);
        }
        let header = match BatchHeader::parse(self.bytes(position, HEADER_LENGTH)?) {
            Ok(header) => header,
            Err(error) => return Ok(Step::Invalid { reason: format!("at {position}: {error}") }),
        };
        if let Some(reason) = insane(&header, left) {
            return Ok(Step::Invalid { reason: format!("at {position}: {reason}") });
        }
        let (mut at, end) = (position + CRC_START as u64, position + header.size_in_bytes() as u64);
        let mut crc = 0;
        while at < end {
            let wanted = usize::try_from(end - at).unwrap_or(usize::MAX).min(CHUNK_BYTES);
            let piece = self.bytes(at, wanted)?;
            if piece.is_empty() {
                return Ok(Step::Invalid { reason: format!("at {position}: the file ends inside a batch") });
            }
            crc = extend_crc(crc, piece);
            at += piece.len() as u64;
        }
        if crc != header.crc {
            let stored = header.crc;
            let reason =
                format!("at {position}: CRC is {stored:08x} in the batch and {crc:08x} over its bytes");
            return Ok(Step::Invalid { reason });
        }
        Ok(Step::Batch(Located { position, header }))
    }

    /// Where the batch that begins at `position` ends, as it says itself.
    pub(crate) fn claimed_end(&mut self, position: u64) -> Option<u64> {
        let header = BatchHeader::parse(self.bytes(position, HEADER_LENGTH).ok()?).ok()?;
        Some(position + header.size_in_bytes() as u64)
    }

    /// Whether what lies there is the beginning of a batch that does not end before the end.
    fn is_cut_short_at(&mut self, position: u64) -> bool {
        let left = self.end.saturating_sub(position);
        let Ok(bytes) = self.bytes(position, HEADER_LENGTH) else { return false };
        left < HEADER_LENGTH as u64
            || BatchHeader::parse(bytes).is_ok_and(|header| header.size_in_bytes() as u64 > left)
    }

    /// As many of the bytes from `at` on as there are, of those that are wanted.
    fn bytes(&mut self, at: u64, wanted: usize) -> io::Result<&[u8]> {
        let held = |chunk: &[u8], start: u64| {
            let from = at.checked_sub(start).and_then(|from| usize::try_from(from).ok())?;
            (from + wanted <= chunk.len()).then_some(from)
        };
        let from = match held(&self.chunk, self.chunk_start) {
            Some(from) => from,
            None => {
                let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
                self.chunk.resize(left.min(CHUNK_BYTES), 0);
                let read = read_full_at(self.file, &mut self.chunk, at)?;
                self.chunk.truncate(read);
                self.chunk_start = at;
                0
            }
        };
        let held = self.chunk.get(from..).unwrap_or_default();
        Ok(held.get(..wanted).unwrap_or(held))
    }
}
