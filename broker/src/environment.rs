//! The seams: whatever is not the same twice comes into the broker through here.
//!
//! Time, randomness, the disk and the network are handed in as one [`Environment`]; the object store is the tier's own.
//! Production uses [`Environment::system`]; a simulation hands in its own and owns every outcome.

use std::fmt::Debug;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use firn_storage::disk::Disk;
use firn_storage::real_disk::RealDisk;
use uuid::Uuid;

use crate::net::{Network, SystemNetwork};
use crate::open_files;

/// Wall-clock time. Deadlines use tokio's monotonic clock, which a simulation owns already.
pub trait Clock: Send + Sync + Debug {
    /// Milliseconds since the Unix epoch.
    fn now_ms(&self) -> i64;
}

/// Random bits, for ids and jitter; never for secrets that outlive the process.
pub trait Random: Send + Sync + Debug {
    fn bits(&self) -> u128;

    /// An id that nobody has.
    fn uuid(&self) -> Uuid {
        uuid::Builder::from_random_bytes(self.bits().to_be_bytes()).into_uuid()
    }
}

/// Everything outside the process that a broker depends on, but for the object store.
#[derive(Debug, Clone)]
pub struct Environment {
    pub clock: Arc<dyn Clock>,
    pub random: Arc<dyn Random>,
    pub disk: Arc<dyn Disk>,
    pub network: Arc<dyn Network>,
    /// Files and connections that the process may have open at a time.
    pub open_files_max: usize,
}

impl Environment {
    /// The machine's own clock, randomness, disk and network.
    pub fn system() -> Self {
        Self {
            clock: Arc::new(SystemClock),
            random: Arc::new(SystemRandom),
            disk: Arc::new(RealDisk),
            network: Arc::new(SystemNetwork),
            open_files_max: open_files::limit(),
        }
    }
}

#[derive(Debug)]
struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the seam: the machine's own clock")]
    fn now_ms(&self) -> i64 {
        // A clock set before 1970 reads as the epoch: timestamps are then wrong, but nothing overflows.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as i64)
    }
}

#[derive(Debug)]
struct SystemRandom;

impl Random for SystemRandom {
    #[expect(clippy::disallowed_methods, reason = "this is the seam: the kernel's own randomness")]
    fn bits(&self) -> u128 {
        let mut bytes = [0u8; 16];
        let mut filled = 0;
        while filled < bytes.len() {
            match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
                Ok(count) => filled += count,
                // The kernel's generator fails only by interruption once it is seeded, and it blocks until then.
                Err(_) => continue,
            }
        }
        u128::from_ne_bytes(bytes)
    }
}
