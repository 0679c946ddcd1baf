//! The data directories of this broker, each with the guard of its free space, and which partition lies in which.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use firn_metadata::incarnations::Noted;
use firn_model::ids::{METADATA_TOPIC, TopicId, TopicPartition};
use firn_model::topic_config::TopicConfig;
use firn_storage::directory::LogDirOptions;
use firn_storage::disk::Disk;
use firn_storage::error::StorageError;
use firn_storage::identity::Identity;
use firn_storage::log_dir::{FoundLog, LogDir};
use firn_storage::partition_log::PartitionLog;
use parking_lot::Mutex;

use crate::disk_guard::DiskGuard;

/// One data directory.
#[derive(Debug)]
pub struct DataDir {
    pub dir: LogDir,
    pub guard: Arc<DiskGuard>,
}

/// All data directories. The first holds the metadata log too.
#[derive(Debug)]
pub struct LogDirs {
    dirs: Vec<Arc<DataDir>>,
    /// Partitions of each directory, to put a new one where there are fewest.
    counts: Mutex<Vec<usize>>,
    /// Where the partitions lie that were found at the start.
    found: Mutex<HashMap<TopicPartition, usize>>,
    /// Directories that were set aside and still lie there, as last counted.
    strays: AtomicUsize,
    marks: AtomicU64,
}

/// How the directories are opened.
#[derive(Debug, Clone)]
pub struct Opening<'a> {
    pub disk: Arc<dyn Disk>,
    pub paths: &'a [PathBuf],
    pub cluster_id: String,
    pub node_id: i32,
    /// Ids for directories that have none yet, one each.
    pub directory_ids: Vec<TopicId>,
    pub reserve_bytes: u64,
    /// Files of logs that are kept open, in all directories together.
    pub open_files_max: usize,
}

impl LogDirs {
    pub fn open(opening: Opening<'_>) -> Result<Self, StorageError> {
        let mut dirs = Vec::new();
        for (path, id) in opening.paths.iter().zip(&opening.directory_ids) {
            let identity = Identity {
                cluster_id: opening.cluster_id.clone(),
                node_id: opening.node_id,
                directory_id: id.to_string(),
            };
            let options = LogDirOptions {
                open_files_max: (opening.open_files_max / opening.paths.len()).max(1),
                reserve_bytes: opening.reserve_bytes,
            };
            let dir = LogDir::open(opening.disk.clone(), path, &identity, options)?;
            let guard = DiskGuard::new(opening.disk.clone(), path.clone(), opening.reserve_bytes);
            dirs.push(Arc::new(DataDir { dir, guard }));
        }
        let counts = Mutex::new(vec![0; dirs.len()]);
        Ok(Self {
            dirs,
            counts,
            found: Mutex::default(),
            strays: AtomicUsize::new(0),
            marks: AtomicU64::new(0),
        })
    }

    /// The one that holds the metadata log.
    pub fn first(&self) -> &DataDir {
        &self.dirs[0]
    }

    /// Gives the first directory another id, before anybody else holds it.
    pub fn renew_first_id(&mut self, id: &str) -> Result<(), StorageError> {
        match Arc::get_mut(&mut self.dirs[0]) {
            Some(first) => first.dir.renew_id(id),
            None => Err(StorageError::corrupt(
                self.dirs[0].dir.path(),
                "its id cannot be changed while it is in use".to_owned(),
            )),
        }
    }

    /// The incarnations that each directory knows of.
    pub fn incarnations(&self) -> Result<Noted, StorageError> {
        let noted = |dir: &Arc<DataDir>| {
            let known = dir.dir.incarnations()?.into_iter().collect();
            Ok((dir.dir.identity().directory_id.clone(), known))
        };
        self.dirs.iter().map(noted).collect()
    }

    /// How many marks this process has left in every directory.
    pub fn marks(&self) -> u64 {
        self.marks.load(Ordering::Acquire)
    }

    /// Leaves another mark in every directory, durably. Where that fails some may have it, and the next attempt leaves the same.
    pub fn leave_mark(&self) -> Result<(), StorageError> {
        let marks = self.marks() + 1;
        self.dirs.iter().try_for_each(|dir| dir.dir.note_marks(marks))?;
        self.marks.store(marks, Ordering::Release);
        Ok(())
    }

    /// Where the directory of this id is.
    pub fn path_of(&self, directory_id: &str) -> PathBuf {
        let found = self.dirs.iter().find(|dir| dir.dir.identity().directory_id == directory_id);
        found.unwrap_or(&self.dirs[0]).dir.path().to_owned()
    }

    pub fn all(&self) -> &[Arc<DataDir>] {
        &self.dirs
    }

    /// Partitions that have a directory, and in which data directory; the metadata log is not one of them.
    pub fn found(&self) -> Result<Vec<(PathBuf, FoundLog)>, StorageError> {
        let mut found = Vec::new();
        for dir in &self.dirs {
            let logs = partitions(dir)?.into_iter();
            found.extend(logs.map(|log| (dir.dir.path().to_owned(), log)));
        }
        Ok(found)
    }

