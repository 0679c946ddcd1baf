//! What the side doors show of this broker: its counters, the state of its partitions and groups, and its health.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use firn_coordinators::requests::{FetchRequest, Reply};
use firn_model::ids::TopicPartition;
use firn_telemetry::exposition::{Exposition, Kind};
use firn_telemetry::http::Observed;
use firn_tiering::metrics::{LATENCY_BOUNDS_MS, TierSnapshot};

use crate::context::Context;
use crate::partition::Partition;

/// A broker as it is watched.
#[derive(Debug)]
pub struct ObservedBroker(pub Arc<Context>);

impl Observed for ObservedBroker {
    fn metrics(&self) -> Pin<Box<dyn Future<Output = String> + Send + '_>> {
        Box::pin(async {
            let mut out = Exposition::default();
            match self.0.metrics.text() {
                Ok(text) => out.append(&text),
                Err(error) => tracing::error!(%error, "the counters cannot be written out"),
            }
            broker(&self.0, &mut out);
            partitions(&self.0, &mut out);
            groups(&self.0, &mut out).await;
            if let Some(tier) = self.0.cold.tier() {
                cold(&tier.metrics(), &mut out);
            }
            out.into_text()
        })
    }

    fn healthy(&self) -> Result<(), String> {
        Ok(())
    }

    fn ready(&self) -> Result<(), String> {
        let failed = self.0.log_dirs.all().iter().find_map(|dir| {
            let reason = dir.dir.failed()?;
            Some(format!("log directory {} failed: {reason}", dir.dir.path().display()))
        });
        failed.map_or(Ok(()), Err)
    }
}

/// Partitions that are to be led here, and are not: their logs could not be opened.
fn offline_partitions(context: &Context) -> usize {
    let image = context.controller.image();
    let led_here = |topic: &firn_metadata::image::Topic| {
        topic.partitions.iter().filter(|partition| partition.leader == context.node_id).count()
    };
    let expected: usize = image.topics().map(|topic| led_here(topic)).sum();
    expected.saturating_sub(context.partitions.all().len())
}

fn broker(context: &Context, out: &mut Exposition) {
    let image = context.controller.image();
    let led = context.partitions.all().len() as f64;
    let failed = context.log_dirs.all().iter().filter(|dir| dir.dir.failed().is_some()).count();
    let mut gauge = |name: &str, help: &str, value: f64| out.single(name, Kind::Gauge, help, value);
    gauge("kafka_server_replicamanager_partitioncount", "Partitions with a replica here", led);
    gauge("kafka_server_replicamanager_leadercount", "Partitions led here", led);
    gauge(
        "kafka_server_replicamanager_underreplicatedpartitions",
        "Partitions with a replica out of sync",
        0.0,
    );
    gauge(
        "kafka_server_replicamanager_underminisrpartitioncount",
        "Partitions below min.insync.replicas",
        0.0,
    );
    gauge("kafka_controller_kafkacontroller_activecontrollercount", "1 on the controller", 1.0);
    let offline = offline_partitions(context) as f64;
    gauge(
        "kafka_controller_kafkacontroller_offlinepartitionscount",
        "Partitions without a leader that serves",
        offline,
    );
    gauge("kafka_log_logmanager_offlinelogdirectorycount", "Log directories that failed", failed as f64);
    gauge(
        "firn_log_dirs_stray_partitions",
        "Directories of partitions that no topic owns, set aside and not removed yet",
        context.log_dirs.strays() as f64,
    );
    gauge("kafka_controller_kafkacontroller_globaltopiccount", "Topics", image.topic_count() as f64);
    gauge(
        "kafka_controller_kafkacontroller_globalpartitioncount",
        "Partitions",
        image.partition_count() as f64,
    );
    gauge("kafka_brokers", "Brokers of the cluster", image.brokers().count() as f64);
    gauge("kafka_server_fetchsessioncache_numincrementalfetchsessions", "Fetch sessions", {
        context.fetch_sessions.lock().len() as f64
    });
    out.family("firn_disk_free_bytes", Kind::Gauge, "Room on the disk of a log directory");
    for dir in context.log_dirs.all() {
        if let Ok(space) = dir.dir.space() {
            let path = dir.dir.path().display().to_string();
            out.sample("firn_disk_free_bytes", &[("directory", &path)], space.free as f64);
        }
    }
}

fn partitions(context: &Context, out: &mut Exposition) {
    let partitions = context.partitions.all();
    let mut family = |name: &str, help: &str, value: &dyn Fn(&Partition) -> Option<f64>| {
        out.family(name, Kind::Gauge, help);
        for partition in &partitions {
            if let Some(value) = value(partition) {
                let index = partition.name.partition.to_string();
                out.sample(name, &[("topic", &partition.name.topic), ("partition", &index)], value);
            }
        }
    };
    let local = |partition: &Partition| partition.with_log(|log| log.size_bytes() as f64).ok();
    family("kafka_log_log_size", "Bytes of the log on the local disk", &local);
    let segments = |partition: &Partition| partition.with_log(|log| log.segment_count() as f64).ok();
    family("kafka_log_log_numlogsegments", "Segments on the local disk", &segments);
    let start = |partition: &Partition| partition.offsets().ok().map(|offsets| offsets.log_start as f64);
    family("kafka_topic_partition_oldest_offset", "First offset of the partition", &start);
    let end = |partition: &Partition| partition.offsets().ok().map(|offsets| offsets.high_watermark as f64);
    family("kafka_topic_partition_current_offset", "Offset after the last committed record", &end);
    let lag = |partition: &Partition| {
        if !partition.config().remote_storage_enable {
            return None;
        }
        let sealed = partition.with_log(|log| {
            let from = log.tiered_end_offset().max(log.local_start_offset());
            log.sealed_segments(from, log.flushed_offset())
                .map(|sealed| sealed.iter().map(|one| one.bytes).sum::<u64>())
        });
        sealed.ok()?.ok().map(|bytes| bytes as f64)
    };
    family(
        "kafka_server_brokertopicmetrics_remotecopylagbytes",
        "Sealed bytes that are not in the store yet",
        &lag,
    );
}

