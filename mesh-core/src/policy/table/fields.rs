//! What each field matches.

use std::net::IpAddr;

use super::*;

#[test]
fn strings() {
    for (pattern, path, expected) in
        [("/a", "/a", true), ("/a", "/A", false), ("/a*", "/ab", true), ("'*b'", "/ab", true), ("'*'", "/", true)]
    {
        assert_eq!(
            matches(&operation("paths", pattern), &Request { path, ..from(None) }),
            expected,
            "{pattern} {path}"
        );
    }
    assert!(refused(&format!("{{ rules: [{{ {} }}] }}", operation("paths", "''"))));
    assert!(refused_in(Mode::Compat, &format!("{{ rules: [{{ {} }}] }}", operation("paths", "''"))));
}

#[test]
fn principals() {
    let web = id("td/ns/shop/sa/web");
    for (value, peer, expected) in [
        ("td/ns/shop/sa/web", Some("td/ns/shop/sa/web"), true),
        ("td/ns/shop/sa/web", Some("other/ns/shop/sa/web"), false),
        ("'*/sa/web'", Some("other/ns/x/sa/web"), true),
        // A suffix is of the whole name, and no regular expression. (CVE-2020-16844)
        ("'*/sa/w.b'", Some("td/ns/shop/sa/web"), false),
        ("'*/sa/web'", Some("td/ns/shop/sa/web/x"), false),
        ("'*'", None, false),
        // Five parts of our own trust domain, under each of its names.
        ("cluster.local/ns/shop/sa/web", Some("td/ns/shop/sa/web"), true),
        ("cluster.local/ns/shop/sa/web", Some("old/ns/shop/sa/web"), true),
        ("old/ns/shop/sa/web", Some("td/ns/shop/sa/web"), true),
        ("cluster.local/ns/shop/sa/web", Some("cluster.local/ns/shop/sa/web"), false),
        ("cluster.local/gateway", Some("td/gateway"), false),
        ("other/ns/shop/sa/web", Some("td/ns/shop/sa/web"), false),
    ] {
        let peer = peer.map(id);
        assert_eq!(matches(&source("principals", value), &from(peer.as_ref())), expected, "{value} {peer:?}");
        assert_eq!(matches(&source("notPrincipals", value), &from(peer.as_ref())), !expected, "not {value} {peer:?}");
        assert_eq!(matches(&when("source.principal", value), &from(peer.as_ref())), expected, "{value} {peer:?}");
    }
    // No identity: positives never match, negatives do. (ISTIO-SECURITY-2021-004)
    for field in ["Principals", "Namespaces", "ServiceAccounts", "TrustDomains", "RequestPrincipals", "IpBlocks"] {
        let values = match field {
            "IpBlocks" => "0.0.0.0/0, '::/0'",
            "ServiceAccounts" => "web",
            _ => "'*'",
        };
        let positive = format!("{}{}", field[..1].to_lowercase(), &field[1..]);
        assert!(!matches(&source(&positive, values), &from(None)), "{field}");
        assert!(matches(&source(&format!("not{field}"), values), &from(None)), "not{field}");
    }
    assert!(matches(&source("principals", "'*'"), &from(Some(&web))));
}

/// What a positive and a negative list of the field decide: as ALLOW, as DENY.
fn both(mode: Mode, field: &str, value: &str, request: &Request<'_>) -> [[bool; 2]; 2] {
    let negative = format!("not{}{}", field[..1].to_uppercase(), &field[1..]);
    let of = |field: &str| match field {
        "methods" | "notMethods" => operation(field, value),
        _ => source(field, value),
    };
    [matches_in(mode, &of(field), request), matches_in(mode, &of(&negative), request)]
}

const LISTED: [[bool; 2]; 2] = [[true; 2], [false; 2]];
const NOT_LISTED: [[bool; 2]; 2] = [[false; 2], [true; 2]];
/// A doubt in the favour of nobody: no ALLOW rule holds, whichever way it is written, and every DENY rule does.
const DOUBTED: [[bool; 2]; 2] = [[false, true]; 2];

#[test]
fn namespaces() {
    for (value, peer, strict, compat) in [
        ("shop", "td/ns/shop/sa/web", LISTED, LISTED),
        ("shop", "td/ns/shop2/sa/web", NOT_LISTED, NOT_LISTED),
        ("sh*", "td/ns/shop/sa/web", LISTED, LISTED),
        ("'*'", "td/gateway", NOT_LISTED, NOT_LISTED),
        // Anywhere in Istio; five parts here where it lets in, anywhere where it keeps out.
        ("shop", "td/ns/shop/x/sa/web", DOUBTED, LISTED),
        ("shop", "td/zone/a/ns/shop/sa/web", DOUBTED, LISTED),
        ("shop, ops", "td/ns/ops/shop/sa/web", DOUBTED, LISTED),
        // Which finds more than it says, in five parts too.
        ("'*a'", "td/ns/shop/sa/web", DOUBTED, LISTED),
    ] {
        let peer = id(peer);
        for (mode, expected) in [(Mode::Strict, strict), (Mode::Compat, compat)] {
            let found = both(mode, "namespaces", value, &from(Some(&peer)));
            assert_eq!(found, expected, "{mode} {value} {peer}");
            let [positive, _] = expected;
            let condition = when("source.namespace", value);
            assert_eq!(matches_in(mode, &condition, &from(Some(&peer))), positive, "{mode} {condition} {peer}");
        }
    }
}

