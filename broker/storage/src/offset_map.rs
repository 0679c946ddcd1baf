//! The newest offset of each key, in memory that is bounded from the start.
//!
//! A key is known by 128 bits of two keyed hashes whose keys are drawn anew for each pass, so nobody can make keys that
//! are taken for one another. Open addressing, 24 bytes an entry, at most nine tenths full.

use std::hash::{BuildHasher, RandomState};

/// Bytes of one slot.
const SLOT_BYTES: usize = 24;
const SLOTS_MIN: usize = 64;
/// No record has this offset.
const EMPTY: i64 = -1;

#[derive(Debug, Clone, Copy)]
struct Slot {
    hash: [u64; 2],
    offset: i64,
}

const EMPTY_SLOT: Slot = Slot { hash: [0; 2], offset: EMPTY };

/// See the module.
#[derive(Debug)]
pub(crate) struct OffsetMap {
    slots: Vec<Slot>,
    used: usize,
    slots_max: usize,
    hashers: [RandomState; 2],
}

impl OffsetMap {
    /// A map of at most `bytes_max`, or of a few keys if that is less.
    #[expect(
        clippy::disallowed_methods,
        reason = "as random as the hash maps, whose seeds a simulation owns"
    )]
    pub(crate) fn new(bytes_max: usize) -> Self {
        let slots_max = (bytes_max / SLOT_BYTES).max(SLOTS_MIN);
        Self {
            slots: vec![EMPTY_SLOT; SLOTS_MIN],
            used: 0,
            slots_max,
            hashers: [RandomState::new(), RandomState::new()],
        }
    }

    /// Notes that `key` was written at `offset`, which rises from call to call. False when a new key has no room.
    pub(crate) fn put(&mut self, key: &[u8], offset: i64) -> bool {
        let hash = self.hash(key);
        let at = find(&self.slots, hash);
        if let Some(slot) = self.slots.get_mut(at)
            && slot.offset != EMPTY
        {
            slot.offset = offset;
            return true;
        }
        if !self.make_room() {
            return false;
        }
        let at = find(&self.slots, hash);
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot { hash, offset };
            self.used += 1;
        }
        true
    }

    /// The newest offset of `key`, if it is known.
    pub(crate) fn get(&self, key: &[u8]) -> Option<i64> {
        let slot = self.slots.get(find(&self.slots, self.hash(key)))?;
        (slot.offset != EMPTY).then_some(slot.offset)
    }

    fn hash(&self, key: &[u8]) -> [u64; 2] {
        let [first, second] = &self.hashers;
        [first.hash_one(key), second.hash_one(key)]
    }

    fn make_room(&mut self) -> bool {
        if (self.used + 1) * 10 <= self.slots.len() * 9 {
            return true;
        }
        let larger = (self.slots.len() * 2).min(self.slots_max);
        if larger <= self.slots.len() {
            return false;
        }
        let old = std::mem::replace(&mut self.slots, vec![EMPTY_SLOT; larger]);
        for slot in old.into_iter().filter(|slot| slot.offset != EMPTY) {
            let at = find(&self.slots, slot.hash);
            if let Some(place) = self.slots.get_mut(at) {
                *place = slot;
            }
        }
        (self.used + 1) * 10 <= self.slots.len() * 9
    }
}

/// The slot of the hash, or the free one where it belongs. There is always a free one.
fn find(slots: &[Slot], hash: [u64; 2]) -> usize {
    let mut at = (hash[0] % slots.len().max(1) as u64) as usize;
    loop {
        match slots.get(at) {
            Some(slot) if slot.offset != EMPTY && slot.hash != hash => at = (at + 1) % slots.len().max(1),
            _ => return at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_the_newest_offset_and_refuses_keys_past_its_memory() {
        let mut map = OffsetMap::new(200 * SLOT_BYTES);
        let mut kept = 0;
        for key in 0..1_000i64 {
            if !map.put(&key.to_be_bytes(), key) {
                break;
            }
            kept = key + 1;
        }
        assert_eq!(kept, 180, "nine tenths of 200 slots");
        assert!(map.put(&7i64.to_be_bytes(), 5_000), "a known key always has room");
        assert_eq!(map.get(&7i64.to_be_bytes()), Some(5_000));
        assert_eq!(map.get(&8i64.to_be_bytes()), Some(8));
        assert_eq!(map.get(&180i64.to_be_bytes()), None);
    }
}
