//! What a partition lets readers see of a log that recovery could not make durable.

use std::path::Path;
use std::time::Duration;

use firn_model::ids::TopicId;
use firn_records::builder::{BatchBuilder, BatchOptions};
use firn_storage::directory::LogDirOptions;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::simulated::{Faults, SimulatedDisk};
use firn_telemetry::metrics::Metrics;

use super::*;
use crate::disk_guard::DiskGuard;

const ROOT: &str = "/data";

fn open(disk: &SimulatedDisk) -> Result<(LogDir, PartitionLog), StorageError> {
    let identity =
        Identity { cluster_id: "cluster".to_owned(), node_id: 1, directory_id: "directory".to_owned() };
    let dir = LogDir::open(Arc::new(disk.clone()), Path::new(ROOT), &identity, LogDirOptions::default())?;
    let id = TopicId(uuid::Uuid::from_u128(1));
    let log = dir.open_log(&TopicPartition::new("snow", 0), id, Arc::new(TopicConfig::default()), 0)?;
    Ok((dir, log))
}

fn append(log: &mut PartitionLog, epoch: i32) {
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1, None, Some(b"flake"), &[]);
    let batches = ValidatedBatches::trusted(builder.build().unwrap()).unwrap();
    log.append(&batches.bytes, &batches.headers, epoch, AppendOrigin::Client, 1).unwrap();
}

/// A disk as a killed broker leaves it: one record is durable, and another is not.
fn left_by_a_killed_broker() -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let (_dir, mut log) = open(&disk).unwrap();
    append(&mut log, 0);
    let flushed = log.checkpoint_task().unwrap().unwrap().run().unwrap();
    log.flushed(flushed);
    log.start_epoch(1);
    append(&mut log, 1);
    disk
}

/// The same, opened again while the disk is full, as far as that keeps recovery from syncing what it finds.
fn opened_on_a_full_disk() -> (SimulatedDisk, LogDir, PartitionLog) {
    for operation in 1..100 {
        let disk = left_by_a_killed_broker();
        let full_at = Some(disk.operations() + operation);
        disk.set_faults(Faults { full_at, ..Faults::default() });
        if let Ok((dir, log)) = open(&disk)
            && log.flushed_offset() < log.end_offset()
        {
            return (disk, dir, log);
        }
    }
    panic!("recovery syncs everything, whatever is short: this test has lost its ground");
}

#[tokio::test]
async fn what_recovery_could_not_sync_is_committed_once_it_is_flushed() {
    let (disk, dir, log) = opened_on_a_full_disk();
    let (flushed, end) = (log.flushed_offset(), log.end_offset());
    assert!(flushed < end);
    let guard = DiskGuard::new(Arc::new(disk.clone()), ROOT.into(), 0);
    let data_dir = Arc::new(DataDir { dir, guard });
    let traffic = Metrics::new().unwrap().topic(&Arc::from("snow"));
    let config = TopicConfig { flush_messages: 1, ..TopicConfig::default() };
    let partition = Partition::lead(log, 1, Arc::new(config), data_dir, traffic);
    assert_eq!(partition.offsets().unwrap().high_watermark, flushed, "a power cut may still take the rest");
    disk.set_faults(Faults::default());
    partition.flush_if_due(1);
    let committed = async {
        while partition.offsets().unwrap().high_watermark < end {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), committed).await.unwrap();
}

#[tokio::test]
async fn who_does_not_lead_takes_and_gives_nothing_until_it_leads_again() {
    let disk = SimulatedDisk::new();
    let (dir, log) = open(&disk).unwrap();
    let guard = DiskGuard::new(Arc::new(disk.clone()), ROOT.into(), 0);
    let data_dir = Arc::new(DataDir { dir, guard });
    let traffic = Metrics::new().unwrap().topic(&Arc::from("snow"));
    let partition = Partition::lead(log, 3, Arc::new(TopicConfig::default()), data_dir, traffic);
    let mut builder = BatchBuilder::new(BatchOptions::default());
    builder.push(1, None, Some(b"flake"), &[]);
    let batches = ValidatedBatches::trusted(builder.build().unwrap()).unwrap();
    let append = || partition.append(&batches, AppendOrigin::Client, 1);
    append().unwrap();
    partition.turn(false, 4);
    assert!(matches!(append(), Err(PartitionError::NotLeader)));
    let read = || partition.read(0, Isolation::ReadUncommitted, 1_000, true);
    assert!(matches!(read(), Err(PartitionError::NotLeader)));
    partition.turn(true, 5);
    assert_eq!(append().unwrap().appended.last_offset, 1);
    assert!(read().is_ok());
    let ends = partition.with_log(|log| [3, 5].map(|epoch| log.epoch_end_offset(epoch))).unwrap();
    assert_eq!(ends, [Some((3, 1)), Some((5, 2))]);
}
