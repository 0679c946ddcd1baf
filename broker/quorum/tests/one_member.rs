//! A quorum of one on a disk that loses what was not synced, cut at every operation.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::cell::Cell;
use std::io::IoSlice;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use firn_metadata::image::Image;
use firn_metadata::record::MetadataRecord;
use firn_quorum::error::QuorumError;
use firn_quorum::log_store::{LogStore, NowMs, SnapshotLimits};
use firn_quorum::network::{Answer, Lane, Transport};
use firn_quorum::quorum::{ProposeError, Quorum};
use firn_quorum::types::Member;
use firn_storage::directory::LogDirOptions;
use firn_storage::disk::{Disk, OpenMode};
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::simulated::{Faults, PowerCut, SimulatedDisk};
use tokio::time::Instant;
use world::{creation, files, has, removal};

mod world;

const BETWEEN_SNAPSHOTS: u64 = 2_000;
const DEADLINE: Duration = Duration::from_secs(20);

/// There is no other member.
#[derive(Debug)]
struct Nobody;

impl Transport for Nobody {
    fn ask(&self, _: &Member, _: Lane, _: Bytes, _: Duration) -> Answer {
        Box::pin(async { Err(std::io::ErrorKind::NotFound.into()) })
    }
}

/// The member as one process has it; the directory's lock goes with it.
struct Process {
    quorum: Quorum,
    dir: LogDir,
}

fn limits(bytes_max: u64) -> SnapshotLimits {
    SnapshotLimits { bytes_max, interval_ms: 0, entries_kept: 0 }
}

async fn start(disk: &SimulatedDisk, bytes_max: u64) -> Result<Process, QuorumError> {
    start_at(disk, limits(bytes_max), &Arc::new(AtomicI64::new(1))).await
}

async fn start_at(
    disk: &SimulatedDisk,
    limits: SnapshotLimits,
    clock: &Arc<AtomicI64>,
) -> Result<Process, QuorumError> {
    firn_blocking::do_in_place(|| Duration::ZERO);
    let identity = Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: "d".to_owned() };
    let dir = LogDir::open(Arc::new(disk.clone()), Path::new("/data"), &identity, LogDirOptions::default())?;
    let clock = clock.clone();
    let found = LogStore::open(&dir, limits, NowMs(Arc::new(move || clock.load(Ordering::Relaxed))))?;
    let quorum = Quorum::start(found, None, Arc::new(Nobody)).await?;
    quorum.lead_alone().await?;
    Ok(Process { quorum, dir })
}

impl Process {
    async fn change(&self, records: &[MetadataRecord]) -> Result<(), ProposeError> {
        world::change(&self.quorum, records).await
    }

    fn end(&self) -> i64 {
        self.quorum.progress().end_offset
    }

