//! A connection over anything that reads and writes bytes: what the system's sockets are not.

use std::fmt::Debug;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, ReadHalf, WriteHalf};

/// Bytes in both directions.
pub trait ByteStream: AsyncRead + AsyncWrite + Send + Unpin + Debug {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin + Debug> ByteStream for T {}

/// Bytes that are read ahead of what is asked for.
const AHEAD_BYTES_MAX: usize = 16 << 10;

/// What a socket tells by itself is kept here: what has arrived, and whether more will.
#[derive(Debug)]
pub struct Halves {
    incoming: Mutex<Incoming>,
    outgoing: tokio::sync::Mutex<WriteHalf<Box<dyn ByteStream>>>,
}

#[derive(Debug)]
struct Incoming {
    stream: ReadHalf<Box<dyn ByteStream>>,
    arrived: BytesMut,
    ended: bool,
}

impl Halves {
    pub fn new(stream: Box<dyn ByteStream>) -> Self {
        let (stream, outgoing) = tokio::io::split(stream);
        let incoming = Incoming { stream, arrived: BytesMut::new(), ended: false };
        Self { incoming: Mutex::new(incoming), outgoing: tokio::sync::Mutex::new(outgoing) }
    }

    pub async fn readable(&self) -> io::Result<()> {
        std::future::poll_fn(|context| self.incoming.lock().poll_arrived(context)).await
    }

    /// As `Stream::try_read`.
    pub fn try_read(&self, buffer: &mut BytesMut, limit: usize) -> io::Result<usize> {
        let incoming = &mut *self.incoming.lock();
        let count = incoming.arrived.len().min(limit);
        if count == 0 {
            return if incoming.ended { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
        }
        buffer.extend_from_slice(&incoming.arrived[..count]);
        incoming.arrived.advance(count);
        Ok(count)
    }

    pub async fn write(&self, mut bytes: Bytes, mut written: impl FnMut(usize)) -> io::Result<()> {
        let mut outgoing = self.outgoing.lock().await;
        while bytes.has_remaining() {
            match outgoing.write_buf(&mut bytes).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => written(count),
            }
        }
        Ok(())
    }
}

impl Incoming {
    fn poll_arrived(&mut self, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.ended || !self.arrived.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut bytes = [0; AHEAD_BYTES_MAX];
        let mut read = ReadBuf::new(&mut bytes);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        self.ended = read.filled().is_empty();
        self.arrived.extend_from_slice(read.filled());
        Poll::Ready(Ok(()))
    }
}
