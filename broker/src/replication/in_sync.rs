//! Tells the controller who is in sync with the leaders here (AlterPartition, KIP-497): many partitions in one message, again
//! and again until the partitions' epochs move.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{self, AtomicBool};
use std::time::Duration;

use firn_metadata::decide::isr::{IsrError, IsrReport};
use firn_metadata::image::{self, Image};
use firn_replication::leader::InSync;
use firn_telemetry::metrics::ReplicationTraffic;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::partition::{Partition, PartitionKey};
use crate::peers::wire::{ControllerAsk, ControllerTold};

/// Partitions in one message, at most.
const REPORTS_MAX: usize = 2_000;
/// How long one message may take.
const PATIENCE: Duration = Duration::from_secs(2);
/// How long to wait before what could not be told is told again.
const PAUSE: Duration = Duration::from_millis(50);

/// Leaders of which there may be something to tell.
#[derive(Debug, Default)]
pub struct InSyncNews {
    waiting: Mutex<BTreeMap<PartitionKey, Arc<Partition>>>,
    /// There may be something to tell of any of them.
    all: AtomicBool,
    arrived: Notify,
}

impl InSyncNews {
    /// A follower of this leader may have caught up.
    pub fn look_at(&self, partition: &Arc<Partition>) {
        self.waiting.lock().insert(partition.key(), partition.clone());
        self.arrived.notify_one();
    }

    /// A broker is there that was not, or the other way round: followers that had caught up before may be taken in now. None of
    /// them is heard of again as long as it lacks nothing.
    pub fn look_at_all(&self) {
        self.all.store(true, atomic::Ordering::Release);
        self.arrived.notify_one();
    }

    /// The partition is gone: nothing of it is kept.
    pub fn forget(&self, partition: &Partition) {
        self.waiting.lock().remove(&partition.key());
    }

    fn take(&self) -> Vec<Arc<Partition>> {
        std::mem::take(&mut *self.waiting.lock()).into_values().collect()
    }
}

/// Tells the controller what there is to tell, until `shutdown`.
pub async fn report(context: Arc<Context>, shutdown: CancellationToken) {
    let news = &context.replication.in_sync;
    // As often as Kafka looks for those that have fallen behind.
    let period = context.replication.lag_max / 2;
    let mut look = Instant::now() + period;
    loop {
        tokio::select! {
            () = news.arrived.notified() => {}
            () = tokio::time::sleep_until(look) => {
                look += period;
                news.look_at_all();
            }
            () = shutdown.cancelled() => return,
        }
        if news.all.swap(false, atomic::Ordering::AcqRel) {
            for partition in context.partitions.all().iter().filter(|one| one.led_in().is_some()) {
                news.look_at(partition);
            }
        }
        let partitions = news.take();
        for some in partitions.chunks(REPORTS_MAX) {
            let told = tell(&context, some);
            let Some(not_told) = shutdown.run_until_cancelled(told).await else { return };
            if not_told.is_empty() {
                continue;
            }
            if shutdown.run_until_cancelled(tokio::time::sleep(PAUSE)).await.is_none() {
                return;
            }
            not_told.iter().for_each(|partition| news.look_at(partition));
        }
    }
}

/// Tells of these; returns those of which there is more to tell.
async fn tell(context: &Context, partitions: &[Arc<Partition>]) -> Vec<Arc<Partition>> {
    let image = context.controller.image();
    let (mut asked, mut reports) = (Vec::new(), Vec::new());
    for partition in partitions {
        let report = partition.in_sync_report(|replica| may_join(&image, replica));
        let Some((leader_epoch, partition_epoch, report)) = report else { continue };
        asked.push(partition.clone());
        reports.push(IsrReport {
            topic_id: partition.topic_id,
            partition: partition.name.partition,
            leader_epoch,
            partition_epoch,
            isr: report.isr,
            withdraws: report.withdraws,
        });
    }
    if reports.is_empty() {
        return Vec::new();
    }
    let ask = ControllerAsk::AlterPartitions {
        broker_id: context.node_id,
        broker_epoch: context.replication.broker_epoch(),
        reports: reports.clone(),
    };
    match context.membership.ask_controller(&ask, PATIENCE).await {
        Ok(ControllerTold::AlteredPartitions(told)) => {
            let all = asked.into_iter().zip(reports).zip(told);
            let traffic = &context.metrics.replication;
            let heard = all.filter_map(|((partition, report), told)| {
                count(traffic, &image, &report, told.is_ok());
                hear(partition, &report, told)
            });
            heard.collect()
        }
        Ok(_) => asked,
        Err(error) => {
            tracing::debug!(%error, "the controller does not know who is in sync yet");
            asked
        }
    }
}

/// Counts what the report came to, beside what the image had of the partition.
fn count(traffic: &ReplicationTraffic, image: &Image, report: &IsrReport, is_taken: bool) {
    let before = image.partition_by_id(report.topic_id, report.partition).map_or(0, |now| now.isr.len());
    match report.isr.len().cmp(&before) {
        _ if !is_taken => traffic.failed_isr_updates.inc(),
        Ordering::Less => traffic.isr_shrinks.inc(),
        Ordering::Greater => traffic.isr_expands.inc(),
        Ordering::Equal => {}
    }
}

/// Takes the controller's word; returns the partition if there is more to tell of it. What is in force, the metadata tell: in
/// their order, for a change of `min.insync.replicas` may come before.
fn hear(
    partition: Arc<Partition>,
    report: &IsrReport,
    told: Result<image::Partition, IsrError>,
) -> Option<Arc<Partition>> {
    match told {
        Ok(now) => {
            tracing::info!(partition = %partition.name, isr = ?now.isr, "who is in sync is another set");
            return None;
        }
        Err(IsrError::IneligibleReplica | IsrError::InvalidRequest) => {
            partition.report_refused(report.partition_epoch);
        }
        // The metadata will tell what has happened meanwhile.
        Err(
            IsrError::UnknownTopicId
            | IsrError::UnknownTopicOrPartition
            | IsrError::FencedLeaderEpoch
            | IsrError::NotController
            | IsrError::InvalidUpdateVersion,
        ) => {}
    }
    Some(partition)
}

/// Whether the controller would take the replica in: a broker that is not fenced, in the epoch in which it has fetched.
fn may_join(image: &Image, (id, broker_epoch): InSync) -> bool {
    image.broker(id).is_some_and(|broker| !broker.fenced && broker.epoch == broker_epoch)
}
