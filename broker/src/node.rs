//! One broker, from its configuration to its last flush: the only file that knows every part.
//!
//! Start: lock the data directories → replay the metadata → set strays aside → open the logs (recovering those that were not closed) →
//! register → listen. Stop, in the other order: refuse new connections, let requests end, close the logs with all that a
//! next start wants to find, and only then say that the shutdown was clean.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firn_coordinators::config::GroupConfig;
use firn_metadata::decide::brokers::{Registration, register_broker};
use firn_metadata::image::Image;
use firn_metadata::record::Endpoint;
use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::listeners::Listener as ListenerConfig;
use firn_model::broker_config::settings::{HttpSettings, TierSettings};
use firn_model::ids::TopicId;
use firn_records::batch::Codec;
use firn_storage::error::StorageError;
use firn_telemetry::http;
use firn_telemetry::metrics::{Metrics, MetricsError};
use firn_tiering::error::TierError;
use firn_tiering::options::TierOptions;
use firn_tiering::store::{StoreUrl, StoreVariables};
use firn_tiering::tier::Tier;
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::background::Background;
use crate::blocking;
use crate::cleaner_pace::SteadyPace;
use crate::closing::{self, OpenDir};
use crate::cold::reads::Reads;
use crate::cold::{Cold, remote_deletes};
use crate::context::Context;
use crate::controller::{Controller, ProposeError};
use crate::coordinator_runtime::CoordinatorRuntime;
use crate::environment::Environment;
use crate::fetch_sessions::FetchSessions;
use crate::follower::Follower;
use crate::housekeeping;
use crate::log_dirs::{DataDir, LogDirs, Opening, cluster_id_of};
use crate::metadata_log::{MetadataError, MetadataLog, SnapshotLimits};
use crate::milliseconds::period;
use crate::net::{Listener, Network, SocketOptions};
use crate::observed::ObservedBroker;
use crate::open_files;
use crate::partition::Partition;
use crate::partitions::Partitions;
use crate::producer_ids::ProducerIds;
use crate::record_memory::RecordMemory;
use crate::request_memory::RequestMemory;
use crate::request_metrics::RequestMetrics;
use crate::server;
use crate::strays;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Metadata(#[from] MetadataError),
    #[error("the object store cannot be used: {0}")]
    Tier(#[from] TierError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("cannot register this broker: {0}")]
    Register(#[from] ProposeError),
    #[error(
        "{count} topics have remote.storage.enable=true, '{first}' among them, and this broker is given no object store: set firn.store.url, or with the store switch it off on those topics first"
    )]
    NoStore { first: String, count: usize },
    #[error(
        "{count} partitions have records in an object store, {first} among them, and this broker is given none: set firn.store.url to the store that it had"
    )]
    ColdWithoutStore { first: String, count: usize },
    #[error("cannot start the threads that work in the background: {0}")]
    Threads(io::Error),
    #[error("cannot listen on {address}: {source}; is another broker running there?")]
    Listen { address: String, source: io::Error },
    #[error(
        "cannot listen on {address} for /metrics and /healthz: {source}; set firn.http.port to a port that is free, or to -1 for none"
    )]
    ListenHttp { address: String, source: io::Error },
    #[error("the address {address} cannot be resolved: {source}")]
    Resolve { address: String, source: io::Error },
    #[error(
        "{path} holds partition {partition}, but there are no metadata at all: they are lost, or in another directory. Start with the log.dirs of before, in their order, or move the partition's directory away"
    )]
    UnknownPartition { path: PathBuf, partition: String },
}

/// A running broker.
#[derive(Debug)]
pub struct Node {
    pub context: Arc<Context>,
    /// What clients connect to.
    pub addresses: Vec<SocketAddr>,
    /// Where /metrics, /healthz and /readyz are.
    pub http_address: Option<SocketAddr>,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    background: Background,
}

impl Node {
    /// Starts a broker. It serves clients when this returns.
    pub async fn start(config: BrokerConfig, environment: Environment) -> Result<Node, StartError> {
        // First, so that a port that is taken is said at once, however slow the store.
        let sockets = Sockets::bind(&config, environment.network.as_ref()).await?;
        let background = Background::start().map_err(StartError::Threads)?;
        let settings = config.tier.clone();
        // There, so that the connections to the store are driven by its threads.
        let opening = background.handle().spawn(async move { open_tier(&settings).await });
        let tier = blocking::finished(opening).await?;
        Self::serve(config, environment, sockets, tier, background).await
    }

