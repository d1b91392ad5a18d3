//! Rehearsals and the scorecard: builds `mesh-sim`, optimised, and hands its arguments on.

use std::process::{Command, ExitCode};

/// Runs one of its tasks, in the caller's directory, which paths start at; its exit code is ours.
pub(crate) fn run(task: &str, args: &[String]) -> ExitCode {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(["run", "--quiet", "--release", "--package", "mesh-sim"]);
    // What needs sockets is built only for the rows that have them.
    if task == "scorecard" {
        command.args(["--features", "stack"]);
    }
    match command.args(["--", task]).args(args).status() {
        Ok(status) => status.code().and_then(|code| u8::try_from(code).ok()).map_or(ExitCode::FAILURE, ExitCode::from),
        Err(error) => {
            eprintln!("error: cannot run cargo: {error}");
            ExitCode::FAILURE
        }
    }
}
