//! A follower's fetch: the records that it lacks, and what has changed of the offsets since it was told of them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use firn_model::ids::TopicId;
use firn_protocol::fetch_response::{self, FetchReply, FetchedPartition, FetchedTopic};
use firn_protocol::frame::RequestHeader;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::FetchRequest;
use firn_protocol::library::messages::fetch_request::FetchPartition;
use firn_replication::follower::EpochEnd;
use tokio::time::Instant;

use super::{Bounds, Found, chunks, part, refused, session_refused};
use crate::api::errors::Failure;
use crate::context::Context;
use crate::milliseconds::milliseconds;
use crate::net::Chunk;
use crate::partition::{Partition, PartitionKey, ReplicaFetch, ReplicaRead};
use crate::replication::sessions::{Followed, FollowedPartition, InUse, News, Queue};

/// What one partition gave: its part of the reply, and what goes behind it.
type Given = (FetchedPartition, Option<Found>);

pub(super) async fn fetch(
    context: &Context,
    fetch: FetchRequest,
    bounds: Bounds<'_>,
    header: &RequestHeader,
) -> Vec<Chunk> {
    let follower = fetch.replica_state.replica_id.0;
    let broker_epoch = fetch.replica_state.replica_epoch;
    if context.controller.image().broker(follower).is_none_or(|broker| broker.epoch != broker_epoch) {
        // Another process of that broker, or one of which this broker has not heard yet: what it has counts for nothing.
        return refused(ResponseError::StaleBrokerEpoch, header);
    }
    let session = (fetch.session_id, fetch.session_epoch);
    let random = || context.environment.random.bits();
    let mut session = match context.replica_sessions.request(follower, session, random) {
        Ok(session) => session,
        Err(error) => return session_refused(error, header),
    };
    let mut reading = Reading::default();
    let named = named(context, &mut session, &fetch, &mut reading);
    reading.answer(&mut session, named, bounds, milliseconds(fetch.max_wait_ms)).await;
    context.metrics.replication.bytes_out.inc_by(reading.bytes as u64);
    reply(session, reading.given, header)
}

/// Takes in what the request says of partitions; returns which they are.
fn named(
    context: &Context,
    session: &mut InUse,
    fetch: &FetchRequest,
    reading: &mut Reading,
) -> Vec<PartitionKey> {
    let followed = &mut *session.followed;
    for topic in &fetch.forgotten_topics_data {
        for index in &topic.partitions {
            followed.partitions.remove(&(TopicId(topic.topic_id), *index));
        }
    }
    let mut named = Vec::new();
    for topic in &fetch.topics {
        for asked in &topic.partitions {
            let key = (TopicId(topic.topic_id), asked.partition);
            match context.partitions.by_id(key.0, key.1) {
                Ok(partition) => {
                    followed.name(key, partition, asked, fetch, &session.news);
                    named.push(key);
                }
                Err(missing) => {
                    followed.partitions.remove(&key);
                    reading.fail(key, &missing.into());
                }
            }
        }
    }
    named
}

impl Followed {
    fn name(
        &mut self,
        key: PartitionKey,
        partition: Arc<Partition>,
        asked: &FetchPartition,
        fetch: &FetchRequest,
        news: &Arc<News>,
    ) {
        let bytes_max = usize::try_from(asked.partition_max_bytes).unwrap_or(0);
        let fetch = ReplicaFetch {
            replica: fetch.replica_state.replica_id.0,
            broker_epoch: fetch.replica_state.replica_epoch,
            leader_epoch: asked.current_leader_epoch,
            from: asked.fetch_offset,
            last_epoch: asked.last_fetched_epoch,
            log_start: asked.log_start_offset,
        };
        match self.partitions.get_mut(&key).filter(|known| Arc::ptr_eq(&known.partition, &partition)) {
            Some(known) => {
                known.fetch = fetch;
                known.bytes_max = bytes_max;
            }
            None => {
                let watch = partition.watch_as_follower(news);
                let new = FollowedPartition { partition, fetch, bytes_max, told: None, watch };
                self.partitions.insert(key, new);
            }
        }
    }
}

/// What has been read for one reply.
#[derive(Default)]
struct Reading {
    given: BTreeMap<PartitionKey, Given>,
    /// Of records.
    bytes: usize,
    /// There is an answer that does not wait for records.
    is_urgent: bool,
    /// There is more of these than the throttle allows for now, and until when (KIP-73).
    held_back: Queue,
    held_until: Option<Instant>,
}

