//! Work that waits for a disk, kept off the threads that serve connections.

use tokio::task::JoinHandle;

/// Runs `work` on a thread that may block, and waits for its result. A panic in `work` goes on in the caller.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    finished(tokio::task::spawn_blocking(work)).await
}

/// Waits for the result of a task that nobody aborts. A panic in it goes on in the caller.
pub async fn finished<T>(task: JoinHandle<T>) -> T {
    match task.await {
        Ok(result) => result,
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        // The runtime is going away, and this task with it: nobody waits for a result any more.
        Err(_) => std::future::pending().await,
    }
}
