//! Tells the controller that this broker is there: once when it is ready, and then by a heartbeat, by which it lives.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::DecisionError;
use firn_metadata::decide::brokers::Registration;
use firn_metadata::incarnations::{Noted, Registered};
use firn_metadata::record::Endpoint;
use firn_model::broker_config::BrokerConfig;
use firn_model::broker_config::listeners::Listener;
use firn_model::ids::TopicId;
use firn_quorum::machine::Published;
use firn_quorum::quorum::ProposeError;
use firn_storage::error::StorageError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::Context;
use crate::log_dirs::LogDirs;
use crate::milliseconds::period;
use crate::net::Network;
use crate::node::StartError;
use crate::partition::Partition;
use crate::peers::ask_error::AskError;
use crate::peers::own_place;
use crate::peers::wire::{ControllerAsk, ControllerTold};

/// How long a stop waits for others to lead what this broker led.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// How long a start that finds no room waits before it looks again, and how often it says so.
const ROOM_PAUSE: Duration = Duration::from_millis(500);
const TOLD_EVERY: Duration = Duration::from_secs(10);
/// How long an attempt to register may take.
const REGISTER_PATIENCE: Duration = Duration::from_secs(10);

/// Where this broker is found by clients, and by other brokers that do not have it in their list: they take what they find for
/// brokers alone (`controller.listener.names`). `ports` are those that its listeners were bound to, those for brokers alone last.
pub fn own_endpoints(config: &BrokerConfig, network: &dyn Network, ports: &[u16]) -> Vec<Endpoint> {
    let for_brokers = &config.controller_listeners;
    let bound_port = |name: &str| {
        let bound = config.listeners.iter().chain(for_brokers).zip(ports);
        bound.into_iter().find(|(listener, _)| listener.name == name).map_or(0, |(_, port)| *port)
    };
    let endpoint = |advertised: &Listener| Endpoint {
        listener: advertised.name.clone(),
        // An empty host stands for all addresses, of which clients need one.
        host: if advertised.host.is_empty() { network.own_host() } else { advertised.host.clone() },
        // Port 0 asks for any free one; clients are told which it became.
        port: if advertised.port == 0 { bound_port(&advertised.name) } else { advertised.port },
    };
    let mut endpoints: Vec<Endpoint> = config.advertised_listeners.iter().map(endpoint).collect();
    let is_listed = config.quorum.is_listed(config.node_id);
    let is_any = |host: &str| matches!(host, "" | "0.0.0.0" | "::");
    if let Some(own) = for_brokers.first().filter(|_| !is_listed) {
        // Others come to the same machine as clients do, unless it is one address of several.
        let host = endpoints.first().filter(|_| is_any(&own.host)).map(|first| first.host.clone());
        endpoints.push(endpoint(&Listener { host: host.unwrap_or(own.host.clone()), ..own.clone() }));
    }
    endpoints
}

/// What this broker says of itself.
fn said_of(context: &Context, incarnation_id: Uuid, noted: Noted) -> Registration {
    let config = context.config();
    let directories = context.log_dirs.all().iter();
    Registration {
        broker_id: context.node_id,
        incarnation_id,
        endpoints: context.membership.endpoints().to_vec(),
        rack: config.rack.clone(),
        directory_ids: directories.map(|dir| dir.dir.identity().directory_id.clone()).collect(),
        was_stopped_cleanly: context.log_dirs.all().iter().all(|dir| dir.dir.was_clean()),
        is_robbed: context.membership.places().is_robbed(),
        noted: Some(noted),
    }
}

/// Begins another incarnation of this broker, and gives what it says of itself. Order: the directories are told of it before
/// the controller is, so that a directory which does not know the incarnation that registered last is a copy from before.
pub async fn registration(context: &Context) -> Result<Registration, StartError> {
    let incarnation_id = context.environment.random.uuid();
    context.replication.registers_as(incarnation_id);
    let log_dirs = &context.log_dirs;
    let mut noted = own_place::noted(log_dirs).await?;
    if let Some(last) = context.controller.image().broker(context.node_id).map(Registered::from) {
        own_place::check_directories(&context.membership, &last, &noted, log_dirs)?;
    }
    note(log_dirs, incarnation_id).await?;
    for known in noted.values_mut() {
        known.insert(incarnation_id, 0);
    }
    Ok(said_of(context, incarnation_id, noted))
}

/// Tells each directory of this incarnation. A full disk is waited for: others go on, and whoever made room would have to see to it that
/// this broker is started again.
async fn note(log_dirs: &LogDirs, incarnation_id: Uuid) -> Result<(), StorageError> {
    for dir in log_dirs.all() {
        let mut told: Option<Instant> = None;
        loop {
            let noting = dir.clone();
            let noted = firn_blocking::run(move || noting.dir.note_incarnation(incarnation_id)).await;
            match noted {
                Err(error) if error.is_shortage() => {
                    if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
                        told = Some(Instant::now());
                        tracing::warn!(%error, "the start waits for room on the disk, or for files that may be opened");
                    }
                    tokio::time::sleep(ROOM_PAUSE).await;
                }
                noted => break noted?,
            }
        }
    }
    Ok(())
}

