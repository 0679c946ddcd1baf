//! Files that an interrupted deletion, checkpoint or compaction left in a partition's directory.
//!
//! A compaction commits by the durable name `<base>.log.swap`: from then on the new segment replaces every old one in
//! its range of offsets, and before that it is nothing. The cleaner keeps the last batch of each new segment (emptied,
//! if need be), so the range can be read from the file itself. Finishing may be interrupted and repeated at any step:
//! the old files go first, durably, then the indexes get their names, and the log's name comes last.

use std::path::Path;

use crate::disk::{DirEntry, Disk, OpenMode};
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{CLEANED, DELETED, LOG, SEGMENT_SUFFIXES, SWAP, TEMPORARY, parse_segment_file};
use crate::scan::{HeaderWalk, Step};

/// Clears the leftovers away and returns what the directory then holds.
pub(crate) fn resolve(disk: &dyn Disk, directory: &Path) -> Result<Vec<DirEntry>, StorageError> {
    let mut entries = disk.read_dir(directory).map_err(failed_to("list", directory))?;
    let is_leftover = |entry: &DirEntry| {
        !entry.is_dir && [DELETED, CLEANED, TEMPORARY, SWAP].iter().any(|end| entry.name.ends_with(end))
    };
    if !entries.iter().any(is_leftover) {
        return Ok(entries);
    }
    let committed = committed_swaps(disk, directory, &entries)?;
    for entry in entries.iter().filter(|entry| is_leftover(entry)) {
        let kept =
            swapped(&entry.name).is_some_and(|(base, _)| committed.iter().any(|swap| swap.base == base));
        if !kept {
            remove(disk, directory, &entry.name)?;
        }
    }
    if !committed.is_empty() {
        finish_swaps(disk, directory, &entries, &committed)?;
        entries = disk.read_dir(directory).map_err(failed_to("list", directory))?;
    } else {
        entries.retain(|entry| !is_leftover(entry));
    }
    Ok(entries)
}

/// A committed compaction: its segment replaces all that begin in `[base, end)`.
#[derive(Debug)]
struct Swap {
    base: i64,
    end: i64,
}

/// Reads `<base><suffix>.swap`.
fn swapped(name: &str) -> Option<(i64, &str)> {
    parse_segment_file(name.strip_suffix(SWAP)?)
}

fn committed_swaps(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[DirEntry],
) -> Result<Vec<Swap>, StorageError> {
    let mut committed = Vec::new();
    for entry in entries {
        let Some((base, LOG)) = swapped(&entry.name) else { continue };
        let path = directory.join(&entry.name);
        let file = disk.open(&path, OpenMode::Read).map_err(failed_to("open", &path))?;
        let mut walk = HeaderWalk::new(file.as_ref(), 0, entry.len);
        let mut end = base;
        loop {
            match walk.next().map_err(failed_to("read", &path))? {
                Step::Batch(located) => end = located.header.next_offset(),
                Step::End => break,
                Step::Invalid { reason } => return Err(StorageError::corrupt(&path, reason)),
            }
        }
        committed.push(Swap { base, end });
    }
    Ok(committed)
}

fn finish_swaps(
    disk: &dyn Disk,
    directory: &Path,
    entries: &[DirEntry],
    committed: &[Swap],
) -> Result<(), StorageError> {
    let sync = || disk.sync_dir(directory).map_err(failed_to_sync(directory));
    for entry in entries {
        let Some((offset, suffix)) = parse_segment_file(&entry.name) else { continue };
        // The snapshot at a segment's base is the state before its first batch, which compaction does not change.
        let replaced = |swap: &&Swap| {
            let from = if suffix == crate::file_names::SNAPSHOT { swap.base + 1 } else { swap.base };
            offset >= from && (offset < swap.end || offset == swap.base)
        };
        if SEGMENT_SUFFIXES.contains(&suffix) && committed.iter().any(|swap| replaced(&swap)) {
            remove(disk, directory, &entry.name)?;
        }
    }
    sync()?;
    for is_log in [false, true] {
        for entry in entries {
            let Some((base, suffix)) = swapped(&entry.name) else { continue };
            if (suffix == LOG) != is_log || !committed.iter().any(|swap| swap.base == base) {
                continue;
            }
            let from = directory.join(&entry.name);
            let to = directory.join(entry.name.trim_end_matches(SWAP));
            disk.rename(&from, &to).map_err(failed_to("rename", &from))?;
        }
    }
    sync()
}

fn remove(disk: &dyn Disk, directory: &Path, name: &str) -> Result<(), StorageError> {
    let path = directory.join(name);
    match disk.remove_file(&path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(failed_to("remove", &path)(error)),
        _ => Ok(()),
    }
}
