//! Runs the group coordinator: carries out what its shards decide.
//!
//! One shard stands for one partition of `__consumer_offsets`. A shard is pure: it is given a command and the time, and
//! returns effects. The runtime appends the records that an effect names, tells the shard when they are committed (or
//! are not), and hands the replies that follow to those who wait. Nothing that a client is told, and nothing that another
//! client can see, rests on records that are not committed.
//!
//! A shard is loaded by replaying its partition, at the start or when the first request for it comes, and stays.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use firn_coordinators::config::GroupConfig;
use firn_coordinators::effect::Effect;
use firn_coordinators::error::{AppendFailure, GroupError};
use firn_coordinators::records::OffsetsRecord;
use firn_coordinators::requests::Reply;
use firn_coordinators::shard::GroupShard;
use firn_model::broker_config::definitions::BATCH_DECOMPRESSED_BYTES_MAX;
use firn_records::batch::{self, Codec};
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::lookup;
use firn_records::record::records;
use firn_records::validate::ValidatedBatches;
use firn_storage::error::AppendError;
use firn_storage::producers::AppendOrigin;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, Notify, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::environment::Environment;
use crate::partition::{Acks, Awaited, Isolation, Partition, PartitionError, ReadAs, Watch, Watched};
use crate::partitions::Partitions;

/// The topic that holds groups and their offsets.
pub const OFFSETS_TOPIC: &str = "__consumer_offsets";
/// Bytes that are read at a time when a shard is loaded.
const LOAD_BYTES: usize = 4 << 20;
/// How long a load waits for what an earlier one has appended.
const COMMITTED_WITHIN: Duration = Duration::from_secs(5);
/// How long after a load in vain nobody tries again: those who ask meanwhile do not wait in a row.
const LOADED_AGAIN_AFTER: Duration = Duration::from_millis(500);
/// How long the timers' task sleeps when no shard has anything due.
const NOTHING_DUE: Duration = Duration::from_secs(60);
/// How long it sleeps when a shard was being loaded, which may take long, or was at work.
const BUSY: Duration = Duration::from_millis(20);

/// All shards of this broker.
pub struct CoordinatorRuntime {
    config: GroupConfig,
    codec: Codec,
    partitions: Arc<Partitions>,
    environment: Environment,
    members_bytes_max: usize,
    /// What members of all shards take of the memory.
    members_bytes: AtomicUsize,
    shards: Mutex<HashMap<i32, Slot>>,
    loads: AtomicU64,
    /// Something came to be due sooner than the timers' task knows.
    rescheduled: Arc<Notify>,
}

impl fmt::Debug for CoordinatorRuntime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CoordinatorRuntime").finish_non_exhaustive()
    }
}

struct Shard {
    partition: Arc<Partition>,
    /// Wakes the timers' task when another leads.
    _turned: Watch,
    /// The leader epoch in which it was loaded.
    epoch: i32,
    /// Another for each load: what became of an append is told to the shard that made it, and to no other.
    load: u64,
    group: GroupShard,
    /// What of `members_bytes` is this shard's.
    members_bytes: usize,
    waiting: HashMap<u64, oneshot::Sender<Reply>>,
    next_token: u64,
    /// Appends under way, in order. Not more than there are requests that wait for them.
    appends: mpsc::UnboundedSender<(u64, Stored)>,
}

/// What became of an append to the log.
enum Stored {
    Now(Result<(), AppendFailure>),
    Later(Awaited),
}

type Slot = Arc<AsyncMutex<Seat>>;

/// A shard's place.
#[derive(Default)]
struct Seat {
    shard: Option<Shard>,
    /// When it may be loaded again.
    again_at: Option<Instant>,
}

impl Shard {
    /// Whether this broker leads the partition as it did when the shard was loaded.
    fn is_current(&self) -> bool {
        !self.partition.is_closed() && self.partition.led_in() == Some(self.epoch)
    }
}

impl CoordinatorRuntime {
    pub fn new(
        config: GroupConfig,
        members_bytes_max: usize,
        codec: Codec,
        partitions: Arc<Partitions>,
        environment: Environment,
    ) -> Self {
        Self {
            config,
            codec,
            partitions,
            environment,
            members_bytes_max,
            members_bytes: AtomicUsize::new(0),
            shards: Mutex::default(),
            loads: AtomicU64::new(0),
            rescheduled: Arc::default(),
        }
    }

