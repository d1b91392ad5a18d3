//! Istio's verdicts, by a real Envoy, against ours: random policies, random requests, and every difference explained.
//!
//! The policies become RBAC filters as Istio's pilot makes them ([`translate`]), tokens are for Envoy's own `jwt_authn`,
//! callers come over mTLS from addresses of loopback, and the PROXY protocol says where they wanted to go. What differs
//! must be one of [`explain::EXPLAINED`], which `docs/envoy-differences.md` shows; anything else fails with the smallest
//! policies that still show it.
//!
//! In front of what chance brings, [`directed`] requests meet each kind once.
//!
//! `MESH_DIFFERENTIAL` is how many requests are made (default 1,000), `MESH_SEED` what chance begins with.

mod directed;
mod explain;
mod generate;
mod judge;
mod run;
mod shrink;
mod translate;

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;
use std::sync::Arc;

use explain::{Against, Case, EXPLAINED, explain, row};
use generate::{Connection, Generator, PolicySet, Sent};
use judge::{Engines, Ours, View, yaml};
use mesh_core::clock::{SystemClock, WallClock};
use mesh_core::policy::PolicyEngine;
use mesh_core::rng::Rng;
use run::World;
use translate::{Filters, filters};

use super::envoy_process::binary;
use crate::kit::from_env;

/// Requests for each set of policies.
const REQUESTS: usize = 50;
/// Sets behind one Envoy.
const SETS: usize = 50;
/// Connections to one Envoy.
const CONNECTIONS: usize = 60;

/// What was found.
#[derive(Debug, Default)]
struct Found {
    /// How often Envoy answered with each status.
    statuses: BTreeMap<u16, usize>,
    /// Of each kind: how many, and how often something is let through that Envoy refuses.
    explained: BTreeMap<&'static str, (usize, usize)>,
    refused_sets: usize,
    unexplained: Vec<Difference>,
}

/// A difference that nobody explains.
#[derive(Debug, Clone)]
struct Difference {
    against: Against,
    set: PolicySet,
    connection: Connection,
    sent: Sent,
    token: Option<String>,
    envoy: u16,
    compat: Ours,
    strict: Ours,
}

impl Found {
    fn add(&mut self, other: Self) {
        for (status, times) in other.statuses {
            *self.statuses.entry(status).or_default() += times;
        }
        for (name, (times, wider)) in other.explained {
            let sum = self.explained.entry(name).or_default();
            *sum = (sum.0 + times, sum.1 + wider);
        }
        self.refused_sets += other.refused_sets;
        self.unexplained.extend(other.unexplained);
    }
}

impl Difference {
    fn told(&self) -> String {
        let Self { against, set, connection, sent, envoy, compat, strict, .. } = self;
        let peer = connection.peer.map(|peer| generate::PEERS[peer]);
        format!(
            "{against:?}: Envoy {envoy}, compat {compat:?}, strict {strict:?}\n{sent:?}\n{peer:?} {connection:?}\n\
             trust domains {:?}\n{}",
            set.trust_domains,
            yaml(set)
        )
    }
}

/// Sends all requests, and judges them here.
async fn compare(
    binary: &Path,
    world: &World,
    sets: &[PolicySet],
    connections: &[Connection],
    sent: &[(Sent, Option<String>)],
    translate: impl Fn(&PolicySet) -> Filters,
) -> Found {
    let engines: Vec<Engines> =
        sets.iter().map(|set| Engines::of(set).unwrap_or_else(|| panic!("{}", yaml(set)))).collect();
    let rules: Vec<Filters> = sets.iter().map(translate).collect();
    let statuses = world.ask(binary, &rules, connections, sent).await;
    let refused_sets = engines.iter().filter(|engines| engines.strict.is_none()).count();
    let mut found = Found { refused_sets, ..Found::default() };
    let now = SystemClock.now();
    for ((sent, token), envoy) in sent.iter().zip(statuses) {
        let (connection, set, engines) = (&connections[sent.connection], &sets[sent.set], &engines[sent.set]);
        let view = View::of(world, connection, sent, token.as_deref(), now);
        let judged = |engine: &Arc<PolicyEngine>| {
            view.as_ref().map_or_else(|status| Ours::Refused(*status), |view| view.judged(engine))
        };
        let compat = judged(&engines.compat);
        let unread = view.as_ref().map_or_else(|status| Ours::Refused(*status), |_| Ours::NoPolicies);
        let strict = engines.strict.as_ref().map_or(unread, judged);
        let case = Case { set, sent, engines, view: view.as_ref().ok(), envoy, compat, strict };
        *found.statuses.entry(envoy).or_default() += 1;
        let theirs = envoy == 200;
        let differs = [
            (Against::Compat, compat.allowed() != theirs),
            (Against::Strict, strict.allowed() != compat.allowed()),
            (Against::Status, !theirs && !compat.allowed() && compat.status() != envoy),
        ];
        for (against, _) in differs.into_iter().filter(|(_, differs)| *differs) {
            let allowed = if against == Against::Strict { strict.allowed() } else { compat.allowed() };
            match explain(&case, against) {
                // What is said to be stricter must be.
                Some(kind) if kind.wider || !allowed || theirs => {
                    let (times, wider) = found.explained.entry(kind.name).or_default();
                    *times += 1;
                    *wider += usize::from(allowed && !theirs);
                }
                _ => found.unexplained.push(Difference {
                    against,
                    set: set.clone(),
                    connection: connection.clone(),
                    sent: sent.clone(),
                    token: token.clone(),
                    envoy,
                    compat,
                    strict,
                }),
            }
        }
    }
    found
}

