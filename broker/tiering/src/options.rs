//! Limits of the tier. Every one has a unit and a default that suits one broker.

use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// How a new object is checked before it counts as tiered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadBack {
    /// Listed with the right size, and its footer read back with the checksums that were computed on the way up.
    Footer,
    /// The same, and every byte of the log read back against those checksums: the default. Reading back costs no
    /// transfer within a region and a GET per chunk; what it buys is that the local copy is never the last good one.
    Whole,
}

/// Limits of the tier.
#[derive(Debug, Clone)]
pub struct TierOptions {
    /// Memory for chunks, index sections and footers of objects.
    pub cache_bytes_max: u64,
    /// Bytes that one ranged GET asks for; rounded to whole blocks.
    pub chunk_bytes: u32,
    /// Bytes of the log that one checksum in the footer covers, in objects that this broker writes.
    pub block_bytes: u32,
    /// How far ahead of a sequential reader chunks are fetched, at most.
    pub read_ahead_bytes_max: u64,
    /// Bytes of one part of a large upload. Smaller objects are written by one PUT.
    pub part_bytes: u32,
    /// Parts of one upload that are on their way at once.
    pub parts_in_flight_max: usize,
    /// Parts of all uploads that are in memory at once: with `part_bytes` the memory for uploads.
    pub parts_max: usize,
    /// GETs at once that readers wait for.
    pub fetches_max: usize,
    /// GETs at once that run ahead of readers.
    pub read_ahead_fetches_max: usize,
    /// Lists, heads, deletes at once.
    pub admin_max: usize,
    /// Longest time for one attempt of one call.
    pub attempt_timeout: Duration,
    /// Longest time for one call, its retries and the wait for a permit included.
    pub call_deadline: Duration,
    /// Pause before the first retry; it doubles from there, and each is drawn at random between nothing and that.
    pub backoff_min: Duration,
    pub backoff_max: Duration,
    /// Retries a call may cost on average: 0.2 means calls ≤ 1.2 × what was asked.
    pub retry_ratio_max: f64,
    /// Retries that may come at once, beyond the average.
    pub retry_burst: u32,
    pub read_back: ReadBack,
    /// Seed of the jitter and of the names of staged uploads. Random by default, because no two brokers may share it;
    /// a simulation gives its own and repeats itself.
    pub seed: u64,
}

impl Default for TierOptions {
    #[expect(
        clippy::disallowed_methods,
        reason = "no two may share it: a broker hands in a number of its environment's"
    )]
    fn default() -> Self {
        Self {
            cache_bytes_max: 256 << 20,
            chunk_bytes: 4 << 20,
            block_bytes: 1 << 20,
            read_ahead_bytes_max: 32 << 20,
            part_bytes: 8 << 20,
            parts_in_flight_max: 4,
            parts_max: 8,
            fetches_max: 32,
            read_ahead_fetches_max: 16,
            admin_max: 16,
            attempt_timeout: Duration::from_secs(30),
            call_deadline: Duration::from_secs(120),
            backoff_min: Duration::from_millis(100),
            backoff_max: Duration::from_secs(10),
            retry_ratio_max: 0.2,
            retry_burst: 100,
            read_back: ReadBack::Whole,
            seed: std::hash::RandomState::new().build_hasher().finish(),
        }
    }
}
