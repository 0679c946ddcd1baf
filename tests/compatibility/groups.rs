//! Consumer groups of Java clients: publish and subscribe, queue, failover, idle members, committed offsets.

use std::collections::BTreeSet;
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java::{self, Consumer};
use firn_tests::process::wait_for;
use firn_tests::segments::Offsets;
use serde_json::{Value, json};

use crate::finish;

pub const DEADLINE: Duration = Duration::from_secs(60);
const ROUND_ROBIN: (&str, &str) =
    ("partitioner.class", "org.apache.kafka.clients.producer.RoundRobinPartitioner");

fn messages(range: std::ops::RangeInclusive<u32>) -> Vec<Value> {
    range.map(|number| json!({"value": format!("m{number}")})).collect()
}

pub fn send(address: &str, topic: &str, range: std::ops::RangeInclusive<u32>) {
    for sent in java::produce(address, topic, &[ROUND_ROBIN], &messages(range)) {
        sent.expect("acknowledged");
    }
}

pub fn values(consumers: &[&Consumer]) -> Vec<String> {
    let records = consumers.iter().flat_map(|consumer| consumer.records());
    let mut values: Vec<String> = records.filter_map(|record| record.value).collect();
    values.sort();
    values
}

pub fn wanted(range: std::ops::RangeInclusive<u32>) -> Vec<String> {
    let mut wanted: Vec<String> = range.map(|number| format!("m{number}")).collect();
    wanted.sort();
    wanted
}

/// Waits until the members hold `partitions` partitions between them, none twice; gives how many each holds, sorted.
pub fn wait_for_shares(consumers: &[&Consumer], partitions: usize) -> Vec<usize> {
    wait_for("a settled assignment", DEADLINE, || {
        let held: Vec<Vec<String>> = consumers.iter().map(|consumer| consumer.assignment()).collect();
        let all: Vec<&String> = held.iter().flatten().collect();
        let different: BTreeSet<&String> = all.iter().copied().collect();
        let mut shares: Vec<usize> = held.iter().map(Vec::len).collect();
        shares.sort_unstable();
        // A generation in which some members are still missing is complete too, but not fair to those.
        let fair = shares.last().zip(shares.first()).is_some_and(|(most, least)| most - least <= 1);
        (fair && all.len() == partitions && different.len() == partitions).then_some(shares)
    })
}

pub fn member<'a>(address: &str, topic: &str, extra: &[(&'a str, &'a str)]) -> Consumer {
    let mut settings = vec![("group.id", "mygroup"), ("heartbeat.interval.ms", "500")];
    settings.extend_from_slice(extra);
    Consumer::open(address, topic, &settings)
}

#[test]
fn consumers_without_a_common_group_each_see_every_message() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "news", 13, &[]);
    send(&address, "news", 1..=3);
    let consumers: Vec<_> =
        (0..3).map(|_| apache::console_consumer(&address, "news", 3, &["--from-beginning"])).collect();
    for consumer in consumers {
        assert_eq!(crate::sorted_lines(&consumer.wait().ok()), wanted(1..=3));
    }
    finish(broker, Offsets::Dense);
}

#[test]
fn one_group_is_a_queue_and_survives_a_member_that_leaves() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 13, &[]);
    let [first, second, third] = std::array::from_fn(|_| member(&address, "jobs", &[]));
    assert_eq!(wait_for_shares(&[&first, &second, &third], 13), [4, 4, 5]);

    send(&address, "jobs", 1..=7);
    wait_for("all seven", DEADLINE, || (values(&[&first, &second, &third]).len() >= 7).then_some(()));
    assert_eq!(values(&[&first, &second, &third]), wanted(1..=7), "each message once");

    let described = apache::consumer_groups(&address, &["--describe", "--group", "mygroup"]).ok();
    let mut owned = std::collections::BTreeMap::new();
    for line in described.lines().filter(|line| line.starts_with("mygroup")) {
        let member = line.split_whitespace().nth(6).expect("CONSUMER-ID");
        *owned.entry(member.to_owned()).or_insert(0) += 1;
    }
    let mut shares: Vec<i32> = owned.into_values().collect();
    shares.sort_unstable();
    assert_eq!(shares, [4, 4, 5], "{described}");

    let mut seen = third.close(true);
    wait_for_shares(&[&first, &second], 13);
    send(&address, "jobs", 8..=14);
    wait_for("fourteen in all", DEADLINE, || {
        (values(&[&first, &second]).len() + seen.len() >= 14).then_some(())
    });
    let mut all = values(&[&first, &second]);
    all.extend(seen.drain(..).filter_map(|record| record.value));
    all.sort();
    assert_eq!(all, wanted(1..=14), "none lost and none twice");
    first.close(true);
    second.close(true);
    finish(broker, Offsets::Dense);
}

