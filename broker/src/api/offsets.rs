//! Where records are: ListOffsets, OffsetForLeaderEpoch, DeleteRecords.

use std::sync::Arc;
use std::time::Duration;

use firn_model::repeated::repeated;
use firn_protocol::frame::Request;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use firn_protocol::library::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use firn_protocol::library::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use firn_protocol::library::messages::{
    ApiKey, DeleteRecordsRequest, DeleteRecordsResponse, ListOffsetsRequest, ListOffsetsResponse,
    OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse,
};
use firn_protocol::response;
use tokio::time::Instant;

use crate::api::errors::Failure;
use crate::api::fetch::check_leader_epoch;
use crate::api::{Answer, ApiError, reply};
use crate::context::Context;
use crate::milliseconds::milliseconds;
use crate::net::Chunk;
use crate::partition::{Offsets, Partition, PartitionError};

/// The special timestamps of ListOffsets (KIP-79, KIP-405, KIP-734, KIP-1005, KIP-1023).
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;
const EARLIEST_PENDING_UPLOAD: i64 = -6;

/// An offset, with the timestamp and leader epoch of its record where they are known; -1 where not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Located {
    offset: i64,
    timestamp: i64,
    leader_epoch: i32,
}

const NOWHERE: Located = Located { offset: -1, timestamp: -1, leader_epoch: -1 };

pub async fn list_offsets(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let list: ListOffsetsRequest = request.decode(ApiKey::ListOffsets)?;
    let read_committed = list.isolation_level == 1;
    // Before version 5 clients know of no other error that passes.
    let not_available = match request.header.api_version {
        ..5 => ResponseError::LeaderNotAvailable,
        _ => ResponseError::OffsetNotAvailable,
    };
    let deadline = Instant::now() + patience(context, &list, request.header.api_version);
    let named = list.topics.iter().flat_map(|topic| {
        topic.partitions.iter().map(move |asked| (topic.name.clone(), asked.partition_index))
    });
    let twice = repeated(named);
    let mut topics = Vec::with_capacity(list.topics.len());
    for topic in list.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in topic.partitions {
            let found = match context.led(&topic.name, asked.partition_index) {
                _ if twice.contains(&(topic.name.clone(), asked.partition_index)) => Err(Failure::new(
                    ResponseError::InvalidRequest,
                    format!("{}-{} is in the request more than once", &*topic.name, asked.partition_index),
                )),
                Ok(partition) => match check_leader_epoch(&partition, asked.current_leader_epoch) {
                    Ok(()) if is_known(asked.timestamp, request.header.api_version) => {
                        let found =
                            locate(context, partition.clone(), asked.timestamp, read_committed, deadline)
                                .await;
                        found.and_then(|found| known(&partition, asked.timestamp, found, not_available))
                    }
                    Ok(()) => Err(Failure::new(
                        ResponseError::UnsupportedVersion,
                        format!("ListOffsets: timestamp {} stands for nothing here", asked.timestamp),
                    )),
                    Err(failure) => Err(failure),
                },
                Err(missing) => Err(missing.into()),
            };
            let response =
                ListOffsetsPartitionResponse::default().with_partition_index(asked.partition_index);
            partitions.push(match found {
                Ok(found) if request.header.api_version < 4 => {
                    response.with_offset(found.offset).with_timestamp(found.timestamp)
                }
                Ok(found) => response
                    .with_offset(found.offset)
                    .with_timestamp(found.timestamp)
                    .with_leader_epoch(found.leader_epoch),
                Err(failure) => response.with_error_code(failure.code.code()),
            });
        }
        topics.push(ListOffsetsTopicResponse::default().with_name(topic.name).with_partitions(partitions));
    }
    let body = ListOffsetsResponse::default().with_topics(topics);
    let bytes = response::encode_with_legacy(ApiKey::ListOffsets, &request.header, &body)?;
    Ok(Answer::Now(vec![Chunk::Bytes(bytes)]))
}

/// Whether a timestamp stands for something in a version: a client learns by the version what it may ask.
fn is_known(timestamp: i64, version: i16) -> bool {
    version
        >= match timestamp {
            MAX_TIMESTAMP => 7,
            EARLIEST_LOCAL => 8,
            LATEST_TIERED => 9,
            EARLIEST_PENDING_UPLOAD => 11,
            LATEST | EARLIEST | 0.. => 0,
            _ => return false,
        }
}

