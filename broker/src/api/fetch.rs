//! Fetch (KIP-74, KIP-227, KIP-516): batches out, from the page cache or from the tier.
//!
//! A request that finds too little waits until a partition's high watermark moves or `max_wait_ms` is over. The reply
//! names ranges of log files, and the connection sends those from the page cache, without a copy if they are large.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use firn_model::ids::TopicId;
use firn_protocol::fetch_response::{self, FetchReply, FetchedPartition, FetchedTopic, Node, Piece};
use firn_protocol::frame::{Request, RequestHeader};
use firn_protocol::library::error::ResponseError;
use firn_protocol::library::messages::{ApiKey, FetchRequest};
use firn_records::batch;
use firn_records::legacy::{self, MessageFormat};
use firn_storage::read::LogSlice;
use tokio::sync::Notify;
use tokio::time::Instant;
use uuid::Uuid;

use crate::api::errors::Failure;
use crate::api::leaders::{Leaders, Named};
use crate::api::{Answer, ApiError};
use crate::connection::Peer;
use crate::context::Context;
use crate::fetch_sessions::{PartitionKey, SessionError, SessionUse};
use crate::milliseconds::milliseconds;
use crate::net::Chunk;
use crate::partition::{Isolation, Offsets, Partition, Watched};

mod reading;
mod replica;
use reading::{Budget, Read, read_all, read_one};

/// The version from which on topics are known by their ids (KIP-516).
const TOPIC_IDS_SINCE: i16 = 13;
/// The version from which on followers serve clients, too, and leaders send them there (KIP-392).
const FOLLOWERS_SINCE: i16 = 11;
/// The version from which on a client that is wrong about a leader is told who it is, and where (KIP-951).
const LEADERS_SINCE: i16 = 16;

/// One partition that the client wants, as the request or its session names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    pub name: Arc<str>,
    pub topic_id: Uuid,
    pub partition: i32,
    pub fetch_offset: i64,
    pub max_bytes: usize,
    pub current_leader_epoch: i32,
    pub last_fetched_epoch: i32,
}

impl Wanted {
    pub fn key(&self) -> PartitionKey {
        (self.name.clone(), self.topic_id, self.partition)
    }
}

/// What a session's client knows of a partition: it is told again when this changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub high_watermark: i64,
    pub last_stable: i64,
    pub log_start: i64,
}

/// Batches of one partition.
#[derive(Debug, Clone)]
enum Found {
    Local(LogSlice),
    Bytes(Bytes),
    /// None: the client follows another history than this log's, and learns where they part (KIP-595).
    Diverged {
        epoch: i32,
        end_offset: i64,
    },
    /// None: a broker of the client's own rack has them, too (KIP-392).
    Elsewhere(i32),
}

impl Found {
    fn len(&self) -> usize {
        match self {
            Found::Local(slice) => slice.len,
            Found::Bytes(bytes) => bytes.len(),
            Found::Diverged { .. } | Found::Elsewhere(_) => 0,
        }
    }

    fn bytes(&self) -> Result<Bytes, Failure> {
        match self {
            Found::Local(slice) => slice.read().map_err(|error| {
                Failure::new(ResponseError::KafkaStorageError, format!("cannot read the log: {error}"))
            }),
            Found::Bytes(bytes) => Ok(bytes.clone()),
            Found::Diverged { .. } | Found::Elsewhere(_) => Ok(Bytes::new()),
        }
    }

    fn chunk(self) -> Chunk {
        match self {
            Found::Local(slice) => Chunk::Log(slice),
            Found::Bytes(bytes) => Chunk::Records(bytes),
            Found::Diverged { .. } | Found::Elsewhere(_) => Chunk::Records(Bytes::new()),
        }
    }
}

/// What one partition gave.
type Fetched = Result<(Offsets, Found), Failure>;

/// The bounds of one request.
#[derive(Debug, Clone, Copy)]
struct Bounds<'a> {
    min_bytes: usize,
    max_bytes: usize,
    isolation: Isolation,
    version: i16,
    /// The brokers that are nearer to the client than this one.
    nearer: &'a [i32],
}

