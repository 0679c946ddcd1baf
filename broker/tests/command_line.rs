//! The command line as people type it, against a broker in this process: what it does, what it says, how it ends.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use firn::environment::Environment;
use firn::node::Node;
use firn_model::broker_config::BrokerConfig;
use firn_model::properties;
use firn_storage::simulated::SimulatedDisk;

const FIRN: &str = env!("CARGO_BIN_EXE_firn");

/// A broker, and the words that reach it.
struct World {
    node: Node,
    address: String,
}

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: Option<i32>,
    out: String,
    err: String,
}

impl World {
    async fn start() -> World {
        let text = "listeners=PLAINTEXT://127.0.0.1:0\nlog.dirs=/data\nfirn.http.host=127.0.0.1\n\
                    firn.http.port=0\nfirn.disk.reserve.bytes=0\nnum.partitions=1\n\
                    offsets.topic.num.partitions=1\noffsets.topic.replication.factor=1\n\
                    group.initial.rebalance.delay.ms=0\n";
        let config = BrokerConfig::from_properties(&properties::parse(text).unwrap()).unwrap().config;
        let environment = Environment { disk: Arc::new(SimulatedDisk::new()), ..Environment::system() };
        let node = Node::start(config, environment).await.unwrap();
        let address = node.addresses[0].to_string();
        World { node, address }
    }

    /// Runs `firn` with `line`, to whose end the broker is added, and `input` to read.
    async fn run(&self, line: &str, input: &str) -> Ended {
        let line = format!("{line} --bootstrap-server {}", self.address);
        run(&line, input).await
    }

    /// As `run`, for what must succeed: what it printed.
    async fn done(&self, line: &str, input: &str) -> String {
        let ended = self.run(line, input).await;
        assert_eq!(ended.code, Some(0), "{line}: {ended:?}");
        ended.out
    }

    /// As `run`, for what must fail: what it said.
    async fn fails(&self, line: &str, input: &str) -> String {
        let ended = self.run(line, input).await;
        assert_eq!(ended.code, Some(1), "{line}: {ended:?}");
        ended.err
    }
}

async fn run(line: &str, input: &str) -> Ended {
    let (line, input) = (line.to_owned(), input.to_owned());
    let output = tokio::task::spawn_blocking(move || output(&line, &input)).await.unwrap();
    Ended {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

fn output(line: &str, input: &str) -> Output {
    let mut command = Command::new(FIRN);
    command.args(line.split(' ')).env_remove("FIRN_BOOTSTRAP");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Whoever fails before it has read all closes the pipe.
    child.stdin.take().unwrap().write_all(input.as_bytes()).ok();
    child.wait_with_output().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lines_before_one_that_cannot_be_taken_are_written() {
    let world = World::start().await;
    let input = "k1:v1\nk2:v2\nnokey\nk4:v4\n";
    let told = world.fails("produce ours --key-separator :", input).await;
    let expected = "error: line 3 has no key separator \":\": nokey (2 records were written before it)\n";
    assert_eq!(told, expected);
    let face = "kafka-console-producer --topic ours --property parse.key=true --property key.separator=:";
    assert_eq!(world.fails(face, input).await, expected);
    let read = world.done("consume ours --from-beginning --until-end --format %k=%v,", "").await;
    assert_eq!(read, "k1=v1,k2=v2,k1=v1,k2=v2,");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_that_is_moved_says_so_and_what_was_cut() {
    let world = World::start().await;
    world.done("produce ours", "a\nb\nc\n").await;
    let reset = "group reset-offsets readers --topic ours --to-offset 500";
    let dry = world.run(&format!("{reset} --dry-run"), "").await;
    assert!(dry.out.starts_with("Dry run: nothing is changed.\nTOPIC "), "{dry:?}");
    assert!(dry.err.contains("there is no group readers yet; it would be made"), "{dry:?}");
    let cut =
        "New offset (500) is higher than latest offset for topic partition ours-0. Value will be set to 3";
    assert!(dry.err.contains(cut), "{dry:?}");
    let moved = world.run(reset, "").await;
    assert!(moved.out.starts_with("Moved group readers:\n"), "{moved:?}");
    let face = "kafka-consumer-groups --reset-offsets --group readers --topic ours --to-offset 500 --dry-run";
    let told = world.run(face, "").await;
    assert!(told.err.contains(cut) && !told.err.contains("no group"), "{told:?}");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refusals_say_what_to_do() {
    let world = World::start().await;
    let told = world.fails("group describe nobody", "").await;
    assert!(told.contains("no such group"), "{told}");
    let told = world.fails("group delete nobody", "").await;
    assert!(told.contains("there is no such group; firn group list"), "{told}");
    let told = world.fails("topic describe bad/topic", "").await;
    assert!(told.contains("a topic's name is up to 249 letters"), "{told}");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_topic_that_is_not_there_keeps_none_of_the_others() {
    let world = World::start().await;
    world.done("topic create a", "").await;
    world.done("topic create --topic b", "").await;
    let ended = world.run("topic delete a missing b gone", "").await;
    assert_eq!((ended.code, ended.out.as_str()), (Some(1), "Topic a is deleted.\nTopic b is deleted.\n"));
    assert!(ended.err.contains("topic missing: ") && ended.err.contains("topic gone: "), "{ended:?}");
    world.node.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_follows_ends_when_nobody_reads_any_more() {
    let world = World::start().await;
    world.done("produce ours", "first\n").await;
    let line = ["consume", "ours", "--from-beginning", "--bootstrap", &world.address];
    let mut child = Command::new(FIRN).args(line).stdout(Stdio::piped()).spawn().unwrap();
    let status = tokio::task::spawn_blocking(move || {
        let mut first = [0; 6];
        child.stdout.take().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"first\n");
        child.wait().unwrap()
    });
    assert_eq!(status.await.unwrap().code(), Some(0));
    let mut script = Command::new(FIRN).args(["completion", "bash"]).stdout(Stdio::piped()).spawn().unwrap();
    drop(script.stdout.take());
    assert_eq!(script.wait().unwrap().code(), Some(0));
    world.node.stop().await;
}