#[test]
fn service_accounts() {
    for (value, peer, expected) in [
        ("web", "td/ns/shop/sa/web", true),
        ("web", "td/ns/ops/sa/web", false),
        ("ops/web", "td/ns/ops/sa/web", true),
        ("ops/web", "other/ns/ops/sa/web", true),
        // Dots are dots. (CVE-2026-39350)
        ("ops/w.b", "td/ns/ops/sa/web", false),
        ("ops/we", "td/ns/ops/sa/web", false),
    ] {
        let peer = id(peer);
        for part in [source("serviceAccounts", value), when("source.serviceAccount", value)] {
            assert_eq!(matches(&part, &from(Some(&peer))), expected, "{part} {peer}");
            assert_eq!(matches_in(Mode::Compat, &part, &from(Some(&peer))), [expected; 2], "{part} {peer}");
        }
    }
    for peer in ["td/ns/shop/cluster/a/sa/web", "td/zone/a/ns/shop/sa/web", "td/ns/shop/sa/web/pod"] {
        let peer = id(peer);
        for (mode, expected) in [(Mode::Strict, DOUBTED), (Mode::Compat, LISTED)] {
            assert_eq!(both(mode, "serviceAccounts", "web", &from(Some(&peer))), expected, "{mode} {peer}");
        }
    }
    let seventeen = (0..17).map(|n| format!("a{n}")).collect::<Vec<_>>().join(", ");
    let long = "a".repeat(321);
    for wrong in
        ["'*'", "'a*'", "a/b/c", "'/a'", "''", &seventeen, &long, "a], principals: ['*'", "a], notNamespaces: [b"]
    {
        let spec = format!("{{ rules: [{{ {} }}] }}", source("serviceAccounts", wrong));
        assert!(refused(&spec) && refused_in(Mode::Compat, &spec), "{wrong}");
    }
}

#[test]
fn trust_domains() {
    for (value, peer, expected) in [
        ("td", "td/ns/shop/sa/web", true),
        ("td", "td2/ns/shop/sa/web", false),
        ("td", "old/gateway", true),
        ("old", "td/gateway", true),
        ("t*", "td/gateway", true),
        ("'*d'", "td/gateway", true),
        ("'*d'", "td2/ns/td/sa/d", false),
        ("'*'", "other/gateway", true),
        ("other", "td/gateway", false),
    ] {
        let peer = id(peer);
        for part in [source("trustDomains", value), when("source.trustDomain", value)] {
            assert_eq!(matches(&part, &from(Some(&peer))), expected, "{part} {peer}");
        }
    }
    for wrong in ["a/b", "'a*b'", "'*a*'", "''"] {
        let spec = format!("{{ rules: [{{ {} }}] }}", source("trustDomains", wrong));
        assert!(refused(&spec) && refused_in(Mode::Compat, &spec), "{wrong}");
    }
}

#[test]
fn request_principals() {
    const ISSUER: &str = "https://idp.example";
    for (value, subject, expected) in [
        ("https://idp.example/alice", Some("alice"), true),
        ("'https://idp.example/*'", Some("alice"), true),
        ("'*'", Some("alice"), true),
        ("'*'", None, false),
        ("'*ice'", Some("alice"), true),
        ("'https:*'", Some("alice"), true),
        // Split at the last slash: a subject that holds one cannot be named.
        ("https://idp.example/spiffe://td/web", Some("spiffe://td/web"), false),
    ] {
        let token = token(ISSUER, subject, serde_json::json!({}));
        let request = Request { token: Some(&token), ..from(None) };
        assert_eq!(matches(&source("requestPrincipals", value), &request), expected, "{value}");
        assert_eq!(matches(&when("request.auth.principal", value), &request), expected, "{value}");
    }
    let workload = token(ISSUER, Some("spiffe://td/web"), serde_json::json!({ "sub": "spiffe://td/web" }));
    let request = Request { token: Some(&workload), ..from(None) };
    assert!(matches(&when("request.auth.claims[sub]", "'spiffe://td/web'"), &request));
}

