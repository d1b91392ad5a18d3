//! What single steps of a request cost: `cargo bench -p mesh-benches`; with `-- --test` each runs once.
#![allow(missing_docs, clippy::unwrap_used, clippy::indexing_slicing)] // a bench

mod cluster;
mod policy;
mod telemetry;
mod token;

use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};

/// Half a minute for all of it. The figures of a shared machine do not get better by waiting.
fn settings() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(200))
        .measurement_time(Duration::from_millis(600))
        .without_plots()
}

criterion_group! {
    name = micro;
    config = settings();
    targets = policy::decide, cluster::pick, cluster::policies, cluster::tower_p2c, cluster::retry_budget, token::verify, telemetry::request_metrics,
        telemetry::traceparent, telemetry::audit
}
criterion_main!(micro);
