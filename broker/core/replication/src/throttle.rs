//! When copies of throttled replicas may go on at a limited rate (KIP-73).
//!
//! Kafka measures the average of some seconds and holds replicas back once it is exceeded, so fetches that are larger than the
//! rate allows for in that time go beyond it. Here whatever was copied takes the time that it takes at the rate, and the next copy
//! waits for the end of that time: so the first batch goes however large it is, and in the long run the rate is what was asked for.

use std::time::Duration;

use firn_model::pace;

/// What was not copied may be made up for, as far as it takes no longer than this: between two fetches a follower writes, flushes
/// and asks again, which is to cost nothing of the rate.
const SAVED_MAX: Duration = Duration::from_secs(1);

/// How long copies that are not held back may keep others waiting once they have ended: Kafka has forgotten them as soon.
const EXEMPT_DEBT_MAX: Duration = Duration::from_secs(10);

/// One side of a broker's copying: what it gives as a leader, or what it fetches as a follower. Times are what a monotonic
/// clock says.
#[derive(Debug, Clone, PartialEq)]
pub struct Throttle {
    /// [`f64::INFINITY`] for no limit.
    bytes_per_second: f64,
    /// When all that was copied has had its time.
    paid: Duration,
}

impl Default for Throttle {
    fn default() -> Self {
        Self { bytes_per_second: f64::INFINITY, paid: Duration::ZERO }
    }
}

impl Throttle {
    /// Sets the rate. By another one nothing is owed, and nothing saved.
    pub fn set(&mut self, bytes_per_second: f64, now: Duration) {
        if self.bytes_per_second != bytes_per_second {
            *self = Self { bytes_per_second, paid: now };
        }
    }

    /// When more may be copied, unless it may now.
    pub fn held_until(&self, now: Duration) -> Option<Duration> {
        (self.paid > now).then_some(self.paid)
    }

    /// So many bytes were copied that might have been held back.
    pub fn copied(&mut self, bytes: u64, now: Duration) {
        self.paid = self.paid_with(bytes, now);
    }

    /// So many were copied of a replica in sync, which is never held back. They count, but not for ever: no rate would be low enough
    /// for a debt that grows and grows.
    pub fn copied_exempt(&mut self, bytes: u64, now: Duration) {
        self.paid = self.paid.max(self.paid_with(bytes, now).min(now + EXEMPT_DEBT_MAX));
    }

    fn paid_with(&self, bytes: u64, now: Duration) -> Duration {
        self.paid.max(now.saturating_sub(SAVED_MAX)).saturating_add(pace::turn(bytes, self.bytes_per_second))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: f64 = 1_000.0;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn throttle() -> Throttle {
        let mut throttle = Throttle::default();
        throttle.set(RATE, ms(5_000));
        throttle
    }

    #[test]
    fn without_a_rate_nothing_is_held_back() {
        let mut throttle = Throttle::default();
        throttle.copied(u64::MAX, ms(7));
        throttle.copied_exempt(u64::MAX, ms(7));
        assert_eq!(throttle.held_until(ms(7)), None);
    }

    #[test]
    fn a_copy_takes_its_time_however_large_it_is_and_then_the_next_may_go() {
        let mut throttle = throttle();
        assert_eq!(throttle.held_until(ms(5_000)), None, "the first goes at once");
        throttle.copied(60_000, ms(5_000));
        assert_eq!(throttle.held_until(ms(5_000)), Some(ms(65_000)));
        assert_eq!(throttle.held_until(ms(64_999)), Some(ms(65_000)));
        assert_eq!(throttle.held_until(ms(65_000)), None);
        throttle.copied(10, ms(65_000));
        assert_eq!(throttle.held_until(ms(65_000)), Some(ms(65_010)));
    }

    #[test]
    fn what_a_fetch_comes_late_is_made_up_for_and_a_long_rest_is_not() {
        let mut throttle = throttle();
        for turn in 0..10 {
            // Each comes 20 ms after it might have.
            throttle.copied(100, ms(5_020 + turn * 100));
        }
        assert_eq!(throttle.held_until(ms(5_920)), Some(ms(6_000)), "1,000 bytes in a second");
        throttle.copied(2_000, ms(100_000));
        assert_eq!(throttle.held_until(ms(100_000)), Some(ms(101_000)), "one second was saved up");
    }

    #[test]
    fn another_rate_counts_from_now_on() {
        let mut throttle = throttle();
        throttle.copied(1 << 40, ms(5_000));
        throttle.set(RATE, ms(6_000));
        assert!(throttle.held_until(ms(6_000)).is_some(), "the same one");
        throttle.set(2.0 * RATE, ms(6_000));
        assert_eq!(throttle.held_until(ms(6_000)), None);
        throttle.copied(1_000, ms(6_000));
        assert_eq!(throttle.held_until(ms(6_000)), Some(ms(6_500)));
        throttle.set(f64::INFINITY, ms(6_001));
        assert_eq!(throttle.held_until(ms(6_001)), None);
    }

    #[test]
    fn at_a_rate_of_nothing_a_copy_holds_the_next_back_until_the_rate_is_another() {
        let mut throttle = throttle();
        throttle.set(0.0, ms(6_000));
        throttle.copied(1, ms(6_000));
        assert!(throttle.held_until(ms(3_600_000)).is_some());
        throttle.set(RATE, ms(7_000));
        assert_eq!(throttle.held_until(ms(7_000)), None);
    }

    #[test]
    fn replicas_in_sync_count_and_are_forgotten_soon() {
        let mut throttle = throttle();
        throttle.copied_exempt(500, ms(5_000));
        assert_eq!(throttle.held_until(ms(5_000)), Some(ms(5_500)));
        for second in 5..100 {
            throttle.copied_exempt(5_000, ms(second * 1_000));
        }
        assert_eq!(throttle.held_until(ms(99_000)), Some(ms(109_000)));
        throttle.copied(60_000, ms(109_000));
        throttle.copied_exempt(1, ms(110_000));
        assert_eq!(throttle.held_until(ms(110_000)), Some(ms(169_000)), "what is owed longer stays so");
    }
}
