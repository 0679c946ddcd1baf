//! Which segment files are open. Files open at their first use, and the least used close again, so that tens of
//! thousands of idle partitions cost no file descriptors.
//!
//! Replacement is the clock algorithm: a hit only sets a flag of its own segment, and no lock is shared by all logs
//! but when a file really is opened. Files with writes that are not synced yet stay open: the kernel reports a failed
//! write-back once, to those who hold the file open, and a descriptor opened later may never hear of it.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{StorageError, failed_to};
use crate::file_names::{INDEX, LOG, TIME_INDEX, segment_file};

/// The files of a segment that may be kept open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Part {
    Log,
    Index,
    TimeIndex,
}

impl Part {
    pub(crate) fn suffix(self) -> &'static str {
        match self {
            Part::Log => LOG,
            Part::Index => INDEX,
            Part::TimeIndex => TIME_INDEX,
        }
    }
}

/// One segment's open files.
#[derive(Debug, Default)]
pub(crate) struct SegmentFiles {
    open: Mutex<[Option<Arc<dyn DiskFile>>; 3]>,
    referenced: AtomicBool,
    /// Written to and not synced: must not be closed.
    unsynced: AtomicBool,
}

impl SegmentFiles {
    /// The file, opened (and created, if need be) now or before.
    pub(crate) fn get(
        self: &Arc<Self>,
        pool: &OpenFiles,
        directory: &Path,
        base_offset: i64,
        part: Part,
    ) -> Result<Arc<dyn DiskFile>, StorageError> {
        let mut open = self.open.lock();
        self.referenced.store(true, Ordering::Relaxed);
        let slot = &mut open[part as usize];
        if let Some(file) = slot {
            return Ok(Arc::clone(file));
        }
        let path = directory.join(segment_file(base_offset, part.suffix()));
        let file = pool.disk.open(&path, OpenMode::Create).map_err(failed_to("open", &path))?;
        if part == Part::Log {
            // What is in memory is to be what was looked at, and not what the kernel thought would be wanted next (`sound.rs`).
            file.read_no_further().map_err(failed_to("open", &path))?;
        }
        *slot = Some(Arc::clone(&file));
        drop(open);
        pool.opened(self, part);
        Ok(file)
    }

    pub(crate) fn set_unsynced(&self, unsynced: bool) {
        self.unsynced.store(unsynced, Ordering::Relaxed);
    }

    /// Forgets the open files; those who still hold one keep reading it.
    pub(crate) fn close(&self) {
        self.referenced.store(false, Ordering::Relaxed);
        *self.open.lock() = Default::default();
    }

    fn close_one(&self, part: Part) {
        self.open.lock()[part as usize] = None;
    }
}

/// All files that the logs of one directory hold open, up to a limit.
#[derive(Debug)]
pub(crate) struct OpenFiles {
    disk: Arc<dyn Disk>,
    files_max: usize,
    hand: Mutex<VecDeque<(Weak<SegmentFiles>, Part)>>,
}

impl OpenFiles {
    pub(crate) fn new(disk: Arc<dyn Disk>, files_max: usize) -> Self {
        Self { disk, files_max, hand: Mutex::new(VecDeque::new()) }
    }

    fn opened(&self, segment: &Arc<SegmentFiles>, part: Part) {
        let mut hand = self.hand.lock();
        hand.push_back((Arc::downgrade(segment), part));
        // One turn of the clock at most: when all are unsynced or in use, the limit gives way rather than a write.
        let mut turns = hand.len();
        while hand.len() > self.files_max && turns > 0 {
            turns -= 1;
            let Some((candidate, part)) = hand.pop_front() else { break };
            let Some(files) = candidate.upgrade() else { continue };
            let keep =
                files.unsynced.load(Ordering::Relaxed) || files.referenced.swap(false, Ordering::Relaxed);
            if keep {
                hand.push_back((candidate, part));
            } else {
                files.close_one(part);
            }
        }
    }
}

/// Reads a whole small file; `None` when it is not there.
pub(crate) fn read_file(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, StorageError> {
    let file = match disk.open(path, OpenMode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed_to("open", path)(error)),
    };
    let len = file.len().map_err(failed_to("measure", path))?;
    let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
    let read = crate::disk::read_full_at(file.as_ref(), &mut bytes, 0).map_err(failed_to("read", path))?;
    bytes.truncate(read);
    Ok(Some(bytes))
}
