//! Work that waits for a disk, kept off the threads that serve connections.

#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
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
#[expect(clippy::disallowed_methods, reason = "this is the seam: everybody else asks here")]
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    if let Some(latency) = IN_PLACE.with_borrow_mut(|latency| latency.as_mut().map(|next| next())) {
        tokio::time::sleep(latency).await;
        return work();
    }
    finished(tokio::task::spawn_blocking(work)).await
}

/// Does `work` on each of `all`, on so many threads at a time; where work is done in place, on one after another.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the seam: who calls may block, and so may these threads"
)]
pub fn share<T: Sync>(all: &[T], threads: usize, work: impl Fn(&T) + Sync) {
    if is_in_place() {
        all.iter().for_each(work);
        return;
    }
    let next = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..threads.min(all.len()) {
            scope.spawn(|| {
                while let Some(one) = all.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(one);
                }
            });
        }
    });
}

/// Makes work that was given to [`run`] wait. False where it is done in place: there no time passes while it is done.
#[expect(clippy::disallowed_methods, reason = "this is the seam: the thread is one that may block")]
pub fn pause(time: Duration) -> bool {
    let waits = !is_in_place();
    if waits {
        std::thread::sleep(time);
    }
    waits
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

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    use std::thread::{ThreadId, current};

    use super::*;

    fn shared_out(threads: usize) -> (Vec<u32>, BTreeSet<String>) {
        let done: Mutex<Vec<(u32, ThreadId)>> = Mutex::default();
        let all: Vec<u32> = (0..100).collect();
        share(&all, threads, |one| done.lock().unwrap().push((*one, current().id())));
        let done = done.into_inner().unwrap();
        let (work, by) = done.into_iter().unzip::<_, _, Vec<_>, Vec<_>>();
        (work, by.into_iter().map(|id| format!("{id:?}")).collect())
    }

    #[test]
    fn each_piece_of_shared_work_is_done_once_by_so_many_threads_at_most() {
        let (mut done, by) = shared_out(3);
        done.sort_unstable();
        assert_eq!(done, (0..100).collect::<Vec<_>>());
        assert!((1..=3).contains(&by.len()), "{by:?}");
    }

    #[test]
    fn in_place_one_thread_does_it_in_order_and_nothing_waits() {
        assert!(pause(Duration::ZERO), "a thread that may block waits");
        do_in_place(|| Duration::ZERO);
        let own = format!("{:?}", current().id());
        assert_eq!(shared_out(3), ((0..100).collect(), BTreeSet::from([own])));
        assert!(!pause(Duration::MAX));
    }
}
