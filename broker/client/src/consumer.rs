//! Reads records of one topic from partitions that the caller names; which ones, a group may decide (`membership`).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use firn_protocol::library::messages::{BrokerId, FetchRequest, FetchResponse, ListOffsetsRequest};
use firn_records::batch::{BatchHeader, batches};
use firn_records::lookup::{LookupError, payload};
use firn_records::record::records;
use tokio::task::JoinSet;

use crate::cluster::{Cluster, Route};
use crate::error::{Error, check};

/// What ListOffsets calls the first and the next offset.
const EARLIEST: i64 = -2;
const LATEST: i64 = -1;
/// Bytes asked for in one fetch of a partition, and in one reply (Java's defaults).
const PARTITION_BYTES: i32 = 1024 * 1024;
const FETCH_BYTES: i32 = 50 * 1024 * 1024;
/// What one compressed batch may hold.
const BATCH_BYTES_MAX: usize = 256 * 1024 * 1024;
/// The session id and epoch of a fetch without a session (KIP-227).
const NO_SESSION: (i32, i32) = (0, -1);

/// Where reading begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    Earliest,
    Latest,
    Offset(i64),
    /// The first record at or after these milliseconds since 1970; the end where there is none.
    Timestamp(i64),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Incoming {
    pub partition: i32,
    pub offset: i64,
    /// Milliseconds since 1970; -1 where the record has none.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// Names as they are, which need not be UTF-8.
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

#[derive(Debug)]
pub struct Consumer {
    cluster: Arc<Cluster>,
    route: Route,
    /// The next offset of each partition.
    positions: BTreeMap<i32, i64>,
    /// Where to go on in a partition that has lost the records at its position, or never had them; none: fail.
    reset: Option<Start>,
}

/// What partitions gave, and those that no longer, or not yet, have what was asked for.
type Fetched = (Vec<PartitionData>, Vec<i32>);

impl Consumer {
    /// Finds where to begin in `partitions` of `topic`, or in all of them.
    pub async fn open(
        cluster: Arc<Cluster>,
        topic: &str,
        partitions: Option<&[i32]>,
        start: Start,
    ) -> Result<Self, Error> {
        let route = cluster.retry.run(async || cluster.route(topic, false).await).await?;
        let partitions = partitions.map_or_else(|| route.leaders.keys().copied().collect(), <[i32]>::to_vec);
        let positions = offsets(&cluster, topic, &partitions, start).await?;
        // Who named an offset is told that it is not there; for others Kafka's `auto.offset.reset` stands for the start.
        let reset = match start {
            Start::Earliest | Start::Latest => Some(start),
            Start::Offset(_) | Start::Timestamp(_) => None,
        };
        Ok(Self { cluster, route, positions, reset })
    }

    /// Reads on from `positions`, and from `reset` where those are out of range.
    pub(crate) fn at(
        cluster: Arc<Cluster>,
        route: Route,
        positions: BTreeMap<i32, i64>,
        reset: Start,
    ) -> Self {
        Self { cluster, route, positions, reset: Some(reset) }
    }

    /// The next offset of each partition.
    pub fn positions(&self) -> &BTreeMap<i32, i64> {
        &self.positions
    }

    /// Records from all leaders at once, in order within each partition. Comes back empty after `wait` without any.
    pub async fn poll(&mut self, wait: Duration) -> Result<Vec<Incoming>, Error> {
        let retry = self.cluster.retry;
        let (cluster, route, positions) = (Arc::clone(&self.cluster), &mut self.route, &self.positions);
        let mut stale = false;
        let fetched = retry.run(async || {
            if stale {
                *route = cluster.route(&route.name.clone(), false).await?;
            }
            stale = true;
            fetch(&cluster, route, positions, wait).await
        });
        let (fetched, lost) = fetched.await?;
        if !lost.is_empty() {
            let Some(reset) = self.reset else { return Err(out_of_range(&self.route.name, &lost)) };
            let places = offsets(&self.cluster, &self.route.name, &lost, reset).await?;
            self.positions.extend(places);
        }
        let mut found = Vec::new();
        for data in fetched {
            self.take(&data, &mut found)?;
        }
        Ok(found)
    }

    /// Reads what a partition gave. A last batch may be cut short: the next fetch brings it whole.
    fn take(&mut self, data: &PartitionData, found: &mut Vec<Incoming>) -> Result<(), Error> {
        let Some(position) = self.positions.get_mut(&data.partition_index) else { return Ok(()) };
        let bytes = data.records.clone().unwrap_or_default();
        for batch in batches(&bytes) {
            let (header, batch) = batch.map_err(|error| Error::Records(error.to_string()))?;
            if !header.is_control() {
                read(data.partition_index, *position, &header, batch, found)
                    .map_err(|error| Error::Records(error.to_string()))?;
            }
            *position = header.next_offset().max(*position);
        }
        Ok(())
    }
}

/// The records of a batch at or after `from`: a fetch gives whole batches, which may begin before what was asked for.
fn read(
    partition: i32,
    from: i64,
    header: &BatchHeader,
    batch: &[u8],
    found: &mut Vec<Incoming>,
) -> Result<(), LookupError> {
    let payload = payload(header, batch, BATCH_BYTES_MAX)?;
    for record in records(header.record_count, &payload) {
        let record = record?;
        let offset = header.base_offset.saturating_add(i64::from(record.offset_delta));
        if offset < from {
            continue;
        }
        let owned = |bytes: Option<&[u8]>| bytes.map(Bytes::copy_from_slice);
        let headers = record.headers.iter().map(|(name, value)| (Bytes::copy_from_slice(name), owned(value)));
        found.push(Incoming {
            partition,
            offset,
            timestamp: header.record_timestamp(record.timestamp_delta),
            key: owned(record.key),
            value: owned(record.value),
            headers: headers.collect(),
        });
    }
    Ok(())
}

/// The offset of `start` in each of `partitions`.
pub async fn offsets(
    cluster: &Cluster,
    topic: &str,
    partitions: &[i32],
    start: Start,
) -> Result<BTreeMap<i32, i64>, Error> {
    let timestamp = match start {
        Start::Offset(offset) => return Ok(partitions.iter().map(|index| (*index, offset)).collect()),
        Start::Earliest => EARLIEST,
        Start::Latest => LATEST,
        Start::Timestamp(timestamp) => timestamp,
    };
    let mut found = listed(cluster, topic, partitions, timestamp).await?;
    let beyond: Vec<i32> = found.iter().filter(|(_, offset)| **offset < 0).map(|(index, _)| *index).collect();
    if !beyond.is_empty() {
        found.extend(listed(cluster, topic, &beyond, LATEST).await?);
    }
    Ok(found)
}

/// What ListOffsets says to a timestamp, or to one of the negative numbers that stand for special places, in each of
/// `partitions`: -1 where there is no such offset.
pub async fn listed(
    cluster: &Cluster,
    topic: &str,
    partitions: &[i32],
    timestamp: i64,
) -> Result<BTreeMap<i32, i64>, Error> {
    let ask = async || {
        let route = cluster.route(topic, false).await?;
        let mut found = BTreeMap::new();
        for (leader, partitions) in by_leader(&route, partitions.iter().copied())? {
            let partitions = partitions.into_iter().map(|index| {
                ListOffsetsPartition::default().with_partition_index(index).with_timestamp(timestamp)
            });
            let topic =
                ListOffsetsTopic::default().with_name(route.topic()).with_partitions(partitions.collect());
            let request =
                ListOffsetsRequest::default().with_replica_id(BrokerId(-1)).with_topics(vec![topic]);
            let reply = cluster.at(&leader).await?.call(&request).await?;
            for result in reply.topics.iter().flat_map(|topic| &topic.partitions) {
                let index = result.partition_index;
                let what = || format!("find an offset in partition {index} of topic {}", route.name);
                check(result.error_code, None, what)?;
                found.insert(index, result.offset);
            }
        }
        Ok(found)
    };
    cluster.retry.run(ask).await
}

fn by_leader(
    route: &Route,
    partitions: impl IntoIterator<Item = i32>,
) -> Result<BTreeMap<String, Vec<i32>>, Error> {
    let mut leaders: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        leaders.entry(route.leader(partition)?.to_owned()).or_default().push(partition);
    }
    Ok(leaders)
}