/// So many requests from one seed.
async fn differential(
    binary: &Path,
    world: &World,
    seed: u64,
    requests: usize,
    translate: impl Fn(&PolicySet) -> Filters + Copy,
) -> Found {
    let generator = Generator { rng: Rng::seeded(seed) };
    let mut all = Found::default();
    let mut left = requests;
    while left > 0 {
        let now = left.min(SETS * REQUESTS);
        left -= now;
        let sets: Vec<PolicySet> = (0..now.div_ceil(REQUESTS)).map(|_| generator.policies()).collect();
        let connections: Vec<Connection> = (0..CONNECTIONS).map(|_| generator.connection()).collect();
        let request = |at: usize| {
            let sent = generator.request(at / REQUESTS, connections.len());
            let token = sent.token.as_ref().map(|token| world.token(token));
            (sent, token)
        };
        let sent: Vec<(Sent, Option<String>)> = (0..now).map(request).collect();
        all.add(compare(binary, world, &sets, &connections, &sent, translate).await);
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verdicts_are_those_of_envoy() {
    let Some(binary) = binary() else { return };
    let requests = usize::try_from(from_env("MESH_DIFFERENTIAL", || 1_000)).unwrap();
    let seed = from_env("MESH_SEED", || Rng::from_entropy().next_u64());
    let world = World::new();
    let mut found = directed::met(&binary, &world).await;
    // An explanation that nothing needs may hide something.
    let idle: Vec<&str> =
        EXPLAINED.iter().map(|kind| kind.name).filter(|name| !found.explained.contains_key(name)).collect();
    assert!(idle.is_empty(), "never met: {idle:?}");
    found.add(differential(&binary, &world, seed, requests, filters).await);
    println!("Envoy: {:?}; strict mode refuses {} sets", found.statuses, found.refused_sets);
    for (name, (times, wider)) in &found.explained {
        println!("{times:>6} {name} ({wider} let through here alone)");
    }
    if let Some(first) = found.unexplained.first() {
        let mut told =
            format!("MESH_SEED={seed} MESH_DIFFERENTIAL={requests}: {} unexplained\n", found.unexplained.len());
        for other in found.unexplained.iter().skip(1).take(20) {
            writeln!(
                told,
                "{:?} {} {:?} {:?} {:?}",
                other.against, other.envoy, other.compat, other.strict, other.sent
            )
            .unwrap();
        }
        let smallest = shrink::smallest(&binary, &world, first).await;
        panic!("{told}{}\nat its smallest:\n{}", first.told(), smallest.told());
    }
    // A generator that reaches only one verdict proves little.
    for status in [200, 403] {
        let times = found.statuses.get(&status).copied().unwrap_or_default();
        assert!(times > requests / 20, "{status}: {:?}", found.statuses);
    }
}

/// Were one filter not there, or one field read in another way, it would be noticed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_translation_is_noticed() {
    let Some(binary) = binary() else { return };
    // Few requests are enough with a seed that is known to hold what is left out.
    let seed = 1;
    println!("seed {seed}");
    let world = World::new();
    let without_deny = |set: &PolicySet| Filters { deny: None, ..filters(set) };
    let without_allow = |set: &PolicySet| Filters { allow: None, ..filters(set) };
    let without_a_field = |set: &PolicySet| {
        let mut set = set.clone();
        for document in &mut set.documents {
            for rule in document["spec"]["rules"].as_array_mut().into_iter().flatten() {
                rule.as_object_mut().unwrap().remove("to");
            }
        }
        filters(&set)
    };
    let counts = [
        differential(&binary, &world, seed, 500, without_deny).await,
        differential(&binary, &world, seed, 500, without_allow).await,
        differential(&binary, &world, seed, 500, without_a_field).await,
    ]
    .map(|found| found.unexplained.len());
    println!("differences without DENY, without ALLOW, without operations: {counts:?}");
    assert!(counts.iter().all(|count| *count > 5), "{counts:?}");
}

#[test]
fn the_documentation_shows_every_kind_of_difference() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/envoy-differences.md");
    let text = std::fs::read_to_string(file).unwrap();
    let written: Vec<&str> = text.lines().filter(|line| line.starts_with("| ")).skip(1).collect();
    let rows: Vec<String> = EXPLAINED.iter().map(row).collect();
    assert_eq!(written, rows, "expected:\n{}", rows.join("\n"));
}