    /// Bytes that members may still take. Several that ask at once may all be told the same: the bound is exceeded by what
    /// so many requests hold, and those are bounded.
    pub fn room_for_members(&self) -> usize {
        self.members_bytes_max.saturating_sub(self.members_bytes.load(Ordering::Relaxed))
    }

    /// Runs what is due in any shard, until `shutdown`.
    pub async fn run_timers(self: Arc<Self>, shutdown: CancellationToken) {
        // Side by side: what is due in one shard does not wait for another one's log to be read.
        tokio::join!(
            shutdown.run_until_cancelled(self.load_all()),
            shutdown.run_until_cancelled(self.tick_for_ever())
        );
    }

    async fn tick_for_ever(&self) {
        loop {
            let sleep = self.tick_all();
            tokio::select! {
                () = tokio::time::sleep(sleep) => {}
                () = self.rescheduled.notified() => {}
            }
        }
    }

    /// Loads every shard that there is: what is due in one, as the expiry of offsets, does not wait for a request.
    async fn load_all(self: &Arc<Self>) {
        for partition in self.led() {
            let slot = self.slot(partition);
            let mut seat = slot.lock().await;
            // Why it could not be loaded has been logged; the next request tries again.
            self.loaded(partition, &slot, &mut seat).await.ok();
            self.rescheduled.notify_one();
        }
    }

    /// Lets every shard do what is due; returns how long nothing will be. Waits for no shard: others have timers, too.
    fn tick_all(&self) -> Duration {
        let shards: Vec<_> = self.shards.lock().values().cloned().collect();
        let (mut next, mut sleep_max) = (None, NOTHING_DUE);
        for slot in shards {
            let Ok(mut guard) = slot.try_lock() else {
                sleep_max = BUSY;
                continue;
            };
            self.leave_what_others_lead(&mut guard);
            let Some(shard) = guard.shard.as_mut() else { continue };
            let now_ms = self.environment.clock.now_ms();
            if shard.group.next_deadline().is_some_and(|deadline| deadline <= now_ms) {
                let effects = shard.group.tick(now_ms);
                self.carry_out(shard, effects);
            }
            next = next.into_iter().chain(shard.group.next_deadline()).min();
        }
        let now_ms = self.environment.clock.now_ms();
        next.map_or(sleep_max, |deadline| {
            Duration::from_millis(deadline.saturating_sub(now_ms).max(1) as u64).min(sleep_max)
        })
    }

    /// Gives a command to the shard of `partition`, and waits for the reply. The command gets the shard, the time and the
    /// token to reply to.
    pub async fn ask(
        self: &Arc<Self>,
        partition: i32,
        command: impl FnOnce(&mut GroupShard, i64, u64) -> Vec<Effect>,
    ) -> Result<Reply, GroupError> {
        self.tell(partition, command).await?.await.map_err(|_| GroupError::NotCoordinator)
    }

    /// The same, for a command whose records are to be stored within `patience` (`offsets.commit.timeout.ms`). What takes
    /// longer may yet be stored: the client is told to ask again, as Kafka tells it.
    pub async fn ask_within(
        self: &Arc<Self>,
        patience: Duration,
        partition: i32,
        command: impl FnOnce(&mut GroupShard, i64, u64) -> Vec<Effect>,
    ) -> Result<Reply, GroupError> {
        // Loading a shard is not part of it: cut short, it would begin anew each time.
        let reply = self.tell(partition, command).await?;
        match tokio::time::timeout(patience, reply).await {
            Ok(reply) => reply.map_err(|_| GroupError::NotCoordinator),
            Err(_) => Err(GroupError::CoordinatorNotAvailable),
        }
    }

    async fn tell(
        self: &Arc<Self>,
        partition: i32,
        command: impl FnOnce(&mut GroupShard, i64, u64) -> Vec<Effect>,
    ) -> Result<oneshot::Receiver<Reply>, GroupError> {
        let slot = self.slot(partition);
        let mut guard = slot.lock().await;
        let before = guard.shard.as_ref().and_then(|shard| shard.group.next_deadline());
        let shard = self.loaded(partition, &slot, &mut guard).await?;
        let token = shard.next_token;
        shard.next_token += 1;
        let (sender, receiver) = oneshot::channel();
        shard.waiting.insert(token, sender);
        let effects = command(&mut shard.group, self.environment.clock.now_ms(), token);
        self.carry_out(shard, effects);
        if shard.group.next_deadline() != before {
            self.rescheduled.notify_one();
        }
        Ok(receiver)
    }

    fn slot(&self, partition: i32) -> Slot {
        self.shards.lock().entry(partition).or_default().clone()
    }

