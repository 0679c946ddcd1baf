//! The records' bytes, as Kafka lays them out.
use super::*;

#[test]
fn offset_records_are_kafkas_bytes() {
    assert_eq!(&offset_key("g", "t", 3)[..], b"\0\x01\0\x01g\0\x01t\0\0\0\x03");
    let mut value = CommittedOffset {
        offset: 7,
        leader_epoch: 2,
        metadata: "m".into(),
        commit_timestamp_ms: 9,
        expire_timestamp_ms: None,
        topic_id: TopicId::ZERO,
    };
    let head = b"\0\x04\0\0\0\0\0\0\0\x07\0\0\0\x02\x02m\0\0\0\0\0\0\0\x09";
    let bytes = offset_value(&value);
    assert_eq!(&bytes[..], [&head[..], b"\0"].concat());
    assert_eq!(decode_offset(bytes), Ok(value.clone()));
    value.topic_id = TopicId::from_bytes(*b"sixteen letters.");
    let bytes = offset_value(&value);
    assert_eq!(&bytes[..], [&head[..], b"\x01\0\x10sixteen letters."].concat());
    for len in 0..bytes.len() {
        assert!(decode_offset(bytes.slice(..len)).is_err(), "cut at {len}");
    }
    assert_eq!(decode_offset(bytes), Ok(value.clone()));
    let older = b"\0\x03\0\0\0\0\0\0\0\x07\0\0\0\x02\0\x01m\0\0\0\0\0\0\0\x09";
    value.topic_id = TopicId::ZERO;
    assert_eq!(decode_offset(Bytes::from_static(older)), Ok(value.clone()));
    value.metadata = "m".repeat(200);
    assert_eq!(decode_offset(offset_value(&value)), Ok(value.clone()), "its length takes two bytes");
    value.expire_timestamp_ms = Some(10);
    value.leader_epoch = -1;
    assert_eq!(decode_offset(offset_value(&value)), Ok(value));
    let flexible = b"\0\x04\0\0\0\0\0\0\0\x07\0\0\0\x02\x02m\0\0\0\0\0\0\0\x09\x01\x07\x02xy";
    assert_eq!(decode_offset(Bytes::from_static(flexible)).map(|read| read.offset), Ok(7));
}

#[test]
fn group_records_round_trip_and_unknown_ones_are_told_apart() {
    assert_eq!(&group_key("g")[..], b"\0\x02\0\x01g");
    let member = MemberValue {
        member_id: "a".into(),
        group_instance_id: Some("i".into()),
        client_id: "c".into(),
        client_host: "/h".into(),
        rebalance_timeout_ms: 1,
        session_timeout_ms: 2,
        subscription: Bytes::from_static(b"s"),
        assignment: Bytes::new(),
    };
    let value = GroupValue {
        protocol_type: "consumer".into(),
        generation: 4,
        protocol: Some("range".into()),
        leader: None,
        state_timestamp_ms: 5,
        members: vec![member],
    };
    let bytes = group_value(&value);
    assert_eq!(decode_group(bytes.clone()), Ok(value));
    for len in 0..bytes.len() {
        assert!(decode_group(bytes.slice(..len)).is_err(), "cut at {len}");
    }
    assert_eq!(decode_key(Bytes::from_static(b"\0\x03\0\x01g")), Ok(Key::Other));
}
