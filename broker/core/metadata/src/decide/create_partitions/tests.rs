//! Growing a topic, by the broker's choice and by the client's; and every way to be refused.

use super::*;
use crate::decide::testing::{apply, code, config, create, image_of, image_with, topic};

fn more(name: &str, count: i32) -> MorePartitions {
    MorePartitions { name: name.to_owned(), count, assignments: None }
}

#[test]
fn a_topic_grows_evenly() {
    let mut image = image_of(3);
    let creation = create(&image, &[topic("a", 4, 2)]);
    apply(&mut image, &creation);
    let growth = create_partitions(&image, &[more("a", 13)], false, &BrokerConfig::default());
    assert_eq!(growth.reply, [("a".to_owned(), Ok(()))]);
    apply(&mut image, &growth);
    let topic = image.topic("a").unwrap();
    assert_eq!(topic.partitions.len(), 13);
    let mut leads = [0; 3];
    topic.partitions.iter().for_each(|partition| leads[partition.leader as usize] += 1);
    leads.sort_unstable();
    assert_eq!(leads, [4, 4, 5]);
    assert!(topic.partitions.iter().all(|partition| partition.replicas.len() == 2));
}

#[test]
fn a_client_may_choose_the_replicas() {
    let mut image = image_of(3);
    let creation = create(&image, &[topic("a", 1, 2)]);
    apply(&mut image, &creation);
    let wish = MorePartitions { assignments: Some(vec![vec![2, 0]]), ..more("a", 2) };
    let growth = create_partitions(&image, &[wish], false, &BrokerConfig::default());
    apply(&mut image, &growth);
    assert_eq!(image.topic("a").unwrap().partition(1).unwrap().replicas, [2, 0]);
}

#[test]
fn validation_alone_writes_nothing() {
    let image = image_with(&[("a", 1)]);
    let decision = create_partitions(&image, &[more("a", 2)], true, &BrokerConfig::default());
    assert_eq!((decision.records.len(), decision.reply), (0, vec![("a".to_owned(), Ok(()))]));
}

#[test]
fn what_cannot_be_is_refused() {
    let image = image_with(&[("a", 3), ("b", 1)]);
    let assigned = |assignments: &[&[i32]]| MorePartitions {
        assignments: Some(assignments.iter().map(|replicas| replicas.to_vec()).collect()),
        ..more("a", 4)
    };
    for (wishes, expected, says) in [
        (vec![more("nobody", 2)], "UnknownTopicOrPartition", "nobody"),
        (vec![more("a", 3)], "InvalidPartitions", "already has 3"),
        (vec![more("a", 2)], "InvalidPartitions", "only be added"),
        (vec![more("a", -1)], "InvalidPartitions", "only be added"),
        (vec![more("a", 4), more("a", 5)], "InvalidRequest", "more than once"),
        (vec![more("a", 10_004)], "PolicyViolation", "10000"),
        (vec![more("a", i32::MAX)], "PolicyViolation", "10000"),
        (vec![assigned(&[])], "InvalidReplicaAssignment", "1 partition(s)"),
        (vec![assigned(&[&[]])], "InvalidReplicaAssignment", "none"),
        (vec![assigned(&[&[9]])], "InvalidReplicaAssignment", "no such broker"),
        (vec![assigned(&[&[0, 0]])], "InvalidReplicaAssignment", "more than once"),
    ] {
        let decision = create_partitions(&image, &wishes, false, &BrokerConfig::default());
        let error = decision.reply[0].1.clone().unwrap_err();
        assert!(code(&error) == expected && error.to_string().contains(says), "{error:?}");
        assert!(decision.records.is_empty() && decision.reply.len() == 1);
    }
}

#[test]
fn a_topic_that_the_broker_finds_its_records_in_by_their_number_stays_as_it_is() {
    let image = image_with(&[("__consumer_offsets", 50), ("a", 1)]);
    for count in [51, 50, 1] {
        let wishes = [more("__consumer_offsets", count), more("a", 2)];
        let decision = create_partitions(&image, &wishes, false, &BrokerConfig::default());
        let error = decision.reply[0].1.clone().unwrap_err();
        assert!(
            code(&error) == "InvalidTopicException" && error.to_string().contains("number of partitions")
        );
        assert_eq!((&decision.reply[1].1, decision.records.len()), (&Ok(()), 1), "other topics grow");
    }
}

#[test]
fn the_limit_is_that_of_the_whole_request() {
    let image = image_with(&[("a", 1), ("b", 1)]);
    let broker = config(&[("firn.partitions.per.request.max", "5")]);
    let decision = create_partitions(&image, &[more("a", 4), more("b", 4)], false, &broker);
    assert!(decision.reply[0].1.is_ok());
    assert_eq!(code(decision.reply[1].1.as_ref().unwrap_err()), "PolicyViolation");
    assert_eq!(decision.records.len(), 3);
}
