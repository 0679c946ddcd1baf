//! One partition as its leader runs it: the log, the high watermark, and who waits for either to move.
//!
//! Order of an append: records go to the log (page cache), then to stable storage as `flush.messages` asks, and only
//! then does the high watermark pass them. Readers see what is below the high watermark and acknowledgements wait for
//! it, so with `flush.messages=1` nothing that a power cut can take away has ever been acknowledged or read. A flush
//! runs outside the lock: records that are appended meanwhile wait together for the next one (group commit).

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::{CompressionType, TopicConfig};
use firn_records::batch::Codec;
use firn_records::validate::{Compression, ProducePolicy, ValidatedBatches};
use firn_storage::append::Appended;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::compaction::CompactionStats;
use firn_storage::error::{AppendError, ReadError, StorageError};
use firn_storage::flush::FlushTask;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::read::LogSlice;
use firn_storage::retention::Retained;
use firn_telemetry::metrics::TopicTraffic;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit, oneshot};

use crate::disk_guard::DiskFull;
use crate::log_dirs::DataDir;

/// Why records were not appended, or nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    #[error("the partition is not here any more")]
    Closed,
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

/// Why an append that was accepted was not made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log could not be flushed; its directory is offline")]
pub struct FlushFailed;

/// Resolves once the awaited records are below the high watermark.
pub type Committed = oneshot::Receiver<Result<(), FlushFailed>>;

/// Offsets that are waited for (exclusive ends), and who waits. Offsets only grow.
type Waiting = VecDeque<(i64, oneshot::Sender<Result<(), FlushFailed>>)>;

/// What an append did, and what an acknowledgement has to wait for.
#[derive(Debug)]
pub struct PartitionAppend {
    pub appended: Appended,
    /// `None` when the records are committed already.
    pub committed: Option<Committed>,
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Below the high watermark.
    ReadUncommitted,
    /// Below the last stable offset as well.
    ReadCommitted,
}

/// Where a partition's log stands. Offsets are exclusive ends, but for the starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Offsets {
    pub log_start: i64,
    /// First offset that is still on the local disk; below it the tier answers.
    pub local_start: i64,
    pub high_watermark: i64,
    pub last_stable: i64,
    pub log_end: i64,
}

/// A partition that this broker leads.
pub struct Partition {
    pub name: TopicPartition,
    pub topic_id: TopicId,
    pub traffic: TopicTraffic,
    state: Mutex<State>,
    data_dir: Arc<DataDir>,
    compaction: Semaphore,
}

struct State {
    /// `None` once the partition is closed or deleted.
    log: Option<PartitionLog>,
    config: Arc<TopicConfig>,
    leader_epoch: i32,
    /// False while the controller has put this broker behind a fence.
    leads: bool,
    high_watermark: i64,
    /// Since when records wait for `flush.ms`; `None` while all are flushed.
    unflushed_since: Option<i64>,
    /// A flush runs, or is about to.
    flushing: bool,
    /// A flush failed: nothing more will be durable.
    failed: bool,
    awaiting_commit: Waiting,
    /// `flush.ms` is over for what lies below this offset, whatever `flush.messages` is.
    flush_due_to: i64,
    readers: Vec<Reader>,
    next_reader: u64,
}

struct Reader {
    id: u64,
    wake: Arc<Notify>,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Partition").field(&self.name).finish()
    }
}

impl Partition {
    /// Takes over `log`. With one replica, what recovery kept is the truth: all that is on stable storage is committed.
    /// The rest, which recovery could not sync for want of room, is flushed first, as if it had just come.
    pub fn lead(
        mut log: PartitionLog,
        leader_epoch: i32,
        config: Arc<TopicConfig>,
        data_dir: Arc<DataDir>,
        traffic: TopicTraffic,
    ) -> Arc<Self> {
        log.start_epoch(leader_epoch);
        let partition = Arc::new(Self {
            name: log.topic_partition().clone(),
            topic_id: log.topic_id(),
            data_dir,
            traffic,
            compaction: Semaphore::new(1),
            state: Mutex::new(State {
                high_watermark: log.flushed_offset(),
                log: Some(log),
                config,
                leader_epoch,
                leads: true,
                unflushed_since: None,
                flushing: false,
                failed: false,
                awaiting_commit: VecDeque::new(),
                flush_due_to: 0,
                readers: Vec::new(),
                next_reader: 0,
            }),
        });
        partition.state.lock().advance();
        partition
    }

