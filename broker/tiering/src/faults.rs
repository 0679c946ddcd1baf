//! A store that misbehaves as real ones do, by a seed: for tests and the simulation.
//!
//! Latency, 503, resets in the middle of a body, answers lost after the deed was done, bodies cut short or with a
//! flipped bit, listings without the newest key, a 412 for no reason, stalls, and a total outage on demand.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, TryStreamExt, stream};
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartId, MultipartUpload,
    ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
    UploadPart,
};
use parking_lot::Mutex;

use crate::store::{LargeUpload, Store};

/// How a [`FaultyStore`] misbehaves. May be changed while it is used.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FaultPlan {
    /// Share of calls that go wrong, 0 to 1.
    pub faults: f64,
    /// Every call takes up to this long.
    pub latency_max: Duration,
    /// How long a call hangs that is said to stall; longer than any deadline.
    pub stall: Duration,
    /// Every call fails at once.
    pub outage: bool,
    /// Nothing can be written: a full quota, or a right that was taken away.
    pub read_only: bool,
    /// Calls on paths that contain this hang.
    pub hung: Option<&'static str>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub const NONE: FaultPlan = FaultPlan {
        faults: 0.0,
        latency_max: Duration::ZERO,
        stall: Duration::from_secs(3600),
        outage: false,
        read_only: false,
        hung: None,
    };
}

/// A store with faults in front.
#[derive(Debug, Clone)]
pub struct FaultyStore {
    shared: Arc<Shared>,
}

struct Shared {
    objects: Arc<dyn ObjectStore>,
    multipart: Option<Arc<dyn MultipartStore>>,
    plan: Mutex<FaultPlan>,
    random: Mutex<u64>,
    calls: Mutex<Calls>,
}

/// How many calls reached the store, and how many of those went wrong.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Calls {
    pub all: u64,
    pub gets: u64,
    pub faulty: u64,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultyStore({}, {:?})", self.objects, *self.plan.lock())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    None,
    /// Refused before anything happened.
    Unavailable,
    /// Done, and the answer lost: the caller waits for its deadline.
    LostAnswer,
    /// Done, and then the connection broke.
    BrokenAnswer,
    /// Hangs, nothing happens.
    Stall,
    /// A fault that only this kind of call has, one of three.
    Special(u8),
}

impl FaultyStore {
    /// Puts faults in front of `store`, drawn from `seed`. The second value is the store to open a tier with.
    pub fn wrap(store: Store, seed: u64, plan: FaultPlan) -> (FaultyStore, Store) {
        let multipart = match &store.large_upload {
            LargeUpload::Conditional(parts) | LargeUpload::StagedParts(parts) => Some(parts.clone()),
            LargeUpload::StagedStream => None,
        };
        let shared = Shared {
            objects: store.objects.clone(),
            multipart,
            plan: Mutex::new(plan),
            random: Mutex::new(seed),
            calls: Mutex::default(),
        };
        let faulty = FaultyStore { shared: Arc::new(shared) };
        let parts: Arc<dyn MultipartStore> = Arc::new(faulty.clone());
        let large_upload = match store.large_upload {
            LargeUpload::Conditional(_) => LargeUpload::Conditional(parts),
            LargeUpload::StagedParts(_) => LargeUpload::StagedParts(parts),
            LargeUpload::StagedStream => LargeUpload::StagedStream,
        };
        let wrapped = Store { objects: Arc::new(faulty.clone()), large_upload, ..store };
        (faulty, wrapped)
    }

    pub fn set_plan(&self, plan: FaultPlan) {
        *self.shared.plan.lock() = plan;
    }

    pub fn calls(&self) -> Calls {
        *self.shared.calls.lock()
    }

    fn draw(&self, below: u64) -> u64 {
        let mut state = self.shared.random.lock();
        *state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % below.max(1)
    }

