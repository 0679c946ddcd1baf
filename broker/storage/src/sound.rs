//! Which bytes of a log need no second look before they are sent.
//!
//! A consumer gets its records from the page cache, by a call that never shows them to this process: so their checksums are
//! looked at before (`check.rs`), which costs more than the sending. It is the disk that rots: what was appended or looked at
//! within the last minute, and lies in memory still, is sent as it is, unless somebody else has written to the file since. What
//! the kernel has dropped from memory meanwhile is looked at again; within a minute it hardly comes back unseen, for the kernel
//! reads no further than it is asked to.

use std::io;
use std::ops::Range;

use parking_lot::Mutex;

use crate::disk::{DiskFile, LastChange};

/// Stretches remembered of one segment in one half of the time: readers at so many places are spared the second look.
const STRETCHES_MAX: usize = 16;

/// Bytes of one file, rising and apart from each other.
#[derive(Debug, Default)]
struct Stretches(Vec<Range<u64>>);

impl Stretches {
    fn add(&mut self, new: Range<u64>) {
        let first = self.0.partition_point(|one| one.end < new.start);
        let after = self.0.partition_point(|one| one.start <= new.end);
        let touched = self.0.drain(first..after);
        let all = touched.fold(new, |all, one| all.start.min(one.start)..all.end.max(one.end));
        self.0.insert(first, all);
        if self.0.len() > STRETCHES_MAX {
            let shortest = self.0.iter().enumerate().min_by_key(|(_, one)| one.end - one.start);
            if let Some((shortest, _)) = shortest {
                self.0.remove(shortest);
            }
        }
    }

    /// How far they reach from `from` on without a gap.
    fn reach(&self, from: u64) -> u64 {
        let at = self.0.partition_point(|one| one.end <= from);
        self.0.get(at).filter(|one| one.start <= from).map_or(from, |one| one.end)
    }
}

/// What a file said of its last change, and how many writes of ours there had been by then.
pub(crate) type AsOf = (LastChange, u64);

#[derive(Debug, Default)]
struct OfSegment {
    base_offset: i64,
    young: Stretches,
    old: Stretches,
    /// Beginnings and ends of writes by this process.
    writes: u64,
    seen: Option<AsOf>,
}

impl OfSegment {
    /// Takes note of what the file says now of its last change, and forgets everything if that was not ours.
    fn saw(&mut self, changed: LastChange) -> AsOf {
        let is_ours = |(seen, writes): AsOf| seen == changed || writes != self.writes;
        if !self.seen.is_none_or(is_ours) {
            (self.young, self.old) = Default::default();
        }
        *self.seen.insert((changed, self.writes))
    }
}

/// See the module. One for all segments of a log; where segments are cut or exchanged, another takes its place.
#[derive(Debug, Default)]
pub(crate) struct Sound(Mutex<Vec<OfSegment>>);

impl Sound {
    /// This process is about to write to the segment.
    pub(crate) fn writing(&self, base_offset: i64) {
        self.with(base_offset, |known| known.writes += 1);
    }

    /// This process has written these bytes.
    pub(crate) fn wrote(&self, base_offset: i64, file: &dyn DiskFile, bytes: Range<u64>) {
        let changed = file.last_change().ok();
        self.with(base_offset, |known| {
            known.writes += 1;
            known.seen = changed.map(|changed| (changed, known.writes));
            known.young.add(bytes);
        });
    }

    /// Bytes of the file are about to be looked at.
    pub(crate) fn looking(&self, base_offset: i64, file: &dyn DiskFile) -> io::Result<AsOf> {
        let changed = file.last_change()?;
        Ok(self.with(base_offset, |known| known.saw(changed)))
    }

    /// These bytes were looked at, and are right, unless somebody else has written to the file since it was as it is said to have been.
    pub(crate) fn looked_at(&self, base_offset: i64, bytes: Range<u64>, as_of: AsOf) {
        self.with(base_offset, |known| {
            let seen = *known.seen.get_or_insert((as_of.0, known.writes));
            if seen.0 == as_of.0 || seen.1 != as_of.1 {
                known.young.add(bytes);
            }
        });
    }

