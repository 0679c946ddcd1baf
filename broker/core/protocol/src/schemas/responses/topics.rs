//! Bounds of responses about topics. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    create_partitions_response, create_topics_response, delete_topics_response, describe_configs_response,
    incremental_alter_configs_response,
};

use crate::bounds::Kind::{self, Fixed, String, Struct};
use crate::bounds::{Array, Schema, every, since};

const CREATE_TOPICS_CREATABLE_TOPIC_CONFIGS: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        since(5).is(String),   // name
        since(5).is(String),   // value
        since(5).is(Fixed(1)), // read_only
        since(5).is(Fixed(1)), // config_source
        since(5).is(Fixed(1)), // is_sensitive
    ],
    tagged: &[],
};

const CREATE_TOPICS_CREATABLE_TOPIC_RESULT: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(String),     // name
        since(7).is(Fixed(16)), // topic_id
        every().is(Fixed(2)),   // error_code
        every().is(String),     // error_message
        since(5).is(Fixed(4)),  // num_partitions
        since(5).is(Fixed(2)),  // replication_factor
        since(5).is(Kind::Array(&Array {
            element: Struct(&CREATE_TOPICS_CREATABLE_TOPIC_CONFIGS),
            size: size_of::<create_topics_response::CreatableTopicConfigs>(),
        })), // configs
    ],
    tagged: &[(0, Fixed(2))], // topic_config_error_code
};

pub const CREATE_TOPICS_RESPONSE: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_TOPICS_CREATABLE_TOPIC_RESULT),
            size: size_of::<create_topics_response::CreatableTopicResult>(),
        })), // topics
    ],
    tagged: &[],
};

const DELETE_TOPICS_DELETABLE_TOPIC_RESULT: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String),     // name
        since(6).is(Fixed(16)), // topic_id
        every().is(Fixed(2)),   // error_code
        since(5).is(String),    // error_message
    ],
    tagged: &[],
};

pub const DELETE_TOPICS_RESPONSE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&DELETE_TOPICS_DELETABLE_TOPIC_RESULT),
            size: size_of::<delete_topics_response::DeletableTopicResult>(),
        })), // responses
    ],
    tagged: &[],
};

const CREATE_PARTITIONS_TOPIC_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String),   // name
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
    ],
    tagged: &[],
};

pub const CREATE_PARTITIONS_RESPONSE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&CREATE_PARTITIONS_TOPIC_RESULT),
            size: size_of::<create_partitions_response::CreatePartitionsTopicResult>(),
        })), // results
    ],
    tagged: &[],
};

const DESCRIBE_CONFIGS_SYNONYM: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String),   // name
        every().is(String),   // value
        every().is(Fixed(1)), // source
    ],
    tagged: &[],
};

const DESCRIBE_CONFIGS_RESOURCE_RESULT: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String),   // name
        every().is(String),   // value
        every().is(Fixed(1)), // read_only
        every().is(Fixed(1)), // config_source
        every().is(Fixed(1)), // is_sensitive
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_CONFIGS_SYNONYM),
            size: size_of::<describe_configs_response::DescribeConfigsSynonym>(),
        })), // synonyms
        since(3).is(Fixed(1)), // config_type
        since(3).is(String),  // documentation
    ],
    tagged: &[],
};

const DESCRIBE_CONFIGS_RESULT: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
        every().is(Fixed(1)), // resource_type
        every().is(String),   // resource_name
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_CONFIGS_RESOURCE_RESULT),
            size: size_of::<describe_configs_response::DescribeConfigsResourceResult>(),
        })), // configs
    ],
    tagged: &[],
};

pub const DESCRIBE_CONFIGS_RESPONSE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_CONFIGS_RESULT),
            size: size_of::<describe_configs_response::DescribeConfigsResult>(),
        })), // results
    ],
    tagged: &[],
};

const INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE: Schema = Schema {
    flexible_since: Some(1),
    fields: &[
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
        every().is(Fixed(1)), // resource_type
        every().is(String),   // resource_name
    ],
    tagged: &[],
};

pub const INCREMENTAL_ALTER_CONFIGS_RESPONSE: Schema = Schema {
    flexible_since: Some(1),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&INCREMENTAL_ALTER_CONFIGS_ALTER_CONFIGS_RESOURCE),
            size: size_of::<incremental_alter_configs_response::AlterConfigsResourceResponse>(),
        })), // responses
    ],
    tagged: &[],
};
