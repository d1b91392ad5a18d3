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
