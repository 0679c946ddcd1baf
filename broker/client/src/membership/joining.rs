//! How a member comes into a generation: join, learn or decide who reads what, and find where to read on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::join_group_request::JoinGroupRequestProtocol;
use firn_protocol::library::messages::join_group_response::JoinGroupResponseMember;
use firn_protocol::library::messages::sync_group_request::SyncGroupRequestAssignment;
use firn_protocol::library::messages::{
    GroupId, HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, SyncGroupRequest,
    SyncGroupResponse,
};
use firn_protocol::library::protocol::StrBytes;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

use crate::cluster::Cluster;
use crate::consumer::{Consumer, offsets};
use crate::error::{Error, check};
use crate::groups;
use crate::topics::text;

use super::protocol::{self, Assignment};
use super::range::{self, Subscriber};
use super::state::Identity;
use super::{Generation, Member, TOPICS_AGE};

const PROTOCOL_TYPE: StrBytes = StrBytes::from_static_str("consumer");
const ASSIGNOR: StrBytes = StrBytes::from_static_str("range");
/// What a coordinator may take beyond the time that it gives members to join.
const JOIN_GRACE: Duration = Duration::from_secs(5);
/// Between being refused and joining again (`retry.backoff.ms`).
const REJOIN_PAUSE: Duration = Duration::from_millis(100);

