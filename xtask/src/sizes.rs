//! Files a reader can hold: median under 200 lines, none over 600 without its tests.

use std::fs;
use std::path::{Path, PathBuf};

use crate::run::{Counts, Verdict};

const MEDIAN: usize = 200;
const CAP: usize = 600;

pub(crate) fn check(root: &Path) -> Verdict {
    let mut files = Vec::new();
    rust_files(root, &mut files)?;
    let mut lines = Vec::new();
    let mut long = Vec::new();
    for file in &files {
        let text = fs::read_to_string(file).map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        lines.push(text.lines().count());
        let code = without_tests(file, &text);
        if code > CAP {
            let name = file.strip_prefix(root).unwrap_or(file);
            long.push(format!("{}: {code} lines without tests, at most {CAP}", name.display()));
        }
    }
    lines.sort_unstable();
    let median = lines.get(lines.len() / 2).copied().unwrap_or_default();
    if median >= MEDIAN {
        long.push(format!("the median file has {median} lines, must be under {MEDIAN}"));
    }
    if long.is_empty() {
        Ok(Counts::one(format!("{} files, median {median}", files.len())))
    } else {
        Err(long.join("\n"))
    }
}

/// Lines before the test module, which by custom ends a file; 0 for files that are tests as a whole.
fn without_tests(file: &Path, text: &str) -> usize {
    let whole = file.file_name().is_some_and(|name| name == "tests.rs")
        || file.components().any(|part| part.as_os_str() == "tests");
    if whole {
        return 0;
    }
    let lines: Vec<&str> = text.lines().collect();
    let tests =
        lines.windows(2).position(|pair| matches!(pair, [a, b] if *a == "#[cfg(test)]" && b.starts_with("mod ")));
    tests.unwrap_or(lines.len())
}

/// Every `.rs` file below `dir`, except in `target` and hidden directories.
pub(crate) fn rust_files(dir: &Path, found: &mut Vec<PathBuf>) -> Result<(), String> {
    let failed = |e: std::io::Error| format!("cannot list {}: {e}", dir.display());
    let mut entries = fs::read_dir(dir).map_err(failed)?.collect::<Result<Vec<_>, _>>().map_err(failed)?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        let path = entry.path();
        let name = entry.file_name();
        let hidden = name.to_string_lossy().starts_with('.') || name == "target";
        if path.is_dir() && !hidden {
            rust_files(&path, found)?;
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_test_module_is_left_out() {
        let text = "a\n#[cfg(test)]\npub(crate) fn for_test() {}\nb\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(without_tests(Path::new("src/a.rs"), text), 4);
        assert_eq!(without_tests(Path::new("src/a/tests.rs"), text), 0);
    }

    #[test]
    fn a_long_file_is_named() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("short.rs"), "x\n".repeat(10)).unwrap();
        fs::write(dir.path().join("brief.rs"), "x\n".repeat(10)).unwrap();
        assert_eq!(check(dir.path()).unwrap().passed, 1);
        fs::write(dir.path().join("long.rs"), "x\n".repeat(601)).unwrap();
        assert!(check(dir.path()).unwrap_err().starts_with("long.rs: 601 lines"));
    }
}
