//! Tells the controller that this broker is there: once when it is ready, and then by a heartbeat, by which it lives.

use std::net::ToSocketAddrs;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::DecisionError;
use firn_metadata::decide::brokers::Registration;
use firn_metadata::record::Endpoint;
use firn_quorum::machine::Published;
use firn_quorum::quorum::ProposeError;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::milliseconds::{milliseconds, period};
use crate::peers::membership::AskError;
use crate::peers::wire::{ControllerAsk, ControllerTold};

/// How long a stop waits for others to lead what this broker led.
const LEAVE_MAX: Duration = Duration::from_secs(2);
/// How long an attempt to register may take.
const REGISTER_PATIENCE: Duration = Duration::from_secs(10);

/// What this broker says of itself; `ports` are those that its listeners were bound to.
pub fn registration(context: &Context, ports: &[u16]) -> Registration {
    let config = context.config();
    let bound_port = |name: &str| {
        let bound = config.listeners.iter().zip(ports).find(|(listener, _)| listener.name == name);
        bound.map_or(0, |(_, port)| *port)
    };
    let endpoints = config.advertised_listeners.iter().map(|advertised| Endpoint {
        listener: advertised.name.clone(),
        // An empty host stands for all addresses, of which clients need one.
        host: if advertised.host.is_empty() { own_host_name() } else { advertised.host.clone() },
        // Port 0 asks for any free one; clients are told which it became.
        port: if advertised.port == 0 { bound_port(&advertised.name) } else { advertised.port },
    });
    let directories = context.log_dirs.all().iter();
    Registration {
        broker_id: context.node_id,
        incarnation_id: context.environment.random.uuid(),
        endpoints: endpoints.collect(),
        rack: config.rack.clone(),
        directory_ids: directories.map(|dir| dir.dir.identity().directory_id.clone()).collect(),
        was_stopped_cleanly: context.log_dirs.all().iter().all(|dir| dir.dir.was_clean()),
    }
}

/// Registers this broker, however long there is no controller; returns its epoch, and the metadata know of it.
pub async fn register(context: &Context, registration: &Registration) -> Result<i64, AskError> {
    let ask = ControllerAsk::Register(registration.clone());
    let lease = milliseconds(context.config().quorum.session_timeout_ms);
    let (broker_epoch, sent) = loop {
        let sent = Instant::now();
        match context.membership.ask_controller(&ask, REGISTER_PATIENCE).await {
            Ok(ControllerTold::Registered { broker_epoch }) => break (broker_epoch, sent),
            Ok(_) => return Err(ProposeError::NotController.into()),
            Err(error) if error.may_pass() && !context.membership.peers().is_alone() => {
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
    context.replication.heard_since(sent, lease);
    Ok(broker_epoch)
}

/// Tells the controller again and again that this broker is there, until `leaving`, when it tells that, or until another
/// process is registered in its place, or it is unregistered: then `replaced` is called.
pub async fn beat(
    context: Arc<Context>,
    broker_epoch: i64,
    replaced: CancellationToken,
    leaving: CancellationToken,
) {
    let ask = ControllerAsk::Heartbeat { broker_id: context.node_id, broker_epoch };
    let mut is_heard = true;
    let lease = milliseconds(context.config().quorum.session_timeout_ms);
    let interval = period(context.config().quorum.heartbeat_interval_ms);
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = async {
            ticks.tick().await;
            let sent = Instant::now();
            let told = context.membership.ask_controller(&ask, interval).await;
            if let Ok(ControllerTold::Heard { end_offset }) = told {
                // Before it heard this it may have put others in this broker's place, which has to be known here first.
                let known = context.controller.wait_for(end_offset);
                if tokio::time::timeout(interval, known).await.is_ok() {
                    context.replication.heard_since(sent, lease);
                }
            }
            told
        };
        let Some(told) = leaving.run_until_cancelled(told).await else {
            leave(&context, broker_epoch).await;
            return;
        };
        let was_heard = std::mem::replace(&mut is_heard, told.is_ok());
        match told {
            Ok(_) if was_heard => {}
            Ok(_) => tracing::info!("the controller answers again"),
            Err(AskError::Here(ProposeError::Refused(
                error @ (DecisionError::StaleBrokerEpoch(_) | DecisionError::BrokerIdNotRegistered(_)),
            ))) => {
                tracing::error!(%error, "another process has registered as this broker, or it was unregistered");
                replaced.cancel();
                return;
            }
            Err(error) if was_heard => tracing::warn!(%error, "the controller does not hear this broker"),
            Err(_) => {}
        }
    }
}

/// Has others lead what this broker leads, before it stops.
async fn leave(context: &Context, broker_epoch: i64) {
    let id = context.node_id;
    let ask = ControllerAsk::Leave { broker_id: id, broker_epoch };
    match context.membership.ask_controller(&ask, LEAVE_MAX).await {
        Ok(_) => {
            let is_out = |now: &Published| now.image.broker(id).is_none_or(|broker| broker.fenced);
            tokio::time::timeout(LEAVE_MAX, context.controller.wait_until(is_out)).await.ok();
        }
        Err(error) => {
            tracing::warn!(%error, "stops without the controller's knowing: others take over later")
        }
    }
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
