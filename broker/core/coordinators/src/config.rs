//! What the coordinator is told by the broker's configuration, under Kafka's names.

/// The coordinator's limits and delays. Times are milliseconds, sizes bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupConfig {
    /// `group.min.session.timeout.ms`
    pub min_session_timeout_ms: i32,
    /// `group.max.session.timeout.ms`
    pub max_session_timeout_ms: i32,
    /// `group.initial.rebalance.delay.ms`
    pub initial_rebalance_delay_ms: i64,
    /// `group.max.size`
    pub max_size: usize,
    /// `offset.metadata.max.bytes`
    pub offset_metadata_bytes_max: usize,
    /// `offsets.retention.minutes`, in milliseconds.
    pub offsets_retention_ms: i64,
    /// `offsets.retention.check.interval.ms`
    pub offsets_retention_check_interval_ms: i64,
    /// Longest group, member and instance id. Kafka's only limit is the string length of its protocol.
    pub id_bytes_max: usize,
    /// Most bytes of protocol metadata of one member.
    pub member_metadata_bytes_max: usize,
    /// Most bytes of ids and assignments of one SyncGroup.
    pub assignment_bytes_max: usize,
    /// Most partitions of one OffsetCommit.
    pub commit_offsets_max: usize,
}

impl Default for GroupConfig {
    fn default() -> Self {
        Self {
            min_session_timeout_ms: 6_000,
            max_session_timeout_ms: 1_800_000,
            initial_rebalance_delay_ms: 3_000,
            max_size: i32::MAX as usize,
            offset_metadata_bytes_max: 4_096,
            offsets_retention_ms: 7 * 24 * 3_600_000,
            offsets_retention_check_interval_ms: 600_000,
            id_bytes_max: 32_767,
            member_metadata_bytes_max: 8 << 20,
            assignment_bytes_max: 64 << 20,
            commit_offsets_max: 100_000,
        }
    }
}
