//! Members against a scripted coordinator: what they ask, in which order, and what they make of refusals.

use std::sync::Mutex;

use bytes::{Bytes, BytesMut};
use firn_protocol::library::messages::fetch_response::{FetchableTopicResponse, PartitionData};
use firn_protocol::library::messages::find_coordinator_response::Coordinator as Found;
use firn_protocol::library::messages::join_group_response::JoinGroupResponseMember;
use firn_protocol::library::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use firn_protocol::library::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use firn_protocol::library::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use firn_protocol::library::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartitions, OffsetFetchResponseTopics,
};
use firn_protocol::library::messages::{
    ApiKey, BrokerId, FetchRequest, FetchResponse, FindCoordinatorResponse, HeartbeatRequest,
    HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest, ListOffsetsRequest,
    ListOffsetsResponse, MetadataResponse, OffsetCommitRequest, OffsetFetchResponse, SyncGroupRequest,
    SyncGroupResponse, TopicName,
};
use firn_records::builder::{BatchBuilder, BatchOptions};
use uuid::Uuid;

use super::*;
use crate::connection::ConnectionOptions;
use crate::scripted::{Call, listen};

const APIS: &[ApiKey] = &[
    ApiKey::Metadata,
    ApiKey::FindCoordinator,
    ApiKey::JoinGroup,
    ApiKey::SyncGroup,
    ApiKey::Heartbeat,
    ApiKey::LeaveGroup,
    ApiKey::OffsetFetch,
    ApiKey::OffsetCommit,
    ApiKey::ListOffsets,
    ApiKey::Fetch,
];
const TOPIC_ID: Uuid = Uuid::from_u128(7);
const WAIT: Duration = Duration::from_millis(5);

/// A cluster of one broker, with topic `t` of two partitions that hold offsets 0 to 4, of which the group has committed
/// the first three of partition 0. Refusals are given once each, in their order; what is asked is written down.
#[derive(Debug, Default)]
struct Coordinating {
    address: String,
    joins: VecDeque<ResponseError>,
    heartbeats: VecDeque<ResponseError>,
    syncs: VecDeque<ResponseError>,
    generation: i32,
    assignment: Bytes,
    seen: Arc<Mutex<Vec<String>>>,
}

fn code(refusals: &mut VecDeque<ResponseError>) -> i16 {
    refusals.pop_front().map_or(0, |error| error.code())
}

impl Coordinating {
    fn saw(&self, what: String) {
        self.seen.lock().unwrap().push(what);
    }

    fn answer(&mut self, call: &Call) -> Option<BytesMut> {
        match call.api {
            ApiKey::Metadata => call.reply(&self.metadata()),
            ApiKey::FindCoordinator => {
                self.saw("find".to_owned());
                let (host, port) = self.address.rsplit_once(':').unwrap();
                let found = Found::default().with_host(text(host)).with_port(port.parse().unwrap());
                call.reply(&FindCoordinatorResponse::default().with_coordinators(vec![found]))
            }
            ApiKey::JoinGroup => call.reply(&self.join(&call.request())),
            ApiKey::SyncGroup => {
                let request: SyncGroupRequest = call.request();
                self.saw(format!("sync {}", request.generation_id));
                let given = request.assignments.into_iter().next().map(|given| given.assignment);
                self.assignment = given.unwrap_or_default();
                let reply = SyncGroupResponse::default().with_assignment(self.assignment.clone());
                call.reply(&reply.with_error_code(code(&mut self.syncs)))
            }
            ApiKey::Heartbeat => {
                let request: HeartbeatRequest = call.request();
                let refused = code(&mut self.heartbeats);
                if refused != 0 {
                    self.saw(format!("beat {} refused {refused}", request.generation_id));
                }
                call.reply(&HeartbeatResponse::default().with_error_code(refused))
            }
            ApiKey::LeaveGroup => {
                let request: LeaveGroupRequest = call.request();
                self.saw(format!("leave {}", request.members[0].member_id));
                call.reply(&LeaveGroupResponse::default())
            }
            ApiKey::OffsetCommit => call.reply(&self.commit(&call.request())),
            ApiKey::OffsetFetch => {
                self.saw("offsets".to_owned());
                call.reply(&committed())
            }
            ApiKey::ListOffsets => call.reply(&listed(&call.request())),
            ApiKey::Fetch => call.reply(&fetched(&call.request())),
            _ => None,
        }
    }

