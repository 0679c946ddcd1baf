//! A model of the manifest-free tier, checked exhaustively within small bounds: two brokers, unclean elections,
//! deposed leaders that go on uploading and collecting, uploads that land late or twice. The rules are the crate's own
//! `select`; each of five rules is then broken on purpose, to show that the model would notice.
//!
//! A record is its leader epoch: offset and epoch decide a record, because an epoch has one leader.

#![allow(clippy::unwrap_used, reason = "the helpers of a test, outside of its functions")]

use std::collections::{BTreeMap, BTreeSet};

use firn_tier::lineage::{EpochStart, LeaderEpochs, Standing};
use firn_tier::names::ObjectName;
use firn_tier::select::{Facts, Selection, View, select};
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
}

/// An object: where it begins, and its records.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Object {
    base: usize,
    records: Vec<u8>,
}

impl Object {
    fn name(&self) -> ObjectName {
        ObjectName {
            base_offset: self.base as i64,
            last_offset: (self.base + self.records.len() - 1) as i64,
            leader_epoch: i32::from(*self.records.last().unwrap()),
            max_timestamp: -1,
            log_bytes: self.records.len() as u64,
        }
    }

    fn epochs(&self) -> LeaderEpochs {
        history(self.base, &self.records)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Default)]
struct Broker {
    /// The whole log as this broker knows it; what is below `local_start` is not on its disk.
    log: Vec<u8>,
    local_start: usize,
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
            .map(|object| (object.name(), Facts::Read { leader_epochs: object.epochs(), compacted_to: -1 }))
            .collect();
        let history = if self.rules == Rules::BelieveEveryBranch { LeaderEpochs::default() } else { history };
        select(&known, &View { start_offset: 0, end_offset: i64::MAX, leader_epochs: &history })
    }

    fn garbage(&self, broker: &Broker, bucket: &BTreeSet<Object>) -> BTreeSet<Object> {
        let judged = self.judge(broker, bucket);
        let history = broker.history();
        let condemned = |object: &&Object| {
            let name = object.name();
            let partial = matches!(history.standing(&name, Some(&object.epochs())), Standing::Until(_));
            judged.garbage.contains_key(&name)
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
            return leader.log.get(offset).copied();
        }
        let judged = self.judge(leader, &state.bucket);
        let link = judged.link_at(offset as i64).filter(|link| link.from <= offset as i64)?;
        let object = state.bucket.iter().find(|object| object.name() == link.name)?;
        object.records.get(offset - object.base).copied()
    }

    fn uploads(&self, state: &State, index: usize, actions: &mut Vec<Action>) {
        let broker = &state.brokers[index];
        let tiered = self.judge(broker, &state.bucket).served_until(0) as usize;
        for base in broker.local_start..=tiered.min(broker.log.len()) {
            for end in tiered.max(base) + 1..=broker.log.len() {
                actions.push(Action::Send(index, Object { base, records: broker.log[base..end].to_vec() }));
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
            true => self.judge(broker, &seen).served_until(broker.local_start as i64) as usize,
            false => broker.told,
        };
        broker.local_start = until.min(broker.log.len()).max(broker.local_start);
    }

    fn tell(&self, state: &mut State) {
        let leader = &state.brokers[state.leader];
        let until = self.judge(leader, &state.bucket).served_until(leader.local_start as i64) as usize;
        let until = until.min(leader.log.len());
        let follower = &mut state.brokers[1 - state.leader];
        // It has followed so far.
        if follower.leads_in == 0 && follower.log.len() >= until {
            follower.told = follower.told.max(until);
        }
    }

    fn follow(state: &mut State) {
        let leader = state.brokers[state.leader].clone();
        let follower = &mut state.brokers[1 - state.leader];
        let common = follower.log.iter().zip(&leader.log).take_while(|(a, b)| a == b).count();
        // Divergent below its own local log, it begins where the leader's does.
        if common < follower.local_start {
            follower.local_start = leader.local_start;
        }
        *follower = Broker {
            log: leader.log,
            local_start: follower.local_start,
            told: follower.told.min(common),
            leads_in: 0,
            condemned: BTreeSet::new(),
        };
    }

    fn elect(state: &mut State, index: usize) {
        state.epoch += 1;
        state.leader = index;
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
            if index != state.leader {
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
                // The true leader acknowledges; what a deposed one acknowledges was lost by the unclean election.
                if index == state.leader {
                    state.promised.resize(broker.log.len(), 0);
                    for offset in broker.local_start..broker.log.len() {
                        state.promised[offset] = broker.log[offset];
                    }
                }
            }
            Action::Follow => Self::follow(&mut state),
            Action::Tell => self.tell(&mut state),
            Action::Elect(index) => Self::elect(&mut state, index),
            Action::Send(_, object) => {
                state.in_flight.insert(object);
            }
            Action::Land(object, again) => {
                if !again {
                    state.in_flight.remove(&object);
                }
                state.bucket.insert(object);
            }
            Action::Settle(index) => {
                state.brokers[index].leads_in = 0;
                state.brokers[index].condemned.clear();
            }
            Action::DropLocal(index) => self.drop_local(&mut state, index),
            Action::Condemn(index) => {
                state.brokers[index].condemned = self.garbage(&state.brokers[index], &state.bucket);
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
                let kept = |(offset, promise): (usize, &u8)| {
                    *promise == 0 || model.served(state, offset) == Some(*promise)
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
        ]
    }
}

fn model(rules: Rules) -> Tier {
    Tier { rules, offsets: 2, epochs: 3, objects: 2 }
}

#[test]
fn acknowledged_records_stay_readable_and_true() {
    let checker = model(Rules::AsBuilt).checker().threads(2).spawn_bfs().join();
    println!("{} states, {} of them distinct", checker.state_count(), checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.unique_state_count() > 10_000);
}

#[test]
fn every_broken_rule_is_caught() {
    for (rules, property) in [
        (Rules::BelieveEveryBranch, "nothing else is served"),
        (Rules::WholeOrNothing, "what was acknowledged is served"),
        (Rules::CollectNewer, "what was acknowledged is served"),
        (Rules::DropBeforeListed, "what was acknowledged is served"),
        (Rules::DropUnsettled, "what was acknowledged is served"),
    ] {
        let checker =
            model(rules).checker().threads(2).finish_when(HasDiscoveries::AnyFailures).spawn_bfs().join();
        println!("{rules:?}: {} states", checker.unique_state_count());
        assert!(checker.discovery(property).is_some(), "{rules:?} was not noticed");
    }
}
