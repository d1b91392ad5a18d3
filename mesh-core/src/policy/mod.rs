//! Istio `AuthorizationPolicy` documents, compiled, and the verdict on one request.

mod decision;
mod document;
mod engine;
mod request;

pub use decision::{Decision, ExplainStep, Explanation, Permit, Reason, Verdict};
pub use document::{Action, AuthorizationPolicy, parse_documents};
pub use engine::{EngineOptions, PolicyEngine};
pub use request::{Headers, NoHeaders, Request};
