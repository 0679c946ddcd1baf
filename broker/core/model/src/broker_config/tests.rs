//! The table against Apache Kafka 4.3.1's own; and files, good and bad, of today and of old.

use proptest::prelude::*;

use super::definitions::definitions;
use super::kafka::KAFKA;
use super::*;
use crate::config_definition::{Allowed, Support};

fn map(properties: &[(&str, &str)]) -> BTreeMap<String, String> {
    properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn read(properties: &[(&str, &str)]) -> Result<Parsed, ConfigError> {
    BrokerConfig::from_properties(&map(properties))
}

fn config(properties: &[(&str, &str)]) -> BrokerConfig {
    read(properties).unwrap().config
}

#[test]
fn every_config_of_kafka_is_obeyed_or_said_to_be_unused() {
    for row in KAFKA.lines() {
        let name = row.split('|').next().unwrap();
        assert!(definitions::find(name).is_some() || unused::find(name).is_some(), "{name}");
    }
    let both: Vec<_> = unused::unused_names().filter(|name| definitions::find(name).is_some()).collect();
    assert!(both.is_empty(), "{both:?}");
}

#[test]
fn no_batch_is_taken_that_could_not_be_opened_later() {
    let name = "firn.batch.decompressed.max.bytes";
    let most = definitions::BATCH_DECOMPRESSED_BYTES_MAX;
    assert_eq!(config(&[(name, &most.to_string())]).network.batch_decompressed_max_bytes, most as i64);
    let error = read(&[(name, &(most + 1).to_string())]).unwrap_err().to_string();
    assert!(error.contains(name) && error.contains(&most.to_string()), "{error}");
}

#[test]
fn types_defaults_and_what_may_change_are_kafkas() {
    let differ = [
        // Who is lost is missed sooner.
        "broker.heartbeat.interval.ms",
        "broker.session.timeout.ms",
        "controller.quorum.election.timeout.ms",
        "log.flush.interval.messages",
        "queued.max.request.bytes",
        // Who names a rack wants to read there.
        "replica.selector.class",
        "socket.receive.buffer.bytes",
        "socket.send.buffer.bytes",
        // Kafka has no default and asks for a value; here a node is both, and has no quorum to name.
        "controller.listener.names",
        "process.roles",
    ];
    for row in KAFKA.lines() {
        let [name, config_type, default, update, _] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let Some(ours) = definitions::find(name) else { continue };
        assert_eq!(format!("{:?}", ours.config_type).to_uppercase(), config_type, "{name}");
        let expected = Some(default).filter(|text| !["null", "<none>"].contains(text));
        let same = ours.default == expected || differ.contains(&name) || unset_by_choice(name);
        assert!(same, "{name}: {:?} is not {expected:?}", ours.default);
        let read_only = ours.update == Update::ReadOnly;
        assert!(update == "dynamic" || read_only, "{name} cannot change in Kafka");
    }
}

/// Kafka's default is what the absence of a value leads to.
fn unset_by_choice(name: &str) -> bool {
    name == "remote.log.storage.system.enable"
}

#[test]
fn the_table_is_in_order_and_each_default_is_allowed() {
    assert!(definitions().windows(2).all(|pair| pair[0].name < pair[1].name));
    for definition in definitions() {
        if let Some(default) = definition.default {
            definition.parse(default).unwrap();
        }
        assert!(definition.doc.ends_with('.'), "{}", definition.name);
    }
    assert_eq!(BrokerConfig::default().topic_defaults, TopicConfig::default());
}

#[test]
fn topics_and_brokers_agree_on_their_defaults() {
    for topic in topic_config::definitions::definitions() {
        for synonym in topic.synonyms {
            let broker = definition(synonym.name).unwrap();
            let support =
                matches!(topic.support, Support::Refused(_)) == matches!(broker.support, Support::Refused(_));
            assert!(support, "{}", synonym.name);
            if let Some(default) = broker.default {
                let value = scaled(synonym, default).unwrap().to_string();
                assert_eq!(Some(value.as_str()), topic.default, "{}", synonym.name);
            }
        }
    }
}

#[test]
fn a_file_of_old_is_read() {
    let text = "broker.id=1\nport=9093\nlog.dirs=/tmp/kafka-logs-1\nzookeeper.connect=localhost:2181\n\
                num.network.threads=3\nlog.retention.hours=168\nlog.cleaner.enable=true\n";
    let parsed = BrokerConfig::from_properties(&crate::properties::parse(text).unwrap()).unwrap();
    assert_eq!(parsed.config.node_id, 1);
    let listener = Listener { name: "PLAINTEXT".to_owned(), host: String::new(), port: 9093 };
    assert_eq!(parsed.config.listeners, [listener]);
    assert_eq!(parsed.config.log_dirs, [PathBuf::from("/tmp/kafka-logs-1")]);
    assert_eq!(parsed.config.http, Some(HttpSettings { host: String::new(), port: 19_093 }));
    let warned = |name: &str| parsed.warnings.iter().any(|warning| warning.contains(name));
    assert!(warned("zookeeper.connect") && warned("num.network.threads"), "{:?}", parsed.warnings);
    assert_eq!(parsed.warnings.len(), 2);
}

#[test]
fn a_file_of_kraft_is_read_when_it_is_this_node_alone() {
    let kraft = [
        ("process.roles", "broker,controller"),
        ("node.id", "1"),
        ("controller.quorum.voters", "1@localhost:9093"),
        ("controller.listener.names", "CONTROLLER"),
        ("listeners", "PLAINTEXT://:9092,CONTROLLER://:9093"),
        ("advertised.listeners", "PLAINTEXT://localhost:9092,CONTROLLER://localhost:9093"),
        ("inter.broker.listener.name", "PLAINTEXT"),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SSL:SSL"),
        ("log.dirs", "/data"),
    ];
    let parsed = read(&kraft).unwrap();
    assert_eq!((parsed.config.node_id, parsed.config.listeners.len()), (1, 1));
    let advertised = &parsed.config.advertised_listeners;
    assert_eq!((advertised.len(), advertised[0].host.as_str()), (1, "localhost"));
    assert!(
        parsed.warnings.iter().any(|warning| warning.contains("9093 is not opened")),
        "{:?}",
        parsed.warnings
    );
}

#[test]
fn a_cluster_is_named_broker_by_broker() {
    let listeners = "PLAINTEXT://:9092,CONTROLLER://:9093";
    let cluster = [
        ("node.id", "1"),
        ("controller.quorum.voters", "2@b:9093, 0@a:9093,1@[::1]:9093"),
        ("controller.listener.names", "CONTROLLER"),
        ("listeners", listeners),
        ("listener.security.protocol.map", "CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT"),
        ("log.dirs", "/data"),
    ];
    let parsed = read(&cluster).unwrap();
    let voters = parsed.config.quorum.voters.iter().map(|voter| (voter.broker_id, &*voter.address));
    assert_eq!(voters.collect::<Vec<_>>(), [(0, "a:9093"), (1, "[::1]:9093"), (2, "b:9093")]);
    assert_eq!(parsed.config.controller_listeners[0].port, 9093);
    assert_eq!(parsed.config.advertised_listeners.len(), 1);
    assert_eq!(parsed.warnings, Vec::<String>::new());
}

#[test]
fn a_bad_value_names_key_value_and_what_is_allowed() {
    for (key, value, says) in [
        ("num.partitions", "0", "at least 1"),
        ("num.partitions", "many", "number"),
        ("auto.create.topics.enable", "on", "true or false"),
        ("log.retention.ms", "0", "at least 1"),
        ("listeners", "SSL://:9093", "PLAINTEXT"),
        ("listeners", "INTERNAL://:9093", "listener.security.protocol.map"),
        ("listeners", "9092", "NAME://host:port"),
        ("listeners", "PLAINTEXT://:99999", "NAME://host:port"),
        ("listeners", "PLAINTEXT://:1,PLAINTEXT://:2", "twice"),
        ("listeners", "", "names no listener"),
        ("advertised.listeners", "PLAINTEXT://0.0.0.0:9092", "name the host"),
        ("advertised.listeners", "OTHER://a:9092", "not one of the names"),
        ("port", "70000", "65535"),
        ("process.roles", "controller", "must be a broker"),
        ("process.roles", "king", "broker, controller"),
        ("controller.quorum.voters", "0@a:1,b:1", "id@host:port"),
        ("controller.quorum.voters", "0@a:1,1@b", "id@host:port"),
        ("controller.quorum.voters", "0@a:1,1@b:1,1@c:1", "broker 1 stands in it twice"),
        ("controller.quorum.bootstrap.servers", "a:1,b:1", "controller.quorum.voters"),
        ("broker.session.timeout.ms", "500", "broker.heartbeat.interval.ms"),
        ("queued.max.request.bytes", "1000", "socket.request.max.bytes"),
        ("default.replication.factor", "40000", "32767"),
        ("group.min.session.timeout.ms", "1900000", "group.max.session.timeout.ms"),
        ("log.dirs", "/a,,/b", "directories"),
        ("firn.store.url", "ftp://x", "s3://bucket/prefix"),
        ("firn.http.port", "65536", "between -1 and 65535"),
        ("firn.remote.storage.enable", "true", "firn.store.url"),
        ("remote.log.storage.system.enable", "true", "firn.store.url"),
        ("max.connections.per.ip.overrides", "127.0.0.1", "address:count"),
        (
            "authorizer.class.name",
            "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "access control",
        ),
        ("security.inter.broker.protocol", "SSL", "PLAINTEXT"),
        ("unclean.leader.election.enable", "true", "refused"),
    ] {
        let error = read(&[(key, value)]).unwrap_err().to_string();
        let named = error.contains(key)
            || (key.starts_with("firn.remote") && error.contains("remote.storage.enable"));
        assert!(named && error.contains(value) && error.contains(says), "{key}={value}: {error}");
    }
    let error = read(&[("node.id", "1"), ("broker.id", "2")]).unwrap_err().to_string();
    assert!(error.contains("broker.id") && error.contains('2'), "{error}");
}

#[test]
fn an_unknown_key_is_a_warning_that_names_it_and_its_neighbour() {
    let warnings =
        read(&[("log.dirs", "/a"), ("log.retention.hour", "1"), ("wings", "secret")]).unwrap().warnings;
    assert_eq!(
        warnings,
        [
            "Unknown broker config name: log.retention.hour (did you mean log.retention.hours?); it has no effect.",
            "Unknown broker config name: wings; it has no effect.",
        ]
    );
}

#[test]
fn listeners_are_read_with_their_hosts() {
    let read = config(&[
        ("listeners", "plaintext://[::1]:9092, IN://0.0.0.0:0"),
        ("listener.security.protocol.map", "PLAINTEXT:PLAINTEXT,IN:PLAINTEXT"),
        ("advertised.listeners", "IN://broker-0.brokers:1"),
    ]);
    let shown = |listeners: &[Listener]| {
        listeners.iter().map(|l| format!("{} {} {}", l.name, l.host, l.port)).collect::<Vec<_>>()
    };
    assert_eq!(shown(&read.listeners), ["PLAINTEXT ::1 9092", "IN 0.0.0.0 0"]);
    assert_eq!(shown(&read.advertised_listeners), ["IN broker-0.brokers 1", "PLAINTEXT ::1 9092"]);
    let old = config(&[
        ("host.name", "10.0.0.1"),
        ("port", "7"),
        ("advertised.host.name", "b"),
        ("advertised.port", "8"),
    ]);
    assert_eq!(shown(&old.listeners), ["PLAINTEXT 10.0.0.1 7"]);
    assert_eq!(shown(&old.advertised_listeners), ["PLAINTEXT b 8"]);
    assert_eq!(config(&[("firn.http.port", "-1")]).http, None);
}

#[test]
fn dynamic_configs_lie_over_the_file_own_over_the_cluster_s() {
    let file = config(&[("log.retention.ms", "1000"), ("max.connections", "10")]);
    let both = file
        .with_dynamic(
            &map(&[("log.retention.ms", "2000"), ("max.connections", "20")]),
            &map(&[("max.connections", "30")]),
        )
        .unwrap();
    assert_eq!((both.topic_defaults.retention_ms, both.network.max_connections), (2000, 30));
    assert_eq!(both.with_dynamic(&BTreeMap::new(), &BTreeMap::new()).unwrap(), file);
    let error = file.with_dynamic(&map(&[("max.connections", "x")]), &BTreeMap::new()).unwrap_err();
    assert!(error.to_string().contains("max.connections"), "{error}");
}

#[test]
fn what_may_change_while_the_broker_runs_is_told() {
    let check = BrokerConfig::check_dynamic;
    check("max.connections", Some("5"), true).unwrap();
    check("log.retention.ms", None, false).unwrap();
    for (name, value, says) in [
        ("max.connections", "-1", "at least 0"),
        ("num.partitions", "5", "restart"),
        ("num.io.threads", "5", "no effect"),
        ("wings", "5", "Unknown"),
    ] {
        let error = check(name, Some(value), false).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(says), "{error}");
    }
}

