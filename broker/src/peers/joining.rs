//! How brokers are taken into the quorum, by the controller.
//!
//! A member is a broker and its disk: one whose disk was replaced is another, and takes the place of the one before. The members
//! change one at a time; brokers without a vote are taken in many at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_metadata::decide::DecisionError;
use firn_quorum::quorum::{Members, ProposeError, Quorum};
use firn_quorum::types::Member;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};

use super::wire::{Ask, Told};
use super::{Line, Peers};

/// How long a joining broker may take to say who it is.
const STANDING_PATIENCE: Duration = Duration::from_secs(1);

/// Who asks to be taken in.
#[derive(Debug, Clone, Copy)]
pub struct Candidate<'a> {
    pub member: &'a Member,
    /// Where it says that it is.
    pub address: &'a str,
    /// It is listed, and so has a vote unless operators say otherwise.
    pub votes: bool,
}

/// How the members change.
#[derive(Debug, Default)]
pub struct Joining {
    alone: AsyncMutex<()>,
    /// Those that are to be taken in without a vote: all at once, since each change of the members names them all.
    candidates: Mutex<BTreeMap<u64, Member>>,
}

impl Joining {
    /// The right to change the members, which one has at a time. What a leader before has left half done is done first.
    pub async fn alone(&self, quorum: &Quorum) -> Result<MutexGuard<'_, ()>, ProposeError> {
        completed(self.alone.lock().await, quorum).await
    }

    /// The same, if nobody has it.
    pub async fn try_alone(&self, quorum: &Quorum) -> Result<Option<MutexGuard<'_, ()>>, ProposeError> {
        match self.alone.try_lock() {
            Ok(alone) => completed(alone, quorum).await.map(Some),
            Err(_) => Ok(None),
        }
    }

    /// Takes a member in, in the place of who was its broker's before, with a vote if it is listed or operators say so.
    pub async fn take_in(
        &self,
        peers: &Peers,
        quorum: &Quorum,
        candidate: Candidate<'_>,
    ) -> Result<(), ProposeError> {
        let Candidate { member, address, votes } = candidate;
        let broker_id = member.broker_id;
        let votes = quorum.image().wants_vote(broker_id).unwrap_or(votes);
        let has_vote = |members: &Members| members.voters.iter().any(|known| known.member == *member);
        // Who is listed has not moved.
        let may_have_moved = !peers.is_listed(broker_id);
        if may_have_moved || quorum.members().is_none_or(|members| !has_vote(&members)) {
            check_place(peers, member, address).await?;
        }
        if !votes {
            self.candidates.lock().insert(member.id(), member.clone());
        }
        let _alone = self.alone(quorum).await?;
        let members = quorum.members().ok_or(ProposeError::NotController)?;
        let had_vote = members.voters.iter().any(|known| known.member.broker_id == broker_id);
        let others = members.voters.iter().filter(|known| known.member.broker_id != broker_id);
        let others = others.map(|known| known.member.id());
        let directory = &member.directory_id;
        if has_vote(&members) {
            self.candidates.lock().remove(&member.id());
        } else if votes {
            quorum.take_in(member.clone()).await?;
            quorum.change_voters(others.chain([member.id()])).await?;
            tracing::info!(broker = broker_id, directory, "a broker has a vote in the quorum");
        } else {
            // Whoever waits behind this one finds it done.
            let mut new = std::mem::take(&mut *self.candidates.lock());
            for known in &members.observers {
                new.remove(&known.member.id());
            }
            if !new.is_empty() {
                quorum.let_observe(new.into_values()).await?;
            }
            if had_vote {
                quorum.change_voters(others).await?;
            }
            tracing::info!(broker = broker_id, directory, "a broker follows the metadata");
        }
        // Of disks that were replaced.
        let observers = quorum.members().map_or_else(Vec::new, |members| members.observers);
        let former = observers.iter().map(|known| &known.member);
        let former = former.filter(|known| known.broker_id == broker_id && *known != member);
        let former: Vec<u64> = former.map(Member::id).collect();
        if !former.is_empty() {
            quorum.forget(former).await?;
        }
        Ok(())
    }
}

/// Completes a change that is half done, for whoever is alone.
async fn completed<'a>(
    alone: MutexGuard<'a, ()>,
    quorum: &Quorum,
) -> Result<MutexGuard<'a, ()>, ProposeError> {
    if quorum.voters().is_none() {
        quorum.complete_change().await?;
    }
    Ok(alone)
}

/// That this member is the one that answers where its broker is. Two processes that were given one number by mistake would
/// otherwise put each other out in turn.
async fn check_place(peers: &Peers, member: &Member, address: &str) -> Result<(), ProposeError> {
    let broker_id = member.broker_id;
    let ask = async || {
        let asked = peers.ask(broker_id, Line::Signals, &Ask::Standing, &[], STANDING_PATIENCE);
        match asked.await {
            Ok((Told::Standing(found), _)) if found.broker_id == broker_id => found.directory_id,
            Ok(_) | Err(_) => None,
        }
    };
    let directory_id = Some(member.directory_id.clone());
    let mut found = ask().await;
    if found.is_none() && !peers.is_listed(broker_id) {
        // Nobody is where it was.
        peers.learn(broker_id, address.to_owned());
        found = ask().await;
    }
    if found == directory_id {
        return Ok(());
    }
    let at = peers.address(broker_id).unwrap_or_default();
    Err(DecisionError::InvalidRequest(format!(
        "Broker {broker_id} with log directory {} is not the one that answers at its address, {at}",
        member.directory_id
    ))
    .into())
}
