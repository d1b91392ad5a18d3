//! `mesh.yaml` of both sides with every layer on, and policies that make the engine work.

use std::fmt::Write as _;
use std::net::SocketAddr;

use super::{AUDIENCE, ISSUER, TRUST_DOMAIN};

/// Rules over all policies; the last one admits the bench client.
pub(super) const RULES: usize = 1000;
const RULES_PER_POLICY: usize = 100;

pub(super) fn server(address: SocketAddr) -> String {
    format!(
        "workload:  {{ name: server, namespace: bench, labels: {{ app: bench }} }}\n\
         identity:  {{ trust_domain: {TRUST_DOMAIN}, source: {{ files: {{ certificate: server.pem, key: server.key, bundle: ca.pem }} }} }}\n\
         listeners: {{ default: {{ address: \"{address}\", max_connections: 20000 }} }}\n\
         tokens:    [ {{ issuer: \"{ISSUER}\", audiences: [{AUDIENCE}], jwks: {{ file: jwks.json }} }} ]\n\
         policies:  [ policies/ ]\n\
         limits:    {{ max_concurrent_requests: 10000, rate: {{ per_second: 1000000, burst: 1000000 }} }}\n\
         audit:     {{ sink: {{ file: {{ path: audit.jsonl }} }} }}\n"
    )
}

pub(super) fn client(address: SocketAddr) -> String {
    format!(
        "workload: {{ name: client, namespace: bench, labels: {{ app: bench-client }} }}\n\
         identity: {{ trust_domain: {TRUST_DOMAIN}, source: {{ files: {{ certificate: client.pem, key: client.key, bundle: ca.pem }} }} }}\n\
         clusters:\n  bench:\n    \
             discover:   {{ static: [\"{address}\"] }}\n    \
             identities: [ \"spiffe://{TRUST_DOMAIN}/ns/bench/sa/server\" ]\n    \
             outlier:    {{ consecutive_failures: 5, base_ejection: 30s }}\n    \
             token:      {{ file: token.jwt }}\n\
         routes:\n  bench:\n    \
             - cluster: bench\n      timeout: 5s\n      \
               retry: {{ attempts: 3, per_try_timeout: 2s, idempotent: true, budget: {{ ratio: 20%, min_per_second: 10 }} }}\n"
    )
}

/// One DENY policy and nine ALLOW policies of 100 rules each; only the very last rule matches the bench client.
pub(super) fn policies() -> String {
    let mut text = String::new();
    for policy in 0..RULES / RULES_PER_POLICY {
        let action = if policy == 0 { "DENY" } else { "ALLOW" };
        let _ = write!(
            text,
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
             metadata: {{ name: bench-{policy}, namespace: bench }}\n\
             spec:\n  selector: {{ matchLabels: {{ app: bench }} }}\n  action: {action}\n  rules:\n"
        );
        let first = policy * RULES_PER_POLICY;
        for number in first..first + RULES_PER_POLICY {
            text.push_str(&rule(number));
        }
    }
    text
}

fn rule(number: usize) -> String {
    if number + 1 == RULES {
        return format!(
            "  - {{ from: [ {{ source: {{ principals: [\"{TRUST_DOMAIN}/ns/bench/sa/client\"], requestPrincipals: [\"{ISSUER}/*\"] }} }} ], \
             to: [ {{ operation: {{ methods: [GET, POST], paths: [\"/hello\", \"/perf.Echo/*\"] }} }} ] }}\n"
        );
    }
    let source = match number % 4 {
        0 => format!(
            "principals: [\"{TRUST_DOMAIN}/ns/team-{number}/sa/web\", \"{TRUST_DOMAIN}/ns/team-{number}/sa/batch\"]"
        ),
        1 => format!("namespaces: [\"team-{number}\", \"shared-{number}\"]"),
        2 => format!("principals: [\"*/sa/robot-{number}\"]"),
        _ => format!("principals: [\"{TRUST_DOMAIN}/ns/team-{number}/*\"]"),
    };
    let operation = match number % 3 {
        0 => format!("methods: [GET, POST], paths: [\"/v1/items/{number}\", \"/hello\"]"),
        1 => format!("paths: [\"/v1/teams/{number}/*\", \"/hello*\"]"),
        _ => format!("methods: [DELETE], paths: [\"*/admin-{number}\"]"),
    };
    format!("  - {{ from: [ {{ source: {{ {source} }} }} ], to: [ {{ operation: {{ {operation} }} }} ] }}\n")
}
