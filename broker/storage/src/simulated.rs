//! A disk in memory that forgets what was not synced: the disk of this crate's tests and of the simulation.
//!
//! It keeps two truths. The current one is what the process sees. The durable one is what a power cut leaves: a file's
//! bytes as of its last sync, and of a directory the names as of its own. Between them lie pending changes, of which a
//! power cut may keep any: [`PowerCut`] says which, and a seed makes the choice repeatable.
//!
//! Faults are armed by the number of the operation at which they strike: a failed write, a full disk, a failed sync
//! (which, as on Linux, marks the pages clean and loses them), or the end of power. Only operations that change
//! something are counted, because between two of them a crash leaves the same disk.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IoSlice};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;

use crate::disk::{DirEntry, Disk, DiskDir, DiskFile, LastChange, Lock, OpenMode, Space};

pub mod file;
pub mod names;

use file::FileData;
use names::Names;

/// Smallest unit that a disk writes whole.
pub const SECTOR_BYTES: usize = 512;

/// What of the unsynced changes a power cut leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PowerCut {
    /// Nothing that was not synced.
    DropUnsynced,
    /// Everything that was on its way to the disk.
    KeepAll,
    /// Everything but the end of the last write of each file, which is cut at a sector's edge.
    TornLastWrite { seed: u64 },
    /// Any of the sectors, lengths and names, as the seed will have it.
    Some { seed: u64 },
}

/// The kinds of operations that change something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    Create,
    Write,
    SetLen,
    SyncData,
    Rename,
    RemoveFile,
    CreateDir,
    RemoveDir,
    SyncDir,
    Reserve,
}

/// What goes wrong, and when. Operation numbers count from 1, over the life of the disk.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// From this operation on nothing works: the power is off.
    pub power_off_at: Option<u64>,
    /// This operation fails with EIO.
    pub io_error_at: Option<u64>,
    /// This operation, if it needs room, fails with ENOSPC; a write leaves its first half behind.
    pub full_at: Option<u64>,
    /// Bytes that all files together may have.
    pub capacity_bytes: Option<u64>,
    /// Nothing can be opened, directories to sync them included: the process has as many files open as it may.
    pub out_of_files: bool,
    /// Syncs of files that have this in their path succeed and do nothing: what a disk that lies does. For proving that
    /// a checker notices.
    pub sync_lies: Option<&'static str>,
    /// Directory syncs succeed and do nothing.
    pub dir_sync_lies: bool,
    /// Directory syncs fail with ENOSPC.
    pub dir_sync_is_full: bool,
}

/// Called before each operation that changes something, with its number, kind and path.
pub type Probe = Arc<dyn Fn(&SimulatedDisk, u64, Operation, &Path) + Send + Sync>;

/// See the module. Clones are the same disk.
#[derive(Clone, Default)]
pub struct SimulatedDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    inodes: BTreeMap<u64, Inode>,
    next_inode: u64,
    locks: std::collections::BTreeSet<PathBuf>,
    operations: u64,
    faults: Faults,
    probe: Option<Probe>,
}

#[derive(Debug, Clone)]
enum Inode {
    File(FileData),
    Dir(Names),
}

/// The root directory's inode.
const ROOT: u64 = 0;

impl fmt::Debug for SimulatedDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.state.lock();
        f.debug_struct("SimulatedDisk")
            .field("inodes", &state.inodes.len())
            .field("operations", &state.operations)
            .field("faults", &state.faults)
            .finish()
    }
}

impl SimulatedDisk {
    pub fn new() -> Self {
        let disk = Self::default();
        {
            let mut state = disk.state.lock();
            state.inodes.insert(ROOT, Inode::Dir(Names::default()));
            state.next_inode = ROOT + 1;
        }
        disk
    }

