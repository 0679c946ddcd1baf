//! The metadata log and its snapshots on a disk that loses what was not synced, cut at every operation.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn::metadata_log::{MetadataError, MetadataLog, SnapshotLimits};
use firn_metadata::image::Image;
use firn_metadata::record::{MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord};
use firn_model::ids::TopicId;
use firn_storage::directory::LogDirOptions;
use firn_storage::disk::Disk;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};
use uuid::Uuid;

const BETWEEN_SNAPSHOTS: u64 = 2_000;

/// The log as one process has it; the directory's lock goes with it.
struct Store {
    log: MetadataLog,
    image: Image,
    dir: LogDir,
}

fn open(disk: &SimulatedDisk, between_snapshots: u64) -> Result<Store, MetadataError> {
    open_at(disk, SnapshotLimits { bytes_max: between_snapshots, interval_ms: 0 }, 1)
}

fn open_at(disk: &SimulatedDisk, limits: SnapshotLimits, now_ms: i64) -> Result<Store, MetadataError> {
    let identity = Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: "d".to_owned() };
    let dir = LogDir::open(Arc::new(disk.clone()), Path::new("/data"), &identity, LogDirOptions::default())?;
    let (log, image) = MetadataLog::open(&dir, limits, now_ms)?;
    Ok(Store { log, image, dir })
}

impl Store {
    /// Writes one change as the controller does. The image afterwards is what was acknowledged.
    fn change(&mut self, records: &[MetadataRecord]) -> Result<(), MetadataError> {
        self.change_at(records, 1)
    }

    fn change_at(&mut self, records: &[MetadataRecord], now_ms: i64) -> Result<(), MetadataError> {
        let mut next = self.image.clone();
        next.apply_all(records).unwrap();
        self.log.write(records, now_ms)?;
        self.image = next;
        self.log.snapshot_if_due(&self.image, now_ms)
    }
}

fn id(number: u32) -> TopicId {
    TopicId(Uuid::from_u128(u128::from(number) + 1))
}

fn creation(number: u32) -> [MetadataRecord; 2] {
    let topic = TopicRecord { name: format!("topic-{number}"), topic_id: id(number) };
    let partition = PartitionRecord {
        topic_id: id(number),
        partition: 0,
        replicas: vec![1],
        isr: vec![1],
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
    };
    [MetadataRecord::Topic(topic), MetadataRecord::Partition(partition)]
}

fn removal(number: u32) -> [MetadataRecord; 1] {
    [MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: id(number) })]
}

/// Every other topic that is made goes again.
fn changes(count: u32) -> Vec<Vec<MetadataRecord>> {
    let of = |number| {
        let mut changes = vec![creation(number).to_vec()];
        changes.extend((number % 2 == 1).then(|| removal(number).to_vec()));
        changes
    };
    (0..count).flat_map(of).collect()
}

fn files(disk: &SimulatedDisk, ending: &str) -> Vec<PathBuf> {
    let mut files = disk.files(Path::new("/data/__cluster_metadata-0")).unwrap();
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    files
}

fn log_bytes(disk: &SimulatedDisk) -> u64 {
    files(disk, ".log").iter().map(|file| disk.contents(file).unwrap().len() as u64).sum()
}

#[test]
fn no_cut_loses_or_invents_a_change() {
    let whole = SimulatedDisk::new();
    let mut store = open(&whole, BETWEEN_SNAPSHOTS).unwrap();
    for change in changes(16) {
        store.change(&change).unwrap();
    }
    assert_eq!(files(&whole, ".checkpoint").len(), 1, "older snapshots go");
    let first = store.image;
    let mut landed_in_snapshot = 0;
    for operation in 1..=whole.operations() {
        for cut in [
            PowerCut::DropUnsynced,
            PowerCut::KeepAll,
            PowerCut::TornLastWrite { seed: operation },
            PowerCut::Some { seed: operation },
        ] {
            let disk = SimulatedDisk::new();
            disk.set_faults(Faults { power_off_at: Some(operation), ..Faults::default() });
            let (mut acknowledged, mut attempted) = (Image::default(), Image::default());
            if let Ok(mut store) = open(&disk, BETWEEN_SNAPSHOTS) {
                for change in changes(16) {
                    acknowledged = store.image.clone();
                    attempted = acknowledged.clone();
                    attempted.apply_all(&change).unwrap();
                    if store.change(&change).is_err() {
                        // The snapshot may be what failed: the change itself is then acknowledged.
                        landed_in_snapshot += u32::from(store.image == attempted);
                        acknowledged = store.image.clone();
                        break;
                    }
                    acknowledged = store.image.clone();
                }
            }
            let disk = disk.after_power_cut(cut);
            let mut store = open(&disk, BETWEEN_SNAPSHOTS).unwrap();
            let at = format!("operation {operation}, {cut:?}: {:?}", files(&disk, ""));
            assert!(store.image == acknowledged || store.image == attempted, "{at}");
            // It goes on as if nothing had been.
            for number in 100..104 {
                store.change(&creation(number)).unwrap();
            }
            let expected = store.image.clone();
            drop(store);
            let disk = disk.after_power_cut(PowerCut::DropUnsynced);
            assert_eq!(open(&disk, BETWEEN_SNAPSHOTS).unwrap().image, expected, "{at}");
        }
    }
    assert!(landed_in_snapshot > 20, "{landed_in_snapshot} cuts fell into a snapshot");
    let disk = whole.after_power_cut(PowerCut::DropUnsynced);
    assert_eq!(open(&disk, BETWEEN_SNAPSHOTS).unwrap().image, first);
}