    /// Up to where, from `from` on, what the file holds is known to be right.
    pub(crate) fn reach(&self, base_offset: i64, file: &dyn DiskFile, from: u64) -> io::Result<u64> {
        let changed = file.last_change()?;
        Ok(self.with(base_offset, |known| {
            known.saw(changed);
            let mut reach = from;
            loop {
                let further = known.young.reach(reach).max(known.old.reach(reach));
                if further == reach {
                    return reach;
                }
                reach = further;
            }
        }))
    }

    /// Something of a segment is not what it was: of nothing in it that is known from here on.
    pub(crate) fn forget(&self, base_offset: i64) {
        self.0.lock().retain(|known| known.base_offset != base_offset);
    }

    /// Forgets what is two calls old: called every half minute.
    pub(crate) fn age(&self) {
        self.0.lock().retain_mut(|known| {
            known.old = std::mem::take(&mut known.young);
            !known.old.0.is_empty()
        });
    }

    fn with<T>(&self, base_offset: i64, act: impl FnOnce(&mut OfSegment) -> T) -> T {
        let mut all = self.0.lock();
        if let Some(known) = all.iter_mut().find(|known| known.base_offset == base_offset) {
            return act(known);
        }
        let mut new = OfSegment { base_offset, ..OfSegment::default() };
        let done = act(&mut new);
        all.push(new);
        done
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::sync::Arc;

    use super::*;
    use crate::disk::{Disk, OpenMode, write_all_at};
    use crate::real_disk::RealDisk;

    #[test]
    fn stretches_that_touch_become_one_and_the_shortest_goes_when_there_are_too_many() {
        let mut stretches = Stretches::default();
        for new in [10..20, 40..50, 20..25, 35..41, 0..5] {
            stretches.add(new);
        }
        assert_eq!(stretches.0, [0..5, 10..25, 35..50]);
        assert_eq!([0, 5, 9, 10, 24, 25, 60].map(|from| stretches.reach(from)), [5, 5, 9, 25, 25, 25, 60]);
        for at in 0..STRETCHES_MAX as u64 {
            stretches.add(1_000 + 10 * at..1_002 + 10 * at);
        }
        assert_eq!(stretches.0.len(), STRETCHES_MAX);
        assert_eq!(stretches.reach(10), 25, "a long one stays");
    }

    #[test]
    fn what_was_appended_or_looked_at_is_known_for_a_while_and_until_somebody_else_writes() {
        let path = std::env::temp_dir().join(format!("firn-sound-{}", std::process::id()));
        let file: Arc<dyn DiskFile> = RealDisk.open(&path, OpenMode::CreateEmpty).unwrap();
        let sound = Sound::default();
        let append = |at: u64| {
            sound.writing(0);
            write_all_at(file.as_ref(), &[7; 100], at).unwrap();
            sound.wrote(0, file.as_ref(), at..at + 100);
        };
        let reach = |from| sound.reach(0, file.as_ref(), from).unwrap();
        append(0);
        append(100);
        assert_eq!([reach(0), reach(150), reach(200)], [200, 200, 200]);
        sound.age();
        append(200);
        assert_eq!(reach(0), 300, "the old and the young together");
        sound.age();
        assert_eq!(reach(0), 0, "the old is forgotten");
        assert_eq!(reach(200), 300);
        let looking = || sound.looking(0, file.as_ref()).unwrap();
        sound.looked_at(0, 0..200, looking());
        assert_eq!(reach(0), 300);
        let mut other = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        other.write_all(&[8]).unwrap();
        assert_eq!(reach(0), 0, "who knows what it has written");
        sound.forget(0);
        sound.looked_at(0, 0..200, looking());
        other.write_all(&[8]).unwrap();
        assert_eq!(reach(0), 0, "what was looked at by whoever asked for nothing before");
        let before = looking();
        other.write_all(&[8]).unwrap();
        reach(0);
        sound.looked_at(0, 0..200, before);
        assert_eq!(reach(0), 0, "what was written while it was looked at");
        append(300);
        assert_eq!(reach(300), 400);
        assert_eq!(sound.reach(9, file.as_ref(), 0).unwrap(), 0, "of another segment nothing is known");
        std::fs::remove_file(&path).unwrap();
    }
}
