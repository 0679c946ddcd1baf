//! Preferred replicas lead again, unclean leaders lead alone, and nobody else does.

use firn_model::broker_config::BrokerConfig;

use super::*;
use crate::decide::brokers::{Registration, register_broker};
use crate::decide::create_topics::NewTopic;
use crate::decide::isr::{IsrReport, alter_partitions};
use crate::decide::lifecycle::{fence, heartbeat};
use crate::decide::testing::{apply, code, create, image_of, registration};

struct World(Image);

impl World {
    /// Three brokers, and a topic with two partitions on all of them, of which two have to be in sync.
    fn new() -> World {
        let mut image = image_of(3);
        let new = NewTopic {
            name: "snow".to_owned(),
            num_partitions: -1,
            replication_factor: -1,
            assignments: vec![(0, vec![0, 1, 2]), (1, vec![1, 2, 0])],
            configs: vec![("min.insync.replicas".to_owned(), Some("2".to_owned()))],
        };
        let creation = create(&image, &[new]);
        apply(&mut image, &creation);
        World(image)
    }

    fn now(&self) -> &Partition {
        self.0.topic("snow").unwrap().partition(0).unwrap()
    }

    fn decide<R>(&mut self, decide: impl FnOnce(&Image, Rules<'_>) -> Decision<R>) -> R {
        let config = BrokerConfig::default();
        let decision = decide(&self.0, Rules { config: &config });
        apply(&mut self.0, &decision);
        decision.reply
    }

    fn fence(&mut self, broker: i32) {
        self.decide(|image, rules| fence(image, rules, broker));
    }

    fn hear_of(&mut self, broker: i32) {
        let epoch = self.0.broker(broker).unwrap().epoch;
        self.decide(|image, rules| heartbeat(image, rules, broker, epoch).unwrap());
    }

    fn in_sync(&mut self, isr: &[i32]) {
        let now = self.now();
        let report = IsrReport {
            topic_id: self.0.topic("snow").unwrap().id,
            partition: 0,
            leader_epoch: now.leader_epoch,
            partition_epoch: now.partition_epoch,
            isr: isr.iter().map(|id| (*id, -1)).collect(),
            withdraws: false,
        };
        let leader = now.leader;
        let epoch = self.0.broker(leader).unwrap().epoch;
        let told =
            self.decide(|image, rules| alter_partitions(image, rules, leader, epoch, &[report]).unwrap());
        assert!(told[0].is_ok(), "{told:?}");
    }

    fn elect(&mut self, election: ElectionType) -> Result<Elected, DecisionError> {
        self.elect_of(election, &[])
    }

    /// With what brokers say of their logs: last epoch and end.
    fn elect_of(
        &mut self,
        election: ElectionType,
        logs: &[(i32, (i32, i64))],
    ) -> Result<Elected, DecisionError> {
        let named = [("snow".to_owned(), 0)];
        let end = |(last_epoch, end_offset)| LogEnd { last_epoch, end_offset };
        let told = logs.iter().map(|(id, log)| (*id, end(*log))).collect();
        let logs = Logs::from([((self.0.topic("snow").unwrap().id, 0), told)]);
        let mut outcomes =
            self.decide(|image, rules| elect_leaders(image, rules, election, Some(&named), &logs));
        outcomes.remove(0).elected
    }

    fn elect_all(&mut self, election: ElectionType) -> Vec<(i32, bool)> {
        let told = self.decide(|image, rules| elect_leaders(image, rules, election, None, &Logs::new()));
        told.into_iter().map(|one| (one.partition, one.elected.is_ok())).collect()
    }
}

fn refusal(elected: Result<Elected, DecisionError>) -> String {
    code(&elected.unwrap_err())
}

#[test]
fn the_preferred_replica_leads_again_once_it_is_in_sync() {
    let mut world = World::new();
    assert_eq!(refusal(world.elect(ElectionType::Preferred)), "ElectionNotNeeded");
    world.fence(0);
    assert_eq!(world.now().leader, 1);
    assert_eq!(refusal(world.elect(ElectionType::Preferred)), "PreferredLeaderNotAvailable");
    world.hear_of(0);
    assert_eq!(refusal(world.elect(ElectionType::Preferred)), "PreferredLeaderNotAvailable");
    let epoch = world.now().leader_epoch;
    world.in_sync(&[0, 1, 2]);
    let elected = world.elect(ElectionType::Preferred).unwrap();
    assert_eq!(elected, Elected { leader: 0, lost: Vec::new() });
    let now = world.now();
    assert_eq!((now.leader, now.leader_epoch, now.isr.len()), (0, epoch + 1, 3));
    assert_eq!(refusal(world.elect(ElectionType::Preferred)), "ElectionNotNeeded");
}

#[test]
fn of_all_partitions_those_are_told_that_need_an_election() {
    let mut world = World::new();
    assert_eq!(world.elect_all(ElectionType::Preferred), []);
    world.fence(0);
    world.hear_of(0);
    world.in_sync(&[0, 1, 2]);
    assert_eq!(world.elect_all(ElectionType::Preferred), [(0, true)]);
    world.fence(1);
    assert_eq!(world.elect_all(ElectionType::Preferred), [(1, false)], "its preferred leader is away");
    assert_eq!(world.elect_all(ElectionType::Unclean), [], "each is led");
}

#[test]
fn an_unclean_leader_leads_alone_in_another_epoch() {
    let mut world = World::new();
    assert_eq!(refusal(world.elect(ElectionType::Unclean)), "ElectionNotNeeded");
    // 2 falls behind for good, and then those go that have what it has not.
    world.in_sync(&[0, 1]);
    world.fence(0);
    world.fence(1);
    let now = world.now();
    assert_eq!((&*now.isr, now.leader), (&[][..], NO_LEADER));
    assert_eq!(now.elr, [0, 1]);
    let epoch = now.leader_epoch;
    assert_eq!(refusal(world.elect(ElectionType::Preferred)), "PreferredLeaderNotAvailable");
    let elected = world.elect(ElectionType::Unclean).unwrap();
    assert_eq!(elected, Elected { leader: 2, lost: vec![0, 1] });
    let now = world.now();
    assert_eq!((&*now.isr, &*now.elr, &*now.last_known_elr), (&[2][..], &[][..], &[][..]));
    assert_eq!((now.leader, now.leader_epoch), (2, epoch + 1));
    // Those that come back fetch from it before they are anything.
    world.hear_of(0);
    world.fence(2);
    assert_eq!((world.now().leader, &*world.now().elr), (NO_LEADER, &[2][..]));
    world.hear_of(2);
    assert_eq!(world.now().leader, 2);
}

#[test]
fn without_any_replica_nobody_leads() {
    let mut world = World::new();
    for broker in [0, 1, 2] {
        world.fence(broker);
    }
    assert_eq!(refusal(world.elect(ElectionType::Unclean)), "EligibleLeadersNotAvailable");
    assert_eq!(world.elect_all(ElectionType::Unclean), [(0, false), (1, false)]);
}

/// All that had everything come back on empty disks.
#[test]
fn of_those_that_are_left_whoever_has_the_most_leads() {
    let on_disk = |broker: i32, disk: &str, incarnation| Registration {
        directory_ids: vec![format!("{disk}-{broker}")],
        ..registration(broker, incarnation)
    };
    let mut world = World::new();
    for broker in [0, 1] {
        let old = on_disk(broker, "old", 70 + broker as u128);
        world.decide(|image, rules| register_broker(image, rules, &old).unwrap());
    }
    world.in_sync(&[0, 1, 2]);
    world.elect(ElectionType::Preferred).unwrap();
    world.in_sync(&[0, 1]);
    for broker in [0, 1] {
        world.fence(broker);
    }
    for broker in [0, 1] {
        let new = on_disk(broker, "new", 80 + broker as u128);
        world.decide(|image, rules| register_broker(image, rules, &new).unwrap());
    }
    let now = world.now();
    assert_eq!((now.isr.len(), now.elr.len(), now.leader), (0, 0, NO_LEADER), "{now:?}");
    let lost = vec![0, 1];
    // Two empty ones, and one that has fallen behind.
    for (logs, leader) in [
        (&[(0, (-1, 0)), (1, (-1, 0)), (2, (3, 50))][..], 2),
        (&[(0, (-1, 0)), (1, (2, 90)), (2, (3, 50))], 2),
        (&[(0, (-1, 0)), (1, (3, 51)), (2, (3, 50))], 1),
        // Who does not say has nothing, as far as is known.
        (&[(2, (3, 50))], 2),
        (&[], 0),
    ] {
        let mut world = World(world.0.clone());
        let elected = world.elect_of(ElectionType::Unclean, logs).unwrap();
        assert_eq!(elected, Elected { leader, lost: lost.clone() }, "{logs:?}");
        assert_eq!(world.now().isr, [leader]);
    }
}

#[test]
fn what_does_not_exist_is_refused() {
    let mut world = World::new();
    let named = [("ice".to_owned(), 0), ("snow".to_owned(), 2), ("snow".to_owned(), -1)];
    let told = world.decide(|image, rules| {
        elect_leaders(image, rules, ElectionType::Preferred, Some(&named), &Logs::new())
    });
    for one in told {
        assert_eq!(refusal(one.elected), "UnknownTopicOrPartition");
    }
}
