//! What the shard asks its caller to do.
use crate::records::OffsetsRecord;
use crate::requests::Reply;

/// One thing to do. Effects are carried out in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Append the records as one batch to the shard's partition; then tell `GroupShard::appended`. Appends must reach
    /// the log, and be reported, in the order of their ids.
    Append { id: u64, records: Vec<OffsetsRecord> },
    /// Answer the request that was given this token. Each token is answered once.
    Reply { token: u64, reply: Reply },
}
