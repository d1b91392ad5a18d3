//! Which trace context a `tracing` span has: OpenTelemetry's where its layer is there, else one of our own making.

use mesh_core::rng::Rng;

use super::trace::TraceContext;

impl TraceContext {
    /// The trace context of `span`, which begins below `parent`. With the feature `otel` and its layer in the subscriber
    /// it is the span's own; else a fresh child of `parent`, or the root of a new trace.
    pub(crate) fn of_span(span: &tracing::Span, parent: Option<Self>, rng: &Rng) -> Self {
        #[cfg(feature = "otel")]
        {
            if let Some(parent) = &parent {
                crate::otel::adopt(span, parent);
            }
            if let Some(ours) = crate::otel::trace_of(span) {
                return ours.with_state_of(parent.as_ref());
            }
        }
        #[cfg(not(feature = "otel"))]
        let _ = span;
        parent.map_or_else(|| Self::root(rng), |parent| parent.child(rng))
    }

    /// The trace context of `span`, which began inside the span of `parent`, in the same task.
    pub(crate) fn of_inner_span(span: &tracing::Span, parent: &Self, rng: &Rng) -> Self {
        #[cfg(feature = "otel")]
        if let Some(ours) = crate::otel::trace_of(span) {
            return ours.with_state_of(Some(parent));
        }
        #[cfg(not(feature = "otel"))]
        let _ = span;
        parent.child(rng)
    }

    /// The trace context of the current `tracing` span, where an OpenTelemetry layer knows it.
    pub(crate) fn of_current_span() -> Option<Self> {
        #[cfg(feature = "otel")]
        return crate::otel::trace_of(&tracing::Span::current());
        #[cfg(not(feature = "otel"))]
        None
    }
}