pub async fn handle(context: &Arc<Context>, peer: &Peer, request: Request) -> Result<Answer, ApiError> {
    let header = request.header.clone();
    let fetch: FetchRequest = request.decode(ApiKey::Fetch)?;
    let limit = context.config().network.fetch_max_bytes;
    let bounds = Bounds {
        min_bytes: usize::try_from(fetch.min_bytes).unwrap_or(0),
        max_bytes: usize::try_from(fetch.max_bytes.min(limit)).unwrap_or(0),
        isolation: match fetch.isolation_level {
            1 => Isolation::ReadCommitted,
            _ => Isolation::ReadUncommitted,
        },
        version: header.api_version,
        nearer: &nearer(context, &fetch.rack_id),
    };
    if fetch.replica_state.replica_id.0 >= 0 {
        return Ok(Answer::Now(replica::fetch(context, fetch, bounds, &header).await));
    }
    let wait = milliseconds(fetch.max_wait_ms);
    let forgotten: Vec<PartitionKey> = fetch
        .forgotten_topics_data
        .iter()
        .flat_map(|topic| {
            let name: Arc<str> = Arc::from(topic.topic.as_str());
            topic.partitions.iter().map(move |index| (name.clone(), topic.topic_id, *index))
        })
        .collect();
    let asked = wanted(&fetch);
    let taken = context.fetch_sessions.lock().request(
        (fetch.session_id, fetch.session_epoch),
        header.api_version >= TOPIC_IDS_SINCE,
        asked,
        &forgotten,
        context.now_ms(),
        || context.environment.random.bits(),
    );
    let (session, all) = match taken {
        Ok(taken) => taken,
        Err(error) => return Ok(Answer::Now(session_refused(error, &header))),
    };
    let old = old_format(header.api_version);
    let bounds = match old {
        Some(_) => Bounds { max_bytes: bounds.max_bytes.min(CONVERTED_BYTES_MAX), ..bounds },
        None => bounds,
    };
    let mut fetched = gather(context, &all, bounds, wait).await;
    if let Some(format) = old {
        let limit = usize::try_from(context.config().network.batch_decompressed_max_bytes).unwrap_or(0);
        fetched = downconverted(context, &all, fetched, bounds, OldClient { format, limit }).await;
    }
    Ok(Answer::Now(reply(context, peer, session, &all, fetched, bounds, &header)))
}

/// Most bytes of batches that are converted for one reply. The result lies in memory until the client has read it.
const CONVERTED_BYTES_MAX: usize = 4 << 20;
/// How long a conversion waits for memory that replies of others hold.
const CONVERSION_PATIENCE: Duration = Duration::from_millis(500);

/// The message format that a client before batches reads.
fn old_format(version: i16) -> Option<MessageFormat> {
    match version {
        0 | 1 => Some(MessageFormat::V0),
        2 | 3 => Some(MessageFormat::V1),
        _ => None,
    }
}

/// What a client before batches reads, and how much one batch may hold once decompressed.
#[derive(Debug, Clone, Copy)]
struct OldClient {
    format: MessageFormat,
    limit: usize,
}

/// The same records in an old format.
async fn downconverted(
    context: &Context,
    wanted: &[Wanted],
    all: Vec<Fetched>,
    bounds: Bounds<'_>,
    client: OldClient,
) -> Vec<Fetched> {
    let mut converted = Vec::with_capacity(all.len());
    for (wanted, fetched) in wanted.iter().zip(all) {
        converted.push(match fetched {
            Ok((offsets, found)) => downconvert_one(context, wanted, offsets, found, bounds, client).await,
            Err(failure) => Err(failure),
        });
    }
    converted
}

/// One partition's records in an old format. Where the client can see none of what was found (the markers of
/// transactions alone), it would ask for the same offset for ever: so more is read on its behalf.
async fn downconvert_one(
    context: &Context,
    wanted: &Wanted,
    mut offsets: Offsets,
    mut found: Found,
    bounds: Bounds<'_>,
    OldClient { format, limit }: OldClient,
) -> Fetched {
    if found.len() == 0 {
        return Ok((offsets, found));
    }
    let mut wanted = wanted.clone();
    loop {
        let from = wanted.fetch_offset;
        let reserved = context.record_memory.reserve(found.len());
        let Ok(memory) = tokio::time::timeout(CONVERSION_PATIENCE, reserved).await else {
            // The client asks again.
            return Ok((offsets, Found::Bytes(Bytes::new())));
        };
        // It reads, decompresses and compresses, so it runs where that may take its time.
        let converted = firn_blocking::run(move || {
            let bytes = found.bytes()?;
            // The last batch may be cut short, as new clients expect; an old one gets whole messages.
            let whole: usize =
                batch::batches(&bytes).map_while(Result::ok).map(|(_, batch)| batch.len()).sum();
            legacy::downconvert(&bytes[..whole], format, from, limit).map_err(Failure::from)
        })
        .await?;
        match converted.next_offset {
            Some(next) if converted.messages.is_empty() && next > from => wanted.fetch_offset = next,
            _ => return Ok((offsets, Found::Bytes(memory.hold(converted.messages)))),
        }
        let partition = locate(context, &wanted, bounds.version)?;
        let budget = Budget { bytes: wanted.max_bytes, at_least_one: true };
        (offsets, found) = read_one(context, &partition, &wanted, bounds, budget).await?;
    }
}