/// Asks all leaders at once, so that one without news does not hold up the others for longer than `wait`.
async fn fetch(
    cluster: &Cluster,
    route: &Route,
    positions: &BTreeMap<i32, i64>,
    wait: Duration,
) -> Result<Fetched, Error> {
    let mut replies = JoinSet::new();
    for (leader, partitions) in by_leader(route, positions.keys().copied())? {
        let partitions = partitions.into_iter().map(|index| {
            FetchPartition::default()
                .with_partition(index)
                .with_fetch_offset(positions.get(&index).copied().unwrap_or_default())
                .with_log_start_offset(-1)
                .with_partition_max_bytes(PARTITION_BYTES)
        });
        let topic = FetchTopic::default()
            .with_topic(route.topic())
            .with_topic_id(route.id)
            .with_partitions(partitions.collect());
        let request = FetchRequest::default()
            .with_replica_id(BrokerId(-1))
            .with_max_wait_ms(i32::try_from(wait.as_millis()).unwrap_or(i32::MAX))
            .with_min_bytes(1)
            .with_max_bytes(FETCH_BYTES)
            .with_session_id(NO_SESSION.0)
            .with_session_epoch(NO_SESSION.1)
            .with_topics(vec![topic]);
        let connection = cluster.at(&leader).await?;
        replies.spawn(async move { connection.call(&request).await });
    }
    let mut fetched = Fetched::default();
    while let Some(reply) = replies.join_next().await {
        let reply = reply.map_err(|error| Error::Records(error.to_string()))??;
        take_partitions(route, reply, &mut fetched)?;
    }
    Ok(fetched)
}

