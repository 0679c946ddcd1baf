//! Every topic config of Apache Kafka 4.3: what it is called, what it takes, and what this broker does with it.
//!
//! Names, types, defaults and limits are those of Kafka's `LogConfig`; one default differs, on purpose:
//! `flush.messages` is 1, so that what is acknowledged is on stable storage.

use crate::config_definition::ConfigError;
use crate::config_definition::{Allowed, BrokerSynonym, ConfigDefinition, ConfigType, nearest};

use Allowed::{Any, AtLeast, Between, LevelOrDefault, ListOf, OneOf, Ratio, ThrottledReplicas};
use ConfigType::{Boolean, Double, Int, List, Long, String as Text};

/// All topic configs, ordered by name.
pub fn definitions() -> &'static [ConfigDefinition] {
    DEFINITIONS
}

/// The definition of one config; an unknown name is an error that suggests the nearest one.
pub fn definition(name: &str) -> Result<&'static ConfigDefinition, ConfigError> {
    match DEFINITIONS.binary_search_by(|candidate| candidate.name.cmp(name)) {
        Ok(index) => DEFINITIONS.get(index),
        Err(_) => None,
    }
    .ok_or_else(|| ConfigError::Unknown {
        scope: "topic",
        name: name.chars().take(200).collect(),
        nearest: nearest(name, DEFINITIONS.iter().map(|known| known.name)),
    })
}

/// `cleanup.policy` and its broker synonym take these.
pub(crate) const CLEANUP_POLICIES: &[&str] = &["compact", "delete"];
/// `compression.type` takes these.
pub(crate) const COMPRESSION_TYPES: &[&str] = &["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"];
/// `message.timestamp.type` takes these.
pub(crate) const TIMESTAMP_TYPES: &[&str] = &["CreateTime", "LogAppendTime"];

/// Why levels of LZ4 other than the default are refused, for topics and brokers alike.
pub(crate) const ONE_LZ4_LEVEL: &str = "this broker's LZ4 encoder has a single level";
/// Why unclean elections are refused, for topics and brokers alike.
pub(crate) const NO_UNCLEAN_ELECTIONS: &str =
    "electing a replica that is out of sync loses acknowledged records, and is not served yet";

const fn from(name: &'static str) -> BrokerSynonym {
    BrokerSynonym { name, factor: 1 }
}

const fn from_minutes(name: &'static str) -> BrokerSynonym {
    BrokerSynonym { name, factor: 60_000 }
}

const fn from_hours(name: &'static str) -> BrokerSynonym {
    BrokerSynonym { name, factor: 3_600_000 }
}

const fn define(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    allowed: Allowed,
    synonyms: &'static [BrokerSynonym],
    doc: &'static str,
) -> ConfigDefinition {
    ConfigDefinition::new(name, config_type, Some(default), allowed, doc).synonyms(synonyms).cluster_wide()
}

const FOREVER: &str = "9223372036854775807";

