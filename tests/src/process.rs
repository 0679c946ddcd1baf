//! Child processes with captured logs, deadlines instead of sleeps, and a sure end: each is killed by its id on drop.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

static TEMP_ROOT: OnceLock<PathBuf> = OnceLock::new();

/// Where temporary directories are made from now on, instead of in the system's. To be called before the first.
pub fn set_temp_root(root: PathBuf) {
    TEMP_ROOT.set(root).expect("the root of temporary directories is set once");
}

/// A directory of this test's own, removed on drop unless the test is failing.
#[derive(Debug)]
pub struct TempDir {
    path: PathBuf,
}

impl TempDir {
    pub fn new(label: &str) -> TempDir {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let root = TEMP_ROOT.get_or_init(std::env::temp_dir);
        let path = root.join(format!("firn-{label}-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&path).expect("create a temporary directory");
        TempDir { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for a look: {}", self.path.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.path) {
            eprintln!("cannot remove {}: {error}", self.path.display());
        }
    }
}

/// Asks again and again until the answer comes; panics with `what` after the deadline.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let started = Instant::now();
    let mut pause = Duration::from_millis(1);
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(started.elapsed() < deadline, "not within {deadline:?}: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Below the ports that the system gives to connections (`ip_local_port_range`), which a broker that starts again could lose its own to, and
/// so are those of its metrics, 10,000 above, which nobody else is given.
const FIRST_PORTS: std::ops::Range<u16> = 12_700..22_700;

/// Ports of the loopback that nobody listens on, none of which this process was given before.
pub fn free_ports<const N: usize>() -> [u16; N] {
    std::array::from_fn(|_| free_ports_in_a_row(1))
}

/// The first of as many such ports, one after another.
pub fn free_ports_in_a_row(count: u16) -> u16 {
    static GIVEN: AtomicU32 = AtomicU32::new(0);
    // Other processes begin elsewhere.
    let begin = std::process::id().wrapping_mul(101);
    let places = u32::from(FIRST_PORTS.end - FIRST_PORTS.start);
    let next = || {
        let place = begin.wrapping_add(GIVEN.fetch_add(u32::from(count), Ordering::Relaxed)) % places;
        FIRST_PORTS.start + u16::try_from(place).expect("a place among the ports")
    };
    let is_free = |port: u16| std::net::TcpListener::bind(("127.0.0.1", port)).is_ok();
    let are_free = |first: &u16| (*first..first + count).all(is_free);
    (0..places).map(|_| next()).find(are_free).expect("ports that nobody listens on")
}

/// A running child whose standard output and error go to files.
#[derive(Debug)]
pub struct Process {
    child: Child,
    name: String,
    out: PathBuf,
    err: PathBuf,
}

impl Process {
    /// Starts `command`, with `<name>.out` and `<name>.err` in `logs`.
    pub fn start(name: &str, mut command: Command, logs: &Path) -> Process {
        let out = logs.join(format!("{name}.out"));
        let err = logs.join(format!("{name}.err"));
        let open = |path: &Path| File::options().create(true).append(true).open(path).expect("open a log");
        let child = command
            .stdin(Stdio::null())
            .stdout(open(&out))
            .stderr(open(&err))
            .spawn()
            .unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        Process { child, name: name.to_owned(), out, err }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn stdout(&self) -> String {
        std::fs::read_to_string(&self.out).unwrap_or_default()
    }

    pub fn stderr(&self) -> String {
        std::fs::read_to_string(&self.err).unwrap_or_default()
    }

    /// The exit code once it has ended; -1 when a signal ended it.
    pub fn ended(&mut self) -> Option<i32> {
        self.child.try_wait().expect("ask for a child's end").map(|status| status.code().unwrap_or(-1))
    }

    pub fn assert_running(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}\n{}\n{}", self.name, self.stdout(), self.stderr());
        }
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.child.id() as i32).expect("a child's id is positive");
        if let Err(error) = kill_process(pid, signal) {
            eprintln!("cannot signal {}: {error}", self.name);
        }
    }

    /// SIGTERM, then its exit code.
    pub fn stop(&mut self, deadline: Duration) -> i32 {
        self.signal(Signal::TERM);
        self.wait(deadline)
    }

    /// SIGKILL, and reaped.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
        self.child.wait().expect("reap a killed child");
    }

