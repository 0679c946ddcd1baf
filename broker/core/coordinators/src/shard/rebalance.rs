//! The phases of a rebalance: preparing (everyone joins), completing (everyone syncs), and members that time out.
use super::join::joined;
use super::{GroupShard, Then};
use crate::error::GroupError;
use crate::group::Group;
use crate::records::{OffsetsRecord, group_key, group_value};
use crate::requests::{GroupState, Reply};
use crate::timers::Timer;
use std::collections::BTreeMap;

/// How long a new member may wait in its first JoinGroup (Kafka's `CLASSIC_GROUP_NEW_MEMBER_JOIN_TIMEOUT_MS`).
pub(super) const NEW_MEMBER_JOIN_TIMEOUT_MS: i64 = 300_000;

impl GroupShard {
    /// Membership changed: a rebalance begins, or the one that is being prepared may now go on.
    pub(super) fn rebalance(&mut self, now_ms: i64, name: &str, group: &mut Group) {
        let timer = Timer::Join { group: name.to_owned() };
        match group.state {
            GroupState::PreparingRebalance => self.complete_if_all_joined(now_ms, name, group),
            GroupState::Empty | GroupState::Dead => {
                let delay = self.config.initial_rebalance_delay_ms.max(0);
                group.initial_delay_left_ms = Some((group.rebalance_timeout_ms() - delay).max(0));
                group.transition(GroupState::PreparingRebalance, now_ms);
                self.timers.set(timer, now_ms.saturating_add(delay));
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.cancel_sync(now_ms, name, group, GroupError::RebalanceInProgress);
                group.transition(GroupState::PreparingRebalance, now_ms);
                self.timers.set(timer, now_ms.saturating_add(group.rebalance_timeout_ms()));
                self.complete_if_all_joined(now_ms, name, group);
            }
        }
    }

    fn complete_if_all_joined(&mut self, now_ms: i64, name: &str, group: &mut Group) {
        let all = group.awaiting_join == group.members.len() && group.expects_nobody();
        if all && group.initial_delay_left_ms.is_none() {
            self.complete_join(now_ms, name, group);
        }
    }

    pub(super) fn join_phase_due(&mut self, now_ms: i64, name: &str, group: &mut Group) {
        if group.state != GroupState::PreparingRebalance {
            return;
        }
        let prolonged = group.new_member_added && self.config.initial_rebalance_delay_ms > 0;
        if let Some(left) = group.initial_delay_left_ms.filter(|left| *left > 0 && prolonged) {
            let delay = self.config.initial_rebalance_delay_ms.min(left);
            group.new_member_added = false;
            group.initial_delay_left_ms = Some(left - delay);
            self.timers.set(Timer::Join { group: name.to_owned() }, now_ms.saturating_add(delay));
            return;
        }
        self.complete_join(now_ms, name, group);
    }

    fn complete_join(&mut self, now_ms: i64, name: &str, group: &mut Group) {
        group.initial_delay_left_ms = None;
        group.new_member_added = false;
        let late = |(id, member): (&String, &crate::group::Member)| {
            (member.awaiting_join.is_none() && member.instance.is_none()).then(|| id.clone())
        };
        for id in group.members.iter().filter_map(late).collect::<Vec<_>>() {
            self.remove_member(name, group, &id, GroupError::UnknownMemberId);
        }
        let joined_first =
            group.members.iter().find(|(_, member)| member.awaiting_join.is_some()).map(|(id, _)| id.clone());
        let leader_joined = group
            .leader
            .as_ref()
            .and_then(|id| group.members.get(id))
            .is_some_and(|m| m.awaiting_join.is_some());
        if !group.members.is_empty() && joined_first.is_none() {
            // Only static members, all of them away: they may come back until their sessions end.
            let deadline = now_ms.saturating_add(group.rebalance_timeout_ms().max(1));
            self.timers.set(Timer::Join { group: name.to_owned() }, deadline);
            return;
        }
        if !leader_joined {
            group.leader = joined_first;
        }
        self.timers.cancel(&Timer::Join { group: name.to_owned() });
        group.generation = group.generation.checked_add(1).unwrap_or(0);
        if group.members.is_empty() {
            group.protocol = None;
            group.leader = None;
            group.transition(GroupState::Empty, now_ms);
            let value = group_value(&group.value(None, now_ms));
            let record = OffsetsRecord { key: group_key(name), value: Some(value) };
            self.append(vec![name.to_owned()], vec![record], Then::Nothing);
            self.expire_within(now_ms, name, i64::MIN);
        } else {
            self.begin_generation(now_ms, name, group);
        }
    }