/// Lag of every group, idle ones included, without a side-car.
async fn groups(context: &Arc<Context>, out: &mut Exposition) {
    let mut members: Vec<(String, usize)> = Vec::new();
    let mut offsets: Vec<(String, TopicPartition, i64)> = Vec::new();
    for shard in context.groups.led() {
        let Ok(Reply::List(listed)) =
            context.groups.ask(shard, |group, _, token| group.list(&[], &[], token)).await
        else {
            continue;
        };
        let names: Vec<String> = listed.into_iter().map(|group| group.group_id).collect();
        if names.is_empty() {
            continue;
        }
        if let Ok(Reply::Describe(described)) =
            context.groups.ask(shard, |group, _, token| group.describe(&names, token)).await
        {
            members.extend(described.into_iter().map(|group| (group.group_id, group.members.len())));
        }
        for name in names {
            let fetch = FetchRequest { group_id: name.clone(), partitions: None };
            let found = context.groups.ask(shard, |group, _, token| group.fetch_offsets(&fetch, token)).await;
            let Ok(Reply::Fetch(found)) = found else { continue };
            offsets.extend(found.into_iter().filter_map(|one| {
                let offset = one.committed?.offset;
                Some((name.clone(), TopicPartition::new(one.topic, one.partition), offset))
            }));
        }
    }
    out.family("kafka_consumergroup_members", Kind::Gauge, "Members of a group");
    for (group, count) in &members {
        out.sample("kafka_consumergroup_members", &[("consumergroup", group)], *count as f64);
    }
    let mut family = |name: &str, help: &str, value: &dyn Fn(&TopicPartition, i64) -> Option<f64>| {
        out.family(name, Kind::Gauge, help);
        for (group, partition, offset) in &offsets {
            let Some(value) = value(partition, *offset) else { continue };
            let index = partition.partition.to_string();
            let labels =
                [("consumergroup", group.as_str()), ("topic", &partition.topic), ("partition", &index)];
            out.sample(name, &labels, value);
        }
    };
    family("kafka_consumergroup_current_offset", "Committed offset of a group", &|_, offset| {
        Some(offset as f64)
    });
    let lag = |partition: &TopicPartition, offset: i64| {
        let partition = context.partitions.by_name(&partition.topic, partition.partition).ok()?;
        Some((partition.offsets().ok()?.high_watermark - offset).max(0) as f64)
    };
    family("kafka_consumergroup_lag", "Records that a group has not read yet", &lag);
}

fn cold(tier: &TierSnapshot, out: &mut Exposition) {
    let mut counter = |name: &str, help: &str, value: u64| {
        let name = format!("kafka_server_brokertopicmetrics_{name}_total");
        out.single(&name, Kind::Counter, help, value as f64);
    };
    counter("remotecopybytes", "Bytes copied to the store", tier.remote_copy_bytes);
    counter("remotecopyrequests", "Segments copied to the store", tier.remote_copy_requests);
    counter("remotecopyerrors", "Segments that could not be copied", tier.remote_copy_errors);
    counter("remotefetchbytes", "Bytes of cold records read", tier.remote_fetch_bytes);
    counter("remotefetchrequests", "Reads of cold records", tier.remote_fetch_requests);
    counter("remotefetcherrors", "Reads of cold records that failed", tier.remote_fetch_errors);
    counter("remotedeleterequests", "Segments deleted from the store", tier.remote_delete_requests);
    counter("remotedeleteerrors", "Segments that could not be deleted", tier.remote_delete_errors);
    out.family("firn_store_attempts_total", Kind::Counter, "Requests to the object store, retries included");
    for one in &tier.operations {
        out.sample("firn_store_attempts_total", &[("operation", one.operation.name())], one.attempts as f64);
    }
    out.family("firn_store_errors_total", Kind::Counter, "Requests to the object store that failed");
    for one in &tier.operations {
        out.sample("firn_store_errors_total", &[("operation", one.operation.name())], one.errors as f64);
    }
    out.family(
        "firn_store_timeouts_total",
        Kind::Counter,
        "Requests to the object store without an answer in time",
    );
    for one in &tier.operations {
        out.sample("firn_store_timeouts_total", &[("operation", one.operation.name())], one.timeouts as f64);
    }
    out.family("firn_store_latency_ms_bucket", Kind::Counter, "Requests to the object store by their time");
    for one in &tier.operations {
        let mut cumulative = 0;
        let bounds = LATENCY_BOUNDS_MS.iter().map(u64::to_string).chain(["+Inf".to_owned()]);
        for (bound, count) in bounds.zip(&one.latency_buckets) {
            cumulative += count;
            let labels = [("operation", one.operation.name()), ("le", bound.as_str())];
            out.sample("firn_store_latency_ms_bucket", &labels, cumulative as f64);
        }
    }
}
