//! Consumer groups, as an administrator sees them: list, describe, offsets, reset, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use firn_protocol::library::messages::offset_fetch_request::OffsetFetchRequestGroup;
use firn_protocol::library::messages::{
    DeleteGroupsRequest, DescribeGroupsRequest, GroupId, ListGroupsRequest, OffsetCommitRequest,
    OffsetCommitResponse, OffsetDeleteRequest, OffsetFetchRequest, TopicName,
};

use crate::cluster::Cluster;
use crate::connection::Connection;
use crate::error::{Error, check};
use crate::membership::protocol;
use crate::topics::text;

/// From here on offsets are fetched for several groups at once (KIP-709).
const FETCH_GROUPS_VERSION: i16 = 8;

/// Offsets by topic and partition.
pub type Offsets = BTreeMap<(String, i32), i64>;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    pub group: String,
    pub protocol_type: String,
    /// Empty where the broker does not tell, as is the type.
    pub state: String,
    /// `classic` or `consumer` (KIP-848), and their like.
    pub group_type: String,
}

/// What a group has committed in one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// Of the last record before it, where its reader told.
    pub leader_epoch: Option<i32>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub group: String,
    pub state: String,
    /// The assignor.
    pub protocol: String,
    pub members: Vec<Member>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    pub id: String,
    /// `group.instance.id` of a static member.
    pub instance: Option<String>,
    pub client_id: String,
    pub host: String,
    pub assigned: Vec<(String, i32)>,
}

/// The groups of all brokers, by name.
pub async fn list(cluster: &Cluster) -> Result<Vec<Listed>, Error> {
    let mut groups = Vec::new();
    for broker in cluster.describe().await?.brokers {
        let ask = async || {
            let reply = cluster.at(&broker.address).await?.call(&ListGroupsRequest::default()).await?;
            check(reply.error_code, None, || format!("list the groups of broker {}", broker.id))?;
            Ok(reply)
        };
        groups.extend(cluster.retry.run(ask).await?.groups.into_iter().map(|found| Listed {
            group: found.group_id.0.to_string(),
            protocol_type: found.protocol_type.to_string(),
            state: found.group_state.to_string(),
            group_type: found.group_type.to_string(),
        }));
    }
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    Ok(groups)
}

/// State and members of a group. One that does not exist is an error, or `Dead` where the broker is older than KIP-1043.
pub async fn describe(cluster: &Cluster, group: &str) -> Result<Group, Error> {
    let request = DescribeGroupsRequest::default().with_groups(vec![GroupId(text(group))]);
    let what = || format!("describe group {group}");
    let found = at_coordinator(cluster, group, async |connection| {
        let reply = connection.call(&request).await?;
        let missing = || Error::Refused { what: what(), code: 69, message: None };
        let found = reply.groups.into_iter().next().ok_or_else(missing)?;
        check(found.error_code, found.error_message.as_deref(), what)?;
        Ok(found)
    });
    let found = found.await?;
    let members = found.members.into_iter().map(|member| Member {
        id: member.member_id.to_string(),
        instance: member.group_instance_id.as_ref().map(ToString::to_string),
        client_id: member.client_id.to_string(),
        host: member.client_host.to_string(),
        assigned: assigned(&member.member_assignment),
    });
    Ok(Group {
        group: group.to_owned(),
        state: found.group_state.to_string(),
        protocol: found.protocol_data.to_string(),
        members: members.collect(),
    })
}

/// What a member's assignment says, where it is one of the consumer protocol; other protocols are opaque.
fn assigned(bytes: &[u8]) -> Vec<(String, i32)> {
    let mut partitions: Vec<(String, i32)> = protocol::decode(bytes)
        .unwrap_or_default()
        .into_iter()
        .flat_map(|(topic, partitions)| partitions.into_iter().map(move |index| (topic.clone(), index)))
        .collect();
    partitions.sort();
    partitions
}

/// The next offsets that a group has committed.
pub async fn offsets(cluster: &Cluster, group: &str) -> Result<Offsets, Error> {
    let committed = committed(cluster, group).await?;
    Ok(committed.into_iter().map(|(place, committed)| (place, committed.offset)).collect())
}

/// What a group has committed; nothing for one that does not exist.
pub async fn committed(cluster: &Cluster, group: &str) -> Result<BTreeMap<(String, i32), Committed>, Error> {
    let what = || format!("fetch the offsets of group {group}");
    at_coordinator(cluster, group, async |connection| {
        let name = GroupId(text(group));
        let mut request = OffsetFetchRequest::default();
        if connection.version_of::<OffsetFetchRequest>()? >= FETCH_GROUPS_VERSION {
            request.groups = vec![OffsetFetchRequestGroup::default().with_group_id(name).with_topics(None)];
        } else {
            request = request.with_group_id(name).with_topics(None);
        }
        let reply = connection.call(&request).await?;
        check(reply.error_code, None, what)?;
        let mut found = BTreeMap::new();
        let mut take = |topic: &TopicName, index, code, offset, leader_epoch| {
            check(code, None, what)?;
            if offset >= 0 {
                let leader_epoch = Some(leader_epoch).filter(|epoch| *epoch >= 0);
                found.insert((topic.0.to_string(), index), Committed { offset, leader_epoch });
            }
            Ok::<_, Error>(())
        };
        for topic in &reply.topics {
            for partition in &topic.partitions {
                let (code, epoch) = (partition.error_code, partition.committed_leader_epoch);
                take(&topic.name, partition.partition_index, code, partition.committed_offset, epoch)?;
            }
        }
        for group in &reply.groups {
            check(group.error_code, None, what)?;
            for topic in &group.topics {
                for partition in &topic.partitions {
                    let (code, epoch) = (partition.error_code, partition.committed_leader_epoch);
                    take(&topic.name, partition.partition_index, code, partition.committed_offset, epoch)?;
                }
            }
        }
        Ok(found)
    })
    .await
}