    /// Operations so far.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    pub fn faults(&self) -> Faults {
        self.state.lock().faults.clone()
    }

    pub fn set_faults(&self, faults: Faults) {
        self.state.lock().faults = faults;
    }

    /// Sets, or takes away, what is called before each operation.
    pub fn set_probe(&self, probe: Option<Probe>) {
        self.state.lock().probe = probe;
    }

    /// The disk as it is after a power cut: another disk, with no faults, no locks, and nothing pending.
    pub fn after_power_cut(&self, cut: PowerCut) -> SimulatedDisk {
        let state = self.state.lock();
        let mut inodes = BTreeMap::new();
        for (&number, inode) in &state.inodes {
            let survivor = match inode {
                Inode::File(file) => Inode::File(file.after(cut, number)),
                Inode::Dir(names) => Inode::Dir(names.after(cut, number)),
            };
            inodes.insert(number, survivor);
        }
        let after = State { inodes, next_inode: state.next_inode, ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// The disk as the next process finds it where this one was killed and the machine was not: another one, with no faults and no
    /// locks. What is pending is pending still, and a power cut may take it.
    pub fn after_kill(&self) -> SimulatedDisk {
        let state = self.state.lock();
        let (inodes, next_inode) = (state.inodes.clone(), state.next_inode);
        let after = State { inodes, next_inode, ..State::default() };
        SimulatedDisk { state: Arc::new(Mutex::new(after)) }
    }

    /// Flips one bit of a file, as a rotting disk does. False when the file has no such byte.
    pub fn flip_bit(&self, path: &Path, byte: u64, bit: u8) -> bool {
        let mut state = self.state.lock();
        match state.file_mut(path) {
            Ok(file) => file.flip_bit(byte, bit),
            Err(_) => false,
        }
    }

    /// A file's bytes as a reader sees them.
    pub fn contents(&self, path: &Path) -> io::Result<Vec<u8>> {
        let mut state = self.state.lock();
        Ok(state.file_mut(path)?.current().to_vec())
    }

    /// Every file's path, below `directory`.
    pub fn files(&self, directory: &Path) -> io::Result<Vec<PathBuf>> {
        let mut files = Vec::new();
        for entry in self.read_dir(directory)? {
            let path = directory.join(&entry.name);
            if entry.is_dir { files.extend(self.files(&path)?) } else { files.push(path) }
        }
        Ok(files)
    }

    /// Counts an operation, tells the probe, and strikes if a fault is due.
    fn begin(&self, operation: Operation, path: &Path) -> io::Result<u64> {
        let (number, probe) = {
            let mut state = self.state.lock();
            state.operations += 1;
            (state.operations, state.probe.clone())
        };
        if let Some(probe) = probe {
            probe(self, number, operation, path);
        }
        let state = self.state.lock();
        if state.faults.power_off_at.is_some_and(|at| number >= at) {
            return Err(io::Error::other("the power is off"));
        }
        if state.faults.io_error_at == Some(number) && operation != Operation::SyncData {
            return Err(eio());
        }
        let needs_room = matches!(operation, Operation::Create | Operation::CreateDir | Operation::Reserve);
        if needs_room && state.faults.full_at == Some(number) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(number)
    }

    fn take_descriptor(&self) -> io::Result<()> {
        if self.state.lock().faults.out_of_files {
            return Err(rustix::io::Errno::MFILE.into());
        }
        Ok(())
    }

    fn with_parent<T>(
        &self,
        path: &Path,
        change: impl FnOnce(&mut State, u64, &str) -> io::Result<T>,
    ) -> io::Result<T> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name().and_then(|name| name.to_str()))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let mut state = self.state.lock();
        let parent = state.find(parent)?;
        change(&mut state, parent, name)
    }
}

fn eio() -> io::Error {
    io::Error::from_raw_os_error(5)
}