#[rustfmt::skip] // one config a line
static DEFINITIONS: &[ConfigDefinition] = &[
    define("cleanup.policy", List, "delete", ListOf(CLEANUP_POLICIES), &[from("log.cleanup.policy")], "What happens to old segments: delete them past the retention, compact them to the last value of each key, both, or neither when the list is empty."),
    define("compression.gzip.level", Int, "-1", LevelOrDefault(1, 9), &[from("compression.gzip.level")], "The gzip level when compression.type is gzip; -1 is gzip's own default."),
    define("compression.lz4.level", Int, "9", Between(1, 17), &[from("compression.lz4.level")], "The LZ4 level when compression.type is lz4.").refused(ONE_LZ4_LEVEL),
    define("compression.type", Text, "producer", OneOf(COMPRESSION_TYPES), &[from("compression.type")], "The codec that batches are stored in; producer keeps what each producer chose."),
    define("compression.zstd.level", Int, "3", Between(-131_072, 22), &[from("compression.zstd.level")], "The Zstandard level when compression.type is zstd."),
    define("delete.retention.ms", Long, "86400000", AtLeast(0), &[from("log.cleaner.delete.retention.ms")], "How long a compacted topic keeps a tombstone, which is the time a reader has from offset 0 to the end to miss no deletion, in milliseconds."),
    define("file.delete.delay.ms", Long, "60000", AtLeast(0), &[from("log.segment.delete.delay.ms")], "How long a removed segment's files stay on the disk, in milliseconds."),
    define("flush.messages", Long, "1", AtLeast(1), &[from("log.flush.interval.messages")], "After how many records the log is forced to stable storage. 1, the default here, means before each acknowledgement, once for all requests that wait; Kafka's default is 9223372036854775807, which leaves it to the operating system."),
    define("flush.ms", Long, FOREVER, AtLeast(0), &[from("log.flush.interval.ms"), from("log.flush.scheduler.interval.ms")], "After how many milliseconds the log is forced to stable storage, whatever flush.messages says."),
    define("follower.replication.throttled.replicas", List, "", ThrottledReplicas, &[], "Replicas that their brokers fetch no faster than follower.replication.throttled.rate says while they are out of sync: partition:broker pairs, or * for all (KIP-73)."),
    define("index.interval.bytes", Int, "4096", AtLeast(0), &[from("log.index.interval.bytes")], "How many bytes of records lie between two entries of the offset index."),
    define("leader.replication.throttled.replicas", List, "", ThrottledReplicas, &[], "Replicas that their brokers, where they lead, give to followers out of sync no faster than leader.replication.throttled.rate says: partition:broker pairs, or * for all (KIP-73)."),
    define("local.retention.bytes", Long, "-2", AtLeast(-2), &[from("log.local.retention.bytes")], "How many bytes of a tiered partition stay on the local disk once they are in the object store; -2 is retention.bytes."),
    define("local.retention.ms", Long, "-2", AtLeast(-2), &[from("log.local.retention.ms")], "How long the segments of a tiered partition stay on the local disk once they are in the object store, in milliseconds; -2 is retention.ms."),
    define("max.compaction.lag.ms", Long, FOREVER, AtLeast(1), &[from("log.cleaner.max.compaction.lag.ms")], "The longest that a record may go uncompacted, in milliseconds."),
    define("max.message.bytes", Int, "1048588", AtLeast(0), &[from("message.max.bytes")], "The largest batch that is taken, as it is stored (compressed, if it is), in bytes."),
    define("message.timestamp.after.max.ms", Long, "3600000", AtLeast(0), &[from("log.message.timestamp.after.max.ms")], "How far a record's CreateTime may lie ahead of the broker's clock, in milliseconds."),
    define("message.timestamp.before.max.ms", Long, FOREVER, AtLeast(0), &[from("log.message.timestamp.before.max.ms")], "How far a record's CreateTime may lie behind the broker's clock, in milliseconds."),
    define("message.timestamp.type", Text, "CreateTime", OneOf(TIMESTAMP_TYPES), &[from("log.message.timestamp.type")], "Whose clock a record's timestamp is: the producer's (CreateTime) or the broker's (LogAppendTime)."),
    define("min.cleanable.dirty.ratio", Double, "0.5", Ratio(0.0, 1.0), &[from("log.cleaner.min.cleanable.ratio")], "The part of a compacted log that must be new before it is compacted again."),
    define("min.compaction.lag.ms", Long, "0", AtLeast(0), &[from("log.cleaner.min.compaction.lag.ms")], "The shortest that a record stays uncompacted, in milliseconds."),
    define("min.insync.replicas", Int, "1", AtLeast(1), &[from("min.insync.replicas")], "How many replicas, the leader among them, must be in sync for a write with acks=all to be taken."),
    define("preallocate", Boolean, "false", Any, &[from("log.preallocate")], "Whether a new segment reserves its whole space on the disk at once; its length is still that of its records."),
    define("remote.log.copy.disable", Boolean, "false", Any, &[], "Pauses a topic's tier: nothing more is uploaded, what is there stays readable, and the local log keeps the topic's whole retention."),
    define("remote.log.delete.on.disable", Boolean, "false", Any, &[], "Whether switching remote.storage.enable off deletes what the object store holds of the topic. When false, which Kafka refuses, it stays readable until the topic's retention takes it."),
    define("remote.storage.enable", Boolean, "false", Any, &[from("firn.remote.storage.enable")], "Whether sealed segments go to the object store. It can be switched off and on again at any time, with nothing lost."),
    define("retention.bytes", Long, "-1", Any, &[from("log.retention.bytes")], "How many bytes a partition may hold before its oldest segments are deleted; -1 is no limit."),
    define("retention.ms", Long, "604800000", AtLeast(-1), &[from("log.retention.ms"), from_minutes("log.retention.minutes"), from_hours("log.retention.hours")], "How long records are kept before their segments are deleted, in milliseconds; -1 is for ever."),
    define("segment.bytes", Int, "1073741824", AtLeast(1 << 20), &[from("log.segment.bytes")], "The size at which a segment is sealed and a new one begun, in bytes. Retention, compaction and tiering take whole segments."),
    define("segment.index.bytes", Int, "10485760", AtLeast(4), &[from("log.index.size.max.bytes")], "The size of the offset index at which a segment is sealed, in bytes."),
    define("segment.jitter.ms", Long, "0", AtLeast(0), &[from("log.roll.jitter.ms"), from_hours("log.roll.jitter.hours")], "The most by which segment.ms is shortened, at random, so that partitions do not all roll at once, in milliseconds."),
    define("segment.ms", Long, "604800000", AtLeast(1), &[from("log.roll.ms"), from_hours("log.roll.hours")], "The age at which a segment is sealed though it is not full, in milliseconds."),
    define("unclean.leader.election.enable", Boolean, "false", Any, &[from("unclean.leader.election.enable")], "Whether a replica that is out of sync may become leader when no other is left, which loses records.").refused(NO_UNCLEAN_ELECTIONS),
];