    /// Renames the directories for which `why_stray` has a reason, each with an id from `unique`, and notes where the
    /// others are. A partition that lies in two data directories is an error: nobody knows which of the two logs is the
    /// one that was written last.
    pub fn set_aside(
        &self,
        why_stray: impl Fn(&FoundLog) -> Option<&'static str>,
        unique: impl Fn() -> TopicId,
    ) -> Result<(), StorageError> {
        for (index, dir) in self.dirs.iter().enumerate() {
            let (mut strays, mut reasons) = (Vec::new(), Vec::new());
            for log in partitions(dir)? {
                match why_stray(&log) {
                    None => self.note(log.topic_partition, index)?,
                    Some(reason) => {
                        strays.push((log.topic_partition, unique()));
                        reasons.push(reason);
                    }
                }
            }
            let moved = dir.dir.set_aside(&strays)?;
            for (((partition, _), reason), path) in strays.iter().zip(reasons).zip(moved) {
                tracing::warn!(
                    %partition, reason, path = %path.display(),
                    "a stray partition was set aside: remove the directory once you are sure that nobody needs its records"
                );
            }
        }
        self.count_strays();
        Ok(())
    }

    fn note(&self, partition: TopicPartition, index: usize) -> Result<(), StorageError> {
        let Some(other) = self.found.lock().insert(partition.clone(), index) else { return Ok(()) };
        let path = |index: usize| self.dirs[index].dir.path().join(partition.to_string());
        let reason = format!(
            "the partition lies in {} too, and a broker has one log of a partition: move one of the two away, that of the directory which failed last if one did",
            path(other).display()
        );
        Err(StorageError::corrupt(&path(index), reason))
    }

    /// Directories that were set aside and still lie there, as last counted.
    pub fn strays(&self) -> usize {
        self.strays.load(Ordering::Relaxed)
    }

    /// Counts them anew. A directory that cannot be listed counts as empty.
    pub fn count_strays(&self) {
        let count = self.dirs.iter().map(|dir| dir.dir.strays().unwrap_or(0)).sum();
        self.strays.store(count, Ordering::Relaxed);
    }

    /// Opens a partition's log where it lies, or creates it where there are fewest.
    pub fn open_log(
        &self,
        topic_partition: &TopicPartition,
        topic_id: TopicId,
        config: Arc<TopicConfig>,
        now_ms: i64,
    ) -> Result<(PartitionLog, Arc<DataDir>), StorageError> {
        let index = {
            let mut counts = self.counts.lock();
            let known = self.found.lock().remove(topic_partition);
            let index = known.unwrap_or_else(|| {
                // Where all have failed, opening it says so.
                let has_failed = |index: usize| self.dirs[index].dir.has_failed();
                let emptiest =
                    counts.iter().enumerate().min_by_key(|(index, count)| (has_failed(*index), **count));
                emptiest.map_or(0, |(index, _)| index)
            });
            counts[index] += 1;
            index
        };
        let dir = self.dirs[index].clone();
        match dir.dir.open_log(topic_partition, topic_id, config, now_ms) {
            Ok(log) => Ok((log, dir)),
            Err(error) => {
                self.forget(dir.dir.path(), 1);
                // Where it was begun, or found, it is to be looked for again.
                self.found.lock().insert(topic_partition.clone(), index);
                Err(error)
            }
        }
    }

    /// Whether a log lies here that is not open.
    pub fn has_unopened(&self, partition: &TopicPartition) -> bool {
        self.found.lock().contains_key(partition)
    }

    /// A log that was opened in the directory at `path` is closed, and is to be looked for there.
    pub fn is_unopened(&self, partition: &TopicPartition, path: &Path) {
        self.forget(path, 1);
        if let Some(index) = self.dirs.iter().position(|dir| dir.dir.path() == path) {
            self.found.lock().insert(partition.clone(), index);
        }
    }

    /// Sets aside what lies here, has gone from here, and could not be opened: the next topic of its name must not meet it.
    pub fn set_aside_unopened(
        &self,
        has_gone: impl Fn(&TopicPartition) -> bool,
        id: TopicId,
    ) -> Result<(), StorageError> {
        let unopened: Vec<(TopicPartition, usize)> = {
            let mut found = self.found.lock();
            found.extract_if(|partition, _| has_gone(partition)).collect()
        };
        for (partition, index) in unopened {
            let dir = &self.dirs[index].dir;
            if !dir.has(&partition)? {
                continue;
            }
            for path in dir.set_aside(&[(partition.clone(), id)])? {
                let path = path.display();
                tracing::warn!(%partition, %path, "a log that has gone from here and could not be opened was set aside");
            }
        }
        Ok(())
    }

    /// Counts partitions out of the directory that held them.
    pub fn forget(&self, path: &Path, partitions: usize) {
        if let Some(index) = self.dirs.iter().position(|dir| dir.dir.path() == path) {
            let mut counts = self.counts.lock();
            counts[index] = counts[index].saturating_sub(partitions);
        }
    }
}

/// Partitions that have a directory here; the metadata log is not one of them.
fn partitions(dir: &DataDir) -> Result<Vec<FoundLog>, StorageError> {
    let mut found = dir.dir.partitions()?;
    found.retain(|log| *log.topic_partition.topic != *METADATA_TOPIC);
    Ok(found)
}