    pub fn data_dir(&self) -> &DataDir {
        &self.data_dir
    }

    /// What this topic asks of records that come by a Produce request of `version`.
    pub fn produce_policy(&self, version: i16, decompressed_bytes_max: usize) -> ProducePolicy {
        produce_policy(&self.state.lock().config, version, decompressed_bytes_max)
    }

    /// Appends and, where the topic's `flush.messages` asks for it, sees that a flush follows.
    pub fn append(
        self: &Arc<Self>,
        batches: &ValidatedBatches,
        origin: AppendOrigin,
        now_ms: i64,
    ) -> Result<PartitionAppend, PartitionError> {
        self.data_dir.guard.admit(batches.bytes.len())?;
        let mut state = self.state.lock();
        if !state.leads {
            return Err(PartitionError::NotLeader);
        }
        let epoch = state.leader_epoch;
        let log = state.log.as_mut().ok_or(PartitionError::Closed)?;
        let appended = log.append(&batches.bytes, &batches.headers, epoch, origin, now_ms)?;
        state.unflushed_since.get_or_insert(now_ms);
        if state.wants_flush() {
            self.start_flush(&mut state);
        }
        state.advance();
        let end = appended.last_offset + 1;
        let committed = (state.high_watermark < end).then(|| {
            let (sender, receiver) = oneshot::channel();
            state.awaiting_commit.push_back((end, sender));
            receiver
        });
        Ok(PartitionAppend { appended, committed })
    }

