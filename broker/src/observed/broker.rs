//! The broker and the cluster as a whole: Kafka's replica manager, controller and metadata quorum, disks.

use firn_metadata::image::{Image, NO_LEADER};
use firn_telemetry::exposition::{Exposition, Kind};

use super::partitions::Observed;
use crate::context::Context;

pub(super) fn write(context: &Context, image: &Image, partitions: &[Observed], out: &mut Exposition) {
    replicas(context, partitions, out);
    controller(context, image, partitions, out);
    brokers(image, out);
    quorum(context, out);
    disks(context, out);
    throttles(context, out);
    let sessions = (context.fetch_sessions.lock().len() + context.replica_sessions.len()) as f64;
    let name = "kafka_server_fetchsessioncache_numincrementalfetchsessions";
    out.single(name, Kind::Gauge, "Fetch sessions", sessions);
}

fn count(partitions: &[Observed], counts: impl Fn(&Observed) -> bool) -> f64 {
    partitions.iter().filter(|one| counts(one)).count() as f64
}

fn replicas(context: &Context, partitions: &[Observed], out: &mut Exposition) {
    let led = |one: &Observed| one.led.is_some();
    let offline = |one: &Observed| one.is_here && !one.led.as_ref().is_some_and(|led| led.writable);
    let mut gauge = |name: &str, help: &str, value: f64| {
        out.single(&format!("kafka_server_replicamanager_{name}"), Kind::Gauge, help, value);
    };
    gauge("partitioncount", "Partitions with a replica here", context.partitions.all().len() as f64);
    gauge("leadercount", "Partitions led here", count(partitions, led));
    gauge(
        "underreplicatedpartitions",
        "Partitions led here with a replica out of sync",
        count(partitions, |one| led(one) && one.is_under_replicated()),
    );
    gauge(
        "underminisrpartitioncount",
        "Partitions led here with fewer in-sync replicas than min.insync.replicas",
        count(partitions, Observed::is_under_min_isr),
    );
    gauge(
        "atminisrpartitioncount",
        "Partitions led here with as many in-sync replicas as min.insync.replicas",
        count(partitions, Observed::is_at_min_isr),
    );
    gauge(
        "reassigningpartitions",
        "Partitions led here whose replicas move",
        count(partitions, |one| led(one) && one.is_reassigning),
    );
    gauge("offlinereplicacount", "Replicas here that serve no longer", count(partitions, offline));
}

fn controller(context: &Context, image: &Image, partitions: &[Observed], out: &mut Exposition) {
    let active = context.controller.progress().leads;
    let here = context.node_id;
    let offline = |one: &Observed| {
        one.leader == NO_LEADER || (one.leader == here && !one.led.as_ref().is_some_and(|led| led.writable))
    };
    let fenced = image.brokers().filter(|broker| broker.fenced).count();
    let mut gauge = |name: &str, help: &str, value: f64| {
        out.single(&format!("kafka_controller_kafkacontroller_{name}"), Kind::Gauge, help, value);
    };
    gauge(
        "activecontrollercount",
        "1 on the controller, as long as the metadata can be changed",
        f64::from(u8::from(active)),
    );
    gauge("offlinepartitionscount", "Partitions without a leader that serves", count(partitions, offline));
    gauge(
        "preferredreplicaimbalancecount",
        "Partitions led by another than the first of their replicas",
        count(partitions, |one| !one.has_preferred_leader()),
    );
    gauge("globaltopiccount", "Topics", image.topic_count() as f64);
    gauge("globalpartitioncount", "Partitions", image.partition_count() as f64);
    gauge("activebrokercount", "Registered brokers that serve", (image.brokers().count() - fenced) as f64);
    gauge("fencedbrokercount", "Registered brokers that do not serve", fenced as f64);
}

fn brokers(image: &Image, out: &mut Exposition) {
    out.single("kafka_brokers", Kind::Gauge, "Brokers of the cluster", image.brokers().count() as f64);
    // Dashboards made for kafka_exporter find their clusters by it, and Firn answers in its place.
    let name = "kafka_exporter_build_info";
    out.family(name, Kind::Gauge, "1, with the version of the Firn that answers in kafka_exporter's place");
    out.sample(name, &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    out.family("kafka_broker_info", Kind::Gauge, "1 for each broker, with its first address");
    for broker in image.brokers() {
        let address = broker.endpoints.first().map(|endpoint| format!("{}:{}", endpoint.host, endpoint.port));
        let (id, address) = (broker.id.to_string(), address.unwrap_or_default());
        out.sample("kafka_broker_info", &[("id", &id), ("address", &address)], 1.0);
    }
}

/// This broker's part in the metadata quorum.
fn quorum(context: &Context, out: &mut Exposition) {
    let progress = context.controller.progress();
    let leader = f64::from(progress.leader.unwrap_or(NO_LEADER));
    let mut gauge = |name: &str, help: &str, value: f64| {
        out.single(&format!("kafka_server_raftmetrics_{name}"), Kind::Gauge, help, value);
    };
    gauge("current_leader", "Id of the controller, or -1", leader);
    gauge(
        "current_vote",
        "Id of the broker that this one voted for, or -1",
        f64::from(progress.voted_for.unwrap_or(NO_LEADER)),
    );
    gauge("current_epoch", "Epoch of the controller", progress.term as f64);
    gauge("log_end_offset", "Offset after the last change of the metadata", progress.end_offset as f64);
    gauge("high_watermark", "Offset after the last change that a majority has", progress.committed as f64);
    if progress.leads {
        let name = "kafka_server_raftmetrics_current_state";
        out.family(name, Kind::Gauge, "1 for the state that this controller is in");
        out.sample(name, &[("current_state", "leader")], 1.0);
    }
}

fn throttles(context: &Context, out: &mut Exposition) {
    let name = "firn_replication_throttled_bytes_total";
    let help = "Bytes copied of throttled replicas: given to followers by their leader here, or fetched by a follower here";
    out.family(name, Kind::Counter, help);
    let throttles = &context.replication.throttles;
    for (side, throttle) in [("leader", &throttles.leader), ("follower", &throttles.follower)] {
        out.sample(name, &[("side", side)], throttle.bytes() as f64);
    }
}

fn disks(context: &Context, out: &mut Exposition) {
    let failed = context.log_dirs.all().iter().filter(|dir| dir.dir.failed().is_some()).count();
    let name = "kafka_log_logmanager_offlinelogdirectorycount";
    out.single(name, Kind::Gauge, "Log directories that failed", failed as f64);
    out.single(
        "firn_log_dirs_stray_partitions",
        Kind::Gauge,
        "Directories of partitions that no topic owns, set aside and not removed yet",
        context.log_dirs.strays() as f64,
    );
    let damaged = &context.replication.damaged;
    out.single(
        "firn_log_damaged_places",
        Kind::Gauge,
        "Places of logs that the disk has not kept, and that are not mended yet",
        damaged.left() as f64,
    );
    out.single(
        "firn_log_scrubs_total",
        Kind::Counter,
        "Times that every log was looked at for what the disk has not kept",
        damaged.scrubs() as f64,
    );
    out.single(
        "firn_log_mended_segments_total",
        Kind::Counter,
        "Segments that were mended from another replica or the object store",
        damaged.mended() as f64,
    );
    out.family("firn_disk_free_bytes", Kind::Gauge, "Room on the disk of a log directory");
    for dir in context.log_dirs.all() {
        if let Ok(space) = dir.dir.space() {
            let path = dir.dir.path().display().to_string();
            out.sample("firn_disk_free_bytes", &[("directory", &path)], space.free as f64);
        }
    }
}
