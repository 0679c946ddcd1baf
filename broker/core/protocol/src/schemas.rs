//! Which schema stands for which request.

mod admin;
mod cluster;
mod data;
mod groups;
pub mod responses;
mod topics;

use kafka_protocol::messages::ApiKey;

use crate::bounds::Schema;

/// The schema of the requests of `api`; `None` for APIs that are not served.
pub fn of(api: ApiKey) -> Option<&'static Schema> {
    Some(match api {
        ApiKey::Produce => &data::PRODUCE_REQUEST,
        ApiKey::Fetch => &data::FETCH_REQUEST,
        ApiKey::ListOffsets => &data::LIST_OFFSETS_REQUEST,
        ApiKey::OffsetForLeaderEpoch => &data::OFFSET_FOR_LEADER_EPOCH_REQUEST,
        ApiKey::DeleteRecords => &data::DELETE_RECORDS_REQUEST,
        ApiKey::InitProducerId => &data::INIT_PRODUCER_ID_REQUEST,
        ApiKey::CreateTopics => &topics::CREATE_TOPICS_REQUEST,
        ApiKey::DeleteTopics => &topics::DELETE_TOPICS_REQUEST,
        ApiKey::CreatePartitions => &topics::CREATE_PARTITIONS_REQUEST,
        ApiKey::DescribeConfigs => &topics::DESCRIBE_CONFIGS_REQUEST,
        ApiKey::AlterConfigs => &topics::ALTER_CONFIGS_REQUEST,
        ApiKey::IncrementalAlterConfigs => &topics::INCREMENTAL_ALTER_CONFIGS_REQUEST,
        ApiKey::FindCoordinator => &groups::FIND_COORDINATOR_REQUEST,
        ApiKey::JoinGroup => &groups::JOIN_GROUP_REQUEST,
        ApiKey::SyncGroup => &groups::SYNC_GROUP_REQUEST,
        ApiKey::Heartbeat => &groups::HEARTBEAT_REQUEST,
        ApiKey::LeaveGroup => &groups::LEAVE_GROUP_REQUEST,
        ApiKey::OffsetCommit => &groups::OFFSET_COMMIT_REQUEST,
        ApiKey::OffsetFetch => &groups::OFFSET_FETCH_REQUEST,
        ApiKey::OffsetDelete => &groups::OFFSET_DELETE_REQUEST,
        ApiKey::ListGroups => &groups::LIST_GROUPS_REQUEST,
        ApiKey::DescribeGroups => &groups::DESCRIBE_GROUPS_REQUEST,
        ApiKey::DeleteGroups => &groups::DELETE_GROUPS_REQUEST,
        ApiKey::ApiVersions => &cluster::API_VERSIONS_REQUEST,
        ApiKey::Metadata => &cluster::METADATA_REQUEST,
        ApiKey::DescribeQuorum => &cluster::DESCRIBE_QUORUM_REQUEST,
        ApiKey::DescribeCluster => &cluster::DESCRIBE_CLUSTER_REQUEST,
        ApiKey::DescribeTopicPartitions => &cluster::DESCRIBE_TOPIC_PARTITIONS_REQUEST,
        ApiKey::DescribeLogDirs => &cluster::DESCRIBE_LOG_DIRS_REQUEST,
        ApiKey::ElectLeaders => &admin::ELECT_LEADERS_REQUEST,
        ApiKey::AlterPartitionReassignments => &admin::ALTER_PARTITION_REASSIGNMENTS_REQUEST,
        ApiKey::ListPartitionReassignments => &admin::LIST_PARTITION_REASSIGNMENTS_REQUEST,
        ApiKey::UpdateFeatures => &admin::UPDATE_FEATURES_REQUEST,
        ApiKey::UnregisterBroker => &admin::UNREGISTER_BROKER_REQUEST,
        ApiKey::AddRaftVoter => &admin::ADD_RAFT_VOTER_REQUEST,
        ApiKey::RemoveRaftVoter => &admin::REMOVE_RAFT_VOTER_REQUEST,
        _ => return None,
    })
}