    pub fn wait(&mut self, deadline: Duration) -> i32 {
        let name = format!("the end of {}", self.name);
        wait_for(&name, deadline, || self.child.try_wait().expect("wait for a child")).code().unwrap_or(-1)
    }

    /// User and system time so far, in seconds.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid())).expect("the process runs");
        let fields: Vec<&str> =
            stat.rsplit(')').next().expect("stat has a name").split_whitespace().collect();
        let ticks = |i: usize| fields[i].parse::<f64>().expect("ticks");
        (ticks(11) + ticks(12)) / 100.0
    }

    /// Puts every thread it has, and with them those to come, into the class that runs when nobody else wants to.
    pub fn give_way(&self) {
        let tasks =
            std::fs::read_dir(format!("/proc/{}/task", self.pid())).expect("the process runs").flatten();
        let threads: Vec<_> = tasks.map(|task| task.file_name().to_string_lossy().into_owned()).collect();
        for thread in threads {
            run_ok(Command::new("chrt").args(["--idle", "--pid", "0", &thread]), "", Duration::from_secs(10));
        }
    }

    /// Resident memory now, in bytes.
    pub fn rss_bytes(&self) -> u64 {
        self.status_bytes("VmRSS:")
    }

    /// The most resident memory it ever had, in bytes.
    pub fn peak_rss_bytes(&self) -> u64 {
        self.status_bytes("VmHWM:")
    }

    fn status_bytes(&self, key: &str) -> u64 {
        let status =
            std::fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("the process runs");
        let line = status.lines().find(|line| line.starts_with(key)).expect("a memory line");
        line.split_whitespace().nth(1).and_then(|kib| kib.parse::<u64>().ok()).expect("KiB") * 1024
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.child.try_wait().ok().flatten().is_none() {
            self.kill();
        }
        if std::thread::panicking() {
            for (stream, text) in [("out", self.stdout()), ("err", self.stderr())] {
                let lines: Vec<&str> = text.lines().collect();
                let tail = &lines[lines.len().saturating_sub(40)..];
                eprintln!("--- {} {stream}, last lines\n{}", self.name, tail.join("\n"));
            }
        }
    }
}

/// Runs a command to its end within a deadline, with `input` on its standard input.
pub fn run(command: &mut Command, input: &str, deadline: Duration) -> Output {
    use std::io::Write;
    let described = format!("{command:?}");
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("cannot start {described}: {error}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let input = input.to_owned();
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()));
    let out = drain(child.stdout.take().expect("a pipe"));
    let err = drain(child.stderr.take().expect("a pipe"));
    let started = Instant::now();
    let status = loop {
        if let Some(status) = child.try_wait().expect("wait for a command") {
            break status;
        }
        if started.elapsed() > deadline {
            child.kill().expect("kill a late command");
            child.wait().expect("reap a late command");
            let err = String::from_utf8_lossy(&err.join().expect("its errors")).into_owned();
            panic!("not within {deadline:?}: {described}\n{err}");
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    if let Err(error) = writer.join().expect("the writer ends") {
        assert_eq!(error.kind(), std::io::ErrorKind::BrokenPipe, "write to {described}");
    }
    Output { status, stdout: out.join().expect("its output"), stderr: err.join().expect("its errors") }
}

/// As `run`, but an exit code other than 0 fails the test. Gives standard output.
pub fn run_ok(command: &mut Command, input: &str, deadline: Duration) -> String {
    let output = run(command, input, deadline);
    let err = String::from_utf8_lossy(&output.stderr);
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?} ended with {}\n{out}\n{err}", output.status);
    out
}

/// A command run as root: as it is when the test is root, through `sudo -n` otherwise.
pub fn as_root(program: &str) -> Command {
    if rustix::process::geteuid().is_root() {
        Command::new(program)
    } else {
        let mut command = Command::new("sudo");
        command.args(["-n", program]);
        command
    }
}

fn drain(mut stream: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        stream.read_to_end(&mut bytes).expect("read a child's output");
        bytes
    })
}
