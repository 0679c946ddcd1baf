//! One look at every partition of a fetch: what the page cache has at once, what the store has as soon as it comes.

use std::sync::Arc;
use std::time::Duration;

use firn_protocol::library::error::ResponseError;
use firn_storage::error::ReadError;
use firn_storage::read::LogSlice;
use tokio::time::Instant;

use super::{Bounds, Fetched, Found, Wanted, check_leader_epoch};
use crate::api::errors::Failure;
use crate::cold::reads::ColdRead;
use crate::context::Context;
use crate::milliseconds::milliseconds;
use crate::partition::{Offsets, Partition, PartitionError, ReadAs};

/// How long records of the page cache wait for those of the store that the same request asks for.
const HOT_WAITS_FOR_COLD: Duration = Duration::from_millis(20);

/// What one partition may give.
#[derive(Debug, Clone, Copy)]
pub(super) struct Budget {
    pub bytes: usize,
    pub at_least_one: bool,
}

/// What a look at every partition brought.
pub(super) struct Read {
    pub fetched: Vec<Fetched>,
    /// Cold records that did not come in time: their partitions have given nothing.
    pub some_on_their_way: bool,
}

/// A partition's part of a fetch.
enum Part {
    Here(Fetched),
    /// From this offset on, of this partition's disk.
    Local(Offsets, LogSlice, Arc<Partition>, i64),
    Cold(Offsets, ColdRead),
}

/// Reads every partition once, in order, within the bounds of the whole request. The first partition that has
/// anything gives at least one batch, however large, so that a consumer always gets on (KIP-74); so does the first
/// whose records are cold, since nobody knows yet whether these come in time. Cold records are read side by side, for at
/// most `remote.fetch.max.wait.ms` in all.
pub(super) async fn read_all(
    context: &Context,
    wanted: &[Wanted],
    partitions: &[Result<Arc<Partition>, Failure>],
    bounds: Bounds<'_>,
) -> Read {
    let mut left = bounds.max_bytes;
    let (mut nothing_here, mut nothing_cold) = (true, true);
    let mut parts = Vec::with_capacity(wanted.len());
    for (wanted, partition) in wanted.iter().zip(partitions) {
        let budget = Budget { bytes: wanted.max_bytes.min(left), at_least_one: nothing_here };
        let part = match partition {
            Ok(partition) => begin(context, partition, wanted, bounds, budget, nothing_cold),
            Err(failure) => Part::Here(Err(failure.clone())),
        };
        match &part {
            Part::Here(Ok((_, found))) => {
                left = left.saturating_sub(found.len());
                nothing_here &= found.len() == 0;
            }
            Part::Here(Err(_)) => {}
            Part::Local(_, slice, ..) => {
                left = left.saturating_sub(slice.len);
                nothing_here &= slice.len == 0;
            }
            Part::Cold(..) => {
                left = left.saturating_sub(budget.bytes);
                nothing_cold = false;
            }
        }
        parts.push(part);
    }
    let patience = patience(context);
    let deadline = Instant::now() + if nothing_here { patience } else { patience.min(HOT_WAITS_FOR_COLD) };
    let mut read = Read { fetched: Vec::with_capacity(parts.len()), some_on_their_way: false };
    for part in parts {
        let (fetched, in_time) = finish(part, deadline).await;
        read.fetched.push(fetched);
        read.some_on_their_way |= !in_time;
    }
    read
}

/// Reads one partition, wherever its records are.
pub(super) async fn read_one(
    context: &Context,
    partition: &Arc<Partition>,
    wanted: &Wanted,
    bounds: Bounds<'_>,
    budget: Budget,
) -> Fetched {
    let part = begin(context, partition, wanted, bounds, budget, budget.at_least_one);
    finish(part, Instant::now() + patience(context)).await.0
}

fn patience(context: &Context) -> Duration {
    milliseconds(context.config().tier.fetch_max_wait_ms)
}

fn begin(
    context: &Context,
    partition: &Arc<Partition>,
    wanted: &Wanted,
    bounds: Bounds<'_>,
    budget: Budget,
    at_least_one_cold: bool,
) -> Part {
    if let Err(failure) = check_leader_epoch(partition, wanted.current_leader_epoch) {
        return Part::Here(Err(failure));
    }
    if let Some(diverged) = divergence(partition, wanted) {
        return Part::Here(diverged);
    }
    let nearest =
        (!bounds.nearer.is_empty()).then(|| partition.nearest(wanted.fetch_offset, bounds.nearer)).flatten();
    if let Some(broker) = nearest {
        let offsets = partition.offsets().map_err(Failure::from);
        return Part::Here(offsets.map(|offsets| (offsets, Found::Elsewhere(broker))));
    }
    match partition.read(
        ReadAs::Replica,
        wanted.fetch_offset,
        bounds.isolation,
        budget.bytes,
        budget.at_least_one,
    ) {
        Ok((offsets, slice)) => Part::Local(offsets, slice, partition.clone(), wanted.fetch_offset),
        Err(PartitionError::Read(ReadError::BelowLocalStart { .. })) => {
            let (from, bytes) = (wanted.fetch_offset, budget.bytes);
            let begun = partition.offsets().map_err(Failure::from).and_then(|offsets| {
                Ok(Part::Cold(offsets, context.cold.read(partition, from, bytes, at_least_one_cold)?))
            });
            begun.unwrap_or_else(|failure| Part::Here(Err(failure)))
        }
        Err(error) => Part::Here(Err(error.into())),
    }
}

/// Where this log and the one that the client follows part, if they do: the client says of which epoch it has a record
/// before the offset that it asks for (KIP-595).
fn divergence(partition: &Partition, wanted: &Wanted) -> Option<Fetched> {
    let last_epoch = wanted.last_fetched_epoch;
    // Below the log's start there is no history to compare: the read says that the offset is out of range.
    if last_epoch < 0 || partition.offsets().is_ok_and(|offsets| wanted.fetch_offset < offsets.log_start) {
        return None;
    }
    let end = match partition.with_log(|log| log.epoch_end_offset(last_epoch)) {
        Ok(end) => end,
        Err(closed) => return Some(Err(closed.into())),
    };
    match end {
        Some((epoch, end_offset)) if epoch < last_epoch || end_offset < wanted.fetch_offset => {
            let offsets = partition.offsets().map_err(Failure::from);
            Some(offsets.map(|offsets| (offsets, Found::Diverged { epoch, end_offset })))
        }
        Some(_) => None,
        None => Some(Err(Failure::new(
            ResponseError::OffsetOutOfRange,
            format!("{}: nothing is known of leader epoch {last_epoch}", partition.name),
        ))),
    }
}

/// What the part came to, and whether it came in time.
async fn finish(part: Part, deadline: Instant) -> (Fetched, bool) {
    match part {
        Part::Here(fetched) => (fetched, true),
        Part::Local(offsets, slice, partition, from) => {
            let checked = partition.checked(slice, from).await;
            (checked.map(|slice| (offsets, Found::Local(slice))).map_err(Failure::from), true)
        }
        Part::Cold(offsets, read) => match read.wait_until(deadline).await {
            Ok(Some(batches)) => (Ok((offsets, Found::Bytes(batches))), true),
            Ok(None) => (Ok((offsets, Found::Bytes(bytes::Bytes::new()))), false),
            Err(error) => (Err(Failure::from(&*error)), true),
        },
    }
}