    fn metadata(&self) -> MetadataResponse {
        let (host, port) = self.address.rsplit_once(':').unwrap();
        let broker = MetadataResponseBroker::default().with_host(text(host)).with_port(port.parse().unwrap());
        let partition = |index| {
            MetadataResponsePartition::default().with_partition_index(index).with_leader_id(BrokerId(0))
        };
        let topic = MetadataResponseTopic::default()
            .with_name(Some(TopicName(text("t"))))
            .with_topic_id(TOPIC_ID)
            .with_partitions(vec![partition(0), partition(1)]);
        MetadataResponse::default().with_brokers(vec![broker]).with_topics(vec![topic])
    }

    fn join(&mut self, request: &JoinGroupRequest) -> JoinGroupResponse {
        self.saw(format!("join as {:?}", request.member_id.as_str()));
        if let Some(refusal) = self.joins.pop_front() {
            let given = if refusal == ResponseError::MemberIdRequired { "m" } else { "" };
            return JoinGroupResponse::default().with_error_code(refusal.code()).with_member_id(text(given));
        }
        self.generation += 1;
        let id = if request.member_id.is_empty() { text("anew") } else { request.member_id.clone() };
        let metadata = request.protocols[0].metadata.clone();
        let member = JoinGroupResponseMember::default().with_member_id(id.clone()).with_metadata(metadata);
        JoinGroupResponse::default()
            .with_generation_id(self.generation)
            .with_protocol_type(Some(text("consumer")))
            .with_protocol_name(Some(text("range")))
            .with_leader(id.clone())
            .with_member_id(id)
            .with_members(vec![member])
    }

    fn commit(&self, request: &OffsetCommitRequest) -> OffsetCommitResponse {
        let partitions = request.topics.iter().flat_map(|topic| &topic.partitions);
        let told: Vec<String> = partitions
            .map(|partition| format!("{}={}", partition.partition_index, partition.committed_offset))
            .collect();
        self.saw(format!("commit {} in {}", told.join(" "), request.generation_id_or_member_epoch));
        let done = OffsetCommitResponseTopic::default()
            .with_partitions(vec![OffsetCommitResponsePartition::default()]);
        OffsetCommitResponse::default().with_topics(vec![done])
    }
}

fn committed() -> OffsetFetchResponse {
    let partition = OffsetFetchResponsePartitions::default().with_committed_offset(3);
    let topic =
        OffsetFetchResponseTopics::default().with_name(TopicName(text("t"))).with_partitions(vec![partition]);
    let group = OffsetFetchResponseGroup::default().with_topics(vec![topic]);
    OffsetFetchResponse::default().with_groups(vec![group])
}

/// The earliest offset is 0 and the latest 5.
fn listed(request: &ListOffsetsRequest) -> ListOffsetsResponse {
    let partitions = request.topics[0].partitions.iter().map(|wanted| {
        let offset = if wanted.timestamp == -2 { 0 } else { 5 };
        ListOffsetsPartitionResponse::default()
            .with_partition_index(wanted.partition_index)
            .with_offset(offset)
    });
    let topic = ListOffsetsTopicResponse::default()
        .with_name(TopicName(text("t")))
        .with_partitions(partitions.collect());
    ListOffsetsResponse::default().with_topics(vec![topic])
}

