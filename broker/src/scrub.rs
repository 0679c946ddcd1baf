//! Looks at all that lies on the disk, again and again, at a steady pace: what has rotted is mended before anybody wants it, and
//! while others still have it. An hour after the start, if the interval is a day.

use std::sync::Arc;
use std::time::Duration;

use firn_model::pace;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::milliseconds::period;
use crate::partition::Partition;

/// Bytes looked at before a pause.
const CHUNK_BYTES: u64 = 1 << 20;
/// A log costs a look as so many bytes do, however few it has: there may be many.
const LOG_BYTES: u64 = 16 << 10;
/// The first time comes after this part of the interval.
const FIRST_OF_INTERVAL: u32 = 24;

/// Looks at every log, and then again after `firn.log.scrub.interval.ms`, until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let scrubbing = async {
        tokio::time::sleep(period(context.config().log.scrub_interval_ms) / FIRST_OF_INTERVAL).await;
        loop {
            scrub_metadata(&context).await;
            for partition in context.partitions.all() {
                scrub(&context, &partition).await;
            }
            context.replication.damaged.count_scrub();
            tokio::time::sleep(period(context.config().log.scrub_interval_ms)).await;
        }
    };
    shutdown.run_until_cancelled(scrubbing).await;
}

/// The metadata log cannot be mended: a member that has rotted ends, and is given everything anew.
async fn scrub_metadata(context: &Context) {
    let mut next = Some(0);
    while let Some(from) = next {
        next = context.controller.scrub(from).await.unwrap_or_else(|error| {
            tracing::debug!(%error, "the metadata log was not looked at");
            None
        });
        tokio::time::sleep(turn(context, CHUNK_BYTES)).await;
    }
}

async fn scrub(context: &Context, partition: &Arc<Partition>) {
    let mut from = 0;
    while let Some(segment) = partition.segment_from(from) {
        from = segment + 1;
        if let Err(error) = look_at(context, partition, segment).await {
            tracing::debug!(partition = %partition.name, segment, error, "a segment was not looked at");
        }
    }
}

/// Looks at one segment, a piece at a time.
async fn look_at(context: &Context, partition: &Arc<Partition>, segment: i64) -> Result<(), String> {
    let now_ms = context.now_ms();
    let looked_at = partition.clone();
    let task = firn_blocking::run(move || looked_at.mending_task(segment, false, now_ms)).await;
    let Some(mut task) = task.map_err(|error| error.to_string())? else { return Ok(()) };
    let mut looked = task.begin();
    loop {
        let piece = firn_blocking::run(move || {
            let goes_on = task.look_on(&mut looked, CHUNK_BYTES);
            (task, looked, goes_on)
        });
        let goes_on;
        (task, looked, goes_on) = piece.await;
        let goes_on = goes_on.map_err(|error| error.to_string())?;
        if !partition.judge(segment, &task, &looked) {
            return Ok(());
        }
        if !goes_on {
            tokio::time::sleep(turn(context, LOG_BYTES)).await;
            return Ok(());
        }
        tokio::time::sleep(turn(context, CHUNK_BYTES)).await;
    }
}

fn turn(context: &Context, bytes: u64) -> Duration {
    pace::turn(bytes, context.config().log.scrub_bytes_per_second)
}
