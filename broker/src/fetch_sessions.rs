//! Incremental fetch sessions (KIP-227): what a client reads is remembered, and it sends and gets only what changes.
//!
//! Pure: a cache with a bound, whose oldest unused session makes room. A session's epoch counts its requests; a client
//! that is out of step is told so and starts anew.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::api::fetch::{Seen, Wanted};

/// A session may be evicted for another client once it is this long without a request.
const EVICTABLE_AFTER_MS: i64 = 120_000;

/// Where a partition is in a session: by topic id where the client uses them, else by name.
pub type PartitionKey = (Arc<str>, uuid::Uuid, i32);

/// One client's session.
#[derive(Debug)]
struct Session {
    /// Epoch of the next request.
    next_epoch: i32,
    last_used_ms: i64,
    /// Whether its client speaks of topics by their ids, from version 13 on, or by their names.
    by_topic_id: bool,
    /// In the order in which the client named them.
    partitions: BTreeMap<u64, (Wanted, Option<Seen>)>,
    positions: HashMap<PartitionKey, u64>,
    next_position: u64,
}

/// What a fetch is to do about sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionUse {
    /// No session: all partitions are in the request, and all in the reply.
    None,
    /// A session that this request opened, or that it continues.
    Session { id: i32, new: bool },
}

/// Why a request does not fit its session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionError {
    NotFound,
    InvalidEpoch,
    /// The session was opened with topic ids, and the request has names, or the other way round (KIP-516).
    TopicIds,
}

#[derive(Debug)]
pub struct FetchSessions {
    slots: usize,
    sessions: HashMap<i32, Session>,
}

impl FetchSessions {
    /// Keeps at most `slots` sessions (`max.incremental.fetch.session.cache.slots`).
    pub fn new(slots: usize) -> Self {
        Self { slots, sessions: HashMap::new() }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a request in: finds, opens or closes its session, and returns the partitions that it reads, in order.
    /// `by_topic_id` says how it speaks of topics: a session takes one way only, for a partition that it knows by the one
    /// would be another by the other. `random` names a new session.
    pub fn request(
        &mut self,
        (id, epoch): (i32, i32),
        by_topic_id: bool,
        wanted: Vec<Wanted>,
        forgotten: &[PartitionKey],
        now_ms: i64,
        random: u128,
    ) -> Result<(SessionUse, Vec<Wanted>), SessionError> {
        match epoch {
            // The final request of a session, or one without: close what there is.
            -1 => {
                self.sessions.remove(&id);
                Ok((SessionUse::None, wanted))
            }
            0 => {
                self.sessions.remove(&id);
                Ok(match self.open(&wanted, by_topic_id, now_ms, random) {
                    Some(id) => (SessionUse::Session { id, new: true }, wanted),
                    None => (SessionUse::None, wanted),
                })
            }
            _ => {
                let session = self.sessions.get_mut(&id).ok_or(SessionError::NotFound)?;
                if session.by_topic_id != by_topic_id {
                    return Err(SessionError::TopicIds);
                }
                if session.next_epoch != epoch {
                    return Err(SessionError::InvalidEpoch);
                }
                session.next_epoch = if epoch == i32::MAX { 1 } else { epoch + 1 };
                session.last_used_ms = now_ms;
                session.update(wanted, forgotten);
                let all = session.partitions.values().map(|(wanted, _)| wanted.clone()).collect();
                Ok((SessionUse::Session { id, new: false }, all))
            }
        }
    }

    fn open(&mut self, wanted: &[Wanted], by_topic_id: bool, now_ms: i64, random: u128) -> Option<i32> {
        if self.slots == 0 || wanted.is_empty() {
            return None;
        }
        if self.sessions.len() >= self.slots {
            let (oldest, last_used_ms) = self
                .sessions
                .iter()
                .map(|(id, session)| (*id, session.last_used_ms))
                .min_by_key(|(id, used)| (*used, *id))?;
            if now_ms - last_used_ms < EVICTABLE_AFTER_MS {
                return None;
            }
            self.sessions.remove(&oldest);
        }
        let mut id = ((random as u32) & 0x7fff_ffff).max(1) as i32;
        while self.sessions.contains_key(&id) {
            id = if id == i32::MAX { 1 } else { id + 1 };
        }
        let mut session = Session {
            next_epoch: 1,
            last_used_ms: now_ms,
            by_topic_id,
            partitions: BTreeMap::new(),
            positions: HashMap::new(),
            next_position: 0,
        };
        session.update(wanted.to_vec(), &[]);
        self.sessions.insert(id, session);
        Some(id)
    }

    /// True when a session's client has not been told `seen` of this partition yet; remembers that it now is.
    /// Whatever carries records or an error is always sent.
    pub fn is_news(&mut self, id: i32, key: &PartitionKey, seen: Seen, always: bool) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return true };
        let Some(position) = session.positions.get(key).copied() else { return true };
        let Some((_, told)) = session.partitions.get_mut(&position) else { return true };
        let news = always || *told != Some(seen);
        *told = Some(seen);
        if always {
            // Partitions that gave something go to the back, so that the others get their turn (KIP-227).
            session.move_to_back(key, position);
        }
        news
    }
}

impl Session {
    fn update(&mut self, wanted: Vec<Wanted>, forgotten: &[PartitionKey]) {
        for wanted in wanted {
            let key = wanted.key();
            match self.positions.get(&key) {
                Some(position) => {
                    if let Some((known, _)) = self.partitions.get_mut(position) {
                        *known = wanted;
                    }
                }
                None => {
                    self.positions.insert(key, self.next_position);
                    self.partitions.insert(self.next_position, (wanted, None));
                    self.next_position += 1;
                }
            }
        }
        for key in forgotten {
            if let Some(position) = self.positions.remove(key) {
                self.partitions.remove(&position);
            }
        }
    }

    fn move_to_back(&mut self, key: &PartitionKey, position: u64) {
        if let Some(entry) = self.partitions.remove(&position) {
            self.partitions.insert(self.next_position, entry);
            self.positions.insert(key.clone(), self.next_position);
            self.next_position += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(name: &str, topic_id: u128) -> Vec<Wanted> {
        vec![Wanted {
            name: name.into(),
            topic_id: uuid::Uuid::from_u128(topic_id),
            partition: 0,
            fetch_offset: 10,
            max_bytes: 1,
            current_leader_epoch: -1,
            last_fetched_epoch: -1,
        }]
    }

    /// A client that learns a topic's id, or loses it at a broker's restart, changes from the one to the other.
    #[test]
    fn a_session_speaks_of_topics_by_name_or_by_id_and_never_both() {
        for opened_by_id in [true, false] {
            let mut sessions = FetchSessions::new(2);
            let (name, id) = if opened_by_id { ("", 7) } else { ("jobs", 0) };
            let opened = sessions.request((0, 0), opened_by_id, wanted(name, id), &[], 0, 5).unwrap();
            assert_eq!(opened.0, SessionUse::Session { id: 5, new: true });
            let (name, id) = if opened_by_id { ("jobs", 0) } else { ("", 7) };
            let mixed = sessions.request((5, 1), !opened_by_id, wanted(name, id), &[], 0, 0);
            assert_eq!(mixed.unwrap_err(), SessionError::TopicIds);
            let (_, all) = sessions.request((5, 1), opened_by_id, Vec::new(), &[], 0, 0).unwrap();
            assert_eq!(all.len(), 1, "the session is as it was");
        }
    }
}