/// How long a look-up may wait for the store: what the client says if it can (KIP-1075), else what the config says.
fn patience(context: &Context, list: &ListOffsetsRequest, version: i16) -> Duration {
    let asked = if version >= 10 { i64::from(list.timeout_ms) } else { 0 };
    let ms = if asked > 0 { asked } else { context.config().tier.list_offsets_timeout_ms };
    milliseconds(ms)
}

/// Refuses what a new leader does not know yet: up to where what it found is committed. Where the log ends may lie below what
/// an earlier leader has told, and must not seem to go back (KIP-207), and a record that is not found may be there.
fn known(
    partition: &Partition,
    timestamp: i64,
    found: Located,
    not_available: ResponseError,
) -> Result<Located, Failure> {
    let depends_on_end = matches!(timestamp, LATEST | MAX_TIMESTAMP) || (timestamp >= 0 && found == NOWHERE);
    if !depends_on_end || partition.knows_what_is_committed() {
        return Ok(found);
    }
    let reason = format!("{}: a new leader has not heard of its followers yet", partition.name);
    Err(Failure::new(not_available, reason))
}

/// Looking a timestamp up reads index and log, so it runs where reads may block.
async fn locate(
    context: &Context,
    partition: Arc<Partition>,
    timestamp: i64,
    read_committed: bool,
    deadline: Instant,
) -> Result<Located, Failure> {
    let offsets = partition.offsets()?;
    let end = if read_committed { offsets.last_stable } else { offsets.high_watermark };
    match timestamp {
        LATEST => at(&partition, end),
        EARLIEST => at(&partition, offsets.log_start),
        EARLIEST_LOCAL => at(&partition, offsets.local_start),
        LATEST_TIERED | EARLIEST_PENDING_UPLOAD => tiered(&partition, offsets, timestamp),
        MAX_TIMESTAMP => {
            let cold = cold_by_time(context, &partition, offsets, None, deadline).await?;
            let local = firn_blocking::run(move || by_time(&partition, None, end)).await?;
            // Of two records with the greatest timestamp the first is meant.
            Ok(if cold.timestamp >= local.timestamp { cold } else { local })
        }
        _ => {
            let cold = cold_by_time(context, &partition, offsets, Some(timestamp), deadline).await?;
            if cold != NOWHERE {
                return Ok(cold);
            }
            firn_blocking::run(move || by_time(&partition, Some(timestamp), end)).await
        }
    }
}

fn at(partition: &Partition, offset: i64) -> Result<Located, Failure> {
    let epoch = partition.with_log(|log| log.epoch_for_offset(offset))?;
    Ok(Located { offset, timestamp: -1, leader_epoch: epoch.unwrap_or_else(|| partition.leader_epoch()) })
}

/// The last offset that the tier has, or the first that it does not have yet.
fn tiered(partition: &Partition, offsets: Offsets, timestamp: i64) -> Result<Located, Failure> {
    // What has left the disk is in the store, even before this process has uploaded anything.
    let has_cold = offsets.log_start < offsets.local_start;
    let left = if has_cold { offsets.local_start } else { 0 };
    let end = partition.with_log(|log| log.tiered_end_offset())?.max(left);
    match timestamp {
        LATEST_TIERED if end == 0 => Ok(NOWHERE),
        LATEST_TIERED => at(partition, end - 1),
        _ if !partition.config().remote_storage_enable => Ok(NOWHERE),
        _ => at(partition, end.max(offsets.local_start)),
    }
}

/// The same among the records that are no longer on the disk.
async fn cold_by_time(
    context: &Context,
    partition: &Arc<Partition>,
    offsets: Offsets,
    timestamp: Option<i64>,
    deadline: Instant,
) -> Result<Located, Failure> {
    if offsets.log_start >= offsets.local_start {
        return Ok(NOWHERE);
    }
    let start = offsets.log_start;
    let found = match timestamp {
        Some(timestamp) => context.cold.offset_for_timestamp(partition, timestamp, start, deadline).await?,
        None => context.cold.max_timestamp(partition, start, deadline).await?,
    };
    match found.filter(|(offset, _)| (offsets.log_start..offsets.local_start).contains(offset)) {
        None => Ok(NOWHERE),
        Some((offset, timestamp)) => Ok(Located { timestamp, ..at(partition, offset)? }),
    }
}

