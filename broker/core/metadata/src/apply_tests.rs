//! Records that cannot follow from the image, snapshots, and random commands that keep every invariant.

use std::sync::Arc;

use firn_model::broker_config::BrokerConfig;
use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::decide::brokers::{Registration, register_broker, unregister_broker};
use crate::decide::configs::{
    AlterOperation, ConfigChange, ResourceChanges, incremental_alter_configs, resource_type,
};
use crate::decide::create_partitions::{MorePartitions, create_partitions};
use crate::decide::create_topics::create_topics;
use crate::decide::delete_topics::{TopicSelector, delete_topics, finish_remote_deletes};
use crate::decide::elections::{ElectionType, Logs, elect_leaders};
use crate::decide::isr::{IsrReport, alter_partitions};
use crate::decide::lifecycle::{fence, heartbeat};
use crate::decide::partitions::Rules;
use crate::decide::producer_ids::allocate_producer_ids;
use crate::decide::reassignments::{Reassignment, alter_reassignments};
use crate::decide::testing::{apply, code, config, create, ids, image_of, image_with, registration, topic};
use crate::decide::{Decision, DecisionError};
use crate::invariants;
use crate::record::RemoveTopicRecord;

fn partition(topic_id: TopicId, index: i32, replicas: &[i32], isr: &[i32], leader: i32) -> MetadataRecord {
    MetadataRecord::Partition(PartitionRecord {
        topic_id,
        partition: index,
        replicas: replicas.to_vec(),
        adding_replicas: Vec::new(),
        removing_replicas: Vec::new(),
        isr: isr.to_vec(),
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader,
        leader_epoch: 0,
        partition_epoch: 0,
    })
}

fn moving(mut record: MetadataRecord, adding: &[i32], removing: &[i32]) -> MetadataRecord {
    if let MetadataRecord::Partition(record) = &mut record {
        (record.adding_replicas, record.removing_replicas) = (adding.to_vec(), removing.to_vec());
    }
    record
}

fn change(topic_id: TopicId, index: i32, isr: Option<Vec<i32>>, leader: Option<i32>) -> MetadataRecord {
    MetadataRecord::PartitionChange(PartitionChangeRecord {
        topic_id,
        partition: index,
        replicas: None,
        adding_replicas: None,
        removing_replicas: None,
        isr,
        elr: None,
        last_known_elr: None,
        leader,
    })
}

fn broker_change(broker_id: i32, broker_epoch: i64) -> MetadataRecord {
    MetadataRecord::BrokerChange(BrokerChangeRecord {
        broker_id,
        broker_epoch,
        fenced: Some(true),
        marks: None,
    })
}

fn topic_record(name: &str, id: u128) -> MetadataRecord {
    MetadataRecord::Topic(TopicRecord { name: name.to_owned(), topic_id: TopicId(Uuid::from_u128(id)) })
}

