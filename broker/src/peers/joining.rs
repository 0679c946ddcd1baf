//! How brokers are taken into the quorum, by the controller.
//!
//! A member is a broker and its disk: one whose disk was replaced is another, and takes the place of the one before. The members
//! change one at a time; brokers without a vote are taken in many at a time.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_metadata::decide::DecisionError;
use firn_quorum::members::Members;
use firn_quorum::quorum::{ProposeError, Quorum};
use firn_quorum::types::Member;
use parking_lot::Mutex;
use tokio::sync::{Mutex as AsyncMutex, MutexGuard};
use uuid::Uuid;

use super::wire::{Ask, Standing, Told};
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
    /// Of its process, where it tells.
    pub process: Option<Uuid>,
}

impl Candidate<'_> {
    /// Whether it is who says this of itself.
    fn is(&self, standing: &Standing) -> bool {
        standing.broker_id == self.member.broker_id
            && standing.directory_id.as_ref() == Some(&self.member.directory_id)
            && self.process.is_none_or(|process| process == standing.process)
    }
}

/// How the members change.
#[derive(Debug, Default)]
pub struct Joining {
    alone: AsyncMutex<()>,
    /// Those that are to be taken in without a vote: all at once, since each change of the members names them all.
    candidates: Mutex<BTreeMap<u64, Member>>,
}