/// The first record at or after `timestamp`, or the one with the greatest; below `end` in either case.
fn by_time(partition: &Partition, timestamp: Option<i64>, end: i64) -> Result<Located, Failure> {
    let found = partition.with_log(|log| match timestamp {
        Some(timestamp) => log.offset_for_timestamp(timestamp),
        None => log.max_timestamp(),
    })?;
    // A record that is not committed yet has not happened for a client.
    Ok(match found.map_err(PartitionError::from)?.filter(|found| found.offset < end) {
        None => NOWHERE,
        Some(found) => {
            Located { offset: found.offset, timestamp: found.timestamp, leader_epoch: found.leader_epoch }
        }
    })
}

pub async fn offset_for_leader_epoch(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let asked: OffsetForLeaderEpochRequest = request.decode(ApiKey::OffsetForLeaderEpoch)?;
    let topics = asked.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|asked| {
            let end = EpochEndOffset::default().with_partition(asked.partition);
            let found =
                context.led(&topic.topic, asked.partition).map_err(Failure::from).and_then(|partition| {
                    check_leader_epoch(&partition, asked.current_leader_epoch)?;
                    Ok(partition.with_log(|log| log.epoch_end_offset(asked.leader_epoch))?)
                });
            match found {
                Ok(Some((epoch, offset))) => end.with_leader_epoch(epoch).with_end_offset(offset),
                Ok(None) => end,
                Err(failure) => end.with_error_code(failure.code.code()),
            }
        });
        OffsetForLeaderTopicResult::default()
            .with_partitions(partitions.collect())
            .with_topic(topic.topic.clone())
    });
    let body = OffsetForLeaderEpochResponse::default().with_topics(topics.collect());
    reply(ApiKey::OffsetForLeaderEpoch, &request.header, &body)
}

pub async fn delete_records(context: &Arc<Context>, request: Request) -> Result<Answer, ApiError> {
    let delete: DeleteRecordsRequest = request.decode(ApiKey::DeleteRecords)?;
    let deadline = Instant::now() + milliseconds(delete.timeout_ms);
    let mut topics = Vec::with_capacity(delete.topics.len());
    for topic in delete.topics {
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for asked in &topic.partitions {
            let deleted = match context.led(&topic.name, asked.partition_index) {
                Ok(partition) => delete_before(partition, asked.offset, deadline).await,
                Err(missing) => Err(missing.into()),
            };
            let result = DeleteRecordsPartitionResult::default().with_partition_index(asked.partition_index);
            partitions.push(match deleted {
                Ok(low_watermark) => result.with_low_watermark(low_watermark),
                Err(failure) => result.with_low_watermark(-1).with_error_code(failure.code.code()),
            });
        }
        topics.push(DeleteRecordsTopicResult::default().with_name(topic.name).with_partitions(partitions));
    }
    reply(ApiKey::DeleteRecords, &request.header, &DeleteRecordsResponse::default().with_topics(topics))
}

/// Raises the log start to `offset` (-1: the high watermark), waits until every replica in sync has done so, and returns it
/// (KIP-107).
async fn delete_before(partition: Arc<Partition>, offset: i64, deadline: Instant) -> Result<i64, Failure> {
    let config = partition.config();
    if config.cleanup_policy.compact && !config.cleanup_policy.delete {
        let message =
            format!("{}: records of a topic that is only compacted cannot be deleted", partition.name);
        return Err(Failure::new(ResponseError::PolicyViolation, message));
    }
    let high_watermark = partition.offsets()?.high_watermark;
    let offset = if offset == -1 { high_watermark } else { offset };
    if !(0..=high_watermark).contains(&offset) {
        let message = format!("{}: offset {offset} is not within 0..={high_watermark}", partition.name);
        return Err(Failure::new(ResponseError::OffsetOutOfRange, message));
    }
    let deleted = firn_blocking::run({
        let partition = partition.clone();
        move || partition.delete_before(offset)
    })
    .await?;
    if let Some(everywhere) = deleted {
        let failed = |code, why: &str| Failure::new(code, format!("{}: {why}", partition.name));
        match tokio::time::timeout_at(deadline, everywhere).await {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => return Err(failed(ResponseError::NotLeaderOrFollower, "another broker leads it now")),
            Err(_) => {
                let why = "not every replica in sync has deleted the records within the request's timeout";
                return Err(failed(ResponseError::RequestTimedOut, why));
            }
        }
    }
    Ok(partition.offsets()?.log_start)
}
