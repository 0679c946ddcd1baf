//! What is short, room or file descriptors, must neither damage a log nor stop its directory, and what a task leaves
//! undone must not take the room that others need.

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

use firn_model::ids::TopicPartition;
use firn_model::topic_config::{CleanupPolicy, TopicConfig};
use firn_records::batch::BatchHeader;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::directory::LogDirOptions;
use firn_storage::disk::Disk;
use firn_storage::error::StorageError;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{Faults, Operation, PowerCut, SimulatedDisk};

use model::{header_of, open_dir, partition, read_all, topic_id};

const RESERVE: u64 = 10_000;

/// Appends a record of a key that no other has.
fn append(log: &mut PartitionLog, size: usize) -> Result<i64, String> {
    let key = log.end_offset().to_be_bytes().to_vec();
    append_of(log, key, size)
}

fn append_of(log: &mut PartitionLog, key: Vec<u8>, size: usize) -> Result<i64, String> {
    let bytes = workload::batch_of(&[(key, Some(vec![b'x'; size]))], 1, None, false);
    let appended = log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, 0);
    appended.map(|appended| appended.base_offset).map_err(|error| error.to_string())
}

fn flush(log: &mut PartitionLog) {
    let done = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(done);
}

fn open(dir: &LogDir, config: &TopicConfig) -> PartitionLog {
    dir.open_log(&partition(), topic_id(1), Arc::new(config.clone()), 0).unwrap()
}

fn offsets(log: &PartitionLog) -> Vec<i64> {
    read_all(log).unwrap().iter().map(|(header, _): &(BatchHeader, _)| header.base_offset).collect()
}

fn compacted() -> TopicConfig {
    TopicConfig {
        segment_bytes: 1_000,
        min_cleanable_dirty_ratio: 0.0,
        cleanup_policy: CleanupPolicy { delete: false, compact: true },
        ..TopicConfig::default()
    }
}

fn task(log: &PartitionLog) -> firn_storage::cleaner::CompactionTask {
    log.compaction_task(100, log.end_offset(), CleanerLimits::of_memory(1 << 20)).unwrap().unwrap()
}

fn temporary_files(disk: &SimulatedDisk) -> Vec<String> {
    let files = disk.files(Path::new(model::ROOT)).unwrap();
    let names = files.iter().map(|file| file.to_string_lossy().into_owned());
    names.filter(|name| name.ends_with(".cleaned") || name.ends_with(".swap")).collect()
}

#[test]
fn a_segment_whose_room_cannot_be_reserved_takes_records_all_the_same() {
    let config = TopicConfig { segment_bytes: 1_200, preallocate: true, ..TopicConfig::default() };
    for fault in [Operation::Reserve, Operation::Create] {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let mut log = open(&dir, &config);
        for _ in 0..2 {
            append(&mut log, 300).unwrap();
        }
        flush(&mut log);
        let full = disk.clone();
        disk.set_probe(Some(Arc::new(move |_: &SimulatedDisk, number, operation, path: &Path| {
            if operation == fault && path.extension().is_some_and(|suffix| suffix == "log") {
                full.set_faults(Faults { full_at: Some(number), ..Faults::default() });
            }
        })));
        let rolled = append(&mut log, 800);
        assert_eq!(rolled.is_ok(), fault == Operation::Reserve, "{rolled:?}");
        disk.set_probe(None);
        disk.set_faults(Faults::default());
        for _ in 0..2 {
            append(&mut log, 10).unwrap();
        }
        flush(&mut log);
        let all: Vec<i64> = (0..log.end_offset()).collect();
        assert_eq!(offsets(&log), all);
        let after = disk.after_power_cut(PowerCut::DropUnsynced);
        assert_eq!(offsets(&open(&open_dir(&after), &config)), all, "after a power cut");
        log.close().unwrap();
        dir.mark_clean_shutdown().unwrap();
        drop(dir);
        assert_eq!(offsets(&open(&open_dir(&disk), &config)), all, "after a clean stop");
    }
}

