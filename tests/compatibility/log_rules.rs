//! Retention, compaction, timestamps and DeleteRecords as Apache's tools and Java's client see them.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java;
use firn_tests::process::wait_for;
use firn_tests::segments::Offsets;
use serde_json::{Value, json};

use crate::finish;

const DEADLINE: Duration = Duration::from_secs(60);

fn eager() -> BrokerOptions {
    BrokerOptions::default()
        .with("log.retention.check.interval.ms", "300")
        .with("log.cleaner.backoff.ms", "200")
        .with("log.initial.task.delay.ms", "100")
        .with("log.segment.delete.delay.ms", "100")
}

/// What kafka-get-offsets.sh says of partition 0 at a special or real time.
fn offset_at(address: &str, topic: &str, time: &str) -> i64 {
    let arguments = ["--topic-partitions", &format!("{topic}:0"), "--time", time];
    let out = apache::get_offsets(address, &arguments).ok();
    let last = out.trim().rsplit(':').next().unwrap_or_default();
    last.parse().unwrap_or_else(|_| panic!("no offset in {out:?}"))
}

fn kilobytes(count: u32, timestamp: Option<i64>) -> Vec<Value> {
    let record =
        |number| json!({"key": format!("{number}"), "value": "v".repeat(1000), "timestamp": timestamp});
    (0..count).map(record).collect()
}

#[test]
fn retention_by_size_moves_the_earliest_offset() {
    let broker = Broker::start(eager());
    let address = broker.address();
    apache::create_topic(&address, "sized", 1, &["retention.bytes=2097152", "segment.bytes=1048576"]);
    for sent in java::produce(&address, "sized", &[], &kilobytes(6_000, None)) {
        sent.expect("acknowledged");
    }
    let earliest = wait_for("a later start", DEADLINE, || {
        let earliest = offset_at(&address, "sized", "earliest");
        (earliest >= 2_000).then_some(earliest)
    });
    assert!(earliest < 4_500, "at least the last 2 MiB stay, and the start is {earliest}");
    assert_eq!(offset_at(&address, "sized", "latest"), 6_000);
    // Retention may go on while the records are read.
    let before = offset_at(&address, "sized", "earliest");
    let read = java::read_keys(&address, "sized", &[]);
    let after = offset_at(&address, "sized", "earliest");
    assert!(read.first().is_some_and(|record| (before..=after).contains(&record.offset)));
    assert_eq!(read.last().map(|record| record.offset), Some(5_999));
    finish(broker, Offsets::Dense);
}

#[test]
fn retention_by_time_takes_only_what_is_old() {
    let broker = Broker::start(eager());
    let address = broker.address();
    apache::create_topic(&address, "timed", 1, &["retention.ms=3600000", "segment.bytes=1048576"]);
    let old_ms = now_ms() - 24 * 3_600_000;
    for records in [kilobytes(2_500, Some(old_ms)), kilobytes(2_500, None)] {
        for sent in java::produce(&address, "timed", &[], &records) {
            sent.expect("acknowledged");
        }
    }
    let earliest = wait_for("a later start", DEADLINE, || {
        let earliest = offset_at(&address, "timed", "earliest");
        (earliest > 0).then_some(earliest)
    });
    assert!(earliest <= 2_500, "nothing young has gone: {earliest}");
    assert_eq!(offset_at(&address, "timed", "latest"), 5_000);
    finish(broker, Offsets::Dense);
}

