//! What the tasks of one log share with it, so that deleting the log and working on it do not meet.
//!
//! Tasks name files by path. Were a log deleted, and another of its name created, while a task runs, the task would
//! write into a stranger's directory. So every step of a task that names a path holds the gate, and deletion closes it.

use std::sync::atomic::AtomicBool;

use parking_lot::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use crate::error::StorageError;

/// One log's gate. See the module.
#[derive(Debug, Default)]
pub(crate) struct TaskGate {
    closed: RwLock<bool>,
    flushing: Mutex<()>,
    /// A task wrote the leader epochs, or they were there before: from then on the file must follow every change.
    pub(crate) epochs_on_disk: AtomicBool,
}

impl TaskGate {
    /// Holds the log's directory in place; refused once the log is deleted.
    pub(crate) fn pass(&self, log: &std::path::Path) -> Result<RwLockReadGuard<'_, bool>, StorageError> {
        let closed = self.closed.read();
        if *closed {
            return Err(StorageError::Offline {
                what: format!("log {}", log.display()),
                reason: "it was deleted".to_owned(),
            });
        }
        Ok(closed)
    }

    /// One flush of a log at a time: two would write the same temporary checkpoint.
    pub(crate) fn flush(&self) -> MutexGuard<'_, ()> {
        self.flushing.lock()
    }

    /// Waits for the steps that are under way, and lets none begin.
    pub(crate) fn close(&self) {
        *self.closed.write() = true;
    }
}
