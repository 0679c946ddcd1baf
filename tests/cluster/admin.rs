//! What operators do with a cluster, by Apache's own tools: partitions move and are given back, leaders are elected, a broker that
//! is gone is unregistered.

use std::time::Duration;

use firn_client::connection::{Connection, ConnectionOptions};
use firn_client::topics::Partition;
use firn_protocol::library::messages::alter_partition_reassignments_request::{
    ReassignablePartition, ReassignableTopic,
};
use firn_protocol::library::messages::{AlterPartitionReassignmentsRequest, BrokerId, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::process::wait_for;
use firn_tests::trio::Trio;
use firn_tests::{apache, java};
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "snow";

fn start() -> Trio {
    let options = BrokerOptions::default()
        .with("broker.session.timeout.ms", "3000")
        .with("broker.heartbeat.interval.ms", "500")
        .with("offsets.topic.replication.factor", "3");
    Trio::start(&options)
}

/// A topic of one partition on these brokers.
fn create(trio: &Trio, replicas: &str) {
    let arguments = ["--create", "--topic", TOPIC, "--replica-assignment", replicas];
    let created = apache::topics(&trio.brokers[0].address(), &arguments);
    assert!(created.clone().ok().contains("Created topic"), "{created:?}");
}

fn partition(trio: &Trio) -> Partition {
    trio.describe(TOPIC).remove(0)
}

fn until(trio: &Trio, what: &str, holds: impl Fn(&Partition) -> bool) {
    wait_for(what, DEADLINE, || holds(&partition(trio)).then_some(()));
}

fn write(trio: &Trio, from: usize, count: usize) {
    let records: Vec<Value> =
        (from..from + count).map(|number| json!({"value": format!("record {number}")})).collect();
    let sent = java::produce(&trio.addresses(), TOPIC, &[("acks", "all")], &records);
    assert!(sent.iter().all(Result::is_ok), "{sent:?}");
}

fn read(address: &str) -> Vec<String> {
    java::read(address, TOPIC, &[]).into_iter().filter_map(|record| record.value).collect()
}

fn written(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("record {number}")).collect()
}

/// Apache's tool does not begin a move to a broker that is away.
fn begin(address: &str, replicas: &[i32]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ids = replicas.iter().map(|id| BrokerId(*id)).collect();
    let partition = ReassignablePartition::default().with_replicas(Some(ids));
    let topic = ReassignableTopic::default()
        .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
        .with_partitions(vec![partition]);
    let request =
        AlterPartitionReassignmentsRequest::default().with_timeout_ms(30_000).with_topics(vec![topic]);
    let told = runtime.block_on(async {
        let connection = Connection::connect(address, ConnectionOptions::default()).await.expect("a broker");
        connection.call(&request).await.expect("an answer")
    });
    assert_eq!((told.error_code, told.responses[0].partitions[0].error_code), (0, 0), "{told:?}");
}

