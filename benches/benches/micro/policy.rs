//! `PolicyEngine::decide` by the number of rules and by how they are spread over callers.

use std::cell::LazyCell;
use std::fmt::Write as _;
use std::hint::black_box;
use std::sync::Arc;

use criterion::{BenchmarkId, Criterion};
use mesh_core::config::{Errors, Workload};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::policy::{EngineOptions, PolicyEngine, Request, Verdict, parse_documents};

const SIZES: [usize; 3] = [10, 1_000, 10_000];

/// A file holds at most 1 MiB, so many rules are several.
const RULES_PER_FILE: usize = 2_000;

fn engine(rules: usize, rule: impl Fn(usize) -> String) -> Arc<PolicyEngine> {
    let mut errors = Errors::default();
    let mut documents = Vec::new();
    for first in (0..rules).step_by(RULES_PER_FILE) {
        let mut text = format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: from-{first}, namespace: bench }}\nspec:\n  rules:\n"
        );
        for number in first..rules.min(first + RULES_PER_FILE) {
            let _ = writeln!(text, "  - {{ {} }}", rule(number));
        }
        documents.extend(parse_documents("<bench>", &text, &mut errors));
    }
    assert!(errors.is_empty(), "{:?}", errors.issues());
    let options = EngineOptions::new(TrustDomain::parse("bench.example").unwrap());
    Arc::new(PolicyEngine::compile(&documents, &Workload::new("server", "bench"), &options))
}

/// One principal for each rule.
fn spread(number: usize) -> String {
    format!(
        "from: [ {{ source: {{ principals: [bench.example/ns/n/sa/s{number}] }} }} ], \
         to: [ {{ operation: {{ methods: [GET], paths: [\"/v1/items/{number}\"] }} }} ]"
    )
}

/// All rules for one principal, which differ in their path.
fn crowded(number: usize) -> String {
    format!(
        "from: [ {{ source: {{ principals: [bench.example/ns/n/sa/s0] }} }} ], \
         to: [ {{ operation: {{ methods: [GET], paths: [\"/v1/items/{number}\"] }} }} ]"
    )
}

fn request<'a>(peer: &'a SpiffeId, path: &'a str) -> Request<'a> {
    Request { peer: Some(peer), method: "GET", path, host: "server", port: 8443, ..Request::UNKNOWN }
}

/// What the index is measured against: the same rules as a list of strings, one after the other.
fn linear(rules: &[(String, String)], request: &Request<'_>) -> bool {
    let caller = request.peer.map(SpiffeId::as_str).unwrap_or_default();
    rules.iter().any(|(peer, path)| peer == caller && request.method == "GET" && path == request.path)
}

pub(crate) fn decide(c: &mut Criterion) {
    let mut group = c.benchmark_group("policy");
    for size in SIZES {
        let last = size - 1;
        let spread: LazyCell<Arc<PolicyEngine>, _> = LazyCell::new(|| engine(size, spread));
        let crowded: LazyCell<Arc<PolicyEngine>, _> = LazyCell::new(|| engine(size, crowded));
        group.bench_function(BenchmarkId::new("linear_scan_match", size), |b| {
            let rule = |n| (format!("spiffe://bench.example/ns/n/sa/s{n}"), format!("/v1/items/{n}"));
            let rules: Vec<_> = (0..size).map(rule).collect();
            let (peer, path) = (SpiffeId::parse(&rules[last].0).unwrap(), rules[last].1.clone());
            let request = request(&peer, &path);
            assert!(linear(&rules, &request));
            b.iter(|| linear(black_box(&rules), black_box(&request)));
        });
        for (name, on_one, caller, path, verdict) in [
            ("own_principals_match", false, last, last, Verdict::Allow),
            ("own_principals_deny", false, size, last, Verdict::Deny),
            ("one_principal_match", true, 0, last, Verdict::Allow),
            ("one_principal_deny", true, 0, size, Verdict::Deny),
        ] {
            group.bench_function(BenchmarkId::new(name, size), |b| {
                let engine = if on_one { &*crowded } else { &*spread };
                let peer = SpiffeId::parse(&format!("spiffe://bench.example/ns/n/sa/s{caller}")).unwrap();
                let path = format!("/v1/items/{path}");
                let request = request(&peer, &path);
                assert_eq!(engine.decide(&request).verdict, verdict);
                b.iter(|| engine.decide(black_box(&request)));
            });
            group.bench_function(BenchmarkId::new(format!("{name}_by_connection"), size), |b| {
                let engine = Arc::clone(if on_one { &*crowded } else { &*spread });
                let peer = SpiffeId::parse(&format!("spiffe://bench.example/ns/n/sa/s{caller}")).unwrap();
                let path = format!("/v1/items/{path}");
                let request = request(&peer, &path);
                let known = engine.for_peer(&request.peer_view());
                assert_eq!(known.decide(&request).verdict, verdict);
                b.iter(|| known.decide(black_box(&request)));
            });
        }
    }
}
