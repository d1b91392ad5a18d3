//! Attaches the token that a cluster's calls must carry.

use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{HeaderValue, Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::call::call;
use super::future::CallOr;
use crate::error::{Error, ErrorKind};

/// Writes `authorization: Bearer TOKEN` where the cluster has a token source.
///
/// A request that has the header already keeps it. Fails closed: without a token nothing is sent, because the endpoint
/// would refuse the call, or take it for an anonymous one.
///
/// # Position
///
/// Below `retry`, so that a second attempt carries the token of the moment; just above `pool`, so that no other layer
/// ever sees the token.
#[derive(Debug, Clone, Copy, Default)]
pub struct AuthenticateLayer(());

impl AuthenticateLayer {
    /// Takes the token source from the call's cluster.
    pub fn new() -> Self {
        Self(())
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner }
    }
}

/// The service of [`AuthenticateLayer`].
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
}

fn attach<B>(request: &mut Request<B>) -> Result<(), Error> {
    let call = call(request, "AuthenticateLayer")?;
    let Some(source) = &call.cluster.token else { return Ok(()) };
    if request.headers().contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let missing = |message: &str| Error::new(ErrorKind::Token, message.to_owned()).never_sent();
    let token = source.token().map_err(|error| missing("no token to attach").caused_by(error))?;
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))
        // Without the cause: it might show the token.
        .map_err(|_| missing("the token has characters that a header cannot carry"))?;
    value.set_sensitive(true);
    request.headers_mut().insert(AUTHORIZATION, value);
    Ok(())
}

impl<S, B> Service<Request<B>> for Authenticate<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Error>,
{
    type Response = Response<Body>;
    type Error = Error;
    type Future = CallOr<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        match attach(&mut request) {
            Ok(()) => CallOr::call(self.inner.call(request)),
            Err(error) => CallOr::refused(error),
        }
    }
}
