//! Replays the fuzz corpus of the frame decoder, and each frame cut off and with every byte changed.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on says so by panicking"
)]

#[path = "../fuzz/exercise.rs"]
mod exercise;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use firn_protocol::frame::Request;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/frame_decoder")
}

/// Files by name: a valid frame of every API at every version, and bad ones.
fn seeds() -> BTreeMap<String, Vec<u8>> {
    let good = exercise::samples();
    let good = good.into_iter().map(|sample| (format!("{:?}-{}", sample.api, sample.version), sample.frame));
    let bad = exercise::known_bad().into_iter().map(|(name, frame)| (name.to_owned(), frame));
    good.chain(bad).collect()
}

#[test]
fn every_sample_is_a_request() {
    for sample in exercise::samples() {
        let request = Request::parse(sample.api, Bytes::from(sample.frame)).unwrap();
        assert!(exercise::is_request(sample.api, &request), "{:?} {}", sample.api, sample.version);
    }
}

#[test]
fn no_bad_frame_is_a_request() {
    for (name, frame) in exercise::known_bad() {
        let api = firn_protocol::frame::api_of(&frame)
            .and_then(|(key, version)| firn_protocol::versions::served(key, version));
        let Some(api) = api else { continue };
        let request = Request::parse(api, Bytes::from(frame));
        assert!(!request.is_ok_and(|request| exercise::is_request(api, &request)), "{name}");
    }
}

#[test]
fn the_corpus_has_all_seeds_and_breaks_no_promise() {
    for (name, frame) in seeds() {
        let found = std::fs::read(corpus().join(&name)).ok();
        assert_eq!(
            found,
            Some(frame),
            "{name}: `cargo test -p firn-protocol --test corpus -- --ignored` writes the seeds"
        );
    }
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let frame = std::fs::read(entry.unwrap().path()).unwrap();
        exercise::frame_decoder(&frame);
        for at in 0..frame.len() {
            exercise::frame_decoder(&frame[..at]);
            let mut changed = frame.clone();
            for byte in [0, 1, 0x7f, 0x80, 0xff] {
                changed[at] = byte;
                exercise::frame_decoder(&changed);
            }
        }
    }
}

#[test]
fn no_lying_length_breaks_a_promise() {
    for sample in exercise::samples() {
        for lie in sample.lengths.iter().flat_map(|length| length.lies(&sample.frame)) {
            exercise::frame_decoder(&lie);
        }
    }
}

#[test]
#[ignore = "writes the seeds of the corpus, after a change of what is served"]
fn write_seeds() {
    for (name, frame) in seeds() {
        std::fs::write(corpus().join(name), frame).unwrap();
    }
}