#[test]
fn impossible_records_are_errors_and_change_nothing() {
    let image = image_with(&[("a", 2)]);
    let id = image.topic("a").unwrap().id;
    let unknown = TopicId(Uuid::from_u128(99));
    let broker = image.brokers().next().unwrap().clone();
    let again = MetadataRecord::Broker(BrokerRecord {
        broker_id: 0,
        incarnation_id: broker.incarnation_id,
        broker_epoch: broker.epoch,
        endpoints: Vec::new(),
        rack: None,
        fenced: false,
        directory_ids: Vec::new(),
        noted: false,
        marks: 0,
    });
    let orphan = ConfigRecord {
        resource: ConfigResource::topic("b"),
        name: "retention.ms".to_owned(),
        value: Some("1".to_owned()),
    };
    for (record, says) in [
        (topic_record("a", 5), "exists already"),
        (MetadataRecord::Topic(TopicRecord { name: "b".to_owned(), topic_id: id }), "taken"),
        (topic_record("b", 0), "zeros"),
        (topic_record("a/b", 5), "may hold only"),
        (partition(unknown, 0, &[0], &[0], 0), "no topic with id"),
        (partition(id, 1, &[0], &[0], 0), "cannot be its next"),
        (partition(id, 3, &[0], &[0], 0), "cannot be its next"),
        (partition(id, -1, &[0], &[0], 0), "cannot be its next"),
        (partition(id, 2, &[], &[], -1), "no replica"),
        (partition(id, 2, &[0, 0], &[0], 0), "twice"),
        (partition(id, 2, &[0], &[1], 1), "no replica"),
        (partition(id, 2, &[0, 1], &[0], 1), "not in its ISR"),
        (partition(id, 2, &[-1], &[], -1), "negative"),
        (moving(partition(id, 2, &[0, 1], &[0], 0), &[2], &[]), "no replica moves"),
        (moving(partition(id, 2, &[0, 1], &[0], 0), &[], &[2]), "no replica moves"),
        (moving(partition(id, 2, &[0, 1], &[0], 0), &[1, 1], &[]), "twice"),
        (moving(partition(id, 2, &[0, 1], &[0], 0), &[1, 0], &[]), "of before"),
        (moving(partition(id, 2, &[0, 1], &[0], 0), &[], &[0, 1]), "to stay"),
        (change(id, 2, None, Some(0)), "no partition 2"),
        (change(unknown, 0, None, Some(0)), "no topic with id"),
        (change(id, 0, Some(vec![]), None), "not in its ISR"),
        (MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: unknown }), "no topic with id"),
        (MetadataRecord::Config(orphan), "no topic 'b'"),
        (again, "does not follow"),
        (broker_change(0, 7), "does not follow"),
        (broker_change(4, 0), "not registered"),
        (
            MetadataRecord::UnregisterBroker(crate::record::UnregisterBrokerRecord { broker_id: 4 }),
            "not registered",
        ),
        (
            MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id: 0, next_producer_id: 0 }),
            "cannot go back",
        ),
    ] {
        let mut next = image.clone();
        let error = next.apply(&record).unwrap_err().to_string();
        assert!(error.contains(says), "{error} should say {says}");
        assert!(next == image, "{record:?} changed the image");
        let mut next = image.clone();
        next.apply_all(&[topic_record("other", 77), record]).unwrap_err();
        assert!(
            next == image && next.topic("other").is_none(),
            "a failed decision is applied whole or not at all"
        );
    }
}

#[test]
fn epochs_grow_with_each_change_of_a_partition() {
    let mut image = image_of(2);
    let id = TopicId(Uuid::from_u128(9));
    image.apply_all(&[topic_record("a", 9), partition(id, 0, &[0, 1], &[0, 1], 0)]).unwrap();
    let seen = |image: &Image| {
        let partition = image.topic("a").unwrap().partition(0).unwrap();
        (partition.leader, partition.leader_epoch, partition.partition_epoch, partition.isr.clone())
    };
    image.apply(&change(id, 0, Some(vec![1]), Some(1))).unwrap();
    assert_eq!(seen(&image), (1, 1, 1, vec![1]));
    image.apply(&change(id, 0, Some(vec![1, 0]), None)).unwrap();
    assert_eq!(seen(&image), (1, 1, 2, vec![1, 0]));
    image.apply(&change(id, 0, None, Some(NO_LEADER))).unwrap();
    assert_eq!(seen(&image), (NO_LEADER, 2, 3, vec![1, 0]));
}

#[test]
fn a_topic_takes_its_configs_and_its_name_with_it() {
    let mut image = image_with(&[("a.b", 3)]);
    let set = ConfigRecord {
        resource: ConfigResource::topic("a.b"),
        name: "retention.ms".to_owned(),
        value: Some("1".to_owned()),
    };
    image.apply(&MetadataRecord::Config(set)).unwrap();
    assert!(image.collides_with("a_b").is_some() && image.collides_with("a.b").is_none());
    let id = image.topic("a.b").unwrap().id;
    image.apply(&MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: id })).unwrap();
    assert!(image.collides_with("a_b").is_none() && image.topic_overrides("a.b").is_empty());
    assert_eq!((image.topic_count(), image.partition_count()), (0, 0));
    assert_eq!(invariants::violated(&image), None);
}

#[test]
fn a_reader_s_snapshot_stays_as_it_was() {
    let mut image = image_with(&[("a", 1)]);
    let before = image.clone();
    apply(&mut image, &create(&before, &[topic("b", 1, 1)]).clone_with_ids(100));
    assert!(before.topic("b").is_none() && image.topic("b").is_some());
    assert!(
        Arc::ptr_eq(before.topic("a").unwrap(), image.topic("a").unwrap()),
        "what did not change is shared"
    );
}

/// Decisions of the tests draw ids from 1 each time: this makes those of another draw.
trait WithIds {
    fn clone_with_ids(&self, offset: u128) -> Self;
}

impl<R: Clone> WithIds for crate::decide::Decision<R> {
    fn clone_with_ids(&self, offset: u128) -> Self {
        let moved = |id: TopicId| TopicId(Uuid::from_u128(id.0.as_u128() + offset));
        let mut decision = self.clone();
        for record in &mut decision.records {
            match record {
                MetadataRecord::Topic(record) => record.topic_id = moved(record.topic_id),
                MetadataRecord::Partition(record) => record.topic_id = moved(record.topic_id),
                _ => {}
            }
        }
        decision
    }
}

