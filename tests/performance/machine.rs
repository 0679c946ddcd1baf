//! What the figures were measured on.

use std::process::Command;

use crate::report;

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
