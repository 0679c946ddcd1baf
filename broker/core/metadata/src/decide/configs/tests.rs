//! Each operation on each kind of resource, and every way to be refused.

use super::*;
use crate::decide::lifecycle::fence;
use crate::decide::testing::{apply, code, config, create, image_of, image_with, topic};

use AlterOperation::{Append, Delete, Set, Subtract};
use resource_type::{BROKER, BROKER_LOGGER, CLIENT_METRICS, GROUP, TOPIC};

type Change<'a> = (&'a str, AlterOperation, Option<&'a str>);

fn changes(resource_type: i8, resource_name: &str, changes: &[Change<'_>]) -> ResourceChanges {
    let change = |(name, operation, value): &Change<'_>| ConfigChange {
        name: name.to_string(),
        operation: *operation,
        value: value.map(str::to_owned),
    };
    ResourceChanges {
        resource_type,
        resource_name: resource_name.to_owned(),
        changes: changes.iter().map(change).collect(),
    }
}

fn alter_one(image: &mut Image, wish: ResourceChanges) -> Result<(), DecisionError> {
    let decision = incremental_alter_configs(image, &[wish], false, &BrokerConfig::default());
    apply(image, &decision);
    decision.reply[0].clone()
}

fn overrides(image: &Image, topic: &str) -> String {
    let pairs: Vec<_> =
        image.topic_overrides(topic).iter().map(|(name, value)| format!("{name}={value}")).collect();
    pairs.join(" ")
}

#[test]
fn values_are_set_deleted_appended_and_subtracted() {
    let mut image = image_with(&[("a", 1)]);
    for (steps, expected) in [
        (
            &[("retention.ms", Set, Some("5")), ("segment.ms", Set, Some("6"))][..],
            "retention.ms=5 segment.ms=6",
        ),
        (&[("segment.ms", Delete, None), ("flush.ms", Delete, None)], "retention.ms=5"),
        (&[("nonsense", Delete, None)], "retention.ms=5"),
        (&[("cleanup.policy", Append, Some("compact"))], "cleanup.policy=delete,compact retention.ms=5"),
        (
            &[("cleanup.policy", Append, Some("compact, delete"))],
            "cleanup.policy=delete,compact retention.ms=5",
        ),
        (&[("cleanup.policy", Subtract, Some("delete"))], "cleanup.policy=compact retention.ms=5"),
        (&[("cleanup.policy", Subtract, Some("compact,delete"))], "cleanup.policy= retention.ms=5"),
        (&[("cleanup.policy", Delete, None), ("retention.ms", Delete, None)], ""),
    ] {
        alter_one(&mut image, changes(TOPIC, "a", steps)).unwrap();
        assert_eq!(overrides(&image, "a"), expected);
    }
}

#[test]
fn only_what_differs_is_written() {
    let mut image = image_with(&[("a", 1)]);
    let set = || changes(TOPIC, "a", &[("retention.ms", Set, Some("5")), ("flush.ms", Delete, None)]);
    alter_one(&mut image, set()).unwrap();
    assert!(incremental_alter_configs(&image, &[set()], false, &BrokerConfig::default()).records.is_empty());
}

#[test]
fn the_older_request_replaces_all() {
    let mut image = image_with(&[("a", 1)]);
    alter_one(
        &mut image,
        changes(TOPIC, "a", &[("retention.ms", Set, Some("5")), ("flush.ms", Set, Some("9"))]),
    )
    .unwrap();
    let replace = |configs: &[(&str, Option<&str>)]| {
        let configs =
            configs.iter().map(|(name, value)| (name.to_string(), value.map(str::to_owned))).collect();
        [ResourceConfigs { resource_type: TOPIC, resource_name: "a".to_owned(), configs }]
    };
    let broker = BrokerConfig::default();
    let decision = alter_configs(
        &image,
        &replace(&[("flush.ms", Some("9")), ("segment.ms", Some("7"))]),
        false,
        &broker,
    );
    assert_eq!(decision.records.len(), 2, "one is gone, one is new, one stays");
    apply(&mut image, &decision);
    assert_eq!(overrides(&image, "a"), "flush.ms=9 segment.ms=7");
    for (configs, expected) in [
        (&[("flush.ms", None)][..], "InvalidRequest"),
        (&[("flush.ms", Some("1")), ("flush.ms", Some("2"))], "InvalidRequest"),
        (&[("flush.ms", Some("x"))], "InvalidConfig"),
        (&[("nonsense", Some("x"))], "InvalidConfig"),
    ] {
        let decision = alter_configs(&image, &replace(configs), false, &broker);
        assert_eq!(code(decision.reply[0].as_ref().unwrap_err()), expected);
        assert!(decision.records.is_empty());
    }
}

