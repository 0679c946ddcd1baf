//! What a flush syncs, and in which order, on a disk that tells.

use std::path::Path;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use parking_lot::Mutex;
use uuid::Uuid;

use crate::directory::LogDirOptions;
use crate::epochs::EpochEntry;
use crate::identity::Identity;
use crate::log_dir::LogDir;
use crate::partition_log::PartitionLog;
use crate::producers::AppendOrigin;
use crate::sample::{Sample, headers};
use crate::simulated::{Operation, PowerCut, SimulatedDisk};

fn open(disk: &SimulatedDisk) -> (LogDir, PartitionLog) {
    let identity = Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: "d".to_owned() };
    let dir = LogDir::open(Arc::new(disk.clone()), Path::new("/data"), &identity, LogDirOptions::default())
        .unwrap();
    let (partition, id) = (TopicPartition::new("snow", 0), TopicId(Uuid::from_u128(7)));
    let log = dir.open_log(&partition, id, Arc::new(TopicConfig::default()), 0).unwrap();
    (dir, log)
}

fn append(log: &mut PartitionLog, epoch: i32) {
    let batch = Sample::values(&[b"flake"]).bytes();
    log.append(&batch, &headers(&batch), epoch, AppendOrigin::Client, 0).unwrap();
}

/// Flushes, and says which files and directories were synced, in order.
fn flush(disk: &SimulatedDisk, log: &mut PartitionLog, checkpoint: bool) -> Vec<String> {
    let synced: Arc<Mutex<Vec<String>>> = Arc::default();
    let seen = Arc::clone(&synced);
    disk.set_probe(Some(Arc::new(move |_: &SimulatedDisk, _, operation, path: &Path| {
        if matches!(operation, Operation::SyncData | Operation::SyncDir) {
            seen.lock().push(path.file_name().unwrap_or_default().to_string_lossy().into_owned());
        }
    })));
    let task = if checkpoint { log.checkpoint_task() } else { log.flush_task() };
    let done = task.unwrap().unwrap().run().unwrap();
    log.flushed(done);
    disk.set_probe(None);
    Arc::try_unwrap(synced).map(Mutex::into_inner).unwrap_or_default()
}

const LOG: &str = "00000000000000000000.log";

fn epochs(entries: &[(i32, i64)]) -> Vec<EpochEntry> {
    entries.iter().map(|&(epoch, start_offset)| EpochEntry { epoch, start_offset }).collect()
}

#[test]
fn the_first_flush_syncs_what_a_crash_must_not_take_and_no_more() {
    let disk = SimulatedDisk::new();
    let (dir, mut log) = open(&disk);
    log.start_epoch(4);
    append(&mut log, 4);
    assert_eq!(flush(&disk, &mut log, false), ["partition.metadata", LOG, "snow-0", "data"]);
    append(&mut log, 4);
    assert_eq!(flush(&disk, &mut log, false), [LOG], "later ones are one sync");
    // The epoch comes back from the batches, and another that follows is written down with it.
    drop((dir, log));
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    let (dir, mut log) = open(&disk);
    assert_eq!((log.end_offset(), log.epoch_entries()), (2, &epochs(&[(4, 0)])[..]));
    assert_eq!(log.topic_id(), TopicId(Uuid::from_u128(7)));
    log.start_epoch(6);
    append(&mut log, 6);
    let synced = flush(&disk, &mut log, false);
    assert_eq!(synced.first().map(String::as_str), Some("leader-epoch-checkpoint.tmp"), "{synced:?}");
    drop((dir, log));
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    assert_eq!(open(&disk).1.epoch_entries(), epochs(&[(4, 0), (6, 2)]));
}

#[test]
fn epochs_that_are_on_disk_follow_every_change() {
    let disk = SimulatedDisk::new();
    let (dir, mut log) = open(&disk);
    append(&mut log, 1);
    let synced = flush(&disk, &mut log, true);
    assert_eq!(synced.first().map(String::as_str), Some("leader-epoch-checkpoint.tmp"), "{synced:?}");
    // The log is cut to nothing and begins again, with an only epoch once more: the file must not speak of the old one.
    log.truncate_to(0).unwrap();
    append(&mut log, 3);
    let synced = flush(&disk, &mut log, false);
    assert_eq!(synced.first().map(String::as_str), Some("leader-epoch-checkpoint.tmp"), "{synced:?}");
    drop((dir, log));
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    assert_eq!(open(&disk).1.epoch_entries(), epochs(&[(3, 0)]));
}

#[test]
fn a_checkpoint_syncs_a_segment_that_was_sealed_for_its_age() {
    let disk = SimulatedDisk::new();
    let (_dir, mut log) = open(&disk);
    append(&mut log, 0);
    flush(&disk, &mut log, true);
    assert!(log.roll_if_due(i64::MAX / 2).unwrap());
    let synced = flush(&disk, &mut log, true);
    for file in [LOG, "00000000000000000000.timeindex", "00000000000000000001.snapshot", "snow-0"] {
        assert!(synced.iter().any(|name| name == file), "{file}: {synced:?}");
    }
    assert!(log.checkpoint_task().unwrap().is_none(), "once is enough");
}
