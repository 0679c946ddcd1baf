//! How fast throttled replicas are copied (KIP-73): one throttle for what followers get here, one for what is fetched here.
//!
//! Whose copies are held back: replicas that their topic's config names, and that are out of sync. One in sync would fall out of sync, and
//! writers wait for it.

use std::sync::atomic::{AtomicU64, Ordering};

use firn_model::broker_config::settings::ReplicaSettings;
use firn_replication::throttle::Throttle;
use parking_lot::Mutex;
use tokio::time::Instant;

/// Both sides of this broker.
#[derive(Debug, Default)]
pub struct Throttles {
    pub leader: Side,
    pub follower: Side,
}

/// All copies of one side together.
#[derive(Debug)]
pub struct Side {
    began: Instant,
    throttle: Mutex<Throttle>,
    /// What was copied of throttled replicas since the start, held back or not.
    bytes: AtomicU64,
}

impl Default for Side {
    fn default() -> Self {
        Self { began: Instant::now(), throttle: Mutex::default(), bytes: AtomicU64::new(0) }
    }
}

impl Throttles {
    /// Obeys these rates from now on.
    pub fn set(&self, settings: &ReplicaSettings) {
        self.leader.set(settings.leader_throttled_rate);
        self.follower.set(settings.follower_throttled_rate);
    }
}

impl Side {
    fn set(&self, bytes_per_second: i64) {
        // Kafka's default, the greatest number that there is, stands for no limit.
        let rate = if bytes_per_second == i64::MAX { f64::INFINITY } else { bytes_per_second as f64 };
        self.throttle.lock().set(rate, self.began.elapsed());
    }

    /// When the next copy of a throttled replica may be made, unless it may now.
    pub fn held_until(&self, is_in_sync: bool) -> Option<Instant> {
        if is_in_sync {
            return None;
        }
        let until = self.throttle.lock().held_until(self.began.elapsed())?;
        Some(self.began + until)
    }

    /// So many bytes of a throttled replica were copied.
    pub fn copied(&self, bytes: usize, is_in_sync: bool) {
        if bytes == 0 {
            return;
        }
        let bytes = bytes as u64;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = self.began.elapsed();
        let mut throttle = self.throttle.lock();
        match is_in_sync {
            true => throttle.copied_exempt(bytes, now),
            false => throttle.copied(bytes, now),
        }
    }

    /// What was copied of throttled replicas since the start.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}
