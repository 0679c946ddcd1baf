//! Deletes the beginnings of logs, little by little, of what all consumers have read (KIP-107).

use std::rc::Rc;
use std::time::Duration;

use firn_protocol::library::messages::delete_records_request::{DeleteRecordsPartition, DeleteRecordsTopic};
use firn_protocol::library::messages::{DeleteRecordsRequest, TopicName};
use firn_tests::history::Deletion;

use crate::client::{Client, Target, passed};
use crate::shared::{Shared, TOPIC, text};
use crate::story::About;

/// Deletes from one partition until the run is over.
pub async fn trim(shared: Rc<Shared>, partition: i32, mut random: fastrand::Rng) {
    shared.working.set(shared.working.get() + 1);
    let topic = shared.topic().await;
    let leader = Target::Leader(topic, partition);
    let mut client =
        Client::new(format!("trimmer {partition}"), About::Partition(partition), leader, shared.clone());
    let mut before = 0;
    loop {
        tokio::time::sleep(Duration::from_millis(random.u64(1_000..8_000))).await;
        if shared.over.get() {
            break;
        }
        // Most is kept, to be read at last.
        before += random.i64(0..=(shared.read_by_all(partition) - before).max(0) / 8);
        let asked = DeleteRecordsPartition::default().with_partition_index(partition).with_offset(before);
        let topic =
            DeleteRecordsTopic::default().with_name(TopicName(text(TOPIC))).with_partitions(vec![asked]);
        let request = DeleteRecordsRequest::default().with_topics(vec![topic]).with_timeout_ms(2_000);
        shared.deletes(partition, before);
        let told = match client.ask(&request).await {
            Ok(mut told) => passed(told.topics.remove(0).partitions.remove(0).error_code),
            Err(error) => Err(error.to_string()),
        };
        if told.is_err() {
            client.look_again();
        }
        client.note(format_args!("deletes what lies below {before} of {partition}: {told:?}"));
        let deletion = Deletion { partition, before, done: told.is_ok() };
        shared.history.borrow_mut().deletions.push(deletion);
    }
    shared.working.set(shared.working.get() - 1);
}
