//! Which APIs this broker serves, and at which versions: the one table that everything else follows.

use kafka_protocol::error::ResponseError;
use kafka_protocol::messages::ApiKey;
use kafka_protocol::messages::api_versions_response::{ApiVersion, ApiVersionsResponse};

/// An API with the first and the last version that is served.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Served {
    pub api: ApiKey,
    pub first: i16,
    pub last: i16,
}

const fn served_at(api: ApiKey, first: i16, last: i16) -> Served {
    Served { api, first, last }
}

/// Everything that is served, by api key. First versions below those of Kafka 4 are for clients back to 0.10, whose
/// dialects `legacy` translates (KIP-896 took them out of Kafka).
pub const SERVED: [Served; 36] = [
    served_at(ApiKey::Produce, 0, 13),
    served_at(ApiKey::Fetch, 0, 18),
    served_at(ApiKey::ListOffsets, 0, 11),
    served_at(ApiKey::Metadata, 0, 13),
    served_at(ApiKey::OffsetCommit, 2, 9),
    served_at(ApiKey::OffsetFetch, 1, 9),
    served_at(ApiKey::FindCoordinator, 0, 6),
    served_at(ApiKey::JoinGroup, 0, 9),
    served_at(ApiKey::Heartbeat, 0, 4),
    served_at(ApiKey::LeaveGroup, 0, 5),
    served_at(ApiKey::SyncGroup, 0, 5),
    served_at(ApiKey::DescribeGroups, 0, 6),
    served_at(ApiKey::ListGroups, 0, 5),
    served_at(ApiKey::ApiVersions, 0, 4),
    served_at(ApiKey::CreateTopics, 0, 7),
    served_at(ApiKey::DeleteTopics, 0, 6),
    served_at(ApiKey::DeleteRecords, 0, 2),
    served_at(ApiKey::InitProducerId, 0, 5),
    served_at(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served_at(ApiKey::DescribeConfigs, 1, 4),
    served_at(ApiKey::AlterConfigs, 0, 2),
    served_at(ApiKey::DescribeLogDirs, 1, 4),
    served_at(ApiKey::CreatePartitions, 0, 3),
    served_at(ApiKey::DeleteGroups, 0, 2),
    served_at(ApiKey::ElectLeaders, 0, 2),
    served_at(ApiKey::IncrementalAlterConfigs, 0, 1),
    served_at(ApiKey::AlterPartitionReassignments, 0, 1),
    served_at(ApiKey::ListPartitionReassignments, 0, 0),
    served_at(ApiKey::OffsetDelete, 0, 0),
    served_at(ApiKey::DescribeQuorum, 0, 2),
    served_at(ApiKey::UpdateFeatures, 0, 2),
    served_at(ApiKey::DescribeCluster, 0, 2),
    served_at(ApiKey::UnregisterBroker, 0, 0),
    served_at(ApiKey::DescribeTopicPartitions, 0, 0),
    served_at(ApiKey::AddRaftVoter, 0, 0),
    served_at(ApiKey::RemoveRaftVoter, 0, 0),
];

/// The API of `key`, if it is served at `version`.
pub fn served(key: i16, version: i16) -> Option<ApiKey> {
    let found = SERVED.iter().find(|served| served.api as i16 == key)?;
    (found.first..=found.last).contains(&version).then_some(found.api)
}

/// The version whose bytes are those of `version`, and which the library knows. Version 11 of ListOffsets means one
/// special timestamp more than version 10, and is spelled as it (KIP-1023).
pub fn spelled_as(api: ApiKey, version: i16) -> i16 {
    match (api, version) {
        (ApiKey::ListOffsets, 11) => 10,
        _ => version,
    }
}

/// The newest version of an API that can be spoken: the newest that the library knows, or what is spelled as that.
pub fn newest(api: ApiKey, known: i16) -> i16 {
    if spelled_as(api, known + 1) == known { known + 1 } else { known }
}

/// What a client learns of the versions. With `unsupported` it is told that it asked in a version that is not served,
/// and which are (KIP-511); that reply is always in version 0.
pub fn api_versions_response(unsupported: bool) -> ApiVersionsResponse {
    let error = if unsupported { ResponseError::UnsupportedVersion.code() } else { 0 };
    let versions = SERVED.iter().map(|served| {
        ApiVersion::default()
            .with_api_key(served.api as i16)
            .with_min_version(served.first)
            .with_max_version(served.last)
    });
    ApiVersionsResponse::default().with_error_code(error).with_api_keys(versions.collect())
}
