//! The process: what its threads and its disks have to do, and how fast the metadata are written.

use std::time::Duration;

use firn_telemetry::disk_io::DiskIo;
use firn_telemetry::exposition::{Exposition, Kind};
use tokio::time::Instant;

use super::window::Window;
use crate::context::Context;

/// The threads that serve connections, which are the network processors and the request handlers of this broker.
#[derive(Debug, Clone, Copy)]
pub(super) struct Threads {
    count: usize,
    busy: Duration,
}

impl Threads {
    /// To be asked within the runtime.
    pub(super) fn of_this_runtime() -> Self {
        let metrics = tokio::runtime::Handle::current().metrics();
        let count = metrics.num_workers();
        Self { count, busy: (0..count).map(|worker| metrics.worker_total_busy_duration(worker)).sum() }
    }
}

/// The last while of what is shown as a mean of it.
#[derive(Debug)]
pub(super) struct Windows {
    began: Instant,
    busy_before: Option<Duration>,
    threads: Window<1>,
    metadata: Window<3>,
}

impl Default for Windows {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            busy_before: None,
            threads: Window::default(),
            metadata: Window::default(),
        }
    }
}

pub(super) fn write(context: &Context, threads: Threads, windows: &mut Windows, out: &mut Exposition) {
    let at = windows.began.elapsed();
    workers(threads, at, windows, out);
    metadata(context, at, windows, out);
    // A kernel that does not tell leaves the families out.
    if let Some(io) = DiskIo::of_this_process() {
        for (name, help, bytes) in [
            (
                "kafka_server_kafkaserver_linux_disk_read_bytes",
                "Bytes that this process read from disks",
                io.read_bytes,
            ),
            (
                "kafka_server_kafkaserver_linux_disk_write_bytes",
                "Bytes that this process wrote to disks",
                io.written_bytes,
            ),
        ] {
            out.single(name, Kind::Gauge, help, bytes as f64);
        }
    }
}

fn workers(threads: Threads, at: Duration, windows: &mut Windows, out: &mut Exposition) {
    // The runtime may be older than what watches it.
    let before = *windows.busy_before.get_or_insert(threads.busy);
    let busy = threads.busy.saturating_sub(before).as_secs_f64();
    let (seconds, [busy]) = windows.threads.look(at, [busy]);
    let available = seconds * threads.count as f64;
    let idle = if available > 0.0 { (1.0 - busy / available).clamp(0.0, 1.0) } else { 1.0 };
    for name in [
        "kafka_network_socketserver_networkprocessoravgidle_percent",
        "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
    ] {
        let help = "Idle share, 0 to 1, of the threads that serve connections and requests alike, over the last 30 s or more";
        out.single(name, Kind::Gauge, help, idle);
    }
    let total = threads.busy.as_secs_f64();
    out.single("firn_threads_busy_seconds_total", Kind::Counter, "Time that these threads worked", total);
    out.single(
        "firn_threads",
        Kind::Gauge,
        "Threads that serve connections and requests",
        threads.count as f64,
    );
}

fn metadata(context: &Context, at: Duration, windows: &mut Windows, out: &mut Exposition) {
    let progress = context.controller.progress();
    let totals = [progress.records as f64, progress.changes as f64, progress.changing.as_secs_f64() * 1000.0];
    let (seconds, [records, commits, took_ms]) = windows.metadata.look(at, totals);
    let of = |part: f64, whole: f64| if whole > 0.0 { part / whole } else { 0.0 };
    out.single(
        "kafka_server_raftmetrics_append_records_rate",
        Kind::Gauge,
        "Metadata records a second, over the last 30 s or more",
        of(records, seconds),
    );
    out.single(
        "kafka_server_raftmetrics_commit_latency_avg",
        Kind::Gauge,
        "Milliseconds until a change of the metadata was on stable storage, over the last 30 s or more",
        of(took_ms, commits),
    );
}
