//! What the tier counts: per operation of the store, and by the names Kafka's dashboards know (KIP-405).

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::traffic::{Topics, Traffic, TrafficSnapshot};

/// A kind of call to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    List,
    Head,
    Get,
    Put,
    CreateMultipart,
    PutPart,
    CompleteMultipart,
    AbortMultipart,
    Copy,
    Delete,
}

impl Operation {
    pub const ALL: [Operation; 10] = [
        Operation::List,
        Operation::Head,
        Operation::Get,
        Operation::Put,
        Operation::CreateMultipart,
        Operation::PutPart,
        Operation::CompleteMultipart,
        Operation::AbortMultipart,
        Operation::Copy,
        Operation::Delete,
    ];

    /// The operation's name as a metric's label and in messages.
    pub fn name(self) -> &'static str {
        match self {
            Operation::List => "list",
            Operation::Head => "head",
            Operation::Get => "get",
            Operation::Put => "put",
            Operation::CreateMultipart => "create_multipart",
            Operation::PutPart => "put_part",
            Operation::CompleteMultipart => "complete_multipart",
            Operation::AbortMultipart => "abort_multipart",
            Operation::Copy => "copy",
            Operation::Delete => "delete",
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Upper bounds of the latency histogram's buckets, in milliseconds; one more bucket holds the rest.
pub const LATENCY_BOUNDS_MS: [u64; 14] =
    [1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 30_000];

/// A number that only rises.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    pub fn add(&self, count: u64) {
        self.0.fetch_add(count, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

#[derive(Debug, Default)]
pub(crate) struct OperationMetrics {
    pub calls: Counter,
    pub attempts: Counter,
    pub errors: Counter,
    pub timeouts: Counter,
    pub latency_us_sum: Counter,
    pub latency: [Counter; LATENCY_BOUNDS_MS.len() + 1],
}

/// All that the tier counts. Shared by its partitions.
#[derive(Debug, Default)]
pub struct TierMetrics {
    pub(crate) operations: [OperationMetrics; Operation::ALL.len()],
    /// Of all topics together, those included that are deleted.
    pub(crate) traffic: Traffic,
    pub(crate) topics: Topics,
    pub(crate) retries_refused: Counter,
    pub(crate) corrupt_chunks: Counter,
    pub(crate) cache_hits: Counter,
    pub(crate) cache_misses: Counter,
    pub(crate) read_ahead_chunks: Counter,
    pub(crate) collected_objects: Counter,
    pub(crate) copy_throttled_us: Counter,
    pub(crate) fetch_throttled_us: Counter,
}

/// One operation's numbers at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationSnapshot {
    pub operation: Operation,
    /// Calls asked for, retries not counted.
    pub calls: u64,
    /// Requests sent, retries included.
    pub attempts: u64,
    /// Attempts that failed, time-outs included.
    pub errors: u64,
    pub timeouts: u64,
    /// Sum over all attempts.
    pub latency_sum: Duration,
    /// Attempts per bucket of [`LATENCY_BOUNDS_MS`], not cumulative; the last bucket holds the rest.
    pub latency_buckets: Vec<u64>,
}

/// The tier's numbers at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSnapshot {
    pub operations: Vec<OperationSnapshot>,
    /// Of all topics together, those included that are deleted.
    pub traffic: TrafficSnapshot,
    /// By topic, as long as somebody holds a partition of it.
    pub topics: BTreeMap<String, TrafficSnapshot>,
    /// Retries that were not made because the budget was spent.
    pub retries_refused: u64,
    /// Chunks whose bytes did not match their checksums, each fetched again.
    pub corrupt_chunks: u64,
    pub cache_hits: u64,
    pub cache_misses: u64,
    pub cache_bytes: u64,
    pub read_ahead_chunks: u64,
    pub collected_objects: u64,
    /// Time that copies, and reads for consumers, have waited for their turn: see [`crate::tier::Tier::set_pace`].
    pub copy_throttled: Duration,
    pub fetch_throttled: Duration,
}

impl TierMetrics {
    /// Counts for a topic and for all.
    pub(crate) fn count(&self, topic: &Traffic, count: impl Fn(&Traffic)) {
        count(topic);
        count(&self.traffic);
    }

    pub(crate) fn operation(&self, operation: Operation) -> &OperationMetrics {
        let [list, head, get, put, create, part, complete, abort, copy, delete] = &self.operations;
        match operation {
            Operation::List => list,
            Operation::Head => head,
            Operation::Get => get,
            Operation::Put => put,
            Operation::CreateMultipart => create,
            Operation::PutPart => part,
            Operation::CompleteMultipart => complete,
            Operation::AbortMultipart => abort,
            Operation::Copy => copy,
            Operation::Delete => delete,
        }
    }

    pub(crate) fn snapshot(&self, cache_bytes: u64) -> TierSnapshot {
        let operations = Operation::ALL.into_iter().map(|operation| {
            let metrics = self.operation(operation);
            OperationSnapshot {
                operation,
                calls: metrics.calls.get(),
                attempts: metrics.attempts.get(),
                errors: metrics.errors.get(),
                timeouts: metrics.timeouts.get(),
                latency_sum: Duration::from_micros(metrics.latency_us_sum.get()),
                latency_buckets: metrics.latency.iter().map(Counter::get).collect(),
            }
        });
        TierSnapshot {
            operations: operations.collect(),
            traffic: self.traffic.snapshot(),
            topics: self.topics.snapshot(),
            retries_refused: self.retries_refused.get(),
            corrupt_chunks: self.corrupt_chunks.get(),
            cache_hits: self.cache_hits.get(),
            cache_misses: self.cache_misses.get(),
            cache_bytes,
            read_ahead_chunks: self.read_ahead_chunks.get(),
            collected_objects: self.collected_objects.get(),
            copy_throttled: Duration::from_micros(self.copy_throttled_us.get()),
            fetch_throttled: Duration::from_micros(self.fetch_throttled_us.get()),
        }
    }
}

impl OperationMetrics {
    pub(crate) fn attempted(&self, took: Duration, failed: bool, timed_out: bool) {
        let took_us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.attempts.add(1);
        self.errors.add(u64::from(failed));
        self.timeouts.add(u64::from(timed_out));
        self.latency_us_sum.add(took_us);
        let bucket = LATENCY_BOUNDS_MS.partition_point(|&bound| Duration::from_millis(bound) < took);
        if let Some(bucket) = self.latency.get(bucket) {
            bucket.add(1);
        }
    }
}
