//! What connections cost: handshakes in memory, then idle HTTP/2 connections held by thousands, mesh beside bare.

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use super::held::{Held, Look};
use super::server::pinned;
use super::table::median;
use crate::bench_setup;

const HANDSHAKES: &str = "\
| full mutual handshake | us bare | mesh | ratio |
|---|---|---|---|";

const IDLE: &str = "\
| side | connections | KiB resident bare | mesh | ratio | KiB live bare | mesh | ratio | CPU us each bare | mesh | ratio |
|---|---|---|---|---|---|---|---|---|---|---|";

/// Measures and prints two tables of medians.
pub(crate) fn run(root: &Path, connections: &[usize], rounds: u16, pairs: usize) -> Result<(), String> {
    super::build(root)?;
    let bench = Bench { bin: root.join("target/release"), dir: root.join("target/bench") };
    bench_setup::write(&bench.dir, ([127, 0, 0, 1], 8443).into())?;
    println!("{HANDSHAKES}");
    bench.handshakes(pairs)?;
    println!("\n{IDLE}");
    let mut endpoints = Vec::new();
    for &count in connections {
        let (mut servers, mut clients) = (Vec::new(), Vec::new());
        for _ in 0..rounds {
            servers.push([bench.server("mtls", count)?, bench.server("mesh", count)?]);
            // The balancer needs more than one request for each endpoint; the bare client sends as many.
            let (mesh, endpoint) = bench.client("mesh", count, 1)?;
            let (bare, _) = bench.client("mtls", count, mesh.requests)?;
            clients.push([bare, mesh]);
            endpoints.push(endpoint);
        }
        println!("{}", row("server", count, &servers));
        println!("{}", row("client", count, &clients));
    }
    println!("\nbytes of an endpoint without a connection: {:.0} live", median(endpoints));
    Ok(())
}

/// What each connection added.
#[derive(Debug, Clone, Copy)]
struct Each {
    /// KiB.
    resident: f64,
    /// KiB.
    live: f64,
    /// Microseconds.
    cpu: f64,
    /// Requests over each, rounded.
    requests: usize,
}

impl Each {
    fn between(before: Look, after: Look, count: usize) -> Self {
        let each = |bytes: f64| bytes / count as f64;
        let requests = after.requests.unwrap_or(0) as f64;
        Self {
            resident: each(after.resident - before.resident) / 1024.0,
            live: each(after.live - before.live) / 1024.0,
            cpu: each(after.cpu - before.cpu),
            requests: (each(requests).round() as usize).max(1),
        }
    }
}

fn row(side: &str, count: usize, rounds: &[[Each; 2]]) -> String {
    let figures = [|each: &Each| each.resident, |each: &Each| each.live, |each: &Each| each.cpu].map(|of| {
        let of = |figure: fn(f64, f64) -> f64| {
            median(rounds.iter().map(|[bare, mesh]| figure(of(bare), of(mesh))).collect())
        };
        format!("{:.1} | {:.1} | {:.2}", of(|bare, _| bare), of(|_, mesh| mesh), of(|bare, mesh| mesh / bare))
    });
    format!("| {side} | {count} | {} |", figures.join(" | "))
}

#[derive(Debug)]
struct Bench {
    bin: PathBuf,
    dir: PathBuf,
}

impl Bench {
    fn handshakes(&self, pairs: usize) -> Result<(), String> {
        let mut command = pinned(&self.bin.join("bench-handshake"), Some("1"));
        command.arg("--dir").arg(&self.dir).args(["--pairs", &pairs.to_string()]);
        let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
        if !output.status.success() {
            return Err(format!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let line: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("bench-handshake's line: {e}"))?;
        for side in ["client", "server", "both"] {
            let figure =
                |arm: &str| line.get(arm).and_then(|arm| arm.get(side)).and_then(Value::as_f64).unwrap_or(f64::NAN);
            println!("| {side} | {:.1} | {:.1} | {:.3} |", figure("bare"), figure("mesh"), figure("ratio"));
        }
        Ok(())
    }

    fn idle(&self, mode: &str, side: &str, args: &[&str]) -> Result<Held, String> {
        let mut command = Command::new(self.bin.join("bench-idle"));
        command.arg("--dir").arg(&self.dir).args(["--mode", mode, side]).args(args);
        Held::start(&command)
    }

    /// A server, and the port on which it listens on every address of this machine.
    fn serve(&self, mode: &str) -> Result<(Held, String), String> {
        let mut server = self.idle(mode, "serve", &["--listen", "0.0.0.0:0"])?;
        let line = server.line()?;
        let port = line.rsplit_once(':').map(|(_, port)| port.to_owned()).ok_or(format!("no port in `{line}`"))?;
        Ok((server, port))
    }

    fn open(&self, mode: &str, port: &str, count: usize, requests: usize) -> Result<Held, String> {
        let (count, requests) = (count.to_string(), requests.to_string());
        self.idle(mode, "open", &["--port", port, "--conns", &count, "--requests", &requests])
    }

    /// What a connection costs the server of `mode`; its client is bare.
    fn server(&self, mode: &str, count: usize) -> Result<Each, String> {
        let (mut server, port) = self.serve(mode)?;
        let mut client = self.open("mtls", &port, count, 1)?;
        client.step()?;
        let before = server.step()?;
        client.step()?;
        all_held(client.step()?, count)?;
        Ok(Each::between(before, server.step()?, count))
    }

    /// What a connection costs the client of `mode`, and the bytes of an endpoint that it only knows; its server is bare.
    fn client(&self, mode: &str, count: usize, requests: usize) -> Result<(Each, f64), String> {
        let (_server, port) = self.serve("mtls")?;
        let mut client = self.open(mode, &port, count, requests)?;
        let start = client.step()?;
        let known = client.step()?;
        let held = client.step()?;
        all_held(held, count)?;
        Ok((Each::between(known, held, count), (known.live - start.live) / count as f64))
    }
}

/// A connection that was closed meanwhile would be cheap.
fn all_held(look: Look, count: usize) -> Result<(), String> {
    match look.connections {
        Some(open) if open == count as u64 => Ok(()),
        open => Err(format!("{open:?} connections are open, expected {count}")),
    }
}
