//! Hostile frames of every API at every version, bombs in every codec: nothing that is sent makes the broker take more
//! memory at once than eight times what was sent, or a megabyte; each is answered or its connection closed; no task
//! panics; and another client is served all the while.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "in a test a panic is how a failure is told"
)]
#![allow(
    unsafe_code,
    reason = "an allocator cannot be written without; this one only counts, and leaves the work to the system's"
)]

#[path = "../core/protocol/fuzz/exercise.rs"]
mod exercise;

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use firn::environment::Environment;
use firn::node::Node;
use firn_client::connection::{Connection, ConnectionOptions};
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::create_topics_request::CreatableTopic;
use firn_protocol::library::messages::{ApiKey, CreateTopicsRequest, MetadataRequest, TopicName};
use firn_protocol::library::protocol::StrBytes;
use firn_records::batch::{Codec, HEADER_LENGTH, LOG_OVERHEAD};
use firn_records::builder::{BatchBuilder, BatchOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const MIB: usize = 1 << 20;
/// Mutations of each frame that are drawn.
const MUTATIONS: usize = 8;
const SEED: u64 = 0x9e37_79b9_7f4a_7c15;
/// The topic that the frames of `exercise` name.
const TOPIC: &str = "firn";

/// Notes the largest block that was asked for since the last look.
struct Counting;

static LARGEST: AtomicUsize = AtomicUsize::new(0);
static PANICS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to the system's allocator with what the caller gave; noting a number allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A broker, a good client of it, and a hostile one.
struct World {
    directory: PathBuf,
    node: Node,
    good: Connection,
    hostile: Option<TcpStream>,
    too_large: Vec<String>,
    sent: usize,
}

impl World {
    async fn start() -> World {
        // A real disk: a simulated one keeps its files in memory.
        let directory = std::env::temp_dir().join(format!("firn-allocations-{}", std::process::id()));
        let text = format!(
            "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs={}\nfirn.http.port=-1\nfirn.disk.reserve.bytes=0\n\
             offsets.topic.num.partitions=1\ngroup.initial.rebalance.delay.ms=0\n",
            directory.display()
        );
        let parsed = BrokerConfig::from_properties(&properties::parse(&text).unwrap()).unwrap();
        let node = Node::start(parsed.config, Environment::system()).await.unwrap();
        let address = node.addresses[0].to_string();
        let good = Connection::connect(&address, ConnectionOptions::default()).await.unwrap();
        World { directory, node, good, hostile: None, too_large: Vec::new(), sent: 0 }
    }

    /// Sends one frame, sees it answered or the connection closed, and looks at what it made the broker take.
    async fn send(&mut self, name: &dyn Fn() -> String, frame: &[u8]) {
        let mut stream = match self.hostile.take() {
            Some(stream) => stream,
            None => TcpStream::connect(self.node.addresses[0]).await.unwrap(),
        };
        LARGEST.store(0, Ordering::Relaxed);
        // The broker may close before it has read all: that is an answer.
        let length = (frame.len() as u32).to_be_bytes();
        let written = stream.write_all(&length).await.is_ok() && stream.write_all(frame).await.is_ok();
        let answer = async {
            // A produce request may ask for no answer; whoever ends their side sees the broker end its own.
            let ends = frame.starts_with(&(ApiKey::Produce as i16).to_be_bytes());
            if ends {
                stream.shutdown().await.ok();
            }
            let mut size = [0; 4];
            stream.read_exact(&mut size).await.ok()?;
            let mut left = u64::from(u32::from_be_bytes(size));
            let mut piece = [0; 4096];
            while left > 0 {
                let room = piece.len().min(left as usize);
                left -= stream.read(&mut piece[..room]).await.ok().filter(|read| *read > 0)? as u64;
            }
            (!ends).then_some(stream)
        };
        if written {
            let answered = tokio::time::timeout(Duration::from_secs(20), answer).await;
            self.hostile = answered.unwrap_or_else(|_| panic!("neither an answer nor a close: {}", name()));
        }
        let largest = LARGEST.load(Ordering::Relaxed);
        if largest > (8 * frame.len()).max(MIB) {
            self.too_large.push(format!("{} ({} bytes): {largest} bytes at once", name(), frame.len()));
        }
        self.sent += 1;
        if self.sent.is_multiple_of(500) {
            self.good_client_is_served().await;
        }
    }

    /// Sees to it that the topic is there: among the frames are some that delete it.
    async fn create_topic(&self) {
        let topic = CreatableTopic::default()
            .with_name(TopicName(StrBytes::from_static_str(TOPIC)))
            .with_num_partitions(1)
            .with_replication_factor(1);
        let created = self.good.call(&CreateTopicsRequest::default().with_topics(vec![topic])).await.unwrap();
        let exists = ResponseError::TopicAlreadyExists.code();
        assert!([0, exists].contains(&created.topics[0].error_code), "{:?}", created.topics[0]);
    }

    async fn good_client_is_served(&self) {
        let request = MetadataRequest::default().with_topics(None);
        let answer = tokio::time::timeout(Duration::from_secs(20), self.good.call(&request)).await;
        assert_eq!(answer.expect("an answer in time").unwrap().brokers.len(), 1);
    }

    async fn end(self) {
        self.good_client_is_served().await;
        assert!(
            self.too_large.is_empty(),
            "{} of {} frames: {:#?}",
            self.too_large.len(),
            self.sent,
            self.too_large
        );
        assert_eq!(PANICS.load(Ordering::Relaxed), 0, "a task panicked");
        // Whole requests reached what they are for: a sound bomb was taken, and stored as it came.
        let end = self.node.context.partitions.by_name(TOPIC, 0).unwrap().offsets().unwrap().high_watermark;
        assert!(end > 0, "no record was taken");
        self.node.stop().await;
        std::fs::remove_dir_all(&self.directory).unwrap();
    }
}

/// A small generator of repeatable noise (xorshift).
struct Noise(u64);

impl Noise {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }

    /// `frame` with a few bytes of its body changed, gone or new.
    fn mutated(&mut self, frame: &[u8]) -> Vec<u8> {
        let mut changed = frame.to_vec();
        for _ in 0..1 + self.below(4) {
            let at = 8 + self.below(changed.len() - 8);
            match self.below(4) {
                0 => changed.insert(at, self.below(256) as u8),
                1 if changed.len() > 9 => drop(changed.remove(at)),
                _ => changed[at] = [0, 0x7f, 0x80, 0xff, self.below(256) as u8][self.below(5)],
            }
        }
        changed
    }
}

