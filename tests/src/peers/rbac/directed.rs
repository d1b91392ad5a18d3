//! The smallest policies and requests that show each kind of difference, and that strict mode lets in nowhere more.

use std::path::Path;

use serde_json::{Value, json};

use super::generate::{Connection, Flaw, ISSUERS, PEERS, PolicySet, Sent, Token};
use super::run::World;
use super::translate::filters;
use super::{Found, compare};

/// The policies of each case, and what is sent.
fn cases() -> Vec<(Vec<Value>, Sent)> {
    let allow = |rule: Value| vec![json!({ "action": "ALLOW", "rules": [rule] })];
    let deny = |rule: Value| vec![json!({ "action": "DENY", "rules": [rule] })];
    let from = |source: Value| json!({ "from": [{ "source": source }] });
    let to = |operation: Value| json!({ "to": [{ "operation": operation }] });
    let when = |condition: Value| json!({ "when": [condition] });
    let colour = |list: &str, value: &str| when(json!({ "key": "request.headers[x-colour]", list: [value] }));
    let plain = Sent {
        set: 0,
        connection: 0,
        method: "GET",
        target: "/orders".to_owned(),
        host: "orders",
        colours: vec![],
        forwarded: None,
        token: None,
    };
    let with = |flaw| {
        let claims = json!({ "sub": "alice", "aud": "red" });
        Sent { token: Some(Token { issuer: ISSUERS[0], claims, flaw: Some(flaw) }), ..plain.clone() }
    };
    let coloured = |colours: &[&'static str]| Sent { colours: colours.to_vec(), ..plain.clone() };
    let fragment = Sent { target: "/orders/7#f".to_owned(), ..plain.clone() };
    let head = Sent { method: "HEAD", ..plain.clone() };
    // The connection is of a caller whose identity has another shape.
    let mut all = vec![
        (allow(json!({})), fragment.clone()),
        (allow(to(json!({ "hosts": ["orders"] }))), Sent { host: "orders.", ..plain.clone() }),
        (
            allow(from(json!({ "remoteIpBlocks": ["10.0.0.0/8"] }))),
            Sent { forwarded: "::ffff:10.0.0.1".parse().ok(), ..plain.clone() },
        ),
        (allow(json!({})), with(Flaw::NoExpiry)),
        (allow(json!({})), with(Flaw::LongLife)),
        (allow(to(json!({ "paths": ["/orders", "/a*b"] }))), plain.clone()),
        (vec![], plain.clone()),
        (allow(from(json!({ "namespaces": ["shop"] }))), plain.clone()),
        (allow(from(json!({ "serviceAccounts": ["shop/web"] }))), plain.clone()),
        (deny(from(json!({ "notNamespaces": ["shop"] }))), plain.clone()),
        (allow(colour("values", "red")), coloured(&["red", "blue"])),
        (deny(colour("notValues", "red")), coloured(&["red", "blue"])),
        (allow(colour("values", "*")), coloured(&[""])),
        (deny(colour("notValues", "*")), coloured(&[""])),
        (deny(to(json!({ "methods": ["GET"] }))), head.clone()),
        (allow(to(json!({ "notMethods": ["GET"] }))), head.clone()),
        (deny(json!({})), fragment),
        (deny(json!({})), with(Flaw::NoExpiry)),
        (allow(from(json!({ "requestPrincipals": ["*"] }))), plain.clone()),
        (allow(json!({})), with(Flaw::OtherAudience)),
    ];
    // Where strict mode once let in more: nothing may differ.
    all.extend([
        (deny(from(json!({ "namespaces": ["shop"] }))), plain.clone()),
        (deny(when(json!({ "key": "source.namespace", "values": ["shop"] }))), plain.clone()),
        (deny(from(json!({ "serviceAccounts": ["shop/web"] }))), plain.clone()),
        (allow(from(json!({ "notNamespaces": ["shop"] }))), plain.clone()),
        (allow(from(json!({ "notServiceAccounts": ["shop/web"] }))), plain.clone()),
        (deny(colour("values", "*")), coloured(&[""])),
        (allow(colour("notValues", "*")), coloured(&[""])),
        (deny(to(json!({ "methods": ["HEAD"] }))), head),
    ]);
    all
}

/// Sends them all.
pub(super) async fn met(binary: &Path, world: &World) -> Found {
    let connection = Connection {
        peer: PEERS.iter().position(|peer| *peer == "d.example/ns/shop/extra/sa/web"),
        tls: true,
        sni: None,
        source: [127, 0, 0, 1].into(),
        client: [10, 0, 0, 1].into(),
        destination: ([10, 0, 0, 8].into(), 8443),
    };
    let (mut sets, mut requests) = (Vec::new(), Vec::new());
    for (set, (specs, sent)) in cases().into_iter().enumerate() {
        let document = |spec: Value| {
            json!({
                "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
                "metadata": { "name": "p", "namespace": "shop" }, "spec": spec,
            })
        };
        sets.push(PolicySet { documents: specs.into_iter().map(document).collect(), trust_domains: &["d.example"] });
        let token = sent.token.as_ref().map(|token| world.token(token));
        requests.push((Sent { set, ..sent }, token));
    }
    compare(binary, world, &sets, &[connection], &requests, filters).await
}
