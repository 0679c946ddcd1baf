//! A budget of seeds, and that the simulation can fail.

use std::process::Output;
use std::sync::LazyLock;

use firn_tests::simulator::Simulator;
use firn_tests::tools::repository;

fn firn_sim(arguments: &str) -> (Output, String) {
    static SIMULATOR: LazyLock<Simulator> = LazyLock::new(|| Simulator::build(&repository(), "firn-sim"));
    SIMULATOR.run(arguments)
}

/// More than six simulated hours.
#[test]
fn a_budget_of_seeds_breaks_no_promise() {
    let (output, said) = firn_sim("soak --from 1 --seeds 200 --seconds 120");
    println!("{said}");
    assert!(output.status.success(), "{said}");
}

#[test]
fn a_seed_leaves_the_same_trace_each_time() {
    for seed in 1..=20 {
        let run = || firn_sim(&format!("run --seed {seed} --seconds 20")).1;
        let first = run();
        assert!(first.contains(" trace "), "{first}");
        assert_eq!(first, run());
    }
    let other = |seed| firn_sim(&format!("run --seed {seed} --seconds 5")).1;
    let trace = |said: String| said.split(" trace ").nth(1).map(str::to_owned);
    assert_ne!(trace(other(1)), trace(other(2)));
}

/// More of them are for `make scale`.
#[test]
fn many_brokers_register_share_partitions_and_go_on_without_a_zone() {
    let (output, said) = firn_sim("scale --brokers 30 --partitions 10");
    println!("{said}");
    assert!(output.status.success() && said.contains("| 30 | 300 | it is back: all in sync |"), "{said}");
}

/// A disk that lies loses what was acknowledged, and the simulation has to find it.
#[test]
fn records_that_a_disk_did_not_keep_are_missed() {
    let found = (1..=20).find(|seed| {
        let (output, said) = firn_sim(&format!("run --seed {seed} --seconds 30 --lying-disk"));
        // A consumer that has read further than the log is long may be the first to miss them.
        let missed = ["Lost", "Unseen", "Vanished", "that is out of range"];
        !output.status.success() && missed.iter().any(|kind| said.contains(kind))
    });
    assert!(found.is_some(), "20 seeds, and nothing was missed");
}
