//! How often and how late a failed call is tried again.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

const WHOLE: i64 = 1_000;

/// Bounds the share of calls that are retries: each call earns a part of a retry, each retry spends one. When a store
/// fails for all, the savings are soon spent, and calls fail at once instead of adding to its load.
#[derive(Debug)]
pub(crate) struct RetryBudget {
    thousandths: AtomicI64,
    earned: i64,
    most: i64,
}

impl RetryBudget {
    pub(crate) fn new(ratio_max: f64, burst: u32) -> Self {
        let most = i64::from(burst) * WHOLE;
        let earned = (ratio_max.clamp(0.0, 10.0) * WHOLE as f64) as i64;
        Self { thousandths: AtomicI64::new(most), earned, most }
    }

    pub(crate) fn earn(&self) {
        let add = |now: i64| Some(now.saturating_add(self.earned).min(self.most));
        self.thousandths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add).ok();
    }

    /// True if a retry may be made, which is then paid for.
    pub(crate) fn spend(&self) -> bool {
        let take = |now: i64| (now >= WHOLE).then_some(now - WHOLE);
        self.thousandths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok()
    }
}

/// Draws pauses between retries: full jitter over an exponential bound.
#[derive(Debug)]
pub(crate) struct Backoff {
    min: Duration,
    max: Duration,
    state: AtomicU64,
}

impl Backoff {
    pub(crate) fn new(min: Duration, max: Duration, seed: u64) -> Self {
        Self { min, max, state: AtomicU64::new(seed) }
    }

    /// The pause after `attempt` failed attempts. Never zero, so that retries always yield to others.
    pub(crate) fn pause(&self, attempt: u32) -> Duration {
        let bound = self.min.saturating_mul(1 << attempt.saturating_sub(1).min(20)).min(self.max);
        let micros = u64::try_from(bound.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(1 + self.draw() % micros)
    }

    /// A number nobody else of this tier draws; SplitMix64.
    pub(crate) fn draw(&self) -> u64 {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let mut z = self.state.fetch_add(GOLDEN, Ordering::Relaxed).wrapping_add(GOLDEN);
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}
