//! One broker, from its configuration to its last flush: the only file that knows every part.
//!
//! Start: listen, for other brokers alone → lock the data directories → take part in the quorum → set strays aside → open the
//! logs (recovering those that were not closed) → register → serve clients. Stop, in the other order: refuse new connections, let requests end, close the logs with all that a
//! next start wants to find, and only then say that the shutdown was clean.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::listeners::Listener as ListenerConfig;
use firn_model::broker_config::settings::{HttpSettings, TierSettings};
use firn_quorum::error::QuorumError;
use firn_storage::error::StorageError;
use firn_telemetry::http::{self, Doors};
use firn_telemetry::metrics::MetricsError;
use firn_tiering::error::TierError;
use firn_tiering::options::TierOptions;
use firn_tiering::store::{StoreUrl, StoreVariables};
use firn_tiering::tier::Tier;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::anew;
use crate::background::Background;
use crate::balancing;
use crate::closing::{self, OpenDir};
use crate::cold::remote_deletes;
use crate::context::Context;
use crate::deleted_topics;
use crate::environment::Environment;
use crate::housekeeping;
use crate::lobby::Lobby;
use crate::log_dirs::DataDir;
use crate::marking;
use crate::mending;
use crate::milliseconds::period;
use crate::net::{Listener, Network, SocketOptions};
use crate::observed::ObservedBroker;
use crate::opening;
use crate::partition::Partition;
use crate::peers::ask_error::AskError;
use crate::registration::{self, Ended};
use crate::replication::{fetcher, in_sync};
use crate::scrub;
use crate::server;

/// Why a broker does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Storage(#[from] StorageError),
    #[error(transparent)]
    Metadata(#[from] QuorumError),
    #[error("the object store cannot be used: {0}")]
    Tier(#[from] TierError),
    #[error(transparent)]
    Metrics(#[from] MetricsError),
    #[error("cannot register this broker: {0}")]
    Register(#[from] AskError),
    #[error(
        "the brokers are not of one cluster: {0}; correct controller.quorum.voters, or log.dirs of the broker that does not belong to it"
    )]
    OtherCluster(String),
    #[error(
        "log directory {path} is a copy from before: broker {broker_id} has run since, as incarnation {incarnation_id}, and what was written then is not there; start it on the directory of then, or on an empty one, which the other brokers fill. If only {path}/firn-incarnations is missing or old, two lines are to be in it: 0, and that incarnation"
    )]
    StaleDirectory { path: PathBuf, broker_id: i32, incarnation_id: Uuid },
    #[error(
        "another process answers as broker {broker_id} at {address}, where that broker is listed or has registered: stop that one first, or give this one a node.id of its own"
    )]
    Twin { broker_id: i32, address: String },
    #[error(
        "another process is broker {broker_id} already: {reason}; stop that one first, or give this one a node.id of its own"
    )]
    Taken { broker_id: i32, reason: String },
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
        "cannot listen on {address} for /metrics and /healthz: {source}; set firn.http.port (of firn dev: --http-port) to a port that is free, or to -1 for none"
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
    /// Why it cannot go on, once it cannot.
    ended: watch::Receiver<Option<Ended>>,
    /// Ends the heartbeats, the last of which says so.
    leaving: CancellationToken,
    beating: TaskTracker,
    shutdown: CancellationToken,
    tasks: TaskTracker,
    background: Background,
}

/// Opens the broker, and registers it.
async fn open(
    config: BrokerConfig,
    environment: Environment,
    tier: Option<Tier>,
    background: Handle,
    lobby: &Lobby,
) -> Result<(Arc<Context>, i64), StartError> {
    let context = Arc::new(opening::open(config, environment, tier, background, lobby).await?);
    let registered = async {
        let registration = registration::registration(&context).await?;
        Ok(registration::register(&context, &registration).await?)
    };
    let registered = tokio::select! {
        registered = registered => registered,
        error = context.controller.failed() => Err(error.into()),
    };
    match registered {
        Ok(broker_epoch) => Ok((context, broker_epoch)),
        Err(error) => {
            context.controller.retire().await;
            // Each is known to what follows leaders, which it knows: without this the directories would stay locked.
            context.partitions.all().iter().for_each(|partition| drop(partition.close()));
            Err(error)
        }
    }
}