    /// Lets go of a shard whose partition another broker leads by now, or this one anew: whoever waits for it looks for its
    /// coordinator again.
    fn leave_what_others_lead(&self, seat: &mut Seat) {
        if let Some(left) = seat.shard.take_if(|shard| !shard.is_current()) {
            self.members_bytes.fetch_sub(left.members_bytes, Ordering::Relaxed);
        }
    }

    /// The shard of `partition`, replayed from its log unless it was before.
    async fn loaded<'a>(
        self: &Arc<Self>,
        partition: i32,
        slot: &Slot,
        seat: &'a mut Seat,
    ) -> Result<&'a mut Shard, GroupError> {
        self.leave_what_others_lead(seat);
        if seat.shard.is_none() {
            if seat.again_at.is_some_and(|at| Instant::now() < at) {
                return Err(GroupError::CoordinatorNotAvailable);
            }
            let loaded = self.load(partition, slot).await;
            seat.again_at = matches!(loaded, Err(GroupError::CoordinatorNotAvailable))
                .then(|| Instant::now() + LOADED_AGAIN_AFTER);
            let shard = seat.shard.insert(loaded?);
            let effects = shard.group.finish_load(self.environment.clock.now_ms());
            self.carry_out(shard, effects);
        }
        seat.shard.as_mut().ok_or(GroupError::CoordinatorNotAvailable)
    }

    /// Partitions of the topic that this broker leads.
    pub fn led(&self) -> Vec<i32> {
        self.partitions.topic(OFFSETS_TOPIC).map_or_else(Vec::new, |topic| {
            let led = topic.partitions.iter().filter(|(_, partition)| partition.led_in().is_some());
            led.map(|(index, _)| *index).collect()
        })
    }

    async fn load(self: &Arc<Self>, index: i32, slot: &Slot) -> Result<Shard, GroupError> {
        let partition =
            self.partitions.by_name(OFFSETS_TOPIC, index).map_err(|_| GroupError::NotCoordinator)?;
        let epoch = partition.led_in().ok_or(GroupError::NotCoordinator)?;
        // What an earlier load has appended is part of the state, too, once it is committed.
        if let Some(committed) = partition.all_committed() {
            let committed = tokio::time::timeout(COMMITTED_WITHIN, committed).await;
            if !matches!(committed, Ok(Ok(Ok(())))) {
                return Err(GroupError::CoordinatorNotAvailable);
            }
        }
        let config = self.config.clone();
        let replayed = firn_blocking::run({
            let partition = partition.clone();
            move || replay(&partition, GroupShard::new(config))
        })
        .await;
        match replayed {
            // Another may have led it meanwhile, and have written.
            Ok(_) if partition.led_in() != Some(epoch) => Err(GroupError::NotCoordinator),
            Ok(group) => {
                let (appends, outcomes) = mpsc::unbounded_channel();
                let load = self.loads.fetch_add(1, Ordering::Relaxed);
                let (runtime, slot) = (Arc::downgrade(self), Arc::downgrade(slot));
                tokio::spawn(Self::report_appends(runtime, slot, load, outcomes));
                Ok(Shard {
                    _turned: partition.watch(Watched::Turned, &self.rescheduled),
                    partition,
                    epoch,
                    load,
                    group,
                    members_bytes: 0,
                    waiting: HashMap::new(),
                    next_token: 0,
                    appends,
                })
            }
            Err(reason) => {
                tracing::error!(partition = %partition.name, reason, "cannot load the groups of a partition");
                Err(GroupError::CoordinatorNotAvailable)
            }
        }
    }

    fn carry_out(&self, shard: &mut Shard, effects: Vec<Effect>) {
        let bytes = shard.group.members_bytes();
        let before = std::mem::replace(&mut shard.members_bytes, bytes);
        self.members_bytes.fetch_add(bytes.wrapping_sub(before), Ordering::Relaxed);
        for effect in effects {
            match effect {
                Effect::Reply { token, reply } => {
                    if let Some(sender) = shard.waiting.remove(&token) {
                        // A client that is gone needs no reply.
                        sender.send(reply).ok();
                    }
                }
                Effect::Append { id, records } => {
                    let now_ms = self.environment.clock.now_ms();
                    let stored = match append(&shard.partition, &records, self.codec, now_ms) {
                        Ok(Some(committed)) => Stored::Later(committed),
                        Ok(None) => Stored::Now(Ok(())),
                        Err(failure) => Stored::Now(Err(failure)),
                    };
                    // The receiving task lives as long as the shard.
                    shard.appends.send((id, stored)).ok();
                }
            }
        }
    }

    /// Tells a shard what became of its appends, in their order. Ends with the shard, or with the whole runtime, of which
    /// it therefore keeps nothing.
    async fn report_appends(
        runtime: Weak<Self>,
        slot: Weak<AsyncMutex<Seat>>,
        load: u64,
        mut appends: mpsc::UnboundedReceiver<(u64, Stored)>,
    ) {
        while let Some((id, stored)) = appends.recv().await {
            let outcome = match stored {
                Stored::Now(outcome) => outcome,
                Stored::Later(committed) => match committed.await {
                    Ok(Ok(())) => Ok(()),
                    Ok(Err(_)) => Err(AppendFailure::NotAvailable),
                    Err(_) => Err(AppendFailure::NotLeader),
                },
            };
            let (Some(runtime), Some(slot)) = (runtime.upgrade(), slot.upgrade()) else { return };
            let mut guard = slot.lock().await;
            let Some(shard) = guard.shard.as_mut().filter(|shard| shard.load == load) else { return };
            let effects = shard.group.appended(runtime.environment.clock.now_ms(), id, outcome);
            runtime.carry_out(shard, effects);
            runtime.rescheduled.notify_one();
        }
    }
}

