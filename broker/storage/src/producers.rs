//! What a log remembers of its producers: sequences, epochs, open transactions (KIP-98, KIP-360).
//!
//! Pure. A batch is staged before it is written and committed after, so that a failed write leaves no trace. The rules
//! are those of Kafka's `ProducerStateManager`, `ProducerAppendInfo` and `ProducerStateEntry`.

use std::collections::BTreeMap;

use firn_records::batch::BatchHeader;
use firn_records::control::{EndTransactionMarker, TransactionResult};

use crate::error::AppendError;

/// Batches remembered of each producer: its client may have five requests in flight.
pub(crate) const WINDOW: usize = 5;

/// Who asks for an append, and so how far it is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AppendOrigin {
    /// A Produce request: sequences and epochs must fit.
    Client,
    /// A coordinator of this broker (offset commits, transaction markers): epochs must fit, there are no sequences.
    Coordinator,
    /// The partition's leader, which has checked what there is to check.
    Leader,
}

/// One remembered batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BatchMetadata {
    pub last_sequence: i32,
    pub last_offset: i64,
    /// Records in the batch less one.
    pub offset_delta: i32,
    /// The batch's largest timestamp.
    pub timestamp: i64,
}

impl BatchMetadata {
    pub fn first_offset(&self) -> i64 {
        self.last_offset - i64::from(self.offset_delta)
    }

    fn first_sequence(&self) -> i32 {
        decrement_sequence(self.last_sequence, self.offset_delta)
    }
}

/// The last few batches, oldest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Window {
    batches: [BatchMetadata; WINDOW],
    len: u8,
}

const NO_BATCH: BatchMetadata =
    BatchMetadata { last_sequence: -1, last_offset: -1, offset_delta: 0, timestamp: -1 };

impl Window {
    const EMPTY: Window = Window { batches: [NO_BATCH; WINDOW], len: 0 };

    fn as_slice(&self) -> &[BatchMetadata] {
        self.batches.get(..usize::from(self.len)).unwrap_or_default()
    }

    fn push(&mut self, batch: BatchMetadata) {
        if usize::from(self.len) == WINDOW {
            self.batches.rotate_left(1);
            self.len -= 1;
        }
        if let Some(slot) = self.batches.get_mut(usize::from(self.len)) {
            *slot = batch;
            self.len += 1;
        }
    }
}

/// One producer's state in one log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ProducerEntry {
    /// -1 before the first batch.
    pub epoch: i16,
    /// -1 before the first transaction marker.
    pub coordinator_epoch: i32,
    pub last_timestamp: i64,
    pub current_txn_first_offset: Option<i64>,
    window: Window,
}

impl ProducerEntry {
    const NEW: ProducerEntry = ProducerEntry {
        epoch: -1,
        coordinator_epoch: -1,
        last_timestamp: -1,
        current_txn_first_offset: None,
        window: Window::EMPTY,
    };

    pub(crate) fn restored(
        epoch: i16,
        coordinator_epoch: i32,
        last_timestamp: i64,
        current_txn_first_offset: Option<i64>,
        batches: &[BatchMetadata],
    ) -> Self {
        let mut entry = ProducerEntry {
            epoch,
            coordinator_epoch,
            last_timestamp,
            current_txn_first_offset,
            window: Window::EMPTY,
        };
        for &batch in batches {
            entry.window.push(batch);
        }
        entry
    }

    /// The remembered batches, oldest first.
    pub fn batches(&self) -> &[BatchMetadata] {
        self.window.as_slice()
    }

    pub fn last_batch(&self) -> Option<&BatchMetadata> {
        self.batches().last()
    }

    /// -1 when no batch of this epoch is remembered.
    pub fn last_sequence(&self) -> i32 {
        self.last_batch().map_or(-1, |batch| batch.last_sequence)
    }

    /// Of the batch that is to come next in `epoch`, this one or a later one.
    pub fn next_sequence(&self, epoch: i16) -> i32 {
        if epoch == self.epoch { increment_sequence(self.last_sequence(), 1) } else { 0 }
    }

    fn find_duplicate(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        if header.producer_epoch != self.epoch {
            return None;
        }
        let last = last_sequence(header);
        self.batches()
            .iter()
            .find(|batch| batch.first_sequence() == header.base_sequence && batch.last_sequence == last)
            .copied()
    }

    fn see_epoch(&mut self, epoch: i16) {
        if self.epoch != epoch {
            self.window = Window::EMPTY;
            self.epoch = epoch;
        }
    }

