//! `firn topic|produce|consume|group|config|cluster` as a person, and a script that reads JSON, use them.

use std::process::{Command, Output};
use std::time::Duration;

use firn_tests::cluster::{Broker, BrokerOptions};
use firn_tests::process::{TempDir, run_ok};
use firn_tests::segments::Offsets;
use firn_tests::tools;
use serde_json::{Value, json};

use crate::{finish, sorted_lines};

const DEADLINE: Duration = Duration::from_secs(30);

fn command(address: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(tools::firn());
    command.args(arguments).env("FIRN_BOOTSTRAP", address);
    command
}

fn firn(address: &str, arguments: &[&str], input: &str) -> String {
    run_ok(&mut command(address, arguments), input, DEADLINE)
}

fn told(address: &str, arguments: &[&str]) -> Value {
    let text = firn(address, &[arguments, &["--output", "json"]].concat(), "");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}\n{text}"))
}

fn fails(address: &str, arguments: &[&str]) -> String {
    let Output { status, stdout, stderr } = command(address, arguments).output().expect("run firn");
    assert_eq!((status.code(), stdout.len()), (Some(1), 0), "{arguments:?}");
    String::from_utf8(stderr).expect("UTF-8")
}

#[test]
fn topics_are_altered_trimmed_and_deleted() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    firn(&address, &["topic", "create", "orders", "--partitions", "2", "--config", "segment.ms=60000"], "");
    let alter = ["topic", "alter", "orders", "--partitions", "3", "--config", "retention.ms=5000", "--reset"];
    assert_eq!(firn(&address, &[&alter[..], &["segment.ms"]].concat(), ""), "Topic orders is altered.\n");
    assert_eq!(told(&address, &["topic", "list"])[0]["partitions"], json!(3));
    let configs = told(&address, &["config", "describe", "--topic", "orders"]);
    assert_eq!(configs.as_array().map(Vec::len), Some(1), "{configs}");
    assert_eq!((&configs[0]["name"], &configs[0]["value"]), (&json!("retention.ms"), &json!("5000")));

    firn(&address, &["config", "delete", "--topic", "orders", "retention.ms"], "");
    let lines: String = (0..20).map(|number| format!("{number}\n")).collect();
    let wrote = firn(&address, &["produce", "orders", "--partition", "1", "--output", "json"], &lines);
    assert_eq!(wrote, "{\"written\":20}\n");
    let trimmed = told(&address, &["topic", "trim", "orders", "--partition", "1", "--before", "15"]);
    assert_eq!(trimmed, json!([{"topic": "orders", "partition": 1, "first_offset": 15}]));
    let left = firn(&address, &["consume", "orders", "--from-beginning", "--until-end"], "");
    assert_eq!(left, "15\n16\n17\n18\n19\n");
    let refused = fails(&address, &["topic", "trim", "orders", "--partition", "1", "--before", "900"]);
    assert!(refused.contains("OffsetOutOfRange"), "{refused}");
    firn(&address, &["topic", "trim", "orders", "--all"], "");
    assert_eq!(firn(&address, &["consume", "orders", "--from-beginning", "--until-end"], ""), "");

    firn(&address, &["topic", "create", "news"], "");
    let deleted = firn(&address, &["topic", "delete", "orders", "news"], "");
    assert_eq!(deleted, "Topic orders is deleted.\nTopic news is deleted.\n");
    let missing = fails(&address, &["consume", "orders"]);
    assert_eq!(
        missing,
        "error: cannot find topic orders: there is no such topic or partition (UnknownTopicOrPartition)\n"
    );
    assert!(fails(&address, &["group", "describe", "nobody"]).contains("describe group nobody"));
    finish(broker, Offsets::Dense);
}

