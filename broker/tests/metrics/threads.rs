//! The threads and the disks of this process.

use std::time::Duration;

use firn_telemetry::disk_io::DiskIo;
use tokio::time::Instant;

use crate::world::World;

const WORKERS: usize = 2;
const IDLE: [&str; 2] = [
    "kafka_network_socketserver_networkprocessoravgidle_percent",
    "kafka_server_kafkarequesthandlerpool_requesthandleravgidle_percent",
];

/// Keeps every thread of the runtime busy.
async fn toil() {
    let toiling = (0..WORKERS).map(|_| {
        tokio::spawn(async {
            let began = Instant::now();
            while began.elapsed() < Duration::from_millis(100) {
                std::hint::spin_loop();
            }
        })
    });
    for task in toiling.collect::<Vec<_>>() {
        task.await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn threads_that_work_are_less_idle() {
    let world = World::start("").await;
    let before = world.scrape().await;
    assert_eq!(before.single("firn_threads"), WORKERS as f64);
    let began = Instant::now();
    let after = loop {
        toil().await;
        let scrape = world.scrape().await;
        if IDLE.iter().all(|name| scrape.single(name) < 0.6) {
            break scrape;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "idle is {}", scrape.single(IDLE[0]));
    };
    let worked =
        after.single("firn_threads_busy_seconds_total") - before.single("firn_threads_busy_seconds_total");
    assert!(worked >= 0.1, "{worked}");
    for name in IDLE {
        assert!((0.0..=1.0).contains(&before.single(name)), "{name}");
        assert!((0.0..=1.0).contains(&after.single(name)), "{name}");
    }
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_io_is_what_the_kernel_counted() {
    let world = World::start("").await;
    let before = DiskIo::of_this_process().unwrap();
    let scrape = world.scrape().await;
    let after = DiskIo::of_this_process().unwrap();
    let read = scrape.single("kafka_server_kafkaserver_linux_disk_read_bytes") as u64;
    let written = scrape.single("kafka_server_kafkaserver_linux_disk_write_bytes") as u64;
    assert!((before.read_bytes..=after.read_bytes).contains(&read));
    assert!((before.written_bytes..=after.written_bytes).contains(&written));
    world.node.stop().await;
}
