//! The developer's hand: proves the workspace, installs real peers, prepares benches.
#![allow(clippy::print_stdout)] // a command line tool speaks on stdout

mod bench;
mod bench_setup;
mod count;
mod dos;
mod examples;
mod features;
mod fuzz;
mod imports;
mod mutants;
mod peers;
mod run;
mod scorecard;
mod simulate;
mod sizes;
mod suite;
mod summaries;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Proves the workspace, installs real peers, prepares benches")]
struct Cli {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Runs every check and test; the last line is `N passed, N failed`.
    Test {
        /// Runs only these steps (see --list); may be repeated.
        #[arg(long, value_name = "STEP")]
        only: Vec<String>,
        /// Names the steps and stops.
        #[arg(long)]
        list: bool,
    },
    /// Installs the real peers below target/peers and prints where they are.
    Peers,
    /// Writes certificates, keys, a token and configurations for bench-server and bench-client.
    BenchSetup {
        /// Where to write; made if it is missing.
        dir: PathBuf,
        /// Where bench-server will listen.
        #[arg(long, default_value = "127.0.0.1:8443")]
        address: std::net::SocketAddr,
    },
    /// Measures mesh against mtls side by side with the release binaries; prints a table of medians.
    Bench {
        /// Seconds of each run.
        #[arg(long, default_value_t = 4.0)]
        secs: f64,
        /// Runs of each arm, one after the other in turn.
        #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Only these protocols (h1, h2, grpc); may be repeated.
        #[arg(long)]
        proto: Vec<String>,
    },
    /// Measures handshakes and idle HTTP/2 connections, mesh beside bare hyper and rustls; prints tables of medians.
    BenchConnections {
        /// Connections held at once; may be repeated. Default 1,000 and 5,000.
        #[arg(long)]
        conns: Vec<usize>,
        /// Runs of each arm, in turn.
        #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
        rounds: u16,
        /// Handshakes of each arm, in turn.
        #[arg(long, default_value_t = 5000)]
        pairs: usize,
    },
    /// Measures requests beside an audit sink that is dead or whose disk is full; prints a table of medians.
    BenchAudit {
        /// Requests in flight.
        #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
        conc: u16,
        /// Turns of each server.
        #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u16).range(1..=10_000))]
        rounds: u16,
        /// Seconds of each turn.
        #[arg(long, default_value_t = 0.5)]
        secs: f64,
    },
    /// Attacks a server with honest callers beside it; prints a table, and fails if an attack was not borne.
    Dos {
        /// `--attack NAME`, `--rounds N`, `--secs S`, `--scale X`, `--no-latency`, `--verbose`: see `dos table --help`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<String>,
    },
    /// Plays a scenario with the shipped algorithms in virtual time: what would become of its requests (docs/simulation.md).
    Sim {
        /// The scenario, then `--seed N`, `--json`.
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
        args: Vec<String>,
    },
    /// Proves what reliability rests on: each row with many seeds, and its control arm, which has to fail.
    Scorecard(scorecard::Options),
    /// Changes the code in small ways, and counts how many changes the tests catch.
    Mutants(mutants::Options),
}

fn main() -> ExitCode {
    let root = workspace_root();
    match Cli::parse().task {
        Task::Test { list: true, .. } => {
            suite::names().for_each(|name| println!("{name}"));
            ExitCode::SUCCESS
        }
        Task::Test { only, .. } => suite::run(&root, &only),
        Task::Peers => finish(peers::install(&root).map(|found| found.iter().for_each(|line| println!("{line}")))),
        Task::Bench { secs, rounds, proto } => finish(bench::run(&root, secs, rounds, &proto)),
        Task::BenchConnections { conns, rounds, pairs } => {
            let conns = if conns.is_empty() { &[1000, 5000] } else { conns.as_slice() };
            finish(bench::connections(&root, conns, rounds, pairs))
        }
        Task::BenchAudit { conc, rounds, secs } => finish(bench::audit(&root, conc, rounds, secs)),
        Task::Dos { args } => finish(dos::run(&root, &args)),
        Task::Sim { args } => simulate::run("sim", &args),
        Task::Scorecard(options) => scorecard::run(&root, &options),
        Task::Mutants(options) => finish(mutants::run(&root, &options)),
        Task::BenchSetup { dir, address } => finish(bench_setup::write(&dir, address).map(|usage| println!("{usage}"))),
    }
}

fn finish(result: Result<(), String>) -> ExitCode {
    result.map_or_else(
        |message| {
            eprintln!("error: {message}");
            ExitCode::FAILURE
        },
        |()| ExitCode::SUCCESS,
    )
}

fn workspace_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_path_buf()
}
