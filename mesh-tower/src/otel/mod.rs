//! Spans of this process, exported over OTLP, joined across services by W3C trace context.
//!
//! OpenTelemetry's crates break every few months, so nothing outside this module names them. Without the feature `otel`
//! the mesh still propagates `traceparent`; with it, the mesh's own spans become OpenTelemetry spans, each request's
//! span is the child of its caller's, and client calls carry the id of the span that makes them.
//!
//! ```no_run
//! use tracing_subscriber::prelude::*;
//!
//! # async fn start() -> Result<(), Box<dyn std::error::Error>> {
//! // mesh.yaml:  telemetry: { exporter: { otlp: { endpoint: "http://127.0.0.1:4318", sample: 5% } } }
//! let otlp = mesh_tower::otel::Otlp::new();
//! tracing_subscriber::registry().with(otlp.layer()).with(tracing_subscriber::fmt::layer()).init();
//! let mesh = mesh_tower::Mesh::builder().config_file("mesh.yaml").with(otlp.plugin()).start().await?;
//! # Ok(()) }
//! ```
//!
//! Fails open: while the collector is down spans are dropped (and logged by the SDK); requests never wait for it.

mod bridge;
mod collector;
mod late;
mod settings;

pub(crate) use bridge::{adopt, trace_of};

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use mesh_core::plugin::{Exporter, Plugin};
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{ExporterBuildError, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider};
use tracing_subscriber::Layer;
use tracing_subscriber::registry::LookupSpan;

use collector::Collector;
use late::LateTracer;
use settings::Settings;

/// How long one export may take, and how long the end of the process waits for the last one.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a span waits for company.
const EXPORT_INTERVAL: Duration = Duration::from_secs(1);

/// The bridge from `tracing` to an OTLP collector.
///
/// Switched on by a mesh whose configuration names `otlp`.
///
/// One for each mesh: make it, put [`layer`](Self::layer) into the process's subscriber and [`plugin`](Self::plugin)
/// into the mesh. Until the mesh has started, and where the configuration names no exporter, spans go nowhere.
#[derive(Clone, Default)]
pub struct Otlp {
    tracer: Arc<OnceLock<SdkTracer>>,
}

impl Otlp {
    /// A bridge that is not connected yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// The layer for the process's `tracing` subscriber.
    pub fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: tracing::Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
    {
        tracing_opentelemetry::layer().with_tracer(LateTracer::new(Arc::clone(&self.tracer)))
    }

    /// The exporter kind `otlp`, for `Mesh::builder().with(..)`.
    ///
    /// | field | meaning | default |
    /// |---|---|---|
    /// | `endpoint` | the collector's base URL, plain `http`; `/v1/traces` is appended | required |
    /// | `sample` | share of new traces that are recorded; a caller's decision wins | `100%` |
    /// | `queue` | spans that may wait; beyond it they are dropped | 2,048 |
    pub fn plugin(&self) -> Plugin {
        let tracer = Arc::clone(&self.tracer);
        Plugin::new("mesh-tower (feature `otel`)").exporter("otlp", move |node, context, errors| {
            let settings = Settings::decode(node, errors)?;
            let exporter = OtlpExporter {
                settings,
                service: context.workload.name.clone(),
                namespace: context.workload.namespace.clone(),
                tracer: Arc::clone(&tracer),
                provider: OnceLock::new(),
            };
            Some(Arc::new(exporter) as Arc<dyn Exporter>)
        })
    }
}

impl fmt::Debug for Otlp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Otlp").field("connected", &self.tracer.get().is_some()).finish()
    }
}

struct OtlpExporter {
    settings: Settings,
    service: String,
    namespace: String,
    tracer: Arc<OnceLock<SdkTracer>>,
    provider: OnceLock<SdkTracerProvider>,
}

impl fmt::Debug for OtlpExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OtlpExporter").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl OtlpExporter {
    fn connect(&self) -> Result<(), ExporterBuildError> {
        let exporter = opentelemetry_otlp::SpanExporter::builder()
            .with_http()
            .with_http_client(Collector::new(EXPORT_TIMEOUT))
            .with_endpoint(self.settings.traces_url())
            .with_timeout(EXPORT_TIMEOUT)
            .build()?;
        let batch = BatchConfigBuilder::default()
            .with_max_queue_size(self.settings.queue)
            .with_max_export_batch_size(self.settings.queue.min(512))
            .with_scheduled_delay(EXPORT_INTERVAL)
            .build();
        let processor = BatchSpanProcessor::builder(exporter).with_batch_config(batch).build();
        let resource = Resource::builder()
            .with_service_name(self.service.clone())
            .with_attribute(KeyValue::new("service.namespace", self.namespace.clone()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(self.settings.sample))))
            .with_span_processor(processor)
            .with_resource(resource)
            .build();
        if self.tracer.set(provider.tracer("mesh")).is_err() {
            tracing::error!("one `Otlp` serves one mesh: the spans of the second go to the first one's collector");
        }
        // `start` is called once.
        let _ = self.provider.set(provider);
        Ok(())
    }
}

impl Exporter for OtlpExporter {
    fn start(&self) {
        match self.connect() {
            Ok(()) => tracing::info!(endpoint = %self.settings.endpoint, "spans are exported over OTLP"),
            Err(error) => tracing::error!(%error, "spans are not exported: the OTLP exporter cannot be built"),
        }
    }

    fn flush(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(async {
            let Some(provider) = self.provider.get().cloned() else { return };
            // Waits for the SDK's own thread, which needs a free runtime worker to post.
            let flushed = tokio::task::spawn_blocking(move || provider.force_flush()).await;
            if !matches!(flushed, Ok(Ok(()))) {
                tracing::warn!(?flushed, "spans may be lost: the last export failed");
            }
        })
    }
}

impl Drop for OtlpExporter {
    fn drop(&mut self) {
        if let Some(provider) = self.provider.get() {
            // Waits for the SDK's own thread, which must not happen on a runtime's worker.
            let provider = provider.clone();
            let _ = std::thread::Builder::new()
                .name("otlp-shutdown".into())
                .spawn(move || provider.shutdown_with_timeout(EXPORT_TIMEOUT));
        }
    }
}
