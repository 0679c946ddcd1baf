//! Where the quorum's log lies: in the first data directory, in the format of any other log.
//!
//! What openraft is told to be written is on stable storage when it is told so. What a crash may leave in between:
//! - `quorum-state` is replaced as a whole, and is there before the first entry.
//! - Entries are appended in order and synced; a torn tail is cut, as of any log.
//! - A snapshot is whole and durable before the entries below it are purged. Of a purge, `quorum-state` knows first; the
//!   next start does the rest.
//!
//! A disk without room is waited for: nothing of what is written here can be left out.

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use firn_model::ids::{METADATA_TOPIC, TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_records::batch::batches;
use firn_records::validate::ValidatedBatches;
use firn_storage::error::AppendError;
use firn_storage::log_dir::LogDir;
use firn_storage::partition_log::PartitionLog;
use firn_storage::producers::AppendOrigin;
use futures_util::{Stream, TryStreamExt, stream};
use openraft::entry::RaftEntry;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{EntryPayload, LogState, OptionalSend, RaftLogReader};
use parking_lot::Mutex;
use tokio::sync::watch;
use uuid::Uuid;

use crate::entry;
use crate::error::{Lost, QuorumError};
use crate::flushing::Flushing;
use crate::kept_snapshots::{newest_snapshot, snapshots};
use crate::quorum_state::{self, QuorumState};
use crate::snapshot::{Content, SnapshotId};
use crate::types::{Change, Entry, LogId, Member, Types, Vote, log_id};

/// Kafka's id of the metadata partition's topic.
const TOPIC_ID: TopicId = TopicId(Uuid::from_u128(1));
/// Bytes that are read at a time.
pub(crate) const READ_BYTES: usize = 1 << 20;
/// With less room than for so many changes a member had better not lead.
const ROOM_BYTES: usize = 256 << 10;
/// How long to wait for room on the disk before the next attempt.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(500);

/// So many attempts are told of once.
const ATTEMPTS_A_WARNING: u32 = 20;

/// How much may be in the log alone, and for how long, until a snapshot is due.
#[derive(Debug, Clone, Copy)]
pub struct SnapshotLimits {
    /// `metadata.log.max.record.bytes.between.snapshots`.
    pub bytes_max: u64,
    /// `metadata.log.max.snapshot.interval.ms`; 0 is for ever.
    pub interval_ms: i64,
    /// Entries that stay in the log although a snapshot has them, for members that are a little behind.
    pub entries_kept: u64,
}

/// Milliseconds since the Unix epoch, as the owner knows them.
#[derive(Clone)]
pub struct NowMs(pub Arc<dyn Fn() -> i64 + Send + Sync>);

impl fmt::Debug for NowMs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NowMs")
    }
}

/// The log, the votes and the snapshots of one member. A clone is another handle to the same.
#[derive(Debug, Clone)]
pub struct LogStore {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// `None` once it is closed.
    open: Mutex<Option<Open>>,
    closing: watch::Sender<bool>,
    /// Offset after the last entry that was agreed on, as far as this process knows.
    agreed_on: AtomicI64,
    flushing: Flushing,
    limits: SnapshotLimits,
    now: NowMs,
}

#[derive(Debug)]
struct Open {
    log: PartitionLog,
    state: QuorumState,
    bytes_since_snapshot: u64,
    /// When the first change came that no snapshot has; `None` while a snapshot has all. It may have come before the
    /// start: then it counts from the start, as in Kafka.
    changed_since_ms: Option<i64>,
}

/// What a start finds.
#[derive(Debug)]
pub struct Found {
    pub store: LogStore,
    /// Whose log it is.
    pub member: Member,
    /// What the newest snapshot says; nothing, if there is none.
    pub content: Content,
    /// The last entry that the snapshot stands for.
    pub last: Option<LogId>,
    /// There is neither an entry nor a snapshot.
    pub is_new: bool,
}

