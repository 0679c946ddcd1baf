//! SyncGroup, Heartbeat and LeaveGroup.
use super::{GroupShard, Then};
use crate::effect::Effect;
use crate::error::GroupError;
use crate::group::Group;
use crate::records::{OffsetsRecord, group_key, group_value};
use crate::requests::{
    Assignment, GroupState, LeaveOutcome, LeaveRequest, LeavingMember, MemberOfGroup, Reply, SyncRequest,
};
use crate::timers::Timer;
use std::collections::BTreeMap;

impl GroupShard {
    /// A member asks for its assignment; the leader brings everyone's.
    pub fn sync(&mut self, now_ms: i64, request: SyncRequest, token: u64) -> Vec<Effect> {
        let checked = self.checked(&request.member).and_then(|group| {
            let differs = |ours: &Option<String>, theirs: &Option<String>| theirs.is_some() && theirs != ours;
            if differs(&group.protocol_type, &request.protocol_type)
                || differs(&group.protocol, &request.protocol_name)
            {
                return Err(GroupError::InconsistentGroupProtocol);
            }
            match group.state {
                GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
                GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
                GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            }
        });
        let bytes: usize = request.assignments.iter().map(|(id, assigned)| id.len() + assigned.len()).sum();
        let fits = bytes <= self.config.assignment_bytes_max;
        if let Err(error) = checked.and(fits.then_some(()).ok_or(GroupError::InvalidRequest)) {
            return self.done(token, Reply::Sync(Err(error)));
        }
        let name = request.member.group_id.clone();
        self.with_group(&name, |shard, group, name| shard.sync_group(now_ms, name, group, request, token));
        std::mem::take(&mut self.effects)
    }

    fn sync_group(&mut self, now_ms: i64, name: &str, group: &mut Group, request: SyncRequest, token: u64) {
        let id = request.member.member_id;
        group.pending_sync.remove(&id);
        if group.pending_sync.is_empty() {
            self.timers.cancel(&Timer::Sync { group: name.to_owned() });
        }
        if group.state == GroupState::Stable {
            self.reply(token, assignment(group, &id));
            self.restart_session(now_ms, name, group, &id);
            return;
        }
        let earlier = group.members.get_mut(&id).and_then(|member| member.awaiting_sync.replace(token));
        if let Some(earlier) = earlier {
            self.reply(earlier, Reply::Sync(Err(GroupError::RebalanceInProgress)));
        }
        self.timers.cancel(&Timer::Session { group: name.to_owned(), member: id.clone() });
        if group.is_leader(&id) && !group.assigning {
            group.assigning = true;
            let assignments: BTreeMap<_, _> = request.assignments.into_iter().collect();
            let value = group_value(&group.value(Some(&assignments), now_ms));
            let then = Then::Assign { group: name.to_owned(), generation: group.generation, assignments };
            let record = OffsetsRecord { key: group_key(name), value: Some(value) };
            self.append(vec![name.to_owned()], vec![record], then);
        }
    }

    /// A member lives.
    pub fn heartbeat(&mut self, now_ms: i64, member: MemberOfGroup, token: u64) -> Vec<Effect> {
        let outcome = self.checked(&member).map(|group| group.state);
        let outcome = match outcome {
            Err(error) => Err(error),
            Ok(GroupState::Empty | GroupState::Dead) => Err(GroupError::UnknownMemberId),
            Ok(state) => {
                self.with_group(&member.group_id, |shard, group, name| {
                    shard.restart_session(now_ms, name, group, &member.member_id);
                });
                let preparing = state == GroupState::PreparingRebalance;
                if preparing { Err(GroupError::RebalanceInProgress) } else { Ok(()) }
            }
        };
        self.done(token, Reply::Heartbeat(outcome))
    }

    /// The group, where the speaker is a member of its generation.
    fn checked(&self, member: &MemberOfGroup) -> Result<&Group, GroupError> {
        if let Some(error) = self.group_id_error(&member.group_id, false) {
            return Err(error);
        }
        let group = self.groups.get(&member.group_id).ok_or(GroupError::UnknownMemberId)?;
        if group.state == GroupState::Dead {
            return Err(GroupError::CoordinatorNotAvailable);
        }
        group.check_member(&member.member_id, member.group_instance_id.as_deref())?;
        if member.generation == group.generation { Ok(group) } else { Err(GroupError::IllegalGeneration) }
    }

    /// Members leave.
    pub fn leave(&mut self, now_ms: i64, request: LeaveRequest, token: u64) -> Vec<Effect> {
        if let Some(error) = self.group_id_error(&request.group_id, false) {
            return self.done(token, Reply::Leave(Err(error)));
        }
        if self.groups.get(&request.group_id).is_some_and(|group| group.state == GroupState::Dead) {
            return self.done(token, Reply::Leave(Err(GroupError::CoordinatorNotAvailable)));
        }
        let unknown = |member: LeavingMember| LeaveOutcome {
            member_id: member.member_id,
            group_instance_id: member.group_instance_id,
            error: Some(GroupError::UnknownMemberId),
        };
        let mut outcomes: Vec<_> = request.members.into_iter().map(unknown).collect();
        self.with_group(&request.group_id, |shard, group, name| {
            let members = group.members.len();
            for outcome in &mut outcomes {
                outcome.error = shard
                    .leave_one(name, group, &outcome.member_id, outcome.group_instance_id.as_deref())
                    .err();
            }
            // A member id that was never used frees a rebalance that waits for it, but starts none.
            let fewer = group.members.len() < members;
            if fewer || group.state == GroupState::PreparingRebalance {
                shard.rebalance(now_ms, name, group);
            }
        });
        self.done(token, Reply::Leave(Ok(outcomes)))
    }

    fn leave_one(
        &mut self,
        name: &str,
        group: &mut Group,
        member_id: &str,
        instance: Option<&str>,
    ) -> Result<(), GroupError> {
        if instance.is_none() && group.expect_no_more(member_id) {
            self.timers.cancel(&Timer::Session { group: name.to_owned(), member: member_id.to_owned() });
            return Ok(());
        }
        let id = match instance {
            // An administrator removes a static member by its instance alone.
            Some(instance) if member_id.is_empty() => {
                group.static_members.get(instance).cloned().ok_or(GroupError::UnknownMemberId)?
            }
            _ => member_id.to_owned(),
        };
        group.check_member(&id, instance)?;
        self.remove_member(name, group, &id, GroupError::UnknownMemberId);
        Ok(())
    }
}

pub(super) fn assignment(group: &Group, id: &str) -> Reply {
    Reply::Sync(Ok(Assignment {
        protocol_type: group.protocol_type.clone(),
        protocol_name: group.protocol.clone(),
        assignment: group.members.get(id).map(|member| member.assignment.clone()).unwrap_or_default(),
    }))
}
