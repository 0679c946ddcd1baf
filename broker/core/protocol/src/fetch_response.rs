//! The reply to a fetch, for all versions from 0 on, with places where records go instead of the records.
//!
//! The library would have the records copied into the reply. Here the caller gets the bytes around them and sends the
//! records from where they lie. (FetchResponse.json; KIP-74, KIP-107, KIP-227, KIP-392, KIP-516, KIP-951.)

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::fetch_response::PartitionData;
use uuid::Uuid;

/// The first version with compact lengths and tagged fields.
const FLEXIBLE_SINCE: i16 = 12;
/// From this version on topics go by id.
const TOPIC_IDS_SINCE: i16 = 13;
/// From this version on the leaders that are named come with their addresses (KIP-951).
const NODES_SINCE: i16 = 16;

/// The tagged field by which a leader tells a follower of the tier: far above Kafka's own, and told to no client.
pub const TIERED_TAG: i32 = 10_000;

/// The whole reply. Topics and partitions come in the order of the request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FetchReply {
    pub error_code: i16,
    pub session_id: i32,
    pub topics: Vec<FetchedTopic>,
    /// Where the brokers are that partitions name as their leaders.
    pub nodes: Vec<Node>,
}

/// A broker, and where the client finds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    pub id: i32,
    pub host: String,
    pub port: i32,
    pub rack: Option<String>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct FetchedTopic {
    pub name: String,
    pub id: Uuid,
    pub partitions: Vec<FetchedPartition>,
}

/// One partition's part; `records_length` bytes of records follow it. Offsets that do not apply are -1.
#[derive(Debug, Clone, PartialEq)]
pub struct FetchedPartition {
    pub index: i32,
    pub error_code: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
    /// Producer id and first offset of each transaction that was aborted in the range; `None` for read_uncommitted.
    pub aborted_transactions: Option<Vec<(i64, i64)>>,
    pub records_length: usize,
    /// Where the client's log and ours part (KIP-595): epoch and end offset.
    pub diverging_epoch: Option<(i32, i64)>,
    /// Leader's id and epoch, for a client that asked with another (KIP-951).
    pub current_leader: Option<(i32, i32)>,
    /// The broker where the client is to read on (KIP-392); then there are no records.
    pub preferred_read_replica: Option<i32>,
    /// For a follower: where the tier ends, and up to where the leader's log is compacted.
    pub tiered: Option<(i64, i64)>,
}

/// A piece of the frame: bytes, or the records of the n-th partition (counted over all topics).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Piece {
    Bytes(Bytes),
    Records(usize),
}

/// The frame of `reply` in `version`, size and header included, in pieces.
pub fn encode(reply: &FetchReply, version: i16, correlation_id: i32) -> Vec<Piece> {
    let mut encoder = Encoder {
        version,
        flexible: version >= FLEXIBLE_SINCE,
        out: BytesMut::new(),
        pieces: Vec::new(),
        records: 0,
    };
    encoder.out.put_i32(0);
    encoder.out.put_i32(correlation_id);
    encoder.no_tags();
    encoder.reply(reply);
    encoder.finish()
}

struct Encoder {
    version: i16,
    flexible: bool,
    out: BytesMut,
    pieces: Vec<Piece>,
    /// Bytes of records so far.
    records: usize,
}

impl Encoder {
    fn reply(&mut self, reply: &FetchReply) {
        if self.version >= 1 {
            self.out.put_i32(0); // throttle time
        }
        if self.version >= 7 {
            self.out.put_i16(reply.error_code);
            self.out.put_i32(reply.session_id);
        }
        self.count(reply.topics.len());
        let mut partition = 0;
        for topic in &reply.topics {
            if self.version >= TOPIC_IDS_SINCE {
                self.out.put_slice(topic.id.as_bytes());
            } else {
                self.string(&topic.name);
            }
            self.count(topic.partitions.len());
            for fetched in &topic.partitions {
                self.partition(fetched, partition);
                partition += 1;
            }
            self.no_tags();
        }
        if self.version >= NODES_SINCE && !reply.nodes.is_empty() {
            self.nodes(&reply.nodes);
        } else {
            self.no_tags();
        }
    }

    /// The only tagged field of a reply.
    fn nodes(&mut self, nodes: &[Node]) {
        let reply = std::mem::take(&mut self.out);
        self.count(nodes.len());
        for node in nodes {
            self.out.put_i32(node.id);
            self.string(&node.host);
            self.out.put_i32(node.port);
            match &node.rack {
                Some(rack) => self.string(rack),
                None => self.varint(0),
            }
            self.no_tags();
        }
        let field = std::mem::replace(&mut self.out, reply);
        self.varint(1);
        self.varint(0);
        self.varint(field.len() as u64);
        self.out.put_slice(&field);
    }

