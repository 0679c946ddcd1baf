//! Produce (KIP-98, KIP-467, KIP-516): records in, offsets out.
//!
//! Records are appended while the request is handled; only the reply waits until they are committed, so the connection
//! may go on to its next produce request in the meantime.

use std::sync::Arc;

use bytes::Bytes;
use firn_model::ids::{TopicId, is_internal_topic};
use firn_model::topic_config::TimestampType;
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::produce_request::PartitionProduceData;
use firn_protocol::library::messages::produce_response::{
    BatchIndexAndErrorMessage, LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
};
use firn_protocol::library::messages::{ApiKey, BrokerId, ProduceRequest, ProduceResponse, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_protocol::response;
use firn_records::batch::BatchHeader;
use firn_records::legacy;
use firn_records::validate::{ProducePolicy, validate};
use firn_storage::producers::AppendOrigin;
use tokio::time::Instant;

use crate::api::errors::Failure;
use crate::api::leaders::{Leaders, Named, Place, until_known};
use crate::api::{Answer, ApiError};
use crate::connection::Peer;
use crate::context::Context;
use crate::milliseconds::milliseconds;
use crate::net::Chunk;
use crate::partition::{Acks, Awaited, Partition, PartitionAppend};

/// The version from which on a client that is wrong about a leader is told who it is (KIP-951).
const LEADERS_SINCE: i16 = 10;

/// What became of one partition's records: done with, or appended and not yet committed.
struct Outcome {
    response: PartitionProduceResponse,
    awaited: Option<Awaited>,
}

pub async fn handle(context: &Arc<Context>, peer: &Peer, request: Request) -> Result<Answer, ApiError> {
    let header = request.header.clone();
    let produce: ProduceRequest = request.decode(ApiKey::Produce)?;
    let acks = acks_of(produce.acks);
    let is_refused_here = |failure: &Failure| failure.code == ResponseError::NotLeaderOrFollower;
    let deadline = milliseconds(produce.timeout_ms);
    let mut topics = Vec::with_capacity(produce.topic_data.len());
    for topic in produce.topic_data {
        let mut outcomes = Vec::with_capacity(topic.partition_data.len());
        for data in topic.partition_data {
            let found = find(context, &topic.name, topic.topic_id, data.index, header.api_version);
            let appended = match acks.clone().and_then(|acks| Ok((found?, acks))) {
                Ok((partition, acks)) => {
                    partition.traffic.produce_requests.inc();
                    let append = || append(context, &partition, &data, acks, header.api_version);
                    let appended = partition.once_led(append, is_refused_here).await;
                    appended.inspect_err(|_| partition.traffic.failed_produce_requests.inc())
                }
                Err(failure) => Err(failure),
            };
            outcomes.push(appended.unwrap_or_else(|failure| refused(data.index, failure)));
        }
        // What was decoded are slices of the frame. The reply may wait for a disk, and the frame's memory must not.
        let name = TopicName(StrBytes::from_string(topic.name.to_string()));
        topics.push((name, topic.topic_id, outcomes));
    }
    if produce.acks == 0 {
        // The client awaits no reply: that records were refused is told by closing the connection, as Kafka does.
        let mut outcomes = topics.iter().flat_map(|(_, _, outcomes)| outcomes);
        let refused = outcomes.find(|outcome| outcome.response.error_code != 0);
        return match refused {
            Some(outcome) => Err(ApiError::RefusedWithoutReply(outcome.response.error_code)),
            None => Ok(Answer::None),
        };
    }
    let (context, peer) = (context.clone(), peer.clone());
    let reply = async move {
        let deadline = Instant::now() + deadline;
        let mut responses = Vec::with_capacity(topics.len());
        for (name, topic_id, outcomes) in topics {
            let mut partitions = Vec::with_capacity(outcomes.len());
            for outcome in outcomes {
                partitions.push(settle(outcome, deadline).await);
            }
            let topic = TopicProduceResponse::default().with_name(name).with_topic_id(topic_id);
            responses.push(topic.with_partition_responses(partitions));
        }
        let mut body = ProduceResponse::default().with_responses(responses);
        if header.api_version >= LEADERS_SINCE {
            name_leaders(&context, &peer, &mut body).await;
        }
        let bytes = response::encode_with_legacy(ApiKey::Produce, &header, &body)?;
        Ok(vec![Chunk::Bytes(bytes)])
    };
    Ok(Answer::Later(Box::pin(reply)))
}

/// Says who leads what this broker does not.
async fn name_leaders(context: &Context, peer: &Peer, body: &mut ProduceResponse) {
    let is_elsewhere =
        |part: &PartitionProduceResponse| part.error_code == ResponseError::NotLeaderOrFollower.code();
    let elsewhere = body.responses.iter().flat_map(|topic| {
        let parts = topic.partition_responses.iter().filter(|part| is_elsewhere(part));
        parts.map(|part| (topic.name.as_str(), topic.topic_id, part.index))
    });
    let elsewhere: Vec<Place<'_>> = elsewhere.collect();
    if elsewhere.is_empty() {
        return;
    }
    until_known(context, &elsewhere).await;
    let mut leaders = Leaders::new(context, peer);
    for topic in &mut body.responses {
        for part in topic.partition_responses.iter_mut().filter(|part| is_elsewhere(part)) {
            if let Some((id, epoch)) = leaders.of((&topic.name, topic.topic_id, part.index)) {
                part.current_leader =
                    LeaderIdAndEpoch::default().with_leader_id(BrokerId(id)).with_leader_epoch(epoch);
            }
        }
    }
    let endpoints = leaders.named().map(|Named { id, endpoint, rack }| {
        NodeEndpoint::default()
            .with_node_id(BrokerId(id))
            .with_host(StrBytes::from_string(endpoint.host.clone()))
            .with_port(i32::from(endpoint.port))
            .with_rack(rack.map(|rack| StrBytes::from_string(rack.to_owned())))
    });
    body.node_endpoints = endpoints.collect();
}

fn acks_of(acks: i16) -> Result<Acks, Failure> {
    match acks {
        0 => Ok(Acks::None),
        1 => Ok(Acks::Leader),
        -1 => Ok(Acks::All),
        _ => Err(Failure::new(
            ResponseError::InvalidRequiredAcks,
            format!("acks={acks} is not one of -1, 0 and 1"),
        )),
    }
}

/// The partition that records go to, if clients may write to it. Whether this broker leads it is asked when they are appended:
/// what is refused then is remembered.
fn find(
    context: &Context,
    name: &str,
    topic_id: uuid::Uuid,
    index: i32,
    version: i16,
) -> Result<Arc<Partition>, Failure> {
    let partition = match version >= 13 {
        true => context.placed_by_id(TopicId(topic_id), index)?,
        false => context.placed(name, index)?,
    };
    if is_internal_topic(&partition.name.topic) {
        return Err(Failure::new(
            ResponseError::InvalidTopicException,
            format!("{} belongs to the broker: clients may only read it", partition.name.topic),
        ));
    }
    Ok(partition)
}

fn append(
    context: &Context,
    partition: &Arc<Partition>,
    data: &PartitionProduceData,
    acks: Acks,
    version: i16,
) -> Result<Outcome, Failure> {
    let now_ms = context.now_ms();
    let decompressed_bytes_max =
        usize::try_from(context.config().network.batch_decompressed_max_bytes).unwrap_or(0);
    let policy = partition.produce_policy(version, decompressed_bytes_max);
    let bytes = upconverted(data.records.clone().unwrap_or_default(), version, &policy)?;
    let records = validate(bytes, &policy, now_ms)?;
    if records.headers.iter().any(BatchHeader::is_transactional) {
        let message = "transactions are not served yet, idempotent producers are";
        return Err(Failure::new(ResponseError::InvalidTxnState, message));
    }
    let PartitionAppend { appended, awaited } =
        partition.append(&records, AppendOrigin::Client, acks, now_ms)?;
    if !appended.duplicate {
        partition.traffic.messages_in.inc_by(records.record_count());
        partition.traffic.bytes_in.inc_by(records.bytes.len() as u64);
    }
    let stamped = policy.timestamp_type == TimestampType::LogAppendTime;
    let response = PartitionProduceResponse::default()
        .with_index(data.index)
        .with_base_offset(appended.base_offset)
        .with_log_append_time_ms(if stamped { appended.max_timestamp } else { -1 })
        .with_log_start_offset(appended.log_start_offset);
    Ok(Outcome { response, awaited })
}

/// Before version 3 records come in message formats 0 and 1, though some clients sent batches too.
fn upconverted(bytes: Bytes, version: i16, policy: &ProducePolicy) -> Result<Bytes, Failure> {
    if version >= 3 || !legacy::is_message_set(&bytes) {
        return Ok(bytes);
    }
    legacy::upconvert(&bytes, policy.decompressed_bytes_max).map_err(Failure::from)
}

fn refused(index: i32, failure: Failure) -> Outcome {
    let record_errors = failure.record_errors.into_iter().map(|(index, message)| {
        BatchIndexAndErrorMessage::default()
            .with_batch_index(index)
            .with_batch_index_error_message(Some(StrBytes::from_string(message)))
    });
    let response = PartitionProduceResponse::default()
        .with_index(index)
        .with_error_code(failure.code.code())
        .with_base_offset(-1)
        .with_log_append_time_ms(-1)
        .with_log_start_offset(-1)
        .with_record_errors(record_errors.collect())
        .with_error_message(Some(StrBytes::from_string(failure.message)));
    Outcome { response, awaited: None }
}

async fn settle(outcome: Outcome, deadline: Instant) -> PartitionProduceResponse {
    let Outcome { response, awaited: Some(awaited) } = outcome else { return outcome.response };
    let index = response.index;
    let failure = match tokio::time::timeout_at(deadline, awaited).await {
        Ok(Ok(Ok(()))) => return response,
        // The records are in the log and may yet become durable: the client has to ask again, and does.
        Err(_) => Failure::new(
            ResponseError::RequestTimedOut,
            "the records were not committed within the request's timeout",
        ),
        Ok(Ok(Err(failed))) => Failure::new(ResponseError::KafkaStorageError, failed.to_string()),
        Ok(Err(_)) => Failure::new(
            ResponseError::NotLeaderOrFollower,
            "another broker leads the partition now, or nobody does: the records may be lost",
        ),
    };
    refused(index, failure).response
}
