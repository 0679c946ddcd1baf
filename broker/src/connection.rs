//! One client's connection: frames in, replies out, in the order of the requests.
//!
//! Requests run one after another, as every Kafka client expects, with one exception: a produce request has done its
//! work once its records are appended, and only its reply waits for them to be durable. So the next produce request is
//! read and appended meanwhile, and one fsync serves all that wait (group commit). Any other request waits until the
//! replies before it have left.
//!
//! A connection that waits for bytes holds no buffer, and one that receives a frame holds memory in proportion to what
//! has arrived, never to what a length promises.

use std::collections::VecDeque;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::api::{self, Answer, ApiError, LaterReply};
use crate::frame_buffer::FrameBuffer;
use crate::lobby::Lobby;
use crate::net::{Chunk, Stream};

/// Most produce requests of one connection whose replies wait at a time.
const REPLIES_WAITING_MAX: usize = 64;
/// How long a connection keeps its buffer while nothing comes.
const BUFFER_KEPT: Duration = Duration::from_secs(1);
/// How often a client that stops in the middle of a large frame, or of a reply, is looked at.
const PACE_CHECKED: Duration = Duration::from_secs(1);
/// How long a client may stop reading a reply that holds records in memory while others wait for memory.
const STALL_MAX: Duration = Duration::from_secs(5);

