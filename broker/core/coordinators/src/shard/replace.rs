//! A static member that comes back without its id (KIP-345): it takes its old place, and who held that is fenced.
//!
//! In a stable group whose protocol stays, no rebalance is needed. The record of the new member is stored first; until
//! then the old one holds the place, and if that fails it keeps it. Other static members that come back meanwhile are
//! deferred, because their records build on this one.
use super::join::joined;
use super::rebalance::NEW_MEMBER_JOIN_TIMEOUT_MS;
use super::{GroupShard, Then};
use crate::error::GroupError;
use crate::group::Group;
use crate::records::{OffsetsRecord, group_key, group_value};
use crate::requests::{GroupState, JoinReply, JoinRequest, Reply};
use crate::timers::Timer;

/// Who comes back, and in whose place.
#[derive(Debug)]
pub(super) struct Replacement {
    pub old: String,
    pub member_id: String,
    pub request: JoinRequest,
    pub token: u64,
}

impl GroupShard {
    pub(super) fn replace_static(
        &mut self,
        now_ms: i64,
        name: &str,
        group: &mut Group,
        replacement: Replacement,
    ) {
        if group.replacing {
            group.deferred_joins.push((replacement.request, replacement.token));
            return;
        }
        if group.state == GroupState::Stable {
            let mut after = group.clone();
            after.replace(&replacement.old, &replacement.member_id, &replacement.request);
            if after.select_protocol() == group.protocol {
                group.replacing = true;
                let value = Some(group_value(&after.value(None, now_ms)));
                let record = OffsetsRecord { key: group_key(name), value };
                let then = Then::Replaced { group: name.to_owned(), replacement };
                self.append(vec![name.to_owned()], vec![record], then);
                return;
            }
        }
        self.replace_and_rebalance(now_ms, name, group, &replacement);
    }

    /// The replacement is stored, or could not be.
    pub(super) fn replaced(
        &mut self,
        now_ms: i64,
        name: &str,
        replacement: Replacement,
        failure: Option<GroupError>,
    ) {
        let mut left = Some(replacement);
        self.with_group(name, |shard, group, name| {
            let Some(replacement) = left.take() else { return };
            group.replacing = false;
            let deferred = std::mem::take(&mut group.deferred_joins);
            let instance = replacement.request.group_instance_id.as_ref();
            let holder = instance.and_then(|instance| group.static_members.get(instance));
            if let Some(error) = failure {
                shard.reply(replacement.token, JoinReply::refused(error, ""));
            } else if holder != Some(&replacement.old) {
                // The place was lost while the record was on its way: a later record takes it back.
                shard.join_group(now_ms, name, group, replacement.request, replacement.token);
            } else if group.state == GroupState::Stable {
                shard.replace_in_place(now_ms, name, group, &replacement);
            } else {
                shard.replace_and_rebalance(now_ms, name, group, &replacement);
            }
            for (request, token) in deferred {
                shard.join_group(now_ms, name, group, request, token);
            }
        });
        if let Some(replacement) = left {
            let error = failure.unwrap_or(GroupError::CoordinatorNotAvailable);
            self.reply(replacement.token, JoinReply::refused(error, ""));
        }
    }

    fn replace_in_place(&mut self, now_ms: i64, name: &str, group: &mut Group, replacement: &Replacement) {
        let Replacement { old, member_id, request, token } = replacement;
        let was_leader = group.is_leader(old);
        self.swap(name, group, replacement);
        let mut reply = joined(group, member_id);
        reply.skip_assignment = was_leader && request.supports_skipping_assignment;
        if was_leader && !request.supports_skipping_assignment {
            // Told that another leads, an old client does not assign anew.
            reply.leader.clone_from(old);
            reply.members.clear();
        }
        self.restart_session(now_ms, name, group, member_id);
        self.reply(*token, Reply::Join(reply));
    }

    fn replace_and_rebalance(
        &mut self,
        now_ms: i64,
        name: &str,
        group: &mut Group,
        replacement: &Replacement,
    ) {
        self.swap(name, group, replacement);
        let id = &replacement.member_id;
        self.wait_for_join(name, group, id, replacement.token);
        if group.members.get(id).is_some_and(|member| member.is_new) {
            let timer = Timer::Session { group: name.to_owned(), member: id.clone() };
            self.timers.set(timer, now_ms.saturating_add(NEW_MEMBER_JOIN_TIMEOUT_MS));
        }
        self.rebalance(now_ms, name, group);
    }

    fn swap(&mut self, name: &str, group: &mut Group, replacement: &Replacement) {
        let old = &replacement.old;
        let (join, sync) = group.replace(old, &replacement.member_id, &replacement.request);
        self.timers.cancel(&Timer::Session { group: name.to_owned(), member: old.clone() });
        self.answer_waiting(old, join, sync, GroupError::FencedInstanceId);
    }
}
