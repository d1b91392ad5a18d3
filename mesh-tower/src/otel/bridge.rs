//! W3C trace context in and out of OpenTelemetry spans.

use opentelemetry::Context;
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::context::TraceContext;

/// Makes `span` a child of the caller's span.
pub(crate) fn adopt(span: &Span, parent: &TraceContext) {
    let flags = if parent.sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let state = parent.state().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let remote = SpanContext::new(
        TraceId::from_bytes(parent.trace_id().to_be_bytes()),
        SpanId::from_bytes(parent.span_id().to_be_bytes()),
        flags,
        true,
        state,
    );
    // Fails where the subscriber has no OpenTelemetry layer, or the span is disabled: then there is nothing to join.
    let _ = span.set_parent(Context::new().with_remote_span_context(remote));
}

/// The trace context that names `span`; `None` where no OpenTelemetry layer sees it.
pub(crate) fn trace_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let span = context.span();
    let ids = span.span_context();
    TraceContext::from_ids(
        u128::from_be_bytes(ids.trace_id().to_bytes()),
        u64::from_be_bytes(ids.span_id().to_bytes()),
        ids.is_sampled(),
    )
}
