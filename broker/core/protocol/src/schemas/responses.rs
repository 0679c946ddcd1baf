//! Which schema stands for which response: those of the APIs that the client calls.

mod admin;
mod cluster;
mod data;
mod groups;
mod topics;

use kafka_protocol::messages::ApiKey;

use crate::bounds::Schema;

/// The schema of the responses of `api`; `None` for APIs that the client does not call.
pub fn of(api: ApiKey) -> Option<&'static Schema> {
    Some(match api {
        ApiKey::Produce => &data::PRODUCE_RESPONSE,
        ApiKey::Fetch => &data::FETCH_RESPONSE,
        ApiKey::ListOffsets => &data::LIST_OFFSETS_RESPONSE,
        ApiKey::InitProducerId => &data::INIT_PRODUCER_ID_RESPONSE,
        ApiKey::DeleteRecords => &data::DELETE_RECORDS_RESPONSE,
        ApiKey::FindCoordinator => &groups::FIND_COORDINATOR_RESPONSE,
        ApiKey::JoinGroup => &groups::JOIN_GROUP_RESPONSE,
        ApiKey::SyncGroup => &groups::SYNC_GROUP_RESPONSE,
        ApiKey::Heartbeat => &groups::HEARTBEAT_RESPONSE,
        ApiKey::LeaveGroup => &groups::LEAVE_GROUP_RESPONSE,
        ApiKey::OffsetCommit => &groups::OFFSET_COMMIT_RESPONSE,
        ApiKey::OffsetFetch => &groups::OFFSET_FETCH_RESPONSE,
        ApiKey::OffsetDelete => &groups::OFFSET_DELETE_RESPONSE,
        ApiKey::ListGroups => &groups::LIST_GROUPS_RESPONSE,
        ApiKey::DescribeGroups => &groups::DESCRIBE_GROUPS_RESPONSE,
        ApiKey::DeleteGroups => &groups::DELETE_GROUPS_RESPONSE,
        ApiKey::CreateTopics => &topics::CREATE_TOPICS_RESPONSE,
        ApiKey::DeleteTopics => &topics::DELETE_TOPICS_RESPONSE,
        ApiKey::CreatePartitions => &topics::CREATE_PARTITIONS_RESPONSE,
        ApiKey::DescribeConfigs => &topics::DESCRIBE_CONFIGS_RESPONSE,
        ApiKey::IncrementalAlterConfigs => &topics::INCREMENTAL_ALTER_CONFIGS_RESPONSE,
        ApiKey::ApiVersions => &cluster::API_VERSIONS_RESPONSE,
        ApiKey::Metadata => &cluster::METADATA_RESPONSE,
        ApiKey::DescribeQuorum => &cluster::DESCRIBE_QUORUM_RESPONSE,
        ApiKey::DescribeCluster => &cluster::DESCRIBE_CLUSTER_RESPONSE,
        ApiKey::DescribeLogDirs => &cluster::DESCRIBE_LOG_DIRS_RESPONSE,
        ApiKey::DescribeTopicPartitions => &cluster::DESCRIBE_TOPIC_PARTITIONS_RESPONSE,
        ApiKey::ElectLeaders => &admin::ELECT_LEADERS_RESPONSE,
        ApiKey::AlterPartitionReassignments => &admin::ALTER_PARTITION_REASSIGNMENTS_RESPONSE,
        ApiKey::ListPartitionReassignments => &admin::LIST_PARTITION_REASSIGNMENTS_RESPONSE,
        ApiKey::UpdateFeatures => &admin::UPDATE_FEATURES_RESPONSE,
        ApiKey::UnregisterBroker | ApiKey::AddRaftVoter | ApiKey::RemoveRaftVoter => &admin::OUTCOME_RESPONSE,
        _ => return None,
    })
}
