//! The layers of `mesh_tower::serve` and of `mesh_tower::Client`, one by one, with others in between.
//!
//! Order matters, and the layers know it: each denies with reason `wiring` if one that it needs is missing or stands
//! below it. Of the server's, only audit, admission, deadline and rate limit may be left out.

use std::future::IntoFuture;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderValue, Request, Response};
use axum::routing::get;
use mesh_tower::client::{self, RequestBody};
use mesh_tower::{Mesh, Principal, ServeError, server};
use tokio::net::TcpListener;
use tower::{Service, ServiceBuilder};

/// The service's routes. The server's `RouteLayer` tells the stack around them which one matched.
pub fn router() -> Router {
    let hello = get(|peer: Principal| async move { format!("hello {peer}") });
    Router::new().route("/hello", hello).layer(server::RouteLayer)
}

/// Serves this example's own stack.
pub fn serve(
    mesh: &Mesh,
    listener: TcpListener,
) -> impl IntoFuture<Output = Result<(), ServeError>, IntoFuture: Send> + use<> {
    let stack = ServiceBuilder::new()
        .layer(server::TelemetryLayer::new(mesh)) // span, metrics; outermost, so that it sees every refusal
        .layer(server::AuditLayer::new(mesh)) // one record for each decided request
        .layer(server::CanonicalLayer::new(mesh)) // one reading of method, host and path for all that follow
        .layer(server::AdmissionLayer::new(mesh)) // sheds load before expensive work
        .layer(server::DeadlineLayer::new(mesh)) // no work for callers that stopped waiting
        .layer(server::AuthenticateLayer::new(mesh)) // certificate and token make one principal
        .layer(server::AuthorizeLayer::new(mesh)) // policy: a permit, or no handler
        .layer(server::HandlerLayer::new(mesh)) // context, panics, permits of streams
        .map_response(stamp) // yours: it sees only what policy let in
        .service(router());
    mesh_tower::serve_stack(mesh, listener, stack)
}

fn stamp(mut response: Response<Body>) -> Response<Body> {
    response.headers_mut().insert("x-served-by", HeaderValue::from_static("own-stack"));
    response
}

/// Calls `service` through this example's own stack, which is that of `mesh_tower::Client` and a header.
pub fn client(
    mesh: &Mesh,
    service: &str,
) -> impl Service<Request<RequestBody>, Response = Response<client::Body>, Error = mesh_tower::Error, Future: Send>
+ Clone
+ use<> {
    ServiceBuilder::new()
        .layer(client::TelemetryLayer::new(mesh, service)) // one span, one count for each call
        .layer(client::RouteLayer::new(mesh, service)) // cluster, time limit and retry rules of mesh.yaml
        .map_request(version) // yours: once for each call
        .layer(client::DeadlineLayer::new()) // one limit for all attempts
        .layer(client::RetryLayer::new(mesh)) // more attempts, where safe
        .layer(client::BalanceLayer::new()) // an endpoint for each attempt
        .layer(client::EndpointLayer::new(mesh)) // the attempt's limit, span and headers
        .layer(client::AuthenticateLayer::new()) // a token, if the cluster has one
        .service(client::Transport::default()) // a pooled connection over mutual TLS
}

fn version<B>(mut request: Request<B>) -> Request<B> {
    request.headers_mut().insert("x-api-version", HeaderValue::from_static("3"));
    request
}
