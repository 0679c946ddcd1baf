//! Cools partitions down: sealed segments go to the object store, and what has left the disk is read from there.
//!
//! A store that is slow or failing delays all this, and never a produce request or a fetch of what is on the disk:
//! cooling has its own tasks, and reads of cold records wait on their own.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::settings::TierSettings;
use firn_model::ids::{TopicId, TopicPartition};
use firn_storage::partition_log::PartitionLog;
use firn_tier::lineage::{EpochStart, LeaderEpochs};
use firn_tiering::error::{ReadError as ColdReadError, TierError};
use firn_tiering::partition::{PartitionView, Sizes, TieredPartition};
use firn_tiering::tier::Tier;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::permits::Permits;
use crate::cleaner_pace::SteadyPace;
use crate::environment::Environment;
use crate::partition::{Partition, PartitionError, PartitionKey};
use crate::partitions::Partitions;

mod compaction;
mod cooling;
mod permits;
pub mod reads;
pub mod remote_deletes;

/// How often in a garbage grace period the store is listed for garbage.
const COLLECTIONS_PER_GRACE: i64 = 4;

/// Why cold records were not read, or a partition was not cooled.
#[derive(Debug, thiserror::Error)]
pub enum ColdError {
    #[error("the records are in the object store, and this broker was started without one (firn.store.url)")]
    NoStore,
    #[error(
        "looking among the cold records took longer than the request allows (remote.list.offsets.request.timeout.ms)"
    )]
    TooSlow,
    #[error(
        "{reads} reads of cold records are under way, which is the most there may be (remote.log.reader.threads and remote.log.reader.max.pending.tasks)"
    )]
    Busy { reads: usize },
    #[error(
        "the store, a directory, has {free} bytes free: with a segment of {bytes} more it would have less than the reserve of {reserve} (firn.disk.reserve.bytes)"
    )]
    StoreFull { free: u64, bytes: u64, reserve: u64 },
    #[error(
        "the store has no records of the offsets before {local_start}, where the disk begins, and the log begins at {log_start}: it is not the store that they are in (firn.store.url), or their objects were deleted. Nothing is copied to it, and nothing deleted, until they are there; to go on without them, delete the records before {local_start}"
    )]
    Discontinuous { log_start: i64, local_start: i64 },
    #[error("the broker is stopping")]
    Stopping,
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
    handles: Mutex<HashMap<PartitionKey, Handle>>,
    /// When each partition's garbage was last collected.
    collected: Mutex<HashMap<PartitionKey, i64>>,
    /// Partitions whose cold segments were deleted because their topic is tiered no more.
    emptied: Mutex<HashSet<PartitionKey>>,
    reads: reads::Reads,
    /// One for each partition that may be cooled at a time.
    coolers: Permits,
    topics_deleted: Notify,
    broker_config: watch::Receiver<Arc<BrokerConfig>>,
    cleaner_pace: Arc<SteadyPace>,
    /// One log is compacted with its tier at a time: each takes the memory of one cleaner thread.
    compacting: tokio::sync::Mutex<()>,
}

/// One partition's cold part.
#[derive(Debug, Clone)]
struct Handle {
    tiered: TieredPartition,
    /// As which it was listed last.
    listed: Arc<tokio::sync::Mutex<Option<Listed>>>,
}

