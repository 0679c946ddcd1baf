//! The tier of one broker: the store, its limits, and the cache that all partitions share.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_model::ids::{TopicId, TopicPartition};
use firn_tier::names::PartitionPath;
use parking_lot::Mutex;
use tokio::sync::Semaphore;

use crate::bucket::Bucket;
use crate::cache::PieceCache;
use crate::error::TierError;
use crate::metrics::{TierMetrics, TierSnapshot};
use crate::options::TierOptions;
use crate::partition::TieredPartition;
use crate::read_ahead::ReadAhead;
use crate::store::{Store, StoreUrl, StoreVariables};

/// What partitions share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub bucket: Bucket,
    pub cache: PieceCache,
    pub metrics: Arc<TierMetrics>,
    /// Parts of uploads in memory at once.
    pub parts: Semaphore,
    /// GETs that run ahead of readers at once.
    pub read_ahead: Arc<Semaphore>,
    pub readers: Mutex<ReadAhead>,
    handles: AtomicU64,
}

impl Shared {
    pub(crate) fn next_handle(&self) -> u64 {
        self.handles.fetch_add(1, Ordering::Relaxed)
    }
}

/// The tier of one broker. Cheap to clone. Must be used within a tokio runtime that has time enabled.
#[derive(Debug, Clone)]
pub struct Tier {
    pub(crate) shared: Arc<Shared>,
}

impl Tier {
    /// Opens the store that `url` names and lists it once, so that a store which cannot be used is known at start.
    pub async fn open(
        url: &StoreUrl,
        variables: &StoreVariables,
        options: TierOptions,
    ) -> Result<Tier, TierError> {
        let tier = Self::with_store(Store::open(url, variables, &options)?, options);
        tier.probe().await?;
        Ok(tier)
    }

    /// A tier over a store that the caller opened: the seam for faults and simulation.
    pub fn with_store(store: Store, options: TierOptions) -> Tier {
        let metrics = Arc::new(TierMetrics::default());
        Tier {
            shared: Arc::new(Shared {
                cache: PieceCache::new(options.cache_bytes_max, metrics.clone()),
                parts: Semaphore::new(options.parts_max.max(1)),
                read_ahead: Arc::new(Semaphore::new(options.read_ahead_fetches_max)),
                readers: Mutex::default(),
                bucket: Bucket::new(store, options, metrics.clone()),
                metrics,
                handles: AtomicU64::new(0),
            }),
        }
    }

    /// The store's directory, if it is one.
    pub fn directory(&self) -> Option<&std::path::Path> {
        self.shared.bucket.store.directory.as_deref()
    }

    /// Bytes a second that may be copied to the store, and read from it for consumers; [`f64::INFINITY`] is no limit.
    /// What is read back to verify a copy, or to compact, counts as neither.
    pub fn set_pace(&self, copy_bytes_per_second: f64, fetch_bytes_per_second: f64) {
        self.shared.bucket.copies.set(copy_bytes_per_second);
        self.shared.bucket.cold_reads.set(fetch_bytes_per_second);
    }

    /// One call that the store must answer: that the probe's key does not exist is an answer.
    pub async fn probe(&self) -> Result<(), TierError> {
        let bucket = &self.shared.bucket;
        bucket.size(&bucket.store.prefix.clone().join("firn-probe")).await?;
        Ok(())
    }

    /// The cold part of one partition. Knows nothing until its first refresh. Take one handle a partition and clone
    /// it: handles do not share what they have listed.
    pub fn partition(
        &self,
        cluster_id: &str,
        topic_partition: &TopicPartition,
        topic_id: TopicId,
    ) -> TieredPartition {
        let path = PartitionPath {
            cluster_id: cluster_id.to_owned(),
            topic_partition: topic_partition.clone(),
            topic_id,
        };
        TieredPartition::new(self.shared.clone(), path)
    }

    /// All numbers as they are now.
    pub fn metrics(&self) -> TierSnapshot {
        self.shared.metrics.snapshot(self.shared.cache.bytes())
    }
}
