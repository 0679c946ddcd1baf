//! The settings of a broker's parts, each read from its keys.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::layers::ConfigLayers;
use super::listeners::Listener;
use crate::config_definition::{ConfigError, ConfigValue, split_list};

/// How topics come and go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicSettings {
    pub auto_create_enable: bool,
    pub delete_enable: bool,
    pub num_partitions: i32,
    pub default_replication_factor: i16,
    /// The most partitions that one request may create.
    pub partitions_per_request_max: i32,
}

/// How brokers copy partitions from each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaSettings {
    /// A follower that has not had all of the leader's records for so long is out of sync.
    pub lag_time_max_ms: i64,
    pub fetch_wait_max_ms: i32,
    pub fetch_min_bytes: i32,
    /// Of one partition.
    pub fetch_max_bytes: i32,
    pub fetch_response_max_bytes: i32,
    /// The most bytes a second of throttled replicas that followers get here, and that are fetched here; the greatest number is
    /// no limit (KIP-73).
    pub leader_throttled_rate: i64,
    pub follower_throttled_rate: i64,
    /// Consumers are sent to a replica of their own rack.
    pub reads_within_racks: bool,
}

/// How leaders and replicas are kept even over the brokers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BalanceSettings {
    /// Partitions are given back to their preferred leaders.
    pub leaders: bool,
    pub leader_check_interval_seconds: i64,
    /// Replicas are moved for the sake of evenness.
    pub replicas: bool,
    pub replica_check_interval_seconds: i64,
    /// By how much of the average two brokers may differ.
    pub imbalance_percentage: i32,
    /// Partitions that are copied at a time, over all, and those of them that a broker takes part in.
    pub moves_max: i32,
    pub moves_per_broker_max: i32,
}

/// What clients may take of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkSettings {
    pub socket_request_max_bytes: i32,
    /// `None`: no limit.
    pub queued_max_request_bytes: Option<i64>,
    pub max_connections: i32,
    pub max_connections_per_ip: i32,
    pub max_connections_per_ip_overrides: BTreeMap<String, i32>,
    /// `None`: never.
    pub connections_max_idle_ms: Option<i64>,
    /// -1: the system's default.
    pub socket_send_buffer_bytes: i32,
    pub socket_receive_buffer_bytes: i32,
    pub socket_listen_backlog_size: i32,
    pub fetch_max_bytes: i32,
    pub max_incremental_fetch_session_cache_slots: i32,
    pub fetch_session_bytes: i64,
    pub fetch_records_bytes: i64,
    pub max_request_partition_size_limit: i32,
    /// The most that one batch may hold once decompressed.
    pub batch_decompressed_max_bytes: i64,
}

/// How the log is looked after.
#[derive(Debug, Clone, PartialEq)]
pub struct LogSettings {
    pub retention_check_interval_ms: i64,
    pub flush_offset_checkpoint_interval_ms: i32,
    pub num_recovery_threads_per_data_dir: i32,
    pub cleaner_enable: bool,
    pub cleaner_threads: i32,
    pub cleaner_dedupe_buffer_size: i64,
    pub cleaner_backoff_ms: i64,
    /// What all compactions together may read and write.
    pub cleaner_io_bytes_per_second: f64,
    pub mark_interval_ms: i64,
    pub scrub_interval_ms: i64,
    pub scrub_bytes_per_second: f64,
    pub producer_id_expiration_ms: i32,
    pub producer_id_expiration_check_interval_ms: i32,
    pub disk_reserve_bytes: i64,
    /// How much may be written to the metadata log until a snapshot makes it short again.
    pub metadata_record_bytes_between_snapshots: i64,
    /// How long a change may be in the metadata log alone; 0 is for ever.
    pub metadata_snapshot_interval_ms: i64,
}

/// Committed offsets and the topic that holds them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OffsetsSettings {
    pub metadata_max_bytes: i32,
    pub commit_timeout_ms: i32,
    pub retention_ms: i64,
    pub retention_check_interval_ms: i64,
    pub topic_num_partitions: i32,
    pub topic_replication_factor: i16,
    pub topic_segment_bytes: i32,
    /// 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub topic_compression_codec: i32,
}

/// Limits of classic groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupSettings {
    pub initial_rebalance_delay_ms: i32,
    pub min_session_timeout_ms: i32,
    pub max_session_timeout_ms: i32,
    pub max_size: i32,
    /// `firn.groups.members.bytes`.
    pub members_bytes_max: i64,
}

