//! Logs of every kind that the storage crate can write, on the real disk: Apache's DumpLogSegments reads each of their
//! files and finds nothing wrong, as they are left by a clean end and as recovery makes them anew from the batches.

use std::collections::BTreeMap;

use firn_model::topic_config::{CleanupPolicy, TimestampType, TopicConfig};
use firn_records::batch::batches;
use firn_tests::java;
use firn_tests::segments::{Offsets, Segments, assert_valid_directory};
use serde_json::json;

use crate::scribe::{Scribe, Writers, small_segments};

/// What can be made anew from batches.
const DERIVED: [&str; 4] = ["index", "timeindex", "txnindex", "snapshot"];

/// What the batches themselves say that the oracle must count.
fn counted_here(scribe: &Scribe) -> Segments {
    let mut found = Segments::default();
    for path in scribe.files("log") {
        let bytes = std::fs::read(&path).expect("read a segment");
        for batch in batches(&bytes) {
            let (header, _) = batch.expect("a whole batch");
            found.batches += 1;
            found.records += header.record_count as u64;
            found.emptied += u64::from(header.record_count == 0);
            found.markers += u64::from(header.is_control() && header.record_count > 0);
        }
    }
    found
}

/// The oracle reads a closed log to the same end as its batches' own headers.
fn assert_oracle_agrees(scribe: &Scribe, offsets: Offsets) -> Segments {
    let found = assert_valid_directory(scribe.path(), offsets);
    let here = counted_here(scribe);
    let batches_of = |of: &Segments| (of.batches, of.records, of.emptied, of.markers);
    assert_eq!(batches_of(&found), batches_of(&here), "batches, records, emptied, markers");
    found
}

/// Closes the log and asks the oracle; then again after a crash that left little but the batches, and a recovery.
fn check(mut scribe: Scribe, offsets: Offsets) -> Segments {
    let (start, end) = (scribe.log().local_start_offset(), scribe.log().end_offset());
    let segments = scribe.log().segment_count();
    let aborted = scribe.log().aborted_transactions(start, end).expect("aborted transactions");
    scribe.close();
    let closed = assert_oracle_agrees(&scribe, offsets);
    assert!(segments > 3 && scribe.files("log").len() == segments, "{segments} segments");
    if offsets == Offsets::Dense && start == scribe.first_base_offset() {
        assert_eq!(closed.records, (end - start) as u64, "a record for each offset");
    }
    scribe.open();
    scribe.crash();
    // Of transactions and producers whose batches went the batches that are left no longer tell.
    let whole = offsets == Offsets::Dense && scribe.first_base_offset() == 0;
    scribe.remove_files(if whole { &DERIVED } else { &DERIVED[..2] });
    scribe.open();
    assert_eq!(scribe.log().end_offset(), end);
    assert_eq!(scribe.log().aborted_transactions(start, end).expect("made anew"), aborted);
    scribe.close();
    let recovered = assert_oracle_agrees(&scribe, offsets);
    assert_eq!((recovered.records, recovered.aborted), (closed.records, closed.aborted));
    closed
}

fn compacted() -> TopicConfig {
    TopicConfig { cleanup_policy: CleanupPolicy { delete: false, compact: true }, ..small_segments() }
}

#[test]
fn batches_of_every_codec_under_rising_leader_epochs() {
    let mut scribe = Scribe::new(small_segments(), Writers::Anonymous, 1);
    for number in 0..300 {
        if number % 37 == 36 {
            scribe.new_leader();
        }
        scribe.produce();
    }
    let found = check(scribe, Offsets::Dense);
    assert_eq!((found.batches, found.markers, found.producers), (300, 0, 0));
}

#[test]
fn the_brokers_clock_in_every_timestamp() {
    let config = TopicConfig { message_timestamp_type: TimestampType::LogAppendTime, ..small_segments() };
    let mut scribe = Scribe::new(config, Writers::All, 2);
    for _ in 0..200 {
        scribe.produce();
    }
    assert_eq!(check(scribe, Offsets::Dense).batches, 200);
}

