//! Fetches from one broker all that it leads and this one follows: one connection, one fetch session (KIP-227), one request at
//! a time. A request names only partitions of which something has changed.
//!
//! Order: append → flush as the topic asks → ask for what comes next. What a follower asks from is what it vouches for, so
//! nothing that a power cut here could take has ever counted as replicated. Which is why the next request waits for the flush.
//!
//! A request waits at the leader for something to fetch. Partitions that come to be followed meanwhile do not wait for it: the
//! leader is asked, by another way, to answer what there is, and the next request has them.
//!
//! Partitions that are throttled here and out of sync are left out of requests while more was fetched than their throttle allows (KIP-73).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_client::error::Error;
use firn_model::broker_config::settings::ReplicaSettings;
use firn_model::ids::TopicId;
use firn_protocol::fetch_response;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::fetch_request::{
    FetchPartition, FetchTopic, ForgottenTopic, ReplicaState,
};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::{BrokerId, FetchRequest, FetchResponse};
use firn_replication::follower::EpochEnd;
use firn_storage::epochs::EpochEntry;
use firn_storage::local_start::LocalStart;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::followed::Source;
use super::held_back::HeldBack;
use crate::context::Context;
use crate::fetch_sessions::next_epoch;
use crate::milliseconds::milliseconds;
use crate::partition::{Awaited, Partition, PartitionError, PartitionKey, Position};
use crate::peers::Line;
use crate::peers::wire::{Ask, Told};

/// How soon a broker that could not be reached is tried again.
const PAUSE: Duration = Duration::from_millis(50);
/// How soon a partition is that could not be fetched, at first: its leader has perhaps not heard yet that it leads.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// How long the pause of a partition becomes that can never be fetched, its disk being full for instance.
const PAUSE_MAX: Duration = Duration::from_secs(1);
/// Times are rounded up to the milliseconds in which the leader is told of them.
const JUST_UNDER_A_MILLISECOND: Duration = Duration::from_micros(999);
/// How long a request may take beyond what it waits for.
const PATIENCE: Duration = Duration::from_secs(10);

/// Fetches from each broker that leads anything that this one follows, until `shutdown`.
pub async fn run_all(context: Arc<Context>, tasks: TaskTracker, shutdown: CancellationToken) {
    while let Some(new) = shutdown.run_until_cancelled(context.replication.followed.new_sources()).await {
        for leader in new {
            tasks.spawn(run(context.clone(), leader, shutdown.clone()));
        }
    }
}

