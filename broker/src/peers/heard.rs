//! What the controller of a term has heard of the brokers: that they are there, and whether their disks have room. It is its own memory, which no
//! record holds, and begins anew with the term.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_metadata::image::Image;
use firn_metadata::leases::Leases;
use firn_quorum::quorum::Quorum;
use parking_lot::Mutex;
use tokio::time::Instant;

/// What a heartbeat says of a broker.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// Offset after the last change of the metadata that is in force there.
    pub applied_to: i64,
    pub has_room: bool,
}

/// See the module. Before this broker was the controller for the first time, and once it is not, it knows nothing of anybody.
#[derive(Debug)]
pub struct Heard {
    /// Of the controller itself.
    broker_id: i32,
    /// `broker.session.timeout.ms`.
    lease: Duration,
    began: Instant,
    in_term: Mutex<Option<InTerm>>,
}

#[derive(Debug)]
struct InTerm {
    term: u64,
    leases: Leases,
    /// Whether each has said that its disks have room.
    room: BTreeMap<i32, bool>,
}

impl Heard {
    pub fn new(broker_id: i32, lease: Duration) -> Self {
        Self { broker_id, lease, began: Instant::now(), in_term: Mutex::default() }
    }

    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    /// The broker is there; whether it had a lease until now.
    pub fn hear(&self, broker_id: i32) -> bool {
        let now = self.now();
        self.in_term.lock().as_mut().is_some_and(|known| known.leases.hear(broker_id, now))
    }

    /// A broker says this, and is about to be told that there are changes up to `end_offset`. Whether it has in force what it was told of before.
    pub fn keeps_up(&self, broker_id: i32, beat: Beat, end_offset: i64) -> bool {
        let mut in_term = self.in_term.lock();
        let Some(known) = in_term.as_mut() else { return true };
        known.room.insert(broker_id, beat.has_room);
        known.leases.keeps_up(broker_id, beat.applied_to, end_offset)
    }

    /// Whether the broker has been heard of since it was forgotten.
    pub fn has_lease(&self, broker_id: i32) -> bool {
        self.in_term.lock().as_ref().is_some_and(|known| known.leases.has(broker_id))
    }

    /// Whether a broker has said that there is room on its disks; nothing if it has said nothing.
    pub fn has_room(&self, broker_id: i32) -> Option<bool> {
        self.in_term.lock().as_ref()?.room.get(&broker_id).copied()
    }

    /// Nobody waits for this broker any more.
    pub fn forget(&self, broker_id: i32) {
        if let Some(known) = self.in_term.lock().as_mut() {
            known.leases.forget(broker_id);
        }
    }

    /// Who has been silent for too long. A new controller gives each broker a whole lease.
    pub fn lapsed(&self, quorum: &Quorum) -> Vec<i32> {
        let progress = quorum.progress();
        let mut in_term = self.in_term.lock();
        if !progress.leads {
            *in_term = None;
            return Vec::new();
        }
        let now = self.now();
        let known = match in_term.take().filter(|known| known.term == progress.term) {
            Some(known) => known,
            None => {
                // Nothing newer is told of before.
                let end_offset = quorum.published().end_offset();
                let leases = self.leases(&quorum.image(), end_offset, now);
                InTerm { term: progress.term, leases, room: BTreeMap::new() }
            }
        };
        let InTerm { leases, .. } = in_term.insert(known);
        // It need not tell itself that it is there.
        leases.hear(self.broker_id, now);
        let lapsed = leases.lapsed(now);
        // Before they are fenced: who is heard of in between has a lease again.
        lapsed.iter().for_each(|id| leases.forget(*id));
        lapsed
    }

    fn leases(&self, image: &Image, end_offset: i64, now: Duration) -> Leases {
        let unfenced = image.brokers().filter(|broker| !broker.fenced).map(|broker| broker.id);
        let mut leases = Leases::new(self.lease, unfenced, now);
        // Who is fenced may be so because it learns nothing new.
        for broker in image.brokers().filter(|broker| broker.fenced) {
            leases.keeps_up(broker.id, i64::MAX, end_offset);
        }
        leases
    }
}
