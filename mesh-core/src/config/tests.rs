//! Whole documents: what a good one means, and exactly what is said about a bad one.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::*;
use crate::identity::{SpiffeId, TrustDomain};
use crate::policy::Mode;
use crate::policy::canonical::Canonicalization;

mod balance;
mod health;

const HEAD: &str = "\
workload: { name: orders, namespace: shop }
identity: { trust_domain: shop.example, source: { dev_ca: { dir: .mesh } } }
";

const FULL: &str = "
workload:  { name: orders, namespace: shop, service_account: oa, labels: { app: orders }, locality: { region: eu-west, zone: a } }
identity:  { trust_domain: shop.example, source: { dev_ca: { dir: .mesh } } }
listeners:
  default: { address: '0.0.0.0:8443', mtls: strict, trusted_hops: 1, handshake_timeout: 1s, hello_timeout: 1s, header_timeout: 2s, body_timeout: 1s, send_timeout: 1s, min_body_rate: 1KiB, idle_timeout: 3s, max_connection_age: 4m,
             drain_timeout: 0s, shutdown_delay: 5s, max_connections: 5, max_half_open: 1, max_connections_per_ip: 2, max_connections_per_peer: 3,
             max_resets_per_second: 4, max_handshakes: 6, max_concurrent_streams: 7, max_header_bytes: 8KiB, max_headers: 9, max_body_bytes: 0B, decompress_requests: true }
health:    { address: '0.0.0.0:8081' }
tokens:    [ { issuer: 'https://idp.example', audiences: [orders], jwks: { file: keys.json }, algorithms: [ES256], leeway: 1s, max_lifetime: 1h, types: [JWT], from_headers: [ { name: x-jwt, prefix: 'T ' } ], from_params: [jwt], from_cookies: [session], output_payload_to_header: x-payload, output_claim_to_headers: [ { header: x-sub, claim: sub } ], forward_original_token: true } ]
policies:  [ policies/, /abs/p.yaml ]
authorization: { mode: compat, no_policy: allow, root_namespace: root, trust_domain_aliases: [old.example], canonical: merge-slashes, custom_timeout: 2s, groups_claim: [realm_access, roles] }
roles:
  reader: [ { methods: [GET], paths: [/orders, '/a/{*}'] }, { grpc: [shop.Orders/Get] } ]
bindings:
  - { name: web, role: reader, to: { identities: ['spiffe://shop.example/web'], request_principals: ['i/alice'], groups: [staff], scopes: [read] } }
clusters:
  payments:
    discover:   { static: ['127.0.0.1:8443'] }
    identities: [ 'spiffe://shop.example/ns/shop/sa/payments' ]
    balance:    { policy: peak_ewma, decay: 1s, default_rtt: 1us, failure_penalty: 0s }
    outlier:    { consecutive_failures: 0, base_ejection: 10ms, max_ejection: 10ms, max_ejection_percent: 100 }
    pool:       { http: http2, connect_timeout: 10ms, max_connections: 1, max_pending: 0, ping_interval: 1s, ping_timeout: 1s, idle_timeout: 1s,
                  max_connection_age: 0s, stream_idle_timeout: 0s, max_header_bytes: 8KiB }
    token:      { file: token.jwt }
routes:
  payments:
    - match:   { method: POST, path: /shop.Payments/Charge }
      cluster: payments
      timeout: 2s
      retry:   { attempts: 3, per_try_timeout: 300ms, idempotent: true, backoff: 1ms, max_backoff: 2ms, max_replay_bytes: 1MiB,
                 budget: { ratio: 12.5%, min_per_second: 1, window: 1s } }
    - match:   { path: '/a/*' }
      cluster: payments
limits:    { max_concurrent_requests: 1, max_concurrent_requests_per_peer: 1, rate: { per_second: 10, burst: 20, max_principals: 30 } }
audit:     { sink: { file: { path: audit.jsonl } }, queue: 16 }
telemetry: { exporter: { otlp: { endpoint: 'http://127.0.0.1:4318' } } }
egress:    registry_only
reload:    { interval: 50ms }
";

