//! A log whose first records are in the tier alone, taken over from another replica's: at every crash, and on a full disk.

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

use std::sync::Arc;

use firn_model::topic_config::TopicConfig;
use firn_records::batch::batches;
use firn_storage::epochs::EpochEntry;
use firn_storage::error::{ReadError, StorageError};
use firn_storage::local_start::LocalStart;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};

use model::{header_of, open_dir, partition, topic_id};

const PRODUCER: i64 = 7;

fn tiered() -> Arc<TopicConfig> {
    Arc::new(TopicConfig {
        remote_storage_enable: true,
        local_retention_ms: 0,
        retention_ms: -1,
        segment_bytes: 200,
        ..TopicConfig::default()
    })
}

fn open(dir: &LogDir) -> PartitionLog {
    dir.open_log(&partition(), topic_id(1), tiered(), 0).unwrap()
}

/// Adds records up to `to`, a segment each; two of each leader epoch.
fn append(log: &mut PartitionLog, to: i64) {
    for offset in log.end_offset()..to {
        let time = 1_000 + offset;
        let bytes = workload::batch(1, &[b'x'; 100], time, Some((PRODUCER, 0, offset as i32)), false);
        log.append(&bytes, &header_of(&bytes), (offset / 2) as i32, AppendOrigin::Client, time).unwrap();
    }
    let done = log.flush_task().unwrap().map(|task| task.run().unwrap());
    done.into_iter().for_each(|done| log.flushed(done));
}

/// Ten records, of which the disk has those from the fifth on.
fn leader(disk: &SimulatedDisk) -> (LogDir, PartitionLog) {
    let dir = open_dir(disk);
    let mut log = open(&dir);
    append(&mut log, 10);
    log.set_tiered_end_offset(5);
    assert_eq!(log.retain(99_000, 10).unwrap().segments, 5);
    (dir, log)
}

fn bounds(log: &PartitionLog) -> (i64, i64, i64) {
    (log.log_start_offset(), log.local_start_offset(), log.end_offset())
}

/// It knows all that can be known of what it does not have.
fn assert_complete(log: &PartitionLog) {
    assert_eq!(bounds(log), (0, 5, 5));
    assert_eq!([0, 3, 4].map(|offset| log.epoch_for_offset(offset)), [Some(0), Some(1), Some(2)]);
    assert_eq!(log.producers().entries()[&PRODUCER].last_sequence(), 4);
}

#[test]
fn a_replica_goes_on_where_the_leaders_disk_begins() {
    let leaders = SimulatedDisk::new();
    let (_leading, leading) = leader(&leaders);
    let start = leading.local_start().unwrap();
    assert_eq!((start.log_start_offset, start.offset), (0, 5));
    let epochs = [(0, 0), (1, 2), (2, 4)].map(|(epoch, start_offset)| EpochEntry { epoch, start_offset });
    assert_eq!(start.leader_epochs, epochs);
    for has in [0, 2] {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let mut log = open(&dir);
        append(&mut log, has);
        log.begin_at_local_start(&start).unwrap();
        assert_complete(&log);
        while log.end_offset() < 10 {
            let bytes = leading.read(log.end_offset(), 10, 10_000, true).unwrap().read().unwrap();
            let headers: Vec<_> = batches(&bytes).map(|found| found.unwrap().0).collect();
            log.append_fetched(&bytes, &headers, 1).unwrap();
        }
        assert_eq!(bounds(&log), (0, 5, 10));
        assert_eq!(log.epoch_entries(), leading.epoch_entries());
        assert_eq!(log.producers().entries(), leading.producers().entries());
        assert!(matches!(log.read(1, 10, 100, true), Err(ReadError::BelowLocalStart { .. })));
    }
}

