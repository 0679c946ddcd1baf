//! Replays the fuzz corpus of segment recovery, and its seeds with every byte changed and every length.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../fuzz/exercise.rs"]
mod exercise;

use std::path::Path;

#[test]
fn the_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/segment_recovery");
    let mut seeds = 0;
    for entry in std::fs::read_dir(corpus).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        seeds += 1;
        exercise::segment_recovery(&seed);
        for at in 0..seed.len() {
            exercise::segment_recovery(&seed[..at]);
            let mut changed = seed.clone();
            for change in [1, 0x80, 0xff] {
                changed[at] = seed[at] ^ change;
                exercise::segment_recovery(&changed);
            }
        }
    }
    assert!(seeds >= 4, "only {seeds} seeds");
    assert_eq!(exercise::FILES.len(), 9);
}
