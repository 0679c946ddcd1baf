//! What requests may take of the memory while they are read and worked on, over all connections
//! (`queued.max.request.bytes`): before anyone has said who they are, many who send much cannot fill it.
//!
//! A connection takes a share as its buffer grows beyond the few kilobytes that every connection may have, and gives it
//! back with the buffer. Whoever finds too little left waits, in turn. Two that each hold a part and wait for the rest
//! would wait for ever, so one at a time may go on past the pool's end. So memory is bounded by the pool and one request of
//! the largest size more, which is the bound that Kafka's pool has, too; and since a share grows with what has
//! arrived, and never with what a length promises, nobody takes much of the pool without sending much.
//! A client that stops in the middle of a frame keeps its share from others: while they wait, it has to keep a pace.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How long a client may keep the memory of a frame that has not arrived, while others wait for memory.
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of a frame that earn its client another second.
const PACE_BYTES_PER_SECOND: usize = 256 << 10;

/// The pool. See the module.
#[derive(Debug)]
pub struct RequestMemory {
    /// `None`: no limit.
    pool: Option<Arc<Semaphore>>,
    /// Held by the one that goes on past the pool's end.
    beyond: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl RequestMemory {
    /// A pool of `bytes_max` bytes; without limit if there is none.
    pub fn new(bytes_max: Option<i64>) -> Arc<Self> {
        let pool = bytes_max.map(|bytes| {
            let bytes = usize::try_from(bytes).unwrap_or(0).min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(bytes))
        });
        Arc::new(Self { pool, beyond: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) })
    }

    /// True while somebody waits for memory.
    pub fn is_short(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0
    }

    /// True for a client that has to make room for others: they wait, and it has been waited for, `waited` in all, for a
    /// frame of which `arrived` bytes are there.
    pub fn is_too_slow(&self, waited: Duration, arrived: usize) -> bool {
        let earned = Duration::from_secs((arrived / PACE_BYTES_PER_SECOND) as u64);
        self.is_short() && waited > PATIENCE + earned
    }
}

/// What one connection holds of the pool. Dropping it gives it back.
#[derive(Debug)]
pub struct Share {
    memory: Arc<RequestMemory>,
    bytes: usize,
    permits: Option<OwnedSemaphorePermit>,
    beyond: Option<OwnedSemaphorePermit>,
}

impl Share {
    /// An empty share of `memory`.
    pub fn of(memory: Arc<RequestMemory>) -> Self {
        Self { memory, bytes: 0, permits: None, beyond: None }
    }

    pub fn memory(&self) -> &RequestMemory {
        &self.memory
    }

    pub fn is_empty(&self) -> bool {
        self.bytes == 0
    }

    /// Grows to `bytes` in all, if that is possible at once.
    pub fn try_grow(&mut self, bytes: usize) -> bool {
        let more = bytes.saturating_sub(self.bytes);
        let Some(pool) = self.memory.pool.as_ref().filter(|_| more > 0 && self.beyond.is_none()) else {
            self.bytes = self.bytes.max(bytes);
            return true;
        };
        match pool.clone().try_acquire_many_owned(permits(more)) {
            Ok(taken) => {
                self.take(taken, bytes);
                true
            }
            Err(_) => false,
        }
    }

    /// Grows to `bytes` in all, as soon as it is this connection's turn.
    pub async fn grow(&mut self, bytes: usize) {
        if self.try_grow(bytes) {
            return;
        }
        let Some(pool) = self.memory.pool.clone() else { return };
        let memory = self.memory.clone();
        let _waiting = Waiting::count(&memory.waiting);
        let more = permits(bytes.saturating_sub(self.bytes));
        // Neither semaphore is ever closed.
        tokio::select! {
            biased;
            taken = pool.acquire_many_owned(more) => if let Ok(taken) = taken { self.take(taken, bytes) },
            taken = memory.beyond.clone().acquire_owned() => {
                self.beyond = taken.ok();
                self.bytes = bytes;
            }
        }
    }

    /// Gives all of it back.
    pub fn give_back(&mut self) {
        self.bytes = 0;
        self.permits = None;
        self.beyond = None;
    }

    fn take(&mut self, taken: OwnedSemaphorePermit, bytes: usize) {
        match &mut self.permits {
            Some(permits) => permits.merge(taken),
            None => self.permits = Some(taken),
        }
        self.bytes = bytes;
    }
}

/// The semaphore counts in 32 bits; no request is larger than 31 bits can say.
fn permits(bytes: usize) -> u32 {
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

#[derive(Debug)]
pub struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    pub fn count(waiting: &'a AtomicUsize) -> Self {
        waiting.fetch_add(1, Ordering::Relaxed);
        Self(waiting)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use super::*;

    fn poll(future: std::pin::Pin<&mut impl Future<Output = ()>>) -> bool {
        future.poll(&mut Context::from_waker(Waker::noop())) == Poll::Ready(())
    }

    #[test]
    fn two_that_hold_a_part_and_want_the_rest_both_get_it() {
        let memory = RequestMemory::new(Some(100));
        let [mut first, mut second, mut third] = [0; 3].map(|_| Share::of(memory.clone()));
        assert!(first.try_grow(60) && second.try_grow(40));
        assert!(!first.try_grow(80) && !memory.is_short(), "a try waits for nothing");
        {
            let mut first = pin!(first.grow(80));
            assert!(poll(first.as_mut()), "one goes on past the end");
        }
        {
            let mut second = pin!(second.grow(90));
            assert!(!poll(second.as_mut()), "and one alone");
            assert!(memory.is_short());
            let mut third = pin!(third.grow(1));
            assert!(!poll(third.as_mut()), "in turn: a small one does not pass a large one");
            assert!(first.try_grow(100), "who is past the end is asked no more");
            first.give_back();
            assert!(poll(second.as_mut()));
            assert!(poll(third.as_mut()));
        }
        assert!(!memory.is_short());
        second.give_back();
        drop(third);
        assert!(first.try_grow(100), "all of it came back");
    }

    #[test]
    fn who_gives_up_waiting_takes_nothing() {
        let memory = RequestMemory::new(Some(100));
        let [mut first, mut second, mut third] = [0; 3].map(|_| Share::of(memory.clone()));
        assert!(first.try_grow(100));
        assert!(poll(pin!(second.grow(50))), "past the end");
        assert!(!poll(pin!(third.grow(50))));
        assert!(!memory.is_short(), "it went away");
        first.give_back();
        assert!(third.try_grow(100));
    }

    #[test]
    fn without_a_limit_nobody_waits() {
        let mut share = Share::of(RequestMemory::new(None));
        assert!(share.is_empty() && share.try_grow(usize::MAX) && !share.is_empty());
        share.give_back();
        assert!(share.is_empty());
    }

    #[test]
    fn a_slow_client_makes_room_only_while_others_wait() {
        let memory = RequestMemory::new(Some(1));
        let late = PATIENCE + Duration::from_millis(1);
        assert!(!memory.is_too_slow(late, 0), "nobody needs it");
        let _waiting = Waiting::count(&memory.waiting);
        assert!(memory.is_too_slow(late, 0));
        assert!(!memory.is_too_slow(PATIENCE, 0));
        assert!(!memory.is_too_slow(late, PACE_BYTES_PER_SECOND), "it sends, and earns time");
    }
}
