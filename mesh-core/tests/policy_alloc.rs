//! Deciding a request allocates nothing. Alone in its binary, for its allocator.

#![allow(clippy::unwrap_used, missing_docs)] // a test

mod allocated;

use std::sync::Arc;

use mesh_core::config::{Errors, Workload};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::policy::{EngineOptions, PolicyEngine, Request, Verdict, parse_documents};

use allocated::allocated;

#[test]
fn a_decision_allocates_nothing() {
    let mut yaml =
        "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\n\
                    spec:\n  rules:\n"
            .to_owned();
    for number in 0..100 {
        yaml += &format!(
            "  - {{ from: [{{ source: {{ principals: [td/ns/shop/sa/s{number}, '*/sa/web'], notNamespaces: [ops] }} }}], \
             to: [{{ operation: {{ methods: [GET], paths: ['/items/{number}', '/items/{number}/{{*}}/x'] }} }}] }}\n"
        );
    }
    let mut errors = Errors::default();
    let documents = parse_documents("<test>", &yaml, &mut errors);
    assert!(errors.is_empty(), "{:?}", errors.issues());
    let options = EngineOptions::new(TrustDomain::parse("td").unwrap());
    let engine = Arc::new(PolicyEngine::compile(&documents, &Workload::new("orders", "shop"), &options));
    let web = SpiffeId::parse("spiffe://td/ns/shop/sa/web").unwrap();
    for (peer, path, verdict) in [
        (Some(&web), "/items/99", Verdict::Allow),
        (Some(&web), "/items/99/a/x", Verdict::Allow),
        (Some(&web), "/items/100", Verdict::Deny),
        (None, "/items/1", Verdict::Deny),
    ] {
        let request = Request { peer, method: "GET", path, host: "orders", port: 8443, ..Request::UNKNOWN };
        let known = engine.for_peer(&request.peer_view());
        let (bytes, decision) = allocated(|| known.decide(&request));
        assert_eq!((bytes, decision.verdict), (0, verdict), "{path}, by connection");
        let (bytes, decision) = allocated(|| engine.decide(&request));
        assert_eq!((bytes, decision.verdict), (0, verdict), "{path}");
    }
    // The counter counts.
    assert!(allocated(|| String::from("x").len()).0 > 0);
}