    /// As a process ends that is killed: nothing is closed.
    async fn die(self) {
        drop(self.quorum.retire().await);
    }
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

fn files_in(disk: &SimulatedDisk, directory: &str) -> Vec<PathBuf> {
    disk.files(Path::new(directory)).unwrap_or_default()
}

fn log_bytes(disk: &SimulatedDisk) -> u64 {
    files(disk, ".log").iter().map(|file| disk.contents(file).unwrap().len() as u64).sum()
}

/// The offset that a file's name begins with.
fn offset_of(file: &Path) -> i64 {
    file.file_name().unwrap().to_string_lossy()[..20].parse().unwrap()
}

async fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn no_cut_loses_or_invents_a_change() {
    let whole = SimulatedDisk::new();
    let process = start(&whole, BETWEEN_SNAPSHOTS).await.unwrap();
    for change in changes(16) {
        process.change(&change).await.unwrap();
    }
    wait_until("older snapshots to go", || files(&whole, ".checkpoint").len() == 1).await;
    let first = process.quorum.image();
    process.die().await;
    let (inside, voted) = (Cell::new(0), Cell::new(0));
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
            if let Ok(process) = start(&disk, BETWEEN_SNAPSHOTS).await {
                for change in changes(16) {
                    acknowledged = process.quorum.image();
                    attempted = acknowledged.clone();
                    attempted.apply_all(&change).unwrap();
                    if process.change(&change).await.is_err() {
                        break;
                    }
                    acknowledged = attempted.clone();
                }
                process.die().await;
            }
            let disk = disk.after_power_cut(cut);
            let begins = files(&disk, ".log").iter().map(|file| offset_of(file)).min();
            let snapshot = files(&disk, ".checkpoint").iter().map(|file| offset_of(file)).max();
            inside.set(inside.get() + i32::from(snapshot.is_some() && begins < snapshot));
            let at = format!("operation {operation}, {cut:?}: {:?}", files(&disk, ""));
            let process =
                start(&disk, BETWEEN_SNAPSHOTS).await.unwrap_or_else(|error| panic!("{at}: {error}"));
            let image = process.quorum.image();
            assert!(image == acknowledged || image == attempted, "{at}");
            voted.set(voted.get().max(process.quorum.progress().term));
            // It goes on as if nothing had been.
            for number in 100..104 {
                process.change(&creation(number)).await.unwrap();
            }
            let expected = process.quorum.image();
            process.die().await;
            let disk = disk.after_power_cut(PowerCut::DropUnsynced);
            let process = start(&disk, BETWEEN_SNAPSHOTS).await.unwrap();
            assert_eq!(process.quorum.image(), expected, "{at}");
            process.die().await;
        }
    }
    assert!(inside.get() > 20, "{inside:?} cuts fell between a snapshot and its purge");
    assert!(voted.get() >= 2, "a new process is a new leader");
    let disk = whole.after_power_cut(PowerCut::DropUnsynced);
    assert_eq!(start(&disk, BETWEEN_SNAPSHOTS).await.unwrap().quorum.image(), first);
}

#[tokio::test(start_paused = true)]
async fn ten_thousand_topics_that_came_and_went_leave_a_short_log() {
    let disk = SimulatedDisk::new();
    let process = start(&disk, 100_000).await.unwrap();
    for number in 0..10_000 {
        process.change(&creation(number)).await.unwrap();
        process.change(&removal(number)).await.unwrap();
    }
    process.change(&creation(10_000)).await.unwrap();
    let (expected, end) = (process.quorum.image(), process.end());
    // The first entry names the member, the second begins its term.
    assert_eq!((expected.topic_count(), end), (1, 20_003));
    // What was changed while the last snapshot was taken lies before the segment that it began.
    wait_until("a purge", || log_bytes(&disk) <= 210_000).await;
    process.quorum.retire().await.unwrap().close().unwrap();
    process.dir.mark_clean_shutdown().unwrap();
    drop(process.dir);
    let process = start(&disk, 100_000).await.unwrap();
    assert_eq!(
        (process.quorum.image(), process.end()),
        (expected, end + 1),
        "offsets go on, with a new term"
    );
}

/// The snapshots of a log that has nothing else, of the third process, and the image.
async fn snapshot_alone(disk: &SimulatedDisk) -> (PathBuf, Image) {
    for _ in 0..2 {
        start(disk, u64::MAX).await.unwrap().die().await;
    }
    let process = start(disk, 1).await.unwrap();
    process.change(&creation(0)).await.unwrap();
    let image = process.quorum.image();
    let purged = || files(disk, ".checkpoint").len() == 1 && log_bytes(disk) == 0;
    wait_until("a snapshot, and the purge", purged).await;
    process.die().await;
    (files(disk, ".checkpoint").remove(0), image)
}

#[tokio::test(start_paused = true)]
async fn a_damaged_snapshot_is_never_taken_for_an_empty_cluster() {
    let disk = SimulatedDisk::new();
    let (snapshot, _) = snapshot_alone(&disk).await;
    assert_eq!(snapshot.file_name().unwrap().to_str(), Some("00000000000000000005-0000000003.checkpoint"));
    assert!(disk.flip_bit(&snapshot, 200, 3));
    // Also if the log does not say any more where it begins.
    for _ in 0..2 {
        let error = start(&disk, 1).await.err().unwrap().to_string();
        assert!(error.contains("begins at offset 5"), "{error}");
        disk.remove_file(Path::new("/data/log-start-offset-checkpoint")).ok();
    }
}

