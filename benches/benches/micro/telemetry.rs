//! What is written down about each request.

use std::hint::black_box;
use std::io;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use criterion::{BatchSize, Criterion};
use http::HeaderMap;
use mesh_core::audit::{Audit, AuditLine, AuditOptions, AuditOutcome, AuditRecord, AuditSink};
use mesh_core::rng::Rng;
use mesh_core::telemetry::{Metrics, RequestLabels, RequestOutcome};
use mesh_tower::context::TraceContext;

pub(crate) fn request_metrics(c: &mut Criterion) {
    let mut group = c.benchmark_group("metrics");
    let metrics = Metrics::default();
    let labels = RequestLabels { method: "GET", route: "/orders/{id}".into(), status: "2xx", grpc_status: "-" };
    let took = Duration::from_micros(800);
    group.bench_function("server_request", |b| {
        b.iter(|| {
            metrics.server.in_flight.inc();
            metrics.server.in_flight.dec();
            metrics.server.finished(black_box(&labels), took);
        });
    });
    let cluster = metrics.client.cluster("payments");
    group.bench_function("client_request", |b| {
        b.iter(|| {
            cluster.requests.inc(black_box(RequestOutcome::Success));
            cluster.request_duration.observe(took);
        });
    });
}

pub(crate) fn traceparent(c: &mut Criterion) {
    let mut group = c.benchmark_group("traceparent");
    let rng = Rng::seeded(1);
    let mut headers = HeaderMap::new();
    TraceContext::root(&rng).write_to(&mut headers);
    group.bench_function("parse_child_format", |b| {
        b.iter(|| TraceContext::from_headers(black_box(&headers)).unwrap().child(&rng).traceparent());
    });
}

/// Takes everything at once: what is measured is the request's side.
#[derive(Debug)]
struct Nowhere;

impl AuditSink for Nowhere {
    fn write(&mut self, _lines: &[AuditLine]) -> io::Result<()> {
        Ok(())
    }
}

pub(crate) fn audit(c: &mut Criterion) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_time().build().unwrap();
    let _entered = runtime.enter();
    let mut options = AuditOptions::default();
    options.queue = 10_000;
    let audit = Audit::start(Box::new(Nowhere), options, Arc::default());
    let record = || {
        let mut record = AuditRecord::new(UNIX_EPOCH, AuditOutcome::Allow, "allow_rule", 200);
        record.peer = Some("spiffe://bench.example/ns/n/sa/client".into());
        record.method = "GET".to_owned();
        record.path = "/orders/7".to_owned();
        record
    };
    c.bench_function("audit/enqueue", |b| {
        b.iter_batched(record, |record| audit.record(record), BatchSize::SmallInput);
    });
}
