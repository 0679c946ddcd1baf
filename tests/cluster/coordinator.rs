//! A group whose coordinator is killed: what it has committed is served by another one within moments.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use firn_client::cluster::Cluster;
use firn_client::connection::ConnectionOptions;
use firn_client::groups::{self, Offsets};
use firn_protocol::library::messages::offset_fetch_request::OffsetFetchRequestGroup;
use firn_protocol::library::messages::{GroupId, OffsetFetchRequest};
use firn_protocol::library::protocol::StrBytes;
use firn_tests::cluster::{BrokerOptions, System};
use firn_tests::process::wait_for;
use firn_tests::trio::Trio;
use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(60);
/// From the kill of a coordinator to the first answer of the next, wherever the controller was.
const SERVED_WITHIN: Duration = Duration::from_secs(2);
const OFFSETS: &str = "__consumer_offsets";
const OFFSETS_PARTITIONS: i32 = 50;
const TOPIC: &str = "snow";

struct World {
    runtime: Runtime,
    trio: Trio,
}

impl World {
    fn start() -> World {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let world = World { runtime, trio: Trio::start(&BrokerOptions::default()) };
        world.trio.create(TOPIC, 2, &[]);
        wait_for("a coordinator", DEADLINE, || world.coordinator("any"));
        world.trio.wait_in_sync(OFFSETS, OFFSETS_PARTITIONS, 3);
        world
    }

    /// A client that knows nothing yet, so that it may ask who was killed.
    fn client(&self) -> Arc<Cluster> {
        let addresses = self.trio.brokers.iter().map(|broker| broker.address()).collect();
        let options =
            ConnectionOptions { deadline: Duration::from_millis(500), ..ConnectionOptions::default() };
        Arc::new(Cluster::new(addresses, options))
    }

    /// The place of the broker that coordinates a group, as somebody tells.
    fn coordinator(&self, group: &str) -> Option<usize> {
        let found = self.runtime.block_on(self.client().find_coordinator(group)).ok()?;
        usize::try_from(found.id - 1).ok()
    }

    /// A group that this broker coordinates.
    fn group_of(&self, place: usize) -> String {
        let mut names = (0..).map(|number| format!("group-{number}"));
        names.find(|name| self.coordinator(name) == Some(place)).expect("there is no end of names")
    }

    fn commit(&self, group: &str, offsets: &Offsets) {
        wait_for("a commit", DEADLINE, || {
            self.runtime.block_on(groups::reset(&self.client(), group, offsets)).ok()
        });
    }

    /// What a group has committed, as its coordinator tells, if there is one that does.
    fn committed(&self, client: &Cluster, group: &str) -> Option<Offsets> {
        let name = GroupId(StrBytes::from_string(group.to_owned()));
        let asked = OffsetFetchRequestGroup::default().with_group_id(name).with_topics(None);
        let request = OffsetFetchRequest::default().with_groups(vec![asked]);
        let told = self.runtime.block_on(async { client.coordinator(group).await?.call(&request).await });
        let told = told.ok()?.groups.pop().filter(|told| told.error_code == 0)?;
        let topics = told.topics.iter().flat_map(|topic| {
            let place = |index| (topic.name.0.to_string(), index);
            topic.partitions.iter().map(move |one| (place(one.partition_index), one.committed_offset))
        });
        Some(topics.collect())
    }
}

fn offsets(at: [i64; 2]) -> Offsets {
    (0..).zip(at).map(|(partition, offset)| ((TOPIC.to_owned(), partition), offset)).collect()
}

/// A dead process's address refuses connections, so nobody waits for its session to end.
#[test]
fn what_a_group_committed_is_served_again_within_moments_of_its_coordinators_death() {
    if System::under_test() == System::Kafka {
        return;
    }
    let mut world = World::start();
    let mut took = BTreeMap::new();
    for with_controller in [false, true] {
        let controller = world.trio.controller();
        let place = if with_controller { controller } else { (controller + 1) % 3 };
        let group = world.group_of(place);
        for at in [[41, 7], [42, 8]] {
            world.commit(&group, &offsets(at));
        }
        let client = world.client();
        assert_eq!(world.committed(&client, &group), Some(offsets([42, 8])));

        let killed = Instant::now();
        world.trio.brokers[place].kill();
        let told = wait_for("another coordinator", DEADLINE, || world.committed(&client, &group));
        took.insert(with_controller, killed.elapsed());
        assert_eq!(told, offsets([42, 8]), "the first answer");
        assert_ne!(world.coordinator(&group), Some(place));

        world.trio.brokers[place].start_again();
        world.trio.wait_in_sync(OFFSETS, OFFSETS_PARTITIONS, 3);
    }
    println!("served after {took:?}, by whether the controller died with it");
    assert!(
        took.values().all(|took| *took <= SERVED_WITHIN),
        "{took:?}, by whether the controller died with it"
    );
}