    /// Waits out the latency, draws a fault, and hangs or fails if that is what it is.
    async fn before(&self, path: Option<&Path>) -> Result<Fault> {
        let plan = *self.shared.plan.lock();
        if let (Some(hung), Some(path)) = (plan.hung, path)
            && path.as_ref().contains(hung)
        {
            tokio::time::sleep(plan.stall).await;
            return Err(failure("hung"));
        }
        let latency = self.draw(plan.latency_max.as_micros() as u64 + 1);
        if latency > 0 {
            tokio::time::sleep(Duration::from_micros(latency)).await;
        }
        let faulty = plan.outage || (self.draw(1_000_000) as f64) < plan.faults * 1e6;
        {
            let mut calls = self.shared.calls.lock();
            calls.all += 1;
            calls.faulty += u64::from(faulty);
        }
        let fault = match self.draw(100) {
            _ if !faulty => Fault::None,
            _ if plan.outage => Fault::Unavailable,
            0..30 => Fault::Unavailable,
            30..45 => Fault::BrokenAnswer,
            45..52 => Fault::LostAnswer,
            52..55 => Fault::Stall,
            special => Fault::Special((special % 3) as u8),
        };
        match fault {
            Fault::Unavailable => Err(failure("503 Slow Down")),
            Fault::Stall => {
                tokio::time::sleep(plan.stall).await;
                Err(failure("stalled"))
            }
            fault => Ok(fault),
        }
    }

    fn refuse_if_read_only(&self) -> Result<()> {
        if !self.shared.plan.lock().read_only {
            return Ok(());
        }
        self.shared.calls.lock().faulty += 1;
        Err(failure("403 QuotaExceeded"))
    }

    /// What the caller is told of something that was done.
    async fn after<T>(&self, fault: Fault, done: T) -> Result<T> {
        match fault {
            Fault::None => Ok(done),
            Fault::LostAnswer => {
                let stall = self.shared.plan.lock().stall;
                tokio::time::sleep(stall).await;
                Err(failure("answer lost"))
            }
            _ => Err(failure("connection reset by peer")),
        }
    }

    fn parts(&self) -> Result<&Arc<dyn MultipartStore>> {
        self.shared
            .multipart
            .as_ref()
            .ok_or_else(|| Error::NotSupported { source: "no numbered parts".into() })
    }
}

fn failure(what: &'static str) -> Error {
    Error::Generic { store: "FaultyStore", source: what.into() }
}

