//! Clusters for the tests: brokers in racks, partitions on them, and what operators say of brokers.

use std::collections::BTreeMap;

use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;

use super::*;
use crate::decide::brokers::{register_broker, unregister_broker};
use crate::decide::create_topics::new_partition;
use crate::decide::isr::{IsrReport, alter_partitions};
use crate::decide::lifecycle::{fence, heartbeat};
use crate::decide::testing::{apply, registration};
use crate::image::Partition;
use crate::record::{ConfigRecord, ConfigResource, MetadataRecord, TopicRecord};

pub(super) const LIMITS: Limits =
    Limits { moves_max: 100, moves_per_broker_max: 100, imbalance_percentage: 10 };

pub(super) struct World {
    pub image: Image,
    config: BrokerConfig,
}

impl World {
    /// Brokers 0, 1, 2 …, in racks; an empty name is none.
    pub(super) fn new(racks: &[&str]) -> World {
        let mut world = World { image: Image::default(), config: BrokerConfig::default() };
        for (id, rack) in (0..).zip(racks) {
            let rack = Some(*rack).filter(|rack| !rack.is_empty()).map(str::to_owned);
            let told = crate::decide::brokers::Registration { rack, ..registration(id, 1000 + id as u128) };
            world.decide(|image, rules| register_broker(image, rules, &told).unwrap());
        }
        world
    }

    pub(super) fn decide<R>(&mut self, decide: impl FnOnce(&Image, Rules<'_>) -> Decision<R>) -> R {
        let decision = decide(&self.image, Rules { config: &self.config });
        apply(&mut self.image, &decision);
        decision.reply
    }

    /// A topic with a partition for each list of replicas, however many those are.
    pub(super) fn topic(&mut self, name: &str, assignments: &[&[i32]]) -> TopicId {
        let topic_id = TopicId(uuid::Uuid::from_u128(1 + self.image.topic_count() as u128));
        self.decide(|image, _| {
            let topic = TopicRecord { name: name.to_owned(), topic_id };
            let partitions = (0..).zip(assignments);
            let partitions = partitions
                .map(|(index, replicas)| new_partition(image, topic_id, index, replicas.to_vec()).unwrap());
            Decision {
                records: [MetadataRecord::Topic(topic)].into_iter().chain(partitions).collect(),
                reply: (),
            }
        });
        topic_id
    }

    pub(super) fn set(&mut self, broker: i32, name: &str, value: Option<&str>) {
        let resource = ConfigResource::broker(broker);
        let record = ConfigRecord { resource, name: name.to_owned(), value: value.map(str::to_owned) };
        self.decide(|_, _| Decision { records: vec![MetadataRecord::Config(record)], reply: () });
    }

    pub(super) fn drain(&mut self, broker: i32) {
        self.set(broker, "firn.broker.drain", Some("true"));
    }

    pub(super) fn cordon(&mut self, broker: i32) {
        self.set(broker, "cordoned.log.dirs", Some("*"));
    }

    pub(super) fn fence(&mut self, broker: i32) {
        self.decide(|image, rules| fence(image, rules, broker));
    }

    pub(super) fn hear_of(&mut self, broker: i32) {
        let epoch = self.image.broker(broker).unwrap().epoch;
        self.decide(|image, rules| heartbeat(image, rules, broker, epoch).unwrap());
    }

    /// Whether it was.
    pub(super) fn unregister(&mut self, broker: i32) -> bool {
        match unregister_broker(&self.image, Rules { config: &self.config }, broker) {
            Ok(decision) => {
                apply(&mut self.image, &decision);
                true
            }
            Err(_) => false,
        }
    }

    pub(super) fn evacuate(&mut self, limits: Limits) -> Plan {
        let plan = evacuate(&self.image, limits);
        self.begin(&plan);
        plan
    }

    pub(super) fn even(&mut self, limits: Limits, sizes: Option<&Sizes>) -> Plan {
        let plan = even(&self.image, limits, sizes, true);
        self.begin(&plan);
        plan
    }

    fn begin(&mut self, plan: &Plan) {
        let begun = self.decide(|image, rules| begin(image, rules, &plan.moves));
        assert_eq!(begun, plan.moves.len(), "every move of a plan can be begun: {plan:?}");
    }

    /// Every partition, by topic and index.
    pub(super) fn partitions(&self) -> BTreeMap<(TopicId, i32), Partition> {
        let topics = self.image.topics();
        let all = topics.flat_map(|topic| {
            (0..).zip(&topic.partitions).map(|(index, now)| ((topic.id, index), Partition::clone(now)))
        });
        all.collect()
    }

    /// Where the partitions of a topic are, and those that move are to be.
    pub(super) fn targets(&self, topic: &str) -> Vec<Vec<i32>> {
        let topic = self.image.topic(topic).unwrap();
        topic.partitions.iter().map(|partition| partition.target_replicas().collect()).collect()
    }

    /// Who is there has caught up with a partition.
    pub(super) fn catch_up(&mut self, (topic_id, partition): (TopicId, i32)) {
        let now = self.partitions().remove(&(topic_id, partition)).unwrap();
        let is_there = |id: &i32| self.image.broker(*id).is_some_and(|broker| !broker.fenced);
        let isr = now.replicas.iter().copied().filter(is_there).map(|id| (id, -1)).collect();
        let report = IsrReport {
            topic_id,
            partition,
            leader_epoch: now.leader_epoch,
            partition_epoch: now.partition_epoch,
            isr,
            withdraws: false,
        };
        if is_there(&now.leader) {
            let epoch = self.image.broker(now.leader).unwrap().epoch;
            let told = self.decide(|image, rules| {
                alter_partitions(image, rules, now.leader, epoch, std::slice::from_ref(&report)).unwrap()
            });
            assert!(told[0].is_ok(), "{told:?}");
        }
    }

    /// All moves that can be done are.
    pub(super) fn finish(&mut self) {
        for key in self.partitions().into_keys() {
            self.catch_up(key);
        }
    }
}
