//! Mending a segment of which the disk has not kept everything: the sound batches are copied, and those that others have kept
//! are put in the place of the rest.
//!
//! Order: the segment is looked at whole; what is missing is asked of others, by offsets; a new segment is written beside it
//! and synced, and takes its place as a cleaned one does (`compaction.rs`), which a crash leaves done or undone. Nothing that is
//! right is ever given up: what nobody else has stays as it is.
//!
//! A log that was compacted is not mended so: the batches of another replica may be compacted less, and hold a value whose
//! tombstone is gone here.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use firn_records::batch::{BatchError, BatchHeader, batches, verify_crc};

use crate::check::{Checker, Rules};
use crate::cleaner::{CleanedGroup, CompactionTask, Output, Source};
use crate::cleaner_limits::CleanerLimits;
use crate::disk::DiskFile;
use crate::error::{StorageError, failed_to};
use crate::file_names::{INDEX, TXN_INDEX, segment_file};
use crate::index::{Entry, OffsetEntry};
use crate::open_files::read_file;
use crate::partition_log::PartitionLog;
use crate::scan::{BatchScan, Located, Step};
use crate::sound::Sound;
use crate::txn_index::{AbortedTxn, aborted_in};

/// A segment that is looked at, and mended if need be. Runs without the log's lock.
#[derive(Debug)]
pub struct MendingTask {
    task: CompactionTask,
    rules: Rules,
    source: Source,
    /// What is known of the segments as they were when this was made.
    sound: Arc<Sound>,
}

/// What the look at a segment has brought so far.
#[derive(Debug)]
pub struct Looked {
    /// Runs of sound batches: where they lie, and the first one's offset.
    sound: Vec<(Range<u64>, i64)>,
    /// Offsets whose batches are not what they were, or not there; rising. Those below the log's start count: whoever looks for
    /// what lies behind them comes by.
    pub missing: Vec<Range<i64>>,
    /// What was wrong first.
    pub reason: String,
    /// Where the look goes on, and which offset is due there.
    position: u64,
    expected: i64,
    is_over: bool,
}

impl Looked {
    /// Bytes of what is missing, about.
    pub fn missing_bytes(&self) -> u64 {
        let sound: u64 = self.sound.iter().map(|(bytes, _)| bytes.end - bytes.start).sum();
        self.position.saturating_sub(sound)
    }
}

/// Why a segment was not mended. It is as it was.
#[derive(Debug, thiserror::Error)]
pub enum MendError {
    /// Another replica has nothing there either: compaction took it, before this log was told or made.
    #[error("offsets [{from}, {to}) are on no replica: they were compacted away")]
    Gap { from: i64, to: i64 },
    #[error("what another replica has does not fit: {0}")]
    Unfit(String),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// A new segment, ready to be put in the old one's place.
#[derive(Debug)]
pub struct Mended {
    generation: u64,
    group: CleanedGroup,
    /// Another replica, whose disk is another one, knows of other leader epochs: what this log knows of them has rotted, too.
    epochs_differ: bool,
}

/// The epochs of what was written so far.
#[derive(Debug)]
struct Epochs {
    last: i32,
    differ: bool,
}

impl PartitionLog {
    /// Whether the newest segment, which is still written to, would hold this offset: it is mended once it is sealed (`roll`).
    pub fn is_active_at(&self, offset: i64) -> bool {
        self.segments.last().is_some_and(|last| last.size > 0 && last.base_offset <= offset)
    }

    /// The base offset of the local segment that would hold an offset.
    pub fn segment_at(&self, offset: i64) -> i64 {
        let segment = self.segment_for(offset).and_then(|index| self.segments.get(index));
        segment.map_or(offset, |segment| segment.base_offset)
    }

    /// The base offset of the first local segment at or above an offset.
    pub fn segment_from(&self, offset: i64) -> Option<i64> {
        let index = self.segments.partition_point(|segment| segment.base_offset < offset);
        self.segments.get(index).map(|segment| segment.base_offset)
    }

