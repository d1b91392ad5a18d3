//! One event for each attempt, on the span of its call.

use mesh_core::telemetry::attributes::{
    ATTEMPT_DURATION, ATTEMPT_NEXT, CONNECTION_WAIT, ENDPOINT, ERROR_TYPE, GRPC_STATUS_CODE, PICK_REASON, RESEND_COUNT,
    SERVER_ADDRESS, SERVER_PORT, STATUS_CODE,
};

use super::attempts::{AttemptNext, AttemptOutcome, Attempts};

/// What asks for the events by name: `RUST_LOG=info,mesh::attempt=debug`.
pub(super) const TARGET: &str = "mesh::attempt";

/// Tells of the attempt that followed `made` others. Costs a look at a static unless somebody listens.
pub(super) fn attempt(route: &str, made: usize, attempts: Option<&Attempts>, next: AttemptNext) {
    if !tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        return;
    }
    let Some(report) = attempts.and_then(Attempts::last) else {
        tracing::debug!(target: TARGET, route, { RESEND_COUNT } = made, { ATTEMPT_NEXT } = %next, "attempt without endpoint");
        return;
    };
    let (status, code, error) = match report.outcome {
        AttemptOutcome::Answered(status) => (Some(status.as_u16()), None, None),
        AttemptOutcome::Grpc(code) => (None, Some(code), None),
        AttemptOutcome::Failed(kind) => (None, None, Some(kind.as_str())),
    };
    tracing::debug!(
        target: TARGET,
        route,
        { RESEND_COUNT } = made,
        { ENDPOINT } = report.endpoint.as_ref().map(|key| &*key.0),
        { SERVER_ADDRESS } = report.address.map(|address| tracing::field::display(address.ip())),
        { SERVER_PORT } = report.address.map(|address| address.port()),
        { PICK_REASON } = report.reason.map(tracing::field::display),
        { CONNECTION_WAIT } = report.wait.map(|wait| wait.length.as_secs_f64() * 1e3),
        { ATTEMPT_DURATION } = report.took.as_secs_f64() * 1e3,
        { STATUS_CODE } = status,
        { GRPC_STATUS_CODE } = code,
        { ERROR_TYPE } = error,
        { ATTEMPT_NEXT } = %next,
        "attempt"
    );
}
