//! The row of changed code.

use std::path::Path;
use std::process::Command;

use super::Arm;
use crate::run::Log;

/// The least rate, in percent.
const RATE: &str = "90";
const SAMPLE: &str = "185";

/// Whether tests catch changes, and pass where there are none.
pub(super) fn run(root: &Path, log: &Log, seed: u64, paths: &[&str]) -> (Result<Arm, String>, Result<Arm, String>) {
    let own = match std::env::current_exe() {
        Ok(own) => own,
        Err(error) => return (Err(error.to_string()), Err(error.to_string())),
    };
    let mut command = Command::new(own);
    command.args(["mutants", "--seed", &seed.to_string(), "--sample", SAMPLE, "--min-rate", RATE]);
    match log.run(command.current_dir(root).args(paths)) {
        Ok((text, success)) => {
            // Every test is run without a change first, and has to pass.
            let begun = text.lines().any(|line| line.contains(" tests; "));
            let rate = text.lines().rev().find(|line| line.starts_with("seed ")).unwrap_or("broken off");
            let unchanged = if begun { "0 of all tests failed" } else { "broken off" };
            (Ok(Arm { well: success, text: rate.to_owned() }), Ok(Arm { well: begun, text: unchanged.to_owned() }))
        }
        Err(why) => (Err(why.clone()), Err(why)),
    }
}
