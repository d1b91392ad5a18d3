//! This program again, in another role, on a core of its own.

use std::path::Path;
use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use crate::Error;

/// Where a role runs.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) cpu: &'static str,
    /// Steps back for others on the same core.
    pub(super) nice: bool,
    pub(super) files: Option<u32>,
}

/// A role that runs. Dropping it kills it.
#[derive(Debug)]
pub(super) struct Process {
    child: Child,
    input: Option<ChildStdin>,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Process {
    /// Starts a role; what it logs goes to `log`.
    pub(super) fn start(place: Place, args: &[String], log: &Path) -> Result<Self, Error> {
        let mut words = vec!["taskset".to_owned(), "-c".to_owned(), place.cpu.to_owned()];
        if place.nice {
            words.extend(["nice", "-n", "10"].map(str::to_owned));
        }
        if let Some(files) = place.files {
            words.extend(["prlimit".to_owned(), format!("--nofile={files}")]);
        }
        words.push(std::env::current_exe()?.display().to_string());
        let (program, rest) = words.split_first().ok_or("no program")?;
        let mut child = Command::new(program)
            .args(rest)
            .args(args)
            .env("RUST_BACKTRACE", "0") // of panics that are wanted
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(std::fs::File::options().create(true).append(true).open(log)?)
            .kill_on_drop(true)
            .spawn()
            .map_err(|e| format!("cannot start {words:?}: {e}"))?;
        let output = child.stdout.take().ok_or("no output")?;
        Ok(Self { input: child.stdin.take(), child, lines: BufReader::new(output).lines() })
    }

    /// The next line that it prints.
    pub(super) async fn line(&mut self) -> Result<String, Error> {
        self.lines.next_line().await?.ok_or_else(|| "a process ended before it had said what it should".into())
    }

    /// The next line, as JSON.
    pub(super) async fn report(&mut self) -> Result<Value, Error> {
        Ok(serde_json::from_str(&self.line().await?)?)
    }

    /// Says something to it.
    pub(super) async fn say(&mut self, line: &str) -> Result<(), Error> {
        let input = self.input.as_mut().ok_or("no input")?;
        input.write_all(line.as_bytes()).await?;
        Ok(input.write_all(b"\n").await?)
    }

    /// User and system time so far, in seconds. (proc(5): fields 14 and 15, in ticks of 1/100 s)
    pub(super) fn cpu_seconds(&self) -> Option<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id()?)).ok()?;
        let (_, rest) = stat.rsplit_once(')')?;
        let ticks = rest.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Some(ticks.sum::<Result<f64, _>>().ok()? / 100.0)
    }
}
