//! One replica of a partition: the log, the high watermark, and who waits for either to move.
//!
//! Order of an append by a leader: records go to the log (page cache), then to stable storage as `flush.messages` asks, and
//! to the followers, which do the same; only when all in sync have them there does the high watermark pass them. Readers see
//! what is below the high watermark and acknowledgements wait for it, so with `flush.messages=1` nothing that a power cut can
//! take away has ever been acknowledged or read. A flush runs outside the lock: records that are appended meanwhile wait
//! together for the next one (group commit).
//!
//! What a replica is, leader or follower, and what follows from that, is in `partition/replica.rs`.

use std::fmt;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::{CompressionType, TopicConfig};
use firn_records::batch::{BatchError, Codec};
use firn_records::validate::{Compression, ProducePolicy, ValidatedBatches};
use firn_storage::append::Appended;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::compaction::CompactionStats;
use firn_storage::error::{AppendError, ReadError, StorageError};
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::read::LogSlice;
use firn_storage::retention::Retained;
use firn_telemetry::metrics::TopicTraffic;
use parking_lot::Mutex;
use tokio::sync::{Notify, Semaphore, SemaphorePermit};
use tokio::time::Instant;

use crate::disk_guard::DiskFull;
use crate::log_dirs::DataDir;
use crate::replication::Replication;
use crate::replication::sessions::News;

mod flushing;
mod refusals;
mod replica;
mod soundness;
mod state;
mod turning;
mod waiting;

pub use replica::{Position, ReplicaFetch, ReplicaRead};
use state::State;
pub use waiting::{Awaited, FlushFailed, Watch, Watched};

/// Why records were not appended, or nothing was read.
#[derive(Debug, thiserror::Error)]
pub enum PartitionError {
    #[error("the partition is not here any more")]
    Closed,
    #[error("this broker does not lead the partition")]
    NotLeader,
    #[error("{in_sync} replicas are in sync, and min.insync.replicas asks for {wanted}")]
    NotEnoughReplicas { in_sync: usize, wanted: usize },
    #[error("the leader epoch is {ours}, the request has {theirs}")]
    FencedLeaderEpoch { ours: i32, theirs: i32 },
    #[error("the leader epoch is {ours} here, the request has {theirs}")]
    UnknownLeaderEpoch { ours: i32, theirs: i32 },
    #[error("a batch of the same producer that comes before was refused, and has not been sent again yet")]
    BehindRefused,
    #[error("broker {0} has no replica of the partition")]
    NotReplica(i32),
    #[error("what another broker sent cannot be appended: {0}")]
    Fetched(#[from] BatchError),
    #[error(transparent)]
    DiskFull(#[from] DiskFull),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Read(#[from] ReadError),
    #[error(transparent)]
    Storage(#[from] StorageError),
}

impl PartitionError {
    /// Whether who has sent records sends them again, and may find it gone.
    fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::NotLeader
                | Self::NotEnoughReplicas { .. }
                | Self::BehindRefused
                | Self::DiskFull(_)
                | Self::Append(AppendError::DiskFull { .. })
        )
    }
}

/// What a producer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Acks {
    /// Nothing.
    None,
    /// That the leader's own log has the records, as durable as `flush.messages` asks.
    Leader,
    /// That all replicas in sync have them so, `min.insync.replicas` at least.
    All,
}

/// What an append did, and what an acknowledgement has to wait for.
#[derive(Debug)]
pub struct PartitionAppend {
    pub appended: Appended,
    /// `None` when there is nothing to wait for.
    pub awaited: Option<Awaited>,
}

/// Which records a reader may see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// Below the high watermark.
    ReadUncommitted,
    /// Below the last stable offset as well.
    ReadCommitted,
}

/// As what a replica is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadAs {
    Leader,
    /// As the leader or a follower, which may know of less that is committed (KIP-392).
    Replica,
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
    /// Below it the tier has all that the log has, compacted as far as the log (`cleaned`) where it is: what replicas may drop.
    pub tiered_end: i64,
    pub cleaned: i64,
}

/// What tells a partition from every other, also from those of a deleted topic of its name.
pub type PartitionKey = (TopicId, i32);

