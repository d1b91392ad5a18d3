//! All that reliability rests on, row by row: what the simulator plays, and what takes sockets, peers, clocks or changed code.

mod bench;
mod mutants;
mod rows;
mod tests;

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{ExitCode, Stdio};

use serde_json::{Value, json};

use crate::run::Log;
use crate::simulate;
use rows::{How, ROWS, Row};

/// What is asked for.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// Seeds of each row that is played.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: u64,
    /// The first seed; the others follow it.
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only these rows; may be repeated.
    #[arg(long, value_name = "ROW")]
    only: Vec<String>,
    /// One JSON object in the place of the table.
    #[arg(long)]
    json: bool,
    /// Names the rows and stops.
    #[arg(long)]
    list: bool,
}

/// What one arm of a row showed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Arm {
    /// Whether it did what it has to: a control arm has to fail.
    well: bool,
    text: String,
}

impl Arm {
    /// It could not be shown.
    fn missed(text: impl Into<String>) -> Self {
        Self { well: false, text: text.into() }
    }
}

/// What a row came to.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Verdict {
    row: &'static Row,
    seen: Arm,
    control: Arm,
}

impl Verdict {
    fn holds(&self) -> bool {
        self.seen.well && self.control.well
    }

    /// As the simulator prints its own.
    fn to_text(&self) -> String {
        let Row { name, target, without, .. } = self.row;
        let word = match (self.seen.well, self.control.well) {
            (true, true) => "holds",
            (false, _) => "MISSED",
            (true, false) => "PROVES NOTHING",
        };
        let (seen, control) = (&self.seen.text, &self.control.text);
        format!(
            "{name:<26} {word}\n    target   {target}\n    seen     {seen}\n    control  {control}\n             ({without})\n"
        )
    }

    fn to_json(&self) -> Value {
        json!({
            "row": self.row.name, "target": self.row.target, "holds": self.holds(),
            "mesh": { "seen": self.seen.text },
            "controls": [{ "seen": self.control.text, "without": self.row.without }],
        })
    }
}

/// What has been shown so far.
#[derive(Debug, Default)]
struct Shown {
    held: usize,
    failed: Vec<String>,
    /// For tools.
    rows: Vec<Value>,
}

