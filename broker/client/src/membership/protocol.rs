//! What members of a consumer group tell each other through their coordinator: subscriptions and assignments, in the
//! encoding of Kafka's consumer protocol. Other members, and the broker, are not trusted with lengths.

use std::collections::BTreeMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::error::Error;

/// The version written: the first that tells which partitions a member has, which with eager rebalancing is none.
const VERSION: i16 = 1;

/// Partitions by topic.
pub type Assignment = BTreeMap<String, Vec<i32>>;

/// The subscription of a member to `topics` that holds no partition.
pub(crate) fn subscription(topics: &[String]) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    put_length(&mut bytes, topics.len());
    for topic in topics {
        put_text(&mut bytes, topic);
    }
    // No user data, no partitions.
    bytes.put_i32(-1);
    bytes.put_i32(0);
    bytes.freeze()
}

/// The topics of a subscription; what follows them in later versions serves assignors that are not ours.
pub(crate) fn subscribed(mut bytes: &[u8]) -> Result<Vec<String>, Error> {
    version(&mut bytes)?;
    let count = count(&mut bytes)?;
    (0..count).map(|_| text(&mut bytes)).collect()
}

pub(crate) fn encode(assignment: &Assignment) -> Bytes {
    let mut bytes = BytesMut::new();
    bytes.put_i16(VERSION);
    put_length(&mut bytes, assignment.len());
    for (topic, partitions) in assignment {
        put_text(&mut bytes, topic);
        put_length(&mut bytes, partitions.len());
        for partition in partitions {
            bytes.put_i32(*partition);
        }
    }
    bytes.put_i32(-1);
    bytes.freeze()
}

/// The partitions of an assignment. One of no bytes is of no partitions: so are members left out by their leader.
pub(crate) fn decode(mut bytes: &[u8]) -> Result<Assignment, Error> {
    if bytes.is_empty() {
        return Ok(Assignment::new());
    }
    version(&mut bytes)?;
    let mut assignment = Assignment::new();
    for _ in 0..count(&mut bytes)? {
        let topic = text(&mut bytes)?;
        let partitions: &mut Vec<i32> = assignment.entry(topic).or_default();
        for _ in 0..count(&mut bytes)? {
            partitions.push(bytes.try_get_i32().map_err(|_| malformed())?);
        }
    }
    Ok(assignment)
}

/// Later versions only add fields at the end.
fn version(bytes: &mut &[u8]) -> Result<(), Error> {
    let version = bytes.try_get_i16().map_err(|_| malformed())?;
    if version < 0 { Err(malformed()) } else { Ok(()) }
}

/// How many elements follow, each of at least two bytes.
fn count(bytes: &mut &[u8]) -> Result<usize, Error> {
    let count = bytes.try_get_i32().map_err(|_| malformed())?;
    usize::try_from(count).ok().filter(|count| *count <= bytes.len() / 2).ok_or_else(malformed)
}

fn text(bytes: &mut &[u8]) -> Result<String, Error> {
    let length = bytes.try_get_i16().map_err(|_| malformed())?;
    let length = usize::try_from(length).map_err(|_| malformed())?;
    let (text, rest) = bytes.split_at_checked(length).ok_or_else(malformed)?;
    *bytes = rest;
    String::from_utf8(text.to_vec()).map_err(|_| malformed())
}

fn put_length(bytes: &mut BytesMut, length: usize) {
    bytes.put_i32(i32::try_from(length).unwrap_or(i32::MAX));
}

/// A topic's name has at most 249 bytes.
fn put_text(bytes: &mut BytesMut, text: &str) {
    bytes.put_i16(i16::try_from(text.len()).unwrap_or(i16::MAX));
    bytes.put_slice(text.as_bytes());
}

fn malformed() -> Error {
    Error::Records("a message between members of the group is not one of the consumer protocol".to_owned())
}

#[cfg(test)]
mod tests {
    use firn_protocol::library::messages::{ConsumerProtocolAssignment, ConsumerProtocolSubscription};
    use firn_protocol::library::protocol::{Decodable, Encodable, StrBytes};

    use super::*;

    #[test]
    fn what_is_written_is_read_as_kafka_reads_it() {
        let topics = ["a".to_owned(), "b".to_owned()];
        let mut bytes = subscription(&topics);
        assert_eq!(subscribed(&bytes).unwrap(), topics);
        assert_eq!(bytes.get_i16(), VERSION);
        let read = ConsumerProtocolSubscription::decode(&mut bytes, VERSION).unwrap();
        assert_eq!((read.topics.len(), read.owned_partitions.len(), bytes.len()), (2, 0, 0));

        let assignment = Assignment::from([("a".to_owned(), vec![0, 7]), ("b".to_owned(), vec![1])]);
        let mut bytes = encode(&assignment);
        assert_eq!(decode(&bytes).unwrap(), assignment);
        assert_eq!(bytes.get_i16(), VERSION);
        let read = ConsumerProtocolAssignment::decode(&mut bytes, VERSION).unwrap();
        assert_eq!((read.assigned_partitions.len(), bytes.len()), (2, 0));
        assert_eq!(decode(&[]).unwrap(), Assignment::new());
    }

    #[test]
    fn subscriptions_of_later_versions_tell_their_topics() {
        let later = ConsumerProtocolSubscription::default()
            .with_topics(vec![StrBytes::from_static_str("a")])
            .with_generation_id(3)
            .with_rack_id(Some(StrBytes::from_static_str("r")));
        let mut bytes = BytesMut::new();
        bytes.put_i16(3);
        later.encode(&mut bytes, 3).unwrap();
        assert_eq!(subscribed(&bytes).unwrap(), ["a"]);
    }

    #[test]
    fn lengths_that_lie_are_errors_and_take_no_memory() {
        for bytes in [
            &[0][..],
            &[0, 0, 0x7f, 0xff, 0xff, 0xff],
            &[0, 0, 0xff, 0xff, 0xff, 0xff],
            &[0, 0, 0, 0, 0, 1, 0x7f, 0xff, b'a'],
            &[0, 0, 0, 0, 0, 1, 0, 1, b't', 0x7f, 0, 0, 0],
            &[0xff, 0xff, 0, 0, 0, 0],
        ] {
            assert!(decode(bytes).is_err(), "{bytes:?}");
        }
        assert!(subscribed(&[0, 0, 0x7f, 0xff, 0xff, 0xff]).is_err());
        assert!(subscribed(&[0, 0, 0, 0, 0, 1, 0, 1, 0xff]).is_err());
    }
}
