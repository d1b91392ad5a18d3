//! One round: honest calls while nothing else happens, then beside the attack, then the aftermath.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::process::{Place, Process};
use super::victim::{Memory, Metrics, Victim};
use crate::Error;
use crate::attack::Kind;

/// The core of attacker and callers. The attacker is nice to the callers, so that what they measure is the victim.
const CPU: &str = "1";
const CALLER: &str = "127.0.0.1";
/// Another host, as far as loopback has them.
const ATTACKER: &str = "127.0.0.2";
/// Connections of both sides of an attack, and what a process has open beside.
const FILES: u32 = 8192;
/// How long the attack goes on alone at both ends.
const LEAD: f64 = 0.3;
/// How long the victim may take to give back what the attack took.
const AFTERMATH: Duration = Duration::from_secs(10);
/// What may remain: tables of the process that grew once more.
const SLACK: u64 = 256 * 1024;
/// An attack before the first round, so that what grows once has grown.
const WARM_UP: f64 = 1.2;

/// How hard.
#[derive(Debug, Clone, Copy)]
pub(super) struct Force {
    pub(super) kind: Kind,
    pub(super) rate: u32,
    pub(super) connections: u32,
    pub(super) secs: f64,
}

/// What honest callers saw; microseconds.
#[derive(Debug, Clone)]
pub(super) struct Calls {
    pub(super) p50: f64,
    pub(super) p99: f64,
    pub(super) p99_kept: f64,
    pub(super) max: f64,
    pub(super) failures: u64,
    pub(super) first_failure: Option<String>,
}

/// What one round came to.
#[derive(Debug)]
pub(super) struct Round {
    pub(super) calm: Calls,
    pub(super) attacked: Calls,
    /// What the attacker says of itself.
    pub(super) attack: Value,
    pub(super) before: Memory,
    pub(super) peak: u64,
    pub(super) after: Memory,
    /// How long it took to give everything back; `None`: too long.
    pub(super) back: Option<Duration>,
    /// The share of its core that the victim used.
    pub(super) cpu: f64,
    /// How much each series grew.
    pub(super) grown: Metrics,
    /// Lines that the victim logged.
    pub(super) lines: usize,
}

pub(super) async fn play(dir: &Path, victim: &mut Victim, force: Force) -> Result<Round, Error> {
    let calm = calls(dir, victim, force.secs).await?;
    idle(victim).await?;
    let before = victim.memory().await?;
    let (metrics, lines) = (victim.metrics().await?, log_lines(dir)?);

    let mut attacker = start_attack(dir, victim, force, force.secs + 2.0 * LEAD)?;
    attacker.line().await?;
    sleep(Duration::from_secs_f64(LEAD)).await;
    let (start, cpu) = (Instant::now(), victim.cpu_seconds());
    let attacked = calls(dir, victim, force.secs).await?;
    let cpu = (victim.cpu_seconds() - cpu) / start.elapsed().as_secs_f64();
    let attack = attacker.report().await?;
    drop(attacker);

    let over = Instant::now();
    let peak = victim.memory().await?.peak;
    let (after, back) = loop {
        let memory = victim.memory().await?;
        let gone = open_connections(&victim.metrics().await?) == 0.0;
        if gone && memory.live <= before.live + SLACK {
            break (memory, Some(over.elapsed()));
        }
        if over.elapsed() > AFTERMATH {
            break (memory, None);
        }
        sleep(Duration::from_millis(50)).await;
    };
    let grown = growth(&metrics, &victim.metrics().await?);
    let lines = log_lines(dir)?.saturating_sub(lines);
    Ok(Round { calm, attacked, attack, before, peak, after, back, cpu, grown, lines })
}

/// A short attack that nobody measures.
pub(super) async fn warm_up(dir: &Path, victim: &Victim, force: Force) -> Result<(), Error> {
    let mut attacker = start_attack(dir, victim, force, WARM_UP)?;
    attacker.line().await?;
    attacker.report().await?;
    drop(attacker);
    idle(victim).await
}

fn start_attack(dir: &Path, victim: &Victim, force: Force, secs: f64) -> Result<Process, Error> {
    use clap::ValueEnum as _;
    let kind = force.kind.to_possible_value().ok_or("an attack without a name")?;
    let mut args = vec!["attack".to_owned(), "--kind".to_owned(), kind.get_name().to_owned()];
    args.extend(target(dir, victim, ATTACKER));
    args.extend(["--rate".to_owned(), force.rate.to_string(), "--connections".to_owned()]);
    args.extend([force.connections.to_string(), "--secs".to_owned(), secs.to_string()]);
    Process::start(Place { cpu: CPU, nice: true, files: Some(FILES) }, &args, &dir.join("attacker.log"))
}

async fn calls(dir: &Path, victim: &Victim, secs: f64) -> Result<Calls, Error> {
    let mut args = vec!["calls".to_owned(), "--secs".to_owned(), secs.to_string()];
    args.extend(target(dir, victim, CALLER));
    let mut process = Process::start(Place { cpu: CPU, nice: false, files: None }, &args, &dir.join("caller.log"))?;
    let told = process.report().await?;
    let number = |name: &str| told.get(name).and_then(Value::as_f64).ok_or(format!("the caller says no `{name}`"));
    Ok(Calls {
        p50: number("p50")?,
        p99: number("p99")?,
        p99_kept: number("p99_kept")?,
        max: number("max")?,
        failures: number("failures")? as u64,
        first_failure: told.get("first_failure").and_then(Value::as_str).map(str::to_owned),
    })
}

fn target(dir: &Path, victim: &Victim, source: &str) -> [String; 6] {
    let (target, pki) = (victim.address.to_string(), dir.display().to_string());
    ["--target".to_owned(), target, "--pki".to_owned(), pki, "--source".to_owned(), source.to_owned()]
}

/// Waits until nobody is connected.
async fn idle(victim: &Victim) -> Result<(), Error> {
    let start = Instant::now();
    while open_connections(&victim.metrics().await?) > 0.0 {
        if start.elapsed() > AFTERMATH {
            return Err("connections stay open although all callers are gone".into());
        }
        sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

fn open_connections(metrics: &Metrics) -> f64 {
    metrics.get("mesh_server_connections").copied().unwrap_or_default()
}

fn growth(before: &Metrics, after: &Metrics) -> Metrics {
    let grown = after.iter().map(|(name, value)| (name.clone(), value - before.get(name).unwrap_or(&0.0)));
    grown.filter(|(_, by)| *by > 0.0).collect::<BTreeMap<_, _>>()
}

fn log_lines(dir: &Path) -> Result<usize, Error> {
    Ok(std::fs::read(dir.join("victim.log"))?.iter().filter(|byte| **byte == b'\n').count())
}