proptest! {
    /// Whatever stands in a file: it is read, warned of or refused, and a value that is taken is reported.
    #[test]
    fn no_value_of_any_key_breaks_the_reader(
        index in 0..definitions().len(),
        value in prop_oneof!["-?[0-9]{1,20}", "[A-Za-z:/,.@*\\[\\]_-]{0,20}", "([A-Z]{1,3}://[a-z.:]{0,4}:[0-9]{1,6},?){1,3}", any::<String>()],
    ) {
        let name = definitions()[index].name;
        match read(&[(name, &value)]) {
            Ok(parsed) => {
                let entries = crate::config_entry::describe_broker(&parsed.config);
                let entry = entries.iter().find(|entry| entry.name == name).unwrap();
                prop_assert_eq!(entry.source, layers::ConfigSource::StaticBroker);
                crate::config_entry::describe_topic(&BTreeMap::new(), &parsed.config);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }
}

#[test]
fn a_bad_value_of_a_config_that_has_no_effect_is_refused_as_kafka_does() {
    #[rustfmt::skip] // one config a line
    let bad = [
        ("num.network.threads", "lots", "not a number of type int (32 bits); allowed is at least 1"),
        ("num.io.threads", "0", "allowed is at least 1"),
        ("controller.quorum.election.timeout.ms", "3000000000", "not a number of type int"),
        ("controlled.shutdown.enable", "yes", "not a boolean; allowed is true or false"),
        ("group.share.delivery.count.limit", "11", "allowed is between 2 and 10"),
        ("remote.log.manager.task.retry.jitter", "0.6", "allowed is between 0 and 0.5"),
        ("transaction.state.log.min.isr", "", "not a number"),
    ];
    for (name, value, reason) in bad {
        let error = read(&[(name, value)]).unwrap_err().to_string();
        assert!(error.contains(name) && error.contains(&format!("'{value}'")), "{error}");
        assert!(error.contains(reason), "{error}");
    }
    let good = [
        ("num.network.threads", " 3 "),
        ("controlled.shutdown.enable", "TRUE"),
        ("group.share.delivery.count.limit", "10"),
        ("sasl.enabled.mechanisms", ""),
        ("ssl.keystore.password", "a secret"),
        ("zookeeper.session.timeout.ms", "of a Kafka that had it"),
    ];
    for (name, value) in good {
        let warnings = read(&[(name, value)]).unwrap().warnings.join("\n");
        assert!(warnings.contains(name) && !warnings.contains("secret"), "{warnings}");
    }
}

/// A row that cannot be read would let any value pass.
#[test]
fn every_row_of_kafkas_table_is_read_whole_and_its_default_is_allowed() {
    for row in KAFKA.lines() {
        let [name, config_type, default, _, range] = row.split('|').collect::<Vec<_>>()[..] else {
            panic!("{row}")
        };
        let found = kafka::find(name).unwrap();
        assert_eq!(format!("{:?}", found.config_type).to_uppercase(), config_type, "{row}");
        assert_eq!(range.is_empty(), found.allowed == Allowed::Any, "{row}");
        if !["null", "<none>"].contains(&default) {
            found.parse(default).unwrap();
        }
    }
}
