//! Every broker config that this broker obeys: Kafka's under Kafka's names, and those of its own under `firn.`.
//!
//! Names, types, defaults and limits are those of Kafka 4.3's `KafkaConfig`. Some defaults differ, on purpose:
//! `log.flush.interval.messages` is 1 (what is acknowledged is on stable storage), `queued.max.request.bytes` is bounded
//! (hostile clients cannot fill the memory), `socket.send.buffer.bytes` and `socket.receive.buffer.bytes` are the system's
//! (which grow with a connection's delay), and `node.id` is 0 when neither it nor `broker.id` is set.
//! What Kafka knows and this broker does not obey is listed in `unused.rs`.

use super::unused::unused_names;
use crate::config_definition::{Allowed, ConfigDefinition, ConfigError, ConfigType, nearest};
use crate::topic_config::definitions::{
    CLEANUP_POLICIES, COMPRESSION_TYPES, NO_UNCLEAN_ELECTIONS, ONE_LZ4_LEVEL, TIMESTAMP_TYPES,
};

use Allowed::{Any, AtLeast, Between, LevelOrDefault, ListOf, OneOf, Positive, Ratio};
use ConfigType::{Boolean, Double, Int, List, Long, Short, String as Text};

/// No stored batch holds more once decompressed. What takes batches (`firn.batch.decompressed.max.bytes`) is bound by it,
/// so that what opens them later, the cleaner above all, can open every one.
pub const BATCH_DECOMPRESSED_BYTES_MAX: usize = 256 << 20;

/// Which of a broker's log directories get no new replicas (KIP-1066).
pub const CORDONED: &str = "cordoned.log.dirs";
/// Whether a broker is to be emptied.
pub const DRAIN: &str = "firn.broker.drain";
/// Whether a broker has a vote on the metadata.
pub const VOTER: &str = "firn.controller.voter";

/// All broker configs that are obeyed, ordered by name.
pub fn definitions() -> &'static [ConfigDefinition] {
    DEFINITIONS
}

/// The definition of one config, if it is one that is obeyed.
pub fn find(name: &str) -> Option<&'static ConfigDefinition> {
    let index = DEFINITIONS.binary_search_by(|candidate| candidate.name.cmp(name)).ok()?;
    DEFINITIONS.get(index)
}

/// The definition of one config; an unknown name is an error that suggests the nearest one.
pub fn definition(name: &str) -> Result<&'static ConfigDefinition, ConfigError> {
    find(name).ok_or_else(|| unknown(name))
}

/// The error for a name that neither Kafka nor this broker knows.
pub(crate) fn unknown(name: &str) -> ConfigError {
    let known = DEFINITIONS.iter().map(|definition| definition.name).chain(unused_names());
    ConfigError::Unknown {
        scope: "broker",
        name: name.chars().take(200).collect(),
        nearest: nearest(name, known),
    }
}

const fn define(
    name: &'static str,
    config_type: ConfigType,
    default: &'static str,
    allowed: Allowed,
    doc: &'static str,
) -> ConfigDefinition {
    ConfigDefinition::new(name, config_type, Some(default), allowed, doc)
}

/// One that is not set unless someone sets it.
const fn unset(
    name: &'static str,
    config_type: ConfigType,
    allowed: Allowed,
    doc: &'static str,
) -> ConfigDefinition {
    ConfigDefinition::new(name, config_type, None, allowed, doc)
}

/// The only one of Kafka's.
const RACK_AWARE: &str = "org.apache.kafka.common.replica.RackAwareReplicaSelector";
const FOREVER: &str = "9223372036854775807";
const MOST: &str = "2147483647";