    fn add_batch(&mut self, header: &BatchHeader) {
        self.see_epoch(header.producer_epoch);
        self.window.push(BatchMetadata {
            last_sequence: last_sequence(header),
            last_offset: header.last_offset(),
            offset_delta: header.last_offset_delta,
            timestamp: header.max_timestamp,
        });
        self.last_timestamp = header.max_timestamp;
    }
}

/// A transaction whose marker is in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CompletedTxn {
    pub producer_id: i64,
    pub first_offset: i64,
    /// The marker's own offset.
    pub last_offset: i64,
    pub aborted: bool,
}

/// What an append would change; dropped without effect when the write fails.
#[derive(Debug, Default)]
pub(crate) struct Staged {
    entries: Vec<(i64, ProducerEntry)>,
    pub(crate) completed: Vec<CompletedTxn>,
}

/// Every producer that wrote to a log, and its transactions.
#[derive(Debug, Default)]
pub struct Producers {
    entries: BTreeMap<i64, ProducerEntry>,
    /// First offset of each open transaction → its producer.
    ongoing: BTreeMap<i64, i64>,
    /// Ended by markers that the high watermark has not passed.
    unreplicated: Vec<CompletedTxn>,
}

impl Producers {
    /// Every producer by id.
    pub fn entries(&self) -> &BTreeMap<i64, ProducerEntry> {
        &self.entries
    }

    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// The batch that `header` repeats, if it is one of the last five of its producer.
    pub(crate) fn find_duplicate(&self, header: &BatchHeader) -> Option<BatchMetadata> {
        if !header.has_producer_id() || header.is_control() {
            return None;
        }
        self.entries.get(&header.producer_id)?.find_duplicate(header)
    }

    /// Checks one batch at its final offsets, on top of what is staged before it. Batches without a producer id pass.
    pub(crate) fn stage(
        &self,
        staged: &mut Staged,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
        origin: AppendOrigin,
    ) -> Result<(), AppendError> {
        if !header.has_producer_id() {
            return Ok(());
        }
        let producer_id = header.producer_id;
        let known = staged.entries.iter().rposition(|(id, _)| *id == producer_id);
        let mut entry = match known.and_then(|at| staged.entries.get(at)) {
            Some((_, entry)) => *entry,
            None => self.entries.get(&producer_id).copied().unwrap_or(ProducerEntry::NEW),
        };
        let is_checked = origin != AppendOrigin::Leader;
        if is_checked && header.producer_epoch < entry.epoch {
            return Err(AppendError::InvalidProducerEpoch {
                producer_id,
                epoch: header.producer_epoch,
                current: entry.epoch,
            });
        }
        if header.is_control() {
            if let Some(marker) = marker {
                if is_checked && marker.coordinator_epoch < entry.coordinator_epoch {
                    return Err(AppendError::TransactionCoordinatorFenced {
                        producer_id,
                        epoch: marker.coordinator_epoch,
                        current: entry.coordinator_epoch,
                    });
                }
                staged.completed.extend(end_transaction(&mut entry, header, marker));
            }
        } else {
            if origin == AppendOrigin::Client {
                check_sequence(&entry, header)?;
            }
            if is_checked && entry.current_txn_first_offset.is_some() && !header.is_transactional() {
                return Err(AppendError::InvalidTxnState { producer_id });
            }
            write_data(&mut entry, header);
        }
        match known.and_then(|at| staged.entries.get_mut(at)) {
            Some(slot) => slot.1 = entry,
            None => staged.entries.push((producer_id, entry)),
        }
        Ok(())
    }

    /// Makes staged changes the state: the batches are in the log.
    pub(crate) fn commit(&mut self, staged: Staged) {
        for (producer_id, entry) in staged.entries {
            self.put(producer_id, entry);
        }
        self.unreplicated.extend(staged.completed);
    }

    /// Replays a batch that is in the log: nothing is checked, as the leader that wrote it did.
    pub(crate) fn replay(
        &mut self,
        header: &BatchHeader,
        marker: Option<EndTransactionMarker>,
    ) -> Option<CompletedTxn> {
        if !header.has_producer_id() {
            return None;
        }
        let mut entry = self.entries.get(&header.producer_id).copied().unwrap_or(ProducerEntry::NEW);
        let mut completed = None;
        if header.is_control() {
            // A marker without its record was emptied by the cleaner: its whole transaction is gone from the log.
            if let Some(marker) = marker {
                completed = end_transaction(&mut entry, header, marker);
            }
        } else {
            write_data(&mut entry, header);
        }
        self.put(header.producer_id, entry);
        completed
    }

