//! `kafka-reassign-partitions.sh --throttle`: a move takes the time that it is given, nobody else notices, and nothing of the throttle is left.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use firn_client::cluster::Cluster;
use firn_client::connection::ConnectionOptions;
use firn_client::consumer::{Consumer, Start};
use firn_client::producer::{Outgoing, Producer, ProducerOptions};
use firn_tests::cluster::{BrokerOptions, System};
use firn_tests::process::wait_for;
use firn_tests::trio::Trio;
use firn_tests::{apache, java};
use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(120);
const TOPIC: &str = "snow";
/// Bytes a second.
const RATE: usize = 1_000_000;
const RECORD: usize = 10_000;
const RECORDS: usize = 800;
/// The most that a record may take from a producer to a consumer while others are held back.
const WAY_MAX: Duration = Duration::from_secs(2);

fn client(trio: &Trio) -> Arc<Cluster> {
    let addresses = trio.brokers.iter().map(|broker| broker.address()).collect();
    Arc::new(Cluster::new(addresses, ConnectionOptions::default()))
}

/// Writes as many records of so many bytes with acks=all.
async fn write(client: Arc<Cluster>, topic: &str, records: usize, bytes: usize) {
    let record = Outgoing {
        partition: Some(0),
        timestamp: 1,
        value: Some(Bytes::from(vec![b'x'; bytes])),
        ..Outgoing::default()
    };
    let mut producer = Producer::open(client, topic, ProducerOptions::default()).await.expect("a producer");
    for _ in 0..records {
        producer.send(&record).await.expect("sent");
    }
    producer.flush().await.expect("acknowledged");
}

/// Writes a topic full.
fn fill(runtime: &Runtime, trio: &Trio, topic: &str) {
    runtime.block_on(write(client(trio), topic, RECORDS, RECORD));
}

/// How long a record takes from a producer to a consumer.
fn pass_on(runtime: &Runtime, trio: &Trio, topic: &str) -> Duration {
    runtime.block_on(async {
        let opened = Consumer::open(client(trio), topic, None, Start::Latest).await;
        let mut consumer = opened.expect("a consumer");
        let began = Instant::now();
        write(client(trio), topic, 1, 10).await;
        while consumer.poll(WAY_MAX).await.expect("records").is_empty() {
            assert!(began.elapsed() < DEADLINE, "the record does not come");
        }
        began.elapsed()
    })
}

fn configs(address: &str, kind: &str, name: &str) -> String {
    let arguments = ["--describe", "--entity-type", kind, "--entity-name", name];
    apache::configs(address, &arguments).ok()
}

#[test]
fn a_throttled_move_takes_its_time_and_disturbs_nobody() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let trio = Trio::start(&BrokerOptions::default().with("offsets.topic.replication.factor", "3"));
    let address = trio.addresses();
    for (topic, replicas) in [(TOPIC, "1:2"), ("rain", "1:3")] {
        let arguments =
            ["--create", "--topic", topic, "--replica-assignment", replicas, "--config", "retention.ms=-1"];
        apache::topics(&address, &arguments).ok();
    }
    fill(&runtime, &trio, TOPIC);

    let moves: [(i32, &[i32]); 1] = [(0, &[3, 1])];
    let began = Instant::now();
    let executed =
        apache::reassign(&address, &["--execute", "--throttle", &RATE.to_string()], Some((TOPIC, &moves)))
            .ok();
    assert!(executed.contains("The inter-broker throttle limit was set to 1000000 B/s"), "{executed}");
    let topic = configs(&address, "topics", TOPIC);
    assert!(topic.contains("leader.replication.throttled.replicas=0:1,0:2"), "{topic}");
    assert!(topic.contains("follower.replication.throttled.replicas=0:3"), "{topic}");
    for id in ["1", "2", "3"] {
        let broker = configs(&address, "brokers", id);
        for side in ["leader", "follower"] {
            assert!(broker.contains(&format!("{side}.replication.throttled.rate=1000000")), "{broker}");
        }
    }
    let moved = || {
        let now = trio.describe(TOPIC).remove(0);
        (now.replicas == [3, 1] && now.in_sync.len() == 2).then_some(())
    };
    let mut slowest = Duration::ZERO;
    let mut more = 0;
    while moved().is_none() {
        assert!(began.elapsed() < DEADLINE, "the move does not end");
        // Every broker has a part in both. What replicas in sync copy counts, so it has to be less than the rate.
        for topic in [TOPIC, "rain"] {
            slowest = slowest.max(pass_on(&runtime, &trio, topic));
        }
        more += 1;
    }
    let took = began.elapsed();
    assert!(slowest < WAY_MAX, "a record took {slowest:?}");
    // A fetch, and a second's worth that was saved up, go before the throttle holds anything back.
    let least = Duration::from_secs_f64((RECORD * RECORDS - (1 << 20) - RATE) as f64 / RATE as f64);
    let most = Duration::from_secs_f64((RECORD * RECORDS) as f64 / RATE as f64) + Duration::from_secs(10);
    assert!((least..most).contains(&took), "{took:?}, not between {least:?} and {most:?}");
    assert_eq!(java::read_keys(&address, TOPIC, &[]).len(), RECORDS + more);

    let verified = apache::reassign(&address, &["--verify"], Some((TOPIC, &moves))).ok();
    for line in [
        "Reassignment of partition snow-0 is completed.",
        "Clearing broker-level throttles on brokers 1,2,3",
        "Clearing topic-level throttles on topic snow",
    ] {
        assert!(verified.contains(line), "{line} is not in {verified}");
    }
    let left = [configs(&address, "topics", TOPIC), configs(&address, "brokers", "1")].join("\n");
    assert!(!left.contains("throttled"), "{left}");
    if System::under_test() == System::Firn {
        let counted = trio.brokers[2].metric("firn_replication_throttled_bytes_total").expect("a sample");
        assert!(counted >= (RECORD * RECORDS) as f64, "{counted}");
    }
}

/// The rate of a move that would take a day is raised, and counts at once.
#[test]
fn a_throttle_is_changed_while_the_move_goes_on() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let trio = Trio::start(&BrokerOptions::default());
    let address = trio.addresses();
    let arguments =
        ["--create", "--topic", TOPIC, "--replica-assignment", "1", "--config", "retention.ms=-1"];
    apache::topics(&address, &arguments).ok();
    fill(&runtime, &trio, TOPIC);
    let moves: [(i32, &[i32]); 1] = [(0, &[2])];
    apache::reassign(&address, &["--execute", "--throttle", "100"], Some((TOPIC, &moves))).ok();
    let verified = apache::reassign(&address, &["--verify"], Some((TOPIC, &moves))).ok();
    assert!(verified.contains("Reassignment of partition snow-0 is still in progress."), "{verified}");
    assert!(!verified.contains("Clearing"), "{verified}");
    let again = ["--execute", "--additional", "--throttle", "50000000"];
    apache::reassign(&address, &again, Some((TOPIC, &moves))).ok();
    wait_for("the end of the move", DEADLINE, || {
        (trio.describe(TOPIC).remove(0).in_sync == [2]).then_some(())
    });
    let verified = apache::reassign(&address, &["--verify"], Some((TOPIC, &moves))).ok();
    assert!(verified.contains("Clearing topic-level throttles on topic snow"), "{verified}");
}
