//! The engine against a naive reading of the documents, over random policies and requests.
//!
//! `MESH_ORACLE_CASES` is how many pairs of policies and request are compared (default 40,000), `MESH_ORACLE_SEED` where
//! the series begins. A difference prints its seed, its policies and its request.

mod generate;
mod naive;

use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use generate::{Generator, Policy};
use naive::{Judged, Naive};

use super::*;
use crate::config::{Errors, NoPolicy, Workload};
use crate::identity::TrustDomain;
use crate::policy::canonical::Canonicalization;
use crate::rng::Rng;

/// Requests for each set of policies.
const REQUESTS: usize = 40;

fn from_env(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn domain(text: &str) -> TrustDomain {
    TrustDomain::parse(text).unwrap()
}

fn yaml(policies: &[Policy]) -> String {
    policies.iter().map(Policy::yaml).collect()
}

fn compile(policies: &[Policy], naive: &Naive) -> PolicyEngine {
    let yaml = yaml(policies);
    let mut errors = Errors::default();
    let documents = parse_documents_as(naive.mode, Canonicalization::Reject, "<test>", &yaml, &mut errors);
    assert!(errors.is_empty(), "{:?}\n{yaml}", errors.issues());
    let mut workload = Workload::new("orders", "shop");
    workload.labels = BTreeMap::from([("app".to_owned(), "orders".to_owned())]);
    let options = EngineOptions {
        root_namespace: "root".to_owned(),
        trust_domain: domain(naive.trust_domains[0]),
        trust_domain_aliases: naive.trust_domains[1..].iter().map(|name| domain(name)).collect(),
        mode: naive.mode,
        no_policy: naive.no_policy,
    };
    PolicyEngine::compile(&documents, &workload, &options)
}

/// The engine's answer in the evaluator's words.
fn judged(engine: &PolicyEngine, request: &Request<'_>, answers: &CustomAnswers) -> Judged {
    let decision = engine.decide_with(request, answers);
    let name = |name: &Arc<str>| name.to_string();
    Judged {
        verdict: decision.verdict,
        reason: decision.reason,
        by: decision.policy.as_ref().map(name).zip(decision.rule),
        audit: decision.audit.iter().map(name).collect(),
        dry_run: decision
            .dry_run
            .map(|trial| (trial.verdict, trial.matched.iter().map(|hit| (name(&hit.policy), hit.rule)).collect())),
        custom: engine.custom(request).iter().map(|hit| (name(&hit.provider), (name(&hit.policy), hit.rule))).collect(),
    }
}

fn answers(rng: &Rng) -> CustomAnswers {
    let mut answers = CustomAnswers::default();
    for provider in ["first", "second"] {
        let answer = match rng.below(9) {
            0 => CustomAnswer::Deny,
            1 => CustomAnswer::Error,
            2 => CustomAnswer::Timeout,
            3 => CustomAnswer::Unknown,
            4 => continue,
            _ => CustomAnswer::Allow,
        };
        answers.insert(provider.into(), answer);
    }
    answers
}

#[test]
fn the_engine_decides_as_a_naive_reading_of_the_documents() {
    let cases = from_env("MESH_ORACLE_CASES", 40_000);
    let start = from_env("MESH_ORACLE_SEED", 1) as u64;
    let regexes = RefCell::new(HashMap::new());
    let mut shared = Some(regexes);
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for seed in (start..).take(cases.div_ceil(REQUESTS)) {
        let rng = Rng::seeded(seed);
        let mode = if rng.below(2) == 0 { Mode::Strict } else { Mode::Compat };
        let no_policy = if rng.below(2) == 0 { NoPolicy::Deny } else { NoPolicy::Allow };
        let trust_domains = if rng.below(2) == 0 { vec!["d.example"] } else { vec!["d.example", "old.example"] };
        let naive = Naive { mode, trust_domains, no_policy, regexes: shared.take().unwrap_or_default() };
        let generator = Generator { rng, mode };
        let policies = generator.policies();
        let engine = Arc::new(compile(&policies, &naive));
        for _ in 0..REQUESTS {
            let sent = generator.request();
            let request = sent.request();
            let answers = answers(&generator.rng);
            let expected = naive.judge(&policies, &request, |provider| answers.of(provider));
            let found = judged(&engine, &request, &answers);
            let context = || format!("MESH_ORACLE_SEED={seed}, {mode}\n{sent:?}\n{answers:?}\n{}", yaml(&policies));
            assert_eq!(found, expected, "{}", context());
            *seen.entry(expected.reason.as_str()).or_default() += 1;
            hold(&engine, &request, &answers, &context);
        }
        shared = Some(naive.regexes);
    }
    // A generator that reaches only some verdicts proves little.
    assert!(seen.len() >= 10 && seen.values().all(|count| *count > cases / 2_000), "{seen:?}");
}

/// What must hold of every decision, whatever it is.
fn hold(engine: &Arc<PolicyEngine>, request: &Request<'_>, answers: &CustomAnswers, context: &dyn Fn() -> String) {
    let decision = engine.decide_with(request, answers);
    let (own, other) = (engine.for_peer(&request.peer_view()), engine.for_peer(&PeerView::new(None, None, 1)));
    for peer in [&own, &other] {
        assert_eq!(peer.decide_with(request, answers), decision, "{}", context());
        assert_eq!(peer.custom(request), engine.custom(request), "{}", context());
        assert_eq!(peer.may_allow(request), engine.reach(&request.peer_view()).is_possible(), "{}", context());
    }
    let explanation = engine.explain_with(request, answers);
    assert_eq!(explanation.decision, decision, "{}", context());
    if let (Some(rule), Some(policy)) = (decision.rule, &decision.policy) {
        let step = explanation.steps.iter().find(|step| step.policy == *policy && step.rule == rule);
        assert!(step.is_some_and(|step| step.matched), "{}", context());
    }
    for step in explanation.steps.iter().filter(|step| !step.matched && request.protocol != Protocol::Tcp) {
        assert!(!step.misses.is_empty(), "{}", context());
    }
    let reach = engine.reach(&request.peer_view());
    assert!(reach.is_possible() || decision.verdict == Verdict::Deny, "{reach:?} {}", context());
    // A 401 promises that some token would open the door: then none came, and it is shut.
    let promised = decision.token_would_help;
    assert!(!promised || (request.token.is_none() && decision.verdict == Verdict::Deny), "{}", context());
}

#[test]
fn strict_mode_lets_in_nothing_that_compat_mode_keeps_out() {
    let (mut compared, mut narrower) = (0, 0);
    for seed in 1..600 {
        let generator = Generator { rng: Rng::seeded(seed), mode: Mode::Strict };
        let mut policies = generator.policies();
        // Istio takes no identities there; they keep out as DENY does.
        policies.retain(|policy| policy.action != "CUSTOM");
        let no_policy = if generator.rng.below(2) == 0 { NoPolicy::Deny } else { NoPolicy::Allow };
        let of = |mode| {
            let trust_domains = vec!["d.example", "old.example"];
            compile(&policies, &Naive { mode, trust_domains, no_policy, regexes: RefCell::default() })
        };
        let (strict, compat) = (of(Mode::Strict), of(Mode::Compat));
        for _ in 0..REQUESTS {
            let sent = generator.request();
            let [strict, compat] = [&strict, &compat].map(|engine| engine.decide(&sent.request()).verdict);
            assert!(strict == Verdict::Deny || compat == Verdict::Allow, "seed {seed}: {sent:?}\n{}", yaml(&policies));
            compared += 1;
            narrower += usize::from(strict != compat);
        }
    }
    assert!(narrower > 50, "{narrower} of {compared}");
}

/// Where a policy looks at nothing but the connection, the answer is no estimate.
#[test]
fn of_policies_about_callers_alone_reach_is_exact() {
    const OF_PEERS: [&str; 12] = [
        "principals",
        "namespaces",
        "serviceAccounts",
        "trustDomains",
        "ipBlocks",
        "ports",
        "source.principal",
        "source.namespace",
        "source.ip",
        "destination.ip",
        "destination.port",
        "connection.sni",
    ];
    let (mut exact, mut impossible) = (0, 0);
    for seed in 1..1_500 {
        let generator = Generator { rng: Rng::seeded(seed), mode: Mode::Strict };
        let mut policies = generator.policies();
        for policy in &mut policies {
            policy.rules.retain(|rule| {
                let mut fields = rule.from.iter().chain(&rule.to).flatten().chain(&rule.when);
                fields.all(|field| OF_PEERS.contains(&&*field.key))
            });
        }
        let closed =
            |policy: &Policy| policy.action == "CUSTOM" || (policy.rules.is_empty() && policy.action == "DENY");
        policies.retain(|policy| !closed(policy));
        let (trust_domains, no_policy) = (vec!["d.example"], NoPolicy::Deny);
        let naive = Naive { mode: Mode::Strict, trust_domains, no_policy, regexes: RefCell::default() };
        let engine = compile(&policies, &naive);
        for _ in 0..8 {
            let sent = generator.request();
            let request = sent.request();
            let judged = naive.judge(&policies, &request, |_| None);
            let expected = match judged.verdict {
                Verdict::Allow => Reach::Possible,
                Verdict::Deny => {
                    let (policy, rule) = judged.by.unzip();
                    Reach::Impossible { reason: judged.reason, policy: policy.map(Into::into), rule }
                }
            };
            impossible += usize::from(expected != Reach::Possible);
            exact += 1;
            assert_eq!(engine.reach(&request.peer_view()), expected, "seed {seed}: {sent:?}\n{}", yaml(&policies));
        }
    }
    assert!(exact > 10_000 && impossible > 1_000 && impossible < exact - 1_000, "{impossible} of {exact}");
}
