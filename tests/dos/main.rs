//! Denial of service over real sockets: a victim, an attacker and an honest caller, each a process of its own.
//!
//! `cargo xtask dos` builds this program and starts it as `dos table`, which starts it again in the three other roles,
//! on cores that keep the victim apart from the two others, and prints a row for each attack of [`plan`].
#![allow(clippy::print_stdout)] // reports, one JSON line each, and the table

mod attack;
mod calls;
mod memory;
mod peer;
mod plan;
mod table;
mod victim;

use std::process::ExitCode;

use clap::Parser;

/// What may go wrong; told to the user and the end of the process.
type Error = Box<dyn std::error::Error + Send + Sync>;

/// Denial-of-service attacks on a mesh server, and what they cost those who call it honestly.
#[derive(Debug, Parser)]
enum Role {
    /// A mesh server that says how many bytes live in it.
    Victim(victim::Args),
    /// One attack at a fixed rate.
    Attack(attack::Args),
    /// Honest requests at a fixed rate.
    Calls(calls::Args),
    /// Every attack against a victim, with honest calls beside it; a table.
    Table(table::Args),
}

fn main() -> ExitCode {
    let role = Role::parse();
    let mut runtime = match role {
        Role::Victim(_) => tokio::runtime::Builder::new_multi_thread(),
        // One thread: these share a core.
        _ => tokio::runtime::Builder::new_current_thread(),
    };
    let result = runtime.enable_all().build().map_err(Error::from).and_then(|runtime| {
        runtime.block_on(async {
            match role {
                Role::Victim(args) => victim::run(args).await.map(|()| true),
                Role::Attack(args) => attack::run(args).await.map(|()| true),
                Role::Calls(args) => calls::run(args).await.map(|()| true),
                Role::Table(args) => table::run(args).await,
            }
        })
    });
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("dos: {error}");
            ExitCode::FAILURE
        }
    }
}
