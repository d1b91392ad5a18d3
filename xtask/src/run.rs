//! Runs one step: its output goes to a log, its verdict to one line.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

/// What a step came to.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Counts {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// What the reader should know beside the numbers, for example what was skipped.
    pub(crate) note: String,
}

impl Counts {
    /// A check that is one thing, and held.
    pub(crate) fn one(note: impl Into<String>) -> Self {
        Self { passed: 1, failed: 0, note: note.into() }
    }
}

/// `Err` carries what to show of a step that failed as a whole.
pub(crate) type Verdict = Result<Counts, String>;

/// Runs steps one after the other and adds them up.
#[derive(Debug)]
pub(crate) struct Runner {
    logs: PathBuf,
    passed: usize,
    failed: usize,
}

impl Runner {
    pub(crate) fn new(root: &Path) -> Self {
        Self { logs: root.join("target/xtask"), passed: 0, failed: 0 }
    }

    /// Runs `step`, prints its line and, when it failed, what it said.
    #[allow(clippy::disallowed_methods)] // a developer's tool reports real seconds
    pub(crate) fn step(&mut self, name: &str, step: impl FnOnce(&Log) -> Verdict) {
        print!("{name:<34} ");
        std::io::stdout().flush().ok();
        let log = Log { path: self.logs.join(format!("{}.log", name.replace([' ', ':', ','], "-"))) };
        let start = Instant::now();
        let (counts, message) = match step(&log) {
            Ok(counts) if counts.failed == 0 => (counts, None),
            Ok(counts) => (counts, Some(log.read())),
            Err(message) => (Counts { failed: 1, ..Counts::default() }, Some(message)),
        };
        let verdict = if counts.failed == 0 { "ok" } else { "FAILED" };
        let seconds = start.elapsed().as_secs_f64();
        println!(
            "{verdict:<6} {seconds:>7.1} s  {:>4} passed {:>2} failed  {}",
            counts.passed, counts.failed, counts.note
        );
        if let Some(message) = message {
            println!("---- {name}\n{}\n----", message.trim_end());
        }
        self.passed += counts.passed;
        self.failed += counts.failed;
    }

    /// Prints the last line; true if nothing failed and something ran.
    pub(crate) fn finish(self) -> bool {
        println!("{} passed, {} failed", self.passed, self.failed);
        self.failed == 0 && self.passed > 0
    }
}

/// Where the commands of one step write.
#[derive(Debug)]
pub(crate) struct Log {
    path: PathBuf,
}

impl Log {
    /// Below the workspace's target directory.
    pub(crate) fn new(root: &Path, name: &str) -> Self {
        Self { path: root.join("target/xtask").join(format!("{name}.log")) }
    }

    /// Runs `command` with its output in the log; the text, and whether it succeeded.
    pub(crate) fn run(&self, command: &mut Command) -> Result<(String, bool), String> {
        let io = |e: std::io::Error| format!("cannot write {}: {e}", self.path.display());
        if let Some(parent) = self.path.parent() {
            fs::create_dir_all(parent).map_err(io)?;
        }
        let file = File::create(&self.path).map_err(io)?;
        let copy = file.try_clone().map_err(io)?;
        let status = command
            .env("CARGO_TERM_COLOR", "never")
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(copy)
            .status()
            .map_err(|e| format!("cannot run {command:?}: {e}"))?;
        Ok((self.read(), status.success()))
    }

    /// Runs `command`; a failure is the step's failure.
    pub(crate) fn must(&self, command: &mut Command) -> Result<String, String> {
        let (text, success) = self.run(command)?;
        if success { Ok(text) } else { Err(format!("{command:?}\n{text}")) }
    }

    fn read(&self) -> String {
        fs::read(&self.path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }
}

/// `cargo` as it was called, at the workspace root.
pub(crate) fn cargo(root: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root).args(args);
    command
}
