//! Leaves marks in the log directories of a broker that runs, by which a copy from before is told from what went on.
//!
//! Order: the directories have a mark, durably, before the controller hears of it with a heartbeat. So one that has fewer than the
//! metadata know of was copied before the last, or its disk has lost what it had synced (`firn_metadata::incarnations`).

use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::milliseconds::period;

/// Leaves one every `firn.log.dir.mark.interval.ms`, if anything was written meanwhile, until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut marked = written(&context);
    let pause = || tokio::time::sleep(period(context.config().log.mark_interval_ms));
    while shutdown.run_until_cancelled(pause()).await.is_some() {
        let now = written(&context);
        // A directory that has failed takes none, and would be taken for a copy if it came back.
        if now == marked || context.log_dirs.all().iter().any(|dir| dir.dir.has_failed()) {
            continue;
        }
        let log_dirs = context.log_dirs.clone();
        match firn_blocking::run(move || log_dirs.leave_mark()).await {
            Ok(()) => marked = now,
            Err(error) => tracing::debug!(%error, "no mark was left"),
        }
    }
}

/// Grows with every record that is written here.
fn written(context: &Context) -> i64 {
    let all = context.partitions.all();
    all.iter().filter_map(|partition| partition.offsets().ok()).map(|offsets| offsets.log_end).sum()
}
