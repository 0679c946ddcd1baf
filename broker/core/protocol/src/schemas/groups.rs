//! Bounds of the requests of consumer groups. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    GroupId, join_group_request, leave_group_request, offset_commit_request, offset_delete_request,
    offset_fetch_request, sync_group_request,
};
use kafka_protocol::protocol::StrBytes;

use crate::bounds::Kind::{self, Bytes, Fixed, String, Struct};
use crate::bounds::{Array, Schema, every, since, until};

const OFFSET_COMMIT_OFFSET_COMMIT_PARTITION: Schema = Schema {
    flexible_since: Some(8),
    fields: &[
        every().is(Fixed(4)),  // partition_index
        every().is(Fixed(8)),  // committed_offset
        since(6).is(Fixed(4)), // committed_leader_epoch
        every().is(String),    // committed_metadata
    ],
    tagged: &[],
};

const OFFSET_COMMIT_OFFSET_COMMIT_TOPIC: Schema = Schema {
    flexible_since: Some(8),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_COMMIT_OFFSET_COMMIT_PARTITION),
            size: size_of::<offset_commit_request::OffsetCommitRequestPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const OFFSET_COMMIT_REQUEST: Schema = Schema {
    flexible_since: Some(8),
    fields: &[
        every().is(String),    // group_id
        every().is(Fixed(4)),  // generation_id_or_member_epoch
        every().is(String),    // member_id
        since(7).is(String),   // group_instance_id
        until(4).is(Fixed(8)), // retention_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_COMMIT_OFFSET_COMMIT_TOPIC),
            size: size_of::<offset_commit_request::OffsetCommitRequestTopic>(),
        })), // topics
    ],
    tagged: &[],
};

const OFFSET_FETCH_OFFSET_FETCH_TOPIC: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        until(7).is(String),                                                            // name
        until(7).is(Kind::Array(&Array { element: Fixed(4), size: size_of::<i32>() })), // partition_indexes
    ],
    tagged: &[],
};

const OFFSET_FETCH_OFFSET_FETCH_TOPICS: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(8).is(String),                                                            // name
        since(8).is(Kind::Array(&Array { element: Fixed(4), size: size_of::<i32>() })), // partition_indexes
    ],
    tagged: &[],
};

const OFFSET_FETCH_OFFSET_FETCH_GROUP: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(8).is(String),   // group_id
        since(9).is(String),   // member_id
        since(9).is(Fixed(4)), // member_epoch
        since(8).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_OFFSET_FETCH_TOPICS),
            size: size_of::<offset_fetch_request::OffsetFetchRequestTopics>(),
        })), // topics
    ],
    tagged: &[],
};

pub const OFFSET_FETCH_REQUEST: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        until(7).is(String), // group_id
        until(7).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_OFFSET_FETCH_TOPIC),
            size: size_of::<offset_fetch_request::OffsetFetchRequestTopic>(),
        })), // topics
        since(8).is(Kind::Array(&Array {
            element: Struct(&OFFSET_FETCH_OFFSET_FETCH_GROUP),
            size: size_of::<offset_fetch_request::OffsetFetchRequestGroup>(),
        })), // groups
        since(7).is(Fixed(1)), // require_stable
    ],
    tagged: &[],
};

pub const FIND_COORDINATOR_REQUEST: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        until(3).is(String),                                                               // key
        since(1).is(Fixed(1)),                                                             // key_type
        since(4).is(Kind::Array(&Array { element: String, size: size_of::<StrBytes>() })), // coordinator_keys
    ],
    tagged: &[],
};

const JOIN_GROUP_JOIN_GROUP_PROTOCOL: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(String), // name
        every().is(Bytes),  // metadata
    ],
    tagged: &[],
};

pub const JOIN_GROUP_REQUEST: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(String),    // group_id
        every().is(Fixed(4)),  // session_timeout_ms
        since(1).is(Fixed(4)), // rebalance_timeout_ms
        every().is(String),    // member_id
        since(5).is(String),   // group_instance_id
        every().is(String),    // protocol_type
        every().is(Kind::Array(&Array {
            element: Struct(&JOIN_GROUP_JOIN_GROUP_PROTOCOL),
            size: size_of::<join_group_request::JoinGroupRequestProtocol>(),
        })), // protocols
        since(8).is(String),   // reason
    ],
    tagged: &[],
};

pub const HEARTBEAT_REQUEST: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String),   // group_id
        every().is(Fixed(4)), // generation_id
        every().is(String),   // member_id
        since(3).is(String),  // group_instance_id
    ],
    tagged: &[],
};

const LEAVE_GROUP_MEMBER_IDENTITY: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(3).is(String), // member_id
        since(3).is(String), // group_instance_id
        since(5).is(String), // reason
    ],
    tagged: &[],
};

pub const LEAVE_GROUP_REQUEST: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String),  // group_id
        until(2).is(String), // member_id
        since(3).is(Kind::Array(&Array {
            element: Struct(&LEAVE_GROUP_MEMBER_IDENTITY),
            size: size_of::<leave_group_request::MemberIdentity>(),
        })), // members
    ],
    tagged: &[],
};

const SYNC_GROUP_SYNC_GROUP_ASSIGNMENT: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String), // member_id
        every().is(Bytes),  // assignment
    ],
    tagged: &[],
};

pub const SYNC_GROUP_REQUEST: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String),   // group_id
        every().is(Fixed(4)), // generation_id
        every().is(String),   // member_id
        since(3).is(String),  // group_instance_id
        since(5).is(String),  // protocol_type
        since(5).is(String),  // protocol_name
        every().is(Kind::Array(&Array {
            element: Struct(&SYNC_GROUP_SYNC_GROUP_ASSIGNMENT),
            size: size_of::<sync_group_request::SyncGroupRequestAssignment>(),
        })), // assignments
    ],
    tagged: &[],
};

pub const DESCRIBE_GROUPS_REQUEST: Schema = Schema {
    flexible_since: Some(5),
    fields: &[
        every().is(Kind::Array(&Array { element: String, size: size_of::<GroupId>() })), // groups
        since(3).is(Fixed(1)), // include_authorized_operations
    ],
    tagged: &[],
};

pub const LIST_GROUPS_REQUEST: Schema = Schema {
    flexible_since: Some(3),
    fields: &[
        since(4).is(Kind::Array(&Array { element: String, size: size_of::<StrBytes>() })), // states_filter
        since(5).is(Kind::Array(&Array { element: String, size: size_of::<StrBytes>() })), // types_filter
    ],
    tagged: &[],
};

pub const DELETE_GROUPS_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Kind::Array(&Array { element: String, size: size_of::<GroupId>() })), // groups_names
    ],
    tagged: &[],
};

const OFFSET_DELETE_OFFSET_DELETE_PARTITION: Schema = Schema {
    flexible_since: None,
    fields: &[
        every().is(Fixed(4)), // partition_index
    ],
    tagged: &[],
};

const OFFSET_DELETE_OFFSET_DELETE_TOPIC: Schema = Schema {
    flexible_since: None,
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_DELETE_OFFSET_DELETE_PARTITION),
            size: size_of::<offset_delete_request::OffsetDeleteRequestPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const OFFSET_DELETE_REQUEST: Schema = Schema {
    flexible_since: None,
    fields: &[
        every().is(String), // group_id
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_DELETE_OFFSET_DELETE_TOPIC),
            size: size_of::<offset_delete_request::OffsetDeleteRequestTopic>(),
        })), // topics
    ],
    tagged: &[],
};
