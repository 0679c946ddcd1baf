//! Bounds of responses about the cluster. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    BrokerId, api_versions_response, describe_cluster_response, describe_log_dirs_response,
    describe_quorum_response, describe_topic_partitions_response, metadata_response,
};

use crate::bounds::Kind::{self, Fixed, String, Struct};
use crate::bounds::{Array, Schema, between, every, since};
use crate::schemas::cluster::DESCRIBE_TOPIC_PARTITIONS_CURSOR;

const BROKER_IDS: Kind = Kind::Array(&Array { element: Fixed(4), size: size_of::<BrokerId>() });

const API_VERSIONS_API_VERSION: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        every().is(Fixed(2)), // api_key
        every().is(Fixed(2)), // min_version
        every().is(Fixed(2)), // max_version
    ],
    tagged: &[],
};

const API_VERSIONS_SUPPORTED_FEATURE_KEY: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(3).is(String),   // name
        since(3).is(Fixed(2)), // min_version
        since(3).is(Fixed(2)), // max_version
    ],
    tagged: &[],
};

const API_VERSIONS_FINALIZED_FEATURE_KEY: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(3).is(String),   // name
        since(3).is(Fixed(2)), // max_version_level
        since(3).is(Fixed(2)), // min_version_level
    ],
    tagged: &[],
};

pub const API_VERSIONS_RESPONSE: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        every().is(Fixed(2)), // error_code
        every().is(Kind::Array(&Array {
            element: Struct(&API_VERSIONS_API_VERSION),
            size: size_of::<api_versions_response::ApiVersion>(),
        })), // api_keys
        since(1).is(Fixed(4)), // throttle_time_ms
    ],
    tagged: &[
        (
            0,
            Kind::Array(&Array {
                element: Struct(&API_VERSIONS_SUPPORTED_FEATURE_KEY),
                size: size_of::<api_versions_response::SupportedFeatureKey>(),
            }),
        ),
        (1, Fixed(8)),
        (
            2,
            Kind::Array(&Array {
                element: Struct(&API_VERSIONS_FINALIZED_FEATURE_KEY),
                size: size_of::<api_versions_response::FinalizedFeatureKey>(),
            }),
        ),
        (3, Fixed(1)),
    ], // supported_features, finalized_features_epoch, finalized_features, zk_migration_ready
};

const METADATA_BROKER: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Fixed(4)), // node_id
        every().is(String),   // host
        every().is(Fixed(4)), // port
        since(1).is(String),  // rack
    ],
    tagged: &[],
};

const METADATA_PARTITION: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Fixed(2)),    // error_code
        every().is(Fixed(4)),    // partition_index
        every().is(Fixed(4)),    // leader_id
        since(7).is(Fixed(4)),   // leader_epoch
        every().is(BROKER_IDS),  // replica_nodes
        every().is(BROKER_IDS),  // isr_nodes
        since(5).is(BROKER_IDS), // offline_replicas
    ],
    tagged: &[],
};

const METADATA_TOPIC: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Fixed(2)),    // error_code
        every().is(String),      // name
        since(10).is(Fixed(16)), // topic_id
        since(1).is(Fixed(1)),   // is_internal
        every().is(Kind::Array(&Array {
            element: Struct(&METADATA_PARTITION),
            size: size_of::<metadata_response::MetadataResponsePartition>(),
        })), // partitions
        since(8).is(Fixed(4)),   // topic_authorized_operations
    ],
    tagged: &[],
};

pub const METADATA_RESPONSE: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        since(3).is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&METADATA_BROKER),
            size: size_of::<metadata_response::MetadataResponseBroker>(),
        })), // brokers
        since(2).is(String),   // cluster_id
        since(1).is(Fixed(4)), // controller_id
        every().is(Kind::Array(&Array {
            element: Struct(&METADATA_TOPIC),
            size: size_of::<metadata_response::MetadataResponseTopic>(),
        })), // topics
        between(8, 10).is(Fixed(4)), // cluster_authorized_operations
        since(13).is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

const DESCRIBE_CLUSTER_BROKER: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),  // broker_id
        every().is(String),    // host
        every().is(Fixed(4)),  // port
        every().is(String),    // rack
        since(2).is(Fixed(1)), // is_fenced
    ],
    tagged: &[],
};

pub const DESCRIBE_CLUSTER_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),  // throttle_time_ms
        every().is(Fixed(2)),  // error_code
        every().is(String),    // error_message
        since(1).is(Fixed(1)), // endpoint_type
        every().is(String),    // cluster_id
        every().is(Fixed(4)),  // controller_id
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_CLUSTER_BROKER),
            size: size_of::<describe_cluster_response::DescribeClusterBroker>(),
        })), // brokers
        every().is(Fixed(4)),  // cluster_authorized_operations
    ],
    tagged: &[],
};

