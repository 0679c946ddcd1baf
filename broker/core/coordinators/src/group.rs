//! One group's members and generation, and the questions the protocol asks of them (Kafka's `ClassicGroup`).
use crate::error::GroupError;
use crate::records::{GroupValue, MemberValue, subscribed_topics};
use crate::requests::{GroupState, JoinRequest, JoinedMember};
use bytes::Bytes;
use std::collections::{BTreeMap, BTreeSet};

#[derive(Debug, Clone)]
pub(crate) struct Member {
    pub instance: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub rebalance_timeout_ms: i32,
    pub session_timeout_ms: i32,
    pub protocols: Vec<(String, Bytes)>,
    pub assignment: Bytes,
    pub awaiting_join: Option<u64>,
    pub awaiting_sync: Option<u64>,
    /// Has not been part of a generation yet.
    pub is_new: bool,
}

impl Member {
    /// What it takes of the memory, roughly: what its client chose, and as much as the maps around it take.
    fn bytes(&self, id: &str) -> usize {
        let texts = (self.client_id.len(), self.client_host.len());
        member_bytes(id, texts, self.instance.as_deref(), &self.protocols)
    }

    pub(crate) fn metadata(&self, protocol: Option<&str>) -> Bytes {
        let of = |(name, _): &&(String, Bytes)| Some(name.as_str()) == protocol;
        self.protocols.iter().find(of).map(|(_, metadata)| metadata.clone()).unwrap_or_default()
    }
}

/// See [`Member::bytes`].
fn member_bytes(
    id: &str,
    (client_id, client_host): (usize, usize),
    instance: Option<&str>,
    protocols: &[(String, Bytes)],
) -> usize {
    id_bytes(id) + client_id + client_host + 2 * instance.map_or(0, str::len) + protocols_bytes(protocols)
}

/// What the names and the metadata of protocols are together.
pub(crate) fn protocols_bytes(protocols: &[(String, Bytes)]) -> usize {
    protocols.iter().map(|(name, metadata)| name.len() + metadata.len()).sum()
}

/// What an id takes of the memory, as long as a group knows it and a timer waits for it.
fn id_bytes(id: &str) -> usize {
    const MAPS: usize = 256;
    3 * id.len() + MAPS
}

#[derive(Debug, Clone)]
pub(crate) struct Group {
    pub state: GroupState,
    pub state_timestamp_ms: i64,
    pub protocol_type: Option<String>,
    pub protocol: Option<String>,
    pub generation: i32,
    pub leader: Option<String>,
    pub members: BTreeMap<String, Member>,
    /// group.instance.id to member id.
    pub static_members: BTreeMap<String, String>,
    /// Ids handed out by MEMBER_ID_REQUIRED and not used yet.
    pending_members: BTreeSet<String>,
    /// What members and pending members take of the memory.
    bytes: usize,
    pub pending_sync: BTreeSet<String>,
    /// Members whose JoinGroup waits.
    pub awaiting_join: usize,
    /// How many members speak each protocol.
    supported: BTreeMap<String, usize>,
    /// The initial delay runs: what is left of the rebalance timeout for prolonging it.
    pub initial_delay_left_ms: Option<i64>,
    pub new_member_added: bool,
    /// The generation's assignment is being stored.
    pub assigning: bool,
    /// A static member's replacement is being stored.
    pub replacing: bool,
    /// Static members' joins that wait for it: a record is built on the one before.
    pub deferred_joins: Vec<(JoinRequest, u64)>,
}

impl Group {
    pub(crate) fn new(now_ms: i64) -> Self {
        Self {
            state: GroupState::Empty,
            state_timestamp_ms: now_ms,
            protocol_type: None,
            protocol: None,
            generation: 0,
            leader: None,
            members: BTreeMap::new(),
            static_members: BTreeMap::new(),
            pending_members: BTreeSet::new(),
            bytes: 0,
            pending_sync: BTreeSet::new(),
            awaiting_join: 0,
            supported: BTreeMap::new(),
            initial_delay_left_ms: None,
            new_member_added: false,
            assigning: false,
            replacing: false,
            deferred_joins: Vec::new(),
        }
    }