/// A candidate, for as long as somebody waits for what becomes of it.
#[derive(Debug)]
struct Waiting<'a> {
    candidates: &'a Mutex<BTreeMap<u64, Member>>,
    id: u64,
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.candidates.lock().remove(&self.id);
    }
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

    /// Whoever takes members in next takes this one in, too, unless nobody waits for it any more.
    fn announce(&self, member: &Member) -> Waiting<'_> {
        let id = member.id();
        self.candidates.lock().insert(id, member.clone());
        Waiting { candidates: &self.candidates, id }
    }

    /// Sends a member the metadata before it has a vote. That may take long, or never end if its broker goes again: others come and
    /// go meanwhile.
    async fn prepare(&self, quorum: &Quorum, member: &Member) -> Result<(), ProposeError> {
        {
            let _alone = self.alone(quorum).await?;
            if quorum.end_offset_of(member).is_none() {
                quorum.let_observe([member.clone()]).await?;
            }
        }
        quorum.until_has_log(member.id()).await
    }

    /// Takes a member in, in the place of who was its broker's before, with a vote if it is listed or operators say so.
    pub async fn take_in(
        &self,
        peers: &Peers,
        quorum: &Quorum,
        candidate: Candidate<'_>,
    ) -> Result<(), ProposeError> {
        let member = candidate.member;
        let broker_id = member.broker_id;
        let votes = quorum.image().wants_vote(broker_id).unwrap_or(candidate.votes);
        let has_vote = |members: &Members| members.voters.iter().any(|known| known.member == *member);
        // Who is listed has not moved.
        let may_have_moved = !peers.is_listed(broker_id);
        let lacks_vote = quorum.members().is_none_or(|members| !has_vote(&members));
        if may_have_moved || lacks_vote {
            let lives = || quorum.image().broker(broker_id).is_some_and(|broker| !broker.fenced);
            check_place(peers, candidate, lives).await?;
        }
        if votes && lacks_vote {
            self.prepare(quorum, member).await?;
        }
        let _waiting = (!votes).then(|| self.announce(member));
        let _alone = self.alone(quorum).await?;
        let members = quorum.members().ok_or(ProposeError::NotController)?;
        let had_vote = members.voters.iter().any(|known| known.member.broker_id == broker_id);
        let others = members.voters.iter().filter(|known| known.member.broker_id != broker_id);
        let others = others.map(|known| known.member.id());
        let directory = &member.directory_id;
        match (has_vote(&members), votes) {
            (true, _) => {}
            (false, true) => {
                quorum.change_voters(others.chain([member.id()])).await?;
                tracing::info!(broker = broker_id, directory, "a broker has a vote in the quorum");
            }
            (false, false) => {
                // Whoever waits behind this one finds it done.
                let mut new = std::mem::take(&mut *self.candidates.lock());
                // Its broker may have asked twice, and waits no more for the answer to the first.
                new.insert(member.id(), member.clone());
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

/// That the candidate is the one that answers where its broker is. Two processes that were given one number by mistake would
/// otherwise put each other out in turn. One that is not listed may have moved: nobody is where it was before, and it `lives` no more,
/// for the controller has fenced it. Where it says that it is now counts once it has answered there.
async fn check_place(
    peers: &Peers,
    candidate: Candidate<'_>,
    lives: impl Fn() -> bool,
) -> Result<(), DecisionError> {
    let Candidate { member: Member { broker_id, directory_id }, address, .. } = candidate;
    let known = peers.address(*broker_id);
    let was_at = known.as_deref().unwrap_or(address);
    if known.is_some() {
        let asked = peers.ask(*broker_id, Line::Signals, &Ask::Standing, &[], STANDING_PATIENCE).await;
        if let Ok((Told::Standing(found), _)) = asked
            && found.broker_id == *broker_id
        {
            return if candidate.is(&found) { Ok(()) } else { Err(taken(&found, was_at)) };
        }
        if peers.is_listed(*broker_id) || address == was_at {
            return Err(DecisionError::InvalidRequest(format!(
                "Broker {broker_id} with log directory {directory_id} does not answer at {was_at}, where it is listed or says that it is"
            )));
        }
        if lives() {
            return Err(DecisionError::InvalidRequest(format!(
                "Broker {broker_id} was heard of within broker.session.timeout.ms, and was at {was_at} then: another process may be at {address} once it is not heard of any more"
            )));
        }
    }
    match peers.ask_at(address, &Ask::Standing, STANDING_PATIENCE).await {
        Ok(Told::Standing(found)) if candidate.is(&found) => {
            peers.learn(*broker_id, address.to_owned());
            Ok(())
        }
        Ok(Told::Standing(found)) if found.broker_id == *broker_id => Err(taken(&found, address)),
        Ok(_) | Err(_) => Err(DecisionError::InvalidRequest(format!(
            "Broker {broker_id} with log directory {directory_id} does not answer at {address}, where it says that it is: its advertised.listeners have to name an address at which the other brokers reach it"
        ))),
    }
}

fn taken(by: &Standing, address: &str) -> DecisionError {
    let directory_id = by.directory_id.as_deref().unwrap_or("none yet");
    DecisionError::DuplicateBrokerRegistration(format!(
        "broker {} runs at {address}, with log directory {directory_id}",
        by.broker_id
    ))
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use firn_quorum::log_store::{LogStore, NowMs, SnapshotLimits};
    use firn_storage::directory::LogDirOptions;
    use firn_storage::identity::Identity;
    use firn_storage::log_dir::LogDir;
    use firn_storage::simulated::SimulatedDisk;

    use super::*;
    use crate::peers::world::{At, World, peers};

    fn member(broker_id: i32) -> Member {
        Member { broker_id, directory_id: format!("disk-{broker_id}") }
    }

    fn process(broker_id: i32, number: u128) -> Standing {
        Standing {
            broker_id,
            process: Uuid::from_u128(number),
            directory_id: Some(member(broker_id).directory_id),
            cluster_id: None,
            is_founded: true,
            controller: None,
            controller_address: None,
            term: 0,
        }
    }

    fn candidate<'a>(member: &'a Member, address: &'a str, number: u128) -> Candidate<'a> {
        Candidate { member, address, votes: false, process: Some(Uuid::from_u128(number)) }
    }

    #[tokio::test]
    async fn a_number_is_another_processs_only_once_the_one_before_is_gone() {
        let (world, member) = (Arc::<World>::default(), member(4));
        let peers = peers(&world);
        let at = |place: &'static str, what: At| world.put(place, what);
        let check = async |process, lives: bool| {
            let checked = check_place(&peers, candidate(&member, "new:1", process), || lives).await;
            checked.map_err(|error| error.to_string())
        };
        // Nobody knows of it, and nobody is where it says that it is: nothing is remembered of it.
        let error = check(7, false).await.unwrap_err();
        assert!(
            error.contains("does not answer at new:1") && error.contains("advertised.listeners"),
            "{error}"
        );
        assert_eq!(peers.address(4), None);
        at("new:1", At::Process(process(4, 7)));
        peers.learn(4, "old:1".to_owned());
        // The other answers, of whatever disk.
        at("old:1", At::Process(process(4, 6)));
        for lives in [false, true] {
            let error = check(7, lives).await.unwrap_err();
            assert!(error.contains("broker 4 runs at old:1"), "{error}");
        }
        // It does not answer, but may be there still.
        at("old:1", At::Silence);
        let error = check(7, true).await.unwrap_err();
        assert!(error.contains("broker.session.timeout.ms") && error.contains("old:1"), "{error}");
        assert_eq!(peers.address(4).as_deref(), Some("old:1"));
        // Its lease is over, but whoever asks is not where it says that it is.
        let error = check(8, false).await.unwrap_err();
        assert!(error.contains("broker 4 runs at new:1"), "{error}");
        assert_eq!(peers.address(4).as_deref(), Some("old:1"));
        assert_eq!(check(7, false).await, Ok(()));
        assert_eq!(peers.address(4).as_deref(), Some("new:1"));
        // Once more, where it is by now.
        assert_eq!(check(7, true).await, Ok(()));
        let error = check(9, true).await.unwrap_err();
        assert!(error.contains("broker 4 runs at new:1"), "{error}");
    }

    /// The only member of a quorum, which it leads.
    async fn quorum() -> Quorum {
        let identity =
            Identity { cluster_id: "c".to_owned(), node_id: 1, directory_id: member(1).directory_id };
        let disk = Arc::new(SimulatedDisk::new());
        let dir = LogDir::open(disk, Path::new("/data"), &identity, LogDirOptions::default()).unwrap();
        let limits = SnapshotLimits { bytes_max: u64::MAX, interval_ms: 0, entries_kept: 0 };
        let found = LogStore::open(&dir, limits, NowMs(Arc::new(|| 1))).unwrap();
        let quorum = Quorum::start(found, None, Arc::new(peers(&Arc::default()))).await.unwrap();
        quorum.lead_alone().await.unwrap();
        quorum
    }

    #[tokio::test]
    async fn who_does_not_wait_any_more_is_not_taken_in_with_the_next() {
        let (world, joining, quorum) = (Arc::<World>::default(), Joining::default(), quorum().await);
        let peers = peers(&world);
        world.put("four:1", At::Process(process(4, 7)));
        world.put("five:1", At::Process(process(5, 8)));
        let (four, five) = (member(4), member(5));
        let alone = joining.alone(&quorum).await.unwrap();
        let waits = async {
            while joining.candidates.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            taken = joining.take_in(&peers, &quorum, candidate(&four, "four:1", 7)) => panic!("{taken:?}"),
            () = waits => {}
        }
        drop(alone);
        joining.take_in(&peers, &quorum, candidate(&five, "five:1", 8)).await.unwrap();
        let observers = quorum.members().unwrap().observers;
        assert_eq!(observers.into_iter().map(|known| known.member).collect::<Vec<_>>(), [five]);
        quorum.retire().await;
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_while_it_is_sent_the_metadata_keeps_nobody_waiting() {
        let (world, joining, quorum) = (Arc::<World>::default(), Joining::default(), quorum().await);
        let peers = peers(&world);
        world.put("two:1", At::Process(process(2, 7)));
        world.put("five:1", At::Process(process(5, 8)));
        let (two, five) = (member(2), member(5));
        // It says who it is, and takes nothing in.
        let listed = Candidate { votes: true, ..candidate(&two, "two:1", 7) };
        let meanwhile = async {
            while quorum.members().unwrap().observers.is_empty() {
                tokio::task::yield_now().await;
            }
            joining.take_in(&peers, &quorum, candidate(&five, "five:1", 8)).await
        };
        tokio::select! {
            taken = joining.take_in(&peers, &quorum, listed) => panic!("{taken:?}"),
            taken = tokio::time::timeout(Duration::from_secs(5), meanwhile) => taken.unwrap().unwrap(),
        }
        let observers = quorum.members().unwrap().observers;
        assert_eq!(observers.into_iter().map(|known| known.member).collect::<Vec<_>>(), [two, five]);
        quorum.retire().await;
    }
}
