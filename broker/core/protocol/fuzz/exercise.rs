//! What the fuzz target and the replay of its corpus do with one frame, and the frames to begin with: a valid one of every
//! API at every version, made from the tables that requests are checked by, with the places of its lengths.

#![allow(dead_code, reason = "each of those who share it uses a part")]

use bytes::Bytes;
use firn_protocol::bounds::{Field, Kind, Schema};
use firn_protocol::frame::{self, Request};
use firn_protocol::library::messages::*;
use firn_protocol::library::protocol::Decodable;
use firn_protocol::versions::{self, SERVED};
use firn_protocol::{legacy, schemas};

/// Elements of each array, and what each text is.
const ELEMENTS: usize = 2;
const TEXT: &[u8] = b"firn";

/// Reads a frame as a broker does: header, bounds, body. It panics where a promise is broken.
pub fn frame_decoder(data: &[u8]) {
    let bytes = Bytes::copy_from_slice(data);
    let Some((key, version)) = frame::api_of(&bytes) else { return };
    let Some(api) = versions::served(key, version) else { return };
    if let Ok(request) = Request::parse(api, bytes) {
        assert_eq!((request.header.api_key, request.header.api_version), (key, version));
        is_request(api, &request);
    }
}

/// Whether the body is one of its API.
pub fn is_request(api: ApiKey, request: &Request) -> bool {
    fn decodes<T: Decodable>(api: ApiKey, request: &Request) -> bool {
        request.decode::<T>(api).is_ok()
    }
    let decode = match api {
        ApiKey::Produce => decodes::<ProduceRequest>,
        ApiKey::Fetch => decodes::<FetchRequest>,
        ApiKey::ListOffsets => decodes::<ListOffsetsRequest>,
        ApiKey::Metadata => decodes::<MetadataRequest>,
        ApiKey::OffsetCommit => decodes::<OffsetCommitRequest>,
        ApiKey::OffsetFetch => decodes::<OffsetFetchRequest>,
        ApiKey::FindCoordinator => decodes::<FindCoordinatorRequest>,
        ApiKey::JoinGroup => decodes::<JoinGroupRequest>,
        ApiKey::Heartbeat => decodes::<HeartbeatRequest>,
        ApiKey::LeaveGroup => decodes::<LeaveGroupRequest>,
        ApiKey::SyncGroup => decodes::<SyncGroupRequest>,
        ApiKey::DescribeGroups => decodes::<DescribeGroupsRequest>,
        ApiKey::ListGroups => decodes::<ListGroupsRequest>,
        ApiKey::ApiVersions => decodes::<ApiVersionsRequest>,
        ApiKey::CreateTopics => decodes::<CreateTopicsRequest>,
        ApiKey::DeleteTopics => decodes::<DeleteTopicsRequest>,
        ApiKey::DeleteRecords => decodes::<DeleteRecordsRequest>,
        ApiKey::InitProducerId => decodes::<InitProducerIdRequest>,
        ApiKey::OffsetForLeaderEpoch => decodes::<OffsetForLeaderEpochRequest>,
        ApiKey::DescribeConfigs => decodes::<DescribeConfigsRequest>,
        ApiKey::AlterConfigs => decodes::<AlterConfigsRequest>,
        ApiKey::DescribeLogDirs => decodes::<DescribeLogDirsRequest>,
        ApiKey::CreatePartitions => decodes::<CreatePartitionsRequest>,
        ApiKey::DeleteGroups => decodes::<DeleteGroupsRequest>,
        ApiKey::IncrementalAlterConfigs => decodes::<IncrementalAlterConfigsRequest>,
        ApiKey::OffsetDelete => decodes::<OffsetDeleteRequest>,
        ApiKey::DescribeQuorum => decodes::<DescribeQuorumRequest>,
        ApiKey::DescribeCluster => decodes::<DescribeClusterRequest>,
        ApiKey::DescribeTopicPartitions => decodes::<DescribeTopicPartitionsRequest>,
        ApiKey::ElectLeaders => decodes::<ElectLeadersRequest>,
        ApiKey::AlterPartitionReassignments => decodes::<AlterPartitionReassignmentsRequest>,
        ApiKey::ListPartitionReassignments => decodes::<ListPartitionReassignmentsRequest>,
        ApiKey::UpdateFeatures => decodes::<UpdateFeaturesRequest>,
        ApiKey::UnregisterBroker => decodes::<UnregisterBrokerRequest>,
        ApiKey::AddRaftVoter => decodes::<AddRaftVoterRequest>,
        ApiKey::RemoveRaftVoter => decodes::<RemoveRaftVoterRequest>,
        other => panic!("{other:?} is served, and not read here"),
    };
    decode(api, request)
}

