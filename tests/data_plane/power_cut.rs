//! Power cuts of a real file system under load: what was acknowledged is there afterwards, in order and once, and of
//! a compacted topic whose beginning is cold, in a store on the same file system, the last value of each key.

use std::collections::BTreeMap;
use std::path::Path;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::faults::{FileSystem, LoopImage};
use firn_tests::ledger::Past;
use firn_tests::librdkafka::{Load, dump};
use firn_tests::process::TempDir;
use firn_tests::segments::{self, Offsets};

use crate::cold::{cut_logs, object_name, objects};
use crate::table::Table;

const CUTS: u64 = 50;
const TOPIC: &str = "ledger";
const PARTITIONS: i32 = 3;
const TABLE: &str = "table";
const KEYS: u64 = 300;
/// So much that a few rounds of all keys fill a segment.
const KEYED_BYTES: usize = 2_000;

#[test]
fn ext4_power_cuts_lose_nothing_acknowledged() {
    cut_again_and_again(FileSystem::Ext4, 512);
}

#[test]
fn xfs_power_cuts_lose_nothing_acknowledged() {
    cut_again_and_again(FileSystem::Xfs, 512);
}

/// The proof that a cut cuts: the same load without an fsync before the acknowledgement loses acknowledged records.
#[test]
fn without_fsync_a_power_cut_loses_what_was_acknowledged() {
    let mut image = LoopImage::create(FileSystem::Ext4, 512);
    let mut broker = Broker::start(BrokerOptions::default().on(&image.path().join("data")));
    let address = broker.address();
    apache::create_topic(&address, TOPIC, 1, &["flush.messages=9223372036854775807"]);
    sync_what_kafka_does_not(&image);
    let load = Load::start(&address, TOPIC, 1, 0, 20_000, &[]);
    load.wait_for_more(2_000);
    image.cut_power();
    broker.kill();
    let ledger = load.kill();
    image.restore_power();
    broker.start_again();
    let end = dump(&address, TOPIC, 1, &BTreeMap::new())[&0].end_offset;
    assert!(end < ledger.len() as i64, "{} acknowledged, and {end} are still there", ledger.len());
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}

/// Apache Kafka does not sync its own set-up, and would not start again; Firn has to do without this help.
fn sync_what_kafka_does_not(image: &LoopImage) {
    if System::under_test() == System::Kafka {
        image.sync();
    }
}

/// Small segments, compacted at every chance; with Firn under test what is clean leaves the disk for the store.
fn create_table(address: &str) {
    let mut configs = vec![
        "cleanup.policy=compact",
        "flush.messages=1",
        "min.cleanable.dirty.ratio=0.01",
        "segment.bytes=1048576",
        "file.delete.delay.ms=100",
    ];
    if System::under_test() == System::Firn {
        configs.extend(["remote.storage.enable=true", "local.retention.bytes=1", "retention.ms=-1"]);
    }
    apache::create_topic(address, TABLE, 1, &configs);
}

fn cut_again_and_again(kind: FileSystem, size_mib: u64) {
    let mut image = LoopImage::create(kind, size_mib);
    let store = image.path().join("store");
    std::fs::create_dir(&store).expect("create the store");
    let options = BrokerOptions::default()
        .on(&image.path().join("data"))
        // Also with Apache Kafka under test this must hold, so the promise is asked for in Kafka's own words.
        .with("log.flush.interval.messages", "1")
        // Small segments, so that cuts fall on rolls, index files and snapshots too.
        .with("log.segment.bytes", "1048576")
        // And on compactions, uploads, and the deletion of what they replace.
        .with("log.cleaner.backoff.ms", "50")
        .with("log.retention.check.interval.ms", "100")
        .with("log.initial.task.delay.ms", "50")
        .with("remote.log.manager.task.interval.ms", "100")
        .with("firn.store.garbage.grace.ms", "1000")
        .with("firn.store.url", &format!("file://{}", store.display()));
    let mut broker = Broker::start(options);
    let address = broker.address();
    apache::create_topic(&address, TOPIC, PARTITIONS, &["flush.messages=1"]);
    create_table(&address);
    sync_what_kafka_does_not(&image);
    let mut past = Past::default();
    let mut table = Table::of(KEYS);
    for cut in 0..CUTS {
        let keyed = Load::start_keyed(&address, TABLE, 1, KEYS, KEYED_BYTES, 2_000);
        let load = Load::start(&address, TOPIC, PARTITIONS, 0, 20_000, &[]);
        // Spread, so that no two cuts meet the same moment.
        load.wait_for_more(500 + cut * 370 % 3_000);
        // In turn the disk dies under a broker that still works, and the whole machine dies at once. Only what was
        // acknowledged before the cut is held against it: after a cut nobody hears an acknowledgement, and an fsync
        // that is under way while a file system is shut down (not cut off from power) may return success: ext4 takes
        // a transaction that was aborted for one that was committed.
        let ledgers = if cut % 2 == 0 {
            let ledgers = (load.kill(), keyed.kill());
            image.cut_power();
            broker.kill();
            ledgers
        } else {
            broker.kill();
            image.cut_power();
            (load.kill(), keyed.kill())
        };
        image.restore_power();
        broker.start_again();
        past.check(&address, TOPIC, PARTITIONS, &ledgers.0);
        table.check(&address, TABLE, 1, &ledgers.1);
    }
    assert!(past.acknowledged as u64 > CUTS * 100, "the load ran: {} acknowledged", past.acknowledged);
    eprintln!("{kind:?}: {CUTS} cuts, {} acknowledged, {} read back", past.acknowledged, past.read);
    assert!(table.acknowledged as u64 > CUTS * 100, "so did the other: {} acknowledged", table.acknowledged);
    eprintln!("{kind:?}: of {KEYS} keys {} records acknowledged", table.acknowledged);
    broker.stop();
    for entry in std::fs::read_dir(broker.data()).expect("read the log directory").flatten() {
        let is_table = entry.file_name().to_string_lossy().starts_with(TABLE);
        if entry.path().is_dir() {
            let offsets = if is_table { Offsets::Sparse } else { Offsets::Dense };
            segments::assert_valid_directory(&entry.path(), offsets);
        }
    }
    if System::under_test() == System::Firn {
        assert_valid_store(&store);
    }
}

/// The store has whole objects, and their logs pass the oracle.
fn assert_valid_store(store: &Path) {
    let work = TempDir::new("objects");
    let mut found = Vec::new();
    objects(store, &mut found);
    for (number, object) in found.iter().enumerate() {
        std::fs::copy(object, work.path().join(object_name(number, object))).expect("copy an object");
    }
    let cold = segments::assert_valid(&cut_logs(work.path()), Offsets::Sparse);
    assert!(cold.records > 0, "nothing was cold: {cold:?}");
    eprintln!("the store holds {cold:?}");
}
