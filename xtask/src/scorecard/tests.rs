//! Rows that tests show.

use std::path::Path;

use super::Arm;
use crate::run::{Counts, Log, cargo};
use crate::{count, peers};

/// What a run of tests came to.
#[derive(Debug, Clone)]
pub(super) struct Shown {
    counts: Counts,
    text: String,
}

/// Runs the tests that `filter` names, as the test command builds them.
pub(super) fn run(root: &Path, log: &Log, filter: &str, peers: bool) -> Result<Shown, String> {
    if peers {
        peers::install(root).map_err(|why| format!("not run, a peer is missing: {}", first_line(&why)))?;
    }
    let args = ["nextest", "run", "--workspace", "--all-features", "--no-fail-fast", "--no-tests", "fail"];
    let mut command = cargo(root, &args);
    command.args(["--success-output", "immediate", "--filterset", filter]);
    let (text, success) = log.run(command.env("MESH_PEERS", peers::directory(root)))?;
    let counts = count::nextest(&text, success);
    Ok(Shown { counts, text })
}

/// One arm: what the tests say of it in lines that begin with `word`.
pub(super) fn arm(shown: &Shown, word: &str) -> Arm {
    let Counts { passed, failed, .. } = shown.counts;
    let said: Vec<&str> = shown.text.lines().filter_map(|line| line.trim_start().strip_prefix(word)).collect();
    let count = format!("{passed} tests passed, {failed} failed");
    let text = if said.is_empty() || failed > 0 { [vec![count.as_str()], said].concat() } else { said }.join("; ");
    Arm { well: failed == 0 && passed > 0, text }
}

fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

#[cfg(test)]
mod unit {
    use super::super::rows::{How, ROWS};
    use super::*;

    fn shown(passed: usize, failed: usize, text: &str) -> Shown {
        Shown { counts: Counts { passed, failed, note: String::new() }, text: text.to_owned() }
    }

    #[test]
    fn an_arm_says_what_its_tests_said() {
        let text = "   seen: 0 of 9 failed\n  control: 4 failed\n   seen: and more\n";
        let good = arm(&shown(1, 0, text), "seen: ");
        assert_eq!((good.well, good.text.as_str()), (true, "0 of 9 failed; and more"));
        let bad = arm(&shown(0, 1, text), "control: ");
        assert_eq!((bad.well, bad.text.as_str()), (false, "0 tests passed, 1 failed; 4 failed"));
        assert!(!arm(&shown(0, 0, ""), "seen: ").well, "nothing ran");
        assert_eq!(arm(&shown(3, 0, ""), "seen: ").text, "3 tests passed, 0 failed");
    }

    /// A test that is renamed would leave its row empty.
    #[test]
    fn every_test_that_a_row_names_is_there() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for row in &ROWS {
            let How::Tests { seen, control, .. } = row.how else { continue };
            for filter in [seen, control] {
                let dir = if filter.starts_with("package(mesh-tests)") { "tests/src" } else { "mesh-core" };
                let names = filter.split("test(=").skip(1).filter_map(|rest| rest.split(')').next());
                for name in names.filter_map(|path| path.rsplit("::").next()) {
                    assert!(has(&root.join(dir), &format!("fn {name}(")), "{}: no test {name} in {dir}", row.name);
                }
            }
        }
    }

    fn has(dir: &Path, text: &str) -> bool {
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).any(|path| {
            if path.is_dir() {
                has(&path, text)
            } else {
                path.extension().is_some_and(|extension| extension == "rs")
                    && std::fs::read_to_string(&path).unwrap().contains(text)
            }
        })
    }
}
