//! A bench-idle that goes one step further when it is told to.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

#[derive(Debug)]
pub(super) struct Held {
    child: Child,
    lines: BufReader<ChildStdout>,
}

/// What a process holds at one moment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Look {
    /// Bytes.
    pub(super) resident: f64,
    /// Bytes.
    pub(super) live: f64,
    /// CPU microseconds spent so far.
    pub(super) cpu: f64,
    /// Connections and requests, where the step counts them.
    pub(super) connections: Option<u64>,
    pub(super) requests: Option<u64>,
}

impl Held {
    /// Starts `command`, which holds its end of thousands of connections.
    pub(super) fn start(command: &Command) -> Result<Self, String> {
        let mut limited = with_files(command);
        let started = limited.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.map_err(|e| format!("cannot start {limited:?}: {e}"))?;
        let stdout = child.stdout.take().ok_or("bench-idle has no output")?;
        Ok(Self { child, lines: BufReader::new(stdout) })
    }

    /// The next line of its output.
    pub(super) fn line(&mut self) -> Result<String, String> {
        let mut line = String::new();
        match self.lines.read_line(&mut line) {
            Ok(0) => Err("bench-idle ended early".to_owned()),
            Ok(_) => Ok(line.trim().to_owned()),
            Err(error) => Err(format!("cannot read bench-idle: {error}")),
        }
    }

    /// One step, and what is held after it.
    pub(super) fn step(&mut self) -> Result<Look, String> {
        let stdin = self.child.stdin.as_mut().ok_or("bench-idle has no input")?;
        stdin.write_all(b"\n").map_err(|e| format!("cannot write to bench-idle: {e}"))?;
        let line = self.line()?;
        let look: Value = serde_json::from_str(&line).map_err(|e| format!("bench-idle's line `{line}`: {e}"))?;
        let number = |name: &str| look.get(name).and_then(Value::as_f64).ok_or(format!("bench-idle says no `{name}`"));
        let count = |name: &str| look.get(name).and_then(Value::as_u64);
        Ok(Look {
            resident: number("resident")?,
            live: number("live")?,
            cpu: number("cpu_seconds")? * 1e6,
            connections: count("connections"),
            requests: count("requests"),
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `command` with as many open files as this user may have, where prlimit is there; as it is elsewhere.
fn with_files(command: &Command) -> Command {
    const FILES: &str = "--nofile=16384:";
    let works = Command::new("prlimit").args([FILES, "true"]).stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        let mut same = Command::new(command.get_program());
        same.args(command.get_args());
        return same;
    }
    let mut limited = Command::new("prlimit");
    limited.arg(FILES).arg(command.get_program()).args(command.get_args());
    limited
}