impl Node {
    /// Starts a broker. It serves clients when this returns.
    pub async fn start(config: BrokerConfig, environment: Environment) -> Result<Node, StartError> {
        // First, so that a port that is taken is said at once, however slow the store.
        let sockets = Sockets::bind(&config, environment.network.as_ref()).await?;
        let background = Background::start().map_err(StartError::Threads)?;
        let (settings, seed) = (config.tier.clone(), environment.random.bits() as u64);
        // There, so that the connections to the store are driven by its threads.
        let opening = background.handle().spawn(async move { open_tier(&settings, seed).await });
        let tier = firn_blocking::finished(opening).await?;
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
        let addresses = listeners.iter().filter_map(|listener| listener.local_address().ok()).collect();
        let http_address = doors.as_ref().and_then(|doors| doors.address().ok());
        let ports =
            listeners.iter().map(|listener| listener.local_address().map_or(0, |address| address.port()));
        let lobby = Arc::new(Lobby::new(&config, &environment, &ports.collect::<Vec<_>>())?);
        let (shutdown, tasks) = (CancellationToken::new(), TaskTracker::new());
        // Whoever gives this start up ends what it has begun.
        let unfinished = shutdown.clone().drop_guard();
        let names = config.listeners.iter().chain(&config.controller_listeners);
        let names: Vec<Arc<str>> = names.map(|listener| Arc::from(listener.name.as_str())).collect();
        let limits = Arc::new(server::Limits::default());
        for (listener, name) in listeners.into_iter().zip(names) {
            let serving = server::run(listener, name, limits.clone(), lobby.clone(), shutdown.clone());
            tasks.spawn(serving);
        }
        tasks.spawn(lobby.membership.clone().watch_leases(shutdown.clone()));
        if let Some(doors) = doors {
            let observed = Arc::new(ObservedBroker::new(lobby.clone()));
            tasks.spawn(http::serve(doors, observed, shutdown.clone().cancelled_owned()));
        }
        // It holds much, and only for this while: whoever starts a broker does not carry it along.
        let opening: Pin<Box<dyn Future<Output = _> + Send + '_>> =
            Box::pin(open(config, environment, tier, background.handle().clone(), &lobby));
        let opened = opening.await;
        let (context, broker_epoch) = match opened {
            Ok(opened) => opened,
            Err(error) => {
                shutdown.cancel();
                tasks.close();
                tasks.wait().await;
                return Err(error);
            }
        };
        lobby.open(context.clone());
        let (end, ended) = watch::channel(None);
        let node = Node {
            context: context.clone(),
            addresses,
            http_address,
            ended,
            leaving: CancellationToken::new(),
            beating: TaskTracker::new(),
            shutdown,
            tasks,
            background,
        };
        if !context.membership.peers().is_alone() {
            let beat = registration::beat(context.clone(), broker_epoch, node.leaving.clone());
            node.beating.spawn(async move { end.send_replace(beat.await) });
            node.start_replicating(broker_epoch);
            node.tasks.spawn(balancing::run(context.clone(), node.shutdown.clone()));
        }
        housekeeping::start(&context, &node.tasks, &node.shutdown);
        node.tasks.spawn(mending::run(context.clone(), node.shutdown.clone()));
        let scrubbing = scrub::run(context.clone(), node.shutdown.clone());
        node.tasks.spawn_on(scrubbing, node.background.handle());
        node.tasks.spawn(deleted_topics::run(context.clone(), node.shutdown.clone()));
        node.start_cooling();
        node.tasks.spawn(context.groups.clone().run_timers(node.shutdown.clone()));
        unfinished.disarm();
        Ok(node)
    }

    /// Waits until the broker cannot go on, and says why: it serves nobody any more, and is to be stopped.
    pub async fn ended(&self) -> Ended {
        let mut ended = self.ended.clone();
        let why = ended.wait_for(Option::is_some).await.ok().and_then(|why| why.clone());
        match why {
            Some(why) => why,
            // It goes on for as long as it is not stopped.
            None => std::future::pending().await,
        }
    }

    fn start_replicating(&self, broker_epoch: i64) {
        let (context, shutdown) = (&self.context, &self.shutdown);
        context.replication.registered(broker_epoch);
        self.tasks.spawn(in_sync::report(context.clone(), shutdown.clone()));
        self.tasks.spawn(marking::run(context.clone(), shutdown.clone()));
        self.tasks.spawn(anew::run(context.clone(), broker_epoch, shutdown.clone()));
        self.tasks.spawn(fetcher::run_all(context.clone(), self.tasks.clone(), shutdown.clone()));
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
        // While it still hears the others, and clients still ask it who leads.
        self.leaving.cancel();
        self.beating.close();
        self.beating.wait().await;
        self.context.membership.hand_over().await;
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
    doors: Option<Doors>,
}

impl Sockets {
    async fn bind(config: &BrokerConfig, network: &dyn Network) -> Result<Self, StartError> {
        let all = config.listeners.iter().chain(&config.controller_listeners);
        let listeners = bind(all, network, SocketOptions::of(&config.network))?;
        Ok(Self { listeners, doors: bind_doors(config.http.as_ref(), network).await? })
    }
}

fn bind<'a>(
    configured: impl Iterator<Item = &'a ListenerConfig>,
    network: &dyn Network,
    options: SocketOptions,
) -> Result<Vec<Listener>, StartError> {
    let mut listeners = Vec::new();
    for listener in configured {
        let address = resolve(network, &listener.host, listener.port)?;
        let bound = network.bind(address, options);
        listeners.push(bound.map_err(|source| StartError::Listen { address: address.to_string(), source })?);
    }
    Ok(listeners)
}

async fn bind_doors(
    settings: Option<&HttpSettings>,
    network: &dyn Network,
) -> Result<Option<Doors>, StartError> {
    let Some(settings) = settings else { return Ok(None) };
    let address = resolve(network, &settings.host, settings.port)?;
    let bound = Doors::bind(address).await;
    Ok(Some(bound.map_err(|source| StartError::ListenHttp { address: address.to_string(), source })?))
}

/// An empty host stands for all addresses of the machine.
fn resolve(network: &dyn Network, host: &str, port: u16) -> Result<SocketAddr, StartError> {
    let host = if host.is_empty() { "0.0.0.0" } else { host };
    let found = network.resolve(host, port);
    found.map_err(|source| StartError::Resolve { address: format!("{host}:{port}"), source })
}

/// Opens the object store, which must answer: a wrong address is better known now than when the disk is full.
async fn open_tier(settings: &TierSettings, seed: u64) -> Result<Option<Tier>, StartError> {
    let Some(url) = settings.store_url.as_ref().filter(|_| settings.enabled) else { return Ok(None) };
    tracing::info!(store = %url, "asking the object store");
    let deadline = period(settings.request_timeout_ms);
    let options = TierOptions {
        cache_bytes_max: u64::try_from(settings.cache_bytes).unwrap_or(0),
        attempt_timeout: deadline,
        call_deadline: deadline,
        seed,
        ..TierOptions::default()
    };
    Ok(Some(Tier::open(&StoreUrl::parse(url)?, &StoreVariables::of_process(), options).await?))
}
