//! Makes appended entries durable, beside the work of the quorum: votes and heartbeats do not wait for a disk that is slow to
//! sync. What comes while a sync runs waits for the next one, all of it together.

use std::io;

use openraft::storage::IOFlushed;
use parking_lot::Mutex;

use crate::log_store::LogStore;
use crate::types::Types;

/// Who waits for a sync.
#[derive(Default)]
pub(crate) struct Flushing(Mutex<Waiting>);

#[derive(Default)]
struct Waiting {
    callbacks: Vec<IOFlushed<Types>>,
    /// A task sees to them.
    is_served: bool,
}

impl std::fmt::Debug for Flushing {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Flushing").finish_non_exhaustive()
    }
}

impl Flushing {
    /// True when there is nobody yet who serves those that wait.
    fn add(&self, callback: IOFlushed<Types>) -> bool {
        let mut waiting = self.0.lock();
        waiting.callbacks.push(callback);
        !std::mem::replace(&mut waiting.is_served, true)
    }

    /// Those that wait now; `None`, and nobody serves any more, if nobody does.
    fn take(&self) -> Option<Vec<IOFlushed<Types>>> {
        let mut waiting = self.0.lock();
        waiting.is_served = !waiting.callbacks.is_empty();
        waiting.is_served.then(|| std::mem::take(&mut waiting.callbacks))
    }
}

impl LogStore {
    /// Sees to it that all that is in the log now is synced, and `callback` is told.
    pub(crate) fn flush_for(&self, callback: IOFlushed<Types>) {
        if self.flushing().add(callback) {
            let store = self.clone();
            tokio::spawn(async move {
                while let Some(callbacks) = store.flushing().take() {
                    let flushed = store.persist("a change", LogStore::flush).await;
                    for callback in callbacks {
                        callback.io_completed(match &flushed {
                            Ok(()) => Ok(()),
                            Err(error) => Err(io::Error::other(error.to_string())),
                        });
                    }
                }
            });
        }
    }
}
