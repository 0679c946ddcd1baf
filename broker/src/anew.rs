//! Replicas that begin anew, because what they have is not to be relied on: their logs could not be opened, or others cannot
//! mend them piece by piece (`mending.rs`).
//!
//! Order: the replica asks for nothing and serves nothing; the controller is told that others are to lead, and that this one is
//! not in sync, in a new leader epoch, so that no request of before counts any more; once that is known here, the log is
//! set aside, never deleted, and an empty one follows the leader, from where the leader's disk begins if the rest is in the
//! tier. A replica that vouches for what nobody else vouches for stays as it is.

use std::sync::Arc;
use std::time::Duration;

use firn_metadata::image::{self, Image, NO_LEADER};
use firn_model::ids::{TopicId, TopicPartition};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::partition::{Partition, PartitionKey};
use crate::peers::wire::ControllerAsk;

/// How soon it is looked at again who is in sync.
const PAUSE: Duration = Duration::from_millis(500);
/// How long the controller may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// What may be done with a log that is not to be relied on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It is not this broker's any more.
    Forget,
    /// Others can lead: the controller is to know that this replica is out of sync.
    HandOver,
    /// Nobody relies on it.
    Begin,
    /// Somebody may have to: there is nobody else yet.
    Wait,
}

/// What comes next, as the metadata are. Whoever is eligible though out of sync (KIP-966) is relied on, too.
fn step(now: Option<&image::Partition>, broker_id: i32) -> Step {
    let Some(now) = now.filter(|now| now.replicas.contains(&broker_id)) else { return Step::Forget };
    if now.isr.contains(&broker_id) {
        return if now.isr.len() > 1 { Step::HandOver } else { Step::Wait };
    }
    let is_relied_on = now.elr.contains(&broker_id) || now.last_known_elr.contains(&broker_id);
    if is_relied_on || now.leader == NO_LEADER { Step::Wait } else { Step::Begin }
}

/// Lets what is not to be relied on begin anew, until `shutdown`.
pub async fn run(context: Arc<Context>, epoch: i64, shutdown: CancellationToken) {
    let unreliable = &context.replication.unreliable;
    let beginning = async {
        loop {
            let all = unreliable.all();
            if all.is_empty() {
                unreliable.until_more().await;
                continue;
            }
            let mut handed_over = Vec::new();
            for (key, name) in all {
                let image = context.controller.image();
                match step(partition_of(&image, key), context.node_id) {
                    Step::Forget => unreliable.remove(&key),
                    Step::HandOver => handed_over.push((key.0.0, key.1)),
                    Step::Begin => begin(&context, key, name).await,
                    Step::Wait => {}
                }
            }
            if !handed_over.is_empty() {
                let (count, broker_id) = (handed_over.len(), context.node_id);
                let ask = ControllerAsk::HandOver { broker_id, broker_epoch: epoch, partitions: handed_over };
                match context.membership.ask_controller(&ask, PATIENCE).await {
                    Ok(_) => {
                        tracing::warn!(partitions = count, "others lead what this broker cannot rely on")
                    }
                    Err(error) => {
                        tracing::warn!(partitions = count, %error, "the controller does not know yet what this broker cannot rely on")
                    }
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(beginning).await;
}

fn partition_of(image: &Image, (topic, index): PartitionKey) -> Option<&image::Partition> {
    image.topic_by_id(topic)?.partition(index).map(AsRef::as_ref)
}

async fn begin(context: &Arc<Context>, key: PartitionKey, name: TopicPartition) {
    let (beginning, topic) = (context.clone(), name.clone());
    let id = TopicId(context.environment.random.uuid());
    let set_aside = firn_blocking::run(move || {
        let set_aside = beginning.log_dirs.set_aside_unopened(|found| *found == topic, id);
        set_aside.map(|()| {
            beginning.replication.unreliable.remove(&key);
            beginning.controller.open_anew();
        })
    });
    match set_aside.await {
        Ok(()) => tracing::warn!(partition = %name, "begins anew: all is copied from the leader"),
        Err(error) => tracing::error!(partition = %name, %error, "cannot begin anew yet"),
    }
}

/// Closes a log that cannot be mended piece by piece, if others are in sync. Refused, in words, if they are not.
pub async fn close(context: &Arc<Context>, partition: &Arc<Partition>) -> Result<(), String> {
    let key = partition.key();
    let may = step(partition_of(&context.controller.image(), key), context.node_id);
    if may == Step::Wait {
        return Err("no other replica is in sync".to_owned());
    }
    tracing::warn!(partition = %partition.name, "the log cannot be mended piece by piece: it is closed, and begins anew");
    // First, so that nobody opens it again.
    context.replication.unreliable.add(key, partition.name.clone());
    context.partitions.remove(key.0, key.1);
    let Some(log) = partition.close() else { return Ok(()) };
    let (context, partition) = (context.clone(), partition.clone());
    let closed = firn_blocking::run(move || {
        let closed = log.close();
        context.log_dirs.is_unopened(&partition.name, partition.data_dir().dir.path());
        closed
    });
    closed.await.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_begins_anew_who_is_relied_on() {
        let of = |isr: &[i32], elr: &[i32], leader| image::Partition {
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            elr: elr.to_vec(),
            last_known_elr: Vec::new(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            leader,
            leader_epoch: 3,
            partition_epoch: 5,
        };
        for (now, next) in [
            (of(&[1, 2], &[], 1), Step::HandOver),
            (of(&[1, 2], &[], 2), Step::HandOver),
            (of(&[1], &[2], 1), Step::Wait),
            (of(&[2], &[1], 2), Step::Wait),
            (of(&[2, 3], &[], 2), Step::Begin),
            (of(&[2, 3], &[], NO_LEADER), Step::Wait),
        ] {
            assert_eq!(step(Some(&now), 1), next, "{now:?}");
        }
        assert_eq!(step(Some(&of(&[1, 2], &[], 1)), 4), Step::Forget);
        assert_eq!(step(None, 1), Step::Forget);
    }
}