/// A partition that this broker has a replica of.
pub struct Partition {
    pub name: TopicPartition,
    pub topic_id: TopicId,
    pub traffic: TopicTraffic,
    state: Mutex<State>,
    data_dir: Arc<DataDir>,
    compaction: Semaphore,
    replication: Arc<Replication>,
    /// What the leader's clock counts from.
    began: Instant,
}

impl fmt::Debug for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Partition").field(&self.name).finish()
    }
}

impl Partition {
    /// Takes over `log`. Who leads, `turn` says.
    pub fn open(
        log: PartitionLog,
        config: Arc<TopicConfig>,
        data_dir: Arc<DataDir>,
        traffic: TopicTraffic,
        replication: Arc<Replication>,
    ) -> Arc<Self> {
        Arc::new(Self {
            name: log.topic_partition().clone(),
            topic_id: log.topic_id(),
            data_dir,
            traffic,
            compaction: Semaphore::new(1),
            replication,
            began: Instant::now(),
            state: Mutex::new(State::new(log, config)),
        })
    }

    pub fn key(&self) -> PartitionKey {
        (self.topic_id, self.name.partition)
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
        acks: Acks,
        now_ms: i64,
    ) -> Result<PartitionAppend, PartitionError> {
        let mut state = self.state.lock();
        self.append_in(&mut state, batches, origin, acks, now_ms).inspect_err(|error| {
            if let Some(first) = batches.headers.first() {
                state.refusals.note(first, error, self.began.elapsed());
            }
        })
    }

    fn append_in(
        self: &Arc<Self>,
        state: &mut State,
        batches: &ValidatedBatches,
        origin: AppendOrigin,
        acks: Acks,
        now_ms: i64,
    ) -> Result<PartitionAppend, PartitionError> {
        let leader = self.leader(state).ok_or(PartitionError::NotLeader)?;
        let has_followers = leader.has_followers();
        if acks == Acks::All && !leader.is_writable() {
            return Err(PartitionError::NotEnoughReplicas {
                in_sync: leader.isr().len(),
                wanted: leader.min_isr(),
            });
        }
        let epoch = state.leader_epoch;
        let log = state.log.as_mut().ok_or(PartitionError::Closed)?;
        let now = || self.began.elapsed();
        let first = batches.headers.first();
        if first.is_some_and(|first| state.refusals.hold_back(first, log.producers(), now)) {
            return Err(PartitionError::BehindRefused);
        }
        let before = log.end_offset();
        let admitted = self.data_dir.guard.admit(batches.bytes.len()).map_err(PartitionError::from);
        let appended = admitted
            .and_then(|()| Ok(log.append(&batches.bytes, &batches.headers, epoch, origin, now_ms)?));
        let appended = self.noting_room(state, batches.bytes.len(), appended)?;
        state.unflushed_since.get_or_insert(now_ms);
        if state.wants_flush() {
            self.start_flush(state);
        }
        if !appended.duplicate && has_followers {
            state.appended_from(before, self.began.elapsed());
            state.readers.appended();
        }
        state.advance();
        let end = appended.last_offset + 1;
        let awaited = match acks {
            Acks::None => None,
            Acks::Leader => state.when_vouched_for(end),
            Acks::All => state.when_committed(end),
        };
        Ok(PartitionAppend { appended, awaited })
    }

    /// Takes note of it if there was no room for what was to be appended.
    fn noting_room<T>(
        &self,
        state: &State,
        bytes: usize,
        appended: Result<T, PartitionError>,
    ) -> Result<T, PartitionError> {
        match &appended {
            Err(PartitionError::DiskFull(_)) => {}
            Err(PartitionError::Append(AppendError::DiskFull { .. })) => self.data_dir.guard.refuse(bytes),
            _ => return appended,
        }
        self.replication.short.refused(self.key(), state.leader_epoch);
        appended
    }

