//! A tracer that records nothing until its mesh has started.
//!
//! The subscriber is made before the configuration is read, so that reading it can be logged; where spans go is known
//! only afterwards.

use std::sync::{Arc, OnceLock};

use opentelemetry::Context;
use opentelemetry::trace::{SpanBuilder, Tracer, TracerProvider as _};
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};

pub(super) struct LateTracer {
    live: Arc<OnceLock<SdkTracer>>,
    idle: SdkTracer,
}

impl LateTracer {
    pub(super) fn new(live: Arc<OnceLock<SdkTracer>>) -> Self {
        let idle = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build().tracer("mesh");
        Self { live, idle }
    }
}

impl Tracer for LateTracer {
    type Span = <SdkTracer as Tracer>::Span;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Self::Span {
        self.live.get().unwrap_or(&self.idle).build_with_context(builder, parent)
    }
}
