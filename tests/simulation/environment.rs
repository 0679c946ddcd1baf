//! What a broker finds around it in a simulation: turmoil's network and time, a disk that forgets, seeded chance.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use firn::environment::{Clock, Environment, Random};
use firn::net::{Accept, Accepting, ByteStream, Connecting, Listener, Network, SocketOptions};
use firn_storage::simulated::SimulatedDisk;
use turmoil::net::{TcpListener, TcpStream};

/// Where the broker's clock begins: any day will do, and the same one each time.
pub const BEGAN_MS: i64 = 1_800_000_000_000;

/// Wall-clock time that follows the simulation's, and jumps.
#[derive(Debug, Clone, Default)]
pub struct VirtualClock {
    ahead_ms: Arc<AtomicI64>,
}

impl VirtualClock {
    /// Sets the clock so far ahead of the simulation, or back where it is negative.
    pub fn jump_to(&self, ahead_ms: i64) {
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
    }
}

impl Clock for VirtualClock {
    fn now_ms(&self) -> i64 {
        let elapsed = turmoil::sim_elapsed().unwrap_or_default();
        BEGAN_MS + elapsed.as_millis() as i64 + self.ahead_ms.load(Ordering::Relaxed)
    }
}

/// Chance from a seed.
#[derive(Debug)]
pub struct SeededRandom(Mutex<fastrand::Rng>);

impl SeededRandom {
    pub fn new(seed: u64) -> Self {
        Self(Mutex::new(fastrand::Rng::with_seed(seed)))
    }
}

impl Random for SeededRandom {
    fn bits(&self) -> u128 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).u128(..)
    }
}

#[derive(Debug)]
struct TurmoilNetwork;

impl Network for TurmoilNetwork {
    fn bind(&self, address: SocketAddr, _options: SocketOptions) -> io::Result<Listener> {
        // turmoil binds without waiting for anything.
        let bound = futures_util::FutureExt::now_or_never(TcpListener::bind(address));
        let listener = bound.ok_or(io::ErrorKind::WouldBlock)??;
        Ok(Listener::Streams(Box::new(TurmoilListener(listener))))
    }

    fn connect(&self, address: String) -> Connecting {
        Box::pin(async move {
            let stream = TcpStream::connect(address.as_str()).await?;
            Ok(Box::new(stream) as Box<dyn ByteStream>)
        })
    }
}

struct TurmoilListener(TcpListener);

impl fmt::Debug for TurmoilListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("TurmoilListener").field(&self.0.local_addr()).finish()
    }
}

impl Accept for TurmoilListener {
    fn local_address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    fn accept(&self) -> Accepting<'_> {
        Box::pin(async {
            let (stream, peer) = self.0.accept().await?;
            Ok((Box::new(stream) as Box<dyn ByteStream>, peer))
        })
    }
}

/// What one start of a broker is given.
pub fn environment(disk: SimulatedDisk, clock: VirtualClock, seed: u64) -> Environment {
    Environment {
        clock: Arc::new(clock),
        random: Arc::new(SeededRandom::new(seed)),
        disk: Arc::new(disk),
        network: Arc::new(TurmoilNetwork),
        open_files_max: 10_000,
    }
}
