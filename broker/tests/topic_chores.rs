//! What a broker does by itself, as configs of topics and brokers say: when it flushes, how many logs it compacts at a
//! time, when it takes a snapshot of its metadata, and when committed offsets expire. The disk forgets what was not synced, and the clock is the test's.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

mod topics;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use firn::environment::{Clock, Environment};
use firn::node::Node;
use firn::partition::Acks;
use firn::partition::Partition;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::{FindCoordinatorRequest, GroupId, OffsetCommitRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_records::validate::ValidatedBatches;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{Operation, SimulatedDisk};
use parking_lot::{Condvar, Mutex};
use tokio::time::Instant;
use topics::create_topic;

const DEADLINE: Duration = Duration::from_secs(30);

/// A clock that stands until it is set.
#[derive(Debug, Clone, Default)]
struct HandClock(Arc<AtomicI64>);

impl HandClock {
    fn set(&self, now_ms: i64) {
        self.0.store(now_ms, Ordering::SeqCst);
    }
}

impl Clock for HandClock {
    fn now_ms(&self) -> i64 {
        self.0.load(Ordering::SeqCst)
    }
}

struct World {
    disk: SimulatedDisk,
    clock: HandClock,
    node: Node,
    client: Connection,
}

impl World {
    async fn start(more: &str) -> World {
        Self::start_on(SimulatedDisk::new(), HandClock::default(), more).await
    }

    async fn start_on(disk: SimulatedDisk, clock: HandClock, more: &str) -> World {
        let text = format!(
            "node.id=3\nlisteners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.port=-1\n\
             offsets.topic.num.partitions=1\nfirn.disk.reserve.bytes=0\n{more}"
        );
        let config = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap().config;
        let environment = Environment {
            disk: Arc::new(disk.clone()),
            clock: Arc::new(clock.clone()),
            ..Environment::system()
        };
        let node = Node::start(config, environment).await.unwrap();
        let address = node.addresses[0].to_string();
        let client = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
        World { disk, clock, node, client }
    }

    async fn topic(&self, name: &'static str, configs: &[(&'static str, &'static str)]) -> Arc<Partition> {
        create_topic(&self.client, name, 1, configs).await;
        self.node.context.partitions.by_name(name, 0).unwrap()
    }

    /// Appends a record, and says whether it is committed without a flush.
    fn append(&self, partition: &Arc<Partition>) -> bool {
        let mut builder = BatchBuilder::new(BatchOptions::default());
        builder.push(1_000, Some(b"key"), Some(&[b'v'; 100]), &[]);
        let batches = ValidatedBatches::trusted(builder.build().unwrap()).unwrap();
        let done = partition.append(&batches, AppendOrigin::Client, Acks::All, self.clock.now_ms()).unwrap();
        done.awaited.is_none()
    }
}

fn flushed(partition: &Partition) -> i64 {
    partition.with_log(|log| log.flushed_offset()).unwrap()
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_messages_is_how_many_records_share_a_flush() {
    let world = World::start("").await;
    let always = world.topic("always", &[("flush.messages", "1")]).await;
    for (name, each) in [("two", "2"), ("three", "3")] {
        let partition = world.topic(name, &[("flush.messages", each)]).await;
        let every: i64 = each.parse().unwrap();
        for number in 1..=6 {
            let at_once = world.append(&partition);
            assert_eq!(
                at_once,
                number % every != 0,
                "{name}, record {number}: as in Kafka, all of a flush wait for it"
            );
            if number % every == 0 {
                wait_until("a flush", || flushed(&partition) == number).await;
            }
            // A flush that began before this one is over with it.
            assert!(!world.append(&always), "acknowledged when it is flushed");
            let end = always.offsets().unwrap().log_end;
            wait_until("the other log's flush", || flushed(&always) == end).await;
            assert_eq!(flushed(&partition), number - number % every, "{name}");
        }
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn flush_ms_is_how_long_a_record_waits_for_its_flush() {
    const NEVER: (&str, &str) = ("flush.messages", "9223372036854775807");
    let world = World::start("").await;
    let quick = world.topic("quick", &[NEVER, ("flush.ms", "999")]).await;
    let slow = world.topic("slow", &[NEVER, ("flush.ms", "1000")]).await;
    let never = world.topic("never", &[NEVER]).await;
    world.clock.set(10_000);
    for partition in [&never, &slow, &quick] {
        assert!(world.append(partition));
    }
    world.clock.set(10_999);
    wait_until("the quick one's flush", || flushed(&quick) == 1).await;
    assert_eq!((flushed(&slow), flushed(&never)), (0, 0));
    world.append(&slow);
    world.clock.set(11_000);
    wait_until("the slow one's flush", || flushed(&slow) == 2).await;
    assert_eq!(flushed(&never), 0, "nobody asked for it");
    world.node.stop().await;
}

/// How many logs are compacted at the same moment, at most, and how many were at all.
#[derive(Default)]
struct Compactions {
    state: Mutex<(BTreeSet<PathBuf>, usize, BTreeSet<PathBuf>)>,
    changed: Condvar,
}

impl Compactions {
    /// Holds each log at its first cleaned file, until one more than `threads` are there, or nobody comes any more.
    fn see(&self, threads: usize, operation: Operation, path: &Path) {
        let is_cleaned = path.to_string_lossy().ends_with(".log.cleaned");
        let Some(directory) = path.parent().filter(|_| is_cleaned).map(Path::to_path_buf) else { return };
        let mut state = self.state.lock();
        match operation {
            Operation::Create if state.2.insert(directory.clone()) => {
                state.0.insert(directory);
                state.1 = state.1.max(state.0.len());
                self.changed.notify_all();
                let patience = std::time::Instant::now() + Duration::from_millis(500);
                while state.1 <= threads && !self.changed.wait_until(&mut state, patience).timed_out() {}
            }
            Operation::Rename => {
                state.0.remove(&directory);
            }
            _ => {}
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn log_cleaner_threads_is_how_many_logs_are_compacted_at_a_time() {
    const COMPACTED: [(&str, &str); 4] = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "100"),
        ("min.cleanable.dirty.ratio", "0"),
        ("min.compaction.lag.ms", "50000"),
    ];
    for threads in [1, 2] {
        let world = World::start(&format!("log.cleaner.threads={threads}\nlog.cleaner.backoff.ms=200")).await;
        let seen = Arc::new(Compactions::default());
        let probe = seen.clone();
        world
            .disk
            .set_probe(Some(Arc::new(move |_, _, operation, path| probe.see(threads, operation, path))));
        for name in ["a", "b", "c", "d"] {
            let partition = world.topic(name, &COMPACTED).await;
            for now_ms in [1_000, 2_000] {
                world.clock.set(now_ms);
                for _ in 0..3 {
                    world.append(&partition);
                }
                wait_until("a flush", || partition.offsets().unwrap().high_watermark % 3 == 0).await;
                partition.with_log(|log| log.roll_if_due(now_ms + 1_000)).unwrap().unwrap();
            }
        }
        // Only now, and all at once, are they old enough.
        world.clock.set(100_000);
        wait_until("every log is compacted", || seen.state.lock().2.len() == 4).await;
        assert_eq!(seen.state.lock().1, threads, "at a time");
        world.disk.set_probe(None);
        world.node.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_of_the_metadata_is_taken_without_a_further_change() {
    let world = World::start("metadata.log.max.snapshot.interval.ms=1000").await;
    let snapshots = || {
        let files = world.disk.files(Path::new("/data/__cluster_metadata-0")).unwrap();
        files.iter().filter(|file| file.to_string_lossy().ends_with(".checkpoint")).count()
    };
    world.topic("snow", &[]).await;
    assert_eq!(snapshots(), 0);
    world.clock.set(1_000);
    wait_until("a snapshot", || snapshots() == 1).await;
    world.node.stop().await;
}

/// Commits an offset of the topic `t` for a group without members.
async fn commit(client: &Connection) {
    let text = StrBytes::from_static_str;
    client.call(&FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g")])).await.unwrap();
    let partition = OffsetCommitRequestPartition::default().with_committed_offset(1);
    let topic =
        OffsetCommitRequestTopic::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text("g")))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let committed = client.call(&request).await.unwrap();
    assert_eq!(committed.topics[0].partitions[0].error_code, 0);
}

/// Else who asks first after a restart would be told offsets that should have gone long ago.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_expire_after_a_restart_though_nobody_asks_for_the_group() {
    const EXPIRY: &str = "offsets.retention.minutes=1\noffsets.retention.check.interval.ms=1\n";
    let World { disk, clock, node, client } = World::start(EXPIRY).await;
    create_topic(&client, "t", 1, &[]).await;
    commit(&client).await;
    let end = |node: &Node| {
        let groups = node.context.partitions.by_name("__consumer_offsets", 0).unwrap();
        groups.offsets().unwrap().log_end
    };
    let committed = end(&node);
    node.stop().await;

    clock.set(61_000);
    let world = World::start_on(disk, clock, EXPIRY).await;
    // Time goes on: the check is due an interval after the shard was loaded, whenever that was.
    let mut now_ms = 61_000;
    wait_until("a tombstone", || {
        now_ms += 1;
        world.clock.set(now_ms);
        end(&world.node) > committed
    })
    .await;
    world.node.stop().await;
}
