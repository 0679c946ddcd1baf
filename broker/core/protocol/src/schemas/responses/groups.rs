//! Bounds of responses about groups. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    delete_groups_response, describe_groups_response, find_coordinator_response, join_group_response,
    leave_group_response, list_groups_response, offset_commit_response, offset_delete_response,
    offset_fetch_response,
};

use crate::bounds::Kind::{self, Bytes, Fixed, String, Struct};
use crate::bounds::{Array, Schema, between, every, since, until};

const FIND_COORDINATOR_COORDINATOR: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(4).is(String),   // key
        since(4).is(Fixed(4)), // node_id
        since(4).is(String),   // host
        since(4).is(Fixed(4)), // port
        since(4).is(Fixed(2)), // error_code
        since(4).is(String),   // error_message
    ],
    tagged: &[],
};

pub const FIND_COORDINATOR_RESPONSE: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(1).is(Fixed(4)),    // throttle_time_ms
        until(3).is(Fixed(2)),    // error_code
        between(1, 3).is(String), // error_message
        until(3).is(Fixed(4)),    // node_id
        until(3).is(String),      // host
        until(3).is(Fixed(4)),    // port
        since(4).is(Kind::Array(&Array {
            element: Struct(&FIND_COORDINATOR_COORDINATOR),
            size: size_of::<find_coordinator_response::Coordinator>(),
        })), // coordinators
    ],
    tagged: &[],
};

const JOIN_GROUP_MEMBER: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(String),  // member_id
        since(5).is(String), // group_instance_id
        every().is(Bytes),   // metadata
    ],
    tagged: &[],
};

pub const JOIN_GROUP_RESPONSE: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(2).is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)),  // error_code
        every().is(Fixed(4)),  // generation_id
        since(7).is(String),   // protocol_type
        every().is(String),    // protocol_name
        every().is(String),    // leader
        since(9).is(Fixed(1)), // skip_assignment
        every().is(String),    // member_id
        every().is(Kind::Array(&Array {
            element: Struct(&JOIN_GROUP_MEMBER),
            size: size_of::<join_group_response::JoinGroupResponseMember>(),
        })), // members
    ],
    tagged: &[],
};

pub const SYNC_GROUP_RESPONSE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(1).is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)),  // error_code
        since(5).is(String),   // protocol_type
        since(5).is(String),   // protocol_name
        every().is(Bytes),     // assignment
    ],
    tagged: &[],
};

pub const HEARTBEAT_RESPONSE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(1).is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)),  // error_code
    ],
    tagged: &[],
};

const LEAVE_GROUP_MEMBER: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(3).is(String),   // member_id
        since(3).is(String),   // group_instance_id
        since(3).is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

pub const LEAVE_GROUP_RESPONSE: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(1).is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)),  // error_code
        since(3).is(Kind::Array(&Array {
            element: Struct(&LEAVE_GROUP_MEMBER),
            size: size_of::<leave_group_response::MemberResponse>(),
        })), // members
    ],
    tagged: &[],
};

const OFFSET_COMMIT_PARTITION: Schema = Schema {
    flexible_since: Some(8),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

const OFFSET_COMMIT_TOPIC: Schema = Schema {
    flexible_since: Some(8),
    fields: &[
        until(9).is(String),     // name
        since(10).is(Fixed(16)), // topic_id
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_COMMIT_PARTITION),
            size: size_of::<offset_commit_response::OffsetCommitResponsePartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const OFFSET_COMMIT_RESPONSE: Schema = Schema {
    flexible_since: Some(8),
    fields: &[
        since(3).is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_COMMIT_TOPIC),
            size: size_of::<offset_commit_response::OffsetCommitResponseTopic>(),
        })), // topics
    ],
    tagged: &[],
};

const OFFSET_FETCH_PARTITION: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        until(7).is(Fixed(4)),      // partition_index
        until(7).is(Fixed(8)),      // committed_offset
        between(5, 7).is(Fixed(4)), // committed_leader_epoch
        until(7).is(String),        // metadata
        until(7).is(Fixed(2)),      // error_code
    ],
    tagged: &[],
};

