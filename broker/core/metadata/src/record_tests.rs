//! The format's golden vectors, and what a reader makes of bytes that are not its own.

use super::*;

fn id() -> TopicId {
    TopicId(Uuid::from_u128(1))
}

/// Each kind of record and its bytes. A test that fails here says that files of older versions could no longer be read.
fn golden() -> Vec<(MetadataRecord, &'static str)> {
    let mut golden = golden_of_brokers();
    golden.extend(golden_of_partitions());
    golden.extend([
        (
            MetadataRecord::Topic(TopicRecord { name: "my-topic".to_owned(), topic_id: id() }),
            r#"{"v":1,"record":{"topic":{"name":"my-topic","topic_id":"AAAAAAAAAAAAAAAAAAAAAQ"}}}"#,
        ),
        (
            MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: id() }),
            r#"{"v":1,"record":{"remove_topic":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ"}}}"#,
        ),
        (
            MetadataRecord::RemoteDelete(RemoteDeleteRecord {
                topic_id: id(),
                topic: "my-topic".to_owned(),
                state: RemoteDeleteState::Marked,
            }),
            r#"{"v":1,"record":{"remote_delete":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","topic":"my-topic","state":"marked"}}}"#,
        ),
        (
            MetadataRecord::RemoteDelete(RemoteDeleteRecord {
                topic_id: id(),
                topic: "my-topic".to_owned(),
                state: RemoteDeleteState::Finished,
            }),
            r#"{"v":1,"record":{"remote_delete":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","topic":"my-topic","state":"finished"}}}"#,
        ),
        (
            MetadataRecord::Config(ConfigRecord {
                resource: ConfigResource::topic("my-topic"),
                name: "retention.ms".to_owned(),
                value: Some("1".to_owned()),
            }),
            r#"{"v":1,"record":{"config":{"resource":{"kind":"topic","name":"my-topic"},"name":"retention.ms","value":"1"}}}"#,
        ),
        (
            MetadataRecord::Config(ConfigRecord {
                resource: ConfigResource::cluster_default(),
                name: "max.connections".to_owned(),
                value: None,
            }),
            r#"{"v":1,"record":{"config":{"resource":{"kind":"broker","name":""},"name":"max.connections","value":null}}}"#,
        ),
        (
            MetadataRecord::ProducerIds(ProducerIdsRecord { broker_id: 0, next_producer_id: 1000 }),
            r#"{"v":1,"record":{"producer_ids":{"broker_id":0,"next_producer_id":1000}}}"#,
        ),
        (
            MetadataRecord::Feature(FeatureRecord { name: "metadata.version".to_owned(), level: 25 }),
            r#"{"v":1,"record":{"feature":{"name":"metadata.version","level":25}}}"#,
        ),
    ]);
    golden
}

fn golden_of_brokers() -> Vec<(MetadataRecord, &'static str)> {
    let endpoint = Endpoint { listener: "PLAINTEXT".to_owned(), host: "broker-0".to_owned(), port: 9092 };
    vec![
        (
            MetadataRecord::Broker(BrokerRecord {
                broker_id: 0,
                incarnation_id: Uuid::from_u128(7),
                broker_epoch: 3,
                endpoints: vec![endpoint],
                rack: Some("a".to_owned()),
                fenced: false,
                directory_ids: vec!["disk".to_owned()],
                noted: true,
                marks: 0,
            }),
            r#"{"v":1,"record":{"broker":{"broker_id":0,"incarnation_id":"00000000-0000-0000-0000-000000000007","broker_epoch":3,"endpoints":[{"listener":"PLAINTEXT","host":"broker-0","port":9092}],"rack":"a","fenced":false,"directory_ids":["disk"],"noted":true}}}"#,
        ),
        (
            MetadataRecord::BrokerChange(BrokerChangeRecord {
                broker_id: 2,
                broker_epoch: 3,
                fenced: Some(true),
                marks: None,
            }),
            r#"{"v":1,"record":{"broker_change":{"broker_id":2,"broker_epoch":3,"fenced":true}}}"#,
        ),
        (
            MetadataRecord::BrokerChange(BrokerChangeRecord {
                broker_id: 2,
                broker_epoch: 3,
                fenced: None,
                marks: Some(9),
            }),
            r#"{"v":1,"record":{"broker_change":{"broker_id":2,"broker_epoch":3,"marks":9}}}"#,
        ),
        (
            MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { broker_id: 2 }),
            r#"{"v":1,"record":{"unregister_broker":{"broker_id":2}}}"#,
        ),
    ]
}

