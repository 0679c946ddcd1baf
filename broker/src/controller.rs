//! Changes the metadata: decide (pure) → write down → apply → let the partitions follow.
//!
//! One change at a time. What a client is told after a change is on stable storage and in force: the topic that was
//! created can be written to, and the one that was deleted is gone.

use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::image::Image;
use parking_lot::RwLock;
use tokio::sync::Mutex;
use tokio::time::Instant;

use crate::blocking;
use crate::environment::Environment;
use crate::follower::Follower;
use crate::metadata_log::{MetadataError, MetadataLog};

/// Why a change did not happen.
#[derive(Debug, thiserror::Error)]
pub enum ProposeError {
    #[error(transparent)]
    Refused(#[from] DecisionError),
    #[error("the metadata cannot be changed: {0}")]
    Failed(#[from] MetadataError),
    #[error(
        "the metadata cannot be changed any more: the broker is stopping, or its metadata log has failed"
    )]
    Closed,
}

impl ProposeError {
    /// True when nothing has changed and the next change may succeed.
    fn leaves_the_log_whole(&self) -> bool {
        matches!(self, ProposeError::Failed(error) if error.is_shortage())
    }
}

/// How far the metadata log has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// False once the log is closed or has failed: no change is possible any more.
    pub active: bool,
    /// Offset after the last record. All of them are committed.
    pub end_offset: i64,
    /// Records and batches of this process, and how long all of the batches took together.
    pub records: u64,
    pub commits: u64,
    pub committing: Duration,
}

/// Owns the metadata log; hands out snapshots of the image.
#[derive(Debug)]
pub struct Controller {
    /// `None` once closed, or after a write failed: what the log holds is then unknown until the next start.
    log: Arc<Mutex<Option<MetadataLog>>>,
    image: RwLock<Image>,
    follower: Follower,
    environment: Environment,
    progress: Arc<RwLock<Progress>>,
}

impl Controller {
    pub fn new(log: MetadataLog, image: Image, follower: Follower, environment: Environment) -> Self {
        let progress = Progress { active: true, end_offset: log.end_offset(), ..Progress::default() };
        Self {
            log: Arc::new(Mutex::new(Some(log))),
            image: RwLock::new(image),
            follower,
            environment,
            progress: Arc::new(RwLock::new(progress)),
        }
    }

    /// How far the metadata log has come. Waits for no change that is under way.
    pub fn progress(&self) -> Progress {
        *self.progress.read()
    }

    /// The metadata as it stands. Costs nothing and does not change under its holder.
    pub fn image(&self) -> Image {
        self.image.read().clone()
    }

    /// Makes the change that `decide` asks for, and returns its reply once it is durable and in force.
    pub async fn propose<R>(
        &self,
        decide: impl FnOnce(&Image) -> Result<Decision<R>, DecisionError>,
    ) -> Result<R, ProposeError> {
        let mut log = self.log.clone().lock_owned().await;
        let image = self.image();
        let Decision { records, reply } = decide(&image)?;
        if records.is_empty() {
            return Ok(reply);
        }
        let mut next = image;
        next.apply_all(&records).map_err(|error| DecisionError::UnknownServerError(error.to_string()))?;
        let now_ms = self.environment.clock.now_ms();
        let follower = self.follower.clone();
        let progress = self.progress.clone();
        let (next, written) = blocking::run(move || {
            let started = Instant::now();
            let written = match log.as_mut() {
                None => Err(ProposeError::Closed),
                Some(open) => open.write(&records, now_ms).map_err(ProposeError::from),
            };
            if let Err(error) = &written
                && !error.leaves_the_log_whole()
            {
                *log = None;
            }
            progress.write().wrote(&log, records.len(), started.elapsed(), written.is_ok());
            if written.is_ok() {
                follower.follow(&next, &records, now_ms);
                // The change itself is made: without a snapshot the next start only has more to replay.
                if let Some(Err(error)) = log.as_mut().map(|open| open.snapshot_if_due(&next, now_ms)) {
                    tracing::error!(%error, "no snapshot of the metadata");
                }
            }
            // The lock is held until here: changes follow one another, and so do their effects.
            (next, written.map(|()| log))
        })
        .await;
        let _held = written.inspect_err(|error| tracing::error!(%error, "a metadata change failed"))?;
        *self.image.write() = next;
        Ok(reply)
    }

    /// Takes the snapshot that time has made due. A change that is being made meanwhile does so itself.
    pub fn snapshot_if_due(&self) {
        let Ok(mut log) = self.log.try_lock() else { return };
        let (image, now_ms) = (self.image(), self.environment.clock.now_ms());
        if let Some(Err(error)) = log.as_mut().map(|open| open.snapshot_if_due(&image, now_ms)) {
            tracing::error!(%error, "no snapshot of the metadata");
        }
    }

    /// Opens the logs that could not be opened for want of room or of file descriptors.
    pub fn open_what_is_missing(&self) {
        // While a change is being made, the next round does it.
        let Ok(_no_change) = self.log.try_lock() else { return };
        self.follower.open_what_is_missing(&self.image(), self.environment.clock.now_ms());
    }

    /// Takes no change any more, once the one under way is written, and gives the log of them to whoever closes it.
    pub async fn retire(&self) -> Option<MetadataLog> {
        let log = self.log.lock().await.take();
        self.progress.write().active = false;
        log
    }
}

impl Progress {
    fn wrote(&mut self, log: &Option<MetadataLog>, records: usize, took: Duration, succeeded: bool) {
        self.active = log.is_some();
        let Some(log) = log.as_ref().filter(|_| succeeded) else { return };
        self.end_offset = log.end_offset();
        self.records += records as u64;
        self.commits += 1;
        self.committing += took;
    }
}
