//! A topic's effective configuration: every value typed, every default resolved.

pub mod definitions;

use std::collections::BTreeMap;

use crate::broker_config::BrokerConfig;
use crate::config_definition::{ConfigError, ConfigValue};
use crate::throttled_replicas::ThrottledReplicas;
use definitions::definition;

/// What happens to records past their time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CleanupPolicy {
    pub delete: bool,
    pub compact: bool,
}

/// Whose clock a record's timestamp is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TimestampType {
    CreateTime,
    LogAppendTime,
}

/// `compression.type` of a topic: keep what the producer chose, or one codec for all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CompressionType {
    Producer,
    Uncompressed,
    Gzip,
    Snappy,
    Lz4,
    Zstd,
}

/// A topic's effective configuration. Names and defaults are Kafka's, but for `flush_messages`, whose default is 1.
/// Times are milliseconds, sizes bytes; -1 in a retention means "no limit", -2 in a local retention "as the whole".
#[derive(Debug, Clone, PartialEq)]
pub struct TopicConfig {
    pub cleanup_policy: CleanupPolicy,
    pub compression_type: CompressionType,
    pub compression_gzip_level: i32,
    pub compression_lz4_level: i32,
    pub compression_zstd_level: i32,
    pub delete_retention_ms: i64,
    pub file_delete_delay_ms: i64,
    pub flush_messages: i64,
    pub flush_ms: i64,
    pub follower_replication_throttled_replicas: ThrottledReplicas,
    pub index_interval_bytes: i32,
    pub leader_replication_throttled_replicas: ThrottledReplicas,
    pub local_retention_bytes: i64,
    pub local_retention_ms: i64,
    pub max_compaction_lag_ms: i64,
    pub max_message_bytes: i32,
    pub message_timestamp_after_max_ms: i64,
    pub message_timestamp_before_max_ms: i64,
    pub message_timestamp_type: TimestampType,
    pub min_cleanable_dirty_ratio: f64,
    pub min_compaction_lag_ms: i64,
    pub min_insync_replicas: i32,
    pub preallocate: bool,
    pub remote_log_copy_disable: bool,
    pub remote_log_delete_on_disable: bool,
    pub remote_storage_enable: bool,
    pub retention_bytes: i64,
    pub retention_ms: i64,
    pub segment_bytes: i32,
    pub segment_index_bytes: i32,
    pub segment_jitter_ms: i64,
    pub segment_ms: i64,
    pub unclean_leader_election_enable: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        const DAY_MS: i64 = 24 * 60 * 60 * 1000;
        Self {
            cleanup_policy: CleanupPolicy { delete: true, compact: false },
            compression_type: CompressionType::Producer,
            compression_gzip_level: -1,
            compression_lz4_level: 9,
            compression_zstd_level: 3,
            delete_retention_ms: DAY_MS,
            file_delete_delay_ms: 60_000,
            flush_messages: 1,
            flush_ms: i64::MAX,
            follower_replication_throttled_replicas: ThrottledReplicas::default(),
            index_interval_bytes: 4096,
            leader_replication_throttled_replicas: ThrottledReplicas::default(),
            local_retention_bytes: -2,
            local_retention_ms: -2,
            max_compaction_lag_ms: i64::MAX,
            max_message_bytes: 1_048_588,
            message_timestamp_after_max_ms: 3_600_000,
            message_timestamp_before_max_ms: i64::MAX,
            message_timestamp_type: TimestampType::CreateTime,
            min_cleanable_dirty_ratio: 0.5,
            min_compaction_lag_ms: 0,
            min_insync_replicas: 1,
            preallocate: false,
            remote_log_copy_disable: false,
            remote_log_delete_on_disable: false,
            remote_storage_enable: false,
            retention_bytes: -1,
            retention_ms: 7 * DAY_MS,
            segment_bytes: 1 << 30,
            segment_index_bytes: 10 << 20,
            segment_jitter_ms: 0,
            segment_ms: 7 * DAY_MS,
            unclean_leader_election_enable: false,
        }
    }
}

/// "As the topic's whole retention", in `local.retention.ms` and `local.retention.bytes`.
const AS_THE_WHOLE: i64 = -2;