#[test]
fn idempotent_producers_and_the_snapshots_of_them() {
    let mut scribe = Scribe::new(small_segments(), Writers::Idempotent, 3);
    for number in 0..200 {
        if number % 50 == 49 {
            scribe.bump_an_epoch();
        }
        scribe.produce();
    }
    let found = check(scribe, Offsets::Dense);
    assert!(found.producers > 20, "{found:?}");
}

#[test]
fn transactions_that_were_committed_aborted_and_left_open() {
    let mut scribe = Scribe::new(small_segments(), Writers::Transactional, 4);
    for number in 0..240 {
        if number % 4 == 3 {
            scribe.end_a_transaction();
        }
        scribe.produce();
    }
    let found = check(scribe, Offsets::Dense);
    assert!(found.aborted > 10 && found.markers > found.aborted + 10, "{found:?}");
}

#[test]
fn another_leader_after_a_tail_that_was_cut() {
    let mut scribe = Scribe::new(small_segments(), Writers::All, 5);
    for number in 0..300 {
        match number % 30 {
            29 => scribe.truncate(60),
            4 | 9 | 14 | 19 => scribe.end_a_transaction(),
            _ => scribe.produce(),
        }
    }
    assert!(scribe.log().epoch_entries().len() > 5);
    check(scribe, Offsets::Dense);
}

#[test]
fn compaction_with_emptied_batches_tombstones_and_aborted_records() {
    let mut scribe = Scribe::new(compacted(), Writers::All, 6);
    for number in 0..400 {
        match number % 50 {
            49 => scribe.compact(1 << 20),
            4 | 9 | 14 | 19 | 24 | 29 => scribe.end_a_transaction(),
            _ => scribe.produce(),
        }
    }
    assert!(scribe.compactions > 3, "{} compactions", scribe.compactions);
    let found = check(scribe, Offsets::Sparse);
    assert!(found.emptied > 0 && found.aborted > 0 && found.markers > 0, "{found:?}");
}

#[test]
fn lives_in_which_anything_happens() {
    for seed in 10..16 {
        check(lived(small_segments(), seed), Offsets::Dense);
    }
}

#[test]
fn compacted_lives_in_which_anything_happens() {
    let mut total = Segments::default();
    for seed in 20..28 {
        let scribe = lived(compacted(), seed);
        assert!(scribe.compactions > 0);
        let found = check(scribe, Offsets::Sparse);
        total.emptied += found.emptied;
        total.aborted += found.aborted;
    }
    assert!(total.emptied > 0 && total.aborted > 0, "{total:?}");
}

fn lived(config: TopicConfig, seed: u64) -> Scribe {
    let mut scribe = Scribe::new(config, Writers::All, seed);
    for _ in 0..400 {
        scribe.live();
    }
    scribe
}

/// The checksums in them are where Kafka does not look.
#[test]
fn checkpoints_and_names_are_what_kafkas_own_readers_find() {
    let mut scribe = Scribe::new(compacted(), Writers::Idempotent, 9);
    for number in 0..200 {
        if number % 40 == 39 {
            scribe.new_leader();
        }
        scribe.produce();
    }
    scribe.compact(1 << 20);
    let log = scribe.log();
    log.delete_records_before(10).expect("deleted");
    log.high_watermark_moved(100);
    let (end, cleaned, id) = (log.end_offset(), log.cleaned_offset(), log.topic_id().to_string());
    let epochs: BTreeMap<String, i64> =
        log.epoch_entries().iter().map(|entry| (entry.epoch.to_string(), entry.start_offset)).collect();
    scribe.close();
    let name = scribe.partition_path().file_name().expect("a name").to_string_lossy().into_owned();
    let found = java::small_files(scribe.path(), &name);
    for (file, offset) in [
        ("recovery-point-offset-checkpoint", end),
        ("log-start-offset-checkpoint", 10),
        ("replication-offset-checkpoint", 100),
        ("cleaner-offset-checkpoint", cleaned),
    ] {
        assert_eq!(found[file], json!({ &name: offset }), "{file}");
    }
    assert_eq!(found["leader-epoch-checkpoint"], json!(epochs));
    assert_eq!((&found["topic_id"], &found["node_id"]), (&json!(id), &json!("1")));
}