fn fetched(request: &FetchRequest) -> FetchResponse {
    let partitions = request.topics[0].partitions.iter().map(|wanted| {
        let mut batch = BatchBuilder::at_offset(BatchOptions::default(), wanted.fetch_offset);
        for offset in wanted.fetch_offset..5 {
            batch.push(1, None, Some(offset.to_string().as_bytes()), &[]);
        }
        let records = (wanted.fetch_offset < 5).then(|| batch.build().unwrap());
        PartitionData::default().with_partition_index(wanted.partition).with_records(records)
    });
    let topic =
        FetchableTopicResponse::default().with_topic_id(TOPIC_ID).with_partitions(partitions.collect());
    FetchResponse::default().with_responses(vec![topic])
}

async fn member(script: Coordinating, instance: Option<&str>) -> (Member, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::clone(&script.seen);
    let address = listen(APIS, |address| {
        let mut script = Coordinating { address: address.to_owned(), ..script };
        Box::new(move |call| script.answer(call))
    });
    let cluster = Arc::new(Cluster::new(vec![address.await], ConnectionOptions::default()));
    let options = MemberOptions {
        heartbeat_interval: Duration::from_millis(5),
        instance: instance.map(str::to_owned),
        ..MemberOptions::new("g".to_owned(), Start::Earliest)
    };
    (Member::new(cluster, "t", options), seen)
}

/// Polls until `count` records have come, and gives them as `partition:offset`, sorted.
async fn take(member: &mut Member, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let records = member.poll(WAIT, count - taken.len()).await.unwrap();
        taken.extend(records.iter().map(|record| format!("{}:{}", record.partition, record.offset)));
    }
    taken.sort();
    taken
}

fn told(seen: &Mutex<Vec<String>>) -> Vec<String> {
    seen.lock().unwrap().clone()
}

/// Polls until the peer has seen `wanted`.
async fn poll_until(member: &mut Member, seen: &Mutex<Vec<String>>, wanted: &str) {
    let patience = tokio::time::timeout(Duration::from_secs(30), async {
        while !told(seen).iter().any(|seen| seen == wanted) {
            member.poll(WAIT, 1).await.unwrap();
        }
    });
    assert!(patience.await.is_ok(), "no {wanted}: {:?}", told(seen));
}

#[tokio::test]
async fn joins_resumes_commits_what_it_handed_out_and_leaves() {
    let joins = VecDeque::from([ResponseError::MemberIdRequired]);
    let (mut member, seen) = member(Coordinating { joins, ..Coordinating::default() }, None).await;
    assert_eq!(take(&mut member, 2).await, ["0:3", "0:4"]);
    assert_eq!(member.assigned(), [0, 1]);
    assert_eq!(take(&mut member, 1).await, ["1:0"]);
    member.done();
    member.leave().await.unwrap();
    let expected = [
        "find",
        "join as \"\"",
        "join as \"m\"",
        "sync 1",
        "find",
        "offsets",
        "commit 0=5 1=1 in 1",
        "find",
        "leave m",
    ];
    assert_eq!(told(&seen), expected);
}

#[tokio::test]
async fn what_the_caller_has_not_done_with_is_not_committed() {
    let (mut member, seen) = member(Coordinating::default(), None).await;
    take(&mut member, 1).await;
    // The first record was done with when the second was asked for; a reader that is interrupted has not done with that.
    take(&mut member, 1).await;
    member.leave().await.unwrap();
    let seen = told(&seen);
    assert!(seen.iter().any(|seen| seen == "commit 0=4 1=0 in 1"), "{seen:?}");
}

#[tokio::test]
async fn a_rebalance_commits_and_joins_again_as_the_same_member() {
    let heartbeats = VecDeque::from([ResponseError::RebalanceInProgress]);
    let (mut member, seen) = member(Coordinating { heartbeats, ..Coordinating::default() }, None).await;
    assert_eq!(take(&mut member, 1).await, ["0:3"]);
    poll_until(&mut member, &seen, "sync 2").await;
    let seen = told(&seen);
    let place = |what: &str| seen.iter().position(|seen| seen.starts_with(what)).unwrap();
    assert!(place("beat 1 refused") < place("commit"), "{seen:?}");
    assert!(place("commit") < place("join as \"anew\""), "{seen:?}");
}

