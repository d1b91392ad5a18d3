//! A channel for generated gRPC clients.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::header::{HeaderValue, TE};
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use mesh_core::Mesh;
use mesh_tower::Client;
use mesh_tower::client::{self, UnknownService};
use pin_project_lite::pin_project;
use tonic::Status;
use tower_service::Service;

use crate::status::status;

/// Calls one service of the mesh from a generated client. Clones are handles.
///
/// ```
/// # struct PaymentsClient<T>(T);
/// # impl<T> PaymentsClient<T> { fn new(channel: T) -> Self { Self(channel) } }
/// # fn connect(mesh: mesh_tower::Mesh) -> Result<(), mesh_tower::client::UnknownService> {
/// let payments = PaymentsClient::new(mesh_tonic::Channel::new(&mesh, "payments")?);
/// # Ok(()) }
/// ```
///
/// Routes, deadlines, retries, balancing and mTLS are those of [`mesh_tower::Client`]. A deadline that the call sets
/// with `tonic::Request::set_timeout` counts as the call's own.
#[derive(Debug, Clone)]
pub struct Channel {
    client: Client,
}

impl Channel {
    /// Calls `service`, which `clusters:` or `routes:` must name.
    ///
    /// # Errors
    ///
    /// [`UnknownService`] if neither does; it suggests the name that is spelt most like it.
    pub fn new(mesh: &Mesh, service: &str) -> Result<Self, UnknownService> {
        Ok(Self { client: Client::new(mesh, service)? })
    }

    /// The client underneath, for what it can tell of its endpoints.
    pub fn client(&self) -> &Client {
        &self.client
    }
}

impl From<Client> for Channel {
    fn from(client: Client) -> Self {
        Self { client }
    }
}

impl Service<Request<tonic::body::Body>> for Channel {
    type Response = Response<Body>;
    type Error = Status;
    type Future = ResponseFuture;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<tonic::body::Body>) -> ResponseFuture {
        // Without it a proxy may drop the trailers, and with them the status. (gRPC over HTTP/2)
        request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
        ResponseFuture { inner: self.client.call(request) }
    }
}

pin_project! {
    /// The future of [`Channel`].
    #[derive(Debug)]
    pub struct ResponseFuture {
        #[pin]
        inner: client::ResponseFuture,
    }
}

impl Future for ResponseFuture {
    type Output = Result<Response<Body>, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(self.project().inner.poll(cx)) {
            Ok(response) => Ok(response.map(|inner| Body { inner })),
            Err(error) => Err(status(error)),
        })
    }
}

pin_project! {
    /// A response body whose errors are statuses. The default is empty.
    #[derive(Debug, Default)]
    pub struct Body {
        #[pin]
        inner: client::Body,
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        self.project().inner.poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(status)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
