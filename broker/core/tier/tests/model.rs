//! A model of the manifest-free tier, checked exhaustively within small bounds: two brokers, unclean elections,
//! deposed leaders that go on uploading, compacting and collecting, uploads that land late or twice. The rules are the
//! crate's own `select`; each of ten rules is then broken on purpose, to show that the model would notice.
//!
//! A record is its leader epoch: offset and epoch decide a record, because an epoch has one leader. Where the log is
//! compacted all records have one key: each supersedes those before it.

#![allow(clippy::unwrap_used, reason = "the helpers of a test, outside of its functions")]

use std::collections::{BTreeMap, BTreeSet};

use firn_tier::lineage::{Compaction, EpochStart, Keys, LeaderEpochs, Standing};
use firn_tier::names::ObjectName;
use firn_tier::select::{Facts, Selection, View, needed_after, select};
use stateright::{Checker, HasDiscoveries, Model, Property};

/// What the brokers of the model obey.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rules {
    AsBuilt,
    /// Broken: objects of lost branches are believed.
    BelieveEveryBranch,
    /// Broken: an object that is true only in part is garbage, as if wholly of the lost branch.
    WholeOrNothing,
    /// Broken: no grace, so that a deposed leader condemns and deletes, and even what is of later epochs.
    CollectNewer,
    /// Broken: the local log is dropped when the upload has been sent, not when it has been listed.
    DropBeforeListed,
    /// Broken: a new leader drops its local log while its predecessor may still be deleting.
    DropUnsettled,
    /// Broken: whatever was compacted further serves, by whose records ever.
    BelieveEveryCleaner,
    /// Broken: what serves nothing in the leader's history is garbage, whatever its follower would need.
    CollectForTheLeaderAlone,
    /// Broken: a leader drops its local log though the objects lack what it has.
    DropForLostKeys,
    /// Broken: a follower drops its local log though it lacks records by which the objects are compacted.
    DropBehindTheCleaner,
    /// Broken: a log that was compacted by records that it loses keeps what is left.
    KeepWhatLostKeysLeft,
}

impl Rules {
    /// Whether it takes compaction to see it broken.
    fn needs_compaction(self) -> bool {
        matches!(
            self,
            Rules::BelieveEveryCleaner
                | Rules::CollectForTheLeaderAlone
                | Rules::DropForLostKeys
                | Rules::DropBehindTheCleaner
                | Rules::KeepWhatLostKeysLeft
        )
    }
}

/// An object: where it begins, the records that were written there, and which of them are in it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Object {
    base: usize,
    records: Vec<u8>,
    kept: Vec<bool>,
    compaction: Compaction,
}

impl Object {
    fn name(&self) -> ObjectName {
        ObjectName {
            base_offset: self.base as i64,
            last_offset: (self.base + self.records.len() - 1) as i64,
            leader_epoch: i32::from(*self.records.last().unwrap()),
            max_timestamp: -1,
            log_bytes: self.kept.iter().filter(|kept| **kept).count() as u64,
        }
    }

    fn epochs(&self) -> LeaderEpochs {
        history(self.base, &self.records)
    }

    fn facts(&self) -> Facts {
        Facts::Read { leader_epochs: self.epochs(), compaction: self.compaction }
    }

