//! Bounds of the requests that change where partitions are and who leads them, and who belongs to the cluster. One schema for each
//! struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    BrokerId, add_raft_voter_request, alter_partition_reassignments_request, elect_leaders_request,
    list_partition_reassignments_request, update_features_request,
};

use crate::bounds::Kind::{self, Fixed, String, Struct};
use crate::bounds::{Array, Schema, between, every, since};

const INDEXES: Kind = Kind::Array(&Array { element: Fixed(4), size: size_of::<i32>() });

const ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_PARTITION: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Kind::Array(&Array { element: Fixed(4), size: size_of::<BrokerId>() })), // replicas
    ],
    tagged: &[],
};

const ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_TOPIC: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_PARTITION),
            size: size_of::<alter_partition_reassignments_request::ReassignablePartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const ALTER_PARTITION_REASSIGNMENTS_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),  // timeout_ms
        since(1).is(Fixed(1)), // allow_replication_factor_change
        every().is(Kind::Array(&Array {
            element: Struct(&ALTER_PARTITION_REASSIGNMENTS_REASSIGNABLE_TOPIC),
            size: size_of::<alter_partition_reassignments_request::ReassignableTopic>(),
        })), // topics
    ],
    tagged: &[],
};

const LIST_PARTITION_REASSIGNMENTS_TOPICS: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),  // name
        every().is(INDEXES), // partition_indexes
    ],
    tagged: &[],
};

pub const LIST_PARTITION_REASSIGNMENTS_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // timeout_ms
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_PARTITION_REASSIGNMENTS_TOPICS),
            size: size_of::<list_partition_reassignments_request::ListPartitionReassignmentsTopics>(),
        })), // topics
    ],
    tagged: &[],
};

const ELECT_LEADERS_TOPIC_PARTITIONS: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String),  // topic
        every().is(INDEXES), // partitions
    ],
    tagged: &[],
};

pub const ELECT_LEADERS_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        since(1).is(Fixed(1)), // election_type
        every().is(Kind::Array(&Array {
            element: Struct(&ELECT_LEADERS_TOPIC_PARTITIONS),
            size: size_of::<elect_leaders_request::TopicPartitions>(),
        })), // topic_partitions
        every().is(Fixed(4)),  // timeout_ms
    ],
    tagged: &[],
};

const ADD_RAFT_VOTER_LISTENER: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),   // name
        every().is(String),   // host
        every().is(Fixed(2)), // port
    ],
    tagged: &[],
};

pub const ADD_RAFT_VOTER_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),    // cluster_id
        every().is(Fixed(4)),  // timeout_ms
        every().is(Fixed(4)),  // voter_id
        every().is(Fixed(16)), // voter_directory_id
        every().is(Kind::Array(&Array {
            element: Struct(&ADD_RAFT_VOTER_LISTENER),
            size: size_of::<add_raft_voter_request::Listener>(),
        })), // listeners
    ],
    tagged: &[],
};

pub const REMOVE_RAFT_VOTER_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),    // cluster_id
        every().is(Fixed(4)),  // voter_id
        every().is(Fixed(16)), // voter_directory_id
    ],
    tagged: &[],
};

pub const UNREGISTER_BROKER_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[every().is(Fixed(4))], // broker_id
    tagged: &[],
};

const UPDATE_FEATURES_FEATURE_UPDATE_KEY: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),         // feature
        every().is(Fixed(2)),       // max_version_level
        between(0, 0).is(Fixed(1)), // allow_downgrade
        since(1).is(Fixed(1)),      // upgrade_type
    ],
    tagged: &[],
};

pub const UPDATE_FEATURES_REQUEST: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // timeout_ms
        every().is(Kind::Array(&Array {
            element: Struct(&UPDATE_FEATURES_FEATURE_UPDATE_KEY),
            size: size_of::<update_features_request::FeatureUpdateKey>(),
        })), // feature_updates
        since(1).is(Fixed(1)), // validate_only
    ],
    tagged: &[],
};