fn take_partitions(route: &Route, reply: FetchResponse, (found, lost): &mut Fetched) -> Result<(), Error> {
    check(reply.error_code, None, || format!("read topic {}", route.name))?;
    for topic in reply.responses.into_iter().filter(|found| route.is(&found.topic, found.topic_id)) {
        for partition in topic.partitions {
            if partition.error_code == ResponseError::OffsetOutOfRange.code() {
                lost.push(partition.partition_index);
                continue;
            }
            check(partition.error_code, None, || {
                format!("read partition {} of topic {}", partition.partition_index, route.name)
            })?;
            found.push(partition);
        }
    }
    Ok(())
}

fn out_of_range(topic: &str, partitions: &[i32]) -> Error {
    let code = ResponseError::OffsetOutOfRange.code();
    Error::Refused { what: format!("read topic {topic}, partitions {partitions:?}"), code, message: None }
}

#[cfg(test)]
mod tests {
    use firn_records::batch::Codec;
    use firn_records::builder::{BatchBuilder, BatchOptions};
    use uuid::Uuid;

    use super::*;

    #[test]
    fn takes_from_the_position_on_and_leaves_a_cut_batch_for_later() {
        let mut builder =
            BatchBuilder::at_offset(BatchOptions { codec: Codec::Zstd, ..BatchOptions::default() }, 5);
        builder.push(70, Some(b"a"), Some(b"1"), &[(b"h", Some(b"x")), (b"h", None)]);
        builder.push(71, None, None, &[]);
        let whole = builder.build().unwrap();
        let cut = whole.slice(..whole.len() - 1);
        let records = Bytes::from([&whole[..], &cut[..]].concat());
        let leaders = BTreeMap::from([(3, Some("h:1".to_owned()))]);
        let mut consumer = Consumer {
            cluster: Arc::new(Cluster::new(Vec::new(), crate::connection::ConnectionOptions::default())),
            route: Route { name: "orders".to_owned(), id: Uuid::nil(), leaders },
            positions: BTreeMap::from([(3, 6)]),
            reset: None,
        };
        let data = PartitionData::default().with_partition_index(3).with_records(Some(records));
        let mut found = Vec::new();
        consumer.take(&data, &mut found).unwrap();
        let expected =
            Incoming { partition: 3, offset: 6, timestamp: 71, key: None, value: None, headers: Vec::new() };
        assert_eq!(found, [expected]);
        assert_eq!(consumer.positions(), &BTreeMap::from([(3, 7)]));
        consumer.positions.insert(3, 5);
        found.clear();
        consumer.take(&data, &mut found).unwrap();
        let headers = &found.first().unwrap().headers;
        assert_eq!(headers, &[("h".into(), Some("x".into())), ("h".into(), None)]);
    }

    #[test]
    fn a_partition_without_a_leader_is_worth_another_try() {
        let leaders = BTreeMap::from([(0, None)]);
        let route = Route { name: "orders".to_owned(), id: Uuid::nil(), leaders };
        assert!(by_leader(&route, [0]).unwrap_err().is_retriable());
    }
}
