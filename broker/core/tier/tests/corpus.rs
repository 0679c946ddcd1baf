//! Replays the fuzz corpus of object footers and names, each cut off and with every byte changed.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on says so by panicking")]

#[path = "../fuzz/exercise.rs"]
mod exercise;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use firn_tier::footer::{Footer, Section};
use firn_tier::lineage::{Compaction, EpochStart, LeaderEpochs};
use firn_tier::names::{ObjectName, PartitionPath, staged_name};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus/object_footer")
}

fn footer(epochs: &[(i32, i64)], compaction: Compaction, lengths: [u64; 6]) -> Footer {
    let epochs = epochs.iter().map(|&(epoch, start_offset)| EpochStart { epoch, start_offset });
    let mut footer = Footer {
        base_offset: 100,
        last_offset: 199,
        uploader_epoch: 4,
        max_timestamp: 1_700_000_000_000,
        compaction,
        block_bytes: 1 << 20,
        leader_epochs: LeaderEpochs::new(epochs.collect()).unwrap(),
        sections: [Section::default(); 6],
        object_bytes: 0,
    };
    footer.lay_out(lengths.map(|length| (length, length as u32)));
    footer
}

fn name() -> ObjectName {
    ObjectName {
        base_offset: 100,
        last_offset: 199,
        leader_epoch: 3,
        max_timestamp: 1_700_000_000_000,
        log_bytes: 3 << 20,
    }
}

/// Inputs by name: footers with their objects' lengths, and names.
fn seeds() -> BTreeMap<&'static str, Vec<u8>> {
    let long_history: Vec<(i32, i64)> = (0..40).map(|epoch| (epoch, i64::from(epoch) * 5)).collect();
    let footers = [
        ("one-epoch", footer(&[(0, 0)], Compaction::NONE, [900, 8, 12, 0, 10, 4])),
        ("all-sections", footer(&[(0, 0), (3, 120)], Compaction::NONE, [3 << 20, 800, 1200, 34, 50, 12])),
        ("compacted", footer(&[(7, 0)], Compaction { to: 5_000, epoch: None }, [1, 0, 0, 0, 0, 4])),
        (
            "compacted-in-an-epoch",
            footer(&[(7, 0)], Compaction { to: 5_000, epoch: Some(9) }, [1, 0, 0, 0, 0, 4]),
        ),
        ("long-history", footer(&long_history, Compaction::NONE, [5 << 20, 16, 24, 0, 0, 20])),
        ("empty-log", footer(&[(0, 0)], Compaction::NONE, [0, 0, 0, 0, 0, 0])),
    ];
    let footers = footers
        .into_iter()
        .map(|(seed, footer)| (seed, [footer.object_bytes.to_le_bytes().to_vec(), footer.encode()].concat()));
    let path = "cluster/topics/orders.with.dots.AAAAAAAAAAAAAAAAAAAAAQ/17";
    assert!(PartitionPath::parse(path).is_some());
    let names = [
        ("segment-name", name().to_string()),
        ("segment-without-time", ObjectName { max_timestamp: -1, ..name() }.to_string()),
        ("staged-name", staged_name(&name(), 0x0123_4567_89ab_cdef)),
        ("partition-path", path.to_owned()),
    ];
    let names = names.into_iter().map(|(seed, text)| (seed, [[0; 8].to_vec(), text.into_bytes()].concat()));
    footers.chain(names).collect()
}

#[test]
fn every_seed_is_what_it_is_called() {
    let mut footers = 0;
    for (seed, bytes) in seeds() {
        let (object_bytes, tail) = bytes.split_first_chunk::<8>().unwrap();
        match u64::from_le_bytes(*object_bytes) {
            0 => assert!(std::str::from_utf8(tail).is_ok(), "{seed}"),
            object_bytes => {
                assert!(Footer::parse(tail, object_bytes).is_ok(), "{seed}");
                footers += 1;
            }
        }
    }
    assert_eq!(footers, 6);
}

#[test]
fn the_corpus_has_all_seeds_and_breaks_no_promise() {
    for (seed, bytes) in seeds() {
        let found = std::fs::read(corpus().join(seed)).ok();
        assert_eq!(
            found,
            Some(bytes),
            "{seed}: `cargo test -p firn-tier --test corpus -- --ignored` writes the seeds"
        );
    }
    for entry in std::fs::read_dir(corpus()).unwrap() {
        let seed = std::fs::read(entry.unwrap().path()).unwrap();
        exercise::object_footer(&seed);
        for at in 0..seed.len() {
            exercise::object_footer(&seed[..at]);
            exercise::object_footer(&seed[at..]);
            let mut changed = seed.clone();
            for byte in 0..=255 {
                changed[at] = byte;
                exercise::object_footer(&changed);
            }
        }
    }
}

#[test]
#[ignore = "writes the seeds of the corpus, after a change of the format"]
fn write_seeds() {
    for (seed, bytes) in seeds() {
        std::fs::write(corpus().join(seed), bytes).unwrap();
    }
}
