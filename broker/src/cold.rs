//! Cools partitions down: sealed segments go to the object store, and what has left the disk is read from there.
//!
//! Order of a cooling: list the partition's folder (once) → upload the sealed segments that are committed, oldest first,
//! each listed and read back → tell the log up to where the store has it, a plain number → local retention deletes below
//! that. A crash anywhere leaves a segment on the disk, an object that the next attempt finds, or both. A store that is
//! slow or failing delays all this, and never a produce request or a fetch of what is on the disk: cooling has its own
//! task, and reads of cold records wait on their own.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firn_model::ids::{TopicId, TopicPartition};
use firn_storage::disk::DiskFile;
use firn_storage::tier_handover::SealedSegment;
use firn_tier::lineage::{EpochStart, LeaderEpochs};
use firn_tier::retention::{Retention, retained_start};
use firn_tiering::error::{ReadError as ColdReadError, TierError};
use firn_tiering::partition::{PartitionView, TieredPartition};
use firn_tiering::segment::{SegmentSource, SegmentToUpload};
use firn_tiering::tier::Tier;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use crate::blocking;
use crate::environment::Environment;
use crate::partition::{Partition, PartitionError};
use crate::partitions::{Partitions, Topic};

/// How often in a garbage grace period the store is listed for garbage.
const COLLECTIONS_PER_GRACE: i64 = 4;

