//! A closed-loop load generator through a choice of stacks; prints one JSON line.
#![allow(clippy::print_stdout)] // the report

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use http::{HeaderMap, HeaderName, HeaderValue, Uri};
use mesh_benches::client::{Load, Measured, MeshTarget, PlainTarget, drive};
use mesh_benches::{Error, Mode, Pem, Proto, tls};

/// A closed-loop load generator; prints one JSON line: requests, errors, rps, percentiles in microseconds, cpu_seconds.
#[derive(Debug, Parser)]
struct Args {
    /// For example `https://127.0.0.1:8443/hello`; for gRPC the path does not matter.
    #[arg(long)]
    url: Uri,
    /// What is spoken.
    #[arg(long)]
    proto: Proto,
    /// Which stack calls.
    #[arg(long)]
    mode: Mode,
    /// `mesh.yaml` of mode `mesh`.
    #[arg(long, required_if_eq("mode", "mesh"))]
    config: Option<PathBuf>,
    /// The service to call in mode `mesh`.
    #[arg(long, required_if_eq("mode", "mesh"))]
    service: Option<String>,
    /// Requests in flight.
    #[arg(long, default_value_t = 1)]
    conc: usize,
    /// HTTP/2 connections they share; HTTP/1.1 opens one for each request in flight.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..))]
    conns: u16,
    /// Seconds that are measured.
    #[arg(long, default_value_t = 10.0)]
    secs: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 2.0)]
    warmup: f64,
    /// Adds the CPU time of this process, the server's say, to cpu_seconds.
    #[arg(long, value_name = "PID")]
    with_pid: Option<u32>,
    /// Goes on every request; may be repeated.
    #[arg(long, value_name = "K:V", value_parser = header)]
    header: Vec<(HeaderName, HeaderValue)>,
    #[command(flatten)]
    pem: Pem,
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("expected NAME:VALUE")?;
    let name = name.trim().parse().map_err(|e| format!("{name}: {e}"))?;
    let mut value: HeaderValue = value.trim().parse().map_err(|e| format!("value of {name}: {e}"))?;
    // As HTTP clients mark it: HPACK then keeps it out of its tables. (RFC 7541 7.1.3)
    value.set_sensitive(name == http::header::AUTHORIZATION);
    Ok((name, value))
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Args::parse()).await {
        Ok(measured) => {
            println!("{}", measured.report().to_json());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("bench-client: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: Args) -> Result<Measured, Error> {
    let load = Load { warmup: seconds(args.warmup)?, duration: seconds(args.secs)?, with_pid: args.with_pid };
    let headers: HeaderMap = args.header.into_iter().collect();
    let (proto, concurrency, connections) = (args.proto, args.conc, usize::from(args.conns));
    let tls = match args.mode {
        Mode::Mesh => {
            let (Some(config), Some(service)) = (args.config, args.service) else {
                return Err("mode mesh needs --config and --service".into());
            };
            let target = MeshTarget::start(&config, &service, args.url, headers, proto, connections).await?;
            return match proto {
                Proto::Grpc => drive(target.grpc(concurrency), load).await,
                Proto::H1 | Proto::H2 => drive(target.http(concurrency), load).await,
            };
        }
        Mode::Bare => None,
        Mode::Mtls if proto == Proto::H1 => Some(tls::client(&args.pem, b"http/1.1")?),
        Mode::Mtls => Some(tls::client(&args.pem, b"h2")?),
    };
    let target = PlainTarget::new(args.url, headers, tls);
    match proto {
        Proto::Grpc => drive(target.grpc(concurrency, connections).await?, load).await,
        Proto::H1 | Proto::H2 => drive(target.http(proto, concurrency, connections).await?, load).await,
    }
}

fn seconds(seconds: f64) -> Result<Duration, Error> {
    Duration::try_from_secs_f64(seconds).map_err(|e| format!("{seconds} seconds: {e}").into())
}
