//! Replication: what this broker's replicas tell the controller and each other.
//!
//! Leaders report who is in sync with them (`in_sync.rs`); followers fetch from their leaders, one connection and one fetch
//! session for each broker that leads anything of theirs (`fetcher.rs`), and are told by the metadata whom to follow
//! (`followed.rs`). Throttled replicas are copied no faster than they may be (`throttles.rs`). What is to be mended is in
//! `damaged.rs`, what is to begin anew in `unreliable.rs`. The rules are `firn_replication`'s, and what a replica does with them is
//! in `partition/replica.rs`.

pub mod damaged;
pub mod fetcher;
pub mod followed;
mod held_back;
pub mod in_sync;
pub mod sessions;
pub mod short;
pub mod throttles;
pub mod unreliable;

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use damaged::Damaged;
use firn_metadata::image::{self, Image};
use followed::Followed;
use in_sync::InSyncNews;
use short::Short;
use throttles::Throttles;
use tokio::time::Instant;
use unreliable::Unreliable;
use uuid::Uuid;

/// For so long at most a client waits for what it, or this broker, has heard of already: the replicas here turn a moment before everybody
/// can read in the metadata why, and some brokers before others.
pub const KNOWN_WITHIN: Duration = Duration::from_millis(50);
/// For so long nobody waits for an election after somebody has in vain: whoever is wrong about leaders is told so, and at once.
pub const IN_VAIN: Duration = Duration::from_secs(1);

/// What this broker's replicas share.
#[derive(Debug)]
pub struct Replication {
    pub node_id: i32,
    /// `replica.lag.time.max.ms`.
    pub lag_max: Duration,
    pub in_sync: InSyncNews,
    pub followed: Followed,
    pub damaged: Damaged,
    pub unreliable: Unreliable,
    pub short: Short,
    pub throttles: Throttles,
    broker_epoch: OnceLock<i64>,
    /// What this process registers as.
    incarnation: OnceLock<Uuid>,
    began: Instant,
    /// Milliseconds since `began`, up to which the controller puts nobody else in this broker's place.
    lease_ends: AtomicU64,
    /// The longest that any broker may have: of this one, or as the controller says.
    lease_ms: AtomicU64,
    /// Milliseconds since `began`, until which nobody waits for an election that it has perhaps not heard of yet.
    waits_again: AtomicU64,
}

impl Replication {
    pub fn new(node_id: i32, lag_max: Duration, lease: Duration) -> Self {
        Self {
            node_id,
            lag_max,
            lease_ms: AtomicU64::new(in_ms(lease)),
            in_sync: InSyncNews::default(),
            followed: Followed::default(),
            damaged: Damaged::default(),
            unreliable: Unreliable::default(),
            short: Short::default(),
            throttles: Throttles::default(),
            broker_epoch: OnceLock::new(),
            incarnation: OnceLock::new(),
            began: Instant::now(),
            lease_ends: AtomicU64::new(0),
            waits_again: AtomicU64::new(0),
        }
    }

    /// This process is about to register by this id.
    pub fn registers_as(&self, incarnation: Uuid) {
        self.incarnation.get_or_init(|| incarnation);
    }

    /// Whether this broker does what these metadata say of a partition. They may have it lead because a process before this one did,
    /// which had perhaps asked for another replica to be in sync, and this one does not know of it: once it has registered, it leads
    /// what it leads in another epoch. Where there is no other replica nobody was asked for, and it leads on.
    pub fn obeys(&self, image: &Image, now: &image::Partition) -> bool {
        let is_registered = || {
            let broker = image.broker(self.node_id);
            broker.is_some_and(|broker| self.incarnation.get() == Some(&broker.incarnation_id))
        };
        now.leader != self.node_id || now.replicas == [self.node_id] || is_registered()
    }

    /// The controller has registered this process in this epoch.
    pub fn registered(&self, broker_epoch: i64) {
        self.broker_epoch.get_or_init(|| broker_epoch);
    }

    /// The controller has heard of this broker after this time, and leaves it alone for `lease` from then.
    pub fn heard_since(&self, sent: Instant, lease: Duration) {
        let ends = (sent + lease).saturating_duration_since(self.began);
        self.lease_ends.store(in_ms(ends), Ordering::Relaxed);
    }

    /// The controller gives brokers a lease so long.
    pub fn leases_last(&self, lease: Duration) {
        self.lease_ms.fetch_max(in_ms(lease), Ordering::Relaxed);
    }

    /// How long another broker may take itself for a leader that it is no more.
    pub fn lease_max(&self) -> Duration {
        Duration::from_millis(self.lease_ms.load(Ordering::Relaxed))
    }

    /// The controller is about to be told that this broker leaves: from now on others may be in its place.
    pub fn leaves(&self) {
        self.lease_ends.store(0, Ordering::Relaxed);
    }

    /// Whether no other broker can have been put in this one's place without its knowing: the controller has heard of it, and
    /// a silent broker is replaced only later, unless something between them refuses connections in its name. The clocks are
    /// those that count time, which nobody sets.
    pub fn is_in_touch(&self) -> bool {
        self.began.elapsed().as_millis() < u128::from(self.lease_ends.load(Ordering::Relaxed))
    }

    /// Whether a client may be right that takes this broker for a leader to be: no other was wrong about that just now.
    pub fn may_wait(&self) -> bool {
        self.began.elapsed().as_millis() >= u128::from(self.waits_again.load(Ordering::Relaxed))
    }

    /// A client has waited for an election that did not come.
    pub fn waited_in_vain(&self) {
        self.waits_again.store(in_ms(self.began.elapsed() + IN_VAIN), Ordering::Relaxed);
    }

    /// -1 before this process is registered.
    pub fn broker_epoch(&self) -> i64 {
        self.broker_epoch.get().copied().unwrap_or(-1)
    }
}

fn in_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use firn_metadata::record::{BrokerRecord, MetadataRecord};

    use super::*;

    fn registered_as(number: u128) -> Image {
        let broker = BrokerRecord {
            broker_id: 1,
            incarnation_id: Uuid::from_u128(number),
            broker_epoch: 0,
            endpoints: Vec::new(),
            rack: None,
            fenced: false,
            directory_ids: Vec::new(),
            noted: true,
            marks: 0,
        };
        let mut image = Image::default();
        image.apply_all(&[MetadataRecord::Broker(broker)]).unwrap();
        image
    }

    #[test]
    fn who_has_not_registered_does_not_lead_what_a_process_before_it_led() {
        let replication = Replication::new(1, Duration::ZERO, Duration::ZERO);
        let led_by = |leader: i32, replicas: &[i32]| image::Partition {
            replicas: replicas.to_vec(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            isr: vec![1],
            elr: Vec::new(),
            last_known_elr: Vec::new(),
            leader,
            leader_epoch: 0,
            partition_epoch: 0,
        };
        let obeys =
            |image: &Image, leader, replicas: &[i32]| replication.obeys(image, &led_by(leader, replicas));
        for begins in [false, true] {
            if begins {
                replication.registers_as(Uuid::from_u128(8));
            }
            let before = registered_as(7);
            assert!(!obeys(&before, 1, &[1, 2]), "another process may have asked for 2 to be in sync");
            assert!(obeys(&before, 2, &[1, 2]) && obeys(&before, image::NO_LEADER, &[1, 2]));
            assert!(obeys(&before, 1, &[1]), "there is nobody to ask for");
            assert_eq!(obeys(&registered_as(8), 1, &[1, 2]), begins);
        }
    }
}