impl LogStore {
    /// Opens what lies in `dir`, or begins it.
    pub fn open(dir: &LogDir, limits: SnapshotLimits, now: NowMs) -> Result<Found, QuorumError> {
        let now_ms = (now.0)();
        // How long records are kept is for purging to say.
        let config = TopicConfig { retention_ms: -1, ..TopicConfig::default() };
        let partition = TopicPartition::new(METADATA_TOPIC, 0);
        let mut log = dir.open_log(&partition, TOPIC_ID, Arc::new(config), now_ms)?;
        let kept = match log.kept_file(quorum_state::FILE)? {
            Some(bytes) => Some(QuorumState::decode(&bytes).map_err(QuorumError::QuorumState)?),
            None if log.end_offset() > log.log_start_offset() => return Err(QuorumError::NoQuorumState),
            None => None,
        };
        let mut state = kept.clone().unwrap_or_default();
        let newest = newest_snapshot(&log)?;
        let end = newest.as_ref().map_or(0, |(id, _)| id.end_offset);
        // Before anything is cut: what is below may be all that is left.
        let log_start = log.log_start_offset().max(begin_of(&state));
        if log_start > end {
            return Err(QuorumError::NoSnapshot { log_start });
        }
        if log.log_start_offset() > begin_of(&state) {
            // Of the purge only the log is left, as after a restore: the snapshot says what was last before it.
            state.purged = newest.as_ref().and_then(|(id, _)| id.last());
        }
        let identity = dir.identity();
        let member = Member { broker_id: identity.node_id, directory_id: identity.directory_id.clone() };
        // Votes that were lost, or restored from before, must not be given again: terms go on behind every one that is known.
        let known = newest.as_ref().map(|(id, _)| id.epoch).max(log.latest_epoch()).unwrap_or(0);
        let known = u64::try_from(known).unwrap_or(0);
        if state.vote.map_or(0, |vote| vote.leader_id().term) < known {
            state.vote = Some(Vote::new(known, member.id()));
        }
        if kept.as_ref() != Some(&state) {
            write_state(&log, &state)?;
        }
        cut_below(&mut log, begin_of(&state), now_ms)?;
        let is_new = newest.is_none() && log.end_offset() == 0;
        let bytes_since_snapshot = if log.end_offset() > end { log.size_bytes() } else { 0 };
        let changed_since_ms = (log.end_offset() > end).then_some(now_ms);
        let open = Open { log, state, bytes_since_snapshot, changed_since_ms };
        let shared = Shared {
            open: Mutex::new(Some(open)),
            closing: watch::Sender::new(false),
            agreed_on: AtomicI64::new(0),
            flushing: Flushing::default(),
            limits,
            now,
        };
        let (last, content) = newest.map_or((None, Content::default()), |(id, content)| (id.last(), content));
        let store = Self { shared: Arc::new(shared) };
        // Who does not know what its log says must not be heard by the others.
        let mut next = Some(0);
        while let Some(from) = next {
            next = store.look_over(from)?;
        }
        store.agree_on(last);
        Ok(Found { store, member, content, last, is_new })
    }

    /// Gives the log to whoever closes it; `None` if somebody has it already. What waits for room waits no more.
    pub fn take(&self) -> Option<PartitionLog> {
        self.stop_waiting();
        self.shared.open.lock().take().map(|open| open.log)
    }

    /// From now on a disk without room is an error.
    pub fn stop_waiting(&self) {
        self.shared.closing.send_replace(true);
    }

    /// Offset after the last entry; 0 when it is closed.
    pub fn end_offset(&self) -> i64 {
        self.shared.open.lock().as_ref().map_or(0, |open| open.log.end_offset())
    }

    /// All up to this entry is agreed on.
    pub(crate) fn agree_on(&self, last: Option<LogId>) {
        let end = last.map_or(0, |last| offset_of(last.index() + 1));
        self.shared.agreed_on.fetch_max(end, Ordering::AcqRel);
    }

