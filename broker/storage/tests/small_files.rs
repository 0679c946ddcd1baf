//! A bit that flips in a file beside the logs: a checkpoint, an identity. A log never starts later for it, nor is more of it committed or
//! on stable storage than was; or it is said that the file is damaged.

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

use firn_model::topic_config::{CleanupPolicy, TopicConfig};
use firn_records::batch::BatchHeader;
use firn_storage::cleaner_limits::CleanerLimits;
use firn_storage::directory::LogDirOptions;
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::epochs::EpochEntry;
use firn_storage::error::StorageError;
use firn_storage::identity::cluster_id_of;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use firn_storage::simulated::{PowerCut, SimulatedDisk};
use uuid::Uuid;

use model::{ROOT, header_of, identity, open_dir, partition, read_all, topic_id};

const RECORDS: i64 = 120;
const LOG_START: i64 = 20;
const COMMITTED: i64 = 100;
const INCARNATION: Uuid = Uuid::from_u128(77);

/// All that such a file tells, and what the log serves.
#[derive(Debug, PartialEq)]
struct Seen {
    log_start: i64,
    high_watermark: i64,
    end: i64,
    epochs: Vec<EpochEntry>,
    batches: Vec<(BatchHeader, Vec<u8>)>,
}

fn config() -> Arc<TopicConfig> {
    Arc::new(TopicConfig { segment_bytes: 700, ..TopicConfig::default() })
}

fn append(log: &mut PartitionLog, to: i64) {
    for offset in log.end_offset()..to {
        let bytes = workload::batch(1, &[b'x'; 20], 1_000 + offset, None, false);
        log.append(&bytes, &header_of(&bytes), (offset / 50) as i32, AppendOrigin::Client, 1_000).unwrap();
    }
}

fn flush(log: &mut PartitionLog) {
    let done = log.flush_task().unwrap().unwrap().run().unwrap();
    log.flushed(done);
}

/// A log of which every checkpoint says something, as the power leaves it, or an orderly stop.
fn filled(clean: bool) -> SimulatedDisk {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    dir.note_incarnation(INCARNATION).unwrap();
    let mut log = dir.open_log(&partition(), topic_id(1), config(), 0).unwrap();
    append(&mut log, RECORDS);
    flush(&mut log);
    log.high_watermark_moved(COMMITTED);
    log.delete_records_before(LOG_START).unwrap();
    assert!(log.segment_count() > 5);
    if clean {
        log.close().unwrap();
        dir.mark_clean_shutdown().unwrap();
    } else {
        log.remember();
        dir.checkpoint().unwrap();
        append(&mut log, RECORDS + 1);
    }
    drop(dir);
    disk.after_power_cut(PowerCut::DropUnsynced)
}

fn open(disk: &SimulatedDisk) -> Result<(LogDir, PartitionLog), StorageError> {
    let dir = LogDir::open(Arc::new(disk.clone()), Path::new(ROOT), &identity(), LogDirOptions::default())?;
    assert_eq!(dir.identity(), &identity());
    assert_eq!(cluster_id_of(disk, Path::new(ROOT)).unwrap().unwrap(), identity().cluster_id);
    assert_eq!(dir.incarnations()?, [(INCARNATION, 0)]);
    let log = dir.open_log(&partition(), topic_id(1), config(), 0)?;
    Ok((dir, log))
}

fn see(disk: &SimulatedDisk) -> Result<Seen, StorageError> {
    let (_dir, log) = open(disk)?;
    Ok(Seen {
        log_start: log.log_start_offset(),
        high_watermark: log.high_watermark(),
        end: log.end_offset(),
        epochs: log.epoch_entries().to_vec(),
        batches: read_all(&log).unwrap(),
    })
}

/// The disks on which one bit of a file has flipped, and which.
fn hurt(disk: &SimulatedDisk, name: &str) -> impl Iterator<Item = (String, SimulatedDisk)> {
    let path = Path::new(ROOT).join(name);
    let len = disk.contents(&path).unwrap().len() as u64;
    (0..len * 8).map(move |number| {
        let (byte, bit) = (number / 8, (number % 8) as u8);
        let hurt = disk.after_power_cut(PowerCut::KeepAll);
        assert!(hurt.flip_bit(&path, byte, bit));
        let text = String::from_utf8_lossy(&hurt.contents(&path).unwrap()).into_owned();
        (format!("bit {bit} of byte {byte}: {text:?}"), hurt)
    })
}

fn in_log(name: &str) -> String {
    format!("{}/{name}", partition())
}