#[test]
fn compaction_keeps_out_of_the_reserve_and_leaves_nothing_behind() {
    let disk = SimulatedDisk::new();
    let options = LogDirOptions { reserve_bytes: RESERVE, ..LogDirOptions::default() };
    let dir =
        LogDir::open(Arc::new(disk.clone()), Path::new(model::ROOT), &model::identity(), options).unwrap();
    let mut log = open(&dir, &compacted());
    let short_lived = TopicConfig {
        segment_bytes: 1_000,
        retention_ms: 1_000,
        file_delete_delay_ms: 0,
        ..TopicConfig::default()
    };
    let other = TopicPartition::new("rain", 0);
    let mut other = dir.open_log(&other, topic_id(2), Arc::new(short_lived), 0).unwrap();
    for _ in 0..40 {
        append(&mut log, 900).unwrap();
        append(&mut other, 900).unwrap();
    }
    flush(&mut log);
    flush(&mut other);
    let root = Path::new(model::ROOT);
    let used = (1u64 << 40) - disk.space(root).unwrap().free;
    let capacity_bytes = Some(used + RESERVE + 5_000);
    disk.set_faults(Faults { capacity_bytes, ..Faults::default() });
    for _ in 0..2 {
        assert!(matches!(task(&log).run(), Err(StorageError::DiskFull { .. })));
        assert_eq!(temporary_files(&disk), Vec::<String>::new());
        assert!(disk.space(root).unwrap().free >= RESERVE / 2, "half of it is there");
    }
    assert_eq!(other.retain(1_000_000, other.end_offset()).unwrap().segments, 40, "and makes room");
    disk.set_faults(Faults::default());
    let done = task(&log).run().unwrap();
    assert!(log.compacted(done, 100).unwrap().applied);
    assert_eq!(offsets(&log), (0..40).collect::<Vec<_>>());
}

#[test]
fn an_exchange_of_segments_that_is_short_of_something_is_begun_again() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = open(&dir, &compacted());
    for _ in 0..20 {
        append_of(&mut log, b"key".to_vec(), 300).unwrap();
    }
    flush(&mut log);
    let before = offsets(&log);
    let done = task(&log).run().unwrap();
    disk.set_faults(Faults { out_of_files: true, ..Faults::default() });
    assert!(matches!(log.compacted(done, 100), Err(StorageError::OutOfFiles { .. })));
    disk.set_faults(Faults::default());
    assert_eq!(dir.failed(), None);
    assert_eq!(temporary_files(&disk), Vec::<String>::new());
    assert_eq!(offsets(&log), before);
    // Files run out in the middle: the directory is open already, and no other file is needed.
    let done = task(&log).run().unwrap();
    let first_rename = disk.operations() + 1;
    let starved = disk.clone();
    disk.set_probe(Some(Arc::new(move |_: &SimulatedDisk, number, operation, _: &Path| {
        if number == first_rename && operation == Operation::Rename {
            starved.set_faults(Faults { out_of_files: true, ..Faults::default() });
        }
        if operation == Operation::RemoveFile {
            starved.set_faults(Faults::default());
        }
    })));
    let swapped = log.compacted(done, 100);
    disk.set_probe(None);
    disk.set_faults(Faults::default());
    // What comes after the exchange, a checkpoint, may be short of a file; the exchange itself is not.
    assert!(swapped.is_ok() || swapped.is_err_and(|error| error.is_shortage()));
    assert_eq!(dir.failed(), None);
    assert_eq!(temporary_files(&disk), Vec::<String>::new());
    assert!(offsets(&log).len() < 20 && offsets(&log).last() == Some(&19), "{:?}", offsets(&log));
}

#[test]
fn names_that_could_not_be_synced_for_want_of_room_are_not_tried_again() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = open(&dir, &TopicConfig::default());
    append(&mut log, 10).unwrap();
    disk.set_faults(Faults { dir_sync_is_full: true, ..Faults::default() });
    assert!(log.flush_task().unwrap().unwrap().run().is_err());
    disk.set_faults(Faults::default());
    assert!(dir.failed().is_some(), "a failed fsync stops the directory, whatever its reason");
    assert!(append(&mut log, 10).is_err());
}
