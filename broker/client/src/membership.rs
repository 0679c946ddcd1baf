//! Reads a topic as a member of a classic consumer group: joins, shares the partitions, commits, and leaves.
//!
//! Rebalancing is eager: before a member joins again it commits what its caller has done with and lets all partitions go.
//! Heartbeats go out beside the reading, from a task that lives for one generation and ends with what it was refused.
//! What was fetched and not handed out, or handed out and not done with, is never committed: a member that is stopped at
//! any moment makes the next reader see records again, and never skip one.

mod coordinator;
mod joining;
pub(crate) mod protocol;
mod range;
mod state;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::leave_group_request::MemberIdentity;
use firn_protocol::library::messages::{
    GroupId, LeaveGroupRequest, LeaveGroupResponse, OffsetCommitResponse,
};
use firn_protocol::library::protocol::StrBytes;
use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::consumer::{Consumer, Incoming, Start};
use crate::error::{Error, check};
use crate::groups::{self, Offsets};
use crate::topics::text;

use coordinator::Coordinator;
use joining::{Heartbeat, sizes};
use state::Identity;

/// From here on members leave in batches (KIP-345).
const LEAVE_MEMBERS_VERSION: i16 = 3;
/// How often a leader looks whether topics have got more partitions (`metadata.max.age.ms`).
const TOPICS_AGE: Duration = Duration::from_secs(300);

/// How a member behaves; the defaults are those of Java's consumer.
#[derive(Debug, Clone)]
pub struct MemberOptions {
    pub group: String,
    /// `group.instance.id`: a static member, which keeps its partitions while it is away for less than a session.
    pub instance: Option<String>,
    /// Where to begin in a partition in which the group has committed nothing.
    pub reset: Start,
    /// `session.timeout.ms`: how long the group waits for a member that has fallen silent.
    pub session_timeout: Duration,
    /// `heartbeat.interval.ms`.
    pub heartbeat_interval: Duration,
    /// `max.poll.interval.ms`: how long the others wait for this one to join again.
    pub rebalance_timeout: Duration,
    /// `auto.commit.interval.ms`; none: `commit` alone commits.
    pub commit_interval: Option<Duration>,
}

impl MemberOptions {
    pub fn new(group: String, reset: Start) -> Self {
        Self {
            group,
            instance: None,
            reset,
            session_timeout: Duration::from_secs(45),
            heartbeat_interval: Duration::from_secs(3),
            rebalance_timeout: Duration::from_secs(300),
            commit_interval: Some(Duration::from_secs(5)),
        }
    }
}

/// A member of a group that reads one topic.
#[derive(Debug)]
pub struct Member {
    cluster: Arc<Cluster>,
    coordinator: Arc<Coordinator>,
    topic: String,
    options: MemberOptions,
    identity: Identity,
    generation: Option<Generation>,
}

/// What a member has for as long as nobody comes or goes.
#[derive(Debug)]
struct Generation {
    consumer: Consumer,
    /// Fetched, and not handed out yet.
    waiting: VecDeque<Incoming>,
    /// For each partition the next offset after what was handed out, how much of that the caller has done with, and how
    /// much is committed.
    handed: BTreeMap<i32, i64>,
    done: BTreeMap<i32, i64>,
    committed: BTreeMap<i32, i64>,
    commit_due: Option<Instant>,
    heartbeat: Heartbeat,
    /// The coordinator, or the leader's look at the topics, has ended it.
    over: bool,
    /// What a leader knows of the topics' sizes, and when to look again.
    led: Option<(BTreeMap<String, i32>, Instant)>,
}

/// How a stretch of reading ended.
enum Read {
    Records(Vec<Incoming>),
    /// The generation is over, for this reason where the coordinator gave one.
    Over(Option<Error>),
}

impl Member {
    /// A member of the group in `options` that reads `topic`. Joins when it is first polled.
    pub fn new(cluster: Arc<Cluster>, topic: &str, options: MemberOptions) -> Self {
        let coordinator = Arc::new(Coordinator::new(Arc::clone(&cluster), options.group.clone()));
        let topic = topic.to_owned();
        Self { cluster, coordinator, topic, options, identity: Identity::NONE, generation: None }
    }

    /// At most `max` records, within about `wait`, or none; joins (again) first where that is needed. Who polls again has
    /// done with what was handed out before: it is committed when that is due.
    pub async fn poll(&mut self, wait: Duration, max: usize) -> Result<Vec<Incoming>, Error> {
        self.done();
        loop {
            let Some(generation) = &mut self.generation else {
                self.join().await?;
                continue;
            };
            let now = Instant::now();
            if generation.commit_due.is_some_and(|due| due <= now) {
                generation.commit_due = self.options.commit_interval.map(|interval| now + interval);
                if let Err(error) = self.commit().await {
                    self.let_go(Some(error)).await?;
                }
                continue;
            }
            if let Some((known, due)) = &mut generation.led
                && *due <= now
            {
                *due = now + TOPICS_AGE;
                generation.over |= sizes(&self.cluster, known.keys()).await? != *known;
                continue;
            }
            match generation.read(wait, max).await? {
                Read::Records(records) => return Ok(records),
                Read::Over(reason) => self.let_go(reason).await?,
            }
        }
    }

