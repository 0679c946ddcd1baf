//! Permits whose number follows a config that may change while some of them are out.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

#[derive(Debug)]
pub(super) struct Permits {
    semaphore: Arc<Semaphore>,
    max: Mutex<usize>,
}

impl Permits {
    pub(super) fn new(max: usize) -> Self {
        Self { semaphore: Arc::new(Semaphore::new(max)), max: Mutex::new(max) }
    }

    pub(super) fn max(&self) -> usize {
        *self.max.lock()
    }

    /// How many are out.
    pub(super) fn busy(&self) -> usize {
        self.max().saturating_sub(self.semaphore.available_permits())
    }

    /// The share, of 1, that is not out.
    pub(super) fn idle(&self) -> f64 {
        let max = self.max();
        self.semaphore.available_permits().min(max) as f64 / max.max(1) as f64
    }

    /// Makes it `max` permits. If there were more, those that are out now are taken away as they come back.
    pub(super) fn set_max(&self, max: usize) {
        let before = std::mem::replace(&mut *self.max.lock(), max);
        self.semaphore.add_permits(max.saturating_sub(before));
        let surplus = before.saturating_sub(max);
        let out = surplus - self.semaphore.forget_permits(surplus);
        if out > 0 {
            let (semaphore, out) = (self.semaphore.clone(), u32::try_from(out).unwrap_or(u32::MAX));
            tokio::spawn(async move {
                if let Ok(permits) = semaphore.acquire_many_owned(out).await {
                    permits.forget();
                }
            });
        }
    }

    /// Waits for one. `None` never comes: the semaphore is not closed.
    pub(super) async fn acquire(&self) -> Option<OwnedSemaphorePermit> {
        self.semaphore.clone().acquire_owned().await.ok()
    }

    /// One, if there is any.
    pub(super) fn try_acquire(&self) -> Option<OwnedSemaphorePermit> {
        self.semaphore.clone().try_acquire_owned().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn their_number_can_change_while_some_are_out() {
        let permits = Permits::new(2);
        let (first, second) = (permits.acquire().await, permits.acquire().await);
        assert!(permits.try_acquire().is_none());
        permits.set_max(3);
        let third = permits.try_acquire();
        assert!(third.is_some());
        assert_eq!((permits.busy(), permits.idle()), (3, 0.0));
        permits.set_max(1);
        drop((first, second));
        tokio::task::yield_now().await;
        assert!(permits.try_acquire().is_none(), "two were taken away");
        drop(third);
        let only = permits.acquire().await;
        assert!(only.is_some() && permits.try_acquire().is_none());
        drop(only);
        assert_eq!((permits.max(), permits.busy(), permits.idle()), (1, 0, 1.0));
    }
}
