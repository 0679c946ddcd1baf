//! Lag of every consumer group, idle ones included, without a side-car.

use std::collections::BTreeMap;
use std::sync::Arc;

use firn_coordinators::requests::Reply;
use firn_model::ids::TopicPartition;
use firn_telemetry::exposition::{Exposition, Kind, Labels};

use crate::api::group_offsets::committed;
use crate::context::Context;

/// What the coordinators know.
#[derive(Debug, Default)]
pub(super) struct Groups {
    members: Vec<(String, usize)>,
    committed: Vec<Committed>,
}

#[derive(Debug)]
struct Committed {
    group: String,
    partition: TopicPartition,
    offset: i64,
}

impl Groups {
    pub(super) async fn of(context: &Arc<Context>) -> Self {
        let mut groups = Self::default();
        for shard in context.groups.led() {
            let Ok(Reply::List(listed)) =
                context.groups.ask(shard, |group, _, token| group.list(&[], &[], token)).await
            else {
                continue;
            };
            let names: Vec<String> = listed.into_iter().map(|group| group.group_id).collect();
            if names.is_empty() {
                continue;
            }
            if let Ok(Reply::Describe(described)) =
                context.groups.ask(shard, |group, _, token| group.describe(&names, token)).await
            {
                let members = described.into_iter().map(|group| (group.group_id, group.members.len()));
                groups.members.extend(members);
            }
            for name in names {
                let Ok(found) = committed(context, &name, None).await else { continue };
                groups.committed.extend(found.into_iter().filter_map(|one| {
                    let partition = TopicPartition::new(one.topic, one.partition);
                    Some(Committed { group: name.clone(), partition, offset: one.committed?.offset })
                }));
            }
        }
        groups
    }

    pub(super) fn write(&self, context: &Context, out: &mut Exposition) {
        out.family("kafka_consumergroup_members", Kind::Gauge, "Members of a group");
        for (group, count) in &self.members {
            out.sample("kafka_consumergroup_members", &[("consumergroup", group)], *count as f64);
        }
        let mut offsets = Vec::with_capacity(self.committed.len());
        let mut lags = Vec::with_capacity(self.committed.len());
        let mut sums: BTreeMap<(&str, &str), (f64, f64)> = BTreeMap::new();
        for Committed { group, partition, offset } in &self.committed {
            let index = partition.partition.to_string();
            let labels = Labels::of(&[
                ("consumergroup", group.as_str()),
                ("topic", &partition.topic),
                ("partition", &index),
            ]);
            let sum = sums.entry((group, &partition.topic)).or_default();
            sum.0 += *offset as f64;
            let led = context.partitions.by_name(&partition.topic, partition.partition).ok();
            if let Some(end) = led.and_then(|led| led.offsets().ok()).map(|offsets| offsets.high_watermark) {
                let lag = (end - offset).max(0) as f64;
                sum.1 += lag;
                lags.push((labels.clone(), lag));
            }
            offsets.push((labels, *offset as f64));
        }
        let mut family = |name: &str, help: &str, samples: &mut dyn Iterator<Item = (Labels, f64)>| {
            out.family(name, Kind::Gauge, help);
            samples.for_each(|(labels, value)| out.labelled(name, &labels, value));
        };
        let by_topic = |group: &str, topic: &str| Labels::of(&[("consumergroup", group), ("topic", topic)]);
        family("kafka_consumergroup_current_offset", "Committed offset of a group", &mut offsets.into_iter());
        family("kafka_consumergroup_lag", "Records that a group has not read yet", &mut lags.into_iter());
        family(
            "kafka_consumergroup_current_offset_sum",
            "Committed offsets of a group, all partitions of a topic together",
            &mut sums.iter().map(|((group, topic), sum)| (by_topic(group, topic), sum.0)),
        );
        family(
            "kafka_consumergroup_lag_sum",
            "Records of a topic that a group has not read yet",
            &mut sums.iter().map(|((group, topic), sum)| (by_topic(group, topic), sum.1)),
        );
    }
}