/// Takes back what a group has committed in `partitions`, and tells for each how that went. A group that reads a topic
/// keeps its offsets there.
pub async fn delete_offsets(
    cluster: &Cluster,
    group: &str,
    partitions: &[(String, i32)],
) -> Result<BTreeMap<(String, i32), Result<(), Error>>, Error> {
    let mut topics: BTreeMap<&str, Vec<OffsetDeleteRequestPartition>> = BTreeMap::new();
    for (topic, partition) in partitions {
        let partition = OffsetDeleteRequestPartition::default().with_partition_index(*partition);
        topics.entry(topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetDeleteRequestTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
    });
    let request =
        OffsetDeleteRequest::default().with_group_id(GroupId(text(group))).with_topics(topics.collect());
    at_coordinator(cluster, group, async |connection| {
        let reply = connection.call(&request).await?;
        check(reply.error_code, None, || format!("delete offsets of group {group}"))?;
        let mut ended = BTreeMap::new();
        for topic in &reply.topics {
            for partition in &topic.partitions {
                let index = partition.partition_index;
                let done = check(partition.error_code, None, || {
                    format!(
                        "delete the offset of group {group} in partition {index} of {}",
                        topic.name.as_str()
                    )
                });
                ended.insert((topic.name.0.to_string(), index), done);
            }
        }
        Ok(ended)
    })
    .await
}

/// Commits `offsets` in the name of a group, which must have no members.
pub async fn reset(cluster: &Cluster, group: &str, offsets: &Offsets) -> Result<(), Error> {
    let request = commit_request(group, offsets).with_generation_id_or_member_epoch(-1);
    at_coordinator(cluster, group, async |connection| {
        check_committed(&connection.call(&request).await?, || format!("reset the offsets of group {group}"))
    })
    .await
}

/// Commits `offsets`, in the name of nobody yet.
pub(crate) fn commit_request(group: &str, offsets: &Offsets) -> OffsetCommitRequest {
    let mut topics: BTreeMap<&str, Vec<OffsetCommitRequestPartition>> = BTreeMap::new();
    for ((topic, partition), offset) in offsets {
        let partition = OffsetCommitRequestPartition::default()
            .with_partition_index(*partition)
            .with_committed_offset(*offset)
            .with_committed_metadata(Some(text("")));
        topics.entry(topic).or_default().push(partition);
    }
    let topics = topics.into_iter().map(|(name, partitions)| {
        OffsetCommitRequestTopic::default().with_name(TopicName(text(name))).with_partitions(partitions)
    });
    OffsetCommitRequest::default().with_group_id(GroupId(text(group))).with_topics(topics.collect())
}

pub(crate) fn check_committed(reply: &OffsetCommitResponse, what: impl Fn() -> String) -> Result<(), Error> {
    for result in reply.topics.iter().flat_map(|topic| &topic.partitions) {
        check(result.error_code, None, &what)?;
    }
    Ok(())
}

/// Deletes a group, which must have no members, and what it has committed.
pub async fn delete(cluster: &Cluster, group: &str) -> Result<(), Error> {
    let request = DeleteGroupsRequest::default().with_groups_names(vec![GroupId(text(group))]);
    at_coordinator(cluster, group, async |connection| {
        for result in connection.call(&request).await?.results {
            check(result.error_code, None, || format!("delete group {group}"))?;
        }
        Ok(())
    })
    .await
}

/// Asks the coordinator, wherever it moves.
async fn at_coordinator<T>(
    cluster: &Cluster,
    group: &str,
    mut ask: impl AsyncFnMut(Arc<Connection>) -> Result<T, Error>,
) -> Result<T, Error> {
    cluster.retry.run(async || ask(cluster.coordinator(group).await?).await).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_of_other_protocols_are_left_alone() {
        // Version 0, one topic "t" with partitions 1 and 0, no user data.
        let bytes = [0, 0, 0, 0, 0, 1, 0, 1, b't', 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0, 0, 255, 255, 255, 255];
        let expected = [("t".to_owned(), 0), ("t".to_owned(), 1)];
        assert_eq!(assigned(&bytes), expected);
        assert_eq!(assigned(&[7]), []);
        assert_eq!(assigned(&[0, 0, 255, 1]), []);
    }
}
