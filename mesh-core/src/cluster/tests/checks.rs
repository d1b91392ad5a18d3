//! What active health checks change, and what they leave alone.

use super::*;
use crate::config::HealthCheckConfig;
use crate::health::CheckVerdict::{self, Healthy, Inconclusive, Unhealthy};
use crate::telemetry::CheckResult;

fn checks() -> HealthCheckConfig {
    HealthCheckConfig::new(PlugConfig::new("http", &serde_json::json!({ "path": "/readyz" })))
}

#[tokio::test(start_paused = true)]
async fn thresholds_by_table() {
    let (bad, unsure) = (|| Unhealthy("503".into()), || Inconclusive("no SVID".into()));
    // Three failures in a row take it out, two successes let it in; what says nothing changes nothing.
    let cases: &[(&[CheckVerdict], bool)] = &[
        (&[bad(), bad()], true),
        (&[bad(), bad(), bad()], false),
        (&[bad(), bad(), Healthy, bad(), bad()], true),
        (&[bad(), unsure(), bad(), unsure(), bad()], false),
        (&[unsure(), unsure(), unsure(), unsure()], true),
        (&[bad(), bad(), bad(), Healthy], false),
        (&[bad(), bad(), bad(), Healthy, bad(), Healthy], false),
        (&[bad(), bad(), bad(), Healthy, unsure(), Healthy], true),
    ];
    for (verdicts, healthy) in cases {
        let cluster = cluster(&config());
        let now = Instant::now();
        cluster.update(endpoints(3), now);
        let state = Arc::clone(&cluster.endpoints()[0]);
        verdicts.iter().for_each(|verdict| cluster.checked(&state, verdict, &checks(), now));
        assert_eq!((cluster.report(now)[0].healthy, state.available(now)), (*healthy, *healthy), "{verdicts:?}");
        assert_eq!(picked(&cluster, 500, now)[0] > 0, *healthy, "{verdicts:?}");
        let metrics = Arc::clone(cluster.metrics());
        let unhealthy = || metrics.endpoints.value(telemetry::EndpointState::Unhealthy);
        assert_eq!(unhealthy(), i64::from(!healthy), "{verdicts:?}");
        let unsure = verdicts.iter().filter(|verdict| matches!(verdict, Inconclusive(_))).count() as u64;
        assert_eq!(metrics.health_checks.count(CheckResult::Inconclusive), unsure);
        cluster.update(Vec::new(), now);
        drop(state);
        assert_eq!(unhealthy(), 0);
    }
}

/// Envoy's trap: an endpoint that answers its check and fails its requests.
#[tokio::test(start_paused = true)]
async fn a_check_ends_no_ejection_unless_it_is_told_to() {
    for ends_ejection in [false, true] {
        let cluster = cluster(&config());
        let now = Instant::now();
        cluster.update(endpoints(3), now);
        for _ in 0..5 {
            any_of(&cluster, 0, now, FAILURE, ms(1));
        }
        let state = Arc::clone(&cluster.endpoints()[0]);
        let config = HealthCheckConfig { ends_ejection, ..checks() };
        for _ in 0..5 {
            cluster.checked(&state, &Healthy, &config, now + ms(2));
        }
        assert_eq!(state.ejected(now + ms(2)), !ends_ejection);
        assert_eq!(picked(&cluster, 500, now + ms(2))[0] > 0, ends_ejection);
    }
}

#[tokio::test(start_paused = true)]
async fn where_all_are_unhealthy_all_are_picked() {
    let cluster = cluster(&config());
    let now = Instant::now();
    cluster.update(endpoints(3), now);
    for state in cluster.endpoints().iter() {
        (0..3).for_each(|_| cluster.checked(state, &Unhealthy("503".into()), &checks(), now));
    }
    assert!(picked(&cluster, 600, now).iter().all(|count| *count > 100));
    assert_eq!(cluster.metrics().panic_picks.get(), 600);
}
