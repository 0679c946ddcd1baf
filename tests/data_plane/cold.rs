//! Records that have left the disk: read back whole by Java and librdkafka, found by offset and time, and kept as
//! objects whose `.log` bytes Apache's oracle accepts.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions, System};
use firn_tests::java;
use firn_tests::librdkafka::{Load, dump};
use firn_tests::process::{TempDir, wait_for};
use firn_tests::segments::{self, Offsets};
use firn_tests::store::Minio;
use serde_json::{Value, json};

const DEADLINE: Duration = Duration::from_secs(90);
const RECORDS: u64 = 60_000;
const TIERED: [&str; 5] = [
    "remote.storage.enable=true",
    "segment.bytes=1048576",
    "local.retention.bytes=1",
    "retention.ms=-1",
    "file.delete.delay.ms=100",
];

pub fn tiered_broker(url: &str) -> BrokerOptions {
    BrokerOptions { system: System::Firn, ..BrokerOptions::default() }
        .with("firn.store.url", url)
        .with("log.retention.check.interval.ms", "300")
        .with("remote.log.manager.task.interval.ms", "300")
}

#[test]
fn a_local_directory_as_the_store() {
    let store = TempDir::new("store");
    let url = format!("file://{}", store.path().display());
    cool_down_and_read_back(tiered_broker(&url), |work| {
        let mut found = Vec::new();
        objects(store.path(), &mut found);
        for (number, object) in found.iter().enumerate() {
            std::fs::copy(object, work.join(object_name(number, object))).expect("copy an object");
        }
    });
}

#[test]
fn minio_as_the_store() {
    let minio = Minio::start();
    let mut options = tiered_broker(&minio.url());
    options.environment = minio.environment();
    cool_down_and_read_back(options, |work| minio.download(work));
}

pub fn object_name(number: usize, object: &Path) -> String {
    format!("{number:04}-{}", object.file_name().expect("a name").to_string_lossy())
}

fn cool_down_and_read_back(options: BrokerOptions, download: impl Fn(&Path)) {
    let mut broker = Broker::start(options);
    let address = broker.address();
    apache::create_topic(&address, "history", 2, &TIERED);
    apache::create_topic(&address, "hot", 2, &[]);
    let ledger = Load::start(&address, "history", 2, RECORDS, 0, &[]).wait();
    assert_eq!(ledger.len() as u64, RECORDS, "{:?}", ledger.failures);
    let first_half_ms = now_ms();
    let records: Vec<Value> = (0..3_000)
        .map(|number| json!({"key": format!("{number}"), "value": "v".repeat(500), "partition": number % 2}))
        .collect();
    for sent in java::produce(&address, "history", &[], &records) {
        sent.expect("acknowledged");
    }

    wait_for("the local start to move", DEADLINE, || {
        (0..2).all(|partition| local_segments(&broker.data(), partition) <= 2).then_some(())
    });
    let read_back = |when: &str| {
        let read = java::read_keys(&address, "history", &[]);
        assert_eq!(read.len() as u64, RECORDS + 3_000, "{when}: all of it, by Java");
        let found = dump(&address, "history", 2, &BTreeMap::new());
        for (partition, acknowledged) in &ledger.acknowledged {
            let dumped = &found[partition];
            assert_eq!(dumped.start_offset, 0);
            assert!(
                dumped.records[..acknowledged.len()] == acknowledged[..],
                "{when}: the same records, by librdkafka"
            );
        }
    };
    read_back("cold");
    let earliest =
        apache::get_offsets(&address, &["--topic-partitions", "history:0", "--time", "earliest"]).ok();
    assert_eq!(earliest.trim(), "history:0:0", "the start as clients see it has not moved");
    let local =
        apache::get_offsets(&address, &["--topic-partitions", "history:0", "--time", "earliest-local"]).ok();
    let local: i64 =
        local.trim().rsplit(':').next().and_then(|offset| offset.parse().ok()).expect("an offset");
    assert!(local > 0, "the local start has");
    let pending = &["--topic-partitions", "history:0", "--time", "earliest-pending-upload"];
    let pending = apache::get_offsets(&address, pending).ok();
    let pending: i64 =
        pending.trim().rsplit(':').next().and_then(|offset| offset.parse().ok()).expect("an offset");
    assert!(pending >= local, "what waits for its upload is on the disk: {pending}, {local}");
    let halves = java::offsets_for_times(&address, "history", 0, &[0, first_half_ms]);
    assert_eq!(halves[0].map(|(offset, _)| offset), Some(0), "found by time in the tier");
    assert_eq!(halves[1].map(|(offset, _)| offset), Some(RECORDS as i64 / 2), "and in what came later");

    broker.kill();
    broker.start_again();
    read_back("after a kill");

    let work = TempDir::new("objects");
    download(work.path());
    let logs = cut_logs(work.path());
    assert!(logs.len() >= 4, "objects of both partitions: {}", logs.len());
    let cold = segments::assert_valid(&logs, Offsets::Dense);
    assert!(cold.records > RECORDS / 2, "{cold:?}");
    apache::topics(&address, &["--delete", "--topic", "history"]).ok();
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}

fn local_segments(data: &Path, partition: i32) -> usize {
    let entries =
        std::fs::read_dir(data.join(format!("history-{partition}"))).expect("the partition's directory");
    entries.flatten().filter(|entry| entry.path().extension().is_some_and(|found| found == "log")).count()
}

pub fn objects(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("list the store").flatten() {
        let path = entry.path();
        if path.is_dir() {
            objects(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "seg") {
            found.push(path);
        }
    }
}

/// Cuts the `.log` out of every downloaded object, knowing nothing of the object's footer: the log comes first, and
/// ends after the batch that holds the last offset in the object's name.
pub fn cut_logs(work: &Path) -> Vec<PathBuf> {
    let mut logs = Vec::new();
    let mut names = Vec::new();
    objects(work, &mut names);
    names.sort();
    for object in names {
        let name = object.file_stem().expect("a name").to_string_lossy().into_owned();
        let mut parts = name.split('-').skip(1);
        let base = parts.next().expect("a base offset").to_owned();
        let last: i64 = parts.next().and_then(|last| last.parse().ok()).expect("a last offset");
        let bytes = std::fs::read(&object).expect("read an object");
        let end = end_of_batch_holding(&bytes, last);
        // DumpLogSegments takes the base offset from the name; a directory each keeps partitions apart.
        let directory = work.join(format!("cut-{}", logs.len()));
        std::fs::create_dir(&directory).expect("create a directory");
        let path = directory.join(format!("{base}.log"));
        std::fs::write(&path, &bytes[..end]).expect("write a log");
        logs.push(path);
    }
    logs
}

fn end_of_batch_holding(bytes: &[u8], last_offset: i64) -> usize {
    let mut at = 0;
    loop {
        let field = |from: usize, length: usize| &bytes[at + from..at + from + length];
        let base = i64::from_be_bytes(field(0, 8).try_into().expect("eight bytes"));
        let length = i32::from_be_bytes(field(8, 4).try_into().expect("four bytes"));
        let delta = i32::from_be_bytes(field(23, 4).try_into().expect("four bytes"));
        at += 12 + usize::try_from(length).expect("a length");
        if base + i64::from(delta) >= last_offset {
            return at;
        }
    }
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_millis() as i64
}