/// The object store and how hard it is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TierSettings {
    /// Topics may set `remote.storage.enable`.
    pub enabled: bool,
    /// Kept even when `enabled` is false.
    pub store_url: Option<String>,
    pub cache_bytes: i64,
    pub request_timeout_ms: i64,
    pub garbage_grace_ms: i64,
    pub task_interval_ms: i64,
    pub copier_threads: i32,
    pub reader_threads: i32,
    pub reader_max_pending_tasks: i32,
    pub fetch_max_wait_ms: i32,
    pub list_offsets_timeout_ms: i64,
    /// What may be copied to the store, and read from it for consumers; the greatest number is no limit.
    pub copy_bytes_per_second: i64,
    pub fetch_bytes_per_second: i64,
}

/// Where the side doors are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpSettings {
    /// Empty: all addresses.
    pub host: String,
    /// 0: any free port.
    pub port: u16,
}

/// How the broker's own log is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    Human,
    Json,
}

pub(super) fn replica(layers: &ConfigLayers) -> Result<ReplicaSettings, ConfigError> {
    Ok(ReplicaSettings {
        lag_time_max_ms: layers.long("replica.lag.time.max.ms")?,
        fetch_wait_max_ms: layers.int("replica.fetch.wait.max.ms")?,
        fetch_min_bytes: layers.int("replica.fetch.min.bytes")?,
        fetch_max_bytes: layers.int("replica.fetch.max.bytes")?,
        fetch_response_max_bytes: layers.int("replica.fetch.response.max.bytes")?,
        leader_throttled_rate: layers.long("leader.replication.throttled.rate")?,
        follower_throttled_rate: layers.long("follower.replication.throttled.rate")?,
        reads_within_racks: layers.text("replica.selector.class")?.is_some(),
    })
}

pub(super) fn balance(layers: &ConfigLayers) -> Result<BalanceSettings, ConfigError> {
    Ok(BalanceSettings {
        leaders: layers.boolean("auto.leader.rebalance.enable")?,
        leader_check_interval_seconds: layers.long("leader.imbalance.check.interval.seconds")?,
        replicas: layers.boolean("firn.replica.rebalance.enable")?,
        replica_check_interval_seconds: layers.long("firn.replica.rebalance.check.interval.seconds")?,
        imbalance_percentage: layers.int("firn.replica.imbalance.percentage")?,
        moves_max: layers.int("firn.replica.moves.max")?,
        moves_per_broker_max: layers.int("firn.replica.moves.per.broker.max")?,
    })
}

pub(super) fn log_dirs(layers: &ConfigLayers) -> Result<Vec<PathBuf>, ConfigError> {
    let key = if layers.get("log.dirs").is_some() { "log.dirs" } else { "log.dir" };
    let dirs = layers.list(key)?;
    let twice = dirs.iter().enumerate().any(|(index, dir)| dirs.iter().take(index).any(|other| other == dir));
    if dirs.is_empty() || twice || dirs.iter().any(String::is_empty) {
        return Err(invalid(key, dirs.join(","), "allowed are directories, each once, separated by commas"));
    }
    Ok(dirs.into_iter().map(PathBuf::from).collect())
}

pub(super) fn topics(layers: &ConfigLayers) -> Result<TopicSettings, ConfigError> {
    Ok(TopicSettings {
        auto_create_enable: layers.boolean("auto.create.topics.enable")?,
        delete_enable: layers.boolean("delete.topic.enable")?,
        num_partitions: layers.int("num.partitions")?,
        default_replication_factor: i16::try_from(layers.int("default.replication.factor")?).map_err(
            |_| {
                invalid(
                    "default.replication.factor",
                    layers.get("default.replication.factor").unwrap_or(""),
                    "allowed is between 1 and 32767",
                )
            },
        )?,
        partitions_per_request_max: layers.int("firn.partitions.per.request.max")?,
    })
}

