//! What the controller of a term has heard of the brokers: that they are there, and whether their disks have room. It is its own memory, which no
//! record holds, and begins anew with the term.

use std::collections::BTreeMap;
use std::time::Duration;

use firn_metadata::decide::room::ShortReplica;
use firn_metadata::image::Image;
use firn_metadata::leases::Leases;
use firn_model::ids::TopicId;
use firn_quorum::quorum::Quorum;
use parking_lot::Mutex;
use tokio::time::Instant;

/// What a heartbeat says of a broker.
#[derive(Debug, Clone, Copy)]
pub struct Beat {
    /// Offset after the last change of the metadata that is in force there.
    pub applied_to: i64,
    /// The disk has room for changes of the metadata.
    pub has_room: bool,
    /// A disk has room for records.
    pub takes_records: bool,
    /// The registration that says so, and how many marks it has left in the broker's directories.
    pub broker_epoch: i64,
    pub marks: u64,
}

/// How long it is remembered that a broker had no room for a partition: so often it may be tried again, should it be the only one.
const REFUSAL_KEPT: Duration = Duration::from_secs(30);

/// How often at most the metadata are told of the marks that brokers have left.
const MARKS_NOTED: Duration = Duration::from_secs(5);

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
    /// What each has said last.
    beats: BTreeMap<i32, Beat>,
    /// When a broker last had no room for what was written to a partition.
    refusals: BTreeMap<(i32, TopicId, i32), Duration>,
    /// When the metadata were told last of marks that brokers have left.
    marks_noted: Option<Duration>,
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
        known.beats.insert(broker_id, beat);
        known.leases.keeps_up(broker_id, beat.applied_to, end_offset)
    }

    /// Whether the broker has been heard of since it was forgotten.
    pub fn has_lease(&self, broker_id: i32) -> bool {
        self.in_term.lock().as_ref().is_some_and(|known| known.leases.has(broker_id))
    }

    /// Whether a broker has said that there is room for changes of the metadata.
    pub fn has_room(&self, broker_id: i32) -> bool {
        let in_term = self.in_term.lock();
        in_term.as_ref().and_then(|known| known.beats.get(&broker_id)).is_some_and(|beat| beat.has_room)
    }

    /// How many marks each has left in its directories, as far as it has been heard of (broker, epoch, marks); `None` as long as some
    /// were noted just now, so that those of many brokers are noted together.
    pub fn marks_to_note(&self) -> Option<Vec<(i32, i64, u64)>> {
        let now = self.now();
        let in_term = self.in_term.lock();
        let known = in_term.as_ref()?;
        let is_due = known.marks_noted.is_none_or(|noted| now.saturating_sub(noted) >= MARKS_NOTED);
        let marks = known.beats.iter().map(|(broker_id, beat)| (*broker_id, beat.broker_epoch, beat.marks));
        is_due.then(|| marks.collect())
    }

    pub fn marks_are_noted(&self) {
        let now = self.now();
        if let Some(known) = self.in_term.lock().as_mut() {
            known.marks_noted = Some(now);
        }
    }

    /// A broker has no room for what is written to these partitions.
    pub fn refuses(&self, broker_id: i32, short: &[ShortReplica]) {
        let now = self.now();
        if let Some(known) = self.in_term.lock().as_mut() {
            known.refusals.retain(|_, at| now.saturating_sub(*at) < REFUSAL_KEPT);
            known.refusals.extend(short.iter().map(|one| ((broker_id, one.topic_id, one.partition), now)));
        }
    }

    /// Whether a broker has room for what is written to a partition, as far as is known.
    pub fn takes(&self, broker_id: i32, topic_id: TopicId, partition: i32) -> bool {
        let in_term = self.in_term.lock();
        let Some(known) = in_term.as_ref() else { return true };
        let refused = known.refusals.get(&(broker_id, topic_id, partition));
        known.beats.get(&broker_id).is_none_or(|beat| beat.takes_records)
            && refused.is_none_or(|at| self.now().saturating_sub(*at) >= REFUSAL_KEPT)
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
                let end_offset = quorum.published().end_offset();
                let leases = self.leases(&quorum.image(), end_offset, now);
                InTerm {
                    term: progress.term,
                    leases,
                    beats: BTreeMap::new(),
                    refusals: BTreeMap::new(),
                    marks_noted: None,
                }
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