    /// That an entry which is agreed on here is this one, as whoever voted so says. What an earlier leader says does not count.
    pub(crate) fn check_agreed_on(&self, vote: &Vote, id: LogId) -> Result<(), QuorumError> {
        let agreed_on = self.shared.agreed_on.load(Ordering::Acquire);
        let from = offset_of(id.index());
        self.with(|open| {
            let is_old = open.state.vote.is_some_and(|own| vote.leader_id().term < own.leader_id().term);
            let known = from < agreed_on && from >= begin_of(&open.state).max(open.log.log_start_offset());
            let epoch = open.log.epoch_for_offset(from).and_then(|epoch| u64::try_from(epoch).ok());
            if is_old || !known || epoch.is_none_or(|epoch| epoch == id.committed_leader_id().term) {
                return Ok(());
            }
            Err(QuorumError::AgreedOn(Lost { from, last: agreed_on - 1 }))
        })
    }

    /// That entries from `end` on may go, because the controller's log has others. Never what was agreed on: then most members have
    /// lost it, each with its disk, and this one has it still. A decision rests on entries that were.
    fn check_cut(&self, end: i64) -> Result<(), QuorumError> {
        let mut agreed_on = self.shared.agreed_on.load(Ordering::Acquire);
        let mut next = u64::try_from(end).unwrap_or(0);
        while agreed_on <= end {
            let entries = self.read(next, u64::MAX, READ_BYTES)?;
            let Some(last) = entries.last() else { return Ok(()) };
            next = last.index() + 1;
            for entry in &entries {
                if let EntryPayload::Normal(change) = &entry.payload {
                    agreed_on = agreed_on.max(offset_of(change.after.saturating_add(1)));
                }
            }
        }
        Err(QuorumError::AgreedOn(Lost { from: end, last: agreed_on - 1 }))
    }

    pub fn limits(&self) -> SnapshotLimits {
        self.shared.limits
    }

    /// Refuses a change for which the disk has no room. What is agreed on must be written, and would wait for room.
    pub(crate) fn check_room(&self, change: &Change) -> Result<(), QuorumError> {
        let bytes =
            entry::size(change).map_err(|reason| QuorumError::Entry { index: self.end_offset(), reason })?;
        self.with(|open| open.check_room(bytes))
    }

    /// Whether a snapshot is due.
    pub fn snapshot_is_due(&self) -> bool {
        let SnapshotLimits { bytes_max, interval_ms, .. } = self.shared.limits;
        let now_ms = self.now_ms();
        let waited = |since| now_ms.saturating_sub(since) >= interval_ms;
        // Who holds it is at work on the disk, and this is asked again.
        let Some(open) = self.shared.open.try_lock() else { return false };
        open.as_ref().is_some_and(|open| {
            open.changed_since_ms.is_some()
                && (open.bytes_since_snapshot >= bytes_max
                    || (interval_ms > 0 && open.changed_since_ms.is_some_and(waited)))
        })
    }

    /// Keeps a snapshot, whole and durable, and lets go of older ones. The next entries begin a segment, so that those
    /// before it can go as a whole.
    pub(crate) fn keep_snapshot(&self, id: SnapshotId, bytes: &[u8]) -> Result<(), QuorumError> {
        let now_ms = self.now_ms();
        self.with(|open| {
            // Also if it fails: it is due again as if this were one.
            open.bytes_since_snapshot = 0;
            open.changed_since_ms = (open.log.end_offset() > id.end_offset).then_some(now_ms);
            // Not even begun without room: what would be written of it is room that changes need.
            open.check_room(bytes.len())?;
            open.log.keep_file(&id.file_name(), bytes)?;
            for older in snapshots(&open.log)?.into_iter().filter(|older| *older < id) {
                open.log.remove_kept_file(&older.file_name())?;
            }
            open.log.roll(now_ms)?;
            tracing::info!(offset = id.end_offset, "wrote a snapshot of the metadata");
            Ok(())
        })
    }

    /// The newest snapshot that is whole, and its bytes.
    pub(crate) fn newest_snapshot(&self) -> Result<Option<(SnapshotId, Vec<u8>, Content)>, QuorumError> {
        self.with(|open| {
            let Some((id, content)) = newest_snapshot(&open.log)? else { return Ok(None) };
            Ok(open.log.kept_file(&id.file_name())?.map(|bytes| (id, bytes, content)))
        })
    }