/// The task that keeps a member alive; it ends with the refusal that ends the generation.
#[derive(Debug)]
pub(super) struct Heartbeat(pub(super) JoinHandle<Error>);

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Member {
    /// One attempt. Where it fails and another may not, there is no generation yet, and the next attempt brings it.
    pub(super) async fn join(&mut self) -> Result<(), Error> {
        match self.enter().await {
            Ok(generation) => self.generation = Some(generation),
            Err(error) if self.identity.rejoins_after(&error) => sleep(REJOIN_PAUSE).await,
            Err(error) => return Err(error),
        }
        Ok(())
    }

    async fn enter(&mut self) -> Result<Generation, Error> {
        let joined = self.ask_to_join().await?;
        let generation = joined.generation_id;
        self.identity = Identity { member_id: joined.member_id.to_string(), generation };
        if joined.protocol_name.as_ref().is_some_and(|name| *name != ASSIGNOR) {
            let chosen = joined.protocol_name.unwrap_or_default();
            return Err(Error::Records(format!(
                "group {} shares partitions by {chosen:?}, which this client cannot; it knows range",
                self.options.group
            )));
        }
        let (mut assignments, mut led) = (BTreeMap::new(), None);
        if joined.leader == joined.member_id {
            let members = joined.members.iter().map(subscriber).collect::<Result<Vec<_>, _>>()?;
            let topics: BTreeSet<&String> = members.iter().flat_map(|member| &member.topics).collect();
            let sizes = sizes(&self.cluster, topics).await?;
            // A static leader that comes back leaves the assignment as it was (KIP-814).
            if !joined.skip_assignment {
                assignments = range::assign(&members, &sizes);
            }
            led = Some((sizes, Instant::now() + TOPICS_AGE));
        }
        let assigned = self.synchronize(assignments).await?;
        // From here on the group waits for heartbeats, however long the offsets take.
        let heartbeat = self.heartbeat();
        let partitions = assigned.get(&self.topic).map(Vec::as_slice).unwrap_or_default();
        let committed = self.committed(partitions).await?;
        let missing: Vec<i32> =
            partitions.iter().copied().filter(|index| !committed.contains_key(index)).collect();
        let mut positions = committed.clone();
        positions.extend(offsets(&self.cluster, &self.topic, &missing, self.options.reset).await?);
        let route = self.cluster.find(&self.topic, false).await?;
        Ok(Generation {
            handed: positions.clone(),
            done: positions.clone(),
            committed,
            consumer: Consumer::at(Arc::clone(&self.cluster), route, positions, self.options.reset),
            waiting: VecDeque::new(),
            commit_due: self.options.commit_interval.map(|interval| Instant::now() + interval),
            heartbeat,
            over: false,
            led,
        })
    }

    async fn ask_to_join(&mut self) -> Result<JoinGroupResponse, Error> {
        let options = &self.options;
        let metadata = protocol::subscription(std::slice::from_ref(&self.topic));
        let offered = JoinGroupRequestProtocol::default().with_name(ASSIGNOR).with_metadata(metadata);
        let mut request = JoinGroupRequest::default()
            .with_group_id(GroupId(text(&options.group)))
            .with_session_timeout_ms(milliseconds(options.session_timeout))
            .with_rebalance_timeout_ms(milliseconds(options.rebalance_timeout))
            .with_group_instance_id(options.instance.as_deref().map(text))
            .with_protocol_type(PROTOCOL_TYPE)
            .with_protocols(vec![offered]);
        let wanted = ResponseError::MemberIdRequired.code();
        loop {
            request.member_id = text(&self.identity.member_id);
            let accept = |reply: &JoinGroupResponse| {
                let code = if reply.error_code == wanted { 0 } else { reply.error_code };
                check(code, None, || format!("join group {}", options.group))
            };
            let deadline = options.rebalance_timeout + JOIN_GRACE;
            let joined = self.coordinator.ask(deadline, |_| Ok(request.clone()), accept).await?;
            if joined.error_code != wanted {
                return Ok(joined);
            }
            // The coordinator wants to know whom it waits for before it waits (KIP-394).
            if joined.member_id.is_empty() || !self.identity.member_id.is_empty() {
                check(joined.error_code, None, || format!("join group {}", options.group))?;
            }
            self.identity.member_id = joined.member_id.to_string();
        }
    }

    /// Gives the leader's assignments, or waits for them.
    async fn synchronize(&self, assignments: BTreeMap<String, Assignment>) -> Result<Assignment, Error> {
        let assignments = assignments.iter().map(|(member, assignment)| {
            SyncGroupRequestAssignment::default()
                .with_member_id(text(member))
                .with_assignment(protocol::encode(assignment))
        });
        let options = &self.options;
        let request = SyncGroupRequest::default()
            .with_group_id(GroupId(text(&options.group)))
            .with_generation_id(self.identity.generation)
            .with_member_id(text(&self.identity.member_id))
            .with_group_instance_id(options.instance.as_deref().map(text))
            .with_protocol_type(Some(PROTOCOL_TYPE))
            .with_protocol_name(Some(ASSIGNOR))
            .with_assignments(assignments.collect());
        let accept = |reply: &SyncGroupResponse| {
            check(reply.error_code, None, || format!("synchronize with group {}", options.group))
        };
        let deadline = options.rebalance_timeout + JOIN_GRACE;
        let reply = self.coordinator.ask(deadline, |_| Ok(request.clone()), accept).await?;
        protocol::decode(&reply.assignment)
    }

    fn heartbeat(&self) -> Heartbeat {
        let request = HeartbeatRequest::default()
            .with_group_id(GroupId(text(&self.options.group)))
            .with_generation_id(self.identity.generation)
            .with_member_id(text(&self.identity.member_id))
            .with_group_instance_id(self.options.instance.as_deref().map(text));
        let (coordinator, group) = (Arc::clone(&self.coordinator), self.options.group.clone());
        let (interval, session) = (self.options.heartbeat_interval, self.options.session_timeout);
        Heartbeat(tokio::spawn(async move {
            loop {
                sleep(interval).await;
                let accept = |reply: &HeartbeatResponse| {
                    check(reply.error_code, None, || format!("stay in group {group}"))
                };
                if let Err(error) = coordinator.ask(session, |_| Ok(request.clone()), accept).await {
                    return error;
                }
            }
        }))
    }

    /// What the group has committed in `partitions`.
    async fn committed(&self, partitions: &[i32]) -> Result<BTreeMap<i32, i64>, Error> {
        if partitions.is_empty() {
            return Ok(BTreeMap::new());
        }
        let found = groups::offsets(&self.cluster, &self.options.group).await?;
        let ours = found
            .into_iter()
            .filter(|((topic, index), _)| *topic == self.topic && partitions.contains(index));
        Ok(ours.map(|((_, partition), offset)| (partition, offset)).collect())
    }
}

fn subscriber(member: &JoinGroupResponseMember) -> Result<Subscriber, Error> {
    Ok(Subscriber {
        id: member.member_id.to_string(),
        instance: member.group_instance_id.as_ref().map(ToString::to_string),
        topics: protocol::subscribed(&member.metadata)?,
    })
}

/// How many partitions each topic has: none while it does not exist.
pub(super) async fn sizes(
    cluster: &Cluster,
    topics: impl IntoIterator<Item = &String>,
) -> Result<BTreeMap<String, i32>, Error> {
    let mut sizes = BTreeMap::new();
    for topic in topics {
        let size = match cluster.find(topic, false).await {
            Ok(route) => i32::try_from(route.leaders.len()).unwrap_or(i32::MAX),
            Err(error) if error.is(ResponseError::UnknownTopicOrPartition) => 0,
            Err(error) => return Err(error),
        };
        sizes.insert(topic.clone(), size);
    }
    Ok(sizes)
}

fn milliseconds(duration: Duration) -> i32 {
    i32::try_from(duration.as_millis()).unwrap_or(i32::MAX)
}
