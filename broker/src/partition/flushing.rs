//! Makes a partition's records durable: by number, by time, and for the checkpoints.

use std::sync::Arc;

use firn_storage::flush::FlushTask;
use firn_storage::partition_log::PartitionLog;

use super::state::State;
use super::{Partition, PartitionError};

impl Partition {
    /// Flushes, if records have waited for `flush.ms`, or if they should have been flushed before and could not be.
    pub fn flush_if_due(self: &Arc<Self>, now_ms: i64) {
        let mut state = self.state.lock();
        let waited = state.unflushed_since.map_or(0, |since| now_ms.saturating_sub(since));
        if state.unflushed_since.is_some() && waited >= state.config.flush_ms {
            state.flush_due_to = state.log.as_ref().map_or(0, PartitionLog::end_offset);
        }
        if state.wants_flush() {
            self.start_flush(&mut state);
        }
    }

    /// Makes what is in the log durable with its indexes and producers, and notes where it stands for the directory's
    /// checkpoint.
    pub fn checkpoint(&self) -> Result<(), PartitionError> {
        if let Some(task) = self.with_log(PartitionLog::checkpoint_task)?? {
            let flushed = task.run()?;
            let mut state = self.state.lock();
            if let Some(log) = &mut state.log {
                log.flushed(flushed);
                state.advance();
            }
        }
        self.with_log(|log| log.remember())
    }

    pub(super) fn start_flush(self: &Arc<Self>, state: &mut State) {
        if !state.flushing {
            state.flushing = true;
            tokio::spawn(self.clone().flush_until_settled());
        }
    }

    /// Flushes until nobody waits for a flush any more. One runs at a time for a partition.
    async fn flush_until_settled(self: Arc<Self>) {
        while let Some(task) = self.next_flush() {
            let result = firn_blocking::run(move || task.run()).await;
            let mut state = self.state.lock();
            match result {
                Ok(flushed) => {
                    if let Some(log) = &mut state.log {
                        log.flushed(flushed);
                    }
                    state.advance();
                }
                Err(error) if error.is_shortage() => {
                    tracing::warn!(partition = %self.name, %error, "a flush was not possible; it is tried again");
                    state.refuse_waiting();
                    state.flushing = false;
                    return;
                }
                Err(error) => {
                    tracing::error!(partition = %self.name, %error, "a flush failed: the partition is offline");
                    state.fail();
                }
            }
        }
    }

    /// The next flush, or `None`, after which another one may be started.
    fn next_flush(&self) -> Option<FlushTask> {
        let mut state = self.state.lock();
        let task = if state.wants_flush() { state.log.as_ref().map(PartitionLog::flush_task) } else { None };
        match task {
            Some(Ok(Some(task))) => return Some(task),
            Some(Ok(None)) | None => state.advance(),
            Some(Err(error)) if error.is_shortage() => {
                tracing::warn!(partition = %self.name, %error, "cannot flush; it is tried again");
                state.refuse_waiting();
            }
            Some(Err(error)) => {
                tracing::error!(partition = %self.name, %error, "cannot flush: the partition is offline");
                state.fail();
            }
        }
        state.flushing = false;
        None
    }
}
