//! Denial of service: builds the program that plays it, and plays it.

use std::path::Path;

use crate::run;

/// Builds `dos` optimised and runs its table with `args`.
pub(crate) fn run(root: &Path, args: &[String]) -> Result<(), String> {
    let build = ["build", "--release", "--package", "mesh-tests", "--bin", "dos"];
    let status = run::cargo(root, &build).status().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !status.success() {
        return Err("the release build failed".to_owned());
    }
    let mut table = std::process::Command::new(root.join("target/release/dos"));
    let status = table.arg("table").args(args).status().map_err(|e| format!("cannot run dos: {e}"))?;
    if status.success() { Ok(()) } else { Err("not every attack was borne".to_owned()) }
}