pub(super) fn network(layers: &ConfigLayers) -> Result<NetworkSettings, ConfigError> {
    let socket_request_max_bytes = layers.int("socket.request.max.bytes")?;
    let queued = layers.long("queued.max.request.bytes")?;
    // One request of the largest size must fit, or it could never be read.
    if queued >= 0 && queued < i64::from(socket_request_max_bytes) {
        let reason =
            format!("allowed is -1, or at least socket.request.max.bytes ({socket_request_max_bytes})");
        return Err(invalid("queued.max.request.bytes", queued, &reason));
    }
    Ok(NetworkSettings {
        socket_request_max_bytes,
        queued_max_request_bytes: (queued >= 0).then_some(queued),
        max_connections: layers.int("max.connections")?,
        max_connections_per_ip: layers.int("max.connections.per.ip")?,
        max_connections_per_ip_overrides: per_ip_overrides(layers)?,
        connections_max_idle_ms: Some(layers.long("connections.max.idle.ms")?).filter(|idle| *idle >= 0),
        socket_send_buffer_bytes: layers.int("socket.send.buffer.bytes")?,
        socket_receive_buffer_bytes: layers.int("socket.receive.buffer.bytes")?,
        socket_listen_backlog_size: layers.int("socket.listen.backlog.size")?,
        fetch_max_bytes: layers.int("fetch.max.bytes")?,
        fetch_records_bytes: layers.long("firn.fetch.records.bytes")?,
        fetch_session_bytes: layers.long("firn.fetch.session.bytes")?,
        max_incremental_fetch_session_cache_slots: layers.int("max.incremental.fetch.session.cache.slots")?,
        max_request_partition_size_limit: layers.int("max.request.partition.size.limit")?,
        batch_decompressed_max_bytes: layers.long("firn.batch.decompressed.max.bytes")?,
    })
}

fn per_ip_overrides(layers: &ConfigLayers) -> Result<BTreeMap<String, i32>, ConfigError> {
    let key = "max.connections.per.ip.overrides";
    let text = layers.text(key)?.unwrap_or_default();
    split_list(&text)
        .iter()
        .map(|item| {
            item.rsplit_once(':')
                .and_then(|(host, count)| Some((host.trim().to_owned(), count.trim().parse::<i32>().ok()?)))
                .filter(|(host, count)| !host.is_empty() && *count >= 0)
                .ok_or_else(|| invalid(key, &text, "allowed is address:count, separated by commas"))
        })
        .collect()
}

pub(super) fn log(layers: &ConfigLayers) -> Result<LogSettings, ConfigError> {
    Ok(LogSettings {
        retention_check_interval_ms: layers.long("log.retention.check.interval.ms")?,
        flush_offset_checkpoint_interval_ms: layers.int("log.flush.offset.checkpoint.interval.ms")?,
        num_recovery_threads_per_data_dir: layers.int("num.recovery.threads.per.data.dir")?,
        cleaner_enable: layers.boolean("log.cleaner.enable")?,
        cleaner_threads: layers.int("log.cleaner.threads")?,
        cleaner_dedupe_buffer_size: layers.long("log.cleaner.dedupe.buffer.size")?,
        cleaner_backoff_ms: layers.long("log.cleaner.backoff.ms")?,
        cleaner_io_bytes_per_second: layers.double("log.cleaner.io.max.bytes.per.second")?,
        mark_interval_ms: layers.long("firn.log.dir.mark.interval.ms")?,
        scrub_interval_ms: layers.long("firn.log.scrub.interval.ms")?,
        scrub_bytes_per_second: layers.double("firn.log.scrub.max.bytes.per.second")?,
        producer_id_expiration_ms: layers.int("producer.id.expiration.ms")?,
        producer_id_expiration_check_interval_ms: layers.int("producer.id.expiration.check.interval.ms")?,
        disk_reserve_bytes: layers.long("firn.disk.reserve.bytes")?,
        metadata_record_bytes_between_snapshots: layers
            .long("metadata.log.max.record.bytes.between.snapshots")?,
        metadata_snapshot_interval_ms: layers.long("metadata.log.max.snapshot.interval.ms")?,
    })
}

pub(super) fn offsets(layers: &ConfigLayers) -> Result<OffsetsSettings, ConfigError> {
    Ok(OffsetsSettings {
        metadata_max_bytes: layers.int("offset.metadata.max.bytes")?,
        commit_timeout_ms: layers.int("offsets.commit.timeout.ms")?,
        retention_ms: i64::from(layers.int("offsets.retention.minutes")?) * 60_000,
        retention_check_interval_ms: layers.long("offsets.retention.check.interval.ms")?,
        topic_num_partitions: layers.int("offsets.topic.num.partitions")?,
        topic_replication_factor: layers.short("offsets.topic.replication.factor")?,
        topic_segment_bytes: layers.int("offsets.topic.segment.bytes")?,
        topic_compression_codec: layers.int("offsets.topic.compression.codec")?,
    })
}

