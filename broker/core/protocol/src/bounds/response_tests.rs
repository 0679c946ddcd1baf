//! The walk of responses against the library: it must end where the library's encoding ends, and refuse what lies.

use bytes::{BufMut, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::*;

/// Walks a response as encoded by the library at every version that it knows; cut off or longer, it must fail.
fn agrees<T: Encodable>(api: ApiKey, response: impl Fn(i16) -> T) {
    let versions = api.valid_versions();
    for version in versions.min..=versions.max {
        let mut body = BytesMut::new();
        response(version)
            .encode(&mut body, version)
            .unwrap_or_else(|error| panic!("{api:?} {version}: {error}"));
        assert_eq!(check_response(api, version, &body), Ok(()), "{api:?} version {version}");
        for cut in 0..body.len() {
            let cut_off = check_response(api, version, &body[..cut]);
            assert!(cut_off.is_err(), "{api:?} version {version} cut at {cut}");
        }
        body.put_u8(0);
        let longer = check_response(api, version, &body);
        assert_eq!(longer, Err(BoundsError::Trailing { left: 1 }), "{api:?} version {version}");
    }
}

#[test]
fn walk_and_library_agree_on_responses_about_records() {
    agrees(ApiKey::Produce, |version| {
        ProduceResponse::default().with_responses(vec![
            produce_response::TopicProduceResponse::default().with_partition_responses(vec![{
                let mut made = produce_response::PartitionProduceResponse::default();
                if version >= 8 {
                    made =
                        made.with_record_errors(vec![produce_response::BatchIndexAndErrorMessage::default()]);
                }
                made
            }]),
        ])
    });
    agrees(ApiKey::Fetch, |_| {
        FetchResponse::default().with_responses(vec![
            fetch_response::FetchableTopicResponse::default().with_partitions(vec![
                fetch_response::PartitionData::default()
                    .with_aborted_transactions(Some(vec![fetch_response::AbortedTransaction::default()])),
            ]),
        ])
    });
    agrees(ApiKey::ListOffsets, |_| {
        ListOffsetsResponse::default().with_topics(vec![
            list_offsets_response::ListOffsetsTopicResponse::default()
                .with_partitions(vec![list_offsets_response::ListOffsetsPartitionResponse::default()]),
        ])
    });
    agrees(ApiKey::InitProducerId, |_| InitProducerIdResponse::default());
    agrees(ApiKey::DeleteRecords, |_| {
        DeleteRecordsResponse::default().with_topics(vec![
            delete_records_response::DeleteRecordsTopicResult::default()
                .with_partitions(vec![delete_records_response::DeleteRecordsPartitionResult::default()]),
        ])
    });
}

#[test]
fn walk_and_library_agree_on_responses_about_groups() {
    agrees(ApiKey::FindCoordinator, |version| {
        let mut made = FindCoordinatorResponse::default();
        if version >= 4 {
            made = made.with_coordinators(vec![find_coordinator_response::Coordinator::default()]);
        }
        made
    });
    agrees(ApiKey::JoinGroup, |_| {
        JoinGroupResponse::default()
            .with_members(vec![join_group_response::JoinGroupResponseMember::default()])
    });
    agrees(ApiKey::SyncGroup, |_| SyncGroupResponse::default());
    agrees(ApiKey::Heartbeat, |_| HeartbeatResponse::default());
    agrees(ApiKey::LeaveGroup, |version| {
        let mut made = LeaveGroupResponse::default();
        if version >= 3 {
            made = made.with_members(vec![leave_group_response::MemberResponse::default()]);
        }
        made
    });
    agrees(ApiKey::OffsetCommit, |_| {
        OffsetCommitResponse::default().with_topics(vec![
            offset_commit_response::OffsetCommitResponseTopic::default()
                .with_partitions(vec![offset_commit_response::OffsetCommitResponsePartition::default()]),
        ])
    });
    agrees(ApiKey::OffsetFetch, |version| {
        let mut made = OffsetFetchResponse::default();
        if version <= 7 {
            made = made.with_topics(vec![{
                let mut made = offset_fetch_response::OffsetFetchResponseTopic::default();
                if version <= 7 {
                    made = made.with_partitions(vec![
                        offset_fetch_response::OffsetFetchResponsePartition::default(),
                    ]);
                }
                made
            }]);
        }
        if version >= 8 {
            made = made.with_groups(vec![{
                let mut made = offset_fetch_response::OffsetFetchResponseGroup::default();
                if version >= 8 {
                    made = made.with_topics(vec![{
                        let mut made = offset_fetch_response::OffsetFetchResponseTopics::default();
                        if version >= 8 {
                            made = made.with_partitions(vec![
                                offset_fetch_response::OffsetFetchResponsePartitions::default(),
                            ]);
                        }
                        made
                    }]);
                }
                made
            }]);
        }
        made
    });
    agrees(ApiKey::OffsetDelete, |_| {
        OffsetDeleteResponse::default().with_topics(vec![
            offset_delete_response::OffsetDeleteResponseTopic::default()
                .with_partitions(vec![offset_delete_response::OffsetDeleteResponsePartition::default()]),
        ])
    });
    agrees(ApiKey::ListGroups, |_| {
        ListGroupsResponse::default().with_groups(vec![list_groups_response::ListedGroup::default()])
    });
    agrees(ApiKey::DescribeGroups, |_| {
        DescribeGroupsResponse::default().with_groups(vec![
            describe_groups_response::DescribedGroup::default()
                .with_members(vec![describe_groups_response::DescribedGroupMember::default()]),
        ])
    });
    agrees(ApiKey::DeleteGroups, |_| {
        DeleteGroupsResponse::default()
            .with_results(vec![delete_groups_response::DeletableGroupResult::default()])
    });
}

#[test]
fn walk_and_library_agree_on_responses_about_topics() {
    agrees(ApiKey::CreateTopics, |version| {
        CreateTopicsResponse::default().with_topics(vec![{
            let mut made = create_topics_response::CreatableTopicResult::default();
            if version >= 5 {
                made =
                    made.with_configs(Some(vec![create_topics_response::CreatableTopicConfigs::default()]));
            }
            made
        }])
    });
    agrees(ApiKey::DeleteTopics, |_| {
        DeleteTopicsResponse::default()
            .with_responses(vec![delete_topics_response::DeletableTopicResult::default()])
    });
    agrees(ApiKey::CreatePartitions, |_| {
        CreatePartitionsResponse::default()
            .with_results(vec![create_partitions_response::CreatePartitionsTopicResult::default()])
    });
    agrees(ApiKey::DescribeConfigs, |_| {
        DescribeConfigsResponse::default().with_results(vec![
            describe_configs_response::DescribeConfigsResult::default().with_configs(vec![
                describe_configs_response::DescribeConfigsResourceResult::default()
                    .with_synonyms(vec![describe_configs_response::DescribeConfigsSynonym::default()]),
            ]),
        ])
    });
    agrees(ApiKey::IncrementalAlterConfigs, |_| {
        IncrementalAlterConfigsResponse::default()
            .with_responses(vec![incremental_alter_configs_response::AlterConfigsResourceResponse::default()])
    });
}

#[test]
fn walk_and_library_agree_on_responses_about_the_cluster() {
    agrees(ApiKey::ApiVersions, |_| {
        ApiVersionsResponse::default().with_api_keys(vec![api_versions_response::ApiVersion::default()])
    });
    agrees(ApiKey::Metadata, |version| {
        MetadataResponse::default()
            .with_brokers(vec![metadata_response::MetadataResponseBroker::default()])
            .with_topics(vec![metadata_response::MetadataResponseTopic::default().with_partitions(vec![{
                let mut made = metadata_response::MetadataResponsePartition::default()
                    .with_replica_nodes(vec![Default::default(); 2])
                    .with_isr_nodes(vec![Default::default(); 2]);
                if version >= 5 {
                    made = made.with_offline_replicas(vec![Default::default(); 2]);
                }
                made
            }])])
    });
    agrees(ApiKey::DescribeQuorum, |version| {
        let states = vec![describe_quorum_response::ReplicaState::default(); 2];
        let partition = describe_quorum_response::PartitionData::default()
            .with_current_voters(states.clone())
            .with_observers(states);
        let topic = describe_quorum_response::TopicData::default().with_partitions(vec![partition; 2]);
        let made = DescribeQuorumResponse::default().with_topics(vec![topic]);
        if version < 2 {
            return made;
        }
        let listener =
            describe_quorum_response::Listener::default().with_host(StrBytes::from_static_str("host"));
        let node = describe_quorum_response::Node::default().with_listeners(vec![listener; 2]);
        made.with_nodes(vec![node; 2]).with_error_message(Some(StrBytes::from_static_str("none")))
    });
    agrees(ApiKey::DescribeCluster, |_| {
        let broker = describe_cluster_response::DescribeClusterBroker::default()
            .with_rack(Some(StrBytes::from_static_str("a")));
        DescribeClusterResponse::default()
            .with_error_message(Some(StrBytes::from_static_str("none")))
            .with_brokers(vec![broker; 2])
    });
    agrees(ApiKey::DescribeLogDirs, |_| {
        DescribeLogDirsResponse::default().with_results(vec![
            describe_log_dirs_response::DescribeLogDirsResult::default().with_topics(vec![
                describe_log_dirs_response::DescribeLogDirsTopic::default()
                    .with_partitions(vec![describe_log_dirs_response::DescribeLogDirsPartition::default()]),
            ]),
        ])
    });
    agrees(ApiKey::DescribeTopicPartitions, |_| {
        DescribeTopicPartitionsResponse::default()
            .with_topics(vec![
                describe_topic_partitions_response::DescribeTopicPartitionsResponseTopic::default()
                    .with_partitions(vec![
                    describe_topic_partitions_response::DescribeTopicPartitionsResponsePartition::default()
                        .with_replica_nodes(vec![Default::default(); 2])
                        .with_isr_nodes(vec![Default::default(); 2])
                        .with_eligible_leader_replicas(Some(vec![Default::default(); 2]))
                        .with_last_known_elr(Some(vec![Default::default(); 2]))
                        .with_offline_replicas(vec![Default::default(); 2]),
                ]),
            ])
            .with_next_cursor(Some(describe_topic_partitions_response::Cursor::default()))
    });
}

#[test]
fn walk_and_library_agree_on_responses_of_the_controller() {
    agrees(ApiKey::AlterPartitionReassignments, |_| {
        let partition = alter_partition_reassignments_response::ReassignablePartitionResponse::default()
            .with_error_message(Some(StrBytes::from_static_str("none")));
        let topic = alter_partition_reassignments_response::ReassignableTopicResponse::default()
            .with_partitions(vec![partition; 2]);
        AlterPartitionReassignmentsResponse::default().with_responses(vec![topic; 2])
    });
    agrees(ApiKey::ListPartitionReassignments, |_| {
        let partition = list_partition_reassignments_response::OngoingPartitionReassignment::default()
            .with_replicas(vec![BrokerId(1); 3])
            .with_adding_replicas(vec![BrokerId(2); 2])
            .with_removing_replicas(vec![BrokerId(3); 1]);
        let topic = list_partition_reassignments_response::OngoingTopicReassignment::default()
            .with_partitions(vec![partition; 2]);
        ListPartitionReassignmentsResponse::default().with_topics(vec![topic; 2])
    });
    agrees(ApiKey::ElectLeaders, |_| {
        let partition = elect_leaders_response::PartitionResult::default()
            .with_error_message(Some(StrBytes::from_static_str("none")));
        let topic = elect_leaders_response::ReplicaElectionResult::default()
            .with_partition_result(vec![partition; 2]);
        ElectLeadersResponse::default().with_replica_election_results(vec![topic; 2])
    });
    agrees(ApiKey::UnregisterBroker, |_| {
        UnregisterBrokerResponse::default().with_error_message(Some(StrBytes::from_static_str("none")))
    });
    agrees(ApiKey::AddRaftVoter, |_| {
        AddRaftVoterResponse::default().with_error_message(Some(StrBytes::from_static_str("none")))
    });
    agrees(ApiKey::RemoveRaftVoter, |_| {
        RemoveRaftVoterResponse::default().with_error_message(Some(StrBytes::from_static_str("none")))
    });
    agrees(ApiKey::UpdateFeatures, |version| {
        let made =
            UpdateFeaturesResponse::default().with_error_message(Some(StrBytes::from_static_str("none")));
        let result = update_features_response::UpdatableFeatureResult::default();
        if version < 2 { made.with_results(vec![result; 2]) } else { made }
    });
}

#[test]
fn tags_of_responses_are_walked_by_their_type() {
    let partition = fetch_response::PartitionData::default()
        .with_current_leader(fetch_response::LeaderIdAndEpoch::default().with_leader_id(BrokerId(1)))
        .with_diverging_epoch(fetch_response::EpochEndOffset::default().with_epoch(2));
    let topic = fetch_response::FetchableTopicResponse::default().with_partitions(vec![partition]);
    let endpoint = fetch_response::NodeEndpoint::default().with_port(9092);
    let fetched =
        FetchResponse::default().with_responses(vec![topic]).with_node_endpoints(vec![endpoint.clone()]);
    let mut body = BytesMut::new();
    fetched.encode(&mut body, 16).unwrap();
    assert_eq!(check_response(ApiKey::Fetch, 16, &body), Ok(()));
    let endpoint = produce_response::NodeEndpoint::default().with_port(endpoint.port);
    let mut body = BytesMut::new();
    ProduceResponse::default().with_node_endpoints(vec![endpoint]).encode(&mut body, 12).unwrap();
    assert_eq!(check_response(ApiKey::Produce, 12, &body), Ok(()));
}

#[test]
fn a_lying_response_is_refused_and_a_large_one_is_not() {
    // Metadata 0 that claims 54 million brokers.
    let lie = check_response(ApiKey::Metadata, 0, &[0x03, 0x3c, 0x0c, 0x00, 0xb6]);
    assert!(matches!(lie, Err(BoundsError::TooMany { count: 54_266_880, .. })), "{lie:?}");
    // A fetch of very many partitions that have nothing new.
    let idle = vec![fetch_response::PartitionData::default(); 100_000];
    let topic = fetch_response::FetchableTopicResponse::default().with_partitions(idle);
    let mut body = BytesMut::new();
    FetchResponse::default().with_responses(vec![topic]).encode(&mut body, 16).unwrap();
    assert_eq!(check_response(ApiKey::Fetch, 16, &body), Ok(()));
}
