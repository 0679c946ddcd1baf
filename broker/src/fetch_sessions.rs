//! Incremental fetch sessions (KIP-227): what a client reads is remembered, and it sends and gets only what changes.
//!
//! Pure: a cache with bounds on its sessions and on their bytes, whose oldest unused session makes room. A session's epoch
//! counts its requests; a client that is out of step is told so and starts anew, and one for whose partitions there is no
//! room goes on without a session.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::api::fetch::{Seen, Wanted};

/// A session may be evicted for another client once it is this long without a request.
const EVICTABLE_AFTER_MS: i64 = 120_000;

/// What a partition costs beyond its topic's name: its place in both maps.
const PARTITION_BYTES: usize = 256;

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
    /// What the partitions take of the memory.
    bytes: usize,
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
    bytes_max: usize,
    sessions: HashMap<i32, Session>,
    /// What all sessions take of the memory.
    bytes: usize,
}

impl FetchSessions {
    /// Keeps at most `slots` sessions (`max.incremental.fetch.session.cache.slots`), which take about `bytes_max` bytes
    /// of memory together.
    pub fn new(slots: usize, bytes_max: usize) -> Self {
        Self { slots, bytes_max, sessions: HashMap::new(), bytes: 0 }
    }

    pub fn len(&self) -> usize {
        self.sessions.len()
    }

    pub fn is_empty(&self) -> bool {
        self.sessions.is_empty()
    }

    /// Takes a request in: finds, opens or closes its session, and returns the partitions that it reads, in order.
    /// `by_topic_id` says how it speaks of topics: a session takes one way only, for a partition that it knows by the one
    /// would be another by the other. `random` is asked for a new session's name.
    pub fn request(
        &mut self,
        (id, epoch): (i32, i32),
        by_topic_id: bool,
        wanted: Vec<Wanted>,
        forgotten: &[PartitionKey],
        now_ms: i64,
        random: impl FnOnce() -> u128,
    ) -> Result<(SessionUse, Vec<Wanted>), SessionError> {
        match epoch {
            // The final request of a session, or one without: close what there is.
            -1 => {
                self.close(id);
                Ok((SessionUse::None, wanted))
            }
            0 => {
                self.close(id);
                Ok(match self.open(&wanted, by_topic_id, now_ms, random()) {
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
                session.next_epoch = next_epoch(epoch);
                session.last_used_ms = now_ms;
                let before = session.bytes;
                session.update(wanted, forgotten);
                self.bytes = self.bytes - before + session.bytes;
                if session.bytes > before && self.bytes > self.bytes_max {
                    self.close(id);
                    return Err(SessionError::NotFound);
                }
                let all: Vec<_> = session.partitions.values().map(|(wanted, _)| wanted.clone()).collect();
                if all.is_empty() {
                    self.close(id);
                    return Ok((SessionUse::None, all));
                }
                Ok((SessionUse::Session { id, new: false }, all))
            }
        }
    }

    fn close(&mut self, id: i32) {
        if let Some(session) = self.sessions.remove(&id) {
            self.bytes -= session.bytes;
        }
    }

    fn open(&mut self, wanted: &[Wanted], by_topic_id: bool, now_ms: i64, random: u128) -> Option<i32> {
        let bytes: usize = wanted.iter().map(cost).sum();
        if self.slots == 0 || wanted.is_empty() || bytes > self.bytes_max {
            return None;
        }
        while self.sessions.len() >= self.slots || self.bytes + bytes > self.bytes_max {
            let (oldest, last_used_ms) = self
                .sessions
                .iter()
                .map(|(id, session)| (*id, session.last_used_ms))
                .min_by_key(|(id, used)| (*used, *id))?;
            if now_ms - last_used_ms < EVICTABLE_AFTER_MS {
                return None;
            }
            self.close(oldest);
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
            bytes: 0,
        };
        session.update(wanted.to_vec(), &[]);
        self.bytes += session.bytes;
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

/// Of a session's next request. After the greatest comes 1: 0 opens a session.
pub fn next_epoch(epoch: i32) -> i32 {
    if epoch == i32::MAX { 1 } else { epoch + 1 }
}

fn cost(wanted: &Wanted) -> usize {
    PARTITION_BYTES + wanted.name.len()
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
                    self.bytes += cost(&wanted);
                    self.positions.insert(key, self.next_position);
                    self.partitions.insert(self.next_position, (wanted, None));
                    self.next_position += 1;
                }
            }
        }
        for key in forgotten {
            let position = self.positions.remove(key);
            if let Some((gone, _)) = position.and_then(|position| self.partitions.remove(&position)) {
                self.bytes -= cost(&gone);
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

    #[test]
    fn sessions_share_a_memory_that_idle_ones_give_back() {
        let room = 3 * (PARTITION_BYTES + 1);
        let mut sessions = FetchSessions::new(100, room);
        let two = [wanted("a", 0), wanted("b", 0)].concat();
        let opened = |taken: Result<(SessionUse, Vec<Wanted>), SessionError>| match taken.unwrap().0 {
            SessionUse::Session { id, .. } => Some(id),
            SessionUse::None => None,
        };
        assert_eq!(opened(sessions.request((0, 0), false, two.clone(), &[], 0, || 1)), Some(1));
        assert_eq!(opened(sessions.request((0, 0), false, two.clone(), &[], 0, || 2)), None, "no room");
        assert_eq!(opened(sessions.request((0, 0), false, wanted("a", 0), &[], 0, || 3)), Some(3));
        let more = sessions.request((3, 1), false, wanted("b", 0), &[], 0, || 0);
        assert_eq!(more.unwrap_err(), SessionError::NotFound, "it begins anew, without a session");
        assert_eq!(sessions.bytes, 2 * (PARTITION_BYTES + 1));
        let later = EVICTABLE_AFTER_MS;
        assert_eq!(opened(sessions.request((0, 0), false, two.clone(), &[], later, || 4)), Some(4));
        let swapped = sessions.request((4, 1), false, wanted("c", 0), &[two[0].key()], later, || 0).unwrap();
        assert_eq!(swapped.1.len(), 2);
        sessions.request((4, -1), false, Vec::new(), &[], later, || 0).unwrap();
        assert_eq!((sessions.bytes, sessions.len()), (0, 0));
    }

    /// A client that learns a topic's id, or loses it at a broker's restart, changes from the one to the other.
    #[test]
    fn a_session_speaks_of_topics_by_name_or_by_id_and_never_both() {
        for opened_by_id in [true, false] {
            let mut sessions = FetchSessions::new(2, 1 << 20);
            let (name, id) = if opened_by_id { ("", 7) } else { ("jobs", 0) };
            let opened = sessions.request((0, 0), opened_by_id, wanted(name, id), &[], 0, || 5).unwrap();
            assert_eq!(opened.0, SessionUse::Session { id: 5, new: true });
            let (name, id) = if opened_by_id { ("jobs", 0) } else { ("", 7) };
            let mixed = sessions.request((5, 1), !opened_by_id, wanted(name, id), &[], 0, || 0);
            assert_eq!(mixed.unwrap_err(), SessionError::TopicIds);
            let (_, all) = sessions.request((5, 1), opened_by_id, Vec::new(), &[], 0, || 0).unwrap();
            assert_eq!(all.len(), 1, "the session is as it was");
        }
    }
}
