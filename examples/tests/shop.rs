//! The shop as its user runs it: every step comes out as expected, and nothing stays behind.

use std::process::Command;

/// Rows of the table: the start, and nine steps.
const STEPS: usize = 10;

const README: &str = include_str!("../../README.md");

/// The columns *step* and *expected* of each line; what is *seen* differs from run to run.
fn promised(table: &str) -> impl Iterator<Item = &str> {
    let columns = table.lines().filter_map(|line| line.get(..70)).map(str::trim_end);
    columns.filter(|line| line.starts_with("ok ") || line.starts_with("   "))
}

#[test]
fn every_step_is_as_expected() {
    let temp = tempfile::tempdir().unwrap();
    let shop = Command::new(env!("CARGO_BIN_EXE_shop")).env("TMPDIR", temp.path()).output().unwrap();
    let (table, errors) = (String::from_utf8_lossy(&shop.stdout), String::from_utf8_lossy(&shop.stderr));
    let marked = |mark| table.lines().filter(|line| line.starts_with(mark)).count();
    assert!(shop.status.success(), "{}\n{table}{errors}{}", shop.status, logs(temp.path()));
    assert_eq!((marked("ok "), marked("!! ")), (STEPS, 0), "{table}{errors}");
    let unlike: Vec<_> = promised(&table).filter(|line| !README.contains(line)).collect();
    assert!(unlike.is_empty(), "the README's table has no {unlike:?}");
    let left: Vec<_> = std::fs::read_dir(temp.path()).unwrap().collect();
    assert!(left.is_empty(), "left behind: {left:?}");
}

/// What the processes logged, without the noise, for whoever must find out why a step differed.
fn logs(dir: &std::path::Path) -> String {
    let towns = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let processes = towns.flat_map(|town| std::fs::read_dir(town.path()).into_iter().flatten().flatten());
    let mut all = String::new();
    for process in processes {
        let Ok(log) = std::fs::read_to_string(process.path().join("log.txt")) else { continue };
        all.push_str(&format!("--- {}\n", process.file_name().display()));
        let telling = log.lines().filter(|line| line.contains(" WARN ") || line.contains("ERROR"));
        telling.take(100).for_each(|line| all.push_str(&format!("{line}\n")));
    }
    all
}