/// Produce version 3 with these records for the topic's partition.
fn produce(records: &[u8]) -> Vec<u8> {
    let mut frame = vec![0, 0, 0, 3, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0x27, 0x10];
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&(TOPIC.len() as i16).to_be_bytes());
    frame.extend_from_slice(TOPIC.as_bytes());
    frame.extend_from_slice(&1i32.to_be_bytes());
    frame.extend_from_slice(&0i32.to_be_bytes());
    frame.extend_from_slice(&(records.len() as i32).to_be_bytes());
    frame.extend_from_slice(records);
    frame
}

/// ListOffsets version 7 for the topic's partition.
fn list_offsets(timestamp: i64) -> Vec<u8> {
    let mut frame = vec![0, 2, 0, 7, 0, 0, 0, 1, 0xff, 0xff, 0, 0xff, 0xff, 0xff, 0xff, 0, 2];
    frame.push(TOPIC.len() as u8 + 1);
    frame.extend_from_slice(TOPIC.as_bytes());
    frame.push(2);
    frame.extend_from_slice(&[0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]);
    frame.extend_from_slice(&timestamp.to_be_bytes());
    frame.extend_from_slice(&[0, 0, 0]);
    frame
}

/// Batches that hold a great deal: records of zeros, and zeros that are no records.
fn bombs() -> Vec<(String, Bytes)> {
    let zeros = vec![0; 16 * MIB];
    let mut bombs = Vec::new();
    for codec in [Codec::Gzip, Codec::Snappy, Codec::Lz4, Codec::Zstd] {
        let mut builder = BatchBuilder::new(BatchOptions { codec, ..BatchOptions::default() });
        builder.push(1_700_000_000_000, None, Some(&zeros), &[]);
        let sound = builder.build().unwrap();
        let payload = firn_records::compression::compress(codec, None, &zeros).unwrap();
        bombs.push((format!("{codec:?}, zeros for records"), with_payload(&sound, &payload)));
        bombs.push((format!("{codec:?}, a block that claims all"), with_payload(&sound, &liar(codec))));
        bombs.push((format!("{codec:?}, one record"), sound));
    }
    bombs
}