#[test]
fn what_cannot_be_is_refused_whole() {
    let image = image_with(&[("a", 1)]);
    let good = ("flush.ms", Set, Some("1"));
    for (wish, expected, says) in [
        (changes(TOPIC, "nobody", &[good]), "UnknownTopicOrPartition", "does not exist"),
        (changes(TOPIC, "a", &[good, ("retention.ms", Set, Some("-7"))]), "InvalidConfig", "at least -1"),
        (changes(TOPIC, "a", &[good, ("retention.ms", Set, None)]), "InvalidRequest", "no value"),
        (changes(TOPIC, "a", &[good, ("retention.m", Set, Some("1"))]), "InvalidConfig", "retention.ms?"),
        (changes(TOPIC, "a", &[good, ("retention.ms", Append, Some("1"))]), "InvalidConfig", "not a list"),
        (
            changes(TOPIC, "a", &[good, ("cleanup.policy", Append, Some("shred"))]),
            "InvalidConfig",
            "compact, delete",
        ),
        (changes(TOPIC, "a", &[good, good]), "InvalidRequest", "more than once"),
        (
            changes(TOPIC, "a", &[good, ("unclean.leader.election.enable", Set, Some("true"))]),
            "InvalidConfig",
            "refused",
        ),
        (
            changes(
                TOPIC,
                "a",
                &[("min.compaction.lag.ms", Set, Some("9")), ("max.compaction.lag.ms", Set, Some("8"))],
            ),
            "InvalidConfig",
            "do not fit",
        ),
        (changes(BROKER, "9", &[]), "InvalidRequest", "9 is not registered"),
        (changes(BROKER, "x", &[]), "InvalidRequest", "number"),
        (changes(BROKER, "0", &[("num.partitions", Set, Some("2"))]), "InvalidRequest", "restart"),
        (changes(BROKER, "0", &[("nonsense", Set, Some("2"))]), "InvalidRequest", "nonsense"),
        (changes(BROKER, "0", &[("num.io.threads", Set, Some("2"))]), "InvalidRequest", "no effect"),
        (changes(BROKER, "", &[("max.connections", Set, Some("-2"))]), "InvalidRequest", "at least 0"),
        (
            changes(
                BROKER,
                "",
                &[
                    ("log.cleaner.min.compaction.lag.ms", Set, Some("9")),
                    ("log.cleaner.max.compaction.lag.ms", Set, Some("8")),
                ],
            ),
            "InvalidRequest",
            "do not fit",
        ),
        (changes(BROKER_LOGGER, "0", &[]), "InvalidRequest", "RUST_LOG"),
        (changes(CLIENT_METRICS, "m", &[]), "InvalidRequest", "not served yet"),
        (changes(GROUP, "g", &[]), "InvalidRequest", "not served yet"),
        (changes(77, "g", &[]), "InvalidRequest", "77"),
    ] {
        let decision = incremental_alter_configs(&image, &[wish], false, &BrokerConfig::default());
        let error = decision.reply[0].clone().unwrap_err();
        assert!(code(&error) == expected && error.to_string().contains(says), "{error:?}");
        assert!(decision.records.is_empty(), "{:?}", decision.records);
    }
}