#[test]
fn a_member_that_dies_without_leaving_is_replaced_after_its_session() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 4, &[]);
    let session = [("session.timeout.ms", "6000")];
    let [first, second] = std::array::from_fn(|_| member(&address, "jobs", &session));
    wait_for_shares(&[&first, &second], 4);
    second.close(false);
    wait_for("the survivor holds everything", DEADLINE, || (first.assignment().len() == 4).then_some(()));
    first.close(true);
    finish(broker, Offsets::Dense);
}

#[test]
fn a_static_member_comes_back_to_its_partitions_without_a_rebalance() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 6, &[]);
    let first = member(&address, "jobs", &[("group.instance.id", "one")]);
    let second = member(&address, "jobs", &[("group.instance.id", "two")]);
    wait_for_shares(&[&first, &second], 6);
    let (kept, before) = (first.assignment(), second.assignment());
    second.close(false);
    let again = member(&address, "jobs", &[("group.instance.id", "two")]);
    wait_for("the same partitions", DEADLINE, || (again.assignment() == before).then_some(()));
    assert_eq!(first.assignment(), kept);
    first.close(true);
    again.close(true);
    finish(broker, Offsets::Dense);
}

#[test]
fn members_beyond_the_partitions_idle_and_take_over() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 13, &[]);
    let mut members: Vec<Consumer> = (0..14).map(|_| member(&address, "jobs", &[])).collect();
    let all: Vec<&Consumer> = members.iter().collect();
    let shares = wait_for_shares(&all, 13);
    assert_eq!(shares, [[0].as_slice(), &[1; 13]].concat());
    let busy = members.iter().position(|member| !member.assignment().is_empty()).expect("a busy one");
    members.remove(busy).close(true);
    let rest: Vec<&Consumer> = members.iter().collect();
    assert_eq!(wait_for_shares(&rest, 13), [1; 13]);
    finish(broker, Offsets::Dense);
}

#[test]
fn a_group_resumes_where_it_committed_after_the_broker_was_killed() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "jobs", 3, &[]);
    send(&address, "jobs", 1..=30);
    let settings = [("enable.auto.commit", "false"), ("max.poll.records", "10")];
    let consumer = member(&address, "jobs", &settings);
    wait_for("all thirty", DEADLINE, || (consumer.records().len() == 30).then_some(()));
    consumer.commit();
    consumer.close(true);
    broker.kill();
    broker.start_again();
    send(&address, "jobs", 31..=40);
    let next = member(&address, "jobs", &settings);
    wait_for("the ten new ones", DEADLINE, || (next.records().len() >= 10).then_some(()));
    assert_eq!(values(&[&next]), wanted(31..=40), "nothing again that had been committed");
    next.close(true);

    apache::consumer_groups(
        &address,
        &["--reset-offsets", "--group", "mygroup", "--topic", "jobs", "--to-earliest", "--execute"],
    )
    .ok();
    let replay = member(&address, "jobs", &settings);
    wait_for("everything again", DEADLINE, || (replay.records().len() >= 40).then_some(()));
    assert_eq!(values(&[&replay]), wanted(1..=40));
    replay.close(true);

    let listed = apache::consumer_groups(&address, &["--list"]).ok();
    assert_eq!(listed.trim(), "mygroup");
    apache::consumer_groups(&address, &["--delete", "--group", "mygroup"]).ok();
    assert_eq!(apache::consumer_groups(&address, &["--list"]).ok().trim(), "");
    finish(broker, Offsets::Dense);
}

#[test]
fn apaches_formatter_reads_what_is_committed_and_of_which_topic() {
    let broker = Broker::start(BrokerOptions::default().with("offsets.topic.num.partitions", "1"));
    let address = broker.address();
    apache::create_topic(&address, "news", 1, &[]);
    send(&address, "news", 1..=3);
    let consumer = member(&address, "news", &[]);
    wait_for("all three", DEADLINE, || (values(&[&consumer]) == wanted(1..=3)).then_some(()));
    consumer.commit();
    consumer.close(true);
    let described = apache::topics(&address, &["--describe", "--topic", "news"]).ok();
    let id = described.split_whitespace().skip_while(|word| *word != "TopicId:").nth(1).expect("a topic id");

    let formatter = "org.apache.kafka.tools.consumer.OffsetsMessageFormatter";
    // Of a partition, and so without a group of its own, whose records would come between.
    let read = ["--partition", "0", "--offset", "earliest", "--formatter", formatter];
    // The formatter shows offsets alone; counted are the records of the group's members as well.
    let shown = |count| apache::console_consumer(&address, "__consumer_offsets", count, &read).wait().ok();
    let line = (2..=5)
        .map(shown)
        .find_map(|lines| lines.lines().find(|line| line.starts_with('{')).map(str::to_owned));
    let record: Value = serde_json::from_str(&line.expect("an offset")).expect("JSON");
    let (key, value) = (&record["key"]["data"], &record["value"]["data"]);
    assert_eq!((&key["group"], &key["topic"]), (&json!("mygroup"), &json!("news")), "{record}");
    assert_eq!((&value["offset"], &value["topicId"]), (&json!(3), &json!(id)), "{record}");
    finish(broker, Offsets::Dense);
}
