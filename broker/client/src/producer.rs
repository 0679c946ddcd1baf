//! Writes records to one topic: batches by partition, one in flight for each, idempotent unless asked otherwise.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::{InitProducerIdRequest, ProduceRequest, ProducerId};
use firn_records::batch::Codec;
use firn_records::builder::{BatchBuilder, BatchOptions, Producer as Identity};

use crate::cluster::{Cluster, Route};
use crate::error::{Error, check};
use crate::partitioner::partition_for_key;

/// How long the leader may wait for replicas, in milliseconds; below the deadline of a call.
const REPLICATION_TIMEOUT_MS: i32 = 20_000;

#[derive(Debug, Clone, Copy)]
pub struct ProducerOptions {
    /// -1 for all in-sync replicas, 1 for the leader, 0 for none.
    pub acks: i16,
    pub codec: Codec,
    /// Keeps retries from writing twice (KIP-98); needs `acks` of -1, and is off with any other.
    pub idempotent: bool,
    /// A batch is sent when it holds this many bytes before compression.
    pub batch_bytes: usize,
}

impl Default for ProducerOptions {
    fn default() -> Self {
        Self { acks: -1, codec: Codec::None, idempotent: true, batch_bytes: 256 * 1024 }
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outgoing {
    /// None: chosen by key, or in turn where there is no key.
    pub partition: Option<i32>,
    /// Milliseconds since 1970.
    pub timestamp: i64,
    pub key: Option<Bytes>,
    /// None deletes the key in a compacted topic.
    pub value: Option<Bytes>,
    pub headers: Vec<(String, Option<Bytes>)>,
}

#[derive(Debug)]
pub struct Producer {
    cluster: Arc<Cluster>,
    options: ProducerOptions,
    route: Route,
    identity: Option<(i64, i16)>,
    sequences: BTreeMap<i32, i32>,
    pending: BTreeMap<i32, BatchBuilder>,
    /// Where records without a key go until their batch is sent (KIP-480).
    sticky: usize,
    written: u64,
}

impl Producer {
    /// Finds the topic, creating it where the broker does that, and takes a producer id if one is needed.
    pub async fn open(cluster: Arc<Cluster>, topic: &str, options: ProducerOptions) -> Result<Self, Error> {
        let route = cluster.retry.run(async || cluster.route(topic, true).await).await?;
        let identity = match options.idempotent && options.acks == -1 {
            true => Some(cluster.retry.run(async || producer_id(&cluster).await).await?),
            false => None,
        };
        let (sequences, pending) = (BTreeMap::new(), BTreeMap::new());
        Ok(Self { cluster, options, route, identity, sequences, pending, sticky: 0, written: 0 })
    }

    /// Records sent so far; with `acks=0`, whether they arrived is not known.
    pub fn written(&self) -> u64 {
        self.written
    }

    /// Takes a record into the batch of its partition, and sends the batch when it is full.
    pub async fn send(&mut self, record: &Outgoing) -> Result<(), Error> {
        let partition = self.partition(record)?;
        let identity = self.identity;
        let sequence = *self.sequences.entry(partition).or_default();
        let options = BatchOptions {
            codec: self.options.codec,
            producer: identity.map_or(Identity::NONE, |(id, epoch)| Identity {
                id,
                epoch,
                base_sequence: sequence,
            }),
            ..BatchOptions::default()
        };
        let batch = self.pending.entry(partition).or_insert_with(|| BatchBuilder::new(options));
        let headers: Vec<(&[u8], Option<&[u8]>)> =
            record.headers.iter().map(|(name, value)| (name.as_bytes(), value.as_deref())).collect();
        batch.push(record.timestamp, record.key.as_deref(), record.value.as_deref(), &headers);
        if batch.uncompressed_size() >= self.options.batch_bytes {
            self.flush_partition(partition).await?;
        }
        Ok(())
    }

    /// Sends what is waiting. Returns when the acknowledgements asked for have come.
    pub async fn flush(&mut self) -> Result<(), Error> {
        while let Some(partition) = self.pending.keys().next().copied() {
            self.flush_partition(partition).await?;
        }
        Ok(())
    }

    fn partition(&self, record: &Outgoing) -> Result<i32, Error> {
        let count = self.route.leaders.len();
        let chosen = match (record.partition, &record.key) {
            (Some(partition), _) => Some(partition),
            (None, Some(key)) => partition_for_key(key, i32::try_from(count).unwrap_or(i32::MAX)),
            (None, None) => {
                // Those that can be written now, or any while nobody leads.
                let led: Vec<i32> = self
                    .route
                    .leaders
                    .iter()
                    .filter_map(|(partition, leader)| leader.is_some().then_some(*partition))
                    .collect();
                let among = if led.is_empty() { self.route.leaders.keys().copied().collect() } else { led };
                self.sticky.checked_rem(among.len()).and_then(|at| among.get(at).copied())
            }
        };
        let known = chosen.filter(|partition| self.route.leaders.contains_key(partition));
        known.ok_or_else(|| Error::Refused {
            what: format!("write to topic {}", self.route.name),
            code: ResponseError::UnknownTopicOrPartition.code(),
            message: Some(format!("it has {count} partitions, and not {}", chosen.unwrap_or_default())),
        })
    }

    async fn flush_partition(&mut self, partition: i32) -> Result<(), Error> {
        let Some(batch) = self.pending.remove(&partition) else { return Ok(()) };
        let count = batch.count();
        let records = batch.build().map_err(|error| Error::Records(error.to_string()))?;
        self.sticky = self.sticky.wrapping_add(1);
        let retry = self.cluster.retry;
        let (cluster, route, acks) = (Arc::clone(&self.cluster), &mut self.route, self.options.acks);
        let mut stale = false;
        let sent = retry.run(async || {
            if stale {
                *route = cluster.route(&route.name.clone(), false).await?;
            }
            stale = true;
            match write(&cluster, route, partition, &records, acks).await? {
                Answered::Written => return Ok(()),
                Answered::Elsewhere { leader, .. } => route.leaders.insert(partition, Some(leader)),
            };
            match write(&cluster, route, partition, &records, acks).await? {
                Answered::Written => Ok(()),
                Answered::Elsewhere { refused, .. } => Err(refused),
            }
        });
        match sent.await {
            Ok(()) => {}
            // An earlier attempt was written, and only its answer was lost.
            Err(error) if error.is(ResponseError::DuplicateSequenceNumber) => {}
            Err(error) => return Err(error),
        }
        let sequence = self.sequences.entry(partition).or_default();
        *sequence = next_sequence(*sequence, count);
        self.written = self.written.saturating_add(u64::try_from(count).unwrap_or_default());
        Ok(())
    }
}

/// After the greatest `int` comes 0 (`DefaultRecordBatch.incrementSequence`).
fn next_sequence(sequence: i32, count: i32) -> i32 {
    sequence.wrapping_add(count) & i32::MAX
}

async fn producer_id(cluster: &Cluster) -> Result<(i64, i16), Error> {
    let request = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_transaction_timeout_ms(REPLICATION_TIMEOUT_MS)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let reply = cluster.any().await?.call(&request).await?;
    check(reply.error_code, None, || "get a producer id".to_owned())?;
    Ok((reply.producer_id.0, reply.producer_epoch))
}

/// What a broker said to records.
enum Answered {
    Written,
    /// It does not lead the partition, and knows the `host:port` of who does (KIP-951).
    Elsewhere {
        leader: String,
        refused: Error,
    },
}

async fn write(
    cluster: &Cluster,
    route: &Route,
    partition: i32,
    records: &Bytes,
    acks: i16,
) -> Result<Answered, Error> {
    let data = PartitionProduceData::default().with_index(partition).with_records(Some(records.clone()));
    let topic = TopicProduceData::default()
        .with_name(route.topic())
        .with_topic_id(route.id)
        .with_partition_data(vec![data]);
    let request = ProduceRequest::default()
        .with_transactional_id(None)
        .with_acks(acks)
        .with_timeout_ms(REPLICATION_TIMEOUT_MS)
        .with_topic_data(vec![topic]);
    let connection = cluster.at(route.leader(partition)?).await?;
    if acks == 0 {
        connection.tell(&request).await?;
        return Ok(Answered::Written);
    }
    let reply = connection.call(&request).await?;
    for result in reply.responses.iter().flat_map(|topic| &topic.partition_responses) {
        let refused = check(result.error_code, result.error_message.as_deref(), || {
            format!("write to partition {partition} of topic {}", route.name)
        });
        let leader = result.current_leader.leader_id;
        let node = reply.node_endpoints.iter().find(|node| node.node_id == leader);
        match (refused, node) {
            (Ok(()), _) => {}
            (Err(refused), Some(node)) => {
                return Ok(Answered::Elsewhere { leader: format!("{}:{}", node.host, node.port), refused });
            }
            (Err(refused), None) => return Err(refused),
        }
    }
    Ok(Answered::Written)
}

#[cfg(test)]
mod tests {
    use firn_protocol::library::messages::produce_response::{
        LeaderIdAndEpoch, NodeEndpoint, PartitionProduceResponse, TopicProduceResponse,
    };
    use firn_protocol::library::messages::{ApiKey, BrokerId, ProduceResponse};

    use super::*;
    use crate::scripted::listen;
    use crate::topics::text;

    #[test]
    fn sequences_start_over_after_the_greatest() {
        assert_eq!(next_sequence(0, 3), 3);
        assert_eq!(next_sequence(i32::MAX, 1), 0);
        assert_eq!(next_sequence(i32::MAX - 1, 3), 1);
    }

    #[test]
    fn keys_choose_as_java_does_and_the_rest_sticks_to_partitions_with_a_leader() {
        let leaders = BTreeMap::from([(0, None), (1, Some("h:1".to_owned())), (2, Some("h:1".to_owned()))]);
        let route = Route { name: "orders".to_owned(), id: uuid::Uuid::nil(), leaders };
        let cluster = Arc::new(Cluster::new(Vec::new(), crate::connection::ConnectionOptions::default()));
        let mut producer = Producer {
            cluster,
            options: ProducerOptions::default(),
            route,
            identity: None,
            sequences: BTreeMap::new(),
            pending: BTreeMap::new(),
            sticky: 0,
            written: 0,
        };
        let keyless = Outgoing::default();
        assert_eq!(producer.partition(&keyless).unwrap(), 1);
        producer.sticky = 1;
        assert_eq!(producer.partition(&keyless).unwrap(), 2);
        let keyed = Outgoing { key: Some(Bytes::from_static(b"foobar")), ..Outgoing::default() };
        assert_eq!(Some(producer.partition(&keyed).unwrap()), partition_for_key(b"foobar", 3));
        let refused = producer.partition(&Outgoing { partition: Some(3), ..keyless }).unwrap_err();
        assert!(refused.to_string().contains("it has 3 partitions, and not 3"), "{refused}");
    }

    /// KIP-951.
    #[tokio::test]
    async fn records_go_to_the_leader_that_a_refusal_names() {
        let leader = listen(APIS, |_| Box::new(|call| call.reply(&answered(0)))).await;
        let (host, port) = leader.rsplit_once(':').unwrap();
        let node = NodeEndpoint::default().with_node_id(BrokerId(2)).with_host(text(host));
        let node = node.with_port(port.parse().unwrap());
        let mut refusal = answered(ResponseError::NotLeaderOrFollower.code());
        refusal.responses[0].partition_responses[0].current_leader =
            LeaderIdAndEpoch::default().with_leader_id(BrokerId(2)).with_leader_epoch(1);
        refusal.node_endpoints = vec![node];
        // It gives no metadata: who asks for them gets no further.
        let former = listen(APIS, |_| Box::new(move |call| call.reply(&refusal))).await;
        let leaders = BTreeMap::from([(0, Some(former.clone()))]);
        let cluster = Arc::new(Cluster::new(vec![former], crate::connection::ConnectionOptions::default()));
        let mut producer = Producer {
            cluster,
            options: ProducerOptions::default(),
            route: Route { name: "orders".to_owned(), id: uuid::Uuid::nil(), leaders },
            identity: None,
            sequences: BTreeMap::new(),
            pending: BTreeMap::new(),
            sticky: 0,
            written: 0,
        };
        producer
            .send(&Outgoing { value: Some(Bytes::from_static(b"1")), ..Outgoing::default() })
            .await
            .unwrap();
        producer.flush().await.unwrap();
        assert_eq!(producer.written(), 1);
        assert_eq!(producer.route.leaders, BTreeMap::from([(0, Some(leader))]), "the next go there at once");
    }

    const APIS: &[ApiKey] = &[ApiKey::Produce];

    fn answered(error_code: i16) -> ProduceResponse {
        let part = PartitionProduceResponse::default().with_error_code(error_code);
        let topic = TopicProduceResponse::default().with_partition_responses(vec![part]);
        ProduceResponse::default().with_responses(vec![topic])
    }
}
