//! Builds `firn-sim`, optimised, from the repository or from a changed copy of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use crate::tools::repository;

/// Where cargo builds.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or(repository().join("target"), PathBuf::from)
}

/// A `firn-sim` that was built.
#[derive(Debug)]
pub struct Simulator(PathBuf);

impl Simulator {
    /// Builds it from the sources below `root`, and keeps it under this name. What others wrote is built once for all roots, and
    /// for the tests as well.
    pub fn build(root: &Path, name: &str) -> Self {
        let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or("cargo".into()));
        cargo.args(["build", "--quiet", "--locked", "--package", "firn-tests", "--bin", "firn-sim"]);
        cargo.arg("--config").arg(root.join("tests/simulation/build.toml"));
        cargo.arg("--target-dir").arg(target()).current_dir(root);
        let built = cargo.output().expect("cargo runs");
        let said = String::from_utf8_lossy(&built.stderr);
        assert!(built.status.success(), "{} does not build: {said}", root.display());
        let kept = target().join("simulation").join(name);
        std::fs::create_dir_all(kept.with_file_name("")).expect("a directory for what is built");
        // The next build of another root, or for the tests, takes its place.
        std::fs::copy(target().join("debug/firn-sim"), &kept).expect("keep what was built");
        Self(kept)
    }

    pub fn command(&self, arguments: &str) -> Command {
        let mut command = Command::new(&self.0);
        command.args(arguments.split_whitespace());
        command
    }

    /// Runs it, and returns what it has said.
    pub fn run(&self, arguments: &str) -> (Output, String) {
        let output = self.command(arguments).output().expect("firn-sim runs");
        let said = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        (output, said.concat())
    }
}
