//! Which source is reported, and which synonyms, for every way of setting a config.

use super::*;

fn map(properties: &[(&str, &str)]) -> BTreeMap<String, String> {
    properties.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

fn broker(properties: &[(&str, &str)]) -> BrokerConfig {
    BrokerConfig::from_properties(&map(properties)).unwrap().config
}

/// `value source: name=value source, …`
fn shown(entries: &[ConfigEntry], name: &str) -> String {
    let entry = entries.iter().find(|entry| entry.name == name).unwrap();
    let synonyms: Vec<_> = entry
        .synonyms
        .iter()
        .map(|synonym| {
            format!("{}={} {:?}", synonym.name, synonym.value.as_deref().unwrap_or("null"), synonym.source)
        })
        .collect();
    format!("{} {:?}: {}", entry.value.as_deref().unwrap_or("null"), entry.source, synonyms.join(", "))
}

#[test]
fn a_topic_s_config_tells_who_set_it() {
    let file = broker(&[("log.retention.hours", "1"), ("log.segment.bytes", "2097152")]);
    let dynamic = file
        .with_dynamic(&map(&[("log.segment.bytes", "3145728")]), &map(&[("log.retention.ms", "7")]))
        .unwrap();
    for (overrides, config, name, expected) in [
        (&[][..], &BrokerConfig::default(), "retention.ms", "604800000 Default: "),
        (
            &[],
            &BrokerConfig::default(),
            "segment.bytes",
            "1073741824 Default: log.segment.bytes=1073741824 Default",
        ),
        (&[], &BrokerConfig::default(), "flush.messages", "1 Default: log.flush.interval.messages=1 Default"),
        (&[], &file, "retention.ms", "3600000 StaticBroker: log.retention.hours=1 StaticBroker"),
        (
            &[],
            &dynamic,
            "retention.ms",
            "7 DynamicBroker: log.retention.ms=7 DynamicBroker, log.retention.hours=1 StaticBroker",
        ),
        (
            &[("segment.bytes", " 4194304 ")],
            &dynamic,
            "segment.bytes",
            "4194304 DynamicTopic: segment.bytes=4194304 DynamicTopic, log.segment.bytes=3145728 DynamicDefaultBroker, \
             log.segment.bytes=2097152 StaticBroker, log.segment.bytes=1073741824 Default",
        ),
        (
            &[("remote.log.copy.disable", "TRUE")],
            &file,
            "remote.log.copy.disable",
            "true DynamicTopic: remote.log.copy.disable=true DynamicTopic",
        ),
    ] {
        let entries = describe_topic(&map(overrides), config);
        assert_eq!(shown(&entries, name), expected, "{overrides:?}");
    }
}

#[test]
fn a_topic_reports_what_it_obeys() {
    let config = broker(&[("log.retention.hours", "-7"), ("log.retention.bytes", "5")]);
    let entries = describe_topic(&BTreeMap::new(), &config);
    assert_eq!(entries.len(), topic::definitions().len());
    let value = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().value.clone().unwrap();
    assert_eq!(value("retention.ms"), config.topic_defaults.retention_ms.to_string());
    assert_eq!(value("retention.bytes"), "5");
    assert!(entries.iter().all(|entry| !entry.read_only && !entry.sensitive && entry.value.is_some()));
}

#[test]
fn a_broker_s_config_tells_who_set_it_and_whether_it_may_change() {
    let config = broker(&[("num.partitions", "3")])
        .with_dynamic(&map(&[("max.connections", "9")]), &map(&[("max.connections", "8")]))
        .unwrap();
    let entries = describe_broker(&config);
    assert_eq!(
        shown(&entries, "num.partitions"),
        "3 StaticBroker: num.partitions=3 StaticBroker, num.partitions=1 Default"
    );
    assert_eq!(
        shown(&entries, "max.connections"),
        "8 DynamicBroker: max.connections=8 DynamicBroker, max.connections=9 DynamicDefaultBroker, \
         max.connections=2147483647 Default"
    );
    assert_eq!(shown(&entries, "log.dirs"), "null Default: ");
    assert_eq!(shown(&entries, "node.id"), "0 Default: ");
    assert_eq!(shown(&entries, "advertised.listeners"), "PLAINTEXT://:9092 Default: ");
    let read_only = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().read_only;
    assert!(read_only("num.partitions") && !read_only("max.connections"));
    let defaults = describe_cluster_default(&config);
    assert_eq!(
        shown(&defaults, "max.connections"),
        "9 DynamicDefaultBroker: max.connections=9 DynamicDefaultBroker"
    );
    assert_eq!(defaults.len(), 1);
}

#[test]
fn a_broker_reports_the_address_that_older_keys_gave_it() {
    let entries = describe_broker(&broker(&[("broker.id", "3"), ("port", "9095"), ("host.name", "::1")]));
    let value = |name: &str| entries.iter().find(|entry| entry.name == name).unwrap().value.clone().unwrap();
    assert_eq!((value("node.id"), value("listeners")), ("3".to_owned(), "PLAINTEXT://[::1]:9095".to_owned()));
    assert_eq!(
        (value("firn.http.port"), value("remote.log.storage.system.enable")),
        ("19095".to_owned(), "false".to_owned())
    );
}
