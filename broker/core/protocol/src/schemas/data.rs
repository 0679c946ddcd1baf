//! Bounds of the requests that carry or find records. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    delete_records_request, fetch_request, list_offsets_request, offset_for_leader_epoch_request,
    produce_request,
};

use crate::bounds::Kind::{self, Bytes, Fixed, String, Struct};
use crate::bounds::{Array, Schema, between, every, since, until};

const PRODUCE_PARTITION_PRODUCE_DATA: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Fixed(4)), // index
        every().is(Bytes),    // records
    ],
    tagged: &[],
};

const PRODUCE_TOPIC_PRODUCE_DATA: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        until(12).is(String),    // name
        since(13).is(Fixed(16)), // topic_id
        every().is(Kind::Array(&Array {
            element: Struct(&PRODUCE_PARTITION_PRODUCE_DATA),
            size: size_of::<produce_request::PartitionProduceData>(),
        })), // partition_data
    ],
    tagged: &[],
};

pub const PRODUCE_REQUEST: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(String),   // transactional_id
        every().is(Fixed(2)), // acks
        every().is(Fixed(4)), // timeout_ms
        every().is(Kind::Array(&Array {
            element: Struct(&PRODUCE_TOPIC_PRODUCE_DATA),
            size: size_of::<produce_request::TopicProduceData>(),
        })), // topic_data
    ],
    tagged: &[],
};

const FETCH_FETCH_PARTITION: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        every().is(Fixed(4)),   // partition
        since(9).is(Fixed(4)),  // current_leader_epoch
        every().is(Fixed(8)),   // fetch_offset
        since(12).is(Fixed(4)), // last_fetched_epoch
        since(5).is(Fixed(8)),  // log_start_offset
        every().is(Fixed(4)),   // partition_max_bytes
    ],
    tagged: &[
        (0, Fixed(16)), // replica_directory_id since 17
        (1, Fixed(8)),  // high_watermark since 18
    ],
};

const FETCH_FETCH_TOPIC: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        until(12).is(String),    // topic
        since(13).is(Fixed(16)), // topic_id
        every().is(Kind::Array(&Array {
            element: Struct(&FETCH_FETCH_PARTITION),
            size: size_of::<fetch_request::FetchPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

const FETCH_FORGOTTEN_TOPIC: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        between(7, 12).is(String), // topic
        since(13).is(Fixed(16)),   // topic_id
        since(7).is(Kind::Array(&Array { element: Fixed(4), size: size_of::<i32>() })), // partitions
    ],
    tagged: &[],
};

const FETCH_REPLICA_STATE: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        since(15).is(Fixed(4)), // replica_id
        since(15).is(Fixed(8)), // replica_epoch
    ],
    tagged: &[],
};

pub const FETCH_REQUEST: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        until(14).is(Fixed(4)), // replica_id
        every().is(Fixed(4)),   // max_wait_ms
        every().is(Fixed(4)),   // min_bytes
        every().is(Fixed(4)),   // max_bytes
        every().is(Fixed(1)),   // isolation_level
        since(7).is(Fixed(4)),  // session_id
        since(7).is(Fixed(4)),  // session_epoch
        every().is(Kind::Array(&Array {
            element: Struct(&FETCH_FETCH_TOPIC),
            size: size_of::<fetch_request::FetchTopic>(),
        })), // topics
        since(7).is(Kind::Array(&Array {
            element: Struct(&FETCH_FORGOTTEN_TOPIC),
            size: size_of::<fetch_request::ForgottenTopic>(),
        })), // forgotten_topics_data
        since(11).is(String),   // rack_id
    ],
    tagged: &[
        (0, String),                       // cluster_id
        (1, Struct(&FETCH_REPLICA_STATE)), // replica_state since 15
    ],
};

const LIST_OFFSETS_LIST_OFFSETS_PARTITION: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(Fixed(4)),  // partition_index
        since(4).is(Fixed(4)), // current_leader_epoch
        every().is(Fixed(8)),  // timestamp
    ],
    tagged: &[],
};

const LIST_OFFSETS_LIST_OFFSETS_TOPIC: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_OFFSETS_LIST_OFFSETS_PARTITION),
            size: size_of::<list_offsets_request::ListOffsetsPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const LIST_OFFSETS_REQUEST: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(Fixed(4)),  // replica_id
        since(2).is(Fixed(1)), // isolation_level
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_OFFSETS_LIST_OFFSETS_TOPIC),
            size: size_of::<list_offsets_request::ListOffsetsTopic>(),
        })), // topics
        since(10).is(Fixed(4)), // timeout_ms
    ],
    tagged: &[],
};

const DELETE_RECORDS_DELETE_RECORDS_PARTITION: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Fixed(8)), // offset
    ],
    tagged: &[],
};

const DELETE_RECORDS_DELETE_RECORDS_TOPIC: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&DELETE_RECORDS_DELETE_RECORDS_PARTITION),
            size: size_of::<delete_records_request::DeleteRecordsPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const DELETE_RECORDS_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&DELETE_RECORDS_DELETE_RECORDS_TOPIC),
            size: size_of::<delete_records_request::DeleteRecordsTopic>(),
        })), // topics
        every().is(Fixed(4)), // timeout_ms
    ],
    tagged: &[],
};

pub const INIT_PRODUCER_ID_REQUEST: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String),    // transactional_id
        every().is(Fixed(4)),  // transaction_timeout_ms
        since(3).is(Fixed(8)), // producer_id
        since(3).is(Fixed(2)), // producer_epoch
    ],
    tagged: &[],
};

const OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_PARTITION: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(Fixed(4)), // partition
        every().is(Fixed(4)), // current_leader_epoch
        every().is(Fixed(4)), // leader_epoch
    ],
    tagged: &[],
};

const OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_TOPIC: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        every().is(String), // topic
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_PARTITION),
            size: size_of::<offset_for_leader_epoch_request::OffsetForLeaderPartition>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const OFFSET_FOR_LEADER_EPOCH_REQUEST: Schema = Schema {
    flexible_since: Some(4),
    fields: &[
        since(3).is(Fixed(4)), // replica_id
        every().is(Kind::Array(&Array {
            element: Struct(&OFFSET_FOR_LEADER_EPOCH_OFFSET_FOR_LEADER_TOPIC),
            size: size_of::<offset_for_leader_epoch_request::OffsetForLeaderTopic>(),
        })), // topics
    ],
    tagged: &[],
};
