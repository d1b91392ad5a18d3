//! Attaches the token that a cluster's calls must carry.

use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::Body;
use super::call::call;
use super::future::CallOr;
use super::registry::RuntimeCluster;
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
    let cluster = Arc::clone(&call(request, "AuthenticateLayer")?.cluster);
    attach_token(&cluster, request)
}

/// The same for what is no call: a request to an endpoint of `cluster`.
pub(super) fn attach_token<B>(cluster: &RuntimeCluster, request: &mut Request<B>) -> Result<(), Error> {
    let Some(source) = &cluster.token else { return Ok(()) };
    if request.headers().contains_key(AUTHORIZATION) {
        return Ok(());
    }
    let missing = |message: &str| Error::new(ErrorKind::Token, message.to_owned()).never_sent();
    let token = source.source.token().map_err(|error| missing("no token to attach").caused_by(error))?;
    let value = source.header(token).ok_or_else(|| missing("the token has characters that a header cannot carry"))?;
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

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use mesh_core::token::{TokenSource, TokenSourceError};

    use super::super::attached::Attached;

    struct Given(Mutex<Arc<str>>);

    impl std::fmt::Debug for Given {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("Given")
        }
    }

    impl TokenSource for Given {
        fn token(&self) -> Result<Arc<str>, TokenSourceError> {
            Ok(self.0.lock().unwrap().clone())
        }
    }

    #[test]
    fn a_header_is_made_once_for_each_token_and_shows_it_to_nobody() {
        let given = Arc::new(Given(Mutex::new("a.b.c".into())));
        let attached = Attached::new(given.clone());
        let header = || attached.header(attached.source.token().unwrap()).unwrap();
        let (first, again) = (header(), header());
        assert_eq!(first, "Bearer a.b.c");
        assert!(first.is_sensitive());
        assert!(std::ptr::eq(first.as_bytes(), again.as_bytes()), "formatted again");
        assert!(!format!("{first:?}").contains("a.b.c"));
        *given.0.lock().unwrap() = "d.e.f".into();
        assert_eq!(header(), "Bearer d.e.f");
        *given.0.lock().unwrap() = "d\ne".into();
        assert!(attached.header(attached.source.token().unwrap()).is_none());
        assert!(!format!("{attached:?}").contains("d.e.f"));
    }
}
