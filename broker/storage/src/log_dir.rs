//! One log directory: whose it is, which partitions lie in it, how it was left, and how it is left again.
//!
//! Order at start: lock, identity, leftovers of deleted partitions, checkpoints; then the marker of a clean shutdown is
//! removed, durably, before any log may be written. Order at a clean shutdown: every log is closed (synced), then the
//! checkpoints are written, then the marker. So the marker is there only if every recovery point is its log's end.
//!
//! A new partition costs no sync: its directory and `partition.metadata` become durable with its first flush. Until
//! then nothing in it was acknowledged, and a crash may take it away whole.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use firn_model::ids::{TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;

use crate::checkpoint::{self, DirSync};
use crate::checksum;
use crate::directory::{Checkpoints, Directory, LogDirOptions};
use crate::disk::{Disk, Lock, OpenMode, Space, write_all_at};
use crate::error::{StorageError, failed_to, failed_to_sync};
use crate::file_names::{
    CLEAN_SHUTDOWN, CLEANER_OFFSETS, DIRECTORY_LOCK, HIGH_WATERMARKS, LOG_START_OFFSETS, META_PROPERTIES,
    PARTITION_METADATA, RECOVERY_POINTS, delete_dir, is_delete_dir, is_stray_dir, parse_partition_dir,
    stray_dir,
};
use crate::identity::{self, Identity};
use crate::open_files::read_file;
use crate::partition_log::PartitionLog;
use crate::recovery::{self, Opening};

/// Begins the line of `partition.metadata` that has the checksum of those before, which Kafka does not read.
const TOPIC_ID_CHECKSUM: &str = "firn.crc32c: ";

/// A log directory, locked by this process. See the module.
#[derive(Debug)]
pub struct LogDir {
    pub(crate) directory: Arc<Directory>,
    identity: Identity,
    /// It was shut down cleanly before this start.
    clean: bool,
    _lock: Box<dyn Lock>,
}

/// A partition that has a directory here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundLog {
    pub topic_partition: TopicPartition,
    /// `None` when the partition's metadata did not survive a crash: then nothing in it was acknowledged as flushed. Or they are
    /// damaged: then it does not open.
    pub topic_id: Option<TopicId>,
}

