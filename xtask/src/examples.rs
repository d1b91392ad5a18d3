//! The packages that users copy: each is copied out, built and tested as it would be in a project of theirs.
//!
//! All share one target directory, `target/examples`, and the versions of the workspace's `Cargo.lock`, so that their
//! dependencies are built once, and fetched only where the workspace does not have them.

use std::fs;
use std::path::{Path, PathBuf};

use crate::count;
use crate::run::{Counts, Log, Runner, cargo};

/// One step for each package.
pub(crate) fn steps(root: &Path, runner: &mut Runner) {
    let packages = match packages(root) {
        Ok(packages) => packages,
        Err(message) => return runner.step("examples", |_| Err(message)),
    };
    for package in packages {
        let name = package.file_name().unwrap_or_default().to_string_lossy().into_owned();
        runner.step(&format!("examples {name}"), |log| {
            let copy = copy_out(root, &package, &root.join("target/examples/packages").join(&name))?;
            test(root, &copy, log)
        });
    }
}

/// Every directory of `examples/` with a `Cargo.toml`.
fn packages(root: &Path) -> Result<Vec<PathBuf>, String> {
    let mut found = entries(&root.join("examples"))?;
    found.retain(|path| path.join("Cargo.toml").is_file());
    if found.is_empty() { Err("examples/ holds no package".to_owned()) } else { Ok(found) }
}

fn test(root: &Path, copy: &Path, log: &Log) -> Result<Counts, String> {
    let mut check = cargo(copy, &["fmt", "--check"]);
    log.must(&mut check)?;
    // A package may ask for a feature that the workspace does not use, and so for a crate that is not here yet.
    let (_, here) = log.run(&mut cargo(copy, &["fetch", "--offline"]))?;
    if !here {
        log.must(&mut cargo(copy, &["fetch"]))?;
    }
    let mut command = cargo(copy, &["test", "--offline", "--no-fail-fast"]);
    command.env("CARGO_TARGET_DIR", root.join("target/examples"));
    let (text, success) = log.run(&mut command)?;
    let counts = count::rustdoc(&text, success);
    if success && counts.passed == 0 {
        return Err(format!("no test ran\n{text}"));
    }
    Ok(counts)
}

/// Copies a package, afresh, with its paths to the workspace made absolute.
fn copy_out(root: &Path, package: &Path, copy: &Path) -> Result<PathBuf, String> {
    if copy.exists() {
        fs::remove_dir_all(copy).map_err(|e| format!("cannot remove {}: {e}", copy.display()))?;
    }
    copy_tree(package, copy)?;
    let manifest = copy.join("Cargo.toml");
    let text = fs::read_to_string(&manifest).map_err(|e| format!("cannot read {}: {e}", manifest.display()))?;
    write(&manifest, &patched(&text, root)?)?;
    let lock = root.join("Cargo.lock");
    let text = fs::read_to_string(&lock).map_err(|e| format!("cannot read {}: {e}", lock.display()))?;
    write(&copy.join("Cargo.lock"), &text)?;
    Ok(copy.to_path_buf())
}

/// The manifest with absolute paths. It must stand alone: a field that a workspace would fill in is refused.
fn patched(manifest: &str, root: &Path) -> Result<String, String> {
    if manifest.contains("workspace = true") || !manifest.contains("[workspace]") {
        return Err(
            "the package leans on a workspace: no `workspace = true`, and a `[workspace]` of its own".to_owned()
        );
    }
    let patched = manifest.replace("path = \"../../", &format!("path = \"{}/", root.display()));
    if patched.contains("path = \"..") { Err("a path that leads out of the copy".to_owned()) } else { Ok(patched) }
}

fn copy_tree(from: &Path, to: &Path) -> Result<(), String> {
    fs::create_dir_all(to).map_err(|e| format!("cannot make {}: {e}", to.display()))?;
    for path in entries(from)? {
        let name = path.file_name().unwrap_or_default();
        // What building and running in place leaves behind.
        if name == "target" || name == "Cargo.lock" || name.as_encoded_bytes().starts_with(b".") {
            continue;
        }
        if path.is_dir() {
            copy_tree(&path, &to.join(name))?;
        } else {
            fs::copy(&path, to.join(name)).map_err(|e| format!("cannot copy {}: {e}", path.display()))?;
        }
    }
    Ok(())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>, String> {
    let failed = |e: std::io::Error| format!("cannot list {}: {e}", dir.display());
    let entries = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    let mut paths: Vec<_> = entries.into_iter().map(|entry| entry.path()).collect();
    paths.sort();
    Ok(paths)
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    fs::write(path, text).map_err(|e| format!("cannot write {}: {e}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_become_absolute_and_a_package_that_leans_is_refused() {
        let root = Path::new("/repo");
        let alone = "mesh-tower = { path = \"../../mesh-tower\" }\n[workspace]\n";
        assert_eq!(patched(alone, root).unwrap(), "mesh-tower = { path = \"/repo/mesh-tower\" }\n[workspace]\n");
        for leaning in ["x = 1\n", "serde.workspace = true\n[workspace]\n", "x = { path = \"../y\" }\n[workspace]\n"] {
            assert!(patched(leaning, root).is_err(), "{leaning}");
        }
    }

    #[test]
    fn what_a_run_leaves_behind_is_not_copied() {
        let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        for file in ["src/main.rs", "target/x", ".mesh/authority.pem", "Cargo.lock"] {
            let path = from.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "x").unwrap();
        }
        copy_tree(from.path(), to.path()).unwrap();
        assert_eq!(entries(to.path()).unwrap(), [to.path().join("src")]);
        assert!(to.path().join("src/main.rs").is_file());
    }
}