    fn end(&self) -> usize {
        self.base + self.records.len()
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Broker {
    /// The whole log as this broker knows it; what is below `local_start` is not on its disk.
    log: Vec<u8>,
    local_start: usize,
    /// What compaction has left of the log on its disk; all below `local_start`.
    kept: Vec<bool>,
    /// Up to where it has compacted.
    cleaned: usize,
    /// Where the tier ends, by a leader whose predecessors had settled. Up to there followers drop what they have.
    told: usize,
    /// The epoch in which it believes to lead, 0 if it does not. A deposed leader may believe for long.
    leads_in: u8,
    /// Garbage by an earlier listing: it may be deleted at any time from then on, whatever has happened since.
    condemned: BTreeSet<Object>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    brokers: [Broker; 2],
    leader: usize,
    epoch: u8,
    /// The acknowledged record at each offset; 0 where an unclean election has broken the promise.
    promised: Vec<u8>,
    bucket: BTreeSet<Object>,
    /// The follower has fetched in this epoch: the leader knows where it is.
    followed: bool,
    /// PUTs on their way: each may land whenever it likes, and again after that.
    in_flight: BTreeSet<Object>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Append(usize),
    Follow,
    Elect(usize),
    Send(usize, Object),
    Land(Object, bool),
    DropLocal(usize),
    /// A leader compacts what is on its disk by all records that it has.
    Clean(usize),
    /// The leader tells its follower where the tier ends.
    Tell,
    /// A deposed leader learns that it is one; its requests have ended. Grace is longer than this takes.
    Settle(usize),
    Condemn(usize),
    Delete(usize, Object),
}

#[derive(Clone, Copy, Debug)]
struct Tier {
    rules: Rules,
    offsets: usize,
    epochs: u8,
    objects: usize,
    compacts: bool,
}

fn history(base: usize, records: &[u8]) -> LeaderEpochs {
    let starts = records
        .iter()
        .enumerate()
        .map(|(index, &epoch)| EpochStart { epoch: i32::from(epoch), start_offset: (base + index) as i64 });
    let mut entries: Vec<EpochStart> = starts.collect();
    entries.dedup_by_key(|entry| entry.epoch);
    LeaderEpochs::new(entries).unwrap()
}

impl Broker {
    /// The leader-epoch-checkpoint: a leader notes its own epoch when it begins.
    fn history(&self) -> LeaderEpochs {
        let mut entries = history(0, &self.log).entries().to_vec();
        if entries.last().is_none_or(|last| last.epoch < i32::from(self.leads_in)) {
            entries.push(EpochStart { epoch: i32::from(self.leads_in), start_offset: self.log.len() as i64 });
        }
        LeaderEpochs::from_checkpoint(entries)
    }

    /// An object of its disk's `[base, end)`.
    fn object(&self, base: usize, end: usize) -> Object {
        let is_clean = base < self.cleaned;
        Object {
            base,
            records: self.log[base..end].to_vec(),
            kept: self.kept[base..end].to_vec(),
            compaction: if is_clean {
                self.history().compaction(self.cleaned as i64)
            } else {
                Compaction::NONE
            },
        }
    }
}

impl Tier {
    fn judge(&self, broker: &Broker, objects: &BTreeSet<Object>) -> Selection {
        let history = broker.history();
        let known: BTreeMap<ObjectName, Facts> = objects
            .iter()
            .filter(|object| {
                let standing = history.standing(&object.name(), Some(&object.epochs()));
                self.rules != Rules::WholeOrNothing || !matches!(standing, Standing::Until(_))
            })
            .map(|object| (object.name(), self.known(object)))
            .collect();
        let history = if self.rules == Rules::BelieveEveryBranch { LeaderEpochs::default() } else { history };
        select(&known, &view(&history))
    }

    fn known(&self, object: &Object) -> Facts {
        match object.facts() {
            Facts::Read { leader_epochs, compaction } if self.rules == Rules::BelieveEveryCleaner => {
                Facts::Read { leader_epochs, compaction: Compaction { epoch: None, ..compaction } }
            }
            facts => facts,
        }
    }

    /// Up to where `broker` may drop what it has from `from` on: the objects that serve there have all that it has, and are as clean.
    fn safe_until(&self, broker: &Broker, objects: &BTreeSet<Object>, from: usize) -> usize {
        let history = broker.history();
        let mut end = from as i64;
        for link in self.judge(broker, objects).chain.iter().filter(|link| link.to > from as i64) {
            let object = objects.iter().find(|object| object.name() == link.name).unwrap();
            let is_ours =
                history.keys(&object.compaction) == Keys::Ours || self.rules == Rules::DropForLostKeys;
            let is_clean =
                link.from >= broker.cleaned as i64 || object.compaction.to >= broker.cleaned as i64;
            if link.from > end || !is_ours || !is_clean {
                break;
            }
            end = link.to;
        }
        (end as usize).min(broker.log.len()).max(from)
    }

    /// What of the bucket the leader's follower would choose if it led.
    fn needed(&self, state: &State, leader: &Broker) -> BTreeSet<ObjectName> {
        if self.rules == Rules::CollectForTheLeaderAlone {
            return BTreeSet::new();
        }
        let known = state.bucket.iter().map(|object| (object.name(), self.known(object))).collect();
        let history = leader.history();
        let began = history.entries().iter().find(|entry| entry.epoch == i32::from(leader.leads_in)).unwrap();
        let end = state.brokers[1 - state.leader].log.len() as i64;
        let parts_at = if state.followed { end..=end } else { 0..=began.start_offset };
        needed_after(&parts_at, &known, &view(&history))
    }

    fn garbage(&self, state: &State, index: usize) -> BTreeSet<Object> {
        let (broker, bucket) = (&state.brokers[index], &state.bucket);
        let judged = self.judge(broker, bucket);
        let needed = if index == state.leader { self.needed(state, broker) } else { BTreeSet::new() };
        let history = broker.history();
        let condemned = |object: &&Object| {
            let name = object.name();
            let partial = matches!(history.standing(&name, Some(&object.epochs())), Standing::Until(_));
            judged.garbage.contains_key(&name) && !needed.contains(&name)
                || self.rules == Rules::WholeOrNothing && partial
                || self.rules == Rules::CollectNewer && judged.newer.contains(&name)
        };
        if !judged.newer.is_empty() && self.rules != Rules::CollectNewer {
            return BTreeSet::new();
        }
        bucket.iter().filter(condemned).cloned().collect()
    }

    /// What the leader serves at `offset`, from its disk or from the bucket.
    fn served(&self, state: &State, offset: usize) -> Option<u8> {
        let leader = &state.brokers[state.leader];
        if offset >= leader.local_start {
            return leader.log.get(offset).copied().filter(|_| leader.kept[offset]);
        }
        let judged = self.judge(leader, &state.bucket);
        let link = judged.link_at(offset as i64).filter(|link| link.from <= offset as i64)?;
        let object = state.bucket.iter().find(|object| object.name() == link.name)?;
        object.records.get(offset - object.base).copied().filter(|_| object.kept[offset - object.base])
    }

    fn uploads(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let broker = &state.brokers[index];
        let tiered = self.judge(broker, &state.bucket).served_until(0) as usize;
        for base in broker.local_start..=tiered.min(broker.log.len()) {
            for end in tiered.max(base) + 1..=broker.log.len() {
                // Of a log that is compacted only what is clean.
                if !self.compacts || end <= broker.cleaned {
                    actions.push(Action::Send(index, broker.object(base, end)));
                }
            }
        }
    }

    /// What a pass makes of the cold objects: each holds what is left of one by all records of the log.
    fn rewrites(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let broker = &state.brokers[index];
        let compaction = broker.history().compaction(broker.log.len() as i64);
        for link in self.judge(broker, &state.bucket).chain {
            let object = state.bucket.iter().find(|object| object.name() == link.name).unwrap();
            if link.from >= broker.local_start as i64 || object.end() > broker.log.len() {
                continue;
            }
            let mut cleaned = Object { compaction, ..object.clone() };
            clean(&mut cleaned.kept, object.base, broker.log.len());
            if cleaned.kept != object.kept {
                actions.push(Action::Send(index, cleaned));
            }
        }
    }

    fn drop_local(&self, state: &mut State, index: usize) {
        let mut seen = state.bucket.clone();
        if self.rules == Rules::DropBeforeListed {
            seen.extend(state.in_flight.iter().cloned());
        }
        let leads = index == state.leader;
        let broker = &mut state.brokers[index];
        let until = match leads {
            true => self.safe_until(broker, &seen, broker.local_start),
            false => broker.told,
        };
        broker.local_start = until.min(broker.log.len()).max(broker.local_start);
        broker.kept[..broker.local_start].fill(true);
    }

    fn tell(&self, state: &mut State) {
        let leader = &state.brokers[state.leader];
        let until = self.safe_until(leader, &state.bucket, leader.local_start);
        let cleaned = leader.cleaned;
        let follower = &mut state.brokers[1 - state.leader];
        // It has followed so far.
        let has_keys = follower.log.len() >= cleaned || self.rules == Rules::DropBehindTheCleaner;
        if follower.leads_in == 0 && follower.log.len() >= until && follower.cleaned <= cleaned && has_keys {
            follower.told = follower.told.max(until);
        }
    }

    /// Nothing is replaced.
    fn land(state: &mut State, object: Object) {
        if state.bucket.iter().all(|there| there.name() != object.name()) {
            state.bucket.insert(object);
        }
    }

    fn follow(&self, state: &mut State) {
        let leader = state.brokers[state.leader].clone();
        let follower = &mut state.brokers[1 - state.leader];
        let common = follower.log.iter().zip(&leader.log).take_while(|(a, b)| a == b).count();
        // Divergent below its own local log, or behind the leader's, it begins where the leader's does.
        let is_left_by_lost_keys = common < follower.cleaned && self.rules != Rules::KeepWhatLostKeysLeft;
        let mut from = common;
        if common < follower.local_start.max(leader.local_start) || is_left_by_lost_keys {
            follower.local_start = leader.local_start;
            from = 0;
        }
        follower.kept.truncate(from);
        follower.kept.extend_from_slice(&leader.kept[from..]);
        follower.kept[..follower.local_start].fill(true);
        *follower = Broker {
            log: leader.log,
            local_start: follower.local_start,
            kept: std::mem::take(&mut follower.kept),
            cleaned: follower.cleaned.min(from),
            told: follower.told.min(common),
            leads_in: 0,
            condemned: BTreeSet::new(),
        };
        state.followed = true;
    }

    fn elect(state: &mut State, index: usize) {
        state.epoch += 1;
        state.leader = index;
        state.followed = false;
        let broker = &mut state.brokers[index];
        broker.leads_in = state.epoch;
        broker.condemned.clear();
        // An unclean election breaks the promises that the new leader's log does not keep. Any election may be unclean.
        state.promised.truncate(broker.log.len());
        for (promise, record) in state.promised.iter_mut().zip(&broker.log) {
            if promise != record {
                *promise = 0;
            }
        }
    }
}

fn view(leader_epochs: &LeaderEpochs) -> View<'_> {
    View { start_offset: 0, end_offset: i64::MAX, leader_epochs, keys_end: i64::MAX }
}

/// Takes away what the records below `to` supersede; `kept` begins at `base`.
fn clean(kept: &mut [bool], base: usize, to: usize) {
    for (index, kept) in kept.iter_mut().enumerate() {
        *kept &= base + index + 1 >= to;
    }
}

impl Model for Tier {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let leader = Broker { leads_in: 1, ..Broker::default() };
        vec![State {
            brokers: [leader, Broker::default()],
            leader: 0,
            epoch: 1,
            promised: Vec::new(),
            bucket: BTreeSet::new(),
            followed: false,
            in_flight: BTreeSet::new(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        actions.push(Action::Follow);
        for (index, broker) in state.brokers.iter().enumerate() {
            if state.epoch < self.epochs {
                actions.push(Action::Elect(index));
            }
            let settled = state.brokers[1 - state.leader].leads_in == 0;
            if index != state.leader || settled || self.rules == Rules::DropUnsettled {
                actions.push(Action::DropLocal(index));
            }
            if settled || self.rules == Rules::DropUnsettled {
                actions.push(Action::Tell);
            }
            // Or it learns of it when it follows: where logs are compacted, so always.
            if index != state.leader && !self.compacts {
                actions.push(Action::Settle(index));
            }
            if broker.leads_in == 0 {
                continue;
            }
            if broker.log.len() < self.offsets {
                actions.push(Action::Append(index));
            }
            if state.in_flight.len() + state.bucket.len() < self.objects {
                self.uploads(state, index, actions);
                if self.compacts {
                    self.rewrites(state, index, actions);
                }
            }
            if self.compacts && broker.cleaned < broker.log.len() {
                actions.push(Action::Clean(index));
            }
            // What a deposed leader condemns it does not lead long enough to delete: that is what grace is for.
            if index == state.leader || self.rules == Rules::CollectNewer {
                actions.push(Action::Condemn(index));
            }
            let condemned = broker.condemned.iter().filter(|object| state.bucket.contains(object));
            actions.extend(condemned.map(|object| Action::Delete(index, object.clone())));
        }
        for object in &state.in_flight {
            actions.extend([false, true].map(|again| Action::Land(object.clone(), again)));
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Append(index) => {
                let broker = &mut state.brokers[index];
                broker.log.push(broker.leads_in);
                broker.kept.push(true);
                // The true leader acknowledges; what a deposed one acknowledges was lost by the unclean election.
                if index == state.leader {
                    state.promised.resize(broker.log.len(), 0);
                    for offset in broker.local_start..broker.log.len() {
                        state.promised[offset] = broker.log[offset];
                    }
                }
            }
            Action::Follow => self.follow(&mut state),
            Action::Tell => self.tell(&mut state),
            Action::Elect(index) => Self::elect(&mut state, index),
            // Where logs are compacted there are many objects: what is on its way for long the other model looks at.
            Action::Send(_, object) if self.compacts => Self::land(&mut state, object),
            Action::Send(_, object) => {
                state.in_flight.insert(object);
            }
            Action::Land(object, again) => {
                if !again {
                    state.in_flight.remove(&object);
                }
                Self::land(&mut state, object);
            }
            Action::Clean(index) => {
                let broker = &mut state.brokers[index];
                broker.cleaned = broker.log.len();
                let from = broker.local_start;
                clean(&mut broker.kept[from..], from, broker.cleaned);
            }
            Action::Settle(index) => {
                state.brokers[index].leads_in = 0;
                state.brokers[index].condemned.clear();
            }
            Action::DropLocal(index) => self.drop_local(&mut state, index),
            Action::Condemn(index) => {
                state.brokers[index].condemned = self.garbage(&state, index);
            }
            Action::Delete(index, object) => {
                state.bucket.remove(&object);
                state.brokers[index].condemned.remove(&object);
            }
        }
        (state != *last).then_some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("what was acknowledged is served", |model: &Tier, state: &State| {
                let leader = &state.brokers[state.leader];
                let kept = |(offset, promise): (usize, &u8)| {
                    let is_superseded = model.compacts && offset + 1 < leader.log.len();
                    *promise == 0 || is_superseded || model.served(state, offset) == Some(*promise)
                };
                state.promised.iter().enumerate().all(kept)
            }),
            Property::always("nothing else is served", |model: &Tier, state: &State| {
                let leader = &state.brokers[state.leader];
                let right = |offset: usize| {
                    model.served(state, offset).is_none_or(|record| record == leader.log[offset])
                };
                (0..leader.log.len()).all(right)
            }),
            Property::sometimes("a record is served from the bucket alone", |model: &Tier, state: &State| {
                let leader = &state.brokers[state.leader];
                leader.local_start > 0 && model.served(state, 0) == leader.log.first().copied()
            }),
            Property::sometimes("a lost branch has an object", |_: &Tier, state: &State| {
                let history = state.brokers[state.leader].history();
                state.bucket.iter().any(|object| {
                    let standing = history.standing(&object.name(), Some(&object.epochs()));
                    matches!(standing, Standing::Until(_) | Standing::Lost)
                })
            }),
            Property::sometimes("there is garbage", |_: &Tier, state: &State| {
                state.brokers.iter().any(|broker| !broker.condemned.is_empty())
            }),
            Property::sometimes("an object was compacted by lost records", |model: &Tier, state: &State| {
                let history = state.brokers[state.leader].history();
                let is_so = |object: &Object| history.keys(&object.compaction) == Keys::Lost;
                !model.compacts || state.bucket.iter().any(is_so)
            }),
        ]
    }
}

fn model(rules: Rules, compacts: bool) -> Tier {
    Tier { rules, offsets: 2, epochs: 3, objects: 2, compacts }
}

#[test]
fn acknowledged_records_stay_readable_and_true() {
    for compacts in [false, true] {
        let checker = model(Rules::AsBuilt, compacts).checker().threads(2).spawn_bfs().join();
        println!("{} states, {} of them distinct", checker.state_count(), checker.unique_state_count());
        checker.assert_properties();
        assert!(checker.unique_state_count() > 10_000);
    }
}

#[test]
fn every_broken_rule_is_caught() {
    for (rules, property) in [
        (Rules::BelieveEveryBranch, "nothing else is served"),
        (Rules::WholeOrNothing, "what was acknowledged is served"),
        (Rules::CollectNewer, "what was acknowledged is served"),
        (Rules::DropBeforeListed, "what was acknowledged is served"),
        (Rules::DropUnsettled, "what was acknowledged is served"),
        (Rules::BelieveEveryCleaner, "what was acknowledged is served"),
        (Rules::CollectForTheLeaderAlone, "what was acknowledged is served"),
        (Rules::DropForLostKeys, "what was acknowledged is served"),
        (Rules::DropBehindTheCleaner, "what was acknowledged is served"),
        (Rules::KeepWhatLostKeysLeft, "what was acknowledged is served"),
    ] {
        let model = model(rules, rules.needs_compaction());
        let checker = model.checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        println!("{rules:?}: {} states", checker.unique_state_count());
        assert!(checker.discovery(property).is_some(), "{rules:?} was not noticed");
    }
}
