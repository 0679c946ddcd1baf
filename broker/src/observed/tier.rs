//! The tier: Kafka's names for what it copies, reads and deletes (KIP-405), and the store's operations.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_metadata::image::Image;
use firn_model::ids::TopicId;
use firn_telemetry::exposition::{Counted, Exposition, Kind, Labels};
use firn_tiering::metrics::{LATENCY_BOUNDS_MS, OperationSnapshot, TierSnapshot};
use firn_tiering::partition::Sizes;
use firn_tiering::traffic::TrafficSnapshot;

use super::partitions::Observed;
use crate::context::Context;

pub(super) fn write(context: &Context, image: &Image, partitions: &[Observed], out: &mut Exposition) {
    let Some(tier) = context.cold.tier() else { return };
    let tier = tier.metrics();
    traffic(&tier, out);
    copy_lag(partitions, out);
    sizes(context, image, out);
    work(context, out);
    store(&tier, out);
}

/// What waits to be copied, by topic.
fn copy_lag(partitions: &[Observed], out: &mut Exposition) {
    let mut lags: BTreeMap<&str, (usize, u64)> = BTreeMap::new();
    for one in partitions {
        let Some(led) = one.led.as_ref().filter(|led| led.partition.config().remote_storage_enable) else {
            continue;
        };
        let sealed = led.partition.with_log(|log| {
            log.sealed_size(log.tiered_end_offset().max(log.local_start_offset()), log.flushed_offset())
        });
        let Ok((segments, bytes)) = sealed else { continue };
        let lag = lags.entry(&one.topic).or_default();
        lag.0 += segments;
        lag.1 += bytes;
    }
    let mut family = |name: &str, help: &str, number: fn(&(usize, u64)) -> f64| {
        out.family(name, Kind::Gauge, help);
        lags.iter().for_each(|(topic, lag)| out.sample(name, &[("topic", topic)], number(lag)));
    };
    family(
        "kafka_server_brokertopicmetrics_remotecopylagbytes",
        "Sealed bytes that are not in the store yet",
        |lag| lag.1 as f64,
    );
    family(
        "kafka_server_brokertopicmetrics_remotecopylagsegments",
        "Sealed segments that are not in the store yet",
        |lag| lag.0 as f64,
    );
}

/// A column of a table by topic: name, what it tells, and the number.
type Column<T> = (&'static str, &'static str, fn(&T) -> f64);

const TRAFFIC: [Column<TrafficSnapshot>; 8] = [
    ("remotecopybytes", "Bytes copied to the store", |one| one.remote_copy_bytes as f64),
    ("remotecopyrequests", "Segments copied to the store", |one| one.remote_copy_requests as f64),
    ("remotecopyerrors", "Segments that could not be copied", |one| one.remote_copy_errors as f64),
    ("remotefetchbytes", "Bytes of cold segments read", |one| one.remote_fetch_bytes as f64),
    ("remotefetchrequests", "Reads of cold segments", |one| one.remote_fetch_requests as f64),
    ("remotefetcherrors", "Reads of cold segments that failed", |one| one.remote_fetch_errors as f64),
    ("remotedeleterequests", "Objects to be deleted from the store", |one| one.remote_delete_requests as f64),
    ("remotedeleteerrors", "Objects that could not be deleted", |one| one.remote_delete_errors as f64),
];

const SIZES: [Column<Sizes>; 7] = [
    ("kafka_server_brokertopicmetrics_remotelogsizebytes", "Bytes of the log that the store serves", |one| {
        one.log_bytes as f64
    }),
    (
        "kafka_server_brokertopicmetrics_remotelogmetadatacount",
        "Segments in the store that are known",
        |one| one.objects as f64,
    ),
    (
        "kafka_server_brokertopicmetrics_remotedeletelagbytes",
        "Bytes of segments in the store that nothing needs any more",
        |one| one.garbage_bytes as f64,
    ),
    (
        "kafka_server_brokertopicmetrics_remotedeletelagsegments",
        "Segments in the store that nothing needs any more",
        |one| one.garbage as f64,
    ),
    ("firn_store_holes", "Ranges of cold offsets that no object serves", |one| one.holes as f64),
    ("firn_store_damaged_objects", "Objects that are not what their names say", |one| one.damaged as f64),
    ("firn_store_foreign_objects", "Objects of other origin among the segments, left alone", |one| {
        one.foreign as f64
    }),
];

