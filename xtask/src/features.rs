//! Every feature alone, none and all, for each published crate.

use std::path::Path;

use serde_json::Value;

use crate::run::{Log, Runner, cargo};

/// Crates that a user depends on; the rest of the workspace has no features to choose.
const CRATES: [&str; 4] = ["mesh-core", "mesh-tower", "mesh-tonic", "mesh-cli"];

/// Checks each combination with clippy, which shares its dependencies with `cargo check` and denies warnings without
/// changing `RUSTFLAGS` (a change would rebuild the world).
pub(crate) fn steps(root: &Path, runner: &mut Runner) {
    let metadata = match metadata(root) {
        Ok(metadata) => metadata,
        Err(message) => return runner.step("features", |_| Err(message)),
    };
    for krate in CRATES {
        for combination in combinations(&metadata, krate) {
            runner.step(&format!("features {krate}: {}", combination.label), |log: &Log| {
                let mut args = vec!["clippy", "--quiet", "--package", krate];
                args.extend(combination.args.iter().map(String::as_str));
                args.extend(["--", "-D", "warnings"]);
                log.must(&mut cargo(root, &args)).map(|_| crate::run::Counts::one(""))
            });
        }
    }
}

struct Combination {
    label: String,
    args: Vec<String>,
}

fn combinations(metadata: &Value, krate: &str) -> Vec<Combination> {
    let packages = metadata.get("packages").and_then(Value::as_array);
    let package = packages.and_then(|all| all.iter().find(|p| p.get("name").and_then(Value::as_str) == Some(krate)));
    let features = package.and_then(|p| p.get("features")).and_then(Value::as_object);
    let mut names: Vec<&str> = features.into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    names.retain(|name| *name != "default");
    let none = "--no-default-features".to_owned();
    let mut all = vec![Combination { label: "none".to_owned(), args: vec![none.clone()] }];
    all.extend(names.iter().map(|name| Combination {
        label: (*name).to_owned(),
        args: vec![none.clone(), "--features".to_owned(), (*name).to_owned()],
    }));
    if names.len() > 1 {
        all.push(Combination { label: "all".to_owned(), args: vec!["--all-features".to_owned()] });
    }
    all
}

fn metadata(root: &Path) -> Result<Value, String> {
    let output = cargo(root, &["metadata", "--no-deps", "--format-version", "1"])
        .output()
        .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
    serde_json::from_slice(&output.stdout)
        .map_err(|e| format!("cargo metadata: {e}\n{}", String::from_utf8_lossy(&output.stderr)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_alone_none_and_all() {
        let metadata = serde_json::json!({ "packages": [
            { "name": "x", "features": { "default": ["a"], "a": [], "b": [] } },
            { "name": "y", "features": {} },
        ]});
        let labels = |krate| combinations(&metadata, krate).into_iter().map(|c| c.label).collect::<Vec<_>>();
        assert_eq!(labels("x"), ["none", "a", "b", "all"]);
        assert_eq!(labels("y"), ["none"]);
    }
}
