//! The walk against the library: it must end where the library's encoding ends, and refuse what lies.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::*;
use crate::versions::{SERVED, spelled_as};

fn name(text: &'static str) -> TopicName {
    TopicName(StrBytes::from_static_str(text))
}

/// Walks `request` as encoded by the library at every version that both know; cut off or longer, it must fail.
fn agrees<T: Encodable>(api: ApiKey, request: impl Fn(i16) -> T) {
    let served = SERVED.iter().find(|served| served.api == api).unwrap();
    let oldest = served.first.max(api.valid_versions().min);
    for version in oldest..=served.last {
        let mut body = BytesMut::new();
        let spelled = spelled_as(api, version);
        request(spelled)
            .encode(&mut body, spelled)
            .unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
        assert_eq!(check(api, version, &body), Ok(()), "{api:?} version {version}");
        for cut in 0..body.len() {
            assert!(check(api, version, &body[..cut]).is_err(), "{api:?} version {version} cut at {cut}");
        }
        body.put_u8(0);
        assert_eq!(
            check(api, version, &body),
            Err(BoundsError::Trailing { left: 1 }),
            "{api:?} version {version}"
        );
    }
}

#[test]
fn walk_and_library_agree_on_records() {
    use kafka_protocol::messages::{fetch_request, list_offsets_request, produce_request};
    agrees(ApiKey::Produce, |version| {
        let partition = produce_request::PartitionProduceData::default()
            .with_index(3)
            .with_records(Some(Bytes::from_static(b"records")));
        let mut topic = produce_request::TopicProduceData::default().with_partition_data(vec![partition]);
        if version < 13 {
            topic = topic.with_name(name("t"));
        }
        ProduceRequest::default()
            .with_transactional_id(Some(TransactionalId(StrBytes::from_static_str("tx"))))
            .with_topic_data(vec![topic.clone(), topic])
    });
    agrees(ApiKey::Fetch, |version| {
        let mut partition = fetch_request::FetchPartition::default().with_partition(1).with_fetch_offset(9);
        if version >= 17 {
            partition = partition.with_replica_directory_id(uuid::Uuid::from_u128(7));
        }
        let mut topic =
            fetch_request::FetchTopic::default().with_partitions(vec![partition.clone(), partition]);
        let mut forgotten = fetch_request::ForgottenTopic::default().with_partitions(vec![1, 2, 3]);
        if version < 13 {
            topic = topic.with_topic(name("topic"));
            forgotten = forgotten.with_topic(name("gone"));
        }
        let mut request = FetchRequest::default().with_topics(vec![topic]);
        if version >= 7 {
            request = request.with_forgotten_topics_data(vec![forgotten]);
        }
        if version >= 11 {
            request = request.with_rack_id(StrBytes::from_static_str("zone-a"));
        }
        if version >= 12 {
            request = request.with_cluster_id(Some(StrBytes::from_static_str("cluster")));
        }
        if version >= 15 {
            let state = fetch_request::ReplicaState::default().with_replica_id(BrokerId(5));
            request = request.with_replica_state(state);
        }
        request
    });
    agrees(ApiKey::ListOffsets, |_| {
        let partition = list_offsets_request::ListOffsetsPartition::default().with_timestamp(-1);
        let topic = list_offsets_request::ListOffsetsTopic::default()
            .with_name(name("t"))
            .with_partitions(vec![partition]);
        ListOffsetsRequest::default().with_topics(vec![topic])
    });
    agrees(ApiKey::InitProducerId, |_| InitProducerIdRequest::default());
    agrees(ApiKey::DeleteRecords, |_| {
        let partition = delete_records_request::DeleteRecordsPartition::default().with_offset(4);
        let topic = delete_records_request::DeleteRecordsTopic::default().with_name(name("t"));
        DeleteRecordsRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
    });
    agrees(ApiKey::OffsetForLeaderEpoch, |_| {
        let partition =
            offset_for_leader_epoch_request::OffsetForLeaderPartition::default().with_leader_epoch(4);
        let topic = offset_for_leader_epoch_request::OffsetForLeaderTopic::default().with_topic(name("t"));
        OffsetForLeaderEpochRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
    });
}

