//! Hosts by the hundred on one thread, each with a runtime and a clock of its own, and a network between them: what turmoil does for
//! a few, where each host that is given its turn asks all links of the network.
//!
//! A host whose power is off says nothing: what is sent to it is lost, and so is whoever connects to it. Once it is back, connections
//! of before are reset.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::fmt;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use firn::environment::Clock;
use firn::net::{Accept, Accepting, ByteStream, Connecting, Listener, Network, SocketOptions};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::runtime::{Builder, Runtime};

use crate::environment::BEGAN_MS;

/// How finely time passes: what is sent in a tick arrives in the next one at the earliest.
const TICK: Duration = Duration::from_millis(5);
/// How long a message takes, in microseconds.
const LATENCY_US: std::ops::Range<u64> = 100..5_000;

/// What hosts have sent each other.
#[derive(Debug, Clone, Copy, Default)]
pub struct Sent {
    pub messages: u64,
    pub bytes: u64,
}

/// The hosts, by number.
pub struct Hosts {
    wires: Wires,
    runtimes: Vec<Option<Runtime>>,
}

/// The network. A clone is another handle to it.
#[derive(Clone)]
struct Wires(Arc<Mutex<State>>);

struct State {
    random: fastrand::Rng,
    now: Duration,
    sent: Sent,
    places: Vec<Place>,
    pipes: Vec<Pipe>,
    /// When something arrives, in which pipe.
    due: BinaryHeap<Reverse<(Duration, usize)>>,
}

/// What a host is to the others.
#[derive(Default)]
struct Place {
    /// How often it has been switched on.
    life: u64,
    is_on: bool,
    listener: Option<Waiting>,
}

/// Connections that were not accepted yet, by their pipes.
#[derive(Default)]
struct Waiting {
    made: VecDeque<Ends>,
    waker: Option<Waker>,
}

/// One direction of a connection.
struct Pipe {
    /// To whom it leads, and in which of its lives.
    to: (usize, u64),
    arriving: VecDeque<(Duration, Vec<u8>)>,
    /// Nothing comes any more, from then on.
    closed: Option<Duration>,
    last_due: Duration,
    waker: Option<Waker>,
}

/// What one side reads from, and what it writes to.
#[derive(Debug, Clone, Copy)]
struct Ends {
    reads: usize,
    writes: usize,
}

impl Hosts {
    pub fn new(count: usize, seed: u64) -> Self {
        let state = State {
            random: fastrand::Rng::with_seed(seed),
            now: Duration::ZERO,
            sent: Sent::default(),
            places: (0..count).map(|_| Place::default()).collect(),
            pipes: Vec::new(),
            due: BinaryHeap::new(),
        };
        Self { wires: Wires(Arc::new(Mutex::new(state))), runtimes: (0..count).map(|_| None).collect() }
    }

    /// Virtual time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.wires.state().now
    }

    pub fn sent(&self) -> Sent {
        self.wires.state().sent
    }

    /// Has a host's power on; what is to run there is spawned on what this returns.
    pub fn switch_on(&mut self, host: usize) -> io::Result<&Runtime> {
        let place = &mut self.wires.state().places[host];
        (place.life, place.is_on) = (place.life + 1, true);
        let runtime = Builder::new_current_thread().enable_time().start_paused(true).build()?;
        Ok(self.runtimes[host].insert(runtime))
    }

    /// Where a host runs, while its power is on.
    pub fn runtime(&self, host: usize) -> Option<&Runtime> {
        self.runtimes[host].as_ref()
    }

    /// A host's power goes.
    pub fn switch_off(&mut self, host: usize) {
        {
            let place = &mut self.wires.state().places[host];
            (place.is_on, place.listener) = (false, None);
        }
        self.runtimes[host] = None;
    }

    /// Lets a tick pass on all hosts.
    pub fn step(&mut self) {
        self.wires.deliver();
        for runtime in self.runtimes.iter().flatten() {
            runtime.block_on(async { tokio::time::sleep(TICK).await });
        }
        self.wires.state().now += TICK;
    }

    /// The network and the clock that a host sees.
    pub fn environment(&self, host: usize) -> (Arc<dyn Network>, Arc<dyn Clock>) {
        let wires = self.wires.clone();
        (Arc::new(Plug { host, wires: wires.clone() }), Arc::new(WallClock(wires)))
    }
}

impl Wires {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Wakes who waits for what arrives now.
    fn deliver(&self) {
        let mut state = self.state();
        while let Some(&Reverse((due, pipe))) = state.due.peek()
            && due <= state.now
        {
            state.due.pop();
            if let Some(waker) = state.pipes[pipe].waker.take() {
                waker.wake();
            }
        }
    }

