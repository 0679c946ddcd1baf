//! A broker is emptied under load and taken out, or is lost and replaced: by `firn broker`, as Apache's tools see it.

use std::process::{Command, Output};
use std::time::Duration;

use firn_client::topics::Partition;
use firn_tests::cluster::{BrokerOptions, System};
use firn_tests::ledger::Past;
use firn_tests::librdkafka::Load;
use firn_tests::process::{run, wait_for};
use firn_tests::trio::Trio;
use firn_tests::{apache, tools};

const DEADLINE: Duration = Duration::from_secs(120);
const TOPIC: &str = "snow";
const PARTITIONS: i32 = 6;

/// Three brokers, and a topic with two replicas of each partition, which are written to.
fn start() -> (Trio, Load) {
    let options = BrokerOptions::default()
        .with("broker.session.timeout.ms", "3000")
        .with("broker.heartbeat.interval.ms", "500")
        .with("offsets.topic.replication.factor", "2");
    let trio = Trio::start(&options);
    let arguments = ["--create", "--topic", TOPIC, "--partitions", "6", "--replication-factor", "2"];
    let created = apache::topics(&trio.addresses(), &arguments).ok();
    assert!(created.contains("Created topic"), "{created}");
    let load = Load::start(&trio.addresses(), TOPIC, PARTITIONS, 0, 2_000, &[]);
    load.wait_for_more(1_000);
    (trio, load)
}

fn firn(address: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new(tools::firn());
    command.arg("broker").args(arguments).args(["--bootstrap-server", address]);
    run(&mut command, "", DEADLINE)
}

fn done(address: &str, arguments: &[&str]) -> String {
    let output = firn(address, arguments);
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{arguments:?}: {out} {err}");
    out.into_owned()
}

/// Of each partition, as kafka-topics describes it.
fn described_replicas(address: &str) -> Vec<Vec<String>> {
    let described = apache::topics(address, &["--describe", "--topic", TOPIC]).ok();
    let rows = described.lines().filter_map(|line| line.split("\tReplicas: ").nth(1));
    rows.map(|rest| {
        rest.split('\t').next().unwrap_or_default().trim().split(',').map(str::to_owned).collect()
    })
    .collect()
}

/// Whether each partition is on two brokers, in sync on both, and on none of these.
fn whole_without(partitions: &[Partition], gone: i32) -> bool {
    let whole =
        |now: &Partition| !now.replicas.contains(&gone) && now.replicas.len() == 2 && now.in_sync.len() == 2;
    partitions.len() == PARTITIONS as usize && partitions.iter().all(whole)
}

#[test]
fn a_broker_is_emptied_under_load_and_put_out() {
    if System::under_test() == System::Kafka {
        // It empties nobody by itself.
        return;
    }
    let (mut trio, load) = start();
    let rest = format!("{},{}", trio.brokers[0].address(), trio.brokers[1].address());
    assert!(described_replicas(&rest).concat().contains(&"3".to_owned()));
    let emptied = done(&rest, &["drain", "3"]);
    assert!(emptied.contains("Broker 3 has no replicas."), "{emptied}");
    assert!(whole_without(&trio.describe(TOPIC), 3));
    let described = described_replicas(&rest);
    assert_eq!((described.len(), described.concat().contains(&"3".to_owned())), (6, false), "{described:?}");
    let marked = apache::configs(
        &trio.brokers[2].address(),
        &["--describe", "--entity-type", "brokers", "--entity-name", "3"],
    );
    assert!(marked.clone().ok().contains("firn.broker.drain=true"), "{marked:?}");
    let arguments = ["--create", "--topic", "ice", "--partitions", "1", "--replication-factor", "3"];
    let refused = apache::topics(&rest, &arguments);
    assert!(
        format!("{refused:?}").contains("only 2 broker(s) are registered and take new replicas"),
        "it gets no new ones: {refused:?}"
    );
    load.wait_for_more(1_000);

    trio.brokers[2].stop();
    let out = done(&rest, &["unregister", "3"]);
    assert!(out.contains("Broker 3 is no longer registered."), "{out}");
    load.wait_for_more(1_000);
    // Two brokers are as few as two replicas need.
    let refused = firn(&rest, &["drain", "2"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("6 partition(s) stay on broker 2"), "{said}");
    let kept = done(&rest, &["drain", "2", "--cancel"]);
    assert!(kept.contains("Broker 2 gets replicas again."), "{kept}");
    let ledger = load.end();
    assert!(ledger.failures.is_empty(), "{:?}", ledger.failures);
    Past::default().check(&rest, TOPIC, PARTITIONS, &ledger);
    trio.brokers.iter_mut().take(2).for_each(|broker| broker.stop());
}

#[test]
fn a_broker_that_is_lost_is_replaced() {
    if System::under_test() == System::Kafka {
        return;
    }
    let (mut trio, load) = start();
    let rest = format!("{},{}", trio.brokers[0].address(), trio.brokers[1].address());
    trio.brokers[2].kill();
    wait_for("its absence", DEADLINE, || {
        trio.describe(TOPIC).iter().all(|now| !now.in_sync.contains(&3) && now.leader.is_some()).then_some(())
    });
    assert!(trio.describe(TOPIC).iter().any(|now| now.replicas.contains(&3)), "it may come back");
    let emptied = done(&rest, &["drain", "3"]);
    assert!(emptied.contains("Broker 3 has no replicas."), "{emptied}");
    assert!(whole_without(&trio.describe(TOPIC), 3));
    done(&rest, &["unregister", "3"]);
    load.wait_for_more(1_000);
    let ledger = load.end();
    assert!(ledger.failures.is_empty(), "{:?}", ledger.failures);
    Past::default().check(&rest, TOPIC, PARTITIONS, &ledger);
    trio.brokers.iter_mut().take(2).for_each(|broker| broker.stop());
}