#[test]
fn walk_and_library_agree_on_topics_and_the_cluster() {
    agrees(ApiKey::CreateTopics, |_| {
        let assignment = create_topics_request::CreatableReplicaAssignment::default()
            .with_broker_ids(vec![BrokerId(1), BrokerId(2)]);
        let config = create_topics_request::CreatableTopicConfig::default()
            .with_name(StrBytes::from_static_str("retention.ms"))
            .with_value(Some(StrBytes::from_static_str("1")));
        let topic = create_topics_request::CreatableTopic::default()
            .with_name(name("t"))
            .with_assignments(vec![assignment])
            .with_configs(vec![config]);
        CreateTopicsRequest::default().with_topics(vec![topic])
    });
    agrees(ApiKey::DeleteTopics, |version| {
        if version >= 6 {
            let topic = delete_topics_request::DeleteTopicState::default().with_name(Some(name("t")));
            DeleteTopicsRequest::default().with_topics(vec![topic])
        } else {
            DeleteTopicsRequest::default().with_topic_names(vec![name("a"), name("b")])
        }
    });
    agrees(ApiKey::CreatePartitions, |_| {
        let assignment = create_partitions_request::CreatePartitionsAssignment::default()
            .with_broker_ids(vec![BrokerId(1)]);
        let topic = create_partitions_request::CreatePartitionsTopic::default()
            .with_name(name("t"))
            .with_count(4)
            .with_assignments(Some(vec![assignment]));
        CreatePartitionsRequest::default().with_topics(vec![topic])
    });
    agrees(ApiKey::DescribeConfigs, |_| {
        let resource = describe_configs_request::DescribeConfigsResource::default()
            .with_configuration_keys(Some(vec![StrBytes::from_static_str("retention.ms")]));
        DescribeConfigsRequest::default().with_resources(vec![resource])
    });
    agrees(ApiKey::AlterConfigs, |_| {
        let config = alter_configs_request::AlterableConfig::default().with_value(None);
        let resource = alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
        AlterConfigsRequest::default().with_resources(vec![resource])
    });
    agrees(ApiKey::IncrementalAlterConfigs, |_| {
        let config = incremental_alter_configs_request::AlterableConfig::default().with_config_operation(1);
        let resource =
            incremental_alter_configs_request::AlterConfigsResource::default().with_configs(vec![config]);
        IncrementalAlterConfigsRequest::default().with_resources(vec![resource])
    });
    agrees(ApiKey::ApiVersions, |version| match version {
        0..=2 => ApiVersionsRequest::default(),
        _ => ApiVersionsRequest::default().with_client_software_name(StrBytes::from_static_str("client")),
    });
    agrees(ApiKey::Metadata, |_| {
        let topic = metadata_request::MetadataRequestTopic::default().with_name(Some(name("t")));
        MetadataRequest::default().with_topics(Some(vec![topic]))
    });
    agrees(ApiKey::DescribeQuorum, |_| {
        let partitions = vec![describe_quorum_request::PartitionData::default(); 2];
        let topic = describe_quorum_request::TopicData::default().with_topic_name(name("t"));
        DescribeQuorumRequest::default().with_topics(vec![topic.with_partitions(partitions)])
    });
    agrees(ApiKey::DescribeCluster, |_| DescribeClusterRequest::default());
    agrees(ApiKey::DescribeLogDirs, |_| {
        let topic = describe_log_dirs_request::DescribableLogDirTopic::default().with_partitions(vec![1, 2]);
        DescribeLogDirsRequest::default().with_topics(Some(vec![topic]))
    });
    for cursor in
        [None, Some(describe_topic_partitions_request::Cursor::default().with_topic_name(name("t")))]
    {
        agrees(ApiKey::DescribeTopicPartitions, |_| {
            let topic = describe_topic_partitions_request::TopicRequest::default().with_name(name("t"));
            DescribeTopicPartitionsRequest::default().with_topics(vec![topic]).with_cursor(cursor.clone())
        });
    }
}

