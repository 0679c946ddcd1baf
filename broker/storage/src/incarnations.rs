//! Which incarnations of its broker a log directory has served, and how many marks each has left in it: a copy that was made before
//! knows nothing of that, and so can be told from the directory that went on.

use std::path::Path;
use std::str::FromStr;

use uuid::Uuid;

use crate::checkpoint::{self, DirSync};
use crate::checksum;
use crate::error::StorageError;
use crate::file_names::INCARNATIONS;
use crate::log_dir::LogDir;
use crate::open_files::read_file;

const VERSION: &str = "0";
/// Begins the last line, which has the checksum of those before.
const CHECKSUM: &str = "crc32c ";
/// So many are kept: of the last ones some may have ended before they had registered.
const KEPT: usize = 100;

impl LogDir {
    /// Those that were noted, the oldest first, each with its marks; none where nobody ever noted any.
    pub fn incarnations(&self) -> Result<Vec<(Uuid, u64)>, StorageError> {
        let path = self.path().join(INCARNATIONS);
        let Some(bytes) = read_file(self.directory.disk.as_ref(), &path)? else { return Ok(Vec::new()) };
        parse(&bytes).map_err(|reason| damaged(&path, &reason))
    }

    /// Notes another one, durably, before anybody else hears of it.
    pub fn note_incarnation(&self, incarnation: Uuid) -> Result<(), StorageError> {
        let mut noted = self.incarnations()?;
        noted.push((incarnation, 0));
        self.replace(&noted)
    }

    /// Notes, as durably, that the last incarnation has left so many marks.
    pub fn note_marks(&self, marks: u64) -> Result<(), StorageError> {
        let mut noted = self.incarnations()?;
        if let Some((_, known)) = noted.last_mut() {
            *known = marks;
        }
        self.replace(&noted)
    }

    fn replace(&self, noted: &[(Uuid, u64)]) -> Result<(), StorageError> {
        let bytes = encode(noted.get(noted.len().saturating_sub(KEPT)..).unwrap_or_default());
        checkpoint::replace(self.directory.disk.as_ref(), self.path(), INCARNATIONS, &bytes, DirSync::Now)
    }
}

/// Whoever guessed that nothing was noted would call a good directory a copy.
fn damaged(path: &Path, reason: &str) -> StorageError {
    let what_to_do = "remove the file: if the directory is then taken for a copy of an earlier one and is none, what says so tells what to write here";
    StorageError::corrupt(path, format!("{reason}; {what_to_do}"))
}

fn encode(incarnations: &[(Uuid, u64)]) -> Vec<u8> {
    let line = |(one, marks): &(Uuid, u64)| match marks {
        0 => format!("{one}\n"),
        marks => format!("{one} {marks}\n"),
    };
    let lines: String = incarnations.iter().map(line).collect();
    checksum::with_line(&format!("{VERSION}\n{lines}"), CHECKSUM).into_bytes()
}

fn parse(bytes: &[u8]) -> Result<Vec<(Uuid, u64)>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = checksum::check_line(text, CHECKSUM)?.unwrap_or(text).lines();
    if lines.next() != Some(VERSION) {
        return Err("its version is unknown".to_owned());
    }
    let read = |line: &str| {
        let (one, marks) = line.split_once(' ').unwrap_or((line, "0"));
        Some((Uuid::from_str(one).ok()?, marks.parse().ok()?))
    };
    lines.map(|line| read(line).ok_or_else(|| format!("'{line}' is no incarnation"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let noted = [(Uuid::from_u128(1), 0), (Uuid::from_u128(2), 17)];
        assert_eq!(parse(&encode(&noted)), Ok(noted.to_vec()));
        assert_eq!(encode(&noted[..1]), b"0\n00000000-0000-0000-0000-000000000001\ncrc32c 33d322c9\n");
        assert_eq!(parse(b"0\n00000000-0000-0000-0000-000000000001\n"), Ok(noted[..1].to_vec()));
        for bad in [
            &b""[..],
            b"1\n",
            b"0\nx\n",
            b"0\n00000000-0000-0000-0000-000000000001 x\n",
            &[0xff],
            b"0\ncrc32c 00000000\n",
        ] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
