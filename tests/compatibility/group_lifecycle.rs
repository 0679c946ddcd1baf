//! Consumer groups where things go wrong or change: fenced twins, crowds, cooperative rebalances under load, deletions that
//! must be refused, a broker that dies in the middle of a rebalance.

use std::collections::BTreeSet;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java::Consumer;
use firn_tests::process::wait_for;
use firn_tests::segments::Offsets;

use crate::finish;
use crate::groups::{DEADLINE, member, send, values, wait_for_shares, wanted};

const COOPERATIVE: (&str, &str) =
    ("partition.assignment.strategy", "org.apache.kafka.clients.consumer.CooperativeStickyAssignor");

fn names(consumer: &Consumer) -> BTreeSet<String> {
    consumer.assignment().into_iter().collect()
}

fn describe(address: &str, what: &[&str]) -> String {
    apache::consumer_groups(address, &[&["--describe", "--group", "mygroup"], what].concat()).ok()
}

/// Committed offsets by partition, of the topic `jobs`.
fn committed(address: &str) -> Vec<(String, String)> {
    let described = describe(address, &["--offsets"]);
    let rows = described.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let mut offsets: Vec<_> = rows
        .filter(|row| row.get(1) == Some(&"jobs"))
        .map(|row| (row[2].to_owned(), row[3].to_owned()))
        .collect();
    offsets.sort();
    offsets
}

#[test]
fn a_twin_of_a_static_member_fences_it() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 4, &[]);
    let first = member(&address, "jobs", &[("group.instance.id", "one")]);
    wait_for_shares(&[&first], 4);
    let twin = member(&address, "jobs", &[("group.instance.id", "one")]);
    wait_for_shares(&[&twin], 4);
    let failure = wait_for("the first is told", DEADLINE, || first.failure());
    assert!(failure.contains("FencedInstanceIdException"), "{failure}");
    first.close_failed();
    assert_eq!(twin.failure(), None);
    twin.close(true);
    finish(broker, Offsets::Dense);
}

#[test]
fn a_cooperative_group_moves_no_more_than_it_must_under_load() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 6, &[]);
    let first = member(&address, "jobs", &[COOPERATIVE]);
    wait_for_shares(&[&first], 6);
    let before = names(&first);
    std::thread::scope(|scope| {
        let load = scope
            .spawn(|| (0..20).for_each(|round| send(&address, "jobs", round * 50 + 1..=round * 50 + 50)));
        let second = member(&address, "jobs", &[COOPERATIVE]);
        assert_eq!(wait_for_shares(&[&first, &second], 6), [3, 3]);
        assert!(names(&first).is_subset(&before));
        let left = second.close(true);
        wait_for("the first has everything again", DEADLINE, || (names(&first) == before).then_some(()));
        load.join().expect("everything was acknowledged");
        wait_for("all records", DEADLINE, || {
            let mut seen: BTreeSet<String> = values(&[&first]).into_iter().collect();
            seen.extend(left.iter().filter_map(|record| record.value.clone()));
            (seen == wanted(1..=1000).into_iter().collect()).then_some(())
        });
    });
    first.close(true);
    finish(broker, Offsets::Dense);
}

#[test]
fn fifty_members_that_come_at_once_share_alike() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 50, &[]);
    let members: Vec<Consumer> = std::thread::scope(|scope| {
        let opened: Vec<_> = (0..50).map(|_| scope.spawn(|| member(&address, "jobs", &[]))).collect();
        opened.into_iter().map(|thread| thread.join().expect("a member")).collect()
    });
    let all: Vec<&Consumer> = members.iter().collect();
    assert_eq!(wait_for_shares(&all, 50), [1; 50]);
    std::thread::scope(|scope| {
        for member in members {
            scope.spawn(|| member.close(true));
        }
    });
    assert!(describe(&address, &["--state"]).contains("Empty"));
    finish(broker, Offsets::Dense);
}

#[test]
fn what_a_living_group_uses_cannot_be_deleted() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 2, &[]);
    send(&address, "jobs", 1..=10);
    let consumer = member(&address, "jobs", &[("enable.auto.commit", "false")]);
    wait_for("all ten", DEADLINE, || (consumer.records().len() == 10).then_some(()));
    consumer.commit();
    let before = committed(&address);
    assert_eq!(before.len(), 2, "{before:?}");

    let delete_offsets = ["--delete-offsets", "--group", "mygroup", "--topic", "jobs"];
    let refused = apache::consumer_groups(&address, &delete_offsets);
    let said = format!("{}{}", refused.out, refused.err);
    assert!(said.contains("GroupSubscribedToTopicException") || said.contains("subscribed"), "{said}");
    let delete_group = ["--delete", "--group", "mygroup"];
    let refused = apache::consumer_groups(&address, &delete_group);
    let said = format!("{}{}", refused.out, refused.err);
    assert!(said.contains("GroupNotEmptyException"), "{said}");
    assert_eq!(committed(&address), before, "nothing was deleted");

    consumer.close(true);
    apache::consumer_groups(&address, &delete_offsets).ok();
    assert_eq!(committed(&address), []);
    finish(broker, Offsets::Dense);
}

#[test]
fn a_broker_that_is_killed_in_a_rebalance_loses_no_offsets_and_no_members() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 6, &[]);
    send(&address, "jobs", 1..=60);
    // Members learn of a rebalance by their heartbeats: with few of those, it lasts long enough to be met.
    let slow = [("enable.auto.commit", "false"), ("heartbeat.interval.ms", "4000")];
    let [first, second] = std::array::from_fn(|_| member(&address, "jobs", &slow));
    wait_for_shares(&[&first, &second], 6);
    wait_for("all sixty", DEADLINE, || (values(&[&first, &second]).len() >= 60).then_some(()));
    first.commit();
    second.commit();
    let before = committed(&address);
    let third = member(&address, "jobs", &slow);
    wait_for("the rebalance", DEADLINE, || {
        describe(&address, &["--state"]).contains("PreparingRebalance").then_some(())
    });
    broker.kill();
    broker.start_again();
    assert_eq!(committed(&address), before);
    assert_eq!(wait_for_shares(&[&first, &second, &third], 6), [2, 2, 2]);
    send(&address, "jobs", 61..=90);
    wait_for("the new ones", DEADLINE, || {
        let seen: BTreeSet<String> = values(&[&first, &second, &third]).into_iter().collect();
        (seen == wanted(1..=90).into_iter().collect()).then_some(())
    });
    for record in third.records() {
        let from = before.iter().find(|(partition, _)| *partition == record.partition.to_string());
        let from: i64 = from.expect("a committed offset").1.parse().expect("a number");
        assert!(record.offset >= from, "again, though it was committed: {record:?}");
    }
    for consumer in [first, second, third] {
        consumer.close(true);
    }
    finish(broker, Offsets::Dense);
}