#[test]
fn no_checkpoint_that_has_rotted_makes_a_log_shorter_or_more_committed() {
    for clean in [true, false] {
        let disk = filled(clean);
        let sound = see(&disk.after_power_cut(PowerCut::KeepAll)).unwrap();
        assert_eq!((sound.log_start, sound.high_watermark, sound.end), (LOG_START, COMMITTED, RECORDS));
        for name in [
            "log-start-offset-checkpoint".to_owned(),
            "replication-offset-checkpoint".to_owned(),
            "recovery-point-offset-checkpoint".to_owned(),
            in_log("leader-epoch-checkpoint"),
        ] {
            for (what, hurt) in hurt(&disk, &name) {
                let seen = see(&hurt).unwrap_or_else(|error| panic!("{name}, {what}: {error}"));
                assert!(seen.log_start <= LOG_START, "{name}, {what}: it starts at {}", seen.log_start);
                assert!(seen.high_watermark <= COMMITTED, "{name}, {what}: {}", seen.high_watermark);
                let last = |seen: &Seen| (seen.end, seen.epochs.last().copied());
                assert_eq!(last(&seen), last(&sound), "{name}, {what}");
                assert!(seen.batches.ends_with(&sound.batches), "{name}, {what}");
            }
        }
    }
}

/// What was tiered once is still in the store, before the first segment, and of the files only the checkpoint and the epochs tell.
#[test]
fn a_log_that_was_tiered_begins_in_the_store_though_the_log_starts_have_rotted() {
    for (clean, start) in [(true, 0), (false, 0), (true, LOG_START), (false, LOG_START)] {
        let disk = SimulatedDisk::new();
        let dir = open_dir(&disk);
        dir.note_incarnation(INCARNATION).unwrap();
        let tiered =
            TopicConfig { remote_storage_enable: true, local_retention_ms: 0, ..(*config()).clone() };
        let mut log = dir.open_log(&partition(), topic_id(1), Arc::new(tiered), 0).unwrap();
        append(&mut log, RECORDS);
        flush(&mut log);
        log.delete_records_before(start).unwrap();
        log.set_tiered_end_offset(COMMITTED);
        assert!(log.retain(99_000, COMMITTED).unwrap().segments > 0);
        log.update_config(config());
        let local_start = log.local_start_offset();
        assert!(local_start > LOG_START);
        if clean {
            log.close().unwrap();
            dir.mark_clean_shutdown().unwrap();
        } else {
            let done = log.checkpoint_task().unwrap().unwrap().run().unwrap();
            log.flushed(done);
            log.remember();
            dir.checkpoint().unwrap();
        }
        drop(dir);
        let disk = disk.after_power_cut(PowerCut::DropUnsynced);
        for (what, hurt) in hurt(&disk, "log-start-offset-checkpoint") {
            // The second start finds a sound checkpoint.
            for _ in 0..2 {
                let (dir, log) = open(&hurt).unwrap();
                let bounds = (log.log_start_offset(), log.local_start_offset());
                assert_eq!(bounds, (start, local_start), "clean: {clean}, {what}");
                dir.checkpoint().unwrap();
            }
        }
    }
}

/// Tiering is switched off only after a start that found the log starts damaged.
#[test]
fn a_log_that_is_tiered_when_its_log_start_is_found_to_have_rotted_still_begins_in_the_store_later() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    dir.note_incarnation(INCARNATION).unwrap();
    let tiered = TopicConfig { remote_storage_enable: true, local_retention_ms: 0, ..(*config()).clone() };
    let tiered = Arc::new(tiered);
    let mut log = dir.open_log(&partition(), topic_id(1), tiered.clone(), 0).unwrap();
    append(&mut log, RECORDS);
    flush(&mut log);
    log.set_tiered_end_offset(COMMITTED);
    assert!(log.retain(99_000, COMMITTED).unwrap().segments > 0);
    let local_start = log.local_start_offset();
    drop((log, dir));
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    let (what, hurt) = hurt(&disk, "log-start-offset-checkpoint").next().unwrap();
    let dir = open_dir(&hurt);
    let log = dir.open_log(&partition(), topic_id(1), tiered, 0).unwrap();
    assert_eq!((log.log_start_offset(), log.local_start_offset()), (0, local_start), "{what}");
    dir.checkpoint().unwrap();
    drop((log, dir));
    let (_dir, log) = open(&hurt.after_power_cut(PowerCut::DropUnsynced)).unwrap();
    assert_eq!((log.log_start_offset(), log.local_start_offset()), (0, local_start), "{what}");
}

/// Nothing was ever in a store: the log begins with its first segment, of which the epochs know though nothing was written since.
#[test]
fn a_log_that_was_never_tiered_begins_on_the_disk_though_the_log_starts_have_rotted() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    dir.note_incarnation(INCARNATION).unwrap();
    let mut log = dir.open_log(&partition(), topic_id(1), config(), 0).unwrap();
    append(&mut log, RECORDS);
    let done = log.checkpoint_task().unwrap().unwrap().run().unwrap();
    log.flushed(done);
    let passing = TopicConfig { retention_ms: 0, ..(*config()).clone() };
    log.update_config(Arc::new(passing));
    assert!(log.retain(9_000, LOG_START).unwrap().segments > 0);
    let start = log.log_start_offset();
    assert!(start > 0);
    let done = log.checkpoint_task().unwrap().unwrap().run().unwrap();
    log.flushed(done);
    assert!(log.checkpoint_task().unwrap().is_none());
    log.remember();
    dir.checkpoint().unwrap();
    drop((log, dir));
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    for (what, hurt) in hurt(&disk, "log-start-offset-checkpoint") {
        let (_dir, log) = open(&hurt).unwrap();
        assert_eq!((log.log_start_offset(), log.local_start_offset()), (start, start), "{what}");
    }
}