    /// Reads from `from` what `isolation` may see, up to `max_bytes`, at least one batch if `at_least_one`.
    pub fn read(
        &self,
        from: i64,
        isolation: Isolation,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Offsets, LogSlice), PartitionError> {
        let state = self.state.lock();
        if !state.leads {
            return Err(PartitionError::NotLeader);
        }
        let log = state.log.as_ref().ok_or(PartitionError::Closed)?;
        let offsets = state.offsets_of(log);
        let limit = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
        };
        Ok((offsets, log.read(from, limit, max_bytes, at_least_one)?))
    }

    pub fn offsets(&self) -> Result<Offsets, PartitionError> {
        let state = self.state.lock();
        state.log.as_ref().map(|log| state.offsets_of(log)).ok_or(PartitionError::Closed)
    }

    pub fn config(&self) -> Arc<TopicConfig> {
        self.state.lock().config.clone()
    }

    pub fn leader_epoch(&self) -> i32 {
        self.state.lock().leader_epoch
    }

    /// Resolves once all that is in the log now is committed; `None` if it is.
    pub fn all_committed(self: &Arc<Self>) -> Option<Committed> {
        let mut state = self.state.lock();
        let end = state.log.as_ref()?.end_offset();
        if state.high_watermark >= end {
            return None;
        }
        if state.wants_flush() {
            self.start_flush(&mut state);
        }
        let (sender, receiver) = oneshot::channel();
        // After a failed flush nothing comes any more.
        if !state.failed {
            state.awaiting_commit.push_back((end, sender));
        }
        Some(receiver)
    }

    /// The epoch in which this broker leads it, if it does.
    pub fn led_in(&self) -> Option<i32> {
        let state = self.state.lock();
        state.leads.then_some(state.leader_epoch)
    }

    /// Leads from now on in this epoch, or does not.
    pub fn turn(&self, leads: bool, leader_epoch: i32) {
        let mut state = self.state.lock();
        let state = &mut *state;
        if (state.leads, state.leader_epoch) == (leads, leader_epoch) {
            return;
        }
        state.leads = leads;
        state.leader_epoch = leader_epoch;
        if let (true, Some(log)) = (leads, &mut state.log) {
            log.start_epoch(leader_epoch);
        }
        // Who waits for records is to learn that none come from here.
        for reader in &state.readers {
            reader.wake.notify_one();
        }
    }

    pub fn update_config(&self, config: Arc<TopicConfig>) {
        let mut state = self.state.lock();
        if let Some(log) = &mut state.log {
            log.update_config(config.clone());
        }
        state.config = config;
    }

    /// Runs `act` on the log, alone. For work that is short; what takes long is split so that it runs outside.
    pub fn with_log<T>(&self, act: impl FnOnce(&mut PartitionLog) -> T) -> Result<T, PartitionError> {
        self.state.lock().log.as_mut().map(act).ok_or(PartitionError::Closed)
    }

    /// Takes the log away: for deletion, or to close it. Whoever waits is told; later requests find it closed.
    pub fn close(&self) -> Option<PartitionLog> {
        let mut state = self.state.lock();
        let log = state.log.take();
        // Dropping the senders tells those who wait that the partition is gone.
        state.awaiting_commit.clear();
        for reader in &state.readers {
            reader.wake.notify_one();
        }
        log
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().log.is_none()
    }

    /// Asks to be woken when there may be more to read. Dropping the watch takes the request back.
    pub fn watch(self: &Arc<Self>, wake: &Arc<Notify>) -> Watch {
        let mut state = self.state.lock();
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.push(Reader { id, wake: wake.clone() });
        Watch { partition: self.clone(), id }
    }

    /// Flushes, if records have waited for `flush.ms`, or if they should have been flushed before and could not be.
    pub fn flush_if_due(self: &Arc<Self>, now_ms: i64) {
        let mut state = self.state.lock();
        let waited = state.unflushed_since.map_or(0, |since| now_ms.saturating_sub(since));
        if state.unflushed_since.is_some() && waited >= state.config.flush_ms {
            state.flush_due_to = state.log.as_ref().map_or(0, PartitionLog::end_offset);
        }
        if state.wants_flush() {
            self.start_flush(&mut state);
        }
    }

    /// Deletes what is past its retention; returns what went.
    pub fn retain(&self, now_ms: i64) -> Result<Retained, PartitionError> {
        let mut state = self.state.lock();
        let high_watermark = state.high_watermark;
        let log = state.log.as_mut().ok_or(PartitionError::Closed)?;
        log.roll_if_due(now_ms)?;
        Ok(log.retain(now_ms, high_watermark)?)
    }

    /// The right to compact the log; `None` while somebody else does.
    pub fn begin_compaction(&self) -> Option<SemaphorePermit<'_>> {
        self.compaction.try_acquire().ok()
    }

    /// Compacts a log that lies on the disk as a whole, if it is dirty enough. The work runs outside the lock; only the
    /// exchange of segments runs within.
    pub fn compact(
        &self,
        now_ms: i64,
        limits: CleanerLimits,
    ) -> Result<Option<CompactionStats>, PartitionError> {
        let Some(_alone) = self.begin_compaction() else { return Ok(None) };
        let last_stable = self.offsets()?.last_stable;
        let task = self.with_log(|log| log.compaction_task(now_ms, last_stable, limits))??;
        let Some(task) = task else { return Ok(None) };
        let compacted = task.run()?;
        Ok(Some(self.with_log(|log| log.compacted(compacted, now_ms))??))
    }

    /// Makes what is in the log durable with its indexes and producers, and notes where it stands for the directory's
    /// checkpoint.
    pub fn checkpoint(&self) -> Result<(), PartitionError> {
        if let Some(task) = self.with_log(PartitionLog::checkpoint_task)?? {
            let flushed = task.run()?;
            let mut state = self.state.lock();
            if let Some(log) = &mut state.log {
                log.flushed(flushed);
                state.advance();
            }
        }
        self.with_log(|log| log.remember())
    }

    fn start_flush(self: &Arc<Self>, state: &mut State) {
        if !state.flushing {
            state.flushing = true;
            tokio::spawn(self.clone().flush_until_settled());
        }
    }

    /// Flushes until nobody waits for a flush any more. One runs at a time for a partition.
    async fn flush_until_settled(self: Arc<Self>) {
        while let Some(task) = self.next_flush() {
            let result = firn_blocking::run(move || task.run()).await;
            let mut state = self.state.lock();
            match result {
                Ok(flushed) => {
                    if let Some(log) = &mut state.log {
                        log.flushed(flushed);
                    }
                    state.advance();
                }
                Err(error) if error.is_shortage() => {
                    tracing::warn!(partition = %self.name, %error, "a flush was not possible; it is tried again");
                    state.refuse_waiting();
                    state.flushing = false;
                    return;
                }
                Err(error) => {
                    tracing::error!(partition = %self.name, %error, "a flush failed: the partition is offline");
                    state.fail();
                }
            }
        }
    }

    /// The next flush, or `None`, after which another one may be started.
    fn next_flush(&self) -> Option<FlushTask> {
        let mut state = self.state.lock();
        let task = if state.wants_flush() { state.log.as_ref().map(PartitionLog::flush_task) } else { None };
        match task {
            Some(Ok(Some(task))) => return Some(task),
            Some(Ok(None)) | None => state.advance(),
            Some(Err(error)) if error.is_shortage() => {
                tracing::warn!(partition = %self.name, %error, "cannot flush; it is tried again");
                state.refuse_waiting();
            }
            Some(Err(error)) => {
                tracing::error!(partition = %self.name, %error, "cannot flush: the partition is offline");
                state.fail();
            }
        }
        state.flushing = false;
        None
    }
}