/// A valid frame, without the length before it.
#[derive(Debug, Clone)]
pub struct Sample {
    pub api: ApiKey,
    pub version: i16,
    pub frame: Vec<u8>,
    /// Where its lengths and counts are.
    pub lengths: Vec<Length>,
}

/// A length on the wire.
#[derive(Debug, Clone, Copy)]
pub enum Length {
    Short(usize),
    Long(usize),
    /// Of one byte, for all are small.
    Compact(usize),
}

/// A valid frame of every API at every version that is served.
pub fn samples() -> Vec<Sample> {
    let every =
        SERVED.iter().flat_map(|served| (served.first..=served.last).map(|version| (served.api, version)));
    every.map(|(api, version)| sample(api, version)).collect()
}

fn sample(api: ApiKey, version: i16) -> Sample {
    let mut header = Vec::new();
    header.extend_from_slice(&(api as i16).to_be_bytes());
    header.extend_from_slice(&version.to_be_bytes());
    header.extend_from_slice(&7i32.to_be_bytes());
    let mut lengths = Vec::new();
    let header_version = legacy::header_version(api, version);
    if header_version >= 1 {
        lengths.push(Length::Short(header.len()));
        header.extend_from_slice(&(TEXT.len() as i16).to_be_bytes());
        header.extend_from_slice(TEXT);
    }
    if header_version >= 2 {
        lengths.push(Length::Compact(header.len()));
        header.push(0);
    }
    let oldest = api.valid_versions().min;
    let mut body = Body { out: Vec::new(), lengths: Vec::new(), version: version.max(oldest) };
    body.schema(schemas::of(api).expect("a schema of all that is served"));
    if version < oldest {
        body.downgrade(api, version);
    }
    let start = header.len();
    lengths.extend(body.lengths.iter().filter_map(|length| length.moved(|at| Some(at + start))));
    Sample { api, version, frame: [header, body.out].concat(), lengths }
}

struct Body {
    out: Vec<u8>,
    lengths: Vec<Length>,
    version: i16,
}

impl Body {
    fn schema(&mut self, schema: &Schema) {
        let flexible = schema.flexible_since.is_some_and(|since| self.version >= since);
        let version = self.version;
        for Field { kind, .. } in schema.fields.iter().filter(|field| field.is_in(version)) {
            self.kind(kind, flexible);
        }
        if flexible {
            self.lengths.push(Length::Compact(self.out.len()));
            self.out.push(0);
        }
    }

    fn kind(&mut self, kind: &Kind, flexible: bool) {
        match kind {
            Kind::Fixed(size) => self.out.resize(self.out.len() + size, 0),
            Kind::String | Kind::Bytes => {
                let short = matches!(kind, Kind::String);
                self.length(TEXT.len(), flexible, short);
                self.out.extend_from_slice(TEXT);
            }
            Kind::Array(array) => {
                self.length(ELEMENTS, flexible, false);
                for _ in 0..ELEMENTS {
                    self.kind(&array.element, flexible);
                }
            }
            Kind::Struct(schema) => self.schema(schema),
            Kind::NullableStruct(schema) => {
                self.out.push(1);
                self.schema(schema);
            }
        }
    }

    fn length(&mut self, length: usize, flexible: bool, short: bool) {
        let at = self.out.len();
        if flexible {
            self.lengths.push(Length::Compact(at));
            self.out.push(length as u8 + 1);
        } else if short {
            self.lengths.push(Length::Short(at));
            self.out.extend_from_slice(&(length as i16).to_be_bytes());
        } else {
            self.lengths.push(Length::Long(at));
            self.out.extend_from_slice(&(length as i32).to_be_bytes());
        }
    }