    fn begin_generation(&mut self, now_ms: i64, name: &str, group: &mut Group) {
        group.protocol = group.select_protocol();
        group.transition(GroupState::CompletingRebalance, now_ms);
        group.assigning = false;
        group.pending_sync = group.members.keys().cloned().collect();
        for id in group.pending_sync.clone() {
            let reply = joined(group, &id);
            let Some(member) = group.members.get_mut(&id) else { continue };
            member.is_new = false;
            if let Some(token) = member.awaiting_join.take() {
                self.reply(token, Reply::Join(reply));
            }
            self.restart_session(now_ms, name, group, &id);
        }
        group.awaiting_join = 0;
        let deadline = now_ms.saturating_add(group.rebalance_timeout_ms());
        self.timers.set(Timer::Sync { group: name.to_owned() }, deadline);
    }

    /// Those who have not synced by now are gone.
    pub(super) fn sync_phase_due(&mut self, now_ms: i64, name: &str, group: &mut Group) {
        let syncing = matches!(group.state, GroupState::CompletingRebalance | GroupState::Stable);
        if !syncing || group.pending_sync.is_empty() {
            return;
        }
        for id in std::mem::take(&mut group.pending_sync) {
            self.remove_member(name, group, &id, GroupError::UnknownMemberId);
        }
        self.rebalance(now_ms, name, group);
    }

    /// Ends the sync phase with an error for those who wait in it; their assignments are void.
    fn cancel_sync(&mut self, now_ms: i64, name: &str, group: &mut Group, error: GroupError) {
        self.timers.cancel(&Timer::Sync { group: name.to_owned() });
        group.pending_sync.clear();
        group.assigning = false;
        let completing = group.state == GroupState::CompletingRebalance;
        for id in group.members.keys().cloned().collect::<Vec<_>>() {
            let Some(member) = group.members.get_mut(&id) else { continue };
            if completing {
                member.assignment = bytes::Bytes::new();
            }
            if let Some(token) = member.awaiting_sync.take() {
                self.reply(token, Reply::Sync(Err(error)));
                self.restart_session(now_ms, name, group, &id);
            }
        }
    }

    /// The leader's assignment is stored, or could not be.
    pub(super) fn assigned(
        &mut self,
        now_ms: i64,
        name: &str,
        generation: i32,
        assignments: BTreeMap<String, bytes::Bytes>,
        failure: Option<GroupError>,
    ) {
        self.with_group(name, |shard, group, name| {
            if group.state != GroupState::CompletingRebalance || group.generation != generation {
                return;
            }
            if let Some(error) = failure {
                shard.cancel_sync(now_ms, name, group, error);
                shard.rebalance(now_ms, name, group);
                return;
            }
            group.assigning = false;
            for (id, member) in &mut group.members {
                member.assignment = assignments.get(id).cloned().unwrap_or_default();
            }
            group.transition(GroupState::Stable, now_ms);
            // What nobody is subscribed to any more may be old enough to go.
            shard.expire_within(now_ms, name, i64::MIN);
            for id in group.members.keys().cloned().collect::<Vec<_>>() {
                let token = group.members.get_mut(&id).and_then(|member| member.awaiting_sync.take());
                if let Some(token) = token {
                    shard.reply(token, super::sync::assignment(group, &id));
                    shard.restart_session(now_ms, name, group, &id);
                }
            }
        });
    }

    /// The member is heard of: its session starts anew, unless it waits in a request that we owe it.
    pub(super) fn restart_session(&mut self, now_ms: i64, name: &str, group: &Group, id: &str) {
        let timer = Timer::Session { group: name.to_owned(), member: id.to_owned() };
        match group.members.get(id) {
            Some(member) if member.awaiting_join.is_none() && member.awaiting_sync.is_none() => {
                self.timers.set(timer, now_ms.saturating_add(i64::from(member.session_timeout_ms)));
            }
            _ => {}
        }
    }

    pub(super) fn session_expired(&mut self, now_ms: i64, name: &str, id: &str) {
        self.with_group(name, |shard, group, name| {
            let pending = group.expect_no_more(id);
            let gone = group.members.get(id).is_some_and(|member| {
                member.is_new || (member.awaiting_join.is_none() && member.awaiting_sync.is_none())
            });
            if gone {
                shard.remove_member(name, group, id, GroupError::UnknownMemberId);
            }
            if gone || (pending && group.state == GroupState::PreparingRebalance) {
                shard.rebalance(now_ms, name, group);
            }
        });
    }

    pub(super) fn remove_member(&mut self, name: &str, group: &mut Group, id: &str, error: GroupError) {
        if let Some(member) = group.remove(id) {
            self.timers.cancel(&Timer::Session { group: name.to_owned(), member: id.to_owned() });
            self.answer_waiting(id, member.awaiting_join, member.awaiting_sync, error);
        }
    }
}