/// Appends a shard's records as one batch. `None`: they are committed already.
fn append(
    partition: &Arc<Partition>,
    records: &[OffsetsRecord],
    codec: Codec,
    now_ms: i64,
) -> Result<Option<Awaited>, AppendFailure> {
    let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
    for record in records {
        builder.push(now_ms, Some(&record.key), record.value.as_deref(), &[]);
    }
    let failed = |error: &dyn fmt::Display, failure| {
        tracing::warn!(partition = %partition.name, %error, "cannot store a group's records");
        failure
    };
    let bytes = builder.build().map_err(|error| failed(&error, AppendFailure::TooLarge))?;
    let max = usize::try_from(partition.config().max_message_bytes).unwrap_or(0);
    if bytes.len() > max {
        return Err(failed(&"the records are larger than max.message.bytes", AppendFailure::TooLarge));
    }
    let batches =
        ValidatedBatches::trusted(bytes).map_err(|error| failed(&error, AppendFailure::TooLarge))?;
    match partition.append(&batches, AppendOrigin::Coordinator, Acks::All, now_ms) {
        Ok(done) => Ok(done.awaited),
        Err(PartitionError::Closed | PartitionError::NotLeader) => Err(AppendFailure::NotLeader),
        Err(PartitionError::Append(error @ AppendError::RecordListTooLarge { .. })) => {
            Err(failed(&error, AppendFailure::TooLarge))
        }
        Err(error) => Err(failed(&error, AppendFailure::NotAvailable)),
    }
}

/// Replays a partition into a shard.
fn replay(partition: &Arc<Partition>, mut group: GroupShard) -> Result<GroupShard, String> {
    let offsets = partition.offsets().map_err(|error| error.to_string())?;
    let mut offset = offsets.log_start;
    while offset < offsets.high_watermark {
        let read = partition.read(ReadAs::Leader, offset, Isolation::ReadUncommitted, LOAD_BYTES, true);
        let (_, slice) = read.map_err(|error| error.to_string())?;
        let slice = partition.check(slice, offset).map_err(|error| error.to_string())?;
        let bytes = slice.read().map_err(|error| error.to_string())?;
        let before = offset;
        for found in batch::batches(&bytes) {
            let (header, batch) = found.map_err(|error| error.to_string())?;
            if !header.is_control() {
                replay_batch(&mut group, &header, batch)?;
            }
            offset = header.next_offset();
        }
        if offset == before {
            return Err(format!("no whole batch at offset {offset}"));
        }
    }
    Ok(group)
}

fn replay_batch(group: &mut GroupShard, header: &batch::BatchHeader, batch: &[u8]) -> Result<(), String> {
    batch::verify_crc(batch).map_err(|error| error.to_string())?;
    let payload =
        lookup::payload(header, batch, BATCH_DECOMPRESSED_BYTES_MAX).map_err(|error| error.to_string())?;
    for record in records(header.record_count, &payload) {
        let record = record.map_err(|error| error.to_string())?;
        let Some(key) = record.key else { continue };
        let value = record.value.map(Bytes::copy_from_slice);
        group.replay(Bytes::copy_from_slice(key), value).map_err(|error| error.to_string())?;
    }
    Ok(())
}
