//! How a broker comes to its part in the cluster: by the metadata on its disk, by joining those who have some, or, if
//! nobody has, by founding the cluster.
//!
//! A cluster is founded once. Who founds it is the listed broker with the lowest id, and only after every other one has
//! answered that it belongs to none: one that does not answer may have the metadata. It begins alone, and the others join
//! it. So does a broker whose disk was replaced: it is another member, in the place of the one that has gone.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::DecisionError;
use firn_quorum::quorum::Quorum;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::membership::Membership;
use super::wire::{Ask, ControllerTold, Standing, Told};
use super::{Line, Peers};
use crate::node::StartError;

/// How long another broker may take to say who it is.
const STANDING_PATIENCE: Duration = Duration::from_secs(1);
/// How long the controller may take to let a broker join: it sends it the metadata first.
const JOIN_PATIENCE: Duration = Duration::from_secs(60);
/// How long the controller may be silent meanwhile before it is looked for anew: a machine that lost its power ends no connection.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long to wait before asking again.
const PAUSE: Duration = Duration::from_millis(100);
/// How long nothing may be heard of a leader before this member may be none any more.
const UNHEARD_MAX: Duration = Duration::from_secs(2);
/// How long another process of this broker's number is given to end.
const TWIN_PATIENCE: Duration = Duration::from_secs(5);
/// How often it is said what is waited for.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Found the cluster, with this id if it is known already.
    Found(Option<String>),
    /// Join the cluster of this id.
    Join(String),
    Wait(Waiting),
    /// Somebody has to look into it.
    Refuse(String),
}

/// What is waited for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Waiting {
    /// These brokers have not answered.
    Answers(Vec<i32>),
    /// This broker is to found the cluster.
    Founder(i32),
}

/// What follows from who this broker is (of a cluster, perhaps, but never in its quorum), whether it is listed, and what the others
/// say that are; `None` has not answered.
pub fn step(own: &Standing, is_listed: bool, others: &BTreeMap<i32, Option<Standing>>) -> Step {
    let answers = || others.values().flatten();
    let mut clusters: Vec<(&String, i32)> = Vec::new();
    for standing in answers().filter(|standing| standing.is_founded) {
        clusters.extend(standing.cluster_id.as_ref().map(|id| (id, standing.broker_id)));
    }
    if let Some((id, broker_id)) = clusters.first() {
        if let Some((other, of)) = clusters.iter().find(|(other, _)| other != id) {
            return Step::Refuse(format!(
                "broker {broker_id} is of the cluster {id}, and broker {of} of {other}"
            ));
        }
        return match &own.cluster_id {
            Some(known) if known != *id => Step::Refuse(format!(
                "broker {broker_id} is of the cluster {id}, and the log directories here are of {known}"
            )),
            _ => Step::Join((*id).clone()),
        };
    }
    let missing: Vec<i32> = others.iter().filter(|(_, one)| one.is_none()).map(|(id, _)| *id).collect();
    if !missing.is_empty() {
        return Step::Wait(Waiting::Answers(missing));
    }
    if let Some(lower) = others.keys().next().filter(|id| !is_listed || **id < own.broker_id) {
        return Step::Wait(Waiting::Founder(*lower));
    }
    // Somebody may have taken over the id of a cluster whose founder lost its disk at once.
    let known = own.cluster_id.iter().chain(answers().filter_map(|standing| standing.cluster_id.as_ref()));
    let known: Vec<&String> = known.collect();
    match known.split_first() {
        Some((first, rest)) if rest.iter().any(|other| other != first) => Step::Refuse(
            "the brokers' log directories are of several clusters, none of which has metadata".to_owned(),
        ),
        first => Step::Found(first.map(|(first, _)| (*first).clone())),
    }
}

