//! Every call to the store: under a permit, with a deadline, retried within a budget, counted by its name.

use std::ops::Range;
use std::path::Path as FilePath;
use std::pin::{Pin, pin};
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyMode, CopyOptions, GetOptions, GetRange, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload,
};
use tokio::sync::Semaphore;
use tokio::time::Instant;

use crate::error::{Failure, StoreError};
use crate::metrics::{Operation, TierMetrics};
use crate::options::TierOptions;
use crate::pace::Pace;
use crate::retry::{Backoff, RetryBudget};
use crate::store::Store;
use crate::traffic::Traffic;

/// The store as the tier uses it.
#[derive(Debug)]
pub struct Bucket {
    pub(crate) store: Store,
    pub(crate) options: TierOptions,
    pub(crate) metrics: Arc<TierMetrics>,
    budget: RetryBudget,
    pub(crate) backoff: Backoff,
    fetches: Semaphore,
    writes: Semaphore,
    admin: Semaphore,
    pub(crate) copies: Pace,
    pub(crate) cold_reads: Pace,
}

impl Bucket {
    pub(crate) fn new(store: Store, options: TierOptions, metrics: Arc<TierMetrics>) -> Self {
        Self {
            budget: RetryBudget::new(options.retry_ratio_max, options.retry_burst),
            backoff: Backoff::new(options.backoff_min, options.backoff_max, options.seed),
            fetches: Semaphore::new(options.fetches_max + options.read_ahead_fetches_max),
            writes: Semaphore::new(options.parts_max.max(1)),
            admin: Semaphore::new(options.admin_max),
            copies: Pace::new(),
            cold_reads: Pace::new(),
            store,
            options,
            metrics,
        }
    }

    pub(crate) fn objects(&self) -> &dyn ObjectStore {
        &*self.store.objects
    }

    fn permits(&self, operation: Operation) -> &Semaphore {
        match operation {
            Operation::Get => &self.fetches,
            Operation::Put | Operation::PutPart | Operation::Copy | Operation::CompleteMultipart => {
                &self.writes
            }
            _ => &self.admin,
        }
    }