pub(super) fn groups(layers: &ConfigLayers) -> Result<GroupSettings, ConfigError> {
    let settings = GroupSettings {
        initial_rebalance_delay_ms: layers.int("group.initial.rebalance.delay.ms")?,
        min_session_timeout_ms: layers.int("group.min.session.timeout.ms")?,
        max_session_timeout_ms: layers.int("group.max.session.timeout.ms")?,
        max_size: layers.int("group.max.size")?,
        members_bytes_max: layers.long("firn.groups.members.bytes")?,
    };
    if settings.min_session_timeout_ms > settings.max_session_timeout_ms {
        let reason =
            format!("allowed is at most group.max.session.timeout.ms ({})", settings.max_session_timeout_ms);
        return Err(invalid("group.min.session.timeout.ms", settings.min_session_timeout_ms, &reason));
    }
    Ok(settings)
}

pub(super) fn tier(layers: &ConfigLayers) -> Result<TierSettings, ConfigError> {
    let store_url = layers.text("firn.store.url")?;
    let wanted = layers.value("remote.log.storage.system.enable")?.as_ref().and_then(ConfigValue::boolean);
    if wanted == Some(true) && store_url.is_none() {
        let reason =
            "there is no object store: set firn.store.url, such as s3://bucket/prefix or file:///path";
        return Err(invalid("remote.log.storage.system.enable", "true", reason));
    }
    if let Some(url) = &store_url
        && !["s3://", "file:///", "memory:"].iter().any(|scheme| url.starts_with(scheme))
    {
        return Err(invalid("firn.store.url", url, "allowed are s3://bucket/prefix and file:///path"));
    }
    Ok(TierSettings {
        enabled: store_url.is_some() && wanted != Some(false),
        store_url,
        cache_bytes: layers.long("firn.store.cache.bytes")?,
        request_timeout_ms: layers.long("firn.store.request.timeout.ms")?,
        garbage_grace_ms: layers.long("firn.store.garbage.grace.ms")?,
        task_interval_ms: layers.long("remote.log.manager.task.interval.ms")?,
        copier_threads: layers.int("remote.log.manager.copier.thread.pool.size")?,
        reader_threads: layers.int("remote.log.reader.threads")?,
        reader_max_pending_tasks: layers.int("remote.log.reader.max.pending.tasks")?,
        fetch_max_wait_ms: layers.int("remote.fetch.max.wait.ms")?,
        list_offsets_timeout_ms: layers.long("remote.list.offsets.request.timeout.ms")?,
        copy_bytes_per_second: layers.long("remote.log.manager.copy.max.bytes.per.second")?,
        fetch_bytes_per_second: layers.long("remote.log.manager.fetch.max.bytes.per.second")?,
    })
}

/// How far above the first listener's port the side doors are, if nobody chose: unique on a machine, as that port is.
pub const HTTP_PORT_DISTANCE: u16 = 10_000;

pub(super) fn http(layers: &ConfigLayers, bound: &[Listener]) -> Result<Option<HttpSettings>, ConfigError> {
    let chosen = layers.value("firn.http.port")?.as_ref().and_then(ConfigValue::int);
    let listener = bound.first().map_or(0, |listener| listener.port);
    let port = match chosen {
        Some(-1) => return Ok(None),
        Some(port) => u16::try_from(port).unwrap_or(0),
        None if listener == 0 => 0,
        None => {
            listener.checked_add(HTTP_PORT_DISTANCE).unwrap_or(listener.saturating_sub(HTTP_PORT_DISTANCE))
        }
    };
    // Whoever listens on one address alone does not mean the side port to be reached on all of them.
    let beside = || bound.first().map(|listener| listener.host.clone()).unwrap_or_default();
    let host = layers.text("firn.http.host")?.filter(|host| !host.is_empty()).unwrap_or_else(beside);
    Ok(Some(HttpSettings { host, port }))
}

pub(super) fn invalid(name: &str, value: impl ToString, reason: &str) -> ConfigError {
    ConfigError::Invalid { name: name.to_owned(), value: value.to_string(), reason: reason.to_owned() }
}
