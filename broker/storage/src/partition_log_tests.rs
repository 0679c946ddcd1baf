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

/// A follower's log is its leader's, byte for byte, however it was cut into fetches, and over gaps that compaction left.
#[test]
fn what_is_fetched_from_a_leader_is_kept_as_it_is() {
    let (ours, theirs) = (Scratch::new("leader"), Scratch::new("follower"));
    let config = TopicConfig { segment_bytes: 1000, ..TopicConfig::default() };
    let (leader_dir, follower_dir) = (dir(&ours), dir(&theirs));
    let (mut leader, mut follower) = (open(&leader_dir, &config), open(&follower_dir, &config));
    for round in 0..30 {
        let bytes = Sample::filled(3, 20, round).at(i64::from(round)).bytes();
        leader.append(&bytes, &headers(&bytes), i32::from(round) / 10, AppendOrigin::Client, 0).unwrap();
    }
    let mut left_out = 0;
    while follower.end_offset() < leader.end_offset() {
        let bytes =
            leader.read(follower.end_offset(), leader.end_offset(), 2_500, true).unwrap().read().unwrap();
        let all = headers(&bytes);
        // A fetch may end within a batch.
        let bytes = bytes.slice(..all.iter().map(|header| header.size_in_bytes()).sum::<usize>());
        // The second batch of a fetch is one that is not there any more.
        let gone = all.get(1).filter(|_| all.len() > 2).map_or(0..0, |gone| {
            let start = all[0].size_in_bytes();
            start..start + gone.size_in_bytes()
        });
        left_out += usize::from(!gone.is_empty());
        let kept = [&bytes[..gone.start], &bytes[gone.end..]].concat();
        let kept = if gone.is_empty() { bytes.to_vec() } else { kept };
        follower.append_fetched(&kept, &headers(&kept), 0).unwrap();
        assert_eq!(follower.end_offset(), all.last().unwrap().next_offset());
        let again = follower.append_fetched(&kept, &headers(&kept), 0).unwrap_err();
        assert!(matches!(again, AppendError::InvalidBatches(_)), "{again}");
    }
    assert!(left_out > 3);
    assert!(follower.segment_count() > 3, "segments are no longer than the topic's");
    assert_eq!(follower.epoch_entries().iter().map(|entry| entry.epoch).collect::<Vec<_>>(), [0, 1, 2]);
    let (whole, kept) = (read_all(&leader), read_all(&follower));
    assert!(kept.iter().all(|batch| whole.contains(batch)));
    assert_eq!(kept.len() + left_out, whole.len());
    let late = Sample::filled(1, 20, 0).bytes();
    let old_epoch = headers(&late);
    assert!(old_epoch[0].partition_leader_epoch < 2);
    assert!(
        follower.append_fetched(&late, &old_epoch, 0).is_err(),
        "neither its offset nor its epoch follows"
    );
}

/// Compaction has left gaps: a log that is cut within one ends where its last batch does, on the disk too.
#[test]
fn a_cut_within_a_gap_ends_behind_the_last_batch() {
    for cut_at in 2..9 {
        let (ours, theirs) =
            (Scratch::new(&format!("gaps-{cut_at}")), Scratch::new(&format!("gaps-of-{cut_at}")));
        let (leader_dir, dir_with_gaps) = (dir(&theirs), dir(&ours));
        let config = TopicConfig::default();
        let (mut leader, mut log) = (open(&leader_dir, &config), open(&dir_with_gaps, &config));
        for _ in 0..5 {
            append(&mut leader, &Sample::filled(2, 20, 1)).unwrap();
        }
        let bytes = leader.read(0, 10, 100_000, true).unwrap().read().unwrap();
        let all = headers(&bytes);
        // 2..4 and 6..8 are not there any more.
        let mut at = 0;
        for (number, header) in all.iter().enumerate() {
            let batch = &bytes[at..at + header.size_in_bytes()];
            at += header.size_in_bytes();
            if number % 2 == 0 {
                log.append_fetched(batch, &[*header], 0).unwrap();
            }
        }
        flush(&mut log);
        log.remember();
        dir_with_gaps.checkpoint().unwrap();
        let refused = log.truncate_to(cut_at).unwrap_err();
        assert!(
            matches!(refused, StorageError::Corrupt { .. }),
            "nobody has said that there are gaps: {refused}"
        );
        log.tolerate_gaps();
        log.truncate_to(cut_at).unwrap();
        let end = [2, 2, 2, 2, 6, 6, 6][cut_at as usize - 2];
        assert_eq!(log.end_offset(), end, "cut at {cut_at}");
        drop((log, dir_with_gaps));
        let found = open(&dir(&ours), &config);
        assert_eq!(found.end_offset(), end, "cut at {cut_at}, and opened again");
    }
}
