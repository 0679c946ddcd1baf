//! Whether a broker may speak for its number: that its directories are of this cluster and what it ran on last, and that no other
//! process runs as it does.
//!
//! That is asked before it takes its part in the quorum, where it would give votes that it has given already, and elect who lacks
//! what it does not know any more. When all start at once the one that can tell may be a little later than the others: so it is waited
//! for, until the controller has answered, or so many that one of them has whatever was agreed on. Those who have gone cannot say.
//!
//! Only those know it for certain who have a vote, and who has one is known here as of when the disk was written last. So whoever
//! answers tells who has by what he knows, and these are asked, too. One of any majority of those that had the votes knows that they
//! have none any more, and who has them instead.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use firn_metadata::incarnations::{Noted, Registered, StaleDirectory};
use firn_quorum::electorate::Electorate;
use firn_quorum::log_store::Found;
use firn_quorum::quorum::Quorum;
use firn_quorum::registrations::Known;
use firn_quorum::types::Member;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::membership::Membership;
use super::wire::{Ask, Place, Told};
use super::{Line, Peers};
use crate::log_dirs::LogDirs;
use crate::node::StartError;

/// How long another broker may take to answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(1);
/// How long those who do not answer are waited for.
const OTHERS_PATIENCE: Duration = Duration::from_secs(5);
/// How long another process of this broker's number is given to end.
const TWIN_PATIENCE: Duration = Duration::from_secs(5);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(100);

/// What is known here of brokers' disks, this one's among them.
#[derive(Debug, Default)]
pub struct Places {
    read: OnceLock<Read>,
    is_robbed: AtomicBool,
}

/// The metadata that were on the disk at the start.
#[derive(Debug)]
struct Read {
    cluster_id: String,
    /// Whose they are.
    member: Member,
    brokers: Known,
}

impl Places {
    /// This broker has metadata, which say how each has registered last, and who has a vote.
    pub fn has_read(&self, cluster_id: String, member: Member, brokers: Known) {
        self.read.get_or_init(|| Read { cluster_id, member, brokers });
    }

    /// A disk of this broker's has lost what it had synced, or is a copy from before.
    pub fn is_robbed(&self) -> bool {
        self.is_robbed.load(Ordering::Acquire)
    }

    /// A directory is not what it was, and why.
    fn rob(&self, log_dir: &dyn fmt::Display, why: &str) {
        if !self.is_robbed.swap(true, Ordering::AcqRel) {
            tracing::error!(
                %log_dir,
                why,
                "the log directory is a copy from before, or its disk has lost what it had synced. None of the logs here counts as whole until it has caught up with another broker's; if it is the disk, replace it, and start this broker with an empty directory"
            );
        }
    }

    /// Answers who asks what is known of it, `part` being this broker's in the quorum: cluster, member.
    pub(super) fn answer(&self, peers: &Peers, of: &Member, part: Option<(&str, &Member, &Quorum)>) -> Told {
        let read = self.read.get();
        // Who began with an empty disk has all that is agreed on once it has a vote.
        let voting =
            part.filter(|(_, own, quorum)| quorum.voters().is_some_and(|voters| voters.contains(&own.id())));
        let known = read.map(|read| (&*read.cluster_id, &read.member));
        let Some((cluster_id, own)) = known.or(voting.map(|(cluster_id, own, _)| (cluster_id, own))) else {
            return Told::Failed("the broker has no metadata yet".to_owned());
        };
        let quorum = part.map(|(.., quorum)| quorum);
        let on_disk = read.and_then(|read| read.brokers.registered.get(&of.broker_id).cloned());
        let in_force = quorum.and_then(|quorum| quorum.image().broker(of.broker_id).map(Registered::from));
        let read_there = || read.map(|read| read.brokers.electorate.clone());
        let electorate = quorum.map(Quorum::electorate).or_else(read_there).unwrap_or_default();
        let unlisted = electorate.brokers().into_iter().filter(|id| !peers.is_listed(*id));
        let addresses = unlisted.filter_map(|id| Some((id, peers.address(id)?))).collect();
        Told::Place(Place {
            broker_id: peers.own_id(),
            cluster_id: cluster_id.to_owned(),
            leads: quorum.is_some_and(|quorum| quorum.progress().leads),
            registered: Registered::later(on_disk, in_force),
            had: quorum.and_then(|quorum| quorum.end_offset_of(of)),
            member: own.id(),
            electorate,
            addresses,
        })
    }
}

/// What the metadata on this broker's disk say of itself.
#[derive(Debug)]
pub struct Here {
    pub member: Member,
    pub registered: Option<Registered>,
    /// Where it was then.
    pub was_at: Option<String>,
    pub electorate: Electorate,
    /// Offset after the last entry.
    pub end_offset: i64,
}

impl Here {
    pub fn new(found: &Found, brokers: &Known, peers: &Peers) -> Self {
        let own = &found.member.broker_id;
        Self {
            member: found.member.clone(),
            registered: brokers.registered.get(own).cloned(),
            was_at: brokers.endpoints.get(own).and_then(|endpoints| peers.address_in(endpoints)),
            electorate: brokers.electorate.clone(),
            end_offset: found.end_offset(),
        }
    }
}

/// That no other process answers where this broker is listed or, if it is not, where it is and has registered last.
pub async fn check_alone(membership: &Membership, was_at: Option<String>) -> Result<(), StartError> {
    let peers = membership.peers();
    let own = peers.own_id();
    let was_at = was_at.filter(|_| !peers.is_listed(own));
    let places: BTreeSet<String> = peers.address(own).into_iter().chain(was_at).collect();
    for address in places {
        check_alone_at(membership, address).await?;
    }
    Ok(())
}