/// Fetches from `leader` until `shutdown`.
async fn run(context: Arc<Context>, leader: i32, shutdown: CancellationToken) {
    let mut fetcher = Fetcher {
        source: context.replication.followed.source(leader),
        context,
        leader,
        is_reached: true,
        session_id: 0,
        partitions: BTreeMap::new(),
        delayed: BTreeMap::new(),
        held_back: HeldBack::default(),
    };
    let fetching = async {
        loop {
            fetcher.until_some().await;
            match fetcher.fetch().await {
                Ended::NothingLeft => {}
                Ended::OutOfStep => tokio::time::sleep(PAUSE).await,
                Ended::Failed(error) => {
                    // Once for each time that it is not there.
                    if std::mem::take(&mut fetcher.is_reached) {
                        tracing::info!(broker = leader, %error, "cannot fetch from another broker");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    };
    shutdown.run_until_cancelled(fetching).await;
}

struct Fetcher {
    context: Arc<Context>,
    leader: i32,
    source: Arc<Source>,
    is_reached: bool,
    /// Of the last session, which the next one closes.
    session_id: i32,
    partitions: BTreeMap<PartitionKey, Arc<Partition>>,
    /// Those that could not be fetched.
    delayed: BTreeMap<PartitionKey, Delay>,
    /// Those that a throttle holds back.
    held_back: HeldBack,
}

/// Until when a partition is left alone; kept until it could be fetched, so that its next pause is longer.
struct Delay {
    until: Instant,
    pause: Duration,
    is_over: bool,
}

/// Why a connection is used no more.
enum Ended {
    NothingLeft,
    /// The leader does not know the session, or this broker, as it says that it is.
    OutOfStep,
    Failed(Error),
}

/// What the leader has been told in this session.
#[derive(Default)]
struct Session {
    /// 0 until the leader has given it a name.
    id: i32,
    epoch: i32,
    told: BTreeMap<PartitionKey, Position>,
    /// Where something has changed since.
    changed: BTreeSet<PartitionKey>,
}

/// What a partition got.
struct Arrived {
    partition: Arc<Partition>,
    leader_epoch: i32,
    high_watermark: i64,
    log_start: i64,
    /// Where the tier ends, and up to where the leader's log is compacted.
    tiered: Option<(i64, i64)>,
    /// Its flush.
    awaited: Option<Awaited>,
}

/// Where a log is to start, as its leader's does.
struct LogStart {
    partition: Arc<Partition>,
    leader_epoch: i32,
    start: i64,
}

impl Fetcher {
    async fn until_some(&mut self) {
        self.take_changes();
        while self.partitions.is_empty() {
            self.source.until_more().await;
            self.take_changes();
        }
    }

    fn take_changes(&mut self) -> BTreeSet<PartitionKey> {
        let changes = self.source.take();
        let changed = changes.keys().copied().collect();
        for (key, partition) in changes {
            self.delayed.remove(&key);
            match partition {
                Some(partition) => drop(self.partitions.insert(key, partition)),
                None => drop(self.partitions.remove(&key)),
            }
        }
        changed
    }

    /// Fetches over one connection for as long as it serves.
    async fn fetch(&mut self) -> Ended {
        let connection = match self.connect().await {
            Ok(connection) => connection,
            Err(error) => return Ended::Failed(error),
        };
        let mut session = self.new_session(self.session_id);
        loop {
            session.changed.extend(self.take_changes());
            session.changed.extend(self.no_more_delayed());
            if self.partitions.is_empty() {
                return Ended::NothingLeft;
            }
            let config = self.context.config().replica.clone();
            session.changed.extend(self.no_more_held_back(&config));
            let request = self.request(&mut session, &config);
            if session.told.is_empty() {
                // None of them can be fetched now.
                let pause = tokio::time::sleep(self.until_due().unwrap_or(PAUSE_MAX));
                tokio::select! {
                    () = pause => {}
                    () = self.source.until_more() => {}
                }
                session = self.new_session(session.id);
                continue;
            }
            let wait = milliseconds(request.max_wait_ms);
            let replied = tokio::select! {
                replied = connection.call_within(&request, wait + PATIENCE) => replied,
                never = self.hurry() => never,
            };
            let reply = match replied {
                Ok(reply) => reply,
                Err(error) => return Ended::Failed(error),
            };
            self.is_reached = true;
            if reply.error_code != 0 {
                return Ended::OutOfStep;
            }
            session.answered(reply.session_id);
            self.session_id = session.id;
            self.take_in(&mut session, reply).await;
        }
    }

    /// Begins a session in the place of this one. Those that are held back come to it in their turn.
    fn new_session(&self, before: i32) -> Session {
        let changed = self.partitions.keys().filter(|key| !self.held_back.contains(key)).copied().collect();
        Session { id: before, changed, ..Session::default() }
    }

    /// Has the leader answer as soon as there is more to ask for. What comes of it is the answer to the fetch.
    async fn hurry<T>(&self) -> T {
        self.source.until_more().await;
        let ask = Ask::MoreToFetch { broker_id: self.context.node_id };
        let peers = self.context.membership.peers();
        if let Err(error) = peers.ask(self.leader, Line::Signals, &ask, &[], PATIENCE).await {
            tracing::debug!(broker = self.leader, %error, "what is fetched anew waits until the fetch before is answered");
        }
        std::future::pending().await
    }

    async fn connect(&self) -> Result<Connection, Error> {
        let options = ConnectionOptions {
            client_id: format!("broker-{}-fetcher", self.context.node_id),
            deadline: PATIENCE,
            ..ConnectionOptions::default()
        };
        self.context.membership.peers().connect(self.leader, options).await
    }

    /// Those that have waited long enough.
    fn no_more_delayed(&mut self) -> Vec<PartitionKey> {
        let now = Instant::now();
        let due = self.delayed.iter_mut().filter(|(_, delay)| !delay.is_over && delay.until <= now);
        due.map(|(key, delay)| {
            delay.is_over = true;
            *key
        })
        .collect()
    }

    fn delay(&mut self, key: PartitionKey) {
        let pause = self.delayed.get(&key).map_or(FIRST_PAUSE, |delay| (delay.pause * 2).min(PAUSE_MAX));
        self.delayed.insert(key, Delay { until: Instant::now() + pause, pause, is_over: false });
    }

    fn is_delayed(&self, key: &PartitionKey) -> bool {
        self.delayed.get(key).is_some_and(|delay| !delay.is_over)
    }

    /// How long until the first that is delayed, or held back, is no more.
    fn until_due(&self) -> Option<Duration> {
        let delayed = self.delayed.values().filter(|delay| !delay.is_over).map(|delay| delay.until);
        let due = delayed.chain(self.held_back.until()).min();
        due.map(|due| due.saturating_duration_since(Instant::now()))
    }

    /// Those that were held back and may go on, in their turn.
    fn no_more_held_back(&mut self, config: &ReplicaSettings) -> Vec<PartitionKey> {
        let room = config.fetch_response_max_bytes / config.fetch_max_bytes.max(1);
        let mut held_back = std::mem::take(&mut self.held_back);
        let released = held_back.release(usize::try_from(room).unwrap_or(0).max(1), Instant::now(), |key| {
            let position = self.partitions.get(key).and_then(|partition| partition.position(self.leader))?;
            self.held_until(key, position)
        });
        self.held_back = held_back;
        released
    }

    /// Until when the partition is not to be asked for.
    fn held_until(&self, key: &PartitionKey, position: Position) -> Option<Instant> {
        let throttle = &self.context.replication.throttles.follower;
        throttle.held_until(false).filter(|_| position.is_throttled && !self.is_in_sync(key))
    }

    fn is_in_sync(&self, (id, index): &PartitionKey) -> bool {
        let image = self.context.controller.image();
        let partition = image.partition_by_id(*id, *index);
        partition.is_some_and(|partition| partition.isr.contains(&self.context.node_id))
    }

    fn request(&mut self, session: &mut Session, config: &ReplicaSettings) -> FetchRequest {
        let mut topics: Vec<FetchTopic> = Vec::new();
        let mut forgotten: Vec<ForgottenTopic> = Vec::new();
        for key in std::mem::take(&mut session.changed) {
            let (id, index) = key;
            let partition = self.partitions.get(&key).filter(|_| !self.is_delayed(&key));
            let position = partition.and_then(|partition| partition.position(self.leader));
            let held_until = position.and_then(|position| self.held_until(&key, position));
            if let Some(until) = held_until {
                self.held_back.hold(key, until, Instant::now());
            }
            match position.filter(|_| held_until.is_none()) {
                Some(position) => {
                    session.told.insert(key, position);
                    let asked = asked(index, position, config);
                    match topics.last_mut().filter(|topic| topic.topic_id == id.0) {
                        Some(topic) => topic.partitions.push(asked),
                        None => {
                            let topic = FetchTopic::default().with_topic_id(id.0);
                            topics.push(topic.with_partitions(vec![asked]));
                        }
                    }
                }
                None if session.told.remove(&key).is_some() => {
                    match forgotten.last_mut().filter(|topic| topic.topic_id == id.0) {
                        Some(topic) => topic.partitions.push(index),
                        None => {
                            let topic = ForgottenTopic::default().with_topic_id(id.0);
                            forgotten.push(topic.with_partitions(vec![index]));
                        }
                    }
                }
                None => {}
            }
        }
        let wait_max = milliseconds(config.fetch_wait_max_ms);
        // A wait that is over too early would have the same asked again.
        let wait = self.until_due().map_or(wait_max, |due| due.min(wait_max)) + JUST_UNDER_A_MILLISECOND;
        let replica = ReplicaState::default()
            .with_replica_id(BrokerId(self.context.node_id))
            .with_replica_epoch(self.context.replication.broker_epoch());
        FetchRequest::default()
            .with_replica_state(replica)
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(config.fetch_min_bytes)
            .with_max_bytes(config.fetch_response_max_bytes)
            .with_session_id(session.id)
            .with_session_epoch(session.epoch)
            .with_topics(topics)
            .with_forgotten_topics_data(forgotten)
    }

    /// Appends what came, waits until it is durable, and takes over what else the leader says.
    async fn take_in(&mut self, session: &mut Session, reply: FetchResponse) {
        let mut arrived = Vec::new();
        let mut has_throttled = false;
        for topic in reply.responses {
            for part in topic.partitions {
                let key = (TopicId(topic.topic_id), part.partition_index);
                let partition = self.partitions.get(&key).cloned();
                let (Some(partition), Some(position)) = (partition, session.told.get(&key).copied()) else {
                    continue;
                };
                session.changed.insert(key);
                if position.is_throttled {
                    let bytes = part.records.as_ref().map_or(0, Bytes::len);
                    self.context.replication.throttles.follower.copied(bytes, self.is_in_sync(&key));
                    has_throttled |= bytes > 0;
                }
                match self.take_part(&partition, position, part).await {
                    Ok(Some(taken)) => arrived.push(taken),
                    Ok(None) => {}
                    Err(error) => {
                        tracing::debug!(partition = %partition.name, error, "not fetched");
                        self.delay(key);
                    }
                }
            }
        }
        if has_throttled {
            session.changed.extend(self.to_be_held_back(session));
        }
        let mut starts = Vec::new();
        for Arrived { partition, leader_epoch, high_watermark, log_start, tiered, awaited } in arrived {
            let flushed = match awaited {
                // Where it is dropped the partition has turned.
                Some(awaited) => !matches!(awaited.await, Ok(Err(_))),
                None => true,
            };
            let followed = partition.follow_offsets(leader_epoch, high_watermark, log_start);
            let (tiered_end, cleaned) = tiered.unwrap_or_default();
            let told = partition.follow_tiered_end(leader_epoch, tiered_end, cleaned);
            let followed = followed.and_then(|start| told.map(|()| start));
            if flushed && followed.is_ok() {
                self.delayed.remove(&partition.key());
            } else {
                self.delay(partition.key());
            }
            if let Ok(Some(start)) = followed {
                starts.push(LogStart { partition, leader_epoch, start });
            }
        }
        if !starts.is_empty() {
            for key in firn_blocking::run(move || follow_log_starts(&starts)).await {
                self.delay(key);
            }
        }
    }

    /// Those that the leader knows of, and that it is to forget for now.
    fn to_be_held_back(&self, session: &Session) -> Vec<PartitionKey> {
        let held = session.told.iter().filter(|(key, position)| self.held_until(key, **position).is_some());
        held.map(|(key, _)| *key).collect()
    }

    /// Takes in what came for one partition.
    async fn take_part(
        &self,
        partition: &Arc<Partition>,
        position: Position,
        part: PartitionData,
    ) -> Result<Option<Arrived>, String> {
        let epoch = position.leader_epoch;
        let failed = |error: PartitionError| error.to_string();
        if part.error_code == ResponseError::OffsetOutOfRange.code() && part.log_start_offset >= 0 {
            let (partition, log_start) = (partition.clone(), part.log_start_offset);
            firn_blocking::run(move || partition.begin_at(epoch, log_start)).await.map_err(failed)?;
            return Ok(None);
        }
        if part.error_code == ResponseError::OffsetMovedToTieredStorage.code() {
            self.begin_at_local_start(partition, epoch).await?;
            return Ok(None);
        }
        if part.error_code != 0 {
            let error = ResponseError::try_from_code(part.error_code);
            return Err(error.map_or_else(|| part.error_code.to_string(), |error| error.to_string()));
        }
        let tiered = fetch_response::tiered(&part);
        let parts_at = part.diverging_epoch;
        if parts_at.epoch >= 0 {
            let parts_at = EpochEnd { epoch: parts_at.epoch, end_offset: parts_at.end_offset };
            let partition = partition.clone();
            firn_blocking::run(move || partition.cut(epoch, parts_at)).await.map_err(failed)?;
            return Ok(None);
        }
        let records: Bytes = part.records.unwrap_or_default();
        self.context.metrics.replication.bytes_in.inc_by(records.len() as u64);
        let awaited = match records.is_empty() {
            true => None,
            false => {
                let now_ms = self.context.now_ms();
                partition.append_fetched(epoch, &records, now_ms).map_err(failed)?
            }
        };
        Ok(Some(Arrived {
            partition: partition.clone(),
            leader_epoch: epoch,
            high_watermark: part.high_watermark,
            log_start: part.log_start_offset,
            tiered,
            awaited,
        }))
    }

    /// Takes over from the leader of this epoch where its disk begins, and what it knows of what lies before.
    async fn begin_at_local_start(&self, partition: &Arc<Partition>, epoch: i32) -> Result<(), String> {
        let (topic_id, index) = (partition.topic_id.0, partition.name.partition);
        let ask = Ask::LocalStart { topic_id, partition: index, leader_epoch: epoch };
        let asked =
            self.context.membership.peers().ask(self.leader, Line::Clients, &ask, &[], PATIENCE).await;
        let (told, producers) = asked.map_err(|error| error.to_string())?;
        let Told::LocalStart { log_start_offset, offset, leader_epochs } = told else {
            return Err(told.to_string());
        };
        let entry = |(epoch, start_offset)| EpochEntry { epoch, start_offset };
        let leader_epochs = leader_epochs.into_iter().map(entry).collect();
        let start = LocalStart { log_start_offset, offset, leader_epochs, producers };
        let partition = partition.clone();
        let begun = firn_blocking::run(move || partition.begin_at_local_start(epoch, &start)).await;
        begun.map_err(|error| error.to_string())
    }
}

impl Session {
    /// The leader keeps the session under this name, or, if it is 0, keeps none.
    fn answered(&mut self, id: i32) {
        self.id = id;
        if id == 0 {
            // All is told each time.
            self.epoch = 0;
            self.changed.extend(self.told.keys());
        } else {
            self.epoch = next_epoch(self.epoch);
        }
    }
}

/// Notes where logs are to start, those of a directory in one write, and lets them. Returns those of which that failed.
fn follow_log_starts(starts: &[LogStart]) -> Vec<PartitionKey> {
    let mut by_directory: BTreeMap<&Path, Vec<&LogStart>> = BTreeMap::new();
    for one in starts {
        by_directory.entry(one.partition.data_dir().dir.path()).or_default().push(one);
    }
    let mut failed = Vec::new();
    for starts in by_directory.values() {
        let named: Vec<_> = starts.iter().map(|one| (one.partition.name.clone(), one.start)).collect();
        let noted = starts.first().map_or(Ok(()), |one| one.partition.data_dir().dir.note_log_starts(&named));
        for LogStart { partition, leader_epoch, start } in starts {
            let followed = match &noted {
                Ok(()) => {
                    partition.follow_log_start(*leader_epoch, *start).map_err(|error| error.to_string())
                }
                Err(error) => Err(error.to_string()),
            };
            if let Err(error) = followed {
                tracing::debug!(partition = %partition.name, error, "does not start where its leader's log does");
                failed.push(partition.key());
            }
        }
    }
    failed
}

fn asked(index: i32, position: Position, config: &ReplicaSettings) -> FetchPartition {
    FetchPartition::default()
        .with_partition(index)
        .with_current_leader_epoch(position.leader_epoch)
        .with_fetch_offset(position.offset)
        .with_last_fetched_epoch(position.last_epoch)
        .with_log_start_offset(position.log_start)
        .with_partition_max_bytes(config.fetch_max_bytes)
}
