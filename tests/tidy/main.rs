//! What keeps the house in order and no compiler sees: the size of rooms, the direction of dependencies, the purity of
//! the core, and documents that still say what is.

mod configs;
mod documents;
mod rooms;
mod walls;

use std::path::{Path, PathBuf};

use firn_tests::tools::repository;

/// Every file below the repository's own folders with one of these extensions, relative to the root.
fn files(extensions: &[&str]) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(repository()).expect("read the repository").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir()
            && !["target", "firn-data"].contains(&name.as_str())
            && (!name.starts_with('.') || name == ".ci")
        {
            collect(&path, extensions, &mut found);
        } else if path.is_file() && !path.is_symlink() && has_extension(&path, extensions) {
            // A link that somebody made, as the README says, to call the binary by the name of a tool is none of ours.
            found.push(path);
        }
    }
    found.sort();
    found.iter().map(|path| path.strip_prefix(repository()).expect("below the root").to_path_buf()).collect()
}

fn collect(directory: &Path, extensions: &[&str], found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).expect("read a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            if !["target", "corpus", "artifacts"].iter().any(|skipped| path.ends_with(skipped)) {
                collect(&path, extensions, found);
            }
        } else if has_extension(&path, extensions) {
            found.push(path);
        }
    }
}

fn has_extension(path: &Path, extensions: &[&str]) -> bool {
    let extension =
        path.extension().map(|extension| extension.to_string_lossy().into_owned()).unwrap_or_default();
    extensions.contains(&extension.as_str())
}

fn text(path: &Path) -> String {
    std::fs::read_to_string(repository().join(path))
        .unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
