//! What many partitions cost on a real file system: time to create, close and open them, memory, open files.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking, and this one reports figures"
)]

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::{CleanupPolicy, TopicConfig};
use firn_records::batch::batches;
use firn_records::builder::{BatchBuilder, BatchOptions, Producer};
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::directory::LogDirOptions;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::real_disk::RealDisk;

const LOGS: usize = 1_000;
/// Idle resident memory that one partition may cost.
const RESIDENT_BYTES_MAX: usize = 20 << 10;
/// Memory and descriptors are counted for the whole process: one test at a time.
static ALONE: Mutex<()> = Mutex::new(());

struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn open_dir(scratch: &Scratch) -> LogDir {
    let identity = Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: "d".to_owned() };
    let options = LogDirOptions { open_files_max: 64, ..LogDirOptions::default() };
    LogDir::open(Arc::new(RealDisk), &scratch.0, &identity, options).unwrap()
}

fn open_all(dir: &LogDir, config: &Arc<TopicConfig>) -> Vec<PartitionLog> {
    let topic: Arc<str> = "many".into();
    (0..LOGS as i32)
        .map(|partition| {
            let topic_partition = TopicPartition::new(Arc::clone(&topic), partition);
            let id = TopicId(uuid::Uuid::from_u128(9));
            dir.open_log(&topic_partition, id, Arc::clone(config), 0).unwrap()
        })
        .collect()
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    statm.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

fn scratch(name: &str) -> Scratch {
    Scratch(std::env::temp_dir().join(format!("firn-storage-{name}-{}", std::process::id())))
}

fn append(log: &mut PartitionLog, key: Option<&[u8]>, producer: Producer) {
    let mut builder = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
    builder.push(1, key, Some(b"value"), &[]);
    let bytes = builder.build().unwrap();
    let headers: Vec<_> = batches(&bytes).map(|batch| batch.unwrap().0).collect();
    log.append(&bytes, &headers, 0, AppendOrigin::Client, 0).unwrap();
}

#[test]
fn compacting_a_log_of_many_segments_takes_few_descriptors() {
    const SEGMENTS: usize = 300;
    let _alone = ALONE.lock();
    let scratch = scratch("descriptors");
    let dir = open_dir(&scratch);
    let compacted = CleanupPolicy { delete: false, compact: true };
    let config = TopicConfig { segment_bytes: 100, cleanup_policy: compacted, ..TopicConfig::default() };
    let partition = TopicPartition::new("t", 0);
    let mut log = dir.open_log(&partition, TopicId(uuid::Uuid::from_u128(9)), Arc::new(config), 0).unwrap();
    for _ in 0..SEGMENTS {
        append(&mut log, Some(b"key"), Producer::NONE);
    }
    assert_eq!(log.segment_count(), SEGMENTS);
    let flushed = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(flushed);
    let before = open_descriptors();
    let task =
        log.compaction_task(5_000, log.end_offset(), CleanerLimits::of_memory(1 << 20)).unwrap().unwrap();
    let opened = open_descriptors().saturating_sub(before);
    assert!(opened < 10, "{opened} descriptors");
    let done = task.run().unwrap();
    assert_eq!(log.compacted(done, 5_000).unwrap().segments_before, SEGMENTS - 1);
    assert!(open_descriptors().saturating_sub(before) < 10);
}

#[test]
fn idle_partitions_cost_little_and_open_fast_after_a_clean_shutdown() {
    let _alone = ALONE.lock();
    let scratch = scratch("footprint");
    let config = Arc::new(TopicConfig::default());
    {
        let dir = open_dir(&scratch);
        let (before, started) = (resident_bytes(), Instant::now());
        let logs = open_all(&dir, &config);
        let each = resident_bytes().saturating_sub(before) / LOGS;
        println!("{LOGS} logs created in {:?}, {each} bytes resident each", started.elapsed());
        assert!(each < RESIDENT_BYTES_MAX, "{each} bytes each");
        dir.mark_clean_shutdown().unwrap();
        drop(logs);
    }
    // One in ten gets a batch, and so files that have to be synced.
    {
        let dir = open_dir(&scratch);
        let mut logs = open_all(&dir, &config);
        for (index, log) in logs.iter_mut().enumerate().filter(|(index, _)| index % 10 == 0) {
            let producer = Producer { id: index as i64, epoch: 0, base_sequence: 0 };
            append(log, None, producer);
        }
        let started = Instant::now();
        for log in logs {
            log.close().unwrap();
        }
        println!("{LOGS} logs closed in {:?}, one in ten with unsynced writes", started.elapsed());
        dir.mark_clean_shutdown().unwrap();
    }
    let dir = open_dir(&scratch);
    assert!(dir.was_clean());
    let (descriptors, started) = (open_descriptors(), Instant::now());
    let logs = open_all(&dir, &config);
    let took = started.elapsed();
    let opened = open_descriptors().saturating_sub(descriptors);
    println!("{LOGS} logs opened in {took:?} with {opened} descriptors for all");
    assert_eq!(logs.iter().map(PartitionLog::end_offset).sum::<i64>(), LOGS as i64 / 10);
    assert!(opened < 10, "{opened} descriptors");
    assert!(took.as_secs() < 5, "{took:?}");
}