/// Registers this broker, however long there is no controller; returns its epoch, and the metadata know of it.
pub async fn register(context: &Context, registration: &Registration) -> Result<i64, AskError> {
    let ask = ControllerAsk::Register(registration.clone());
    let (broker_epoch, lease_ms, sent) = loop {
        let sent = Instant::now();
        match context.membership.ask_controller(&ask, REGISTER_PATIENCE).await {
            Ok(ControllerTold::Registered { broker_epoch, lease_ms }) => {
                break (broker_epoch, lease_ms, sent);
            }
            Ok(_) => return Err(ProposeError::NotController.into()),
            // What is asked for twice is done once more, in another epoch.
            Err(error) if error.is_unsettled() && !context.membership.peers().is_alone() => {
                tracing::info!(%error, "not registered yet");
            }
            Err(error) => return Err(error),
        }
    };
    let id = context.node_id;
    let is_known = |now: &Published| now.image.broker(id).is_some_and(|broker| broker.epoch >= broker_epoch);
    // However long that takes: what this broker led before, another may lead.
    while !context.controller.holds(is_known) {
        context.controller.wait_until(is_known).await;
    }
    context.replication.heard_since(sent, lease(context, lease_ms));
    Ok(broker_epoch)
}

/// How long this broker may rely on it that nobody else is in its place: the controller, which says how long it waits, may have been
/// told by its own file to wait for another time than this one by its.
fn lease(context: &Context, lease_ms: i64) -> Duration {
    let lease_ms = lease_ms.min(i64::from(context.config().quorum.session_timeout_ms));
    Duration::from_millis(u64::try_from(lease_ms).unwrap_or(0))
}

/// What the controller has answered to heartbeats, and is not in force here yet.
#[derive(Debug, Default)]
struct Heard(VecDeque<(Instant, i64)>);

impl Heard {
    /// The heartbeat that was sent then is answered: there are changes up to this offset.
    fn add(&mut self, sent: Instant, end_offset: i64, lease: Duration) {
        self.0.push_back((sent, end_offset));
        // It would renew nothing any more.
        self.0.retain(|(sent, _)| sent.elapsed() < lease);
    }

    /// When the newest of those was sent whose changes are all in force.
    fn settle(&mut self, applied_to: i64) -> Option<Instant> {
        let mut newest = None;
        while let Some((sent, _)) = self.0.front().filter(|(_, end_offset)| *end_offset <= applied_to) {
            newest = Some(*sent);
            self.0.pop_front();
        }
        newest
    }
}

/// Why a broker cannot go on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Ended {
    #[error(
        "another process is this broker now, for which each needs a node.id of its own, or it was unregistered, after which it may be started again"
    )]
    Replaced,
    #[error(
        "the disk under {path}, where the metadata are, has failed: {reason}. Other brokers lead what this one led; start it again once the disk works, or with an empty directory in its place, which they fill"
    )]
    DiskFailed { path: PathBuf, reason: String },
    #[error("this broker cannot keep its part of the metadata any more: {reason}")]
    MetadataFailed { reason: String },
}

/// Tells the controller again and again that this broker is there, until `leaving`, when it tells that, or until the broker
/// cannot go on: why, it returns.
pub async fn beat(context: Arc<Context>, broker_epoch: i64, leaving: CancellationToken) -> Option<Ended> {
    let mut is_heard = true;
    let mut heard = Heard::default();
    let interval = period(context.config().quorum.heartbeat_interval_ms);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let first = &context.log_dirs.first().dir;
        if let Some(reason) = first.failed() {
            leave(&context, broker_epoch).await;
            return Some(Ended::DiskFailed { path: first.path().to_owned(), reason });
        }
        hand_over(&context, broker_epoch, interval).await;
        make_way(&context, broker_epoch, interval).await;
        let told = async {
            ticks.tick().await;
            let sent = Instant::now();
            let ask = ControllerAsk::Heartbeat {
                broker_id: context.node_id,
                broker_epoch,
                applied_to: context.controller.applied_to(),
                has_room: context.controller.has_room(),
                takes_records: takes_records(&context),
                marks: context.log_dirs.marks(),
            };
            let told = context.membership.ask_controller(&ask, interval).await;
            if let Ok(ControllerTold::Heard { end_offset, lease_ms }) = told {
                // A controller of an older release does not say.
                if let Some(told) = u64::try_from(lease_ms).ok().filter(|_| lease_ms < i64::MAX) {
                    context.replication.leases_last(Duration::from_millis(told));
                }
                let lease = lease(&context, lease_ms);
                heard.add(sent, end_offset, lease);
                // Before it heard this it may have put others in this broker's place, which has to be known here first.
                tokio::time::timeout(interval, context.controller.wait_for(end_offset)).await.ok();
                if let Some(sent) = heard.settle(context.controller.applied_to()) {
                    context.replication.heard_since(sent, lease);
                }
            }
            told
        };
        let told = tokio::select! {
            told = leaving.run_until_cancelled(told) => told,
            // What it knows is old from now on, and the controller fences it. If it is the disk, that is said above.
            error = context.controller.failed() => match first.failed() {
                None => return Some(Ended::MetadataFailed { reason: error.to_string() }),
                Some(_) => continue,
            },
        };
        let Some(told) = told else {
            leave(&context, broker_epoch).await;
            return None;
        };
        let was_heard = std::mem::replace(&mut is_heard, told.is_ok());
        match told {
            Ok(_) if was_heard => {}
            Ok(_) => tracing::info!("the controller answers again"),
            Err(AskError::Here(ProposeError::Refused(
                error @ (DecisionError::StaleBrokerEpoch(_) | DecisionError::BrokerIdNotRegistered(_)),
            ))) => {
                tracing::error!(%error, "another process has registered as this broker, or it was unregistered");
                return Some(Ended::Replaced);
            }
            Err(error) if was_heard => tracing::warn!(%error, "the controller does not hear this broker"),
            Err(_) => {}
        }
    }
}

