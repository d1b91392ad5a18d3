//! A report for tools. `docs/simulation.md` documents every name, and a test holds the two against each other.

use std::time::Duration;

use serde_json::{Value, json};

use super::report::{Failed, Report};

/// The report as one JSON object. Times are in milliseconds, shares between 0 and 1.
pub fn to_json(report: &Report) -> Value {
    let latency = &report.latency;
    let failures: serde_json::Map<String, Value> = (Failed::ALL.iter())
        .map(|failed| (failed.name().to_owned(), report.failures.get(failed).copied().unwrap_or_default().into()))
        .collect();
    let servers = report.servers.iter().enumerate().map(|(index, server)| {
        json!({
            "name": server.name,
            "requests": server.requests,
            "share": report.share(index),
            "succeeded": server.succeeded,
            "failed": server.failed,
            "cancelled": server.cancelled,
            "busiest": server.busiest,
        })
    });
    let faults = report.faults.iter().map(|fault| {
        let last = (fault.requests > 0).then(|| ms(fault.last_request));
        json!({
            "kind": fault.kind,
            "at_ms": ms(fault.at),
            "times": fault.times,
            "requests": fault.requests,
            "last_request_ms": last,
        })
    });
    let ejections = report.ejections.iter().map(|ejection| {
        json!({
            "at_ms": ms(ejection.at),
            "client": report.clients.get(ejection.client),
            "server": report.servers.get(ejection.server).map(|server| &server.name),
            "reason": ejection.reason,
            "until_ms": ms(ejection.until),
        })
    });
    let seconds = report.seconds.iter().map(|second| {
        json!({
            "offered": second.offered,
            "succeeded": second.succeeded,
            "failed": second.failed,
            "attempts": second.attempts,
        })
    });
    json!({
        "seed": report.seed,
        "duration_ms": ms(report.duration),
        "clients": report.clients.len(),
        "offered": report.offered,
        "succeeded": report.succeeded,
        "failed": report.failed(),
        "failures": failures,
        "attempts": report.attempts,
        "retried": report.retried,
        "budget_exhausted": report.budget_exhausted,
        "panic_picks": report.panic_picks,
        "latency_ms": {
            "mean": ms(latency.mean()),
            "p50": ms(latency.quantile(0.5)),
            "p90": ms(latency.quantile(0.9)),
            "p95": ms(latency.quantile(0.95)),
            "p99": ms(latency.quantile(0.99)),
            "p999": ms(latency.quantile(0.999)),
            "max": ms(latency.max()),
        },
        "servers": servers.collect::<Vec<_>>(),
        "faults": faults.collect::<Vec<_>>(),
        "ejections": ejections.collect::<Vec<_>>(),
        "most_out": report.most_out,
        "seconds": seconds.collect::<Vec<_>>(),
        "decisions": format!("{:016x}", report.decisions),
        "not_simulated": report.not_simulated,
    })
}

fn ms(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
