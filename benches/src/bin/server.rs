//! Answers `GET /hello` and `perf.Echo/Unary` on one port, through a choice of stacks.
#![allow(clippy::print_stdout)] // says where it listens

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mesh_benches::{Error, Mode, Pem, plain, tls};
use tokio::net::TcpListener;

/// Answers `GET /hello` with 1 KiB and the gRPC method `perf.Echo/Unary`, on one port.
#[derive(Debug, Parser)]
struct Args {
    /// Where to listen; port 0 takes a free one. The address is printed.
    #[arg(long)]
    listen: SocketAddr,
    /// Which stack answers.
    #[arg(long)]
    mode: Mode,
    /// `mesh.yaml` of mode `mesh`.
    #[arg(long, required_if_eq("mode", "mesh"))]
    config: Option<PathBuf>,
    #[command(flatten)]
    pem: Pem,
}

#[tokio::main]
async fn main() -> ExitCode {
    let error = run(Args::parse()).await.err();
    error.map_or(ExitCode::SUCCESS, |error| {
        eprintln!("bench-server: {error}");
        ExitCode::FAILURE
    })
}

async fn run(args: Args) -> Result<(), Error> {
    let tls = if args.mode == Mode::Mtls { Some(tls::server(&args.pem)?) } else { None };
    let listener =
        TcpListener::bind(args.listen).await.map_err(|e| format!("cannot listen on {}: {e}", args.listen))?;
    let address = listener.local_addr()?;
    match args.mode {
        Mode::Mesh => Err("mode mesh is not wired yet".into()),
        Mode::Bare | Mode::Mtls => {
            println!("listening on {address}");
            Err(plain::serve(listener, tls).await)
        }
    }
}
