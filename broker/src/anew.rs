//! Replicas that begin anew, because what they have is not to be relied on: their logs could not be opened, or others cannot
//! mend them piece by piece (`mending.rs`).
//!
//! Order: the replica asks for nothing and serves nothing; the controller is told that others are to lead, and that this one is
//! not in sync, in a new leader epoch, so that no request of before counts any more; once that is known here, the log is
//! set aside, never deleted, and an empty one follows the leader, from where the leader's disk begins if the rest is in the
//! tier. A replica that vouches for what nobody else vouches for stays as it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::image::{self, NO_LEADER};
use firn_model::ids::{TopicId, TopicPartition};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::context::Context;
use crate::partition::{Partition, PartitionKey};
use crate::peers::wire::ControllerAsk;
use crate::replication::unreliable::{Log, Why};

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
    /// The same, and it serves better with what it has than not at all.
    Reopen,
}

/// What comes next, as the metadata are. Whoever is eligible though out of sync (KIP-966) is relied on, too; and as long as the
/// leader epoch is the one in which this broker asked for something last, its leader may still take it in.
fn step(now: Option<&image::Partition>, broker_id: i32, log: &Log) -> Step {
    let Some(now) = now.filter(|now| now.replicas.contains(&broker_id)) else { return Step::Forget };
    let may_be_taken_in = now.leader_epoch <= log.leader_epoch;
    match (now.relies_on(broker_id) || may_be_taken_in, now.others_vouch(broker_id)) {
        (true, true) => Step::HandOver,
        (true, false) if log.why == Why::Closed => Step::Reopen,
        (false, true) if now.leader != NO_LEADER => Step::Begin,
        _ => Step::Wait,
    }
}

/// Lets what is not to be relied on begin anew, until `shutdown`.
pub async fn run(context: Arc<Context>, epoch: i64, shutdown: CancellationToken) {
    let unreliable = &context.replication.unreliable;
    let beginning = async {
        let mut forgotten = BTreeSet::new();
        loop {
            let all = unreliable.all();
            if all.is_empty() {
                unreliable.until_more().await;
                continue;
            }
            let mut handed_over = Vec::new();
            for (key, log) in all.into_iter().filter(|(_, log)| log.why != Why::Closing) {
                let image = context.controller.image();
                let name = log.name.clone();
                let now = image.partition_by_id(key.0, key.1);
                match step(now.map(AsRef::as_ref), context.node_id, &log) {
                    // It may be newer than the image here.
                    Step::Forget if !forgotten.insert(key) => {
                        forgotten.remove(&key);
                        unreliable.remove(&key);
                    }
                    Step::Forget => {}
                    Step::HandOver => handed_over.push((key.0.0, key.1)),
                    Step::Begin => begin(&context, key, name).await,
                    Step::Wait => {}
                    Step::Reopen => {
                        tracing::warn!(partition = %name, "nobody else is in sync any more: it goes on with what it has");
                        unreliable.remove(&key);
                        context.controller.open_anew();
                    }
                }
            }
            if !handed_over.is_empty() {
                hand_over(&context, epoch, handed_over).await;
            }
            tokio::time::sleep(PAUSE).await;
        }
    };
    shutdown.run_until_cancelled(beginning).await;
}

async fn hand_over(context: &Context, broker_epoch: i64, partitions: Vec<(Uuid, i32)>) {
    let (count, broker_id) = (partitions.len(), context.node_id);
    let ask = ControllerAsk::HandOver { broker_id, broker_epoch, gives_up: true, partitions };
    match context.membership.ask_controller(&ask, PATIENCE).await {
        Ok(_) => tracing::warn!(partitions = count, "others lead what this broker cannot rely on"),
        Err(error) => {
            tracing::warn!(partitions = count, %error, "the controller does not know yet what this broker cannot rely on")
        }
    }
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

/// What a log that cannot be mended piece by piece costs as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Urgency {
    /// Readers of what is damaged get an error; the rest goes on.
    CanWait,
    /// The replica neither leads nor follows any further.
    Stuck,
}

/// Whether this replica may leave those in sync: others vouch for what it has, and, if that can wait, enough of them for writes
/// to go on.
fn may_leave(now: &image::Partition, broker_id: i32, min_isr: usize, urgency: Urgency) -> bool {
    let others_in_sync = now.isr.iter().filter(|id| **id != broker_id).count();
    let is_missed = now.relies_on(broker_id) && others_in_sync < min_isr;
    now.others_vouch(broker_id) && (urgency == Urgency::Stuck || !is_missed)
}

