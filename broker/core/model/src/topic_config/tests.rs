//! The table against a list of Apache Kafka 4.3.1's own topic configs, and what resolving one accepts and refuses.

use super::definitions::definitions;
use super::*;
use crate::config_definition::ConfigType::{self, *};
use crate::config_definition::Support;

/// Name, type, default and broker synonyms of each config of Kafka 4.3.1's `LogConfig`, read out of its class file.
const KAFKA: &[(&str, ConfigType, &str, &str)] = &[
    ("cleanup.policy", List, "delete", "log.cleanup.policy"),
    ("compression.gzip.level", Int, "-1", "compression.gzip.level"),
    ("compression.lz4.level", Int, "9", "compression.lz4.level"),
    ("compression.type", String, "producer", "compression.type"),
    ("compression.zstd.level", Int, "3", "compression.zstd.level"),
    ("delete.retention.ms", Long, "86400000", "log.cleaner.delete.retention.ms"),
    ("file.delete.delay.ms", Long, "60000", "log.segment.delete.delay.ms"),
    ("flush.messages", Long, "9223372036854775807", "log.flush.interval.messages"),
    ("flush.ms", Long, "9223372036854775807", "log.flush.interval.ms,log.flush.scheduler.interval.ms"),
    ("follower.replication.throttled.replicas", List, "", ""),
    ("index.interval.bytes", Int, "4096", "log.index.interval.bytes"),
    ("leader.replication.throttled.replicas", List, "", ""),
    ("local.retention.bytes", Long, "-2", "log.local.retention.bytes"),
    ("local.retention.ms", Long, "-2", "log.local.retention.ms"),
    ("max.compaction.lag.ms", Long, "9223372036854775807", "log.cleaner.max.compaction.lag.ms"),
    ("max.message.bytes", Int, "1048588", "message.max.bytes"),
    ("message.timestamp.after.max.ms", Long, "3600000", "log.message.timestamp.after.max.ms"),
    ("message.timestamp.before.max.ms", Long, "9223372036854775807", "log.message.timestamp.before.max.ms"),
    ("message.timestamp.type", String, "CreateTime", "log.message.timestamp.type"),
    ("min.cleanable.dirty.ratio", Double, "0.5", "log.cleaner.min.cleanable.ratio"),
    ("min.compaction.lag.ms", Long, "0", "log.cleaner.min.compaction.lag.ms"),
    ("min.insync.replicas", Int, "1", "min.insync.replicas"),
    ("preallocate", Boolean, "false", "log.preallocate"),
    ("remote.log.copy.disable", Boolean, "false", ""),
    ("remote.log.delete.on.disable", Boolean, "false", ""),
    ("remote.storage.enable", Boolean, "false", ""),
    ("retention.bytes", Long, "-1", "log.retention.bytes"),
    ("retention.ms", Long, "604800000", "log.retention.ms,log.retention.minutes,log.retention.hours"),
    ("segment.bytes", Int, "1073741824", "log.segment.bytes"),
    ("segment.index.bytes", Int, "10485760", "log.index.size.max.bytes"),
    ("segment.jitter.ms", Long, "0", "log.roll.jitter.ms,log.roll.jitter.hours"),
    ("segment.ms", Long, "604800000", "log.roll.ms,log.roll.hours"),
    ("unclean.leader.election.enable", Boolean, "false", "unclean.leader.election.enable"),
];

fn broker(properties: &[(&str, &str)]) -> BrokerConfig {
    let properties = properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    BrokerConfig::from_properties(&properties).unwrap().config
}

fn resolve(overrides: &[(&str, &str)], broker: &BrokerConfig) -> Result<TopicConfig, ConfigError> {
    let overrides = overrides.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect();
    TopicConfig::resolve(&overrides, broker)
}

