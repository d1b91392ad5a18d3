//! Full mutual handshakes of the mesh beside those of bare rustls; prints one JSON line.
#![allow(clippy::print_stdout)] // the report

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mesh_benches::Error;
use mesh_benches::handshake::Handshakes;

/// Full mutual handshakes in memory; prints one JSON line: medians in microseconds of both arms, and their ratios.
#[derive(Debug, Parser)]
struct Args {
    /// What `cargo xtask bench-setup` wrote.
    #[arg(long)]
    dir: PathBuf,
    /// Handshakes of each arm, in turn.
    #[arg(long, default_value_t = 2000)]
    pairs: usize,
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-handshake: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let handshakes = runtime.block_on(Handshakes::new(&args.dir))?;
    // Outside of the runtime: nothing of it runs meanwhile, and it does not make a long task yield.
    handshakes.measure(args.pairs.div_ceil(10))?;
    println!("{}", handshakes.measure(args.pairs)?);
    Ok(())
}