/// With a recovery point that were believed nobody would look at the tail.
#[test]
fn a_torn_tail_is_not_served_though_the_recovery_points_have_rotted() {
    let disk = filled(false);
    let last = disk.files(&Path::new(ROOT).join(partition().to_string())).unwrap();
    let last = last.into_iter().filter(|path| path.extension().is_some_and(|it| it == "log")).max().unwrap();
    let bytes = workload::batch(1, &[b'y'; 20], 2_000, None, false);
    let file = disk.open(&last, OpenMode::ReadWrite).unwrap();
    file.write_vectored_at(&[std::io::IoSlice::new(&bytes[..bytes.len() - 5])], file.len().unwrap()).unwrap();
    file.sync_data().unwrap();
    assert_eq!(see(&disk.after_power_cut(PowerCut::KeepAll)).unwrap().end, RECORDS);
    for (what, hurt) in hurt(&disk, "recovery-point-offset-checkpoint") {
        // Nor is it cut: it might be what was acknowledged, for the next start as well.
        for why in ["recovery-point-offset-checkpoint was damaged", "all below offset 121 had been synced"] {
            let dir = open_dir(&hurt);
            let opened = dir.open_log(&partition(), topic_id(1), config(), 0);
            let error = opened.err().unwrap_or_else(|| panic!("{what}: it opens")).to_string();
            assert!(error.contains(why), "{what}: {error}");
            dir.checkpoint().unwrap();
        }
    }
}

#[test]
fn a_cleaner_whose_checkpoint_has_rotted_begins_again() {
    let disk = SimulatedDisk::new();
    let dir = open_dir(&disk);
    let cleanup_policy = CleanupPolicy { delete: false, compact: true };
    let config =
        Arc::new(TopicConfig { cleanup_policy, min_cleanable_dirty_ratio: 0.0, ..(*config()).clone() });
    let mut log = dir.open_log(&partition(), topic_id(1), config.clone(), 0).unwrap();
    append(&mut log, RECORDS);
    flush(&mut log);
    let task = log.compaction_task(9_000, RECORDS, CleanerLimits::of_memory(1 << 20)).unwrap().unwrap();
    let done = task.run().unwrap();
    log.compacted(done, 9_000).unwrap();
    assert!(log.cleaned_offset() > 0);
    drop((log, dir));
    for (what, hurt) in hurt(&disk, "cleaner-offset-checkpoint") {
        let dir = open_dir(&hurt);
        let log = dir.open_log(&partition(), topic_id(1), config.clone(), 0).unwrap();
        assert_eq!(log.cleaned_offset(), 0, "{what}");
    }
}

#[test]
fn an_identity_that_has_rotted_is_refused_or_the_same() {
    let disk = filled(false);
    let sound = see(&disk.after_power_cut(PowerCut::KeepAll)).unwrap();
    for name in ["meta.properties".to_owned(), "firn-incarnations".to_owned(), in_log("partition.metadata")] {
        let mut refused = 0;
        for (what, hurt) in hurt(&disk, &name) {
            match see(&hurt) {
                Ok(seen) => assert_eq!(seen, sound, "{name}, {what}"),
                Err(StorageError::Corrupt { path, .. }) => {
                    assert_eq!(path, Path::new(ROOT).join(&name), "{what}");
                    refused += 1;
                }
                Err(error) => panic!("{name}, {what}: {error}"),
            }
        }
        assert!(refused > 240, "{name}: {refused}");
    }
}

/// As an earlier release, or Kafka, leaves them.
#[test]
fn files_without_checksums_are_believed() {
    let disk = filled(true);
    let sound = see(&disk.after_power_cut(PowerCut::KeepAll)).unwrap();
    for name in [
        "log-start-offset-checkpoint".to_owned(),
        "replication-offset-checkpoint".to_owned(),
        "recovery-point-offset-checkpoint".to_owned(),
        "meta.properties".to_owned(),
        "firn-incarnations".to_owned(),
        in_log("leader-epoch-checkpoint"),
        in_log("partition.metadata"),
    ] {
        let path = Path::new(ROOT).join(&name);
        let text = String::from_utf8(disk.contents(&path).unwrap()).unwrap();
        let is_checksum = |line: &&str| line.contains("crc32c");
        let mut plain: String = text
            .lines()
            .filter(|line| !is_checksum(line))
            .map(|line| format!("{}\n", line.trim_end()))
            .collect();
        assert!(plain.len() < text.len(), "{name} has a checksum");
        if name.ends_with("partition.metadata") {
            plain.pop();
        }
        let file = disk.open(&path, OpenMode::CreateEmpty).unwrap();
        file.write_vectored_at(&[std::io::IoSlice::new(plain.as_bytes())], 0).unwrap();
        file.sync_data().unwrap();
    }
    assert_eq!(see(&disk).unwrap(), sound);
}
