//! Mends what the disk has not kept: batches that are not what they were when they were written are asked of the object store,
//! which has most of what is old, or of other replicas, and put back in their places.
//!
//! Whoever finds such a batch (a reader, or the scrubber, `scrub.rs`) says so (`replication/damaged.rs`), and none of it is sent
//! meanwhile. What cannot be mended is tried again: another replica may come back.

use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use firn_client::connection::{Connection, ConnectionOptions};
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::FetchRequest;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_records::batch::batches;
use firn_storage::mend::MendError;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::anew::{self, Urgency};
use crate::context::Context;
use crate::partition::Partition;

/// How soon what could not be mended is tried again, at first, and how long that pause becomes.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// How long another broker, or the store, may take for one answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes asked for at a time.
const CHUNK_BYTES: usize = 4 << 20;
/// Bytes of a segment that are mended in memory, at most.
const MISSING_BYTES_MAX: u64 = 256 << 20;

/// A segment that is to be mended, by its base offset.
struct Wound {
    partition: Arc<Partition>,
    segment: i64,
    due: Instant,
    pause: Duration,
}

/// Mends what is found, until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let damaged = &context.replication.damaged;
    let mut wounds: Vec<Wound> = Vec::new();
    loop {
        let next = wounds.iter().map(|wound| wound.due).min();
        let until_due = async {
            match next {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = damaged.until_more() => {}
            () = until_due => {}
            () = shutdown.cancelled() => return,
        }
        let now = Instant::now();
        let new = damaged.take().into_iter();
        wounds.extend(new.map(|(partition, segment)| Wound { partition, segment, due: now, pause: PAUSE }));
        let due: Vec<Wound> = wounds.extract_if(.., |wound| wound.due <= now).collect();
        for wound in due {
            let mended =
                shutdown.run_until_cancelled(Box::pin(mend(&context, &wound.partition, wound.segment)));
            match mended.await {
                None => return,
                Some(Ok(())) => damaged.is_over(&wound.partition, wound.segment),
                Some(Err(_)) if wound.partition.is_closed() => {
                    damaged.is_over(&wound.partition, wound.segment)
                }
                Some(Err(reason)) => {
                    let Wound { partition, segment, pause, .. } = wound;
                    if pause == PAUSE {
                        tracing::error!(partition = %partition.name, segment, reason, "cannot be mended yet: readers get an error there");
                    }
                    let pause = (pause * 2).min(PAUSE_MAX);
                    wounds.push(Wound { partition, segment, due: Instant::now() + pause, pause });
                }
            }
        }
    }
}

/// Mends the segment that begins at this offset. The error says why that is not possible.
async fn mend(context: &Arc<Context>, partition: &Arc<Partition>, segment: i64) -> Result<(), String> {
    let began = Instant::now();
    let (looks, now_ms) = (partition.clone(), context.now_ms());
    let found = firn_blocking::run(move || {
        let Some(task) = looks.mending_task(segment, true, now_ms).map_err(text)? else { return Ok(None) };
        let looked = task.look().map_err(text)?;
        Ok::<_, String>(Some((task, looked)))
    });
    let Some((task, looked)) = found.await?.filter(|(_, looked)| !looked.missing.is_empty()) else {
        return Ok(());
    };
    if !partition.is_current(&task) {
        return Err("the log has changed meanwhile".to_owned());
    }
    let wanted = task.wanted(&looked);
    let committed = partition.offsets().map_err(text)?.high_watermark;
    if wanted.last().is_some_and(|last| !last.is_empty() && last.end > committed) {
        // Nobody vouches for it, and replication stops there: a leader cannot send it, nor a follower cut it off.
        return anew::close(context, partition, Urgency::Stuck).await;
    }
    // What others have of a compacted log may be compacted less, and hold a value whose tombstone is gone here.
    if partition.may_have_gaps().map_err(text)? || looked.missing_bytes() > MISSING_BYTES_MAX {
        return anew::close(context, partition, Urgency::CanWait).await;
    }
    let mut fetched = Vec::new();
    for range in &wanted {
        fetched.push(match range.is_empty() {
            true => Bytes::new(),
            false => ask_others(context, partition, range).await?,
        });
    }
    let (missing, reason) = (looked.missing.clone(), looked.reason.clone());
    let (mends, now_ms) = (partition.clone(), context.now_ms());
    let mended = firn_blocking::run(move || {
        // Both write segments anew, by the same names.
        let Some(_alone) = mends.begin_compaction() else {
            return Err("the log is compacted just now".to_owned());
        };
        match task.rebuild(&looked, &fetched) {
            Ok(mended) => mends.mended(mended, now_ms).map_err(text),
            Err(gap @ MendError::Gap { .. }) => {
                tracing::info!(partition = %mends.name, %gap, "no replica has these offsets");
                mends.tolerate_gaps();
                Ok(true)
            }
            Err(error) => Err(text(error)),
        }
    });
    if !mended.await? {
        return Err("the log has changed meanwhile".to_owned());
    }
    context.replication.damaged.count_mended();
    tracing::warn!(
        partition = %partition.name, offsets = ?missing, reason, seconds = began.elapsed().as_secs_f64(),
        "mended what the disk had not kept"
    );
    Ok(())
}