    /// Reads from `from` what `isolation` may see, up to `max_bytes`, at least one batch if `at_least_one`.
    pub fn read(
        self: &Arc<Self>,
        reads: ReadAs,
        from: i64,
        isolation: Isolation,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<(Offsets, LogSlice), PartitionError> {
        let state = self.state.lock();
        let may = match reads {
            ReadAs::Leader => self.leader(&state).is_some(),
            ReadAs::Replica => self.serves_readers(&state),
        };
        if !may {
            return Err(PartitionError::NotLeader);
        }
        let log = state.log.as_ref().ok_or(PartitionError::Closed)?;
        let offsets = state.offsets_of(log);
        let limit = match isolation {
            Isolation::ReadUncommitted => offsets.high_watermark,
            Isolation::ReadCommitted => offsets.last_stable,
        };
        if from > offsets.log_end && state.leader().is_none() {
            // A follower that lacks it yet, or has begun anew: the leader knows whether there is such an offset.
            return Err(PartitionError::NotLeader);
        }
        let slice = log
            .read(from, limit, max_bytes, at_least_one)
            .map_err(|error| self.noted(log.segment_at(from), error))?;
        Ok((offsets, slice))
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

    pub fn update_config(&self, config: Arc<TopicConfig>) {
        let mut state = self.state.lock();
        if let Some(log) = &mut state.log {
            log.update_config(config.clone());
            if !config.remote_storage_enable {
                // The tier may be emptied before it is asked for again.
                log.forget_tiered();
            }
        }
        state.update_config(config);
    }

    /// Runs `act` on the log, alone. For work that is short; what takes long is split so that it runs outside.
    pub fn with_log<T>(&self, act: impl FnOnce(&mut PartitionLog) -> T) -> Result<T, PartitionError> {
        self.state.lock().with_log(act)
    }

    /// Takes the log away: for deletion, or to close it. Whoever waits is told; later requests find it closed.
    pub fn close(self: &Arc<Self>) -> Option<PartitionLog> {
        let mut state = self.state.lock();
        let log = state.log.take();
        self.replication.followed.set(self, None);
        self.replication.in_sync.forget(self);
        self.replication.damaged.forget(self);
        state.dismiss_waiting();
        log
    }

    pub fn is_closed(&self) -> bool {
        self.state.lock().log.is_none()
    }

    /// Asks to be woken when what it says has happened. Dropping the watch takes the request back.
    pub fn watch(self: &Arc<Self>, what: Watched, wake: &Arc<Notify>) -> Watch {
        let id = self.state.lock().readers.add(what, wake);
        Watch { partition: self.clone(), id }
    }

    /// Asks that `news` are told of all that concerns a follower. Dropping the watch takes the request back.
    pub fn watch_as_follower(self: &Arc<Self>, news: &Arc<News>) -> Watch {
        let id = self.state.lock().readers.add_follower(self.key(), news);
        Watch { partition: self.clone(), id }
    }

    /// Deletes what is past its retention; returns what went.
    pub fn retain(&self, now_ms: i64) -> Result<Retained, PartitionError> {
        let mut state = self.state.lock();
        let high_watermark = state.high_watermark;
        state.with_log(|log| {
            log.roll_if_due(now_ms)?;
            Ok(log.retain(now_ms, high_watermark)?)
        })?
    }

    /// The right to compact the log; `None` while somebody else does.
    pub fn begin_compaction(&self) -> Option<SemaphorePermit<'_>> {
        self.compaction.try_acquire().ok()
    }

    /// Compacts a log that lies on the disk as a whole, if it is dirty enough. Of a tiered one only the leader's: a follower would
    /// take away tombstones of records that the tier still has. The work runs outside the lock; only the
    /// exchange of segments runs within.
    pub fn compact(
        &self,
        now_ms: i64,
        limits: CleanerLimits,
    ) -> Result<Option<CompactionStats>, PartitionError> {
        if self.config().remote_storage_enable && !self.is_led_here() {
            return Ok(None);
        }
        let Some(_alone) = self.begin_compaction() else { return Ok(None) };
        let last_stable = self.offsets()?.last_stable;
        let task = self.with_log(|log| log.compaction_task(now_ms, last_stable, limits))??;
        let Some(task) = task else { return Ok(None) };
        let compacted = task.run()?;
        Ok(Some(self.with_log(|log| log.compacted(compacted, now_ms))??))
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

#[cfg(test)]
#[path = "partition_tests.rs"]
mod tests;
