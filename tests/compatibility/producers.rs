//! Java's producer: idempotence across a crash, all codecs kept byte for byte, refusals by Kafka's names.

use std::path::{Path, PathBuf};
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java;
use firn_tests::librdkafka::kcat;
use firn_tests::process::{TempDir, free_ports, wait_for};
use firn_tests::relay;
use firn_tests::segments::Offsets;
use serde_json::{Value, json};

use crate::finish;

/// Bytes of a batch that the broker may write itself: base offset, length, leader epoch, magic; then the checksum,
/// which together with everything after it must be the producer's own.
const OWN_HEADER_BYTES: usize = 17;
const OVERHEAD_BYTES: usize = 12;

#[test]
fn an_idempotent_producer_loses_and_doubles_nothing_when_the_broker_is_killed() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "orders", 1, &[]);
    let records: Vec<Value> =
        (0..20_000).map(|number| json!({"key": format!("{number}"), "value": "x".repeat(200)})).collect();
    let producer_address = address.clone();
    let producer = std::thread::spawn(move || {
        let settings = [("acks", "all"), ("linger.ms", "0"), ("batch.size", "2000")];
        java::produce(&producer_address, "orders", &settings, &records)
    });
    wait_for("the first records", Duration::from_secs(30), || {
        let at = kcat(&address, &["-Q", "-t", "orders:0:-1"], "");
        let end = at.trim().rsplit(' ').next().and_then(|offset| offset.parse::<i64>().ok());
        end.is_some_and(|end| end > 0).then_some(())
    });
    broker.kill();
    broker.start_again();
    for (number, sent) in producer.join().expect("the producer ends").into_iter().enumerate() {
        assert_eq!(sent, Ok((0, number as i64)));
    }
    let read = java::read_keys(&address, "orders", &[]);
    let keys: Vec<String> = read.into_iter().filter_map(|record| record.key).collect();
    let wanted: Vec<String> = (0..20_000).map(|number| number.to_string()).collect();
    assert!(keys == wanted, "read back in order, each once");
    finish(broker, Offsets::Dense);
}

#[test]
fn batches_are_stored_as_the_producer_sent_them_in_every_codec() {
    let [port, relay_port] = free_ports();
    let data = TempDir::new("codecs");
    let options = BrokerOptions::default()
        .on(data.path())
        .with("listeners", &format!("PLAINTEXT://127.0.0.1:{port}"))
        .with("advertised.listeners", &format!("PLAINTEXT://127.0.0.1:{relay_port}"));
    let options = match options.system {
        firn_tests::cluster::System::Firn => options,
        // Its controller has a listener of its own, which the override above must keep.
        firn_tests::cluster::System::Kafka => {
            let [controller_port] = free_ports();
            options
                .with(
                    "listeners",
                    &format!("PLAINTEXT://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller_port}"),
                )
                .with("controller.quorum.voters", &format!("1@127.0.0.1:{controller_port}"))
        }
    };
    let recording = relay::start(relay_port, format!("127.0.0.1:{port}"));
    let broker = Broker::start_on_port(options, port);
    let address = format!("127.0.0.1:{relay_port}");
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        apache::create_topic(&address, codec, 1, &[]);
        let records: Vec<Value> = (0..300)
            .map(|number| {
                let value = format!("the glacier moves, line {number}, {codec}");
                json!({"key": format!("k{}", number % 7), "value": value, "timestamp": 1_700_000_000_000_i64 + number,
                    "headers": {"codec": codec, "empty": ""}})
            })
            .collect();
        let settings = [("compression.type", codec), ("linger.ms", "50")];
        for sent in java::produce(&address, codec, &settings, &records) {
            sent.expect("acknowledged");
        }
        let read = java::read(&address, codec, &[]);
        assert_eq!(read.len(), 300);
        for (record, sent) in read.iter().zip(&records) {
            assert_eq!(record.value.as_deref(), sent["value"].as_str());
            assert_eq!(record.key.as_deref(), sent["key"].as_str());
            assert_eq!(Some(record.timestamp), sent["timestamp"].as_i64());
            assert_eq!(
                record.headers,
                [("codec".to_owned(), codec.to_owned()), ("empty".to_owned(), String::new())]
            );
        }
    }
    finish(broker, Offsets::Dense);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let stored = batches(&data.path().join(format!("{codec}-0")));
        assert!(!stored.is_empty());
        for batch in stored {
            assert!(
                recording.contains(&batch[OWN_HEADER_BYTES..]),
                "a {codec} batch is not the producer's bytes"
            );
        }
    }
}

fn batches(partition: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(partition).expect("the partition's directory");
    let mut logs: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    logs.retain(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.sort();
    let mut found = Vec::new();
    for log in logs {
        let bytes = std::fs::read(log).expect("read a segment");
        let mut rest = bytes.as_slice();
        while let Some(length) = rest.get(8..OVERHEAD_BYTES) {
            let length = i32::from_be_bytes(length.try_into().expect("four bytes")) as usize;
            let (batch, after) = rest.split_at(OVERHEAD_BYTES + length);
            found.push(batch.to_vec());
            rest = after;
        }
    }
    found
}

#[test]
fn what_a_topic_does_not_take_is_refused_by_kafkas_name_for_it() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "small", 1, &["max.message.bytes=1000"]);
    apache::create_topic(&address, "compacted", 1, &["cleanup.policy=compact"]);
    apache::create_topic(&address, "punctual", 1, &["message.timestamp.before.max.ms=3600000"]);
    let refused = |topic: &str, record: Value| {
        let settings = [("max.request.size", "10000000")];
        let sent = java::produce(&address, topic, &settings, &[record]).remove(0);
        sent.expect_err("refused").0
    };
    assert_eq!(refused("small", json!({"value": "x".repeat(2000)})), "RecordTooLargeException");
    assert_eq!(refused("compacted", json!({"value": "no key"})), "InvalidRecordException");
    assert_eq!(
        refused("punctual", json!({"value": "late", "timestamp": 1_000})),
        "InvalidTimestampException"
    );
    for topic in ["small", "compacted", "punctual"] {
        let taken = java::produce(&address, topic, &[], &[json!({"key": "k", "value": "taken"})]);
        assert_eq!(taken, [Ok((0, 0))], "{topic} has kept nothing of what it refused");
    }
    finish(broker, Offsets::Dense);
}
