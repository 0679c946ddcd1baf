//! Bounds of responses about records. One schema for each struct, fields in the order of the wire; see `bounds.rs`.

use kafka_protocol::messages::{
    delete_records_response, fetch_response, list_offsets_response, produce_response,
};

use crate::bounds::Kind::{self, Bytes, Fixed, String, Struct};
use crate::bounds::{Array, Schema, every, since, until};

const PRODUCE_BATCH_INDEX_AND_ERROR_MESSAGE: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        since(8).is(Fixed(4)), // batch_index
        since(8).is(String),   // batch_index_error_message
    ],
    tagged: &[],
};

const PRODUCE_LEADER_ID_AND_EPOCH: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        since(10).is(Fixed(4)), // leader_id
        since(10).is(Fixed(4)), // leader_epoch
    ],
    tagged: &[],
};

const PRODUCE_PARTITION: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Fixed(4)),  // index
        every().is(Fixed(2)),  // error_code
        every().is(Fixed(8)),  // base_offset
        every().is(Fixed(8)),  // log_append_time_ms
        since(5).is(Fixed(8)), // log_start_offset
        since(8).is(Kind::Array(&Array {
            element: Struct(&PRODUCE_BATCH_INDEX_AND_ERROR_MESSAGE),
            size: size_of::<produce_response::BatchIndexAndErrorMessage>(),
        })), // record_errors
        since(8).is(String),   // error_message
    ],
    tagged: &[(0, Struct(&PRODUCE_LEADER_ID_AND_EPOCH))], // current_leader
};

const PRODUCE_TOPIC: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        until(12).is(String),    // name
        since(13).is(Fixed(16)), // topic_id
        every().is(Kind::Array(&Array {
            element: Struct(&PRODUCE_PARTITION),
            size: size_of::<produce_response::PartitionProduceResponse>(),
        })), // partition_responses
    ],
    tagged: &[],
};

const PRODUCE_NODE_ENDPOINT: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        since(10).is(Fixed(4)), // node_id
        since(10).is(String),   // host
        since(10).is(Fixed(4)), // port
        since(10).is(String),   // rack
    ],
    tagged: &[],
};

pub const PRODUCE_RESPONSE: Schema = Schema {
    flexible_since: Some(9),
    fields: &[
        every().is(Kind::Array(&Array {
            element: Struct(&PRODUCE_TOPIC),
            size: size_of::<produce_response::TopicProduceResponse>(),
        })), // responses
        every().is(Fixed(4)), // throttle_time_ms
    ],
    tagged: &[(
        0,
        Kind::Array(&Array {
            element: Struct(&PRODUCE_NODE_ENDPOINT),
            size: size_of::<produce_response::NodeEndpoint>(),
        }),
    )], // node_endpoints
};

const FETCH_EPOCH_END_OFFSET: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        since(12).is(Fixed(4)), // epoch
        since(12).is(Fixed(8)), // end_offset
    ],
    tagged: &[],
};

const FETCH_LEADER_ID_AND_EPOCH: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        since(12).is(Fixed(4)), // leader_id
        since(12).is(Fixed(4)), // leader_epoch
    ],
    tagged: &[],
};

const FETCH_SNAPSHOT_ID: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        every().is(Fixed(8)), // end_offset
        every().is(Fixed(4)), // epoch
    ],
    tagged: &[],
};

const FETCH_ABORTED_TRANSACTION: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        every().is(Fixed(8)), // producer_id
        every().is(Fixed(8)), // first_offset
    ],
    tagged: &[],
};

const FETCH_PARTITION_DATA: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        every().is(Fixed(4)),  // partition_index
        every().is(Fixed(2)),  // error_code
        every().is(Fixed(8)),  // high_watermark
        every().is(Fixed(8)),  // last_stable_offset
        since(5).is(Fixed(8)), // log_start_offset
        every().is(Kind::Array(&Array {
            element: Struct(&FETCH_ABORTED_TRANSACTION),
            size: size_of::<fetch_response::AbortedTransaction>(),
        })), // aborted_transactions
        since(11).is(Fixed(4)), // preferred_read_replica
        every().is(Bytes),     // records
    ],
    tagged: &[
        (0, Struct(&FETCH_EPOCH_END_OFFSET)),
        (1, Struct(&FETCH_LEADER_ID_AND_EPOCH)),
        (2, Struct(&FETCH_SNAPSHOT_ID)),
    ], // diverging_epoch, current_leader, snapshot_id
};

