//! Apache's DumpLogSegments as the oracle of every file that the log holds.

use std::path::{Path, PathBuf};

use crate::java;

/// What the oracle counted in a set of files.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Segments {
    pub files: usize,
    pub batches: u64,
    pub records: u64,
    /// Batches that compaction left without a record.
    pub emptied: u64,
    /// Records that end a transaction.
    pub markers: u64,
    /// Entries of `.txnindex` files.
    pub aborted: u64,
    /// Producers in `.snapshot` files.
    pub producers: u64,
}

/// Whether offsets may have holes: compaction leaves them, nothing else does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offsets {
    Dense,
    Sparse,
}

/// The files that the oracle reads.
const KINDS: [&str; 5] = ["log", "index", "timeindex", "txnindex", "snapshot"];

/// Every file of these kinds under a stopped broker's log directory passes the oracle.
pub fn assert_valid_directory(data: &Path, offsets: Offsets) -> Segments {
    let mut files = Vec::new();
    collect(data, &mut files);
    assert_valid(&files, offsets)
}

/// These files pass the oracle.
pub fn assert_valid(files: &[PathBuf], offsets: Offsets) -> Segments {
    let mut total = Segments { files: files.len(), ..Segments::default() };
    for some in files.chunks(100) {
        let found = java::dump_segments(some);
        let strange: Vec<&String> = found
            .strange
            .iter()
            .filter(|line| !is_about_holes(line) || (offsets == Offsets::Dense && is_a_hole(line)))
            .collect();
        assert!(strange.is_empty(), "DumpLogSegments objects: {strange:#?}");
        total.batches += found.batches;
        total.records += found.records;
        total.emptied += found.emptied;
        total.markers += found.markers;
        total.aborted += found.aborted;
        total.producers += found.producers;
    }
    total
}

fn is_about_holes(line: &str) -> bool {
    line.starts_with("Non-consecutive offsets in") || line.contains(" is followed by ")
}

/// The tool counts from -1 and so finds a hole before the first record of every file but the first: that is none.
fn is_a_hole(line: &str) -> bool {
    line.contains(" is followed by ") && !line.trim_start().starts_with("-1 ")
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found == extension)
}

fn collect(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("read the log directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            if !path.to_string_lossy().ends_with("-delete") {
                collect(&path, files);
            }
        } else if KINDS.iter().any(|kind| has_extension(&path, kind)) {
            files.push(path);
        }
    }
}
