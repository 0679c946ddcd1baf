//! Who has a vote on the metadata, changed while the cluster runs (KIP-853): a broker that follows them is given one, or another loses
//! its own and follows them from then on.
//!
//! Order: what is wanted is agreed on first, as a config of the broker, and the controller of the moment brings the quorum there
//! (`firn_metadata::decide::votes`), one change at a time. So a crash in between leaves nothing half done for good, and a broker that
//! starts anew has the part that it was given last.

use std::collections::BTreeSet;
use std::time::Duration;

use firn_metadata::decide::votes::{VoteChange, next_change};
use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::record::{ConfigRecord, ConfigResource, MetadataRecord};
use firn_model::broker_config::definitions::VOTER;
use firn_quorum::members::{MemberState, Members};
use firn_quorum::quorum::{ProposeError, Quorum};
use firn_quorum::types::Member;
use tokio::time::Instant;

use super::membership::Membership;

/// How long one change of the voters may take before it is looked at again.
const CHANGE_MAX: Duration = Duration::from_secs(2);
/// How often it is looked whether what is wanted is so.
const PAUSE: Duration = Duration::from_millis(50);

/// Why a vote was not given, or taken.
#[derive(Debug, thiserror::Error)]
pub enum VoteError {
    #[error("Broker {} with log directory {} {reason}", member.broker_id, member.directory_id)]
    NotFound { member: Member, reason: &'static str },
    #[error("Broker {0} has a vote already")]
    Duplicate(i32),
    #[error("Broker {0} is the only one that is to have a vote: give one to another first")]
    Last(i32),
    #[error("It is agreed on, and not so within {0:?}: the controller goes on with it")]
    TimedOut(Duration),
    #[error(transparent)]
    Propose(#[from] ProposeError),
}

/// Gives a member a vote, as the controller.
pub async fn add(membership: &Membership, member: Member, patience: Duration) -> Result<(), VoteError> {
    let quorum = membership.quorum().ok_or(ProposeError::NotController)?;
    let Members { voters, observers } = quorum.members().ok_or(ProposeError::NotController)?;
    if has(&voters, &member) {
        return Err(VoteError::Duplicate(member.broker_id));
    }
    if !has(&observers, &member) {
        let reason = "does not follow the metadata: start it first";
        return Err(VoteError::NotFound { member, reason });
    }
    want(quorum, member.broker_id, true).await?;
    bring_about(membership, quorum, patience, |voters| voters.contains(&member.id())).await
}

/// Takes a member's vote, as the controller. If it is its own it is not waited for: another controller has to take it, and there would
/// be nobody left to answer.
pub async fn remove(membership: &Membership, member: Member, patience: Duration) -> Result<(), VoteError> {
    let quorum = membership.quorum().ok_or(ProposeError::NotController)?;
    let Members { voters, .. } = quorum.members().ok_or(ProposeError::NotController)?;
    if !has(&voters, &member) {
        let reason = "has no vote";
        return Err(VoteError::NotFound { member, reason });
    }
    let image = quorum.image();
    let keeps = |known: &MemberState| {
        known.member != member && image.wants_vote(known.member.broker_id) != Some(false)
    };
    if !voters.iter().any(keeps) {
        return Err(VoteError::Last(member.broker_id));
    }
    want(quorum, member.broker_id, false).await?;
    if member.broker_id == membership.peers().own_id() {
        return Ok(());
    }
    bring_about(membership, quorum, patience, |voters| !voters.contains(&member.id())).await
}

fn has(known: &[MemberState], member: &Member) -> bool {
    known.iter().any(|known| known.member == *member)
}

/// Has it agreed on that a broker is to have a vote, or none.
async fn want(quorum: &Quorum, broker_id: i32, vote: bool) -> Result<(), ProposeError> {
    let decide = |_: &_| -> Result<Decision<()>, DecisionError> {
        let (resource, name) = (ConfigResource::broker(broker_id), VOTER.to_owned());
        let wish = ConfigRecord { resource, name, value: Some(vote.to_string()) };
        Ok(Decision { records: vec![MetadataRecord::Config(wish)], reply: () })
    };
    quorum.propose(decide).await
}

/// Waits until the voters are as they are to be.
async fn bring_about(
    membership: &Membership,
    quorum: &Quorum,
    patience: Duration,
    holds: impl Fn(&BTreeSet<u64>) -> bool,
) -> Result<(), VoteError> {
    let deadline = Instant::now() + patience;
    loop {
        if quorum.voters().as_ref().is_some_and(&holds) {
            return Ok(());
        }
        if Instant::now() >= deadline {
            return Err(VoteError::TimedOut(patience));
        }
        if quorum.progress().leads {
            change(membership, quorum).await.ok();
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Brings the quorum one step nearer to what operators want, as the controller.
pub(super) async fn change(membership: &Membership, quorum: &Quorum) -> Result<(), ProposeError> {
    let Some(_alone) = membership.joining().try_alone(quorum).await? else { return Ok(()) };
    let Some(Members { voters, observers }) = quorum.members() else { return Ok(()) };
    let ids = |known: &[MemberState]| known.iter().map(|known| known.member.broker_id).collect();
    let Some(next) = next_change(&quorum.image(), &ids(&voters), &ids(&observers)) else { return Ok(()) };
    let of = |known: &[MemberState], id: i32| {
        let of_it = known.iter().filter(|known| known.member.broker_id == id);
        // Of a disk of before there may be another, which has less.
        of_it.max_by_key(|known| known.end_offset).map(|known| known.member.id())
    };
    let changing = async {
        match next {
            VoteChange::Give(id) => match of(&observers, id) {
                Some(member) => quorum.give_vote(member).await,
                None => Ok(()),
            },
            VoteChange::Take(id) => match of(&voters, id) {
                Some(member) => quorum.take_vote(member).await,
                None => Ok(()),
            },
        }
    };
    if next == VoteChange::Take(membership.peers().own_id()) {
        membership.hand_over().await;
        return Ok(());
    }
    tokio::time::timeout(CHANGE_MAX, changing).await.unwrap_or(Err(ProposeError::TimedOut))?;
    match next {
        VoteChange::Give(broker) => tracing::info!(broker, "has a vote in the quorum"),
        VoteChange::Take(broker) => tracing::info!(broker, "has no vote in the quorum any more"),
    }
    Ok(())
}