const FETCH_ABLE_TOPIC: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        until(12).is(String),    // topic
        since(13).is(Fixed(16)), // topic_id
        every().is(Kind::Array(&Array {
            element: Struct(&FETCH_PARTITION_DATA),
            size: size_of::<fetch_response::PartitionData>(),
        })), // partitions
    ],
    tagged: &[],
};

const FETCH_NODE_ENDPOINT: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        since(16).is(Fixed(4)), // node_id
        since(16).is(String),   // host
        since(16).is(Fixed(4)), // port
        since(16).is(String),   // rack
    ],
    tagged: &[],
};

pub const FETCH_RESPONSE: Schema = Schema {
    flexible_since: Some(12),
    fields: &[
        every().is(Fixed(4)),  // throttle_time_ms
        since(7).is(Fixed(2)), // error_code
        since(7).is(Fixed(4)), // session_id
        every().is(Kind::Array(&Array {
            element: Struct(&FETCH_ABLE_TOPIC),
            size: size_of::<fetch_response::FetchableTopicResponse>(),
        })), // responses
    ],
    tagged: &[(
        0,
        Kind::Array(&Array {
            element: Struct(&FETCH_NODE_ENDPOINT),
            size: size_of::<fetch_response::NodeEndpoint>(),
        }),
    )], // node_endpoints
};

const LIST_OFFSETS_PARTITION: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(Fixed(4)),  // partition_index
        every().is(Fixed(2)),  // error_code
        every().is(Fixed(8)),  // timestamp
        every().is(Fixed(8)),  // offset
        since(4).is(Fixed(4)), // leader_epoch
    ],
    tagged: &[],
};

const LIST_OFFSETS_TOPIC: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_OFFSETS_PARTITION),
            size: size_of::<list_offsets_response::ListOffsetsPartitionResponse>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const LIST_OFFSETS_RESPONSE: Schema = Schema {
    flexible_since: Some(6),
    fields: &[
        since(2).is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&LIST_OFFSETS_TOPIC),
            size: size_of::<list_offsets_response::ListOffsetsTopicResponse>(),
        })), // topics
    ],
    tagged: &[],
};

pub const INIT_PRODUCER_ID_RESPONSE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)),  // throttle_time_ms
        every().is(Fixed(2)),  // error_code
        every().is(Fixed(8)),  // producer_id
        every().is(Fixed(2)),  // producer_epoch
        since(6).is(Fixed(8)), // ongoing_txn_producer_id
        since(6).is(Fixed(2)), // ongoing_txn_producer_epoch
    ],
    tagged: &[],
};

const DELETE_RECORDS_PARTITION_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // partition_index
        every().is(Fixed(8)), // low_watermark
        every().is(Fixed(2)), // error_code
    ],
    tagged: &[],
};

const DELETE_RECORDS_TOPIC_RESULT: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(String), // name
        every().is(Kind::Array(&Array {
            element: Struct(&DELETE_RECORDS_PARTITION_RESULT),
            size: size_of::<delete_records_response::DeleteRecordsPartitionResult>(),
        })), // partitions
    ],
    tagged: &[],
};

pub const DELETE_RECORDS_RESPONSE: Schema = Schema {
    flexible_since: Some(2),
    fields: &[
        every().is(Fixed(4)), // throttle_time_ms
        every().is(Kind::Array(&Array {
            element: Struct(&DELETE_RECORDS_TOPIC_RESULT),
            size: size_of::<delete_records_response::DeleteRecordsTopicResult>(),
        })), // topics
    ],
    tagged: &[],
};
