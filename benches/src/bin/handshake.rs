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

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench-handshake: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<(), Error> {
    let handshakes = Handshakes::new(&args.dir).await?;
    handshakes.measure(args.pairs.div_ceil(10))?;
    println!("{}", handshakes.measure(args.pairs)?);
    Ok(())
}
