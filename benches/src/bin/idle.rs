//! Holds idle HTTP/2 connections through a choice of stacks, as a server or as a client, and says what it holds.
#![allow(clippy::print_stdout)] // the report

use std::alloc::System;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cap::Cap;
use clap::{Parser, Subcommand};
use http::HeaderMap;
use mesh_benches::idle::{Bare, Meshed};
use mesh_benches::{Error, Mode, app, memory, plain, spiffe};
use mesh_tower::Mesh;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines, Stdin};
use tokio::net::TcpListener;

/// Counts what is live; what it adds to an allocation is two atomics and no byte.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Holds idle HTTP/2 connections. For each line on standard input it goes one step further and prints what it holds then;
/// it ends with its input.
#[derive(Debug, Parser)]
struct Args {
    /// What `cargo xtask bench-setup` wrote.
    #[arg(long)]
    dir: PathBuf,
    /// Which stack.
    #[arg(long)]
    mode: Mode,
    #[command(subcommand)]
    side: Side,
}

#[derive(Debug, Subcommand)]
enum Side {
    /// Serves `GET /hello`; prints where.
    Serve {
        /// Where to listen; port 0 takes a free one.
        #[arg(long)]
        listen: SocketAddr,
    },
    /// Connects to as many addresses of this machine as there are to be connections, in three steps: connected to a few,
    /// knowing all (which is a step of the mesh alone), and connected to all after a request to each.
    Open {
        /// Where the server listens, on every address of this machine.
        #[arg(long)]
        port: u16,
        /// How many connections.
        #[arg(long)]
        conns: usize,
        /// Requests over each connection; the mesh sends what its balancer needs to reach every endpoint.
        #[arg(long, default_value_t = 1)]
        requests: usize,
    },
}

/// Connections before the measured ones, so that what a process needs for connections at all is there.
const FIRST: usize = 64;

#[tokio::main]
async fn main() -> ExitCode {
    let error = run(Args::parse()).await.err();
    error.map_or(ExitCode::SUCCESS, |error| {
        eprintln!("bench-idle: {error}");
        ExitCode::FAILURE
    })
}

async fn run(args: Args) -> Result<(), Error> {
    let mut steps = Steps(BufReader::new(tokio::io::stdin()).lines());
    match (args.side, args.mode) {
        (_, Mode::Bare) => Err("connections without TLS are not measured".into()),
        (Side::Serve { listen }, mode) => serve(&args.dir, mode, listen, steps).await,
        (Side::Open { port, conns, requests }, Mode::Mtls) => {
            let mut held = Bare::new(&args.dir, headers(&args.dir)?)?;
            held.open(port, FIRST, requests).await?;
            steps.next(&[]).await?;
            steps.next(&[]).await?;
            held.open(port, conns, requests).await?;
            settle().await;
            let connections = held.connections().saturating_sub(FIRST);
            steps.next(&[("connections", connections), ("requests", connections * requests)]).await?;
            steps.end().await
        }
        (Side::Open { port, conns, .. }, Mode::Mesh) => {
            let mut held = Meshed::new(&args.dir, port).await?;
            held.announce(FIRST).await;
            held.open().await?;
            let first = held.requests();
            steps.next(&[]).await?;
            held.announce(conns).await;
            steps.next(&[]).await?;
            held.open().await?;
            settle().await;
            let connections = held.connections().saturating_sub(FIRST);
            steps.next(&[("connections", connections), ("requests", held.requests() - first)]).await?;
            steps.end().await
        }
    }
}

/// What the mesh's client puts on each request beside its trace.
fn headers(dir: &Path) -> Result<HeaderMap, Error> {
    let mut headers = HeaderMap::new();
    // Without a token none is sent: a certificate may be all that the other side asks for.
    if let Ok(token) = std::fs::read_to_string(dir.join("token.jwt")) {
        let mut token: http::HeaderValue = format!("Bearer {}", token.trim()).parse()?;
        token.set_sensitive(true);
        headers.insert(http::header::AUTHORIZATION, token);
    }
    headers.insert("x-envoy-expected-rq-timeout-ms", "2000".parse()?);
    Ok(headers)
}

/// Connections have said all they had to say, and what they needed for it is given back.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(500)).await;
}

async fn serve(dir: &Path, mode: Mode, listen: SocketAddr, mut steps: Steps) -> Result<(), Error> {
    let listener = TcpListener::bind(listen).await.map_err(|e| format!("cannot listen on {listen}: {e}"))?;
    let address = listener.local_addr()?;
    if mode == Mode::Mesh {
        let mesh = Mesh::builder().config_file(dir.join("server.yaml")).start().await?;
        tokio::spawn(async move { mesh_tower::serve(&mesh, listener, app::http()).await });
    } else {
        tokio::spawn(plain::serve(listener, Some(spiffe::server(&spiffe::pem(dir, "server"))?)));
    }
    println!("listening on {address}");
    while steps.next(&[]).await? {}
    Ok(())
}

/// The lines of standard input, each answered with what this process holds.
struct Steps(Lines<BufReader<Stdin>>);

impl Steps {
    /// Waits for a line; `false` at the end of the input.
    async fn next(&mut self, counts: &[(&str, usize)]) -> Result<bool, Error> {
        if self.0.next_line().await?.is_none() {
            return Ok(false);
        }
        let mut held = memory::look(ALLOCATOR.allocated());
        for (name, count) in counts {
            if let Some(held) = held.as_object_mut() {
                held.insert((*name).to_owned(), Value::from(*count));
            }
        }
        println!("{held}");
        Ok(true)
    }

    async fn end(&mut self) -> Result<(), Error> {
        while self.0.next_line().await?.is_some() {}
        Ok(())
    }
}