#[test]
fn partitions_move_and_are_given_back() {
    let mut trio = start();
    create(&trio, "1:2");
    write(&trio, 0, 50);
    let address = trio.addresses();
    let to = |replicas: &'static [i32]| -> [(i32, &'static [i32]); 1] { [(0, replicas)] };
    let moves = to(&[3, 1]);
    let executed = apache::reassign(&address, &["--execute"], Some((TOPIC, &moves))).ok();
    assert!(executed.contains("Successfully started partition reassignment for snow-0"), "{executed}");
    write(&trio, 50, 50);
    wait_for("the end of the move", DEADLINE, || {
        let verified = apache::reassign(&address, &["--verify"], Some((TOPIC, &moves))).ok();
        verified.contains("Reassignment of partition snow-0 is completed.").then_some(())
    });
    let now = partition(&trio);
    assert_eq!((&*now.replicas, now.in_sync.len()), (&[3, 1][..], 2), "{now:?}");
    let listed = apache::reassign(&address, &["--list"], None).ok();
    assert!(listed.contains("No partition reassignments found."), "{listed}");
    let strange = apache::reassign(&address, &["--execute"], Some((TOPIC, &to(&[7]))));
    assert!(strange.status != 0 && format!("{strange:?}").contains('7'), "{strange:?}");

    // One that cannot end, because where it goes is away.
    trio.brokers[1].stop();
    let address = format!("{},{}", trio.brokers[0].address(), trio.brokers[2].address());
    begin(&trio.brokers[0].address(), &[2, 1]);
    let listed = apache::reassign(&address, &["--list"], None).ok();
    assert!(listed.contains("snow-0: replicas: 2,1,3. adding: 2. removing: 3."), "{listed}");
    let described = apache::topics(&address, &["--describe", "--topic", TOPIC]).ok();
    assert!(described.contains("Adding Replicas: 2"), "{described}");
    assert!(described.contains("Removing Replicas: 3"), "{described}");
    let verified = apache::reassign(&address, &["--verify"], Some((TOPIC, &to(&[2, 1])))).ok();
    assert!(verified.contains("Reassignment of partition snow-0 is still in progress."), "{verified}");
    // It would ask the broker that is away to forget its throttles.
    let cancel = ["--cancel", "--preserve-throttles"];
    let cancelled = apache::reassign(&address, &cancel, Some((TOPIC, &to(&[2, 1])))).ok();
    assert!(cancelled.contains("Successfully cancelled partition reassignment"), "{cancelled}");
    assert_eq!(partition(&trio).replicas, [1, 3]);
    trio.brokers[1].start_again();
    assert_eq!(read(&trio.addresses()), written(100));
    trio.brokers.iter_mut().for_each(|broker| broker.stop());
}

#[test]
fn leaders_are_elected_and_a_broker_that_is_gone_is_unregistered() {
    let mut trio = start();
    create(&trio, "1:2");
    write(&trio, 0, 10);
    let rest = format!("{},{}", trio.brokers[1].address(), trio.brokers[2].address());
    trio.brokers[0].stop();
    until(&trio, "the second replica leads", |now| now.leader == Some(2));
    let refused = apache::elect(&rest, "preferred", TOPIC, 0);
    assert!(format!("{refused:?}").contains("PreferredLeaderNotAvailable"), "{refused:?}");
    trio.brokers[0].start_again();
    until(&trio, "both in sync", |now| now.in_sync.len() == 2);
    let elected = apache::elect(&rest, "preferred", TOPIC, 0).ok();
    assert!(elected.contains("Successfully completed leader election (PREFERRED)"), "{elected}");
    until(&trio, "the preferred replica leads", |now| now.leader == Some(1));
    let again = apache::elect(&rest, "preferred", TOPIC, 0).ok();
    assert!(again.contains("Valid replica already elected"), "{again}");

    // The second one misses some records, and the first one is gone for good.
    trio.brokers[1].stop();
    until(&trio, "one in sync", |now| now.in_sync == [1]);
    write(&trio, 10, 5);
    trio.brokers[0].kill();
    trio.brokers[1].start_again();
    until(&trio, "nobody leads", |now| now.leader.is_none());
    let elected = apache::elect(&rest, "unclean", TOPIC, 0).ok();
    assert!(elected.contains("Successfully completed leader election (UNCLEAN)"), "{elected}");
    until(&trio, "the second replica leads", |now| now.leader == Some(2));
    assert_eq!(read(&rest), written(10), "what only the first one had is given up");
    let unregistered = apache::unregister(&rest, 1);
    assert!(unregistered.clone().ok().contains("Broker 1 is no longer registered."), "{unregistered:?}");
    let twice = apache::unregister(&rest, 1);
    assert!(format!("{twice:?}").contains("not registered"), "{twice:?}");
    // What it had moves to the one that is left.
    let moves: [(i32, &[i32]); 1] = [(0, &[2, 3])];
    apache::reassign(&rest, &["--execute"], Some((TOPIC, &moves))).ok();
    until(&trio, "both in sync", |now| now.replicas == [2, 3] && now.in_sync.len() == 2);
    assert_eq!(read(&rest), written(10));
    trio.brokers[1].stop();
    trio.brokers[2].stop();
}