/// Why cold records were not read, or a partition was not cooled.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    #[error("the records are in the object store, and this broker was started without one (firn.store.url)")]
    NoStore,
    #[error("reading cold records took longer than {0:?} (remote.fetch.max.wait.ms)")]
    TooSlow(Duration),
    #[error(transparent)]
    Read(#[from] ColdReadError),
    #[error(transparent)]
    Tier(#[from] TierError),
    #[error(transparent)]
    Partition(#[from] PartitionError),
}

/// The cold side of this broker; without a store it knows nothing and refuses to read.
pub struct Cold {
    tier: Option<Tier>,
    cluster_id: String,
    partitions: Arc<Partitions>,
    environment: Environment,
    garbage_grace_ms: i64,
    handles: Mutex<HashMap<(TopicId, i32), Handle>>,
    /// When each partition's garbage was last collected.
    collected: Mutex<HashMap<(TopicId, i32), i64>>,
}

/// One partition's cold part.
#[derive(Debug, Clone)]
struct Handle {
    tiered: TieredPartition,
    /// Listed since this process leads the partition.
    listed: Arc<tokio::sync::OnceCell<()>>,
}

impl fmt::Debug for Cold {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cold").field("tier", &self.tier).finish_non_exhaustive()
    }
}

impl Cold {
    pub fn new(
        tier: Option<Tier>,
        cluster_id: String,
        partitions: Arc<Partitions>,
        environment: Environment,
        garbage_grace_ms: i64,
    ) -> Self {
        Self {
            tier,
            cluster_id,
            partitions,
            environment,
            garbage_grace_ms,
            handles: Mutex::default(),
            collected: Mutex::default(),
        }
    }

    /// Numbers of the store's operations, if there is a store.
    pub fn tier(&self) -> Option<&Tier> {
        self.tier.as_ref()
    }

    /// Batches from the one that holds `from` on, which lies below what is on the disk.
    pub async fn read(
        &self,
        partition: &Arc<Partition>,
        from: i64,
        max_bytes: usize,
        at_least_one: bool,
        patience: Duration,
    ) -> Result<Bytes, ColdError> {
        let read = async {
            let tiered = self.listed(partition).await?;
            Ok(tiered.read(from, max_bytes, at_least_one).await?)
        };
        tokio::time::timeout(patience, read).await.unwrap_or(Err(ColdError::TooSlow(patience)))
    }

    /// The first cold record at or after `timestamp`: offset and timestamp.
    pub async fn offset_for_timestamp(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
    ) -> Result<Option<(i64, i64)>, ColdError> {
        Ok(self.listed(partition).await?.offset_for_timestamp(timestamp).await?)
    }

    /// The cold record with the greatest timestamp: offset and timestamp.
    pub async fn max_timestamp(&self, partition: &Arc<Partition>) -> Result<Option<(i64, i64)>, ColdError> {
        Ok(self.listed(partition).await?.max_timestamp().await?)
    }

    fn handle(&self, name: &TopicPartition, id: TopicId) -> Result<Handle, ColdError> {
        let tier = self.tier.as_ref().ok_or(ColdError::NoStore)?;
        let mut handles = self.handles.lock();
        let handle = handles.entry((id, name.partition)).or_insert_with(|| Handle {
            tiered: tier.partition(&self.cluster_id, name, id),
            listed: Arc::default(),
        });
        Ok(handle.clone())
    }

    /// The partition's cold part, listed at least once.
    async fn listed(&self, partition: &Arc<Partition>) -> Result<TieredPartition, ColdError> {
        let handle = self.handle(&partition.name, partition.topic_id)?;
        handle
            .listed
            .get_or_try_init(|| async {
                let listing = handle.tiered.refresh(view(partition)?).await?;
                tracing::debug!(partition = %partition.name, ?listing, "listed the cold segments");
                Ok::<(), ColdError>(())
            })
            .await?;
        Ok(handle.tiered)
    }

    /// Cools every partition that wants it, again and again, until `shutdown`.
    pub async fn run(self: Arc<Self>, period: Duration, shutdown: CancellationToken) {
        if self.tier.is_none() {
            return;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep(period) => {}
                () = shutdown.cancelled() => return,
            }
            for partition in self.partitions.all() {
                let config = partition.config();
                let has_cold =
                    partition.offsets().is_ok_and(|offsets| offsets.log_start < offsets.local_start);
                if !config.remote_storage_enable && !has_cold {
                    continue;
                }
                tokio::select! {
                    outcome = self.cool(&partition) => match outcome {
                        Ok(()) | Err(ColdError::Partition(PartitionError::Closed)) => {}
                        Err(error) => tracing::warn!(partition = %partition.name, %error, "cooling failed; it is tried again"),
                    },
                    () = shutdown.cancelled() => return,
                }
            }
        }
    }

    async fn cool(&self, partition: &Arc<Partition>) -> Result<(), ColdError> {
        let tiered = self.listed(partition).await?;
        let config = partition.config();
        if config.remote_storage_enable && !config.remote_log_copy_disable {
            self.upload(partition, &tiered).await?;
        }
        self.retain(partition, &tiered).await?;
        self.collect(partition, &tiered).await
    }

    /// Lists the partition's folder and deletes what has been garbage for long enough. A listing is a request to the
    /// store for each partition, so it comes a few times in a grace period, not with every cooling.
    async fn collect(&self, partition: &Arc<Partition>, tiered: &TieredPartition) -> Result<(), ColdError> {
        let now_ms = self.environment.clock.now_ms();
        let pause_ms = (self.garbage_grace_ms / COLLECTIONS_PER_GRACE).max(0);
        {
            let mut collected = self.collected.lock();
            let last = collected.entry((partition.topic_id, partition.name.partition)).or_insert(now_ms);
            if now_ms.saturating_sub(*last) < pause_ms {
                return Ok(());
            }
            *last = now_ms;
        }
        let collected = tiered.collect_garbage(view(partition)?, now_ms, self.garbage_grace_ms).await?;
        if collected.deleted > 0 {
            let objects = collected.deleted;
            tracing::info!(partition = %partition.name, objects, "collected garbage from the store");
        }
        Ok(())
    }

    /// Uploads what is sealed, flushed and committed, and not in the store yet.
    async fn upload(&self, partition: &Arc<Partition>, tiered: &TieredPartition) -> Result<(), ColdError> {
        let offsets = partition.offsets()?;
        let from = tiered.verified_end(offsets.local_start);
        let sealed = {
            let partition = partition.clone();
            let find = move || {
                partition
                    .with_log(|log| log.sealed_segments(from, offsets.last_stable.min(log.flushed_offset())))
            };
            blocking::run(find).await?.map_err(PartitionError::from)?
        };
        for metadata in sealed {
            let segment = {
                let partition = partition.clone();
                let open = move || partition.with_log(|log| log.sealed_segment(metadata.base_offset));
                blocking::run(open).await?.map_err(PartitionError::from)?
            };
            // Retention may have taken it meanwhile.
            let Some(segment) = segment else { continue };
            tiered.follow(view(partition)?);
            let uploaded = tiered.upload(to_upload(partition, segment)?).await?;
            let end = tiered.verified_end(offsets.local_start);
            partition.with_log(|log| log.set_tiered_end_offset(end))?;
            tracing::info!(
                partition = %partition.name,
                object = %uploaded.name,
                bytes = uploaded.object_bytes,
                created = uploaded.created,
                "a segment is cold"
            );
        }
        Ok(())
    }

    /// Moves the log start by the topic's retention, and deletes the objects below it.
    async fn retain(&self, partition: &Arc<Partition>, tiered: &TieredPartition) -> Result<(), ColdError> {
        let config = partition.config();
        let offsets = partition.offsets()?;
        if config.cleanup_policy.delete {
            let local_bytes = partition.with_log(|log| log.size_bytes())?;
            let chain: Vec<_> =
                tiered.chain().into_iter().filter(|link| link.to <= offsets.local_start).collect();
            let retention =
                Retention { retention_ms: config.retention_ms, retention_bytes: config.retention_bytes };
            let now_ms = self.environment.clock.now_ms();
            if let Some(start) = retained_start(&chain, local_bytes, &retention, now_ms) {
                let partition = partition.clone();
                let raise = move || partition.with_log(|log| log.set_log_start_offset(start));
                blocking::run(raise).await?.map_err(PartitionError::from)?;
            }
        }
        // DeleteRecords may have moved it, too.
        let deleted = tiered.delete_below(partition.offsets()?.log_start).await?;
        if deleted > 0 {
            tracing::info!(partition = %partition.name, objects = deleted, "deleted cold segments past their retention");
        }
        Ok(())
    }

    /// Deletes what the store holds of a topic that is gone. Its folder bears the topic's id: no other topic is hurt.
    pub async fn delete_topic(&self, topic: &Topic) {
        for partition in topic.partitions.values() {
            let Ok(handle) = self.handle(&partition.name, topic.id) else { return };
            if let Err(error) = handle.tiered.delete_all().await {
                tracing::warn!(partition = %partition.name, %error, "objects of a deleted topic are left in the store");
            }
            let key = (topic.id, partition.name.partition);
            self.handles.lock().remove(&key);
            self.collected.lock().remove(&key);
        }
    }
}

