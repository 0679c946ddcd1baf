//! Who waits for a partition's offsets to move.

use std::collections::VecDeque;
use std::sync::Arc;

use tokio::sync::{Notify, oneshot};

use super::{Partition, PartitionKey};
use crate::replication::sessions::News;

/// Why an append that was accepted was not made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the log could not be flushed; its directory is offline")]
pub struct FlushFailed;

/// Resolves once the awaited records are where they were awaited; fails where they never will be.
pub type Awaited = oneshot::Receiver<Result<(), FlushFailed>>;

/// Offsets that are waited for (exclusive ends), in their order, and who waits.
#[derive(Debug, Default)]
pub(super) struct Waiting(VecDeque<(i64, oneshot::Sender<Result<(), FlushFailed>>)>);

impl Waiting {
    pub(super) fn wait_for(&mut self, end: i64) -> Awaited {
        let (sender, receiver) = oneshot::channel();
        // A batch that is sent again is waited for at its old place.
        let place = self.0.partition_point(|(offset, _)| *offset <= end);
        self.0.insert(place, (end, sender));
        receiver
    }

    /// Tells those who waited for what has been reached.
    pub(super) fn reached(&mut self, end: i64) {
        while self.0.front().is_some_and(|(offset, _)| *offset <= end) {
            if let Some((_, sender)) = self.0.pop_front() {
                // A waiter that has given up meanwhile needs no answer.
                sender.send(Ok(())).ok();
            }
        }
    }

    /// Tells all that it does not come now.
    pub(super) fn fail(&mut self) {
        for (_, sender) in self.0.drain(..) {
            sender.send(Err(FlushFailed)).ok();
        }
    }

    /// Lets all know, by dropping them, that it comes from elsewhere if at all.
    pub(super) fn dismiss(&mut self) {
        self.0.clear();
    }
}

/// What a reader waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Watched {
    /// The high watermark has moved.
    Committed,
    /// Another leads, or the partition is gone.
    Turned,
}

#[derive(Debug)]
struct Reader {
    id: u64,
    told: Told,
}

/// Who is told, and of what.
#[derive(Debug)]
enum Told {
    When(Watched, Arc<Notify>),
    /// A follower: of everything, of what it waits for at once.
    Follower(PartitionKey, Arc<News>),
}

/// Who is to be woken when there may be more to read.
#[derive(Debug, Default)]
pub(super) struct Readers {
    all: Vec<Reader>,
    next: u64,
}

impl Readers {
    pub(super) fn add(&mut self, what: Watched, wake: &Arc<Notify>) -> u64 {
        self.push(Told::When(what, wake.clone()))
    }

    pub(super) fn add_follower(&mut self, key: PartitionKey, news: &Arc<News>) -> u64 {
        self.push(Told::Follower(key, news.clone()))
    }

    fn push(&mut self, told: Told) -> u64 {
        let id = self.next;
        self.next += 1;
        self.all.push(Reader { id, told });
        id
    }

    fn remove(&mut self, id: u64) {
        if let Some(index) = self.all.iter().position(|reader| reader.id == id) {
            self.all.swap_remove(index);
        }
    }

    /// The high watermark has moved. Followers are told with the next records, unless they have readers of their own that wait.
    pub(super) fn committed(&self, is_read_elsewhere: bool) {
        for reader in &self.all {
            match &reader.told {
                Told::When(Watched::Committed, wake) => wake.notify_one(),
                Told::When(Watched::Turned, _) => {}
                Told::Follower(key, news) if is_read_elsewhere => news.answer_with(*key),
                Told::Follower(key, news) => news.tell(*key),
            }
        }
    }

    /// The log begins elsewhere. Somebody may wait until that is so on every replica (KIP-107).
    pub(super) fn log_start_moved(&self) {
        self.followers().for_each(|(key, news)| news.answer_with(key));
    }

    /// More is in the tier. No follower waits for that.
    pub(super) fn tiered_end_moved(&self) {
        self.followers().for_each(|(key, news)| news.tell(key));
    }

    /// There are more records for followers.
    pub(super) fn appended(&self) {
        self.followers().for_each(|(key, news)| news.tell_now(key));
    }

    fn followers(&self) -> impl Iterator<Item = (PartitionKey, &News)> {
        self.all.iter().filter_map(|reader| match &reader.told {
            Told::Follower(key, news) => Some((*key, news.as_ref())),
            Told::When(..) => None,
        })
    }

    pub(super) fn wake_all(&self) {
        for reader in &self.all {
            match &reader.told {
                Told::When(_, wake) => wake.notify_one(),
                Told::Follower(key, news) => news.tell_now(*key),
            }
        }
    }
}

/// A reader's wish to be woken; taken back when dropped.
#[derive(Debug)]
pub struct Watch {
    pub(super) partition: Arc<Partition>,
    pub(super) id: u64,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.partition.state.lock().readers.remove(self.id);
    }
}
