//! What replicas promise one another, looked at while they run, for no client sees all of it.
//!
//! What one replica knows to be committed is on every replica the same, bytes, offsets and leader epochs, for ever: no log is cut
//! below its high watermark, and no high watermark goes back. In one epoch one broker leads, and whoever begins to lead has all
//! that is committed. The metadata are the same on all brokers at the same offset of their log.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::{Arc, Weak};
use std::time::Duration;

use firn::context::Context;
use firn::partition::{Offsets, Partition, PartitionKey};
use firn::registration::takes_records;
use firn_metadata::image::{Image, NO_LEADER, Partition as Replicated};
use firn_metadata::invariants;
use firn_records::batch;

use crate::broker::{host, zone};
use crate::shared::{Shared, Standing, TOPIC};
use crate::story::About;

/// How often a broker is looked at: as often as it is given a turn.
const EVERY: Duration = Duration::from_millis(2);

/// What the replicas of all brokers have been seen to promise.
#[derive(Debug, Default)]
pub struct Promised {
    ledgers: RefCell<BTreeMap<PartitionKey, Ledger>>,
    /// By the offset after the last change that is in it.
    metadata: RefCell<BTreeMap<i64, Image>>,
}

/// Of one partition.
#[derive(Debug, Default)]
struct Ledger {
    /// The batches below the highest high watermark, by their first offsets.
    batches: BTreeMap<i64, Batch>,
    /// The highest high watermark.
    committed: i64,
    /// By epoch.
    leaders: BTreeMap<i32, usize>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Batch {
    last_offset: i64,
    epoch: i32,
    crc: u32,
}

/// Looks at one broker for as long as it runs.
pub struct Watch {
    broker: usize,
    shared: Rc<Shared>,
    seen: BTreeMap<PartitionKey, Seen>,
    /// Up to where the metadata were applied.
    applied_to: i64,
}

/// One replica, when it was last looked at.
#[derive(Default)]
struct Seen {
    high_watermark: i64,
    /// Up to here its batches are those of the ledger.
    compared: i64,
    led_in: Option<i32>,
    /// One that begins anew is another one. As long as this is kept, no other one lies where it lay in memory.
    replica: Weak<Partition>,
}

impl Watch {
    pub fn new(broker: usize, shared: Rc<Shared>) -> Self {
        Self { broker, shared, seen: BTreeMap::new(), applied_to: -1 }
    }

