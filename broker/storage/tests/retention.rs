//! What goes by time, by size, below the log start, and never before the tier has it; and what a deleted log leaves.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking, in its helpers too"
)]

#[path = "crash/model.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod model;
#[path = "crash/workload.rs"]
#[allow(dead_code, reason = "shared with the crash points")]
mod workload;

use std::path::Path;
use std::sync::Arc;

use firn_model::topic_config::TopicConfig;
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_storage::error::{ReadError, StorageError};
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};

use model::{header_of, open_dir, partition, topic_id};

/// A log of ten segments, one batch of about 180 bytes each, at times 1,000 to 10,000.
fn ten_segments(dir: &LogDir, config: &TopicConfig) -> PartitionLog {
    let config = TopicConfig { segment_bytes: 200, file_delete_delay_ms: 50, ..config.clone() };
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config), 0).unwrap();
    for index in 1..=10 {
        let bytes = workload::batch(1, &[b'x'; 100], index * 1_000, None, false);
        log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, index * 1_000).unwrap();
    }
    assert_eq!(log.segment_count(), 10);
    let done = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(done);
    log
}

fn names(disk: &SimulatedDisk, ending: &str) -> usize {
    let files = disk.files(Path::new(model::ROOT)).unwrap();
    files.iter().filter(|file| file.to_string_lossy().ends_with(ending)).count()
}

#[test]
fn old_segments_go_by_their_largest_timestamp_and_their_files_after_the_delay() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = ten_segments(&dir, &TopicConfig { retention_ms: 4_000, ..TopicConfig::default() });
    assert_eq!(log.retain(6_950, 10).unwrap().segments, 2, "1,000 and 2,000 are more than 4,000 old");
    assert_eq!((log.log_start_offset(), log.local_start_offset()), (2, 2));
    assert!(matches!(log.read(1, 10, 100, true), Err(ReadError::OffsetOutOfRange { .. })));
    assert!(names(&disk, ".log.deleted") == 2 && names(&disk, ".log") == 8);
    assert_eq!(log.retain(6_999, 10).unwrap().segments, 0);
    assert_eq!(names(&disk, ".log.deleted"), 2);
    log.retain(7_000, 10).unwrap();
    assert_eq!(names(&disk, ".deleted"), 0);
    assert_eq!(log.retain(99_000, 5).unwrap().segments, 3, "nothing above the high watermark");
    assert_eq!(log.retain(99_000, 10).unwrap().segments, 5, "the active one is rolled away too");
    assert_eq!((log.log_start_offset(), log.end_offset(), log.segment_count()), (10, 10, 1));
}

#[test]
fn retention_bytes_keeps_at_least_so_much() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let config = TopicConfig { retention_ms: -1, ..TopicConfig::default() };
    let mut log = ten_segments(&dir, &config);
    let each = log.size_bytes() / 10;
    let keep = |bytes: u64| {
        Arc::new(TopicConfig { retention_bytes: bytes as i64, file_delete_delay_ms: 0, ..config.clone() })
    };
    log.update_config(keep(each * 7 - 1));
    assert_eq!(log.retain(0, 10).unwrap().segments, 3);
    log.update_config(keep(each * 6 + 1));
    assert_eq!(log.retain(0, 10).unwrap().segments, 0, "one less would be too little");
}

#[test]
fn nothing_local_goes_before_the_tier_has_it_and_the_log_start_stays() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let tiered = TopicConfig {
        remote_storage_enable: true,
        local_retention_ms: 0,
        retention_ms: -1,
        ..TopicConfig::default()
    };
    let mut log = ten_segments(&dir, &tiered);
    assert_eq!(log.retain(99_000, 10).unwrap().segments, 0);
    log.set_tiered_end_offset(4);
    assert_eq!(log.retain(99_000, 10).unwrap().segments, 4);
    assert_eq!((log.log_start_offset(), log.local_start_offset()), (0, 4));
    assert!(matches!(
        log.read(3, 10, 100, true),
        Err(ReadError::BelowLocalStart { local_start_offset: 4, .. })
    ));
    assert_eq!(log.epoch_for_offset(3), Some(0), "epochs of what is tiered are kept");
    log.set_log_start_offset(2).unwrap();
    log.close().unwrap();
    dir.mark_clean_shutdown().unwrap();
    drop(dir);
    let dir = open_dir(&disk);
    let log = dir.open_log(&partition(), topic_id(1), Arc::new(tiered), 0).unwrap();
    assert_eq!((log.log_start_offset(), log.local_start_offset(), log.end_offset()), (2, 4, 10));
}

