//! Which incarnations of its broker a log directory has served: a copy that was made before one of them began knows nothing of
//! it, and so can be told from the directory that went on.

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
    /// Those that were noted, the oldest first; none where nobody ever noted any.
    pub fn incarnations(&self) -> Result<Vec<Uuid>, StorageError> {
        let path = self.path().join(INCARNATIONS);
        let Some(bytes) = read_file(self.directory.disk.as_ref(), &path)? else { return Ok(Vec::new()) };
        parse(&bytes).map_err(|reason| damaged(&path, &reason))
    }

    /// Notes another one, durably, before anybody else hears of it.
    pub fn note_incarnation(&self, incarnation: Uuid) -> Result<(), StorageError> {
        let mut noted = self.incarnations()?;
        noted.push(incarnation);
        let bytes = encode(noted.get(noted.len().saturating_sub(KEPT)..).unwrap_or_default());
        checkpoint::replace(self.directory.disk.as_ref(), self.path(), INCARNATIONS, &bytes, DirSync::Now)
    }
}

/// Whoever guessed that nothing was noted would call a good directory a copy.
fn damaged(path: &Path, reason: &str) -> StorageError {
    let what_to_do = "remove the file: if the directory is then taken for a copy of an earlier one and is none, what says so tells what to write here";
    StorageError::corrupt(path, format!("{reason}; {what_to_do}"))
}

fn encode(incarnations: &[Uuid]) -> Vec<u8> {
    let lines = incarnations.iter().map(|one| format!("{one}\n"));
    checksum::with_line(&format!("{VERSION}\n{}", lines.collect::<String>()), CHECKSUM).into_bytes()
}

fn parse(bytes: &[u8]) -> Result<Vec<Uuid>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "it is not text".to_owned())?;
    let mut lines = checksum::check_line(text, CHECKSUM)?.unwrap_or(text).lines();
    if lines.next() != Some(VERSION) {
        return Err("its version is unknown".to_owned());
    }
    lines.map(|line| Uuid::from_str(line).map_err(|_| format!("'{line}' is no incarnation"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let noted = [Uuid::from_u128(1), Uuid::from_u128(2)];
        assert_eq!(parse(&encode(&noted)), Ok(noted.to_vec()));
        assert_eq!(encode(&noted[..1]), b"0\n00000000-0000-0000-0000-000000000001\ncrc32c 33d322c9\n");
        assert_eq!(parse(b"0\n00000000-0000-0000-0000-000000000001\n"), Ok(noted[..1].to_vec()));
        for bad in [&b""[..], b"1\n", b"0\nx\n", &[0xff], b"0\ncrc32c 00000000\n"] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