fn read(text: &str) -> Result<Config, Vec<String>> {
    let mut errors = Errors::default();
    let config = Config::parse("mesh.yaml", text, Path::new("/etc/mesh"), |_| {}, &mut errors);
    let found = errors.finish(config.map(|(config, _)| config));
    found.map_err(|error| error.issues().iter().map(ToString::to_string).collect())
}

fn issues(text: &str) -> Vec<String> {
    read(text).err().unwrap_or_default()
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[test]
fn a_minimal_file_has_every_documented_default() {
    let yaml = format!(
        "{HEAD}
listeners: {{ default: {{ address: '0.0.0.0:8443' }} }}
clusters: {{ payments: {{ discover: {{ static: ['127.0.0.1:1'] }}, identities: ['spiffe://shop.example/p'] }} }}
routes: {{ payments: [{{ cluster: payments, retry: {{}} }}] }}
tokens: [{{ issuer: i, audiences: [a], jwks: {{ file: k }} }}]
limits: {{ rate: {{ per_second: 2.5 }} }}
"
    );
    let config = read(&yaml).unwrap();
    assert_eq!(config.workload, Workload::new("orders", "shop"));
    assert_eq!((config.no_policy, config.root_namespace.as_str()), (NoPolicy::Deny, "istio-system"));
    assert_eq!(config.canonical, Canonicalization::Reject);
    assert_eq!((config.policy_mode, config.trust_domain_aliases.len()), (Mode::Strict, 0));
    assert_eq!((config.poll_interval, &config.health, config.policies.len()), (millis(500), &None, 0));
    assert_eq!((config.audit.queue, &config.audit.sink, &config.telemetry.exporter), (4096, &None, &None));
    let rate = RateLimitConfig { per_second: 2.5, burst: 2, max_principals: 10_000 };
    assert_eq!(
        config.limits,
        LimitsConfig { max_concurrent_requests: 1024, max_concurrent_requests_per_peer: None, rate: Some(rate) }
    );
    assert_eq!(
        config.listeners["default"],
        ListenerConfig {
            address: "0.0.0.0:8443".parse().unwrap(),
            mtls: Mtls::Strict,
            tls: TlsConfig { min_version: TlsVersion::V1_3, resumption: false },
            forwarded_identity: None,
            trusted_hops: 0,
            handshake_timeout: secs(10),
            hello_timeout: secs(3),
            header_timeout: secs(10),
            body_timeout: secs(20),
            send_timeout: secs(60),
            min_body_rate: 240,
            idle_timeout: secs(300),
            max_connection_age: secs(1800),
            drain_timeout: secs(30),
            shutdown_delay: secs(0),
            max_connections: 10_000,
            max_half_open: None,
            max_connections_per_ip: None,
            max_connections_per_peer: None,
            max_resets_per_second: 100,
            max_handshakes: 256,
            max_concurrent_streams: 100,
            max_header_bytes: 16_384,
            max_headers: 100,
            max_body_bytes: 4_194_304,
            decompress_requests: false,
        }
    );
    assert_eq!(
        config.clusters["payments"],
        ClusterConfig {
            discover: PlugConfig::new("static", &serde_json::json!(["127.0.0.1:1"])),
            discover_hold: HoldConfig { shrink: 0.5, confirm_after: secs(300), empty_after: None },
            identities: vec![SpiffeId::parse("spiffe://shop.example/p").unwrap()],
            balance: BalanceConfig {
                policy: BalancePolicy::PeakEwma,
                decay: secs(10),
                default_rtt: millis(30),
                failure_penalty: secs(5),
                overprovisioning_percent: 140,
                panic: PanicConfig { threshold_percent: 50, action: PanicAction::Route },
                locality: LocalityConfig::Off,
                slow_start: None,
            },
            outlier: OutlierConfig {
                consecutive_failures: 5,
                success_rate: SuccessRateConfig {
                    stdev_factor: 1.9,
                    min_hosts: 5,
                    min_requests: 100,
                    significance: 4.0,
                },
                failure_percentage: FailurePercentageConfig { threshold: 85, min_hosts: 5, min_requests: 50 },
                interval: secs(10),
                base_ejection: secs(30),
                max_ejection: secs(300),
                ejection_jitter: 0.1,
                max_ejection_percent: 50,
            },
            breaker: None,
            limits: ClusterLimitsConfig {
                max_requests: 1024,
                max_connections: 1024,
                max_handshakes: 64,
                max_retries: None,
            },
            health_check: None,
            pool: PoolConfig {
                http: HttpVersion::Auto,
                connect_timeout: secs(1),
                max_connections: 4,
                max_pending: 1024,
                ping_interval: secs(5),
                ping_timeout: secs(2),
                idle_timeout: secs(90),
                max_connection_age: secs(3600),
                stream_idle_timeout: secs(300),
                max_header_bytes: 65_536,
            },
            tls: TlsConfig { min_version: TlsVersion::V1_3, resumption: false },
            token: None,
            residency: Vec::new(),
        }
    );
    assert_eq!(
        config.routes["payments"],
        [RouteConfig {
            matches: RouteMatch { method: None, path: None },
            cluster: "payments".into(),
            timeout: secs(15),
            retry: Some(RetryConfig {
                attempts: 3,
                per_try_timeout: None,
                idempotent: None,
                backoff: millis(25),
                max_backoff: millis(250),
                max_replay_bytes: 65_536,
                budget: BudgetConfig { ratio: 0.2, min_per_second: 10, window: secs(10) },
            }),
            hash: Vec::new(),
        }]
    );
    assert_eq!(
        config.tokens,
        [IssuerConfig {
            issuer: "i".into(),
            audiences: vec!["a".into()],
            dangerous_any_audience: false,
            jwks: PlugConfig::new("file", &serde_json::json!("k")),
            algorithms: ["RS256", "PS256", "ES256", "ES384", "EdDSA"].map(String::from).into(),
            leeway: secs(30),
            max_lifetime: secs(86_400),
            types: ["JWT", "at+jwt"].map(String::from).into(),
            from_headers: vec![],
            from_params: vec![],
            from_cookies: vec![],
            output_payload_to_header: None,
            output_claim_to_headers: vec![],
            forward_original_token: false,
        }]
    );
}

#[test]
fn compat_mode_has_the_defaults_of_istio() {
    let of = |authorization: &str| {
        let config = read(&format!(
            "workload: {{ name: orders, namespace: shop }}\nidentity: {{ trust_domain: shop.example, source: {{ dev_ca: {{ dir: a }} }} }}\n\
             authorization: {{ {authorization} }}\n"
        ));
        config.map(|config| (config.no_policy, config.canonical)).unwrap()
    };
    assert_eq!(of("mode: strict"), (NoPolicy::Deny, Canonicalization::Reject));
    assert_eq!(of("mode: compat"), (NoPolicy::Allow, Canonicalization::Base));
    assert_eq!(of("mode: compat, no_policy: deny, canonical: reject"), (NoPolicy::Deny, Canonicalization::Reject));
}

#[test]
fn every_field_can_be_written() {
    let config = read(FULL).unwrap();
    assert_eq!(config.workload.labels, BTreeMap::from([("app".into(), "orders".into())]));
    assert_eq!(config.workload.locality, Locality { region: "eu-west".into(), zone: "a".into() });
    assert_eq!(config.policies, [PathBuf::from("/etc/mesh/policies/"), PathBuf::from("/abs/p.yaml")]);
    assert_eq!((config.no_policy, config.root_namespace.as_str()), (NoPolicy::Allow, "root"));
    assert_eq!(config.canonical, Canonicalization::MergeSlashes);
    assert_eq!(config.policy_mode, Mode::Compat);
    assert_eq!(config.trust_domain_aliases, [TrustDomain::parse("old.example").unwrap()]);
    assert_eq!(config.groups_claim, ["realm_access", "roles"]);
    let reader = [
        PermissionConfig::default().methods(["GET"]).paths(["/orders", "/a/{*}"]),
        PermissionConfig::default().grpc(["shop.Orders/Get"]),
    ];
    assert_eq!(config.roles["reader"], reader);
    let to = SubjectsConfig::default().identities(["spiffe://shop.example/web"]).request_principals(["i/alice"]);
    assert_eq!(config.bindings, [BindingConfig::new("reader", to.groups(["staff"]).scopes(["read"])).name("web")]);
    let [charge, prefix] = config.routes["payments"].as_slice() else { panic!() };
    assert_eq!(charge.matches.path, Some(PathMatch::Exact("/shop.Payments/Charge".into())));
    assert_eq!(prefix.matches.path, Some(PathMatch::Prefix("/a/".into())));
    let retry = charge.retry.as_ref().unwrap();
    assert_eq!((retry.budget.ratio, retry.max_replay_bytes, retry.idempotent), (0.125, 1 << 20, Some(true)));
    assert_eq!(config.limits.rate.as_ref().map(|rate| (rate.burst, rate.max_principals)), Some((20, 30)));
    assert_eq!(config.telemetry.exporter.as_ref().map(|plug| plug.kind.as_str()), Some("otlp"));
    assert_eq!(config.poll_interval, millis(50));
}

#[test]
fn problems_are_told_all_at_once_with_their_place() {
    let cases: &[(&str, &[&str])] = &[
        ("", &["mesh.yaml: the file is empty: at least `workload` and `identity` are required"]),
        ("[]", &["mesh.yaml:1:1: expected a mapping, found a list"]),
        ("a: 1\n---\nb: 1\n", &["mesh.yaml:3:1: a second document: a configuration is one"]),
        ("{}", &["mesh.yaml:1:1: workload: this field is required", "mesh.yaml:1:1: identity: this field is required"]),
        (
            "workload: { name: '', namespace: a/b, service_account: 'x y', lables: {} }\nidentity: { trust_domain: UPPER, source: {} }\n",
            &[
                "mesh.yaml:1:19: workload.name: the name cannot be empty",
                "mesh.yaml:1:34: workload.namespace: \"a/b\" cannot be part of a SPIFFE ID: [a-zA-Z0-9._-]+",
                "mesh.yaml:1:56: workload.service_account: \"x y\" cannot be part of a SPIFFE ID: [a-zA-Z0-9._-]+",
                "mesh.yaml:1:63: workload.lables: unknown field; did you mean `labels`?",
                "mesh.yaml:2:27: identity.trust_domain: \"UPPER\": TRUST_DOMAIN",
                "mesh.yaml:2:42: identity.source: expected one kind with its settings, found 0 fields",
            ],
        ),
        (
            "HEAD
listener: {}
listeners:
  public: { address: '0.0.0.0', max_headers: 7 }
  other:  { address: '127.0.0.1:80', mtls: lax, drain_timeout: 2h, max_body_bytes: 5 }
health: { address: '127.0.0.1:80' }
egress: allow_any
",
            &[
                "mesh.yaml:4:1: listener: unknown field; did you mean `listeners`?",
                "mesh.yaml:6:3: listeners: one listener must be called `default`: it is the one that `serve` uses",
                "mesh.yaml:6:22: listeners.public.address: expected an address with a port, such as \"127.0.0.1:8443\" or \"[::1]:8443\", found \"0.0.0.0\"",
                "mesh.yaml:7:44: listeners.other.mtls: unknown value `lax`; known: strict, permissive",
                "mesh.yaml:7:64: listeners.other.drain_timeout: 2h is out of range: expected 0s to 1h",
                "mesh.yaml:7:84: listeners.other.max_body_bytes: expected a size: a whole number with its unit (512B, 64KiB, 4MiB or 1GB), found 5",
                "mesh.yaml:8:20: health.address: 127.0.0.1:80 is taken by another listener",
                "mesh.yaml:9:9: egress: unknown value `allow_any`; known: registry_only",
            ],
        ),
        (
            "HEAD
clusters:
  payments:
    discover: { static: [], dns: x }
    identities: []
    outlier: { base_ejection: 60s, max_ejection: 30s, max_ejection_percent: 101 }
  ledger:
    identities: [ 'spiffe://shop.example', 'http://x' ]
    pool: { http: h2 }
routes:
  payments:
  - cluster: paymens
    timeout: 100ms
    retry: { per_try_timeout: 300ms, max_backoff: 1ms, budget: { ratio: 0.2 } }
  - cluster: payments
    match: { method: get, path: 'a*b' }
",
            &[
                "mesh.yaml:6:15: clusters.payments.discover: expected one kind with its settings, found 2 fields",
                "mesh.yaml:10:5: clusters.ledger.discover: this field is required",
                "mesh.yaml:10:44: clusters.ledger.identities[1]: \"http://x\": SPIFFE_ID",
                "mesh.yaml:11:19: clusters.ledger.pool.http: unknown value `h2`; known: auto, http1, http2",
                "mesh.yaml:14:14: routes.payments[0].cluster: no cluster is called `paymens`",
                "mesh.yaml:16:31: routes.payments[0].retry.per_try_timeout: 300ms is more than the route's timeout (100ms)",
                "mesh.yaml:16:51: routes.payments[0].retry.max_backoff: 1ms is less than backoff (25ms)",
                "mesh.yaml:16:73: routes.payments[0].retry.budget.ratio: expected a percentage such as 20%, found 0.2",
                "mesh.yaml:17:5: routes.payments[1]: never reached: route [0] matches everything",
                "mesh.yaml:18:22: routes.payments[1].match.method: \"get\" is no method: methods are upper-case words such as GET (RFC 9110 9.1)",
                "mesh.yaml:18:33: routes.payments[1].match.path: \"a*b\" is no path: write \"/a/b\", or \"/a/*\" for all that begins with \"/a/\"",
            ],
        ),
        (
            "HEAD
clusters:
  payments: { discover: { dns: 'payments:8443' }, identities: [ 'spiffe://shop.example/payments' ], residency: [ eu ] }
  ledger: { discover: { dns: 'ledger:8443' }, identities: [ 'spiffe://shop.example/ledger' ], balance: { locality: { weighted: {} } } }
  books:
    discover: { dns: { name: books, port: 8443, locality: { region: eu } } }
    identities: [ 'spiffe://shop.example/books' ]
    residency: [ eu ]
    balance: { locality: { weighted: {} } }
",
            &[
                "mesh.yaml:5:112: clusters.payments.residency: names tell no region, so all endpoints of `dns` would be shut out: say where they run, `dns: { locality: { region: ... } }`",
                "mesh.yaml:6:116: clusters.ledger.balance.locality: names tell no locality, so all endpoints of `dns` would be in one: say where they run, `dns: { locality: ... }`, or leave this out",
            ],
        ),
        (
            "HEAD
clusters:
  payments: { discover: { static: [] }, identities: [], outlier: { base_ejection: 60s, max_ejection: 30s, max_ejection_percent: 101 } }
  ledger: { discover: { static: [] }, identities: [ 'spiffe://shop.example' ] }
routes: { a: [{ cluster: paymens }], b: [] }
limits: { max_concurrent_requests: 0, rate: { per_second: 0, burst: -1 } }
audit: { queue: 15 }
reload: { interval: 10ms }
authorization: { no_policy: Allow, root_namespace: '', canonical: merge_slashes, custom_timeout: 1m }
",
            &[
                "mesh.yaml:5:53: clusters.payments.identities: at least one SPIFFE ID is required: without it any workload could pose as this one",
                "mesh.yaml:5:102: clusters.payments.outlier.max_ejection: 30s is less than base_ejection (1m)",
                "mesh.yaml:5:129: clusters.payments.outlier.max_ejection_percent: 101 is out of range: expected 0 to 100",
                "mesh.yaml:6:53: clusters.ledger.identities[0]: spiffe://shop.example names a trust domain, not a workload: add its path",
                "mesh.yaml:7:26: routes.a[0].cluster: no cluster is called `paymens`; did you mean `payments`?",
                "mesh.yaml:7:41: routes.b: at least one route is required",
                "mesh.yaml:8:36: limits.max_concurrent_requests: 0 is out of range: expected 1 to 1000000",
                "mesh.yaml:8:59: limits.rate.per_second: 0 is out of range: expected 0.001 to 1000000",
                "mesh.yaml:8:69: limits.rate.burst: -1 is out of range: expected at least 0",
                "mesh.yaml:9:17: audit.queue: 15 is out of range: expected 16 to 1000000",
                "mesh.yaml:10:21: reload.interval: 10ms is out of range: expected 50ms to 1m",
                "mesh.yaml:11:29: authorization.no_policy: unknown value `Allow`; did you mean `allow`?",
                "mesh.yaml:11:52: authorization.root_namespace: the root namespace cannot be empty",
                "mesh.yaml:11:67: authorization.canonical: unknown value `merge_slashes`; did you mean `merge-slashes`?",
                "mesh.yaml:11:98: authorization.custom_timeout: 1m is out of range: expected 1ms to 30s",
            ],
        ),
        (
            "HEAD
tokens:
- { issuer: i, audiences: [], jwks: { file: k }, algorithms: [HS256, none, ''], leeway: 2m, max_lifetime: 500ms }
- { issuer: i, audiences: [a], jwks: { file: k }, types: [] }
",
            &[
                "mesh.yaml:5:27: tokens[0].audiences: at least one is required",
                "mesh.yaml:5:63: tokens[0].algorithms[0]: `HS256` is never accepted; use one of ALGORITHMS",
                "mesh.yaml:5:70: tokens[0].algorithms[1]: `none` is never accepted; use one of ALGORITHMS",
                "mesh.yaml:5:76: tokens[0].algorithms[2]: cannot be empty",
                "mesh.yaml:5:89: tokens[0].leeway: 2m is out of range: expected 0s to 1m",
                "mesh.yaml:5:107: tokens[0].max_lifetime: 500ms is out of range: expected 1s to 8784h",
                "mesh.yaml:6:13: tokens[1].issuer: duplicate issuer \"i\": list its audiences in one place",
                "mesh.yaml:6:58: tokens[1].types: at least one is required",
            ],
        ),
        (
            "HEAD
tokens: { issuer: i }
policies: policies/
clusters: 5
routes: { a: { cluster: x } }
",
            &[
                "mesh.yaml:4:9: tokens: expected a list, found a mapping",
                "mesh.yaml:5:11: policies: expected a list, found \"policies/\"",
                "mesh.yaml:6:11: clusters: expected a mapping, found 5",
                "mesh.yaml:7:14: routes.a: expected a list, found a mapping",
            ],
        ),
    ];
    for (text, expected) in cases {
        let expected: Vec<_> = expected
            .iter()
            .map(|issue| {
                let domain = TrustDomain::parse("UPPER").unwrap_err().to_string();
                let id = SpiffeId::parse("http://x").unwrap_err().to_string();
                let algorithms = "RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA";
                issue.replace("TRUST_DOMAIN", &domain).replace("SPIFFE_ID", &id).replace("ALGORITHMS", algorithms)
            })
            .collect();
        assert_eq!(issues(&text.replace("HEAD", HEAD)), expected, "{text}");
    }
}

#[test]
fn code_is_judged_by_the_same_rules_and_points_to_the_file_where_it_can() {
    let mut config = read(HEAD).unwrap();
    config.limits.max_concurrent_requests = 0;
    let error = config.check().unwrap_err().to_string();
    assert!(
        error.ends_with("<code>: limits.max_concurrent_requests: 0 is out of range: expected 1 to 1000000"),
        "{error}"
    );

    let mut errors = Errors::default();
    let text = format!("{HEAD}limits: {{ max_concurrent_requests: 5 }}\n");
    Config::parse("mesh.yaml", &text, Path::new(""), |config| config.limits.max_concurrent_requests = 0, &mut errors);
    let seen = errors.issues()[0].to_string();
    assert_eq!(seen, "mesh.yaml:3:36: limits.max_concurrent_requests: 0 is out of range: expected 1 to 1000000");
}

#[test]
fn only_what_lives_in_every_revision_may_change() {
    let running = read(&format!("{HEAD}listeners: {{ default: {{ address: '0.0.0.0:1' }} }}\n")).unwrap();
    let changed = read(
        "# moved by one line: no change of `identity`
identity: { trust_domain: shop.example, source: { dev_ca: { dir: .mesh } } }
workload: { name: orders, namespace: other }
listeners: { default: { address: '0.0.0.0:2', idle_timeout: 1s } }
audit: { queue: 17 }
",
    )
    .unwrap();
    let mut errors = Errors::default();
    changed.check_change(&running, None, &mut errors);
    let seen: Vec<_> = errors.issues().iter().map(ToString::to_string).collect();
    assert_eq!(
        seen,
        [
            "<code>: workload: cannot change while the process runs: restart it",
            "<code>: audit: cannot change while the process runs: restart it",
            "<code>: listeners: names and addresses cannot change while the process runs: restart it",
        ]
    );
}

#[test]
fn policies_are_read_whole_and_a_directory_by_name() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["b.yaml", "a.yml", ".hidden.yaml", "c.txt", "..data"] {
        std::fs::write(dir.path().join(name), name).unwrap();
    }
    let missing = dir.path().join("missing.yaml");
    let read = || Sources::read(&[dir.path().to_owned(), missing.clone()]);
    let before = read();
    let names: Vec<_> = before.files().map(|name| name.rsplit('/').next().unwrap_or_default().to_owned()).collect();
    assert_eq!(names, ["a.yml", "b.yaml", "missing.yaml"]);
    assert_eq!(before, read());

    std::fs::write(dir.path().join("a.yml"), "other").unwrap();
    let changed = read();
    assert_ne!(before, changed);
    std::fs::remove_file(dir.path().join("a.yml")).unwrap();
    assert_ne!(changed, read());

    let mut errors = Errors::default();
    std::fs::write(dir.path().join("b.yaml"), "").unwrap();
    assert!(read().parse(Mode::Strict, Canonicalization::Reject, &mut errors).is_empty());
    let seen: Vec<_> =
        errors.issues().iter().map(|issue| issue.message.split(':').next().unwrap().to_owned()).collect();
    assert_eq!(seen, ["holds no policy; delete the file if that is meant", "cannot be read"]);
}

