//! Stops writes before the disk is full, and lets them on again when there is room.
//!
//! A full disk is worse than a refused write: indexes, checkpoints and the metadata log need room too. So a reserve is
//! kept (`firn.disk.reserve.bytes`). Asking the file system at each append would cost a system call; instead free space is
//! asked for at intervals, and what is appended in between is counted down from it.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use firn_storage::disk::Disk;

/// The data directory has no room for these records. Clients retry; room comes from retention, the tier, or a person.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "{bytes} bytes refused: the data directory would be left with less than its reserve of {reserve} bytes (firn.disk.reserve.bytes)"
)]
pub struct DiskFull {
    pub bytes: usize,
    pub reserve: u64,
}

#[derive(Debug)]
pub struct DiskGuard {
    disk: Arc<dyn Disk>,
    directory: PathBuf,
    reserve: u64,
    /// Bytes that may be appended before the reserve is touched; negative when it is.
    room: AtomicI64,
    /// The most bytes that were refused at once since there was room for as many.
    refused: AtomicI64,
}

impl DiskGuard {
    pub fn new(disk: Arc<dyn Disk>, directory: PathBuf, reserve: u64) -> Arc<Self> {
        // Room until the first look says otherwise, so that only a lack of it is news.
        let guard = Self { disk, directory, reserve, room: AtomicI64::new(1), refused: AtomicI64::new(0) };
        guard.refresh();
        Arc::new(guard)
    }

    /// Takes room for an append of `bytes`, or refuses it.
    pub fn admit(&self, bytes: usize) -> Result<(), DiskFull> {
        let taken = i64::try_from(bytes).unwrap_or(i64::MAX);
        let left = self.room.fetch_sub(taken, Ordering::Relaxed).saturating_sub(taken);
        if left >= 0 {
            return Ok(());
        }
        self.room.fetch_add(taken, Ordering::Relaxed);
        self.refuse(bytes);
        Err(DiskFull { bytes, reserve: self.reserve })
    }

    /// The disk has refused so many bytes itself.
    pub fn refuse(&self, bytes: usize) {
        self.refused.fetch_max(i64::try_from(bytes).unwrap_or(i64::MAX), Ordering::Relaxed);
    }

    /// Whether there is room for what comes, as far as it is known: for as much as was refused before.
    pub fn has_room(&self) -> bool {
        self.room.load(Ordering::Relaxed) > self.refused.load(Ordering::Relaxed)
    }

    /// Asks the file system anew. Call at intervals; says when writes stop and when they go on.
    pub fn refresh(&self) {
        let free = match self.disk.space(&self.directory) {
            Ok(space) => space.free,
            Err(error) => {
                tracing::warn!(directory = %self.directory.display(), %error, "cannot ask for free space");
                return;
            }
        };
        let room = i64::try_from(free).unwrap_or(i64::MAX) - i64::try_from(self.reserve).unwrap_or(i64::MAX);
        let before = self.room.swap(room, Ordering::Relaxed);
        if room > self.refused.load(Ordering::Relaxed) {
            self.refused.store(0, Ordering::Relaxed);
        }
        let directory = self.directory.display();
        if room <= 0 && before > 0 {
            tracing::error!(%directory, free, reserve = self.reserve, "disk nearly full: writes are refused until there is room");
        } else if room > 0 && before <= 0 {
            tracing::info!(%directory, free, "there is room on the disk: writes are taken");
        }
    }
}
