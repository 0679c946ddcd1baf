//! What followers fetch from here, one fetch session (KIP-227) for each of their brokers.
//!
//! A follower names a partition again when something has changed on its side, and is told of one when something has here: what
//! a request costs goes by what has changed, not by how many partitions are followed.

use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{Notify, OwnedMutexGuard};

use crate::fetch_sessions::{SessionError, next_epoch};
use crate::partition::{Offsets, Partition, PartitionKey, ReplicaFetch, Watch};

/// The sessions, by the follower's broker id. Another one of the same broker takes the place of the first.
#[derive(Debug, Default)]
pub struct ReplicaSessions(Mutex<BTreeMap<i32, Session>>);

#[derive(Debug, Clone)]
struct Session {
    id: i32,
    news: Arc<News>,
    followed: Arc<tokio::sync::Mutex<Followed>>,
}

/// What one session's follower follows here.
#[derive(Debug, Default)]
pub struct Followed {
    next_epoch: i32,
    pub partitions: BTreeMap<PartitionKey, FollowedPartition>,
    /// There is more of these than there was room for in a reply.
    pub left_over: VecDeque<PartitionKey>,
}

#[derive(Debug)]
pub struct FollowedPartition {
    pub partition: Arc<Partition>,
    pub fetch: ReplicaFetch,
    pub bytes_max: usize,
    /// What it was told of the offsets.
    pub told: Option<Offsets>,
    /// Brings the session its news.
    pub watch: Watch,
}

/// A session while a request of it is answered.
#[derive(Debug)]
pub struct InUse {
    /// 0 for none, of which nothing is kept.
    pub id: i32,
    pub news: Arc<News>,
    pub followed: OwnedMutexGuard<Followed>,
}

impl ReplicaSessions {
    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.lock().is_empty()
    }

    /// Finds the session of a request, or opens one; `random` is asked for its name.
    pub fn request(
        &self,
        follower: i32,
        (id, epoch): (i32, i32),
        random: impl FnOnce() -> u128,
    ) -> Result<InUse, SessionError> {
        let mut sessions = self.0.lock();
        let session = match epoch {
            0 | -1 => {
                if let Some(before) = sessions.remove(&follower) {
                    before.news.answer_now();
                }
                // Of the random bits only so many make an id: positive, as all are.
                let id = if epoch == 0 { ((random() as u32) & 0x7fff_ffff).max(1) as i32 } else { 0 };
                let session = Session { id, news: Arc::default(), followed: Arc::default() };
                if epoch == 0 {
                    sessions.insert(follower, session.clone());
                }
                session
            }
            _ => {
                sessions.get(&follower).filter(|found| found.id == id).ok_or(SessionError::NotFound)?.clone()
            }
        };
        // One request after another: who sends a second before the answer to the first is out of step.
        let mut followed = session.followed.try_lock_owned().map_err(|_| SessionError::InvalidEpoch)?;
        if epoch > 0 && followed.next_epoch != epoch {
            return Err(SessionError::InvalidEpoch);
        }
        followed.next_epoch = next_epoch(epoch);
        Ok(InUse { id: session.id, news: session.news, followed })
    }

    /// The follower has more to ask for: what it waits for is answered at once.
    pub fn answer_now(&self, follower: i32) {
        if let Some(session) = self.0.lock().get(&follower) {
            session.news.answer_now();
        }
    }
}

/// Partitions of a session of which there may be something to tell.
#[derive(Debug, Default)]
pub struct News {
    pending: Mutex<Pending>,
    due: Notify,
}

#[derive(Debug, Default)]
struct Pending {
    queue: Queue,
    is_due: bool,
    answer_now: bool,
}

impl News {
    /// To be told with the next reply, whenever that leaves.
    pub fn tell(&self, key: PartitionKey) {
        self.pending.lock().queue.push(key);
    }

    /// To be told as soon as it makes an answer: records, or why there are none.
    pub fn tell_now(&self, key: PartitionKey) {
        let mut pending = self.pending.lock();
        pending.queue.push(key);
        pending.is_due = true;
        drop(pending);
        self.due.notify_one();
    }

