//! Opens what lies on a broker's disks: the directories, the metadata in the first of them, and the partitions that they
//! place here, of which those that were not closed are recovered.

use std::sync::Arc;
use std::time::Duration;

use firn_coordinators::config::GroupConfig;
use firn_metadata::image::Image;
use firn_model::broker_config::BrokerConfig;
use firn_quorum::log_store::{Found, LogStore, NowMs, SnapshotLimits};
use firn_quorum::quorum::{Quorum, Timing};
use firn_records::batch::Codec;
use firn_storage::identity::cluster_id_of;
use firn_telemetry::metrics::Metrics;
use firn_tiering::tier::Tier;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;

use crate::cleaner_pace::SteadyPace;
use crate::cold::Cold;
use crate::cold::reads::Reads;
use crate::context::Context;
use crate::controller::Controller;
use crate::coordinator_runtime::CoordinatorRuntime;
use crate::creation::new_id;
use crate::deleted_topics::DeletedTopics;
use crate::environment::Environment;
use crate::fetch_sessions::FetchSessions;
use crate::follower::Follower;
use crate::lobby::Lobby;
use crate::log_dirs::{self, LogDirs};
use crate::milliseconds::milliseconds;
use crate::node::StartError;
use crate::open_files;
use crate::partition::Partition;
use crate::partitions::Partitions;
use crate::peers::formation;
use crate::peers::membership::Membership;
use crate::peers::own_place::{self, Here};
use crate::producer_ids::ProducerIds;
use crate::record_memory::RecordMemory;
use crate::replication::Replication;
use crate::replication::sessions::ReplicaSessions;
use crate::request_memory::RequestMemory;
use crate::request_metrics::RequestMetrics;
use crate::strays;

/// Changes of the metadata that stay in their log although a snapshot has them.
const METADATA_ENTRIES_KEPT: u64 = 1_000;

/// Opens everything. See the module.
pub async fn open(
    config: BrokerConfig,
    environment: Environment,
    tier: Option<Tier>,
    background: Handle,
    lobby: &Lobby,
) -> Result<Context, StartError> {
    let (directories, quorum) = take_part(&config, &environment, &lobby.membership).await?;
    let opening = Opening {
        config,
        environment,
        tier,
        background,
        directories,
        metrics: lobby.metrics.clone(),
        request_memory: lobby.request_memory.clone(),
        record_memory: lobby.record_memory.clone(),
        membership: lobby.membership.clone(),
    };
    let ours = quorum.clone();
    let opened = firn_blocking::run(move || opening.open(ours)).await;
    if opened.is_err() {
        quorum.retire().await;
    }
    opened
}

/// The data directories, and whose they are.
struct Directories {
    log_dirs: Arc<LogDirs>,
    cluster_id: String,
}

