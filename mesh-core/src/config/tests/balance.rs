//! `balance:`, `hash:` and `residency:`.

use super::*;
use crate::config::{HashKey, LeastRequestConfig, LocalityConfig, PanicAction, RingHashConfig, SlowStartConfig};

const PLACED: &str = "\
workload: { name: orders, namespace: shop, locality: { region: eu-west, zone: a } }
identity: { trust_domain: shop.example, source: { files: {} } }
";

/// One cluster with this `balance:`, and maybe more.
fn cluster(balance: &str, more: &str) -> String {
    format!(
        "{PLACED}clusters:\n  payments:\n    discover: {{ static: [] }}\n    identities: [ 'spiffe://shop.example/p' ]\n    \
         balance: {{ {balance} }}\n{more}"
    )
}

fn policy(balance: &str) -> BalancePolicy {
    read(&cluster(balance, "")).unwrap().clusters["payments"].balance.policy.clone()
}

#[test]
fn policies_are_read_with_their_settings() {
    let header = vec![HashKey::Header("x-user".into())];
    let all =
        vec![HashKey::Header("x-user".into()), HashKey::Cookie("s".into()), HashKey::Principal, HashKey::SourceAddress];
    for (balance, expected) in [
        ("", BalancePolicy::PeakEwma),
        ("policy: round_robin", BalancePolicy::RoundRobin),
        ("policy: random", BalancePolicy::Random),
        ("policy: least_request", BalancePolicy::LeastRequest(LeastRequestConfig { choices: 2 })),
        ("policy: least_request, choices: 10", BalancePolicy::LeastRequest(LeastRequestConfig { choices: 10 })),
        ("policy: ring_hash, hash: { header: X-User }", BalancePolicy::RingHash(RingHashConfig::by(header.clone()))),
        (
            "policy: ring_hash, hash: [ { header: x-user }, { cookie: s }, principal, source_address ], \
             min_ring_size: 5, max_ring_size: 8388608, hash_balance_factor: 100",
            BalancePolicy::RingHash(RingHashConfig::by(all).min_ring_size(5).balance_factor(100)),
        ),
    ] {
        assert_eq!(policy(balance), expected, "{balance}");
    }
    let BalancePolicy::Custom(plug) = policy("policy: mine, settings: { n: 5 }, decay: 1s") else { panic!("not ours") };
    assert_eq!((plug.kind.as_str(), plug.settings.place.line), ("mine", 7));
    let text = cluster(
        "overprovisioning_percent: 200, panic: { threshold_percent: 0, action: fail }, \
         locality: { zone_aware: { min_endpoints: 3, spill: 4, callers: { eu-west/a: 2 } } }, \
         slow_start: { window: 1m, min_weight_percent: 20, aggression: 2 }",
        "    residency: [ eu-west, eu-north ]\nroutes: { x: [ { cluster: payments } ] }\n",
    );
    let config = read(&text).unwrap();
    let (balance, residency) = (&config.clusters["payments"].balance, &config.clusters["payments"].residency);
    assert_eq!((balance.overprovisioning_percent, balance.panic.action), (200, PanicAction::Fail));
    let LocalityConfig::ZoneAware(zones) = &balance.locality else { panic!("{:?}", balance.locality) };
    assert_eq!((zones.min_endpoints, zones.spill, zones.callers["eu-west/a"]), (3, 4, 2));
    let slow_start = SlowStartConfig::over(secs(60)).min_weight_percent(20).aggression(2.0);
    assert_eq!((balance.slow_start, residency.len()), (Some(slow_start), 2));
}

#[test]
fn what_does_not_fit_is_refused_where_it_stands() {
    for (balance, more, expected) in [
        ("choices: 3", "", "balance.choices: a setting of policy `least_request`, not of `peak_ewma`: leave it out"),
        (
            "policy: random, decay: 1s",
            "",
            "balance.decay: a setting of policy `peak_ewma`, not of `random`: leave it out",
        ),
        (
            "policy: round_robin, settings: {}",
            "",
            "balance.settings: a setting of a policy that the program registers, not of `round_robin`: leave it out",
        ),
        ("polcy: random", "", "balance.polcy: unknown field; did you mean `policy`?"),
        ("policy: least_request, choices: 11", "", "balance.choices: 11 is out of range: expected 2 to 10"),
        (
            "policy: ring_hash",
            "",
            "balance.policy: `ring_hash` needs a key: add `hash`, for example `{ header: x-user }`, here or in every route \
             to the cluster",
        ),
        (
            "policy: ring_hash, hash: principal, hash_balance_factor: 99",
            "",
            "balance.hash_balance_factor: 99 is out of range: expected 100 to 10000",
        ),
        (
            "policy: ring_hash, hash: principal, max_ring_size: 8",
            "",
            "balance.max_ring_size: 8 is less than min_ring_size (1024)",
        ),
        ("policy: ring_hash, hash: { header: 'x y' }", "", "balance.hash: \"x y\" is no name of a header"),
        (
            "policy: ring_hash, hash: user",
            "",
            "balance.hash: expected { header: NAME }, { cookie: NAME }, source_address or principal, found \"user\"",
        ),
        (
            "policy: ring_hash, hash: principal, slow_start: { window: 5s }",
            "",
            "balance.slow_start: `ring_hash` has no slow start: a key's endpoint is its endpoint from the first request",
        ),
        ("slow_start: {}", "", "balance.slow_start.window: this field is required"),
        ("slow_start: { window: 1ms }", "", "balance.slow_start.window: 1ms is out of range: expected 1s to 1h"),
        (
            "panic: { threshold_percent: 101 }",
            "",
            "balance.panic.threshold_percent: 101 is out of range: expected 0 to 100",
        ),
        ("locality: near", "", "balance.locality: unknown value `near`; known: off, weighted, zone_aware"),
        (
            "locality: { weighted: { weights: { eu: 0 } } }",
            "",
            "balance.locality.weighted.weights.eu: 0 is out of range: expected 1 to 65535",
        ),
        ("", "    residency: [ '' ]\n", "residency[0]: the name of a region cannot be empty"),
    ] {
        let found = issues(&cluster(balance, more));
        let stripped: Vec<_> = found.iter().filter_map(|issue| issue.split_once("clusters.payments.")).collect();
        assert_eq!(stripped.iter().map(|(_, issue)| *issue).collect::<Vec<_>>(), [expected], "{balance}: {found:?}");
        assert!(found.iter().all(|issue| issue.starts_with("mesh.yaml:")), "{found:?}");
    }
    let keyed = "routes: { payments: [ { cluster: payments, hash: { cookie: s } } ] }\n";
    assert!(read(&cluster("policy: ring_hash", keyed)).is_ok(), "every way there has a key");
    let other = "routes: { x: [ { cluster: payments, hash: { cookie: s } } ] }\n";
    assert_eq!(issues(&cluster("policy: ring_hash", other)).len(), 1, "the default route has none");
    assert_eq!(
        issues(&cluster("", keyed)),
        [
            "mesh.yaml:8:50: routes.payments[0].hash: cluster `payments` is balanced by `peak_ewma`, which knows no keys: set \
          its `balance.policy` to `ring_hash`"
        ]
    );
    let nowhere = cluster("locality: zone_aware", "").replace(", locality: { region: eu-west, zone: a }", "");
    assert_eq!(
        issues(&nowhere),
        [
            "mesh.yaml:7:26: clusters.payments.balance.locality: no zone can be preferred while `workload.locality.zone` does \
          not say which is the own"
        ]
    );
}
