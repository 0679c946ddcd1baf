//! The directory of `firn dev`: whose it is, and what stands in it beside the logs.

#![expect(
    clippy::disallowed_methods,
    reason = "it is about files of people and processes, which no broker reads"
)]

use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

use super::error::DevError;

/// Holds the process id of a running broker.
pub const PID_FILE: &str = "broker.pid";
const LOCK: &str = "dev.lock";

/// Where the brokers' data lie, taken by this process until this is dropped: two that write the files of one cluster
/// would each leave the other with wrong ones.
#[derive(Debug)]
pub struct Place {
    pub data: PathBuf,
    /// URL of the object store that all brokers share.
    pub store: String,
    _lock: File,
}

impl Place {
    /// Takes `data`, which is made where it is not there. Without a store one is made in it.
    pub fn claim(data: PathBuf, store: Option<&str>) -> Result<Self, DevError> {
        if data.to_str().is_none_or(|name| name.contains(',')) {
            return Err(DevError::Name { path: data });
        }
        create_dir(&data)?;
        let path = data.join(LOCK);
        let failed = |source| DevError::Path { path: path.clone(), source };
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(DevError::InUse { path: data }),
            Err(TryLockError::Error(source)) => return Err(failed(source)),
        }
        let store = match store {
            Some(url) => url.to_owned(),
            None => {
                let path = std::path::absolute(data.join("store"));
                let path = path.map_err(|source| DevError::Path { path: data.clone(), source })?;
                create_dir(&path)?;
                format!("file://{}", path.display())
            }
        };
        Ok(Self { data, store, _lock: lock })
    }
}

/// The log directory of broker `id`, where its other files stand, too.
pub fn directory(data: &Path, id: u16) -> PathBuf {
    data.join(format!("broker-{id}"))
}

/// Creates a directory and those above it, each with its name synced: a broker sees to that for those alone that it
/// creates itself, and what it syncs below would be lost with them.
pub fn create_dir(path: &Path) -> Result<(), DevError> {
    let is_missing = |path: &&Path| !path.as_os_str().is_empty() && !path.exists();
    let missing: Vec<&Path> = path.ancestors().take_while(is_missing).collect();
    let sync = |created: &&Path| {
        let parent = created.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    };
    let created = std::fs::create_dir_all(path).and_then(|()| missing.iter().try_for_each(sync));
    created.map_err(|source| DevError::Path { path: path.to_owned(), source })
}

/// Tells whoever wants to signal a broker which process it is, until this is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
}

impl PidFile {
    pub fn write(path: PathBuf, pid: u32) -> Result<Self, DevError> {
        match std::fs::write(&path, format!("{pid}\n")) {
            Ok(()) => Ok(Self { path }),
            Err(source) => Err(DevError::Path { path, source }),
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // One that stays tells of a process that is not there, as after a power cut: the next start writes it anew.
        std::fs::remove_file(&self.path).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_has_one_owner_and_its_brokers_files_while_they_run() {
        let root = std::env::temp_dir().join(format!("firn-place-{}", std::process::id()));
        let data = root.join("deep/data");
        let place = Place::claim(data.clone(), None).unwrap();
        assert_eq!(place.store, format!("file://{}", data.join("store").display()));
        assert!(data.join("store").is_dir());
        assert!(matches!(Place::claim(data.clone(), None), Err(DevError::InUse { .. })));
        let broker = directory(&data, 1);
        create_dir(&broker).unwrap();
        let pid_file = PidFile::write(broker.join(PID_FILE), 77).unwrap();
        assert_eq!(std::fs::read_to_string(broker.join("broker.pid")).unwrap(), "77\n");
        drop(pid_file);
        assert!(!broker.join("broker.pid").exists());
        std::fs::remove_dir_all(root).unwrap();
    }

    #[test]
    fn a_directory_that_log_dirs_cannot_name_is_refused() {
        let refused = Place::claim(PathBuf::from("a,b"), None);
        assert!(matches!(refused, Err(DevError::Name { .. })), "{refused:?}");
    }
}
