//! A bench-server that lives as long as its handle.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};

#[derive(Debug)]
pub(super) struct Server {
    child: Child,
    pub(super) address: String,
}

impl Server {
    /// Starts it and waits until it says where it listens.
    pub(super) fn start(mut command: Command) -> Result<Self, String> {
        let mut child = command.stdout(Stdio::piped()).spawn().map_err(|e| format!("cannot start {command:?}: {e}"))?;
        let mut line = String::new();
        if let Some(stdout) = child.stdout.take() {
            BufReader::new(stdout).read_line(&mut line).map_err(|e| format!("cannot read {command:?}: {e}"))?;
        }
        let mut server = Self { child, address: String::new() };
        let address = line.trim().strip_prefix("listening on ").ok_or(format!("{command:?} did not listen"))?;
        address.clone_into(&mut server.address);
        Ok(server)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// `program` on the named CPU where taskset is there, and as it is elsewhere.
pub(super) fn pinned(program: &Path, cpu: Option<&str>) -> Command {
    let works = |cpu: &&str| {
        let probe = Command::new("taskset").args(["-c", cpu, "true"]).stderr(Stdio::null()).status();
        probe.is_ok_and(|status| status.success())
    };
    let Some(cpu) = cpu.filter(works) else { return Command::new(program) };
    let mut command = Command::new("taskset");
    command.args(["-c", cpu]).arg(program);
    command
}
