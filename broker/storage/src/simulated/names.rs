//! One simulated directory: its names now, its names on stable storage, and the changes in between.

use std::collections::BTreeMap;
use std::io;

use crate::simulated::PowerCut;
use crate::simulated::file::Choices;

#[derive(Debug, Clone)]
enum Change {
    Insert(String, u64),
    Remove(String),
    Rename { from: String, to: String, inode: u64 },
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct Names {
    current: BTreeMap<String, u64>,
    durable: BTreeMap<String, u64>,
    pending: Vec<Change>,
}

impl Names {
    pub(crate) fn get(&self, name: &str) -> Option<u64> {
        self.current.get(name).copied()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (&String, &u64)> {
        self.current.iter()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.current.is_empty()
    }

    pub(crate) fn insert(&mut self, name: &str, inode: u64) {
        self.change(Change::Insert(name.to_owned(), inode));
    }

    pub(crate) fn remove(&mut self, name: &str) -> io::Result<()> {
        self.get(name).ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    pub(crate) fn rename(&mut self, from: &str, to: &str) -> io::Result<()> {
        let inode = self.get(from).ok_or(io::ErrorKind::NotFound)?;
        self.change(Change::Rename { from: from.to_owned(), to: to.to_owned(), inode });
        Ok(())
    }

    fn change(&mut self, change: Change) {
        apply(&mut self.current, &change);
        self.pending.push(change);
    }

    pub(crate) fn sync(&mut self) {
        for change in std::mem::take(&mut self.pending) {
            apply(&mut self.durable, &change);
        }
    }

    /// The directory after a power cut. Changes of names are journalled by real file systems, in order; half of the
    /// seeds keep to that, the other half keep any of them.
    pub(crate) fn after(&self, cut: PowerCut, salt: u64) -> Names {
        let mut names = self.durable.clone();
        let mut keep = |wanted: &mut dyn FnMut(usize) -> bool| {
            for (index, change) in self.pending.iter().enumerate() {
                if wanted(index) {
                    apply(&mut names, change);
                }
            }
        };
        match cut {
            PowerCut::DropUnsynced => {}
            PowerCut::KeepAll | PowerCut::TornLastWrite { .. } => keep(&mut |_| true),
            PowerCut::Some { seed } => {
                let mut choices = Choices(seed ^ salt.wrapping_mul(0xd1b5_4a32_d192_ed03));
                if choices.below(2) == 0 {
                    let kept = choices.below(self.pending.len() + 1);
                    keep(&mut |index| index < kept);
                } else {
                    keep(&mut |_| choices.below(2) == 0);
                }
            }
        }
        Names { durable: names.clone(), current: names, pending: Vec::new() }
    }
}

fn apply(names: &mut BTreeMap<String, u64>, change: &Change) {
    match change {
        Change::Insert(name, inode) => {
            names.insert(name.clone(), *inode);
        }
        Change::Remove(name) => {
            names.remove(name);
        }
        Change::Rename { from, to, inode } => {
            names.remove(from);
            names.insert(to.clone(), *inode);
        }
    }
}
