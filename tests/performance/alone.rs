//! Produce with an fsync before every acknowledgement, against a plain program that writes and fsyncs as much at a time.

use std::fs::File;
use std::io::Write;
use std::time::Instant;

use firn_tests::cluster::System;

use crate::Plan;
use crate::pair::{self, Flush, Load};
use crate::report::{self, Figure, Goal, Report};

const SECTION: &str = "alone";
const FLUSHES: &str = "kafka_log_logflushstats_logflushrateandtimems_count";

pub fn measure(plan: &Plan, report: &mut Report) {
    let broker = pair::broker(System::Firn, SECTION);
    let load = Load {
        size: 1024,
        codec: "none",
        partitions: 1,
        flush: Flush::EachMessage,
        bytes: plan.amount(2_000_000_000),
    };
    let (mut produced, mut plain, mut share, mut sizes) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let (mut broker_cpu, mut client_cpu) = (Vec::new(), Vec::new());
    for _ in 0..plan.runs {
        let before = broker.metric(FLUSHES).unwrap_or_default();
        let outcome = pair::produce(&broker, &load);
        let speed = outcome.mb_per_second;
        broker_cpu.push(outcome.broker_cpu_per_gb);
        client_cpu.push(outcome.client_cpu_per_gb);
        let flushes = broker.metric(FLUSHES).unwrap_or_default() - before;
        let write_bytes = if flushes > 0.0 { (load.bytes as f64 / flushes) as usize } else { 1 << 20 };
        let writer = plain_writer(load.bytes, write_bytes);
        share.push(speed / writer);
        produced.push(speed);
        plain.push(writer);
        sizes.push(write_bytes as f64 / 1024.0);
    }
    let rows = [
        ("produce, 1 KiB, 1 partition, fsync before ack", "MB/s", produced, Goal::NONE),
        ("its broker CPU", "s/GB", broker_cpu, Goal::NONE),
        ("its client CPU", "s/GB", client_cpu, Goal::NONE),
        ("written for each fsync", "KiB", sizes, Goal::NONE),
        ("a plain writer that fsyncs as often", "MB/s", plain, Goal::NONE),
        ("Firn's share of the plain writer", "of 1", share, Goal::at_least(0.8)),
    ];
    for (name, unit, firn, goal) in rows {
        report.add(Figure { section: SECTION, name: name.to_owned(), unit, firn, kafka: Vec::new(), goal });
    }
}

/// MB/s of a loop of write and fdatasync into a growing file.
fn plain_writer(bytes: u64, write_bytes: usize) -> f64 {
    let path = report::directory().join("data").join("plain");
    let mut file = File::create(&path).expect("create a file");
    let chunk = vec![0x5a_u8; write_bytes.max(1)];
    let started = Instant::now();
    let mut written = 0;
    while written < bytes {
        file.write_all(&chunk).expect("write");
        file.sync_data().expect("fdatasync");
        written += chunk.len() as u64;
    }
    let seconds = started.elapsed().as_secs_f64();
    std::fs::remove_file(&path).expect("remove the file");
    written as f64 / 1e6 / seconds
}
