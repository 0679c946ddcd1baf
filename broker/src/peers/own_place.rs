//! Whether a broker may speak for its number: that its directories are of this cluster and what it ran on last, and that no other
//! process runs as it does.
//!
//! That is asked before it takes its part in the quorum, where it would give votes that it has given already, and elect who lacks
//! what it does not know any more. When all start at once the one that can tell may be a little later than the others: so it is waited
//! for, until the controller has answered, or so many that one of them has whatever was agreed on. Those who have gone cannot say.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use firn_metadata::incarnations::{Noted, Registered, StaleDirectory};
use firn_quorum::quorum::Quorum;
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
    /// The cluster of the metadata that were on the disk at the start, and how they say that each broker has registered last.
    read: OnceLock<(String, BTreeMap<i32, Registered>)>,
    is_robbed: AtomicBool,
}

impl Places {
    /// This broker has metadata, which say how each has registered last.
    pub fn has_read(&self, cluster_id: String, registered: BTreeMap<i32, Registered>) {
        self.read.get_or_init(|| (cluster_id, registered));
    }

    /// This broker's disk has lost what it had synced, of the metadata and perhaps of more.
    pub fn is_robbed(&self) -> bool {
        self.is_robbed.load(Ordering::Acquire)
    }

    /// Answers who asks what is known of it, `part` being this broker's in the quorum: cluster, member.
    pub(super) fn answer(&self, node_id: i32, of: &Member, part: Option<(&str, &Member, &Quorum)>) -> Told {
        let (read, registered) = self.read.get().map(|(id, registered)| (id.as_str(), registered)).unzip();
        // Who began with an empty disk has all that is agreed on once it has a vote.
        let voting =
            part.filter(|(_, own, quorum)| quorum.voters().is_some_and(|voters| voters.contains(&own.id())));
        let Some(cluster_id) = read.or(voting.map(|(cluster_id, ..)| cluster_id)) else {
            return Told::Failed("the broker has no metadata yet".to_owned());
        };
        let quorum = part.map(|(.., quorum)| quorum);
        let on_disk = registered.and_then(|registered| registered.get(&of.broker_id).cloned());
        let in_force = quorum.and_then(|quorum| quorum.image().broker(of.broker_id).map(Registered::from));
        Told::Place(Place {
            broker_id: node_id,
            cluster_id: cluster_id.to_owned(),
            leads: quorum.is_some_and(|quorum| quorum.progress().leads),
            registered: Registered::later(on_disk, in_force),
            had: quorum.and_then(|quorum| quorum.end_offset_of(of)),
        })
    }
}

/// What the metadata on this broker's disk say of itself.
#[derive(Debug)]
pub struct Here {
    pub member: Member,
    pub registered: Option<Registered>,
    /// Offset after the last entry.
    pub end_offset: i64,
}

/// That no other process answers where this broker is listed. One that is about to end may take some time to do so, and not
/// everybody can reach himself.
pub async fn check_alone(membership: &Membership) -> Result<(), StartError> {
    let peers = membership.peers();
    let own = peers.own_id();
    let began = Instant::now();
    loop {
        match peers.ask(own, Line::Signals, &Ask::Standing, &[], ANSWER_PATIENCE).await {
            Ok((Told::Standing(found), _))
                if found.broker_id == own && found.process != membership.process() =>
            {
                if began.elapsed() >= TWIN_PATIENCE {
                    let address = peers.address(own).unwrap_or_default();
                    return Err(StartError::Twin { broker_id: own, address });
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
    // Of all that have a vote a majority has what is agreed on, this broker among them perhaps.
    let enough = match peers.is_listed(peers.own_id()) {
        true => (peers.others().count() + 1).div_ceil(2),
        false => peers.others().count() / 2 + 1,
    };
    loop {
        let (places, strangers): (Vec<Place>, Vec<Place>) =
            places(peers, &here.member).await.into_iter().partition(|place| place.cluster_id == cluster_id);
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
            check_directories(peers.own_id(), last, &noted, log_dirs)?;
        }
        if let Some(had) =
            places.iter().filter_map(|place| place.had).max().filter(|had| *had > here.end_offset)
        {
            tracing::error!(
                log_dir = %log_dirs.first().dir.path().display(),
                end_offset = here.end_offset,
                had,
                "the metadata log is shorter than it was: the log directory is a copy from before, or its disk has lost what it had synced. None of the logs here counts as whole until it has caught up with another broker's; if it is the disk, replace it, and start this broker with an empty directory"
            );
            membership.places().is_robbed.store(true, Ordering::Release);
        }
        if leads || places.len() >= enough || began.elapsed() >= OTHERS_PATIENCE {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// That none of the directories is a copy from before this registration of the broker.
pub fn check_directories(
    broker_id: i32,
    last: &Registered,
    noted: &Noted,
    log_dirs: &LogDirs,
) -> Result<(), StartError> {
    match last.stale(noted) {
        None => Ok(()),
        Some(StaleDirectory { directory_id, incarnation_id }) => Err(StartError::StaleDirectory {
            path: log_dirs.path_of(&directory_id),
            broker_id,
            incarnation_id,
        }),
    }
}

/// What the directories know.
pub async fn noted(log_dirs: &Arc<LogDirs>) -> Result<Noted, StartError> {
    let log_dirs = log_dirs.clone();
    Ok(firn_blocking::run(move || log_dirs.incarnations()).await?)
}

/// What the others say, as far as they answer; all are asked at the same time.
async fn places(peers: &Peers, own: &Member) -> Vec<Place> {
    let mut asking = JoinSet::new();
    for id in peers.others() {
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
