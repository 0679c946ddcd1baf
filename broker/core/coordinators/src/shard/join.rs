//! JoinGroup: who comes in, under which id, and who answers at once (KIP-345, KIP-394, KIP-814).
use super::GroupShard;
use super::replace::Replacement;
use crate::effect::Effect;
use crate::error::GroupError;
use crate::group::{Group, Member, protocols_bytes};
use crate::requests::{GroupState, JoinReply, JoinRequest, Reply};
use crate::timers::Timer;

impl GroupShard {
    /// A member joins. The reply comes when the generation begins, or at once where nothing changes.
    pub fn join(&mut self, now_ms: i64, mut request: JoinRequest, token: u64) -> Vec<Effect> {
        if request.rebalance_timeout_ms < 0 {
            request.rebalance_timeout_ms = request.session_timeout_ms;
        }
        let name = request.group_id.clone();
        if let Some(error) = self.join_error(&request) {
            return self.done(token, JoinReply::refused(error, &request.member_id));
        }
        self.groups.entry(name.clone()).or_insert_with(|| Group::new(now_ms));
        self.with_group(&name, |shard, group, name| shard.join_group(now_ms, name, group, request, token));
        std::mem::take(&mut self.effects)
    }

    fn join_error(&self, request: &JoinRequest) -> Option<GroupError> {
        let limit = self.config.id_bytes_max;
        let allowed = self.config.min_session_timeout_ms..=self.config.max_session_timeout_ms;
        let metadata_bytes = protocols_bytes(&request.protocols);
        // A member id is the client's or instance's id and a dash and a UUID of 36 characters.
        let id_bytes = request.group_instance_id.as_ref().unwrap_or(&request.client_id).len() + 37;
        if let Some(error) = self.group_id_error(&request.group_id, false) {
            Some(error)
        } else if !allowed.contains(&request.session_timeout_ms) {
            Some(GroupError::InvalidSessionTimeout)
        } else if id_bytes > limit
            || request.client_id.len() > limit
            || request.client_host.len() > limit
            || request.protocol_type.len() > limit
            || request.protocols.iter().any(|(protocol, _)| protocol.len() > limit)
            || metadata_bytes > self.config.member_metadata_bytes_max
        {
            Some(GroupError::InvalidRequest)
        } else if !self.groups.contains_key(&request.group_id) && !request.member_id.is_empty() {
            Some(GroupError::UnknownMemberId)
        } else {
            None
        }
    }

    pub(super) fn join_group(
        &mut self,
        now_ms: i64,
        name: &str,
        group: &mut Group,
        request: JoinRequest,
        token: u64,
    ) {
        if group.state == GroupState::Dead {
            self.reply(token, JoinReply::refused(GroupError::CoordinatorNotAvailable, &request.member_id));
        } else if !self.has_room(group, &request.member_id) || group.growth(&request) > request.room {
            self.remove_member(name, group, &request.member_id, GroupError::UnknownMemberId);
            self.reply(token, JoinReply::refused(GroupError::GroupMaxSizeReached, ""));
        } else if !group.supports(&request.protocol_type, &request.protocols) {
            self.reply(token, JoinReply::refused(GroupError::InconsistentGroupProtocol, &request.member_id));
        } else if request.member_id.is_empty() {
            self.join_new(now_ms, name, group, request, token);
        } else {
            self.join_again(now_ms, name, group, request, token);
        }
    }

    fn has_room(&self, group: &Group, member_id: &str) -> bool {
        match group.state {
            GroupState::Empty | GroupState::Dead => true,
            GroupState::PreparingRebalance => {
                group.members.get(member_id).is_some_and(|member| member.awaiting_join.is_some())
                    || group.awaiting_join < self.config.max_size
            }
            GroupState::CompletingRebalance | GroupState::Stable => {
                group.members.contains_key(member_id) || group.members.len() < self.config.max_size
            }
        }
    }

