//! `mesh`: the operator's hand.
//!
//! | exit code | meaning |
//! |---|---|
//! | 0 | yes: valid, allowed, done |
//! | 1 | no: invalid, denied, not an SVID |
//! | 2 | the command line is wrong |
//! | 3 | something could not be read or written |
//!
//! `policy diff` tells a difference, 1, from whatever else went wrong, 2.
//!
//! The codes and the fields of `--json` are stable: scripts may build on them. Text is for people and may change.

mod answer;
mod audit;
mod check;
mod claims;
mod cli;
mod dev_ca;
mod explain;
mod findings;
mod id;
mod lines;
mod load;
mod policy;
mod svid;
mod token;
mod verify;

use std::io::Write as _;
use std::process::ExitCode;

use clap::Parser as _;

use answer::{Failure, Said};
use cli::{AuditCommand, Cli, Command, DevCaCommand, IdCommand, SvidCommand, TokenCommand};

fn main() -> ExitCode {
    let cli = Cli::parse_from(cli::spelled_out(std::env::args_os()));
    match run(&cli.command) {
        Ok(Said::Answer(answer)) => {
            say(if cli.json { answer.to_json() } else { answer.text });
            exit(answer.yes)
        }
        Ok(Said::Lines { yes }) => exit(yes),
        Ok(Said::Code(code)) => ExitCode::from(code),
        Err(failure) => {
            if cli.json {
                say(failure.to_json());
            }
            eprintln!("error: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

fn exit(yes: bool) -> ExitCode {
    ExitCode::from(if yes { 0 } else { 1 })
}

/// A reader that has seen enough (`mesh explain | head`) is no error.
fn say(mut text: String) {
    text.push('\n');
    let _ = std::io::stdout().write_all(text.as_bytes());
}

fn run(command: &Command) -> Result<Said, Failure> {
    let answer = match command {
        Command::Check(args) => check::run(args),
        Command::Explain(args) => explain::run(args),
        Command::Svid(SvidCommand::Inspect(args)) => svid::inspect(args),
        Command::Svid(SvidCommand::Verify(args)) => return verify::run(args),
        Command::Policy(command) => return policy::run(command),
        Command::Id(IdCommand::Check(args)) => return id::run(args),
        Command::Token(TokenCommand::Verify(args)) => return token::run(args),
        Command::Audit(AuditCommand::Verify(args)) => audit::verify(args),
        Command::DevCa(DevCaCommand::Init(args)) => dev_ca::init(args),
        Command::DevCa(DevCaCommand::Issue(args)) => dev_ca::issue(args),
        Command::DevCa(DevCaCommand::Rotate(args)) => dev_ca::rotate(args),
    };
    answer.map(Said::Answer)
}
