//! How endpoints are judged: what the settings mean, and what is said about those that cannot hold.

use super::*;

fn cluster(settings: &str) -> Result<ClusterConfig, Vec<String>> {
    let yaml = format!(
        "{HEAD}clusters:\n  shop:\n    discover: {{ static: [] }}\n    identities: ['spiffe://td/x']\n{settings}"
    );
    read(&yaml).map(|config| config.clusters["shop"].clone())
}

#[test]
fn every_setting_is_read() {
    let config = cluster(
        "    outlier: { success_rate: { stdev_factor: 2, min_hosts: 3, min_requests: 10, significance: 0 },
               failure_percentage: { threshold: 50, min_hosts: 1, min_requests: 9 }, interval: 1s, max_ejection_percent: 7 }
    breaker: { consecutive_failures: 3, success_rate: 50%, window: 5s, min_requests: 9, backoff: 2s, max_backoff: 9s, jitter: 0% }\n",
    )
    .unwrap();
    let success_rate = SuccessRateConfig { stdev_factor: 2.0, min_hosts: 3, min_requests: 10, significance: 0.0 };
    let failure_percentage = FailurePercentageConfig { threshold: 50, min_hosts: 1, min_requests: 9 };
    let outlier = OutlierConfig {
        success_rate,
        failure_percentage,
        interval: secs(1),
        max_ejection_percent: 7,
        ..OutlierConfig::default()
    };
    let breaker = BreakerConfig {
        consecutive_failures: 3,
        success_rate: 0.5,
        window: secs(5),
        min_requests: 9,
        backoff: secs(2),
        max_backoff: secs(9),
        jitter: 0.0,
    };
    assert_eq!((config.outlier, config.breaker), (outlier, Some(breaker)));
    let defaults = cluster("    breaker: {}\n").unwrap();
    assert_eq!((defaults.breaker, defaults.outlier), (Some(BreakerConfig::default()), OutlierConfig::default()));
    let outlier = cluster("    outlier: { ejection_jitter: 25% }\n").unwrap().outlier;
    assert_eq!(outlier, OutlierConfig { ejection_jitter: 0.25, ..OutlierConfig::default() });
}

#[test]
fn what_cannot_hold_is_refused() {
    let cases: &[(&str, &[&str])] = &[
        (
            "    outlier: { consecutive_failures: 5, max_ejection: 40s }\n    breaker: {}\n",
            &[
                "7:38: clusters.shop.outlier.consecutive_failures: `consecutive_failures` is not used beside `breaker:`; \
                 set `breaker.consecutive_failures` and remove it here",
                "7:55: clusters.shop.outlier.max_ejection: `max_ejection` is not used beside `breaker:`; \
                 set `breaker.max_backoff` and remove it here",
            ],
        ),
        (
            "    outlier: { success_rate: { stdev_factor: 0.05, min_hosts: 1 }, failure_percentage: { threshold: 101 } }\n",
            &[
                "7:46: clusters.shop.outlier.success_rate.stdev_factor: 0.05 is out of range: expected 0.1 to 10",
                "7:63: clusters.shop.outlier.success_rate.min_hosts: 1 is out of range: expected 2 to 10000",
                "7:101: clusters.shop.outlier.failure_percentage.threshold: 101 is out of range: expected 0 to 100",
            ],
        ),
        (
            "    breaker: { success_rate: 101%, backoff: 2s, max_backoff: 1s, jitter: 0.5 }\n",
            &[
                "7:30: clusters.shop.breaker.success_rate: 101% is out of range: expected 1% to 100%",
                "7:62: clusters.shop.breaker.max_backoff: 1s is less than backoff (2s)",
                "7:74: clusters.shop.breaker.jitter: expected a percentage such as 20%, found 0.5",
            ],
        ),
    ];
    for (settings, expected) in cases {
        let mut expected: Vec<String> = expected.iter().map(|issue| format!("mesh.yaml:{issue}")).collect();
        let mut found = cluster(settings).unwrap_err();
        expected.sort();
        found.sort();
        assert_eq!(found, expected);
    }
}

#[test]
fn limits_say_whose_they_are() {
    let limits = |settings: &str| cluster(&format!("    limits: {settings}\n")).map(|config| config.limits);
    assert_eq!(limits("{}").unwrap(), ClusterLimitsConfig::default());
    let max_retries = |settings| limits(settings).unwrap().max_retries;
    assert_eq!(max_retries("{ max_retries: 3 }"), Some(MaxRetries::Count(3)));
    assert_eq!(max_retries("{ max_retries: 29% }"), Some(MaxRetries::Share(0.29)));
    assert_eq!([0, 10, 100].map(|attempts| MaxRetries::Share(0.29).of(attempts)), [3, 3, 29]);
    assert_eq!(
        limits("{ max_requests: 0, max_connections: 0, max_retries: 101%, max_pending: 5, max_handshakes: 0 }")
            .unwrap_err(),
        [
            "mesh.yaml:7:29: clusters.shop.limits.max_requests: 0 is out of range: expected 1 to 1000000",
            "mesh.yaml:7:49: clusters.shop.limits.max_connections: 0 is out of range: expected 1 to 1000000",
            "mesh.yaml:7:65: clusters.shop.limits.max_retries: 101% is out of range: expected 0% to 100%",
            "mesh.yaml:7:84: clusters.shop.limits.max_pending: it is a limit of each endpoint: write `pool: { max_pending: ... }`",
            "mesh.yaml:7:103: clusters.shop.limits.max_handshakes: 0 is out of range: expected 1 to 1000000",
        ]
    );
}

#[test]
fn health_checks_have_their_defaults_and_ranges() {
    let check = |settings: &str| cluster(&format!("    health_check: {{ {settings} }}\n"));
    let http = PlugConfig::new("http", &serde_json::json!({ "path": "/" }));
    let read = check("check: { http: { path: / } }").unwrap().health_check.unwrap();
    assert_eq!(HealthCheckConfig { check: http.clone(), ..read.clone() }, HealthCheckConfig::new(http));
    assert_eq!(
        (read.interval, read.timeout, read.unhealthy_threshold, read.healthy_threshold, read.jitter, read.concurrency),
        (secs(10), secs(1), 3, 2, 0.1, 16)
    );
    assert!(!read.ends_ejection);
    assert_eq!(
        check("interval: 1s").unwrap_err(),
        ["mesh.yaml:7:19: clusters.shop.health_check.check: this field is required"]
    );
    assert_eq!(
        check("check: { http: {} }, interval: 1ms, jitter: 60%, concurrency: 0, uneject: true").unwrap_err(),
        [
            "mesh.yaml:7:52: clusters.shop.health_check.interval: 1ms is out of range: expected 100ms to 1h",
            "mesh.yaml:7:65: clusters.shop.health_check.jitter: 60% is out of range: expected 0% to 50%",
            "mesh.yaml:7:83: clusters.shop.health_check.concurrency: 0 is out of range: expected 1 to 1000",
            "mesh.yaml:7:86: clusters.shop.health_check.uneject: unknown field; known: check, interval, jitter, timeout, \
             unhealthy_threshold, healthy_threshold, concurrency, ends_ejection",
        ]
    );
}