#[rustfmt::skip] // one config a line
static DEFINITIONS: &[ConfigDefinition] = &[
    unset("advertised.host.name", Text, Any, "The host that clients are told; advertised.listeners replaces it."),
    unset("advertised.listeners", List, Any, "The addresses that clients are told, as NAME://host:port; listeners, if not set."),
    unset("advertised.port", Int, Between(0, 65_535), "The port that clients are told; advertised.listeners replaces it."),
    define("auto.create.topics.enable", Boolean, "true", Any, "Whether a client's wish for a topic's metadata creates the topic."),
    define("auto.leader.rebalance.enable", Boolean, "true", Any, "Whether partitions are given back, again and again, to the first of their replicas (the preferred leader) once it is in sync."),
    define("broker.heartbeat.interval.ms", Int, "500", AtLeast(1), "How often a broker tells the controller that it is there, in milliseconds. Kafka's default is 2000."),
    define("broker.id", Int, "-1", AtLeast(-1), "This broker's number in the cluster; node.id replaces it."),
    unset("broker.rack", Text, Any, "The rack or zone that this broker stands in; replicas are spread over racks."),
    define("broker.session.timeout.ms", Int, "3000", AtLeast(1), "After how many milliseconds of silence a broker leads nothing any more; others take over what they can. Kafka's default is 9000. Who takes no connections any more is not waited for."),
    define("compression.gzip.level", Int, "-1", LevelOrDefault(1, 9), "Default of the topic config compression.gzip.level.").cluster_wide(),
    define("compression.lz4.level", Int, "9", Between(1, 17), "Default of the topic config compression.lz4.level.").refused(ONE_LZ4_LEVEL).cluster_wide(),
    define("compression.type", Text, "producer", OneOf(COMPRESSION_TYPES), "Default of the topic config compression.type.").cluster_wide(),
    define("compression.zstd.level", Int, "3", Between(-131_072, 22), "Default of the topic config compression.zstd.level.").cluster_wide(),
    define("connections.max.idle.ms", Long, "600000", Any, "After how many milliseconds without a request a connection is closed; -1 is never."),
    define("controller.listener.names", List, "", Any, "Which of the listeners are for the brokers among themselves alone; they are not opened where the cluster is one node."),
    define("controller.quorum.bootstrap.servers", List, "", Any, "Where the controllers are found; controller.quorum.voters says it, and one host:port is accepted beside it."),
    define("controller.quorum.election.timeout.ms", Int, "250", AtLeast(50), "How long the controller may be silent until the others may elect another one, in milliseconds; they do within as long again. Kafka's default is 1000."),
    define("controller.quorum.voters", List, "", Any, "The brokers that decide on the metadata, three or five of them, each as id@host:port, where the others find it. A broker that is not among them finds the cluster by them, and follows the metadata without a vote. Not set: this node alone."),
    define(CORDONED, List, "", ListOf(&["*"]), "*: all log directories of the broker are cordoned, so it gets no new replicas and keeps those that it has (KIP-1066). One of several directories cannot be cordoned. Kept with the cluster's metadata: set it by the broker's id, not in its file.").per_broker(),
    define("default.replication.factor", Int, "1", AtLeast(1), "The replication factor of a topic whose creator did not choose one."),
    define("delete.topic.enable", Boolean, "true", Any, "Whether topics can be deleted."),
    define("fetch.max.bytes", Int, "57671680", AtLeast(1024), "The most that one fetch response carries, in bytes, whatever the client asks for."),
    define("firn.batch.decompressed.max.bytes", Long, "268435456", Between(1 << 20, BATCH_DECOMPRESSED_BYTES_MAX as i64), "The most that one batch may hold once decompressed, in bytes, where the broker has to decompress it."),
    define(DRAIN, Boolean, "false", Any, "Whether the broker is to be emptied: it gets no new replicas, and those that it has move to others, be it there or not, until it can be taken out. Kept with the cluster's metadata: set it by the broker's id, not in its file.").per_broker(),
    define(VOTER, Text, "", OneOf(&["", "true", "false"]), "Whether the broker has a vote on the metadata, whatever controller.quorum.voters says: true gives it one, false takes it away. AddRaftVoter and RemoveRaftVoter set it (kafka-metadata-quorum add-controller, remove-controller). Kept with the cluster's metadata: set it by the broker's id, not in its file.").per_broker(),
    define("firn.disk.reserve.bytes", Long, "268435456", AtLeast(0), "How many bytes of a log directory's disk stay free: writes are refused, with an error that clients retry, before it is fuller."),
    define("firn.fetch.records.bytes", Long, "134217728", Between(1 << 20, u32::MAX as i64), "How much memory holds records of fetch replies that do not go from the page cache to the client: those read from the object store, and those converted for a client before 0.11; over all clients, in bytes."),
    define("firn.fetch.session.bytes", Long, "67108864", AtLeast(0), "How much memory remembers the partitions of fetch sessions, over all clients, in bytes; a client for whose session there is no room goes on without one."),
    define("firn.groups.members.bytes", Long, "268435456", AtLeast(1 << 20), "How much memory the members of all groups may take together with their subscriptions, in bytes. Whoever would take more is told that the group is full."),
    define("firn.http.host", Text, "", Any, "The address that /metrics, /healthz and /readyz are served on; empty is that of the first listener, which may be all of the machine's."),
    unset("firn.http.port", Int, Between(-1, 65_535), "The port of /metrics, /healthz and /readyz: -1 serves none, 0 takes any free one. If not set, the first listener's port + 10000."),
    define("firn.log.dir.mark.interval.ms", Long, "60000", AtLeast(1), "How often a broker that is written to leaves a mark in its log directories, in milliseconds. The controller knows of it, so that a copy of a directory from before, put in its place, is found out.").cluster_wide(),
    define("firn.log.format", Text, "human", OneOf(&["human", "json"]), "How the broker's own log is written."),
    define("firn.log.scrub.interval.ms", Long, "86400000", AtLeast(1), "How long after every log was looked at for what the disk has not kept they are looked at again, in milliseconds.").cluster_wide(),
    define("firn.log.scrub.max.bytes.per.second", Double, "33554432", Positive, "The most bytes a second that are read to look at logs.").cluster_wide(),
    define("firn.partitions.per.request.max", Int, "10000", AtLeast(1), "The most partitions that one request may create."),
    define("firn.remote.storage.enable", Boolean, "false", Any, "Default of the topic config remote.storage.enable.").cluster_wide(),
    define("firn.replica.imbalance.percentage", Int, "10", Between(0, 1000), "By how many percent of the average, and one, two brokers may differ in replicas, in bytes and in partitions that they are to lead, before replicas are moved from one to the other.").cluster_wide(),
    define("firn.replica.moves.max", Int, "50", AtLeast(1), "How many partitions are copied to other brokers at a time, where the cluster itself has decided so.").cluster_wide(),
    define("firn.replica.moves.per.broker.max", Int, "5", AtLeast(1), "In how many such copies a broker takes part at a time, by sending or by getting.").cluster_wide(),
    define("firn.replica.rebalance.check.interval.seconds", Long, "300", AtLeast(1), "How often the controller looks whether replicas are spread evenly over the brokers, in seconds.").cluster_wide(),
    define("firn.replica.rebalance.enable", Boolean, "true", Any, "Whether replicas are moved, a few at a time, until each rack has its share of every partition, and each broker its share of replicas, of bytes and of partitions that it is to lead. Brokers are emptied and lost ones replaced whatever this says.").cluster_wide(),
    define("firn.store.cache.bytes", Long, "134217728", AtLeast(1 << 20), "How much memory holds chunks read from the object store, in bytes."),
    define("firn.store.garbage.grace.ms", Long, "3600000", AtLeast(0), "How old an object that nothing needs must be before it is deleted, in milliseconds."),
    define("firn.store.request.timeout.ms", Long, "30000", AtLeast(1), "The deadline of one operation of the object store, retries included, in milliseconds."),
    unset("firn.store.url", Text, Any, "The object store that cold segments go to: s3://bucket/prefix or file:///path. None: there is no tier."),
    define("follower.replication.throttled.rate", Long, FOREVER, AtLeast(0), "The most bytes a second that this broker fetches of replicas in follower.replication.throttled.replicas, while they are out of sync; what those in sync fetch counts, and is not held back, so the rate has to be above that of what is written (KIP-73).").cluster_wide(),
    define("group.initial.rebalance.delay.ms", Int, "3000", AtLeast(0), "How long a new group waits for more members before its first rebalance, in milliseconds."),
    define("group.max.session.timeout.ms", Int, "1800000", AtLeast(1), "The longest session timeout that a member may ask for, in milliseconds."),
    define("group.max.size", Int, MOST, AtLeast(1), "The most members that a group may have."),
    define("group.min.session.timeout.ms", Int, "6000", AtLeast(1), "The shortest session timeout that a member may ask for, in milliseconds."),
    unset("host.name", Text, Any, "The address to listen on; listeners replaces it."),
    define("leader.imbalance.check.interval.seconds", Long, "300", AtLeast(1), "How often the controller looks for partitions that another than their preferred leader leads, in seconds."),
    define("leader.replication.throttled.rate", Long, FOREVER, AtLeast(0), "The most bytes a second that this broker gives of replicas in leader.replication.throttled.replicas to followers out of sync; what goes to those in sync counts, and is not held back, so the rate has to be above that of what is written (KIP-73).").cluster_wide(),
    define("listener.security.protocol.map", Text, "SASL_SSL:SASL_SSL,PLAINTEXT:PLAINTEXT,SSL:SSL,SASL_PLAINTEXT:SASL_PLAINTEXT", Any, "Which protocol each listener speaks, as NAME:PROTOCOL."),
    define("listeners", List, "PLAINTEXT://:9092", Any, "The addresses to listen on, as NAME://host:port; an empty host is all of the machine's."),
    define("log.cleaner.backoff.ms", Long, "15000", AtLeast(0), "How long the cleaner sleeps when there is nothing to compact, in milliseconds.").cluster_wide(),
    define("log.cleaner.dedupe.buffer.size", Long, "134217728", AtLeast(1 << 20), "The most memory that compaction takes for its map of keys, in bytes.").cluster_wide(),
    define("log.cleaner.delete.retention.ms", Long, "86400000", AtLeast(0), "Default of the topic config delete.retention.ms.").cluster_wide(),
    define("log.cleaner.enable", Boolean, "true", Any, "Whether compacted topics are compacted."),
    define("log.cleaner.io.max.bytes.per.second", Double, "1.7976931348623157E308", Positive, "The most bytes a second that all compactions together read and write.").cluster_wide(),
    define("log.cleaner.max.compaction.lag.ms", Long, FOREVER, AtLeast(1), "Default of the topic config max.compaction.lag.ms.").cluster_wide(),
    define("log.cleaner.min.cleanable.ratio", Double, "0.5", Ratio(0.0, 1.0), "Default of the topic config min.cleanable.dirty.ratio.").cluster_wide(),
    define("log.cleaner.min.compaction.lag.ms", Long, "0", AtLeast(0), "Default of the topic config min.compaction.lag.ms.").cluster_wide(),
    define("log.cleaner.threads", Int, "1", AtLeast(0), "How many logs are compacted at a time.").cluster_wide(),
    define("log.cleanup.policy", List, "delete", ListOf(CLEANUP_POLICIES), "Default of the topic config cleanup.policy.").cluster_wide(),
    define("log.dir", List, "/tmp/kafka-logs", Any, "Where the logs are; log.dirs replaces it."),
    unset("log.dirs", List, Any, "The directories that the logs are in; log.dir, if not set."),
    define("log.flush.interval.messages", Long, "1", AtLeast(1), "Default of the topic config flush.messages.").cluster_wide(),
    unset("log.flush.interval.ms", Long, AtLeast(0), "Default of the topic config flush.ms.").cluster_wide(),
    define("log.flush.offset.checkpoint.interval.ms", Int, "60000", AtLeast(0), "How often the offsets from which a crash's recovery starts are written, in milliseconds."),
    define("log.flush.scheduler.interval.ms", Long, FOREVER, AtLeast(0), "Default of the topic config flush.ms, if log.flush.interval.ms is not set."),
    define("log.index.interval.bytes", Int, "4096", AtLeast(0), "Default of the topic config index.interval.bytes.").cluster_wide(),
    define("log.index.size.max.bytes", Int, "10485760", AtLeast(4), "Default of the topic config segment.index.bytes.").cluster_wide(),
    define("log.local.retention.bytes", Long, "-2", AtLeast(-2), "Default of the topic config local.retention.bytes.").cluster_wide(),
    define("log.local.retention.ms", Long, "-2", AtLeast(-2), "Default of the topic config local.retention.ms.").cluster_wide(),
    define("log.message.timestamp.after.max.ms", Long, "3600000", AtLeast(0), "Default of the topic config message.timestamp.after.max.ms.").cluster_wide(),
    define("log.message.timestamp.before.max.ms", Long, FOREVER, AtLeast(0), "Default of the topic config message.timestamp.before.max.ms.").cluster_wide(),
    define("log.message.timestamp.type", Text, "CreateTime", OneOf(TIMESTAMP_TYPES), "Default of the topic config message.timestamp.type.").cluster_wide(),
    define("log.preallocate", Boolean, "false", Any, "Default of the topic config preallocate.").cluster_wide(),
    define("log.retention.bytes", Long, "-1", Any, "Default of the topic config retention.bytes.").cluster_wide(),
    define("log.retention.check.interval.ms", Long, "300000", AtLeast(1), "How often segments past their retention are looked for, in milliseconds."),
    define("log.retention.hours", Int, "168", Any, "Default of the topic config retention.ms, in hours."),
    unset("log.retention.minutes", Int, Any, "Default of the topic config retention.ms, in minutes; stronger than log.retention.hours."),
    unset("log.retention.ms", Long, Any, "Default of the topic config retention.ms; stronger than log.retention.minutes.").cluster_wide(),
    define("log.roll.hours", Int, "168", AtLeast(1), "Default of the topic config segment.ms, in hours."),
    define("log.roll.jitter.hours", Int, "0", AtLeast(0), "Default of the topic config segment.jitter.ms, in hours."),
    unset("log.roll.jitter.ms", Long, AtLeast(0), "Default of the topic config segment.jitter.ms; stronger than log.roll.jitter.hours.").cluster_wide(),
    unset("log.roll.ms", Long, AtLeast(1), "Default of the topic config segment.ms; stronger than log.roll.hours.").cluster_wide(),
    define("log.segment.bytes", Int, "1073741824", AtLeast(1 << 20), "Default of the topic config segment.bytes.").cluster_wide(),
    define("log.segment.delete.delay.ms", Long, "60000", AtLeast(0), "Default of the topic config file.delete.delay.ms.").cluster_wide(),
    define("max.connections", Int, MOST, AtLeast(0), "The most connections that this broker serves at a time.").cluster_wide(),
    define("max.connections.per.ip", Int, MOST, AtLeast(0), "The most connections that one address may have at a time.").cluster_wide(),
    define("max.connections.per.ip.overrides", Text, "", Any, "Other limits for some addresses, as address:count, separated by commas.").cluster_wide(),
    define("max.incremental.fetch.session.cache.slots", Int, "1000", AtLeast(0), "The most fetch sessions that are kept."),
    define("max.request.partition.size.limit", Int, "2000", AtLeast(1), "The most partitions that one DescribeTopicPartitions response describes."),
    define("message.max.bytes", Int, "1048588", AtLeast(0), "Default of the topic config max.message.bytes.").cluster_wide(),
    define("metadata.log.max.record.bytes.between.snapshots", Long, "20971520", AtLeast(1), "How many bytes are written to the metadata log before a snapshot is taken and the log cut."),
    define("metadata.log.max.snapshot.interval.ms", Long, "3600000", AtLeast(0), "How long a change may be in the metadata log alone before a snapshot is taken of it; 0 is for ever."),
    define("min.insync.replicas", Int, "1", AtLeast(1), "Default of the topic config min.insync.replicas.").cluster_wide(),
    unset("node.id", Int, AtLeast(0), "This node's number in the cluster; broker.id is its older name."),
    define("num.partitions", Int, "1", AtLeast(1), "The number of partitions of a topic whose creator did not choose one."),
    define("num.recovery.threads.per.data.dir", Int, "2", AtLeast(1), "How many logs of a directory are opened, and recovered, at a time."),
    define("offset.metadata.max.bytes", Int, "4096", AtLeast(0), "The longest note that a group may commit with an offset, in bytes."),
    define("offsets.commit.timeout.ms", Int, "5000", AtLeast(1), "How long a commit of offsets may take, in milliseconds."),
    define("offsets.retention.check.interval.ms", Long, "600000", AtLeast(1), "How often expired offsets are looked for, in milliseconds."),
    define("offsets.retention.minutes", Int, "10080", AtLeast(1), "How long the offsets of a group without members are kept, in minutes."),
    define("offsets.topic.compression.codec", Int, "0", Between(0, 4), "The codec of __consumer_offsets: 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd."),
    define("offsets.topic.num.partitions", Int, "50", AtLeast(1), "The number of partitions of __consumer_offsets."),
    define("offsets.topic.replication.factor", Short, "3", AtLeast(1), "The replication factor of __consumer_offsets; the number of brokers, if there are fewer."),
    define("offsets.topic.segment.bytes", Int, "104857600", AtLeast(1), "The segment size of __consumer_offsets, in bytes; segment.bytes' least value, if smaller."),
    unset("port", Int, Between(0, 65_535), "The port to listen on; listeners replaces it."),
    define("process.roles", List, "broker,controller", ListOf(&["broker", "controller"]), "What this node is; broker must be among it."),
    define("producer.id.expiration.check.interval.ms", Int, "600000", AtLeast(1), "How often expired producer ids are looked for, in milliseconds."),
    define("producer.id.expiration.ms", Int, "86400000", AtLeast(1), "How long a partition remembers an idempotent producer that writes no more, in milliseconds.").cluster_wide(),
    define("queued.max.request.bytes", Long, "268435456", AtLeast(-1), "The most bytes of requests that are held at a time, beyond the first 4 KiB of each connection; reading waits when it is reached. -1, Kafka's default, is no limit."),
    define("remote.fetch.max.wait.ms", Int, "500", AtLeast(1), "How long a fetch waits for the object store before it answers without, in milliseconds.").cluster_wide(),
    define("remote.list.offsets.request.timeout.ms", Long, "30000", AtLeast(1), "How long ListOffsets waits for the object store, in milliseconds.").cluster_wide(),
    define("remote.log.manager.copier.thread.pool.size", Int, "10", AtLeast(1), "How many segments are uploaded at a time.").cluster_wide(),
    define("remote.log.manager.copy.max.bytes.per.second", Long, FOREVER, AtLeast(1), "The most bytes a second that are copied to the object store.").cluster_wide(),
    define("remote.log.manager.fetch.max.bytes.per.second", Long, FOREVER, AtLeast(1), "The most bytes a second that are read from the object store for consumers.").cluster_wide(),
    define("remote.log.manager.task.interval.ms", Long, "30000", AtLeast(1), "How often segments to upload, and to drop, are looked for, in milliseconds."),
    define("remote.log.reader.max.pending.tasks", Int, "100", AtLeast(1), "The most reads of the object store that wait; one more is refused with an error that clients retry."),
    define("remote.log.reader.threads", Int, "10", AtLeast(1), "How many reads of the object store run at a time.").cluster_wide(),
    unset("remote.log.storage.system.enable", Boolean, Any, "Whether there is a tier; true when firn.store.url is set, unless this says false."),
    define("replica.fetch.max.bytes", Int, "1048576", AtLeast(0), "The most of one partition that a follower asks for at a time, in bytes; a batch that is larger comes all the same."),
    define("replica.fetch.min.bytes", Int, "1", AtLeast(0), "How many bytes a leader waits for before it answers a follower."),
    define("replica.fetch.response.max.bytes", Int, "10485760", AtLeast(0), "The most that a follower asks one leader for at a time, in bytes."),
    define("replica.fetch.wait.max.ms", Int, "500", AtLeast(1), "How long a leader with nothing new waits before it answers a follower, in milliseconds."),
    define("replica.lag.time.max.ms", Long, "30000", AtLeast(1), "How long a follower may lack records of its leader until it is out of sync, in milliseconds."),
    define("replica.selector.class", Text, RACK_AWARE, OneOf(&[RACK_AWARE, ""]), "Where consumers read that tell their rack (client.rack): from a replica in sync of that rack, as is the default here, or, if this is empty, as is Kafka's, from the leader alone."),
    define("socket.listen.backlog.size", Int, "50", AtLeast(1), "How many connections may wait to be accepted."),
    define("socket.receive.buffer.bytes", Int, "-1", AtLeast(-1), "SO_RCVBUF of connections, in bytes; -1, the default here, lets the system fit it to each connection. Kafka's default is 102400."),
    define("socket.request.max.bytes", Int, "104857600", AtLeast(1), "The largest request that is read, in bytes."),
    define("socket.send.buffer.bytes", Int, "-1", AtLeast(-1), "SO_SNDBUF of connections, in bytes; -1, the default here, lets the system fit it to each connection. Kafka's default is 102400."),
    define("unclean.leader.election.enable", Boolean, "false", Any, "Default of the topic config unclean.leader.election.enable.").refused(NO_UNCLEAN_ELECTIONS).cluster_wide(),
];
