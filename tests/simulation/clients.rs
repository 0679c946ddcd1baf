//! What a run's clients do: idempotent producers, consumers with groups, and a judge that reads everything at the end.
//!
//! They speak to the broker in single requests, so that the history knows of each what was told. Whatever fails is tried
//! again over a new connection, as clients do.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use firn::environment::Clock;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use firn_protocol::library::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::produce_response::PartitionProduceResponse;
use firn_protocol::library::messages::{
    BrokerId, CreateTopicsRequest, FetchRequest, GroupId, InitProducerIdRequest, MetadataRequest,
    OffsetCommitRequest, OffsetFetchRequest, ProduceRequest, ProducerId, TopicName,
};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::{self, HEADER_LENGTH};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer as Identity};
use firn_records::record::records;
use firn_tests::history::{Commit, CommitAction, FinalRead, History, Poll, Seen, Send, Told, Value};
use uuid::Uuid;

use crate::client::{Client, Target, passed};
use crate::environment::VirtualClock;
use crate::trace::Trace;

pub const TOPIC: &str = "ledger";
pub const PARTITIONS: i32 = 3;
pub const BETWEEN_ATTEMPTS: Duration = Duration::from_millis(50);
/// How long after the last fault a partition may take to be writable.
pub const WRITABLE_WITHIN: Duration = Duration::from_secs(30);

/// What all clients of a run share.
#[derive(Debug)]
pub struct Shared {
    /// Where each broker is.
    pub brokers: Vec<String>,
    pub replication_factor: usize,
    pub trace: Trace,
    pub history: RefCell<History>,
    /// The topic's id, once it is there.
    pub topic: Cell<Option<Uuid>>,
    /// Faults and new work have ended.
    pub over: Cell<bool>,
    /// Promises that were broken, and that the history does not know of.
    pub broken: RefCell<Vec<String>>,
    producers: Cell<u32>,
    /// Producers that have not ended.
    pub working: Cell<u32>,
}

impl Shared {
    pub fn new(brokers: Vec<String>, replication_factor: usize, trace: Trace) -> Rc<Self> {
        Rc::new(Self {
            brokers,
            replication_factor,
            trace,
            history: RefCell::default(),
            topic: Cell::new(None),
            over: Cell::new(false),
            broken: RefCell::default(),
            producers: Cell::new(0),
            working: Cell::new(0),
        })
    }

    fn next_producer(&self) -> u32 {
        self.producers.replace(self.producers.get() + 1)
    }

    pub fn broke(&self, what: String) {
        self.trace.note("BROKEN", &what);
        self.broken.borrow_mut().push(what);
    }

