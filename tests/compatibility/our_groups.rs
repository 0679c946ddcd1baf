//! `firn consume --group` and Java's consumer as members of one group: they share, and lose and double nothing.

use std::process::Command;

use firn_tests::apache;
use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::process::{Process, TempDir, run_ok, wait_for};
use firn_tests::segments::Offsets;
use firn_tests::tools;

use crate::groups::{DEADLINE, member, send, values, wanted};
use crate::{finish, sorted_lines};

fn firn(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::firn());
    command.args(arguments).env("FIRN_BOOTSTRAP", address);
    command
}

#[test]
fn we_share_a_group_with_java_and_resume_where_we_committed() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let logs = TempDir::new("our-groups");
    apache::create_topic(&address, "jobs", 7, &[]);
    let arguments = ["consume", "jobs", "--group", "mygroup", "--from-beginning"];
    let mut ours = Process::start("ours", firn(&address, &arguments), logs.path());
    let java = member(&address, "jobs", &[]);
    wait_for("a share for each", DEADLINE, || [3, 4].contains(&java.assignment().len()).then_some(()));
    let described =
        apache::consumer_groups(&address, &["--describe", "--group", "mygroup", "--members"]).ok();
    assert!(described.lines().any(|line| line.contains(" firn ")), "{described}");

    send(&address, "jobs", 1..=70);
    let received = |ours: &Process| {
        let mut all = values(&[&java]);
        all.extend(ours.stdout().lines().map(str::to_owned));
        all.sort();
        all
    };
    wait_for("all seventy", DEADLINE, || (received(&ours).len() >= 70).then_some(()));
    assert_eq!(received(&ours), wanted(1..=70), "none lost and none twice");
    assert!(!ours.stdout().is_empty() && !java.records().is_empty());

    // Who leaves commits first, so the other goes on where it stopped.
    let theirs: Vec<String> = java.close(true).into_iter().filter_map(|record| record.value).collect();
    send(&address, "jobs", 71..=90);
    wait_for("twenty more", DEADLINE, || (theirs.len() + ours.stdout().lines().count() >= 90).then_some(()));
    assert_eq!(ours.stop(DEADLINE), 0, "{}", ours.stderr());
    let mut all = theirs;
    all.extend(ours.stdout().lines().map(str::to_owned));
    all.sort();
    assert_eq!(all, wanted(1..=90), "none lost and none twice");

    send(&address, "jobs", 91..=95);
    let rest = run_ok(&mut firn(&address, &["consume", "jobs", "-g", "mygroup", "--max", "3"]), "", DEADLINE);
    let last = run_ok(&mut firn(&address, &["consume", "jobs", "-g", "mygroup", "--max", "2"]), "", DEADLINE);
    assert_eq!(sorted_lines(&(rest + &last)), wanted(91..=95), "what was not printed was not committed");
    finish(broker, Offsets::Dense);
}

#[test]
fn the_console_consumer_has_groups_and_a_last_line_as_kafkas() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    apache::create_topic(&address, "news", 2, &[]);
    send(&address, "news", 1..=6);
    let console = |arguments: &[&str]| {
        let common = ["kafka-console-consumer", "--bootstrap-server", &address, "--topic", "news"];
        let output = firn(&address, &[&common[..], arguments].concat()).output().expect("run firn");
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
        (text(output.stdout), text(output.stderr), output.status.code())
    };
    let (out, err, status) = console(&["--from-beginning", "--timeout-ms", "3000"]);
    assert_eq!((sorted_lines(&out), status), (wanted(1..=6), Some(0)));
    assert_eq!(err, "Processed a total of 6 messages\n");

    let group = ["--from-beginning", "--consumer-property", "group.id=readers", "--max-messages", "4"];
    let (first, err, _) = console(&group);
    assert_eq!(err, "Processed a total of 4 messages\n");
    let (second, err, _) = console(&["--group", "readers", "--from-beginning", "--max-messages", "2"]);
    assert_eq!(err, "Processed a total of 2 messages\n");
    assert_eq!(sorted_lines(&(first + &second)), wanted(1..=6));
    // And Apache's own goes on where ours stopped.
    send(&address, "news", 7..=8);
    let theirs = apache::console_consumer(&address, "news", 2, &["--group", "readers", "--from-beginning"]);
    assert_eq!(sorted_lines(&theirs.wait().ok()), wanted(7..=8));
    finish(broker, Offsets::Dense);
}
