//! Bounds of the requests that ask about the cluster. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    describe_log_dirs_request, describe_quorum_request, describe_topic_partitions_request, metadata_request,
};

use crate::bounds::Kind::{self, Fixed, NullableStruct, String, Struct};
use crate::bounds::{Array, Schema, between, every, since};

const METADATA_METADATA_TOPIC: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        since(10).is(Fixed(16)), // topic_id
        every().is(String),      // name
    ],
    tagged: &[],
};

pub const METADATA_REQUEST: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&METADATA_METADATA_TOPIC),
            size: size_of::<metadata_request::MetadataRequestTopic>(),
        })), // topics
        since(4).is(Fixed(1)),       // allow_auto_topic_creation
        between(8, 10).is(Fixed(1)), // include_cluster_authorized_operations
        since(8).is(Fixed(1)),       // include_topic_authorized_operations
    ],
    tagged: &[],
};

pub const API_VERSIONS_REQUEST: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(3).is(String), // client_software_name
        since(3).is(String), // client_software_version
    ],
    tagged: &[],
};

const DESCRIBE_QUORUM_PARTITION: Schema = Schema {
    flexible_since: Some(0),
    fields: &[every().is(Fixed(4))], // partition_index
    tagged: &[],
};

const DESCRIBE_QUORUM_TOPIC: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String), // topic_name
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_QUORUM_PARTITION),
            size: size_of::<describe_quorum_request::PartitionData>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const DESCRIBE_QUORUM_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_QUORUM_TOPIC),
            size: size_of::<describe_quorum_request::TopicData>(),
        })), // topics
    ],
    tagged: &[],
};

const DESCRIBE_LOG_DIRS_DESCRIBABLE_LOG_DIR_TOPIC: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String),                                                            // topic
        every().is(Kind::Array(&Array { element: Fixed(4), size: size_of::<i32>() })), // partitions
    ],
    tagged: &[],
};

pub const DESCRIBE_LOG_DIRS_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_LOG_DIRS_DESCRIBABLE_LOG_DIR_TOPIC),
            size: size_of::<describe_log_dirs_request::DescribableLogDirTopic>(),
        })), // topics
    ],
    tagged: &[],
};

pub const DESCRIBE_CLUSTER_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(1)),  // include_cluster_authorized_operations
        since(1).is(Fixed(1)), // endpoint_type
        since(2).is(Fixed(1)), // include_fenced_brokers
    ],
    tagged: &[],
};

const DESCRIBE_TOPIC_PARTITIONS_TOPIC_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String), // name
    ],
    tagged: &[],
};

/// Requests and responses have the same.
pub(crate) const DESCRIBE_TOPIC_PARTITIONS_CURSOR: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),   // topic_name
        every().is(Fixed(4)), // partition_index
    ],
    tagged: &[],
};

pub const DESCRIBE_TOPIC_PARTITIONS_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_TOPIC_PARTITIONS_TOPIC_REQUEST),
            size: size_of::<describe_topic_partitions_request::TopicRequest>(),
        })), // topics
        every().is(Fixed(4)), // response_partition_limit
        every().is(NullableStruct(&DESCRIBE_TOPIC_PARTITIONS_CURSOR)), // cursor
    ],
    tagged: &[],
};
