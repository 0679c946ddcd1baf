//! The bytes of one connection's frames: as many as have arrived, in memory that follows them.
//!
//! A buffer is never more than a few times what has arrived, whatever a length promises, and what it takes beyond its
//! first kilobytes is a share of the memory for requests (`request_memory`), held until the frame has been worked on.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};

use crate::connection::ConnectionError;
use crate::net::Stream;
use crate::request_memory::{RequestMemory, Share};

/// First buffer of a connection that has something to say: not counted, for each connection has a task of that size.
const BUFFER_BYTES_FIRST: usize = 4 << 10;
/// Bytes of a frame that must have arrived before the buffer grows in larger steps.
const BUFFER_BYTES_TRUSTED: usize = 64 << 10;
/// How many times what has arrived is made room for, once a client has shown that it sends.
const BUFFER_GROWTH: usize = 7;

/// See the module.
#[derive(Debug)]
pub struct FrameBuffer {
    bytes: BytesMut,
    frame_bytes_max: usize,
    share: Share,
    /// How long the rest of the frame at the front has been waited for, since it needed a share.
    waited: Duration,
}

impl FrameBuffer {
    /// A buffer for frames of at most `frame_bytes_max` bytes (`socket.request.max.bytes`).
    pub fn new(frame_bytes_max: usize, memory: Arc<RequestMemory>) -> Self {
        Self { bytes: BytesMut::new(), frame_bytes_max, share: Share::of(memory), waited: Duration::ZERO }
    }

    /// True when nothing of a next frame has arrived.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// True while it holds memory, used or not.
    pub fn is_allocated(&self) -> bool {
        self.bytes.capacity() > 0
    }

    /// True while it holds memory that other connections may want.
    pub fn has_share(&self) -> bool {
        !self.share.is_empty()
    }

    /// The next whole frame, without its length; `None` while it has not arrived.
    pub fn take_frame(&mut self) -> Result<Option<Bytes>, ConnectionError> {
        let Some(length) = self.frame_length()? else { return Ok(None) };
        if self.bytes.len() < 4 + length {
            return Ok(None);
        }
        self.bytes.advance(4);
        self.waited = Duration::ZERO;
        Ok(Some(self.bytes.split_to(length).freeze()))
    }

    /// Length of the frame at the front, once its four bytes are there and within the limit.
    fn frame_length(&self) -> Result<Option<usize>, ConnectionError> {
        let Some(prefix) = self.bytes.first_chunk::<4>() else { return Ok(None) };
        let length = i32::from_be_bytes(*prefix);
        let max = self.frame_bytes_max;
        match usize::try_from(length) {
            Ok(length) if length <= max => Ok(Some(length)),
            _ => Err(match foreign(*prefix) {
                Some(protocol) => ConnectionError::Foreign(protocol),
                None => ConnectionError::FrameLength { length, max },
            }),
        }
    }

    /// Bytes of the frame at the front that have not arrived, its length included; `None` before its length is known.
    fn missing(&self) -> Result<Option<usize>, ConnectionError> {
        Ok(self.frame_length()?.map(|length| (length + 4).saturating_sub(self.bytes.len())))
    }

    /// Makes room for what comes next, if there is memory for it at once.
    pub fn try_make_room(&mut self) -> Result<bool, ConnectionError> {
        let wanted = self.bytes.len() + room_for(self.bytes.len(), self.missing()?);
        let granted = self.share.try_grow(counted(wanted));
        if granted {
            self.grow_to(wanted);
        }
        Ok(granted)
    }

    /// Makes room for what comes next, as soon as there is memory for it.
    pub async fn make_room(&mut self) -> Result<(), ConnectionError> {
        let wanted = self.bytes.len() + room_for(self.bytes.len(), self.missing()?);
        self.share.grow(counted(wanted)).await;
        self.grow_to(wanted);
        Ok(())
    }

    fn grow_to(&mut self, wanted: usize) {
        // Memory of frames before is taken back, once nobody holds them. Else the new buffer is as large as was granted
        // and no larger.
        if !self.bytes.try_reclaim(wanted - self.bytes.len()) {
            let mut grown = BytesMut::with_capacity(wanted);
            grown.extend_from_slice(&self.bytes);
            self.bytes = grown;
        }
    }

    /// Reads once, what is there. Inside a frame it reads no further than that frame's end, so that the frame can be
    /// handed on without copying what follows it.
    pub fn fill(&mut self, stream: &Stream) -> Result<usize, ConnectionError> {
        let limit = self.missing()?.unwrap_or(BUFFER_BYTES_FIRST);
        let room = self.bytes.capacity() - self.bytes.len();
        Ok(stream.try_read(&mut self.bytes, limit.min(room))?)
    }

    /// Takes note that bytes were waited for. An error when the client is so slow that it has to go, for others wait for
    /// the memory that it holds.
    pub fn waited(&mut self, time: Duration) -> Result<(), ConnectionError> {
        if !self.has_share() || self.bytes.is_empty() {
            return Ok(());
        }
        self.waited += time;
        let arrived = self.bytes.len();
        if self.share.memory().is_too_slow(self.waited, arrived) {
            return Err(ConnectionError::TooSlow { arrived, waited: self.waited });
        }
        Ok(())
    }