const DESCRIBE_QUORUM_REPLICA_STATE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),   // replica_id
        since(2).is(Fixed(16)), // replica_directory_id
        every().is(Fixed(8)),   // log_end_offset
        since(1).is(Fixed(8)),  // last_fetch_timestamp
        since(1).is(Fixed(8)),  // last_caught_up_timestamp
    ],
    tagged: &[],
};

const DESCRIBE_QUORUM_REPLICA_STATES: Kind = Kind::Array(&Array {
    element: Struct(&DESCRIBE_QUORUM_REPLICA_STATE),
    size: size_of::<describe_quorum_response::ReplicaState>(),
});

const DESCRIBE_QUORUM_PARTITION: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),                       // partition_index
        every().is(Fixed(2)),                       // error_code
        since(2).is(String),                        // error_message
        every().is(Fixed(4)),                       // leader_id
        every().is(Fixed(4)),                       // leader_epoch
        every().is(Fixed(8)),                       // high_watermark
        every().is(DESCRIBE_QUORUM_REPLICA_STATES), // current_voters
        every().is(DESCRIBE_QUORUM_REPLICA_STATES), // observers
    ],
    tagged: &[],
};

const DESCRIBE_QUORUM_TOPIC: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String), // topic_name
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_QUORUM_PARTITION),
            size: size_of::<describe_quorum_response::PartitionData>(),
        })), // partitions
    ],
    tagged: &[],
};

const DESCRIBE_QUORUM_LISTENER: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        since(2).is(String),   // name
        since(2).is(String),   // host
        since(2).is(Fixed(2)), // port
    ],
    tagged: &[],
};

const DESCRIBE_QUORUM_NODE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        since(2).is(Fixed(4)), // node_id
        since(2).is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_QUORUM_LISTENER),
            size: size_of::<describe_quorum_response::Listener>(),
        })), // listeners
    ],
    tagged: &[],
};

pub const DESCRIBE_QUORUM_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(2)), // error_code
        since(2).is(String),  // error_message
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_QUORUM_TOPIC),
            size: size_of::<describe_quorum_response::TopicData>(),
        })), // topics
        since(2).is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_QUORUM_NODE),
            size: size_of::<describe_quorum_response::Node>(),
        })), // nodes
    ],
    tagged: &[],
};

const DESCRIBE_LOG_DIRS_PARTITION: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Fixed(8)), // partition_size
        every().is(Fixed(8)), // offset_lag
        every().is(Fixed(1)), // is_future_key
    ],
    tagged: &[],
};

const DESCRIBE_LOG_DIRS_TOPIC: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_LOG_DIRS_PARTITION),
            size: size_of::<describe_log_dirs_response::DescribeLogDirsPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

const DESCRIBE_LOG_DIRS_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(2)), // error_code
        every().is(String),   // log_dir
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_LOG_DIRS_TOPIC),
            size: size_of::<describe_log_dirs_response::DescribeLogDirsTopic>(),
        })), // topics
        since(4).is(Fixed(8)), // total_bytes
        since(4).is(Fixed(8)), // usable_bytes
    ],
    tagged: &[],
};

pub const DESCRIBE_LOG_DIRS_RESPONSE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)),  // throttle_time_ms
        since(3).is(Fixed(2)), // error_code
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_LOG_DIRS_RESULT),
            size: size_of::<describe_log_dirs_response::DescribeLogDirsResult>(),
        })), // results
    ],
    tagged: &[],
};

const DESCRIBE_TOPIC_PARTITIONS_PARTITION: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(2)),   // error_code
        every().is(Fixed(4)),   // partition_index
        every().is(Fixed(4)),   // leader_id
        every().is(Fixed(4)),   // leader_epoch
        every().is(BROKER_IDS), // replica_nodes
        every().is(BROKER_IDS), // isr_nodes
        every().is(BROKER_IDS), // eligible_leader_replicas
        every().is(BROKER_IDS), // last_known_elr
        every().is(BROKER_IDS), // offline_replicas
    ],
    tagged: &[],
};

const DESCRIBE_TOPIC_PARTITIONS_TOPIC: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(2)),  // error_code
        every().is(String),    // name
        every().is(Fixed(16)), // topic_id
        every().is(Fixed(1)),  // is_internal
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_TOPIC_PARTITIONS_PARTITION),
            size: size_of::<describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition>(),
        })), // partitions
        every().is(Fixed(4)),  // topic_authorized_operations
    ],
    tagged: &[],
};

pub const DESCRIBE_TOPIC_PARTITIONS_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC),
            size: size_of::<describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic>(),
        })), // topics
        every().is(Kind::NullableStruct(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)), // next_cursor
    ],
    tagged: &[],
};
