//! Many seeds, each in a process of its own, as many at a time as there are processors.

use std::process::{Command, ExitCode, Output};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How often it is told how far a soak has come.
const TOLD_EVERY: Duration = Duration::from_secs(10);

pub fn soak(from: u64, seeds: Option<u64>, seconds: u64) -> ExitCode {
    let began = Instant::now();
    let end = seeds.map_or(u64::MAX, |seeds| from.saturating_add(seeds));
    let next = AtomicU64::new(from);
    let done = AtomicU64::new(0);
    let failed: Mutex<Vec<String>> = Mutex::default();
    let last = Mutex::new(began);
    let failures = || failed.lock().unwrap_or_else(PoisonError::into_inner);
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || !failures().is_empty() {
                        return;
                    }
                    match one(seed, seconds) {
                        Ok(output) if output.status.success() => {}
                        Ok(output) => failures().push(told(seed, &output)),
                        Err(error) => failures().push(format!("seed {seed} could not be run: {error}")),
                    }
                    let done = done.fetch_add(1, Ordering::Relaxed) + 1;
                    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                    if last.elapsed() >= TOLD_EVERY {
                        *last = Instant::now();
                        println!("{done} seeds in {:.0} s", began.elapsed().as_secs_f64());
                    }
                }
            });
        }
    });
    let failed = failures();
    let done = done.load(Ordering::Relaxed);
    println!(
        "{done} seeds of {seconds} virtual seconds from seed {from} in {:.0} s: {} of them broke a promise",
        began.elapsed().as_secs_f64(),
        failed.len()
    );
    for what in failed.iter() {
        println!("{what}");
    }
    if failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// What a run that failed has said; it may not have come to its end.
fn told(seed: u64, output: &Output) -> String {
    let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    format!("seed {seed}, {}: {}", output.status, said.concat())
}

fn one(seed: u64, seconds: u64) -> std::io::Result<Output> {
    let arguments = ["run".to_owned(), format!("--seed={seed}"), format!("--seconds={seconds}")];
    Command::new(std::env::current_exe()?).args(arguments).output()
}
