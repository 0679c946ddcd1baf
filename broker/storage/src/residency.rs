//! Whether bytes of a file lie in memory: cachestat(2), which Linux has since 6.5.

#![allow(unsafe_code, reason = "neither the standard library nor rustix has this system call")]

use std::fs::File;
use std::os::fd::AsRawFd;

/// The same on every architecture that Rust and Linux have in common but for one.
const CACHESTAT: libc::c_long = 451;

/// The kernel's `struct cachestat_range`.
#[repr(C)]
struct Range {
    offset: u64,
    len: u64,
}

/// The kernel's `struct cachestat`, in pages.
#[repr(C)]
#[derive(Default)]
struct Pages {
    cached: u64,
    dirty: u64,
    under_writeback: u64,
    evicted: u64,
    recently_evicted: u64,
}

/// Whether all of these bytes do. False where the kernel cannot tell.
pub(crate) fn is_resident(file: &File, offset: u64, len: u64) -> bool {
    if len == 0 {
        return true;
    }
    let range = Range { offset, len };
    let mut pages = Pages::default();
    // SAFETY: the descriptor is open for as long as `file` is borrowed; both structures outlive the call, and are laid out as the
    // kernel's, which writes no more than the second one's five numbers.
    let result =
        unsafe { libc::syscall(CACHESTAT, file.as_raw_fd(), &raw const range, &raw mut pages, 0u32) };
    let page = rustix::param::page_size() as u64;
    let wanted = (offset + len - 1) / page - offset / page + 1;
    result == 0 && pages.cached >= wanted
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::os::unix::fs::FileExt;

    use super::*;

    #[test]
    fn what_was_written_is_there_and_what_is_not_written_is_not() {
        let path = std::env::temp_dir().join(format!("firn-residency-{}", std::process::id()));
        let mut file =
            File::options().read(true).write(true).create(true).truncate(true).open(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let page = rustix::param::page_size() as u64;
        file.write_all(&vec![7; 10 * page as usize]).unwrap();
        file.read_exact_at(&mut vec![0; 10 * page as usize], 0).unwrap();
        // Where the kernel cannot tell, nothing is.
        let can_tell = is_resident(&file, 0, 10 * page);
        for (offset, len) in [(0, 1), (page - 1, 2), (5, 10 * page - 5), (9 * page, page)] {
            assert_eq!(is_resident(&file, offset, len), can_tell, "{offset} + {len}");
        }
        for (offset, len) in [(0, 11 * page), (10 * page, 1), (9 * page, page + 1)] {
            assert!(!is_resident(&file, offset, len), "{offset} + {len}");
        }
        assert!(is_resident(&file, 99 * page, 0), "nothing is always there");
    }
}
