//! Reads of cold records, each a task of its own: who waited in vain finds it done, or under way, when it asks again.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use firn_model::broker_config::settings::TierSettings;
use firn_model::ids::TopicId;
use firn_telemetry::metrics::ColdReadTimes;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::permits::Permits;
use super::{Cold, ColdError};
use crate::partition::Partition;
use crate::record_memory::RecordMemory;

/// What makes two reads the same one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct ReadKey {
    topic: TopicId,
    partition: i32,
    from: i64,
    max_bytes: usize,
    at_least_one: bool,
}

type Outcome = Result<Bytes, Arc<ColdError>>;

/// The reads under way, and how many there may be.
#[derive(Debug)]
pub struct Reads {
    /// Reads that there may be: those that run and those that wait.
    slots: Permits,
    /// Reads that run.
    readers: Permits,
    memory: Arc<RecordMemory>,
    times: ColdReadTimes,
    background: Handle,
    tasks: TaskTracker,
    ending: CancellationToken,
    under_way: Mutex<HashMap<ReadKey, watch::Receiver<Option<Outcome>>>>,
}

impl Reads {
    pub fn new(
        settings: &TierSettings,
        memory: Arc<RecordMemory>,
        times: ColdReadTimes,
        background: Handle,
    ) -> Self {
        let Limits { slots, readers } = Limits::of(settings);
        let (slots, readers) = (Permits::new(slots), Permits::new(readers));
        Self {
            slots,
            readers,
            memory,
            times,
            background,
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            under_way: Mutex::default(),
        }
    }

    pub(super) fn follow(&self, settings: &TierSettings) {
        let Limits { slots, readers } = Limits::of(settings);
        self.slots.set_max(slots);
        self.readers.set_max(readers);
    }

    /// Gives up what is under way: nothing of it holds a log once this has returned.
    pub(super) async fn end(&self) {
        self.ending.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Reads beyond as many as may ask the store at a time.
    pub fn queued(&self) -> usize {
        self.slots.busy().saturating_sub(self.readers.busy())
    }

    /// The share of the readers that have nothing to do at this moment.
    pub fn readers_idle(&self) -> f64 {
        self.readers.idle()
    }
}

/// `remote.log.reader.threads` and `remote.log.reader.max.pending.tasks`.
struct Limits {
    slots: usize,
    readers: usize,
}

impl Limits {
    fn of(settings: &TierSettings) -> Self {
        let count = |value: i32| usize::try_from(value).unwrap_or(0).max(1);
        let readers = count(settings.reader_threads);
        Self { slots: readers + count(settings.reader_max_pending_tasks), readers }
    }
}

/// A read under way.
#[derive(Debug)]
pub struct ColdRead(watch::Receiver<Option<Outcome>>);

impl ColdRead {
    /// What it brought; `None` if that takes longer than until `deadline`. The read goes on nevertheless.
    pub async fn wait_until(mut self, deadline: Instant) -> Result<Option<Bytes>, Arc<ColdError>> {
        match tokio::time::timeout_at(deadline, self.0.wait_for(Option::is_some)).await {
            Err(_) => Ok(None),
            Ok(Ok(outcome)) => outcome.clone().transpose(),
            // The task ended without an outcome: the broker is stopping.
            Ok(Err(_)) => Err(Arc::new(ColdError::Stopping)),
        }
    }
}

/// Takes a read off the list, whichever way its task ends.
struct Listed {
    cold: Arc<Cold>,
    key: ReadKey,
}

impl Drop for Listed {
    fn drop(&mut self) {
        self.cold.reads.under_way.lock().remove(&self.key);
    }
}

impl Cold {
    /// Starts to read batches from the one that holds `from` on, which lies below what is on the disk; or joins the
    /// same read if it is under way. Refused if there are too many (`remote.log.reader.max.pending.tasks`).
    pub fn read(
        self: &Arc<Self>,
        partition: &Arc<Partition>,
        from: i64,
        max_bytes: usize,
        at_least_one: bool,
    ) -> Result<ColdRead, ColdError> {
        let (topic, index) = (partition.topic_id, partition.name.partition);
        let key = ReadKey { topic, partition: index, from, max_bytes, at_least_one };
        let mut under_way = self.reads.under_way.lock();
        if let Some(read) = under_way.get(&key) {
            return Ok(ColdRead(read.clone()));
        }
        let slot = self.slot()?;
        let (done, read) = watch::channel(None);
        under_way.insert(key, read.clone());
        let listed = Listed { cold: self.clone(), key };
        let partition = partition.clone();
        let ending = self.reads.ending.clone();
        let reading = async move {
            let began = Instant::now();
            let outcome = async {
                let tiered = listed.cold.listed_with(&partition, from).await?;
                // Before the memory: who waits for its turn keeps none from those who have theirs.
                let _reader = listed.cold.reads.readers.acquire().await;
                let memory = listed.cold.reads.memory.reserve(max_bytes).await;
                let records = tiered.read(from, memory.bytes(), at_least_one).await?;
                Ok(memory.hold(records))
            };
            let outcome: Outcome = outcome.await.map_err(Arc::new);
            listed.cold.reads.times.finished(began.elapsed());
            // Off the list first: who finds it there gets an outcome that is not older than its question.
            drop(listed);
            drop(slot);
            done.send_replace(Some(outcome));
        };
        let task = async move { ending.run_until_cancelled(Box::pin(reading)).await };
        self.reads.tasks.spawn_on(task, &self.reads.background);
        Ok(ColdRead(read))
    }

    /// The first cold record at or after both `timestamp` and `from`, the log start: offset and timestamp.
    pub async fn offset_for_timestamp(
        &self,
        partition: &Arc<Partition>,
        timestamp: i64,
        from: i64,
        deadline: Instant,
    ) -> Result<Option<(i64, i64)>, ColdError> {
        let found =
            async { Ok(self.listed(partition).await?.0.offset_for_timestamp(timestamp, from).await?) };
        self.look_up(Box::pin(found), deadline).await
    }

    /// Of the cold records from `from`, the log start, on the first that has their greatest timestamp: offset and
    /// timestamp.
    pub async fn max_timestamp(
        &self,
        partition: &Arc<Partition>,
        from: i64,
        deadline: Instant,
    ) -> Result<Option<(i64, i64)>, ColdError> {
        let found = async { Ok(self.listed(partition).await?.0.max_timestamp(from).await?) };
        self.look_up(Box::pin(found), deadline).await
    }

    async fn look_up<T>(
        &self,
        look_up: impl Future<Output = Result<T, ColdError>>,
        deadline: Instant,
    ) -> Result<T, ColdError> {
        let _slot = self.slot()?;
        let found = async {
            let _reader = self.reads.readers.acquire().await;
            look_up.await
        };
        tokio::time::timeout_at(deadline, found).await.unwrap_or(Err(ColdError::TooSlow))
    }

    fn slot(&self) -> Result<OwnedSemaphorePermit, ColdError> {
        let slots = &self.reads.slots;
        slots.try_acquire().ok_or_else(|| ColdError::Busy { reads: slots.max() })
    }
}
