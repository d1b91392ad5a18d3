//! The YAML of policies: a file that somebody else writes, or a pull request of a stranger.

use mesh_core::config::{Errors, NoPolicy, Workload};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::policy::canonical::Canonicalization;
use mesh_core::policy::lint::{LintOptions, lint};
use mesh_core::policy::{
    AuthorizationPolicy, EngineOptions, Mode, PolicyEngine, Protocol, Request, Verdict, parse_documents_as,
};

/// The verdict: `refused`, `compat` (strict mode refuses it), `strict` (both take it), or `not_utf8`.
pub(crate) fn run(data: &[u8]) -> &'static str {
    let Ok(text) = std::str::from_utf8(data) else { return "not_utf8" };
    let strict = judged(Mode::Strict, text);
    let compat = judged(Mode::Compat, text);
    match (strict, compat) {
        (true, true) => "strict",
        (false, true) => "compat",
        (false, false) => "refused",
        (true, false) => {
            // Istio refuses who callers are in CUSTOM rules; nothing else is narrower there.
            let custom = read(Mode::Strict, text).is_ok_and(|all| all.iter().any(|one| one.provider.is_some()));
            assert!(custom, "what strict mode takes, compat mode does");
            "strict_alone"
        }
    }
}

fn read(mode: Mode, text: &str) -> Result<Vec<AuthorizationPolicy>, Errors> {
    let mut errors = Errors::default();
    let documents = parse_documents_as(mode, Canonicalization::Reject, "f.yaml", text, &mut errors);
    if errors.is_empty() { Ok(documents) } else { Err(errors) }
}

/// Whether it is taken; what is taken is compiled and asked.
fn judged(mode: Mode, text: &str) -> bool {
    let documents = match read(mode, text) {
        Ok(documents) => documents,
        Err(errors) => {
            assert!(errors.issues().iter().all(|issue| !issue.message.is_empty() && &*issue.place.file == "f.yaml"));
            return false;
        }
    };
    assert!(mode == Mode::Compat || documents.iter().all(|document| document.doubts.is_empty()));
    for document in &documents {
        assert_eq!(document.rules.len(), document.rule_places.len(), "every rule has its place");
    }
    for finding in lint(&documents, &LintOptions::default()) {
        assert!(documents.iter().any(|document| document.name == finding.policy), "{finding}");
    }
    // Here and below: constants that are what they are parsed as.
    let mut options = EngineOptions::new(TrustDomain::parse("td").expect("a trust domain"));
    (options.mode, options.no_policy) = (mode, NoPolicy::Deny);
    let mut workload = Workload::new("orders", "shop");
    workload.labels.insert("app".to_owned(), "orders".to_owned());
    let engine = PolicyEngine::compile(&documents, &workload, &options);
    let web = SpiffeId::parse("spiffe://td/ns/shop/sa/web").expect("a SPIFFE ID");
    for peer in [None, Some(&web)] {
        for protocol in [Protocol::Http, Protocol::Grpc, Protocol::Tcp] {
            for path in ["/", "/orders/7", "/shop.Orders/Pay"] {
                let request = Request {
                    peer,
                    protocol,
                    method: "POST",
                    path,
                    host: "orders:8443",
                    port: 8443,
                    ..Request::UNKNOWN
                };
                let decision = engine.decide(&request);
                assert_eq!(decision, engine.decide(&request), "same request, same answer");
                assert_eq!(decision, engine.explain(&request).decision);
                if !engine.reach(&request.peer_view()).is_possible() {
                    assert_eq!(decision.verdict, Verdict::Deny, "out of reach and allowed");
                }
            }
        }
    }
    true
}
