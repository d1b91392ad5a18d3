//! Mesh against plain mTLS in one run: the arms take turns, so that what the machine does meets both.

mod connections;
mod held;
mod server;
mod table;

pub(crate) use connections::run as connections;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

use crate::{bench_setup, run};
use server::{Server, pinned};
use table::{Cell, Figures};

const PROTOS: [&str; 3] = ["h1", "h2", "grpc"];
/// Requests in flight, HTTP/2 connections, and the CPUs for both sides: alone on one core, or saturating all.
const LOADS: [(u32, u32, Option<&str>); 2] = [(1, 1, Some("1")), (64, 4, None)];
const WARMUP: f64 = 1.0;

/// Which stack a run goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arm {
    Mtls,
    Mesh,
}

/// Builds, starts the servers, runs every arm `rounds` times and prints the table.
pub(crate) fn run(root: &Path, secs: f64, rounds: u16, protos: &[String]) -> Result<(), String> {
    if let Some(unknown) = protos.iter().find(|wanted| !PROTOS.contains(&wanted.as_str())) {
        return Err(format!("no protocol `{unknown}`; there are: {}", PROTOS.join(", ")));
    }
    build(root)?;
    let bench = Bench { root: root.to_path_buf(), dir: root.join("target/bench"), secs };
    bench_setup::write(&bench.dir, ([127, 0, 0, 1], 8443).into())?;
    let mut failed = 0;
    println!("{}", Cell::HEAD);
    for (conc, conns, cpu) in LOADS {
        let servers = [(Arm::Mtls, bench.serve(Arm::Mtls, cpu)?), (Arm::Mesh, bench.serve(Arm::Mesh, cpu)?)];
        for proto in PROTOS.into_iter().filter(|proto| protos.is_empty() || protos.iter().any(|p| p == proto)) {
            let mut cell = Cell::new(proto, conc);
            for round in 0..rounds {
                // Each arm goes first as often as second.
                let order: &mut dyn Iterator<Item = _> =
                    if round % 2 == 0 { &mut servers.iter() } else { &mut servers.iter().rev() };
                let mut figures = [None, None];
                for (arm, server) in order {
                    let seen = bench.load(*arm, server, proto, conc, conns, cpu)?;
                    failed += seen.errors;
                    let [mtls, mesh] = &mut figures;
                    *(if *arm == Arm::Mtls { mtls } else { mesh }) = Some(seen);
                }
                if let [Some(mtls), Some(mesh)] = figures {
                    cell.add(mtls, mesh);
                }
            }
            println!("{cell}");
        }
    }
    if failed == 0 { Ok(()) } else { Err(format!("{failed} requests failed; the figures are of no use")) }
}

/// Builds, and runs what compares servers that differ in their audit sinks alone.
pub(crate) fn audit(root: &Path, conc: u16, rounds: u16, secs: f64) -> Result<(), String> {
    build(root)?;
    let dir = root.join("target/bench");
    bench_setup::write(&dir, ([127, 0, 0, 1], 8443).into())?;
    let mut command = Command::new(root.join("target/release/bench-audit"));
    command.arg("--dir").arg(dir).args(["--conc", &conc.to_string(), "--rounds", &rounds.to_string()]);
    let status = command.args(["--secs", &secs.to_string()]).status();
    let status = status.map_err(|e| format!("cannot run bench-audit: {e}"))?;
    if status.success() { Ok(()) } else { Err("bench-audit failed".to_owned()) }
}

fn build(root: &Path) -> Result<(), String> {
    let build = ["build", "--release", "--package", "mesh-benches", "--bins"];
    let status = run::cargo(root, &build).status().map_err(|e| format!("cannot run cargo: {e}"))?;
    if status.success() { Ok(()) } else { Err("the release build failed".to_owned()) }
}

#[derive(Debug)]
struct Bench {
    root: PathBuf,
    dir: PathBuf,
    secs: f64,
}

impl Bench {
    fn binary(&self, name: &str) -> PathBuf {
        self.root.join("target/release").join(name)
    }

    fn file(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn pem(&self, name: &str) -> [String; 6] {
        let file = |name: &str| self.file(name);
        [
            "--cert".to_owned(),
            file(&format!("{name}.pem")),
            "--key".to_owned(),
            file(&format!("{name}.key")),
            "--ca".to_owned(),
            file("ca.pem"),
        ]
    }

    fn serve(&self, arm: Arm, cpu: Option<&str>) -> Result<Server, String> {
        let mut command = pinned(&self.binary("bench-server"), cpu);
        command.args(["--listen", "127.0.0.1:0", "--mode"]);
        match arm {
            Arm::Mtls => command.arg("mtls").args(self.pem("server")),
            Arm::Mesh => command.arg("mesh").args(["--config", &self.file("server.yaml")]),
        };
        Server::start(command)
    }

    fn load(
        &self,
        arm: Arm,
        server: &Server,
        proto: &str,
        conc: u32,
        conns: u32,
        cpu: Option<&str>,
    ) -> Result<Figures, String> {
        let mut command = pinned(&self.binary("bench-client"), cpu);
        command
            .args(["--url", &format!("https://{}/hello", server.address), "--proto", proto])
            .args(["--conc", &conc.to_string(), "--conns", &conns.to_string()])
            .args(["--secs", &self.secs.to_string(), "--warmup", &WARMUP.to_string()])
            .args(["--with-pid", &server.pid().to_string()]);
        match arm {
            Arm::Mtls => {
                command.args(["--mode", "mtls"]).args(self.pem("client"));
                for header in self.same_headers(proto)? {
                    command.args(["--header", &header]);
                }
            }
            Arm::Mesh => {
                command.args(["--mode", "mesh", "--service", "bench", "--config", &self.file("client.yaml")]);
            }
        }
        report(command)
    }

    /// What the mesh's client sends beside the request itself: carried by both arms, so that their difference is the
    /// work and not the bytes. The span id changes with each request there, and is constant here.
    fn same_headers(&self, proto: &str) -> Result<Vec<String>, String> {
        let token = std::fs::read_to_string(self.dir.join("token.jwt")).map_err(|e| format!("token.jwt: {e}"))?;
        let timeout = if proto == "grpc" { "grpc-timeout: 4999999u" } else { "x-envoy-expected-rq-timeout-ms: 2000" };
        Ok(vec![
            format!("authorization: Bearer {}", token.trim()),
            "traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00".to_owned(),
            timeout.to_owned(),
        ])
    }
}

fn report(mut command: Command) -> Result<Figures, String> {
    let output = command.output().map_err(|e| format!("cannot run {command:?}: {e}"))?;
    if !output.status.success() {
        return Err(format!("{command:?}\n{}", String::from_utf8_lossy(&output.stderr)));
    }
    let line: Value = serde_json::from_slice(&output.stdout).map_err(|e| format!("bench-client's line: {e}"))?;
    if let Some(error) = line.get("first_error") {
        eprintln!("a request failed: {error}");
    }
    let number = |name: &str| line.get(name).and_then(Value::as_f64).ok_or(format!("bench-client says no `{name}`"));
    let requests = number("requests")?;
    Ok(Figures {
        p50: number("p50")?,
        p99: number("p99")?,
        rps: number("rps")?,
        // Milliseconds a request are seconds per 1,000 requests.
        cpu: number("cpu_seconds")? * 1000.0 / requests.max(1.0),
        errors: line.get("errors").and_then(Value::as_u64).unwrap_or(u64::MAX),
    })
}