    /// Looks again and again.
    pub async fn watch(mut self, context: &Context) {
        loop {
            self.look_at_metadata(context);
            match takes_records(context) {
                true => self.shared.without_room.borrow_mut().remove(&self.broker),
                false => self.shared.without_room.borrow_mut().insert(self.broker),
            };
            for partition in context.partitions.all() {
                self.look_at(&partition);
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn look_at_metadata(&mut self, context: &Context) {
        let applied_to = context.controller.applied_to();
        if applied_to == std::mem::replace(&mut self.applied_to, applied_to) {
            return;
        }
        let image = context.controller.image();
        let mut metadata = self.shared.promised.metadata.borrow_mut();
        if *metadata.entry(applied_to).or_insert_with(|| image.clone()) != image {
            let broker = self.broker;
            self.shared.broke(
                None,
                format!("the metadata before {applied_to} on broker {broker} are others than elsewhere"),
            );
        }
        if applied_to <= self.shared.standing.get().applied_to {
            return;
        }
        if let Some(rule) = invariants::violated(&image) {
            self.shared.broke(None, format!("the metadata before {applied_to}: {rule}"));
        }
        let all = |holds: fn(&Replicated) -> bool| {
            image.topic(TOPIC).is_some_and(|topic| topic.partitions.iter().all(|one| holds(one)))
        };
        let is_whole = all(|one| one.leader != NO_LEADER && one.isr.len() == one.replicas.len());
        let is_spread = all(|one| {
            let zones: BTreeSet<usize> = one.replicas.iter().map(|id| zone(*id as usize)).collect();
            zones.len() == one.replicas.len()
        });
        self.shared.standing.set(Standing { applied_to, is_whole, is_spread });
    }

    fn look_at(&mut self, partition: &Arc<Partition>) {
        // A disk that has failed, in the middle of whatever, has nothing to say any more.
        let Some(offsets) = partition.offsets().ok().filter(|_| !partition.data_dir().dir.has_failed())
        else {
            return;
        };
        let mut promised = self.shared.promised.ledgers.borrow_mut();
        let ledger = promised.entry(partition.key()).or_default();
        let seen = self.seen.entry(partition.key()).or_default();
        let replica = Arc::downgrade(partition);
        if !seen.replica.ptr_eq(&replica) {
            *seen = Seen { replica, ..Seen::default() };
        }
        let (broker, name) = (self.broker, &partition.name);
        let judged = (&*name.topic == TOPIC).then_some(name.partition);
        let broke = |what: String| self.shared.broke(judged, format!("{name} on broker {broker}: {what}"));
        let led_in = partition.led_in();
        if led_in != seen.led_in
            && let Some(epoch) = led_in
        {
            let about = judged.map_or(About::Others, About::Leader);
            let what = format_args!("leads {name} in epoch {epoch}, from {} on", offsets.log_end);
            self.shared.trace.note(about, &host(broker), what);
            ledger.led(epoch, broker, offsets.log_end).unwrap_or_else(broke);
        }
        seen.led_in = led_in;
        let Offsets { high_watermark, log_end, .. } = offsets;
        if high_watermark < seen.high_watermark {
            let before = seen.high_watermark;
            broke(format!("its high watermark was {before} and is {high_watermark}"));
        }
        if log_end < high_watermark {
            broke(format!("its log ends at {log_end}, below its high watermark {high_watermark}"));
        }
        if high_watermark != seen.high_watermark {
            seen.high_watermark = high_watermark;
            ledger.committed = ledger.committed.max(high_watermark);
            // What is compacted is not the same everywhere at any time.
            if judged.is_some() {
                seen.compared = seen.compared.max(offsets.local_start);
                match ledger.compare(partition, seen.compared, high_watermark) {
                    Ok(to) => seen.compared = to,
                    Err(what) => broke(what),
                }
            }
        }
    }
}

impl Ledger {
    fn led(&mut self, epoch: i32, broker: usize, log_end: i64) -> Result<(), String> {
        let known = *self.leaders.entry(epoch).or_insert(broker);
        if known != broker {
            return Err(format!("it leads in epoch {epoch}, in which broker {known} led"));
        }
        // One that has not heard of its successor yet may lack what that one has committed.
        let is_last = self.leaders.keys().all(|other| *other <= epoch);
        let committed = self.committed;
        if is_last && log_end < committed {
            return Err(format!(
                "it leads in epoch {epoch} with a log up to {log_end}, and {committed} are committed"
            ));
        }
        Ok(())
    }

    /// Compares what a replica has from one offset to another with what others have had there; returns how far that is.
    fn compare(&mut self, partition: &Arc<Partition>, from: i64, to: i64) -> Result<i64, String> {
        let mut at = from;
        while at < to {
            let slice = partition.with_log(|log| log.read(at, to, usize::MAX, true));
            // A disk that has failed answers nothing.
            let Ok(Ok(slice)) = slice else { return Ok(at) };
            // Nor does one that has not kept what was written.
            let Ok(slice) = partition.check(slice, at) else { return Ok(at) };
            let bytes = slice.read().map_err(|error| format!("it cannot be read at {at}: {error}"))?;
            let before = at;
            for found in batch::batches(&bytes) {
                let (header, _) = found.map_err(|error| format!("no batch at {at}: {error}"))?;
                let batch = Batch {
                    last_offset: header.last_offset(),
                    epoch: header.partition_leader_epoch,
                    crc: header.crc,
                };
                let base = header.base_offset;
                let last = self.batches.range(..=batch.last_offset).next_back();
                let known =
                    last.filter(|(_, known)| known.last_offset >= base).map(|(base, known)| (*base, *known));
                if known.is_some_and(|known| known != (base, batch)) {
                    return Err(format!("at {base} there is {batch:?}, and elsewhere {known:?}"));
                }
                self.batches.insert(base, batch);
                at = header.next_offset();
            }
            if at == before {
                return Err(format!("nothing lies at {at}, below its high watermark {to}"));
            }
        }
        Ok(at)
    }
}
