//! This broker's part in the cluster: what it says of itself, what it answers the others, and, while it is the controller,
//! what it does for them.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use firn_metadata::decide::brokers::{has_lost_all, register_broker};
use firn_metadata::decide::isr::alter_partitions;
use firn_metadata::decide::lifecycle::{check_epoch, fence, hand_over, heartbeat};
use firn_metadata::decide::partitions::Rules;
use firn_metadata::decide::producer_ids::allocate_producer_ids;
use firn_metadata::decide::room::{ShortReplica, make_way};
use firn_metadata::decide::{Decision, DecisionError};
use firn_metadata::image::Image;
use firn_metadata::record::Endpoint;
use firn_model::broker_config::BrokerConfig;
use firn_model::ids::TopicId;
use firn_quorum::quorum::{ProposeError, Quorum};
use firn_quorum::types::Member;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::ask_error::AskError;
use super::heard::{Beat, Heard};
use super::joining::{Candidate, Joining};
use super::marks;
use super::own_place::Places;
use super::wire::{Ask, ControllerAsk, ControllerTold, Standing, Told};
use super::{Line, Peers, votes};
use crate::creation;
use crate::environment::Random;
use crate::milliseconds::milliseconds;

/// How long to wait before the controller is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// How long one attempt to ask the controller may take.
const ATTEMPT_MAX: Duration = Duration::from_secs(5);
/// How long a reply of the controller is held back until this broker knows what it tells of.
const KNOWN_MAX: Duration = Duration::from_secs(1);
/// How long the controller waits for its heir.
const HAND_OVER_MAX: Duration = Duration::from_secs(1);
/// How long a broker may take to join: the metadata are sent to it meanwhile.
const JOIN_MAX: Duration = Duration::from_secs(50);
/// How often the controller looks at the leases.
const LEASES_WATCHED: Duration = Duration::from_millis(100);

/// See the module.
#[derive(Debug)]
pub struct Membership {
    /// As the file has it.
    config: Arc<BrokerConfig>,
    /// Where it is.
    endpoints: Vec<Endpoint>,
    random: Arc<dyn Random>,
    peers: Peers,
    process: Uuid,
    /// The disks are known to hold nothing.
    is_new: AtomicBool,
    places: Places,
    part: OnceLock<Part>,
    heard: Heard,
    joining: Joining,
}

#[derive(Debug)]
struct Part {
    cluster_id: String,
    member: Member,
    quorum: Arc<Quorum>,
    /// It belonged to a quorum when it started.
    was_founded: bool,
}

impl Membership {
    pub fn new(
        config: Arc<BrokerConfig>,
        random: Arc<dyn Random>,
        peers: Peers,
        endpoints: Vec<Endpoint>,
    ) -> Self {
        let lease = milliseconds(config.quorum.session_timeout_ms);
        Self {
            heard: Heard::new(config.node_id, lease),
            config,
            endpoints,
            process: random.uuid(),
            random,
            peers,
            is_new: AtomicBool::new(false),
            places: Places::default(),
            part: OnceLock::new(),
            joining: Joining::default(),
        }
    }

    /// The disks hold nothing: others may be told so.
    pub fn begin_new(&self) {
        self.is_new.store(true, Ordering::Release);
    }

    /// What is known of the brokers' disks.
    pub fn places(&self) -> &Places {
        &self.places
    }

    /// It takes part in the quorum.
    pub fn begin(&self, cluster_id: String, member: Member, quorum: Arc<Quorum>, was_founded: bool) {
        self.part.get_or_init(|| Part { cluster_id, member, quorum, was_founded });
    }

    /// The metadata quorum, once this broker takes part in it.
    pub(super) fn quorum(&self) -> Option<&Quorum> {
        Some(&self.part.get()?.quorum)
    }

    /// How the members change.
    pub(super) fn joining(&self) -> &Joining {
        &self.joining
    }

    /// Where this broker is.
    pub fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// Of this process.
    pub fn process(&self) -> Uuid {
        self.process
    }

    pub fn peers(&self) -> &Peers {
        &self.peers
    }

    /// What this broker asks for to be taken into the quorum; nothing before there is a disk.
    pub fn wish(&self) -> Option<ControllerAsk> {
        let Part { cluster_id, member, .. } = self.part.get()?;
        Some(ControllerAsk::Join {
            cluster_id: cluster_id.clone(),
            member: member.clone(),
            address: self.peers.address(self.config.node_id)?,
            votes: self.peers.is_listed(self.config.node_id),
            process: Some(self.process),
        })
    }