#[test]
fn ip_blocks() {
    let ip = |text: &str| -> Option<IpAddr> { text.parse().ok() };
    for (block, address, expected) in [
        ("10.0.0.0/8", "10.1.2.3", true),
        ("10.0.0.0/8", "::ffff:10.1.2.3", true),
        ("10.1.2.3", "10.1.2.3", true),
        ("10.1.2.3", "10.1.2.4", false),
        ("'2001:db8::/32'", "2001:db8::1", true),
        ("'::/0'", "10.1.2.3", false),
    ] {
        let (near, far) = (ip(address), ip("192.0.2.1"));
        let request = Request { source_ip: near, remote_ip: far, destination_ip: far, ..from(None) };
        assert_eq!(matches(&source("ipBlocks", block), &request), expected, "{block} {address}");
        assert_eq!(matches(&when("source.ip", block), &request), expected, "{block} {address}");
        let request = Request { source_ip: far, remote_ip: near, destination_ip: far, ..from(None) };
        assert_eq!(matches(&source("remoteIpBlocks", block), &request), expected, "{block} {address}");
        assert_eq!(matches(&when("remote.ip", block), &request), expected, "{block} {address}");
        let request = Request { source_ip: far, remote_ip: far, destination_ip: near, ..from(None) };
        assert_eq!(matches(&when("destination.ip", block), &request), expected, "{block} {address}");
    }
    // A zone names no range. (CVE-2026-26310)
    assert!(refused(&format!("{{ rules: [{{ {} }}] }}", source("ipBlocks", "'fe80::1%eth0'"))));
}

#[test]
fn hosts() {
    for (value, host, expected) in [
        ("Orders.Example", "orders.example", true),
        // The port is part of it: both forms are written.
        ("orders.example", "orders.example:8443", false),
        ("'orders.example:*'", "orders.example:8443", true),
        ("'*.EXAMPLE'", "orders.example", true),
    ] {
        assert_eq!(matches(&operation("hosts", value), &Request { host, ..from(None) }), expected, "{value} {host}");
    }
    // Requests lose a trailing dot before policy sees them: a value with one would match nothing.
    assert!(refused(&format!("{{ rules: [{{ {} }}] }}", operation("hosts", "'orders.'"))));
}

#[test]
fn ports() {
    for (value, port, expected) in
        [("'8443'", 8443, true), ("'843'", 8443, false), ("'0'", 0, true), ("'65535'", 65535, true)]
    {
        let request = Request { port, ..from(None) };
        assert_eq!(matches(&operation("ports", value), &request), expected, "{value}");
        assert_eq!(matches(&when("destination.port", value), &request), expected, "{value}");
    }
    for wrong in ["'65536'", "'-1'", "'80-90'", "'*'"] {
        assert!(refused_in(Mode::Compat, &format!("{{ rules: [{{ {} }}] }}", operation("ports", wrong))), "{wrong}");
    }
}

#[test]
fn methods() {
    for (value, method, expected) in
        [("GET", "GET", true), ("GET", "POST", false), ("'P*'", "PUT", true), ("'*T'", "GET", true)]
    {
        assert_eq!(
            matches(&operation("methods", value), &Request { method, ..from(None) }),
            expected,
            "{value} {method}"
        );
    }
    // The handler of GET answers HEAD: where GET is kept out, HEAD is, and nowhere is it let in.
    for (value, method, strict, compat) in [
        ("GET", "GET", LISTED, LISTED),
        ("GET", "HEAD", DOUBTED, NOT_LISTED),
        ("'G*'", "HEAD", DOUBTED, NOT_LISTED),
        ("HEAD", "HEAD", LISTED, LISTED),
        ("GET, HEAD", "HEAD", LISTED, LISTED),
        ("HEAD", "GET", NOT_LISTED, NOT_LISTED),
        ("POST", "HEAD", NOT_LISTED, NOT_LISTED),
    ] {
        for (mode, expected) in [(Mode::Strict, strict), (Mode::Compat, compat)] {
            let found = both(mode, "methods", value, &Request { method, ..from(None) });
            assert_eq!(found, expected, "{mode} {value} {method}");
        }
    }
    // Unless it is named.
    let all_but_head = "to: [{ operation: { methods: [GET], notMethods: [HEAD] } }]";
    assert!(!matches(all_but_head, &Request { method: "HEAD", ..from(None) }));
    let lower = format!("{{ rules: [{{ {} }}] }}", operation("methods", "get"));
    assert!(refused(&lower) && !refused_in(Mode::Compat, &lower), "in Istio it matches nothing");
    // gRPC is always POST.
    let grpc = Request { method: "POST", protocol: Protocol::Grpc, ..from(None) };
    assert!(matches(&operation("methods", "POST"), &grpc) && !matches(&operation("methods", "GET"), &grpc));
}

