//! What a broker does on its own: flush by time, checkpoint, snapshot the metadata, retain, clean, forget old
//! producers, open what could not be opened, watch free space.
//!
//! Each chore is a loop with its own period. Costs follow what has changed: a partition that nobody writes to is looked
//! at (a lock and a few comparisons) and left alone. Chores that touch files run on threads that may block.

use std::sync::Arc;
use std::time::Duration;

use firn_model::broker_config::settings::LogSettings;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::error::StorageError;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::cleaner_pace::limits_of_one;
use crate::context::Context;
use crate::milliseconds::period;
use crate::partition::{Partition, PartitionError};

/// How often free space is asked for.
const FREE_SPACE_PERIOD: Duration = Duration::from_millis(500);
/// How often logs are opened that could not be for want of room.
const REOPEN_PERIOD: Duration = Duration::from_secs(1);
/// How often partitions are looked at for `flush.ms`.
const FLUSH_CHECK_PERIOD: Duration = Duration::from_millis(500);
/// What was looked at is not looked at again for so long, or twice as long.
const AGING_PERIOD: Duration = Duration::from_secs(30);
/// How often the metadata are looked at for `metadata.log.max.snapshot.interval.ms`.
const METADATA_CHECK_PERIOD: Duration = Duration::from_millis(500);

/// Starts every chore; each ends when `shutdown` is called.
pub fn start(context: &Arc<Context>, tasks: &TaskTracker, shutdown: &CancellationToken) {
    let log = context.config().log.clone();
    let chore = |period, work| chore(context, tasks, shutdown, period, work);
    chore(|_| FREE_SPACE_PERIOD, watch_free_space);
    chore(|_| FLUSH_CHECK_PERIOD, flush_by_time);
    chore(|_| AGING_PERIOD, age);
    chore(|_| REOPEN_PERIOD, |context| context.controller.open_what_is_missing());
    chore(|log| period(log.flush_offset_checkpoint_interval_ms), checkpoint);
    chore(|log| period(log.flush_offset_checkpoint_interval_ms), count_strays);
    chore(|log| period(log.retention_check_interval_ms), retain);
    chore(|log| period(log.producer_id_expiration_check_interval_ms), expire_producers);
    tasks.spawn(snapshot_metadata(context.clone(), shutdown.clone()));
    if log.cleaner_enable {
        chore(|log| period(log.cleaner_backoff_ms), clean);
    }
}

/// Does `work` again and again. The period is asked for each time, since it may be changed while the broker runs.
fn chore(
    context: &Arc<Context>,
    tasks: &TaskTracker,
    shutdown: &CancellationToken,
    period: fn(&LogSettings) -> Duration,
    work: fn(&Arc<Context>),
) {
    let (context, shutdown) = (context.clone(), shutdown.clone());
    tasks.spawn(async move {
        loop {
            let pause = period(&context.config().log);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = shutdown.cancelled() => return,
            }
            let context = context.clone();
            firn_blocking::run(move || work(&context)).await;
        }
    });
}

async fn snapshot_metadata(context: Arc<Context>, shutdown: CancellationToken) {
    while shutdown.run_until_cancelled(tokio::time::sleep(METADATA_CHECK_PERIOD)).await.is_some() {
        context.controller.snapshot_if_due().await;
    }
}

fn watch_free_space(context: &Arc<Context>) {
    for dir in context.log_dirs.all() {
        dir.guard.refresh();
    }
}

/// Flushes what has waited for `flush.ms`.
fn flush_by_time(context: &Arc<Context>) {
    let now_ms = context.now_ms();
    for partition in context.partitions.all() {
        partition.flush_if_due(now_ms);
    }
}

fn age(context: &Arc<Context>) {
    context.partitions.all().iter().for_each(|partition| partition.age());
}

/// An operator may have removed some.
fn count_strays(context: &Arc<Context>) {
    context.log_dirs.count_strays();
}

/// Writes the recovery points and log starts down, so that a restart after a crash checks little.
fn checkpoint(context: &Arc<Context>) {
    let partitions = context.partitions.all();
    for dir in context.log_dirs.all() {
        for partition in
            partitions.iter().filter(|partition| partition.data_dir().dir.path() == dir.dir.path())
        {
            match partition.checkpoint() {
                Ok(()) | Err(PartitionError::Closed) => {}
                Err(error) => {
                    tracing::error!(partition = %partition.name, %error, "no checkpoint of the log")
                }
            }
        }
        if let Err(error) = dir.dir.checkpoint() {
            let path = dir.dir.path().display();
            tracing::error!(%path, %error, "no checkpoint: a restart after a crash will check more than it needs to");
        }
    }
}

fn retain(context: &Arc<Context>) {
    let now_ms = context.now_ms();
    for partition in context.partitions.all() {
        match partition.retain(now_ms) {
            Ok(retained) if retained.segments == 0 => {}
            Ok(retained) => tracing::info!(
                partition = %partition.name,
                segments = retained.segments,
                bytes = retained.bytes,
                log_start_offset = retained.log_start_offset,
                "deleted segments past their retention"
            ),
            Err(PartitionError::Closed) => {}
            Err(error) => tracing::error!(partition = %partition.name, %error, "retention failed"),
        }
    }
}

fn expire_producers(context: &Arc<Context>) {
    let now_ms = context.now_ms();
    let expiration_ms = i64::from(context.config().log.producer_id_expiration_ms);
    for partition in context.partitions.all() {
        // A partition that was closed meanwhile has no producers to forget.
        drop(partition.with_log(|log| log.expire_producers(now_ms, expiration_ms)));
    }
}

/// Compacts what is dirty enough: as many partitions at a time as there are cleaner threads, which share the memory for
/// keys as Kafka's do.
fn clean(context: &Arc<Context>) {
    let now_ms = context.now_ms();
    let log = context.config().log.clone();
    let partitions = context.partitions.all();
    let compacted: Vec<_> =
        partitions.iter().filter(|partition| partition.config().cleanup_policy.compact).collect();
    let threads = usize::try_from(log.cleaner_threads).unwrap_or(0);
    let limits = limits_of_one(&log, &context.cleaner_pace);
    firn_blocking::share(&compacted, threads, |partition| clean_one(partition, now_ms, limits.clone()));
}

fn clean_one(partition: &Arc<Partition>, now_ms: i64, limits: CleanerLimits) {
    match partition.compact(now_ms, limits) {
        Ok(Some(stats)) if stats.applied => tracing::info!(
            partition = %partition.name,
            segments_before = stats.segments_before,
            segments_after = stats.segments_after,
            bytes_before = stats.bytes_before,
            bytes_after = stats.bytes_after,
            "compacted"
        ),
        Ok(_) | Err(PartitionError::Closed | PartitionError::Storage(StorageError::CompactionStopped)) => {}
        Err(error) => {
            tracing::error!(partition = %partition.name, %error, "compaction failed; the log is as it was");
            if let PartitionError::Storage(StorageError::Corrupt { .. }) = error {
                find_damage(partition, now_ms);
            }
        }
    }
}

/// What compaction cannot read is mended once it is known which segment that is; the next pass goes over it.
fn find_damage(partition: &Arc<Partition>, now_ms: i64) {
    let mut from = 0;
    while let Some(segment) = partition.segment_from(from) {
        from = segment + 1;
        if !partition.is_sound(segment, now_ms).unwrap_or(false) {
            return;
        }
    }
}