#[test]
fn the_default_of_all_brokers_is_set_shown_and_taken_back() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let shown = |whose: &[&str]| {
        let configs = told(&address, &[&["config", "describe"], whose].concat());
        let rows = configs.as_array().expect("an array").iter();
        rows.map(|row| format!("{}={} {}", row["name"], row["value"], row["source"])).collect::<Vec<_>>()
    };
    assert_eq!(shown(&["--all-brokers"]), [""; 0]);
    let set = ["config", "set", "--all-brokers", "log.retention.ms=7000", "log.cleaner.threads=2"];
    assert_eq!(firn(&address, &set, ""), "Changed log.retention.ms, log.cleaner.threads.\n");
    let both = [
        r#""log.cleaner.threads"="2" "DYNAMIC_DEFAULT_BROKER_CONFIG""#,
        r#""log.retention.ms"="7000" "DYNAMIC_DEFAULT_BROKER_CONFIG""#,
    ];
    assert_eq!(shown(&["--all-brokers"]), both);
    let id = told(&address, &["cluster", "describe"])["brokers"][0]["id"].to_string();
    assert_eq!(shown(&["--broker", &id]), both, "each broker obeys it");

    firn(&address, &["config", "delete", "--all-brokers", "log.retention.ms", "log.cleaner.threads"], "");
    assert_eq!(shown(&["--all-brokers"]), [""; 0]);
    let refused = fails(&address, &["config", "set", "--all-brokers", "log.cleaner.threads=many"]);
    assert!(refused.contains("change the configs of all brokers") && refused.contains("'many'"), "{refused}");
    let mut both_named = command(&address, &["config", "describe", "--all-brokers", "--broker", &id]);
    assert_eq!(both_named.output().expect("run firn").status.code(), Some(2), "one or the other");
    finish(broker, Offsets::Dense);
}

#[test]
fn a_file_is_written_and_read_to_the_end_that_it_has() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    let work = TempDir::new("command-line");
    let path = work.path().join("lines.txt");
    let lines: String = (0..5000).map(|number| format!("key-{}:{number}\r\n", number % 50)).collect();
    std::fs::write(&path, &lines).expect("write the lines");
    firn(&address, &["topic", "create", "orders", "--partitions", "4"], "");
    let file = path.to_str().expect("UTF-8");
    let compressed = ["--key-separator", ":", "--compression", "zstd"];
    let said = firn(&address, &[&["produce", "orders", "--file", file][..], &compressed].concat(), "");
    assert_eq!(said, "Wrote 5000 records to orders.\n");
    let all = ["consume", "orders", "--from-beginning", "--until-end", "--format", "%k:%v\\r\\n"];
    let read = firn(&address, &all, "").replace("\\r", "\r");
    assert_eq!(sorted_lines(&read), sorted_lines(&lines));
    assert!(fails(&address, &["produce", "orders", "--file", "/nowhere"]).contains("cannot read /nowhere"));

    let found = told(&address, &["cluster", "describe"]);
    assert_eq!(found["brokers"][0]["address"], json!(address));
    firn(&address, &["consume", "orders", "--group", "readers", "--from-beginning", "--max", "10"], "");
    let group = told(&address, &["group", "describe", "readers"]);
    let committed = group["partitions"].as_array().expect("partitions").iter();
    assert_eq!(committed.filter_map(|row| row["offset"].as_i64()).sum::<i64>(), 10, "{group}");
    finish(broker, Offsets::Dense);
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let broker = Broker::start(BrokerOptions::default());
    let address = broker.address();
    firn(&address, &["topic", "create", "orders"], "");
    let piped = firn(&address, &["topic", "list"], "");
    assert!(piped.starts_with("TOPIC   PARTITIONS\n"), "{piped}");
    // A terminal of the test's own: `script` runs a command in one.
    let in_terminal = |variables: &[(&str, &str)]| {
        let mut terminal = Command::new("script");
        let line = format!("{} topic list", tools::firn().display());
        terminal.args(["-q", "-e", "-c", &line, "/dev/null"]);
        terminal.env("FIRN_BOOTSTRAP", &address).env("TERM", "xterm").env_remove("NO_COLOR");
        terminal.envs(variables.iter().copied());
        run_ok(&mut terminal, "", DEADLINE)
    };
    assert!(in_terminal(&[]).contains("\u{1b}[1mTOPIC   PARTITIONS\u{1b}[0m"));
    assert!(!in_terminal(&[("NO_COLOR", "1")]).contains('\u{1b}'));
    finish(broker, Offsets::Dense);
}
