//! Bytes that no client would send: each is answered by Kafka's error or by a closed connection, memory stays bounded,
//! and a good client beside them notices nothing.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java;
use firn_tests::librdkafka::Load;
use firn_tests::process::wait_for;
use firn_tests::segments::{self, Offsets};
use firn_tests::wire::{self, Connection, framed, request};
use serde_json::json;

/// What the process may have of address space; its own threads' stacks and file mappings count too.
const ADDRESS_SPACE_KIB: u64 = 4 << 20;
const RSS_GROWTH_BYTES_MAX: u64 = 64 << 20;

fn limited() -> BrokerOptions {
    BrokerOptions { address_space_kib_max: Some(ADDRESS_SPACE_KIB), ..BrokerOptions::default() }
}

/// A small generator of repeatable noise (xorshift).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

/// Frames whose lengths lie, one for each way to lie that has brought a broker down somewhere.
fn lying_frames() -> Vec<(&'static str, Vec<u8>)> {
    let array =
        |api: i16, version: i16, length: i32| framed(&request(api, version, 1, &length.to_be_bytes()));
    vec![
        ("a negative size", (-1_i32).to_be_bytes().to_vec()),
        ("the smallest size", i32::MIN.to_be_bytes().to_vec()),
        ("the largest size", i32::MAX.to_be_bytes().to_vec()),
        ("a size of nothing", 0_i32.to_be_bytes().to_vec()),
        ("a header of two bytes", framed(&[0, 3])),
        ("an unknown api", framed(&request(12_345, 0, 1, &[]))),
        ("a negative api", framed(&request(-1, 0, 1, &[]))),
        ("an unknown version", framed(&request(3, 999, 1, &[]))),
        ("a negative version", framed(&request(3, -7, 1, &[]))),
        ("a metadata array of 200 million", framed(&request(3, 0, 1, &[0x0c, 0x00, 0xb6, 0x7f]))),
        ("a metadata array of i32::MAX", array(3, 1, i32::MAX)),
        ("a metadata array of -2", array(3, 1, -2)),
        ("a compact array of u32::MAX", framed(&request(3, 12, 1, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]))),
        ("a varint without end", framed(&request(3, 12, 1, &[0xff; 12]))),
        ("tagged fields without end", framed(&request(18, 3, 1, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0x00]))),
        ("a fetch of i32::MAX topics", framed(&request(1, 4, 1, &fetch_body(i32::MAX)))),
        ("a produce of i32::MAX topics", framed(&request(0, 3, 1, &produce_head(i32::MAX)))),
        ("a produce whose records lie about their size", framed(&request(0, 3, 1, &lying_produce()))),
        ("a group request of i32::MAX protocols", framed(&request(11, 0, 1, &join_body(i32::MAX)))),
        ("a create of i32::MAX topics", array(19, 2, i32::MAX)),
        (
            "a list of i32::MAX offsets",
            framed(&request(2, 1, 1, &[&(-1_i32).to_be_bytes()[..], &[0x7f, 0xff, 0xff, 0xff]].concat())),
        ),
        ("a client id longer than its frame", framed(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff])),
    ]
}

fn fetch_body(topics: i32) -> Vec<u8> {
    let mut body = Vec::new();
    for field in [-1_i32, 500, 1, i32::MAX] {
        body.extend_from_slice(&field.to_be_bytes());
    }
    body.push(0);
    body.extend_from_slice(&topics.to_be_bytes());
    body
}

fn produce_head(topics: i32) -> Vec<u8> {
    let mut body = Vec::new();
    body.extend_from_slice(&(-1_i16).to_be_bytes());
    body.extend_from_slice(&(-1_i16).to_be_bytes());
    body.extend_from_slice(&1000_i32.to_be_bytes());
    body.extend_from_slice(&topics.to_be_bytes());
    body
}

fn lying_produce() -> Vec<u8> {
    let mut body = produce_head(1);
    body.extend_from_slice(&6_i16.to_be_bytes());
    body.extend_from_slice(b"target");
    for field in [1_i32, 0, i32::MAX] {
        body.extend_from_slice(&field.to_be_bytes());
    }
    body.extend_from_slice(b"no records here");
    body
}

fn join_body(protocols: i32) -> Vec<u8> {
    let mut body = vec![0, 1, b'g'];
    body.extend_from_slice(&10_000_i32.to_be_bytes());
    body.extend_from_slice(&[0, 0, 0, 8]);
    body.extend_from_slice(b"consumer");
    body.extend_from_slice(&protocols.to_be_bytes());
    body
}