    /// The group as its last record says: its members keep their assignments.
    pub(crate) fn restored(value: &GroupValue) -> Self {
        let mut group = Self::new(value.state_timestamp_ms);
        group.generation = value.generation;
        group.protocol_type = Some(value.protocol_type.clone()).filter(|kind| !kind.is_empty());
        group.protocol.clone_from(&value.protocol);
        group.leader.clone_from(&value.leader);
        for member in &value.members {
            let protocol = value.protocol.clone().unwrap_or_default();
            group.add(
                member.member_id.clone(),
                Member {
                    instance: member.group_instance_id.clone(),
                    client_id: member.client_id.clone(),
                    client_host: member.client_host.clone(),
                    rebalance_timeout_ms: member.rebalance_timeout_ms,
                    session_timeout_ms: member.session_timeout_ms,
                    protocols: vec![(protocol, member.subscription.clone())],
                    assignment: member.assignment.clone(),
                    awaiting_join: None,
                    awaiting_sync: None,
                    is_new: false,
                },
            );
        }
        if !group.members.is_empty() {
            group.state = GroupState::Stable;
        }
        group
    }

    /// The record of this generation, with the assignments given (or, without, those the members have).
    pub(crate) fn value(
        &self,
        assignments: Option<&BTreeMap<String, Bytes>>,
        state_timestamp_ms: i64,
    ) -> GroupValue {
        let member = |(id, member): (&String, &Member)| MemberValue {
            member_id: id.clone(),
            group_instance_id: member.instance.clone(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            rebalance_timeout_ms: member.rebalance_timeout_ms,
            session_timeout_ms: member.session_timeout_ms,
            subscription: member.metadata(self.protocol.as_deref()),
            assignment: match assignments {
                Some(all) => all.get(id).cloned().unwrap_or_default(),
                None => member.assignment.clone(),
            },
        };
        GroupValue {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            generation: self.generation,
            protocol: self.protocol.clone(),
            leader: self.leader.clone(),
            state_timestamp_ms,
            members: self.members.iter().map(member).collect(),
        }
    }

    pub(crate) fn transition(&mut self, state: GroupState, now_ms: i64) {
        self.state = state;
        self.state_timestamp_ms = now_ms;
    }

    /// What its members take of the memory, roughly.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// How much more the group would take of it, were this request's member in it.
    pub(crate) fn growth(&self, request: &JoinRequest) -> usize {
        let id = if request.member_id.is_empty() { &request.client_id } else { &request.member_id };
        let known = self.members.get(id).map_or(0, |member| member.bytes(id));
        let texts = (request.client_id.len(), request.client_host.len());
        let asked = member_bytes(id, texts, request.group_instance_id.as_deref(), &request.protocols);
        asked.saturating_sub(known)
    }

    /// Expects a member of this id to join.
    pub(crate) fn expect(&mut self, id: String) {
        let bytes = id_bytes(&id);
        if self.pending_members.insert(id) {
            self.bytes += bytes;
        }
    }

    pub(crate) fn expects(&self, id: &str) -> bool {
        self.pending_members.contains(id)
    }

    pub(crate) fn expects_nobody(&self) -> bool {
        self.pending_members.is_empty()
    }

    /// Expects this member no more; false if it never did.
    pub(crate) fn expect_no_more(&mut self, id: &str) -> bool {
        let expected = self.pending_members.remove(id);
        if expected {
            self.bytes -= id_bytes(id);
        }
        expected
    }

    pub(crate) fn expect_nobody(&mut self) {
        self.bytes -= self.pending_members.iter().map(|id| id_bytes(id)).sum::<usize>();
        self.pending_members.clear();
    }

    pub(crate) fn has_no_one(&self) -> bool {
        self.members.is_empty() && self.pending_members.is_empty()
    }

    pub(crate) fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    pub(crate) fn add(&mut self, id: String, member: Member) {
        if self.members.is_empty() && self.leader.is_none() {
            self.leader = Some(id.clone());
        }
        if let Some(instance) = &member.instance {
            self.static_members.insert(instance.clone(), id.clone());
        }
        self.count(&member.protocols, true);
        self.awaiting_join += usize::from(member.awaiting_join.is_some());
        self.bytes += member.bytes(&id);
        self.members.insert(id, member);
    }

    pub(crate) fn remove(&mut self, id: &str) -> Option<Member> {
        let member = self.members.remove(id)?;
        self.bytes -= member.bytes(id);
        self.count(&member.protocols, false);
        self.awaiting_join -= usize::from(member.awaiting_join.is_some());
        self.pending_sync.remove(id);
        if let Some(instance) = member
            .instance
            .as_ref()
            .filter(|name| self.static_members.get(*name).is_some_and(|known| known == id))
        {
            self.static_members.remove(instance);
        }
        if self.is_leader(id) {
            let joined = self.members.iter().find(|(_, member)| member.awaiting_join.is_some());
            self.leader = joined.or_else(|| self.members.iter().next()).map(|(id, _)| id.clone());
        }
        Some(member)
    }

    /// Gives the old member's place to a new id. The old one's JoinGroup and SyncGroup that waited come back.
    pub(crate) fn replace(
        &mut self,
        old: &str,
        id: &str,
        request: &JoinRequest,
    ) -> (Option<u64>, Option<u64>) {
        let was_leader = self.is_leader(old);
        let Some(mut member) = self.remove(old) else { return (None, None) };
        let waited = (member.awaiting_join.take(), member.awaiting_sync.take());
        member.protocols.clone_from(&request.protocols);
        member.session_timeout_ms = request.session_timeout_ms;
        member.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.add(id.to_owned(), member);
        if was_leader {
            self.leader = Some(id.to_owned());
        }
        waited
    }

    pub(crate) fn update(
        &mut self,
        id: &str,
        protocols: Vec<(String, Bytes)>,
        session_ms: i32,
        rebalance_ms: i32,
    ) {
        let Some(member) = self.members.get_mut(id) else { return };
        self.bytes -= member.bytes(id);
        let old = std::mem::replace(&mut member.protocols, protocols);
        self.bytes += member.bytes(id);
        let new = member.protocols.clone();
        member.session_timeout_ms = session_ms;
        member.rebalance_timeout_ms = rebalance_ms;
        self.count(&old, false);
        self.count(&new, true);
    }

    /// Makes the member's JoinGroup wait; an earlier one that waited comes back.
    pub(crate) fn await_join(&mut self, id: &str, token: u64) -> Option<u64> {
        let earlier = self.members.get_mut(id)?.awaiting_join.replace(token);
        self.awaiting_join += usize::from(earlier.is_none());
        earlier
    }

    fn count(&mut self, protocols: &[(String, Bytes)], more: bool) {
        // A name given twice counts once, or it would seem to have more speakers than members.
        let names: BTreeSet<&String> = protocols.iter().map(|(name, _)| name).collect();
        for name in names {
            let speakers = self.supported.entry(name.clone()).or_default();
            *speakers = if more { *speakers + 1 } else { speakers.saturating_sub(1) };
            if *speakers == 0 {
                self.supported.remove(name);
            }
        }
    }

    fn spoken_by_all(&self, protocol: &str) -> bool {
        self.supported.get(protocol) == Some(&self.members.len())
    }

    pub(crate) fn supports(&self, protocol_type: &str, protocols: &[(String, Bytes)]) -> bool {
        if protocol_type.is_empty() || protocols.is_empty() {
            return false;
        }
        self.members.is_empty()
            || (self.protocol_type.as_deref() == Some(protocol_type)
                && protocols.iter().any(|(name, _)| self.spoken_by_all(name)))
    }

    /// The protocol that all speak and most prefer.
    pub(crate) fn select_protocol(&self) -> Option<String> {
        let mut votes = BTreeMap::<&str, usize>::new();
        for member in self.members.values() {
            if let Some((name, _)) = member.protocols.iter().find(|(name, _)| self.spoken_by_all(name)) {
                *votes.entry(name).or_default() += 1;
            }
        }
        votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(name, _)| name.to_owned())
    }

    pub(crate) fn joined_members(&self) -> Vec<JoinedMember> {
        let joined = |(id, member): (&String, &Member)| JoinedMember {
            member_id: id.clone(),
            group_instance_id: member.instance.clone(),
            metadata: member.metadata(self.protocol.as_deref()),
        };
        self.members.iter().map(joined).collect()
    }

    pub(crate) fn rebalance_timeout_ms(&self) -> i64 {
        self.members.values().map(|member| i64::from(member.rebalance_timeout_ms)).max().unwrap_or(0)
    }

    /// Whether the speaker is who it says (KIP-345): a replaced static member is fenced.
    pub(crate) fn check_member(&self, member_id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance) = instance {
            match self.static_members.get(instance) {
                None => return Err(GroupError::UnknownMemberId),
                Some(known) if known != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) { Ok(()) } else { Err(GroupError::UnknownMemberId) }
    }

    /// The topics its consumers subscribe to; `None` where that cannot be known.
    pub(crate) fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.protocol_type.as_deref() != Some("consumer") {
            return None;
        }
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        let protocol = Some(self.protocol.as_deref()?);
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            topics.extend(subscribed_topics(&member.metadata(protocol))?);
        }
        Some(topics)
    }
}
