//! Requests of servers whose audit sinks take everything, take nothing, or never return; prints a table.
#![allow(clippy::print_stdout)] // the report

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::mpsc;
use std::time::Duration;

use clap::Parser;
use clap::builder::RangedU64ValueParser;
use http::HeaderMap;
use mesh_benches::client::{Load, MeshTarget, Report, drive};
use mesh_benches::{Error, Proto, app};
use mesh_core::audit::{AuditLine, AuditSink, FileSink};
use mesh_tower::Mesh;
use tokio::net::TcpListener;

/// What a dead audit sink costs a request: four servers in this process, the same but for the sink, over loopback in turn.
/// Prints a table: medians of the percentiles of each turn, and of their ratios to the healthy one's of the same round.
#[derive(Debug, Parser)]
struct Args {
    /// What `cargo xtask bench-setup` wrote.
    #[arg(long)]
    dir: PathBuf,
    /// Requests in flight.
    #[arg(long, default_value_t = 1, value_parser = RangedU64ValueParser::<usize>::new().range(1..=65_535))]
    conc: usize,
    /// Turns of each server.
    #[arg(long, default_value_t = 60, value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    rounds: usize,
    /// Seconds of each turn.
    #[arg(long, default_value_t = 0.5)]
    secs: f64,
}

fn main() -> ExitCode {
    let run = || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        let result = runtime.block_on(run(&Args::parse()));
        // One sink never returns.
        runtime.shutdown_background();
        result
    };
    let error: Option<Error> = run().err();
    error.map_or(ExitCode::SUCCESS, |error| {
        eprintln!("bench-audit: {error}");
        ExitCode::FAILURE
    })
}

/// Takes nothing and does not return.
#[derive(Debug)]
struct Dead(mpsc::Receiver<()>);

impl AuditSink for Dead {
    fn write(&mut self, _lines: &[AuditLine]) -> io::Result<()> {
        let _ = self.0.recv();
        Err(io::Error::other("dead"))
    }
}

struct Arm {
    name: &'static str,
    server: Mesh,
    client: MeshTarget,
    turns: Vec<Report>,
}

impl Arm {
    async fn start(name: &'static str, dir: &Path, sink: Box<dyn AuditSink>) -> Result<Self, Error> {
        let server = Mesh::builder().config_file(dir.join("server.yaml")).audit_sink(sink).start().await?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("https://{}/hello", listener.local_addr()?).parse()?;
        tokio::spawn(mesh_tower::serve(&server, listener, app::http()).into_future());
        let client = MeshTarget::start(&dir.join("client.yaml"), "bench", url, HeaderMap::new(), Proto::H2, 1).await?;
        Ok(Self { name, server, client, turns: Vec::new() })
    }

    async fn ask(&self, conc: usize, seconds: f64) -> Result<Report, Error> {
        let (warmup, duration) = (Duration::from_millis(50), Duration::try_from_secs_f64(seconds)?);
        let report = drive(self.client.http(conc), Load { warmup, duration, with_pid: None }).await?.report();
        match &report.first_error {
            Some(error) => Err(format!("{}: {} of the requests failed: {error}", self.name, report.errors).into()),
            None => Ok(report),
        }
    }

    fn lost(&self) -> u64 {
        self.server.audit().lost()
    }
}

async fn run(args: &Args) -> Result<(), Error> {
    let dir = args.dir.join("audit");
    fs::create_dir_all(&dir)?;
    let file = |name: &str| -> Result<Box<FileSink>, Error> {
        let path = dir.join(name);
        if path.exists() {
            fs::remove_file(&path)?;
        }
        Ok(Box::new(FileSink::new(path)))
    };
    let (_alive, told) = mpsc::channel();
    let mut arms = [
        Arm::start("healthy", &args.dir, file("a.jsonl")?).await?,
        Arm::start("healthy too", &args.dir, file("b.jsonl")?).await?,
        Arm::start("dead", &args.dir, Box::new(Dead(told))).await?,
        Arm::start("full disk", &args.dir, Box::new(FileSink::new("/dev/full"))).await?,
    ];
    // Fills the queue behind the dead sink.
    for arm in &arms {
        arm.ask(8, 2.0).await?;
    }
    for round in 0..args.rounds {
        let count = arms.len();
        for turn in 0..count {
            // Each arm goes first as often as any other.
            let Some(arm) = arms.get_mut((round + turn) % count) else { continue };
            let report = arm.ask(args.conc, args.secs).await?;
            arm.turns.push(report);
        }
    }
    let [healthy, too, dead, full] = &arms;
    if (healthy.lost(), too.lost()) != (0, 0) || dead.lost() == 0 || full.lost() == 0 {
        return Err("the healthy sinks lost records, or the others lost none: nothing was compared".into());
    }
    println!(
        "| sink | in flight | requests | lost | p50 us | ratio | p99 us | ratio |\n|---|---|---|---|---|---|---|---|"
    );
    for arm in &arms {
        let of = |of: fn(&Report) -> f64| median(arm.turns.iter().map(of).collect());
        let ratio = |of: fn(&Report) -> f64| {
            median(arm.turns.iter().zip(&healthy.turns).map(|(own, healthy)| of(own) / of(healthy)).collect())
        };
        let requests: u64 = arm.turns.iter().map(|turn| turn.requests).sum();
        println!(
            "| {} | {} | {requests} | {} | {:.1} | {:.3} | {:.1} | {:.3} |",
            arm.name,
            args.conc,
            arm.lost(),
            of(|turn| turn.p50),
            ratio(|turn| turn.p50),
            of(|turn| turn.p99),
            ratio(|turn| turn.p99),
        );
    }
    Ok(())
}

/// The middle of what there is, the lower one of two; NaN of nothing.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len().saturating_sub(1) / 2).copied().unwrap_or(f64::NAN)
}