/// Asks who the others are until it is clear what to do: found the cluster (with an id from `new_id`), or join one. Returns
/// the cluster's id, and whether to found it.
pub async fn find_cluster(
    membership: &Membership,
    peers: &Peers,
    new_id: impl FnOnce() -> String,
) -> Result<(String, bool), StartError> {
    let mut told = None;
    loop {
        let own = membership.standing();
        let found = standings(peers).await;
        let others = found.iter().map(|(id, one)| (*id, one.as_ref().ok().cloned())).collect();
        match step(&own, peers.is_listed(own.broker_id), &others) {
            Step::Found(known) => {
                check_own_address(&own, peers).await?;
                return Ok((known.unwrap_or_else(new_id), true));
            }
            Step::Join(cluster_id) => return Ok((cluster_id, false)),
            Step::Refuse(reason) => return Err(StartError::OtherCluster(reason)),
            Step::Wait(waiting) => say(&mut told, || match waiting {
                Waiting::Answers(missing) => {
                    let reasons = missing.iter().filter_map(|id| found.get(id)?.as_ref().err());
                    let reasons: Vec<&str> = reasons.map(String::as_str).collect();
                    format!(
                        "a cluster is founded once every broker has answered; waiting for {}",
                        reasons.join("; ")
                    )
                }
                Waiting::Founder(id) => format!("waiting for broker {id} to found the cluster"),
            }),
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// That nobody else answers where this broker is listed: there would be two of one number. Not everybody can reach himself.
async fn check_own_address(own: &Standing, peers: &Peers) -> Result<(), StartError> {
    let asked = peers.ask(own.broker_id, Line::Signals, &Ask::Standing, &[], STANDING_PATIENCE).await;
    match asked {
        Ok((Told::Standing(found), _)) if found.process != own.process => {
            Err(StartError::OtherCluster(format!(
                "where broker {} is listed, broker {} answers, and it is another process",
                own.broker_id, found.broker_id
            )))
        }
        _ => Ok(()),
    }
}

/// Asks to be taken into the quorum until this broker has its part in it, there is a controller, and as many have a vote as are
/// needed for a majority of those that are listed: what is agreed on before would lie on fewer disks than it should. Its part is a
/// vote if it is listed, unless operators have said otherwise.
pub async fn take_part(
    membership: &Membership,
    peers: &Peers,
    quorum: &Arc<Quorum>,
    own: u64,
) -> Result<(), StartError> {
    let mut told = None;
    let mut refusals = Refusals::default();
    loop {
        let voters = quorum.voters();
        let image = quorum.image();
        let wants_vote = image.wants_vote(peers.own_id()).unwrap_or(peers.is_listed(peers.own_id()));
        // Whoever has registered has seen a majority. Which brokers there are, and which of them vote, has changed since, perhaps.
        let has_begun = image.brokers().next().is_some();
        let listed = peers.listed().count();
        let has_vote = voters.as_ref().is_some_and(|voters| voters.contains(&own));
        let has_part = has_vote || (!wants_vote && quorum.is_member());
        let is_led = quorum.progress().leader.is_some();
        let count = voters.map_or(0, |voters| voters.len());
        if has_part && is_led && (has_begun || count > listed / 2) {
            return Ok(());
        }
        let others: Vec<Standing> = standings(peers).await.into_values().flatten().collect();
        check_cluster(&membership.standing(), &others)?;
        if !has_part || !is_led {
            join(membership, peers, &others, &mut refusals).await?;
        }
        say(&mut told, || match has_part {
            true if is_led => {
                format!("waiting until a majority of the {listed} brokers has a vote; {count} have")
            }
            true => format!("waiting for a majority of the {count} brokers that have a vote"),
            false if wants_vote => {
                "waiting for a vote among the brokers that decide on the metadata".to_owned()
            }
            false => "waiting to be taken in by the controller".to_owned(),
        });
        tokio::time::sleep(PAUSE).await;
    }
}

/// Waits until what the quorum has decided is in force here. Who was unregistered while it was away has lost its vote, and its own
/// log does not say so: whoever hears of no leader for a while asks to be taken in once more, which is nothing to who has a vote.
pub async fn settle(membership: &Membership, peers: &Peers, quorum: &Quorum) -> Result<(), StartError> {
    let asking = async {
        let mut refusals = Refusals::default();
        loop {
            tokio::time::sleep(UNHEARD_MAX).await;
            let others: Vec<Standing> = standings(peers).await.into_values().flatten().collect();
            if let Err(error) = join(membership, peers, &others, &mut refusals).await {
                return error;
            }
        }
    };
    tokio::select! {
        settled = quorum.settled() => Ok(settled?),
        error = asking => Err(error),
    }
}

/// That nobody who has metadata has those of another cluster, unless somebody knows a controller of this one: then it is the other
/// who is misplaced, and is refused.
fn check_cluster(own: &Standing, others: &[Standing]) -> Result<(), StartError> {
    if others.iter().any(|other| other.controller.is_some() && other.cluster_id == own.cluster_id) {
        return Ok(());
    }
    let is_of_another = |other: &&Standing| other.is_founded && other.cluster_id != own.cluster_id;
    let Some(other) = others.iter().find(is_of_another) else { return Ok(()) };
    let name = |id: &Option<String>| id.clone().unwrap_or_else(|| "none".to_owned());
    Err(StartError::OtherCluster(format!(
        "broker {} is of the cluster {}, and the log directories here are of {}",
        other.broker_id,
        name(&other.cluster_id),
        name(&own.cluster_id)
    )))
}

/// That a broker was not taken in.
#[derive(Debug, Default)]
struct Refusals {
    told: Option<Instant>,
    /// Since when another process of its number has been found each time.
    twin_since: Option<Instant>,
}

async fn join(
    membership: &Membership,
    peers: &Peers,
    others: &[Standing],
    refusals: &mut Refusals,
) -> Result<(), StartError> {
    // Who was cut off may believe in an earlier one.
    let newest = others.iter().max_by_key(|standing| (standing.controller.is_some(), standing.term));
    let controller = newest.and_then(|standing| standing.controller).filter(|id| *id != peers.own_id());
    let (Some(controller), Some(wish)) = (controller, membership.wish()) else { return Ok(()) };
    if let Some(address) = newest.and_then(|standing| standing.controller_address.clone()) {
        peers.learn(controller, address);
    }
    let wish = Ask::Controller(wish);
    let told = tokio::select! {
        told = peers.ask(controller, Line::Controller, &wish, &[], JOIN_PATIENCE) => told,
        () = until_it_is_no_controller(peers, controller) => {
            tracing::debug!(controller, "not taken in yet: it is silent, or the controller no more");
            return Ok(());
        }
    };
    match told {
        Ok((Told::Controller(ControllerTold::Joined), _)) => refusals.twin_since = None,
        Ok((Told::Controller(ControllerTold::Refused(error)), _)) => {
            say(&mut refusals.told, || format!("broker {controller} does not take this broker in: {error}"));
            match error {
                DecisionError::DuplicateBrokerRegistration(reason) => {
                    if refusals.twin_since.get_or_insert_with(Instant::now).elapsed() >= TWIN_PATIENCE {
                        return Err(StartError::Taken { broker_id: peers.own_id(), reason });
                    }
                }
                _ => refusals.twin_since = None,
            }
        }
        Ok((told, _)) => tracing::debug!(controller, %told, "not taken in yet"),
        Err(error) => tracing::debug!(%error, "not taken in yet"),
    }
    Ok(())
}

/// Waits until a broker says that it is not the controller, or says nothing for a while.
async fn until_it_is_no_controller(peers: &Peers, controller: i32) {
    let mut heard = Instant::now();
    while heard.elapsed() < SILENCE_MAX {
        tokio::time::sleep(STANDING_PATIENCE).await;
        match peers.ask(controller, Line::Signals, &Ask::Standing, &[], STANDING_PATIENCE).await {
            Ok((Told::Standing(standing), _)) if standing.controller == Some(controller) => {
                heard = Instant::now();
            }
            Ok(_) => return,
            Err(error) => tracing::debug!(controller, %error, "no answer"),
        }
    }
}

/// Says what is waited for, at once and then from time to time.
fn say(told: &mut Option<Instant>, what: impl FnOnce() -> String) {
    if told.is_none_or(|told| told.elapsed() >= TOLD_EVERY) {
        *told = Some(Instant::now());
        tracing::info!("{}", what());
    }
}

/// Who the others are, or why they have not said so; all are asked at the same time.
async fn standings(peers: &Peers) -> BTreeMap<i32, Result<Standing, String>> {
    let mut asking = JoinSet::new();
    for id in peers.others() {
        let peers = peers.clone();
        asking.spawn(async move {
            let asked = peers.ask(id, Line::Signals, &Ask::Standing, &[], STANDING_PATIENCE).await;
            let standing = match asked {
                Ok((Told::Standing(standing), _)) if standing.broker_id == id => Ok(standing),
                Ok((Told::Standing(standing), _)) => {
                    let found = standing.broker_id;
                    tracing::warn!(
                        broker = id,
                        found,
                        "controller.quorum.voters names the address of another broker"
                    );
                    Err(format!("broker {id}, at whose address broker {found} answers"))
                }
                Ok((told, _)) => Err(format!("broker {id}: {told}")),
                Err(error) => Err(error.to_string()),
            };
            if let Err(reason) = &standing {
                tracing::debug!(broker = id, reason, "no answer");
            }
            (id, standing)
        });
    }
    asking.join_all().await.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peers::world::{self, At, World};

    fn standing(broker_id: i32, cluster_id: Option<&str>, is_founded: bool) -> Standing {
        let directory_id = Some(format!("disk-{broker_id}"));
        let cluster_id = cluster_id.map(str::to_owned);
        Standing {
            broker_id,
            process: uuid::Uuid::nil(),
            directory_id,
            cluster_id,
            is_founded,
            controller: None,
            controller_address: None,
            term: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_asked_is_left_once_it_is_silent_or_the_controller_no_more() {
        let world = Arc::<World>::default();
        let peers = world::peers(&world);
        let leads = Standing { controller: Some(2), ..standing(2, Some("a"), true) };
        let cases = [At::Silence, At::Process(standing(2, Some("a"), true))];
        for then in cases {
            world.put("two:1", At::Process(leads.clone()));
            let asked = until_it_is_no_controller(&peers, 2);
            tokio::pin!(asked);
            let waited = tokio::time::timeout(JOIN_PATIENCE, &mut asked).await;
            assert!(waited.is_err(), "it is the controller");
            world.put("two:1", then);
            tokio::time::timeout(SILENCE_MAX * 2, asked).await.unwrap();
        }
    }

    #[test]
    fn what_follows_from_who_answers_what() {
        let new = |id| (id, Some(standing(id, None, false)));
        let of = |id, cluster| (id, Some(standing(id, Some(cluster), true)));
        let begun = |id, cluster| (id, Some(standing(id, Some(cluster), false)));
        let silent = |id| (id, None);
        let wait = |missing: &[i32]| Step::Wait(Waiting::Answers(missing.to_vec()));
        let table = [
            // A cluster is founded once, by the first, when all are known to be new.
            (standing(0, None, false), vec![new(1), new(2)], Step::Found(None)),
            (standing(0, None, false), vec![new(1), silent(2)], wait(&[2])),
            (standing(1, None, false), vec![new(0), new(2)], Step::Wait(Waiting::Founder(0))),
            (standing(1, None, false), vec![silent(0), silent(2)], wait(&[0, 2])),
            (standing(0, None, false), vec![], Step::Found(None)),
            // Who has metadata is joined, whoever else is silent.
            (standing(0, None, false), vec![silent(1), of(2, "a")], Step::Join("a".to_owned())),
            (standing(1, Some("a"), false), vec![of(0, "a"), silent(2)], Step::Join("a".to_owned())),
            // The founder went before it founded, or lost its disk right after.
            (standing(0, Some("a"), false), vec![new(1), new(2)], Step::Found(Some("a".to_owned()))),
            (standing(0, None, false), vec![new(1), begun(2, "a")], Step::Found(Some("a".to_owned()))),
        ];
        for (own, others, expected) in table {
            let others: BTreeMap<_, _> = others.into_iter().collect();
            assert_eq!(step(&own, true, &others), expected, "{own:?} {others:?}");
        }
        // Who is not listed founds nothing, and joins whoever has.
        let observer = |others: Vec<(i32, Option<Standing>)>| {
            step(&standing(0, None, false), false, &others.into_iter().collect())
        };
        assert_eq!(observer(vec![new(1), new(2)]), Step::Wait(Waiting::Founder(1)));
        assert_eq!(observer(vec![silent(1), of(2, "a")]), Step::Join("a".to_owned()));
        let refused = [
            (standing(0, Some("b"), false), vec![of(1, "a"), new(2)]),
            (standing(0, None, false), vec![of(1, "a"), of(2, "b")]),
            (standing(0, Some("b"), false), vec![begun(1, "a"), new(2)]),
        ];
        for (own, others) in refused {
            let step = step(&own, true, &others.into_iter().collect());
            assert!(matches!(step, Step::Refuse(_)), "{own:?}: {step:?}");
        }
    }
}