    /// The same over an object store that the caller opened.
    pub async fn start_with_tier(
        config: BrokerConfig,
        environment: Environment,
        tier: Option<Tier>,
    ) -> Result<Node, StartError> {
        let sockets = Sockets::bind(&config, environment.network.as_ref()).await?;
        let background = Background::start().map_err(StartError::Threads)?;
        Self::serve(config, environment, sockets, tier, background).await
    }

    async fn serve(
        config: BrokerConfig,
        environment: Environment,
        Sockets { listeners, doors }: Sockets,
        tier: Option<Tier>,
        background: Background,
    ) -> Result<Node, StartError> {
        let names: Vec<Arc<str>> =
            config.listeners.iter().map(|listener| Arc::from(listener.name.as_str())).collect();
        let addresses = listeners.iter().filter_map(|listener| listener.local_address().ok()).collect();
        let http_address = doors.as_ref().and_then(|doors| doors.local_addr().ok());
        let handle = background.handle().clone();
        let context = Arc::new(blocking::run(move || open(config, environment, tier, handle)).await?);
        register(&context, &listeners).await?;
        let node = Node {
            context: context.clone(),
            addresses,
            http_address,
            shutdown: CancellationToken::new(),
            tasks: TaskTracker::new(),
            background,
        };
        housekeeping::start(&context, &node.tasks, &node.shutdown);
        node.start_cooling();
        node.tasks.spawn(context.groups.clone().run_timers(node.shutdown.clone()));
        if let Some(listener) = doors {
            let shutdown = node.shutdown.clone();
            let observed = Arc::new(ObservedBroker::new(context.clone()));
            node.tasks.spawn(http::serve(listener, observed, shutdown.cancelled_owned()));
        }
        let limits = Arc::new(server::Limits::default());
        for (listener, name) in listeners.into_iter().zip(names) {
            let (context, shutdown) = (context.clone(), node.shutdown.clone());
            let serving = server::run(listener, name, limits.clone(), context, shutdown);
            node.tasks.spawn(serving);
        }
        Ok(node)
    }

    fn start_cooling(&self) {
        let tier = self.context.config().tier.clone();
        let period = period(tier.task_interval_ms);
        let (context, shutdown) = (&self.context, &self.shutdown);
        let background = self.background.handle();
        self.tasks.spawn_on(context.cold.clone().run(period, shutdown.clone()), background);
        self.tasks.spawn(context.cold.clone().follow_config(shutdown.clone()));
        self.tasks.spawn_on(remote_deletes::run(context.clone(), period, shutdown.clone()), background);
    }

    /// Stops within the usual limits.
    pub async fn stop(self) -> Stopped {
        self.stop_within(StopLimits::default()).await
    }

    /// Stops. What does not end in time is left behind; the logs are closed all the same, as far as their disks let them.
    pub async fn stop_within(self, limits: StopLimits) -> Stopped {
        for dir in self.context.log_dirs.all() {
            dir.dir.stop_compaction();
        }
        self.shutdown.cancel();
        self.tasks.close();
        let ended = tokio::time::timeout(limits.tasks, self.tasks.wait()).await.is_ok();
        if !ended {
            tracing::error!(tasks = self.tasks.len(), "some tasks do not end, and are given up");
        }
        let metadata = match tokio::time::timeout(limits.directory, self.context.controller.retire()).await {
            Ok(log) => log.map_or(closing::Metadata::None, |log| closing::Metadata::Log(Box::new(log))),
            Err(_) => closing::Metadata::Busy,
        };
        let dirs: JoinSet<bool> =
            open_dirs(&self.context, metadata).into_iter().map(|dir| dir.close(limits.directory)).collect();
        let marked = dirs.join_all().await;
        if ended && marked.into_iter().all(|marked| marked) { Stopped::Cleanly } else { Stopped::Uncleanly }
    }
}

/// How long a stop waits for what does not end.
#[derive(Debug, Clone, Copy)]
pub struct StopLimits {
    /// For connections and chores, which end within their own, shorter limits.
    pub tasks: Duration,
    /// For a log directory of which no further log is closed. One log is synced in less, unless its disk hangs.
    pub directory: Duration,
}

impl Default for StopLimits {
    fn default() -> Self {
        Self { tasks: Duration::from_secs(10), directory: Duration::from_secs(20) }
    }
}

