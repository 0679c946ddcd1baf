//! The simulated disk itself: what a power cut takes and leaves.

use super::*;
use crate::disk::{read_full_at, write_all_at};

fn write(disk: &SimulatedDisk, path: &str, bytes: &[u8], sync: bool) {
    let file = disk.open(Path::new(path), OpenMode::Create).unwrap();
    write_all_at(file.as_ref(), bytes, file.len().unwrap()).unwrap();
    if sync {
        file.sync_data().unwrap();
    }
}

fn after(disk: &SimulatedDisk, cut: PowerCut, path: &str) -> Option<Vec<u8>> {
    disk.after_power_cut(cut).contents(Path::new(path)).ok()
}

#[test]
fn bytes_survive_by_file_sync_and_names_by_directory_sync() {
    let disk = SimulatedDisk::new();
    write(&disk, "/a", b"one", true);
    assert_eq!(after(&disk, PowerCut::DropUnsynced, "/a"), None, "synced bytes without a name");
    disk.sync_dir(Path::new("/")).unwrap();
    write(&disk, "/a", b"two", false);
    assert_eq!(after(&disk, PowerCut::DropUnsynced, "/a").as_deref(), Some(b"one".as_slice()));
    assert_eq!(after(&disk, PowerCut::KeepAll, "/a").as_deref(), Some(b"onetwo".as_slice()));
    disk.rename(Path::new("/a"), Path::new("/b")).unwrap();
    assert!(after(&disk, PowerCut::DropUnsynced, "/a").is_some());
    assert!(after(&disk, PowerCut::KeepAll, "/a").is_none());
}

#[test]
fn a_torn_write_ends_on_a_sectors_edge_and_seeds_repeat() {
    let disk = SimulatedDisk::new();
    write(&disk, "/a", &[1; 700], true);
    write(&disk, "/a", &[2; 2000], false);
    let mut lengths = std::collections::BTreeSet::new();
    for seed in 0..50 {
        let cut = PowerCut::TornLastWrite { seed };
        let bytes = after(&disk, cut, "/a").unwrap();
        assert_eq!(after(&disk, cut, "/a").unwrap(), bytes);
        assert!(bytes.len() == 700 || bytes.len().is_multiple_of(SECTOR_BYTES), "{}", bytes.len());
        lengths.insert(bytes.len());
    }
    assert!(lengths.len() > 2);
}

#[test]
fn a_failed_sync_loses_what_was_pending_and_a_second_one_does_not_bring_it_back() {
    let disk = SimulatedDisk::new();
    write(&disk, "/a", b"kept", true);
    disk.sync_dir(Path::new("/")).unwrap();
    write(&disk, "/a", b"lost", false);
    let file = disk.open(Path::new("/a"), OpenMode::ReadWrite).unwrap();
    disk.set_faults(Faults { io_error_at: Some(disk.operations() + 1), ..Faults::default() });
    assert!(file.sync_data().is_err());
    assert!(file.sync_data().is_ok());
    let mut seen = [0; 8];
    assert_eq!(read_full_at(file.as_ref(), &mut seen, 0).unwrap(), 8, "the reader still sees it");
    assert_eq!(after(&disk, PowerCut::KeepAll, "/a").as_deref(), Some(b"kept".as_slice()));
}

#[test]
fn what_was_pending_when_a_process_was_killed_a_power_cut_takes_later() {
    let disk = SimulatedDisk::new();
    write(&disk, "/a", b"one", true);
    disk.sync_dir(Path::new("/")).unwrap();
    write(&disk, "/a", b"two", false);
    write(&disk, "/b", b"new", true);
    let killed = disk.after_kill();
    assert_eq!(killed.contents(Path::new("/a")).unwrap(), b"onetwo");
    assert_eq!(killed.contents(Path::new("/b")).unwrap(), b"new");
    assert_eq!(after(&killed, PowerCut::DropUnsynced, "/a").as_deref(), Some(b"one".as_slice()));
    assert_eq!(after(&killed, PowerCut::DropUnsynced, "/b"), None);
    write(&killed, "/a", b"", true);
    killed.sync_dir(Path::new("/")).unwrap();
    assert_eq!(after(&killed, PowerCut::DropUnsynced, "/a").as_deref(), Some(b"onetwo".as_slice()));
    assert_eq!(after(&killed, PowerCut::DropUnsynced, "/b").as_deref(), Some(b"new".as_slice()));
    assert!(after(&disk, PowerCut::DropUnsynced, "/b").is_none(), "the disk before is another");
}

#[test]
fn a_full_disk_takes_part_of_a_write() {
    let disk = SimulatedDisk::new();
    disk.set_faults(Faults { capacity_bytes: Some(10), ..Faults::default() });
    let file = disk.open(Path::new("/a"), OpenMode::Create).unwrap();
    let error = write_all_at(file.as_ref(), &[7; 12], 0).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    assert_eq!(file.len().unwrap(), 10);
    assert_eq!(disk.space(Path::new("/")).unwrap().free, 0);
}

#[test]
fn a_lock_is_held_until_it_is_dropped() {
    let disk = SimulatedDisk::new();
    let held = disk.lock_exclusive(Path::new("/l")).unwrap();
    let second = disk.lock_exclusive(Path::new("/l"));
    assert_eq!(second.err().map(|error| error.kind()), Some(io::ErrorKind::WouldBlock));
    drop(held);
    assert!(disk.lock_exclusive(Path::new("/l")).is_ok());
}
