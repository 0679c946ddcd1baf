//! Two processes on one data directory: the second refuses to start and says why; the first is not disturbed.

use std::time::Duration;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::java;
use firn_tests::process::{Process, TempDir, free_ports};
use firn_tests::segments::{self, Offsets};
use firn_tests::tools;
use serde_json::json;

#[test]
fn a_second_process_on_the_same_directory_refuses_and_says_why() {
    let mut broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "mine", 1, &[]);

    let work = TempDir::new("second");
    let [port, http_port] = free_ports();
    let config = work.path().join("server.properties");
    let data = broker.data();
    let lines = format!(
        "broker.id=1\nlisteners=PLAINTEXT://127.0.0.1:{port}\nfirn.http.port={http_port}\nlog.dirs={}\n",
        data.display()
    );
    std::fs::write(&config, lines).expect("write server.properties");
    let mut command = std::process::Command::new(tools::firn());
    command.arg("serve").arg("--config").arg(&config);
    let mut second = Process::start("second", command, work.path());
    let status = second.wait(Duration::from_secs(20));
    assert_ne!(status, 0);
    let said = format!("{}{}", second.stdout(), second.stderr());
    let data = data.display().to_string();
    assert!(said.contains(&data), "it names the directory: {said}");
    assert!(
        said.contains("lock") || said.contains("in use") || said.contains("another"),
        "and the reason: {said}"
    );

    let sent = java::produce(&address, "mine", &[], &[json!({"value": "still here"})]);
    assert_eq!(sent, [Ok((0, 0))]);
    broker.stop();
    segments::assert_valid_directory(&broker.data(), Offsets::Dense);
}