/// As from a backup: terms go on behind that of the snapshot, though no vote is remembered.
#[tokio::test(start_paused = true)]
async fn a_snapshot_alone_is_enough() {
    let disk = SimulatedDisk::new();
    let (snapshot, expected) = snapshot_alone(&disk).await;
    for file in files(&disk, "").into_iter().filter(|file| *file != snapshot) {
        disk.remove_file(&file).unwrap();
    }
    disk.remove_file(Path::new("/data/log-start-offset-checkpoint")).unwrap();
    let process = start(&disk, 1_000_000).await.unwrap();
    assert_eq!((&process.quorum.image(), process.end()), (&expected, 6));
    assert_eq!(process.quorum.progress().term, 4);
    process.change(&creation(1)).await.unwrap();
    let expected = process.quorum.image();
    process.die().await;
    for _ in 0..2 {
        let process = start(&disk, 1).await.unwrap();
        assert_eq!(process.quorum.image(), expected);
        process.die().await;
    }
}

/// A member that forgot its votes could give a second one in a term.
#[tokio::test(start_paused = true)]
async fn a_log_without_its_votes_is_refused() {
    let disk = SimulatedDisk::new();
    let process = start(&disk, u64::MAX).await.unwrap();
    process.change(&creation(0)).await.unwrap();
    process.die().await;
    for (what, says) in [("missing", "quorum-state is missing"), ("damaged", "quorum-state cannot be read")] {
        let disk = disk.after_power_cut(PowerCut::DropUnsynced);
        let state = files(&disk, "quorum-state").remove(0);
        match what {
            "missing" => disk.remove_file(&state).unwrap(),
            _ => assert!(disk.flip_bit(&state, 0, 1)),
        }
        let error = start(&disk, u64::MAX).await.err().unwrap().to_string();
        assert!(error.contains(says), "{error}");
    }
}

/// It could never be elected: better said than waited for.
#[tokio::test(start_paused = true)]
async fn the_metadata_of_another_directory_are_refused() {
    let disk = SimulatedDisk::new();
    let process = start(&disk, u64::MAX).await.unwrap();
    process.change(&creation(0)).await.unwrap();
    process.die().await;
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    let path = Path::new("/data/meta.properties");
    let properties = String::from_utf8(disk.contents(path).unwrap()).unwrap();
    let (properties, _checksum) = properties.split_once("firn.crc32c=").unwrap();
    let copied = properties.replace("directory.id=d", "directory.id=another");
    let file = disk.open(path, OpenMode::CreateEmpty).unwrap();
    file.write_vectored_at(&[IoSlice::new(copied.as_bytes())], 0).unwrap();
    for _ in 0..2 {
        let error = start(&disk, u64::MAX).await.err().unwrap().to_string();
        assert!(error.contains("on log directory d, and this is directory another"), "{error}");
    }
}