fn wanted(fetch: &FetchRequest) -> Vec<Wanted> {
    let mut wanted = Vec::new();
    for topic in &fetch.topics {
        let name: Arc<str> = Arc::from(topic.topic.as_str());
        for partition in &topic.partitions {
            wanted.push(Wanted {
                name: name.clone(),
                topic_id: topic.topic_id,
                partition: partition.partition,
                fetch_offset: partition.fetch_offset,
                max_bytes: usize::try_from(partition.partition_max_bytes).unwrap_or(0),
                current_leader_epoch: partition.current_leader_epoch,
                last_fetched_epoch: partition.last_fetched_epoch,
            });
        }
    }
    wanted
}

fn session_refused(error: SessionError, header: &RequestHeader) -> Vec<Chunk> {
    let code = match error {
        SessionError::NotFound => ResponseError::FetchSessionIdNotFound,
        SessionError::InvalidEpoch => ResponseError::InvalidFetchSessionEpoch,
        SessionError::TopicIds => ResponseError::FetchSessionTopicIdError,
    };
    refused(code, header)
}

fn refused(code: ResponseError, header: &RequestHeader) -> Vec<Chunk> {
    let reply = FetchReply { error_code: code.code(), ..FetchReply::default() };
    chunks(fetch_response::encode(&reply, header.api_version, header.correlation_id), Vec::new())
}

/// Puts the reply together; in a session, only what its client does not know.
fn reply(
    context: &Context,
    peer: &Peer,
    session: SessionUse,
    wanted: &[Wanted],
    fetched: Vec<Fetched>,
    bounds: Bounds<'_>,
    header: &RequestHeader,
) -> Vec<Chunk> {
    let mut reply = FetchReply::default();
    let mut found = Vec::new();
    let mut leaders = None;
    let mut sessions = context.fetch_sessions.lock();
    let aborted = (bounds.isolation == Isolation::ReadCommitted).then(Vec::new);
    for (wanted, fetched) in wanted.iter().zip(fetched) {
        let (error_code, offsets, records) = match fetched {
            Ok((offsets, found)) => (0, Some(offsets), Some(found)),
            Err(failure) => (failure.code.code(), None, None),
        };
        let mut part = part(wanted.partition, error_code, offsets, records.as_ref());
        part.aborted_transactions = aborted.clone();
        if let SessionUse::Session { id, new } = session {
            reply.session_id = id;
            let seen = Seen {
                high_watermark: part.high_watermark,
                last_stable: part.last_stable_offset,
                log_start: part.log_start_offset,
            };
            let always = part.error_code != 0
                || part.records_length > 0
                || part.diverging_epoch.is_some()
                || part.preferred_read_replica.is_some();
            if !sessions.is_news(id, &wanted.key(), seen, always) && !new {
                continue;
            }
        }
        if header.api_version >= LEADERS_SINCE && is_led_elsewhere(part.error_code) {
            let leaders = leaders.get_or_insert_with(|| Leaders::new(context, peer));
            part.current_leader = leaders.of((&wanted.name, wanted.topic_id, wanted.partition));
        }
        found.push(records);
        match reply.topics.last_mut() {
            Some(topic) if topic.name == *wanted.name && topic.id == wanted.topic_id => {
                topic.partitions.push(part)
            }
            _ => reply.topics.push(FetchedTopic {
                name: wanted.name.to_string(),
                id: wanted.topic_id,
                partitions: vec![part],
            }),
        }
    }
    drop(sessions);
    let nodes = leaders.iter().flat_map(Leaders::named).map(|Named { id, endpoint, rack }| Node {
        id,
        host: endpoint.host.clone(),
        port: i32::from(endpoint.port),
        rack: rack.map(str::to_owned),
    });
    reply.nodes = nodes.collect();
    chunks(fetch_response::encode(&reply, header.api_version, header.correlation_id), found)
}

/// Whether the client is wrong about the leader.
fn is_led_elsewhere(error_code: i16) -> bool {
    let wrong = [ResponseError::NotLeaderOrFollower, ResponseError::FencedLeaderEpoch];
    wrong.iter().any(|error| error.code() == error_code)
}

fn part(index: i32, error_code: i16, offsets: Option<Offsets>, found: Option<&Found>) -> FetchedPartition {
    let offset = |of: fn(Offsets) -> i64| offsets.map_or(-1, of);
    let diverging_epoch = match found {
        Some(Found::Diverged { epoch, end_offset }) => Some((*epoch, *end_offset)),
        _ => None,
    };
    FetchedPartition {
        index,
        error_code,
        high_watermark: offset(|offsets| offsets.high_watermark),
        last_stable_offset: offset(|offsets| offsets.last_stable),
        log_start_offset: offset(|offsets| offsets.log_start),
        aborted_transactions: None,
        records_length: found.map_or(0, Found::len),
        diverging_epoch,
        current_leader: None,
        preferred_read_replica: match found {
            Some(Found::Elsewhere(broker)) => Some(*broker),
            _ => None,
        },
        tiered: None,
    }
}

