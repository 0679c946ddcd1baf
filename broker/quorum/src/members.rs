//! Who the members of the quorum are, which of them have a vote, and how that changes.

use std::collections::BTreeSet;
use std::time::Duration;

use openraft::async_runtime::WatchReceiver;
use openraft::{ChangeMembers, Instant as _, ServerState};

use crate::electorate::Electorate;
use crate::quorum::{ProposeError, Quorum, propose_error};
use crate::types::{Member, Types};

/// The members of the quorum, as the controller knows them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Members {
    pub voters: Vec<MemberState>,
    /// Those that have the log and no vote.
    pub observers: Vec<MemberState>,
}

/// A member, and how much of the log it has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberState {
    pub member: Member,
    /// Offset after the last entry that it is known to have.
    pub end_offset: i64,
    /// How long ago it last answered the controller, if it has answered this one.
    pub heard_ago: Option<Duration>,
}

impl Quorum {
    /// Who the members are; `None` unless this one is the controller, which alone knows how far they are.
    pub fn members(&self) -> Option<Members> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        if metrics.running_state.is_err() || metrics.state != ServerState::Leader {
            return None;
        }
        let last_of = |id: u64| match &metrics.replication {
            _ if id == metrics.id => metrics.last_log_index,
            Some(others) => others.get(&id).copied().flatten().map(|last| last.index()),
            None => None,
        };
        let heard_ago = |id: u64| match &metrics.heartbeat {
            _ if id == metrics.id => Some(Duration::ZERO),
            Some(others) => others.get(&id).copied().flatten().map(|at| at.elapsed()),
            None => None,
        };
        let membership = metrics.membership_config.membership();
        let state = |id: u64| {
            let member = membership.get_node(&id)?.clone();
            let end_offset = last_of(id).map_or(0, |index| index as i64 + 1);
            Some(MemberState { member, end_offset, heard_ago: heard_ago(id) })
        };
        Some(Members {
            voters: membership.voter_ids().filter_map(state).collect(),
            observers: membership.learner_ids().filter_map(state).collect(),
        })
    }

    /// Offset after the last entry that this controller has known a member to have; `None` if this is not the controller.
    pub fn end_offset_of(&self, member: &Member) -> Option<i64> {
        let Members { voters, observers } = self.members()?;
        voters.iter().chain(&observers).find(|known| known.member == *member).map(|known| known.end_offset)
    }

    /// Who has a vote, as far as the log here says; `None` while one change of the members is between its two halves.
    pub fn voters(&self) -> Option<BTreeSet<u64>> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        match metrics.membership_config.membership().get_joint_config().as_slice() {
            [voters] => Some(voters.clone()),
            _ => None,
        }
    }

    /// The same with the halves of a change, and where the log says so.
    pub fn electorate(&self) -> Electorate {
        self.raft.metrics().borrow_watched().membership_config.as_ref().into()
    }

    /// Whether this is a member, with a vote or without, as far as the log here says.
    pub fn is_member(&self) -> bool {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.membership_config.membership().get_node(&self.member.id()) == Some(&self.member)
    }

    /// Carries a change of the members through that a leader has left half done. Who loses the vote by it stays a member: it is not
    /// known whether it was to.
    pub async fn complete_change(&self) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::AddVoterIds(BTreeSet::new()), true).await
    }

    /// Whoever loses the vote stays a member, or is none any more.
    async fn change_members(
        &self,
        change: ChangeMembers<u64, Member>,
        stays: bool,
    ) -> Result<(), ProposeError> {
        let changed = self.raft.change_membership(change, stays).await;
        changed.map(drop).map_err(propose_error)
    }

    /// Takes members in that have no vote, and does not wait until they have the log.
    pub async fn let_observe(&self, members: impl IntoIterator<Item = Member>) -> Result<(), ProposeError> {
        let members = members.into_iter().map(|member| (member.id(), member)).collect();
        self.change_members(ChangeMembers::AddNodes(members), true).await
    }

    /// Gives votes to these members, which were taken in; all others that had one are members no more.
    pub async fn change_voters(&self, voters: impl IntoIterator<Item = u64>) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::ReplaceAllVoters(voters.into_iter().collect()), false).await
    }

    /// Gives a vote to a member that has none.
    pub async fn give_vote(&self, member: u64) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::AddVoterIds(BTreeSet::from([member])), true).await
    }

    /// Takes a member's vote: it observes from then on.
    pub async fn take_vote(&self, member: u64) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::RemoveVoters(BTreeSet::from([member])), true).await
    }

    /// Takes members out that have no vote.
    pub async fn forget(&self, members: impl IntoIterator<Item = u64>) -> Result<(), ProposeError> {
        self.change_members(ChangeMembers::RemoveNodes(members.into_iter().collect()), false).await
    }

    /// Waits until a member has all of the log that there is now.
    pub async fn until_has_log(&self, member: u64) -> Result<(), ProposeError> {
        let last = self.raft.metrics().borrow_watched().last_log_index;
        let has_log = move |metrics: &openraft::RaftMetrics<Types>| match &metrics.replication {
            Some(others) => others.get(&member).is_some_and(|has| has.map(|has| has.index()) >= last),
            // This one leads no more.
            None => true,
        };
        let metrics = self.raft.wait(None).metrics(has_log, "a member to have the log").await;
        match metrics.ok().and_then(|metrics| metrics.replication) {
            Some(_) => Ok(()),
            None => Err(ProposeError::NotController),
        }
    }
}
