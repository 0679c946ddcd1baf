//! Offsets that nobody needs any more (KIP-211), and groups that are left with nothing.
//!
//! Each group has a timer, set no later than its earliest offset may expire, so that a group costs nothing until then. It
//! is looked at no more often than `offsets.retention.check.interval.ms`. Offsets that members consume have no deadline:
//! the group is looked at again when its next generation is stable, or when it is empty.
use super::{GroupShard, Then};
use crate::group::Group;
use crate::records::{CommittedOffset, OffsetsRecord, group_key, offset_key};
use crate::requests::GroupState;
use crate::timers::Timer;

impl GroupShard {
    /// Looks at the group by `deadline`, or as soon afterwards as the interval allows.
    pub(super) fn expire_within(&mut self, now_ms: i64, name: &str, deadline: i64) {
        let earliest = now_ms.saturating_add(self.config.offsets_retention_check_interval_ms.max(1));
        self.timers.advance(Timer::Expiration { group: name.to_owned() }, deadline.max(earliest));
    }

    pub(super) fn schedule_expiration(&mut self, now_ms: i64, name: &str) {
        let next = self.groups.get(name).and_then(|group| self.next_expiration(name, group));
        if let Some(deadline) = next {
            self.expire_within(now_ms, name, deadline);
        }
    }

    pub(super) fn expire_offsets(&mut self, now_ms: i64, name: &str) {
        if self.in_flight.contains_key(name) {
            // Tombstones would follow the records on their way in the log, and undo them. A group may come of them yet.
            self.expire_within(now_ms, name, i64::MIN);
            return;
        }
        let Some(group) = self.groups.get(name) else { return };
        let records = self.expired(now_ms, name, group);
        if records.is_empty() {
            self.schedule_expiration(now_ms, name);
        } else {
            self.append(vec![name.to_owned()], records, Then::Nothing);
            self.expire_within(now_ms, name, i64::MIN);
        }
    }

    fn expired(&self, now_ms: i64, name: &str, group: &Group) -> Vec<OffsetsRecord> {
        let mut records: Vec<_> = self
            .expirable(name, group)
            .filter(|(_, offset)| now_ms >= self.expires_at(group, offset))
            .map(|((topic, partition), _)| OffsetsRecord {
                key: offset_key(name, topic, *partition),
                value: None,
            })
            .collect();
        let nothing_left = records.len() == self.offsets.get(name).map_or(0, |offsets| offsets.len());
        let idle = group.state == GroupState::Empty && group.has_no_one();
        if nothing_left && idle && self.durable.contains_key(name) {
            records.push(OffsetsRecord { key: group_key(name), value: None });
        }
        records
    }

    pub(super) fn next_expiration(&self, name: &str, group: &Group) -> Option<i64> {
        if !self.offsets.contains_key(name) {
            return (group.state == GroupState::Empty).then_some(i64::MIN);
        }
        self.expirable(name, group).map(|(_, offset)| self.expires_at(group, offset)).min()
    }

    /// Offsets that expire once they are old enough. While members join or sync none does, and none that they consume.
    fn expirable<'a>(
        &'a self,
        name: &str,
        group: &Group,
    ) -> impl Iterator<Item = (&'a (String, i32), &'a CommittedOffset)> {
        let settled = match group.state {
            GroupState::Empty => true,
            GroupState::Stable => !group.members.is_empty(),
            _ => false,
        };
        let subscribed = group.subscribed_topics();
        let has_members = !group.members.is_empty();
        self.offsets.get(name).filter(|_| settled).into_iter().flatten().filter(move |((topic, _), _)| {
            // Where the subscription cannot be read, any topic may be consumed.
            !(has_members && subscribed.as_ref().is_none_or(|topics| topics.contains(topic)))
        })
    }

    fn expires_at(&self, group: &Group, offset: &CommittedOffset) -> i64 {
        if let Some(explicit) = offset.expire_timestamp_ms {
            return explicit;
        }
        let emptied = group.state == GroupState::Empty
            && group.protocol_type.is_some()
            && group.state_timestamp_ms >= 0;
        // A group that had members ages as a whole, and a commit while it is empty does not make it younger. An old
        // record does not say since when it is empty.
        let base = if emptied { group.state_timestamp_ms } else { offset.commit_timestamp_ms };
        base.saturating_add(self.config.offsets_retention_ms)
    }
}
