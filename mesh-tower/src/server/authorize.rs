//! Asks policy. What it lets in keeps a permit, which may be taken back: see `permit`.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::Body;
use http::{HeaderMap, Request, Response};
use mesh_core::Mesh;
use mesh_core::policy::{self, CustomMatch, Decision, Headers, PolicyEngine, Protocol, Verdict};
use pin_project_lite::pin_project;
use tower_layer::Layer;
use tower_service::Service;

use super::ask::ask;
use super::audited;
use super::exchange::{Exchange, unwired};
use super::remote;
use crate::reject::{Kind, Reject};

/// Lets a request on if policy allows it.
///
/// Else 403 / PERMISSION_DENIED, or 401 / UNAUTHENTICATED where only a token was missing. Fails closed: no policy
/// denies unless the configuration says otherwise.
///
/// Where a CUSTOM rule matches, its external authorizer is asked first, within `authorization.custom_timeout`; no answer
/// denies. The answers hold as long as the permit: a stream that a newer policy judges again is judged with them, and a
/// provider that was not asked then denies.
///
/// A denial names policy, rule and reason in log, metric and audit record, and tells the caller nothing.
///
/// # Position
/// Below authentication, whose principal it judges; above the rate limit, so that only callers who may call spend quota.
/// Here no route is known: a policy that names one denies. [`serve`](crate::serve()) asks such policies inside its router.
#[derive(Debug, Clone)]
pub struct AuthorizeLayer {
    mesh: Mesh,
    /// Whether every request that passes comes to a router that asks policy again where it was put off.
    before_router: bool,
}

impl AuthorizeLayer {
    /// The layer of this mesh.
    pub fn new(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone(), before_router: false }
    }

    /// Puts policies that name a route off until the route is known. Every handler below must stand behind a
    /// [`RouteLayer`](super::RouteLayer).
    pub(crate) fn before_router(mesh: &Mesh) -> Self {
        Self { mesh: mesh.clone(), before_router: true }
    }

    /// Puts the decision off, if it must wait for the route and could let the caller in at all.
    fn put_off(&self, exchange: &Exchange) -> bool {
        let policy = &exchange.revision.policy;
        self.before_router
            && policy.needs_route()
            && view(exchange, &policy::NoHeaders)
                .is_some_and(|view| exchange.connection.policy(policy).may_allow(&view))
            && exchange.put_off()
    }
}

impl<S> Layer<S> for AuthorizeLayer {
    type Service = Authorize<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Authorize { inner, layer: self.clone() }
    }
}

/// What [`AuthorizeLayer`] makes of a service.
///
/// Ready when the inner service is, of which a clone is kept only while an external authorizer is asked.
#[derive(Debug, Clone)]
pub struct Authorize<S> {
    inner: S,
    layer: AuthorizeLayer,
}

impl<S> Service<Request<Body>> for Authorize<S>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = ResponseFuture<S, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(exchange) = Exchange::of(&request) else {
            return ResponseFuture::refused(unwired(&self.layer.mesh, "authorize", &request));
        };
        if let Err(reject) = remote::note(&exchange, request.headers()) {
            return ResponseFuture::refused(exchange.refuse(reject));
        }
        if let Some(context) = exchange.context() {
            let source = exchange.connection.peer().address.ip().to_canonical();
            context.came_from(exchange.remote_ip().unwrap_or(source));
        }
        if self.layer.put_off(&exchange) {
            return ResponseFuture::inner(self.inner.call(request));
        }
        authorize(&mut self.inner, exchange, request, false)
    }
}

/// Calls `inner` if policy allows it. `inner` must be ready. What was `put_off` writes the record too that its route may
/// require.
pub(super) fn authorize<S>(
    inner: &mut S,
    exchange: Arc<Exchange>,
    mut request: Request<Body>,
    put_off: bool,
) -> ResponseFuture<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<Body>> + Clone,
{
    let headers = HeaderView(request.headers());
    let Some(view) = view(&exchange, &headers) else {
        return ResponseFuture::refused(exchange.refuse(Reject::WIRING));
    };
    let policy = exchange.connection.policy(&exchange.revision.policy);
    let custom = policy.custom(&view);
    let audited = put_off && exchange.requires_audit();
    if custom.is_empty() && !audited {
        let decision = policy.decide(&view);
        return match permit(&exchange, decision, &mut request) {
            Ok(()) => ResponseFuture::inner(inner.call(request)),
            Err(reject) => ResponseFuture::refused(exchange.refuse(reject)),
        };
    }
    let later = inner.clone();
    let inner = std::mem::replace(inner, later);
    let asked = Box::pin(asked(exchange, request, custom, audited));
    ResponseFuture { state: State::Asking { asked, inner: Some(inner) } }
}