#[test]
fn walk_and_library_agree_on_what_is_asked_of_the_controller() {
    for replicas in [None, Some(vec![BrokerId(1), BrokerId(2)])] {
        agrees(ApiKey::AlterPartitionReassignments, |_| {
            let partition = alter_partition_reassignments_request::ReassignablePartition::default()
                .with_replicas(replicas.clone());
            let topic = alter_partition_reassignments_request::ReassignableTopic::default()
                .with_name(name("t"))
                .with_partitions(vec![partition; 2]);
            AlterPartitionReassignmentsRequest::default().with_topics(vec![topic; 2])
        });
    }
    for indexes in [None, Some(vec![1, 2, 3])] {
        agrees(ApiKey::ListPartitionReassignments, |_| {
            let of = |indexes| {
                let topic = list_partition_reassignments_request::ListPartitionReassignmentsTopics::default();
                vec![topic.with_name(name("t")).with_partition_indexes(indexes); 2]
            };
            ListPartitionReassignmentsRequest::default().with_topics(indexes.clone().map(of))
        });
        agrees(ApiKey::ElectLeaders, |_| {
            let of = |indexes| {
                let topic = elect_leaders_request::TopicPartitions::default();
                vec![topic.with_topic(name("t")).with_partitions(indexes); 2]
            };
            ElectLeadersRequest::default().with_topic_partitions(indexes.clone().map(of))
        });
    }
    agrees(ApiKey::UnregisterBroker, |_| UnregisterBrokerRequest::default().with_broker_id(BrokerId(7)));
    for cluster_id in [None, Some(StrBytes::from_static_str("cluster"))] {
        agrees(ApiKey::AddRaftVoter, |_| {
            let listener = add_raft_voter_request::Listener::default()
                .with_name(StrBytes::from_static_str("CONTROLLER"))
                .with_host(StrBytes::from_static_str("localhost"));
            AddRaftVoterRequest::default()
                .with_cluster_id(cluster_id.clone())
                .with_listeners(vec![listener; 2])
        });
        agrees(ApiKey::RemoveRaftVoter, |_| {
            RemoveRaftVoterRequest::default().with_cluster_id(cluster_id.clone())
        });
    }
    agrees(ApiKey::UpdateFeatures, |_| {
        let update = update_features_request::FeatureUpdateKey::default()
            .with_feature(StrBytes::from_static_str("metadata.version"))
            .with_max_version_level(7);
        UpdateFeaturesRequest::default().with_feature_updates(vec![update; 2])
    });
}

#[test]
fn walk_and_library_agree_on_groups() {
    let member = || StrBytes::from_static_str("member-1");
    agrees(ApiKey::FindCoordinator, |version| match version {
        0..=3 => FindCoordinatorRequest::default().with_key(member()),
        _ => FindCoordinatorRequest::default().with_coordinator_keys(vec![member(), member()]),
    });
    agrees(ApiKey::JoinGroup, |_| {
        let protocol =
            join_group_request::JoinGroupRequestProtocol::default().with_metadata(Bytes::from_static(b"m"));
        JoinGroupRequest::default().with_member_id(member()).with_protocols(vec![protocol])
    });
    agrees(ApiKey::SyncGroup, |_| {
        let assignment = sync_group_request::SyncGroupRequestAssignment::default().with_member_id(member());
        SyncGroupRequest::default().with_assignments(vec![assignment])
    });
    agrees(ApiKey::Heartbeat, |_| HeartbeatRequest::default().with_member_id(member()));
    agrees(ApiKey::LeaveGroup, |version| match version {
        0..=2 => LeaveGroupRequest::default().with_member_id(member()),
        _ => {
            let left = leave_group_request::MemberIdentity::default().with_member_id(member());
            LeaveGroupRequest::default().with_members(vec![left])
        }
    });
    agrees(ApiKey::DescribeGroups, |_| DescribeGroupsRequest::default().with_groups(vec![GroupId(member())]));
    agrees(ApiKey::DeleteGroups, |_| {
        DeleteGroupsRequest::default().with_groups_names(vec![GroupId(member())])
    });
    agrees(ApiKey::ListGroups, |version| match version {
        0..=3 => ListGroupsRequest::default(),
        _ => ListGroupsRequest::default().with_states_filter(vec![member()]),
    });
    agrees(ApiKey::OffsetCommit, |_| {
        let partition =
            offset_commit_request::OffsetCommitRequestPartition::default().with_committed_offset(5);
        let topic = offset_commit_request::OffsetCommitRequestTopic::default().with_name(name("t"));
        OffsetCommitRequest::default().with_topics(vec![topic.with_partitions(vec![partition])])
    });
    agrees(ApiKey::OffsetFetch, |version| match version {
        0..=7 => {
            let topic =
                offset_fetch_request::OffsetFetchRequestTopic::default().with_partition_indexes(vec![0, 1]);
            OffsetFetchRequest::default().with_topics(Some(vec![topic]))
        }
        _ => {
            let topic =
                offset_fetch_request::OffsetFetchRequestTopics::default().with_partition_indexes(vec![0]);
            let group =
                offset_fetch_request::OffsetFetchRequestGroup::default().with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![group])
        }
    });
    agrees(ApiKey::OffsetDelete, |_| {
        let partition =
            offset_delete_request::OffsetDeleteRequestPartition::default().with_partition_index(2);
        let topic =
            offset_delete_request::OffsetDeleteRequestTopic::default().with_partitions(vec![partition]);
        OffsetDeleteRequest::default().with_topics(vec![topic])
    });
}

