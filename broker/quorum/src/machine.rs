//! The state that the entries make: the image, and who the members are.
//!
//! It lies in memory; what a start finds are the newest snapshot and the entries after it. Whoever acts on the metadata
//! (opens logs, takes up leadership) is told of each change in order, before its reply and before anybody can read it.

use std::fmt::Debug;
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use firn_metadata::image::Image;
use firn_metadata::record::MetadataRecord;
use futures_util::{Stream, StreamExt};
use openraft::entry::RaftEntry;
use openraft::storage::{EntryResponder, RaftStateMachine, Snapshot, SnapshotMeta};
use openraft::type_config::alias::SnapshotMetaOf;
use openraft::{EntryPayload, OptionalSend, RaftSnapshotBuilder};
use parking_lot::Mutex;
use tokio::sync::watch;

use crate::error::QuorumError;
use crate::log_store::{Found, LogStore};
use crate::snapshot::{self, Content, SnapshotId};
use crate::types::{Change, Entry, LogId, Outcome, StoredMembership, Types};

/// Entries that are applied in one go, if so many are at hand.
const ENTRIES_AT_A_TIME: usize = 256;

/// Acts on the metadata. Calls come in the order of the entries, one at a time, on a thread that may block.
pub trait Observer: Send + Sync + Debug {
    /// `records` have been applied and made `image` of `before`.
    fn applied(&self, before: &Image, image: &Image, records: &[MetadataRecord]);

    /// `image` takes the place of an older one; what lies between is not known.
    fn replaced(&self, image: &Image);
}

/// The state machine. A clone is another handle to the same state.
#[derive(Debug, Clone)]
pub struct Machine {
    store: LogStore,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    /// Held while an entry is applied, observers included.
    applied: Mutex<Applied>,
    /// What everybody reads.
    published: watch::Sender<Published>,
}

#[derive(Debug)]
struct Applied {
    content: Content,
    last: Option<LogId>,
    observer: Option<Arc<dyn Observer>>,
    /// Nothing is applied any more.
    closed: bool,
}

/// The image, and the entry that it is of.
#[derive(Debug, Clone)]
pub struct Published {
    pub image: Image,
    /// `None` before the first entry.
    pub last: Option<LogId>,
}

impl Published {
    /// Offset after the last entry that is in force.
    pub fn end_offset(&self) -> i64 {
        self.last.map_or(0, |last| last.index() as i64 + 1)
    }
}

impl Machine {
    pub fn new(found: &Found) -> Self {
        let published = Published { image: found.content.image.clone(), last: found.last };
        let applied =
            Applied { content: found.content.clone(), last: found.last, observer: None, closed: false };
        let state = State { applied: Mutex::new(applied), published: watch::Sender::new(published) };
        Self { store: found.store.clone(), state: Arc::new(state) }
    }

    /// The image as it stands. Costs nothing and does not change under its holder.
    pub fn published(&self) -> Published {
        self.state.published.borrow().clone()
    }

    /// Waits for metadata of which `holds` is true.
    pub async fn wait_until(&self, holds: impl FnMut(&Published) -> bool) {
        let mut published = self.state.published.subscribe();
        // What publishes does not end before this does.
        published.wait_for(holds).await.ok();
    }

    /// Lets `begin` act on the metadata as they are, and the observer that it returns on each change from there on. Changes
    /// wait meanwhile.
    pub fn observe<T>(&self, begin: impl FnOnce(&Published) -> (Arc<dyn Observer>, T)) -> T {
        let mut applied = self.state.applied.lock();
        let now = Published { image: applied.content.image.clone(), last: applied.last };
        let (observer, begun) = begin(&now);
        applied.observer = Some(observer);
        begun
    }

    /// Waits for the change that is being applied, if one is, and lets no other in. Blocks.
    pub(crate) fn close(&self) {
        let mut applied = self.state.applied.lock();
        applied.closed = true;
        applied.observer = None;
    }

    /// Does something that changes must wait for; `None`, and nothing, while one is being made.
    pub fn between_changes<T>(&self, work: impl FnOnce(&Image) -> T) -> Option<T> {
        let applied = self.state.applied.try_lock()?;
        Some(work(&applied.content.image))
    }
}

impl State {
    fn publish(&self, applied: &Applied) {
        self.published.send_replace(Published { image: applied.content.image.clone(), last: applied.last });
    }

