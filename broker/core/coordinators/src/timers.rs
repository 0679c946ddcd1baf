//! Deadlines in order, one per subject, so that a tick costs what is due and no more.
use std::collections::{BTreeMap, BTreeSet};

/// What a deadline is about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// A member must heartbeat, or a member id that was handed out must be used.
    Session { group: String, member: String },
    /// The join phase ends.
    Join { group: String },
    /// Every member must have synced.
    Sync { group: String },
    /// The group may have offsets that nobody needs any more.
    Expiration { group: String },
}

#[derive(Debug, Default)]
pub(crate) struct Timers {
    order: BTreeSet<(i64, Timer)>,
    deadlines: BTreeMap<Timer, i64>,
}

impl Timers {
    /// Sets the subject's deadline, in place of an earlier one.
    pub(crate) fn set(&mut self, timer: Timer, deadline: i64) {
        self.cancel(&timer);
        self.order.insert((deadline, timer.clone()));
        self.deadlines.insert(timer, deadline);
    }

    /// Sets the subject's deadline unless it has an earlier one.
    pub(crate) fn advance(&mut self, timer: Timer, deadline: i64) {
        if self.deadlines.get(&timer).is_none_or(|earlier| *earlier > deadline) {
            self.set(timer, deadline);
        }
    }

    pub(crate) fn cancel(&mut self, timer: &Timer) {
        if let Some(deadline) = self.deadlines.remove(timer) {
            self.order.remove(&(deadline, timer.clone()));
        }
    }

    #[cfg(test)]
    pub(crate) fn is_set(&self, timer: &Timer) -> bool {
        self.deadlines.contains_key(timer)
    }

    pub(crate) fn next(&self) -> Option<i64> {
        self.order.first().map(|(deadline, _)| *deadline)
    }

    pub(crate) fn pop_due(&mut self, now_ms: i64) -> Option<Timer> {
        if self.next()? > now_ms {
            return None;
        }
        let (_, timer) = self.order.pop_first()?;
        self.deadlines.remove(&timer);
        Some(timer)
    }

    pub(crate) fn clear(&mut self) {
        self.order.clear();
        self.deadlines.clear();
    }
}