    pub(crate) fn put(&mut self, producer_id: i64, entry: ProducerEntry) {
        let before = self.entries.insert(producer_id, entry).and_then(|old| old.current_txn_first_offset);
        if before != entry.current_txn_first_offset {
            if let Some(first) = before {
                self.ongoing.remove(&first);
            }
            if let Some(first) = entry.current_txn_first_offset {
                self.ongoing.insert(first, producer_id);
            }
        }
    }

    /// The first offset whose transaction is open, or decided by a marker at or above `high_watermark`.
    pub fn first_unstable_offset(&self, high_watermark: i64) -> Option<i64> {
        let open = self.ongoing.keys().next().copied();
        let unreplicated = self
            .unreplicated
            .iter()
            .filter(|txn| txn.last_offset >= high_watermark)
            .map(|txn| txn.first_offset)
            .min();
        [open, unreplicated].into_iter().flatten().min()
    }

    /// The first offset whose transaction no marker has decided.
    pub fn first_undecided_offset(&self) -> Option<i64> {
        self.ongoing.keys().next().copied()
    }

    /// The last stable offset at the moment `ending` completes: what an abort's index entry records.
    pub(crate) fn last_stable_offset_after(&self, ending: &CompletedTxn) -> i64 {
        let other = self.ongoing.iter().find(|(_, producer_id)| **producer_id != ending.producer_id);
        other.map_or(ending.last_offset + 1, |(first, _)| *first)
    }

    pub(crate) fn high_watermark_moved(&mut self, high_watermark: i64) {
        self.unreplicated.retain(|txn| txn.last_offset >= high_watermark);
    }

    /// Forgets producers that wrote nothing for `expiration_ms` and have no open transaction.
    pub(crate) fn expire(&mut self, now_ms: i64, expiration_ms: i64) {
        self.entries.retain(|_, entry| !is_expired(entry, now_ms, expiration_ms));
    }

    /// Forgets what lies below a new log start: Kafka drops no producer there, only transactions that are gone.
    pub(crate) fn log_start_moved(&mut self, log_start_offset: i64) {
        self.unreplicated.retain(|txn| txn.last_offset >= log_start_offset);
    }
}

pub(crate) fn is_expired(entry: &ProducerEntry, now_ms: i64, expiration_ms: i64) -> bool {
    entry.current_txn_first_offset.is_none() && now_ms.saturating_sub(entry.last_timestamp) >= expiration_ms
}

fn end_transaction(
    entry: &mut ProducerEntry,
    header: &BatchHeader,
    marker: EndTransactionMarker,
) -> Option<CompletedTxn> {
    let completed = entry.current_txn_first_offset.take().map(|first_offset| CompletedTxn {
        producer_id: header.producer_id,
        first_offset,
        last_offset: header.base_offset,
        aborted: marker.result == TransactionResult::Abort,
    });
    entry.see_epoch(header.producer_epoch);
    entry.coordinator_epoch = marker.coordinator_epoch;
    entry.last_timestamp = header.max_timestamp;
    completed
}

fn write_data(entry: &mut ProducerEntry, header: &BatchHeader) {
    entry.add_batch(header);
    if header.is_transactional() && entry.current_txn_first_offset.is_none() {
        entry.current_txn_first_offset = Some(header.base_offset);
    }
}

fn check_sequence(entry: &ProducerEntry, header: &BatchHeader) -> Result<(), AppendError> {
    let refuse = |expected| {
        Err(AppendError::OutOfOrderSequence {
            producer_id: header.producer_id,
            sequence: header.base_sequence,
            expected,
        })
    };
    if header.producer_epoch != entry.epoch {
        // A new epoch starts at zero; a producer that is not known (its records or its memory have expired) may go on.
        return if header.base_sequence == 0 || entry.epoch == -1 { Ok(()) } else { refuse(0) };
    }
    let expected = entry.next_sequence(entry.epoch);
    if header.base_sequence == expected { Ok(()) } else { refuse(expected) }
}

/// The sequence of the batch's last record: sequences wrap from `i32::MAX` to 0.
pub(crate) fn last_sequence(header: &BatchHeader) -> i32 {
    if header.base_sequence < 0 {
        return -1;
    }
    increment_sequence(header.base_sequence, header.last_offset_delta)
}

fn increment_sequence(sequence: i32, by: i32) -> i32 {
    match sequence.checked_add(by) {
        Some(sum) => sum,
        None => by - (i32::MAX - sequence) - 1,
    }
}

fn decrement_sequence(sequence: i32, by: i32) -> i32 {
    if sequence < by { i32::MAX - (by - sequence) + 1 } else { sequence - by }
}

#[cfg(test)]
#[path = "producers_tests.rs"]
mod tests;