    /// Gaps between batches are taken for right from now on: other replicas have them, too.
    pub fn tolerate_gaps(&mut self) {
        self.has_gaps = true;
    }

    /// Whether compaction may have taken batches away.
    pub fn may_have_gaps(&self) -> bool {
        self.config.cleanup_policy.compact || self.cleaned_offset > 0 || self.has_gaps
    }

    /// A look at the segment that holds `offset`, as far as it is written; `None` if none does.
    pub fn mending_task(
        &self,
        offset: i64,
        now_ms: i64,
        limits: CleanerLimits,
    ) -> Result<Option<MendingTask>, StorageError> {
        self.directory.check()?;
        let Some(index) = self.segment_for(offset) else { return Ok(None) };
        let (Some(segment), Some(rules)) = (self.segments.get(index), self.rules_at(index)) else {
            return Ok(None);
        };
        let source = Source {
            base_offset: segment.base_offset,
            end_offset: rules.end_offset,
            size: segment.size,
            path: rules.path.clone(),
            // Read when they are written anew.
            aborted: Vec::new(),
        };
        let (task, sound) = (self.rewriting_task(now_ms, limits), Arc::clone(&self.sound));
        Ok(Some(MendingTask { task, rules, source, sound }))
    }

    /// Whether no segment was cut or exchanged since the task was made: if one was, what it found may be of another file.
    pub fn is_current(&self, task: &MendingTask) -> bool {
        task.task.generation == self.generation
    }

    /// Puts a mended segment in the place of the old one; false when segments were cut or exchanged since the look.
    pub fn mended(&mut self, mended: Mended, now_ms: i64) -> Result<bool, StorageError> {
        self.directory.check()?;
        let Mended { generation, group, epochs_differ } = mended;
        if generation != self.generation {
            self.discard(std::slice::from_ref(&group))?;
            return Ok(false);
        }
        let names = self.directory.disk.open_dir(&self.path).map_err(failed_to("open", &self.path))?;
        self.exchange(group, names.as_ref(), now_ms)?;
        if epochs_differ {
            self.rebuild_epochs()?;
        }
        Ok(true)
    }
}

impl MendingTask {
    /// Before anything was looked at.
    pub fn begin(&self) -> Looked {
        Looked {
            sound: Vec::new(),
            missing: Vec::new(),
            reason: String::new(),
            position: 0,
            expected: self.source.base_offset,
            is_over: self.source.size == 0,
        }
    }

    /// Looks at the next batches, of so many bytes or a little more; false once all was looked at.
    pub fn look_on(&self, looked: &mut Looked, bytes: u64) -> Result<bool, StorageError> {
        self.task.directory.check()?;
        let until = looked.position.saturating_add(bytes);
        let file = self.task.open(&self.source)?;
        let mut checker = Checker::new(file.as_ref(), self.source.size);
        while !looked.is_over && looked.position < until {
            self.look_at_next(&mut checker, looked)?;
        }
        Ok(!looked.is_over)
    }

    /// What others are to have of what is missing, range by range; of some perhaps nothing.
    pub fn wanted(&self, looked: &Looked) -> Vec<Range<i64>> {
        looked.missing.iter().map(|range| self.rules.wanted(range)).collect()
    }

    /// Looks at all that is left.
    pub fn look(&self) -> Result<Looked, StorageError> {
        let mut looked = self.begin();
        while self.look_on(&mut looked, u64::MAX)? {}
        Ok(looked)
    }

