//! The cold tier.

use firn_protocol::library::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use firn_protocol::library::messages::{DeleteRecordsRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_tiering::faults::FaultPlan;
use futures_util::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use uuid::Uuid;

use crate::scrape::Scrape;
use crate::world::World;

const HUNG: FaultPlan = FaultPlan { hung: Some("history"), ..FaultPlan::NONE };
const OUTAGE: FaultPlan = FaultPlan { outage: true, ..FaultPlan::NONE };
/// Two such records fill a segment.
const RECORD_BYTES: usize = 600_000;
const TOPIC: [(&str, &str); 1] = [("topic", "history")];
const READ_TIMES: &str = "kafka_log_remote_remotelogmanager_remotelogreaderfetchrateandtimems";
const COOLERS: &str = "kafka_log_remote_remotelogmanager_remotelogmanagertasksavgidle_percent";
const READERS: &str = "kafka_log_remote_remotestoragethreadpool_remotelogreaderavgidle_percent";
const QUEUE: &str = "kafka_log_remote_remotestoragethreadpool_remotelogreadertaskqueuesize";
const EAGER: &str = "log.segment.delete.delay.ms=0\nremote.log.manager.task.interval.ms=20\n\
                     log.retention.check.interval.ms=20\n";

impl World {
    /// A topic of one partition, of which only the newest segment stays on the disk, with records in it.
    async fn with_history(&self) -> Uuid {
        let configs = [
            ("remote.storage.enable", "true"),
            ("segment.bytes", "1048576"),
            ("local.retention.bytes", "1"),
            ("retention.ms", "-1"),
        ];
        let id = self.create_topic("history", 1, &configs).await;
        for _ in 0..6 {
            assert_eq!(self.produce(id, 0, RECORD_BYTES).await, 0);
        }
        id
    }

    fn local_start(&self) -> i64 {
        self.node.context.partitions.by_name("history", 0).unwrap().offsets().unwrap().local_start
    }

    /// Waits until all that is sealed is in the store, and has left the disk.
    async fn cold(&self) -> Scrape {
        let objects = "kafka_server_brokertopicmetrics_remotelogmetadatacount";
        self.scrape_until("all is copied", |scrape| {
            let copied = scrape.find(objects, &TOPIC) == Some(5.0);
            copied && kafka(scrape, "remotecopylagsegments") == 0.0 && self.local_start() == 5
        })
        .await;
        // One scrape reads one number after the other, and the copies ended in between.
        self.scrape().await
    }

    /// The objects' keys.
    async fn objects(&self) -> Vec<Path> {
        let all: Vec<_> = self.store.objects.list(None).try_collect().await.unwrap();
        all.into_iter().map(|meta| meta.location).collect()
    }

    async fn put(&self, path: &Path, bytes: Vec<u8>) {
        self.store.objects.put(path, PutPayload::from(bytes)).await.unwrap();
    }

    async fn delete_records(&self, below: i64) {
        let partition = DeleteRecordsPartition::default().with_partition_index(0).with_offset(below);
        let topic = DeleteRecordsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("history")))
            .with_partitions(vec![partition]);
        let request = DeleteRecordsRequest::default().with_timeout_ms(10_000).with_topics(vec![topic]);
        let answer = self.client.call(&request).await.unwrap().topics.remove(0).partitions.remove(0);
        assert_eq!(answer.error_code, 0);
    }
}

