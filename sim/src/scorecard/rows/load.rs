//! What retries add to a load, whether it comes down again, and whether a run can be replayed.

use mesh_core::rng::Rng;

use super::{Change as _, each, scenario, sized};
use crate::model::{Report, Scenario, run};
use crate::scorecard::{Control, Row, Seen};

pub(super) const ROWS: [Row; 5] = [
    Row {
        name: "retry-amplification",
        target: "every request fails, budget 10 % and nothing a second: at most 1.10 x the load, without back-off in any ten seconds too, with it 1.101 x in those",
        mesh: |seed| each([scenario(FAILS), scenario(FAILS).without_backoff()], seed, steady),
        controls: &[Control {
            without: "three attempts without a budget",
            run: |seed| steady(scenario(FAILS).without_budget(), seed),
        }],
    },
    Row {
        name: "retry-amplification-tiers",
        target: "the same below two tiers that retry as well: at most 1.15 x the load at the last",
        mesh: |seed| amplified(tiers(), "leaf", seed, 1.15),
        controls: &[Control {
            without: "three attempts at each tier without a budget",
            run: |seed| amplified(tiers().without_budget(), "leaf", seed, 1.15),
        }],
    },
    Row {
        name: "metastable",
        target: "80 % load, 10 s at half capacity, servers that work for callers who are gone and queue for 0.5 s: 95 % goodput again within 10 s after that",
        mesh: |seed| recovers(overload(), seed),
        controls: &[Control {
            without: "retries without a budget, no ejection, which sheds load as well",
            run: |seed| recovers(overload().without_budget().without_ejection(), seed),
        }],
    },
    Row {
        name: "metastable-long-queues",
        target: "the same with queues of 0.5, 1 and 2 s, of servers that finish what they began, and begin nothing for callers who are gone",
        mesh: |seed| each(QUEUES.map(ours), seed, recovers),
        controls: &[Control {
            without: "the same servers, retries without a budget, no ejection",
            run: |seed| each(QUEUES.map(|queue| ours(queue).without_budget().without_ejection()), seed, recovers),
        }],
    },
    Row {
        name: "determinism",
        target: "5 runs, each twice with its seed: equal decisions (request, server, outcome, time)",
        mesh: |seed| replays(|n| seed * 5 + n),
        controls: &[Control {
            without: "seeds from the system's entropy",
            run: |_| replays(|_| Rng::from_entropy().next_u64()),
        }],
    },
];

const FAILS: &str = r#"
duration: 60s
load: { rate: 200 }
servers: [{ name: leaf, count: 3, service_time: { exponential: 5ms } }]
faults: [{ servers: leaf, errors: { after: 1ms } }]
clusters: { leaf: { discover: { static: ["10.0.0.1:1"] }, identities: ["spiffe://shop.example/leaf"] } }
routes:
  leaf: [{ cluster: leaf, timeout: 5s, retry: { attempts: 3, budget: { ratio: 10%, min_per_second: 0 } } }]
"#;

const TIERS: &str = r#"
duration: 60s
load: { rate: 200, service: front }
servers:
  - { name: front, count: 3, service_time: { exponential: 1ms }, calls: middle }
  - { name: middle, count: 3, service_time: { exponential: 1ms }, calls: leaf }
  - { name: leaf, count: 3, service_time: { exponential: 5ms } }
faults: [{ servers: leaf, errors: { after: 1ms } }]
clusters:
  front: { discover: { static: ["10.0.0.1:1"] }, identities: ["spiffe://shop.example/front"] }
  middle: { discover: { static: ["10.0.0.1:1"] }, identities: ["spiffe://shop.example/middle"] }
  leaf: { discover: { static: ["10.0.0.1:1"] }, identities: ["spiffe://shop.example/leaf"] }
routes:
  front: [{ cluster: front, timeout: 5s, retry: { attempts: 3, budget: { ratio: 10%, min_per_second: 0 } } }]
  middle: [{ cluster: middle, timeout: 5s, retry: { attempts: 3, budget: { ratio: 10%, min_per_second: 0 } } }]
  leaf: [{ cluster: leaf, timeout: 5s, retry: { attempts: 3, budget: { ratio: 10%, min_per_second: 0 } } }]
"#;

const METASTABLE: &str = include_str!("../../../scenarios/overload.yaml");

const MIXED: &str = r#"
duration: 5s
load: { rate: 400, clients: 5 }
servers: [{ name: web, count: 6, service_time: { lognormal: { median: 20ms, sigma: 0.7 } }, concurrency: 8, latency: 500us }]
faults:
  - { servers: web-1, at: 1s, for: 2s, crash: }
  - { servers: web-2, at: 1s, for: 1s, hang: }
  - { servers: web-3, at: 2s, slow: { factor: 20 } }
  - { servers: web-4, errors: { rate: 20% } }
  - { servers: web-5, at: 2s, for: 1s, partition: { clients: client-1 } }
  - { servers: web-6, at: 3s, restart: { drain: 500ms, down: 500ms } }
