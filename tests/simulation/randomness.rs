//! The process's source of randomness, which a run owns: the standard library seeds every hash map from it, and tokio the
//! choice between branches that are ready. One process runs one seed, so nothing of an earlier run is left in it.

use std::cell::RefCell;

thread_local! {
    static SEEDED: RefCell<Option<fastrand::Rng>> = const { RefCell::new(None) };
}

/// From now on what this thread takes for random follows from the seed. Before the first hash map is made.
pub fn follow(seed: u64) {
    SEEDED.set(Some(fastrand::Rng::with_seed(seed)));
}

/// In place of the system call. Threads that follow no seed, those of a parent that starts runs, read the system's source.
///
/// # Safety
/// As for getrandom(2): `bytes` must be valid for writes of `count` bytes.
#[unsafe(no_mangle)]
#[allow(
    unsafe_code,
    reason = "the standard library asks by this symbol, and there is no other way to answer it"
)]
unsafe extern "C" fn getrandom(bytes: *mut u8, count: usize, _flags: u32) -> isize {
    if bytes.is_null() {
        return -1;
    }
    // SAFETY: the caller's promise.
    let bytes = unsafe { std::slice::from_raw_parts_mut(bytes, count) };
    let seeded = SEEDED.try_with(|seeded| match &mut *seeded.borrow_mut() {
        Some(random) => {
            random.fill(bytes);
            true
        }
        None => false,
    });
    if seeded == Ok(true) || read_system(bytes).is_ok() { count as isize } else { -1 }
}

fn read_system(bytes: &mut [u8]) -> std::io::Result<()> {
    std::io::Read::read_exact(&mut std::fs::File::open("/dev/urandom")?, bytes)
}
