//! Turns what the handshake, a pinned gateway and the token say into one caller.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::{Request, Response};
use mesh_core::Mesh;
use mesh_core::identity::Principal as Caller;
use mesh_core::token::{PendingKeys, Presented, Refused, VerifiedToken};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::exchange::{Exchange, unwired};
use super::token;
use crate::principal::Principal;
use crate::reject::{Kind, Reject};

/// Verifies the token, if there is one, and makes the request's one principal.
///
/// No token passes as the certificate's identity alone. Any bad token, also one of an issuer that nobody configured,
/// is 401 / UNAUTHENTICATED: a token that is ignored is a hole (ISTIO-SECURITY-2021-001). A good token is removed from
/// the request, so that no handler forwards it by accident, unless its issuer has `forward_original_token`; claims are
/// written to the headers of `output_claim_to_headers` and `output_payload_to_header`, which no caller can bring. `Authorization` with another scheme is
/// the handler's.
///
/// A request whose token names a key that nobody knows waits for a lookup of it, if one may begin now or is under way: for
/// 1 s at most, 64 requests of an issuer at once. Cancel safe.
///
/// A request over plaintext is 403 / PERMISSION_DENIED once its listener is strict, whatever its connection does.
///
/// # Position
/// Below admission and deadline, because signatures are expensive; above authorization, which judges what it makes.
#[derive(Debug, Clone)]
pub struct AuthenticateLayer {
    mesh: Mesh,
}

impl AuthenticateLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone() }
    }
}

impl<S> Layer<S> for AuthenticateLayer {
    type Service = Authenticate<S>;

    fn layer(&self, inner: S) -> Authenticate<S> {
        Authenticate { inner, mesh: self.mesh.clone() }
    }
}

/// The service of [`AuthenticateLayer`].
///
/// Ready when the inner service is. A refused request never reaches it.
#[derive(Debug, Clone)]
pub struct Authenticate<S> {
    inner: S,
    mesh: Mesh,
}

impl<S> Service<Request<Body>> for Authenticate<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = AuthenticateFuture<S>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let Some(exchange) = Exchange::of(&request) else {
            return AuthenticateFuture::refused(unwired(&self.mesh, "authenticate", &request));
        };
        match pass(&exchange, &mut request) {
            Ok(()) => AuthenticateFuture { state: State::Inner { future: self.inner.call(request) } },
            Err(Stopped { keys: Some(keys), .. }) => {
                // The one that was polled ready is the one that is called.
                let clone = self.inner.clone();
                let inner = std::mem::replace(&mut self.inner, clone);
                let waiting = Waiting { keys, inner, exchange, request };
                AuthenticateFuture { state: State::Waiting { waiting: Some(Box::new(waiting)) } }
            }
            Err(Stopped { reject, keys: None }) => AuthenticateFuture::refused(exchange.refuse(reject)),
        }
    }
}

/// Why a request does not go on, or not yet.
struct Stopped {
    reject: Reject,
    keys: Option<PendingKeys>,
}

impl From<Reject> for Stopped {
    fn from(reject: Reject) -> Self {
        Self { reject, keys: None }
    }
}

impl From<Refused> for Stopped {
    fn from(refused: Refused) -> Self {
        Self { reject: Reject::new(Kind::Unauthenticated, refused.error.reason()), keys: refused.keys }
    }
}

fn pass(exchange: &Arc<Exchange>, request: &mut Request<Body>) -> Result<(), Stopped> {
    if exchange.canonical().is_none() {
        return Err(Reject::WIRING.into());
    }
    if too_late_for_plaintext(exchange) {
        return Err(Reject::new(Kind::Forbidden, "permissive_ended").into());
    }
    let tokens = &exchange.revision.tokens;
    token::remove_outputs(tokens.locations(), request.headers_mut());
    let verified = verify(exchange, request)?;
    if let Some((verified, payload)) = &verified
        && let Some(issuer) = tokens.issuer(verified)
    {
        token::write_claims(issuer, verified, request.headers_mut()).map_err(Refused::from)?;
        token::write_payload(issuer, payload, request.headers_mut()).map_err(Refused::from)?;
    }
    let svid = exchange.connection.peer().svid.clone();
    let caller = Caller::new(svid, exchange.forwarded().cloned(), verified.map(|(verified, _)| verified));
    Ok(exchange.set_principal(Principal::new(caller))?)
}