    fn look_at_next(&self, checker: &mut Checker<'_>, looked: &mut Looked) -> Result<(), StorageError> {
        let (position, expected) = (looked.position, looked.expected);
        let (next, reason) = match self.sound_at(checker, position, expected) {
            Ok(next) => (next, String::new()),
            Err(reason) => (self.next_sound(checker, position, expected)?, reason),
        };
        if let Some(located) = next {
            let header = &located.header;
            if expected < header.base_offset && !reason.is_empty() {
                looked.missing.push(expected..header.base_offset);
            }
            looked.position = located.position + header.size_in_bytes() as u64;
            looked.expected = header.next_offset();
            match looked.sound.last_mut() {
                Some((bytes, _)) if bytes.end == located.position && reason.is_empty() => {
                    bytes.end = looked.position;
                }
                _ => looked.sound.push((located.position..looked.position, header.base_offset)),
            }
        } else {
            (looked.position, looked.is_over) = (self.source.size, true);
            if expected < self.source.end_offset {
                looked.missing.push(expected..self.source.end_offset);
            }
        }
        if !looked.missing.is_empty() {
            // What is in memory is what was looked at just now.
            self.sound.forget(self.source.base_offset);
        }
        if looked.reason.is_empty() && !looked.missing.is_empty() {
            let ended = || format!("it ends before offset {expected}");
            looked.reason = if reason.is_empty() { ended() } else { reason };
        }
        Ok(())
    }

    /// The batch at a position, if it is sound; `None` at the end; what is wrong with it otherwise.
    fn sound_at(
        &self,
        checker: &mut Checker<'_>,
        position: u64,
        expected: i64,
    ) -> Result<Option<Located>, String> {
        match checker.batch_at(position) {
            Ok(Step::Batch(located)) => match self.rules.wrong(&located.header, expected) {
                None => Ok(Some(located)),
                Some(reason) => Err(format!("at {position}: {reason}")),
            },
            Ok(Step::End) => Ok(None),
            Ok(Step::Invalid { reason }) => Err(reason),
            Err(error) => Err(format!("at {position}: it cannot be read: {error}")),
        }
    }