    async fn topic(&self) -> Uuid {
        loop {
            if let Some(topic) = self.topic.get() {
                return topic;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    }
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

/// Creates the topic, and tells the others.
pub async fn set_up(shared: Rc<Shared>) {
    let mut client = Client::new("set up".to_owned(), Target::Any, shared.clone());
    let config = |(name, value): (&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_num_partitions(PARTITIONS)
        .with_replication_factor(shared.replication_factor as i16)
        .with_configs([("segment.ms", "2000"), ("retention.ms", "-1")].map(config).into());
    let request = CreateTopicsRequest::default().with_topics(vec![topic]).with_timeout_ms(5_000);
    let exists = ResponseError::TopicAlreadyExists.code();
    client
        .ask_until(&request, |mut created| {
            let created = created.topics.remove(0);
            let told = created.error_message.unwrap_or_default();
            // Where the first answer was lost.
            let code = if created.error_code == exists { 0 } else { created.error_code };
            passed(code).map_err(|why| format!("{why}: {told}"))
        })
        .await;
    let asked = MetadataRequestTopic::default().with_name(Some(TopicName(text(TOPIC))));
    let request = MetadataRequest::default().with_topics(Some(vec![asked]));
    let id = client
        .ask_until(&request, |mut known| {
            let topic = known.topics.remove(0);
            passed(topic.error_code).map(|()| topic.topic_id)
        })
        .await;
    client.note(format_args!("created topic {id}"));
    shared.topic.set(Some(id));
}

/// Writes to one partition until the run is over, each batch until it is acknowledged, as one idempotent producer after
/// another.
pub async fn produce(shared: Rc<Shared>, partition: i32, mut random: fastrand::Rng) {
    shared.working.set(shared.working.get() + 1);
    let topic = shared.topic().await;
    while !shared.over.get() {
        let (mut client, mut sending) = begin(&shared, topic, partition, "producer").await;
        // It gives a batch up after so many attempts: what it wrote may be there or not, and another takes over.
        let attempts = if random.u8(..4) == 0 { random.u32(1..4) } else { u32::MAX };
        while !shared.over.get() {
            let count = random.u64(1..=5);
            if !sending.send(&mut client, count, attempts).await {
                break;
            }
            tokio::time::sleep(Duration::from_millis(random.u64(..60))).await;
        }
    }
    shared.working.set(shared.working.get() - 1);
}

/// A producer that nobody was before.
async fn begin(shared: &Rc<Shared>, topic: Uuid, partition: i32, role: &str) -> (Client, Sending) {
    let number = shared.next_producer();
    let mut client = Client::new(format!("{role} {number}"), Target::Any, shared.clone());
    let wanted = InitProducerIdRequest::default()
        .with_transactional_id(None)
        .with_producer_id(ProducerId(-1))
        .with_producer_epoch(-1);
    let (id, epoch) = client
        .ask_until(&wanted, |given| {
            passed(given.error_code).map(|()| (given.producer_id.0, given.producer_epoch))
        })
        .await;
    client.note(format_args!("has id {id}, writes to {partition}"));
    client.turn_to(Target::Leader(topic, partition));
    (client, Sending { topic, partition, number, id, epoch, next: 0 })
}

/// One producer's records of one partition.
struct Sending {
    topic: Uuid,
    partition: i32,
    /// Which producer, to the history.
    number: u32,
    id: i64,
    epoch: i16,
    /// Number of the next record, and its sequence.
    next: u64,
}

impl Sending {
    /// Sends the next records in one batch; false when they were given up.
    async fn send(&mut self, client: &mut Client, count: u64, attempts: u32) -> bool {
        let numbers = self.next..self.next + count;
        self.next += count;
        let first = {
            let mut history = client.shared.history.borrow_mut();
            let first = history.sends.len();
            history.sends.extend(numbers.clone().map(|number| Send {
                partition: self.partition,
                value: Value { producer: self.number, number },
                told: Told::Nothing,
            }));
            first
        };
        let request = self.request(numbers.clone());
        let mut failed = 0;
        let response = loop {
            let why = match client.ask(&request).await {
                Ok(mut response) => {
                    let response: PartitionProduceResponse =
                        response.responses.remove(0).partition_responses.remove(0);
                    match passed(response.error_code) {
                        Ok(()) => break response,
                        Err(why) => {
                            self.check_refusal(client, response.error_code);
                            client.look_again();
                            why
                        }
                    }
                }
                Err(error) => error.to_string(),
            };
            failed += 1;
            client.note(format_args!("could not write {numbers:?} to {}: {why}", client.asked));
            if failed >= attempts {
                return false;
            }
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        };
        client.note(format_args!("wrote {numbers:?} at {}", response.base_offset));
        let mut history = client.shared.history.borrow_mut();
        for (offset, send) in (response.base_offset..).zip(&mut history.sends[first..]).take(count as usize) {
            send.told = Told::Acknowledged(offset);
        }
        true
    }

    /// One batch at a time is on its way, so no sequence is ever out of order, nor a duplicate that is not known.
    fn check_refusal(&self, client: &Client, code: i16) {
        let never = [
            ResponseError::OutOfOrderSequenceNumber,
            ResponseError::DuplicateSequenceNumber,
            ResponseError::InvalidProducerEpoch,
            ResponseError::UnknownProducerId,
        ];
        if let Some(error) = never.into_iter().find(|error| error.code() == code) {
            let Self { number, partition, .. } = self;
            let asked = &client.asked;
            client
                .shared
                .broke(format!("producer {number} was told {error:?} of partition {partition} by {asked}"));
        }
    }

    fn request(&self, numbers: std::ops::Range<u64>) -> ProduceRequest {
        let sequence = i32::try_from(numbers.start).unwrap_or_default();
        let producer = Identity { id: self.id, epoch: self.epoch, base_sequence: sequence };
        let mut batch = BatchBuilder::new(BatchOptions { producer, ..BatchOptions::default() });
        let timestamp = VirtualClock::default().now_ms();
        for number in numbers {
            let value = format!("{}.{number}", self.number);
            batch.push(timestamp, None, Some(value.as_bytes()), &[]);
        }
        let batch = batch.build().expect("a batch of a few records");
        let data = PartitionProduceData::default().with_index(self.partition).with_records(Some(batch));
        let topic = TopicProduceData::default().with_topic_id(self.topic).with_partition_data(vec![data]);
        ProduceRequest::default().with_acks(-1).with_timeout_ms(3_000).with_topic_data(vec![topic])
    }
}

fn fetch_request(topic: Uuid, partition: i32, from: i64, wait: Duration) -> FetchRequest {
    let partition = FetchPartition::default()
        .with_partition(partition)
        .with_fetch_offset(from)
        .with_current_leader_epoch(-1)
        .with_partition_max_bytes(4096);
    let topic = FetchTopic::default().with_topic_id(topic).with_partitions(vec![partition]);
    FetchRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_max_wait_ms(wait.as_millis() as i32)
        .with_min_bytes(1)
        .with_max_bytes(1 << 20)
        .with_session_epoch(-1)
        .with_topics(vec![topic])
}

/// The records from an offset on. What cannot be read is a broken promise.
fn seen(shared: &Shared, who: &str, bytes: &Bytes, from: i64) -> Vec<Seen> {
    let mut found = Vec::new();
    for batch in batch::batches(bytes).map_while(Result::ok) {
        let (header, batch) = batch;
        if let Err(error) = batch::verify_crc(batch) {
            shared.broke(format!("{who} was given a corrupt batch at {}: {error}", header.base_offset));
            continue;
        }
        for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
            let Ok(record) = record else {
                shared.broke(format!("{who} was given a malformed record at {}", header.base_offset));
                break;
            };
            let offset = header.base_offset + i64::from(record.offset_delta);
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            match value.split_once('.').map(|(producer, number)| (producer.parse(), number.parse())) {
                _ if offset < from => {}
                Some((Ok(producer), Ok(number))) => {
                    found.push(Seen { offset, value: Value { producer, number } })
                }
                _ => shared.broke(format!("{who} was given {value} at {offset}, which nobody wrote")),
            }
        }
    }
    found
}

/// Reads one partition again and again, and commits as a group of its own, until the run is over.
pub async fn consume(shared: Rc<Shared>, number: u32, partition: i32, mut random: fastrand::Rng) {
    let topic = shared.topic().await;
    let leader = Target::Leader(topic, partition);
    let mut client = Client::new(format!("consumer {number}"), leader, shared.clone());
    let group = format!("group-{number}");
    let coordinator = Target::Coordinator(group.clone());
    let mut member = Client::new(format!("member {number}"), coordinator, shared.clone());
    let (mut next, mut repositioned) = (0, true);
    while !shared.over.get() {
        let request = fetch_request(topic, partition, next, Duration::from_millis(200));
        let data: PartitionData = match client.ask(&request).await {
            Ok(mut response) => response.responses.remove(0).partitions.remove(0),
            Err(error) => {
                client.note(format_args!("could not read from {next}: {error}"));
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                continue;
            }
        };
        if let Err(why) = passed(data.error_code) {
            if data.error_code == ResponseError::OffsetOutOfRange.code() {
                shared.broke(format!(
                    "consumer {number} was at {next} of {partition}, and that is out of range"
                ));
                (next, repositioned) = (0, true);
            }
            client.note(format_args!("could not read from {next}: {why}"));
            client.look_again();
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            continue;
        }
        let records = seen(&shared, &client.name, &data.records.unwrap_or_default(), next);
        client.note(format_args!(
            "read {} from {next} of {partition}, below {}",
            records.len(),
            data.high_watermark
        ));
        next = records.last().map_or(next, |seen| seen.offset + 1);
        let high_watermark = Some(data.high_watermark);
        let connection = client.connections();
        let poll = Poll { consumer: number, partition, repositioned, records, high_watermark, connection };
        shared.history.borrow_mut().polls.push(poll);
        repositioned = false;
        match random.u8(..16) {
            0..3 => commit(&mut member, &group, number, topic, partition, next).await,
            3 => {
                // It starts anew where its group stands.
                next = committed(&mut member, &group, number, partition).await;
                repositioned = true;
            }
            _ => {}
        }
    }
}

fn note_commit(client: &Client, number: u32, partition: i32, action: CommitAction) {
    client.note(format_args!("{action:?} in {partition}"));
    client.shared.history.borrow_mut().commits.push(Commit { group: number, partition, action });
}

async fn commit(client: &mut Client, group: &str, number: u32, topic: Uuid, partition: i32, offset: i64) {
    let partitions = OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_leader_epoch(-1);
    let topic = OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_topic_id(topic)
        .with_partitions(vec![partitions]);
    let request = OffsetCommitRequest::default()
        .with_group_id(GroupId(text(group)))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic]);
    let action = match client.ask(&request).await {
        Ok(response) if response.topics[0].partitions[0].error_code == 0 => CommitAction::Committed(offset),
        _ => {
            client.look_again();
            CommitAction::Attempted(offset)
        }
    };
    note_commit(client, number, partition, action);
}

/// Where the group stands, asked until it is told; 0 where nothing is committed.
async fn committed(client: &mut Client, group: &str, number: u32, partition: i32) -> i64 {
    let topic = OffsetFetchRequestTopics::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partition_indexes(vec![partition]);
    let group =
        OffsetFetchRequestGroup::default().with_group_id(GroupId(text(group))).with_topics(Some(vec![topic]));
    let request = OffsetFetchRequest::default().with_groups(vec![group]);
    let found = client
        .ask_until(&request, |mut response| {
            let group = response.groups.remove(0);
            passed(group.error_code)?;
            let partition = &group.topics[0].partitions[0];
            passed(partition.error_code).map(|()| partition.committed_offset)
        })
        .await;
    let found = (found >= 0).then_some(found);
    note_commit(client, number, partition, CommitAction::Fetched(found));
    found.unwrap_or(0)
}

/// Waits for the end of the faults, writes to every partition once more, and reads each from its beginning to its end.
pub async fn judge(shared: Rc<Shared>) {
    let topic = shared.topic().await;
    while !shared.over.get() {
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
    let writable = async {
        for partition in 0..PARTITIONS {
            let (mut client, mut sending) = begin(&shared, topic, partition, "judge").await;
            sending.send(&mut client, 1, u32::MAX).await;
        }
        while shared.working.get() > 0 {
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
        }
    };
    if tokio::time::timeout(WRITABLE_WITHIN, writable).await.is_err() {
        shared.broke(format!("not every partition was writable {WRITABLE_WITHIN:?} after the last fault"));
    }
    for partition in 0..PARTITIONS {
        let leader = Target::Leader(topic, partition);
        let mut client = Client::new(format!("judge {partition}"), leader, shared.clone());
        let mut all = Vec::new();
        let log_end = loop {
            let next = all.last().map_or(0, |seen: &Seen| seen.offset + 1);
            let request = fetch_request(topic, partition, next, Duration::ZERO);
            let data: PartitionData = client
                .ask_until(&request, |mut response| {
                    let data: PartitionData = response.responses.remove(0).partitions.remove(0);
                    passed(data.error_code).map(|()| data)
                })
                .await;
            let found = seen(&shared, &client.name, &data.records.unwrap_or_default(), next);
            if found.is_empty() {
                break data.high_watermark;
            }
            all.extend(found);
        };
        client.note(format_args!("read {} of {partition}, to {log_end}", all.len()));
        let read = FinalRead { partition, log_start: 0, log_end, dense: true, records: all };
        shared.history.borrow_mut().finals.push(read);
    }
}