fn golden_of_partitions() -> Vec<(MetadataRecord, &'static str)> {
    vec![
        (
            MetadataRecord::Partition(PartitionRecord {
                topic_id: id(),
                partition: 12,
                replicas: vec![1, 2],
                adding_replicas: vec![],
                removing_replicas: vec![],
                isr: vec![2],
                elr: vec![],
                last_known_elr: vec![],
                leader: 2,
                leader_epoch: 4,
                partition_epoch: 5,
            }),
            r#"{"v":1,"record":{"partition":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":12,"replicas":[1,2],"isr":[2],"leader":2,"leader_epoch":4,"partition_epoch":5}}}"#,
        ),
        (
            MetadataRecord::PartitionChange(PartitionChangeRecord {
                topic_id: id(),
                partition: 0,
                replicas: None,
                adding_replicas: None,
                removing_replicas: None,
                isr: Some(vec![1]),
                elr: None,
                last_known_elr: None,
                leader: Some(1),
            }),
            r#"{"v":1,"record":{"partition_change":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":0,"isr":[1],"leader":1}}}"#,
        ),
        (
            MetadataRecord::Partition(PartitionRecord {
                topic_id: id(),
                partition: 1,
                replicas: vec![1, 2, 3],
                adding_replicas: vec![],
                removing_replicas: vec![],
                isr: vec![],
                elr: vec![2],
                last_known_elr: vec![3],
                leader: -1,
                leader_epoch: 4,
                partition_epoch: 5,
            }),
            r#"{"v":1,"record":{"partition":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":1,"replicas":[1,2,3],"isr":[],"elr":[2],"last_known_elr":[3],"leader":-1,"leader_epoch":4,"partition_epoch":5}}}"#,
        ),
        (
            MetadataRecord::PartitionChange(PartitionChangeRecord {
                topic_id: id(),
                partition: 0,
                replicas: None,
                adding_replicas: None,
                removing_replicas: None,
                isr: Some(vec![]),
                elr: Some(vec![1]),
                last_known_elr: Some(vec![2]),
                leader: Some(-1),
            }),
            r#"{"v":1,"record":{"partition_change":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":0,"isr":[],"elr":[1],"last_known_elr":[2],"leader":-1}}}"#,
        ),
        (
            MetadataRecord::Partition(PartitionRecord {
                topic_id: id(),
                partition: 2,
                replicas: vec![3, 1],
                adding_replicas: vec![3],
                removing_replicas: vec![1],
                isr: vec![1],
                elr: vec![],
                last_known_elr: vec![],
                leader: 1,
                leader_epoch: 4,
                partition_epoch: 5,
            }),
            r#"{"v":1,"record":{"partition":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":2,"replicas":[3,1],"adding_replicas":[3],"removing_replicas":[1],"isr":[1],"leader":1,"leader_epoch":4,"partition_epoch":5}}}"#,
        ),
        (
            MetadataRecord::PartitionChange(PartitionChangeRecord {
                topic_id: id(),
                partition: 2,
                replicas: Some(vec![3]),
                adding_replicas: Some(vec![]),
                removing_replicas: Some(vec![]),
                isr: Some(vec![3]),
                elr: None,
                last_known_elr: None,
                leader: Some(3),
            }),
            r#"{"v":1,"record":{"partition_change":{"topic_id":"AAAAAAAAAAAAAAAAAAAAAQ","partition":2,"replicas":[3],"adding_replicas":[],"removing_replicas":[],"isr":[3],"leader":3}}}"#,
        ),
    ]
}

#[test]
fn the_format_does_not_drift() {
    for (record, bytes) in golden() {
        assert_eq!(String::from_utf8(record.encode().unwrap()).unwrap(), bytes);
        assert_eq!(MetadataRecord::decode(bytes.as_bytes()).unwrap(), record);
    }
}

#[test]
fn fields_of_a_later_version_are_overlooked() {
    let later = br#"{"v":1,"by":"someone","record":{"unregister_broker":{"broker_id":2,"reason":"old"}}}"#;
    let record = MetadataRecord::UnregisterBroker(UnregisterBrokerRecord { broker_id: 2 });
    assert_eq!(MetadataRecord::decode(later).unwrap(), record);
}

#[test]
fn what_cannot_be_understood_is_refused() {
    let too_new = MetadataRecord::decode(br#"{"v":2,"record":{"quantum":{}}}"#).unwrap_err();
    assert!(matches!(too_new, RecordError::TooNew { version: 2 }), "{too_new}");
    for bytes in [
        &br#""#[..],
        br#"{"#,
        br#"{"v":1}"#,
        br#"{"record":{"unregister_broker":{"broker_id":2}}}"#,
        br#"{"v":1,"record":{"quantum":{}}}"#,
        br#"{"v":1,"record":{"unregister_broker":{}}}"#,
        br#"{"v":1,"record":{"remove_topic":{"topic_id":"nonsense"}}}"#,
        br#"{"v":1,"record":{"unregister_broker":{"broker_id":2}}} trailing"#,
        b"\xff\xfe",
    ] {
        let error = MetadataRecord::decode(bytes).unwrap_err();
        assert!(matches!(error, RecordError::Malformed(_)), "{error}");
    }
}