/// Opens the data directories, and takes this broker's part in the quorum: from here on the metadata are known.
async fn take_part(
    config: &BrokerConfig,
    environment: &Environment,
    membership: &Membership,
) -> Result<(Directories, Arc<Quorum>), StartError> {
    let peers = membership.peers();
    let new_cluster = || new_id(environment.random.as_ref()).to_string();
    let known = firn_blocking::run({
        let (config, environment) = (config.clone(), environment.clone());
        move || cluster_id(&config, &environment)
    })
    .await?;
    let (cluster_id, mut founds) = match known {
        Some(cluster_id) => (cluster_id, None),
        None => {
            membership.begin_new();
            let (cluster_id, founds) = formation::find_cluster(membership, peers, new_cluster).await?;
            (cluster_id, Some(founds))
        }
    };
    let was_claimed = founds.is_none();
    let (directories, found, brokers) = firn_blocking::run({
        let (config, environment) = (config.clone(), environment.clone());
        move || {
            let (directories, found) = open_directories(&config, &environment, cluster_id, was_claimed)?;
            let brokers = found.known()?;
            Ok::<_, StartError>((directories, found, brokers))
        }
    })
    .await?;
    let member = found.member.clone();
    let own = member.id();
    let is_alone = peers.is_alone();
    let is_new = found.is_new;
    let Directories { log_dirs, cluster_id } = &directories;
    let here = Here::new(&found, &brokers, peers);
    // Of those that have votes, too, which are to elect a controller before anybody can be told.
    peers.learn_others(&brokers.endpoints);
    if !is_new {
        membership.places().has_read(cluster_id.clone(), member.clone(), brokers);
    }
    if !is_alone {
        own_place::check_alone(membership, here.was_at.clone()).await?;
    }
    if !is_alone && !is_new {
        own_place::check_disks(membership, cluster_id, here, log_dirs).await?;
    }
    // Before there is a first entry: the next start would take them for strays.
    let begin = async || {
        let log_dirs = directories.log_dirs.clone();
        if is_new { firn_blocking::run(move || strays::refuse_unknown(&log_dirs)).await } else { Ok(()) }
    };
    let timing = (!is_alone).then(|| timing(milliseconds(config.quorum.election_timeout_ms)));
    let quorum = Arc::new(Quorum::start(found, timing, Arc::new(peers.clone())).await?);
    let entered = async {
        let was_founded = quorum.is_founded().await?;
        membership.begin(directories.cluster_id.clone(), member.clone(), quorum.clone(), was_founded);
        if is_alone {
            begin().await?;
            quorum.lead_alone().await?;
            return Ok(());
        }
        if !was_founded {
            if founds.is_none() {
                founds = Some(formation::find_cluster(membership, peers, new_cluster).await?.1);
            }
            if founds == Some(true) {
                begin().await?;
                tracing::info!(cluster_id = directories.cluster_id, "founding the cluster");
                quorum.found([member]).await?;
            }
        }
        formation::take_part(membership, peers, &quorum, own).await?;
        formation::settle(membership, peers, &quorum).await?;
        Ok::<(), StartError>(())
    };
    let entered = tokio::select! {
        entered = entered => entered,
        error = quorum.failed() => Err(error.into()),
    };
    match entered {
        Ok(()) => Ok((directories, quorum)),
        Err(error) => {
            quorum.retire().await;
            Err(error)
        }
    }
}

/// How soon the controller is missed: nobody votes for another for as long as the time-out, and the first to stand for election does
/// so a little later, not all at the same time. A vote may take as long as the least of these, which two syncs have to fit in.
fn timing(election_timeout: Duration) -> Timing {
    Timing {
        heartbeat: election_timeout / 5,
        election_min: election_timeout * 7 / 10,
        election_max: election_timeout,
    }
}

/// The cluster that the data directories belong to, if they have belonged to one.
fn cluster_id(config: &BrokerConfig, environment: &Environment) -> Result<Option<String>, StartError> {
    let disk = environment.disk.as_ref();
    Ok(config.log_dirs.iter().find_map(|path| cluster_id_of(disk, path).transpose()).transpose()?)
}

fn open_directories(
    config: &BrokerConfig,
    environment: &Environment,
    cluster_id: String,
    was_claimed: bool,
) -> Result<(Directories, Found), StartError> {
    let disk = environment.disk.clone();
    let new_id = || new_id(environment.random.as_ref());
    let mut log_dirs = LogDirs::open(log_dirs::Opening {
        disk,
        paths: &config.log_dirs,
        cluster_id: cluster_id.clone(),
        node_id: config.node_id,
        directory_ids: config.log_dirs.iter().map(|_| new_id()).collect(),
        reserve_bytes: u64::try_from(config.log.disk_reserve_bytes).unwrap_or(0),
        open_files_max: open_files::of_logs(environment.open_files_max),
    })?;
    let snapshots = SnapshotLimits {
        bytes_max: u64::try_from(config.log.metadata_record_bytes_between_snapshots).unwrap_or(0),
        interval_ms: config.log.metadata_snapshot_interval_ms,
        entries_kept: METADATA_ENTRIES_KEPT,
    };
    let clock = environment.clock.clone();
    let now = NowMs(Arc::new(move || clock.now_ms()));
    let mut found = LogStore::open(&log_dirs.first().dir, snapshots, now)?;
    if found.is_new && was_claimed {
        // It may have been a member, whose votes and entries have gone: nobody is to count on it as on that one.
        found.member.directory_id = new_id().to_string();
        log_dirs.renew_first_id(&found.member.directory_id)?;
    }
    Ok((Directories { log_dirs: Arc::new(log_dirs), cluster_id }, found))
}

