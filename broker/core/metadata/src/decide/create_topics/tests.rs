//! What a topic looks like once created, and every way to be refused.

use super::*;
use crate::decide::testing::{apply, code, config, create, ids, image_of, image_with, topic};

fn assigned(name: &str, assignments: &[(i32, &[i32])]) -> NewTopic {
    NewTopic {
        assignments: assignments.iter().map(|(index, replicas)| (*index, replicas.to_vec())).collect(),
        ..topic(name, -1, -1)
    }
}

fn configured(name: &str, configs: &[(&str, Option<&str>)]) -> NewTopic {
    let configs = configs.iter().map(|(key, value)| (key.to_string(), value.map(str::to_owned))).collect();
    NewTopic { configs, ..topic(name, 1, 1) }
}

#[test]
fn a_topic_has_what_was_asked_for() {
    let mut image = image_of(3);
    let wish = NewTopic {
        configs: vec![("retention.ms".to_owned(), Some("5".to_owned()))],
        ..topic("my-topic", 13, 3)
    };
    let decision = create(&image, &[wish]);
    apply(&mut image, &decision);
    let created = decision.reply[0].1.clone().unwrap();
    assert_eq!((created.num_partitions, created.replication_factor), (13, 3));
    let topic = image.topic("my-topic").unwrap();
    assert_eq!((topic.id, topic.partitions.len()), (created.topic_id, 13));
    for partition in &topic.partitions {
        assert_eq!((&partition.isr, partition.leader), (&partition.replicas, partition.replicas[0]));
        assert_eq!((partition.leader_epoch, partition.partition_epoch), (0, 0));
    }
    let mut leads = [0; 3];
    topic.partitions.iter().for_each(|partition| leads[partition.leader as usize] += 1);
    leads.sort_unstable();
    assert_eq!(leads, [4, 4, 5]);
    assert_eq!(image.topic_overrides("my-topic"), &created.overrides);
}

#[test]
fn minus_one_is_the_broker_s_default() {
    let broker = config(&[("num.partitions", "7"), ("default.replication.factor", "2")]);
    let decision = create_topics(&image_of(3), &[topic("a", -1, -1)], false, &broker, &mut ids());
    let created = decision.reply[0].1.clone().unwrap();
    assert_eq!((created.num_partitions, created.replication_factor), (7, 2));
}

#[test]
fn a_client_may_assign_the_replicas_in_any_order_of_partitions() {
    let mut image = image_of(3);
    let decision = create(&image, &[assigned("a", &[(1, &[2, 1]), (0, &[1, 0])])]);
    apply(&mut image, &decision);
    let replicas: Vec<_> = image.topic("a").unwrap().partitions.iter().map(|p| p.replicas.clone()).collect();
    assert_eq!(replicas, [[1, 0], [2, 1]]);
    assert_eq!(decision.reply[0].1.as_ref().unwrap().replication_factor, 2);
}

#[test]
fn validation_alone_replies_the_same_and_writes_nothing() {
    let image = image_of(1);
    let wishes = [topic("a", 2, 1), topic("a/b", 1, 1)];
    let validated = create_topics(&image, &wishes, true, &BrokerConfig::default(), &mut ids());
    assert_eq!((validated.records.len(), validated.reply), (0, create(&image, &wishes).reply));
}

