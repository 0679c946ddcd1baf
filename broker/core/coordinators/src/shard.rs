//! The coordinator of the groups of one `__consumer_offsets` partition.
//!
//! Durable state (`durable`, `offsets`) is what the log says: `replay` alone changes it, at load for every record of the
//! partition, live for the records of an append that became durable. So nothing unacknowledged is ever visible, and a
//! failed append needs no undoing there. What members do between two records (who has joined, who waits) is volatile,
//! lives in `groups` and is lost with the coordinator, as in Kafka.
//!
//! Order: `appended` first replays the records, then answers, then lets waiting members go on. Records that delete take
//! offsets that are still on their way into account (`offset_keys`), for they come earlier in the log.
mod admin;
mod expiration;
mod join;
mod offsets;
mod rebalance;
mod sync;

use crate::config::GroupConfig;
use crate::effect::Effect;
use crate::error::{AppendFailure, GroupError};
use crate::group::Group;
use crate::records::{self, CommittedOffset, GroupValue, Key, OffsetsRecord, RecordError};
use crate::requests::{GroupState, JoinReply, Reply};
use crate::timers::{Timer, Timers};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

type GroupOffsets = BTreeMap<(String, i32), CommittedOffset>;

#[derive(Debug)]
enum Then {
    Nothing,
    Reply {
        token: u64,
        reply: Reply,
    },
    /// The leader's assignment of this generation.
    Assign {
        group: String,
        generation: i32,
        assignments: BTreeMap<String, Bytes>,
    },
    /// A static member took another's place without a rebalance.
    Replaced {
        group: String,
        old_member: String,
        token: u64,
        reply: JoinReply,
    },
}

#[derive(Debug)]
struct Pending {
    records: Vec<OffsetsRecord>,
    then: Then,
}

/// Counts for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GroupCounts {
    pub groups: BTreeMap<GroupState, usize>,
    pub members: usize,
    pub offsets: usize,
}

/// One partition's groups. Commands return what to do; see [`Effect`].
#[derive(Debug)]
pub struct GroupShard {
    config: GroupConfig,
    durable: BTreeMap<String, GroupValue>,
    offsets: BTreeMap<String, GroupOffsets>,
    groups: BTreeMap<String, Group>,
    timers: Timers,
    pending: BTreeMap<u64, Pending>,
    next_append: u64,
    effects: Vec<Effect>,
}

impl GroupShard {
    /// An empty shard: `replay` the partition's records, then `finish_load`, before any command.
    pub fn new(config: GroupConfig) -> Self {
        Self {
            config,
            durable: BTreeMap::new(),
            offsets: BTreeMap::new(),
            groups: BTreeMap::new(),
            timers: Timers::default(),
            pending: BTreeMap::new(),
            next_append: 0,
            effects: Vec::new(),
        }
    }

    /// Applies one record of the log. Records of kinds that this broker does not know are stepped over.
    pub fn replay(&mut self, key: Bytes, value: Option<Bytes>) -> Result<(), RecordError> {
        match (records::decode_key(key)?, value) {
            (Key::Offset { group, topic, partition }, Some(value)) => {
                let committed = records::decode_offset(value)?;
                self.offsets.entry(group).or_default().insert((topic, partition), committed);
            }
            (Key::Offset { group, topic, partition }, None) => {
                if let Some(offsets) = self.offsets.get_mut(&group) {
                    offsets.remove(&(topic, partition));
                    if offsets.is_empty() {
                        self.offsets.remove(&group);
                    }
                }
            }
            (Key::Group { group }, Some(value)) => {
                self.durable.insert(group, records::decode_group(value)?);
            }
            (Key::Group { group }, None) => {
                self.durable.remove(&group);
            }
            (Key::Other, _) => {}
        }
        Ok(())
    }

    /// The log is replayed: its groups come to life and their members' sessions start anew.
    pub fn finish_load(&mut self, now_ms: i64) -> Vec<Effect> {
        for (name, value) in &self.durable {
            let group = Group::restored(value);
            for (id, member) in &group.members {
                let timer = Timer::Session { group: name.clone(), member: id.clone() };
                self.timers.set(timer, now_ms.saturating_add(i64::from(member.session_timeout_ms)));
            }
            self.groups.insert(name.clone(), group);
        }
        for name in self.offsets.keys() {
            self.groups.entry(name.clone()).or_insert_with(|| Group::new(now_ms));
        }
        self.timers
            .set(Timer::Expiration, now_ms.saturating_add(self.config.offsets_retention_check_interval_ms));
        std::mem::take(&mut self.effects)
    }

    /// The append is durable, or failed for good. Unknown ids are ignored.
    pub fn appended(&mut self, now_ms: i64, id: u64, outcome: Result<(), AppendFailure>) -> Vec<Effect> {
        let Some(Pending { records, then }) = self.pending.remove(&id) else { return Vec::new() };
        let failure = outcome.err().map(AppendFailure::error);
        if failure.is_none() {
            self.replay_own(now_ms, records);
        }
        match then {
            Then::Nothing => {}
            Then::Reply { token, reply } => self.reply(
                token,
                match failure {
                    None => reply,
                    Some(error) => reply.failed(error),
                },
            ),
            Then::Assign { group, generation, assignments } => {
                self.assigned(now_ms, &group, generation, assignments, failure)
            }
            Then::Replaced { group, old_member, token, reply } => {
                self.replaced(now_ms, &group, old_member, token, reply, failure)
            }
        }
        std::mem::take(&mut self.effects)
    }

