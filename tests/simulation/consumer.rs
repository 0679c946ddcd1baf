//! Consumers: each reads one partition again and again, and commits as a group of its own. It stands in a zone, and reads from that
//! zone's replica if it is sent there (KIP-392).

use std::rc::Rc;
use std::time::Duration;

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::fetch_response::PartitionData;
use firn_tests::history::Poll;

use crate::broker::ZONES;
use crate::client::{Client, Target, passed};
use crate::group::Group;
use crate::reading::{LATEST, Read, fetch_request_from, listed, seen};
use crate::shared::{BETWEEN_ATTEMPTS, Shared};
use crate::story::About;

/// Reads one partition, and commits, until the run is over.
pub async fn consume(shared: Rc<Shared>, number: u32, partition: i32, mut random: fastrand::Rng) {
    shared.working.set(shared.working.get() + 1);
    let topic = shared.topic().await;
    let leader = Target::Leader(topic, partition);
    let zone = random.usize(..ZONES);
    let mut client = Client::new(
        format!("consumer {number}"),
        About::Partition(partition),
        leader.clone(),
        shared.clone(),
    );
    let mut reads_from_leader = true;
    let mut group = Group::new(&shared, number, topic, partition, random.fork());
    let (mut next, mut repositioned) = (0, true);
    while !shared.over.get() {
        let request = fetch_request_from(zone, topic, partition, next, Duration::from_millis(200));
        let answer = client.ask(&request).await;
        let data: Result<PartitionData, String> = match answer {
            Ok(mut response) => Ok(response.responses.remove(0).partitions.remove(0)),
            Err(error) => Err(error.to_string()),
        };
        let code = data.as_ref().map_or(0, |data| data.error_code);
        // Whatever is wrong with a follower, the leader knows better.
        let data = match data {
            Ok(data) if code == 0 || reads_from_leader => data,
            other => {
                let why = other.err().unwrap_or_else(|| format!("{:?}", passed(code)));
                client.note(format_args!("could not read from {next}: {why}"));
                client.turn_to(leader.clone());
                reads_from_leader = true;
                tokio::time::sleep(BETWEEN_ATTEMPTS).await;
                continue;
            }
        };
        if let Err(why) = passed(data.error_code) {
            if data.error_code == ResponseError::OffsetOutOfRange.code() {
                let deleted = shared.deleted(partition);
                if next >= deleted {
                    client.broke(format!(
                        "consumer {number} was at {next} of {partition}, and that is out of range"
                    ));
                }
                (next, repositioned) = (deleted, true);
            }
            client.note(format_args!("could not read from {next}: {why}"));
            client.look_again();
            tokio::time::sleep(BETWEEN_ATTEMPTS).await;
            continue;
        }
        if data.preferred_read_replica.0 >= 0 {
            client.turn_to(Target::Broker(data.preferred_read_replica.0));
            client.note(format_args!("is sent to broker {}", data.preferred_read_replica.0));
            reads_from_leader = false;
            continue;
        }
        let Read { records, epochs } = seen(&client, &data.records.unwrap_or_default(), next);
        client.note(format_args!(
            "read {} from {next} of {partition}, below {}",
            records.len(),
            data.high_watermark
        ));
        next = records.last().map_or(next, |seen| seen.offset + 1);
        let high_watermark = Some(data.high_watermark);
        let connection = client.connections();
        shared.has_read(number, partition, next);
        let log_end = match random.u8(..8) {
            0 => listed(&mut client, partition, LATEST).await,
            _ => None,
        };
        let poll = Poll {
            consumer: number,
            partition,
            repositioned,
            records,
            epochs,
            high_watermark,
            log_end,
            connection,
        };
        shared.history.borrow_mut().polls.push(poll);
        repositioned = false;
        match random.u8(..16) {
            0..3 => drop(group.commit(next).await),
            // It starts anew where its group stands.
            3 => (next, repositioned) = (group.committed().await, true),
            _ => {}
        }
    }
    // Everybody can commit again, and nothing that was kept has been forgotten.
    group.committed().await;
    while !group.commit(next).await {
        tokio::time::sleep(BETWEEN_ATTEMPTS).await;
    }
    group.committed().await;
    shared.working.set(shared.working.get() - 1);
}