/// Runs the chosen rows, all if none is named; its exit code says whether all hold.
pub(crate) fn run(root: &Path, options: &Options) -> ExitCode {
    let (own, played): (Vec<&str>, Vec<&str>) =
        options.only.iter().map(String::as_str).partition(|name| ROWS.iter().any(|row| row.name == *name));
    let all = options.only.is_empty();
    let mut shown = Shown::default();
    // What the simulator does not know it refuses, before anything is run.
    if all || !played.is_empty() {
        match play(options, &played) {
            Ok(found) => shown = found,
            Err(code) => return code,
        }
    }
    let rows = ROWS.iter().filter(|row| all || own.contains(&row.name));
    if options.list {
        rows.for_each(|row| println!("{}", row.name));
        return ExitCode::SUCCESS;
    }
    for row in rows {
        let verdict = verdict(root, row);
        if !options.json {
            print!("{}", verdict.to_text());
        }
        match verdict.holds() {
            true => shown.held += 1,
            false => shown.failed.push(row.name.to_owned()),
        }
        shown.rows.push(verdict.to_json());
    }
    let holds = shown.failed.is_empty();
    if options.json {
        println!("{:#}", json!({ "holds": holds, "rows": shown.rows }));
    } else {
        println!("{}", summary(&shown));
    }
    if holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The last line, as the simulator's own.
fn summary(shown: &Shown) -> String {
    let names = if shown.failed.is_empty() { String::new() } else { format!(": {}", shown.failed.join(", ")) };
    format!("{} rows hold, {} do not{names}", shown.held, shown.failed.len())
}

/// Reads such a line.
fn summed(line: &str) -> Option<Shown> {
    let (held, rest) = line.split_once(" rows hold, ")?;
    let failed = rest.split_once(" do not: ").map_or("", |(_, names)| names);
    let failed = failed.split(", ").filter(|name| !name.is_empty()).map(str::to_owned).collect();
    Some(Shown { held: held.parse().ok()?, failed, rows: Vec::new() })
}

/// Has the simulator play its rows, and passes on what it prints as it comes.
fn play(options: &Options, only: &[&str]) -> Result<Shown, ExitCode> {
    let mut command = simulate::command("scorecard");
    command.args(["--seeds", &options.seeds.to_string(), "--first-seed", &options.first_seed.to_string()]);
    only.iter().for_each(|name| _ = command.args(["--only", name]));
    command.args(options.json.then_some("--json")).args(options.list.then_some("--list"));
    let broken = |error: std::io::Error| {
        eprintln!("error: cannot run the simulator: {error}");
        ExitCode::FAILURE
    };
    let mut child = command.stdout(Stdio::piped()).spawn().map_err(broken)?;
    let (mut shown, mut text) = (None, String::new());
    for line in child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines()) {
        let line = line.map_err(broken)?;
        if options.json {
            text += &line;
        } else if let Some(last) = summed(&line) {
            shown = Some(last);
        } else {
            println!("{line}");
        }
    }
    let status = child.wait().map_err(broken)?;
    let code = || ExitCode::from(status.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1));
    if options.list {
        return if status.success() { Ok(Shown::default()) } else { Err(code()) };
    }
    if options.json {
        shown = serde_json::from_str::<Value>(&text).ok().and_then(|value| {
            let rows = value.get("rows")?.as_array()?.clone();
            let (held, failed): (Vec<&Value>, Vec<&Value>) =
                rows.iter().partition(|row| row.get("holds") == Some(&Value::Bool(true)));
            let failed = failed.iter().filter_map(|row| row.get("row")?.as_str().map(str::to_owned)).collect();
            Some(Shown { held: held.len(), failed, rows })
        });
    }
    // It ends with a failure where rows do not hold; without a last line it was broken off.
    shown.ok_or_else(code)
}

fn verdict(root: &Path, row: &'static Row) -> Verdict {
    let log = |arm: &str| Log::new(root, &format!("scorecard-{}{arm}", row.name));
    let (seen, control) = match row.how {
        How::Tests { seen, control, peers } => {
            let shown = tests::run(root, &log(""), seen, peers);
            let beside =
                if control == seen { shown.clone() } else { tests::run(root, &log("-control"), control, peers) };
            (shown.map(|shown| tests::arm(&shown, "seen: ")), beside.map(|shown| tests::arm(&shown, "control: ")))
        }
        How::Bench => bench::run(root, &log("")),
        How::Mutants { seed, paths } => mutants::run(root, &log(""), seed, paths),
    };
    let arm = |arm: Result<Arm, String>| arm.unwrap_or_else(Arm::missed);
    Verdict { row, seen: arm(seen), control: arm(control) }
}

#[cfg(test)]
mod unit {
    use super::*;

    #[test]
    fn the_last_line_of_the_simulator_is_read_as_it_is_written() {
        for (held, failed) in [(3, vec![]), (0, vec!["churn".to_owned()]), (7, vec!["a".to_owned(), "b".to_owned()])] {
            let shown = Shown { held, failed, rows: Vec::new() };
            let read = summed(&summary(&shown)).unwrap();
            assert_eq!((read.held, &read.failed), (shown.held, &shown.failed));
        }
        assert!(summed("crash                      holds").is_none());
    }

    #[test]
    fn a_row_that_misses_or_proves_nothing_says_so() {
        let arm = |well| Arm { well, text: "it".to_owned() };
        let verdict = |seen, control| Verdict { row: &ROWS[0], seen: arm(seen), control: arm(control) };
        for (seen, control, word) in
            [(true, true, " holds\n"), (false, true, " MISSED\n"), (true, false, " PROVES NOTHING\n")]
        {
            let verdict = verdict(seen, control);
            assert!(verdict.to_text().contains(word), "{}", verdict.to_text());
            assert_eq!(verdict.holds(), seen && control);
        }
    }
}