impl LogDir {
    /// Locks and reads the directory at `path`; creates it if it is not there.
    pub fn open(
        disk: Arc<dyn Disk>,
        path: &Path,
        identity: &Identity,
        options: LogDirOptions,
    ) -> Result<LogDir, StorageError> {
        create_durably(disk.as_ref(), path)?;
        let lock_path = path.join(DIRECTORY_LOCK);
        let lock = disk.lock_exclusive(&lock_path).map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => StorageError::Locked { path: path.to_owned() },
            _ => failed_to("lock", &lock_path)(error),
        })?;
        let marker = path.join(CLEAN_SHUTDOWN);
        let clean = disk.exists(&marker).map_err(failed_to("look for", &marker))?;
        let identity = claim(disk.as_ref(), path, identity, clean)?;
        remove_deleted_partitions(disk.as_ref(), path)?;
        let checkpoints = load_checkpoints(disk.as_ref(), path)?;
        if clean {
            disk.remove_file(&marker).map_err(failed_to("remove", &marker))?;
            disk.sync_dir(path).map_err(failed_to_sync(path))?;
        }
        let directory = Arc::new(Directory::new(disk, path, options, checkpoints));
        Ok(LogDir { directory, identity, clean, _lock: lock })
    }

    pub fn path(&self) -> &Path {
        &self.directory.path
    }

    /// Whose directory it is, with the directory's own id.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Gives the directory another id: nobody is to take it for what it was.
    pub fn renew_id(&mut self, directory_id: &str) -> Result<(), StorageError> {
        let identity = Identity { directory_id: directory_id.to_owned(), ..self.identity.clone() };
        let disk = self.directory.disk.as_ref();
        checkpoint::replace(disk, self.path(), META_PROPERTIES, &identity::encode(&identity), DirSync::Now)?;
        self.identity = identity;
        Ok(())
    }

    /// Did the last owner shut down cleanly?
    pub fn was_clean(&self) -> bool {
        self.clean
    }

    /// Every partition that has a directory here, in order.
    pub fn partitions(&self) -> Result<Vec<FoundLog>, StorageError> {
        let disk = self.directory.disk.as_ref();
        let entries = disk.read_dir(self.path()).map_err(failed_to("list", self.path()))?;
        let mut found = Vec::new();
        for entry in entries.into_iter().filter(|entry| entry.is_dir) {
            let Some(topic_partition) = parse_partition_dir(&entry.name) else { continue };
            let topic_id = match read_topic_id(disk, &self.path().join(&entry.name)) {
                // Whoever opens it is told.
                Err(StorageError::Corrupt { .. }) => None,
                read => read?,
            };
            found.push(FoundLog { topic_partition, topic_id });
        }
        found.sort_by(|one, other| one.topic_partition.cmp(&other.topic_partition));
        Ok(found)
    }

    /// Renames partitions' directories so that nothing takes them for partitions; each is given with an id that makes
    /// its new name unique. Their bytes stay for the operator to look at. A crash leaves some under their old names, to
    /// be set aside by the next start; none is lost. Returns where they are now.
    pub fn set_aside(&self, strays: &[(TopicPartition, TopicId)]) -> Result<Vec<PathBuf>, StorageError> {
        if strays.is_empty() {
            return Ok(Vec::new());
        }
        let disk = self.directory.disk.as_ref();
        let mut moved = Vec::with_capacity(strays.len());
        for (topic_partition, unique) in strays {
            let from = self.partition_path(topic_partition);
            let to = self.path().join(stray_dir(topic_partition, *unique));
            disk.rename(&from, &to).map_err(failed_to("rename", &from))?;
            moved.push(to);
        }
        disk.sync_dir(self.path()).map_err(failed_to_sync(self.path()))?;
        let names: Vec<_> = strays.iter().map(|(topic_partition, _)| topic_partition.clone()).collect();
        self.directory.forget(&names)?;
        Ok(moved)
    }

    /// Whether a partition's directory lies here.
    pub fn has(&self, topic_partition: &TopicPartition) -> Result<bool, StorageError> {
        let path = self.partition_path(topic_partition);
        self.directory.disk.exists(&path).map_err(failed_to("look for", &path))
    }

    /// How many directories lie here that were set aside.
    pub fn strays(&self) -> Result<usize, StorageError> {
        let entries = self.directory.disk.read_dir(self.path()).map_err(failed_to("list", self.path()))?;
        Ok(entries.iter().filter(|entry| entry.is_dir && is_stray_dir(&entry.name)).count())
    }

    /// Opens a partition's log; creates it if it is not there, recovers it if it was not closed.
    pub fn open_log(
        &self,
        topic_partition: &TopicPartition,
        topic_id: TopicId,
        config: Arc<TopicConfig>,
        now_ms: i64,
    ) -> Result<PartitionLog, StorageError> {
        self.directory.check()?;
        let path = self.partition_path(topic_partition);
        let is_new = self.prepare(&path, topic_partition, topic_id)?;
        recovery::open(Opening {
            directory: &self.directory,
            path: &path,
            topic_partition,
            topic_id,
            config,
            now_ms,
            clean: self.clean,
            is_new,
        })
    }

    fn partition_path(&self, topic_partition: &TopicPartition) -> PathBuf {
        self.path().join(topic_partition.to_string())
    }

    /// Sees to it that the partition has a directory of this topic; true when it was created now.
    fn prepare(
        &self,
        path: &Path,
        topic_partition: &TopicPartition,
        topic_id: TopicId,
    ) -> Result<bool, StorageError> {
        let disk = self.directory.disk.as_ref();
        if disk.exists(path).map_err(failed_to("look for", path))? {
            match read_topic_id(disk, path)? {
                Some(found) if found == topic_id => {}
                Some(found) => {
                    return Err(StorageError::WrongOwner {
                        path: path.to_owned(),
                        key: "topic_id",
                        found: found.to_string(),
                        wanted: topic_id.to_string(),
                    });
                }
                None => write_topic_id(disk, path, topic_id)?,
            }
            return Ok(false);
        }
        // A namesake that is gone must not lend the new partition its recovery point.
        self.directory.forget(std::slice::from_ref(topic_partition))?;
        disk.create_dir(path).map_err(failed_to("create", path))?;
        write_topic_id(disk, path, topic_id)?;
        Ok(true)
    }

    /// Deletes a partition's log. When this returns the partition is durably gone, though a crash may leave files that
    /// the next start removes.
    pub fn delete_log(&self, log: PartitionLog) -> Result<(), StorageError> {
        self.delete_logs(vec![log])
    }

    /// Deletes many logs for the price of a few syncs.
    pub fn delete_logs(&self, logs: Vec<PartitionLog>) -> Result<(), StorageError> {
        self.directory.check()?;
        let disk = self.directory.disk.as_ref();
        let (mut gone, mut doomed) = (Vec::with_capacity(logs.len()), Vec::with_capacity(logs.len()));
        for log in logs {
            let (from, to) = (log.path, self.path().join(delete_dir(&log.topic_partition, log.topic_id)));
            log.gate.close();
            remove_tree(disk, &to)?;
            disk.rename(&from, &to).map_err(failed_to("rename", &from))?;
            for segment in &log.segments {
                segment.files.close();
            }
            gone.push(log.topic_partition);
            doomed.push(to);
        }
        disk.sync_dir(self.path())
            .map_err(failed_to_sync(self.path()))
            .inspect_err(|error| self.directory.fail(error))?;
        self.directory.forget(&gone)?;
        for path in doomed {
            remove_tree(disk, &path)?;
        }
        Ok(())
    }

    /// Writes the recovery points and log starts of all logs, as each was last remembered
    /// ([`PartitionLog::remember`]). Call it after the logs' checkpoint tasks.
    pub fn checkpoint(&self) -> Result<(), StorageError> {
        self.directory.write_checkpoints()
    }

    /// Notes, durably, where logs are about to start ([`PartitionLog::follow_log_start`]).
    pub fn note_log_starts(&self, starts: &[(TopicPartition, i64)]) -> Result<(), StorageError> {
        self.directory.check()?;
        self.directory.set_log_starts(starts)
    }

    /// Lets no compaction begin, and ends those under way at their next batch; their logs are as they were. For good: a
    /// process that closes its logs need not wait for hours of cleaning.
    pub fn stop_compaction(&self) {
        self.directory.stop_compaction();
    }

    /// Says that every log was closed: the next start will not read them. Refused once the directory has failed.
    pub fn mark_clean_shutdown(&self) -> Result<(), StorageError> {
        self.directory.write_checkpoints()?;
        checkpoint::replace(
            self.directory.disk.as_ref(),
            self.path(),
            CLEAN_SHUTDOWN,
            b"{\"version\":0,\"brokerEpoch\":-1}",
            DirSync::Now,
        )
    }

    /// Room on the file system of the directory.
    pub fn space(&self) -> Result<Space, StorageError> {
        self.directory.disk.space(self.path()).map_err(failed_to("measure", self.path()))
    }

    /// Whether the directory stopped for good.
    pub fn has_failed(&self) -> bool {
        self.directory.failed().is_some()
    }

    /// Why the directory stopped, if it did.
    pub fn failed(&self) -> Option<String> {
        self.directory.failed().map(str::to_owned)
    }
}

