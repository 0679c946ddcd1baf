//! Where the real parts are: what `tests/install/install.sh` put into the cache, and the binary under test.

use std::path::PathBuf;

/// The installer's cache: `$FIRN_CACHE`, or `~/.cache/firn`.
pub fn cache() -> PathBuf {
    match std::env::var_os("FIRN_CACHE") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(std::env::var_os("HOME").expect("HOME is set")).join(".cache/firn"),
    }
}

/// A program from the cache. A missing one is a set-up error, never a skipped test.
pub fn program(name: &str) -> PathBuf {
    let path = cache().join("bin").join(name);
    assert!(path.exists(), "{} is missing: run `make install-tests` first", path.display());
    path
}

/// A class path for one of the cached Kafka versions, the Java peer included for the current one.
pub fn kafka_class_path(version: &str) -> String {
    let libraries = cache().join(format!("kafka-{version}"));
    assert!(libraries.is_dir(), "{} is missing: run `make install-tests` first", libraries.display());
    let peer = cache().join("java");
    format!("{0}/*:{0}:{1}", libraries.display(), peer.display())
}

/// The binary under test: `$FIRN_BIN`, or `firn` beside this test's, or this command's, own build.
pub fn firn() -> PathBuf {
    if let Some(path) = std::env::var_os("FIRN_BIN") {
        return PathBuf::from(path);
    }
    let here = std::env::current_exe().expect("the path of this test");
    let beside = here.parent().expect("it lies in a directory");
    let profile = if beside.ends_with("deps") { beside.parent().expect("target/<profile>") } else { beside };
    let path = profile.join("firn");
    assert!(path.exists(), "{} is missing: build it with `cargo build -p firn`", path.display());
    path
}

/// The repository's root.
pub fn repository() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ lies in the repository").to_path_buf()
}