/// A topic's config as the validation of records wants it.
fn produce_policy(config: &TopicConfig, version: i16, decompressed_bytes_max: usize) -> ProducePolicy {
    let compression = match config.compression_type {
        CompressionType::Producer => Compression::Producer,
        CompressionType::Uncompressed => Compression::Fixed(Codec::None, None),
        CompressionType::Gzip => Compression::Fixed(Codec::Gzip, Some(config.compression_gzip_level)),
        CompressionType::Snappy => Compression::Fixed(Codec::Snappy, None),
        CompressionType::Lz4 => Compression::Fixed(Codec::Lz4, Some(config.compression_lz4_level)),
        CompressionType::Zstd => Compression::Fixed(Codec::Zstd, Some(config.compression_zstd_level)),
    };
    ProducePolicy {
        max_message_bytes: usize::try_from(config.max_message_bytes).unwrap_or(0),
        timestamp_type: config.message_timestamp_type,
        timestamp_before_max_ms: config.message_timestamp_before_max_ms,
        timestamp_after_max_ms: config.message_timestamp_after_max_ms,
        compression,
        compacted: config.cleanup_policy.compact,
        single_batch: version >= 3,
        zstd_allowed: version >= 7,
        decompressed_bytes_max,
    }
}

impl State {
    fn offsets_of(&self, log: &PartitionLog) -> Offsets {
        Offsets {
            log_start: log.log_start_offset(),
            local_start: log.local_start_offset(),
            high_watermark: self.high_watermark,
            last_stable: log.last_stable_offset(self.high_watermark),
            log_end: log.end_offset(),
        }
    }

    fn wants_flush(&self) -> bool {
        let Some(log) = &self.log else { return false };
        let unflushed = log.end_offset() - log.flushed_offset();
        let is_due = log.flushed_offset() < self.flush_due_to;
        !self.failed && unflushed > 0 && (unflushed >= self.config.flush_messages || is_due)
    }

    /// Moves the high watermark as far as it may go, and tells those who waited for it: as in Kafka to the end, unless so
    /// many records (`flush.messages`) are not flushed that they have to be first.
    fn advance(&mut self) {
        let Some(log) = &mut self.log else { return };
        let flushed = log.flushed_offset();
        let end = log.end_offset();
        let committed = if end - flushed >= self.config.flush_messages { flushed } else { end };
        if flushed >= end {
            self.unflushed_since = None;
        }
        if committed > self.high_watermark {
            self.high_watermark = committed;
            log.high_watermark_moved(committed);
            tell(&mut self.awaiting_commit, committed);
            for reader in &self.readers {
                reader.wake.notify_one();
            }
        }
    }

    fn fail(&mut self) {
        self.failed = true;
        self.refuse_waiting();
    }

    /// Tells those who wait for a commit that it does not come now.
    fn refuse_waiting(&mut self) {
        for (_, sender) in self.awaiting_commit.drain(..) {
            // A waiter that has given up meanwhile needs no answer.
            sender.send(Err(FlushFailed)).ok();
        }
    }
}

fn tell(waiting: &mut Waiting, reached: i64) {
    while waiting.front().is_some_and(|(offset, _)| *offset <= reached) {
        if let Some((_, sender)) = waiting.pop_front() {
            sender.send(Ok(())).ok();
        }
    }
}

/// A reader's wish to be woken; taken back when dropped.
#[derive(Debug)]
pub struct Watch {
    partition: Arc<Partition>,
    id: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut state = self.partition.state.lock();
        if let Some(index) = state.readers.iter().position(|reader| reader.id == self.id) {
            state.readers.swap_remove(index);
        }
    }
}

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