impl TopicConfig {
    /// What a topic with these overrides obeys on a broker with these configs. Fails on an unknown name, a value that is
    /// not allowed, one that this broker cannot obey, and values that contradict each other (Kafka's `LogConfig.validate`).
    pub fn resolve(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> Result<TopicConfig, ConfigError> {
        let (config, left_out) = Self::of_existing(overrides, broker);
        if let Some(error) = left_out.into_iter().next() {
            return Err(error);
        }
        config.check(broker.tier.enabled)?;
        Ok(config)
    }

    /// How long a segment may be active. The cleaner passes over the active one, so a compacted log leaves it in time for
    /// `max.compaction.lag.ms` (Kafka's `LogConfig.maxSegmentMs`).
    pub fn max_segment_ms(&self) -> i64 {
        if self.cleanup_policy.compact && self.max_compaction_lag_ms > 0 {
            self.max_compaction_lag_ms.min(self.segment_ms)
        } else {
            self.segment_ms
        }
    }

    /// What an existing topic obeys, come what may: each of its overrides as it was set, though they may contradict a
    /// broker's default that has changed since, or ask for what this broker cannot do. To obey the defaults instead
    /// would delete records that the topic was told to keep. Names and values that are not known any more are returned.
    pub fn of_existing(
        overrides: &BTreeMap<String, String>,
        broker: &BrokerConfig,
    ) -> (TopicConfig, Vec<ConfigError>) {
        let mut config = broker.topic_defaults.clone();
        let set = overrides.iter().filter_map(|(name, text)| config.set_text(name, text).err());
        let left_out = set.collect();
        (config, left_out)
    }

    fn set_text(&mut self, name: &str, text: &str) -> Result<(), ConfigError> {
        let definition = definition(name)?;
        let value = definition.parse(text)?;
        self.set(definition.name, &value).ok_or_else(|| definition.refuse(text, "it is out of range"))
    }

    /// Whether segments go to the store, so that local retention has to wait for them.
    pub fn copies_to_tier(&self) -> bool {
        self.remote_storage_enable && !self.remote_log_copy_disable
    }

    /// How long records stay on the local disk once they are tiered, in milliseconds; -1 is no limit.
    pub fn effective_local_retention_ms(&self) -> i64 {
        let whole = !self.copies_to_tier() || self.local_retention_ms == AS_THE_WHOLE;
        if whole { self.retention_ms } else { self.local_retention_ms }
    }

    /// How many bytes stay on the local disk once they are tiered; -1 is no limit.
    pub fn effective_local_retention_bytes(&self) -> i64 {
        let whole = !self.copies_to_tier() || self.local_retention_bytes == AS_THE_WHOLE;
        if whole { self.retention_bytes } else { self.local_retention_bytes }
    }

    /// Sets one config; `None` if there is none of that name, or the value is not of its type.
    pub(crate) fn set(&mut self, name: &str, value: &ConfigValue) -> Option<()> {
        match name {
            "cleanup.policy" => self.cleanup_policy = cleanup_policy(value)?,
            "compression.gzip.level" => self.compression_gzip_level = value.int()?,
            "compression.lz4.level" => self.compression_lz4_level = value.int()?,
            "compression.type" => self.compression_type = compression_type(value.text()?)?,
            "compression.zstd.level" => self.compression_zstd_level = value.int()?,
            "delete.retention.ms" => self.delete_retention_ms = value.long()?,
            "file.delete.delay.ms" => self.file_delete_delay_ms = value.long()?,
            "flush.messages" => self.flush_messages = value.long()?,
            "flush.ms" => self.flush_ms = value.long()?,
            "follower.replication.throttled.replicas" => {
                self.follower_replication_throttled_replicas = ThrottledReplicas::read(value.list()?)?;
            }
            "index.interval.bytes" => self.index_interval_bytes = value.int()?,
            "leader.replication.throttled.replicas" => {
                self.leader_replication_throttled_replicas = ThrottledReplicas::read(value.list()?)?;
            }
            "local.retention.bytes" => self.local_retention_bytes = value.long()?,
            "local.retention.ms" => self.local_retention_ms = value.long()?,
            "max.compaction.lag.ms" => self.max_compaction_lag_ms = value.long()?,
            "max.message.bytes" => self.max_message_bytes = value.int()?,
            "message.timestamp.after.max.ms" => self.message_timestamp_after_max_ms = value.long()?,
            "message.timestamp.before.max.ms" => self.message_timestamp_before_max_ms = value.long()?,
            "message.timestamp.type" => self.message_timestamp_type = timestamp_type(value.text()?)?,
            "min.cleanable.dirty.ratio" => self.min_cleanable_dirty_ratio = value.double()?,
            "min.compaction.lag.ms" => self.min_compaction_lag_ms = value.long()?,
            "min.insync.replicas" => self.min_insync_replicas = value.int()?,
            "preallocate" => self.preallocate = value.boolean()?,
            "remote.log.copy.disable" => self.remote_log_copy_disable = value.boolean()?,
            "remote.log.delete.on.disable" => self.remote_log_delete_on_disable = value.boolean()?,
            "remote.storage.enable" => self.remote_storage_enable = value.boolean()?,
            // Any negative size is "no limit" to Kafka.
            "retention.bytes" => self.retention_bytes = value.long()?.max(-1),
            "retention.ms" => self.retention_ms = value.long()?,
            "segment.bytes" => self.segment_bytes = value.int()?,
            "segment.index.bytes" => self.segment_index_bytes = value.int()?,
            "segment.jitter.ms" => self.segment_jitter_ms = value.long()?,
            "segment.ms" => self.segment_ms = value.long()?,
            "unclean.leader.election.enable" => self.unclean_leader_election_enable = value.boolean()?,
            _ => return None,
        }
        Some(())
    }

    /// Values that are good alone, but not together, or that this broker cannot obey.
    ///
    /// One check of Kafka's is left out because this broker's tier can do more: `remote.storage.enable` may be switched
    /// off without `remote.log.delete.on.disable`. What is in the object store then stays readable until the topic's
    /// retention takes it, so nothing is lost.
    pub fn check(&self, tier_enabled: bool) -> Result<(), ConfigError> {
        if self.min_compaction_lag_ms > self.max_compaction_lag_ms {
            let (least, most) = (self.min_compaction_lag_ms, self.max_compaction_lag_ms);
            return conflict(
                ("min.compaction.lag.ms", least),
                ("max.compaction.lag.ms", most),
                "the first must not be greater",
            );
        }
        if !self.remote_storage_enable {
            return Ok(());
        }
        if !tier_enabled {
            return Err(ConfigError::Invalid {
                name: "remote.storage.enable".to_owned(),
                value: "true".to_owned(),
                reason: "this broker has no object store; set firn.store.url to give it one".to_owned(),
            });
        }
        let local_ms = ("local.retention.ms", self.local_retention_ms);
        let local_bytes = ("local.retention.bytes", self.local_retention_bytes);
        check_local(local_ms, ("retention.ms", self.retention_ms), self.remote_log_copy_disable)?;
        check_local(local_bytes, ("retention.bytes", self.retention_bytes), self.remote_log_copy_disable)
    }
}

fn check_local(local: (&str, i64), whole: (&str, i64), copy_disabled: bool) -> Result<(), ConfigError> {
    if local.1 == AS_THE_WHOLE || local.1 == whole.1 {
        return Ok(());
    }
    if copy_disabled {
        return conflict(
            local,
            whole,
            "while remote.log.copy.disable is true they must be equal, as nothing more is copied",
        );
    }
    if whole.1 >= 0 && (local.1 == -1 || local.1 > whole.1) {
        return conflict(local, whole, "what is kept locally must not be more than what is kept at all");
    }
    Ok(())
}

fn conflict(first: (&str, i64), second: (&str, i64), reason: &str) -> Result<(), ConfigError> {
    Err(ConfigError::Conflict {
        first: format!("{} ({})", first.0, first.1),
        second: format!("{} ({})", second.0, second.1),
        reason: reason.to_owned(),
    })
}

fn cleanup_policy(value: &ConfigValue) -> Option<CleanupPolicy> {
    let items = value.list()?;
    let has = |name: &str| items.iter().any(|item| item == name);
    Some(CleanupPolicy { delete: has("delete"), compact: has("compact") })
}

fn compression_type(name: &str) -> Option<CompressionType> {
    Some(match name {
        "producer" => CompressionType::Producer,
        "uncompressed" => CompressionType::Uncompressed,
        "gzip" => CompressionType::Gzip,
        "snappy" => CompressionType::Snappy,
        "lz4" => CompressionType::Lz4,
        "zstd" => CompressionType::Zstd,
        _ => return None,
    })
}

fn timestamp_type(name: &str) -> Option<TimestampType> {
    match name {
        "CreateTime" => Some(TimestampType::CreateTime),
        "LogAppendTime" => Some(TimestampType::LogAppendTime),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
