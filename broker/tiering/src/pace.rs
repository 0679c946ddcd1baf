//! Spreads what is copied, or read, over time: `remote.log.manager.{copy,fetch}.max.bytes.per.second` (KIP-956).
//!
//! Kafka measures the average of some seconds and holds everything back once it is exceeded. Here every piece has its
//! turn, so that the flow is even: hot traffic beside it meets neither a burst nor, afterwards, a pause.

use firn_model::pace;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::metrics::Counter;

#[derive(Debug)]
pub(crate) struct Pace {
    turns: Mutex<Turns>,
    changed: Notify,
}

#[derive(Debug)]
struct Turns {
    /// [`f64::INFINITY`] for no limit.
    bytes_per_second: f64,
    /// When the next piece may go.
    next: Instant,
}

impl Pace {
    /// Without a limit.
    pub(crate) fn new() -> Self {
        let turns = Turns { bytes_per_second: f64::INFINITY, next: Instant::now() };
        Self { turns: Mutex::new(turns), changed: Notify::new() }
    }

    /// Sets another limit. Whoever waits by the old one goes at once.
    pub(crate) fn set(&self, bytes_per_second: f64) {
        let mut turns = self.turns.lock();
        if turns.bytes_per_second != bytes_per_second {
            *turns = Turns { bytes_per_second, next: Instant::now() };
            self.changed.notify_waiters();
        }
    }

    /// Whether the next piece would have to wait.
    pub(crate) fn is_behind(&self) -> bool {
        self.turns.lock().next > Instant::now()
    }

    /// Waits until `bytes` may go, and counts the wait in microseconds.
    pub(crate) async fn take(&self, bytes: u64, waited_us: &Counter) {
        // Before the limit is read, so that no change falls between.
        let changed = self.changed.notified();
        let now = Instant::now();
        let Some(start) = self.turns.lock().turn(bytes, now) else { return };
        tokio::select! {
            () = tokio::time::sleep_until(start) => {}
            () = changed => {}
        }
        waited_us.add(u64::try_from(now.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
}

impl Turns {
    /// When `bytes` may go, unless it is now.
    fn turn(&mut self, bytes: u64, now: Instant) -> Option<Instant> {
        let start = self.next.max(now);
        self.next = start + pace::turn(bytes, self.bytes_per_second);
        (start > now).then_some(start)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn pieces_follow_one_another_at_the_pace_that_is_set() {
        let (pace, waited, began) = (Pace::new(), Counter::default(), Instant::now());
        pace.take(u64::MAX, &waited).await;
        assert_eq!((began.elapsed(), pace.is_behind()), (Duration::ZERO, false), "no limit");
        pace.set(1_000.0);
        for _ in 0..4 {
            pace.take(500, &waited).await;
        }
        assert_eq!(
            began.elapsed().as_millis() / 10,
            150,
            "the first goes at once, each other after the one before"
        );
        assert_eq!(waited.get() / 10_000, 150);
        assert!(pace.is_behind());
        tokio::time::sleep(Duration::from_secs(60)).await;
        let began = Instant::now();
        pace.take(1_000, &waited).await;
        pace.take(1, &waited).await;
        assert_eq!(began.elapsed().as_millis() / 10, 100, "what was not used is not saved up");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_by_an_old_limit_goes_when_it_changes() {
        let (pace, waited, began) = (Pace::new(), Counter::default(), Instant::now());
        pace.set(1.0);
        pace.take(1 << 40, &waited).await;
        let change = async {
            tokio::task::yield_now().await;
            pace.set(1e9);
        };
        tokio::join!(pace.take(1, &waited), change);
        assert_eq!(began.elapsed(), Duration::ZERO);
    }
}
