//! Files that a log's owner keeps in its directory beside the segments: small, whole, and read at the start.
//!
//! A file is written under another name, synced and renamed, so that it is there whole or not at all.

use crate::checkpoint::{self, DirSync};
use crate::error::{StorageError, failed_to};
use crate::open_files::read_file;
use crate::partition_log::PartitionLog;

impl PartitionLog {
    /// Keeps `bytes` under `name`, which no file of the log itself may have; durable when this returns.
    pub fn keep_file(&self, name: &str, bytes: &[u8]) -> Result<(), StorageError> {
        self.directory.check()?;
        let disk = self.directory.disk.as_ref();
        checkpoint::replace(disk, &self.path, name, bytes, DirSync::Now)
            .map_err(|error| self.fail_unless_short(error))
    }

    /// The bytes of a file that was kept; `None` if there is no such.
    pub fn kept_file(&self, name: &str) -> Result<Option<Vec<u8>>, StorageError> {
        read_file(self.directory.disk.as_ref(), &self.path.join(name))
    }

    /// The names of all files with this ending, in order.
    pub fn kept_files(&self, ending: &str) -> Result<Vec<String>, StorageError> {
        let entries = self.directory.disk.read_dir(&self.path).map_err(failed_to("list", &self.path))?;
        let mut names: Vec<_> = entries
            .into_iter()
            .filter(|entry| !entry.is_dir && entry.name.ends_with(ending))
            .map(|entry| entry.name)
            .collect();
        names.sort();
        Ok(names)
    }

    /// Removes a file that was kept. A crash may bring it back.
    pub fn remove_kept_file(&self, name: &str) -> Result<(), StorageError> {
        self.directory.check()?;
        self.remove_if_there(name)
    }
}