/// One that is about to end may take some time to do so, and not everybody can reach himself.
async fn check_alone_at(membership: &Membership, address: String) -> Result<(), StartError> {
    let broker_id = membership.peers().own_id();
    let began = Instant::now();
    loop {
        match membership.peers().ask_at(&address, &Ask::Standing, ANSWER_PATIENCE).await {
            Ok(Told::Standing(found))
                if found.broker_id == broker_id && found.process != membership.process() =>
            {
                if began.elapsed() >= TWIN_PATIENCE {
                    return Err(StartError::Twin { broker_id, address });
                }
            }
            _ => return Ok(()),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// That the directories, on which there are metadata, are those that this broker ran on last. See the module. What others say of an
/// earlier registration than is known here is old.
pub async fn check_disks(
    membership: &Membership,
    cluster_id: &str,
    here: Here,
    log_dirs: &Arc<LogDirs>,
) -> Result<(), StartError> {
    let peers = membership.peers();
    let noted = noted(log_dirs).await?;
    let began = Instant::now();
    let mut electorate = here.electorate.clone();
    loop {
        let asked = asked(peers, &electorate);
        let places = places(peers, &here.member, &asked).await;
        let (places, strangers): (Vec<Place>, Vec<Place>) =
            places.into_iter().partition(|place| place.cluster_id == cluster_id);
        let leads = places.iter().any(|place| place.leads);
        // Where there is a controller the stranger is the other, and is refused itself.
        if let Some(other) = strangers.first().filter(|_| !leads) {
            return Err(StartError::OtherCluster(format!(
                "broker {} is of the cluster {}, and the log directories here are of {cluster_id}",
                other.broker_id, other.cluster_id
            )));
        }
        let known = here.registered.as_ref().map(|known| known.broker_epoch);
        let told = places.iter().filter_map(|place| place.registered.as_ref());
        for last in told.filter(|told| Some(told.broker_epoch) >= known) {
            check_directories(membership, last, &noted, log_dirs)?;
        }
        if let Some(had) =
            places.iter().filter_map(|place| place.had).max().filter(|had| *had > here.end_offset)
        {
            let path = log_dirs.first().dir.path().display();
            let why = format!(
                "the metadata log is shorter than it was: it ends at {}, and had {had}",
                here.end_offset
            );
            membership.places().rob(&path, &why);
        }
        electorate = places.iter().fold(electorate, |known, place| known.later(&place.electorate));
        if electorate != here.electorate {
            learn_absent(peers, &places, &electorate);
        }
        let heard = places.iter().map(|place| place.member).collect();
        // Where this one has decided alone whoever is there is heard.
        let all_answer = places.len() == asked.len() && asked == self::asked(peers, &electorate);
        let is_over = leads || all_answer || electorate.is_represented_by(&heard, here.member.id());
        if is_over || began.elapsed() >= OTHERS_PATIENCE {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// That none of the directories is a copy from before this registration of the broker. One from before a mark of it may also be a disk that
/// has lost what it had synced: it is used, and vouches for nothing.
pub fn check_directories(
    membership: &Membership,
    last: &Registered,
    noted: &Noted,
    log_dirs: &LogDirs,
) -> Result<(), StartError> {
    if let Some(StaleDirectory { directory_id, incarnation_id }) = last.stale(noted) {
        let (path, broker_id) = (log_dirs.path_of(&directory_id), membership.peers().own_id());
        return Err(StartError::StaleDirectory { path, broker_id, incarnation_id });
    }
    if let Some(directory_id) = last.behind(noted) {
        let why = format!("{} marks had been left in it, and not all of them are there", last.marks);
        membership.places().rob(&log_dirs.path_of(&directory_id).display(), &why);
    }
    Ok(())
}

/// What the directories know.
pub async fn noted(log_dirs: &Arc<LogDirs>) -> Result<Noted, StartError> {
    let log_dirs = log_dirs.clone();
    Ok(firn_blocking::run(move || log_dirs.incarnations()).await?)
}

/// Whoever is listed, and whoever is known to have a vote.
fn asked(peers: &Peers, electorate: &Electorate) -> BTreeSet<i32> {
    let voters = electorate.brokers().into_iter().filter(|id| *id != peers.own_id());
    peers.others().chain(voters).collect()
}

/// Who does not answer where it was may be where those know it to be that know more than there is here.
fn learn_absent(peers: &Peers, places: &[Place], newest: &Electorate) {
    let answers = |id: i32| id == peers.own_id() || places.iter().any(|place| place.broker_id == id);
    let told = places.iter().filter(|place| place.electorate == *newest).flat_map(|place| &place.addresses);
    for (id, address) in told.filter(|(id, _)| !answers(**id)) {
        peers.learn(*id, address.clone());
    }
}

/// What the others say, as far as they answer; all are asked at the same time.
async fn places(peers: &Peers, own: &Member, asked: &BTreeSet<i32>) -> Vec<Place> {
    let mut asking = JoinSet::new();
    for id in asked.iter().copied() {
        let (peers, own) = (peers.clone(), own.clone());
        asking.spawn(async move { place(&peers, id, own).await.filter(|place| place.broker_id == id) });
    }
    asking.join_all().await.into_iter().flatten().collect()
}

async fn place(peers: &Peers, asked: i32, own: Member) -> Option<Place> {
    let ask = Ask::Place(own);
    match peers.ask(asked, Line::Signals, &ask, &[], ANSWER_PATIENCE).await {
        Ok((Told::Place(place), _)) => Some(place),
        Ok((told, _)) => {
            tracing::debug!(broker = asked, %told, "no answer");
            None
        }
        Err(error) => {
            tracing::debug!(%error, "no answer");
            None
        }
    }
}
