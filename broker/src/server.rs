//! Accepts connections, within limits, and sees them off at shutdown.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use firn_telemetry::metrics::OpenConnections;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connection::{self, ConnectionError, Peer};
use crate::lobby::Lobby;
use crate::net::Listener;
use crate::open_files;

/// How long to wait after an accept that failed for want of a resource (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts connections on `listener`, which clients know as `name`, until `shutdown`, then waits until the last one has
/// ended. All listeners share `limits`.
pub async fn run(
    listener: Listener,
    name: Arc<str>,
    limits: Arc<Limits>,
    lobby: Arc<Lobby>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    let open = lobby.metrics.connections(&name);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        let (stream, address) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                pause_after(&error).await;
                continue;
            }
        };
        let admitted = Limits::admit(&limits, address.ip(), &lobby, &open);
        // However many clients there are, brokers reach each other on their own listeners.
        if admitted.is_none() && !lobby.is_for_brokers_alone(&name) {
            lobby.metrics.connections_refused.inc();
            tracing::debug!(peer = %address, "refused a connection: max.connections, max.connections.per.ip or the process's limit on open files is reached");
            continue;
        }
        let (lobby, shutdown) = (lobby.clone(), shutdown.clone());
        let peer = Peer { address, listener: name.clone() };
        connections.spawn(async move {
            let metrics = lobby.metrics.clone();
            match connection::serve(stream, peer, lobby, shutdown).await {
                Ok(()) => {}
                Err(ConnectionError::Io(error)) => {
                    tracing::debug!(peer = %address, %error, "connection lost")
                }
                Err(error) => {
                    metrics.malformed_requests.inc();
                    tracing::info!(peer = %address, %error, "closed a connection");
                }
            }
            drop(admitted);
        });
    }
    connections.close();
    connections.wait().await;
}

async fn pause_after(error: &io::Error) {
    // A peer that gave up before we accepted it is its own affair; running out of descriptors is ours.
    if matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset) {
        return;
    }
    tracing::warn!(%error, "cannot accept connections; trying again");
    tokio::time::sleep(ACCEPT_PAUSE).await;
}

/// Connections of the broker that are open, for its limits are on all listeners together.
#[derive(Debug, Default)]
pub struct Limits {
    open: Mutex<Open>,
}

/// How many connections are open, in all and by address.
#[derive(Debug, Default)]
struct Open {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// One connection's place within the limits; dropping it frees the place.
struct Admitted {
    limits: Arc<Limits>,
    address: IpAddr,
    counted: OpenConnections,
}

impl Limits {
    fn admit(
        limits: &Arc<Limits>,
        address: IpAddr,
        lobby: &Lobby,
        counted: &OpenConnections,
    ) -> Option<Admitted> {
        let config = lobby.config();
        let network = &config.network;
        let overrides = &network.max_connections_per_ip_overrides;
        let here_max = match overrides.is_empty() {
            true => None,
            false => overrides.get(&address.to_string()).copied(),
        };
        let here_max = here_max.unwrap_or(network.max_connections_per_ip);
        let mut open = limits.open.lock();
        let here = open.by_address.get(&address).copied().unwrap_or(0);
        let reached = |count: usize, max: i32| count >= usize::try_from(max).unwrap_or(0);
        // Files need descriptors as well: a broker whose clients had taken all of them could not write.
        let all_max = open_files::of_clients(lobby.open_files_max);
        if reached(open.all, network.max_connections) || open.all >= all_max || reached(here, here_max) {
            return None;
        }
        open.all += 1;
        *open.by_address.entry(address).or_default() += 1;
        counted.opened();
        Some(Admitted { limits: limits.clone(), address, counted: counted.clone() })
    }
}

impl Drop for Admitted {
    fn drop(&mut self) {
        self.counted.closed();
        let mut open = self.limits.open.lock();
        open.all -= 1;
        if let Some(count) = open.by_address.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                open.by_address.remove(&self.address);
            }
        }
    }
}