const OFFSET_FETCH_TOPIC: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        until(7).is(String), // name
        until(7).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_PARTITION),
            size: size_of::<offset_fetch_response::OffsetFetchResponsePartition>(),
        })), // partitions
    ],
    tagged: &[],
};

const OFFSET_FETCH_PARTITIONS: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(8).is(Fixed(4)), // partition_index
        since(8).is(Fixed(8)), // committed_offset
        since(8).is(Fixed(4)), // committed_leader_epoch
        since(8).is(String),   // metadata
        since(8).is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

const OFFSET_FETCH_TOPICS: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        between(8, 9).is(String), // name
        since(10).is(Fixed(16)),  // topic_id
        since(8).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_PARTITIONS),
            size: size_of::<offset_fetch_response::OffsetFetchResponsePartitions>(),
        })), // partitions
    ],
    tagged: &[],
};

const OFFSET_FETCH_GROUP: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(8).is(String), // group_id
        since(8).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_TOPICS),
            size: size_of::<offset_fetch_response::OffsetFetchResponseTopics>(),
        })), // topics
        since(8).is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

pub const OFFSET_FETCH_RESPONSE: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(3).is(Fixed(4)), // throttle_time_ms
        until(7).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_TOPIC),
            size: size_of::<offset_fetch_response::OffsetFetchResponseTopic>(),
        })), // topics
        between(2, 7).is(Fixed(2)), // error_code
        since(8).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_GROUP),
            size: size_of::<offset_fetch_response::OffsetFetchResponseGroup>(),
        })), // groups
    ],
    tagged: &[],
};

const OFFSET_DELETE_PARTITION: Schema = Schema {
    flexible_since: None,
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

const OFFSET_DELETE_TOPIC: Schema = Schema {
    flexible_since: None,
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_DELETE_PARTITION),
            size: size_of::<offset_delete_response::OffsetDeleteResponsePartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const OFFSET_DELETE_RESPONSE: Schema = Schema {
    flexible_since: None,
    fields: &[
        every().is(Fixed(2)), // error_code
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_DELETE_TOPIC),
            size: size_of::<offset_delete_response::OffsetDeleteResponseTopic>(),
        })), // topics
    ],
    tagged: &[],
};

const LIST_GROUPS_LISTED_GROUP: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        every().is(String),  // group_id
        every().is(String),  // protocol_type
        since(4).is(String), // group_state
        since(5).is(String), // group_type
    ],
    tagged: &[],
};

pub const LIST_GROUPS_RESPONSE: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(1).is(Fixed(4)), // throttle_time_ms
        every().is(Fixed(2)),  // error_code
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_GROUPS_LISTED_GROUP),
            size: size_of::<list_groups_response::ListedGroup>(),
        })), // groups
    ],
    tagged: &[],
};

const DESCRIBE_GROUPS_DESCRIBED_GROUP_MEMBER: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(String),  // member_id
        since(4).is(String), // group_instance_id
        every().is(String),  // client_id
        every().is(String),  // client_host
        every().is(Bytes),   // member_metadata
        every().is(Bytes),   // member_assignment
    ],
    tagged: &[],
};

const DESCRIBE_GROUPS_DESCRIBED_GROUP: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(Fixed(2)), // error_code
        since(6).is(String),  // error_message
        every().is(String),   // group_id
        every().is(String),   // group_state
        every().is(String),   // protocol_type
        every().is(String),   // protocol_data
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_GROUPS_DESCRIBED_GROUP_MEMBER),
            size: size_of::<describe_groups_response::DescribedGroupMember>(),
        })), // members
        since(3).is(Fixed(4)), // authorized_operations
    ],
    tagged: &[],
};

pub const DESCRIBE_GROUPS_RESPONSE: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        since(1).is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&DESCRIBE_GROUPS_DESCRIBED_GROUP),
            size: size_of::<describe_groups_response::DescribedGroup>(),
        })), // groups
    ],
    tagged: &[],
};

const DELETE_GROUPS_DELETABLE_GROUP_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String),   // group_id
        every().is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

pub const DELETE_GROUPS_RESPONSE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&DELETE_GROUPS_DELETABLE_GROUP_RESULT),
            size: size_of::<delete_groups_response::DeletableGroupResult>(),
        })), // results
    ],
    tagged: &[],
};