proptest::proptest! {
    /// A file that was torn while it was written: the beginning of one text and the end of another, with holes.
    #[test]
    fn a_torn_file_is_refused_or_good_but_never_half_good(
        cut in 0..FULL.len(), rest in 0..FULL.len(), hole in 0..FULL.len(), junk in "[ -~\\n]{0,4}",
    ) {
        let piece = |range: std::ops::Range<usize>| FULL.get(range).unwrap_or_default();
        let torn = format!("{}{junk}{}", piece(0..cut), piece(rest..FULL.len()));
        let holed = format!("{}{junk}{}", piece(0..hole), piece(hole + 7..FULL.len()));
        for text in [torn, holed] {
            match read(&text) {
                Ok(config) => proptest::prop_assert_eq!(config.check(), Ok(())),
                Err(issues) => proptest::prop_assert!(!issues.is_empty(), "refused in silence: {}", text),
            }
        }
    }
}

#[test]
fn what_a_breaker_replaces_is_refused_in_code_too() {
    let mut cluster = ClusterConfig::new(
        PlugConfig::new("static", &serde_json::json!(["127.0.0.1:1"])),
        vec!["spiffe://td/a".parse().unwrap()],
    );
    cluster.breaker = Some(BreakerConfig::default());
    let said = |cluster: &ClusterConfig| {
        let mut errors = Errors::default();
        cluster.check(true, &mut super::checker::Checker::new(None, false, &mut errors));
        errors.issues().iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(said(&cluster), [""; 0]);
    cluster.outlier.base_ejection = Duration::from_secs(1);
    let [only] = &said(&cluster)[..] else { panic!() };
    assert!(only.contains("outlier.base_ejection") && only.contains("set `breaker.backoff`"), "{only}");
}
