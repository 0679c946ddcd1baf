//! Idempotent producers. They speak to the broker in single requests, so that the history knows of each what was told. Whatever
//! fails is tried again over a new connection, as clients do.

use std::rc::Rc;
use std::time::Duration;

use firn::environment::Clock;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::produce_request::{PartitionProduceData, TopicProduceData};
use firn_protocol::library::messages::produce_response::PartitionProduceResponse;
use firn_protocol::library::messages::{InitProducerIdRequest, ProduceRequest, ProducerId};
use firn_records::builder::{BatchBuilder, BatchOptions, Producer as Identity};
use firn_tests::history::{Send, Told, Value};
use uuid::Uuid;

use crate::client::{Client, Target, passed};
use crate::environment::VirtualClock;
use crate::shared::{BETWEEN_ATTEMPTS, Shared};
use crate::story::About;

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
pub async fn begin(shared: &Rc<Shared>, topic: Uuid, partition: i32, role: &str) -> (Client, Sending) {
    let number = shared.next_producer();
    let mut client =
        Client::new(format!("{role} {number}"), About::Partition(partition), Target::Any, shared.clone());
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
pub struct Sending {
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
    pub async fn send(&mut self, client: &mut Client, count: u64, attempts: u32) -> bool {
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
        client
            .shared
            .acknowledged
            .borrow_mut()
            .insert(self.partition, turmoil::sim_elapsed().unwrap_or_default());
        let mut history = client.shared.history.borrow_mut();
        for (offset, send) in (response.base_offset..).zip(&mut history.sends[first..]).take(count as usize) {
            send.told = Told::Acknowledged(Some(offset));
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
            client.broke(format!("producer {number} was told {error:?} of partition {partition} by {asked}"));
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