/// Sends bytes, ends its side, and waits until the broker has answered or closed.
fn send_and_wait(address: &str, bytes: &[u8]) {
    let mut stream = TcpStream::connect(address).expect("the broker accepts");
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    // The broker may close while we still write: that is an answer too.
    if stream.write_all(bytes).is_err() {
        return;
    }
    stream.shutdown(std::net::Shutdown::Write).unwrap_or_default();
    let mut answer = [0; 4096];
    loop {
        match stream.read(&mut answer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => return,
            Err(error) => panic!("neither an answer nor a close: {error}"),
        }
    }
}

#[test]
fn lying_lengths_and_garbage_end_the_connection_and_nothing_else() {
    let mut broker = Broker::start(limited());
    let address = broker.address();
    apache::create_topic(&address, "target", 1, &[]);
    java::produce(&address, "target", &[], &[json!({"value": "before"})]).remove(0).expect("acknowledged");
    let load = Load::start(&address, "target", 1, 20_000, 2_000, &[]);
    let before = broker.process().rss_bytes();

    for (name, frame) in lying_frames() {
        send_and_wait(&address, &frame);
        broker.process_mut().assert_running();
        assert!(wire::answers(&address), "after {name}");
    }
    let mut noise = Noise(0x9e37_79b9_7f4a_7c15);
    let started = Instant::now();
    let mut sent = 0;
    while started.elapsed() < Duration::from_secs(8) {
        let length = (noise.next() % 300) as usize;
        let mut bytes = noise.bytes(length);
        match noise.next() % 3 {
            0 => {}
            1 => bytes = framed(&bytes),
            // A true header and api, so that the noise reaches the body's decoder.
            _ => {
                let api = (noise.next() % 76) as i16;
                bytes = framed(&request(api, (noise.next() % 14) as i16, 1, &bytes));
            }
        }
        send_and_wait(&address, &bytes);
        sent += 1;
    }
    broker.process_mut().assert_running();
    let growth = broker.process().peak_rss_bytes().saturating_sub(before);
    eprintln!("{sent} hostile connections, memory grew by at most {} KiB", growth >> 10);
    assert!(growth <= RSS_GROWTH_BYTES_MAX, "memory grew by {growth} bytes");
    let ledger = load.wait();
    assert_eq!(ledger.len(), 20_000, "a good client beside them: {:?}", ledger.failures);
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}

#[test]
fn an_unknown_version_of_api_versions_is_answered_in_version_0() {
    let mut broker = Broker::start(BrokerOptions::default());
    let mut connection = Connection::open(&broker.address()).expect("the broker accepts");
    // The one byte is the end of the newer header, which has tagged fields.
    let answer = connection.ask(18, 99, &[0]).expect("an answer");
    assert_eq!(answer.get(..2), Some(&35_i16.to_be_bytes()[..]), "UNSUPPORTED_VERSION");
    assert!(answer.len() > 6, "with the versions that there are");
    let again = connection.ask(18, 0, &[]).expect("the connection goes on");
    assert_eq!(again.get(..2), Some(&[0, 0][..]));
    broker.stop();
}

#[test]
fn a_batch_with_a_wrong_checksum_is_refused_and_not_stored() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "target", 1, &[]);
    let mut connection = Connection::open(&address).expect("the broker accepts");
    const CORRUPT_MESSAGE: i16 = 2;
    const INVALID_RECORD: i16 = 87;
    for (name, damage, expected) in [
        ("its value", 70, &[CORRUPT_MESSAGE][..]),
        ("its checksum", 17, &[CORRUPT_MESSAGE]),
        ("its count", 57, &[CORRUPT_MESSAGE]),
        ("its magic", 16, &[CORRUPT_MESSAGE]),
        // The batch claims more than there is: Kafka passes over it, and misses a batch.
        ("its length", 10, &[CORRUPT_MESSAGE, INVALID_RECORD]),
    ] {
        let mut batch = one_record_batch();
        batch[damage] ^= 0x11;
        let answer = connection.ask(0, 3, &produce("target", &batch)).expect("an answer");
        let code = produce_error(&answer).expect("a whole answer");
        assert!(expected.contains(&code), "damage in {name}: error code {code}");
    }
    let answer = connection.ask(0, 3, &produce("target", &one_record_batch())).expect("an answer");
    assert_eq!(produce_error(&answer), Some(0), "the undamaged batch is taken");
    let read = java::read(&address, "target", &[]);
    assert_eq!(read.len(), 1);
    assert_eq!((read[0].offset, read[0].value.as_deref()), (0, Some("good-value-0123456789")));
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}

