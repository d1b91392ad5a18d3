//! Rehearsals and the scorecard: builds `mesh-sim`, optimised, and hands its arguments on.

use std::process::{Command, ExitCode};

/// What runs one of its tasks, in the caller's directory, which paths start at.
pub(crate) fn command(task: &str) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--release", "--package", "mesh-sim"]);
    // What needs sockets is built only for the rows that have them.
    if task == "scorecard" {
        command.args(["--features", "stack"]);
    }
    command.args(["--", task]);
    command
}

/// Runs one of its tasks; its exit code is ours.
pub(crate) fn run(task: &str, args: &[String]) -> ExitCode {
    match command(task).args(args).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("error: cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