    pub(crate) fn now_ms(&self) -> i64 {
        (self.shared.now.0)()
    }

    fn with<T>(&self, work: impl FnOnce(&mut Open) -> Result<T, QuorumError>) -> Result<T, QuorumError> {
        work(self.shared.open.lock().as_mut().ok_or(QuorumError::Closed)?)
    }

    /// Does `work` on a thread that may block, again and again while only room is short.
    pub(crate) async fn persist<T: Send + 'static>(
        &self,
        what: &'static str,
        work: impl Fn(&LogStore) -> Result<T, QuorumError> + Send + Sync + 'static,
    ) -> Result<T, QuorumError> {
        let work = Arc::new(work);
        let mut closing = self.shared.closing.subscribe();
        for attempt in 0u32.. {
            let (store, now) = (self.clone(), work.clone());
            match firn_blocking::run(move || now(&store)).await {
                Err(error) if error.is_shortage() && !*closing.borrow() => {
                    if attempt % ATTEMPTS_A_WARNING == 0 {
                        tracing::warn!(%error, "{what} waits for room on the disk of the metadata log, or for files that may be opened");
                    }
                }
                done => return done,
            }
            tokio::select! {
                () = tokio::time::sleep(SHORTAGE_PAUSE) => {}
                _ = closing.changed() => {}
            }
        }
        Err(QuorumError::Closed)
    }

    async fn look_up(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, QuorumError> {
        self.persist("a look into the log", move |store| store.read(from, to, bytes_max)).await
    }

    /// Appends what is `pending`, taking it away. It can be read, and is not durable yet.
    fn write(&self, pending: &Mutex<VecDeque<Entry>>) -> Result<(), QuorumError> {
        let mut pending = pending.lock();
        let now_ms = self.now_ms();
        self.with(|open| {
            while let Some(next) = pending.front() {
                open.append(next, now_ms)?;
                pending.pop_front();
            }
            Ok(())
        })
    }

    pub(crate) fn flushing(&self) -> &Flushing {
        &self.shared.flushing
    }

    /// Syncs all that is in the log.
    pub(crate) fn flush(&self) -> Result<(), QuorumError> {
        // Without the lock: entries are read, for those that do not have them yet, while the disk is at work.
        let Some(task) = self.with(|open| Ok(open.log.flush_task()?))? else { return Ok(()) };
        let flushed = task.run()?;
        self.with(|open| {
            open.log.flushed(flushed);
            Ok(())
        })
    }

    /// Whether the disk has room for changes to come.
    pub(crate) fn has_room(&self) -> bool {
        // Who holds it writes to it just then.
        let Some(open) = self.shared.open.try_lock() else { return true };
        open.as_ref().is_none_or(|open| open.log.has_room(ROOM_BYTES))
    }

    /// Looks whether the entries from an offset on are what was written, a piece of the log; returns where to go on, `None` at the end.
    pub(crate) fn look_over(&self, from: i64) -> Result<Option<i64>, QuorumError> {
        self.with(|open| {
            let from = from.max(begin_of(&open.state)).max(open.log.log_start_offset());
            let end = open.log.end_offset();
            if from >= end {
                return Ok(None);
            }
            // Nobody cuts or purges meanwhile.
            let bytes = open.log.read(from, end, READ_BYTES, true)?.read();
            let bytes = bytes.map_err(|error| damaged(from, format!("cannot be read: {error}")))?;
            let mut next = from;
            for found in batches(&bytes) {
                let (header, batch) = found.map_err(|error| damaged(next, error.to_string()))?;
                let (id, _) = entry::check(&header, batch).map_err(|reason| damaged(next, reason))?;
                next = follows(next, id)?;
            }
            if next == from { Err(damaged(from, "nothing is there".to_owned())) } else { Ok(Some(next)) }
        })
    }

    /// Entries from `from` to below `to`, as far as there are any; not more than about `bytes_max`, but at least one.
    pub(crate) fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, QuorumError> {
        let mut entries = Vec::new();
        let mut bytes_read = 0;
        let mut next = from;
        while next < to && bytes_read < bytes_max {
            let slice = self.with(|open| {
                let begin = begin_of(&open.state).max(open.log.log_start_offset());
                let offset = offset_of(next).max(begin);
                let end = open.log.end_offset();
                if offset >= end {
                    return Ok(None);
                }
                Ok(Some((offset, open.log.read(offset, end, READ_BYTES, true)?)))
            })?;
            let Some((offset, slice)) = slice else { break };
            let bytes = slice.read().map_err(|error| damaged(offset, format!("cannot be read: {error}")))?;
            bytes_read += bytes.len();
            let before = entries.len();
            let mut due = offset;
            for found in batches(&bytes) {
                let (header, batch) = found.map_err(|error| damaged(due, error.to_string()))?;
                let entry = entry::decode(&header, batch).map_err(|reason| damaged(due, reason))?;
                due = follows(due, entry.log_id)?;
                if entry.index() >= to {
                    break;
                }
                next = entry.index() + 1;
                entries.push(entry);
            }
            if entries.len() == before {
                break;
            }
        }
        Ok(entries)
    }
}