/// Creates the directory and those above it, each with its name synced: what is synced below would be lost with them.
fn create_durably(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    let mut missing = Vec::new();
    for directory in path.ancestors().filter(|directory| !directory.as_os_str().is_empty()) {
        if disk.exists(directory).map_err(failed_to("look for", directory))? {
            break;
        }
        missing.push(directory);
    }
    for directory in missing.into_iter().rev() {
        disk.create_dir(directory).map_err(failed_to("create", directory))?;
        let parent = match directory.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        disk.sync_dir(parent).map_err(failed_to_sync(parent))?;
    }
    Ok(())
}

/// Checks whose directory it is, or makes it ours. One that Apache Kafka wrote is taken over after a clean shutdown only,
/// and one that holds partitions but does not say whose they are not at all. What an earlier release wrote gets its checksum.
fn claim(disk: &dyn Disk, path: &Path, identity: &Identity, clean: bool) -> Result<Identity, StorageError> {
    let file = path.join(META_PROPERTIES);
    let mut claimed = identity.clone();
    if let Some(bytes) = read_file(disk, &file)? {
        claimed = identity::check(&file, &bytes, identity)?;
        let is_ours = identity::is_ours(&bytes);
        if is_ours && bytes == identity::encode(&claimed) {
            return Ok(claimed);
        }
        if !is_ours && !clean {
            return Err(StorageError::corrupt(
                path,
                "Apache Kafka wrote it and did not shut down cleanly: start that broker once more and stop it",
            ));
        }
    } else if let Some(partition) = first_partition(disk, path)? {
        return Err(StorageError::corrupt(
            path,
            format!(
                "it holds partition {partition}, and no {META_PROPERTIES} says of which cluster: put that file back, \
                 or move the partitions away"
            ),
        ));
    }
    checkpoint::replace(disk, path, META_PROPERTIES, &identity::encode(&claimed), DirSync::Now)?;
    Ok(claimed)
}