/// What the partitions are opened with.
struct Opening {
    config: BrokerConfig,
    environment: Environment,
    tier: Option<Tier>,
    background: Handle,
    directories: Directories,
    metrics: Arc<Metrics>,
    request_memory: Arc<RequestMemory>,
    record_memory: Arc<RecordMemory>,
    membership: Arc<Membership>,
}

impl Opening {
    fn open(self, quorum: Arc<Quorum>) -> Result<Context, StartError> {
        let clock = self.environment.clock.clone();
        let deleted = Arc::<DeletedTopics>::default();
        let opened = quorum.published();
        let (follower, logs) = self.open_logs(&opened.image)?;
        let controller = Controller::follow(quorum, &opened, follower, clock, deleted.clone());
        Ok(self.assemble(controller, deleted, logs))
    }

    /// Opens the logs that `image` places here.
    fn open_logs(&self, image: &Image) -> Result<(Follower, Logs), StartError> {
        let Self { config, environment, directories: Directories { log_dirs, .. }, .. } = self;
        let node_id = config.node_id;
        strays::set_aside(log_dirs, image, node_id, || new_id(environment.random.as_ref()))?;
        if self.tier.is_none() {
            refuse_tiered_topics(image)?;
        }
        let config = image.broker_config(config).unwrap_or_else(|error| {
            tracing::warn!(%error, "dynamic broker configs contradict the file and are left alone");
            config.clone()
        });
        let recovery_threads = usize::try_from(config.log.num_recovery_threads_per_data_dir).unwrap_or(1);
        let lag_max = milliseconds(config.replica.lag_time_max_ms);
        let lease = milliseconds(config.quorum.session_timeout_ms);
        let replication = Arc::new(Replication::new(node_id, lag_max, lease));
        replication.throttles.set(&config.replica);
        let (config, broker_config) = watch::channel(Arc::new(config));
        let partitions = Arc::new(Partitions::default());
        let metrics = self.metrics.clone();
        let peers = self.membership.peers().clone();
        peers.learn_all(image);
        let follower = Follower {
            node_id,
            peers,
            replication: replication.clone(),
            metrics: metrics.clone(),
            log_dirs: log_dirs.clone(),
            partitions: partitions.clone(),
            config,
            short: Arc::default(),
        };
        let threads = recovery_threads.max(1) * log_dirs.all().len();
        open_logs(&follower, image, threads, environment.clock.now_ms());
        if self.tier.is_none() {
            refuse_cold_logs(&partitions)?;
        }
        Ok((follower, Logs { partitions, replication, broker_config }))
    }