/// Has others lead what lies on disks that have failed, while this broker lives on with the rest.
async fn hand_over(context: &Context, broker_epoch: i64, patience: Duration) {
    if context.log_dirs.all().iter().all(|dir| !dir.dir.has_failed()) {
        return;
    }
    let (id, image) = (context.node_id, context.controller.image());
    let all = context.partitions.all();
    let counts_here = |partition: &&Arc<Partition>| {
        let now = image.partition_by_id(partition.topic_id, partition.name.partition);
        // What nobody else can lead stays as it is.
        now.is_some_and(|now| now.isr.contains(&id) && now.isr.len() + now.elr.len() > 1)
    };
    let failed = all.iter().filter(|partition| partition.data_dir().dir.has_failed());
    let partitions: Vec<_> = failed
        .filter(counts_here)
        .map(|partition| (partition.topic_id.0, partition.name.partition))
        .collect();
    if partitions.is_empty() {
        return;
    }
    let count = partitions.len();
    let ask = ControllerAsk::HandOver { broker_id: id, broker_epoch, gives_up: false, partitions };
    match context.membership.ask_controller(&ask, patience).await {
        Ok(_) => tracing::error!(partitions = count, "a disk has failed: others lead what lay there"),
        Err(error) => {
            tracing::warn!(partitions = count, %error, "a disk has failed, and the controller does not know of it yet")
        }
    }
}

/// Whether there is a disk with room for records.
pub fn takes_records(context: &Context) -> bool {
    context.log_dirs.all().iter().any(|dir| !dir.dir.has_failed() && dir.guard.has_room())
}

/// Has others lead what the disk has no room for, and not wait for it.
async fn make_way(context: &Context, broker_epoch: i64, patience: Duration) {
    let short = context.replication.short.all();
    if short.is_empty() {
        return;
    }
    let (id, image) = (context.node_id, context.controller.image());
    let is_waited_for = |topic: TopicId, index: i32, epoch: i32| {
        let now = image.partition_by_id(topic, index);
        now.is_some_and(|now| now.leader_epoch == epoch && now.isr.len() > 1 && now.isr.contains(&id))
    };
    let short = short.into_iter().filter(|((topic, index), epoch)| is_waited_for(*topic, *index, *epoch));
    let partitions: Vec<_> = short.map(|((topic, index), epoch)| (topic.0, index, epoch)).collect();
    if partitions.is_empty() {
        return;
    }
    let ask = ControllerAsk::MakeWay { broker_id: id, broker_epoch, partitions };
    if let Err(error) = context.membership.ask_controller(&ask, patience).await {
        tracing::warn!(%error, "there is no room for what is written here, and the controller does not know of it yet");
    }
}

/// Has others lead what this broker leads, before it stops.
async fn leave(context: &Context, broker_epoch: i64) {
    let id = context.node_id;
    // Before it hears that another leads, that one may have acknowledged what this one has not got.
    context.replication.leaves();
    let ask = ControllerAsk::Leave { broker_id: id, broker_epoch };
    match context.membership.ask_controller(&ask, LEAVE_MAX).await {
        Ok(_) => {
            let is_out = |now: &Published| now.image.broker(id).is_none_or(|broker| broker.fenced);
            tokio::time::timeout(LEAVE_MAX, context.controller.wait_until(is_out)).await.ok();
        }
        Err(error) => {
            tracing::info!(%error, "stops, and no controller has heard of it: whoever is left finds out by itself")
        }
    }
}
