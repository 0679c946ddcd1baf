//! What the side doors show of this broker: its counters, the state of its partitions and groups, and its health.
//!
//! Everything but the groups is read without waiting for anyone, on a thread that may block: a scrape of many partitions
//! takes a while, and no connection waits for it.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use firn_telemetry::exposition::Exposition;
use firn_telemetry::http::Observed;
use firn_telemetry::metrics::Metrics;
use parking_lot::Mutex;

use crate::context::Context;
use crate::lobby::Lobby;
use crate::log_dirs::DataDir;

mod broker;
mod groups;
mod partitions;
mod process;
mod tier;
mod window;

/// A broker as it is watched.
#[derive(Debug)]
pub struct ObservedBroker {
    lobby: Arc<Lobby>,
    windows: Arc<Mutex<process::Windows>>,
}

impl ObservedBroker {
    pub fn new(lobby: Arc<Lobby>) -> Self {
        Self { lobby, windows: Arc::default() }
    }
}

impl Observed for ObservedBroker {
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            let Some(context) = self.lobby.opened() else {
                let mut out = Exposition::default();
                counters(&self.lobby.metrics, &mut out);
                return out.into_text();
            };
            let groups = groups::Groups::of(&context).await;
            let threads = process::Threads::of_this_runtime();
            let windows = self.windows.clone();
            firn_blocking::run(move || text(&context, &groups, threads, &windows)).await
        })
    }

    /// Without its metadata a broker can change nothing any more, and only a restart brings the directory back.
    fn healthy(&self) -> Result<(), String> {
        self.lobby.opened().and_then(|context| failed(context.log_dirs.first())).map_or(Ok(()), Err)
    }

    fn ready(&self) -> Result<(), String> {
        let context = self.lobby.opened().ok_or("the broker is starting")?;
        context.log_dirs.all().iter().find_map(|dir| failed(dir)).map_or(Ok(()), Err)
    }
}

/// Why a directory is offline, if it is.
fn failed(dir: &DataDir) -> Option<String> {
    let reason = dir.dir.failed()?;
    Some(format!("log directory {} failed: {reason}", dir.dir.path().display()))
}

fn counters(metrics: &Metrics, out: &mut Exposition) {
    match metrics.text() {
        Ok(text) => out.append(&text),
        Err(error) => tracing::error!(%error, "the counters cannot be written out"),
    }
}

fn text(
    context: &Context,
    groups: &groups::Groups,
    threads: process::Threads,
    windows: &Mutex<process::Windows>,
) -> String {
    let mut out = Exposition::default();
    counters(&context.metrics, &mut out);
    let image = context.controller.image();
    let partitions = partitions::observe(context, &image);
    process::write(context, threads, &mut windows.lock(), &mut out);
    broker::write(context, &image, &partitions, &mut out);
    partitions::write(&image, &partitions, &mut out);
    groups.write(context, &mut out);
    tier::write(context, &image, &partitions, &mut out);
    out.into_text()
}