/// Why a connection ended, when the client did not simply leave.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("frame length {length} is outside 0..={max} (socket.request.max.bytes)")]
    FrameLength { length: i32, max: usize },
    #[error("the client speaks {0}, and this listener Kafka's protocol in the clear")]
    Foreign(&'static str),
    #[error(transparent)]
    Request(#[from] ApiError),
    #[error("idle for {0:?} (connections.max.idle.ms)")]
    Idle(Duration),
    #[error(
        "{arrived} bytes of a frame came while {waited:?} were waited for more, and other requests wait for their memory (queued.max.request.bytes)"
    )]
    TooSlow { arrived: usize, waited: Duration },
    #[error(
        "read nothing of its reply for {0:?}, and others wait for the memory of the records in it (firn.fetch.records.bytes)"
    )]
    Stalled(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the handlers know of the connection that a request came from.
#[derive(Debug, Clone)]
pub struct Peer {
    pub address: SocketAddr,
    /// Name of the listener that the client came in by.
    pub listener: Arc<str>,
}

/// Serves one connection until the client leaves, breaks the protocol or `shutdown` is called.
pub async fn serve(
    stream: Stream,
    peer: Peer,
    lobby: Arc<Lobby>,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    let network = &lobby.config().network;
    let request_bytes_max = usize::try_from(network.socket_request_max_bytes).unwrap_or(0);
    let idle_max =
        network.connections_max_idle_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let mut connection = Connection {
        stream,
        peer,
        frames: FrameBuffer::new(request_bytes_max, lobby.request_memory.clone()),
        lobby,
        idle_max: idle_max.unwrap_or(Duration::MAX),
        waiting: VecDeque::new(),
    };
    tokio::select! {
        result = connection.run() => result,
        () = shutdown.cancelled() => Ok(()),
    }
}

struct Connection {
    stream: Stream,
    peer: Peer,
    lobby: Arc<Lobby>,
    frames: FrameBuffer,
    idle_max: Duration,
    /// Replies to produce requests whose records are appended, oldest first.
    waiting: VecDeque<LaterReply>,
}

impl Connection {
    async fn run(&mut self) -> Result<(), ConnectionError> {
        while let Some(frame) = self.next_frame().await? {
            if !api::may_overlap(&frame) {
                self.write_waiting().await?;
            }
            match api::receive(&self.lobby, &self.peer, frame).await? {
                Answer::Now(chunks) => {
                    self.write_waiting().await?;
                    self.write(chunks).await?;
                }
                Answer::Later(reply) => self.waiting.push_back(reply),
                Answer::None => {}
            }
            self.frames.make_way();
            if self.waiting.len() >= REPLIES_WAITING_MAX {
                self.write_oldest().await?;
            }
        }
        self.write_waiting().await
    }

    async fn write_waiting(&mut self) -> Result<(), ConnectionError> {
        while !self.waiting.is_empty() {
            self.write_oldest().await?;
        }
        Ok(())
    }

    async fn write_oldest(&mut self) -> Result<(), ConnectionError> {
        // Taken out only once it is ready, so that a cancelled wait loses nothing.
        let Some(reply) = self.waiting.front_mut() else { return Ok(()) };
        let chunks = reply.await;
        self.waiting.pop_front();
        self.write(chunks?).await
    }

    /// Writes a reply to a client that reads it, however slowly. One that has stopped is idle.
    async fn write(&mut self, chunks: Vec<Chunk>) -> Result<(), ConnectionError> {
        let has_records = chunks.iter().any(|chunk| matches!(chunk, Chunk::Records(_)));
        let mut writing = std::pin::pin!(self.stream.write(chunks));
        let (mut written, mut since) = (self.stream.written(), Instant::now());
        loop {
            tokio::select! {
                biased;
                done = &mut writing => return Ok(done?),
                () = tokio::time::sleep(PACE_CHECKED.min(self.idle_max)) => {}
            }
            if self.stream.written() != written {
                (written, since) = (self.stream.written(), Instant::now());
                continue;
            }
            let stalled = since.elapsed();
            if stalled >= self.idle_max {
                return Err(ConnectionError::Idle(stalled));
            }
            if has_records && stalled >= STALL_MAX && self.lobby.record_memory.is_short() {
                return Err(ConnectionError::Stalled(stalled));
            }
        }
    }

    /// The next whole frame, without its length; `None` when the client has left between two frames.
    /// Replies that become ready meanwhile are written.
    async fn next_frame(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        loop {
            if let Some(frame) = self.frames.take_frame()? {
                return Ok(Some(frame));
            }
            match self.waiting.front_mut() {
                Some(reply) => tokio::select! {
                    biased;
                    chunks = reply => {
                        self.waiting.pop_front();
                        self.write(chunks?).await?;
                        continue;
                    }
                    ready = self.stream.readable() => ready?,
                },
                None => self.wait_readable().await?,
            }
            if !self.frames.try_make_room()? {
                self.write_waiting().await?;
                self.frames.make_room().await?;
            }
            match self.frames.fill(&self.stream) {
                Ok(0) if self.frames.is_empty() => return Ok(None),
                Ok(0) => return Err(ConnectionError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(ConnectionError::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Waits for bytes, at most as long as a connection may be idle. A busy connection keeps its buffer for the next
    /// frame; a quiet one gives it back, and one that stops in the middle of a frame may have to.
    async fn wait_readable(&mut self) -> Result<(), ConnectionError> {
        let idle = self.idle_max;
        if self.frames.is_empty() && self.frames.is_allocated() {
            if let Ok(ready) = tokio::time::timeout(BUFFER_KEPT.min(idle), self.stream.readable()).await {
                return Ok(ready?);
            }
            self.frames.release();
        }
        if !self.frames.has_share() {
            return match tokio::time::timeout(idle, self.stream.readable()).await {
                Ok(ready) => Ok(ready?),
                Err(_) => Err(ConnectionError::Idle(idle)),
            };
        }
        let began = Instant::now();
        let mut counted = Duration::ZERO;
        loop {
            let ready = tokio::time::timeout(PACE_CHECKED.min(idle), self.stream.readable()).await;
            let waited = began.elapsed();
            self.frames.waited(waited - counted)?;
            counted = waited;
            match ready {
                Ok(ready) => return Ok(ready?),
                Err(_) if waited >= idle => return Err(ConnectionError::Idle(idle)),
                Err(_) => {}
            }
        }
    }
}
