//! Offsets that nobody needs any more (KIP-211), and groups that are left with nothing.
use super::{GroupShard, Then};
use crate::group::Group;
use crate::records::{CommittedOffset, Key, OffsetsRecord, decode_key, group_key, offset_key};
use crate::requests::GroupState;
use std::collections::BTreeSet;

impl GroupShard {
    pub(super) fn expire_offsets(&mut self, now_ms: i64) {
        // A group with records on their way is looked at next time: its tombstones would follow them in the log.
        let busy: BTreeSet<String> = self
            .pending
            .values()
            .flat_map(|pending| &pending.records)
            .filter_map(|record| match decode_key(record.key.clone()) {
                Ok(Key::Offset { group, .. } | Key::Group { group }) => Some(group),
                _ => None,
            })
            .collect();
        let names: Vec<String> = self.groups.keys().filter(|name| !busy.contains(*name)).cloned().collect();
        for name in names {
            let records = self.expired(now_ms, &name);
            if !records.is_empty() {
                self.append(records, Then::Nothing);
            }
        }
    }

    fn expired(&self, now_ms: i64, name: &str) -> Vec<OffsetsRecord> {
        let Some(group) = self.groups.get(name) else { return Vec::new() };
        let subscribed = group.subscribed_topics();
        let offsets = self.offsets.get(name);
        let mut records = Vec::new();
        for ((topic, partition), offset) in offsets.into_iter().flatten() {
            let consumed =
                !group.members.is_empty() && subscribed.as_ref().is_none_or(|topics| topics.contains(topic));
            if !consumed && now_ms >= self.expires_at(group, offset) {
                records.push(OffsetsRecord { key: offset_key(name, topic, *partition), value: None });
            }
        }
        let nothing_left = records.len() == offsets.map_or(0, |offsets| offsets.len());
        let idle = group.state == GroupState::Empty && group.has_no_one();
        if nothing_left && idle && self.durable.contains_key(name) {
            records.push(OffsetsRecord { key: group_key(name), value: None });
        }
        records
    }

    fn expires_at(&self, group: &Group, offset: &CommittedOffset) -> i64 {
        if let Some(explicit) = offset.expire_timestamp_ms {
            return explicit;
        }
        let emptied = group.state == GroupState::Empty
            && group.protocol_type.is_some()
            && group.state_timestamp_ms >= 0;
        let base = offset.commit_timestamp_ms.max(if emptied { group.state_timestamp_ms } else { i64::MIN });
        base.saturating_add(self.config.offsets_retention_ms)
    }
}