    fn partition(&mut self, fetched: &FetchedPartition, number: usize) {
        self.out.put_i32(fetched.index);
        self.out.put_i16(fetched.error_code);
        self.out.put_i64(fetched.high_watermark);
        if self.version >= 4 {
            self.out.put_i64(fetched.last_stable_offset);
        }
        if self.version >= 5 {
            self.out.put_i64(fetched.log_start_offset);
        }
        if self.version >= 4 {
            self.aborted_transactions(fetched.aborted_transactions.as_deref());
        }
        if self.version >= 11 {
            self.out.put_i32(fetched.preferred_read_replica.unwrap_or(-1));
        }
        if self.flexible {
            self.varint(fetched.records_length as u64 + 1);
        } else {
            self.out.put_i32(fetched.records_length as i32);
        }
        if fetched.records_length > 0 {
            let bytes = self.out.split().freeze();
            self.pieces.push(Piece::Bytes(bytes));
            self.pieces.push(Piece::Records(number));
            self.records += fetched.records_length;
        }
        self.partition_tags(fetched);
    }

    fn aborted_transactions(&mut self, aborted: Option<&[(i64, i64)]>) {
        match aborted {
            None if self.flexible => self.varint(0),
            None => self.out.put_i32(-1),
            Some(aborted) => {
                self.count(aborted.len());
                for (producer_id, first_offset) in aborted {
                    self.out.put_i64(*producer_id);
                    self.out.put_i64(*first_offset);
                    self.no_tags();
                }
            }
        }
    }

    fn partition_tags(&mut self, fetched: &FetchedPartition) {
        if !self.flexible {
            return;
        }
        let tags =
            [fetched.diverging_epoch.is_some(), fetched.current_leader.is_some(), fetched.tiered.is_some()];
        self.varint(tags.into_iter().map(u64::from).sum());
        if let Some((epoch, end_offset)) = fetched.diverging_epoch {
            self.varint(0);
            self.varint(13);
            self.out.put_i32(epoch);
            self.out.put_i64(end_offset);
            self.no_tags();
        }
        if let Some((leader, epoch)) = fetched.current_leader {
            self.varint(1);
            self.varint(9);
            self.out.put_i32(leader);
            self.out.put_i32(epoch);
            self.no_tags();
        }
        if let Some((end, cleaned)) = fetched.tiered {
            self.varint(TIERED_TAG as u64);
            self.varint(16);
            self.out.put_i64(end);
            self.out.put_i64(cleaned);
        }
    }

    fn no_tags(&mut self) {
        if self.flexible {
            self.out.put_u8(0);
        }
    }

    fn count(&mut self, count: usize) {
        if self.flexible { self.varint(count as u64 + 1) } else { self.out.put_i32(count as i32) }
    }

    fn string(&mut self, value: &str) {
        if self.flexible {
            self.varint(value.len() as u64 + 1)
        } else {
            self.out.put_i16(value.len() as i16)
        }
        self.out.put_slice(value.as_bytes());
    }

    fn varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.out.put_u8(value as u8 | 0x80);
            value >>= 7;
        }
        self.out.put_u8(value as u8);
    }

    fn finish(mut self) -> Vec<Piece> {
        if !self.out.is_empty() {
            self.pieces.push(Piece::Bytes(self.out.freeze()));
        }
        let bytes: usize = self
            .pieces
            .iter()
            .map(|piece| if let Piece::Bytes(bytes) = piece { bytes.len() } else { 0 })
            .sum();
        let size = (bytes + self.records - 4) as i32;
        if let Some(Piece::Bytes(first)) = self.pieces.first_mut() {
            let mut sized = BytesMut::from(first.as_ref());
            sized[..4].copy_from_slice(&size.to_be_bytes());
            *first = sized.freeze();
        }
        self.pieces
    }
}

/// What a leader has told of the tier: where it ends, and up to where the leader's log is compacted.
pub fn tiered(part: &PartitionData) -> Option<(i64, i64)> {
    let told: &[u8; 16] = part.unknown_tagged_fields.get(&TIERED_TAG)?.as_ref().try_into().ok()?;
    let both = u128::from_be_bytes(*told);
    Some(((both >> 64) as i64, both as i64))
}

#[cfg(test)]
mod tests;
