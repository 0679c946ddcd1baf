//! Replays the fuzz corpus, and the seeds with every byte changed and every length, under plain `cargo test`.

#![allow(clippy::unwrap_used, reason = "what is run here is a test, its helpers too")]

use std::fs;
use std::path::Path;

#[path = "../fuzz/exercise.rs"]
mod exercise;

#[test]
fn the_corpus_breaks_no_promise() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/batch_validator");
    let mut replayed = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        exercise::batch_validator(&fs::read(&path).unwrap());
        replayed += 1;
    }
    assert!(replayed >= exercise::seeds().len(), "only {replayed} inputs were found");
}

#[test]
fn no_changed_byte_breaks_a_promise() {
    for seed in exercise::seeds() {
        exercise::batch_validator(&seed);
        for at in 0..seed.len() {
            let mut changed = seed.clone();
            for byte in [0, 0xff, seed[at] ^ 1] {
                changed[at] = byte;
                exercise::batch_validator(&changed);
            }
        }
    }
}

#[test]
fn no_length_breaks_a_promise() {
    for seed in exercise::seeds() {
        for length in 0..seed.len() {
            exercise::batch_validator(&seed[..length]);
        }
        for length in 1..seed.len() - 1 {
            exercise::batch_validator(&[&seed[..1], &seed[length..]].concat());
        }
    }
}
