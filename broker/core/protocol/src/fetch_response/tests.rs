//! Our encoding against the library's, byte for byte.

use bytes::BufMut;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, EpochEndOffset, FetchableTopicResponse, LeaderIdAndEpoch, NodeEndpoint, PartitionData,
};
use kafka_protocol::messages::{ApiKey, BrokerId, FetchResponse, ProducerId, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::frame::RequestHeader;
use crate::response;

const RECORDS: &[u8] = b"these are the records";

fn reply(version: i16) -> FetchReply {
    let partition = |index, records_length| FetchedPartition {
        index,
        error_code: 0,
        high_watermark: 50,
        last_stable_offset: 40,
        log_start_offset: 3,
        aborted_transactions: (index == 1).then(|| vec![(7, 8), (9, 10)]),
        records_length,
        diverging_epoch: (version >= 12 && index == 2).then_some((4, 44)),
        current_leader: (version >= 12 && index == 2).then_some((1, 6)),
        preferred_read_replica: (version >= 11 && index == 1).then_some(7),
        tiered: (version >= 12 && index != 1).then_some((1 << 40, 300)),
    };
    let topic =
        |name: &str, partitions| FetchedTopic { name: name.to_owned(), id: Uuid::from_u128(5), partitions };
    let first = topic("first", vec![partition(0, RECORDS.len()), partition(1, 0)]);
    let second = topic("second", vec![partition(2, RECORDS.len())]);
    let session_id = if version >= 7 { 99 } else { 0 };
    let node = |id, rack: Option<&str>| Node {
        id,
        host: "a.example".to_owned(),
        port: 9092,
        rack: rack.map(str::to_owned),
    };
    let nodes = if version >= 16 { vec![node(1, None), node(300, Some("b"))] } else { Vec::new() };
    FetchReply { error_code: 0, session_id, topics: vec![first, second], nodes }
}

fn librarys(reply: &FetchReply, version: i16) -> Bytes {
    let topics = reply.topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|fetched| {
            let mut data = PartitionData::default()
                .with_partition_index(fetched.index)
                .with_high_watermark(fetched.high_watermark)
                .with_last_stable_offset(fetched.last_stable_offset)
                .with_aborted_transactions(fetched.aborted_transactions.as_ref().map(|aborted| {
                    let one = |&(id, first): &(i64, i64)| {
                        AbortedTransaction::default()
                            .with_producer_id(ProducerId(id))
                            .with_first_offset(first)
                    };
                    aborted.iter().map(one).collect()
                }))
                .with_records(Some(Bytes::from_static(&RECORDS[..fetched.records_length])));
            if let Some(replica) = fetched.preferred_read_replica {
                data = data.with_preferred_read_replica(BrokerId(replica));
            }
            if version >= 5 {
                data = data.with_log_start_offset(fetched.log_start_offset);
            }
            if let Some((epoch, end)) = fetched.diverging_epoch {
                data = data
                    .with_diverging_epoch(EpochEndOffset::default().with_epoch(epoch).with_end_offset(end));
            }
            if let Some((leader, epoch)) = fetched.current_leader {
                let leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(leader)).with_leader_epoch(epoch);
                data = data.with_current_leader(leader);
            }
            if let Some((end, cleaned)) = fetched.tiered {
                let told = [end, cleaned].map(i64::to_be_bytes).concat();
                data = data.with_unknown_tagged_field(TIERED_TAG, told.into());
                assert_eq!(tiered(&data), fetched.tiered);
            }
            data
        });
        let topic_response = FetchableTopicResponse::default().with_partitions(partitions.collect());
        if version >= 13 {
            topic_response.with_topic_id(topic.id)
        } else {
            topic_response.with_topic(TopicName(StrBytes::from_string(topic.name.clone())))
        }
    });
    let nodes = reply.nodes.iter().map(|node| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(node.id))
            .with_host(StrBytes::from_string(node.host.clone()))
            .with_port(node.port)
            .with_rack(node.rack.clone().map(StrBytes::from_string))
    });
    let response = FetchResponse::default()
        .with_session_id(reply.session_id)
        .with_responses(topics.collect())
        .with_node_endpoints(nodes.collect());
    let header = RequestHeader { api_key: 1, api_version: version, correlation_id: 77, client_id: None };
    response::encode(ApiKey::Fetch, &header, &response).unwrap()
}

fn joined(pieces: Vec<Piece>) -> Bytes {
    let mut bytes = BytesMut::new();
    for piece in pieces {
        match piece {
            Piece::Bytes(piece) => bytes.put_slice(&piece),
            Piece::Records(_) => bytes.put_slice(RECORDS),
        }
    }
    bytes.freeze()
}

#[test]
fn it_is_the_librarys_encoding_at_every_version_that_both_know() {
    for version in 4..=18 {
        let reply = reply(version);
        let pieces = encode(&reply, version, 77);
        let records: Vec<_> = pieces.iter().filter(|piece| matches!(piece, Piece::Records(_))).collect();
        assert_eq!(records, [&Piece::Records(0), &Piece::Records(2)]);
        assert_eq!(joined(pieces), librarys(&reply, version), "version {version}");
    }
}

#[test]
fn old_versions_are_laid_out_by_hand() {
    for version in 0..=3 {
        let mut expected = BytesMut::new();
        expected.put_i32(0);
        expected.put_i32(77);
        if version >= 1 {
            expected.put_i32(0);
        }
        expected.put_i32(2);
        for (name, partitions) in
            [("first", &[(0, RECORDS.len()), (1, 0)][..]), ("second", &[(2, RECORDS.len())])]
        {
            expected.put_i16(name.len() as i16);
            expected.put_slice(name.as_bytes());
            expected.put_i32(partitions.len() as i32);
            for &(index, length) in partitions {
                expected.put_i32(index);
                expected.put_i16(0);
                expected.put_i64(50);
                expected.put_i32(length as i32);
                expected.put_slice(&RECORDS[..length]);
            }
        }
        let size = expected.len() as i32 - 4;
        expected[..4].copy_from_slice(&size.to_be_bytes());
        assert_eq!(joined(encode(&reply(version), version, 77)), expected, "version {version}");
    }
}
