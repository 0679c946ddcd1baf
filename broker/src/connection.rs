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

use bytes::{Buf, Bytes, BytesMut};
use tokio_util::sync::CancellationToken;

use crate::api::{self, Answer, ApiError, LaterReply};
use crate::context::Context;
use crate::net::Stream;

/// First buffer of a connection that has something to say.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// Bytes of a frame that must have arrived before the buffer grows in larger steps.
const BUFFER_BYTES_TRUSTED: usize = 64 << 10;
/// How many times what has arrived a buffer may be, once a client has shown that it sends.
const BUFFER_GROWTH: usize = 16;
/// Most produce requests of one connection whose replies wait at a time.
const REPLIES_WAITING_MAX: usize = 64;
/// How long a connection keeps its buffer while nothing comes.
const BUFFER_KEPT: Duration = Duration::from_secs(1);

/// Why a connection ended, when the client did not simply leave.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    #[error("frame length {length} is outside 0..={max} (socket.request.max.bytes)")]
    FrameLength { length: i32, max: usize },
    #[error(transparent)]
    Request(#[from] ApiError),
    #[error("idle for {0:?} (connections.max.idle.ms)")]
    Idle(Duration),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// What the handlers know of the connection that a request came from.
#[derive(Debug, Clone, Copy)]
pub struct Peer {
    pub address: SocketAddr,
}

/// Serves one connection until the client leaves, breaks the protocol or `shutdown` is called.
pub async fn serve(
    stream: Stream,
    peer: Peer,
    context: Arc<Context>,
    shutdown: CancellationToken,
) -> Result<(), ConnectionError> {
    let network = &context.config().network;
    let request_bytes_max = usize::try_from(network.socket_request_max_bytes).unwrap_or(0);
    let idle_max =
        network.connections_max_idle_ms.and_then(|ms| u64::try_from(ms).ok()).map(Duration::from_millis);
    let mut connection = Connection {
        stream,
        peer,
        context,
        request_bytes_max,
        idle_max: idle_max.unwrap_or(Duration::MAX),
        buffer: BytesMut::new(),
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
    context: Arc<Context>,
    request_bytes_max: usize,
    idle_max: Duration,
    buffer: BytesMut,
    /// Replies to produce requests whose records are appended, oldest first.
    waiting: VecDeque<LaterReply>,
}

impl Connection {
    async fn run(&mut self) -> Result<(), ConnectionError> {
        while let Some(frame) = self.next_frame().await? {
            if !api::may_overlap(&frame) {
                self.write_waiting().await?;
            }
            match api::handle(&self.context, self.peer, frame).await? {
                Answer::Now(chunks) => {
                    self.write_waiting().await?;
                    self.stream.write(chunks).await?;
                }
                Answer::Later(reply) => self.waiting.push_back(reply),
                Answer::None => {}
            }
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
        self.stream.write(chunks?).await?;
        Ok(())
    }

    /// The next whole frame, without its length; `None` when the client has left between two frames.
    /// Replies that become ready meanwhile are written.
    async fn next_frame(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        loop {
            if let Some(length) = self.frame_length()?
                && self.buffer.len() >= 4 + length
            {
                self.buffer.advance(4);
                return Ok(Some(self.buffer.split_to(length).freeze()));
            }
            match self.waiting.front_mut() {
                Some(reply) => tokio::select! {
                    biased;
                    chunks = reply => {
                        self.waiting.pop_front();
                        self.stream.write(chunks?).await?;
                        continue;
                    }
                    ready = self.stream.readable() => ready?,
                },
                None => self.wait_readable().await?,
            }
            match self.fill() {
                Ok(0) if self.buffer.is_empty() => return Ok(None),
                Ok(0) => return Err(ConnectionError::Io(io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Waits for bytes, at most as long as a connection may be idle. A busy connection keeps its buffer for the next
    /// frame; a quiet one gives it back.
    async fn wait_readable(&mut self) -> Result<(), ConnectionError> {
        let idle = self.idle_max;
        if self.buffer.is_empty() && self.buffer.capacity() > 0 {
            if let Ok(ready) = tokio::time::timeout(BUFFER_KEPT.min(idle), self.stream.readable()).await {
                return Ok(ready?);
            }
            self.buffer = BytesMut::new();
        }
        match tokio::time::timeout(idle, self.stream.readable()).await {
            Ok(ready) => Ok(ready?),
            Err(_) => Err(ConnectionError::Idle(idle)),
        }
    }

    /// Length of the frame that the buffer begins with, once its four bytes are there and within the limit.
    fn frame_length(&self) -> Result<Option<usize>, ConnectionError> {
        let Some(prefix) = self.buffer.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let max = self.request_bytes_max;
        match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Some(length)),
            _ => Err(ConnectionError::FrameLength { length, max }),
        }
    }

    /// Reads once, what is there. Inside a frame it reads no further than that frame's end, so that the frame can be
    /// handed on without copying what follows it.
    fn fill(&mut self) -> io::Result<usize> {
        let arrived = self.buffer.len();
        let missing =
            self.buffer.first_chunk::<4>().map(|prefix| (i32::from_be_bytes(*prefix) as usize + 4) - arrived);
        let room = room_for(arrived, missing);
        // `reserve` takes back the memory of the frames before, once nobody holds them.
        self.buffer.reserve(room);
        let limit = missing.unwrap_or(BUFFER_BYTES_FIRST);
        self.stream.try_read(&mut self.buffer, limit)
    }
}

/// Bytes to make room for when `arrived` bytes of a frame are there and `missing` are not (`None`: its length is not
/// there yet).
fn room_for(arrived: usize, missing: Option<usize>) -> usize {
    match missing {
        None => BUFFER_BYTES_FIRST,
        Some(missing) if arrived < BUFFER_BYTES_TRUSTED => missing.min(BUFFER_BYTES_TRUSTED),
        Some(missing) => missing.min(arrived * BUFFER_GROWTH),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_grows_with_what_has_arrived_and_never_with_what_was_promised() {
        assert_eq!(room_for(0, None), BUFFER_BYTES_FIRST);
        assert_eq!(room_for(4, Some(100)), 100);
        assert_eq!(room_for(4, Some(100 << 20)), BUFFER_BYTES_TRUSTED);
        assert_eq!(room_for(BUFFER_BYTES_TRUSTED, Some(900 << 10)), 900 << 10);
        assert_eq!(room_for(BUFFER_BYTES_TRUSTED, Some(100 << 20)), 1 << 20);
    }
}