/// A thousand topics of ten partitions, one by one, while a reader holds each image: shared, not copied.
#[test]
fn many_topics_one_by_one_share_all_but_their_path() {
    let mut image = image_of(1);
    let mut next_id = ids();
    let broker = config(&[("log.dirs", "/a")]);
    for index in 0..1000 {
        let held = image.clone();
        let decision =
            create_topics(&held, &[topic(&format!("topic.{index}"), 10, 1)], false, &broker, &mut next_id);
        image.apply_all(&decision.records).unwrap();
        if index > 0 {
            let shared = image
                .topics()
                .filter(|topic| held.topic(&topic.name).is_some_and(|other| Arc::ptr_eq(topic, other)));
            assert!(index % 250 != 1 || shared.count() == index, "a change copied topics");
        }
    }
    assert_eq!((image.topic_count(), image.partition_count()), (1000, 10_000));
    assert_eq!(invariants::violated(&image), None);
}

#[derive(Debug, Clone)]
enum Command {
    Register(i32, u128),
    Unregister(i32),
    Fence(i32),
    Hear(i32),
    /// It comes back on another disk.
    LoseDisk(i32, u128),
    Create(String, i32, i16),
    Delete(String),
    FinishRemoteDeletes,
    Grow(String, i32),
    Configure(String, &'static str, Option<String>),
    /// The first partition of a topic moves; nowhere: back.
    Move(String, Option<Vec<i32>>),
    /// The leader of a topic's first partition says that all are in sync who are there, but for this one.
    InSync(String, i32),
    Elect(ElectionType),
    ConfigureBrokers(&'static str, Option<String>),
    ProducerIds(i32),
}

fn commands() -> impl Strategy<Value = Command> {
    let name = prop_oneof!["[a-c][._][a-c]", "[a-c]", Just("bad name".to_owned())];
    let value = proptest::option::of("(0|1|50|1000000)");
    prop_oneof![
        (0..5i32, 1..9u128).prop_map(|(id, incarnation)| Command::Register(id, incarnation)),
        (0..5i32).prop_map(Command::Unregister),
        (0..5i32).prop_map(Command::Fence),
        (0..5i32).prop_map(Command::Hear),
        (0..5i32, 1..9u128).prop_map(|(id, disk)| Command::LoseDisk(id, disk)),
        (name.clone(), -1..6i32, -1..4i16).prop_map(|(name, n, rf)| Command::Create(name, n, rf)),
        (name.clone(), 1..6i32, Just(1i16)).prop_map(|(name, n, rf)| Command::Create(name, n, rf)),
        name.clone().prop_map(Command::Delete),
        Just(Command::FinishRemoteDeletes),
        (name.clone(), 0..9i32).prop_map(|(name, count)| Command::Grow(name, count)),
        (name, prop_oneof![Just("retention.ms"), Just("segment.bytes"), Just("nonsense")], value.clone())
            .prop_map(|(name, key, value)| Command::Configure(name, key, value)),
        (prop_oneof![Just("max.connections"), Just("num.partitions")], value)
            .prop_map(|(key, value)| Command::ConfigureBrokers(key, value)),
        (0..5i32).prop_map(Command::ProducerIds),
        ("[a-c]", proptest::option::of(proptest::collection::vec(0..5i32, 0..4)))
            .prop_map(|(name, to)| Command::Move(name, to)),
        ("[a-c]", 0..9i32).prop_map(|(name, without)| Command::InSync(name, without)),
        prop_oneof![Just(ElectionType::Preferred), Just(ElectionType::Unclean)].prop_map(Command::Elect),
    ]
}

fn changes(
    resource_type: i8,
    resource_name: &str,
    key: &str,
    value: &Option<String>,
) -> Vec<ResourceChanges> {
    let operation = if value.is_some() { AlterOperation::Set } else { AlterOperation::Delete };
    let change = ConfigChange { name: key.to_owned(), operation, value: value.clone() };
    vec![ResourceChanges { resource_type, resource_name: resource_name.to_owned(), changes: vec![change] }]
}

fn records_of<R>(decision: Decision<R>) -> Vec<MetadataRecord> {
    decision.records
}

fn none(_: DecisionError) -> Vec<MetadataRecord> {
    Vec::new()
}

/// The records of a command; none if it is refused.
fn run(image: &Image, command: &Command, next_id: &mut dyn FnMut() -> TopicId) -> Vec<MetadataRecord> {
    let broker = BrokerConfig::default();
    let rules = Rules { config: &broker };
    match command {
        Command::Register(id, incarnation) => {
            register_broker(image, rules, &registration(*id, *incarnation)).map_or_else(none, records_of)
        }
        Command::Fence(id) => fence(image, rules, *id).records,
        Command::Hear(id) => {
            let epoch = image.broker(*id).map_or(0, |broker| broker.epoch);
            heartbeat(image, rules, *id, epoch).map_or_else(none, records_of)
        }
        Command::LoseDisk(id, disk) => {
            let directory_ids = vec![format!("disk-{disk}")];
            let registration = Registration { directory_ids, ..registration(*id, 100 * disk + *id as u128) };
            register_broker(image, rules, &registration).map_or_else(none, records_of)
        }
        Command::Unregister(id) => {
            unregister_broker(image, rules, *id).map(|decision| decision.records).unwrap_or_default()
        }
        Command::Create(name, partitions, factor) => {
            create_topics(image, &[topic(name, *partitions, *factor)], false, &broker, next_id).records
        }
        Command::Delete(name) => {
            let with_store = config(&[("firn.store.url", "memory://")]);
            delete_topics(image, &[TopicSelector::Name(name.clone())], &with_store).records
        }
        Command::FinishRemoteDeletes => {
            let oldest: Vec<_> = image.remote_deletes().map(|(id, _)| id).take(1).collect();
            finish_remote_deletes(image, &oldest).records
        }
        Command::Grow(name, count) => {
            let wish = MorePartitions { name: name.clone(), count: *count, assignments: None };
            create_partitions(image, &[wish], false, &broker).records
        }
        Command::Configure(name, key, value) => {
            incremental_alter_configs(image, &changes(resource_type::TOPIC, name, key, value), false, &broker)
                .records
        }
        Command::ConfigureBrokers(key, value) => {
            incremental_alter_configs(image, &changes(resource_type::BROKER, "", key, value), false, &broker)
                .records
        }
        Command::Move(name, to) => {
            let asked = Reassignment { topic: name.clone(), partition: 0, replicas: to.clone() };
            alter_reassignments(image, rules, &[asked], true).records
        }
        Command::InSync(name, without) => {
            let Some(topic) = image.topic(name) else { return Vec::new() };
            let Some(now) = topic.partition(0).filter(|now| now.leader != NO_LEADER) else {
                return Vec::new();
            };
            let is_there = |id: &i32| image.broker(*id).is_some_and(|broker| !broker.fenced);
            let isr = now.replicas.iter().copied();
            let isr = isr.filter(|id| *id == now.leader || (is_there(id) && id != without));
            let report = IsrReport {
                topic_id: topic.id,
                partition: 0,
                leader_epoch: now.leader_epoch,
                partition_epoch: now.partition_epoch,
                isr: isr.map(|id| (id, -1)).collect(),
                withdraws: false,
            };
            let epoch = image.broker(now.leader).map_or(0, |broker| broker.epoch);
            alter_partitions(image, rules, now.leader, epoch, &[report]).map_or_else(none, records_of)
        }
        Command::Elect(election) => elect_leaders(image, rules, *election, None, &Logs::new()).records,
        Command::ProducerIds(id) => {
            allocate_producer_ids(image, *id).map(|decision| decision.records).unwrap_or_default()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn whatever_is_commanded_the_invariants_hold_and_the_image_survives_its_snapshot(
        commands in proptest::collection::vec(commands(), 1..60)
    ) {
        let mut image = Image::default();
        let mut next_id = ids();
        let mut log = Vec::new();
        for command in &commands {
            let records = run(&image, command, &mut next_id);
            image.apply_all(&records).unwrap();
            prop_assert_eq!(invariants::violated(&image), None);
            log.extend(records);
        }
        for records in [log, image.to_records()] {
            let mut replayed = Image::default();
            for record in records {
                let bytes = record.encode().unwrap();
                replayed.apply(&MetadataRecord::decode(&bytes).unwrap()).unwrap();
            }
            prop_assert!(replayed == image);
            prop_assert_eq!(invariants::violated(&replayed), None);
        }
    }
}

#[test]
fn an_error_s_code_is_its_variant() {
    let error =
        unregister_broker(&Image::default(), Rules { config: &BrokerConfig::default() }, 1).unwrap_err();
    assert_eq!(code(&error), "BrokerIdNotRegistered");
}
