//! The side doors: `/metrics` for Prometheus, `/healthz` and `/readyz` for whoever keeps the process alive.
//!
//! Whoever can reach them may hold as little as possible: so many connections, each for so long, and none of them keeps
//! the broker from stopping.

#![expect(
    clippy::disallowed_types,
    reason = "who watches the broker comes to the machine's own sockets, whatever network the broker has"
)]

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

/// Connections that are served at a time; more wait until one ends.
const CONNECTIONS_MAX: usize = 256;
/// How long a connection may be without a whole request.
const REQUEST_PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection is used again. It ends with the answer that is under way then.
const CONNECTION_AGE_MAX: Duration = Duration::from_secs(60);
/// How long a connection that is to end may take over its last answer.
const LAST_ANSWER_PATIENCE: Duration = Duration::from_secs(2);
/// What is read ahead of one connection, and so the largest request.
const BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long to wait after an accept that failed for want of a resource (file descriptors, memory).
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is looked at through the doors.
pub trait Observed: Send + Sync + 'static {
    /// All metrics, in Prometheus' text format.
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>>;
    /// `Err` says why the process should be started anew.
    fn healthy(&self) -> Result<(), String>;
    /// `Err` says why no client should be sent here.
    fn ready(&self) -> Result<(), String>;
}

/// The address of the doors, bound.
#[derive(Debug)]
pub struct Doors(TcpListener);

impl Doors {
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// Where they are; a port that was 0 is any free one.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }
}

/// Serves the doors until `shutdown` resolves, and for `LAST_ANSWER_PATIENCE` at most after that.
pub async fn serve(
    Doors(listener): Doors,
    observed: Arc<dyn Observed>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) {
    let doors = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state(observed);
    let mut shutdown = pin!(shutdown);
    let (running, stopped) = watch::channel(());
    let mut connections = JoinSet::new();
    loop {
        let has_room = connections.len() < CONNECTIONS_MAX;
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept(), if has_room => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(serve_connection(stream, doors.clone(), stopped.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection to /metrics, /healthz and /readyz; trying again");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    drop(listener);
    drop(running);
    while connections.join_next().await.is_some() {}
}

/// Serves one connection until the client leaves, or is late, or `stopped` has no sender any more.
async fn serve_connection(stream: TcpStream, doors: Router, mut stopped: watch::Receiver<()>) {
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(REQUEST_PATIENCE)
        .max_buf_size(BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(doors));
    let mut served = pin!(served);
    // How a connection ends is its client's affair.
    tokio::select! {
        _ = &mut served => return,
        _ = stopped.changed() => {}
        () = sleep(CONNECTION_AGE_MAX) => {}
    }
    served.as_mut().graceful_shutdown();
    timeout(LAST_ANSWER_PATIENCE, served).await.ok();
}

async fn metrics(State(observed): State<Arc<dyn Observed>>) -> Response {
    let text = observed.metrics().await;
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response()
}

async fn healthz(State(observed): State<Arc<dyn Observed>>) -> Response {
    answer(observed.healthy())
}

async fn readyz(State(observed): State<Arc<dyn Observed>>) -> Response {
    answer(observed.ready())
}

fn answer(state: Result<(), String>) -> Response {
    match state {
        Ok(()) => "ok\n".into_response(),
        Err(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("{reason}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