/// A few bytes that say that they are very many.
fn liar(codec: Codec) -> Vec<u8> {
    match codec {
        // A single block of 2 GiB.
        Codec::Snappy => vec![0xff, 0xff, 0xff, 0xff, 0x07, 0, b'a'],
        // A frame of blocks of 4 MiB that holds 2^62 bytes.
        Codec::Lz4 => {
            let mut frame = vec![0x04, 0x22, 0x4d, 0x18, 0x68, 0x70];
            frame.extend_from_slice(&(1u64 << 62).to_le_bytes());
            frame.extend_from_slice(&[0, 5, 0, 0, 0, 0x1f, 0, 1, 0, 255]);
            frame
        }
        // A segment of a tebibyte.
        Codec::Zstd => vec![0x28, 0xb5, 0x2f, 0xfd, 0xe0, 0, 0, 0, 0, 0, 1, 0, 0, 0x01, 0, 0],
        _ => vec![0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0, 0xff, 0xff],
    }
}

/// `batch` with these bytes after its header, under a CRC that fits.
fn with_payload(batch: &Bytes, payload: &[u8]) -> Bytes {
    let mut batch = [&batch[..HEADER_LENGTH], payload].concat();
    let length = (batch.len() - LOG_OVERHEAD) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    if let Err(firn_records::batch::BatchError::WrongCrc { computed, .. }) =
        firn_records::batch::verify_crc(&batch)
    {
        batch[17..21].copy_from_slice(&computed.to_be_bytes());
    }
    batch.into()
}

/// One test, for what it counts is the process's.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_that_is_sent_makes_the_broker_take_more_than_its_share() {
    let default_hook = std::panic::take_hook();
    let mut world = World::start().await;
    std::panic::set_hook(Box::new(move |panicked| {
        PANICS.fetch_add(1, Ordering::Relaxed);
        default_hook(panicked);
    }));
    for (name, frame) in exercise::known_bad() {
        world.send(&|| name.to_owned(), &frame).await;
    }
    let mut noise = Noise(SEED);
    for sample in exercise::samples() {
        let told = |what: &str| format!("{:?} version {}, {what}", sample.api, sample.version);
        world.create_topic().await;
        world.send(&|| told("as it should be"), &sample.frame).await;
        for length in &sample.lengths {
            for lie in length.lies(&sample.frame) {
                world.send(&|| told(&format!("{length:?} lies: {lie:x?}")), &lie).await;
            }
        }
        for cut in [9, sample.frame.len() / 2, sample.frame.len() - 1] {
            world
                .send(&|| told(&format!("cut at {cut}")), &sample.frame[..cut.min(sample.frame.len())])
                .await;
        }
        for _ in 0..MUTATIONS {
            let changed = noise.mutated(&sample.frame);
            world.send(&|| told(&format!("changed: {changed:x?}")), &changed).await;
        }
    }
    world.create_topic().await;
    for (name, batch) in bombs() {
        let frame = produce(&batch);
        assert!(frame.len() < MIB, "{name} would be refused for its size");
        world.send(&|| name.clone(), &frame).await;
    }
    // Looking into what was stored takes no more.
    for (what, timestamp) in [("by time", 1_700_000_000_000i64), ("the greatest time", -3)] {
        world.send(&|| format!("an offset {what}"), &list_offsets(timestamp)).await;
        assert!(world.hostile.is_some(), "an answer, not a close");
    }
    world.end().await;
}