/// What cannot be read is neither stepped over nor guessed.
#[tokio::test(start_paused = true)]
async fn a_damaged_entry_stops_the_member_and_is_named() {
    let disk = SimulatedDisk::new();
    let process = start(&disk, u64::MAX).await.unwrap();
    for number in 0..4 {
        process.change(&creation(number)).await.unwrap();
    }
    process.quorum.retire().await.unwrap().close().unwrap();
    process.dir.mark_clean_shutdown().unwrap();
    drop(process.dir);
    let log = files(&disk, ".log").remove(0);
    let length = disk.contents(&log).unwrap().len() as u64;
    assert!(disk.flip_bit(&log, length / 2, 3));
    let error = start(&disk, u64::MAX).await.err().unwrap().to_string();
    assert!(error.contains("metadata log, entry"), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_the_log_alone_has_is_in_a_snapshot_after_the_interval() {
    let limits = SnapshotLimits { bytes_max: u64::MAX, interval_ms: 1_000, entries_kept: 0 };
    let (disk, clock) = (SimulatedDisk::new(), Arc::new(AtomicI64::new(0)));
    let process = start_at(&disk, limits, &clock).await.unwrap();
    // Naming its member is the first change.
    clock.store(50_000, Ordering::Relaxed);
    process.quorum.snapshot_if_due().await;
    wait_until("the first snapshot", || files(&disk, ".checkpoint").len() == 1).await;
    let first = files(&disk, ".checkpoint");
    clock.store(60_000, Ordering::Relaxed);
    process.change(&creation(0)).await.unwrap();
    clock.store(60_999, Ordering::Relaxed);
    process.change(&creation(1)).await.unwrap();
    process.quorum.snapshot_if_due().await;
    assert_eq!(files(&disk, ".checkpoint"), first);
    clock.store(61_000, Ordering::Relaxed);
    process.quorum.snapshot_if_due().await;
    wait_until("the next, counted from the first change", || files(&disk, ".checkpoint") != first).await;
    wait_until("the purge", || log_bytes(&disk) == 0 && files(&disk, ".checkpoint").len() == 1).await;
    let second = files(&disk, ".checkpoint");
    clock.store(900_000, Ordering::Relaxed);
    process.quorum.snapshot_if_due().await;
    process.change(&creation(2)).await.unwrap();
    assert_eq!(files(&disk, ".checkpoint"), second, "it says everything: none is due");
    let expected = process.quorum.image();
    process.die().await;

    // What a start finds in the log waits from then on.
    let disk = disk.after_power_cut(PowerCut::DropUnsynced);
    clock.store(2_000_000, Ordering::Relaxed);
    let process = start_at(&disk, limits, &clock).await.unwrap();
    assert_eq!(process.quorum.image(), expected);
    clock.store(2_000_999, Ordering::Relaxed);
    process.quorum.snapshot_if_due().await;
    process.change(&creation(3)).await.unwrap();
    assert_eq!(files(&disk, ".checkpoint"), second);
    clock.store(2_001_000, Ordering::Relaxed);
    process.quorum.snapshot_if_due().await;
    wait_until("a snapshot of what the start found", || files(&disk, ".checkpoint") != second).await;
}

/// What has not begun yet is refused where there is no room, and what has to be written waits for some.
#[tokio::test(start_paused = true)]
async fn a_full_disk_refuses_changes_and_holds_a_start_up() {
    let disk = SimulatedDisk::new();
    let process = start(&disk, u64::MAX).await.unwrap();
    process.change(&creation(0)).await.unwrap();
    let full = || disk.set_faults(Faults { capacity_bytes: Some(10), ..Faults::default() });
    full();
    let refused = process.change(&creation(1)).await.unwrap_err();
    assert!(matches!(&refused, ProposeError::Failed(error) if error.is_shortage()), "{refused}");
    disk.set_faults(Faults::default());
    process.change(&creation(2)).await.unwrap();
    process.quorum.retire().await.unwrap().close().unwrap();
    process.dir.mark_clean_shutdown().unwrap();
    drop(process.dir);

    full();
    let began = Instant::now();
    let room = async {
        tokio::time::sleep(Duration::from_secs(5)).await;
        disk.set_faults(Faults::default());
    };
    let (process, ()) = tokio::join!(start(&disk, u64::MAX), room);
    let image = process.unwrap().quorum.image();
    assert!(began.elapsed() >= Duration::from_secs(5));
    assert!(has(&image, 0) && !has(&image, 1) && has(&image, 2));
}

/// A snapshot can wait, and nothing waits for it.
#[tokio::test(start_paused = true)]
async fn a_disk_without_room_for_a_snapshot_has_some_for_changes() {
    let disk = SimulatedDisk::new();
    let process = start(&disk, 3_000).await.unwrap();
    for number in 0..4 {
        process.change(&creation(number)).await.unwrap();
    }
    let used: u64 =
        files_in(&disk, "/data").iter().map(|file| disk.contents(file).unwrap().len() as u64).sum();
    let before = files(&disk, ".checkpoint");
    disk.set_faults(Faults { capacity_bytes: Some(used + 2_500), ..Faults::default() });
    for number in 4..10 {
        process.change(&creation(number)).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(files(&disk, ".checkpoint"), before, "there is no room for one");
    process.change(&removal(0)).await.unwrap();
    disk.set_faults(Faults::default());
    wait_until("the snapshot that waited", || files(&disk, ".checkpoint") != before).await;
    process.change(&creation(20)).await.unwrap();
}
