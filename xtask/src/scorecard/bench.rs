//! The row of a pick's cost: three runs of the benches, in each of which tower's balancer stands beside ours.

use std::path::Path;

use super::Arm;
use crate::run::{Log, cargo};

const SIZES: [&str; 3] = ["10", "1000", "10000"];
const LIMIT: u64 = 60;
const RUNS: usize = 3;

/// The mesh's arm and tower's.
pub(super) fn run(root: &Path, log: &Log) -> (Result<Arm, String>, Result<Arm, String>) {
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        match once(root, log) {
            Ok(text) => runs.push(text),
            Err(why) => return (Err(why.clone()), Err(why)),
        }
    }
    let arm = |name: &str, well: fn(u64) -> bool| {
        let found: Option<Vec<u64>> =
            SIZES.iter().map(|size| median(&runs, &format!("choose/{name}/{size}"))).collect();
        let found = found.ok_or_else(|| format!("no figures of {name}"))?;
        let figures: Vec<String> = found.iter().map(u64::to_string).collect();
        Ok((found.into_iter().all(well), figures.join(" / ")))
    };
    let mesh = arm("peak_ewma", |ns| ns < LIMIT).and_then(|(well, alone)| {
        let (_, why) = arm("peak_ewma_and_why", |_| true)?;
        Ok(Arm { well, text: format!("{alone} ns, and with why it was chosen {why}") })
    });
    let tower = arm("tower_p2c", |ns| ns >= LIMIT).map(|(well, ns)| Arm { well, text: format!("{ns} ns") });
    (mesh, tower)
}

fn once(root: &Path, log: &Log) -> Result<String, String> {
    let mut command = cargo(root, &["bench", "--package", "mesh-benches", "--bench", "micro", "--"]);
    command.args(["--output-format", "bencher", "--warm-up-time", "1", "--measurement-time", "2"]);
    log.must(command.arg("choose/(peak_ewma|tower_p2c)"))
}

/// Nanoseconds, from lines such as `test choose/peak_ewma/10 ... bench:  41 ns/iter (+/- 2)`.
fn median(runs: &[String], name: &str) -> Option<u64> {
    let start = format!("test {name} ");
    let mut found: Vec<u64> = runs
        .iter()
        .filter_map(|text| {
            let line = text.lines().find(|line| line.starts_with(&start))?;
            let (_, figures) = line.split_once("bench:")?;
            figures.split_whitespace().next()?.replace(',', "").parse().ok()
        })
        .collect();
    found.sort_unstable();
    found.get(found.len() / 2).copied()
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn figures_are_medians_of_the_runs() {
        let run = |ns: &str| format!("noise\ntest choose/peak_ewma/10 ... bench:       {ns} ns/iter (+/- 2)\n");
        let runs = [run("41"), run("1,039"), run("40")];
        assert_eq!(median(&runs, "choose/peak_ewma/10"), Some(41));
        assert_eq!(median(&runs, "choose/peak_ewma/1"), None);
    }
}
