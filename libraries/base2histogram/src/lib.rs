//! Stands in for the library of this name, with as much of it as openraft uses for its statistics.
//!
//! openraft counts how large its batches are, whether anybody asks or not, and the library prepares tables of 27 MB for
//! it at the first count: more than twice what a whole broker takes. This one has a counter for each power of two. It can
//! go when the library makes only the tables that it needs (`[patch.crates-io]` in the workspace's manifest).

use std::fmt;
use std::marker::PhantomData;

/// One bucket for 0, and one for each length of a number in bits.
const BUCKETS: usize = u64::BITS as usize + 1;

/// How often values of each power of two were recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Histogram<T = ()> {
    counts: [u64; BUCKETS],
    of: PhantomData<T>,
}

impl<T> Default for Histogram<T> {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], of: PhantomData }
    }
}

impl<T> Histogram<T> {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn record(&mut self, value: u64) {
        self.record_n(value, 1);
    }

    /// Records the value so many times.
    pub fn record_n(&mut self, value: u64, times: u64) {
        let bits = (u64::BITS - value.leading_zeros()) as usize;
        if let Some(count) = self.counts.get_mut(bits) {
            *count = count.saturating_add(times);
        }
    }

    pub fn percentile_stats(&self) -> PercentileStats {
        let samples = self.counts.iter().fold(0u64, |sum, count| sum.saturating_add(*count));
        let at = |permille: u64| self.value_at(samples, permille);
        PercentileStats {
            samples,
            p0_1: at(1),
            p1: at(10),
            p5: at(50),
            p10: at(100),
            p50: at(500),
            p90: at(900),
            p99: at(990),
            p99_9: at(999),
        }
    }

    /// The largest value of the bucket that holds the value of this rank; 0 if nothing was recorded.
    fn value_at(&self, samples: u64, permille: u64) -> u64 {
        let rank = u128::from(samples) * u128::from(permille);
        let mut seen = 0u128;
        for (bits, count) in self.counts.iter().enumerate() {
            seen += u128::from(*count) * 1_000;
            if *count > 0 && seen >= rank {
                return u64::MAX.checked_shr(u64::BITS - bits as u32).unwrap_or(0);
            }
        }
        0
    }
}

/// What a histogram comes to. The percentiles are the upper ends of their buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PercentileStats {
    pub samples: u64,
    pub p0_1: u64,
    pub p1: u64,
    pub p5: u64,
    pub p10: u64,
    pub p50: u64,
    pub p90: u64,
    pub p99: u64,
    pub p99_9: u64,
}

impl fmt::Display for PercentileStats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} samples, half of them up to {}, 99 % up to {}", self.samples, self.p50, self.p99)
    }
}

/// The histograms that a chart would show, in words.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AsciiChart {
    lines: Vec<String>,
}

impl AsciiChart {
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a histogram under its name.
    pub fn add<T>(mut self, name: impl fmt::Display, histogram: Histogram<T>) -> Self {
        self.lines.push(format!("{name}: {}", histogram.percentile_stats()));
        self
    }
}

impl fmt::Display for AsciiChart {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_the_upper_ends_of_their_buckets() {
        let mut histogram = Histogram::<()>::new();
        assert_eq!(histogram.percentile_stats().p50, 0);
        for value in [0, 1, 2, 3, 4, 5, 6, 7, 8, 1_000] {
            histogram.record(value);
        }
        let stats = histogram.percentile_stats();
        assert_eq!((stats.samples, stats.p10, stats.p50, stats.p90, stats.p99), (10, 0, 7, 15, 1_023));
        histogram.record(u64::MAX);
        assert_eq!(histogram.percentile_stats().p99_9, u64::MAX);
    }

    #[test]
    fn it_is_small() {
        assert!(size_of::<Histogram>() <= 1_024);
    }
}