#[test]
fn each_resource_is_taken_by_itself_and_once() {
    let image = image_with(&[("a", 1), ("b", 1)]);
    let set = |name| changes(TOPIC, name, &[("flush.ms", Set, Some("1"))]);
    let decision = incremental_alter_configs(
        &image,
        &[set("a"), set("b"), set("a"), set("c")],
        false,
        &BrokerConfig::default(),
    );
    let codes: Vec<_> =
        decision.reply.iter().map(|r| r.as_ref().err().map(code).unwrap_or_default()).collect();
    assert_eq!(codes, ["InvalidRequest", "", "InvalidRequest", "UnknownTopicOrPartition"]);
    assert_eq!(decision.records.len(), 1);
    let validated = incremental_alter_configs(&image, &[set("a")], true, &BrokerConfig::default());
    assert_eq!((validated.records.len(), validated.reply), (0, vec![Ok(())]));
}

#[test]
fn brokers_are_configured_one_by_one_and_all_together() {
    let mut image = image_with(&[]);
    alter_one(&mut image, changes(BROKER, "", &[("max.connections", Set, Some("20"))])).unwrap();
    alter_one(&mut image, changes(BROKER, "0", &[("log.retention.ms", Set, Some("30"))])).unwrap();
    let config = image.broker_config(&config(&[("max.connections", "10")])).unwrap();
    assert_eq!((config.network.max_connections, config.topic_defaults.retention_ms), (20, 30));
    alter_one(&mut image, changes(BROKER, "", &[("log.cleanup.policy", Append, Some("compact"))])).unwrap();
    let all = image.overrides(&ConfigResource::cluster_default());
    assert_eq!(all.get("log.cleanup.policy").map(String::as_str), Some("delete,compact"));
}

#[test]
fn operations_have_kafka_s_numbers() {
    let operations: Vec<_> = (0..5).map(AlterOperation::from_code).collect();
    assert_eq!(operations, [Some(Set), Some(Delete), Some(Append), Some(Subtract), None]);
}

/// Whoever was eligible while more had to be in sync may lack what is acknowledged once fewer have to.
#[test]
fn who_is_eligible_follows_min_insync_replicas() {
    for (kind, name) in [(TOPIC, "snow"), (BROKER, "")] {
        let mut image = image_of(3);
        let two = changes(BROKER, "", &[(MIN_ISR, Set, Some("2"))]);
        alter_one(&mut image, two).unwrap();
        let creation = create(&image, &[topic("snow", 1, 3)]);
        apply(&mut image, &creation);
        let rules = BrokerConfig::default();
        let rules =
            rules.with_dynamic(image.overrides(&ConfigResource::cluster_default()), &Overrides::new());
        for id in 0..2 {
            let fenced = fence(&image, Rules { config: rules.as_ref().unwrap() }, id);
            apply(&mut image, &fenced);
        }
        let now = |image: &Image| {
            crate::image::Partition::clone(image.topic("snow").unwrap().partition(0).unwrap())
        };
        assert_eq!((now(&image).isr, now(&image).elr.len()), (vec![2], 1));
        let broker = rules.unwrap();
        let unrelated = changes(kind, name, &[("retention.ms", Set, Some("5"))]);
        if kind == TOPIC {
            let decision = incremental_alter_configs(&image, &[unrelated], false, &broker);
            apply(&mut image, &decision);
            assert_eq!(now(&image).elr.len(), 1);
        }
        let one = changes(kind, name, &[(MIN_ISR, Set, Some("1"))]);
        let decision = incremental_alter_configs(&image, &[one], false, &broker);
        apply(&mut image, &decision);
        assert_eq!((now(&image).isr, now(&image).elr), (vec![2], vec![]), "{kind}");
    }
}

#[test]
fn one_broker_has_no_min_insync_replicas_of_its_own() {
    let mut image = image_of(2);
    let refused = alter_one(&mut image, changes(BROKER, "1", &[(MIN_ISR, Set, Some("2"))])).unwrap_err();
    assert_eq!(code(&refused), "InvalidConfig");
}