/// What is open in each directory; the metadata log is in the first.
fn open_dirs(context: &Context, metadata: closing::Metadata) -> Vec<OpenDir> {
    let mut metadata = Some(metadata);
    let partitions = context.partitions.all();
    let in_dir = |dir: &Arc<DataDir>| {
        let here = |partition: &&Arc<Partition>| std::ptr::eq(partition.data_dir(), &raw const **dir);
        partitions.iter().filter(here).cloned().collect()
    };
    let open = |dir: &Arc<DataDir>| OpenDir {
        dir: dir.clone(),
        metadata: metadata.take().unwrap_or(closing::Metadata::None),
        partitions: in_dir(dir),
    };
    context.log_dirs.all().iter().map(open).collect()
}

/// How a broker stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// What was acknowledged is on the disk, and the next start reads no batch.
    Cleanly,
    /// Something did not end in time, or could not be written: the next start checks the logs.
    Uncleanly,
}

/// What a broker listens on.
struct Sockets {
    listeners: Vec<Listener>,
    doors: Option<tokio::net::TcpListener>,
}

impl Sockets {
    async fn bind(config: &BrokerConfig, network: &dyn Network) -> Result<Self, StartError> {
        let listeners = bind(&config.listeners, network, SocketOptions::of(&config.network))?;
        Ok(Self { listeners, doors: bind_doors(config.http.as_ref()).await? })
    }
}

fn bind(
    configured: &[ListenerConfig],
    network: &dyn Network,
    options: SocketOptions,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::with_capacity(configured.len());
    for listener in configured {
        let address = resolve(&listener.host, listener.port)?;
        let bound = network.bind(address, options);
        listeners.push(bound.map_err(|source| StartError::Listen { address: address.to_string(), source })?);
    }
    Ok(listeners)
}

async fn bind_doors(settings: Option<&HttpSettings>) -> Result<Option<tokio::net::TcpListener>, StartError> {
    let Some(settings) = settings else { return Ok(None) };
    let address = resolve(&settings.host, settings.port)?;
    let bound = http::bind(address).await;
    Ok(Some(bound.map_err(|source| StartError::ListenHttp { address: address.to_string(), source })?))
}

/// An empty host stands for all addresses of the machine.
fn resolve(host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let found = (host, port)
        .to_socket_addrs()
        .and_then(|mut found| found.next().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into()));
    found.map_err(|source| StartError::Resolve { address: format!("{host}:{port}"), source })
}

/// Opens the object store, which must answer: a wrong address is better known now than when the disk is full.
async fn open_tier(settings: &TierSettings) -> Result<Option<Tier>, StartError> {
    let Some(url) = settings.store_url.as_ref().filter(|_| settings.enabled) else { return Ok(None) };
    tracing::info!(store = %url, "asking the object store");
    let deadline = period(settings.request_timeout_ms);
    let options = TierOptions {
        cache_bytes_max: u64::try_from(settings.cache_bytes).unwrap_or(0),
        attempt_timeout: deadline,
        call_deadline: deadline,
        ..TierOptions::default()
    };
    Ok(Some(Tier::open(&StoreUrl::parse(url)?, &StoreVariables::of_process(), options).await?))
}