#[tokio::test]
async fn a_member_that_is_not_known_any_more_joins_as_a_new_one_and_commits_nothing() {
    let heartbeats = VecDeque::from([ResponseError::UnknownMemberId]);
    let (mut member, seen) = member(Coordinating { heartbeats, ..Coordinating::default() }, None).await;
    assert_eq!(take(&mut member, 1).await, ["0:3"]);
    poll_until(&mut member, &seen, "sync 2").await;
    let seen = told(&seen);
    assert_eq!(seen.iter().filter(|seen| *seen == "join as \"\"").count(), 2, "{seen:?}");
    assert!(!seen.iter().any(|seen| seen.starts_with("commit")), "{seen:?}");
}

#[tokio::test]
async fn a_rebalance_while_synchronizing_is_joined_again() {
    let syncs = VecDeque::from([ResponseError::RebalanceInProgress, ResponseError::IllegalGeneration]);
    let (mut member, seen) = member(Coordinating { syncs, ..Coordinating::default() }, None).await;
    assert_eq!(take(&mut member, 1).await, ["0:3"]);
    let joined: Vec<String> = told(&seen).into_iter().filter(|seen| seen.starts_with("join")).collect();
    assert_eq!(joined, ["join as \"\"", "join as \"anew\"", "join as \"anew\""]);
}

#[tokio::test]
async fn a_coordinator_that_moves_is_found_again_and_the_generation_goes_on() {
    let heartbeats = VecDeque::from([ResponseError::NotCoordinator]);
    let (mut member, seen) = member(Coordinating { heartbeats, ..Coordinating::default() }, None).await;
    take(&mut member, 1).await;
    let found_again = |seen: &[String]| {
        let mut since = seen.iter().skip_while(|what| *what != "beat 1 refused 16");
        since.any(|what| what == "find")
    };
    let found = tokio::time::timeout(Duration::from_secs(30), async {
        while !found_again(&told(&seen)) {
            member.poll(WAIT, 1).await.unwrap();
        }
    });
    assert!(found.await.is_ok(), "{:?}", told(&seen));
    assert!(!told(&seen).iter().any(|seen| seen == "sync 2"), "{:?}", told(&seen));
}

#[tokio::test]
async fn what_is_final_ends_the_member() {
    let joins = VecDeque::from([ResponseError::GroupMaxSizeReached]);
    let (mut refused, _) = member(Coordinating { joins, ..Coordinating::default() }, None).await;
    let error = refused.poll(WAIT, 1).await.unwrap_err().to_string();
    assert_eq!(error, "cannot join group g: GroupMaxSizeReached");

    let heartbeats = VecDeque::from([ResponseError::FencedInstanceId]);
    let (mut fenced, seen) =
        member(Coordinating { heartbeats, ..Coordinating::default() }, Some("one")).await;
    let error = loop {
        if let Err(error) = fenced.poll(WAIT, 1).await {
            break error;
        }
    };
    assert!(error.is(ResponseError::FencedInstanceId), "{error}");
    assert!(!told(&seen).iter().any(|seen| seen == "sync 2"));
}

#[tokio::test]
async fn a_static_member_stays_when_it_stops() {
    let (mut member, seen) = member(Coordinating::default(), Some("one")).await;
    take(&mut member, 1).await;
    member.leave().await.unwrap();
    let seen = told(&seen);
    assert!(seen.iter().any(|seen| seen.starts_with("commit")), "{seen:?}");
    assert!(!seen.iter().any(|seen| seen.starts_with("leave")), "{seen:?}");
}