/// In which leader epoch, and as what, a partition was listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Listed {
    leader_epoch: i32,
    is_led: bool,
    at: Instant,
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
        broker_config: watch::Receiver<Arc<BrokerConfig>>,
        reads: reads::Reads,
        cleaner_pace: Arc<SteadyPace>,
    ) -> Self {
        let settings = broker_config.borrow().tier.clone();
        if let Some(tier) = &tier {
            set_pace(tier, &settings);
        }
        Self {
            tier,
            cluster_id,
            partitions,
            environment,
            garbage_grace_ms: settings.garbage_grace_ms,
            handles: Mutex::default(),
            collected: Mutex::default(),
            emptied: Mutex::default(),
            reads,
            coolers: Permits::new(coolers_max(&settings)),
            topics_deleted: Notify::new(),
            broker_config,
            cleaner_pace,
            compacting: tokio::sync::Mutex::default(),
        }
    }

    /// Obeys each change of the broker's configs, until `shutdown`.
    pub async fn follow_config(self: Arc<Self>, shutdown: CancellationToken) {
        let mut changes = self.broker_config.clone();
        loop {
            tokio::select! {
                Ok(()) = changes.changed() => {}
                () = shutdown.cancelled() => return,
            }
            let settings = changes.borrow_and_update().tier.clone();
            self.coolers.set_max(coolers_max(&settings));
            self.reads.follow(&settings);
            if let Some(tier) = &self.tier {
                set_pace(tier, &settings);
            }
        }
    }

    /// Numbers of the store's operations, if there is a store.
    pub fn tier(&self) -> Option<&Tier> {
        self.tier.as_ref()
    }

    /// What the store holds of each topic, for partitions that were listed.
    pub fn sizes(&self) -> BTreeMap<TopicId, Sizes> {
        let mut topics: BTreeMap<TopicId, Sizes> = BTreeMap::new();
        for ((topic, _), handle) in self.handles.lock().iter() {
            let is_led =
                handle.listed.try_lock().is_ok_and(|listed| listed.is_some_and(|as_what| as_what.is_led));
            if is_led {
                topics.entry(*topic).or_default().add(&handle.tiered.sizes());
            }
        }
        topics
    }

    /// The share of the partitions that may be cooled at a time which are not, at this moment.
    pub fn coolers_idle(&self) -> f64 {
        self.coolers.idle()
    }

    /// Reads of cold records as they stand.
    pub fn reads(&self) -> &reads::Reads {
        &self.reads
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

    /// The partition's cold part, listed at least once since this broker is what it is: what leaders of before have copied is
    /// known, and what they have deleted.
    async fn listed(&self, partition: &Arc<Partition>) -> Result<(TieredPartition, Listed), ColdError> {
        let handle = self.handle(&partition.name, partition.topic_id)?;
        let mut listed = handle.listed.lock().await;
        let (leader_epoch, is_led) = (partition.leader_epoch(), partition.is_led_here());
        let before = listed.filter(|before| (before.leader_epoch, before.is_led) == (leader_epoch, is_led));
        let now = match before {
            Some(before) => before,
            None => {
                let at = Instant::now();
                let listing = handle.tiered.refresh(view(partition)?).await?;
                tracing::debug!(partition = %partition.name, ?listing, "listed the cold segments");
                Listed { leader_epoch, is_led, at }
            }
        };
        *listed = Some(now);
        Ok((handle.tiered.clone(), now))
    }

    /// The same for readers of a follower, who may ask for what its leader has copied since.
    async fn listed_with(
        &self,
        partition: &Arc<Partition>,
        offset: i64,
    ) -> Result<TieredPartition, ColdError> {
        let (tiered, listed) = self.listed(partition).await?;
        if !listed.is_led {
            match tiered.chain().iter().any(|link| (link.from..link.to).contains(&offset)) {
                true => tiered.follow(view(partition)?),
                false => drop(tiered.refresh(view(partition)?).await?),
            }
        }
        Ok(tiered)
    }
}

fn coolers_max(settings: &TierSettings) -> usize {
    usize::try_from(settings.copier_threads).unwrap_or(0).max(1)
}

fn set_pace(tier: &Tier, settings: &TierSettings) {
    // Kafka's default, the greatest number that there is, stands for no limit.
    let rate = |value: i64| if value == i64::MAX { f64::INFINITY } else { value as f64 };
    tier.set_pace(rate(settings.copy_bytes_per_second), rate(settings.fetch_bytes_per_second));
}

/// What the tier has to know of the log.
fn view(partition: &Partition) -> Result<PartitionView, PartitionError> {
    let current = partition.leader_epoch();
    partition.with_log(|log| PartitionView {
        leader_epochs: leader_epochs(log, current),
        log_start_offset: log.log_start_offset(),
        log_end_offset: log.end_offset(),
    })
}

/// The log's history of leaders, with the one of the moment, who may have written nothing.
fn leader_epochs(log: &PartitionLog, current: i32) -> LeaderEpochs {
    let mut epochs: BTreeMap<i32, i64> =
        log.epoch_entries().iter().map(|entry| (entry.epoch, entry.start_offset)).collect();
    epochs.entry(current).or_insert(log.end_offset());
    LeaderEpochs::from_checkpoint(
        epochs.into_iter().map(|(epoch, start_offset)| EpochStart { epoch, start_offset }),
    )
}