fn kafka(scrape: &Scrape, name: &str) -> f64 {
    scrape.get(&format!("kafka_server_brokertopicmetrics_{name}"), &TOPIC)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_waits_for_the_store_is_lag_until_it_is_copied() {
    let world = World::start(EAGER).await;
    world.faults.set_plan(HUNG);
    world.with_history().await;
    let waiting = world.scrape().await;
    let segments = kafka(&waiting, "remotecopylagsegments");
    assert!(segments >= 2.0, "{segments}");
    assert!(kafka(&waiting, "remotecopylagbytes") > segments * RECORD_BYTES as f64);
    world.faults.set_plan(FaultPlan::NONE);
    let copied =
        world.scrape_until("all is copied", |scrape| kafka(scrape, "remotecopylagsegments") == 0.0).await;
    assert_eq!(kafka(&copied, "remotecopylagbytes"), 0.0);
    let latency = |scrape: &Scrape, part: &str| {
        scrape.get(&format!("firn_store_latency_ms_{part}"), &[("operation", "list")])
    };
    assert!(latency(&copied, "count") > latency(&waiting, "count"));
    let listing = |name: &str| copied.get(&format!("firn_store_{name}_total"), &[("operation", "list")]);
    assert!(listing("calls") > 0.0 && listing("calls") < listing("attempts"), "what hung was tried again");
    assert!(listing("timeouts") > 0.0 && listing("timeouts") <= listing("errors"));
    assert!(latency(&copied, "sum") > 0.0);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn copies_are_counted_with_what_they_make_of_the_store() {
    let world = World::start(EAGER).await;
    let id = world.with_history().await;
    let scrape = world.cold().await;
    let objects: Vec<_> = world.store.objects.list(None).try_collect().await.unwrap();
    let bytes: u64 = objects.iter().map(|object| object.size).sum();
    assert_eq!(kafka(&scrape, "remotecopyrequests_total"), objects.len() as f64);
    assert_eq!(kafka(&scrape, "remotecopybytes_total"), bytes as f64);
    assert_eq!(kafka(&scrape, "remotecopyerrors_total"), 0.0);
    assert_eq!(kafka(&scrape, "remotelogmetadatacount"), objects.len() as f64);
    let log_bytes = kafka(&scrape, "remotelogsizebytes");
    assert!(log_bytes > 4.0 * RECORD_BYTES as f64 && log_bytes < bytes as f64, "{log_bytes} of {bytes}");
    assert_eq!(kafka(&scrape, "remotedeletelagsegments"), 0.0);
    for name in ["firn_store_holes", "firn_store_damaged_objects", "firn_store_foreign_objects"] {
        assert_eq!(scrape.get(name, &TOPIC), 0.0, "{name}");
    }
    world.faults.set_plan(OUTAGE);
    assert_eq!(world.produce(id, 0, RECORD_BYTES).await, 0);
    world.scrape_until("a copy fails", |scrape| kafka(scrape, "remotecopyerrors_total") > 0.0).await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn cold_reads_are_counted_whether_they_succeed_or_not() {
    let world = World::start(EAGER).await;
    let id = world.with_history().await;
    let before = world.cold().await;
    let (error, bytes) = world.fetch(id, 0, 0).await;
    assert!(error == 0 && bytes > RECORD_BYTES, "{error}, {bytes} bytes");
    let read = world.scrape().await;
    let rose = |name: &str| kafka(&read, name) - kafka(&before, name);
    assert!(rose("remotefetchrequests_total") >= 1.0);
    assert!(rose("remotefetchbytes_total") >= bytes as f64);
    assert_eq!(rose("remotefetcherrors_total"), 0.0);
    assert_eq!(read.single(&format!("{READ_TIMES}_count")), 1.0);
    assert!(read.single(&format!("{READ_TIMES}_sum")) > 0.0);
    assert!(read.single("firn_cache_misses_total") > before.single("firn_cache_misses_total"));
    assert!(read.single("firn_cache_bytes") >= bytes as f64);
    assert_eq!(world.fetch(id, 0, 0).await, (0, bytes));
    let again = world.scrape().await;
    assert!(again.single("firn_cache_hits_total") > read.single("firn_cache_hits_total"));

    world.faults.set_plan(OUTAGE);
    assert_ne!(world.fetch(id, 0, 3).await.0, 0);
    let failed = world.scrape().await;
    assert!(kafka(&failed, "remotefetcherrors_total") > 0.0);
    let errors = failed.get("firn_store_errors_total", &[("operation", "get")]);
    assert!(errors > again.get("firn_store_errors_total", &[("operation", "get")]));
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_deleted_is_lag_until_it_is() {
    let world = World::start(EAGER).await;
    world.with_history().await;
    let before = world.cold().await;
    world.faults.set_plan(OUTAGE);
    world.delete_records(4).await;
    let waiting =
        world.scrape_until("a delete fails", |scrape| kafka(scrape, "remotedeleteerrors_total") > 0.0).await;
    assert_eq!(kafka(&waiting, "remotedeletelagsegments"), 4.0, "each record is larger than half a segment");
    assert!(kafka(&waiting, "remotedeletelagbytes") > 4.0 * RECORD_BYTES as f64);
    world
        .scrape_until("the retries are spent", |scrape| {
            scrape.single("firn_store_retries_refused_total") > 0.0
        })
        .await;
    world.faults.set_plan(FaultPlan::NONE);
    world.scrape_until("they are deleted", |scrape| kafka(scrape, "remotedeletelagsegments") == 0.0).await;
    assert_eq!(world.objects().await.len(), 1, "of the five that were copied");
    // One scrape reads one number after the other, and the deletes went on in between.
    let deleted = world.scrape().await;
    assert!(kafka(&deleted, "remotelogsizebytes") < kafka(&before, "remotelogsizebytes"));
    assert!(kafka(&deleted, "remotedeleterequests_total") >= 4.0);
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_and_coolers_are_idle_or_not() {
    let few = "remote.log.reader.threads=1\nremote.log.manager.copier.thread.pool.size=1\n\
               remote.fetch.max.wait.ms=10000\n";
    let world = World::start(&format!("{EAGER}{few}")).await;
    let id = world.with_history().await;
    world.cold().await;
    world.scrape_until("nothing is to be done", |scrape| scrape.single(COOLERS) == 1.0).await;
    world.faults.set_plan(HUNG);
    for _ in 0..3 {
        assert_eq!(world.produce(id, 0, RECORD_BYTES).await, 0);
    }
    world.scrape_until("the cooler waits for the store", |scrape| scrape.single(COOLERS) == 0.0).await;
    let (first, second, busy) = tokio::join!(
        world.fetch(id, 0, 0),
        world.fetch_elsewhere(id, 0, 2),
        world.scrape_until("one reads and one waits", |scrape| {
            (scrape.single(READERS), scrape.single(QUEUE)) == (0.0, 1.0)
        }),
    );
    assert!(first.0 != 0 && second.0 != 0, "the store is away");
    assert!(busy.single("firn_cold_read_bytes") > 0.0);
    world
        .scrape_until("the reads have ended", |scrape| {
            let left = [QUEUE, "firn_cold_read_bytes"].map(|name| scrape.single(name));
            scrape.single(READERS) == 1.0 && left == [0.0, 0.0]
        })
        .await;
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_wrong_in_the_store_is_counted() {
    let world = World::start(&format!("{EAGER}firn.store.garbage.grace.ms=200\n")).await;
    let id = world.with_history().await;
    world.cold().await;
    let first = world.objects().await.remove(0);
    let mut bytes = world.store.objects.get(&first).await.unwrap().bytes().await.unwrap().to_vec();
    bytes[100] ^= 1;
    world.put(&first, bytes).await;
    let folder = first.to_string();
    let folder = folder.rsplit_once('/').unwrap().0;
    world.put(&Path::from(format!("{folder}/notes.txt")), b"not ours".to_vec()).await;
    assert_ne!(world.fetch(id, 0, 0).await.0, 0);
    assert!(world.scrape().await.single("firn_store_corrupt_chunks_total") > 0.0);
    world
        .scrape_until("the foreign object is seen", |scrape| {
            scrape.get("firn_store_foreign_objects", &TOPIC) == 1.0
        })
        .await;

    world.delete_topic("history").await;
    let gone = world
        .scrape_until("the topic's objects are collected", |scrape| {
            scrape.single("firn_store_collected_objects_total") >= 5.0
                && scrape.labelled("topic", "history") == 0
        })
        .await;
    assert!(gone.get("firn_store_attempts_total", &[("operation", "delete")]) >= 5.0);
    world.node.stop().await;
}