    fn join_new(&mut self, now_ms: i64, name: &str, group: &mut Group, request: JoinRequest, token: u64) {
        let prefix = request.group_instance_id.as_ref().unwrap_or(&request.client_id);
        let member_id = format!("{prefix}-{}", dashed(request.random));
        let known = request
            .group_instance_id
            .as_ref()
            .and_then(|instance| group.static_members.get(instance))
            .cloned();
        if let Some(old) = known {
            self.replace_static(now_ms, name, group, Replacement { old, member_id, request, token });
        } else if request.group_instance_id.is_none() && request.require_known_member_id {
            let deadline = now_ms.saturating_add(i64::from(request.session_timeout_ms));
            group.expect(member_id.clone());
            self.timers.set(Timer::Session { group: name.to_owned(), member: member_id.clone() }, deadline);
            self.reply(token, JoinReply::refused(GroupError::MemberIdRequired, &member_id));
        } else {
            self.add_member(now_ms, name, group, (member_id, request), token);
        }
    }

    fn join_again(&mut self, now_ms: i64, name: &str, group: &mut Group, request: JoinRequest, token: u64) {
        let id = request.member_id.clone();
        if request.group_instance_id.is_none() && group.expects(&id) {
            self.add_member(now_ms, name, group, (id, request), token);
            return;
        }
        if let Err(error) = group.check_member(&id, request.group_instance_id.as_deref()) {
            self.reply(token, JoinReply::refused(error, &id));
            return;
        }
        let same = group.members.get(&id).is_some_and(|member| member.protocols == request.protocols);
        let unchanged = match group.state {
            GroupState::CompletingRebalance => same,
            GroupState::Stable => same && !group.is_leader(&id),
            _ => false,
        };
        if unchanged {
            let reply = joined(group, &id);
            self.reply(token, Reply::Join(reply));
            self.restart_session(now_ms, name, group, &id);
            return;
        }
        group.update(&id, request.protocols, request.session_timeout_ms, request.rebalance_timeout_ms);
        self.wait_for_join(name, group, &id, token);
        self.rebalance(now_ms, name, group);
    }

    fn add_member(
        &mut self,
        now_ms: i64,
        name: &str,
        group: &mut Group,
        joining: (String, JoinRequest),
        token: u64,
    ) {
        let (id, request) = joining;
        group.expect_no_more(&id);
        if group.members.is_empty() {
            group.protocol_type = Some(request.protocol_type);
        }
        group.new_member_added |=
            group.state == GroupState::PreparingRebalance && group.initial_delay_left_ms.is_some();
        let member = Member {
            instance: request.group_instance_id,
            client_id: request.client_id,
            client_host: request.client_host,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            session_timeout_ms: request.session_timeout_ms,
            protocols: request.protocols,
            assignment: bytes::Bytes::new(),
            awaiting_join: None,
            awaiting_sync: None,
            is_new: true,
        };
        group.add(id.clone(), member);
        self.wait_for_join(name, group, &id, token);
        // A new member does not heartbeat while it waits; one whose connection is gone must not stay for ever.
        let timer = Timer::Session { group: name.to_owned(), member: id };
        self.timers.set(timer, now_ms.saturating_add(super::rebalance::NEW_MEMBER_JOIN_TIMEOUT_MS));
        self.rebalance(now_ms, name, group);
    }

    /// A member that waits needs no heartbeat. Only a new one keeps its timer: it may have retried over and over, and its
    /// connection may be gone each time.
    pub(super) fn wait_for_join(&mut self, name: &str, group: &mut Group, id: &str, token: u64) {
        if let Some(earlier) = group.await_join(id, token) {
            self.reply(earlier, JoinReply::refused(GroupError::RebalanceInProgress, id));
        }
        if !group.members.get(id).is_some_and(|member| member.is_new) {
            self.timers.cancel(&Timer::Session { group: name.to_owned(), member: id.to_owned() });
        }
    }
}

/// What a member of the current generation is told.
pub(super) fn joined(group: &Group, id: &str) -> JoinReply {
    JoinReply {
        error: None,
        generation: group.generation,
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol.clone(),
        leader: group.leader.clone().unwrap_or_default(),
        skip_assignment: false,
        member_id: id.to_owned(),
        members: if group.is_leader(id) { group.joined_members() } else { Vec::new() },
    }
}

/// A UUID's text, of caller-supplied randomness.
fn dashed(random: u128) -> String {
    let hex = format!("{random:032x}");
    let part = |from: usize, to: usize| hex.get(from..to).unwrap_or_default();
    format!("{}-{}-{}-{}-{}", part(0, 8), part(8, 12), part(12, 16), part(16, 20), part(20, 32))
}
