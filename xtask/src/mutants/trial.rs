//! Which tests reach a change, and whether one of them fails with it.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{fmt, fs, thread};

/// A test that takes this long runs alone, after all others.
const SLOW: Duration = Duration::from_secs(1);

/// What a run of tests may take: processor seconds beyond those that the tests took on the clock, seconds on the clock
/// without a word, and KiB of addresses. More is a hang.
const CPU: u64 = 10;
const PATIENCE: Duration = Duration::from_secs(180);
const MEMORY: u64 = 8 << 20;

/// A test program.
#[derive(Debug)]
pub(super) struct Program {
    pub(super) executable: PathBuf,
    /// Where its tests run: the directory of its package.
    pub(super) dir: PathBuf,
}

/// All tests that count.
#[derive(Debug)]
pub(super) struct Suite {
    pub(super) programs: Vec<Program>,
    /// Where tests say what they reach.
    pub(super) reached: PathBuf,
}

/// The tests that reach each change, cheapest first.
#[derive(Debug, Default)]
pub(super) struct Reach {
    tests: BTreeMap<Test, Duration>,
    of: BTreeMap<usize, Vec<Test>>,
}

/// Its program and its name.
type Test = (usize, String);

/// What became of a change.
#[derive(Debug)]
pub(super) enum Outcome {
    /// By this test, or by the end of the whole program.
    Caught(String),
    Hung,
    Missed,
    /// No test runs the changed place.
    Unreached,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Caught(by) => write!(f, "caught by {by} "),
            Self::Hung => f.write_str("hung      "),
            Self::Missed => f.write_str("MISSED    "),
            Self::Unreached => f.write_str("UNREACHED "),
        }
    }
}

impl Reach {
    /// As if every test reached a change, and it has this number.
    pub(super) fn everything(&self, number: usize) -> Self {
        let mut tests: Vec<Test> = self.tests.keys().cloned().collect();
        tests.sort_by_key(|test| self.tests.get(test));
        Self { tests: self.tests.clone(), of: BTreeMap::from([(number, tests)]) }
    }

    /// How many tests count.
    pub(super) fn tests(&self) -> usize {
        self.tests.len()
    }
}

impl Suite {
    /// Runs every test with no change on. Each must pass.
    #[allow(clippy::disallowed_methods)] // a developer's tool measures real seconds
    pub(super) fn reach(&self) -> Result<Reach, String> {
        let mut reach = Reach::default();
        for (at, program) in self.programs.iter().enumerate() {
            for name in Self::names(program)? {
                fs::write(&self.reached, "").map_err(|e| format!("cannot write {}: {e}", self.reached.display()))?;
                let mut command = program.command(&[&name], PATIENCE);
                let start = Instant::now();
                let outcome = judged(command.env("MUTANTS_REACHED", &self.reached))?;
                if !matches!(outcome, Outcome::Missed) {
                    return Err(format!("test {name} fails with no change on"));
                }
                let test = (at, name);
                reach.tests.insert(test.clone(), start.elapsed());
                let reached = fs::read_to_string(&self.reached).unwrap_or_default();
                for number in reached.lines().filter_map(|line| line.parse().ok()) {
                    reach.of.entry(number).or_default().push(test.clone());
                }
            }
        }
        let costs = &reach.tests;
        reach.of.values_mut().for_each(|tests| tests.sort_by_key(|test| costs.get(test)));
        Ok(reach)
    }

    /// Turns one change on and runs the tests that reach it, until one fails.
    pub(super) fn try_one(&self, number: usize, reach: &Reach) -> Result<Outcome, String> {
        let Some(tests) = reach.of.get(&number) else { return Ok(Outcome::Unreached) };
        let (slow, quick): (Vec<&Test>, Vec<&Test>) =
            tests.iter().partition(|test| reach.tests.get(test).is_some_and(|cost| *cost > SLOW));
        let of_program = |at| quick.iter().filter(|test| test.0 == at).map(|test| test.1.as_str()).collect();
        let together = (0..self.programs.len()).map(|at| (at, of_program(at)));
        let alone = slow.iter().map(|test| (test.0, vec![test.1.as_str()]));
        let runs: Vec<(usize, Vec<&str>)> = together.chain(alone).collect();
        for (at, names) in runs {
            let Some(program) = self.programs.get(at).filter(|_| !names.is_empty()) else { continue };
            let costs = names.iter().filter_map(|name| reach.tests.get(&(at, (*name).to_owned())));
            match judged(program.command(&names, costs.sum()).env("MUTANT", number.to_string()))? {
                Outcome::Missed => {}
                outcome => return Ok(outcome),
            }
        }
        Ok(Outcome::Missed)
    }

    fn names(program: &Program) -> Result<Vec<String>, String> {
        let mut command = Command::new(&program.executable);
        let output = command.current_dir(&program.dir).args(["--list", "--format", "terse"]).output();
        let output = output.map_err(|e| format!("cannot run {}: {e}", program.executable.display()))?;
        let list = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(list.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }
}

impl Program {
    /// Runs these tests, which took `cost` when no change was on.
    fn command(&self, names: &[&str], cost: Duration) -> Command {
        let mut command = Command::new("sh");
        let script = format!("ulimit -t {}; ulimit -v {MEMORY}; exec \"$@\"", CPU + cost.as_secs());
        command.current_dir(&self.dir).args(["-c", &script, "sh"]).arg(&self.executable);
        command.args(["--test-threads", "1", "--exact"]).args(names);
        command
    }
}

/// Runs tests up to the first that fails. `Missed` if none does.
fn judged(command: &mut Command) -> Result<Outcome, String> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    let (sender, lines) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        thread::spawn(move || {
            BufReader::new(stdout).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
    }
    loop {
        match lines.recv_timeout(PATIENCE) {
            Ok(line) => {
                if let Some(test) = line.strip_prefix("test ").and_then(|line| line.split_once(" ... FAILED")) {
                    stop(&mut child);
                    return Ok(Outcome::Caught(test.0.to_owned()));
                }
            }
            Err(RecvTimeoutError::Timeout) => {
                stop(&mut child);
                return Ok(Outcome::Hung);
            }
            Err(RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait().map_err(|e| format!("cannot wait for {command:?}: {e}"))?;
    if status.success() {
        return Ok(Outcome::Missed);
    }
    // SIGKILL, SIGXCPU: it used all of its processor time. Others: an abort, for example for want of memory.
    let hung = matches!(status.signal(), Some(9 | 24));
    Ok(if hung { Outcome::Hung } else { Outcome::Caught("the end of its program".to_owned()) })
}

fn stop(child: &mut Child) {
    child.kill().ok();
    child.wait().ok();
}
