//! The command line as people type it, against a broker in this process: what it does, what it says, how it ends.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]

use std::io::Write;
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
