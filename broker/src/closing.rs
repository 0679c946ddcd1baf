//! Closes a broker's logs at its stop: every data directory by itself, so that one whose disk hangs or fails costs the
//! others nothing.
//!
//! A directory is given up only when none of its logs was closed for a while, however many it has. What was given up, or
//! failed, is not marked as shut down cleanly, and its next start checks the logs. Nobody can work on a log once it is
//! closed, so that tasks which do not end are no reason not to mark it.

use std::sync::Arc;
use std::time::Duration;

use firn_model::ids::METADATA_TOPIC;
use firn_storage::error::StorageError;
use firn_storage::partition_log::PartitionLog;
use tokio::sync::watch;

use crate::log_dirs::DataDir;
use crate::partition::Partition;

/// The metadata log, as far as it lies in a directory and could be had.
#[derive(Debug)]
pub enum Metadata {
    /// It lies in another directory, or has failed together with this one.
    None,
    Log(Box<PartitionLog>),
    /// A change is being written and does not end.
    Busy,
}

/// One directory and what is open in it.
#[derive(Debug)]
pub struct OpenDir {
    pub dir: Arc<DataDir>,
    pub metadata: Metadata,
    pub partitions: Vec<Arc<Partition>>,
}

impl OpenDir {
    /// Closes all logs and marks the directory; gives up after `patience` without a log that was closed. True when it is
    /// marked: the next start reads no batch of it.
    pub async fn close(self, patience: Duration) -> bool {
        let path = self.dir.dir.path().to_owned();
        let logs = self.partitions.len() + usize::from(!matches!(self.metadata, Metadata::None));
        let (progress, mut closed) = watch::channel(0);
        let mut closing = std::pin::pin!(firn_blocking::run(move || self.close_now(&progress)));
        loop {
            tokio::select! {
                marked = &mut closing => return marked,
                moved = tokio::time::timeout(patience, closed.changed()) => match moved {
                    Ok(Ok(())) => {}
                    // Everything is closed, and the end is near.
                    Ok(Err(_)) => return closing.await,
                    Err(_) => break,
                }
            }
        }
        tracing::error!(
            path = %path.display(),
            closed = *closed.borrow(),
            logs,
            ?patience,
            "the disk of this log directory hangs: it is left as it is, and its logs are checked at the next start"
        );
        false
    }

    fn close_now(self, progress: &watch::Sender<usize>) -> bool {
        let path = self.dir.dir.path().to_owned();
        let mut whole = true;
        let mut note = |name: &str, outcome: Result<(), StorageError>| {
            if let Err(error) = outcome {
                tracing::error!(log = name, path = %path.display(), %error, "the log was not closed cleanly");
                whole = false;
            }
            progress.send_modify(|closed| *closed += 1);
        };
        for partition in &self.partitions {
            note(&partition.name.to_string(), partition.close().map_or(Ok(()), |log| log.close()));
        }
        match self.metadata {
            Metadata::None => {}
            Metadata::Log(log) => note(METADATA_TOPIC, log.close()),
            Metadata::Busy => {
                tracing::error!(path = %path.display(), "a change of the metadata does not end: their log was not closed");
                whole = false;
            }
        }
        if !whole {
            tracing::error!(path = %path.display(), "the logs of this directory are checked at the next start");
            return false;
        }
        match self.dir.dir.mark_clean_shutdown() {
            Ok(()) => true,
            Err(error) => {
                tracing::error!(path = %path.display(), %error, "the logs of this directory are checked at the next start");
                false
            }
        }
    }
}