fn chunks(pieces: Vec<Piece>, mut found: Vec<Option<Found>>) -> Vec<Chunk> {
    let chunk = |piece| match piece {
        Piece::Bytes(bytes) => Some(Chunk::Bytes(bytes)),
        Piece::Records(index) => found.get_mut(index)?.take().map(Found::chunk),
    };
    pieces.into_iter().filter_map(chunk).collect()
}

/// Fetches until there is enough or the wait is over.
async fn gather(context: &Context, wanted: &[Wanted], bounds: Bounds<'_>, wait: Duration) -> Vec<Fetched> {
    let deadline = Instant::now() + wait;
    let partitions: Vec<_> = wanted.iter().map(|wanted| locate(context, wanted, bounds.version)).collect();
    let mut fetched = wait_for_enough(context, wanted, &partitions, bounds, deadline).await;
    for ((partition, fetched), wanted) in partitions.iter().zip(&mut fetched).zip(wanted) {
        let Ok(partition) = partition else { continue };
        if let Err(failure) = fetched
            && let Err(gone) = locate(context, wanted, bounds.version)
        {
            // Its topic was deleted while records of it were waited for.
            *failure = Failure { code: ResponseError::UnknownTopicOrPartition, ..gone };
        }
        partition.traffic.fetch_requests.inc();
        match fetched {
            Ok((_, found)) => partition.traffic.bytes_out.inc_by(found.len() as u64),
            Err(_) => partition.traffic.failed_fetch_requests.inc(),
        }
    }
    fetched
}

async fn wait_for_enough(
    context: &Context,
    wanted: &[Wanted],
    partitions: &[Result<Arc<Partition>, Failure>],
    bounds: Bounds<'_>,
    deadline: Instant,
) -> Vec<Fetched> {
    let wake = Arc::new(Notify::new());
    let mut watches = Vec::new();
    loop {
        let Read { fetched, some_on_their_way } = read_all(context, wanted, partitions, bounds).await;
        let size: usize = fetched.iter().flatten().map(|(_, found)| found.len()).sum();
        // A partition that is not here may be named by every fetch until the client has new metadata: it is no reason
        // to answer at once. A read that failed is, and so is a request that names nothing which can be waited for.
        let failed = partitions.iter().zip(&fetched).any(|(found, read)| found.is_ok() && read.is_err());
        let is_told = |found: &Found| matches!(found, Found::Diverged { .. } | Found::Elsewhere(_));
        let told = fetched.iter().flatten().any(|(_, found)| is_told(found));
        let nothing_to_wait_for = partitions.iter().all(Result::is_err);
        let answer = failed || told || nothing_to_wait_for || size >= bounds.min_bytes;
        // What is on its way from the store has been waited for: the client asks again and finds it there.
        if answer || some_on_their_way || Instant::now() >= deadline {
            return fetched;
        }
        if watches.is_empty() {
            // What came between the read and the watches wakes nobody: look once more before waiting.
            let all = partitions.iter().flatten();
            watches.extend(all.map(|partition| partition.watch(Watched::Committed, &wake)));
            continue;
        }
        if tokio::time::timeout_at(deadline, wake.notified()).await.is_err() {
            return read_all(context, wanted, partitions, bounds).await.fetched;
        }
    }
}

/// Fences a client that follows an older leader, and tells one that knows of a newer (KIP-320).
pub fn check_leader_epoch(partition: &Partition, client: i32) -> Result<(), Failure> {
    let ours = partition.leader_epoch();
    if client < 0 || client == ours {
        return Ok(());
    }
    let code =
        if client < ours { ResponseError::FencedLeaderEpoch } else { ResponseError::UnknownLeaderEpoch };
    Err(Failure::new(
        code,
        format!("{}: the leader epoch is {ours}, the request has {client}", partition.name),
    ))
}

fn locate(context: &Context, wanted: &Wanted, version: i16) -> Result<Arc<Partition>, Failure> {
    Ok(if version >= TOPIC_IDS_SINCE {
        context.readable_by_id(TopicId(wanted.topic_id), wanted.partition)?
    } else if version >= FOLLOWERS_SINCE {
        context.readable(&wanted.name, wanted.partition)?
    } else {
        context.led(&wanted.name, wanted.partition)?
    })
}

/// The brokers of the client's rack, if it is another than this one's.
fn nearer(context: &Context, rack: &str) -> Vec<i32> {
    let config = context.config();
    if rack.is_empty() || !config.replica.reads_within_racks || config.rack.as_deref() == Some(rack) {
        return Vec::new();
    }
    let image = context.controller.image();
    let of_rack = image.brokers().filter(|broker| !broker.fenced && broker.rack.as_deref() == Some(rack));
    of_rack.map(|broker| broker.id).collect()
}
