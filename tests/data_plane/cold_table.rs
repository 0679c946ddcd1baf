//! A compacted topic on a real S3 server: cold objects that compaction has put in the place of others are logs that
//! Apache's oracle accepts, and both clients read exactly the last value of each key from them.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::Broker;
use firn_tests::java;
use firn_tests::librdkafka::dump;
use firn_tests::process::{TempDir, wait_for};
use firn_tests::segments::{self, Offsets};
use firn_tests::store::Minio;
use serde_json::{Value, json};

use crate::cold::{cut_logs, tiered_broker};

const DEADLINE: Duration = Duration::from_secs(120);
const TOPIC: &str = "table";
/// What comes to more than one object even when it is clean.
const KEYS: u64 = 4_000;
const VALUE_BYTES: usize = 600;
/// Of a key that is written only to have the segment before it sealed.
const TICK: &str = "tick";
const CONFIGS: [&str; 8] = [
    "cleanup.policy=compact",
    "min.cleanable.dirty.ratio=0",
    "delete.retention.ms=0",
    "segment.ms=300",
    "segment.bytes=1048576",
    "remote.storage.enable=true",
    "local.retention.bytes=1",
    "retention.ms=-1",
];

type Table = BTreeMap<String, String>;

/// What is written to one topic, and what it must then read as.
struct Topic {
    address: String,
    written: u64,
    expected: Table,
}

impl Topic {
    /// Writes these keys once more; a key whose value is not wanted gets a tombstone.
    fn write(&mut self, keys: impl Iterator<Item = u64>, is_wanted: impl Fn(u64) -> bool) {
        let mut records = Vec::new();
        for number in keys {
            let key = format!("key-{number}");
            self.written += 1;
            let value = format!("{}-{:x<VALUE_BYTES$}", self.written, "");
            if is_wanted(number) {
                records.push(json!({"key": key, "value": value}));
                self.expected.insert(key, value);
            } else {
                records.push(json!({"key": key, "value": Value::Null}));
                self.expected.remove(&key);
            }
        }
        self.send(&records);
    }

    fn send(&self, records: &[Value]) {
        for sent in java::produce(&self.address, TOPIC, &[], records) {
            sent.expect("acknowledged");
        }
    }

    /// Whether the topic, read from its beginning, has a key's last value and nothing else of it. A reader that the
    /// cleaner overtakes may miss a tombstone that it has removed, and reads again.
    fn is_clean(&self) -> bool {
        self.send(&[json!({"key": TICK, "value": TICK})]);
        let read = java::read(&self.address, TOPIC, &[]);
        assert!(read.windows(2).all(|pair| pair[0].offset < pair[1].offset), "offsets rise");
        let read = read.into_iter().filter(|record| record.key.as_deref() != Some(TICK));
        let records: Vec<_> = read.map(|record| (record.key.expect("a key"), record.value)).collect();
        let values = records.iter().filter_map(|(key, value)| Some((key.clone(), value.clone()?)));
        records.len() == self.expected.len() && values.collect::<Table>() == self.expected
    }
}

/// The objects, as the first and the last offset that their names tell.
fn objects(minio: &Minio) -> BTreeMap<String, (i64, i64)> {
    let mut found = BTreeMap::new();
    for object in minio.objects() {
        let Some(name) = object.rsplit('/').next().and_then(|name| name.strip_suffix(".seg")) else {
            continue;
        };
        let mut offsets = name.split('-').map(|part| part.parse().expect("a number"));
        let mut offset = || offsets.next().expect("an offset");
        found.insert(name.to_owned(), (offset(), offset()));
    }
    found
}

/// Whether each object of before lies within one that came later.
fn are_replaced(before: &BTreeMap<String, (i64, i64)>, now: &BTreeMap<String, (i64, i64)>) -> bool {
    let later: Vec<_> = now.iter().filter(|(name, _)| !before.contains_key(*name)).collect();
    before.values().all(|old| later.iter().any(|(_, new)| new.0 <= old.0 && new.1 >= old.1))
}

#[test]
fn objects_that_compaction_rewrote_hold_the_last_value_of_each_key() {
    let minio = Minio::start();
    let mut options = tiered_broker(&minio.url())
        .with("log.cleaner.backoff.ms", "100")
        .with("log.segment.delete.delay.ms", "100");
    options.environment = minio.environment();
    let mut broker = Broker::start(options);
    let address = broker.address();
    apache::create_topic(&address, TOPIC, 1, &CONFIGS);
    let mut topic = Topic { address: address.clone(), written: 0, expected: Table::new() };
    for _ in 0..2 {
        topic.write(0..KEYS, |_| true);
    }
    wait_for("cold objects", DEADLINE, || (topic.is_clean() && objects(&minio).len() >= 2).then_some(()));
    let before = objects(&minio);

    // A key in two is superseded, and of those every fifth is deleted: no cold object stays as it is.
    topic.write((0..KEYS).step_by(2), |key| key % 5 != 0);
    wait_for("cold objects in the place of others", DEADLINE, || {
        (topic.is_clean() && are_replaced(&before, &objects(&minio))).then_some(())
    });

    broker.kill();
    broker.start_again();
    assert!(topic.is_clean(), "after a kill");
    let dumped = &dump(&address, TOPIC, 1, &BTreeMap::new())[&0];
    let values: BTreeSet<&str> =
        dumped.records.iter().map(|(_, value)| value.as_str()).filter(|value| *value != TICK).collect();
    assert!(values.iter().eq(topic.expected.values().collect::<BTreeSet<_>>()), "the same, by librdkafka");
    let local =
        apache::get_offsets(&address, &["--topic-partitions", "table:0", "--time", "earliest-local"]).ok();
    let local: i64 = local.trim().rsplit(':').next().and_then(|at| at.parse().ok()).expect("an offset");
    assert!(local > 2 * KEYS as i64, "they are cold: the disk begins at {local}");

    let work = TempDir::new("objects");
    minio.download(work.path());
    let cold = segments::assert_valid(&cut_logs(work.path()), Offsets::Sparse);
    assert!(cold.files > before.len() && cold.emptied > 0 && cold.records > KEYS, "{cold:?}");
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Sparse);
}
