//! Each partition, under the names of Kafka's own partition and log metrics and of kafka_exporter.
//!
//! A scrape looks at a partition once and writes its labels out once; the families are then columns of one table.

use std::collections::HashMap;
use std::sync::Arc;

use firn_metadata::image::Image;
use firn_model::ids::TopicName;
use firn_telemetry::exposition::{Exposition, Kind, Labels};

use crate::context::Context;
use crate::partition::{Offsets, Partition};

/// One partition of the cluster.
#[derive(Debug)]
pub(super) struct Observed {
    pub topic: TopicName,
    labels: Labels,
    pub leader: i32,
    pub preferred_leader: Option<i32>,
    pub replicas: usize,
    /// How many there are, or were before they began to move.
    settled_replicas: usize,
    pub is_reassigning: bool,
    pub in_sync: usize,
    /// A replica of it is to be here.
    pub is_here: bool,
    /// `None` where it is not led here, or could not be opened.
    pub led: Option<Led>,
}

/// What only the leader knows.
#[derive(Debug)]
pub(super) struct Led {
    pub partition: Arc<Partition>,
    offsets: Offsets,
    pub bytes: u64,
    segments: usize,
    /// `min.insync.replicas`, or all replicas if there are fewer.
    min_in_sync: usize,
    /// Its log directory still takes records.
    pub writable: bool,
}

impl Observed {
    pub(super) fn is_under_replicated(&self) -> bool {
        self.in_sync < self.settled_replicas
    }

    pub(super) fn is_under_min_isr(&self) -> bool {
        self.led.as_ref().is_some_and(|led| self.in_sync < led.min_in_sync)
    }

    pub(super) fn is_at_min_isr(&self) -> bool {
        self.led.as_ref().is_some_and(|led| self.in_sync == led.min_in_sync)
    }

    pub(super) fn has_preferred_leader(&self) -> bool {
        self.preferred_leader == Some(self.leader)
    }
}

/// Every partition of the cluster, topic by topic.
pub(super) fn observe(context: &Context, image: &Image) -> Vec<Observed> {
    let open: HashMap<TopicName, _> =
        context.partitions.topics().into_iter().map(|topic| (topic.name.clone(), topic)).collect();
    let mut observed = Vec::with_capacity(image.partition_count());
    for topic in image.topics() {
        let here = open.get(&topic.name).filter(|open| open.id == topic.id);
        for (index, partition) in (0i32..).zip(&topic.partitions) {
            let settled_replicas = partition.original_replicas().count();
            let leads = here.and_then(|here| here.partitions.get(&index));
            observed.push(Observed {
                topic: topic.name.clone(),
                labels: Labels::of(&[("topic", &topic.name), ("partition", &index.to_string())]),
                leader: partition.leader,
                preferred_leader: partition.replicas.first().copied(),
                replicas: partition.replicas.len(),
                settled_replicas,
                is_reassigning: partition.is_reassigning(),
                in_sync: partition.isr.len(),
                is_here: partition.replicas.contains(&context.node_id),
                led: leads
                    .filter(|open| open.led_in().is_some())
                    .and_then(|open| led(open, settled_replicas)),
            });
        }
    }
    observed
}

fn led(partition: &Arc<Partition>, replicas: usize) -> Option<Led> {
    let offsets = partition.offsets().ok()?;
    let (bytes, segments) = partition.with_log(|log| (log.size_bytes(), log.segment_count())).ok()?;
    let min_in_sync = usize::try_from(partition.config().min_insync_replicas).unwrap_or(0);
    Some(Led {
        writable: partition.data_dir().dir.failed().is_none(),
        partition: partition.clone(),
        offsets,
        bytes,
        segments,
        min_in_sync: min_in_sync.min(replicas),
    })
}

/// A column: its name, what it tells, and the number of one partition, if it has one.
type Column = (&'static str, &'static str, fn(&Observed) -> Option<f64>);

const COLUMNS: [Column; 17] = [
    ("kafka_cluster_partition_replicascount", "Replicas of a partition that is led here", |one| {
        one.led.as_ref().map(|_| one.replicas as f64)
    }),
    (
        "kafka_cluster_partition_insyncreplicascount",
        "In-sync replicas of a partition that is led here",
        |one| one.led.as_ref().map(|_| one.in_sync as f64),
    ),
    ("kafka_cluster_partition_underreplicated", "1 if a replica is out of sync", |one| {
        one.led.as_ref().map(|_| flag(one.is_under_replicated()))
    }),
    (
        "kafka_cluster_partition_underminisr",
        "1 if fewer replicas are in sync than min.insync.replicas",
        |one| one.led.as_ref().map(|_| flag(one.is_under_min_isr())),
    ),
    ("kafka_cluster_partition_atminisr", "1 if as many replicas are in sync as min.insync.replicas", |one| {
        one.led.as_ref().map(|_| flag(one.is_at_min_isr()))
    }),
    (
        "kafka_cluster_partition_laststableoffsetlag",
        "Records that are committed and wait for a transaction",
        |one| one.led.as_ref().map(|led| (led.offsets.high_watermark - led.offsets.last_stable) as f64),
    ),
    ("kafka_log_log_size", "Bytes of the log on the local disk", |one| {
        one.led.as_ref().map(|led| led.bytes as f64)
    }),
    ("kafka_log_log_numlogsegments", "Segments on the local disk", |one| {
        one.led.as_ref().map(|led| led.segments as f64)
    }),
    ("kafka_log_log_logstartoffset", "First offset of the log, cold records included", |one| {
        one.led.as_ref().map(|led| led.offsets.log_start as f64)
    }),
    ("kafka_log_log_logendoffset", "Offset after the last record", |one| {
        one.led.as_ref().map(|led| led.offsets.log_end as f64)
    }),
    ("kafka_topic_partition_oldest_offset", "First offset of the partition", |one| {
        one.led.as_ref().map(|led| led.offsets.log_start as f64)
    }),
    ("kafka_topic_partition_current_offset", "Offset after the last committed record", |one| {
        one.led.as_ref().map(|led| led.offsets.high_watermark as f64)
    }),
    ("kafka_topic_partition_leader", "Id of the broker that leads, or -1", |one| Some(f64::from(one.leader))),
    ("kafka_topic_partition_leader_is_preferred", "1 if the first of the replicas leads", |one| {
        Some(flag(one.has_preferred_leader()))
    }),
    ("kafka_topic_partition_replicas", "Replicas of the partition", |one| Some(one.replicas as f64)),
    ("kafka_topic_partition_in_sync_replica", "In-sync replicas of the partition", |one| {
        Some(one.in_sync as f64)
    }),
    ("kafka_topic_partition_under_replicated_partition", "1 if a replica is out of sync", |one| {
        Some(flag(one.is_under_replicated()))
    }),
];

fn flag(set: bool) -> f64 {
    f64::from(u8::from(set))
}

pub(super) fn write(image: &Image, partitions: &[Observed], out: &mut Exposition) {
    out.family("kafka_topic_partitions", Kind::Gauge, "Partitions of the topic");
    for topic in image.topics() {
        out.sample("kafka_topic_partitions", &[("topic", &topic.name)], topic.partitions.len() as f64);
    }
    for (name, help, number) in COLUMNS {
        out.family(name, Kind::Gauge, help);
        for partition in partitions {
            if let Some(value) = number(partition) {
                out.labelled(name, &partition.labels, value);
            }
        }
    }
}
