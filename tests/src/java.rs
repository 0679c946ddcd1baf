//! Apache's tools and Java clients in one JVM that all tests of a process share (see tests/java/Peer.java).

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use serde_json::{Value, json};

use crate::tools;

const CALL_DEADLINE: Duration = Duration::from_secs(300);

/// What a read to the end may take.
const READ_DEADLINE: Duration = Duration::from_secs(120);

type Waiting = Arc<Mutex<HashMap<u64, Sender<Value>>>>;

struct Jvm {
    stdin: Mutex<ChildStdin>,
    waiting: Waiting,
    next: AtomicU64,
    /// Ends by itself when this process, which holds its standard input, is gone.
    _child: Child,
}

/// What a tool printed, and its exit status.
#[derive(Debug, Clone)]
pub struct ToolOutput {
    pub status: i64,
    pub out: String,
    pub err: String,
}

impl ToolOutput {
    /// Standard output of a tool that must have succeeded.
    pub fn ok(self) -> String {
        assert_eq!(self.status, 0, "the tool failed\n{}\n{}", self.out, self.err);
        self.out
    }
}

fn jvm() -> &'static Jvm {
    static JVM: OnceLock<Jvm> = OnceLock::new();
    JVM.get_or_init(|| {
        let mut child = Command::new("java")
            .args(["-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(tools::kafka_class_path("4.3.1"))
            .arg("Peer")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start the Java peer");
        let waiting = Waiting::default();
        let stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let answers = Arc::clone(&waiting);
        std::thread::spawn(move || {
            for line in stdout.lines() {
                let answer: Value = serde_json::from_str(&line.expect("an answer")).expect("JSON");
                let id = answer["id"].as_u64().expect("an id");
                if let Some(caller) = answers.lock().expect("not poisoned").remove(&id) {
                    caller.send(answer).unwrap_or_default();
                }
            }
        });
        let stdin = Mutex::new(child.stdin.take().expect("a pipe"));
        Jvm { stdin, waiting, next: AtomicU64::new(0), _child: child }
    })
}

fn begin(mut call: Value) -> Receiver<Value> {
    let jvm = jvm();
    let id = jvm.next.fetch_add(1, Ordering::Relaxed);
    call["id"] = id.into();
    let (sender, receiver) = channel();
    jvm.waiting.lock().expect("not poisoned").insert(id, sender);
    let mut stdin = jvm.stdin.lock().expect("not poisoned");
    writeln!(stdin, "{call}").expect("the Java peer listens");
    receiver
}

fn end(receiver: &Receiver<Value>) -> Result<Value, String> {
    let mut answer = receiver.recv_timeout(CALL_DEADLINE).expect("the Java peer answers in time");
    match answer["error"].as_str() {
        Some(error) => Err(error.to_owned()),
        None => Ok(answer["result"].take()),
    }
}

fn call(call: Value) -> Value {
    end(&begin(call)).unwrap_or_else(|error| panic!("the Java peer failed: {error}"))
}

/// Runs the tool with this main class to its end.
pub fn tool(class: &str, arguments: &[&str], input: &str) -> ToolOutput {
    start_tool(class, arguments, input).wait()
}

/// A tool that runs while the test goes on.
#[derive(Debug)]
pub struct RunningTool(Receiver<Value>);

impl RunningTool {
    pub fn wait(self) -> ToolOutput {
        let result = end(&self.0).unwrap_or_else(|error| panic!("the tool could not run: {error}"));
        ToolOutput {
            status: result["status"].as_i64().expect("a status"),
            out: result["out"].as_str().unwrap_or_default().to_owned(),
            err: result["err"].as_str().unwrap_or_default().to_owned(),
        }
    }
}

pub fn start_tool(class: &str, arguments: &[&str], input: &str) -> RunningTool {
    RunningTool(begin(json!({"op": "tool", "class": class, "arguments": arguments, "input": input})))
}

/// One record as Java's consumer gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JavaRecord {
    pub partition: i64,
    pub offset: i64,
    pub timestamp: i64,
    pub timestamp_type: String,
    pub key: Option<String>,
    pub value: Option<String>,
    pub headers: Vec<(String, String)>,
}

fn record(value: &Value) -> JavaRecord {
    let text = |field: &str| value[field].as_str().map(str::to_owned);
    let headers = value["headers"].as_object();
    JavaRecord {
        partition: value["partition"].as_i64().unwrap_or(-1),
        offset: value["offset"].as_i64().unwrap_or(-1),
        timestamp: value["timestamp"].as_i64().unwrap_or(-1),
        timestamp_type: text("timestamp_type").unwrap_or_default(),
        key: text("key"),
        value: text("value"),
        headers: headers
            .into_iter()
            .flatten()
            .map(|(name, value)| (name.clone(), value.as_str().unwrap_or_default().to_owned()))
            .collect(),
    }
}

fn records(value: &Value) -> Vec<JavaRecord> {
    value.as_array().expect("records").iter().map(record).collect()
}

fn config(address: &str, extra: &[(&str, &str)]) -> Value {
    let mut config = serde_json::Map::new();
    config.insert("bootstrap.servers".to_owned(), address.into());
    for (key, value) in extra {
        config.insert((*key).to_owned(), (*value).into());
    }
    config.into()
}

/// What became of one record that was sent: where it landed, or Java's error class and message.
pub type Sent = Result<(i64, i64), (String, String)>;

