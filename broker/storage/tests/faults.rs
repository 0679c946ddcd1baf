//! A full disk at every operation that needs room, and an I/O error at every operation: the log says so, acknowledges
//! nothing that it does not have, and after a failed sync never works again.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
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
use firn_storage::error::StorageError;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{Faults, Operation, PowerCut, SimulatedDisk};
use parking_lot::Mutex;

use model::{Model, header_of, open_dir, partition, read_all, topic_id};
use workload::{Shape, Shared, Workload};

const STEPS: usize = 45;

/// The kinds of all operations of a run without faults, from the first step on.
fn operations(seed: u64) -> (u64, Vec<Operation>) {
    let disk = SimulatedDisk::new();
    let kinds: Arc<Mutex<Vec<Operation>>> = Arc::default();
    let mut workload = workload(&disk, seed).0;
    let first = disk.operations() + 1;
    let noted = Arc::clone(&kinds);
    disk.set_probe(Some(Arc::new(move |_: &SimulatedDisk, _, operation, _: &Path| {
        noted.lock().push(operation)
    })));
    for _ in 0..STEPS {
        workload.step().unwrap();
    }
    disk.set_probe(None);
    let kinds = kinds.lock().clone();
    (first, kinds)
}

fn shape_of(seed: u64) -> Shape {
    [Shape::Deleted, Shape::Compacted, Shape::Tiered][(seed % 3) as usize]
}

fn workload(disk: &SimulatedDisk, seed: u64) -> (Workload, Shared) {
    let model: Shared = Arc::new(Mutex::new(Model::default()));
    let mut workload = Workload::new(disk.clone(), seed, shape_of(seed), Arc::clone(&model));
    workload.keeps_its_log = true;
    (workload, model)
}

fn check(disk: &SimulatedDisk, model: &Shared, what: &str) {
    let owed = model.lock().clone();
    for cut in [PowerCut::DropUnsynced, PowerCut::KeepAll, PowerCut::Some { seed: 7 }] {
        if let Err(wrong) = owed.check(&disk.after_power_cut(cut)) {
            panic!("{what}, {cut:?}: {wrong}");
        }
    }
}

/// A running log leaves no part of a producer snapshot: after the version, Kafka's checksum covers the rest.
fn assert_snapshots_are_whole(disk: &SimulatedDisk, what: &str) {
    for path in disk.files(Path::new(model::ROOT)).unwrap() {
        if path.extension().is_some_and(|extension| extension == "snapshot") {
            let bytes = disk.contents(&path).unwrap();
            let whole = bytes.get(2..6).is_some_and(|crc| crc == crc32c::crc32c(&bytes[6..]).to_be_bytes());
            assert!(whole, "{what}: {} has {} bytes of a snapshot", path.display(), bytes.len());
        }
    }
}

#[test]
fn a_full_disk_refuses_and_goes_on_when_there_is_room() {
    for seed in [3, 4, 5] {
        let (first, kinds) = operations(seed);
        let needing = kinds.iter().enumerate().filter(|(_, kind)| {
            matches!(kind, Operation::Write | Operation::Create | Operation::CreateDir | Operation::Reserve)
        });
        for (index, kind) in needing {
            let at = first + index as u64;
            let disk = SimulatedDisk::new();
            let (mut workload, model) = workload(&disk, seed);
            disk.set_faults(Faults { full_at: Some(at), ..Faults::default() });
            let what = format!("seed {seed}, full at operation {at} ({kind:?})");
            for _ in 0..STEPS {
                match workload.step() {
                    Ok(()) | Err(StorageError::DiskFull { .. }) => {}
                    Err(error) => panic!("{what}: {error}"),
                }
                assert!(workload.reopen_if_closed(), "{what}");
                assert_snapshots_are_whole(&disk, &what);
            }
            assert_eq!(workload.failed(), None, "{what}: a full disk stops nothing");
            check(&disk, &model, &what);
        }
    }
}

#[test]
fn an_io_error_acknowledges_nothing_and_a_failed_sync_is_for_ever() {
    for seed in [6, 7, 8] {
        let (first, kinds) = operations(seed);
        for (index, kind) in kinds.iter().enumerate() {
            let at = first + index as u64;
            let disk = SimulatedDisk::new();
            let (mut workload, model) = workload(&disk, seed);
            disk.set_faults(Faults { io_error_at: Some(at), ..Faults::default() });
            let what = format!("seed {seed}, EIO at operation {at} ({kind:?})");
            let must_stop = matches!(kind, Operation::SyncData | Operation::SyncDir);
            for _ in 0..STEPS {
                let done = workload.step();
                if workload.failed().is_some() {
                    for _ in 0..3 {
                        assert!(workload.write_durably().is_err(), "{what}: it works again");
                    }
                    break;
                }
                if done.is_err() {
                    // Opening did not succeed: there is no directory that could stop.
                    assert!(!must_stop || !workload.is_open(), "{what}: the directory goes on");
                    workload.reopen_if_closed();
                }
            }
            check(&disk, &model, &what);
        }
    }
}

fn open(dir: &LogDir) -> PartitionLog {
    dir.open_log(&partition(), topic_id(1), Arc::new(TopicConfig::default()), 0).unwrap()
}

/// Appends one record and flushes it.
fn write(log: &mut PartitionLog) -> Result<(), StorageError> {
    let bytes = workload::batch_of(&[(b"key".to_vec(), Some(b"value".to_vec()))], 1, None, false);
    log.append(&bytes, &header_of(&bytes), 0, AppendOrigin::Client, 0).unwrap();
    let done = log.flush_task()?.unwrap().run()?;
    log.flushed(done);
    Ok(())
}

/// The pages of a failed sync stay in memory, and to the system they are written: who starts again on the same machine
/// would serve records, and acknowledge them when they are sent again, that the next power cut takes.
#[test]
fn what_a_failed_sync_has_lost_is_not_there_after_a_restart() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let mut log = open(&dir);
    write(&mut log).unwrap();
    write(&mut log).unwrap();
    let failing = disk.clone();
    disk.set_probe(Some(Arc::new(move |_: &SimulatedDisk, number, operation, path: &Path| {
        if operation == Operation::SyncData && path.extension().is_some_and(|suffix| suffix == "log") {
            failing.set_faults(Faults { io_error_at: Some(number), ..Faults::default() });
        }
    })));
    assert!(write(&mut log).is_err());
    drop((log, dir));
    disk.set_probe(None);
    disk.set_faults(Faults::default());

    let offsets = |log: &PartitionLog| -> Vec<i64> {
        read_all(log).unwrap().iter().map(|(header, _)| header.base_offset).collect()
    };
    let dir = open_dir(&disk);
    let mut log = open(&dir);
    assert_eq!(offsets(&log), [0, 1], "the third is nowhere but in memory");
    write(&mut log).unwrap();
    let after = disk.after_power_cut(PowerCut::DropUnsynced);
    assert_eq!(offsets(&open(&open_dir(&after))), [0, 1, 2]);
}