impl State {
    fn find(&self, path: &Path) -> io::Result<u64> {
        let mut at = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            let name = name.to_str().ok_or(io::ErrorKind::InvalidInput)?;
            at = self.dir(at)?.get(name).ok_or(io::ErrorKind::NotFound)?;
        }
        Ok(at)
    }

    fn dir(&self, inode: u64) -> io::Result<&Names> {
        match self.inodes.get(&inode) {
            Some(Inode::Dir(names)) => Ok(names),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn dir_mut(&mut self, inode: u64) -> io::Result<&mut Names> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::Dir(names)) => Ok(names),
            Some(Inode::File(_)) => Err(io::ErrorKind::NotADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn file_mut(&mut self, path: &Path) -> io::Result<&mut FileData> {
        let inode = self.find(path)?;
        self.file_of(inode)
    }

    fn file_of(&mut self, inode: u64) -> io::Result<&mut FileData> {
        match self.inodes.get_mut(&inode) {
            Some(Inode::File(file)) => Ok(file),
            Some(Inode::Dir(_)) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn add(&mut self, inode: Inode) -> u64 {
        let number = self.next_inode;
        self.next_inode += 1;
        self.inodes.insert(number, inode);
        number
    }

    fn used_bytes(&self) -> u64 {
        let sizes = self.inodes.values().map(|inode| match inode {
            Inode::File(file) => file.current().len() as u64,
            Inode::Dir(_) => 0,
        });
        sizes.sum()
    }
}

#[derive(Debug)]
struct SimulatedFile {
    disk: SimulatedDisk,
    inode: u64,
    path: PathBuf,
}

#[derive(Debug)]
struct SimulatedDir {
    disk: SimulatedDisk,
    inode: u64,
    path: PathBuf,
}

impl DiskDir for SimulatedDir {
    fn sync(&self) -> io::Result<()> {
        self.disk.begin(Operation::SyncDir, &self.path)?;
        let mut state = self.disk.state.lock();
        if state.faults.dir_sync_is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        if !state.faults.dir_sync_lies {
            state.dir_mut(self.inode)?.sync();
        }
        Ok(())
    }
}

#[derive(Debug)]
struct SimulatedLock {
    disk: SimulatedDisk,
    path: PathBuf,
}

impl Lock for SimulatedLock {}

impl Drop for SimulatedLock {
    fn drop(&mut self) {
        self.disk.state.lock().locks.remove(&self.path);
    }
}

impl Disk for SimulatedDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        self.take_descriptor()?;
        let known = self.state.lock().find(path);
        let inode = match (known, mode) {
            (Ok(inode), OpenMode::CreateEmpty) => {
                self.begin(Operation::SetLen, path)?;
                self.state.lock().file_of(inode)?.set_len(0);
                inode
            }
            (Ok(inode), _) => {
                self.state.lock().file_of(inode)?;
                inode
            }
            (Err(error), OpenMode::Create | OpenMode::CreateEmpty)
                if error.kind() == io::ErrorKind::NotFound =>
            {
                self.begin(Operation::Create, path)?;
                self.with_parent(path, |state, parent, name| {
                    let inode = state.add(Inode::File(FileData::default()));
                    state.dir_mut(parent)?.insert(name, inode);
                    Ok(inode)
                })?
            }
            (Err(error), _) => return Err(error),
        };
        Ok(Arc::new(SimulatedFile { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        if from.parent() != to.parent() {
            return Err(io::ErrorKind::CrossesDevices.into());
        }
        self.state.lock().find(from)?;
        self.begin(Operation::Rename, from)?;
        let to = to.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidInput)?;
        self.with_parent(from, |state, parent, name| state.dir_mut(parent)?.rename(name, to))
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.state.lock().file_mut(path)?;
        self.begin(Operation::RemoveFile, path)?;
        self.with_parent(path, |state, parent, name| state.dir_mut(parent)?.remove(name))
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        {
            let state = self.state.lock();
            if !state.dir(state.find(path)?)?.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
        }
        self.begin(Operation::RemoveDir, path)?;
        self.with_parent(path, |state, parent, name| state.dir_mut(parent)?.remove(name))
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        if self.exists(path)? {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.begin(Operation::CreateDir, path)?;
        self.with_parent(path, |state, parent, name| {
            let inode = state.add(Inode::Dir(Names::default()));
            state.dir_mut(parent)?.insert(name, inode);
            Ok(())
        })
    }

    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        let state = self.state.lock();
        let names = state.dir(state.find(path)?)?;
        let entry = |(name, inode): (&String, &u64)| {
            let (is_dir, len) = match state.inodes.get(inode) {
                Some(Inode::File(file)) => (false, file.current().len() as u64),
                _ => (true, 0),
            };
            DirEntry { name: name.clone(), is_dir, len }
        };
        Ok(names.iter().map(entry).collect())
    }

    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        self.take_descriptor()?;
        let inode = self.state.lock().find(path)?;
        Ok(Arc::new(SimulatedDir { disk: self.clone(), inode, path: path.to_owned() }))
    }

    fn space(&self, _path: &Path) -> io::Result<Space> {
        let state = self.state.lock();
        let total = state.faults.capacity_bytes.unwrap_or(1 << 40);
        Ok(Space { free: total.saturating_sub(state.used_bytes()), total })
    }

    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.open(path, OpenMode::Create)?;
        if !self.state.lock().locks.insert(path.to_owned()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimulatedLock { disk: self.clone(), path: path.to_owned() }))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.state.lock().find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl DiskFile for SimulatedFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.state.lock().file_of(self.inode).map(|file| file.read(buffer, offset))
    }

    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let number = self.disk.begin(Operation::Write, &self.path)?;
        let bytes: Vec<u8> = buffers.iter().flat_map(|buffer| buffer.iter().copied()).collect();
        let mut state = self.disk.state.lock();
        let room = state.faults.capacity_bytes.map(|capacity| capacity.saturating_sub(state.used_bytes()));
        let (full_at, file) = (state.faults.full_at, state.file_of(self.inode)?);
        let grows = (offset + bytes.len() as u64).saturating_sub(file.current().len() as u64);
        let fits = if full_at == Some(number) {
            bytes.len() / 2
        } else if room.is_some_and(|room| grows > room) {
            bytes.len() - usize::try_from(grows - room.unwrap_or(0)).unwrap_or(usize::MAX).min(bytes.len())
        } else {
            bytes.len()
        };
        if fits > 0 {
            file.write(offset, bytes.get(..fits).unwrap_or_default());
        }
        if fits < bytes.len() && (full_at == Some(number) || fits == 0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(fits)
    }

    fn sync_data(&self) -> io::Result<()> {
        let number = self.disk.begin(Operation::SyncData, &self.path)?;
        let mut state = self.disk.state.lock();
        let fails = state.faults.io_error_at == Some(number);
        let lies = state.faults.sync_lies.is_some_and(|of| self.path.to_string_lossy().contains(of));
        let file = state.file_of(self.inode)?;
        if fails {
            file.lose_pending();
            return Err(eio());
        }
        if !lies {
            file.sync();
        }
        Ok(())
    }

    fn drop_cache(&self) -> io::Result<()> {
        self.disk.state.lock().file_of(self.inode)?.drop_cache();
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.disk.begin(Operation::SetLen, &self.path)?;
        self.disk.state.lock().file_of(self.inode)?.set_len(len);
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.disk.state.lock().file_of(self.inode)?.current().len() as u64)
    }

    fn is_in_memory(&self, _offset: u64, _len: u64) -> bool {
        true
    }

    fn read_no_further(&self) -> io::Result<()> {
        Ok(())
    }

    /// Nobody but its owner writes to a simulated file: what changes it else is rot, which shows at once, as if memory did not
    /// keep anything.
    fn last_change(&self) -> io::Result<LastChange> {
        let mut state = self.disk.state.lock();
        let file = state.file_of(self.inode)?;
        let flips = i64::try_from(file.flips()).unwrap_or(i64::MAX);
        Ok(LastChange { len: file.current().len() as u64, at: (0, flips) })
    }

    /// What is reserved takes no room here: it only has to be there.
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.disk.begin(Operation::Reserve, &self.path)?;
        let mut state = self.disk.state.lock();
        let grows = len.saturating_sub(state.file_of(self.inode)?.current().len() as u64);
        match state.faults.capacity_bytes {
            Some(capacity) if state.used_bytes() + grows > capacity => Err(io::ErrorKind::StorageFull.into()),
            _ => Ok(()),
        }
    }

    fn file(&self) -> Option<&std::fs::File> {
        None
    }
}

#[cfg(test)]
#[path = "simulated/simulated_tests.rs"]
mod tests;
