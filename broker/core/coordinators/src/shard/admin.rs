//! ListGroups, DescribeGroups, DeleteGroups, and topics that are deleted.
use super::{GroupShard, Then};
use crate::effect::Effect;
use crate::error::GroupError;
use crate::records::{OffsetsRecord, group_key, offset_key};
use crate::requests::{DescribedGroup, DescribedMember, GroupState, ListedGroup, Reply};
use firn_model::ids::TopicId;
use std::collections::{BTreeMap, BTreeSet};

impl GroupShard {
    /// Groups in the states (by name, any case) and of the types given; empty filters let everything through.
    pub fn list(&mut self, states: &[String], types: &[String], token: u64) -> Vec<Effect> {
        let fits = |filter: &[String], name: &str| {
            filter.is_empty() || filter.iter().any(|wanted| wanted.eq_ignore_ascii_case(name))
        };
        let listed = self
            .groups
            .iter()
            .filter(|(_, group)| fits(states, group.state.name()) && fits(types, "classic"));
        let groups = listed.map(|(name, group)| ListedGroup {
            group_id: name.clone(),
            protocol_type: group.protocol_type.clone().unwrap_or_default(),
            state: group.state,
        });
        let groups = groups.collect();
        self.done(token, Reply::List(groups))
    }

    /// Everything about the groups named.
    pub fn describe(&mut self, group_ids: &[String], token: u64) -> Vec<Effect> {
        let described = group_ids.iter().map(|name| self.describe_one(name)).collect();
        self.done(token, Reply::Describe(described))
    }

    fn describe_one(&self, name: &str) -> DescribedGroup {
        let mut described = DescribedGroup {
            group_id: name.to_owned(),
            error: None,
            state: GroupState::Dead,
            protocol_type: String::new(),
            protocol: String::new(),
            members: Vec::new(),
        };
        let Some(group) = self.groups.get(name) else {
            described.error = Some(GroupError::GroupIdNotFound);
            return described;
        };
        let stable = group.state == GroupState::Stable;
        described.state = group.state;
        described.protocol_type = group.protocol_type.clone().unwrap_or_default();
        described.protocol = group.protocol.clone().filter(|_| stable).unwrap_or_default();
        for (id, member) in &group.members {
            described.members.push(DescribedMember {
                member_id: id.clone(),
                group_instance_id: member.instance.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                metadata: if stable {
                    member.metadata(group.protocol.as_deref())
                } else {
                    bytes::Bytes::new()
                },
                assignment: member.assignment.clone(),
            });
        }
        described
    }

    /// Deletes groups that have no members, with their offsets. They show Dead until that is stored.
    pub fn delete_groups(&mut self, group_ids: Vec<String>, token: u64) -> Vec<Effect> {
        let mut records = Vec::new();
        let mut outcomes = Vec::new();
        let mut deleted = Vec::new();
        for name in group_ids {
            let error = match self.groups.get_mut(&name) {
                None => Some(GroupError::GroupIdNotFound),
                Some(group) if group.state == GroupState::Dead => Some(GroupError::GroupIdNotFound),
                Some(group) if group.state != GroupState::Empty => Some(GroupError::NonEmptyGroup),
                Some(group) => {
                    group.state = GroupState::Dead;
                    None
                }
            };
            if error.is_none() {
                for (topic, partition) in self.offset_keys(&name).into_keys() {
                    records.push(OffsetsRecord { key: offset_key(&name, &topic, partition), value: None });
                }
                records.push(OffsetsRecord { key: group_key(&name), value: None });
                deleted.push(name.clone());
            }
            outcomes.push((name, error));
        }
        let reply = Reply::DeleteGroups(outcomes);
        if records.is_empty() {
            return self.done(token, reply);
        }
        self.append(deleted.clone(), records, Then::Deleted { groups: deleted, token, reply });
        std::mem::take(&mut self.effects)
    }

    /// The tombstones are stored, or could not be: then the groups are as they were.
    pub(super) fn deleted(
        &mut self,
        groups: Vec<String>,
        token: u64,
        reply: Reply,
        failure: Option<GroupError>,
    ) {
        for name in groups {
            if let Some(group) = self.groups.get_mut(&name).filter(|group| group.state == GroupState::Dead) {
                group.state = GroupState::Empty;
                if failure.is_none() {
                    self.members_bytes -= group.bytes();
                    group.expect_nobody();
                    self.members_bytes += group.bytes();
                }
            }
        }
        self.reply(
            token,
            match failure {
                None => reply,
                Some(error) => reply.failed(error),
            },
        );
    }

    /// Forgets every group's offsets of topics that no longer exist, but not those of others that have their names now.
    pub fn topics_deleted(&mut self, topics: &BTreeMap<String, TopicId>, token: u64) -> Vec<Effect> {
        let mut records = Vec::new();
        let mut groups = Vec::new();
        // A group that has offsets alone is not among the groups before the first of them is stored.
        for name in self.groups.keys().chain(self.in_flight.keys()).collect::<BTreeSet<_>>() {
            let before = records.len();
            for ((topic, partition), topic_id) in self.offset_keys(name) {
                if topics.get(&topic).is_some_and(|deleted| [*deleted, TopicId::ZERO].contains(&topic_id)) {
                    records.push(OffsetsRecord { key: offset_key(name, &topic, partition), value: None });
                }
            }
            if records.len() > before {
                groups.push(name.clone());
            }
        }
        self.store(groups, records, token, Reply::TopicsDeleted(Ok(())))
    }
}
