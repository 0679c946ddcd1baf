//! Reading a partition: what is asked, and what of the answer the history is told.

use std::time::Duration;

use bytes::Bytes;
use firn_protocol::library::messages::fetch_request::{FetchPartition, FetchTopic};
use firn_protocol::library::messages::list_offsets_request::{ListOffsetsPartition, ListOffsetsTopic};
use firn_protocol::library::messages::{BrokerId, FetchRequest, ListOffsetsRequest, TopicName};
use firn_records::batch::{self, HEADER_LENGTH};
use firn_records::record::records;
use firn_tests::history::{EpochSeen, Seen, Value};
use uuid::Uuid;

use crate::client::Client;
use crate::shared::{TOPIC, text};

/// In place of a timestamp: where the log starts, and where it ends.
pub const EARLIEST: i64 = -2;
pub const LATEST: i64 = -1;

/// What was read.
#[derive(Debug, Default)]
pub struct Read {
    pub records: Vec<Seen>,
    pub epochs: Vec<EpochSeen>,
}

pub fn fetch_request(topic: Uuid, partition: i32, from: i64, wait: Duration) -> FetchRequest {
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

/// The same, by somebody who stands in a zone (KIP-392).
pub fn fetch_request_from(
    zone: usize,
    topic: Uuid,
    partition: i32,
    from: i64,
    wait: Duration,
) -> FetchRequest {
    fetch_request(topic, partition, from, wait).with_rack_id(text(&zone.to_string()))
}

/// The records from an offset on. What cannot be read is a broken promise.
pub fn seen(client: &Client, bytes: &Bytes, from: i64) -> Read {
    let (who, mut found) = (&client.name, Read::default());
    for batch in batch::batches(bytes).map_while(Result::ok) {
        let (header, batch) = batch;
        if let Err(error) = batch::verify_crc(batch) {
            client.broke(format!("{who} was given a corrupt batch at {}: {error}", header.base_offset));
            continue;
        }
        found.epochs.push(EpochSeen { offset: header.base_offset, epoch: header.partition_leader_epoch });
        for record in records(header.record_count, &batch[HEADER_LENGTH..]) {
            let Ok(record) = record else {
                client.broke(format!("{who} was given a malformed record at {}", header.base_offset));
                break;
            };
            let offset = header.base_offset + i64::from(record.offset_delta);
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            match value.split_once('.').map(|(producer, number)| (producer.parse(), number.parse())) {
                _ if offset < from => {}
                Some((Ok(producer), Ok(number))) => {
                    found.records.push(Seen { offset, value: Value { producer, number } })
                }
                _ => client.broke(format!("{who} was given {value} at {offset}, which nobody wrote")),
            }
        }
    }
    found
}

/// The offset that a timestamp, or what stands for one, has, if the log's leader says so.
pub async fn listed(client: &mut Client, partition: i32, timestamp: i64) -> Option<i64> {
    let asked = ListOffsetsPartition::default().with_partition_index(partition).with_timestamp(timestamp);
    let topic = ListOffsetsTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![asked]);
    let request = ListOffsetsRequest::default()
        .with_replica_id(BrokerId(-1))
        .with_topics(vec![topic])
        .with_timeout_ms(1_000);
    let told = client.ask(&request).await.ok()?.topics.first()?.partitions.first()?.clone();
    client.note(format_args!("{timestamp} is {} in {partition}, error {}", told.offset, told.error_code));
    if told.error_code != 0 {
        client.look_again();
    }
    (told.error_code == 0).then_some(told.offset)
}