#[test]
fn the_table_is_kafkas() {
    let ours: Vec<_> = definitions().iter().map(|definition| definition.name).collect();
    let kafkas: Vec<_> = KAFKA.iter().map(|(name, ..)| *name).collect();
    assert_eq!(ours, kafkas, "same names, in order");
    for (definition, (name, config_type, default, synonyms)) in definitions().iter().zip(KAFKA) {
        assert_eq!(definition.config_type, *config_type, "{name}");
        let expected = if *name == "flush.messages" { "1" } else { default };
        assert_eq!(definition.default, Some(expected), "{name}");
        let names: Vec<_> = definition.synonyms.iter().map(|synonym| synonym.name).collect();
        let expected = if *name == "remote.storage.enable" { "firn.remote.storage.enable" } else { synonyms };
        assert_eq!(names.join(","), expected, "{name}");
        assert!(definition.doc.ends_with('.') && definition.doc.len() > 20, "{name}");
    }
}

#[test]
fn every_default_is_allowed_and_is_the_struct_s_default() {
    let mut config = TopicConfig::default();
    for definition in definitions() {
        let value = definition.parse(definition.default.unwrap()).unwrap();
        config.set(definition.name, &value).unwrap_or_else(|| panic!("{} is not set", definition.name));
    }
    assert_eq!(config, TopicConfig::default());
    assert_eq!(resolve(&[], &BrokerConfig::default()).unwrap(), TopicConfig::default());
}

#[test]
fn every_config_changes_its_own_field_or_is_refused_with_its_reason() {
    let broker = broker(&[("firn.store.url", "memory:")]);
    let others = |config_type, name| match (config_type, name) {
        (Boolean, _) => "true",
        (Double, _) => "0.25",
        (List, "cleanup.policy") => "compact",
        (List, _) => "*",
        (_, "compression.type") => "zstd",
        (_, "message.timestamp.type") => "LogAppendTime",
        (_, "segment.bytes") => "2097152",
        _ => "7",
    };
    for definition in definitions() {
        let value = others(definition.config_type, definition.name);
        let resolved = resolve(&[(definition.name, value)], &broker);
        match definition.support {
            Support::Obeyed => assert_ne!(resolved.unwrap(), TopicConfig::default(), "{}", definition.name),
            Support::Refused(reason) => {
                let error = resolved.unwrap_err().to_string();
                assert!(error.contains(reason) && error.contains(definition.name), "{error}");
                resolve(&[(definition.name, definition.default.unwrap())], &broker).unwrap();
            }
        }
    }
}

#[test]
fn an_error_names_key_value_and_what_is_allowed() {
    let broker = broker(&[]);
    for (name, value, says) in [
        ("retention.ms", "-2", "at least -1"),
        ("retention.ms", "a week", "not a number"),
        ("cleanup.policy", "shred", "compact, delete"),
        ("segment.bytes", "1000", "at least 1048576"),
        ("compression.type", "brotli", "zstd"),
        ("remote.storage.enable", "true", "firn.store.url"),
        ("retention.m", "1", "retention.ms"),
        ("message.format.version", "2.0", "Unknown topic config"),
    ] {
        let error = resolve(&[(name, value)], &broker).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(says), "{error}");
        assert!(error.contains(value) || error.contains("Unknown"), "{error}");
    }
}

#[test]
fn values_that_contradict_each_other_are_refused() {
    let broker = broker(&[("firn.store.url", "memory:")]);
    let tiered = ("remote.storage.enable", "true");
    for (overrides, good) in [
        (&[("min.compaction.lag.ms", "10"), ("max.compaction.lag.ms", "9")][..], false),
        (&[("min.compaction.lag.ms", "9"), ("max.compaction.lag.ms", "9")], true),
        (&[tiered, ("local.retention.ms", "10"), ("retention.ms", "9")], false),
        (&[tiered, ("local.retention.ms", "-1"), ("retention.ms", "9")], false),
        (&[tiered, ("local.retention.ms", "-1"), ("retention.ms", "-1")], true),
        (&[tiered, ("local.retention.ms", "-2"), ("retention.ms", "9")], true),
        (&[tiered, ("local.retention.bytes", "10"), ("retention.bytes", "9")], false),
        (&[tiered, ("local.retention.bytes", "10"), ("retention.bytes", "-1")], true),
        (&[tiered, ("remote.log.copy.disable", "true"), ("local.retention.ms", "5")], false),
        (&[tiered, ("remote.log.copy.disable", "true")], true),
        (&[tiered, ("cleanup.policy", "compact,delete")], true),
        (&[tiered, ("cleanup.policy", "compact")], true),
        // Without a tier the local limits rule nothing, and are kept for the day that it is switched on.
        (&[("local.retention.ms", "10"), ("retention.ms", "9")], true),
    ] {
        assert_eq!(resolve(overrides, &broker).is_ok(), good, "{overrides:?}");
    }
}

