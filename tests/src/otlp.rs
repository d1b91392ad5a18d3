//! Spans of two services, as a collector gets them: one trace, each span below the one that caused it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use bytes::Bytes;
use mesh_core::config::PlugConfig;
use mesh_tower::Client;
use mesh_tower::otel::Otlp;
use mesh_tower::test_util::{TestMesh, TestService};
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message;
use serde_json::json;
use tokio::net::TcpListener;
use tracing_subscriber::prelude::*;

use crate::kit::soon;

/// The spans that were exported, with the service of each export.
type Spans = Arc<Mutex<Vec<(String, Span)>>>;

/// An OTLP/HTTP receiver; its base URL.
async fn collector(spans: &Spans) -> String {
    async fn traces(State(spans): State<Spans>, body: Bytes) -> Vec<u8> {
        let request = ExportTraceServiceRequest::decode(body).unwrap();
        let mut spans = spans.lock().unwrap();
        for resource in request.resource_spans {
            let attributes = resource.resource.unwrap().attributes;
            let name = attributes.into_iter().find(|attribute| attribute.key == "service.name").unwrap();
            let name = format!("{:?}", name.value.unwrap().value.unwrap());
            let scopes = resource.scope_spans.into_iter().flat_map(|scope| scope.spans);
            spans.extend(scopes.map(|span| (name.clone(), span)));
        }
        ExportTraceServiceResponse::default().encode_to_vec()
    }
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let router = Router::new().route("/v1/traces", post(traces)).with_state(Arc::clone(spans));
    tokio::spawn(async move { axum::serve(listener, router).await });
    url
}

fn attribute(span: &Span, key: &str) -> Option<String> {
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    let attribute = span.attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text.clone()),
        other => Some(format!("{other:?}")),
    }
}

#[tokio::test]
async fn a_collector_gets_one_trace_of_two_services() {
    let spans = Spans::default();
    let url = collector(&spans).await;
    let otlp = Otlp::new();
    // Of this thread, on which the whole test runs.
    let _subscribed = tracing_subscriber::registry().with(otlp.layer()).set_default();
    let exporter = PlugConfig::new("otlp", &json!({ "endpoint": url }));
    let orders = TestService::new("orders")
        .plugin(otlp.plugin())
        .config(move |config| config.telemetry.exporter = Some(exporter.clone()))
        .app(|mesh| {
            let payments = Client::new(mesh, "payments")?;
            let forward =
                |State(payments): State<Client>| async move { payments.get("/pay").send().await?.text().await };
            Ok(Router::new().route("/orders/{id}", get(forward)).with_state(payments))
        });
    let payments = Router::new().route("/pay", get(|| async { "paid" }));
    let mesh = TestMesh::new().with(orders).service("payments", payments).start().await.unwrap();
    let web = mesh.client_as("spiffe://test/ns/test/sa/web", "orders").await.unwrap();
    let answer = web.get("/orders/7").send().await.unwrap();
    assert_eq!(answer.text().await.unwrap(), "paid");
    soon("the spans to leave", mesh.mesh("orders").unwrap().shutdown()).await;

    let spans = spans.lock().unwrap().clone();
    let told: Vec<_> =
        spans.iter().map(|(_, span)| format!("{} {:?} {:?}", span.name, span.kind(), span.attributes)).collect();
    assert!(spans.iter().all(|(service, _)| service.contains("\"orders\"")), "{told:#?}");
    let by_id: HashMap<_, _> = spans.iter().map(|(_, span)| (span.span_id.clone(), span)).collect();
    let is = |span: &Span, kind: SpanKind, key: &str, value: &str| {
        span.kind() == kind && attribute(span, key).as_deref() == Some(value)
    };
    let last = spans.iter().map(|(_, span)| span).find(|span| is(span, SpanKind::Server, "url.path", "/pay"));
    let mut way = vec![last.unwrap_or_else(|| panic!("{told:#?}"))];
    while let Some(parent) = by_id.get(&way[way.len() - 1].parent_span_id) {
        way.push(parent);
    }
    // Upwards from the last service; there may be spans between, of attempts.
    let mut expected = [
        (SpanKind::Server, "url.path", "/pay"),
        (SpanKind::Client, "rpc.service", "payments"),
        (SpanKind::Server, "url.path", "/orders/7"),
        (SpanKind::Client, "rpc.service", "orders"),
    ]
    .into_iter()
    .peekable();
    for span in &way {
        expected.next_if(|(kind, key, value)| is(span, *kind, key, value));
        assert_eq!(span.trace_id, way[0].trace_id, "{told:#?}");
    }
    assert_eq!(expected.next(), None, "{way:#?}");
    assert!(way[way.len() - 1].parent_span_id.is_empty(), "the caller's span is the root");
    let record = &mesh.audit("payments").await.unwrap()[0];
    let trace: String = way[0].trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(record.trace_id.as_deref(), Some(trace.as_str()), "the audit record names the same trace");
}
