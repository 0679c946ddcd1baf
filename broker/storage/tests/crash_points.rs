//! Every crash point of a log's life, in the manner of ALICE (OSDI '14).
//!
//! A seeded workload runs on the simulated disk. Before each operation that changes something, the disk is copied as
//! several kinds of power cut would leave it, the copy is opened and compared with what the log owes at that moment. A
//! point is counted once, however many kinds of cut it stands.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "a test that cannot go on says so by panicking, in its helpers too"
)]

#[path = "crash/model.rs"]
mod model;
#[path = "crash/workload.rs"]
#[allow(dead_code, reason = "shared with the faults")]
mod workload;

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use firn_storage::simulated::{Faults, Operation, PowerCut, SimulatedDisk};
use parking_lot::Mutex;

use model::Model;
use workload::{Shape, Shared, Workload};

const STEPS: usize = 160;

/// Runs a workload, with a power cut of each kind before each operation; counts them, and returns the first violation.
fn run(seed: u64, shape: Shape, faults: &Faults) -> (u64, Option<String>) {
    let disk = SimulatedDisk::new();
    let model: Shared = Arc::new(Mutex::new(Model::default()));
    let points = Arc::new(AtomicU64::new(0));
    let violation: Arc<Mutex<Option<String>>> = Arc::default();
    let mut workload = Workload::new(disk.clone(), seed, shape, Arc::clone(&model));
    disk.set_faults(faults.clone());
    let (counted, found) = (Arc::clone(&points), Arc::clone(&violation));
    disk.set_probe(Some(Arc::new(move |disk: &SimulatedDisk, number, operation: Operation, path: &Path| {
        if found.lock().is_some() {
            return;
        }
        counted.fetch_add(1, Ordering::Relaxed);
        for cut in [
            PowerCut::DropUnsynced,
            PowerCut::KeepAll,
            PowerCut::TornLastWrite { seed: seed ^ number },
            PowerCut::Some { seed: seed ^ number },
        ] {
            let owed = model.lock().clone();
            if let Err(what) = owed.check(&disk.after_power_cut(cut)) {
                let point = format!(
                    "seed {seed}, before operation {number} ({operation:?} {}), {cut:?}",
                    path.display()
                );
                *found.lock() = Some(format!("{point}: {what}"));
                return;
            }
        }
    })));
    for _ in 0..STEPS {
        if violation.lock().is_some() {
            break;
        }
        workload.step().unwrap_or_else(|error| panic!("seed {seed}: {error}"));
    }
    let idle = match shape {
        Shape::Deleted => false,
        Shape::Compacted => workload.compactions == 0,
        Shape::Tiered => workload.cooled == 0,
    };
    assert!(!idle || violation.lock().is_some(), "seed {seed}: {shape:?} is what nothing was");
    disk.set_probe(None);
    let violation = violation.lock().take();
    (points.load(Ordering::Relaxed), violation)
}

fn run_seeds(seeds: std::ops::Range<u64>, shape: Shape) -> u64 {
    let (left, right) = (seeds.clone().step_by(2), seeds.skip(1).step_by(2));
    std::thread::scope(|scope| {
        let other = scope.spawn(move || points_of(right, shape));
        points_of(left, shape) + other.join().expect("no violation")
    })
}

fn points_of(seeds: impl Iterator<Item = u64>, shape: Shape) -> u64 {
    let mut points = 0;
    for seed in seeds {
        let (counted, violation) = run(seed, shape, &Faults::default());
        points += counted;
        if let Some(violation) = violation {
            panic!("{violation}");
        }
    }
    points
}

#[test]
fn no_crash_point_loses_what_was_acknowledged() {
    let points = run_seeds(1..7, Shape::Deleted);
    println!("{points} crash points");
    assert!(points >= 5_000, "only {points} crash points");
}

#[test]
fn no_crash_point_of_a_compacted_log_loses_a_keys_last_value() {
    let points = run_seeds(101..104, Shape::Compacted);
    println!("{points} crash points");
    assert!(points >= 3_000, "only {points} crash points");
}

#[test]
fn no_crash_point_of_a_tiered_log_forgets_what_has_left_the_disk() {
    let points = run_seeds(201..204, Shape::Tiered);
    println!("{points} crash points");
    assert!(points >= 2_000, "only {points} crash points");
}

#[test]
fn the_checker_notices_a_disk_whose_syncs_do_nothing() {
    for faults in [
        Faults { sync_lies: Some(""), ..Faults::default() },
        Faults { dir_sync_lies: true, ..Faults::default() },
    ] {
        let caught = (1..5).any(|seed| run(seed, Shape::Deleted, &faults).1.is_some());
        assert!(caught, "{faults:?}");
    }
}
