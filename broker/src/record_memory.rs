//! What records of replies may take of the memory, over all connections (`firn.fetch.records.bytes`): those read from
//! the object store, and those converted for old clients. What goes from the page cache to a socket takes none of it.
//!
//! The memory is held until the client has read its reply, however slowly: a connection that has stopped reading while
//! others wait is closed.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::request_memory::Waiting;

/// A share is cut to a part of what is left, but not below this, so that many slow readers get on.
const FAIR_SHARE: usize = 4;
const SHARE_BYTES_MIN: usize = 256 << 10;

/// The pool. See the module.
#[derive(Debug)]
pub struct RecordMemory {
    pool: Arc<Semaphore>,
    bytes_max: usize,
    waiting: AtomicUsize,
}

impl RecordMemory {
    /// A pool of `bytes_max` bytes.
    pub fn new(bytes_max: i64) -> Arc<Self> {
        let bytes_max = usize::try_from(bytes_max).unwrap_or(0).min(u32::MAX as usize);
        Arc::new(Self { pool: Arc::new(Semaphore::new(bytes_max)), bytes_max, waiting: AtomicUsize::new(0) })
    }

    /// True while somebody waits for memory.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// Bytes of records that are read or wait to be sent.
    pub fn held_bytes(&self) -> usize {
        self.bytes_max.saturating_sub(self.pool.available_permits())
    }

    /// Memory for `bytes` of records: as many, or less if little is left. Waits for the least.
    pub async fn reserve(&self, bytes: usize) -> Reserved {
        let fair = (self.pool.available_permits() / FAIR_SHARE).max(SHARE_BYTES_MIN);
        let bytes = u32::try_from(bytes.min(fair).min(self.bytes_max)).unwrap_or(u32::MAX);
        let _waiting = Waiting::count(&self.waiting);
        match self.pool.clone().acquire_many_owned(bytes).await {
            Ok(permit) => Reserved(permit),
            // It is never closed.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Memory for records that are not there yet.
#[derive(Debug)]
pub struct Reserved(OwnedSemaphorePermit);

impl Reserved {
    pub fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// `records`, holding as much of the memory as they take until the last of them is let go of.
    pub fn hold(self, records: Bytes) -> Bytes {
        let mut memory = self.0;
        let spare = memory.num_permits().saturating_sub(records.len());
        drop(memory.split(spare));
        Bytes::from_owner(Held { records, _memory: memory })
    }
}

/// Records that give their memory back when they have been sent.
struct Held {
    records: Bytes,
    _memory: OwnedSemaphorePermit,
}

impl AsRef<[u8]> for Held {
    fn as_ref(&self) -> &[u8] {
        &self.records
    }
}