#[test]
fn ten_thousand_topics_that_came_and_went_leave_a_short_log() {
    let disk = SimulatedDisk::new();
    let mut store = open(&disk, 100_000).unwrap();
    for number in 0..10_000 {
        store.change(&creation(number)).unwrap();
        store.change(&removal(number)).unwrap();
    }
    store.change(&creation(10_000)).unwrap();
    let (expected, end) = (store.image, store.log.end_offset());
    assert_eq!((expected.topic_count(), end), (1, 30_002));
    store.log.close().unwrap();
    store.dir.mark_clean_shutdown().unwrap();
    drop(store.dir);
    assert!(log_bytes(&disk) <= 101_000, "{} bytes are left", log_bytes(&disk));
    let store = open(&disk, 100_000).unwrap();
    assert_eq!((store.image, store.log.end_offset()), (expected, end), "offsets go on");
}

#[test]
fn a_damaged_snapshot_is_never_taken_for_an_empty_cluster() {
    let disk = SimulatedDisk::new();
    let mut store = open(&disk, 1).unwrap();
    store.change(&creation(0)).unwrap();
    let expected = store.image.clone();
    drop(store);
    let snapshot = files(&disk, ".checkpoint").remove(0);
    assert_eq!(snapshot.file_name().unwrap().to_str(), Some("00000000000000000002-0000000000.checkpoint"));
    let damaged = disk.after_power_cut(PowerCut::DropUnsynced);
    assert!(damaged.flip_bit(&snapshot, 200, 3));
    for _ in 0..2 {
        let error = open(&damaged, 1).err().unwrap().to_string();
        assert!(error.contains("begins at offset 2"), "{error}");
    }
    // The snapshot alone, as from a backup, is enough.
    let restored = disk.after_power_cut(PowerCut::DropUnsynced);
    for file in files(&restored, "").into_iter().filter(|file| *file != snapshot) {
        restored.remove_file(&file).unwrap();
    }
    restored.remove_file(Path::new("/data/log-start-offset-checkpoint")).unwrap();
    let mut store = open(&restored, 1_000_000).unwrap();
    assert_eq!((&store.image, store.log.end_offset()), (&expected, 2));
    store.change(&creation(1)).unwrap();
    let expected = store.image.clone();
    drop(store);
    assert_eq!(open(&restored.after_power_cut(PowerCut::DropUnsynced), 1).unwrap().image, expected);
}

#[test]
fn what_the_log_alone_has_is_in_a_snapshot_after_the_interval() {
    let limits = SnapshotLimits { bytes_max: u64::MAX, interval_ms: 1_000 };
    let disk = SimulatedDisk::new();
    let snapshots = || files(&disk, ".checkpoint").len();
    let mut store = open_at(&disk, limits, 0).unwrap();
    store.log.snapshot_if_due(&store.image, 50_000).unwrap();
    assert_eq!(snapshots(), 0, "nothing was changed");
    store.change_at(&creation(0), 60_000).unwrap();
    store.change_at(&creation(1), 60_900).unwrap();
    store.log.snapshot_if_due(&store.image, 60_999).unwrap();
    assert_eq!(snapshots(), 0);
    store.log.snapshot_if_due(&store.image, 61_000).unwrap();
    assert_eq!((snapshots(), log_bytes(&disk)), (1, 0), "counted from the first change");
    let first = files(&disk, ".checkpoint");
    store.log.snapshot_if_due(&store.image, 900_000).unwrap();
    assert_eq!(files(&disk, ".checkpoint"), first, "it says everything: none is due");
    store.change_at(&creation(2), 900_000).unwrap();
    let expected = store.image.clone();
    drop(store);

    // What a start finds in the log waits from then on.
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    let mut store = open_at(&disk, limits, 2_000_000).unwrap();
    assert_eq!(store.image, expected);
    store.log.snapshot_if_due(&store.image, 2_000_999).unwrap();
    assert_eq!(files(&disk, ".checkpoint"), first);
    store.log.snapshot_if_due(&store.image, 2_001_000).unwrap();
    assert_ne!(files(&disk, ".checkpoint"), first);
    drop(store);
    assert_eq!(open_at(&disk, limits, 3_000_000).unwrap().image, expected);
}

#[test]
fn an_interval_of_none_is_for_ever() {
    let disk = SimulatedDisk::new();
    let mut store = open(&disk, u64::MAX).unwrap();
    store.change_at(&creation(0), 1).unwrap();
    store.log.snapshot_if_due(&store.image, i64::MAX).unwrap();
    assert!(files(&disk, ".checkpoint").is_empty());
}