    fn assemble(self, controller: Controller, deleted_topics: Arc<DeletedTopics>, logs: Logs) -> Context {
        let Self { config, environment, tier, background, directories, .. } = self;
        let Self { metrics, request_memory, record_memory, membership, .. } = self;
        let Directories { log_dirs, cluster_id } = directories;
        let Logs { partitions, replication, broker_config } = logs;
        let size = |value: i64| usize::try_from(value).unwrap_or(0);
        let sessions = usize::try_from(config.network.max_incremental_fetch_session_cache_slots).unwrap_or(0);
        let sessions = FetchSessions::new(sessions, size(config.network.fetch_session_bytes));
        let cleaner_pace = Arc::new(SteadyPace::new(broker_config.clone()));
        let now = broker_config.borrow().clone();
        let groups = CoordinatorRuntime::new(
            group_config(&now),
            usize::try_from(now.groups.members_bytes_max).unwrap_or(0),
            offsets_codec(&now),
            partitions.clone(),
            environment.clone(),
        );
        let reads = Reads::new(&now.tier, record_memory.clone(), metrics.cold_read_times.clone(), background);
        let cold = Cold::new(
            tier,
            cluster_id.clone(),
            partitions.clone(),
            environment.clone(),
            broker_config.clone(),
            reads,
            cleaner_pace.clone(),
        );
        Context {
            node_id: config.node_id,
            cluster_id,
            cold: Arc::new(cold),
            requests: RequestMetrics::new(&metrics),
            request_memory,
            record_memory,
            cleaner_pace,
            metrics,
            membership,
            controller,
            environment,
            partitions,
            replication,
            log_dirs,
            fetch_sessions: Mutex::new(sessions),
            replica_sessions: ReplicaSessions::default(),
            producer_ids: ProducerIds::default(),
            deleted_topics,
            groups: Arc::new(groups),
            broker_config,
        }
    }
}

/// What was opened: the partitions' logs, and what came with them.
struct Logs {
    partitions: Arc<Partitions>,
    replication: Arc<Replication>,
    broker_config: watch::Receiver<Arc<BrokerConfig>>,
}

/// Without its store a tiered topic could serve a part of its records alone, and its disk would fill: Kafka does not
/// start then either (KIP-405).
fn refuse_tiered_topics(image: &Image) -> Result<(), StartError> {
    let mut tiered = image.topics().filter(|topic| image.asks_for_tier(&topic.name));
    match tiered.next() {
        None => Ok(()),
        Some(first) => Err(StartError::NoStore { first: first.name.to_string(), count: 1 + tiered.count() }),
    }
}

/// A topic that is tiered no more may still begin in the store.
fn refuse_cold_logs(partitions: &Partitions) -> Result<(), StartError> {
    let all = partitions.all();
    let is_cold = |partition: &&Arc<Partition>| {
        partition.offsets().is_ok_and(|offsets| offsets.log_start < offsets.local_start)
    };
    let mut cold = all.iter().filter(is_cold);
    match cold.next() {
        None => Ok(()),
        Some(first) => {
            Err(StartError::ColdWithoutStore { first: first.name.to_string(), count: 1 + cold.count() })
        }
    }
}

fn group_config(config: &BrokerConfig) -> GroupConfig {
    let size = |value: i32| usize::try_from(value).unwrap_or(0);
    GroupConfig {
        min_session_timeout_ms: config.groups.min_session_timeout_ms,
        max_session_timeout_ms: config.groups.max_session_timeout_ms,
        initial_rebalance_delay_ms: i64::from(config.groups.initial_rebalance_delay_ms),
        max_size: size(config.groups.max_size),
        offset_metadata_bytes_max: size(config.offsets.metadata_max_bytes),
        offsets_retention_ms: config.offsets.retention_ms,
        offsets_retention_check_interval_ms: config.offsets.retention_check_interval_ms,
        ..GroupConfig::default()
    }
}

/// `offsets.topic.compression.codec`, in Kafka's numbers.
fn offsets_codec(config: &BrokerConfig) -> Codec {
    match config.offsets.topic_compression_codec {
        1 => Codec::Gzip,
        2 => Codec::Snappy,
        3 => Codec::Lz4,
        4 => Codec::Zstd,
        _ => Codec::None,
    }
}

/// Opens the logs of every topic, several at a time: after a crash each has a tail to check.
fn open_logs(follower: &Follower, image: &Image, threads: usize, now_ms: i64) {
    let topics: Vec<_> = image.topics().cloned().collect();
    firn_blocking::share(&topics, threads, |topic| {
        if let Err(error) = follower.open_known(image, topic, now_ms) {
            tracing::error!(topic = %topic.name, %error, "some of the topic's partitions are offline");
        }
    });
}