impl Open {
    fn check_room(&self, bytes: usize) -> Result<(), QuorumError> {
        if self.log.has_room(bytes) {
            return Ok(());
        }
        Err(AppendError::DiskFull { bytes, log: self.log.topic_partition().to_string() }.into())
    }

    fn append(&mut self, entry: &Entry, now_ms: i64) -> Result<(), QuorumError> {
        let index = offset_of(entry.index());
        let bad = |reason: String| QuorumError::Entry { index, reason };
        if index != self.log.end_offset() {
            return Err(bad(format!("entry {} is due", self.log.end_offset())));
        }
        let term = entry.log_id.committed_leader_id().term;
        let epoch = i32::try_from(term).map_err(|_| bad(format!("term {term} is too large")))?;
        let bytes = entry::encode(entry).map_err(bad)?;
        let batch = ValidatedBatches::trusted(bytes).map_err(|error| bad(error.to_string()))?;
        self.log.append(&batch.bytes, &batch.headers, epoch, AppendOrigin::Coordinator, now_ms)?;
        self.bytes_since_snapshot += batch.bytes.len() as u64;
        if !matches!(entry.payload, EntryPayload::Blank) {
            self.changed_since_ms.get_or_insert(now_ms);
        }
        Ok(())
    }

    fn last_log_id(&self) -> Option<LogId> {
        let last = self.log.end_offset() - 1;
        let epoch = self.log.epoch_for_offset(last);
        let here = last >= begin_of(&self.state).max(self.log.log_start_offset());
        match (epoch, u64::try_from(last)) {
            (Some(epoch), Ok(index)) if here => Some(log_id(u64::try_from(epoch).unwrap_or(0), index)),
            _ => self.state.purged,
        }
    }

    /// Replaces the state, on disk and then here.
    fn set_state(&mut self, state: QuorumState) -> Result<(), QuorumError> {
        write_state(&self.log, &state)?;
        self.state = state;
        Ok(())
    }

    fn purge(&mut self, upto: LogId, now_ms: i64) -> Result<(), QuorumError> {
        self.set_state(QuorumState { purged: Some(upto), ..self.state.clone() })?;
        cut_below(&mut self.log, begin_of(&self.state), now_ms)
    }
}

fn damaged(index: i64, reason: String) -> QuorumError {
    QuorumError::Damaged { index, reason }
}

/// The offset after an entry, which is to be the one that is due.
fn follows(due: i64, id: LogId) -> Result<i64, QuorumError> {
    match offset_of(id.index()) {
        index if index == due => Ok(due + 1),
        index => Err(damaged(due, format!("entry {index} lies in its place"))),
    }
}

fn offset_of(index: u64) -> i64 {
    i64::try_from(index).unwrap_or(i64::MAX)
}

/// Where the log begins.
fn begin_of(state: &QuorumState) -> i64 {
    state.purged.map_or(0, |purged| offset_of(purged.index() + 1))
}