clusters: { web: { discover: { static: ["10.0.0.1:1"] }, identities: ["spiffe://shop.example/web"] } }
routes: { web: [{ cluster: web, timeout: 2s, retry: { attempts: 3, per_try_timeout: 300ms } }] }
"#;

fn tiers() -> Scenario {
    Scenario { duration: sized(60, 20), ..scenario(TIERS) }
}

fn overload() -> Scenario {
    Scenario { duration: sized(50, 35), ..scenario(METASTABLE) }
}

/// Requests that take half a second, one and two, at full speed.
const QUEUES: [usize; 3] = [250, 500, 1000];

/// As a handler of ours is, if its work cannot be broken off: what only waits is dropped when its caller has left.
fn ours(queue: usize) -> Scenario {
    let mut ours = Scenario { duration: sized(50, 31), ..scenario(METASTABLE) };
    ours.servers.iter_mut().for_each(|group| (group.queue, group.begins_cancelled) = (queue, false));
    ours
}

/// Attempts at the servers called `leaf`, for each request of the load.
fn amplified(scenario: Scenario, leaf: &str, seed: u64, most: f64) -> Seen {
    let report = run(&scenario, seed);
    let at_leaf = scenario.servers_called(leaf);
    let requests: u64 =
        at_leaf.iter().filter_map(|server| report.servers.get(*server)).map(|server| server.requests).sum();
    let whole = requests as f64 / report.offered.max(1) as f64;
    Seen { met: whole <= most, text: format!("{whole:.4} x over the run"), badness: whole }
}

/// Attempts for each request of the load: over the run, and in the worst ten seconds.
///
/// A budget pays a retry before its back-off, and here it counts when it is sent. So what was paid in one window and is sent
/// in the next comes on top of what that one pays: without a back-off no window of 400 seeds has more than 1.10 x, with the
/// default one each seed has some that do, 1.1007 x at most, one or two requests of 2,000.
fn steady(scenario: Scenario, seed: u64) -> Seen {
    let waits = scenario.config.routes.values().flatten().filter_map(|route| route.retry.as_ref());
    let in_back_off = if waits.map(|retry| retry.backoff).any(|wait| !wait.is_zero()) { 0.001 } else { 0.0 };
    let report = run(&scenario, seed);
    let whole = report.attempts as f64 / report.offered.max(1) as f64;
    let worst = worst_window(&report);
    Seen {
        met: whole <= 1.10 && worst <= 1.10 + in_back_off,
        text: format!("{whole:.4} x over the run, {worst:.4} x in the worst ten seconds"),
        badness: worst,
    }
}

fn worst_window(report: &Report) -> f64 {
    let whole = report.duration.as_secs() as usize;
    let windows = report.seconds.get(..whole).unwrap_or_default().windows(10);
    let shares = windows.map(|window| {
        let (attempts, offered) =
            window.iter().fold((0, 0), |(a, o), second| (a + second.attempts, o + second.offered));
        attempts as f64 / offered.max(1) as f64
    });
    shares.fold(0.0, f64::max)
}

/// How many seconds after the trigger 95 % of what is offered succeeds again, and goes on to.
fn recovers(scenario: Scenario, seed: u64) -> Seen {
    let end = scenario.faults.first().and_then(|fault| Some(fault.at + fault.lasts?)).unwrap_or_default().as_secs();
    let report = run(&scenario, seed);
    let seconds = report.seconds.get(..scenario.duration.as_secs() as usize).unwrap_or_default();
    let after = seconds.get(end as usize..).unwrap_or_default();
    let good = |second: &crate::model::Second| second.succeeded as f64 >= 0.95 * second.offered as f64;
    // From the first second of three good ones in a row.
    let recovered = after.windows(3).position(|three| three.iter().all(good));
    let last = after.len().saturating_sub(10);
    let (succeeded, offered) = after
        .get(last..)
        .unwrap_or_default()
        .iter()
        .fold((0, 0), |(s, o), second| (s + second.succeeded, o + second.offered));
    let goodput = 100.0 * succeeded as f64 / offered.max(1) as f64;
    let text = match recovered {
        Some(seconds) => format!("back after {seconds} s, {goodput:.1} % goodput in the last ten seconds"),
        None => format!("never back in {} s, {goodput:.1} % goodput in the last ten seconds", after.len()),
    };
    let seconds = recovered.unwrap_or(after.len());
    Seen { met: seconds <= 10 && goodput >= 95.0, text, badness: seconds as f64 - goodput / 100.0 }
}

fn replays(seeds: impl Fn(u64) -> u64) -> Seen {
    let scenario = scenario(MIXED);
    let different =
        (0..5).filter(|n| run(&scenario, seeds(*n)).decisions != run(&scenario, seeds(*n)).decisions).count();
    Seen { met: different == 0, text: format!("{different} of 5 differ"), badness: different as f64 }
}
