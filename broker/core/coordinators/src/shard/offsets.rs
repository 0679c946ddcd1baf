//! OffsetCommit, OffsetFetch and OffsetDelete.
use super::{GroupShard, Then};
use crate::effect::Effect;
use crate::error::GroupError;
use crate::group::Group;
use crate::records::{CommittedOffset, OffsetsRecord, offset_key, offset_value};
use crate::requests::{
    CommitRequest, DeleteOffsetsRequest, FetchRequest, FetchedOffset, GroupState, MemberOfGroup,
    PartitionOutcome, Reply,
};
use firn_model::ids::validate_topic_name;

impl GroupShard {
    /// Commits offsets; they are visible once stored.
    pub fn commit_offsets(&mut self, now_ms: i64, request: CommitRequest, token: u64) -> Vec<Effect> {
        let too_many = request.offsets.len() > self.config.commit_offsets_max;
        let refused =
            self.commit_error(&request.member).or(too_many.then_some(GroupError::InvalidCommitOffsetSize));
        let name = request.member.group_id.clone();
        if refused.is_none() {
            self.with_group(&name, |shard, group, name| {
                shard.restart_session(now_ms, name, group, &request.member.member_id);
            });
        }
        let expire_timestamp_ms = request
            .retention_time_ms
            .filter(|retention| *retention >= 0)
            .map(|retention| now_ms.saturating_add(retention));
        let mut records = Vec::new();
        let mut outcomes = Vec::new();
        for offset in request.offsets {
            let metadata = offset.metadata.unwrap_or_default();
            let limit = self.config.offset_metadata_bytes_max.min(i16::MAX as usize);
            let too_large = (metadata.len() > limit).then_some(GroupError::OffsetMetadataTooLarge);
            let exists = validate_topic_name(&offset.topic).is_ok() && offset.partition >= 0;
            let unknown = (!exists).then_some(GroupError::UnknownTopicOrPartition);
            let error = refused.or(unknown).or(too_large);
            if error.is_none() {
                let leader_epoch = offset.leader_epoch;
                let value = offset_value(&CommittedOffset {
                    offset: offset.offset,
                    leader_epoch,
                    metadata,
                    commit_timestamp_ms: now_ms,
                    expire_timestamp_ms,
                    topic_id: offset.topic_id,
                });
                records.push(OffsetsRecord {
                    key: offset_key(&name, &offset.topic, offset.partition),
                    value: Some(value),
                });
            }
            outcomes.push(PartitionOutcome { topic: offset.topic, partition: offset.partition, error });
        }
        if !records.is_empty() {
            let retained = now_ms.saturating_add(self.config.offsets_retention_ms);
            self.expire_within(now_ms, &name, expire_timestamp_ms.unwrap_or(retained));
        }
        self.store(vec![name], records, token, Reply::Commit(outcomes))
    }

    fn commit_error(&self, member: &MemberOfGroup) -> Option<GroupError> {
        // Simple consumers of old may commit under the empty group id.
        if let Some(error) = self.group_id_error(&member.group_id, true) {
            return Some(error);
        }
        let Some(group) = self.groups.get(&member.group_id) else {
            return (member.generation >= 0).then_some(GroupError::GroupIdNotFound);
        };
        if group.state == GroupState::Dead {
            return Some(GroupError::CoordinatorNotAvailable);
        }
        let speaks_as_member =
            member.generation >= 0 || !member.member_id.is_empty() || member.group_instance_id.is_some();
        if !speaks_as_member {
            return (group.state != GroupState::Empty).then_some(GroupError::UnknownMemberId);
        }
        if member.generation < 0 && group.state == GroupState::Empty {
            return None;
        }
        match group.check_member(&member.member_id, member.group_instance_id.as_deref()) {
            Err(error) => Some(error),
            Ok(()) if member.generation != group.generation => Some(GroupError::IllegalGeneration),
            Ok(()) => {
                (group.state == GroupState::CompletingRebalance).then_some(GroupError::RebalanceInProgress)
            }
        }
    }

    /// What is committed, and stored.
    pub fn fetch_offsets(&mut self, request: &FetchRequest, token: u64) -> Vec<Effect> {
        let offsets = self.offsets.get(&request.group_id);
        let found = |(topic, partition): (&String, i32), committed: Option<CommittedOffset>| FetchedOffset {
            topic: topic.clone(),
            partition,
            committed,
        };
        let fetched = match &request.partitions {
            Some(wanted) => {
                let of = |key: &(String, i32)| {
                    found((&key.0, key.1), offsets.and_then(|all| all.get(key)).cloned())
                };
                wanted.iter().map(of).collect()
            }
            None => offsets
                .into_iter()
                .flatten()
                .map(|(key, value)| found((&key.0, key.1), Some(value.clone())))
                .collect(),
        };
        self.done(token, Reply::Fetch(fetched))
    }

    /// Deletes offsets of topics that the group does not consume (KIP-496).
    pub fn delete_offsets(&mut self, request: DeleteOffsetsRequest, token: u64) -> Vec<Effect> {
        let name = request.group_id;
        if let Some(error) = self.group_id_error(&name, false) {
            return self.done(token, Reply::DeleteOffsets(Err(error)));
        }
        let Some(group) = self.groups.get(&name).filter(|group| group.state != GroupState::Dead) else {
            return self.done(token, Reply::DeleteOffsets(Err(GroupError::GroupIdNotFound)));
        };
        if group.state != GroupState::Empty && group.protocol_type.as_deref() != Some("consumer") {
            return self.done(token, Reply::DeleteOffsets(Err(GroupError::NonEmptyGroup)));
        }
        let subscribed = Group::subscribed_topics(group);
        let has_members = !group.members.is_empty();
        let stored = self.offset_keys(&name);
        let mut records = Vec::new();
        let mut outcomes = Vec::new();
        for (topic, partition) in request.partitions {
            // Where the subscription cannot be read, any topic may be consumed.
            let consumed = has_members && subscribed.as_ref().is_none_or(|topics| topics.contains(&topic));
            if !consumed && stored.contains_key(&(topic.clone(), partition)) {
                records.push(OffsetsRecord { key: offset_key(&name, &topic, partition), value: None });
            }
            let error = consumed.then_some(GroupError::GroupSubscribedToTopic);
            outcomes.push(PartitionOutcome { topic, partition, error });
        }
        self.store(vec![name], records, token, Reply::DeleteOffsets(Ok(outcomes)))
    }

    /// Replies once the records are stored, or now where there are none.
    pub(super) fn store(
        &mut self,
        groups: Vec<String>,
        records: Vec<OffsetsRecord>,
        token: u64,
        reply: Reply,
    ) -> Vec<Effect> {
        if records.is_empty() {
            return self.done(token, reply);
        }
        self.append(groups, records, Then::Reply { token, reply });
        std::mem::take(&mut self.effects)
    }
}
