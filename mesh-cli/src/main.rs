//! `mesh`: the operator's hand.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | yes: valid, allowed, done |
//! | 1 | no: invalid, denied, not an SVID |
//! | 2 | the command line is wrong |
//! | 3 | something could not be read or written |
//!
//! The codes and the fields of `--json` are stable: scripts may build on them. Text is for people and may change.

mod answer;
mod check;
mod cli;
mod dev_ca;
mod explain;
mod load;
mod svid;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use answer::{Answer, Failure};
use cli::{Cli, Command, DevCaCommand, SvidCommand};

fn main() -> ExitCode {
    let cli = Cli::parse();
    match run(&cli.command) {
        Ok(answer) => {
            say(if cli.json { answer.to_json() } else { answer.text });
            ExitCode::from(if answer.yes { 0 } else { 1 })
        }
        Err(failure) => {
            if cli.json {
                say(failure.to_json());
            }
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

/// A reader that has seen enough (`mesh explain | head`) is no error.
fn say(mut text: String) {
    text.push('\n');
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn run(command: &Command) -> Result<Answer, Failure> {
    match command {
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Svid(SvidCommand::Inspect(args)) => svid::inspect(args),
        Command::DevCa(DevCaCommand::Init(args)) => dev_ca::init(args),
        Command::DevCa(DevCaCommand::Issue(args)) => dev_ca::issue(args),
    }
}
