//! Bounds of the requests that make, change and describe topics. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    BrokerId, TopicName, alter_configs_request, create_partitions_request, create_topics_request,
    delete_topics_request, describe_configs_request, incremental_alter_configs_request,
};
use kafka_protocol::protocol::StrBytes;

use crate::bounds::Kind::{self, Fixed, String, Struct};
use crate::bounds::{Array, Schema, every, since, until};

const CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Kind::Array(&Array { element: Fixed(4), size: size_of::<BrokerId>() })), // broker_ids
    ],
    tagged: &[],
};

const CREATE_TOPICS_CREATABLE_TOPIC_CONFIG: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(String), // name
        every().is(String), // value
    ],
    tagged: &[],
};

const CREATE_TOPICS_CREATABLE_TOPIC: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(String),   // name
        every().is(Fixed(4)), // num_partitions
        every().is(Fixed(2)), // replication_factor
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_TOPICS_CREATABLE_REPLICA_ASSIGNMENT),
            size: size_of::<create_topics_request::CreatableReplicaAssignment>(),
        })), // assignments
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_TOPICS_CREATABLE_TOPIC_CONFIG),
            size: size_of::<create_topics_request::CreatableTopicConfig>(),
        })), // configs
    ],
    tagged: &[],
};

pub const CREATE_TOPICS_REQUEST: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_TOPICS_CREATABLE_TOPIC),
            size: size_of::<create_topics_request::CreatableTopic>(),
        })), // topics
        every().is(Fixed(4)), // timeout_ms
        every().is(Fixed(1)), // validate_only
    ],
    tagged: &[],
};

const DELETE_TOPICS_DELETE_TOPIC_STATE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(6).is(String),    // name
        since(6).is(Fixed(16)), // topic_id
    ],
    tagged: &[],
};

pub const DELETE_TOPICS_REQUEST: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(6).is(Kind::Array(&Array {
            element: Struct(&DELETE_TOPICS_DELETE_TOPIC_STATE),
            size: size_of::<delete_topics_request::DeleteTopicState>(),
        })), // topics
        until(5).is(Kind::Array(&Array { element: String, size: size_of::<TopicName>() })), // topic_names
        every().is(Fixed(4)),                                                               // timeout_ms
    ],
    tagged: &[],
};

const DESCRIBE_CONFIGS_DESCRIBE_CONFIGS_RESOURCE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(Fixed(1)), // resource_type
        every().is(String),   // resource_name
        every().is(Kind::Array(&Array { element: String, size: size_of::<StrBytes>() })), // configuration_keys
    ],
    tagged: &[],
};

pub const DESCRIBE_CONFIGS_REQUEST: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_CONFIGS_DESCRIBE_CONFIGS_RESOURCE),
            size: size_of::<describe_configs_request::DescribeConfigsResource>(),
        })), // resources
        every().is(Fixed(1)),  // include_synonyms
        since(3).is(Fixed(1)), // include_documentation
    ],
    tagged: &[],
};

const ALTER_CONFIGS_ALTERABLE_CONFIG: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String), // name
        every().is(String), // value
    ],
    tagged: &[],
};

const ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(1)), // resource_type
        every().is(String),   // resource_name
        every().is(Kind::Array(&Array {
            element: Struct(&ALTER_CONFIGS_ALTERABLE_CONFIG),
            size: size_of::<alter_configs_request::AlterableConfig>(),
        })), // configs
    ],
    tagged: &[],
};

pub const ALTER_CONFIGS_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE),
            size: size_of::<alter_configs_request::AlterConfigsResource>(),
        })), // resources
        every().is(Fixed(1)), // validate_only
    ],
    tagged: &[],
};

const CREATE_PARTITIONS_CREATE_PARTITIONS_ASSIGNMENT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Kind::Array(&Array { element: Fixed(4), size: size_of::<BrokerId>() })), // broker_ids
    ],
    tagged: &[],
};

const CREATE_PARTITIONS_CREATE_PARTITIONS_TOPIC: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String),   // name
        every().is(Fixed(4)), // count
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_PARTITIONS_CREATE_PARTITIONS_ASSIGNMENT),
            size: size_of::<create_partitions_request::CreatePartitionsAssignment>(),
        })), // assignments
    ],
    tagged: &[],
};

pub const CREATE_PARTITIONS_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_PARTITIONS_CREATE_PARTITIONS_TOPIC),
            size: size_of::<create_partitions_request::CreatePartitionsTopic>(),
        })), // topics
        every().is(Fixed(4)), // timeout_ms
        every().is(Fixed(1)), // validate_only
    ],
    tagged: &[],
};

const INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG: Schema = Schema {
    flexible_since: Some(1),
    fields: &[
        every().is(String),   // name
        every().is(Fixed(1)), // config_operation
        every().is(String),   // value
    ],
    tagged: &[],
};

const INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE: Schema = Schema {
    flexible_since: Some(1),
    fields: &[
        every().is(Fixed(1)), // resource_type
        every().is(String),   // resource_name
        every().is(Kind::Array(&Array {
            element: Struct(&INCREMENTAL_ALTER_CONFIGS_ALTERABLE_CONFIG),
            size: size_of::<incremental_alter_configs_request::AlterableConfig>(),
        })), // configs
    ],
    tagged: &[],
};

pub const INCREMENTAL_ALTER_CONFIGS_REQUEST: Schema = Schema {
    flexible_since: Some(1),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE),
            size: size_of::<incremental_alter_configs_request::AlterConfigsResource>(),
        })), // resources
        every().is(Fixed(1)), // validate_only
    ],
    tagged: &[],
};