fn write_state(log: &PartitionLog, state: &QuorumState) -> Result<(), QuorumError> {
    let bytes = state.encode().map_err(|error| QuorumError::QuorumState(error.to_string()))?;
    Ok(log.keep_file(quorum_state::FILE, &bytes)?)
}

/// Lets the log begin at `begin`.
fn cut_below(log: &mut PartitionLog, begin: i64, now_ms: i64) -> Result<(), QuorumError> {
    if begin >= log.end_offset() && log.log_start_offset() < begin {
        return Ok(log.truncate_fully_and_start_at(begin)?);
    }
    if log.log_start_offset() < begin {
        log.delete_records_before(begin)?;
        log.retain(now_ms, begin)?;
    }
    Ok(())
}

/// The first index of a range, and the first behind it.
fn bounds(range: &impl RangeBounds<u64>) -> (u64, u64) {
    let from = match range.start_bound() {
        Bound::Included(from) => *from,
        Bound::Excluded(before) => before.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let to = match range.end_bound() {
        Bound::Included(last) => last.saturating_add(1),
        Bound::Excluded(to) => *to,
        Bound::Unbounded => u64::MAX,
    };
    (from, to)
}

impl RaftLogReader<Types> for LogStore {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend>(
        &mut self,
        range: R,
    ) -> Result<Vec<Entry>, io::Error> {
        let (from, to) = bounds(&range);
        Ok(self.look_up(from, to, usize::MAX).await?)
    }

    async fn limited_get_log_entries(&mut self, from: u64, to: u64) -> Result<Vec<Entry>, io::Error> {
        Ok(self.look_up(from, to, READ_BYTES).await?)
    }

    /// Piece by piece: a start may have to apply as much as lies between two snapshots.
    async fn entries_stream<R>(
        &mut self,
        range: R,
    ) -> impl Stream<Item = Result<Entry, io::Error>> + OptionalSend
    where
        R: RangeBounds<u64> + Clone + fmt::Debug + OptionalSend,
    {
        let (from, to) = bounds(&range);
        let store = self.clone();
        let pieces = stream::try_unfold(from, move |next| {
            let store = store.clone();
            async move {
                let entries = store.look_up(next, to, READ_BYTES).await?;
                let last = entries.last().map(|entry| entry.index());
                Ok::<_, io::Error>(last.map(|last| (entries, last + 1)))
            }
        });
        let entries = pieces.map_ok(|entries| stream::iter(entries.into_iter().map(Ok)));
        Box::pin(entries.try_flatten())
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        Ok(self.persist("a vote", |store| store.with(|open| Ok(open.state.vote))).await?)
    }
}

impl RaftLogStorage<Types> for LogStore {
    type LogReader = Self;

    async fn get_log_state(&mut self) -> Result<LogState<Types>, io::Error> {
        let ends = |store: &LogStore| {
            store.with(|open| {
                Ok(LogState { last_purged_log_id: open.state.purged, last_log_id: open.last_log_id() })
            })
        };
        Ok(self.persist("a look into the log", ends).await?)
    }

    async fn get_log_reader(&mut self) -> Self::LogReader {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = *vote;
        let save = move |store: &LogStore| {
            // A vote tells the next start that there was a log.
            store.flush()?;
            store.with(|open| open.set_state(QuorumState { vote: Some(vote), ..open.state.clone() }))
        };
        Ok(self.persist("a vote", save).await?)
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<Types>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let pending = Mutex::new(entries.into_iter().collect::<VecDeque<_>>());
        self.persist("a change", move |store| store.write(&pending)).await?;
        self.flush_for(callback);
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        let cut = move |store: &LogStore| {
            let end = last.map_or(0, |last| offset_of(last.index() + 1));
            store.check_cut(end)?;
            store.with(|open| Ok(open.log.truncate_to(end.max(begin_of(&open.state)))?))
        };
        Ok(self.persist("a cut", cut).await?)
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        let purge = move |store: &LogStore| {
            let now_ms = store.now_ms();
            store.with(|open| open.purge(upto, now_ms))
        };
        Ok(self.persist("a purge", purge).await?)
    }
}
