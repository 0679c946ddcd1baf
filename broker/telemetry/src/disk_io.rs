//! What the kernel counts of this process's reads and writes of disks, as Kafka shows it (KIP-551).

/// Bytes that went through the page cache from and to disks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskIo {
    pub read_bytes: u64,
    pub written_bytes: u64,
}

impl DiskIo {
    /// `None` on a system that does not tell.
    #[expect(
        clippy::disallowed_methods,
        reason = "the kernel's count of this process, and no file on a disk"
    )]
    pub fn of_this_process() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/io").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        let number = |key: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
            line?.trim().parse::<u64>().ok()
        };
        Some(Self { read_bytes: number("read_bytes")?, written_bytes: number("write_bytes")? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_cached_or_cancelled_is_not_disk_io() {
        let text = "rchar: 9\nwchar: 8\nsyscr: 7\nsyscw: 6\nread_bytes: 4096\nwrite_bytes: 8192\n\
                    cancelled_write_bytes: 5\n";
        assert_eq!(DiskIo::parse(text), Some(DiskIo { read_bytes: 4096, written_bytes: 8192 }));
        assert_eq!(DiskIo::parse("rchar: 9\nread_bytes: x\nwrite_bytes: 1\n"), None);
        assert_eq!(DiskIo::parse(""), None);
    }
}