#[test]
fn every_served_api_has_a_schema() {
    for served in SERVED {
        assert!(schemas::of(served.api).is_some(), "{:?}", served.api);
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    // The five bytes for which the library alone makes room for 54 million topics.
    let known_trap = [0x03, 0x3c, 0x0c, 0x00, 0xb6];
    assert!(matches!(
        check(ApiKey::Metadata, 0, &known_trap),
        Err(BoundsError::TooMany { count: 54_266_880, .. })
    ));
    assert_eq!(check(ApiKey::Metadata, 0, &[0xff, 0xff, 0xff, 0xff]), Ok(()), "null is allowed");
    assert_eq!(
        check(ApiKey::Metadata, 0, &[0xff, 0xff, 0xff, 0xfe]),
        Err(BoundsError::Length { length: -2, at: 0 })
    );
    // A million empty names take three bytes each on the wire and a hundred decoded.
    let mut names = BytesMut::new();
    names.put_i32(1_000_000);
    names.put_bytes(0, 2_000_000);
    assert!(matches!(check(ApiKey::Metadata, 0, &names), Err(BoundsError::TooMany { count: 1_000_000, .. })));
}

/// OffsetFetch takes four bytes for a partition, and whoever answers may need the topic's name for each.
#[test]
fn a_request_names_no_more_than_can_be_worked_on() {
    let asked = |name: usize, partitions: i32, topics: usize| {
        let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
            .with_name(TopicName(StrBytes::from_string("t".repeat(name))))
            .with_partition_indexes((0..partitions).collect());
        let request = OffsetFetchRequest::default().with_topics(Some(vec![topic; topics]));
        let mut body = BytesMut::new();
        request.encode(&mut body, 7).unwrap();
        check(ApiKey::OffsetFetch, 7, &body)
    };
    assert_eq!(asked(249, 100_000, 1), Ok(()), "as many as a large cluster has");
    assert_eq!(asked(30_000, 30, 1), Ok(()), "a name that no topic has is for the handler to refuse");
    assert!(matches!(asked(30_000, 12_500, 1), Err(BoundsError::LongName { length: 30_000, .. })));
    assert!(matches!(asked(30_000, 30, 100), Err(BoundsError::LongName { .. })), "all topics together");
    assert!(matches!(asked(32_768, 1, 1), Err(BoundsError::Length { length: 32_768, .. })));
    assert!(matches!(asked(4, 100_000, 3), Err(BoundsError::TooManyInAll { .. })));
}

#[test]
fn tags_are_bounded_and_sized_by_their_type() {
    // Heartbeat 4: group, generation, member, instance; then tags.
    let with_tags = |tags: &[u8]| [&[1, 0, 0, 0, 0, 1, 0], tags].concat();
    let heartbeat = |tags: &[u8]| check(ApiKey::Heartbeat, 4, &with_tags(tags));
    assert_eq!(heartbeat(&[2, 5, 1, 0xaa, 9, 0]), Ok(()));
    assert!(matches!(heartbeat(&[33]), Err(BoundsError::TooManyTags { count: 33, .. })));
    assert!(matches!(heartbeat(&[2, 5, 0, 5, 0]), Err(BoundsError::Tag { tag: 5, .. })));
    assert!(matches!(heartbeat(&[1, 5, 9, 0]), Err(BoundsError::CutOff { .. })));
    assert!(matches!(heartbeat(&[0xff, 0xff, 0xff, 0xff, 0xff]), Err(BoundsError::Length { .. })));
    // A fetch whose tag 0, the cluster id, says that it is longer than its string.
    let fetch = FetchRequest::default().with_cluster_id(Some(StrBytes::from_static_str("c")));
    let mut body = BytesMut::new();
    fetch.encode(&mut body, 12).unwrap();
    let size = body.len() - 3;
    assert_eq!(body[size], 2);
    body[size] = 3;
    body.put_u8(0);
    assert!(matches!(check(ApiKey::Fetch, 12, &body), Err(BoundsError::Tag { tag: 0, .. })));
}