    /// What was handed out needs no one's care any more, and may be committed.
    pub fn done(&mut self) {
        if let Some(generation) = &mut self.generation {
            generation.done.clone_from(&generation.handed);
        }
    }

    /// Commits what the caller has done with.
    pub async fn commit(&mut self) -> Result<(), Error> {
        let Some(generation) = &mut self.generation else { return Ok(()) };
        let news = generation
            .done
            .iter()
            .filter(|(partition, offset)| generation.committed.get(partition) != Some(offset));
        let offsets: Offsets =
            news.map(|(partition, offset)| ((self.topic.clone(), *partition), *offset)).collect();
        if offsets.is_empty() {
            return Ok(());
        }
        let group = &self.options.group;
        let request = groups::commit_request(group, &offsets)
            .with_generation_id_or_member_epoch(self.identity.generation)
            .with_member_id(text(&self.identity.member_id))
            .with_group_instance_id(self.options.instance.as_deref().map(text));
        let accept = |reply: &OffsetCommitResponse| {
            groups::check_committed(reply, || format!("commit the offsets of group {group}"))
        };
        self.coordinator.ask(self.options.session_timeout, |_| Ok(request.clone()), accept).await?;
        let offsets = offsets.into_iter().map(|((_, partition), offset)| (partition, offset));
        generation.committed.extend(offsets);
        Ok(())
    }

    /// Commits and leaves the group, so that the others need not wait for the end of a session. A static member stays.
    pub async fn leave(mut self) -> Result<(), Error> {
        let committed = match self.options.commit_interval {
            Some(_) => self.commit().await,
            None => Ok(()),
        };
        self.generation = None;
        if self.identity.member_id.is_empty() || self.options.instance.is_some() {
            return committed;
        }
        // A JoinGroup that nobody waits for any more may stand in the way on the old connection.
        self.coordinator.forget().await;
        let (group, member_id) = (GroupId(text(&self.options.group)), text(&self.identity.member_id));
        let question = |connection: &Connection| {
            let request = LeaveGroupRequest::default().with_group_id(group.clone());
            if connection.version_of::<LeaveGroupRequest>()? < LEAVE_MEMBERS_VERSION {
                return Ok(request.with_member_id(member_id.clone()));
            }
            let reason = Some(StrBytes::from_static_str("the consumer was closed"));
            let member = MemberIdentity::default().with_member_id(member_id.clone()).with_reason(reason);
            Ok(request.with_members(vec![member]))
        };
        let accept = |reply: &LeaveGroupResponse| {
            let member = reply.members.iter().map(|member| member.error_code);
            let code = std::iter::once(reply.error_code).chain(member).find(|code| *code != 0);
            // Who is not known any more has left.
            let code = code.filter(|code| *code != ResponseError::UnknownMemberId.code());
            check(code.unwrap_or_default(), None, || format!("leave group {}", group.0.as_str()))
        };
        let left = self.coordinator.ask(self.options.session_timeout, question, accept);
        left.await.map(drop).and(committed)
    }

    /// The partitions of this member in the present generation.
    pub fn assigned(&self) -> Vec<i32> {
        let generation = self.generation.iter();
        generation.flat_map(|generation| generation.consumer.positions().keys()).copied().collect()
    }

    /// Ends the generation, for `reason` where there is one, unless that is final. While the coordinator still knows the
    /// generation it takes the offsets of what was handed out, so that the next reader does not get that again.
    async fn let_go(&mut self, reason: Option<Error>) -> Result<(), Error> {
        let still_known = reason.as_ref().is_none_or(|error| error.is(ResponseError::RebalanceInProgress));
        if let Some(error) = reason.filter(|error| !self.identity.rejoins_after(error)) {
            return Err(error);
        }
        if still_known
            && self.options.commit_interval.is_some()
            && let Err(error) = self.commit().await
            && !self.identity.rejoins_after(&error)
        {
            return Err(error);
        }
        self.generation = None;
        Ok(())
    }
}

impl Generation {
    async fn read(&mut self, wait: Duration, max: usize) -> Result<Read, Error> {
        if self.over {
            return Ok(Read::Over(None));
        }
        let consumer = &mut self.consumer;
        let fetch = async {
            if !self.waiting.is_empty() {
                return Ok(Vec::new());
            }
            if consumer.positions().is_empty() {
                tokio::time::sleep(wait).await;
                return Ok(Vec::new());
            }
            consumer.poll(wait).await
        };
        tokio::select! {
            biased;
            ended = &mut self.heartbeat.0 => {
                self.over = true;
                return Ok(Read::Over(ended.ok()));
            }
            fetched = fetch => self.waiting.extend(fetched?),
        }
        let count = max.min(self.waiting.len());
        let records: Vec<Incoming> = self.waiting.drain(..count).collect();
        if self.waiting.is_empty() {
            // What holds no records, as the marks of transactions, is behind the reader, too.
            self.handed.clone_from(self.consumer.positions());
        } else {
            self.handed.extend(records.iter().map(|record| (record.partition, record.offset + 1)));
        }
        Ok(Read::Records(records))
    }
}

#[cfg(test)]
mod tests;