    /// Who this broker is, as far as it knows.
    pub fn standing(&self) -> Standing {
        let part = self.part.get();
        let progress = part.map(|part| part.quorum.progress());
        let is_founded = |part: &Part| part.was_founded || progress.is_some_and(|now| now.end_offset > 0);
        Standing {
            broker_id: self.config.node_id,
            process: self.process,
            directory_id: part.map(|part| part.member.directory_id.clone()),
            cluster_id: part.map(|part| part.cluster_id.clone()),
            is_founded: part.is_some_and(is_founded),
            controller: progress.and_then(|now| now.leader),
            controller_address: progress.and_then(|now| self.peers.address(now.leader?)),
            term: progress.map_or(0, |now| now.term),
        }
    }

    /// Answers another broker; a client's request is not answered here.
    pub async fn answer(&self, ask: Ask, rest: &Bytes) -> (Told, Bytes) {
        let told = match ask {
            // Before the disk is read nobody knows what this broker is.
            Ask::Standing if self.part.get().is_none() && !self.is_new.load(Ordering::Acquire) => {
                Told::Failed("the broker is starting".to_owned())
            }
            Ask::Standing => Told::Standing(self.standing()),
            Ask::Place(member) => {
                let part = self.part.get().map(|part| (&*part.cluster_id, &part.member, &*part.quorum));
                self.places.answer(&self.peers, &member, part)
            }
            Ask::Quorum { to } => return self.answer_member(to, rest).await,
            Ask::Controller(ask) => match self.as_controller(&ask).await {
                Ok(told) => Told::Controller(told),
                Err(ProposeError::Refused(error)) => Told::Controller(ControllerTold::Refused(error)),
                Err(ProposeError::NotController | ProposeError::NoController) => Told::NotController,
                Err(error) => Told::Failed(error.to_string()),
            },
            Ask::Client { .. }
            | Ask::Logs(_)
            | Ask::LogSizes
            | Ask::LocalStart { .. }
            | Ask::MoreToFetch { .. } => Told::Failed("the broker is starting".to_owned()),
        };
        (told, Bytes::new())
    }

    async fn answer_member(&self, to: u64, message: &Bytes) -> (Told, Bytes) {
        let Some(part) = self.part.get().filter(|part| part.member.id() == to) else {
            return (
                Told::Failed("the message is for another member of the quorum".to_owned()),
                Bytes::new(),
            );
        };
        match part.quorum.answer(message).await {
            Ok(answer) => (Told::Quorum, answer),
            Err(error) => (Told::Failed(error.to_string()), Bytes::new()),
        }
    }