    /// After a frame has been worked on: makes room for others if they wait for it. What has come of the next frame, a
    /// few bytes, stays.
    pub fn make_way(&mut self) {
        if self.has_share() && self.share.memory().is_short() && self.bytes.len() <= BUFFER_BYTES_FIRST {
            self.bytes = BytesMut::from(self.bytes.as_ref());
            self.share.give_back();
        }
    }

    /// Gives all memory back; nothing of a frame must be in it.
    pub fn release(&mut self) {
        self.bytes = BytesMut::new();
        self.share.give_back();
    }
}

/// The protocol that begins with these four bytes, which as a length would be beyond any limit.
fn foreign(first: [u8; 4]) -> Option<&'static str> {
    match &first {
        // A TLS record of a handshake.
        [0x16, 0x03, ..] => Some("TLS"),
        b"GET " | b"POST" | b"HEAD" | b"PUT " => Some("HTTP"),
        _ => None,
    }
}

/// What of a buffer of so many bytes is counted.
fn counted(bytes: usize) -> usize {
    bytes.saturating_sub(BUFFER_BYTES_FIRST)
}

/// Bytes to make room for when `arrived` bytes of a frame are there and `missing` are not (`None`: its length is not
/// there yet).
fn room_for(arrived: usize, missing: Option<usize>) -> usize {
    match missing {
        None => BUFFER_BYTES_FIRST - arrived.min(3),
        Some(missing) if arrived < BUFFER_BYTES_TRUSTED => missing.min(BUFFER_BYTES_TRUSTED),
        Some(missing) => missing.min(arrived * BUFFER_GROWTH),
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;

    use super::*;

    #[test]
    fn a_buffer_grows_with_what_has_arrived_and_never_with_what_was_promised() {
        assert_eq!(room_for(0, None), BUFFER_BYTES_FIRST);
        assert_eq!(room_for(4, Some(100)), 100);
        assert_eq!(room_for(4, Some(100 << 20)), BUFFER_BYTES_TRUSTED);
        assert_eq!(room_for(BUFFER_BYTES_TRUSTED, Some(300 << 10)), 300 << 10);
        assert_eq!(room_for(BUFFER_BYTES_TRUSTED, Some(100 << 20)), 7 * BUFFER_BYTES_TRUSTED);
    }

    #[test]
    fn a_client_of_another_protocol_is_told_from_one_that_lies_about_lengths() {
        for (first, expected) in [
            (&b"\x16\x03\x01\x02"[..], "the client speaks TLS"),
            (b"GET / HTTP/1.1", "the client speaks HTTP"),
            (b"\x7f\xff\xff\xff", "frame length 2147483647"),
        ] {
            let mut buffer = FrameBuffer::new(100 << 20, RequestMemory::new(None));
            buffer.bytes.extend_from_slice(first);
            let error = buffer.take_frame().unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }

    /// A buffer of frames of a megabyte, with `arrived` bytes of one of 500,000.
    fn buffer(memory: &Arc<RequestMemory>, arrived: usize) -> FrameBuffer {
        let mut buffer = FrameBuffer::new(1 << 20, memory.clone());
        while buffer.bytes.len() < arrived {
            assert!(buffer.try_make_room().unwrap());
            let frame = [&500_000i32.to_be_bytes()[..], &[7; 500_000]].concat();
            let room = buffer.bytes.capacity().min(arrived) - buffer.bytes.len();
            let at = buffer.bytes.len();
            buffer.bytes.extend_from_slice(&frame[at..at + room]);
        }
        buffer
    }

    #[test]
    fn small_frames_take_no_share_and_large_ones_no_more_than_they_are() {
        let memory = RequestMemory::new(Some(1 << 20));
        let small = buffer(&memory, 4);
        assert!(!small.has_share() && small.is_allocated());
        let mut large = buffer(&memory, 500_004);
        assert!(large.has_share());
        assert_eq!(large.bytes.capacity(), 500_004);
        let frame = large.take_frame().unwrap().unwrap();
        assert_eq!(frame, [7; 500_000].as_slice());
        assert!(large.has_share(), "the frame lives on in what it holds");
        drop(frame);
        large.make_way();
        assert!(large.has_share(), "nobody wants it, and the next frame may");
        large.release();
        assert!(!large.has_share() && !large.is_allocated());
    }

    #[test]
    fn a_buffer_makes_way_once_others_wait() {
        let memory = RequestMemory::new(Some(500_000));
        let mut first = buffer(&memory, 500_004);
        drop(first.take_frame().unwrap());
        let mut beyond = buffer(&memory, 4);
        let mut second = buffer(&memory, 4);
        let waker = std::task::Waker::noop();
        let mut wait = std::task::Context::from_waker(waker);
        let mut room = Box::pin(beyond.make_room());
        assert!(room.as_mut().poll(&mut wait).is_ready(), "past the end of the pool");
        drop(room);
        let mut room = Box::pin(second.make_room());
        assert!(room.as_mut().poll(&mut wait).is_pending());
        first.make_way();
        assert!(!first.has_share() && room.as_mut().poll(&mut wait).is_ready());
    }
}