/// Decides with the answers of external authorizers: the request, which may go on, or its refusal.
async fn asked(
    exchange: Arc<Exchange>,
    request: Request<Body>,
    custom: Vec<CustomMatch>,
    audited: bool,
) -> Result<Request<Body>, Response<Body>> {
    // Apart, because a body cannot be shared between threads.
    let (parts, body) = request.into_parts();
    let limit = exchange.revision.config.custom_timeout;
    let headers = HeaderView(&parts.headers);
    let decision = match view(&exchange, &headers) {
        None => None,
        Some(view) => {
            let answers = ask(&exchange.mesh, custom, &view, limit).await;
            let decision = exchange.revision.policy.decide_with(&view, &answers);
            exchange.set_answers(answers).ok().map(|()| decision)
        }
    };
    let mut request = Request::from_parts(parts, body);
    let mut permit = decision.ok_or(Reject::WIRING).and_then(|decision| permit(&exchange, decision, &mut request));
    if audited && permit.is_ok() {
        permit = match audited::commit(&exchange) {
            Ok(written) => written.await,
            Err(reject) => Err(reject),
        };
    }
    permit.map(|()| request).map_err(|reject| exchange.refuse(reject))
}

/// Notes the decision, and lets the request on or not.
fn permit(exchange: &Exchange, decision: Decision, request: &mut Request<Body>) -> Result<(), Reject> {
    let denied = (decision.verdict == Verdict::Deny).then(|| {
        let kind = if decision.token_would_help { Kind::Unauthenticated } else { Kind::Forbidden };
        Reject::new(kind, decision.reason.as_str())
    });
    exchange.set_decision(decision)?;
    if let Some(reject) = denied {
        return Err(reject);
    }
    if let Some(principal) = exchange.principal().filter(|principal| !principal.is_anonymous()) {
        request.extensions_mut().insert(principal.clone());
    }
    exchange.rate_limit().map_or(Ok(()), |layer| layer.spend(exchange))
}

/// What `engine` says of the request with the answers it has, by what decides alone; `None` if a layer above did not do its
/// part.
pub(super) fn judge(exchange: &Exchange, engine: &PolicyEngine, headers: &dyn Headers) -> Option<Decision> {
    Some(engine.judge_with(&view(exchange, headers)?, exchange.answers()))
}

/// The request as policy sees it; `None` if a layer above did not do its part.
fn view<'a>(exchange: &'a Exchange, headers: &'a dyn Headers) -> Option<policy::Request<'a>> {
    let canonical = exchange.canonical()?;
    let principal = exchange.principal()?;
    let connection = &exchange.connection;
    let (path, resolved_path) = canonical.readings();
    let source_ip = connection.peer().address.ip().to_canonical();
    Some(policy::Request {
        peer: principal.spiffe_id(),
        token: principal.token.as_deref(),
        method: canonical.method(),
        path,
        resolved_path,
        host: canonical.host(),
        port: connection.local_addr().port(),
        route: exchange.policy_route(),
        protocol: if exchange.grpc { Protocol::Grpc } else { Protocol::Http },
        source_ip: Some(source_ip),
        remote_ip: Some(exchange.remote_ip().unwrap_or(source_ip)),
        destination_ip: Some(connection.local_addr().ip().to_canonical()),
        sni: connection.sni(),
        headers,
    })
}

/// Headers as policy asks for them.
pub(crate) struct HeaderView<'a>(pub(crate) &'a HeaderMap);

impl Headers for HeaderView<'_> {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        for value in self.0.get_all(name) {
            each(value.as_bytes());
        }
    }
}

type Asked = Pin<Box<dyn Future<Output = Result<Request<Body>, Response<Body>>> + Send>>;

pin_project! {
    /// The response of the inner service, or the refusal.
    pub struct ResponseFuture<S, F> {
        #[pin]
        state: State<S, F>,
    }
}

pin_project! {
    #[project = StateProj]
    enum State<S, F> {
        Inner { #[pin] future: F },
        Refused { response: Option<Box<Response<Body>>> },
        Asking { asked: Asked, inner: Option<S> },
    }
}

impl<S, F> ResponseFuture<S, F> {
    pub(super) fn refused(response: Response<Body>) -> Self {
        Self { state: State::Refused { response: Some(Box::new(response)) } }
    }

    pub(super) fn inner(future: F) -> Self {
        Self { state: State::Inner { future } }
    }
}

impl<S> Future for ResponseFuture<S, S::Future>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Output = Result<Response<Body>, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut state = self.project().state;
        loop {
            let next = match state.as_mut().project() {
                StateProj::Inner { future } => return future.poll(cx),
                // Polled again after it was ready: a future may then stay pending for ever.
                StateProj::Refused { response } => {
                    return response.take().map_or(Poll::Pending, |response| Poll::Ready(Ok(*response)));
                }
                StateProj::Asking { asked, inner } => match (ready!(asked.as_mut().poll(cx)), inner.take()) {
                    (Ok(request), Some(mut inner)) => State::Inner { future: inner.call(request) },
                    (Ok(_), None) => return Poll::Pending,
                    (Err(response), _) => State::Refused { response: Some(Box::new(response)) },
                },
            };
            state.set(next);
        }
    }
}

impl<S, F> std::fmt::Debug for ResponseFuture<S, F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}
