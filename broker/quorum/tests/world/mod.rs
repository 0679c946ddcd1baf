//! Members of a quorum in one process, on disks that lose what was not synced, and a network whose links can be cut.

#![allow(clippy::unwrap_used, reason = "in a test a panic is how a failure is told")]
#![allow(dead_code, reason = "each suite uses its part")]

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use firn_metadata::decide::Decision;
use firn_metadata::image::Image;
use firn_metadata::record::{MetadataRecord, PartitionRecord, RemoveTopicRecord, TopicRecord};
use firn_model::ids::TopicId;
use firn_quorum::error::QuorumError;
use firn_quorum::log_store::{LogStore, NowMs, SnapshotLimits};
use firn_quorum::network::{Answer, Lane, Transport};
use firn_quorum::quorum::{ProposeError, Quorum, Timing};
use firn_quorum::types::Member;
use firn_storage::directory::LogDirOptions;
use firn_storage::identity::Identity;
use firn_storage::log_dir::LogDir;
use firn_storage::simulated::{PowerCut, SimulatedDisk};
use tokio::time::Instant;
use uuid::Uuid;

pub const TIMING: Timing = Timing {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_millis(200),
    election_max: Duration::from_millis(350),
};
const DEADLINE: Duration = Duration::from_secs(30);

/// Who can be reached.
#[derive(Debug, Default)]
pub struct Switchboard {
    running: Mutex<BTreeMap<u64, Arc<Quorum>>>,
    /// Brokers that hear nobody and are heard by nobody.
    apart: Mutex<BTreeSet<i32>>,
}

/// One member's way to the others.
#[derive(Debug)]
struct Line {
    from: i32,
    board: Arc<Switchboard>,
}

impl Transport for Line {
    fn ask(&self, member: &Member, _: Lane, message: Bytes, patience: Duration) -> Answer {
        let (board, from, member) = (self.board.clone(), self.from, member.clone());
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(1)).await;
            let apart = |board: &Switchboard| {
                let apart = board.apart.lock().unwrap();
                apart.contains(&from) || apart.contains(&member.broker_id)
            };
            let target = board.running.lock().unwrap().get(&member.id()).cloned();
            let (Some(target), false) = (target, apart(&board)) else {
                return Err(io::ErrorKind::ConnectionRefused.into());
            };
            let answer = tokio::time::timeout(patience, target.answer(&message)).await;
            tokio::time::sleep(Duration::from_millis(1)).await;
            match answer {
                Ok(Ok(answer)) if !apart(&board) => Ok(answer),
                Ok(Err(error)) => Err(io::Error::other(error)),
                _ => Err(io::ErrorKind::TimedOut.into()),
            }
        })
    }
}

/// A broker's disk, and the process on it, if one runs.
pub struct Machine {
    pub broker_id: i32,
    pub directory_id: String,
    pub disk: SimulatedDisk,
    process: Option<(Arc<Quorum>, LogDir)>,
}

pub struct World {
    pub board: Arc<Switchboard>,
    pub machines: Vec<Machine>,
    pub limits: SnapshotLimits,
}

impl World {
    /// Machines with empty disks, of which none runs.
    pub fn new(count: i32, limits: SnapshotLimits) -> Self {
        firn_blocking::do_in_place(|| Duration::from_micros(200));
        let machine = |broker_id| Machine {
            broker_id,
            directory_id: format!("disk-{broker_id}"),
            disk: SimulatedDisk::new(),
            process: None,
        };
        Self { board: Arc::default(), machines: (0..count).map(machine).collect(), limits }
    }

    /// A quorum of all machines.
    pub async fn founded(count: i32, limits: SnapshotLimits) -> Self {
        let mut world = Self::new(count, limits);
        for at in 0..world.machines.len() {
            world.start(at).await.unwrap();
        }
        let voters: Vec<_> = (0..world.machines.len()).map(|at| world.member(at)).collect();
        for at in 0..world.machines.len() {
            world.quorum(at).found(voters.clone()).await.unwrap();
        }
        world
    }

    pub fn member(&self, at: usize) -> Member {
        let Machine { broker_id, directory_id, .. } = &self.machines[at];
        Member { broker_id: *broker_id, directory_id: directory_id.clone() }
    }

