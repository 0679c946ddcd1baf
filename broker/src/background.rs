//! Threads for work that may wait: the system runs them after those that serve clients.
//!
//! Copying to the store and reading from it take as much of the processors as they get: receiving, checksums, memory. On
//! the threads of hot traffic a record would wait behind a chunk of megabytes.

use std::io;
use std::thread::available_parallelism;

use tokio::runtime::{Builder, Handle, Runtime};

/// How nice the threads are, of 19: where processors are short they get about a tenth of what hot traffic gets, so that
/// cooling still keeps up with the disk.
const NICENESS: i32 = 10;

/// A runtime on such threads. What still runs there when this is dropped is given up.
#[derive(Debug)]
pub struct Background {
    handle: Handle,
    /// Until it is dropped; none where there are no threads to have.
    runtime: Option<Runtime>,
}

impl Background {
    pub fn start() -> io::Result<Background> {
        if firn_blocking::is_in_place() {
            return Ok(Background { handle: Handle::current(), runtime: None });
        }
        let runtime = Builder::new_multi_thread()
            .worker_threads(available_parallelism().map_or(1, usize::from))
            .thread_name("firn-background")
            // No process is named: that is the thread that calls.
            .on_thread_start(|| {
                if let Err(error) = rustix::process::setpriority_process(None, NICENESS) {
                    tracing::debug!(%error, "work in the background has the priority of the rest");
                }
            })
            .enable_all()
            .build()?;
        Ok(Background { handle: runtime.handle().clone(), runtime: Some(runtime) })
    }

    pub fn handle(&self) -> &Handle {
        &self.handle
    }
}

impl Drop for Background {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // A runtime may not wait for its threads on a thread of another one.
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_threads_are_nicer_than_ours() {
        let background = Background::start().unwrap();
        let niceness = || rustix::process::getpriority_process(None).unwrap();
        let ours = niceness();
        let theirs = background.handle().block_on(async {
            let worker = tokio::spawn(async move { niceness() }).await.unwrap();
            (worker, tokio::task::spawn_blocking(niceness).await.unwrap())
        });
        // A process that was started nicer than that may not become less so.
        let expected = NICENESS.max(ours);
        assert_eq!(theirs, (expected, expected));
        assert_eq!(niceness(), ours, "the others stay as they were");
    }
}
