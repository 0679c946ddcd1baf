//! Which crate may depend on which, and what the pure core may not name.

use std::path::Path;

use crate::{files, text};

/// Lowest first: a crate may depend only on crates above it in this list.
const ORDER: [&str; 15] = [
    "firn-model",
    "firn-records",
    "firn-protocol",
    "firn-metadata",
    "firn-coordinators",
    "firn-replication",
    "firn-tier",
    "firn-storage",
    "firn-blocking",
    "firn-quorum",
    "firn-client",
    "firn-telemetry",
    "firn-tiering",
    "firn-cli",
    "firn",
];

fn manifests() -> Vec<(String, String)> {
    let manifests = files(&["toml"])
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml") && path.starts_with("broker"));
    manifests
        .filter(|path| !path.to_string_lossy().contains("fuzz"))
        .map(|path| {
            let text = text(&path);
            let line = text.lines().find(|line| line.starts_with("name = ")).expect("a package name");
            (line.split('"').nth(1).expect("a quoted name").to_owned(), text)
        })
        .collect()
}

/// The part of a manifest that says what the crate itself is built from; what only its tests use is left out.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut found = Vec::new();
    for line in manifest.lines() {
        if line.starts_with('[') {
            inside = line.trim() == "[dependencies]";
        } else if inside
            && let Some(name) = line.split(['.', ' ', '=']).next().filter(|name| !name.is_empty())
        {
            found.push(name.to_owned());
        }
    }
    found
}

#[test]
fn dependencies_point_one_way() {
    let rank = |name: &str| ORDER.iter().position(|known| *known == name);
    let mut wrong = Vec::new();
    for (name, manifest) in manifests() {
        let own = rank(&name).unwrap_or_else(|| panic!("{name} has no place in the order of crates"));
        for dependency in dependencies(&manifest).iter().filter(|dependency| dependency.starts_with("firn")) {
            if rank(dependency).is_none_or(|other| other >= own) {
                wrong.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn heavy_libraries_stay_behind_their_walls() {
    let walls: [(&str, &[&str]); 5] = [
        ("kafka-protocol", &["firn-protocol"]),
        ("object_store", &["firn-tiering"]),
        ("openraft", &["firn-quorum"]),
        ("axum", &["firn-telemetry"]),
        ("clap", &["firn-cli", "firn"]),
    ];
    let mut wrong = Vec::new();
    for (name, manifest) in manifests() {
        for dependency in dependencies(&manifest) {
            let wall = walls.iter().find(|(library, _)| *library == dependency);
            if wall.is_some_and(|(_, inside)| !inside.contains(&name.as_str())) {
                wrong.push(format!("{name} depends on {dependency}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_core_does_no_io_and_asks_no_clock() {
    let banned = [
        "std::fs",
        "std::net",
        "std::thread",
        "std::process",
        "std::env",
        "Instant::now",
        "SystemTime::now",
        "tokio",
        "HashMap",
        "HashSet",
        "rand::",
    ];
    let mut found = Vec::new();
    for path in files(&["rs"]) {
        let inside = path.starts_with("broker/core") && path.iter().any(|part| part == "src");
        if !inside || is_test(&path) {
            continue;
        }
        let text = text(&path);
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        for (number, line) in
            code.lines().enumerate().filter(|(_, line)| !line.trim_start().starts_with("//"))
        {
            if let Some(word) = banned.iter().find(|word| line.contains(**word)) {
                found.push(format!("{}:{}: {word}", path.display(), number + 1));
            }
        }
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// Which methods and types those are, and what to take instead, is in `clippy.toml`.
#[test]
fn every_crate_of_the_product_is_kept_behind_the_seams() {
    let denies = "#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]";
    // What people type reads their files and their clock, and no simulation runs it.
    let is_root = |path: &Path| path.ends_with("src/lib.rs") || path.ends_with("src/main.rs");
    let open: Vec<_> = files(&["rs"])
        .into_iter()
        .filter(|path| path.starts_with("broker") && is_root(path) && !path.starts_with("broker/cli"))
        .filter(|path| !text(path).lines().any(|line| line == denies))
        .collect();
    assert!(open.is_empty(), "a root that does not say {denies}: {open:#?}");
}

fn is_test(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name == "tests.rs" || name.ends_with("_tests.rs") || path.iter().any(|part| part == "tests")
}

#[test]
fn crates_are_used_by_file_and_not_by_root() {
    let roots: Vec<_> = files(&["rs"])
        .into_iter()
        .filter(|path| path.ends_with("src/lib.rs"))
        .filter(|path| text(path).lines().any(|line| line.starts_with("pub use ")))
        .collect();
    assert!(roots.is_empty(), "a root that re-exports hides where things live: {roots:#?}");
}