    pub async fn start(&mut self, at: usize) -> Result<(), QuorumError> {
        let member = self.member(at);
        let machine = &mut self.machines[at];
        let identity = Identity {
            cluster_id: "c".to_owned(),
            node_id: member.broker_id,
            directory_id: member.directory_id.clone(),
        };
        let disk = Arc::new(machine.disk.clone());
        let dir = LogDir::open(disk, Path::new("/data"), &identity, LogDirOptions::default())?;
        let found = LogStore::open(&dir, self.limits, NowMs(Arc::new(|| 1)))?;
        let line = Line { from: member.broker_id, board: self.board.clone() };
        let id = member.id();
        let quorum = Arc::new(Quorum::start(found, Some(TIMING), Arc::new(line)).await?);
        self.board.running.lock().unwrap().insert(id, quorum.clone());
        machine.process = Some((quorum, dir));
        Ok(())
    }

    /// The power goes.
    pub async fn crash(&mut self, at: usize, cut: PowerCut) {
        let id = self.member(at).id();
        self.board.running.lock().unwrap().remove(&id);
        let machine = &mut self.machines[at];
        let after = machine.disk.after_power_cut(cut);
        let Some((quorum, dir)) = machine.process.take() else { return };
        drop(quorum.retire().await);
        drop(dir);
        machine.disk = after;
    }

    pub fn quorum(&self, at: usize) -> &Arc<Quorum> {
        &self.machines[at].process.as_ref().unwrap().0
    }

    /// Nothing reaches the machine, nor anybody from it.
    pub fn cut_off(&self, at: usize) {
        self.board.apart.lock().unwrap().insert(self.machines[at].broker_id);
    }

    pub fn heal(&self) {
        self.board.apart.lock().unwrap().clear();
    }

    pub fn running(&self) -> impl Iterator<Item = usize> {
        (0..self.machines.len()).filter(|at| self.machines[*at].process.is_some())
    }

    /// The machine whose member leads and is believed to by all that are not cut off; waits for one.
    pub async fn leader(&self) -> usize {
        let found = wait_for("a leader", || {
            let apart = self.board.apart.lock().unwrap().clone();
            let reachable: Vec<_> =
                self.running().filter(|at| !apart.contains(&self.machines[*at].broker_id)).collect();
            let leader = reachable.iter().copied().find(|at| self.quorum(*at).progress().leads)?;
            let name = Some(self.machines[leader].broker_id);
            reachable.iter().all(|at| self.quorum(*at).progress().leader == name).then_some(leader)
        });
        found.await
    }

    /// Takes a machine's member in, without a vote, and waits until it has the log.
    pub async fn take_in(&self, leader: usize, at: usize) {
        let member = self.member(at);
        self.quorum(leader).let_observe([member.clone()]).await.unwrap();
        self.quorum(leader).until_has_log(member.id()).await.unwrap();
    }

    /// Waits until all that run say the same.
    pub async fn agreed(&self) -> Image {
        wait_for("agreement", || {
            let images: Vec<_> = self.running().map(|at| self.quorum(at).image()).collect();
            let first = images.first()?;
            images.iter().all(|image| image == first).then(|| first.clone())
        })
        .await
    }
}

pub async fn change(quorum: &Quorum, records: &[MetadataRecord]) -> Result<(), ProposeError> {
    quorum.propose(|_| Ok(Decision { records: records.to_vec(), reply: () })).await
}

/// Why a member has ended; waits until it has.
pub async fn failure(quorum: &Quorum) -> String {
    let failed = tokio::time::timeout(DEADLINE, quorum.failed()).await;
    assert!(failed.is_ok(), "it goes on: {:?}", quorum.progress());
    failed.unwrap().to_string()
}

pub async fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

pub fn id(number: u32) -> TopicId {
    TopicId(Uuid::from_u128(u128::from(number) + 1))
}

pub fn creation(number: u32) -> [MetadataRecord; 2] {
    let topic = TopicRecord { name: format!("topic-{number}"), topic_id: id(number) };
    let partition = PartitionRecord {
        topic_id: id(number),
        partition: 0,
        replicas: vec![1],
        adding_replicas: Vec::new(),
        removing_replicas: Vec::new(),
        isr: vec![1],
        elr: Vec::new(),
        last_known_elr: Vec::new(),
        leader: 1,
        leader_epoch: 0,
        partition_epoch: 0,
    };
    [MetadataRecord::Topic(topic), MetadataRecord::Partition(partition)]
}

pub fn removal(number: u32) -> [MetadataRecord; 1] {
    [MetadataRecord::RemoveTopic(RemoveTopicRecord { topic_id: id(number) })]
}

pub fn has(image: &Image, number: u32) -> bool {
    image.topic(&format!("topic-{number}")).is_some()
}

pub fn files(disk: &SimulatedDisk, ending: &str) -> Vec<PathBuf> {
    let mut files = disk.files(Path::new("/data/__cluster_metadata-0")).unwrap_or_default();
    files.retain(|file| file.to_string_lossy().ends_with(ending));
    files
}