const TOTALS: [Column<TierSnapshot>; 6] = [
    ("firn_store_retries_refused_total", "Retries not made because too many were", |tier| {
        tier.retries_refused as f64
    }),
    ("firn_store_corrupt_chunks_total", "Chunks that did not match their checksums", |tier| {
        tier.corrupt_chunks as f64
    }),
    ("firn_store_collected_objects_total", "Objects deleted as garbage or with their topics", |tier| {
        tier.collected_objects as f64
    }),
    ("firn_cache_hits_total", "Chunks and footers of cold segments found in memory", |tier| {
        tier.cache_hits as f64
    }),
    ("firn_cache_misses_total", "Chunks and footers of cold segments not found in memory", |tier| {
        tier.cache_misses as f64
    }),
    ("firn_read_ahead_chunks_total", "Chunks fetched before they were asked for", |tier| {
        tier.read_ahead_chunks as f64
    }),
];

const OPERATIONS: [Column<OperationSnapshot>; 4] = [
    ("firn_store_calls_total", "What was asked of the object store, retries not counted", |one| {
        one.calls as f64
    }),
    ("firn_store_attempts_total", "Requests to the object store, retries included", |one| {
        one.attempts as f64
    }),
    ("firn_store_errors_total", "Requests to the object store that failed", |one| one.errors as f64),
    ("firn_store_timeouts_total", "Requests to the object store without an answer in time", |one| {
        one.timeouts as f64
    }),
];

fn traffic(tier: &TierSnapshot, out: &mut Exposition) {
    for (name, help, number) in TRAFFIC {
        let name = format!("kafka_server_brokertopicmetrics_{name}_total");
        out.family(&name, Kind::Counter, help);
        tier.topics.iter().for_each(|(topic, one)| out.sample(&name, &[("topic", topic)], number(one)));
    }
}

fn sizes(context: &Context, image: &Image, out: &mut Exposition) {
    let sizes = context.cold.sizes();
    let named = |id: &TopicId| image.topic_by_id(*id).map(|topic| Labels::of(&[("topic", &topic.name)]));
    let topics: Vec<_> = sizes.iter().filter_map(|(id, sizes)| Some((named(id)?, sizes))).collect();
    for (name, help, number) in SIZES {
        out.family(name, Kind::Gauge, help);
        topics.iter().for_each(|(labels, sizes)| out.labelled(name, labels, number(sizes)));
    }
}

fn work(context: &Context, out: &mut Exposition) {
    let reads = context.cold.reads();
    let mut gauge = |name: &str, help: &str, value: f64| {
        out.single(&format!("kafka_log_remote_{name}"), Kind::Gauge, help, value);
    };
    gauge(
        "remotelogmanager_remotelogmanagertasksavgidle_percent",
        "Idle share, 0 to 1, of the tasks that cool partitions, at this moment",
        context.cold.coolers_idle(),
    );
    gauge(
        "remotestoragethreadpool_remotelogreaderavgidle_percent",
        "Idle share, 0 to 1, of the readers of cold records, at this moment",
        reads.readers_idle(),
    );
    gauge(
        "remotestoragethreadpool_remotelogreadertaskqueuesize",
        "Reads of cold records beyond remote.log.reader.threads",
        reads.queued() as f64,
    );
    out.single(
        "firn_cold_read_bytes",
        Kind::Gauge,
        "Memory of records, cold or converted, that are read or wait to be sent (firn.fetch.records.bytes)",
        context.record_memory.held_bytes() as f64,
    );
}

fn store(tier: &TierSnapshot, out: &mut Exposition) {
    let mut throttled = |name: &str, help: &str, time: Duration| {
        out.single(name, Kind::Counter, help, time.as_secs_f64());
    };
    throttled(
        "firn_store_copy_throttled_seconds_total",
        "Time that copies to the store waited by remote.log.manager.copy.max.bytes.per.second",
        tier.copy_throttled,
    );
    throttled(
        "firn_store_fetch_throttled_seconds_total",
        "Time that reads of cold records waited by remote.log.manager.fetch.max.bytes.per.second",
        tier.fetch_throttled,
    );
    out.single("firn_cache_bytes", Kind::Gauge, "Cold segments held in memory", tier.cache_bytes as f64);
    for (name, help, number) in TOTALS {
        out.single(name, Kind::Counter, help, number(tier));
    }
    for (name, help, number) in OPERATIONS {
        out.family(name, Kind::Counter, help);
        for one in &tier.operations {
            out.sample(name, &[("operation", one.operation.name())], number(one));
        }
    }
    let name = "firn_store_latency_ms";
    out.histograms(name, "Times of requests to the object store, in milliseconds");
    for one in &tier.operations {
        let bounds = LATENCY_BOUNDS_MS.iter().map(|bound| *bound as f64);
        let buckets: Vec<(f64, u64)> = bounds.zip(one.latency_buckets.iter().copied()).collect();
        let above = one.latency_buckets.last().copied().unwrap_or(0);
        let labels = Labels::of(&[("operation", one.operation.name())]);
        let sum = one.latency_sum.as_secs_f64() * 1000.0;
        out.histogram(name, &labels, &Counted { buckets: &buckets, above, sum });
    }
}