impl std::fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "FaultyStore({})", self.shared.objects)
    }
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, location: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        let fault = self.before(Some(location)).await?;
        self.refuse_if_read_only()?;
        if let Fault::Special(_) = fault
            && options.mode == PutMode::Create
        {
            return Err(Error::AlreadyExists {
                path: location.to_string(),
                source: "412 for no reason".into(),
            });
        }
        let done = self.shared.objects.put_opts(location, payload, options).await?;
        self.after(fault, done).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        let fault = self.before(Some(location)).await?;
        self.refuse_if_read_only()?;
        let inner = self.shared.objects.put_multipart_opts(location, options).await?;
        let upload: Box<dyn MultipartUpload> =
            Box::new(FaultyUpload { store: self.clone(), path: location.clone(), inner });
        self.after(fault, upload).await
    }

    async fn get_opts(&self, location: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.before(Some(location)).await?;
        let head = options.head;
        let result = self.shared.objects.get_opts(location, options).await?;
        if head || fault == Fault::None {
            return self.after(fault, result).await;
        }
        self.shared.calls.lock().gets += 1;
        let (meta, range, attributes, extensions) =
            (result.meta.clone(), result.range.clone(), result.attributes.clone(), result.extensions.clone());
        let body = result.bytes().await?;
        let cut = self.draw(body.len() as u64 + 1) as usize;
        let parts: Vec<Result<Bytes>> = match fault {
            Fault::Special(0) => vec![Ok(body.slice(..cut.min(body.len())))],
            Fault::Special(1) if !body.is_empty() => vec![Ok(self.flip_a_bit(&body))],
            Fault::LostAnswer => {
                return self.after(fault, result_of(meta, range, attributes, extensions, vec![])).await;
            }
            _ => vec![
                Ok(body.slice(..cut.min(body.len()))),
                Err(failure("connection reset in the middle of a body")),
            ],
        };
        Ok(result_of(meta, range, attributes, extensions, parts))
    }

    fn delete_stream(&self, locations: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let this = self.clone();
        let delete = move |location: Path| {
            let this = this.clone();
            async move {
                let fault = this.before(Some(&location)).await?;
                let one = stream::iter([Ok(location.clone())]).boxed();
                let done = this.shared.objects.delete_stream(one).try_next().await?.unwrap_or(location);
                this.after(fault, done).await
            }
        };
        locations.and_then(delete).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone().faulty_list(prefix.cloned(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        self.clone().faulty_list(prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let fault = self.before(prefix).await?;
        let done = self.shared.objects.list_with_delimiter(prefix).await?;
        self.after(fault, done).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        let fault = self.before(Some(to)).await?;
        self.shared.objects.copy_opts(from, to, options).await?;
        self.after(fault, ()).await
    }
}

fn result_of(
    meta: ObjectMeta,
    range: std::ops::Range<u64>,
    attributes: object_store::Attributes,
    extensions: object_store::Extensions,
    parts: Vec<Result<Bytes>>,
) -> GetResult {
    let payload = GetResultPayload::Stream(stream::iter(parts).boxed());
    GetResult { payload, meta, range, attributes, extensions }
}

impl FaultyStore {
    fn flip_a_bit(&self, body: &Bytes) -> Bytes {
        let mut flipped = BytesMut::from(body.as_ref());
        let bit = self.draw(flipped.len() as u64 * 8);
        if let Some(byte) = flipped.get_mut((bit / 8) as usize) {
            *byte ^= 1 << (bit % 8);
        }
        flipped.freeze()
    }

    fn faulty_list(
        self,
        prefix: Option<Path>,
        offset: Option<Path>,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        let list = async move {
            let fault = self.before(prefix.as_ref()).await?;
            let inner = match &offset {
                Some(offset) => self.shared.objects.list_with_offset(prefix.as_ref(), offset),
                None => self.shared.objects.list(prefix.as_ref()),
            };
            let mut found: Vec<ObjectMeta> = inner.try_collect().await?;
            match fault {
                Fault::None => {}
                Fault::Special(_) => {
                    // The newest key is missing, as in a store whose listings lag.
                    let newest =
                        found.iter().max_by_key(|meta| meta.last_modified).map(|meta| meta.location.clone());
                    found.retain(|meta| Some(&meta.location) != newest.as_ref());
                }
                fault => return self.after(fault, found).await,
            }
            Ok(found)
        };
        stream::once(list).map_ok(|found| stream::iter(found.into_iter().map(Ok))).try_flatten().boxed()
    }
}

#[async_trait]
impl MultipartStore for FaultyStore {
    async fn create_multipart(&self, path: &Path) -> Result<MultipartId> {
        let fault = self.before(Some(path)).await?;
        let done = self.parts()?.create_multipart(path).await?;
        self.after(fault, done).await
    }

    async fn put_part(
        &self,
        path: &Path,
        id: &MultipartId,
        part_idx: usize,
        data: PutPayload,
    ) -> Result<PartId> {
        let fault = self.before(Some(path)).await?;
        let done = self.parts()?.put_part(path, id, part_idx, data).await?;
        self.after(fault, done).await
    }

    async fn complete_multipart(
        &self,
        path: &Path,
        id: &MultipartId,
        parts: Vec<PartId>,
    ) -> Result<PutResult> {
        let fault = self.before(Some(path)).await?;
        let done = self.parts()?.complete_multipart(path, id, parts).await?;
        self.after(fault, done).await
    }

    async fn abort_multipart(&self, path: &Path, id: &MultipartId) -> Result<()> {
        let fault = self.before(Some(path)).await?;
        self.parts()?.abort_multipart(path, id).await?;
        self.after(fault, ()).await
    }
}

#[derive(Debug)]
struct FaultyUpload {
    store: FaultyStore,
    path: Path,
    inner: Box<dyn MultipartUpload>,
}

#[async_trait]
impl MultipartUpload for FaultyUpload {
    fn put_part(&mut self, data: PutPayload) -> UploadPart {
        let (store, path, part) = (self.store.clone(), self.path.clone(), self.inner.put_part(data));
        Box::pin(async move {
            let fault = store.before(Some(&path)).await?;
            part.await?;
            store.after(fault, ()).await
        })
    }

    async fn complete(&mut self) -> Result<PutResult> {
        let fault = self.store.before(Some(&self.path)).await?;
        let done = self.inner.complete().await?;
        self.store.after(fault, done).await
    }

    async fn abort(&mut self) -> Result<()> {
        let fault = self.store.before(Some(&self.path)).await?;
        self.inner.abort().await?;
        self.store.after(fault, ()).await
    }
}