    /// Connects two hosts; what the first of them has of it.
    fn connect(&self, from: usize, to: usize) -> io::Result<Option<Link>> {
        let mut state = self.state();
        let life = state.places[from].life;
        let Place { life: of_other, is_on, listener } = &state.places[to];
        if !is_on {
            return Ok(None);
        }
        if listener.is_none() {
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        let of_other = *of_other;
        let pipe =
            |to| Pipe { to, arriving: VecDeque::new(), closed: None, last_due: Duration::ZERO, waker: None };
        let first = state.pipes.len();
        state.pipes.extend([pipe((from, life)), pipe((to, of_other))]);
        let (own, other) =
            (Ends { reads: first, writes: first + 1 }, Ends { reads: first + 1, writes: first });
        if let Some(waiting) = &mut state.places[to].listener {
            waiting.made.push_back(other);
            waiting.waker.take().inspect(Waker::wake_by_ref);
        }
        Ok(Some(Link { ends: own, wires: self.clone() }))
    }
}

impl State {
    /// When what is sent now arrives, behind what was sent before.
    fn arrives(&mut self, pipe: usize) -> Duration {
        let latency = Duration::from_micros(self.random.u64(LATENCY_US));
        let due = (self.now + latency).max(self.pipes[pipe].last_due);
        self.pipes[pipe].last_due = due;
        self.due.push(Reverse((due, pipe)));
        due
    }
}

/// Where a host is plugged in.
struct Plug {
    host: usize,
    wires: Wires,
}

impl fmt::Debug for Plug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Plug").field(&self.host).finish()
    }
}

/// The name of a host, by its number.
pub fn name(host: usize) -> String {
    format!("host-{host}")
}

fn number(address: &str) -> Option<usize> {
    address.strip_prefix("host-")?.split(':').next()?.parse().ok()
}

impl Network for Plug {
    fn bind(&self, _address: SocketAddr, _options: SocketOptions) -> io::Result<Listener> {
        self.wires.state().places[self.host].listener = Some(Waiting::default());
        Ok(Listener::Streams(Box::new(Plug { host: self.host, wires: self.wires.clone() })))
    }

    fn connect(&self, address: String) -> Connecting {
        let (wires, from) = (self.wires.clone(), self.host);
        Box::pin(async move {
            let to = number(&address).ok_or(io::ErrorKind::AddrNotAvailable)?;
            match wires.connect(from, to)? {
                Some(link) => Ok(Box::new(link) as Box<dyn ByteStream>),
                None => std::future::pending().await,
            }
        })
    }
}

impl Accept for Plug {
    fn local_address(&self) -> io::Result<SocketAddr> {
        Ok((Ipv4Addr::LOCALHOST, 9092).into())
    }

    fn accept(&self) -> Accepting<'_> {
        Box::pin(std::future::poll_fn(|cx| {
            let mut state = self.wires.state();
            let Some(waiting) = &mut state.places[self.host].listener else { return Poll::Pending };
            match waiting.made.pop_front() {
                Some(ends) => {
                    let link = Link { ends, wires: self.wires.clone() };
                    Poll::Ready(Ok((Box::new(link) as Box<dyn ByteStream>, (Ipv4Addr::LOCALHOST, 1).into())))
                }
                None => {
                    waiting.waker = Some(cx.waker().clone());
                    Poll::Pending
                }
            }
        }))
    }
}

/// One end of a connection.
struct Link {
    ends: Ends,
    wires: Wires,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.ends.fmt(f)
    }
}

impl AsyncRead for Link {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut state = self.wires.state();
        let now = state.now;
        let pipe = &mut state.pipes[self.ends.reads];
        let mut has_any = false;
        while let Some((due, bytes)) = pipe.arriving.front_mut().filter(|(due, _)| *due <= now) {
            let count = bytes.len().min(into.remaining());
            if count == 0 {
                break;
            }
            let due = *due;
            let rest = bytes.split_off(count);
            into.put_slice(bytes);
            has_any = true;
            pipe.arriving.pop_front();
            if !rest.is_empty() {
                pipe.arriving.push_front((due, rest));
            }
        }
        let is_closed = pipe.arriving.is_empty() && pipe.closed.is_some_and(|closed| closed <= now);
        if has_any || is_closed || into.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        pipe.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncWrite for Link {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let mut state = self.wires.state();
        let pipe = self.ends.writes;
        let (to, life) = state.pipes[pipe].to;
        let Place { life: now, is_on, .. } = state.places[to];
        if is_on && now != life {
            return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
        }
        state.sent.messages += 1;
        state.sent.bytes += bytes.len() as u64;
        if is_on {
            let due = state.arrives(pipe);
            state.pipes[pipe].arriving.push_back((due, bytes.to_vec()));
        }
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut state = self.wires.state();
        let due = state.arrives(self.ends.writes);
        state.pipes[self.ends.writes].closed = Some(due);
        Poll::Ready(Ok(()))
    }
}

impl Drop for Link {
    /// The other end is told, unless the power is off. What has arrived is read by nobody.
    fn drop(&mut self) {
        let mut state = self.wires.state();
        let Ends { reads, writes } = self.ends;
        let own = state.pipes[reads].to.0;
        if state.places[own].is_on {
            let due = state.arrives(writes);
            state.pipes[writes].closed = Some(due);
        }
        state.pipes[reads].arriving = VecDeque::new();
        state.pipes[reads].waker = None;
    }
}

#[derive(Debug)]
struct WallClock(Wires);

impl fmt::Debug for Wires {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Wires")
    }
}

impl Clock for WallClock {
    fn now_ms(&self) -> i64 {
        BEGAN_MS + self.0.state().now.as_millis() as i64
    }
}
