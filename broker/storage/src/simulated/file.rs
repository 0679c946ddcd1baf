//! One simulated file: its bytes now, its bytes on stable storage, and the changes in between.

use crate::simulated::{PowerCut, SECTOR_BYTES};

#[derive(Debug, Clone)]
enum Change {
    Write { offset: u64, bytes: Vec<u8> },
    SetLen(u64),
}

/// What is on stable storage. Logs are appended to, and a thousand brokers have a good many: so what is the same is there once.
#[derive(Debug, Clone)]
enum Durable {
    /// So many bytes from the beginning of what the file holds now, which is that with all that is pending.
    Prefix(usize),
    Other(Vec<u8>),
}

impl Default for Durable {
    fn default() -> Self {
        Durable::Prefix(0)
    }
}

/// See the module.
#[derive(Debug, Clone, Default)]
pub(crate) struct FileData {
    current: Vec<u8>,
    durable: Durable,
    pending: Vec<Change>,
    /// Bits that were flipped.
    flips: u64,
}

impl FileData {
    pub(crate) fn current(&self) -> &[u8] {
        &self.current
    }

    pub(crate) fn read(&self, buffer: &mut [u8], offset: u64) -> usize {
        let from = usize::try_from(offset).unwrap_or(usize::MAX);
        let there = self.current.get(from..).unwrap_or_default();
        let count = there.len().min(buffer.len());
        if let (Some(to), Some(bytes)) = (buffer.get_mut(..count), there.get(..count)) {
            to.copy_from_slice(bytes);
        }
        count
    }

    fn durable(&self) -> &[u8] {
        match &self.durable {
            Durable::Prefix(len) => self.current.get(..*len).unwrap_or_default(),
            Durable::Other(bytes) => bytes,
        }
    }

    /// Lets the two be kept apart, if what is there now changes from `offset` on.
    fn part(&mut self, offset: u64) {
        if matches!(self.durable, Durable::Prefix(len) if offset < len as u64) {
            self.durable = Durable::Other(self.durable().to_vec());
        }
    }

    pub(crate) fn write(&mut self, offset: u64, bytes: &[u8]) {
        self.part(offset);
        write(&mut self.current, offset, bytes);
        self.pending.push(Change::Write { offset, bytes: bytes.to_vec() });
    }

    pub(crate) fn set_len(&mut self, len: u64) {
        self.part(len);
        self.current.resize(usize::try_from(len).unwrap_or(usize::MAX), 0);
        self.pending.push(Change::SetLen(len));
    }

    pub(crate) fn sync(&mut self) {
        let pending = std::mem::take(&mut self.pending);
        if let Durable::Other(bytes) = &mut self.durable {
            pending.iter().for_each(|change| apply(bytes, change));
            if *bytes != self.current {
                return;
            }
        }
        self.durable = Durable::Prefix(self.current.len());
    }

    /// A failed sync: the changes are still seen, never written, and no later sync knows of them.
    pub(crate) fn lose_pending(&mut self) {
        self.durable = Durable::Other(self.durable().to_vec());
        self.pending.clear();
    }

    /// What is still to be written stays; all else is as the disk has it.
    pub(crate) fn drop_cache(&mut self) {
        self.current = self.applied(self.pending.len());
    }

    pub(crate) fn flip_bit(&mut self, byte: u64, bit: u8) -> bool {
        let at = usize::try_from(byte).unwrap_or(usize::MAX);
        let mut flipped = false;
        let mut durable = self.durable().to_vec();
        for bytes in [&mut self.current, &mut durable] {
            if let Some(byte) = bytes.get_mut(at) {
                *byte ^= 1 << (bit & 7);
                flipped = true;
            }
        }
        self.durable = Durable::Other(durable);
        self.flips += u64::from(flipped);
        flipped
    }

    pub(crate) fn flips(&self) -> u64 {
        self.flips
    }

    /// The file after a power cut. `salt` makes files of one seed differ.
    pub(crate) fn after(&self, cut: PowerCut, salt: u64) -> FileData {
        let bytes = match cut {
            PowerCut::DropUnsynced => self.durable().to_vec(),
            PowerCut::KeepAll if self.pending.is_empty() => self.durable().to_vec(),
            PowerCut::KeepAll => self.applied(self.pending.len()),
            PowerCut::TornLastWrite { seed } => self.torn(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            PowerCut::Some { seed } => self.some(seed ^ salt.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
        };
        let durable = Durable::Prefix(bytes.len());
        FileData { durable, current: bytes, pending: Vec::new(), flips: self.flips }
    }

    fn applied(&self, count: usize) -> Vec<u8> {
        let mut bytes = self.durable().to_vec();
        for change in self.pending.iter().take(count) {
            apply(&mut bytes, change);
        }
        bytes
    }

    fn torn(&self, seed: u64) -> Vec<u8> {
        let Some(last) = self.pending.iter().rposition(|change| matches!(change, Change::Write { .. }))
        else {
            return self.applied(self.pending.len());
        };
        let mut bytes = self.applied(last);
        if let Some(Change::Write { offset, bytes: written }) = self.pending.get(last) {
            let end = *offset as usize + written.len();
            let sectors = (end / SECTOR_BYTES).saturating_sub(*offset as usize / SECTOR_BYTES) + 1;
            let edge = (*offset as usize / SECTOR_BYTES + Choices(seed).below(sectors)) * SECTOR_BYTES;
            let kept = edge.saturating_sub(*offset as usize).min(written.len());
            write(&mut bytes, *offset, written.get(..kept).unwrap_or_default());
        }
        bytes
    }

    /// Each sector as of any moment since the last sync, and any length that the file had since.
    fn some(&self, seed: u64) -> Vec<u8> {
        if self.pending.is_empty() {
            return self.durable().to_vec();
        }
        let mut choices = Choices(seed);
        let versions: Vec<Vec<u8>> = (0..=self.pending.len()).map(|count| self.applied(count)).collect();
        let len = versions.get(choices.below(versions.len())).map_or(0, Vec::len);
        let mut bytes = vec![0; len];
        for (index, sector) in bytes.chunks_mut(SECTOR_BYTES).enumerate() {
            let Some(version) = versions.get(choices.below(versions.len())) else { continue };
            let from = index * SECTOR_BYTES;
            let there = version.get(from..(from + sector.len()).min(version.len())).unwrap_or_default();
            if let Some(to) = sector.get_mut(..there.len()) {
                to.copy_from_slice(there);
            }
        }
        bytes
    }
}

fn apply(bytes: &mut Vec<u8>, change: &Change) {
    match change {
        Change::Write { offset, bytes: written } => write(bytes, *offset, written),
        Change::SetLen(len) => bytes.resize(usize::try_from(*len).unwrap_or(usize::MAX), 0),
    }
}

fn write(bytes: &mut Vec<u8>, offset: u64, written: &[u8]) {
    let from = usize::try_from(offset).unwrap_or(usize::MAX);
    let end = from.saturating_add(written.len());
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    if let Some(to) = bytes.get_mut(from..end) {
        to.copy_from_slice(written);
    }
}

/// A small repeatable source of choices (splitmix64).
#[derive(Debug, Clone, Copy)]
pub(crate) struct Choices(pub(crate) u64);

impl Choices {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A number below `limit`, which is not zero.
    pub(crate) fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit.max(1) as u64) as usize
    }
}
