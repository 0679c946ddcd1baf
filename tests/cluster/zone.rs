//! A whole zone is lost under load, one zone after another: no acknowledged record is, and every partition goes on being written to.

use std::time::{Duration, Instant};

use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::ledger::Past;
use firn_tests::librdkafka::{Ledger, Load};
use firn_tests::questions::Questions;
use firn_tests::trio;

const ZONES: [&str; 3] = ["a", "b", "c"];
/// Of one partition each, so that each has a load of its own, and what one of them cannot write does not hide behind what others do.
const TOPICS: [&str; 6] = ["ice", "snow", "sleet", "hail", "rime", "frost"];
/// From the loss of a zone until records of every topic are acknowledged again, on a machine that does much else: the votes that elect another
/// controller wait for its processors and its disk. How soon it is on a quiet one the test prints.
const WRITTEN_WITHIN: Duration = Duration::from_secs(60);
const RATE: u32 = 200;
const STEADY: u64 = 100;

/// Of brokers 1 to 6.
fn zone(id: i32) -> usize {
    (id as usize - 1) % ZONES.len()
}

struct World {
    brokers: Vec<Broker>,
    questions: Questions,
    loads: Vec<Load>,
}

impl World {
    fn start() -> World {
        let (brokers, questions) = trio::start::<6>(&BrokerOptions::default(), |id| Some(ZONES[zone(id)]));
        for topic in TOPICS {
            questions.create(topic, 1, &[("min.insync.replicas", "2")]);
        }
        let loads = TOPICS.map(|topic| Load::start(&questions.addresses(), topic, 1, 0, RATE, &[]));
        World { brokers, questions, loads: loads.into() }
    }

    /// Waits until this many more records of every topic are acknowledged than now.
    fn wait_for_more(&self, records: u64) {
        let enough: Vec<u64> = self.loads.iter().map(|load| load.acknowledged() + records).collect();
        self.loads.iter().zip(enough).for_each(|(load, enough)| load.wait_for(enough));
    }

    /// All of its brokers at once, as by one fuse.
    fn lose(&mut self, lost: usize) {
        for (id, broker) in (1..).zip(&mut self.brokers) {
            if zone(id) == lost {
                broker.kill();
            }
        }
    }

    fn have_back(&mut self, lost: usize) {
        for (id, broker) in (1..).zip(&mut self.brokers) {
            if zone(id) == lost {
                broker.start_again();
            }
        }
        TOPICS.iter().for_each(|topic| self.questions.wait_in_sync(topic, 1, ZONES.len()));
    }
}

#[test]
fn each_zone_in_turn_is_lost_under_load_and_writes_go_on() {
    if System::under_test() == System::Kafka {
        return;
    }
    let mut world = World::start();
    for topic in TOPICS {
        let mut zones: Vec<usize> =
            world.questions.describe(topic)[0].replicas.iter().map(|id| zone(*id)).collect();
        zones.sort_unstable();
        assert_eq!(zones, [0, 1, 2], "{topic} has a replica in each zone");
    }
    for (lost, name) in ZONES.into_iter().enumerate() {
        world.wait_for_more(STEADY);
        let had_controller = world.questions.controller() % ZONES.len() == lost;
        world.lose(lost);
        let began = Instant::now();
        // What was under way may be acknowledged yet.
        world.wait_for_more(STEADY);
        let took = began.elapsed();
        println!(
            "zone {name} lost, with the controller: {had_controller}; every topic written to within {took:.2?}"
        );
        assert!(took <= WRITTEN_WITHIN, "{took:?} after the loss of zone {name}");
        for topic in TOPICS {
            let now = &world.questions.describe(topic)[0];
            assert!(now.leader.is_some_and(|leader| zone(leader) != lost), "{topic}: {now:?}");
        }
        world.have_back(lost);
    }
    let addresses = world.questions.addresses();
    for (topic, load) in TOPICS.iter().zip(world.loads.drain(..)) {
        let ledger: Ledger = load.end();
        assert!(ledger.failures.is_empty(), "{topic}: {:?}", ledger.failures);
        Past::default().check(&addresses, topic, 1, &ledger);
    }
    world.brokers.iter_mut().for_each(Broker::stop);
}
