//! Bounds of responses about where partitions are and who leads them, and who belongs to the cluster. One schema for each struct
//! that differs, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    BrokerId, alter_partition_reassignments_response, elect_leaders_response,
    list_partition_reassignments_response, update_features_response,
};

use crate::bounds::Kind::{self, Fixed, String, Struct};
use crate::bounds::{Array, Schema, between, every, since};

const BROKER_IDS: Kind = Kind::Array(&Array { element: Fixed(4), size: size_of::<BrokerId>() });

const ALTER_PARTITION_REASSIGNMENTS_PARTITION: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
    ],
    tagged: &[],
};

const ALTER_PARTITION_REASSIGNMENTS_TOPIC: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&ALTER_PARTITION_REASSIGNMENTS_PARTITION),
            size: size_of::<alter_partition_reassignments_response::ReassignablePartitionResponse>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const ALTER_PARTITION_REASSIGNMENTS_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),  // throttle_time_ms
        since(1).is(Fixed(1)), // allow_replication_factor_change
        every().is(Fixed(2)),  // error_code
        every().is(String),    // error_message
        every().is(Kind::Array(&Array {
            element: Struct(&ALTER_PARTITION_REASSIGNMENTS_TOPIC),
            size: size_of::<alter_partition_reassignments_response::ReassignableTopicResponse>(),
        })), // responses
    ],
    tagged: &[],
};

const LIST_PARTITION_REASSIGNMENTS_PARTITION: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)),   // partition_index
        every().is(BROKER_IDS), // replicas
        every().is(BROKER_IDS), // adding_replicas
        every().is(BROKER_IDS), // removing_replicas
    ],
    tagged: &[],
};

const LIST_PARTITION_REASSIGNMENTS_TOPIC: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_PARTITION_REASSIGNMENTS_PARTITION),
            size: size_of::<list_partition_reassignments_response::OngoingPartitionReassignment>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const LIST_PARTITION_REASSIGNMENTS_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_PARTITION_REASSIGNMENTS_TOPIC),
            size: size_of::<list_partition_reassignments_response::OngoingTopicReassignment>(),
        })), // topics
    ],
    tagged: &[],
};

const ELECT_LEADERS_PARTITION_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // partition_id
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
    ],
    tagged: &[],
};

const ELECT_LEADERS_REPLICA_ELECTION_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String), // topic
        every().is(Kind::Array(&Array {
            element: Struct(&ELECT_LEADERS_PARTITION_RESULT),
            size: size_of::<elect_leaders_response::PartitionResult>(),
        })), // partition_result
    ],
    tagged: &[],
};

pub const ELECT_LEADERS_RESPONSE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)),  // throttle_time_ms
        since(1).is(Fixed(2)), // error_code
        every().is(Kind::Array(&Array {
            element: Struct(&ELECT_LEADERS_REPLICA_ELECTION_RESULT),
            size: size_of::<elect_leaders_response::ReplicaElectionResult>(),
        })), // replica_election_results
    ],
    tagged: &[],
};

/// What became of the one thing that was asked for: of UnregisterBroker, AddRaftVoter and RemoveRaftVoter.
pub const OUTCOME_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
    ],
    tagged: &[],
};

const UPDATE_FEATURES_UPDATABLE_FEATURE_RESULT: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(String),   // feature
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
    ],
    tagged: &[],
};

pub const UPDATE_FEATURES_RESPONSE: Schema = Schema {
    flexible_since: Some(0),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)), // error_code
        every().is(String),   // error_message
        between(0, 1).is(Kind::Array(&Array {
            element: Struct(&UPDATE_FEATURES_UPDATABLE_FEATURE_RESULT),
            size: size_of::<update_features_response::UpdatableFeatureResult>(),
        })), // results
    ],
    tagged: &[],
};
