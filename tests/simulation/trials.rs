//! One misfortune at a time, each long enough that the others have to go on without whom it strikes: the brokers of a zone die, one cannot
//! write, or no other one hears it. Writes go on all the while, and once it is over every replica is soon in sync again.

use std::rc::Rc;
use std::time::Duration;

use turmoil::Sim;

use crate::broker::Broker;
use crate::faults::{Faults, Kind};
use crate::shared::{AWAY_MAX, PARTITIONS, Shared, Standing};

/// How long a misfortune lasts.
pub const LASTS: Duration = Duration::from_secs(25);

const KINDS: [Kind; 8] = [
    Kind::Dies,
    Kind::ZoneDies,
    Kind::Stops,
    Kind::FailingDisk,
    Kind::FullDisk,
    Kind::Isolated,
    Kind::ClockJump,
    Kind::StoreOutage,
];

pub struct Trials {
    random: fastrand::Rng,
    shared: Rc<Shared>,
    /// Since when nothing is wrong, and since when all replicas are in sync.
    calm_since: Duration,
    whole_since: Option<Duration>,
    /// How long that lasts before the next misfortune.
    pause: Duration,
}

impl Trials {
    pub fn new(random: fastrand::Rng, shared: Rc<Shared>) -> Self {
        let (calm_since, pause) = (Duration::ZERO, Duration::from_secs(1));
        Self { random, shared, calm_since, whole_since: None, pause }
    }

    /// Called after every step.
    pub fn step(&mut self, faults: &mut Faults, sim: &mut Sim<'_>, brokers: &[Rc<Broker>]) {
        let now = sim.elapsed();
        self.look_at_writes(now);
        if faults.is_pending() {
            faults.end_due(now, sim, brokers);
            (self.calm_since, self.whole_since) = (now, None);
            return;
        }
        let Standing { is_whole, is_spread, .. } = self.shared.standing.get();
        if !is_whole || !self.shared.without_room.borrow().is_empty() {
            self.whole_since = None;
            if self.shared.topic.get().is_some() && now - self.calm_since > AWAY_MAX {
                self.shared.broke_at(
                    now,
                    None,
                    format!("not every replica is in sync, or has room, {AWAY_MAX:?} after the last fault"),
                );
                self.calm_since = now;
            }
            return;
        }
        if now - *self.whole_since.get_or_insert(now) >= self.pause {
            self.pause = Duration::from_millis(self.random.u64(500..6_000));
            let kind = match KINDS[self.random.usize(..KINDS.len())] {
                // Created, or moved, while a zone was away: two replicas of three would die.
                Kind::ZoneDies if !is_spread => Kind::Dies,
                kind => kind,
            };
            faults.befall(kind, self.random.usize(..brokers.len()), now, sim, brokers);
            self.whole_since = None;
        }
    }

    fn look_at_writes(&self, now: Duration) {
        if self.shared.topic.get().is_none() {
            return;
        }
        let mut acknowledged = self.shared.acknowledged.borrow_mut();
        for partition in 0..PARTITIONS {
            let last = acknowledged.entry(partition).or_insert(now);
            if now.saturating_sub(*last) > AWAY_MAX {
                self.shared.broke_at(
                    now,
                    Some(partition),
                    format!("nothing of partition {partition} was acknowledged for {AWAY_MAX:?}"),
                );
                *last = now;
            }
        }
    }
}
