//! A simulated disk that can be made to wait, as one does that hangs.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn_storage::disk::{DirEntry, Disk, DiskDir, DiskFile, LastChange, Lock, OpenMode, Space};
use firn_storage::simulated::{PowerCut, SimulatedDisk};
use parking_lot::{Condvar, Mutex};

/// What waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Syncs of the files in directories of this name.
    SyncsIn(&'static str),
    /// Reads of the same.
    ReadsIn(&'static str),
}

/// See the module. Clones are the same disk.
#[derive(Debug, Clone)]
pub struct HeldDisk {
    disk: SimulatedDisk,
    gate: Arc<Gate>,
}

#[derive(Debug)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    held: Option<Held>,
    /// Calls that wait.
    waiting: usize,
}

impl HeldDisk {
    pub fn new() -> Self {
        let state = State { held: None, waiting: 0 };
        let gate = Gate { state: Mutex::new(state), changed: Condvar::new() };
        Self { disk: SimulatedDisk::new(), gate: Arc::new(gate) }
    }

    /// What is left after a power cut, as another disk that holds nothing.
    pub fn after_power_cut(&self, cut: PowerCut) -> Self {
        Self { disk: self.disk.after_power_cut(cut), ..Self::new() }
    }

    /// Holds until the guard is let go of, so that a test that fails ends as well.
    #[must_use]
    pub fn hold(&self, held: Held) -> Hold {
        self.gate.set(Some(held));
        Hold(self.gate.clone())
    }

    /// How many calls wait.
    pub fn waiting(&self) -> usize {
        self.gate.state.lock().waiting
    }
}

/// See [`HeldDisk::hold`].
pub struct Hold(Arc<Gate>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.set(None);
    }
}

impl Gate {
    fn set(&self, held: Option<Held>) {
        self.state.lock().held = held;
        self.changed.notify_all();
    }

    fn pass(&self, is_held: impl Fn(Held) -> bool) {
        let mut state = self.state.lock();
        state.waiting += 1;
        while state.held.is_some_and(&is_held) {
            self.changed.wait(&mut state);
        }
        state.waiting -= 1;
    }
}

#[derive(Debug)]
struct HeldFile {
    path: PathBuf,
    file: Arc<dyn DiskFile>,
    gate: Arc<Gate>,
}

impl HeldFile {
    fn is_in(&self, directory: &str) -> bool {
        self.path.parent().and_then(Path::file_name).is_some_and(|name| name == directory)
    }
}

impl Disk for HeldDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        let (path, file) = (path.to_owned(), self.disk.open(path, mode)?);
        Ok(Arc::new(HeldFile { path, file, gate: self.gate.clone() }))
    }
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }
    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_file(path)
    }
    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir(path)
    }
    fn read_dir(&self, path: &Path) -> io::Result<Vec<DirEntry>> {
        self.disk.read_dir(path)
    }
    fn open_dir(&self, path: &Path) -> io::Result<Arc<dyn DiskDir>> {
        self.disk.open_dir(path)
    }
    fn space(&self, path: &Path) -> io::Result<Space> {
        self.disk.space(path)
    }
    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn Lock>> {
        self.disk.lock_exclusive(path)
    }
    fn exists(&self, path: &Path) -> io::Result<bool> {
        self.disk.exists(path)
    }
}

impl DiskFile for HeldFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.gate.pass(|held| matches!(held, Held::ReadsIn(name) if self.is_in(name)));
        self.file.read_at(buffer, offset)
    }
    fn drop_cache(&self) -> io::Result<()> {
        self.file.drop_cache()
    }
    fn write_vectored_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        self.file.write_vectored_at(buffers, offset)
    }
    fn sync_data(&self) -> io::Result<()> {
        self.gate.pass(|held| matches!(held, Held::SyncsIn(name) if self.is_in(name)));
        self.file.sync_data()
    }
    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
    fn is_in_memory(&self, offset: u64, len: u64) -> bool {
        self.file.is_in_memory(offset, len)
    }
    fn read_no_further(&self) -> io::Result<()> {
        self.file.read_no_further()
    }
    fn last_change(&self) -> io::Result<LastChange> {
        self.file.last_change()
    }
    fn reserve(&self, len: u64) -> io::Result<()> {
        self.file.reserve(len)
    }
    fn file(&self) -> Option<&std::fs::File> {
        self.file.file()
    }
}