    fn apply(&self, store: &LogStore, entries: Vec<EntryResponder<Types>>) -> Result<(), QuorumError> {
        let mut applied = self.applied.lock();
        if applied.closed {
            return Err(QuorumError::Closed);
        }
        for (entry, responder) in entries {
            let outcome = applied.apply(entry)?;
            store.agree_on(applied.last);
            self.publish(&applied);
            if let Some(responder) = responder {
                responder.send(outcome);
            }
        }
        Ok(())
    }
}

impl Applied {
    fn apply(&mut self, entry: Entry) -> Result<Outcome, QuorumError> {
        let index = entry.index();
        let log_id = entry.log_id;
        let outcome = match entry.payload {
            EntryPayload::Blank => Outcome::Applied,
            EntryPayload::Membership(membership) => {
                self.content.members = StoredMembership::new(Some(log_id), membership);
                Outcome::Applied
            }
            EntryPayload::Normal(change) if change.after + 1 == index => {
                self.change(&change).map_err(|reason| QuorumError::Entry { index: index as i64, reason })?;
                Outcome::Applied
            }
            EntryPayload::Normal(_) => Outcome::Stale,
        };
        self.last = Some(log_id);
        Ok(outcome)
    }

    fn change(&mut self, change: &Change) -> Result<(), String> {
        let before = self.content.image.clone();
        self.content.image.apply_all(&change.records).map_err(|error| error.to_string())?;
        if let Some(observer) = &self.observer {
            observer.applied(&before, &self.content.image, &change.records);
        }
        Ok(())
    }
}

fn meta(last: Option<LogId>, members: StoredMembership) -> SnapshotMetaOf<Types> {
    SnapshotMeta { last_log_id: last, last_membership: members }
}

impl RaftStateMachine<Types> for Machine {
    type SnapshotData = Bytes;
    type SnapshotBuilder = Builder;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let state = self.state.clone();
        Ok(firn_blocking::run(move || {
            let applied = state.applied.lock();
            (applied.last, applied.content.members.clone())
        })
        .await)
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<Types>, io::Error>> + Unpin + OptionalSend,
    {
        let mut at_hand = entries.ready_chunks(ENTRIES_AT_A_TIME);
        while let Some(entries) = at_hand.next().await {
            let entries = entries.into_iter().collect::<Result<Vec<_>, _>>()?;
            let (store, state) = (self.store.clone(), self.state.clone());
            firn_blocking::run(move || state.apply(&store, entries)).await?;
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> Builder {
        let (store, state) = (self.store.clone(), self.state.clone());
        firn_blocking::run(move || {
            let applied = state.applied.lock();
            Builder { store, content: applied.content.clone(), last: applied.last }
        })
        .await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMetaOf<Types>,
        bytes: Bytes,
    ) -> Result<(), io::Error> {
        let (state, last) = (self.state.clone(), meta.last_log_id);
        let install = move |store: &LogStore| {
            let content = snapshot::decode(&bytes).map_err(|reason| {
                let index = last.map_or(-1, |last| last.index() as i64);
                QuorumError::Entry { index, reason: format!("the snapshot up to here is damaged: {reason}") }
            })?;
            store.keep_snapshot(SnapshotId::of(last), &bytes)?;
            let mut applied = state.applied.lock();
            applied.content = content;
            applied.last = last;
            if let Some(observer) = &applied.observer {
                observer.replaced(&applied.content.image);
            }
            state.publish(&applied);
            Ok(())
        };
        Ok(self.store.persist("a snapshot", install).await?)
    }

    async fn get_current_snapshot(
        &mut self,
    ) -> Result<Option<openraft::type_config::alias::SnapshotOf<Types, Bytes>>, io::Error> {
        let newest = self.store.persist("a look for a snapshot", LogStore::newest_snapshot).await?;
        Ok(newest.map(|(id, bytes, content)| Snapshot {
            meta: meta(id.last(), content.members),
            snapshot: bytes.into(),
        }))
    }
}

/// Writes a snapshot of the state as it was when this was made.
#[derive(Debug)]
pub struct Builder {
    store: LogStore,
    content: Content,
    last: Option<LogId>,
}

impl RaftSnapshotBuilder<Types> for Builder {
    type SnapshotData = Bytes;

    async fn build_snapshot(
        &mut self,
    ) -> Result<openraft::type_config::alias::SnapshotOf<Types, Bytes>, io::Error> {
        let (content, last) = (self.content.clone(), self.last);
        let build = move |store: &LogStore| {
            let bytes = Bytes::from(snapshot::encode(&content, store.now_ms())?);
            store.keep_snapshot(SnapshotId::of(last), &bytes)?;
            Ok(Snapshot { meta: meta(last, content.members.clone()), snapshot: bytes })
        };
        Ok(self.store.persist("a snapshot", build).await?)
    }
}