#[test]
fn features_are_told_as_they_are() {
    if System::under_test() == System::Kafka {
        // It has some.
        return;
    }
    let trio = start();
    let address = trio.addresses();
    let described = apache::features(&address, &["describe"]).ok();
    assert!(!described.contains("FinalizedVersionLevel: 1"), "{described}");
    let refused = apache::features(&address, &["upgrade", "--feature", "metadata.version=25"]);
    assert!(refused.status != 0 && format!("{refused:?}").contains("metadata.version"), "{refused:?}");
    let downgraded = apache::features(&address, &["disable", "--feature", "group.version"]);
    assert!(format!("{downgraded:?}").contains("group.version"), "{downgraded:?}");
}

/// KIP-853. The tool reads from a broker's own file and directory which one is meant.
#[test]
fn votes_are_given_to_a_broker_that_observes_and_taken_again() {
    if System::under_test() == System::Kafka {
        // There a controller has to be formatted for it.
        return;
    }
    let trio = start();
    let voters: Vec<String> =
        (1..).zip(&trio.brokers).map(|(id, broker)| format!("{id}@{}", broker.address())).collect();
    let options =
        BrokerOptions::default().with("broker.id", "4").with("controller.quorum.voters", &voters.join(","));
    let mut fourth = Broker::start(options);
    let address = fourth.address();
    let members = || {
        let described = apache::metadata_quorum(&address, &["describe", "--replication"], None).ok();
        let role = |line: &str| {
            let mut words = line.split_whitespace();
            let id = words.next()?.parse::<i32>().ok()?;
            let directory = words.next()?.to_owned();
            Some((id, directory, words.next_back()?.to_owned()))
        };
        described.lines().filter_map(role).collect::<Vec<_>>()
    };
    let with_role = |role: &str| {
        let mut ids: Vec<i32> =
            members().into_iter().filter(|(.., is)| is == role).map(|(id, ..)| id).collect();
        ids.sort_unstable();
        ids
    };
    assert_eq!(with_role("Observer"), [4]);
    let described = apache::metadata_quorum(&address, &["describe", "--replication"], None).ok();
    // Node, directory, end, lag, when it was heard of last, when it had everything.
    let heard_ms: Vec<i64> =
        described.lines().filter_map(|line| line.split_whitespace().nth(4)?.parse().ok()).collect();
    assert_eq!(heard_ms.iter().filter(|ms| **ms > 1_000_000_000_000).count(), 4, "{described}");
    let status = apache::metadata_quorum(&address, &["describe", "--status"], None).ok();
    assert!(status.contains("CurrentObservers:") && status.contains("\"id\": 4"), "{status}");

    let properties = format!(
        "node.id=4\nprocess.roles=broker,controller\nlog.dirs={}\nlisteners=CONTROLLER://{address}\n\
         controller.listener.names=CONTROLLER\nlistener.security.protocol.map=CONTROLLER:PLAINTEXT\n",
        fourth.data().display()
    );
    let added = apache::metadata_quorum(&address, &["add-controller"], Some(&properties)).ok();
    assert!(added.contains("Added controller 4"), "{added}");
    assert_eq!((with_role("Observer"), with_role("Leader").len() + with_role("Follower").len()), (vec![], 4));
    let (_, directory, _) = members().into_iter().find(|(id, ..)| *id == 4).expect("broker 4");
    let who = ["--controller-id", "4", "--controller-directory-id", &directory];
    let remove = [&["remove-controller"][..], &who[..]].concat();
    let removed = apache::metadata_quorum(&trio.addresses(), &remove, None).ok();
    assert!(removed.contains("KRaft controller 4 with directory id"), "{removed}");
    assert_eq!(with_role("Observer"), [4]);
    let again = apache::metadata_quorum(&trio.addresses(), &remove, None);
    assert!(again.status != 0 && format!("{again:?}").contains("has no vote"), "{again:?}");
    fourth.stop();
}