#[test]
fn what_cannot_be_is_refused_and_the_rest_is_created() {
    let image = image_with(&[("exists", 1), ("a.b", 1)]);
    for (wish, expected, says) in [
        (topic("", 1, 1), "InvalidTopicException", "empty"),
        (topic("a b", 1, 1), "InvalidTopicException", "may hold only"),
        (topic("a_b", 1, 1), "InvalidTopicException", "collides with 'a.b'"),
        (topic("__cluster_metadata", 1, 1), "InvalidRequest", "metadata"),
        (topic("exists", 1, 1), "TopicAlreadyExists", "Topic 'exists' already exists."),
        (topic("new", 0, 1), "InvalidPartitions", "1 or more"),
        (topic("new", -2, 1), "InvalidPartitions", "1 or more"),
        (topic("new", 10_001, 1), "PolicyViolation", "10000"),
        (topic("new", i32::MAX, 1), "PolicyViolation", "10000"),
        (topic("new", 1, 0), "InvalidReplicationFactor", "larger than 0"),
        (topic("new", 1, -2), "InvalidReplicationFactor", "larger than 0"),
        (topic("new", 1, 3), "InvalidReplicationFactor", "only 1 broker(s) are registered"),
        (configured("new", &[("retention.ms", Some("x"))]), "InvalidConfig", "retention.ms"),
        (configured("new", &[("retention.ms", None)]), "InvalidConfig", "no value"),
        (configured("new", &[("nonsense", Some("1"))]), "InvalidConfig", "nonsense"),
        (configured("new", &[("unclean.leader.election.enable", Some("true"))]), "InvalidConfig", "refused"),
        (
            NewTopic { num_partitions: 1, ..assigned("new", &[(0, &[0])]) },
            "InvalidRequest",
            "number of partitions",
        ),
        (
            NewTopic { replication_factor: 1, ..assigned("new", &[(0, &[0])]) },
            "InvalidRequest",
            "replication factor",
        ),
        (assigned("new", &[(0, &[])]), "InvalidReplicaAssignment", "none"),
        (assigned("new", &[(0, &[0, 0])]), "InvalidReplicaAssignment", "more than once"),
        (assigned("new", &[(0, &[5])]), "InvalidReplicaAssignment", "no such broker"),
        (assigned("new", &[(0, &[0]), (0, &[0])]), "InvalidReplicaAssignment", "more than once"),
        (assigned("new", &[(1, &[0])]), "InvalidReplicaAssignment", "no gap"),
        (assigned("new", &[(-1, &[0])]), "InvalidReplicaAssignment", "no gap"),
    ] {
        let decision = create(&image, &[wish, topic("good", 1, 1)]);
        let error = decision.reply[0].1.clone().unwrap_err();
        assert!(code(&error) == expected && error.to_string().contains(says), "{error:?}");
        assert!(decision.reply[1].1.is_ok() && decision.records.len() == 2, "the other topic is created");
    }
}

#[test]
fn replicas_of_one_topic_are_as_many_in_each_partition() {
    let decision = create(&image_of(2), &[assigned("new", &[(0, &[0]), (1, &[0, 1])])]);
    let error = decision.reply[0].1.clone().unwrap_err();
    assert!(
        code(&error) == "InvalidReplicaAssignment" && error.to_string().contains("other partitions"),
        "{error:?}"
    );
}

#[test]
fn topics_of_one_request_do_not_get_in_each_other_s_way() {
    let image = image_of(1);
    let decision = create(
        &image,
        &[topic("a", 1, 1), topic("b", 1, 1), topic("a", 2, 1), topic("c.d", 1, 1), topic("c_d", 1, 1)],
    );
    let outcome: Vec<_> = decision
        .reply
        .iter()
        .map(|(name, outcome)| (name.as_str(), outcome.as_ref().err().map(code).unwrap_or_default()))
        .collect();
    let expected = [("a", "InvalidRequest"), ("b", ""), ("c.d", ""), ("c_d", "InvalidTopicException")];
    assert_eq!(outcome, expected.map(|(name, code)| (name, code.to_owned())));
    apply(&mut image.clone(), &decision);
    let limited = config(&[("firn.partitions.per.request.max", "10")]);
    let decision = create_topics(&image, &[topic("a", 6, 1), topic("b", 6, 1)], false, &limited, &mut ids());
    assert_eq!(code(decision.reply[1].1.as_ref().unwrap_err()), "PolicyViolation");
}

#[test]
fn an_id_that_is_taken_or_zero_is_drawn_again() {
    let image = image_with(&[("a", 1)]);
    let taken = image.topic("a").unwrap().id;
    let mut draws = [TopicId::ZERO, taken, TopicId(uuid::Uuid::from_u128(42))].into_iter();
    let decision = create_topics(&image, &[topic("b", 1, 1)], false, &BrokerConfig::default(), &mut || {
        draws.next().unwrap()
    });
    assert_eq!(decision.reply[0].1.as_ref().unwrap().topic_id.0.as_u128(), 42);
}