fn one_record_batch() -> Vec<u8> {
    let value = b"good-value-0123456789";
    let mut record = vec![0, 0, 0, 1, (value.len() as u8) << 1];
    record.extend_from_slice(value);
    record.push(0);
    let mut checked = Vec::new();
    checked.extend_from_slice(&[0, 0]);
    checked.extend_from_slice(&0_i32.to_be_bytes());
    for _ in 0..2 {
        checked.extend_from_slice(&1_700_000_000_000_i64.to_be_bytes());
    }
    checked.extend_from_slice(&(-1_i64).to_be_bytes());
    checked.extend_from_slice(&(-1_i16).to_be_bytes());
    checked.extend_from_slice(&(-1_i32).to_be_bytes());
    checked.extend_from_slice(&1_i32.to_be_bytes());
    checked.push((record.len() as u8) << 1);
    checked.extend_from_slice(&record);
    let mut batch = 0_i64.to_be_bytes().to_vec();
    batch.extend_from_slice(&(checked.len() as i32 + 9).to_be_bytes());
    batch.extend_from_slice(&(-1_i32).to_be_bytes());
    batch.push(2);
    batch.extend_from_slice(&crc32c::crc32c(&checked).to_be_bytes());
    batch.extend_from_slice(&checked);
    batch
}

fn produce(topic: &str, batch: &[u8]) -> Vec<u8> {
    let mut body = produce_head(1);
    body.extend_from_slice(&(topic.len() as i16).to_be_bytes());
    body.extend_from_slice(topic.as_bytes());
    for field in [1, 0, batch.len() as i32] {
        body.extend_from_slice(&i32::to_be_bytes(field));
    }
    body.extend_from_slice(batch);
    body
}

/// The error code of the only partition in a Produce v3 answer: after the topic's name, two counts and an index.
fn produce_error(answer: &[u8]) -> Option<i16> {
    let name_bytes = i16::from_be_bytes(answer.get(4..6)?.try_into().ok()?) as usize;
    let at = 6 + name_bytes + 8;
    Some(i16::from_be_bytes(answer.get(at..at + 2)?.try_into().ok()?))
}

/// What the broker's resident memory may grow by for each connection that asks for nothing: its task, its buffers, and
/// the share of what the good client beside them makes it use.
const RSS_BYTES_MAX_A_CONNECTION: u64 = 16 << 10;

#[test]
fn ten_thousand_idle_and_slow_connections_cost_little_and_harm_nobody() {
    const CONNECTIONS: usize = 10_000;
    raise_open_files(CONNECTIONS);
    // With Kafka's backlog of 50, each burst that overflows it costs the client a second: the kernel tries again.
    let mut broker = Broker::start(limited().with("socket.listen.backlog.size", "4096"));
    let address = broker.address();
    apache::create_topic(&address, "target", 1, &[]);
    let before = broker.process().rss_bytes();
    let open = |_| TcpStream::connect(&address).expect("the broker accepts");
    let mut connections: Vec<TcpStream> = (0..CONNECTIONS).map(open).collect();
    // Every other one stays idle, the rest send byte by byte, and never all: the size and the start of a header.
    for byte in [0, 0, 0, 40, 0, 3] {
        for slow in connections.iter_mut().step_by(2) {
            slow.write_all(&[byte]).expect("the broker keeps a slow connection");
        }
    }
    let ledger = Load::start(&address, "target", 1, 20_000, 0, &[]).wait();
    assert_eq!(ledger.len(), 20_000, "a good client beside them: {:?}", ledger.failures);
    let growth = broker.process().rss_bytes().saturating_sub(before);
    let each = growth / CONNECTIONS as u64;
    eprintln!("{each} bytes for each of {CONNECTIONS} connections");
    assert!(each <= RSS_BYTES_MAX_A_CONNECTION, "{growth} bytes for {CONNECTIONS} connections");
    let held = connections.iter().filter(|connection| is_open(connection)).count();
    assert_eq!(held, CONNECTIONS, "none was closed to make room");
    drop(connections);
    wait_for("an answer after they have gone", Duration::from_secs(20), || {
        wire::answers(&address).then_some(())
    });
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}

/// Whether nothing came, not even the end of the connection.
fn is_open(connection: &TcpStream) -> bool {
    connection.set_nonblocking(true).expect("ask without waiting");
    matches!(connection.peek(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
}

/// This process holds its ends of all those connections; the broker, which holds the others, inherits the limit.
fn raise_open_files(connections: usize) {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let needed = connections as u64 + 500;
    assert!(limit.maximum.is_none_or(|most| most >= needed), "needs a hard limit of {needed} open files");
    limit.current = limit.maximum;
    setrlimit(Resource::Nofile, limit).expect("raise the limit of open files to what is allowed");
}
