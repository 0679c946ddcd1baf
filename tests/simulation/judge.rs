//! Who begins a run and who ends it: the topic's creation, and the judge that reads everything once the faults are over.

use std::rc::Rc;
use std::time::Duration;

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::{CreatableTopic, CreatableTopicConfig};
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_protocol::library::messages::metadata_request::MetadataRequestTopic;
use firn_protocol::library::messages::{CreateTopicsRequest, MetadataRequest, TopicName};
use firn_tests::history::FinalRead;

use crate::client::{Client, Target, passed};
use crate::producer::begin;
use crate::reading::{EARLIEST, Read, fetch_request, listed, seen};
use crate::shared::{BETWEEN_ATTEMPTS, PARTITIONS, Shared, TOPIC, WRITABLE_WITHIN, text};
use crate::story::About;

/// How often the judge reads where there is something and gets nothing.
const IN_VAIN_MAX: u32 = 100;

/// Creates the topic, and tells the others.
pub async fn set_up(shared: Rc<Shared>) {
    let mut client = Client::new("set up".to_owned(), About::Run, Target::Any, shared.clone());
    let config = |(name, value): (&str, &str)| {
        CreatableTopicConfig::default().with_name(text(name)).with_value(Some(text(value)))
    };
    let mut configs = vec![("segment.ms", "2000"), ("retention.ms", "-1")];
    if shared.bucket.is_some() {
        configs.extend([("remote.storage.enable", "true"), ("local.retention.ms", "6000")]);
    }
    let topic = CreatableTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_num_partitions(PARTITIONS)
        .with_replication_factor(shared.replication_factor as i16)
        .with_configs(configs.into_iter().map(config).collect());
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
        shared.broke(
            None,
            format!("not every partition was writable {WRITABLE_WITHIN:?} after the last fault"),
        );
    }
    for partition in 0..PARTITIONS {
        let leader = Target::Leader(topic, partition);
        let mut client =
            Client::new(format!("judge {partition}"), About::Partition(partition), leader, shared.clone());
        let out_of_range = ResponseError::OffsetOutOfRange.code();
        let (mut all, mut next, mut in_vain) = (Read::default(), 0, 0);
        let (log_start, log_end) = loop {
            let request = fetch_request(topic, partition, next, Duration::ZERO);
            let data: PartitionData = client
                .ask_until(&request, |mut response| {
                    let data: PartitionData = response.responses.remove(0).partitions.remove(0);
                    let code = if data.error_code == out_of_range { 0 } else { data.error_code };
                    passed(code).map(|()| data)
                })
                .await;
            if data.error_code == out_of_range {
                // The beginning was deleted.
                let start = listed(&mut client, partition, EARLIEST).await;
                (all, next) = (Read::default(), start.unwrap_or(next));
                continue;
            }
            let found = seen(&client, &data.records.unwrap_or_default(), next);
            let Some(last) = found.records.last() else {
                // A segment that is exchanged just then gives nothing, and the next time it does.
                if next < data.high_watermark && in_vain < IN_VAIN_MAX {
                    in_vain += 1;
                    tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                    continue;
                }
                break (data.log_start_offset, data.high_watermark);
            };
            (next, in_vain) = (last.offset + 1, 0);
            all.records.extend(found.records);
            all.epochs.extend(found.epochs);
        };
        let Read { mut records, epochs } = all;
        records.retain(|seen| seen.offset >= log_start);
        client.note(format_args!("read {} of {partition}, from {log_start} to {log_end}", records.len()));
        let read = FinalRead { partition, log_start, log_end, dense: true, records, epochs };
        shared.history.borrow_mut().finals.push(read);
    }
}