#[test]
fn local_retention_bytes_is_what_stays_on_the_disk_of_a_tiered_log() {
    let left = |remote_storage_enable, segments_kept: u64| {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let tiered = TopicConfig { remote_storage_enable, retention_ms: -1, ..TopicConfig::default() };
        let mut log = ten_segments(&dir, &tiered);
        log.set_tiered_end_offset(9);
        let local_retention_bytes = (log.size_bytes() / 10 * segments_kept) as i64;
        log.update_config(Arc::new(TopicConfig { local_retention_bytes, ..tiered }));
        log.retain(0, 10).unwrap();
        (log.log_start_offset(), log.local_start_offset())
    };
    assert_eq!(left(true, 7), (0, 3));
    assert_eq!(left(true, 4), (0, 6));
    assert_eq!(left(true, 0), (0, 9), "what the tier does not have stays");
    assert_eq!(left(false, 4), (0, 0), "without the tier it says nothing");
}

#[test]
fn a_sealed_segment_is_handed_over_whole() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let log = ten_segments(&dir, &TopicConfig::default());
    let sealed = log.sealed_segments(2, 8).unwrap();
    assert_eq!(sealed.len(), 6);
    let segment = log.sealed_segment(3).unwrap().unwrap();
    assert_eq!((segment.metadata.base_offset, segment.metadata.last_offset), (3, 3));
    assert_eq!((segment.metadata.max_timestamp, segment.metadata.leader_epoch), (4_000, 0));
    let mut bytes = vec![0; segment.metadata.bytes as usize];
    assert_eq!(segment.log.read_at(&mut bytes, 0).unwrap(), bytes.len());
    assert_eq!(header_of(&bytes)[0].base_offset, 3);
    assert_eq!(segment.leader_epochs.trim_ascii_end(), b"0\n1\n0 0");
    assert_eq!((segment.time_index.len(), segment.producer_snapshot.len()), (12, 10));
    assert!(log.sealed_segment(9).unwrap().is_none(), "the active segment is not handed over");
}

#[test]
fn a_deleted_log_is_gone_for_its_tasks_and_for_its_namesake() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = ten_segments(&dir, &TopicConfig::default());
    log.remember();
    dir.checkpoint().unwrap();
    log.start_epoch(5);
    let bytes = workload::batch(1, b"late", 1, None, false);
    log.append(&bytes, &header_of(&bytes), 5, AppendOrigin::Client, 0).unwrap();
    let late = log.flush_task().unwrap().unwrap();
    dir.delete_log(log).unwrap();
    let mut namesake = dir.open_log(&partition(), topic_id(2), Arc::default(), 0).unwrap();
    assert!(matches!(late.run(), Err(StorageError::Offline { .. })));
    assert_eq!(dir.failed(), None, "a deleted log is no failed disk");
    assert_eq!(namesake.end_offset(), 0);
    assert_eq!(names(&disk, "leader-epoch-checkpoint"), 0);
    namesake.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, 0).unwrap();
    drop((namesake, dir));
    let dir = open_dir(&disk.after_power_cut(firn_storage::simulated::PowerCut::KeepAll));
    let log = dir.open_log(&partition(), topic_id(2), Arc::default(), 0).unwrap();
    assert_eq!(log.end_offset(), 1, "the old log's recovery point is not the namesake's");
}

/// Without this a broker whose topic is no longer tiered would forget, at its next start, that the store has records.
#[test]
fn a_log_that_is_not_tiered_any_more_still_begins_in_the_store() {
    for clean in [true, false] {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let tiered = TopicConfig {
            remote_storage_enable: true,
            local_retention_ms: 0,
            retention_ms: -1,
            ..TopicConfig::default()
        };
        let mut log = ten_segments(&dir, &tiered);
        log.set_tiered_end_offset(4);
        assert_eq!(log.retain(99_000, 10).unwrap().segments, 4);
        let plain = TopicConfig { remote_storage_enable: false, ..tiered };
        log.update_config(Arc::new(plain.clone()));
        assert_eq!(log.retain(99_000, 10).unwrap().segments, 0);
        if clean {
            log.close().unwrap();
            dir.mark_clean_shutdown().unwrap();
        }
        drop(dir);
        let disk = disk.after_power_cut(PowerCut::DropUnsynced);
        let log = open_dir(&disk).open_log(&partition(), topic_id(1), Arc::new(plain), 0).unwrap();
        assert_eq!((log.log_start_offset(), log.local_start_offset()), (0, 4), "clean: {clean}");
    }
}