    /// The first sound batch behind a position where there is none: where its own header says that the next one begins, or where
    /// an index says so. What comes before it is missing.
    fn next_sound(
        &self,
        checker: &mut Checker<'_>,
        position: u64,
        expected: i64,
    ) -> Result<Option<Located>, StorageError> {
        // Any offset may be the next one.
        let rules = Rules { may_skip: true, ..self.rules.clone() };
        let next_at = |checker: &mut Checker<'_>, at: u64| match checker.batch_at(at) {
            Ok(Step::Batch(located)) if rules.wrong(&located.header, expected).is_none() => Some(located),
            _ => None,
        };
        let claimed_end = checker.claimed_end(position);
        // Only offsets are missing, and no bytes, if what comes behind it agrees.
        if let (Some(located), Some(end)) = (next_at(checker, position), claimed_end) {
            let next = located.header.next_offset();
            let agrees = match checker.batch_at(end) {
                Ok(Step::End) => next == self.rules.end_offset,
                Ok(Step::Batch(behind)) => behind.header.base_offset == next,
                _ => false,
            };
            if agrees {
                return Ok(Some(located));
            }
        }
        if let Some(end) = claimed_end
            && let Some(located) = next_at(checker, end)
        {
            return Ok(Some(located));
        }
        for entry in self.index_entries()? {
            let at = u64::from(entry.position);
            if at > position
                && let Some(located) = next_at(checker, at)
            {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }

    fn index_entries(&self) -> Result<Vec<OffsetEntry>, StorageError> {
        let _in_place = self.task.gate.pass(&self.task.partition_path)?;
        let path = self.task.partition_path.join(segment_file(self.source.base_offset, INDEX));
        let bytes = read_file(self.task.directory.disk.as_ref(), &path)?.unwrap_or_default();
        Ok(bytes.chunks_exact(OffsetEntry::WIDTH).filter_map(OffsetEntry::read).collect())
    }

    /// Writes the segment anew, of what was found sound and, for each range of what is wanted ([`Self::wanted`]), of `fetched`,
    /// which holds batches back to back, perhaps more than those of the range.
    pub fn rebuild(&self, looked: &Looked, fetched: &[Bytes]) -> Result<Mended, MendError> {
        let file = self.task.open(&self.source)?;
        let mut output = self.task.create(self.source.base_offset, true)?;
        let mut epochs = Epochs { last: -1, differ: false };
        let written = (|| {
            let mut missing = looked.missing.iter().zip(fetched).peekable();
            for (run, from) in &looked.sound {
                while let Some((range, bytes)) = missing.next_if(|(range, _)| range.start < *from) {
                    self.fill(&mut output, &mut epochs, range, bytes)?;
                }
                self.copy(&mut output, &mut epochs, file.as_ref(), run)?;
            }
            missing.try_for_each(|(range, bytes)| self.fill(&mut output, &mut epochs, range, bytes))
        })();
        let finished = written.and_then(|()| {
            let aborted = self.own_aborted()?;
            let segment = output.finish(&aborted)?;
            Ok(CleanedGroup { segment, end_offset: self.source.end_offset, aborted, changed: true })
        });
        let group = finished.inspect_err(|_| self.task.remove_cleaned(self.source.base_offset))?;
        Ok(Mended { generation: self.task.generation, group, epochs_differ: epochs.differ })
    }

    /// Aborted transactions whose markers lie in this segment.
    fn own_aborted(&self) -> Result<Vec<AbortedTxn>, StorageError> {
        let _in_place = self.task.gate.pass(&self.task.partition_path)?;
        let path = self.task.partition_path.join(segment_file(self.source.base_offset, TXN_INDEX));
        let aborted = aborted_in(self.task.directory.disk.as_ref(), &path)?;
        let source = Source { aborted, ..self.source.clone() };
        Ok(source.own_aborted().copied().collect())
    }

    /// Copies a run of sound batches.
    fn copy(
        &self,
        output: &mut Output<'_>,
        epochs: &mut Epochs,
        file: &dyn DiskFile,
        run: &Range<u64>,
    ) -> Result<(), MendError> {
        let path = &self.source.path;
        let mut scan = BatchScan::new(file, run.start, run.end);
        loop {
            match scan.next().map_err(failed_to("read", path))? {
                Step::Batch((located, batch)) => {
                    epochs.go_on(&located.header)?;
                    output.push(&located.header, batch)?;
                }
                Step::End => return Ok(()),
                Step::Invalid { reason } => return Err(StorageError::corrupt(path, reason).into()),
            }
        }
    }

    /// Writes those of the batches that lie in `range`, which are to be all that is wanted of it.
    fn fill(
        &self,
        output: &mut Output<'_>,
        epochs: &mut Epochs,
        range: &Range<i64>,
        bytes: &[u8],
    ) -> Result<(), MendError> {
        let unfit = |error: BatchError| MendError::Unfit(error.to_string());
        let wanted = self.rules.wanted(range);
        if wanted.is_empty() {
            return Ok(());
        }
        let mut expected = range.start;
        for batch in batches(bytes) {
            let (header, batch) = batch.map_err(unfit)?;
            if header.last_offset() < wanted.start {
                continue;
            }
            verify_crc(batch).map_err(unfit)?;
            if header.base_offset >= range.end {
                let (from, to) = (expected, range.end);
                return if from < to { Err(MendError::Gap { from, to }) } else { Ok(()) };
            }
            let fits = header.last_offset() < range.end;
            let too_long =
                || format!("a batch up to offset {} where {} is due", header.last_offset(), range.end);
            let wrong = self.rules.misplaced(&header, expected).or((!fits).then(too_long));
            if let Some(reason) = wrong {
                return Err(MendError::Unfit(reason));
            }
            epochs.go_on(&header)?;
            epochs.differ |= self.rules.of_another_epoch(&header).is_some();
            output.push(&header, batch)?;
            expected = header.next_offset();
        }
        if expected < range.end {
            return Err(MendError::Unfit(format!(
                "it ends before offset {expected}, and {} is due",
                range.end
            )));
        }
        Ok(())
    }
}

impl Epochs {
    /// Leaders follow one another.
    fn go_on(&mut self, header: &BatchHeader) -> Result<(), MendError> {
        let (epoch, offset) = (header.partition_leader_epoch, header.base_offset);
        if epoch < self.last {
            return Err(MendError::Unfit(format!(
                "leader epoch {epoch} at offset {offset}, behind {}",
                self.last
            )));
        }
        self.last = epoch;
        Ok(())
    }
}
