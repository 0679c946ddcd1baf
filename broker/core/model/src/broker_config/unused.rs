//! Kafka's broker configs that this broker knows but does not obey, and why: in a file they are taken with a warning, or,
//! where going on without them would be unsafe, refused.

/// What a known config that is not obeyed leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unused {
    /// Goes on with a warning that ends in this reason.
    Ignored(&'static str),
    /// Does not start with any value but an empty one or `harmless`, because of this reason.
    Refused { harmless: &'static [&'static str], reason: &'static str },
}

struct Group {
    unused: Unused,
    names: &'static [&'static str],
    /// All names that begin so.
    prefixes: &'static [&'static str],
}

/// Every exact name, for suggestions.
pub(crate) fn unused_names() -> impl Iterator<Item = &'static str> {
    GROUPS.iter().flat_map(|group| group.names.iter().copied())
}

/// Why this config is not obeyed; `None` if it is not one of Kafka's.
pub(crate) fn find(name: &str) -> Option<Unused> {
    let exact = GROUPS.iter().find(|group| group.names.contains(&name));
    exact
        .or_else(|| GROUPS.iter().find(|group| group.prefixes.iter().any(|prefix| name.starts_with(prefix))))
        .map(|group| group.unused)
}

const fn ignored(
    reason: &'static str,
    names: &'static [&'static str],
    prefixes: &'static [&'static str],
) -> Group {
    Group { unused: Unused::Ignored(reason), names, prefixes }
}

