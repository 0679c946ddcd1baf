//! What the figures were measured on.

use std::path::PathBuf;
use std::process::Command;

use firn_tests::process;

use crate::{Plan, report};

fn first_field(path: &str, key: &str) -> String {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    line.split_once(':').map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |_| "unknown".to_owned(),
        |output| {
            let text = if output.stdout.is_empty() { output.stderr } else { output.stdout };
            String::from_utf8_lossy(&text).lines().last().unwrap_or("unknown").trim().to_owned()
        },
    )
}

/// A few lines of markdown.
pub fn describe() -> String {
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let directory = report::directory().display().to_string();
    format!(
        "Machine: {cores} cores of {}, {} of memory, {} file system, Linux {}. Broker and client share it.\n\
         Java: {}. Kafka's heap: 1 GB. Client: librdkafka {}.\n",
        first_field("/proc/cpuinfo", "model name"),
        first_field("/proc/meminfo", "MemTotal"),
        said("stat", &["-f", "-c", "%T", &directory]),
        said("uname", &["-r"]),
        said("java", &["-version"]),
        said("pkg-config", &["--modversion", "rdkafka"]),
    )
}

/// Free memory that stays the machine's own while this lives.
///
/// A virtual machine may hand free pages back to its host (free page reporting), and takes a second of CPU for each GB that
/// it needs again: the figures of whoever comes first would be the hypervisor's. So reporting is held to the largest blocks
/// where the kernel lets us, and all of the free memory is touched once. Both systems run on what that leaves.
#[derive(Debug)]
pub struct OwnMemory {
    before: Option<String>,
}

impl OwnMemory {
    pub fn hold() -> OwnMemory {
        let before = std::fs::read_to_string(REPORTING_ORDER).ok();
        let before = before.filter(|_| std::fs::write(REPORTING_ORDER, "10").is_ok());
        let available = memory_available_bytes().saturating_sub(MEMORY_LEFT_BYTES);
        eprintln!("   touching {:.1} GB of memory", available as f64 / 1e9);
        let mut pages: Vec<u8> = Vec::with_capacity(available);
        pages.resize(available, 1);
        std::hint::black_box(&pages);
        OwnMemory { before }
    }
}

impl Drop for OwnMemory {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            std::fs::write(REPORTING_ORDER, before).ok();
        }
    }
}

/// For everything else that runs while the memory is touched.
const MEMORY_LEFT_BYTES: usize = 2 << 30;

/// The smallest blocks, as a power of two of pages, that are reported.
const REPORTING_ORDER: &str = "/sys/module/page_reporting/parameters/page_reporting_order";

fn memory_available_bytes() -> usize {
    let text = first_field("/proc/meminfo", "MemAvailable");
    let kib = text.trim_end_matches("kB").trim().parse::<usize>();
    kib.expect("MemAvailable is a number of kB") * 1024
}

/// What the longest section lays on the disk at a time: a log, its copy in the store, and the system's own.
const SPACE_BYTES: u64 = 30_000_000_000;

/// Removes what an earlier run left that did not come to its end, and keeps temporary files where the next one looks.
pub fn clear_leftovers() {
    for name in ["data", "tmp"] {
        let directory = scratch(name);
        if directory.exists() {
            std::fs::remove_dir_all(&directory).expect("remove the last run's data");
        }
        std::fs::create_dir_all(&directory).expect("create a directory for this run's data");
    }
    process::set_temp_root(scratch("tmp"));
}

/// A directory below the report's.
pub fn scratch(name: &str) -> PathBuf {
    report::directory().join(name)
}

/// Ends the program where a full disk would make nonsense of its figures.
pub fn require_space(plan: &Plan) {
    let directory = report::directory();
    let found = rustix::fs::statvfs(&directory).expect("ask for the free space");
    let free = found.f_bavail * found.f_frsize;
    let needed = plan.amount(SPACE_BYTES);
    assert!(
        free >= needed,
        "the comparison needs {:.1} GB of free space on the file system of {}, which has {:.1} GB: free some, or set CARGO_TARGET_DIR",
        needed as f64 / 1e9,
        directory.display(),
        free as f64 / 1e9
    );
}

/// Waits until nothing is left to be written back, so that one run's dirty pages are not the next one's noise.
pub fn settle() {
    let status = Command::new("sync").status();
    assert!(status.is_ok_and(|status| status.success()), "sync failed");
}