    fn replay_own(&mut self, now_ms: i64, records: Vec<OffsetsRecord>) {
        let mut touched = BTreeSet::new();
        for record in records {
            if let Ok(Key::Offset { group, .. } | Key::Group { group }) =
                records::decode_key(record.key.clone())
            {
                touched.insert(group);
            }
            // We wrote the record: it decodes, as the round-trip test of `records` holds.
            let read = self.replay(record.key, record.value);
            debug_assert!(read.is_ok(), "a record of our own must decode");
        }
        for name in touched {
            let held = self.durable.contains_key(&name) || self.offsets.contains_key(&name);
            if held {
                let value = self.durable.get(&name);
                self.groups
                    .entry(name)
                    .or_insert_with(|| value.map_or_else(|| Group::new(now_ms), Group::restored));
            } else if self.groups.get(&name).is_some_and(Group::has_no_one) {
                self.groups.remove(&name);
            }
        }
    }

    /// When `tick` has something to do next.
    pub fn next_deadline(&self) -> Option<i64> {
        self.timers.next()
    }

    /// Does what is due.
    pub fn tick(&mut self, now_ms: i64) -> Vec<Effect> {
        while let Some(timer) = self.timers.pop_due(now_ms) {
            match timer {
                Timer::Session { group, member } => self.session_expired(now_ms, &group, &member),
                Timer::Join { group } => self.with_group(&group, |shard, group, name| {
                    shard.join_phase_due(now_ms, name, group);
                }),
                Timer::Sync { group } => self.with_group(&group, |shard, group, name| {
                    shard.sync_phase_due(now_ms, name, group);
                }),
                Timer::Expiration => {
                    self.expire_offsets(now_ms);
                    // At least a millisecond on, or a zero interval would never let the tick end.
                    let interval = self.config.offsets_retention_check_interval_ms.max(1);
                    self.timers.set(Timer::Expiration, now_ms.saturating_add(interval));
                }
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// The partition moves away: everyone who waits is told to look for the coordinator. The shard is empty afterwards.
    pub fn unload(&mut self) -> Vec<Effect> {
        for group in std::mem::take(&mut self.groups).into_values() {
            for (id, member) in group.members {
                self.answer_waiting(
                    &id,
                    member.awaiting_join,
                    member.awaiting_sync,
                    GroupError::NotCoordinator,
                );
            }
        }
        for pending in std::mem::take(&mut self.pending).into_values() {
            match pending.then {
                Then::Reply { token, reply } => self.reply(token, reply.failed(GroupError::NotCoordinator)),
                Then::Replaced { token, reply, .. } => {
                    self.reply(token, Reply::Join(reply).failed(GroupError::NotCoordinator));
                }
                Then::Nothing | Then::Assign { .. } => {}
            }
        }
        self.durable.clear();
        self.offsets.clear();
        self.timers.clear();
        std::mem::take(&mut self.effects)
    }

    /// Counts for metrics; walks every group.
    pub fn counts(&self) -> GroupCounts {
        let mut counts = GroupCounts::default();
        for group in self.groups.values() {
            *counts.groups.entry(group.state).or_default() += 1;
            counts.members += group.members.len();
        }
        counts.offsets = self.offsets.values().map(BTreeMap::len).sum();
        counts
    }

    fn reply(&mut self, token: u64, reply: Reply) {
        self.effects.push(Effect::Reply { token, reply });
    }

    fn done(&mut self, token: u64, reply: Reply) -> Vec<Effect> {
        self.reply(token, reply);
        std::mem::take(&mut self.effects)
    }

    fn append(&mut self, records: Vec<OffsetsRecord>, then: Then) {
        let id = self.next_append;
        self.next_append += 1;
        self.pending.insert(id, Pending { records: records.clone(), then });
        self.effects.push(Effect::Append { id, records });
    }

    fn answer_waiting(&mut self, id: &str, join: Option<u64>, sync: Option<u64>, error: GroupError) {
        if let Some(token) = join {
            self.reply(token, JoinReply::refused(error, id));
        }
        if let Some(token) = sync {
            self.reply(token, Reply::Sync(Err(error)));
        }
    }

    /// Lends the group to `act`, taken out of the map meanwhile; nothing happens where there is none. A group that has
    /// no one and no records afterwards is forgotten.
    fn with_group(&mut self, name: &str, act: impl FnOnce(&mut Self, &mut Group, &str)) {
        let Some(mut group) = self.groups.remove(name) else { return };
        act(self, &mut group, name);
        let held = self.durable.contains_key(name) || self.offsets.contains_key(name);
        if held || !group.has_no_one() || group.state != GroupState::Empty {
            self.groups.insert(name.to_owned(), group);
        }
    }

    fn group_id_error(&self, group_id: &str, empty_allowed: bool) -> Option<GroupError> {
        let fits = group_id.len() <= self.config.id_bytes_max && (empty_allowed || !group_id.is_empty());
        (!fits).then_some(GroupError::InvalidGroupId)
    }

    /// The group's offsets, stored or on their way into the log.
    fn offset_keys(&self, name: &str) -> BTreeSet<(String, i32)> {
        let mut keys: BTreeSet<_> =
            self.offsets.get(name).into_iter().flat_map(BTreeMap::keys).cloned().collect();
        for record in self.pending.values().flat_map(|pending| &pending.records) {
            if let Ok(Key::Offset { group, topic, partition }) = records::decode_key(record.key.clone())
                && group == name
                && record.value.is_some()
            {
                keys.insert((topic, partition));
            }
        }
        keys
    }
}

#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