    /// Asks the controller, this broker or another, until it answers or `patience` is over. What is asked may be done twice.
    pub async fn ask_controller(
        &self,
        ask: &ControllerAsk,
        patience: Duration,
    ) -> Result<ControllerTold, AskError> {
        let deadline = Instant::now() + patience;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.ask_once(ask, left).await {
                Err(error) if error.may_pass() && Instant::now() + PAUSE < deadline => {
                    tokio::time::sleep(PAUSE).await;
                }
                told => return told,
            }
        }
    }

    async fn ask_once(&self, ask: &ControllerAsk, patience: Duration) -> Result<ControllerTold, AskError> {
        let part = self.part.get().ok_or(ProposeError::NotController)?;
        let progress = part.quorum.progress();
        if progress.leads {
            let told = tokio::time::timeout(patience, self.as_controller(ask)).await;
            return Ok(told.unwrap_or(Err(ProposeError::TimedOut))?);
        }
        let controller = progress.leader.ok_or(ProposeError::NoController)?;
        let line = match ask {
            // In order: a heartbeat that comes last would let it in again.
            ControllerAsk::Heartbeat { .. } | ControllerAsk::Leave { .. } => Line::Signals,
            _ => Line::Controller,
        };
        let ask = Ask::Controller(ask.clone());
        let told = tokio::select! {
            told = self.peers.ask(controller, line, &ask, &[], patience.min(ATTEMPT_MAX)) => told?.0,
            () = part.quorum.until_deposed(controller) => return Err(ProposeError::NotController.into()),
        };
        match told {
            Told::Controller(ControllerTold::Refused(error)) => Err(ProposeError::Refused(error).into()),
            Told::Controller(told) => Ok(told),
            Told::NotController => Err(ProposeError::NotController.into()),
            told => Err(AskError::There { controller, reason: told.to_string() }),
        }
    }

    /// Has the controller answer a client's request (its frame, without the length); `None` where this broker is the
    /// controller, or none can be reached: then it answers itself.
    pub async fn forward(&self, listener: &str, request: &Bytes, patience: Duration) -> Option<Bytes> {
        let deadline = Instant::now() + patience;
        let part = self.part.get()?;
        loop {
            let progress = part.quorum.progress();
            let left = deadline.saturating_duration_since(Instant::now());
            if progress.leads || left.is_zero() {
                return None;
            }
            // This broker may have been elected, and not know all yet.
            if let Some(controller) = progress.leader.filter(|id| *id != self.config.node_id) {
                let ask = Ask::Client { listener: listener.to_owned() };
                let asking = self.peers.ask(controller, Line::Clients, &ask, request, left);
                let told = tokio::select! {
                    told = asking => told,
                    // It may have been carried out. As a client that is told of another controller, this broker asks once more
                    // where it is one now.
                    () = part.quorum.until_deposed(controller) => return None,
                };
                match told {
                    Ok((Told::Client { end_offset }, reply)) => {
                        // So that the client finds here what it was told of.
                        let known = part.quorum.wait_until(|now| now.end_offset() >= end_offset);
                        tokio::time::timeout(KNOWN_MAX, known).await.ok();
                        return Some(reply);
                    }
                    // There will be another.
                    Ok((Told::NotController, _)) => {}
                    Ok((told, _)) => {
                        tracing::debug!(controller, %told, "a request is not answered there");
                        return None;
                    }
                    Err(error) => {
                        tracing::debug!(%error, "a request is not answered there");
                        return None;
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Hands the controller's part over, if this broker has it and another can take it.
    pub async fn hand_over(&self) {
        let Some(Part { quorum, .. }) = self.part.get() else { return };
        if let Some(heir) = self.heir(quorum, |_| true) {
            self.hand_over_to(quorum, &heir).await;
        }
    }

    /// The other voter that has the most of the log, of those that `may` be the controller; none where this broker is not.
    fn heir(&self, quorum: &Quorum, may: impl Fn(i32) -> bool) -> Option<Member> {
        let is_other = |id: i32| id != self.config.node_id && may(id);
        let others = quorum.members()?.voters.into_iter().filter(|known| is_other(known.member.broker_id));
        others.max_by_key(|known| known.end_offset).map(|known| known.member)
    }

    async fn hand_over_to(&self, quorum: &Quorum, heir: &Member) {
        if quorum.hand_over(heir).await.is_ok() {
            let handed_over = quorum.until_another_leads(self.config.node_id);
            // Otherwise the others find out by themselves.
            tokio::time::timeout(HAND_OVER_MAX, handed_over).await.ok();
        }
    }

    async fn as_controller(&self, ask: &ControllerAsk) -> Result<ControllerTold, ProposeError> {
        let part = self.part.get().ok_or(ProposeError::NotController)?;
        let quorum = &part.quorum;
        if !quorum.progress().leads {
            return Err(ProposeError::NotController);
        }
        match ask {
            ControllerAsk::Join { cluster_id, member, address, votes, process } => {
                if *cluster_id != part.cluster_id {
                    let reason = format!(
                        "This cluster is {}, and broker {} is of {cluster_id}",
                        part.cluster_id, member.broker_id
                    );
                    return Err(DecisionError::InvalidRequest(reason).into());
                }
                let candidate = Candidate { member, address, votes: *votes, process: *process };
                // Rare and large: whoever asks the controller for something else does not carry it along.
                let taken_in: Pin<Box<dyn Future<Output = _> + Send + '_>> =
                    Box::pin(self.joining.take_in(&self.peers, quorum, candidate));
                let joined = tokio::time::timeout(JOIN_MAX, taken_in).await;
                joined.unwrap_or(Err(ProposeError::TimedOut)).map(|()| ControllerTold::Joined)
            }
            ControllerAsk::Register(registration) => {
                let decide = |image: &Image| {
                    register_broker(image, Rules { config: &self.config_of(image) }, registration)
                };
                let before = quorum.image().broker(registration.broker_id).cloned();
                let broker_epoch = quorum.propose(decide).await?;
                if before.is_some_and(|before| has_lost_all(&before, registration)) {
                    let broker = registration.broker_id;
                    tracing::warn!(
                        broker,
                        "came back without any of its log directories: what it alone had is lost"
                    );
                }
                self.hear(registration.broker_id);
                Ok(ControllerTold::Registered { broker_epoch, lease_ms: self.lease_ms() })
            }
            ControllerAsk::Heartbeat {
                broker_id,
                broker_epoch,
                applied_to,
                has_room,
                takes_records,
                marks,
            } => {
                let (applied_to, has_room, takes_records) = (*applied_to, *has_room, *takes_records);
                let (broker_epoch, marks) = (*broker_epoch, *marks);
                let beat = Beat { applied_to, has_room, takes_records, broker_epoch, marks };
                self.heartbeat(quorum, *broker_id, beat).await
            }
            ControllerAsk::Leave { broker_id, broker_epoch } => {
                let decide = |image: &Image| {
                    check_epoch(image, *broker_id, *broker_epoch)?;
                    Ok(fence(image, Rules { config: &self.config_of(image) }, *broker_id))
                };
                quorum.propose(decide).await?;
                tracing::info!(broker = broker_id, "stops: others lead what it led");
                Ok(ControllerTold::Left)
            }
            ControllerAsk::HandOver { broker_id, broker_epoch, gives_up, partitions } => {
                let partitions: Vec<_> =
                    partitions.iter().map(|(id, index)| (TopicId(*id), *index)).collect();
                let decide = |image: &Image| {
                    let rules = Rules { config: &self.config_of(image) };
                    hand_over(image, rules, (*broker_id, *broker_epoch), &partitions, *gives_up)
                };
                quorum.propose(decide).await?;
                let count = partitions.len();
                tracing::warn!(
                    broker = broker_id,
                    partitions = count,
                    "the disk of a broker has failed, or has not kept what lay there: others lead it"
                );
                Ok(ControllerTold::HandedOver)
            }
            ControllerAsk::MakeWay { broker_id, broker_epoch, partitions } => {
                let short = |(id, partition, leader_epoch): &(Uuid, i32, i32)| ShortReplica {
                    topic_id: TopicId(*id),
                    partition: *partition,
                    leader_epoch: *leader_epoch,
                };
                let short: Vec<_> = partitions.iter().map(short).collect();
                self.heard.refuses(*broker_id, &short);
                let decide = |image: &Image| {
                    let rules = Rules { config: &self.config_of(image) };
                    let itself = (*broker_id, *broker_epoch);
                    make_way(image, rules, itself, &short, |id, topic, index| {
                        self.heard.takes(id, topic, index)
                    })
                };
                let count = quorum.propose(decide).await?;
                if count > 0 {
                    tracing::warn!(
                        broker = broker_id,
                        partitions = count,
                        "a broker has no room for what is written: others lead it, and do not wait for that broker"
                    );
                }
                Ok(ControllerTold::HandedOver)
            }
            ControllerAsk::ProducerIds { broker_id } => {
                let block = quorum.propose(|image| allocate_producer_ids(image, *broker_id)).await?;
                Ok(ControllerTold::ProducerIds(block))
            }
            ControllerAsk::CreateTopics(topics) => {
                let decide = |image: &Image| {
                    Ok(creation::create(image, topics, false, &self.config_of(image), self.random.as_ref()))
                };
                let created = quorum.propose(decide).await?.into_iter();
                let created = created.map(|(name, created)| (name, created.map(drop)));
                Ok(ControllerTold::CreatedTopics(created.collect()))
            }
            ControllerAsk::AlterPartitions { broker_id, broker_epoch, reports } => {
                let decide = |image: &Image| {
                    let rules = Rules { config: &self.config_of(image) };
                    alter_partitions(image, rules, *broker_id, *broker_epoch, reports)
                };
                Ok(ControllerTold::AlteredPartitions(quorum.propose(decide).await?))
            }
        }
    }

    pub(super) fn config_of(&self, image: &Image) -> BrokerConfig {
        image.broker_config(&self.config).unwrap_or_else(|_| BrokerConfig::clone(&self.config))
    }

    async fn heartbeat(
        &self,
        quorum: &Quorum,
        broker_id: i32,
        beat: Beat,
    ) -> Result<ControllerTold, ProposeError> {
        let broker_epoch = beat.broker_epoch;
        let image = quorum.image();
        check_epoch(&image, broker_id, broker_epoch)?;
        let lease_ms = self.lease_ms();
        let end_offset = quorum.published().end_offset();
        if !self.keeps_up(broker_id, beat, end_offset) {
            return Ok(ControllerTold::Heard { end_offset, lease_ms });
        }
        let had_lease = self.hear(broker_id);
        // Without a lease it may be about to be fenced, which the image does not know: decisions wait for each other.
        let is_fenced = image.broker(broker_id).is_some_and(|broker| broker.fenced);
        if !had_lease || is_fenced {
            let decide = |image: &Image| {
                heartbeat(image, Rules { config: &self.config_of(image) }, broker_id, broker_epoch)
            };
            quorum.propose(decide).await?;
        }
        if is_fenced {
            tracing::info!(broker = broker_id, "heard of again: it may lead");
        }
        Ok(ControllerTold::Heard { end_offset: quorum.published().end_offset(), lease_ms })
    }

    /// Whether the broker has in force what it was told of.
    fn keeps_up(&self, broker_id: i32, beat: Beat, end_offset: i64) -> bool {
        self.peers.is_there(broker_id);
        self.heard.keeps_up(broker_id, beat, end_offset)
    }

    /// What this broker has heard of the others as their controller.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// Nobody waits for this broker any more.
    pub(super) fn forget(&self, broker_id: i32) {
        self.heard.forget(broker_id);
    }

    fn lease_ms(&self) -> i64 {
        i64::from(self.config.quorum.session_timeout_ms)
    }

    /// The broker is there; whether it had a lease until now.
    fn hear(&self, broker_id: i32) -> bool {
        self.peers.is_there(broker_id);
        self.heard.hear(broker_id)
    }

    /// Fences whoever falls silent, while this broker is the controller; until `shutdown`.
    pub async fn watch_leases(self: Arc<Self>, shutdown: CancellationToken) {
        let next = async || {
            tokio::time::timeout(LEASES_WATCHED, self.peers.until_gone()).await.ok();
        };
        while shutdown.run_until_cancelled(next()).await.is_some() {
            let Some(part) = self.part.get() else { continue };
            if shutdown.run_until_cancelled(self.chores(&part.quorum)).await.is_none() {
                return;
            }
        }
    }

    async fn chores(&self, quorum: &Quorum) {
        if quorum.progress().leads
            && let Err(error) = votes::change(self, quorum).await
        {
            tracing::warn!(%error, "the voters are not yet as they are to be");
        }
        self.make_room(quorum).await;
        marks::note(&self.heard, quorum).await;
        for broker_id in self.absent(quorum) {
            let decide = |image: &Image| -> Result<Decision<bool>, DecisionError> {
                // It has been heard of meanwhile, and was told that nobody else leads what it leads.
                if self.heard.has_lease(broker_id) {
                    return Ok(Decision { records: Vec::new(), reply: false });
                }
                let Decision { records, reply: () } =
                    fence(image, Rules { config: &self.config_of(image) }, broker_id);
                Ok(Decision { records, reply: true })
            };
            match quorum.propose(decide).await {
                Ok(false) => {}
                Ok(true) => tracing::warn!(
                    broker = broker_id,
                    "not heard of for broker.session.timeout.ms, or its process has ended: it leads nothing any more"
                ),
                Err(error) => {
                    tracing::warn!(broker = broker_id, %error, "a silent broker is not fenced yet");
                    self.hear(broker_id);
                }
            }
        }
    }

    /// Without room on its disk this broker can decide on nothing: a voter that has some is to be the controller.
    async fn make_room(&self, quorum: &Quorum) {
        if !quorum.progress().leads || quorum.has_room() {
            return;
        }
        if let Some(heir) = self.heir(quorum, |id| self.heard.has_room(id)) {
            let broker = heir.broker_id;
            tracing::warn!(
                broker,
                "the disk of the metadata log is full: another broker is to be the controller"
            );
            self.hand_over_to(quorum, &heir).await;
        }
    }

    /// Who has been silent for too long, and whose process has ended.
    fn absent(&self, quorum: &Quorum) -> Vec<i32> {
        let mut absent = self.heard.lapsed(quorum);
        if quorum.progress().leads {
            let image = quorum.image();
            let unfenced = image.brokers().filter(|broker| !broker.fenced).map(|broker| broker.id);
            let is_gone = |id: &i32| self.peers.is_gone(*id) && !absent.contains(id);
            let gone: Vec<i32> = unfenced.filter(is_gone).collect();
            gone.iter().for_each(|id| self.heard.forget(*id));
            absent.extend(gone);
        }
        absent
    }
}