static GROUPS: &[Group] = &[
    ignored(
        "there is no ZooKeeper here: the brokers keep their own metadata",
        &[
            "zookeeper.connect",
            "zookeeper.connection.timeout.ms",
            "zookeeper.session.timeout.ms",
            "zookeeper.set.acl",
            "zookeeper.max.in.flight.requests",
            "zookeeper.metadata.migration.enable",
        ],
        &["zookeeper."],
    ),
    ignored(
        "there is no Java virtual machine here, so no Java class can be loaded",
        &[
            "metric.reporters",
            "kafka.metrics.reporters",
            "kafka.metrics.polling.interval.secs",
            "auto.include.jmx.reporter",
            "metrics.num.samples",
            "metrics.recording.level",
            "metrics.sample.window.ms",
            "security.providers",
            "client.quota.callback.class",
            "remote.log.metadata.manager.class.name",
            "remote.log.metadata.manager.class.path",
            "remote.log.metadata.manager.impl.prefix",
            "remote.log.metadata.manager.listener.name",
            "remote.log.storage.manager.class.name",
            "remote.log.storage.manager.class.path",
            "remote.log.storage.manager.impl.prefix",
            "remote.log.metadata.custom.metadata.max.bytes",
            "group.share.persister.class.name",
        ],
        &["rlmm.config.", "rsm.config."],
    ),
    ignored("the broker's file alone names them", &["config.providers"], &["config.providers."]),
    ignored(
        "the runtime sizes its threads by the machine's cores",
        &[
            "num.network.threads",
            "num.io.threads",
            "background.threads",
            "num.replica.alter.log.dirs.threads",
            "group.coordinator.threads",
            "group.coordinator.background.threads",
            "share.coordinator.threads",
            "remote.log.manager.thread.pool.size",
            "remote.log.manager.expiration.thread.pool.size",
            "remote.log.manager.follower.thread.pool.size",
        ],
        &[],
    ),
    ignored(
        "no request waits in a queue, since a connection reads its next one when the last was worked on; queued.max.request.bytes bounds the memory of all",
        &["queued.max.requests"],
        &[],
    ),
    ignored(
        "waiting requests are dropped the moment they are done, so there is nothing to purge",
        &[
            "fetch.purgatory.purge.interval.requests",
            "producer.purgatory.purge.interval.requests",
            "delete.records.purgatory.purge.interval.requests",
            "share.fetch.purgatory.purge.interval.requests",
        ],
        &[],
    ),
    ignored(
        "a broker fetches from each other one over one connection, and tries again at once",
        &[
            "num.replica.fetchers",
            "replica.fetch.backoff.ms",
            "replica.socket.receive.buffer.bytes",
            "replica.socket.timeout.ms",
        ],
        &[],
    ),
    ignored(
        "high watermarks are written with the offsets of log.flush.offset.checkpoint.interval.ms",
        &["replica.high.watermark.checkpoint.interval.ms"],
        &[],
    ),
    ignored(
        "a broker that stops always has others lead first, and brokers speak by controller.listener.names or the clients' listeners",
        &[
            "inter.broker.listener.name",
            "inter.broker.protocol.version",
            "controlled.shutdown.enable",
            "controlled.shutdown.max.retries",
            "controlled.shutdown.retry.backoff.ms",
            "controller.socket.timeout.ms",
            "unclean.leader.election.interval.ms",
            "follower.fetch.last.tiered.offset.enable",
            "early.start.listeners",
            "request.timeout.ms",
            "socket.connection.setup.timeout.ms",
            "socket.connection.setup.timeout.max.ms",
        ],
        &[],
    ),
    ignored(
        "replicas do not move between the directories of a broker yet",
        &[
            "alter.log.dirs.replication.quota.window.num",
            "alter.log.dirs.replication.quota.window.size.seconds",
            "replica.alter.log.dirs.io.max.bytes.per.second",
        ],
        &[],
    ),
    ignored(
        "Kafka 4 has it no more: every partition whose preferred leader is in sync is given back to it",
        &["leader.imbalance.per.broker.percentage"],
        &[],
    ),
    ignored(
        "elections and the metadata log have limits of their own, and a broker registers when it is ready",
        &[
            "initial.broker.registration.timeout.ms",
            "metadata.log.dir",
            "metadata.log.segment.bytes",
            "metadata.log.segment.ms",
            "metadata.max.idle.interval.ms",
            "metadata.max.retention.bytes",
            "metadata.max.retention.ms",
            "server.max.startup.time.ms",
            "broker.id.generation.enable",
            "reserved.broker.max.id",
        ],
        &["controller.quorum.", "controller.quota.", "controller.performance.", "internal.metadata."],
    ),
    ignored(
        "quotas are not served yet",
        &[
            "quota.window.num",
            "quota.window.size.seconds",
            "max.connection.creation.rate",
            "quota.producer.default",
            "quota.consumer.default",
        ],
        &[],
    ),
    ignored(
        "copies and cold reads are spread evenly over time, and not measured in windows",
        &["replication.quota.window.num", "replication.quota.window.size.seconds"],
        &["remote.log.manager.copy.quota.", "remote.log.manager.fetch.quota."],
    ),
    ignored(
        "transactions are not served yet",
        &[
            "transaction.max.timeout.ms",
            "transactional.id.expiration.ms",
            "transaction.partition.verification.enable",
            "transaction.state.log.replication.factor",
            "transaction.state.log.min.isr",
            "transaction.state.log.num.partitions",
            "transaction.state.log.segment.bytes",
            "transaction.state.log.load.buffer.size",
            "transaction.abort.timed.out.transaction.cleanup.interval.ms",
            "transaction.remove.expired.transaction.cleanup.interval.ms",
            "transaction.two.phase.commit.enable",
        ],
        &["add.partitions.to.txn.", "transaction."],
    ),
    ignored(
        "groups of the consumer, share and streams protocols are not served yet",
        &[
            "group.coordinator.rebalance.protocols",
            "group.coordinator.new.enable",
            "group.coordinator.append.linger.ms",
            "group.coordinator.cached.buffer.max.bytes",
        ],
        &["group.consumer.", "group.share.", "group.streams.", "share.coordinator."],
    ),
    ignored(
        "offsets are loaded in pieces of a fixed size, and acknowledged when every replica has them",
        &["offsets.load.buffer.size", "offsets.commit.required.acks"],
        &[],
    ),
    ignored(
        "a log's start is written down, durably, at the moment it moves",
        &["log.flush.start.offset.checkpoint.interval.ms"],
        &[],
    ),
    ignored(
        "compaction reads and writes in pieces of a fixed size",
        &["log.cleaner.io.buffer.size", "log.cleaner.io.buffer.load.factor"],
        &[],
    ),
    ignored(
        "indexes are read from the objects they are in, through the cache of firn.store.cache.bytes",
        &["remote.log.index.file.cache.total.size.bytes", "remote.log.index.file.cache.ttl.ms"],
        &["remote.log.manager.task.retry."],
    ),
    ignored(
        "delegation tokens and client telemetry are not served yet",
        &["delegation.token.secret.key", "delegation.token.master.key", "telemetry.max.bytes"],
        &["delegation.token."],
    ),
    ignored(
        "a log directory is out of service, with its partitions, from its failure until the next start, and for no other reason",
        &["log.dir.failure.timeout.ms", "log.initial.task.delay.ms"],
        &[],
    ),
    ignored(
        "Kafka 4 has it no more: records are stored in format 2 whatever it says, and old clients are converted for",
        &[
            "log.message.format.version",
            "log.message.downconversion.enable",
            "log.message.timestamp.difference.max.ms",
        ],
        &[],
    ),
    ignored(
        "what this broker serves does not hang on it",
        &[
            "unstable.api.versions.enable",
            "unstable.feature.versions.enable",
            "connection.failed.authentication.delay.ms",
            "connections.max.reauth.ms",
            "password.encoder.secret",
            "principal.builder.class",
        ],
        &["password.encoder."],
    ),
    ignored(
        "no listener uses TLS or SASL, which are not served yet",
        &[
            "ssl.keystore.location",
            "ssl.keystore.password",
            "ssl.key.password",
            "ssl.truststore.location",
            "ssl.truststore.password",
            "ssl.enabled.protocols",
            "ssl.cipher.suites",
            "ssl.keystore.type",
            "ssl.truststore.type",
            "sasl.enabled.mechanisms",
            "sasl.jaas.config",
            "sasl.mechanism.inter.broker.protocol",
            "sasl.mechanism.controller.protocol",
        ],
        &["ssl.", "sasl.", "listener.name."],
    ),
    Group {
        unused: Unused::Refused {
            harmless: &["PLAINTEXT"],
            reason: "only PLAINTEXT is spoken yet, and serving in the clear what was meant to be encrypted would be worse than not starting",
        },
        names: &["security.inter.broker.protocol"],
        prefixes: &[],
    },
    Group {
        unused: Unused::Refused {
            harmless: &[],
            reason: "access control is not served yet, and serving everyone what was meant to be guarded would be worse than not starting",
        },
        names: &["authorizer.class.name", "super.users", "allow.everyone.if.no.acl.found"],
        prefixes: &[],
    },
    Group {
        unused: Unused::Refused {
            harmless: &[],
            reason: "a policy is a Java class, which cannot be loaded here, and topics would go unchecked",
        },
        names: &["create.topic.policy.class.name", "alter.config.policy.class.name"],
        prefixes: &[],
    },
];
