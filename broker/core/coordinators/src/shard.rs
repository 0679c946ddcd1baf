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
mod replace;
mod sync;

use crate::config::GroupConfig;
use crate::effect::Effect;
use crate::error::{AppendFailure, GroupError};
use crate::group::Group;
use crate::records::{self, CommittedOffset, GroupValue, Key, OffsetsRecord, RecordError};
use crate::requests::{GroupState, JoinReply, Reply};
use crate::shard::replace::Replacement;
use crate::timers::{Timer, Timers};
use bytes::Bytes;
use firn_model::ids::TopicId;
use std::collections::BTreeMap;

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
        replacement: Replacement,
    },
    /// Groups that show Dead until their tombstones are stored.
    Deleted {
        groups: Vec<String>,
        token: u64,
        reply: Reply,
    },
}

#[derive(Debug)]
struct Pending {
    groups: Vec<String>,
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
    /// What the members of all of them take of the memory.
    members_bytes: usize,
    timers: Timers,
    pending: BTreeMap<u64, Pending>,
    /// How many pending appends hold records of each group.
    in_flight: BTreeMap<String, usize>,
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
            members_bytes: 0,
            timers: Timers::default(),
            pending: BTreeMap::new(),
            in_flight: BTreeMap::new(),
            next_append: 0,
            effects: Vec::new(),
        }
    }

    /// What members of its groups, and ids that members were given, take of the memory, roughly.
    pub fn members_bytes(&self) -> usize {
        self.members_bytes
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
            self.members_bytes += group.bytes();
            self.groups.insert(name.clone(), group);
        }
        for name in self.offsets.keys() {
            self.groups.entry(name.clone()).or_insert_with(|| Group::new(now_ms));
        }
        for name in self.groups.keys().cloned().collect::<Vec<_>>() {
            self.schedule_expiration(now_ms, &name);
        }
        std::mem::take(&mut self.effects)
    }

    /// The append is durable, or failed for good. Unknown ids are ignored.
    pub fn appended(&mut self, now_ms: i64, id: u64, outcome: Result<(), AppendFailure>) -> Vec<Effect> {
        let Some(Pending { groups, records, then }) = self.pending.remove(&id) else { return Vec::new() };
        self.landed(&groups);
        let failure = outcome.err().map(AppendFailure::error);
        if failure.is_none() {
            self.replay_own(now_ms, &groups, records);
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
            Then::Replaced { group, replacement } => self.replaced(now_ms, &group, replacement, failure),
            Then::Deleted { groups, token, reply } => self.deleted(groups, token, reply, failure),
        }
        for name in groups {
            if self.groups.get(&name).is_some_and(|group| self.forgettable(&name, group)) {
                self.groups.remove(&name);
                self.timers.cancel(&Timer::Expiration { group: name });
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// An append of these groups is under way no more.
    fn landed(&mut self, groups: &[String]) {
        for name in groups {
            if let Some(appends) = self.in_flight.get_mut(name) {
                *appends = appends.saturating_sub(1);
                if *appends == 0 {
                    self.in_flight.remove(name);
                }
            }
        }
    }

    fn replay_own(&mut self, now_ms: i64, groups: &[String], records: Vec<OffsetsRecord>) {
        for record in records {
            // We wrote the record: it decodes, as the round-trip test of `records` holds.
            let read = self.replay(record.key, record.value);
            debug_assert!(read.is_ok(), "a record of our own must decode");
        }
        for name in groups {
            if !self.held(name) {
                continue;
            }
            if !self.offsets.contains_key(name) {
                // Its last offset may have gone with this: then the group goes soon.
                self.expire_within(now_ms, name, i64::MIN);
            }
            // A group with members is in the map as long as a record of it is on its way: this one has offsets alone.
            if !self.groups.contains_key(name) {
                self.groups.insert(name.clone(), Group::new(now_ms));
                self.schedule_expiration(now_ms, name);
            }
        }
    }

    /// Whether the log holds anything of the group.
    fn held(&self, name: &str) -> bool {
        self.durable.contains_key(name) || self.offsets.contains_key(name)
    }

    /// Whether nothing would be lost if the group were forgotten.
    fn forgettable(&self, name: &str, group: &Group) -> bool {
        let recorded = self.held(name) || self.in_flight.contains_key(name);
        !recorded && group.has_no_one() && group.state == GroupState::Empty
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
                Timer::Expiration { group } => self.expire_offsets(now_ms, &group),
            }
        }
        std::mem::take(&mut self.effects)
    }

    /// The partition moves away: everyone who waits is told to look for the coordinator. The shard is empty afterwards.
    pub fn unload(&mut self) -> Vec<Effect> {
        for group in std::mem::take(&mut self.groups).into_values() {
            for (request, token) in group.deferred_joins {
                self.reply(token, JoinReply::refused(GroupError::NotCoordinator, &request.member_id));
            }
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
                Then::Reply { token, reply } | Then::Deleted { token, reply, .. } => {
                    self.reply(token, reply.failed(GroupError::NotCoordinator));
                }
                Then::Replaced { replacement, .. } => {
                    self.reply(replacement.token, JoinReply::refused(GroupError::NotCoordinator, ""));
                }
                Then::Nothing | Then::Assign { .. } => {}
            }
        }
        self.in_flight.clear();
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

    /// Appends records of these groups, each named once.
    fn append(&mut self, groups: Vec<String>, records: Vec<OffsetsRecord>, then: Then) {
        for name in &groups {
            *self.in_flight.entry(name.clone()).or_default() += 1;
        }
        let id = self.next_append;
        self.next_append += 1;
        self.pending.insert(id, Pending { groups, records: records.clone(), then });
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
        let before = group.bytes();
        act(self, &mut group, name);
        self.members_bytes = self.members_bytes + group.bytes() - before;
        if !self.forgettable(name, &group) {
            self.groups.insert(name.to_owned(), group);
        }
    }

    fn group_id_error(&self, group_id: &str, empty_allowed: bool) -> Option<GroupError> {
        let fits = group_id.len() <= self.config.id_bytes_max && (empty_allowed || !group_id.is_empty());
        (!fits).then_some(GroupError::InvalidGroupId)
    }

    /// The group's offsets, stored or on their way into the log, each with the topic's id of the newest.
    fn offset_keys(&self, name: &str) -> BTreeMap<(String, i32), TopicId> {
        let stored = self.offsets.get(name).into_iter().flatten();
        let mut keys: BTreeMap<_, _> =
            stored.map(|(key, committed)| (key.clone(), committed.topic_id)).collect();
        if !self.in_flight.contains_key(name) {
            return keys;
        }
        for record in self.pending.values().flat_map(|pending| &pending.records) {
            if let Ok(Key::Offset { group, topic, partition }) = records::decode_key(record.key.clone())
                && group == name
                && let Some(Ok(committed)) = record.value.clone().map(records::decode_offset)
            {
                keys.insert((topic, partition), committed.topic_id);
            }
        }
        keys
    }
}

#[cfg(test)]
mod cost_tests;
#[cfg(test)]
mod liveness;
#[cfg(test)]
mod rebalance_tables;
#[cfg(test)]
mod replay_equivalence;
#[cfg(test)]
#[path = "shard_tests.rs"]
mod tests;
