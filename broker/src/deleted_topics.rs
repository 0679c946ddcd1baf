//! Topics that were deleted, until the groups have forgotten them: every broker that runs takes away the offsets that the
//! groups which it coordinates have committed to them. What stays with one that did not run expires, and is nobody's: offsets
//! carry the id of their topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_model::ids::TopicId;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::context::Context;

/// See the module.
#[derive(Debug)]
pub struct DeletedTopics {
    /// Those that the groups have not been told of.
    topics: Mutex<Vec<(String, TopicId)>>,
    /// How many deletions there were, and of how many the groups know.
    count: watch::Sender<u64>,
    forgotten: watch::Sender<u64>,
}

impl Default for DeletedTopics {
    fn default() -> Self {
        let (count, forgotten) = (watch::Sender::new(0), watch::Sender::new(0));
        Self { topics: Mutex::default(), count, forgotten }
    }
}

impl DeletedTopics {
    /// A topic was deleted.
    pub fn push(&self, name: &str, id: TopicId) {
        let mut topics = self.topics.lock();
        topics.push((name.to_owned(), id));
        self.count.send_modify(|count| *count += 1);
    }

    /// Waits until the groups have forgotten all that was deleted so far.
    pub async fn forgotten(&self) {
        let count = *self.count.borrow();
        // What tells it lives as long as this.
        self.forgotten.subscribe().wait_for(|forgotten| *forgotten >= count).await.ok();
    }

    fn take(&self) -> (Vec<(String, TopicId)>, u64) {
        let mut topics = self.topics.lock();
        (std::mem::take(&mut *topics), *self.count.borrow())
    }
}

/// Has the groups forget deleted topics, until `shutdown`.
pub async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut told = context.deleted_topics.count.subscribe();
    told.mark_changed();
    while shutdown.run_until_cancelled(told.changed()).await.is_some_and(|changed| changed.is_ok()) {
        let (topics, count) = context.deleted_topics.take();
        if !topics.is_empty() {
            context.cold.topics_were_deleted();
            for topics in each_name_once(topics) {
                forget(&context, &topics).await;
            }
        }
        context.deleted_topics.forgotten.send_replace(count);
    }
}

/// A name may have been deleted, given again and deleted again.
fn each_name_once(topics: Vec<(String, TopicId)>) -> Vec<BTreeMap<String, TopicId>> {
    let mut rounds: Vec<BTreeMap<String, TopicId>> = Vec::new();
    for (name, id) in topics {
        match rounds.iter_mut().find(|round| !round.contains_key(&name)) {
            Some(round) => drop(round.insert(name, id)),
            None => rounds.push(BTreeMap::from([(name, id)])),
        }
    }
    rounds
}

async fn forget(context: &Arc<Context>, topics: &BTreeMap<String, TopicId>) {
    for shard in context.groups.led() {
        if let Err(error) =
            context.groups.ask(shard, |group, _, token| group.topics_deleted(topics, token)).await
        {
            tracing::warn!(shard, %error, "offsets of deleted topics stay until they expire");
        }
    }
}
