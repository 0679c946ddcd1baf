//! Work that waits for a disk, kept off the threads that serve connections.

use std::cell::RefCell;
use std::time::Duration;

use tokio::task::JoinHandle;

/// Says how long the next piece of work takes.
type Latency = Box<dyn FnMut() -> Duration>;

thread_local! {
    static IN_PLACE: RefCell<Option<Latency>> = const { RefCell::new(None) };
}

/// From now on, work that tasks of this thread ask for is done on it, after as long as `latency` says: for a simulation,
/// which has one thread, and whose time passes only when it waits.
pub fn do_in_place(latency: impl FnMut() -> Duration + 'static) {
    IN_PLACE.set(Some(Box::new(latency)));
}

/// Whether work of this thread is done in place.
pub fn is_in_place() -> bool {
    IN_PLACE.with_borrow(Option::is_some)
}

/// Runs `work` on a thread that may block, and waits for its result. A panic in `work` goes on in the caller.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if let Some(latency) = IN_PLACE.with_borrow_mut(|latency| latency.as_mut().map(|next| next())) {
        tokio::time::sleep(latency).await;
        return work();
    }
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