/// Where the log begins could not be noted, for want of room: then nothing leaves the disk until it is.
#[test]
fn nothing_leaves_for_the_tier_before_it_is_noted_where_the_log_begins() {
    let tiered = TopicConfig {
        remote_storage_enable: true,
        local_retention_ms: 0,
        retention_ms: -1,
        ..TopicConfig::default()
    };
    let plain = TopicConfig { remote_storage_enable: false, ..tiered.clone() };
    let mut refused = 0;
    for operation in 1..12 {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let mut log = ten_segments(&dir, &tiered);
        log.set_tiered_end_offset(4);
        let full_at = Some(disk.operations() + operation);
        disk.set_faults(Faults { full_at, ..Faults::default() });
        let first = log.retain(99_000, 10);
        disk.set_faults(Faults::default());
        refused += usize::from(first.is_err());
        let second = log.retain(99_000, 10).unwrap().segments;
        assert_eq!(first.map_or(0, |retained| retained.segments) + second, 4, "full at {operation}");
        drop(dir);
        let disk = disk.after_power_cut(PowerCut::DropUnsynced);
        let log = open_dir(&disk).open_log(&partition(), topic_id(1), Arc::new(plain.clone()), 0).unwrap();
        assert_eq!((log.log_start_offset(), log.local_start_offset()), (0, 4), "full at {operation}");
    }
    assert!(refused > 0, "the disk was never full in time");
}

#[test]
fn producers_are_known_after_all_their_records_went_and_the_power_with_them() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let config = TopicConfig { retention_ms: 1_000, ..TopicConfig::default() };
    let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
    let bytes = workload::batch(1, b"x", 1, Some((7, 0, 0)), false);
    log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, 1).unwrap();
    let done = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(done);
    assert_eq!(log.retain(1_000_000, 1).unwrap().segments, 1);
    for cut in [PowerCut::DropUnsynced, PowerCut::KeepAll] {
        let dir = open_dir(&disk.after_power_cut(cut));
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        let again = log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, 1).unwrap();
        assert!(again.duplicate, "{cut:?}: {again:?}");
    }
}

/// The snapshot behind a segment may be lost by a crash, or not be relied on after it: it is there again before that segment goes.
#[test]
fn producers_are_known_after_a_crash_and_the_end_of_their_segment_and_another_crash() {
    let config = TopicConfig { retention_ms: 1_000, segment_bytes: 200, ..TopicConfig::default() };
    for cut in [PowerCut::DropUnsynced, PowerCut::KeepAll] {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        let known = workload::batch(1, &[b'x'; 100], 1, Some((7, 0, 0)), false);
        log.append(&known, &header_of(&known), 0, AppendOrigin::Client, 1).unwrap();
        let other = workload::batch(1, &[b'x'; 100], 9_000, None, false);
        log.append(&other, &header_of(&other), 0, AppendOrigin::Client, 9_000).unwrap();
        assert_eq!(log.segment_count(), 2);
        let disk = disk.after_power_cut(PowerCut::KeepAll);
        let dir = open_dir(&disk);
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        assert_eq!(log.retain(9_500, 2).unwrap().segments, 1);
        drop((log, dir));
        let dir = open_dir(&disk.after_power_cut(cut));
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        let again = log.append(&known, &header_of(&known), 0, AppendOrigin::Client, 1).unwrap();
        assert!(again.duplicate, "{cut:?}: {again:?}");
    }
}

/// The snapshot of the producers must not outlive the index of what they aborted.
#[test]
fn aborted_transactions_are_known_after_any_power_cut_that_leaves_their_marker() {
    let config = TopicConfig { segment_bytes: 600, ..TopicConfig::default() };
    let producer = Producer { id: 7, epoch: 0, base_sequence: 0 };
    let mut survived = 0;
    for seed in 0..400 {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        let mut append = |bytes: &[u8], origin| {
            log.append(bytes, &header_of(bytes), 1, origin, 0).unwrap();
            if log.end_offset() == 1 {
                let done = log.flush_task().unwrap().unwrap().run().unwrap();
                log.flushed(done);
            }
        };
        append(&workload::batch(1, b"x", 1, None, false), AppendOrigin::Client);
        append(&workload::batch(1, &[b'x'; 100], 1, Some((7, 0, 0)), true), AppendOrigin::Client);
        append(&abort_marker(producer), AppendOrigin::Coordinator);
        // Rolls, and so writes a snapshot.
        append(&workload::batch(1, &[b'x'; 400], 1, None, false), AppendOrigin::Client);
        let after = disk.after_power_cut(PowerCut::Some { seed });
        let dir = open_dir(&after);
        let log = dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap();
        if log.end_offset() >= 3 && log.local_start_offset() == 0 {
            survived += 1;
            assert_eq!(log.aborted_transactions(0, 3).unwrap().len(), 1, "seed {seed}");
        }
    }
    assert!(survived >= 10, "the marker survived only {survived} cuts");
}

fn abort_marker(producer: Producer) -> Vec<u8> {
    let producer = Producer { base_sequence: -1, ..producer };
    let options = BatchOptions { producer, transactional: true, control: true, ..BatchOptions::default() };
    let mut builder = BatchBuilder::new(options);
    builder.push(1, Some(&[0, 0, 0, 0]), Some(&[0, 0, 0, 0, 0, 1]), &[]);
    builder.build().unwrap().to_vec()
}