    /// Makes one call, with its retries. The deadline covers all of it, the wait for a permit included.
    pub(crate) async fn call<T, F>(
        &self,
        operation: Operation,
        path: &Path,
        mut attempt: impl FnMut() -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, Failure>>,
    {
        let deadline = Instant::now() + self.options.call_deadline;
        self.metrics.operation(operation).calls.add(1);
        self.budget.earn();
        let mut attempts = 0;
        let mut last = Failure::Timeout;
        loop {
            let Some(outcome) = self.attempt(operation, deadline, pin!(attempt())).await else { break };
            attempts += 1;
            last = match outcome {
                Ok(value) => return Ok(value),
                Err(failure) => failure,
            };
            if !last.is_retriable() {
                break;
            }
            let resume = Instant::now() + self.backoff.pause(attempts);
            if resume >= deadline {
                break;
            }
            if !self.budget.spend() {
                self.metrics.retries_refused.add(1);
                break;
            }
            tracing::debug!(%operation, %path, attempts, error = %last, "store call is retried");
            tokio::time::sleep_until(resume).await;
        }
        Err(StoreError { operation, path: path.to_string(), attempts, failure: last })
    }

    /// Makes a call that cannot be repeated, under the same permits, deadline and numbers.
    pub(crate) async fn call_once<T>(
        &self,
        operation: Operation,
        path: &Path,
        attempt: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, StoreError> {
        let deadline = Instant::now() + self.options.call_deadline;
        self.metrics.operation(operation).calls.add(1);
        let (attempts, outcome) = match self.attempt(operation, deadline, pin!(attempt)).await {
            None => (0, Err(Failure::Timeout)),
            Some(outcome) => (1, outcome),
        };
        outcome.map_err(|failure| StoreError { operation, path: path.to_string(), attempts, failure })
    }

    /// One attempt, counted; `None` if the deadline came before its turn.
    async fn attempt<T>(
        &self,
        operation: Operation,
        deadline: Instant,
        attempt: Pin<&mut impl Future<Output = Result<T, Failure>>>,
    ) -> Option<Result<T, Failure>> {
        let permit = tokio::time::timeout_at(deadline, self.permits(operation).acquire()).await.ok()?;
        let started = Instant::now();
        let until = deadline.min(started + self.options.attempt_timeout);
        let outcome = tokio::time::timeout_at(until, attempt).await;
        let timed_out = outcome.is_err();
        let outcome = outcome.unwrap_or(Err(Failure::Timeout));
        drop(permit);
        self.metrics.operation(operation).attempted(started.elapsed(), outcome.is_err(), timed_out);
        Some(outcome)
    }

    /// One ranged GET for a topic; the store must send all bytes of `range`.
    pub(crate) async fn get_range(
        &self,
        path: &Path,
        range: Range<u64>,
        topic: &Traffic,
    ) -> Result<Bytes, StoreError> {
        let expected = range.end.saturating_sub(range.start);
        self.metrics.count(topic, |traffic| traffic.fetch_requests.add(1));
        let outcome = self
            .call(Operation::Get, path, || async {
                let options =
                    GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
                let bytes = self.objects().get_opts(path, options).await?.bytes().await?;
                let got = bytes.len() as u64;
                if got == expected { Ok(bytes) } else { Err(Failure::Truncated { expected, got }) }
            })
            .await;
        match &outcome {
            Ok(bytes) => self.metrics.count(topic, |traffic| traffic.fetch_bytes.add(bytes.len() as u64)),
            Err(_) => self.metrics.count(topic, |traffic| traffic.fetch_errors.add(1)),
        }
        outcome
    }

    /// Size of an object, `None` if there is none.
    pub(crate) async fn size(&self, path: &Path) -> Result<Option<u64>, StoreError> {
        let outcome =
            self.call(Operation::Head, path, || async { Ok(self.objects().head(path).await?.size) }).await;
        match outcome {
            Ok(size) => Ok(Some(size)),
            Err(error) if error.failure.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Waits until so much more may be copied.
    pub(crate) async fn pace_copy(&self, bytes: usize) {
        self.copies.take(bytes as u64, &self.metrics.copy_throttled_us).await;
    }

    /// Waits until so much more may be read for consumers.
    pub(crate) async fn pace_fetch(&self, bytes: u64) {
        self.cold_reads.take(bytes, &self.metrics.fetch_throttled_us).await;
    }

    /// Writes an object in one request; never replaces one.
    pub(crate) async fn create(&self, path: &Path, payload: &PutPayload) -> Result<(), StoreError> {
        self.pace_copy(payload.content_length()).await;
        self.call(Operation::Put, path, || async {
            self.objects().put_opts(path, payload.clone(), PutMode::Create.into()).await?;
            Ok(())
        })
        .await
    }

    /// Gives an object a second name; never replaces one.
    pub(crate) async fn copy_if_absent(&self, from: &Path, to: &Path) -> Result<(), StoreError> {
        self.call(Operation::Copy, to, || async {
            let options = CopyOptions { mode: CopyMode::Create, ..CopyOptions::default() };
            Ok(self.objects().copy_opts(from, to, options).await?)
        })
        .await
    }

    /// Deletes an object of a topic. That it is gone already is as good.
    pub(crate) async fn delete(&self, path: &Path, topic: &Traffic) -> Result<(), StoreError> {
        let delete = || async { Ok(self.objects().delete(path).await?) };
        self.delete_by(path, topic, delete).await
    }

    /// Deletes a file of a store that is a directory, which the store itself does not show: its name is no key.
    #[expect(
        clippy::disallowed_methods,
        reason = "a store that is a directory is the machine's own, as all that object_store does with it"
    )]
    pub(crate) async fn delete_file(
        &self,
        root: &FilePath,
        folder: &Path,
        file_name: &str,
        topic: &Traffic,
    ) -> Result<(), StoreError> {
        let delete = || {
            let file = root.join(folder.as_ref()).join(file_name);
            on_disk(move || std::fs::remove_file(file))
        };
        self.delete_by(&folder.clone().join(file_name), topic, delete).await
    }

    /// The names in a folder of a store that is a directory, those included that the store itself does not show.
    #[expect(
        clippy::disallowed_methods,
        reason = "a store that is a directory is the machine's own, as all that object_store does with it"
    )]
    pub(crate) async fn file_names(&self, root: &FilePath, folder: &Path) -> Result<Vec<String>, StoreError> {
        let read = || {
            let folder = root.join(folder.as_ref());
            on_disk(move || std::fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>())
        };
        match self.call(Operation::List, folder, read).await {
            Ok(entries) => {
                Ok(entries.into_iter().filter_map(|entry| entry.file_name().into_string().ok()).collect())
            }
            Err(error) if error.failure.is_not_found() => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn delete_by<F>(
        &self,
        path: &Path,
        topic: &Traffic,
        delete: impl FnMut() -> F,
    ) -> Result<(), StoreError>
    where
        F: Future<Output = Result<(), Failure>>,
    {
        self.metrics.count(topic, |traffic| traffic.delete_requests.add(1));
        let outcome = self.call(Operation::Delete, path, delete).await;
        match outcome {
            Err(error) if !error.failure.is_not_found() => {
                self.metrics.count(topic, |traffic| traffic.delete_errors.add(1));
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// All objects below `directory`, page by page as the store gives them. One attempt is one whole listing: pages
    /// of different listings are not mixed.
    pub(crate) async fn list(&self, directory: &Path) -> Result<Vec<ObjectMeta>, StoreError> {
        self.call(Operation::List, directory, || async {
            Ok(self.objects().list(Some(directory)).try_collect::<Vec<_>>().await?)
        })
        .await
    }

    /// The size under which `path` is listed, if it is. Asks for names after `after` and looks no further than `path`.
    pub(crate) async fn listed_size(
        &self,
        directory: &Path,
        after: &Path,
        path: &Path,
    ) -> Result<Option<u64>, StoreError> {
        self.call(Operation::List, path, || async {
            let mut listing = self.objects().list_with_offset(Some(directory), after);
            while let Some(meta) = listing.next().await {
                let meta = meta?;
                if meta.location == *path {
                    return Ok(Some(meta.size));
                }
            }
            Ok(None)
        })
        .await
    }
}

/// What the store's own directory says, on a thread that may block.
async fn on_disk<T: Send + 'static>(
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    firn_blocking::run(work).await.map_err(Failure::of_directory)
}
