//! When a fetch waits, and when it is answered at once.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

#[allow(dead_code, reason = "shared by several suites")]
mod world;

use std::time::Duration;

use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::FetchResponse;
use firn_protocol::library::messages::fetch_request::FetchPartition;
use firn_records::builder::Producer;
use tokio::time::Instant;

use world::{World, batch_of, produce_to};

/// Long enough that a fetch which waits for it cannot be mistaken for one that does not.
const WAIT: Duration = Duration::from_secs(20);
/// A wait that is over soon.
const SHORT: Duration = Duration::from_millis(300);

/// Fetches these partitions, each from an offset, and says how long it took.
async fn fetch(world: &World, from: &[(i32, i64)], wait: Duration) -> (FetchResponse, Duration) {
    let partition = |(index, offset): &(i32, i64)| {
        FetchPartition::default()
            .with_partition(*index)
            .with_fetch_offset(*offset)
            .with_current_leader_epoch(-1)
    };
    let mut request = world.fetch_request(from.iter().map(partition).collect(), wait);
    if from.is_empty() {
        request.topics.clear();
    }
    let began = Instant::now();
    let response = world.client.call(&request).await.unwrap();
    (response, began.elapsed())
}

fn codes(response: &FetchResponse) -> Vec<i16> {
    response.responses.iter().flat_map(|topic| &topic.partitions).map(|part| part.error_code).collect()
}

/// A consumer names a deleted partition until it has new metadata: answered at once, it would ask without a pause.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_partition_that_is_not_here_does_not_end_the_wait_for_one_that_is() {
    let world = World::start().await;
    let unknown = ResponseError::UnknownTopicOrPartition.code();
    let (response, took) = fetch(&world, &[(0, 0), (9, 0)], SHORT).await;
    assert_eq!(codes(&response), [0, unknown]);
    assert!(took >= SHORT, "answered after {took:?}");

    let waiting = fetch(&world, &[(0, 0), (9, 0)], WAIT);
    let producer = world.connect().await;
    let producing = produce_to(&producer, world.topic_id, &[0], batch_of(Producer::NONE, &["snow"]));
    let ((response, took), produced) = tokio::join!(waiting, producing);
    assert_eq!((codes(&response), produced), (vec![0, unknown], vec![0]));
    assert!(took < WAIT, "a record ends the wait");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_waited_for_is_answered_at_once() {
    let world = World::start().await;
    let nothing: &[(i32, i64)] = &[];
    for (from, expected) in [
        (nothing, vec![]),
        (&[(9, 0)], vec![ResponseError::UnknownTopicOrPartition.code()]),
        (&[(0, 100)], vec![ResponseError::OffsetOutOfRange.code()]),
    ] {
        let (response, took) = fetch(&world, from, WAIT).await;
        assert_eq!(codes(&response), expected);
        assert!(took < WAIT, "{from:?} was waited for");
    }
    world.node.stop().await;
}
