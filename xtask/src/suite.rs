//! The steps of `cargo xtask test`, cheap ones first.

use std::path::Path;
use std::process::ExitCode;

use crate::run::{Counts, Log, Runner, Verdict, cargo};
use crate::{count, examples, features, fuzz, imports, peers, sizes, summaries, tree};

struct Step {
    name: &'static str,
    run: fn(&Path, &mut Runner, &mut Peers),
}

/// Whether the suites against real peers can run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Peers {
    Installed,
    Missing,
    NotTried,
}

/// One target directory and one set of flags for all of them: nothing is built twice.
const STEPS: [Step; 13] = [
    Step { name: "fmt", run: |root, runner, _| runner.step("fmt", |log| fmt(root, log)) },
    Step { name: "sizes", run: |root, runner, _| runner.step("sizes", |_| sizes::check(root)) },
    Step { name: "summaries", run: |root, runner, _| runner.step("summaries", |_| summaries::check(root)) },
    Step { name: "imports", run: |root, runner, _| runner.step("imports", |_| imports::check(root)) },
    Step { name: "walls", run: |root, runner, _| runner.step("walls", |log| tree::check(root, log)) },
    Step { name: "peers", run: |root, runner, peers| install(root, runner, peers) },
    Step { name: "clippy", run: |root, runner, _| runner.step("clippy", |log| clippy(root, log)) },
    Step { name: "tests", run: |root, runner, peers| runner.step("tests", |log| tests(root, log, *peers)) },
    Step { name: "doctests", run: |root, runner, _| runner.step("doctests", |log| doctests(root, log)) },
    Step { name: "docs", run: |root, runner, _| runner.step("docs", |log| docs(root, log)) },
    Step { name: "examples", run: |root, runner, _| examples::steps(root, runner) },
    Step { name: "features", run: |root, runner, _| features::steps(root, runner) },
    Step { name: "fuzz", run: |root, runner, _| runner.step("fuzz", |log| fuzz::check(root, log)) },
];

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    STEPS.iter().map(|step| step.name)
}

/// Runs the chosen steps, all if none is named.
pub(crate) fn run(root: &Path, only: &[String]) -> ExitCode {
    if let Some(unknown) = only.iter().find(|wanted| !names().any(|name| name == wanted.as_str())) {
        eprintln!("error: no step `{unknown}`; there are: {}", names().collect::<Vec<_>>().join(", "));
        return ExitCode::from(2);
    }
    let mut runner = Runner::new(root);
    let mut peers = Peers::NotTried;
    for step in STEPS.iter().filter(|step| only.is_empty() || only.iter().any(|wanted| wanted == step.name)) {
        (step.run)(root, &mut runner, &mut peers);
    }
    if runner.finish() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fmt(root: &Path, log: &Log) -> Verdict {
    log.must(&mut cargo(root, &["fmt", "--all", "--check"])).map(|_| Counts::one(""))
}

fn clippy(root: &Path, log: &Log) -> Verdict {
    let args = ["clippy", "--workspace", "--all-targets", "--all-features", "--", "-D", "warnings"];
    log.must(&mut cargo(root, &args)).map(|_| Counts::one(""))
}

/// A missing peer is a failure in continuous integration; elsewhere its suites are left out, and the line says so.
fn install(root: &Path, runner: &mut Runner, peers: &mut Peers) {
    runner.step("peers", |_| match peers::install(root) {
        Ok(found) => {
            *peers = Peers::Installed;
            Ok(Counts::one(format!("{} installed", found.len())))
        }
        Err(message) if std::env::var("CI").is_ok_and(|ci| ci == "true") => Err(message),
        Err(message) => {
            *peers = Peers::Missing;
            let first = message.lines().next().unwrap_or_default();
            Ok(Counts {
                note: format!("SKIPPED, suites against real peers will not run: {first}"),
                ..Counts::default()
            })
        }
    });
}

/// The tests that need real peers; left out, where there are none, rather than passed.
const PEER_TESTS: &str = "package(mesh-tests) & test(/^peers::/)";

fn tests(root: &Path, log: &Log, peers: Peers) -> Verdict {
    let mut args = vec!["nextest", "run", "--workspace", "--all-features", "--no-fail-fast", "--no-tests", "fail"];
    let (left_out, others) = (peers == Peers::Missing, format!("not ({PEER_TESTS})"));
    if left_out {
        args.extend(["--filterset", &others]);
    }
    let mut command = cargo(root, &args);
    command.env("MESH_PEERS", peers::directory(root));
    let (text, success) = log.run(&mut command)?;
    let mut counts = count::nextest(&text, success);
    if left_out {
        counts.note = format!("{} (those against real peers were left out)", counts.note).trim_start().to_owned();
    }
    Ok(counts)
}

fn doctests(root: &Path, log: &Log) -> Verdict {
    let (text, success) =
        log.run(&mut cargo(root, &["test", "--workspace", "--doc", "--all-features", "--no-fail-fast"]))?;
    Ok(count::rustdoc(&text, success))
}

fn docs(root: &Path, log: &Log) -> Verdict {
    let mut command = cargo(root, &["doc", "--workspace", "--no-deps", "--all-features"]);
    log.must(command.env("RUSTDOCFLAGS", "-D warnings")).map(|_| Counts::one(""))
}
