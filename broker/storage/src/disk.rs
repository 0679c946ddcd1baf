//! The seam between the log and the operating system: every byte that reaches a disk passes through these traits.
//!
//! The contract is POSIX with its teeth showing, so that the simulated disk can bite:
//! - a write is visible at once and durable only after `sync_data` of that file;
//! - a created, renamed or removed name is visible at once and durable only after `sync_dir` of its directory;
//! - after a failed `sync_data` nobody knows what of the file is durable, and a second call proves nothing
//!   (ATC'20, "Can Applications Recover from fsync Failures?"). Callers stop using the log.

use std::fmt::Debug;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

/// How `Disk::open` treats a file that is, or is not, there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OpenMode {
    /// Must exist; reads only.
    Read,
    /// Must exist.
    ReadWrite,
    /// Created if absent; what is there is kept.
    Create,
    /// Created if absent; emptied if not.
    CreateEmpty,
}

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DirEntry {
    pub name: String,
    pub is_dir: bool,
    /// Bytes of a file; 0 for a directory.
    pub len: u64,
}

/// Room on the file system that holds a path, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What an unprivileged process may still write.
    pub free: u64,
    pub total: u64,
}

/// What tells a file that was written to from the same file before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LastChange {
    pub len: u64,
    /// When that was, in seconds and nanoseconds, which nobody can set.
    pub at: (i64, i64),
}

/// A held lock; dropping it releases the lock.
pub trait Lock: Send + Sync + Debug {}

/// A file system. Paths are absolute or relative to the process, as for `std::fs`.
pub trait Disk: Send + Sync + Debug {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;
    /// Replaces `to` if it exists, in one step. Both are in the same directory.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// The directory must be empty.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
    /// Fails if the directory exists, or its parent does not.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// In no particular order.
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>>;
    /// A directory, held open: its names can be synced though no further file can be opened.
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>>;
    /// Makes the directory's names durable.
    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.open_dir(path)?.sync()
    }
    fn space(&self, path: &Path) -> io::Result<Space>;
    /// Creates and locks the file against other processes; `WouldBlock` when another holds it.
    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn Lock>>;
    fn exists(&self, path: &Path) -> io::Result<bool>;
}

/// An open directory.
pub trait DiskDir: Send + Sync + Debug {
    /// Makes its names durable.
    fn sync(&self) -> io::Result<()>;
}

/// An open file. Reads and writes name their offset, so that one handle serves many threads.
pub trait DiskFile: Send + Sync + Debug {
    /// Reads up to `buffer.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of `buffers` in order and says how many bytes.
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Makes the data, and the length, durable.
    fn sync_data(&self) -> io::Result<()>;
    /// Forgets what of the file lies in memory and is not waiting to be written: the next read asks the disk.
    fn drop_cache(&self) -> io::Result<()>;
    fn set_len(&self, len: u64) -> io::Result<()>;
    fn len(&self) -> io::Result<u64>;
    /// Whether these bytes lie in memory, so that reading them does not ask the disk; false where nobody can tell.
    fn is_in_memory(&self, offset: u64, len: u64) -> bool;
    /// From now on only what is read is brought into memory, and nothing around it.
    fn read_no_further(&self) -> io::Result<()>;
    /// By whomever.
    fn last_change(&self) -> io::Result<LastChange>;
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reserves blocks up to `len` without changing the file's length.
    fn reserve(&self, len: u64) -> io::Result<()>;
    /// The real file beneath, for sendfile. A simulated file has none.
    fn file(&self) -> Option<&std::fs::File>;
}

/// Most buffers that one call may carry (Linux's IOV_MAX).
const VECTORS_MAX: usize = 1024;

/// Writes all of `buffers` from `offset` on. After an error some of them may be in the file.
pub(crate) fn write_all_vectored_at(
    file: &dyn DiskFile,
    mut buffers: &mut [IoSlice<'_>],
    mut offset: u64,
) -> io::Result<()> {
    IoSlice::advance_slices(&mut buffers, 0);
    while !buffers.is_empty() {
        let now = buffers.get(..VECTORS_MAX).unwrap_or(buffers);
        match file.write_vectored_at(now, offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => {
                offset += written as u64;
                IoSlice::advance_slices(&mut buffers, written);
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Writes all of `bytes` at `offset`.
pub(crate) fn write_all_at(file: &dyn DiskFile, bytes: &[u8], offset: u64) -> io::Result<()> {
    write_all_vectored_at(file, &mut [IoSlice::new(bytes)], offset)
}

/// Fills `buffer` from `offset`, or as much of it as the file has; says how many bytes.
pub(crate) fn read_full_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = buffer.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, offset + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Fills `buffer` from `offset`; `UnexpectedEof` when the file ends before.
pub(crate) fn read_exact_at(file: &dyn DiskFile, buffer: &mut [u8], offset: u64) -> io::Result<()> {
    if read_full_at(file, buffer, offset)? == buffer.len() {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}