/// Whether the request came in plaintext, and its listener is strict by now. Its connection is asked to go then, and may
/// take its time.
fn too_late_for_plaintext(exchange: &Exchange) -> bool {
    let connection = &exchange.connection;
    let listener = exchange.revision.config.listeners.get(connection.listener());
    connection.peer().svid.is_none()
        && listener.is_none_or(|listener| listener.mtls.plaintext_until(exchange.mesh.clock().now()).is_none())
}

/// What the one token of the request proves, and its payload if its issuer wants that written; the token is taken from the
/// request then.
fn verify(exchange: &Exchange, request: &mut Request<Body>) -> Result<Option<(Arc<VerifiedToken>, String)>, Stopped> {
    let tokens = &exchange.revision.tokens;
    let Some((location, found)) = token::find(tokens.locations(), request).map_err(Refused::from)? else {
        return Ok(None);
    };
    let certificate = exchange.connection.peer().svid.as_deref().map(|svid| &svid.fingerprint);
    let verified = tokens.judge(found, Presented { location, certificate }, exchange.mesh.clock().now())?;
    let issuer = tokens.issuer(&verified);
    let written = issuer.is_some_and(|issuer| issuer.output_payload_to_header.is_some());
    let payload = found.split('.').nth(1).filter(|_| written).unwrap_or_default().to_owned();
    if !issuer.is_some_and(|issuer| issuer.forward_original_token) {
        token::take(tokens.locations(), location, request);
    }
    Ok(Some((verified, payload)))
}

/// A request whose token names a key that is being looked for.
struct Waiting<S> {
    keys: PendingKeys,
    inner: S,
    exchange: Arc<Exchange>,
    request: Request<Body>,
}

pin_project! {
    /// The response of the inner service, or the refusal, maybe after a lookup of keys.
    pub struct AuthenticateFuture<S: Service<Request<Body>>> {
        #[pin]
        state: State<S, S::Future>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        Inner { #[pin] future: F },
        Waiting { waiting: Option<Box<Waiting<S>>> },
        Refused { response: Option<Box<Response<Body>>> },
    }
}

impl<S: Service<Request<Body>>> AuthenticateFuture<S> {
    fn refused(response: Response<Body>) -> Self {
        Self { state: State::Refused { response: Some(Box::new(response)) } }
    }
}

impl<S> Future for AuthenticateFuture<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        loop {
            let next = match self.as_mut().project().state.project() {
                StateProj::Inner { future } => return Poll::Ready(ready!(future.poll(cx))),
                StateProj::Waiting { waiting } => {
                    let Some(mut held) = waiting.take() else { return Poll::Pending };
                    if Pin::new(&mut held.keys).poll(cx).is_pending() {
                        *waiting = Some(held);
                        return Poll::Pending;
                    }
                    let Waiting { mut inner, exchange, mut request, keys: _ } = *held;
                    // Once: a key that was not found is not waited for again.
                    match pass(&exchange, &mut request) {
                        Ok(()) => State::Inner { future: inner.call(request) },
                        Err(stopped) => {
                            let response = exchange.refuse(stopped.reject);
                            State::Refused { response: Some(Box::new(response)) }
                        }
                    }
                }
                // Polled again after it was ready: a future may then stay pending for ever.
                StateProj::Refused { response } => {
                    return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)));
                }
            };
            self.as_mut().project().state.set(next);
        }
    }
}

impl<S: Service<Request<Body>>> std::fmt::Debug for AuthenticateFuture<S> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AuthenticateFuture").finish_non_exhaustive()
    }
}