#[test]
fn whatever_a_crash_leaves_begins_where_the_log_does() {
    let leaders = SimulatedDisk::new();
    let start = leader(&leaders).1.local_start().unwrap();
    for has in [0, 2] {
        let mut seen = [0; 3];
        for operation in 1.. {
            let disk = SimulatedDisk::new();
            let dir = open_dir(&disk);
            let mut log = open(&dir);
            append(&mut log, has);
            let power_off_at = Some(disk.operations() + operation);
            disk.set_faults(Faults { power_off_at, ..Faults::default() });
            let ended = log.begin_at_local_start(&start).is_ok();
            for cut in [PowerCut::DropUnsynced, PowerCut::KeepAll, PowerCut::Some { seed: operation }] {
                let dir = open_dir(&disk.after_power_cut(cut));
                let mut log = open(&dir);
                match bounds(&log) {
                    (0, 5, 5) => {
                        assert_complete(&log);
                        seen[2] += 1;
                    }
                    (0, 0, 0) => {
                        assert!(!ended && log.epoch_entries().is_empty(), "{operation}: {cut:?}");
                        seen[1] += 1;
                    }
                    // Some of the files are there yet. The tier has all that lies before, whatever is gone.
                    (0, local_start, end) => {
                        assert!(
                            !ended && local_start <= end && end <= has,
                            "{operation}: {local_start}, {end}"
                        );
                        seen[0] += 1;
                    }
                    found => panic!("{operation}: {found:?}"),
                }
                log.begin_at_local_start(&start).unwrap();
                assert_complete(&log);
            }
            if ended {
                break;
            }
        }
        assert!(seen[1] > 0 && seen[2] > 0 && (has == 0 || seen[0] > 0), "{seen:?}");
    }
}

#[test]
fn a_disk_that_was_full_is_begun_again() {
    let leaders = SimulatedDisk::new();
    let start = leader(&leaders).1.local_start().unwrap();
    let mut refused = 0;
    for operation in 1..20 {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        let mut log = open(&dir);
        append(&mut log, 2);
        let full_at = Some(disk.operations() + operation);
        disk.set_faults(Faults { full_at, ..Faults::default() });
        if log.begin_at_local_start(&start).is_ok() {
            assert_complete(&log);
            continue;
        }
        refused += 1;
        disk.set_faults(Faults::default());
        log.begin_at_local_start(&start).unwrap();
        assert_complete(&log);
    }
    assert!(refused > 2, "{refused}");
}

/// It would end before what its replica knows to be committed.
#[test]
fn a_log_goes_no_further_back_for_a_batch_that_the_disk_has_no_room_for() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = open(&dir);
    log.truncate_fully_and_start_at(9).unwrap();
    disk.set_faults(Faults { capacity_bytes: Some(60_000), ..Faults::default() });
    assert!(matches!(log.begin_before_log_start(7, 1_000), Err(StorageError::DiskFull { .. })));
    assert_eq!(bounds(&log), (9, 9, 9));
    disk.set_faults(Faults::default());
    log.begin_before_log_start(7, 1_000).unwrap();
    assert_eq!(bounds(&log), (9, 9, 7));
}

/// What is in the tier is the log's still: its next leader has it, or tells where it parts.
#[test]
fn a_log_that_is_cut_where_its_disk_has_nothing_begins_where_it_did() {
    let disk = SimulatedDisk::new();
    let (dir, mut log) = leader(&disk);
    log.truncate_to(3).unwrap();
    assert_eq!((bounds(&log), log.tiered_end_offset()), ((0, 0, 0), 0));
    drop((log, dir));
    let dir = open_dir(&disk.after_power_cut(PowerCut::DropUnsynced));
    assert_eq!(bounds(&open(&dir)), (0, 0, 0));
}

#[test]
fn what_the_tier_was_said_to_have_is_no_more_than_what_is_left_of_the_log() {
    let disk = SimulatedDisk::new();
    let (_dir, mut log) = leader(&disk);
    log.follow_tiered_end_offset(9);
    log.truncate_to(7).unwrap();
    assert_eq!(log.tiered_end_offset(), 7);
    log.follow_tiered_end_offset(6);
    assert_eq!(log.tiered_end_offset(), 6);
}

#[test]
fn what_was_deleted_here_stays_deleted_and_what_is_damaged_is_refused() {
    let leaders = SimulatedDisk::new();
    let start = leader(&leaders).1.local_start().unwrap();
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = open(&dir);
    append(&mut log, 4);
    let damaged = LocalStart { producers: b"\0\x09".as_slice().into(), ..start.clone() };
    assert!(log.begin_at_local_start(&damaged).unwrap_err().to_string().contains("what the leader sent"));
    assert_eq!(bounds(&log), (0, 0, 4), "nothing was given up for it");
    log.set_log_start_offset(3).unwrap();
    log.begin_at_local_start(&start).unwrap();
    assert_eq!(bounds(&log), (3, 5, 5));
    assert_eq!(log.epoch_for_offset(3), Some(1));
}