#[test]
fn a_compacted_topic_holds_exactly_the_last_value_of_each_key() {
    let broker = Broker::start(eager());
    let address = broker.address();
    let configs = [
        "cleanup.policy=compact",
        "min.cleanable.dirty.ratio=0.01",
        "segment.ms=500",
        "delete.retention.ms=100",
    ];
    apache::create_topic(&address, "table", 1, &configs);
    let mut records: Vec<Value> = (0..2_000)
        .map(|number| json!({"key": format!("k{}", number % 20), "value": format!("v{number}")}))
        .collect();
    records.push(json!({"key": "k7", "value": null}));
    for sent in java::produce(&address, "table", &[], &records) {
        sent.expect("acknowledged");
    }
    let mut wanted: BTreeMap<String, String> =
        (0..20).map(|key| (format!("k{key}"), format!("v{}", 1980 + key))).collect();
    wanted.remove("k7");
    wait_for("one value a key", DEADLINE, || {
        // A later record of another key closes the segment that holds the table.
        java::produce(&address, "table", &[], &[json!({"key": "tick", "value": "tock"})]);
        let read = java::read(&address, "table", &[]);
        let table: Vec<_> = read.iter().filter(|record| record.key.as_deref() != Some("tick")).collect();
        if table.len() > wanted.len() {
            return None;
        }
        let found = table.iter().filter_map(|record| Some((record.key.clone()?, record.value.clone()?)));
        assert_eq!(found.collect::<BTreeMap<_, _>>(), wanted);
        let offsets: Vec<i64> = table.iter().map(|record| record.offset).collect();
        assert!(
            offsets.is_sorted() && offsets.iter().all(|offset| (1980..2000).contains(offset)),
            "{offsets:?}"
        );
        Some(())
    });
    finish(broker, Offsets::Sparse);
}

#[test]
fn offsets_are_found_by_timestamp() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "dated", 1, &["index.interval.bytes=100", "segment.bytes=1048576"]);
    // Out of order on purpose: the answer is the first offset whose timestamp is at or after the one asked for.
    let base_ms = now_ms() - 1_000_000;
    let stamps = [10, 30, 20, 50, 40, 60];
    let records: Vec<Value> = stamps
        .iter()
        .map(|stamp| json!({"value": "v".repeat(500), "timestamp": base_ms + stamp * 1_000}))
        .collect();
    let one_a_batch = [("batch.size", "0"), ("max.in.flight.requests.per.connection", "1")];
    for sent in java::produce(&address, "dated", &one_a_batch, &records) {
        sent.expect("acknowledged");
    }
    let at = |second: i64| base_ms + second * 1_000;
    let asked = [at(0), at(10), at(11), at(31), at(55), at(61)];
    let found = java::offsets_for_times(&address, "dated", 0, &asked);
    let wanted =
        [Some((0, at(10))), Some((0, at(10))), Some((1, at(30))), Some((3, at(50))), Some((5, at(60))), None];
    assert_eq!(found, wanted);
    assert_eq!(offset_at(&address, "dated", "earliest"), 0);
    assert_eq!(offset_at(&address, "dated", "latest"), 6);
    assert_eq!(offset_at(&address, "dated", "max-timestamp"), 5);
    assert_eq!(offset_at(&address, "dated", &at(25).to_string()), 1);
    finish(broker, Offsets::Dense);
}

#[test]
fn log_append_time_is_the_brokers_own_clock() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "stamped", 1, &["message.timestamp.type=LogAppendTime"]);
    let before_ms = now_ms();
    for codec in ["none", "gzip", "lz4"] {
        let records = [json!({"value": codec, "timestamp": 12345})];
        java::produce(&address, "stamped", &[("compression.type", codec)], &records)
            .remove(0)
            .expect("acknowledged");
    }
    let read = java::read(&address, "stamped", &[]);
    assert_eq!(read.len(), 3);
    for record in read {
        assert_eq!(record.timestamp_type, "LogAppendTime");
        assert!((before_ms..=now_ms()).contains(&record.timestamp), "{record:?}");
    }
    finish(broker, Offsets::Dense);
}

#[test]
fn deleted_records_stay_deleted_after_a_restart() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "cut", 1, &[]);
    for sent in java::produce(&address, "cut", &[], &kilobytes(100, None)) {
        sent.expect("acknowledged");
    }
    let out = apache::delete_records(&address, "cut", 0, 60).ok();
    assert!(out.contains("low_watermark: 60"), "{out}");
    assert_eq!(offset_at(&address, "cut", "earliest"), 60);
    broker.stop();
    broker.start_again();
    assert_eq!(offset_at(&address, "cut", "earliest"), 60);
    let read = java::read_keys(&address, "cut", &[]);
    assert_eq!(read.len(), 40);
    finish(broker, Offsets::Dense);
}

fn now_ms() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_millis() as i64
}
