//! The fuzz targets, which no other step compiles: `fuzz/` is a workspace of its own, and running them needs nightly.
//!
//! Checked with the versions of the workspace's `Cargo.lock` and in its target directory, after the step `features` has built
//! the dependencies alike, this costs mesh-core once more. What the targets do is replayed by `mesh-core/tests/corpus.rs`.

use std::fs;
use std::path::Path;

use crate::run::{Counts, Log, Verdict, cargo};

pub(crate) fn check(root: &Path, log: &Log) -> Verdict {
    let lock = root.join("fuzz/Cargo.lock");
    fs::copy(root.join("Cargo.lock"), &lock).map_err(|e| format!("cannot write {}: {e}", lock.display()))?;
    let mut command = cargo(root, &["check", "--manifest-path", "fuzz/Cargo.toml", "--target-dir", "target"]);
    // Nothing is linked, so libFuzzer's own C++ need not be compiled; the file need not exist.
    command.env("CUSTOM_LIBFUZZER_PATH", "/nowhere/libfuzzer.a");
    log.must(&mut command)?;
    let targets = fs::read_dir(root.join("fuzz/fuzz_targets")).map_err(|e| format!("cannot list the targets: {e}"))?;
    Ok(Counts::one(format!("{} targets", targets.count())))
}
