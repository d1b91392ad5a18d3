//! Answers `GET /hello` and `perf.Echo/Unary` on one port, through a choice of stacks.
#![allow(clippy::print_stdout)] // says where it listens

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use mesh_benches::{Error, Mode, Pem, app, plain, tls};
use mesh_tower::Mesh;
use rustls::ServerConfig;
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

enum Stack {
    Plain(Option<Arc<ServerConfig>>),
    Mesh(Mesh),
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
    let stack = match (args.mode, args.config) {
        (Mode::Bare, _) => Stack::Plain(None),
        (Mode::Mtls, _) => Stack::Plain(Some(tls::server(&args.pem)?)),
        (Mode::Mesh, Some(config)) => Stack::Mesh(Mesh::builder().config_file(config).start().await?),
        (Mode::Mesh, None) => return Err("mode mesh needs --config".into()),
    };
    let listener =
        TcpListener::bind(args.listen).await.map_err(|e| format!("cannot listen on {}: {e}", args.listen))?;
    println!("listening on {}", listener.local_addr()?);
    match stack {
        Stack::Plain(tls) => Err(plain::serve(listener, tls).await),
        // The socket is the flag's; limits and timeouts are those of the listener `default`.
        Stack::Mesh(mesh) => {
            Ok(mesh_tower::serve(&mesh, listener, app::http()).grpc(mesh_tonic::router(app::grpc())).await?)
        }
    }
}
