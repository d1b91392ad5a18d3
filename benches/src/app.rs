//! What is served: 1 KiB on `GET /hello`, and an echo over gRPC.

use axum::Router;
use axum::routing::get;
use bytes::Bytes;
use http::HeaderMap;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status};

use crate::perf::Payload;
use crate::perf::echo_server::{Echo, EchoServer};

/// Bytes that `GET /hello` answers with, and that the gRPC load sends.
pub const PAYLOAD: usize = 1024;

static HELLO: [u8; PAYLOAD] = [b'x'; PAYLOAD];

/// The HTTP half.
pub fn http() -> Router {
    Router::new().route("/hello", get(async || Bytes::from_static(&HELLO)))
}

/// The gRPC half.
pub fn grpc() -> tonic::service::Routes {
    tonic::service::Routes::new(EchoServer::new(EchoService))
}

/// What the gRPC load sends, with these headers as metadata.
pub fn echo_request(headers: &HeaderMap) -> Request<Payload> {
    let mut request = Request::new(Payload { data: Bytes::from_static(&HELLO) });
    *request.metadata_mut() = MetadataMap::from_headers(headers.clone());
    request
}

#[derive(Debug, Clone, Copy)]
struct EchoService;

#[tonic::async_trait]
impl Echo for EchoService {
    async fn unary(&self, request: Request<Payload>) -> Result<Response<Payload>, Status> {
        Ok(Response::new(request.into_inner()))
    }
}
