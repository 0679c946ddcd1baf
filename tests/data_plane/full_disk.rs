//! A disk that fills: writes are refused with an error that clients retry, reads go on, and writes resume with room.

use std::collections::BTreeMap;
use std::fs::File;
use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::faults::{FileSystem, LoopImage};
use firn_tests::java;
use firn_tests::librdkafka::{Load, dump};
use firn_tests::process::wait_for;
use firn_tests::segments::{self, Offsets};
use serde_json::json;

#[test]
fn a_full_disk_refuses_writes_keeps_reads_and_recovers_without_a_restart() {
    let image = LoopImage::create(FileSystem::Ext4, 256);
    let ballast = image.path().join("ballast");
    let options = BrokerOptions::default()
        .on(&image.path().join("data"))
        .with("log.segment.bytes", "1048576")
        .with("firn.disk.reserve.bytes", "33554432");
    let mut broker = Broker::start(options);
    let address = broker.address();
    apache::create_topic(&address, "ledger", 1, &[]);
    let before = Load::start(&address, "ledger", 1, 20_000, 0, &[]).wait();
    assert_eq!(before.len(), 20_000);

    fill(&ballast);
    let settings = [("delivery.timeout.ms", "5000"), ("request.timeout.ms", "2000"), ("linger.ms", "0")];
    let refused = wait_for("a refusal", Duration::from_secs(60), || {
        let sent = java::produce(&address, "ledger", &settings, &[json!({"value": "x".repeat(100_000)})]);
        sent.into_iter().next().and_then(Result::err)
    });
    // Java gives up on a retriable error only by its own timeout, or names the last one that it met.
    assert!(
        ["TimeoutException", "KafkaStorageException", "NotEnoughReplicasException"]
            .contains(&refused.0.as_str()),
        "{refused:?}"
    );
    broker.process_mut().assert_running();
    let read = dump(&address, "ledger", 1, &BTreeMap::new());
    assert!(read[&0].records.len() >= 20_000, "reads go on while the disk is full");

    std::fs::remove_file(&ballast).expect("make room");
    wait_for("writes to resume", Duration::from_secs(10), || {
        let sent = java::produce(&address, "ledger", &settings, &[json!({"value": "room"})]);
        sent.into_iter().next().and_then(Result::ok)
    });
    let after = Load::start(&address, "ledger", 1, 1_000, 0, &[]).wait();
    assert_eq!(after.len(), 1_000);
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}

/// Writes until the file system has nothing left.
fn fill(ballast: &std::path::Path) {
    use std::io::Write;
    let mut file = File::create(ballast).expect("create the ballast");
    for chunk in [vec![0_u8; 1 << 20], vec![0_u8; 4096]] {
        while file.write_all(&chunk).is_ok() {}
    }
    file.sync_all().unwrap_or_default();
}
