//! Attributes of span events, by their OpenTelemetry names where there are any.

/// How often the request was sent before this attempt. (OpenTelemetry HTTP)
pub const RESEND_COUNT: &str = "http.request.resend_count";
/// The IP address of the endpoint. (OpenTelemetry)
pub const SERVER_ADDRESS: &str = "server.address";
/// Its port. (OpenTelemetry)
pub const SERVER_PORT: &str = "server.port";
/// The HTTP status of the answer. (OpenTelemetry HTTP)
pub const STATUS_CODE: &str = "http.response.status_code";
/// The gRPC status of the answer. (OpenTelemetry RPC)
pub const GRPC_STATUS_CODE: &str = "rpc.grpc.status_code";
/// The kind of error that ended an attempt without an answer. (OpenTelemetry)
pub const ERROR_TYPE: &str = "error.type";
/// The key of the endpoint.
pub const ENDPOINT: &str = "mesh.endpoint";
/// Why the endpoint was picked, in words.
pub const PICK_REASON: &str = "mesh.pick.reason";
/// Milliseconds that an attempt waited for a connection.
pub const CONNECTION_WAIT: &str = "mesh.connection.wait_ms";
/// Milliseconds from the pick to the headers of the answer, or to the failure.
pub const ATTEMPT_DURATION: &str = "mesh.attempt.duration_ms";
/// What followed the attempt, in words.
pub const ATTEMPT_NEXT: &str = "mesh.attempt.next";