/// Sends `records` (objects with key, value, partition, timestamp, headers, each optional) with one producer.
pub fn produce(address: &str, topic: &str, extra: &[(&str, &str)], records: &[Value]) -> Vec<Sent> {
    let result =
        call(json!({"op": "produce", "topic": topic, "config": config(address, extra), "records": records}));
    let sent = |one: &Value| match one["error"].as_str() {
        Some(error) => Err((error.to_owned(), one["message"].as_str().unwrap_or_default().to_owned())),
        None => Ok((one["partition"].as_i64().expect("partition"), one["offset"].as_i64().expect("offset"))),
    };
    result.as_array().expect("results").iter().map(sent).collect()
}

/// Reads every partition of a topic from its start to its end.
pub fn read(address: &str, topic: &str, extra: &[(&str, &str)]) -> Vec<JavaRecord> {
    let timeout_ms = READ_DEADLINE.as_millis() as u64;
    records(&call(
        json!({"op": "read", "topic": topic, "timeout_ms": timeout_ms, "config": config(address, extra)}),
    ))
}

/// As `read`, but gives partition, offset and key only: for many or large records.
pub fn read_keys(address: &str, topic: &str, extra: &[(&str, &str)]) -> Vec<JavaRecord> {
    let timeout_ms = READ_DEADLINE.as_millis() as u64;
    let config = config(address, extra);
    records(&call(
        json!({"op": "read", "topic": topic, "timeout_ms": timeout_ms, "config": config, "brief": true}),
    ))
}

/// For each timestamp the first offset at or after it with its timestamp, as Java's `offsetsForTimes` tells.
pub fn offsets_for_times(
    address: &str,
    topic: &str,
    partition: i32,
    timestamps: &[i64],
) -> Vec<Option<(i64, i64)>> {
    let config = config(address, &[]);
    let found = call(json!({"op": "offsets_for_times", "topic": topic, "partition": partition,
        "timestamps": timestamps, "config": config}));
    let pair = |one: &Value| Some((one["offset"].as_i64()?, one["timestamp"].as_i64()?));
    found.as_array().expect("offsets").iter().map(pair).collect()
}

/// A subscribed Java consumer that polls in its own thread until it is closed.
#[derive(Debug)]
pub struct Consumer {
    name: String,
}

impl Consumer {
    pub fn open(address: &str, topic: &str, extra: &[(&str, &str)]) -> Consumer {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let name = format!("{topic}-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let mut settings = vec![("auto.offset.reset", "earliest")];
        settings.extend_from_slice(extra);
        let config = config(address, &settings);
        call(json!({"op": "consumer.open", "name": name, "topics": [topic], "config": config}));
        Consumer { name }
    }

    fn state(&self) -> Value {
        call(json!({"op": "consumer.state", "name": self.name}))
    }

    /// The partitions it holds, as `topic-partition`.
    pub fn assignment(&self) -> Vec<String> {
        let state = self.state();
        let names = state["assignment"].as_array().expect("an assignment");
        names.iter().map(|name| name.as_str().expect("a name").to_owned()).collect()
    }

    /// All that it has received so far.
    pub fn records(&self) -> Vec<JavaRecord> {
        records(&self.state()["records"])
    }

    pub fn commit(&self) {
        call(json!({"op": "consumer.commit", "name": self.name}));
    }

    /// What ended its polling, with the Java exceptions' names; `None` while it goes on.
    pub fn failure(&self) -> Option<String> {
        end(&begin(json!({"op": "consumer.state", "name": self.name}))).err()
    }

    /// Lets go of one that has failed.
    pub fn close_failed(self) {
        let closed = end(&begin(json!({"op": "consumer.close", "name": self.name, "leave": false})));
        assert!(closed.is_err(), "the consumer {} had not failed", self.name);
    }

    /// Closes it, leaving its group or (as a crashed consumer would) not; gives all that it received.
    pub fn close(self, leave: bool) -> Vec<JavaRecord> {
        let last = call(json!({"op": "consumer.close", "name": self.name, "leave": leave}));
        records(&last["records"])
    }
}

/// Creates topics `many-0`, `many-1`, ... by one admin client, a hundred a request.
pub fn create_topics(address: &str, topics: u64, partitions: u64) {
    let config = config(address, &[]);
    call(json!({"op": "create_topics", "topics": topics, "partitions": partitions, "config": config}));
}

/// Deletes those topics.
pub fn delete_topics(address: &str, topics: u64) {
    call(json!({"op": "delete_topics", "topics": topics, "config": config(address, &[])}));
}

/// Waits until every partition of those topics answers with its end offset.
pub fn wait_for_topics(address: &str, topics: u64, partitions: u64) {
    let config = config(address, &[]);
    call(json!({"op": "wait_for_topics", "topics": topics, "partitions": partitions, "config": config}));
}

/// What Kafka's own readers find in the small files of a log directory, and of one partition in it.
pub fn small_files(directory: &std::path::Path, partition: &str) -> Value {
    call(json!({"op": "small_files", "directory": directory.display().to_string(), "partition": partition}))
}

/// What DumpLogSegments said of some files: its counts, and every line that a sound file does not give.
#[derive(Debug, Default)]
pub struct SegmentsDump {
    pub batches: u64,
    pub records: u64,
    pub emptied: u64,
    pub markers: u64,
    pub aborted: u64,
    pub producers: u64,
    pub strange: Vec<String>,
}

/// DumpLogSegments with `--deep-iteration` over these files.
pub fn dump_segments(files: &[std::path::PathBuf]) -> SegmentsDump {
    let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
    let found = call(json!({"op": "dump_segments", "files": files}));
    let strange = found["strange"].as_array().expect("lines");
    let count = |what: &str| found[what].as_u64().expect("a count");
    SegmentsDump {
        batches: count("batches"),
        records: count("records"),
        emptied: count("emptied"),
        markers: count("markers"),
        aborted: count("aborted"),
        producers: count("producers"),
        strange: strange.iter().map(|line| line.as_str().unwrap_or_default().to_owned()).collect(),
    }
}
