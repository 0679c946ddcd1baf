//! Changes the metadata: decide (pure) → have it agreed on → apply → let the partitions follow.
//!
//! What a client is told after a change is on stable storage, with a majority of the quorum, and in force: the topic that
//! was created can be written to, and the one that was deleted is gone.

use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::image::Image;
use firn_metadata::record::MetadataRecord;
use firn_quorum::error::QuorumError;
use firn_quorum::machine::{Observer, Published};
use firn_quorum::members::Members;
use firn_quorum::quorum::{Progress, ProposeError, Quorum};
use firn_storage::partition_log::PartitionLog;

use crate::deleted_topics::DeletedTopics;
use crate::environment::Clock;
use crate::follower::Follower;

/// How long a change that the controller has made is waited for.
const CHANGE_MAX: Duration = Duration::from_secs(5);

/// This broker's part in the quorum; hands out snapshots of the image.
#[derive(Debug)]
pub struct Controller {
    quorum: Arc<Quorum>,
    following: Arc<Following>,
}

/// Lets the partitions follow what is agreed on.
#[derive(Debug)]
struct Following {
    follower: Follower,
    clock: Arc<dyn Clock>,
    deleted_topics: Arc<DeletedTopics>,
}

impl Observer for Following {
    fn applied(&self, before: &Image, image: &Image, records: &[MetadataRecord]) {
        self.follower.follow(image, records, self.clock.now_ms());
        for record in records {
            if let MetadataRecord::RemoveTopic(removed) = record
                && let Some(topic) = before.topic_by_id(removed.topic_id)
            {
                self.deleted_topics.push(&topic.name, topic.id);
            }
        }
    }

    fn replaced(&self, image: &Image) {
        self.follower.catch_up(image, self.clock.now_ms());
    }
}

impl Controller {
    /// From here on `follower`, which has opened what the metadata `opened` place here, keeps up with them.
    pub fn follow(
        quorum: Arc<Quorum>,
        opened: &Published,
        follower: Follower,
        clock: Arc<dyn Clock>,
        deleted_topics: Arc<DeletedTopics>,
    ) -> Self {
        let following = Arc::new(Following { follower, clock, deleted_topics });
        let following = quorum.observe(|now| {
            // Opening logs may take long, and nothing waits for it.
            if now.last != opened.last {
                following.replaced(&now.image);
            }
            (following.clone() as Arc<dyn Observer>, following)
        });
        Self { quorum, following }
    }

    /// Whether the disk has room for changes of the metadata to come.
    pub fn has_room(&self) -> bool {
        self.quorum.has_room()
    }

    /// How far the metadata log has come. Waits for no change that is under way.
    pub fn progress(&self) -> Progress {
        self.quorum.progress()
    }

    /// Who the members of the quorum are; `None` unless this broker is the controller.
    pub fn members(&self) -> Option<Members> {
        self.quorum.members()
    }

    /// The metadata as they stand. Costs nothing and does not change under its holder.
    pub fn image(&self) -> Image {
        self.quorum.image()
    }

    /// Offset after the last entry that is in force here.
    pub fn applied_to(&self) -> i64 {
        self.quorum.published().end_offset()
    }

    /// Whether this is true of the metadata as they are.
    pub fn holds(&self, holds: impl FnOnce(&Published) -> bool) -> bool {
        holds(&self.quorum.published())
    }

    /// Waits, but not for long, for metadata of which `holds` is true: another broker has made the change, and it is on its way.
    pub async fn wait_until(&self, holds: impl FnMut(&Published) -> bool) {
        // Whoever waits looks himself then.
        tokio::time::timeout(CHANGE_MAX, self.quorum.wait_until(holds)).await.ok();
    }

    /// Waits until the metadata up to this offset are in force here.
    pub async fn wait_for(&self, end_offset: i64) {
        self.quorum.wait_until(|now| now.end_offset() >= end_offset).await;
    }

    /// Makes the change that `decide` asks for, and returns its reply once it is durable and in force.
    pub async fn propose<R>(
        &self,
        decide: impl Fn(&Image) -> Result<Decision<R>, DecisionError>,
    ) -> Result<R, ProposeError> {
        let proposed = self.quorum.propose(decide).await;
        proposed.inspect_err(|error| match error {
            ProposeError::Failed(_) | ProposeError::TimedOut => {
                tracing::error!(%error, "a metadata change failed");
            }
            _ => {}
        })
    }

    /// Takes the snapshot that time has made due.
    pub async fn snapshot_if_due(&self) {
        self.quorum.snapshot_if_due().await;
    }

    /// A log that could not be opened is out of the way: soon another one is begun in its place.
    pub fn open_anew(&self) {
        self.following.follower.open_anew();
    }

    /// Opens the logs that could not be opened for want of room or of file descriptors.
    pub fn open_what_is_missing(&self) {
        let Following { follower, clock, .. } = self.following.as_ref();
        // While a change is being made, the next round does it.
        self.quorum.between_changes(|image| follower.open_what_is_missing(image, clock.now_ms()));
    }

    /// Looks at a piece of the metadata log, from an offset on; returns where to go on, `None` at the end. If it is not what was
    /// written, it has failed.
    pub async fn scrub(&self, from: i64) -> Result<Option<i64>, QuorumError> {
        self.quorum.scrub(from).await
    }

    /// Waits until the metadata log has failed; the error says why.
    pub async fn failed(&self) -> QuorumError {
        self.quorum.failed().await
    }

    /// Takes no change any more, once the one under way is written, and gives the log of them to whoever closes it.
    pub async fn retire(&self) -> Option<PartitionLog> {
        self.quorum.retire().await
    }
}