    /// From the oldest version that the library knows to one before it.
    fn downgrade(&mut self, api: ApiKey, version: i16) {
        match (api, version) {
            // The transactional id.
            (ApiKey::Produce, _) => self.cut(0, 2 + TEXT.len()),
            // The reply's limit, and the isolation level.
            (ApiKey::Fetch, 0..=2) => self.cut(12, 5),
            (ApiKey::Fetch, _) => self.cut(16, 1),
            (ApiKey::CreateTopics, 0) => self.cut(self.out.len() - 1, 1),
            (ApiKey::ListOffsets, 0) => {
                // How many offsets are wanted, behind each partition's time; from the last on, for places move.
                let topic = 2 + TEXT.len() + 4 + ELEMENTS * 12;
                for element in (0..ELEMENTS).rev() {
                    for partition in (1..=ELEMENTS).rev() {
                        let at = 8 + element * topic + 2 + TEXT.len() + 4 + partition * 12;
                        self.out.splice(at..at, 1i32.to_be_bytes());
                        self.move_lengths(|length| Some(if length >= at { length + 4 } else { length }));
                    }
                }
            }
            _ => {}
        }
    }

    fn cut(&mut self, at: usize, length: usize) {
        self.out.drain(at..at + length);
        self.move_lengths(|place| match place {
            before if before < at => Some(before),
            after => after.checked_sub(length).filter(|place| *place >= at),
        });
    }

    fn move_lengths(&mut self, to: impl Fn(usize) -> Option<usize>) {
        self.lengths = self.lengths.iter().filter_map(|length| length.moved(&to)).collect();
    }
}

impl Length {
    fn moved(self, to: impl Fn(usize) -> Option<usize>) -> Option<Length> {
        Some(match self {
            Length::Short(at) => Length::Short(to(at)?),
            Length::Long(at) => Length::Long(to(at)?),
            Length::Compact(at) => Length::Compact(to(at)?),
        })
    }

    /// `frame` with this length saying something else, one for each way to lie.
    pub fn lies(self, frame: &[u8]) -> Vec<Vec<u8>> {
        let replaced =
            |at: usize, width: usize, lie: &[u8]| [&frame[..at], lie, &frame[at + width..]].concat();
        match self {
            Length::Short(at) => [i16::MAX, i16::MIN, -1, -2, 5_000]
                .map(|lie: i16| replaced(at, 2, &lie.to_be_bytes()))
                .to_vec(),
            Length::Long(at) => [i32::MAX, i32::MIN, -1, -2, 1 << 16, 12_000_000]
                .map(|lie: i32| replaced(at, 4, &lie.to_be_bytes()))
                .to_vec(),
            Length::Compact(at) => [
                &[0xff, 0xff, 0xff, 0xff, 0x0f][..],
                &[0xff, 0xff, 0xff, 0xff, 0x07],
                &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
                &[0x80, 0x80, 0x04],
                &[0x80],
                &[0x7f],
                &[0],
            ]
            .map(|lie| replaced(at, 1, lie))
            .to_vec(),
        }
    }
}

/// Frames that brought brokers down, or would have: a length that promises gigabytes, first of all.
pub fn known_bad() -> Vec<(&'static str, Vec<u8>)> {
    let framed = |api: i16, version: i16, body: &[u8]| {
        [&api.to_be_bytes()[..], &version.to_be_bytes(), &7i32.to_be_bytes(), &[0xff, 0xff], body].concat()
    };
    vec![
        ("metadata-of-200-million", framed(3, 0, &[0x0c, 0x00, 0xb6, 0x7f])),
        ("metadata-0-trap", framed(3, 0, &[0x03, 0x3c, 0x0c, 0x00, 0xb6])),
        ("tags-without-end", framed(18, 3, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00])),
        ("varint-without-end", framed(3, 12, &[0xff; 12])),
        ("header-cut-off", vec![0, 3, 0, 1, 0]),
        ("unknown-api", framed(12_345, 0, &[])),
        ("negative-version", framed(3, -7, &[])),
        ("client-id-past-the-end", vec![0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff]),
    ]
}