impl Reading {
    /// Reads what there is until it is enough, or `wait` is over. Of what was named everything is looked at: its offsets tell what
    /// the follower has.
    async fn answer(
        &mut self,
        session: &mut InUse,
        named: Vec<PartitionKey>,
        bounds: Bounds<'_>,
        wait: Duration,
    ) {
        let deadline = Instant::now() + wait;
        let mut due: VecDeque<PartitionKey> = std::mem::take(&mut session.followed.left_over);
        due.extend(named);
        loop {
            let now = Instant::now();
            let is_over = now >= deadline;
            if self.held_until.take_if(|until| *until <= now).is_some() {
                due.extend(self.held_back.take());
            }
            let (news, answer_now) = session.news.take();
            due.extend(news);
            self.read(&mut session.followed, std::mem::take(&mut due), bounds.max_bytes).await;
            let is_enough = self.bytes >= bounds.min_bytes;
            let is_full = self.bytes > 0 && !session.followed.left_over.is_empty();
            if is_enough || is_full || self.is_urgent || answer_now || is_over {
                break;
            }
            // What is over is looked at in the next round.
            let wakes = self.held_until.map_or(deadline, |until| until.min(deadline));
            tokio::time::timeout_at(wakes, session.news.until_due()).await.ok();
        }
        session.followed.left_over.extend(self.held_back.take());
    }

    async fn read(&mut self, followed: &mut Followed, due: VecDeque<PartitionKey>, bytes_max: usize) {
        for key in due {
            // It will be named again, with what it has by then.
            let has_records = self.given.get(&key).is_some_and(|(part, _)| part.records_length > 0);
            let Some(one) = followed.partitions.get_mut(&key).filter(|_| !has_records) else { continue };
            let left = bytes_max.saturating_sub(self.bytes);
            // However large, the first batch comes whole: the follower could not go on without it.
            let read =
                match one.partition.read_for_replica(one.fetch, one.bytes_max.min(left), self.bytes == 0) {
                    Ok(read) => read,
                    Err(error) => {
                        self.fail(key, &error.into());
                        continue;
                    }
                };
            let is_held_back = matches!(read, ReplicaRead::HeldBack(..));
            let (code, offsets, found) = match read {
                ReplicaRead::Records(offsets, slice) => {
                    match one.partition.checked(slice, one.fetch.from).await {
                        Ok(slice) => (0, offsets, Some(Found::Local(slice))),
                        Err(error) => {
                            self.fail(key, &error.into());
                            continue;
                        }
                    }
                }
                ReplicaRead::Diverged(offsets, EpochEnd { epoch, end_offset }) => {
                    (0, offsets, Some(Found::Diverged { epoch, end_offset }))
                }
                ReplicaRead::OutOfRange(offsets) => (ResponseError::OffsetOutOfRange.code(), offsets, None),
                ReplicaRead::InTier(offsets) => {
                    (ResponseError::OffsetMovedToTieredStorage.code(), offsets, None)
                }
                ReplicaRead::HeldBack(offsets, until) => {
                    self.held_back.push(key);
                    self.held_until = Some(self.held_until.map_or(until, |known| known.min(until)));
                    (0, offsets, None)
                }
            };
            let mut part = part(key.1, code, Some(offsets), found.as_ref());
            if offsets.tiered_end > 0 {
                part.tiered = Some((offsets.tiered_end, offsets.cleaned));
            }
            let is_urgent = code != 0 || part.diverging_epoch.is_some();
            if !is_urgent && part.records_length == 0 {
                if one.fetch.from < offsets.log_end && !is_held_back {
                    followed.left_over.push_back(key);
                }
                if one.told == Some(offsets) {
                    continue;
                }
            }
            self.bytes += part.records_length;
            self.is_urgent |= is_urgent;
            one.told = Some(offsets);
            self.given.insert(key, (part, found));
        }
    }

    fn fail(&mut self, key: PartitionKey, failure: &Failure) {
        self.is_urgent = true;
        self.given.insert(key, (part(key.1, failure.code.code(), None, None), None));
    }
}

fn reply(session: InUse, given: BTreeMap<PartitionKey, Given>, header: &RequestHeader) -> Vec<Chunk> {
    let mut reply = FetchReply { session_id: session.id, ..FetchReply::default() };
    let mut found = Vec::with_capacity(given.len());
    for ((topic, _), (part, records)) in given {
        found.push(records);
        match reply.topics.last_mut().filter(|last| last.id == topic.0) {
            Some(last) => last.partitions.push(part),
            None => {
                reply.topics.push(FetchedTopic { name: String::new(), id: topic.0, partitions: vec![part] })
            }
        }
    }
    chunks(fetch_response::encode(&reply, header.api_version, header.correlation_id), found)
}
