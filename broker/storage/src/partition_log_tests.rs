//! A log on a real directory: what is appended is read back, also after it was closed and opened again.

use std::path::PathBuf;
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use uuid::Uuid;

use crate::append::Appended;
use crate::directory::LogDirOptions;
use crate::error::{AppendError, ReadError, StorageError};
use crate::identity::Identity;
use crate::log_dir::LogDir;
use crate::partition_log::PartitionLog;
use crate::producers::AppendOrigin;
use crate::real_disk::RealDisk;
use crate::sample::{Sample, headers};

/// A directory of this machine that goes with its owner.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("firn-storage-{name}-{}", std::process::id()));
        std::fs::remove_dir_all(&path).ok();
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).ok();
    }
}

fn identity() -> Identity {
    Identity {
        cluster_id: "5L6g3nShT-eMCtK--X86sw".to_owned(),
        node_id: 1,
        directory_id: "AAAAAAAAAAAAAAAAAAAAAQ".to_owned(),
    }
}

fn dir(scratch: &Scratch) -> LogDir {
    LogDir::open(Arc::new(RealDisk), &scratch.0, &identity(), LogDirOptions::default()).unwrap()
}

fn tp() -> TopicPartition {
    TopicPartition::new("snow", 0)
}

fn id() -> TopicId {
    TopicId(Uuid::from_u128(7))
}

fn open(dir: &LogDir, config: &TopicConfig) -> PartitionLog {
    dir.open_log(&tp(), id(), Arc::new(config.clone()), 0).unwrap()
}

fn append(log: &mut PartitionLog, sample: &Sample) -> Result<Appended, AppendError> {
    let bytes = sample.bytes();
    log.append(&bytes, &headers(&bytes), 3, AppendOrigin::Client, 0)
}

fn flush(log: &mut PartitionLog) {
    if let Some(task) = log.flush_task().unwrap() {
        let done = task.run().unwrap();
        log.flushed(done);
    }
}

fn read_all(log: &PartitionLog) -> Vec<(i64, i64)> {
    let mut found = Vec::new();
    let mut offset = log.local_start_offset();
    while offset < log.end_offset() {
        let bytes = log.read(offset, log.end_offset(), 300, true).unwrap().read().unwrap();
        let batches = headers(&bytes);
        for header in &batches {
            found.push((header.base_offset, header.last_offset()));
        }
        offset = batches.last().expect("a batch").next_offset();
    }
    found
}

#[test]
fn what_is_appended_is_read_back_across_segments_and_restarts() {
    let scratch = Scratch::new("round-trip");
    let config = TopicConfig { segment_bytes: 1000, index_interval_bytes: 100, ..TopicConfig::default() };
    let mut expected = Vec::new();
    {
        let dir = dir(&scratch);
        let mut log = open(&dir, &config);
        for round in 0..40 {
            let appended = append(&mut log, &Sample::filled(3, 20, round).at(i64::from(round))).unwrap();
            expected.push((appended.base_offset, appended.last_offset));
            assert_eq!(appended.last_offset, i64::from(round) * 3 + 2);
        }
        assert!(log.segment_count() > 3);
        assert_eq!(read_all(&log), expected);
        flush(&mut log);
        assert_eq!(log.flushed_offset(), 120);
        log.close().unwrap();
        dir.mark_clean_shutdown().unwrap();
    }
    for _ in 0..2 {
        // The second time without the clean marker: recovery reads the tail and finds the same.
        let dir = dir(&scratch);
        let log = open(&dir, &config);
        assert_eq!((log.end_offset(), log.flushed_offset()), (120, 120));
        assert_eq!(read_all(&log), expected);
        assert_eq!(log.latest_epoch(), Some(3));
        dir.checkpoint().unwrap();
    }
}

#[test]
fn a_read_starts_at_the_batch_that_holds_the_offset_and_stops_below_the_limit() {
    let scratch = Scratch::new("read");
    let dir = dir(&scratch);
    let mut log = open(&dir, &TopicConfig::default());
    for fill in 0..4 {
        append(&mut log, &Sample::filled(5, 10, fill)).unwrap();
    }
    let slice = log.read(7, 15, usize::MAX, false).unwrap();
    assert_eq!(slice.base_offset, 5);
    assert_eq!(headers(&slice.read().unwrap()).len(), 2, "offsets 5 to 14");
    assert_eq!(log.read(7, 12, usize::MAX, false).unwrap().read().unwrap().len(), slice.len / 2);
    assert_eq!(log.read(20, 20, 100, true).unwrap().len, 0);
    assert_eq!(log.read(0, 20, 10, false).unwrap().len, 0, "the first batch does not fit");
    assert_eq!(log.read(0, 20, 10, true).unwrap().len, slice.len / 2);
    assert!(matches!(log.read(21, 21, 1, true), Err(ReadError::OffsetOutOfRange { end_offset: 20, .. })));
}

#[test]
fn a_second_process_is_refused_the_directory() {
    let scratch = Scratch::new("lock");
    let _held = dir(&scratch);
    let second = LogDir::open(Arc::new(RealDisk), &scratch.0, &identity(), LogDirOptions::default());
    assert!(matches!(second, Err(StorageError::Locked { .. })));
}

#[test]
fn another_brokers_directory_and_another_topics_log_are_refused() {
    let scratch = Scratch::new("owner");
    {
        let dir = dir(&scratch);
        append(&mut open(&dir, &TopicConfig::default()), &Sample::values(&[b"a"])).unwrap();
        let other = dir.open_log(&tp(), TopicId(Uuid::from_u128(8)), Arc::default(), 0);
        assert!(matches!(other, Err(StorageError::WrongOwner { key: "topic_id", .. })));
    }
    let other = Identity { node_id: 2, ..identity() };
    let opened = LogDir::open(Arc::new(RealDisk), &scratch.0, &other, LogDirOptions::default());
    assert!(matches!(opened, Err(StorageError::WrongOwner { key: "node.id", .. })));
}