#[test]
fn paths() {
    for (value, path, expected) in [
        ("/a", "/a", true),
        ("'/foo/{*}/bar/{**}'", "/foo/x/bar/y/z", true),
        ("'/foo/{*}/bar/{**}'", "/foo//bar/x", false),
        ("'/store/{**}/cart'", "/store//cart", true),
        ("'/store/{**}/cart'", "/store/a/b/cart", true),
        // A literal star of the request is matched like any other character. (CVE-2025-46821)
        ("'/foo/{*}'", "/foo/*", true),
        ("'/foo/*'", "/foo/*", true),
        ("/abc", "/a*", false),
    ] {
        assert_eq!(matches(&operation("paths", value), &Request { path, ..from(None) }), expected, "{value} {path}");
        assert_eq!(
            matches(&operation("notPaths", value), &Request { path, ..from(None) }),
            !expected,
            "{value} {path}"
        );
    }
    for wrong in ["'/{**}/{*}'", "'/a{*}'", "'/{id}'", "'/{*}/a*'", "'{*}'"] {
        let spec = format!("{{ rules: [{{ {} }}] }}", operation("paths", wrong));
        assert!(refused(&spec) && refused_in(Mode::Compat, &spec), "{wrong}");
    }
}

#[test]
fn conditions() {
    let token = token(
        "https://idp.example",
        Some("alice"),
        serde_json::json!({
            "aud": ["a", "b"], "azp": "client", "scope": "read write", "permission": "p q", "groups": ["x", 7],
            "level": 7, "nested": { "name": "n" }, "spaced": "one two"
        }),
    );
    let request =
        Request { token: Some(&token), sni: Some("orders.example"), route: Some("/orders/{id}"), ..from(None) };
    for (key, value, expected) in [
        ("request.auth.audiences", "b", true),
        ("request.auth.audiences", "c", false),
        ("request.auth.presenter", "client", true),
        ("request.auth.claims[groups]", "x", true),
        // A claim is a string or a list of strings.
        ("request.auth.claims[level]", "'7'", false),
        ("request.auth.claims[groups]", "'7'", false),
        ("request.auth.claims[nested][name]", "n", true),
        ("request.auth.claims[nested]", "'*'", false),
        // Split at spaces: only these two.
        ("request.auth.claims[scope]", "write", true),
        ("request.auth.claims[permission]", "q", true),
        ("request.auth.claims[spaced]", "two", false),
        ("connection.sni", "'*.example'", true),
        ("connection.sni", "other", false),
        ("route", "'/orders/{id}'", true),
        ("route", "/orders/7", false),
    ] {
        assert_eq!(matches(&when(key, value), &request), expected, "{key} {value}");
    }
    for unknown in ["request.header[a]", "destination.labels[a]", "source.user", "experimental.envoy.filters.a[b]"] {
        let spec = format!("{{ rules: [{{ {} }}] }}", when(unknown, "a"));
        assert!(refused(&spec) && refused_in(Mode::Compat, &spec), "{unknown}");
    }
    // An absent header satisfies only `notValues`.
    let absent = "when: [{ key: 'request.headers[x]', notValues: [a] }]";
    assert!(matches(absent, &from(None)) && !matches(&when("request.headers[x]", "'*'"), &from(None)));
}

struct Sent(&'static [&'static str]);

impl Headers for Sent {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "x" {
            self.0.iter().for_each(|value| each(value.as_bytes()));
        }
    }
}

#[test]
fn multi_value_headers() {
    // (values, notValues), what came; ALLOW and DENY in strict mode, both in compat.
    for (lists, sent, allow, deny, compat) in [
        ("values: [a]", &["a"][..], true, true, true),
        ("values: [a]", &["a", "b"], false, true, true),
        ("values: [a]", &["b"], false, false, false),
        ("notValues: [a]", &["b"], true, true, true),
        ("notValues: [a]", &["a", "b"], false, true, false),
        ("notValues: [a]", &["a"], false, false, false),
        ("notValues: [a]", &[], true, true, true),
        // Something that is there and empty is in doubt: is it a value?
        ("values: ['*']", &[""], false, true, true),
        ("notValues: ['*']", &[""], false, true, false),
        ("notValues: ['*']", &["a"], false, false, false),
        ("values: ['a*']", &[""], false, false, false),
        // Not one value with a comma. (CVE-2026-26308)
        ("values: ['a,b']", &["a", "b"], false, false, false),
    ] {
        let part = format!("when: [{{ key: 'request.headers[x]', {lists} }}]");
        let headers = Sent(sent);
        let request = Request { headers: &headers, ..from(None) };
        assert_eq!(matches_in(Mode::Strict, &part, &request), [allow, deny], "{part} {sent:?}");
        assert_eq!(matches_in(Mode::Compat, &part, &request), [compat; 2], "{part} {sent:?}");
    }
}
