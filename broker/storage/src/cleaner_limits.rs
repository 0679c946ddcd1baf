//! What compaction may take of the machine.

use std::fmt::Debug;
use std::sync::Arc;

/// Memory and pace of one compaction.
#[derive(Debug, Clone)]
pub struct CleanerLimits {
    /// For the map of keys (`log.cleaner.dedupe.buffer.size`, the cleaner threads' shares of it): what does not fit is
    /// left for the next pass.
    pub dedupe_buffer_bytes: usize,
    pub pace: Arc<dyn CleanerPace>,
}

impl CleanerLimits {
    /// Memory alone is limited.
    pub fn of_memory(dedupe_buffer_bytes: usize) -> Self {
        Self { dedupe_buffer_bytes, pace: Arc::new(NoPace) }
    }
}

/// Slows compaction down (`log.cleaner.io.max.bytes.per.second`).
pub trait CleanerPace: Send + Sync + Debug {
    /// Called on the cleaner's thread after it has read or written `bytes`: returns when it may go on, or as soon as
    /// `stopped` says that it need not.
    fn spend(&self, bytes: u64, stopped: &dyn Fn() -> bool);
}

#[derive(Debug)]
struct NoPace;

impl CleanerPace for NoPace {
    fn spend(&self, _bytes: u64, _stopped: &dyn Fn() -> bool) {}
}