/// Opens everything that lies on disk.
fn open(
    config: BrokerConfig,
    environment: Environment,
    tier: Option<Tier>,
    background: Handle,
) -> Result<Context, StartError> {
    let now_ms = environment.clock.now_ms();
    let random_id =
        || TopicId(uuid::Builder::from_random_bytes(environment.random.bits().to_be_bytes()).into_uuid());
    let disk = environment.disk.clone();
    let known = config.log_dirs.iter().find_map(|path| cluster_id_of(disk.as_ref(), path).transpose());
    let cluster_id = known.transpose()?.unwrap_or_else(|| random_id().to_string());
    let log_dirs = Arc::new(LogDirs::open(Opening {
        disk,
        paths: &config.log_dirs,
        cluster_id: cluster_id.clone(),
        node_id: config.node_id,
        directory_ids: config.log_dirs.iter().map(|_| random_id()).collect(),
        reserve_bytes: u64::try_from(config.log.disk_reserve_bytes).unwrap_or(0),
        open_files_max: open_files::of_logs(environment.open_files_max),
    })?);
    let snapshots = SnapshotLimits {
        bytes_max: u64::try_from(config.log.metadata_record_bytes_between_snapshots).unwrap_or(0),
        interval_ms: config.log.metadata_snapshot_interval_ms,
    };
    let (metadata_log, image) = MetadataLog::open(&log_dirs.first().dir, snapshots, now_ms)?;
    let node_id = config.node_id;
    strays::set_aside(&log_dirs, &metadata_log, &image, node_id, random_id)?;
    if tier.is_none() {
        refuse_tiered_topics(&image)?;
    }
    let session_bytes = usize::try_from(config.network.fetch_session_bytes).unwrap_or(0);
    let sessions = usize::try_from(config.network.max_incremental_fetch_session_cache_slots).unwrap_or(0);
    let request_memory = RequestMemory::new(config.network.queued_max_request_bytes);
    let record_memory = RecordMemory::new(config.network.fetch_records_bytes);
    let recovery_threads = usize::try_from(config.log.num_recovery_threads_per_data_dir).unwrap_or(1);
    let config = image.broker_config(&config).unwrap_or_else(|error| {
        tracing::warn!(%error, "dynamic broker configs contradict the file and are left alone");
        config
    });
    let (config, broker_config) = watch::channel(Arc::new(config));
    let partitions = Arc::new(Partitions::default());
    let metrics = Arc::new(Metrics::new()?);
    let follower = Follower {
        node_id,
        metrics: metrics.clone(),
        log_dirs: log_dirs.clone(),
        partitions: partitions.clone(),
        config,
        short: Arc::default(),
    };
    let groups = {
        let config = broker_config.borrow().clone();
        CoordinatorRuntime::new(
            group_config(&config),
            usize::try_from(config.groups.members_bytes_max).unwrap_or(0),
            offsets_codec(&config),
            partitions.clone(),
            environment.clone(),
        )
    };
    open_logs(&follower, &image, recovery_threads.max(1) * log_dirs.all().len(), now_ms);
    if tier.is_none() {
        refuse_cold_logs(&partitions)?;
    }
    let cleaner_pace = Arc::new(SteadyPace::new(broker_config.clone()));
    let tier_settings = broker_config.borrow().tier.clone();
    let reads =
        Reads::new(&tier_settings, record_memory.clone(), metrics.cold_read_times.clone(), background);
    let cold = Cold::new(
        tier,
        cluster_id.clone(),
        partitions.clone(),
        environment.clone(),
        broker_config.clone(),
        reads,
        cleaner_pace.clone(),
    );
    Ok(Context {
        node_id,
        cluster_id,
        cold: Arc::new(cold),
        requests: RequestMetrics::new(&metrics),
        request_memory,
        record_memory,
        cleaner_pace,
        metrics,
        controller: Controller::new(metadata_log, image, follower, environment.clone()),
        environment,
        partitions,
        log_dirs,
        fetch_sessions: Mutex::new(FetchSessions::new(sessions, session_bytes)),
        producer_ids: ProducerIds::default(),
        groups: Arc::new(groups),
        broker_config,
    })
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
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(topics.len()) {
            scope.spawn(|| {
                while let Some(topic) = topics.get(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed)) {
                    if let Err(error) = follower.open(image, topic, now_ms) {
                        tracing::error!(topic = %topic.name, %error, "some of the topic's partitions are offline");
                    }
                }
            });
        }
    });
}

async fn register(context: &Context, listeners: &[Listener]) -> Result<(), StartError> {
    let config = context.config();
    let bound_port = |name: &str| {
        let bound = config.listeners.iter().zip(listeners).find(|(listener, _)| listener.name == name);
        bound.and_then(|(_, bound)| bound.local_address().ok()).map_or(0, |address| address.port())
    };
    let endpoints = config.advertised_listeners.iter().map(|advertised| Endpoint {
        listener: advertised.name.clone(),
        // An empty host stands for all addresses, of which clients need one.
        host: if advertised.host.is_empty() { own_host_name() } else { advertised.host.clone() },
        // Port 0 asks for any free one; clients are told which it became.
        port: if advertised.port == 0 { bound_port(&advertised.name) } else { advertised.port },
    });
    let registration = Registration {
        broker_id: context.node_id,
        incarnation_id: uuid::Builder::from_random_bytes(context.environment.random.bits().to_be_bytes())
            .into_uuid(),
        endpoints: endpoints.collect(),
        rack: config.rack.clone(),
    };
    context.controller.propose(|image| register_broker(image, &registration)).await?;
    Ok(())
}

/// The name of this machine, for clients to connect to (Kafka's default). Where it cannot be resolved even here it
/// would serve nobody, and the loopback address serves clients of this machine.
fn own_host_name() -> String {
    let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
    if (name.as_str(), 0).to_socket_addrs().is_ok_and(|mut found| found.next().is_some()) {
        return name;
    }
    tracing::warn!(
        name,
        "the name of this machine cannot be resolved: only clients of this machine can connect; set advertised.listeners"
    );
    "127.0.0.1".to_owned()
}
