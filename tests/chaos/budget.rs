//! A short run of real faults: each kind once under load, and a few power cuts of a whole cluster.

use std::process::Output;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use firn_tests::process::run;
use firn_tests::tools;

const DEADLINE: Duration = Duration::from_secs(900);
/// One cluster at a time: what they are judged by is also how soon they come back.
static TURN: Mutex<()> = Mutex::new(());

fn firn_chaos(arguments: &str) -> (Output, String) {
    let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_firn-chaos"));
    command.env("FIRN_BIN", tools::firn()).args(arguments.split_whitespace());
    let output = run(&mut command, "", DEADLINE);
    let said =
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output, said)
}

fn passes(arguments: &str) {
    let (output, said) = firn_chaos(arguments);
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_fault_of_every_kind_loses_nothing() {
    passes("run --faults 13 --seed 1");
}

#[test]
fn a_cluster_whose_power_is_cut_on_ext4_loses_nothing() {
    passes("cut --cuts 4 --file-system ext4");
}

#[test]
fn a_cluster_whose_power_is_cut_on_xfs_loses_nothing() {
    passes("cut --cuts 4 --file-system xfs");
}

#[test]
fn a_cluster_whose_disks_rot_gives_nobody_anything_wrong() {
    passes("rot --wounds 90");
}

/// The proof that a cut cuts, and that a loss is found.
#[test]
fn without_fsync_a_cluster_whose_power_is_cut_loses_records() {
    let (output, said) = firn_chaos("cut --cuts 2 --without-fsync");
    assert!(!output.status.success(), "{said}");
    assert!(["Lost", "Unseen", "it ended at"].iter().any(|kind| said.contains(kind)), "{said}");
}