#[test]
fn local_retention_is_the_whole_unless_the_tier_has_the_rest() {
    let broker = broker(&[("firn.store.url", "memory:")]);
    let local = [
        ("local.retention.ms", "5"),
        ("local.retention.bytes", "6"),
        ("retention.ms", "50"),
        ("retention.bytes", "60"),
    ];
    let off = resolve(&local, &broker).unwrap();
    assert_eq!((off.effective_local_retention_ms(), off.effective_local_retention_bytes()), (50, 60));
    let on = resolve(&[&local[..], &[("remote.storage.enable", "true")]].concat(), &broker).unwrap();
    assert_eq!((on.effective_local_retention_ms(), on.effective_local_retention_bytes()), (5, 6));
}

#[test]
fn broker_defaults_reach_the_topic_by_the_strongest_synonym() {
    for (properties, retention_ms) in [
        (&[("log.retention.hours", "1")][..], 3_600_000),
        (&[("log.retention.hours", "1"), ("log.retention.minutes", "2")], 120_000),
        (&[("log.retention.hours", "1"), ("log.retention.minutes", "2"), ("log.retention.ms", "3")], 3),
        (&[("log.retention.hours", "-5")], -1),
    ] {
        assert_eq!(resolve(&[], &broker(properties)).unwrap().retention_ms, retention_ms, "{properties:?}");
    }
    let rolled = broker(&[
        ("log.roll.hours", "2"),
        ("log.roll.jitter.ms", "5"),
        ("log.flush.scheduler.interval.ms", "9"),
    ]);
    let config = resolve(&[("retention.ms", "8")], &rolled).unwrap();
    assert_eq!(
        (config.segment_ms, config.segment_jitter_ms, config.flush_ms, config.retention_ms),
        (7_200_000, 5, 9, 8)
    );
}

#[test]
fn an_existing_topic_keeps_what_was_set_whatever_became_of_the_broker() {
    let overrides = |pairs: &[(&str, &str)]| -> BTreeMap<std::string::String, std::string::String> {
        pairs.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect()
    };
    let without_store = BrokerConfig::default();
    let tiered = overrides(&[("retention.ms", "-1"), ("remote.storage.enable", "true")]);
    assert!(TopicConfig::resolve(&tiered, &without_store).is_err());
    let (config, left_out) = TopicConfig::of_existing(&tiered, &without_store);
    assert_eq!((config.retention_ms, config.remote_storage_enable, left_out.len()), (-1, true, 0));

    let mut later = BrokerConfig::default();
    later.topic_defaults.min_compaction_lag_ms = 120_000;
    let compacted = overrides(&[("cleanup.policy", "compact"), ("max.compaction.lag.ms", "60000")]);
    assert!(TopicConfig::resolve(&compacted, &later).is_err());
    let (config, left_out) = TopicConfig::of_existing(&compacted, &later);
    assert!(config.cleanup_policy.compact && !config.cleanup_policy.delete);
    assert_eq!((config.max_compaction_lag_ms, left_out.len()), (60_000, 0));

    let newer = overrides(&[("retention.ms", "-1"), ("of.the.future", "1"), ("segment.bytes", "many")]);
    let (config, left_out) = TopicConfig::of_existing(&newer, &without_store);
    assert_eq!((config.retention_ms, left_out.len()), (-1, 2), "{left_out:?}");
}
