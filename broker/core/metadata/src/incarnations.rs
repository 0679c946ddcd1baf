//! Which log directories are copies from before. Each start of a broker is another incarnation, of which its directories are
//! told before the controller is: so a directory that knows nothing of the one that has registered last was copied earlier. A broker
//! that runs for long leaves marks in them, and tells the controller of each afterwards: so one with fewer was copied before the last.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::image::Broker;
use crate::record::BrokerRecord;

/// The incarnations that a directory knows of, and how many marks each has left there.
pub type Incarnations = BTreeMap<Uuid, u64>;

/// What each directory of a broker knows, by the directory's id; every directory is named.
pub type Noted = BTreeMap<String, Incarnations>;

/// How a broker has registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    pub broker_epoch: i64,
    pub incarnation_id: Uuid,
    pub directory_ids: Vec<String>,
    /// These directories were told of it. A program from before they were told of any does not do so.
    pub noted: bool,
    /// How many marks this incarnation has left, at least.
    #[serde(default)]
    pub marks: u64,
}

/// A log directory that is not what it was when its broker registered last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaleDirectory {
    pub directory_id: String,
    /// What it knows nothing of.
    pub incarnation_id: Uuid,
}

impl Registered {
    /// The first of the directories that this incarnation had, and that knows nothing of it. One that comes back after the broker
    /// has registered without it is another matter: the controller has put what it vouched for aside.
    pub fn stale(&self, noted: &Noted) -> Option<StaleDirectory> {
        let directory_id = self.first(noted, |known| known.is_none())?;
        Some(StaleDirectory { directory_id, incarnation_id: self.incarnation_id })
    }

    /// The first of these directories that knows of this incarnation, and of fewer marks than it has left: a copy that was made meanwhile,
    /// or a disk that has lost what it had synced.
    pub fn behind(&self, noted: &Noted) -> Option<String> {
        self.first(noted, |known| known.is_some_and(|marks| *marks < self.marks))
    }

    /// The first of its directories of which that is so, by what it knows of this incarnation.
    fn first(&self, noted: &Noted, wanted: impl Fn(Option<&u64>) -> bool) -> Option<String> {
        let is_wanted = |(id, known): &(&String, &Incarnations)| {
            self.noted && self.directory_ids.contains(id) && wanted(known.get(&self.incarnation_id))
        };
        noted.iter().find(is_wanted).map(|(id, _)| id.clone())
    }

    /// Whichever of these was later. Who was away knows an old one, of which nobody may have a note any more.
    pub fn later(one: Option<Self>, other: Option<Self>) -> Option<Self> {
        [one, other]
            .into_iter()
            .flatten()
            .max_by_key(|registered| (registered.broker_epoch, registered.marks))
    }
}

impl From<&Broker> for Registered {
    fn from(broker: &Broker) -> Self {
        Self {
            broker_epoch: broker.epoch,
            incarnation_id: broker.incarnation_id,
            directory_ids: broker.directory_ids.clone(),
            noted: broker.noted,
            marks: broker.marks,
        }
    }
}

impl From<&BrokerRecord> for Registered {
    fn from(record: &BrokerRecord) -> Self {
        Self {
            broker_epoch: record.broker_epoch,
            incarnation_id: record.incarnation_id,
            directory_ids: record.directory_ids.clone(),
            noted: record.noted,
            marks: record.marks,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn registered(incarnation: u128, directories: &[&str], noted: bool) -> Registered {
        Registered {
            broker_epoch: 0,
            incarnation_id: Uuid::from_u128(incarnation),
            directory_ids: directories.iter().map(|id| (*id).to_owned()).collect(),
            noted,
            marks: 0,
        }
    }

    fn noted(directories: &[(&str, &[u128])]) -> Noted {
        let ids = |known: &[u128]| known.iter().map(|id| (Uuid::from_u128(*id), 0)).collect();
        directories.iter().map(|(id, known)| ((*id).to_owned(), ids(known))).collect()
    }

    #[test]
    fn a_directory_that_was_in_use_and_knows_nothing_of_it_is_stale() {
        for (last, noted, stale) in [
            (registered(2, &["a", "b"], true), noted(&[("a", &[1, 2]), ("b", &[1, 2])]), None),
            // More was begun than has registered.
            (registered(2, &["a"], true), noted(&[("a", &[1, 2, 3])]), None),
            (registered(2, &["a", "b"], true), noted(&[("a", &[1, 2]), ("b", &[1])]), Some("b")),
            // It was copied before it was ever told of any.
            (registered(2, &["a"], true), noted(&[("a", &[])]), Some("a")),
            // Another was put in the place of one, or added.
            (registered(2, &["a", "b"], true), noted(&[("a", &[2]), ("c", &[])]), None),
            (registered(2, &["a"], true), noted(&[("a", &[1, 2]), ("b", &[1])]), None),
            // The broker ran as an earlier release then, which tells them nothing.
            (registered(2, &["a"], false), noted(&[("a", &[1])]), None),
            (registered(2, &["a"], false), noted(&[("a", &[])]), None),
        ] {
            let found = last.stale(&noted).map(|stale| stale.directory_id);
            assert_eq!(found.as_deref(), stale, "{last:?} {noted:?}");
        }
    }

    #[test]
    fn a_directory_with_fewer_marks_than_were_left_is_behind() {
        let last = Registered { marks: 3, ..registered(2, &["a", "b"], true) };
        let on = |id: &str, marks: &[(u128, u64)]| {
            let known = marks.iter().map(|(id, marks)| (Uuid::from_u128(*id), *marks));
            (id.to_owned(), known.collect())
        };
        for (noted, behind) in [
            ([on("a", &[(1, 9), (2, 3)]), on("b", &[(2, 3)])], None),
            // The controller had not heard of the last one.
            ([on("a", &[(2, 4)]), on("b", &[(2, 4), (3, 0)])], None),
            ([on("a", &[(1, 9), (2, 3)]), on("b", &[(1, 9), (2, 2)])], Some("b")),
            // It has been started on since, in vain.
            ([on("a", &[(2, 0), (3, 0)]), on("b", &[(2, 3)])], Some("a")),
            // It is none of those that this incarnation had, or knows nothing of it at all: that is told elsewhere.
            ([on("a", &[(2, 3)]), on("c", &[(2, 2)])], None),
            ([on("a", &[(2, 3)]), on("b", &[(1, 9)])], None),
        ] {
            assert_eq!(last.behind(&Noted::from(noted)).as_deref(), behind);
        }
        let of_an_earlier_release = Registered { noted: false, ..last };
        assert_eq!(of_an_earlier_release.behind(&Noted::from([on("a", &[(2, 0)])])), None);
    }

    #[test]
    fn of_two_registrations_the_later_counts() {
        let [old, new] = [3, 4].map(|broker_epoch| Registered { broker_epoch, ..registered(1, &[], true) });
        assert_eq!(Registered::later(Some(new.clone()), Some(old)), Some(new.clone()));
        assert_eq!(Registered::later(None, Some(new.clone())), Some(new));
        assert_eq!(Registered::later(None, None), None);
    }
}
