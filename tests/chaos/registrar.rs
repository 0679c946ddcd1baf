//! Changes metadata without a pause, and remembers what it was told: topics made and deleted, a config, a group's offset.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use firn_client::cluster::Cluster;
use firn_client::configs::{self, Resource};
use firn_client::connection::ConnectionOptions;
use firn_client::error::ResponseError;
use firn_client::groups;
use firn_client::topics::{self, NewTopic};
use firn_tests::process::wait_for;
use tokio::runtime::Runtime;

const GROUP: &str = "registrar";
const CONFIG: &str = "retention.ms";
/// What the config is at number 0.
const CONFIG_BASE: u64 = 1_000_000_000_000;
/// As many topics are there before the oldest is deleted.
const KEPT: u64 = 3;
const PATIENCE: Duration = Duration::from_secs(5);
const DEADLINE: Duration = Duration::from_secs(300);

/// How far one kind of change has come: numbers count up, and each is tried until it is done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reached {
    /// The last that was said to be done; 0 for none.
    pub told: u64,
    /// The last that was tried.
    pub tried: u64,
}

impl Reached {
    fn allows(self, found: u64) -> bool {
        (self.told..=self.tried).contains(&found)
    }
}

/// All that was asked for and told.
#[derive(Debug, Clone, Copy, Default)]
pub struct Register {
    pub created: Reached,
    pub deleted: Reached,
    pub config: Reached,
    pub offset: Reached,
}

impl Register {
    pub fn told(&self) -> u64 {
        self.created.told + self.deleted.told + self.config.told + self.offset.told
    }
}

#[derive(Debug)]
pub struct Registrar {
    ended: Arc<AtomicBool>,
    thread: Option<JoinHandle<Register>>,
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime")
}

fn cluster(addresses: &[String]) -> Arc<Cluster> {
    let options = ConnectionOptions { deadline: PATIENCE, ..ConnectionOptions::default() };
    Arc::new(Cluster::new(addresses.to_vec(), options))
}

fn topic_name(number: u64) -> String {
    format!("registered-{number}")
}

impl Registrar {
    /// Goes on where `register` ends; the config is one of `topic`, and the offset of its first partition.
    pub fn start(addresses: Vec<String>, topic: &'static str, register: Register) -> Registrar {
        let ended = Arc::<AtomicBool>::default();
        let until = ended.clone();
        let thread = std::thread::spawn(move || {
            let mut register = register;
            runtime().block_on(async {
                while !until.load(Ordering::Relaxed) {
                    // A client that has failed knows old leaders.
                    let cluster = cluster(&addresses);
                    while !until.load(Ordering::Relaxed)
                        && change(&cluster, topic, &mut register).await.is_some()
                    {}
                }
            });
            register
        });
        Registrar { ended, thread: Some(thread) }
    }

    /// What it was told, up to now.
    pub fn end(mut self) -> Register {
        self.ended.store(true, Ordering::Relaxed);
        self.thread.take().expect("it ends once").join().expect("the registrar ends")
    }
}

impl Drop for Registrar {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
    }
}

/// One change of each kind; `None` at the first that is not said to be done.
async fn change(cluster: &Arc<Cluster>, topic: &str, register: &mut Register) -> Option<()> {
    let next = |reached: &mut Reached| {
        reached.tried = reached.told + 1;
        reached.tried
    };
    let connection = cluster.any().await.ok()?;
    let name = topic_name(next(&mut register.created));
    let new = NewTopic {
        name,
        partitions: Some(1),
        replication_factor: Some(3),
        assignments: Vec::new(),
        configs: BTreeMap::new(),
    };
    match topics::create(&connection, &new).await {
        // There already: an earlier answer was lost.
        Err(error) if !error.is(ResponseError::TopicAlreadyExists) => return None,
        _ => register.created.told = register.created.tried,
    }
    let value = (CONFIG_BASE + next(&mut register.config)).to_string();
    let resource = Resource::Topic(topic.to_owned());
    configs::alter(&connection, &resource, &[(CONFIG.to_owned(), Some(value))]).await.ok()?;
    register.config.told = register.config.tried;
    let offset = next(&mut register.offset) as i64;
    groups::reset(cluster, GROUP, &BTreeMap::from([((topic.to_owned(), 0), offset)])).await.ok()?;
    register.offset.told = register.offset.tried;
    if register.created.told - register.deleted.told > KEPT {
        match topics::delete(&connection, &topic_name(next(&mut register.deleted))).await {
            Err(error) if !error.is(ResponseError::UnknownTopicOrPartition) => return None,
            _ => register.deleted.told = register.deleted.tried,
        }
    }
    Some(())
}

/// Asks the cluster what there is, and holds it against what the registrar was told. What was only tried counts as done
/// from here on if it is.
pub fn check(addresses: &[String], topic: &str, register: &mut Register) {
    let runtime = runtime();
    let (found, value, offset) = wait_for("the cluster's metadata", DEADLINE, || {
        runtime.block_on(async {
            let cluster = cluster(addresses);
            let connection = cluster.any().await.ok()?;
            let found = topics::describe(&connection, None).await.ok()?;
            let configs = configs::describe(&connection, &Resource::Topic(topic.to_owned())).await.ok()?;
            let value = configs.into_iter().find(|config| config.name == CONFIG)?.value?;
            let offsets = groups::offsets(&cluster, GROUP).await.ok()?;
            Some((found, value, offsets.get(&(topic.to_owned(), 0)).copied()))
        })
    });
    let there = |number: u64| found.iter().any(|found| found.name == topic_name(number));
    let Register { created, deleted, config, offset: committed } = *register;
    for number in 1..=created.told {
        if number <= deleted.told {
            assert!(!there(number), "topic {number} was said to be deleted, and is there");
        } else if number > deleted.tried {
            assert!(there(number), "topic {number} was said to be created, and is not there: {register:?}");
        }
    }
    let value = value.parse::<u64>().expect("a number").saturating_sub(CONFIG_BASE);
    assert!(config.told == 0 || config.allows(value), "{CONFIG} is number {value}: {register:?}");
    let offset = offset.unwrap_or(0) as u64;
    assert!(committed.allows(offset), "the group's offset is {offset}: {register:?}");
    // A change that nobody was told of may have been made.
    register.config.told = if config.allows(value) { value } else { 0 };
    register.offset.told = offset;
}