/// Closes a log that cannot be mended piece by piece, if others can do without. Refused, in words, if not.
pub async fn close(
    context: &Arc<Context>,
    partition: &Arc<Partition>,
    urgency: Urgency,
) -> Result<(), String> {
    let key = partition.key();
    let min_isr = usize::try_from(partition.config().min_insync_replicas).unwrap_or(1).max(1);
    let image = context.controller.image();
    let now = image.partition_by_id(key.0, key.1);
    if now.is_none_or(|now| !may_leave(now, context.node_id, min_isr, urgency)) {
        return Err("too few other replicas are in sync to begin anew".to_owned());
    }
    tracing::warn!(partition = %partition.name, "the log cannot be mended piece by piece: it is closed, and begins anew");
    // First, so that nobody opens it again.
    let log = |why| {
        let now = context.controller.image();
        let leader_epoch = now.partition_by_id(key.0, key.1).map_or(i32::MAX, |now| now.leader_epoch);
        Log { name: partition.name.clone(), why, leader_epoch }
    };
    context.replication.unreliable.add(key, log(Why::Closing));
    context.partitions.remove(key.0, key.1);
    let Some(open) = partition.close() else {
        context.replication.unreliable.remove(&key);
        return Ok(());
    };
    let closed = firn_blocking::run(move || open.close()).await;
    context.log_dirs.is_unopened(&partition.name, partition.data_dir().dir.path());
    context.replication.unreliable.add(key, log(Why::Closed));
    closed.map_err(|error| error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(isr: &[i32], elr: &[i32], leader: i32, leader_epoch: i32) -> image::Partition {
        image::Partition {
            replicas: vec![1, 2, 3],
            isr: isr.to_vec(),
            elr: elr.to_vec(),
            last_known_elr: Vec::new(),
            adding_replicas: Vec::new(),
            removing_replicas: Vec::new(),
            leader,
            leader_epoch,
            partition_epoch: 5,
        }
    }

    #[test]
    fn a_damaged_log_is_closed_where_others_can_do_without() {
        for (isr, elr, can_wait, stuck) in [
            (&[1, 2, 3][..], &[][..], true, true),
            // Writes would stop; where it is stuck, they will, or have.
            (&[1, 2], &[], false, true),
            (&[1], &[2], false, true),
            // Nobody waits for it.
            (&[2], &[3], true, true),
            // Nobody else has what it has.
            (&[1], &[], false, false),
            (&[], &[1], false, false),
        ] {
            let now = of(isr, elr, 2, 3);
            let may = |urgency| may_leave(&now, 1, 2, urgency);
            assert_eq!((may(Urgency::CanWait), may(Urgency::Stuck)), (can_wait, stuck), "{now:?}");
        }
    }

    #[test]
    fn nobody_begins_anew_who_is_relied_on_or_may_be_taken_in() {
        let log = |why| Log { name: TopicPartition::new("t", 0), why, leader_epoch: 3 };
        for (now, next) in [
            (of(&[1, 2], &[], 1, 3), Step::HandOver),
            (of(&[1, 2], &[], 2, 4), Step::HandOver),
            (of(&[1], &[2], 1, 3), Step::HandOver),
            (of(&[2], &[1], 2, 4), Step::HandOver),
            (of(&[1], &[], 1, 3), Step::Wait),
            // As far as is known here: the leader may have reported otherwise.
            (of(&[2, 3], &[], 2, 3), Step::HandOver),
            (of(&[2, 3], &[], 2, 4), Step::Begin),
            (of(&[2, 3], &[], NO_LEADER, 4), Step::Wait),
        ] {
            assert_eq!(step(Some(&now), 1, &log(Why::Unopened)), next, "{now:?}");
        }
        assert_eq!(step(Some(&of(&[1], &[], 1, 3)), 1, &log(Why::Closed)), Step::Reopen);
        assert_eq!(step(Some(&of(&[1, 2], &[], 1, 3)), 4, &log(Why::Closed)), Step::Forget);
        assert_eq!(step(None, 1, &log(Why::Closed)), Step::Forget);
    }
}
