//! A group: where it stands in one partition, told to its coordinator and asked of it, over either of two connections, each of
//! which lasts for as long as whom it leads to says that it is the coordinator.

use std::rc::Rc;

use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use firn_protocol::library::messages::{GroupId, OffsetCommitRequest, OffsetFetchRequest, TopicName};
use firn_tests::history::{Commit, CommitAction};
use uuid::Uuid;

use crate::client::{Client, Target, passed};
use crate::shared::{Shared, TOPIC, text};
use crate::story::About;

/// Where a group stands in one partition, committed and asked for by one client at a time.
pub struct Group {
    name: String,
    number: u32,
    topic: Uuid,
    partition: i32,
    /// Each with a connection of its own, which may still lead to a coordinator that is none any more.
    members: [Client; 2],
    random: fastrand::Rng,
}

impl Group {
    pub fn new(shared: &Rc<Shared>, number: u32, topic: Uuid, partition: i32, random: fastrand::Rng) -> Self {
        let name = format!("group-{number}");
        let coordinator = Target::Coordinator(name.clone());
        let member = |member: &str| {
            let name = format!("member {member} of {number}");
            Client::new(name, About::Partition(partition), coordinator.clone(), shared.clone())
        };
        Self { name, number, topic, partition, members: [member("a"), member("b")], random }
    }

    fn member(&mut self) -> &mut Client {
        &mut self.members[usize::from(self.random.bool())]
    }

    fn note(&self, action: CommitAction) {
        let client = &self.members[0];
        client.note(format_args!("{action:?} in {}", self.partition));
        let commit = Commit { group: self.number, partition: self.partition, action };
        client.shared.history.borrow_mut().commits.push(commit);
    }

    /// Commits; false if that may not have happened.
    pub async fn commit(&mut self, offset: i64) -> bool {
        let partitions = OffsetCommitRequestPartition::default()
            .with_partition_index(self.partition)
            .with_committed_offset(offset)
            .with_committed_leader_epoch(-1);
        let topic = OffsetCommitRequestTopic::default()
            .with_name(TopicName(text(TOPIC)))
            .with_topic_id(self.topic)
            .with_partitions(vec![partitions]);
        let request = OffsetCommitRequest::default()
            .with_group_id(GroupId(text(&self.name)))
            .with_generation_id_or_member_epoch(-1)
            .with_topics(vec![topic]);
        let member = self.member();
        let is_kept = match member.ask(&request).await {
            Ok(response) => passed(response.topics[0].partitions[0].error_code).is_ok(),
            Err(_) => false,
        };
        if !is_kept {
            member.look_again();
        }
        self.note(if is_kept { CommitAction::Committed(offset) } else { CommitAction::Attempted(offset) });
        is_kept
    }

    /// Where the group stands, asked until it is told; 0 where nothing is committed.
    pub async fn committed(&mut self) -> i64 {
        let topic = OffsetFetchRequestTopics::default()
            .with_name(TopicName(text(TOPIC)))
            .with_partition_indexes(vec![self.partition]);
        let group = OffsetFetchRequestGroup::default()
            .with_group_id(GroupId(text(&self.name)))
            .with_topics(Some(vec![topic]));
        let request = OffsetFetchRequest::default().with_groups(vec![group]);
        let found = self
            .member()
            .ask_until(&request, |mut response| {
                let group = response.groups.remove(0);
                passed(group.error_code)?;
                let partition = &group.topics[0].partitions[0];
                passed(partition.error_code).map(|()| partition.committed_offset)
            })
            .await;
        let found = (found >= 0).then_some(found);
        self.note(CommitAction::Fetched(found));
        found.unwrap_or(0)
    }
}