fn text(error: impl Display) -> String {
    error.to_string()
}

/// The batches of a range of offsets, and perhaps more, from whoever has them: the store, or another replica.
async fn ask_others(
    context: &Arc<Context>,
    partition: &Arc<Partition>,
    range: &Range<i64>,
) -> Result<Bytes, String> {
    let mut reasons = Vec::new();
    if partition.offsets().map_err(text)?.tiered_end >= range.end {
        match ask_store(context, partition, range).await {
            Ok(bytes) => return Ok(bytes),
            Err(reason) => reasons.push(format!("the object store: {reason}")),
        }
    }
    for broker in others(context, partition) {
        match ask_replica(context, broker, partition, range).await {
            Ok(bytes) => return Ok(bytes),
            Err(reason) => reasons.push(format!("broker {broker}: {reason}")),
        }
    }
    match reasons.is_empty() {
        true => Err("there is no other replica, and the object store does not have it".to_owned()),
        false => Err(reasons.join("; ")),
    }
}

/// The other brokers that have a replica, those in sync first.
fn others(context: &Context, partition: &Partition) -> Vec<i32> {
    let image = context.controller.image();
    let Some(now) = image.partition_by_id(partition.topic_id, partition.name.partition) else {
        return Vec::new();
    };
    let mut others: Vec<i32> = now.replicas.iter().copied().filter(|id| *id != context.node_id).collect();
    others.sort_by_key(|id| !now.isr.contains(id));
    others
}

async fn ask_store(
    context: &Arc<Context>,
    partition: &Arc<Partition>,
    range: &Range<i64>,
) -> Result<Bytes, String> {
    let mut collected = Collected::of(range);
    while let Some(from) = collected.next() {
        let read = context.cold.read(partition, from, CHUNK_BYTES, true).map_err(text)?;
        let bytes = read.wait_until(Instant::now() + PATIENCE).await.map_err(text)?;
        collected.add(&bytes.ok_or_else(|| format!("no answer within {PATIENCE:?}"))?)?;
    }
    Ok(collected.bytes.freeze())
}

async fn ask_replica(
    context: &Context,
    broker: i32,
    partition: &Partition,
    range: &Range<i64>,
) -> Result<Bytes, String> {
    let options = ConnectionOptions {
        client_id: format!("broker-{}-mending", context.node_id),
        deadline: PATIENCE,
        ..ConnectionOptions::default()
    };
    let connection = context.membership.peers().connect(broker, options).await.map_err(text)?;
    let mut collected = Collected::of(range);
    while let Some(from) = collected.next() {
        collected.add(&fetch(&connection, partition, from).await?)?;
    }
    Ok(collected.bytes.freeze())
}

/// What a replica has from an offset on, as far as it is committed.
async fn fetch(connection: &Connection, partition: &Partition, from: i64) -> Result<Bytes, String> {
    let bytes_max = i32::try_from(CHUNK_BYTES).unwrap_or(i32::MAX);
    let asked = FetchPartition::default()
        .with_partition(partition.name.partition)
        .with_fetch_offset(from)
        .with_partition_max_bytes(bytes_max);
    let topic = FetchTopic::default().with_topic_id(partition.topic_id.0).with_partitions(vec![asked]);
    let request = FetchRequest::default().with_max_bytes(bytes_max).with_topics(vec![topic]);
    let reply = connection.call_within(&request, PATIENCE).await.map_err(text)?;
    let part = reply.responses.into_iter().flat_map(|topic| topic.partitions).next();
    let part = part.ok_or("an answer without the partition")?;
    if part.error_code != 0 {
        let error = ResponseError::try_from_code(part.error_code);
        return Err(error.map_or_else(|| part.error_code.to_string(), text));
    }
    Ok(part.records.unwrap_or_default())
}

/// Batches of a range of offsets, as far as they have come.
struct Collected {
    next: i64,
    end: i64,
    bytes: BytesMut,
}

impl Collected {
    fn of(range: &Range<i64>) -> Self {
        Self { next: range.start, end: range.end, bytes: BytesMut::new() }
    }

    /// The offset that is to come next.
    fn next(&self) -> Option<i64> {
        (self.next < self.end).then_some(self.next)
    }

    /// Adds the whole ones. Whether they are right is looked at where they are put to use.
    fn add(&mut self, more: &[u8]) -> Result<(), String> {
        let before = self.next;
        for batch in batches(more).map_while(Result::ok) {
            let (header, batch) = batch;
            if header.next_offset() > self.next {
                self.bytes.extend_from_slice(batch);
                self.next = header.next_offset();
            }
        }
        match self.next > before {
            true => Ok(()),
            false => Err(format!("nothing that is committed at offset {before}")),
        }
    }
}
