//! Deletes what the store holds of deleted topics.
//!
//! The metadata remember which topics those are (`RemoteDelete`), from the deletion itself on until a listing has found
//! nothing of them a grace period later: an upload that was on its way when the topic went may land after the first
//! look. So a crash, or a store that is away, leaves no objects behind for ever, and no object ever goes because a
//! listing shows a topic that the metadata happen not to know.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use firn_metadata::decide::delete_topics::finish_remote_deletes;
use firn_model::ids::TopicId;
use firn_tiering::tier::Tier;
use tokio_util::sync::CancellationToken;

use super::{COLLECTIONS_PER_GRACE, Cold};
use crate::context::Context;

/// When a deleted topic's folder was first looked at, and when it is to be next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Visit {
    first_ms: i64,
    next_ms: i64,
}

/// Visits the folders of deleted topics again and again, until `shutdown`.
pub async fn run(context: Arc<Context>, period: Duration, shutdown: CancellationToken) {
    let Some(tier) = context.cold.tier.clone() else { return };
    let mut visits = HashMap::new();
    loop {
        tokio::select! {
            () = visit_all(&context, &tier, &mut visits) => {}
            () = shutdown.cancelled() => return,
        }
        tokio::select! {
            () = tokio::time::sleep(period) => {}
            () = context.cold.topics_deleted.notified() => {}
            () = shutdown.cancelled() => return,
        }
    }
}

async fn visit_all(context: &Context, tier: &Tier, visits: &mut HashMap<TopicId, Visit>) {
    let image = context.controller.image();
    visits.retain(|id, _| image.has_remote_delete(*id));
    let grace_ms = context.cold.garbage_grace_ms;
    let mut gone = Vec::new();
    for (id, name) in image.remote_deletes() {
        let now_ms = context.now_ms();
        let visit = visits.entry(id).or_insert(Visit { first_ms: now_ms, next_ms: now_ms });
        if now_ms < visit.next_ms {
            continue;
        }
        context.cold.forget(id);
        // The controller deletes what the others have copied.
        if !context.controller.progress().leads {
            continue;
        }
        match tier.delete_topic(&context.cluster_id, name, id).await {
            Ok(0) if now_ms.saturating_sub(visit.first_ms) >= grace_ms => gone.push(id),
            Ok(objects) => {
                visit.next_ms = now_ms.saturating_add(grace_ms / COLLECTIONS_PER_GRACE);
                if objects > 0 {
                    tracing::info!(topic = %name, %id, objects, "deleted the cold segments of a deleted topic");
                }
            }
            // A store that is away is asked again in the next round, and not for every topic.
            Err(error) => {
                tracing::warn!(topic = %name, %error, "objects of a deleted topic are still in the store; deleting them is tried again");
                break;
            }
        }
    }
    if gone.is_empty() {
        return;
    }
    let finished = context.controller.propose(|image| Ok(finish_remote_deletes(image, &gone))).await;
    if let Err(error) = finished {
        tracing::warn!(%error, "deleted topics are looked for in the store again");
    }
}

impl Cold {
    /// Topics were deleted: what the store has of them is looked for at once, and not only when it is time.
    pub fn topics_were_deleted(&self) {
        self.topics_deleted.notify_one();
    }

    fn forget(&self, topic: TopicId) {
        self.handles.lock().retain(|(id, _), _| *id != topic);
        self.collected.lock().retain(|(id, _), _| *id != topic);
        self.emptied.lock().retain(|(id, _)| *id != topic);
    }
}