/// What the tier has to know of the log.
fn view(partition: &Partition) -> Result<PartitionView, PartitionError> {
    let current = partition.leader_epoch();
    partition.with_log(|log| {
        let mut epochs: BTreeMap<i32, i64> =
            log.epoch_entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect();
        epochs.entry(current).or_insert(log.end_offset());
        let entries = epochs.into_iter().map(|(epoch, start_offset)| EpochStart { epoch, start_offset });
        PartitionView {
            leader_epochs: LeaderEpochs::from_checkpoint(entries),
            log_start_offset: log.log_start_offset(),
            log_end_offset: log.end_offset(),
        }
    })
}

fn to_upload(partition: &Partition, segment: SealedSegment) -> Result<SegmentToUpload, PartitionError> {
    Ok(SegmentToUpload {
        base_offset: segment.metadata.base_offset,
        last_offset: segment.metadata.last_offset,
        max_timestamp: segment.metadata.max_timestamp,
        compacted_to: -1,
        uploader_epoch: partition.leader_epoch(),
        leader_epochs: view(partition)?.leader_epochs,
        log: Arc::new(SegmentFile { file: segment.log, bytes: segment.metadata.bytes }),
        offset_index: segment.offset_index,
        time_index: segment.time_index,
        transaction_index: segment.transaction_index,
        producer_snapshot: segment.producer_snapshot,
    })
}

/// A sealed segment's log as the tier reads it.
#[derive(Debug)]
struct SegmentFile {
    file: Arc<dyn DiskFile>,
    bytes: u64,
}

impl SegmentSource for SegmentFile {
    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes)
    }

    fn read_at(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut buffer = BytesMut::zeroed(length);
        let mut filled = 0;
        while filled < length {
            match self.file.read_at(&mut buffer[filled..], position + filled as u64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(buffer.freeze())
    }
}
