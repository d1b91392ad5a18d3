//! What can be changed, and which of it is tried.

use std::fs;
use std::ops::Range;
use std::path::Path;

use serde_json::Value;

use crate::run::cargo;

/// One small change of the code.
#[derive(Debug, Clone)]
pub(super) struct Mutant {
    /// File, place and change, for people.
    pub(super) name: String,
    pub(super) package: String,
    /// From the workspace root.
    pub(super) file: String,
    pub(super) kind: Kind,
    /// What is replaced, in bytes.
    pub(super) span: Range<usize>,
    pub(super) replacement: String,
}

/// How a change is put behind a switch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// The span is all statements of a function.
    Body,
    /// The span is an operator, or a field of a struct expression: its expression has two forms.
    Expression,
    /// The span is a match arm that goes.
    Arm,
    /// The span is the guard of a match arm.
    Guard,
}

/// Every change that `cargo mutants` knows below `paths`, in the order of their names.
pub(super) fn mutants(root: &Path, paths: &[String]) -> Result<Vec<Mutant>, String> {
    let mut command = cargo(root, &["mutants", "--list", "--json", "--workspace"]);
    for path in paths {
        let path = path.trim_end_matches('/');
        if !root.join(path).exists() {
            return Err(format!("{path}: no such file or directory below {}", root.display()));
        }
        command.args(["--file", path, "--file", &format!("{path}/**")]);
    }
    let output = command.output().map_err(|e| format!("cannot run cargo: {e}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let hint = "is it installed? `cargo install --locked cargo-mutants`";
        return Err(format!("cargo mutants --list failed; {hint}\n{said}"));
    }
    let list: Vec<Value> =
        serde_json::from_slice(&output.stdout).map_err(|e| format!("cargo mutants --list --json: {e}"))?;
    let mut mutants = list.iter().map(|item| read(root, item)).collect::<Result<Vec<_>, _>>()?;
    mutants.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(mutants)
}

fn read(root: &Path, item: &Value) -> Result<Mutant, String> {
    let unexpected = || format!("cargo mutants --list --json: not understood: {item}");
    let text = |field: &str| item.get(field).and_then(Value::as_str).map(str::to_owned).ok_or_else(unexpected);
    let file = text("file")?;
    let source = fs::read_to_string(root.join(&file)).map_err(|e| format!("cannot read {file}: {e}"))?;
    let place = |end: &str| {
        let number = |name: &str| item.pointer(&format!("/span/{end}/{name}"))?.as_u64()?.try_into().ok();
        offset(&source, number("line")?, number("column")?)
    };
    let span = place("start").zip(place("end")).map(|(start, end)| start..end).ok_or_else(unexpected)?;
    let kind = match text("genre")?.as_str() {
        "FnValue" => Kind::Body,
        "BinaryOperator" | "UnaryOperator" | "StructField" => Kind::Expression,
        "MatchArm" => Kind::Arm,
        "MatchArmGuard" => Kind::Guard,
        _ => return Err(unexpected()),
    };
    let replacement = text("replacement")?;
    Ok(Mutant { name: text("name")?, package: text("package")?, file, kind, span, replacement })
}

/// Bytes before `line` and `column`, which count characters from 1.
fn offset(source: &str, line: usize, column: usize) -> Option<usize> {
    let before: usize = source.split_inclusive('\n').take(line.checked_sub(1)?).map(str::len).sum();
    let rest = source.get(before..)?;
    Some(before + rest.char_indices().nth(column.checked_sub(1)?).map_or(rest.len(), |(at, _)| at))
}

/// `size` of `all`, each as likely as any other; all of them if there are no more.
pub(super) fn sample(mut all: Vec<Mutant>, seed: u64, size: usize) -> Vec<Mutant> {
    let mut state = seed;
    for at in 0..size.min(all.len()) {
        // splitmix64; the bias of the remainder is one in 2^50.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut random = state;
        random = (random ^ (random >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        random = (random ^ (random >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        random ^= random >> 31;
        let left = all.len() - at;
        all.swap(at, at + usize::try_from(random % left as u64).unwrap_or_default());
    }
    all.truncate(size);
    all.sort_by(|a, b| a.name.cmp(&b.name));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_counted_in_characters() {
        let source = "é\nаb\n";
        let places = [(1, 1), (1, 2), (2, 2), (2, 3), (3, 1)].map(|(line, column)| offset(source, line, column));
        assert_eq!(places, [Some(0), Some(2), Some(5), Some(6), Some(7)]);
        assert_eq!(offset(source, 0, 1), None);
    }

    #[test]
    fn a_seed_is_a_sample_without_repetition() {
        let mutant = |number: usize| {
            let (name, text) = (format!("{number:03}"), String::new);
            Mutant { name, package: text(), file: text(), kind: Kind::Arm, span: 0..0, replacement: text() }
        };
        let all: Vec<Mutant> = (0..200).map(mutant).collect();
        let names = |seed, size| -> Vec<String> {
            sample(all.clone(), seed, size).into_iter().map(|mutant| mutant.name).collect()
        };
        let (first, mut once) = (names(1, 50), names(1, 50));
        once.dedup();
        assert_eq!((first.len(), &first), (50, &once));
        assert_ne!(first, names(2, 50));
        assert_eq!(names(1, 300).len(), 200);
        // Any part of the list may be drawn: over many seeds, each about as often.
        let mut drawn = vec![0; 200];
        for seed in 0..400 {
            names(seed, 50).iter().for_each(|name| drawn[name.parse::<usize>().unwrap()] += 1);
        }
        assert!(drawn.iter().all(|times| (60..=140).contains(times)), "{drawn:?}");
    }
}