fn first_partition(disk: &dyn Disk, path: &Path) -> Result<Option<TopicPartition>, StorageError> {
    let entries = disk.read_dir(path).map_err(failed_to("list", path))?;
    Ok(entries.iter().filter(|entry| entry.is_dir).find_map(|entry| parse_partition_dir(&entry.name)))
}

/// What is damaged is as good as lost, and said to be: a bit that has flipped must not make a log shorter than it is, nor more of it
/// committed.
fn load_checkpoints(disk: &dyn Disk, path: &Path) -> Result<Checkpoints, StorageError> {
    let load = |name: &str, what_happens: &str| match checkpoint::load_offsets(disk, &path.join(name)) {
        Err(StorageError::Corrupt { path, reason }) => {
            tracing::warn!(file = %path.display(), reason, "a checkpoint is damaged: {what_happens}");
            Ok(None)
        }
        other => other.map(Some),
    };
    let recovery_points = load(RECOVERY_POINTS, "every log is read from its beginning")?;
    let log_starts = load(
        LOG_START_OFFSETS,
        "every log starts where its leader epochs do, until its leader says otherwise; where nobody does, deleted records come back",
    )?;
    Ok(Checkpoints {
        points_are_lost: recovery_points.is_none(),
        recovery_points: recovery_points.unwrap_or_default(),
        starts_are_lost: log_starts.is_none(),
        log_starts: log_starts.unwrap_or_default(),
        high_watermarks: load(HIGH_WATERMARKS, "what is committed is asked of the replicas")?
            .unwrap_or_default(),
        cleaned: load(CLEANER_OFFSETS, "compaction begins again")?.unwrap_or_default(),
    })
}

fn remove_deleted_partitions(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    let entries = disk.read_dir(path).map_err(failed_to("list", path))?;
    for entry in entries.iter().filter(|entry| entry.is_dir && is_delete_dir(&entry.name)) {
        remove_tree(disk, &path.join(&entry.name))?;
    }
    Ok(())
}

fn remove_tree(disk: &dyn Disk, path: &Path) -> Result<(), StorageError> {
    let entries = match disk.read_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other.map_err(failed_to("list", path))?,
    };
    for entry in entries {
        let child = path.join(&entry.name);
        if entry.is_dir {
            remove_tree(disk, &child)?;
        } else {
            disk.remove_file(&child).map_err(failed_to("remove", &child))?;
        }
    }
    disk.remove_dir(path).map_err(failed_to("remove", path))
}

fn write_topic_id(disk: &dyn Disk, path: &Path, topic_id: TopicId) -> Result<(), StorageError> {
    let file_path = path.join(PARTITION_METADATA);
    let file = disk.open(&file_path, OpenMode::CreateEmpty).map_err(failed_to("create", &file_path))?;
    let text = checksum::with_line(&format!("version: 0\ntopic_id: {topic_id}\n"), TOPIC_ID_CHECKSUM);
    write_all_at(file.as_ref(), text.as_bytes(), 0).map_err(failed_to("write", &file_path))
}

/// `None` where nobody says, or a crash came before the file was finished, of which its last line tells: that of the checksum ends.
fn read_topic_id(disk: &dyn Disk, path: &Path) -> Result<Option<TopicId>, StorageError> {
    let file_path = path.join(PARTITION_METADATA);
    let Some(bytes) = read_file(disk, &file_path)? else { return Ok(None) };
    let damaged = |reason: String| {
        let what_to_do = "the partition is copied from another replica; if there is none, and no other topic has had its name, remove this file and start again";
        StorageError::corrupt(&file_path, format!("{reason}; {what_to_do}"))
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| damaged("it is not text".to_owned()))?;
    let text = text.trim_end_matches('\0');
    if text.ends_with('\n') {
        checksum::check_line(text, TOPIC_ID_CHECKSUM).map_err(damaged)?;
    }
    Ok(text.lines().find_map(|line| TopicId::parse(line.strip_prefix("topic_id: ")?.trim())))
}