    /// To be told at once, though it may be no records.
    pub fn answer_with(&self, key: PartitionKey) {
        self.tell(key);
        self.answer_now();
    }

    /// The waiting request is answered, whatever there is.
    pub fn answer_now(&self) {
        let mut pending = self.pending.lock();
        pending.is_due = true;
        pending.answer_now = true;
        drop(pending);
        self.due.notify_one();
    }

    /// What has come since the last call, and whether an answer is asked for whatever there is.
    pub fn take(&self) -> (VecDeque<PartitionKey>, bool) {
        let mut pending = std::mem::take(&mut *self.pending.lock());
        (pending.queue.take(), pending.answer_now)
    }

    pub async fn until_due(&self) {
        while !self.pending.lock().is_due {
            self.due.notified().await;
        }
    }
}

/// Partitions in the order in which they came, each once.
#[derive(Debug, Default)]
pub struct Queue {
    order: VecDeque<PartitionKey>,
    all: HashSet<PartitionKey>,
}

impl Queue {
    pub fn push(&mut self, key: PartitionKey) {
        if self.all.insert(key) {
            self.order.push_back(key);
        }
    }

    pub fn take(&mut self) -> VecDeque<PartitionKey> {
        self.all.clear();
        std::mem::take(&mut self.order)
    }

    pub fn contains(&self, key: &PartitionKey) -> bool {
        self.all.contains(key)
    }

    pub fn is_empty(&self) -> bool {
        self.order.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use firn_model::ids::TopicId;
    use uuid::Uuid;

    use super::*;

    fn key(index: i32) -> PartitionKey {
        (TopicId(Uuid::from_u128(1)), index)
    }

    async fn is_due(news: &News) -> bool {
        tokio::time::timeout(Duration::from_millis(1), news.until_due()).await.is_ok()
    }

    #[tokio::test]
    async fn news_are_told_once_and_wait_unless_they_are_waited_for() {
        let news = News::default();
        for index in [2, 1, 2] {
            news.tell(key(index));
        }
        assert!(!is_due(&news).await);
        news.tell_now(key(1));
        assert!(is_due(&news).await && is_due(&news).await, "until they are taken");
        assert_eq!(news.take(), (VecDeque::from([key(2), key(1)]), false));
        assert!(!is_due(&news).await);
        news.answer_now();
        assert!(is_due(&news).await);
        assert_eq!(news.take(), (VecDeque::new(), true));
        news.tell(key(2));
        assert_eq!(news.take(), (VecDeque::from([key(2)]), false), "it was taken, and has come again");
    }

    #[test]
    fn a_broker_has_one_session_and_asks_one_thing_after_the_other() {
        let sessions = ReplicaSessions::default();
        let opened = sessions.request(7, (0, 0), || 5).unwrap();
        assert_eq!(opened.id, 5);
        assert_eq!(
            sessions.request(7, (5, 1), || 0).unwrap_err(),
            SessionError::InvalidEpoch,
            "not answered"
        );
        drop(opened);
        assert_eq!(sessions.request(7, (5, 2), || 0).unwrap_err(), SessionError::InvalidEpoch);
        assert_eq!(
            sessions.request(8, (5, 1), || 0).unwrap_err(),
            SessionError::NotFound,
            "another broker's"
        );
        let waits = sessions.request(7, (5, 1), || 0).unwrap();
        let anew = sessions.request(7, (5, 0), || 6).unwrap();
        assert_eq!((anew.id, waits.news.take().1), (6, true), "the one before is answered and forgotten");
        drop((waits, anew));
        assert_eq!(sessions.request(7, (5, 2), || 0).unwrap_err(), SessionError::NotFound);
        assert_eq!(sessions.request(7, (6, 1), || 0).unwrap().id, 6);
        assert_eq!(sessions.request(7, (6, -1), || 0).unwrap().id, 0, "closed by its last request");
        assert!(sessions.is_empty());
    }
}
