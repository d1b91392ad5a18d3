//! What the layers know of one request, from its first byte to the last of its response.
//!
//! One shared extension instead of one for each layer: it costs one allocation, and it is how a layer sees that those
//! above it did their part. Only [`TelemetryLayer`](super::TelemetryLayer) makes one, and only for a request that
//! came with a [`Connection`]; a layer that finds none, or finds it in the wrong state, denies with reason `wiring`.

use std::net::IpAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use axum::body::Body;
use http::{HeaderMap, Request, Response, Uri};
use mesh_core::audit::Ticket;
use mesh_core::config::AuditMode;
use mesh_core::identity::SpiffeId;
use mesh_core::policy::canonical::Canonicalization;
use mesh_core::policy::{CustomAnswers, Decision, Verdict};
use mesh_core::snapshot::Versioned;
use mesh_core::telemetry::DenialLabels;
use mesh_core::{Mesh, Revision};
use tokio::time::Instant;

use crate::canonical::Canonical;
use crate::connection::{Connection, Fate, Unfit};
use crate::context::{RequestContext, TraceContext};
use crate::grpc;
use crate::places::AdmissionPermit;
use crate::principal::Principal;
use crate::reject::{Kind, Reject};

/// What spends a caller's quota once policy has let the request in.
pub(super) trait Spend: std::fmt::Debug + Send + Sync + 'static {
    /// Takes a request of the principal out of its bucket.
    fn spend(&self, exchange: &Exchange) -> Result<(), Reject>;
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(super) mesh: Mesh,
    pub(super) connection: Arc<Connection>,
    /// Configuration, policy and tokens, pinned for the whole request.
    pub(super) revision: Arc<Versioned<Revision>>,
    pub(super) started: Instant,
    pub(super) trace: TraceContext,
    pub(super) grpc: bool,
    canonical: OnceLock<(Canonical, RequestContext)>,
    /// Whom the peer, a pinned gateway, names as its client.
    forwarded: OnceLock<SpiffeId>,
    /// The matched route, and whether it is a gRPC method.
    route: OnceLock<(Arc<str>, bool)>,
    /// Whom trusted proxies name as the client.
    remote_ip: OnceLock<IpAddr>,
    principal: OnceLock<Principal>,
    /// Whether policy waits for the route, and with it the rate limit.
    put_off: AtomicBool,
    rate_limit: OnceLock<Arc<dyn Spend>>,
    /// What external authorizers said.
    answers: OnceLock<CustomAnswers>,
    decision: OnceLock<Decision>,
    /// The revision under which the permit was found good last.
    permit_generation: AtomicU64,
    /// Whether the permit was taken back.
    revoked: AtomicBool,
    /// Whether the handler was called; nothing may refuse below it.
    handling: AtomicBool,
    reject: OnceLock<Reject>,
    /// What in the application's code denied, where it was not policy.
    denier: OnceLock<Arc<str>>,
    /// Roles that the caller had to have, and had.
    roles: Mutex<Vec<Arc<str>>>,
    admission: Mutex<Option<AdmissionPermit>>,
    fate: Option<Arc<Fate>>,
    /// What the caller calls the request, where that can be written down.
    pub(super) request_id: Option<Box<str>>,
    /// The target as it came.
    pub(super) target: Uri,
    /// The record that had to be written before the handler.
    ticket: OnceLock<Ticket>,
}

impl Exchange {
    pub(super) fn begin(
        mesh: &Mesh,
        connection: Arc<Connection>,
        trace: TraceContext,
        request: &Request<Body>,
    ) -> Arc<Self> {
        let revision = mesh.revision().load();
        Arc::new(Self {
            mesh: mesh.clone(),
            connection,
            permit_generation: AtomicU64::new(revision.generation()),
            revision,
            started: Instant::now(),
            trace,
            grpc: grpc::is_grpc(request.headers()),
            canonical: OnceLock::new(),
            forwarded: OnceLock::new(),
            route: OnceLock::new(),
            remote_ip: OnceLock::new(),
            principal: OnceLock::new(),
            put_off: AtomicBool::new(false),
            rate_limit: OnceLock::new(),
            answers: OnceLock::new(),
            decision: OnceLock::new(),
            revoked: AtomicBool::new(false),
            handling: AtomicBool::new(false),
            reject: OnceLock::new(),
            denier: OnceLock::new(),
            roles: Mutex::default(),
            admission: Mutex::new(None),
            fate: request.extensions().get::<Arc<Fate>>().cloned(),
            request_id: request_id(request.headers()).map(Box::from),
            target: request.uri().clone(),
            ticket: OnceLock::new(),
        })
    }

    /// The exchange that a request belongs to.
    pub(crate) fn of(request: &Request<Body>) -> Option<Arc<Self>> {
        request.extensions().get::<Arc<Self>>().cloned()
    }

    /// What the transport found to be wrong with the request, or its body, up to now.
    pub(super) fn unfit(&self) -> Option<Unfit> {
        self.fate.as_ref()?.get()
    }

    /// Notes what a layer found to be wrong with the body.
    pub(super) fn set_unfit(&self, unfit: Unfit) {
        if let Some(fate) = &self.fate {
            fate.set(unfit);
        }
    }

    pub(super) fn canonical(&self) -> Option<&Canonical> {
        self.canonical.get().map(|(canonical, _)| canonical)
    }

    pub(super) fn context(&self) -> Option<&RequestContext> {
        self.canonical.get().map(|(_, context)| context)
    }

    pub(super) fn set_canonical(&self, canonical: Canonical, context: RequestContext) -> Result<(), Reject> {
        self.canonical.set((canonical, context)).map_err(|_| Reject::WIRING)
    }

    pub(super) fn forwarded(&self) -> Option<&SpiffeId> {
        self.forwarded.get()
    }

    pub(super) fn set_forwarded(&self, client: SpiffeId) -> Result<(), Reject> {
        self.forwarded.set(client).map_err(|_| Reject::WIRING)
    }

    pub(super) fn route(&self) -> Option<&Arc<str>> {
        self.route.get().map(|(route, _)| route)
    }

    /// The route as policies write it: its template, or the gRPC method that was called.
    pub(super) fn policy_route(&self) -> Option<&str> {
        let (route, grpc) = self.route.get()?;
        if *grpc { self.canonical().map(Canonical::path) } else { Some(route) }
    }

    /// Notes the matched route, which may be one of gRPC; the outermost router that knows one wins.
    pub(super) fn set_route(&self, route: &str, grpc: bool) {
        let _ = self.route.set((Arc::from(route), grpc));
    }

    pub(super) fn remote_ip(&self) -> Option<IpAddr> {
        self.remote_ip.get().copied()
    }

    pub(super) fn set_remote_ip(&self, ip: IpAddr) -> Result<(), Reject> {
        self.remote_ip.set(ip).map_err(|_| Reject::WIRING)
    }

    pub(crate) fn principal(&self) -> Option<&Principal> {
        self.principal.get()
    }

    pub(super) fn set_principal(&self, principal: Principal) -> Result<(), Reject> {
        self.principal.set(principal).map_err(|_| Reject::WIRING)
    }

    /// Lets policy wait for the route; `false` where it has decided already.
    pub(super) fn put_off(&self) -> bool {
        self.decision().is_none() && !self.put_off.swap(true, Ordering::Relaxed)
    }

    /// Whether policy waits for the route.
    pub(super) fn is_put_off(&self) -> bool {
        self.put_off.load(Ordering::Relaxed)
    }

    /// Whether policy waited for the route, and is to be asked now.
    pub(super) fn take_up(&self) -> bool {
        self.put_off.swap(false, Ordering::Relaxed)
    }

    /// Lets the rate limit wait for policy; `false` where policy has decided.
    pub(super) fn put_off_rate_limit(&self, layer: &(impl Spend + Clone)) -> bool {
        self.is_put_off() && self.rate_limit.set(Arc::new(layer.clone())).is_ok()
    }

    /// The rate limit that waits for policy.
    pub(super) fn rate_limit(&self) -> Option<&dyn Spend> {
        self.rate_limit.get().map(AsRef::as_ref)
    }

    pub(super) fn answers(&self) -> &CustomAnswers {
        static NONE: CustomAnswers = CustomAnswers::NONE;
        self.answers.get().unwrap_or(&NONE)
    }

    pub(super) fn set_answers(&self, answers: CustomAnswers) -> Result<(), Reject> {
        self.answers.set(answers).map_err(|_| Reject::WIRING)
    }

    pub(super) fn decision(&self) -> Option<&Decision> {
        self.decision.get()
    }

    pub(super) fn set_decision(&self, decision: Decision) -> Result<(), Reject> {
        self.decision.set(decision).map_err(|_| Reject::WIRING)
    }

    pub(super) fn ticket(&self) -> Option<&Ticket> {
        self.ticket.get()
    }

    pub(super) fn set_ticket(&self, ticket: Ticket) -> Result<(), Reject> {
        self.ticket.set(ticket).map_err(|_| Reject::WIRING)
    }

    /// Whether no handler may run before the record of this request is written: by any reading of it.
    pub(super) fn requires_audit(&self) -> bool {
        let audit = &self.revision.config.audit;
        let required = |canonical: &Canonical| {
            let (sent, resolved) = canonical.readings();
            // As a router takes it: the handler of GET answers HEAD too.
            let get = (canonical.method() == "HEAD").then_some("GET");
            // And as a handler does, whatever the mode: it decodes what it takes from the path.
            let decoded = Canonicalization::decoded(canonical.path());
            let paths = [Some(canonical.path()), Some(sent), resolved, decoded.as_deref()];
            paths.into_iter().flatten().any(|path| {
                let mut methods = [Some(canonical.method()), get].into_iter().flatten();
                methods.any(|method| audit.mode(method, path) == AuditMode::Required)
            })
        };
        // Most have no routes at all; a request that has no reading does not come this far.
        !audit.routes.is_empty() && self.canonical().is_none_or(required)
    }

    /// Whether policy let the request in.
    pub(crate) fn permitted(&self) -> bool {
        self.decision().is_some_and(|decision| decision.verdict == Verdict::Allow)
    }

    /// Whether policy let the request in, or is asked before the handler, and no handler has it yet.
    pub(super) fn awaits_handler(&self) -> bool {
        (self.permitted() || self.is_put_off()) && !self.handling.load(Ordering::Relaxed)
    }

    pub(super) fn begin_handling(&self) {
        self.handling.store(true, Ordering::Relaxed);
    }

    pub(super) fn permit_generation(&self) -> u64 {
        self.permit_generation.load(Ordering::Relaxed)
    }

    pub(super) fn renew_permit(&self, generation: u64) {
        self.permit_generation.store(generation, Ordering::Relaxed);
    }

    /// Notes that the permit was taken back; `true` the first time.
    pub(super) fn set_revoked(&self) -> bool {
        !self.revoked.swap(true, Ordering::Relaxed)
    }

    pub(super) fn rejected(&self) -> Option<&Reject> {
        self.reject.get()
    }

    /// What denied the request, where it was no policy: it stands in the policy's place.
    pub(super) fn denier(&self) -> Option<&Arc<str>> {
        self.denier.get()
    }

    /// Notes what is about to deny a request that policy has let in; the first one counts.
    pub(crate) fn set_denier(&self, denier: Arc<str>) {
        let _ = self.denier.set(denier);
    }

    /// Notes a role that the caller must not lose while a stream is open.
    pub(super) fn add_role(&self, role: &Arc<str>) {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(role));
    }

    /// Whether one of those roles is `lost`.
    pub(super) fn any_role(&self, lost: impl Fn(&str) -> bool) -> bool {
        self.roles.lock().unwrap_or_else(PoisonError::into_inner).iter().any(|role| lost(role))
    }

    /// Refuses the request: once, counted, logged.
    pub(crate) fn refuse(&self, reject: Reject) -> Response<Body> {
        // A caller that never reads its refusal must not keep a place: whoever may do nothing could take them all.
        self.release();
        if self.reject.set(reject).is_ok() {
            self.report(reject);
        }
        reject.into_response(self.grpc)
    }

    fn report(&self, reject: Reject) {
        let peer = self.connection.peer();
        let peer_id = peer.svid.as_deref().map(|svid| svid.id.as_str());
        let (method, path) = self.canonical().map_or(("-", "-"), |canonical| (canonical.method(), canonical.path()));
        let forwarded = self.forwarded().map(SpiffeId::as_str);
        let trace_id = format_args!("{:032x}", self.trace.trace_id());
        let denied = self.decision().filter(|decision| decision.verdict == Verdict::Deny);
        let denied = denied.map(|decision| (decision.policy.as_ref(), decision.rule));
        if let Some((policy, rule)) = self.denier().map(|denier| (Some(denier), None)).or(denied) {
            let policy = policy.map_or_else(|| Arc::from("-"), Arc::clone);
            let rule = rule.map_or(-1, i64::from);
            let route = self.route().map(|route| &**route);
            tracing::info!(policy = &*policy, rule, reason = reject.reason, peer_id, forwarded, peer.address = %peer.address,
                method, path, route, trace_id, "request denied");
            self.mesh.metrics().server.denied(&DenialLabels { policy, rule, reason: reject.reason });
            return;
        }
        self.mesh.metrics().server.rejected(reject.reason);
        if reject.kind == Kind::Internal {
            tracing::error!(reason = reject.reason, peer_id, forwarded, method, path, trace_id, "request refused");
        } else {
            tracing::info!(reason = reject.reason, peer_id, forwarded, peer.address = %peer.address, method, path, trace_id,
                "request refused");
        }
    }

    /// Counts and logs a response that ends before its end. The caller has its head: nothing more can be told to it.
    pub(super) fn cut(&self, reason: &'static str) {
        self.mesh.metrics().server.rejected(reason);
        let peer = self.connection.peer();
        let peer_id = peer.svid.as_deref().map(|svid| svid.id.as_str());
        let (method, path) = self.canonical().map_or(("-", "-"), |canonical| (canonical.method(), canonical.path()));
        let trace_id = format_args!("{:032x}", self.trace.trace_id());
        tracing::info!(reason, peer_id, peer.address = %peer.address, method, path, trace_id, "response cut");
    }

    /// Lets a response out only if some layer decided on its request.
    ///
    /// The last line of defence against a stack in which nobody asks policy: the handler has run, its answer stays in.
    pub(super) fn settle(&self, response: Response<Body>) -> Response<Body> {
        if self.permitted() || self.rejected().is_some() { response } else { self.refuse(Reject::WIRING) }
    }

    pub(super) fn hold(&self, permit: AdmissionPermit) {
        *self.admission.lock().unwrap_or_else(PoisonError::into_inner) = Some(permit);
    }

    /// Gives the place in the concurrency limit back, even if a handler kept the request's extensions.
    pub(super) fn release(&self) {
        self.admission.lock().unwrap_or_else(PoisonError::into_inner).take();
    }
}

/// `x-request-id`, where it is one harmless word.
fn request_id(headers: &HeaderMap) -> Option<&str> {
    let mut values = headers.get_all("x-request-id").iter();
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let id = value.to_str().ok()?;
    let harmless = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.:/+=".contains(&byte);
    (1..=128).contains(&id.len()).then_some(id).filter(|id| id.bytes().all(harmless))
}

/// Refuses a request that came without an exchange: the stack is incomplete, or another server called it.
///
/// A layer that knows no mesh has nowhere to count it.
pub(super) fn unwired<'m>(
    mesh: impl Into<Option<&'m Mesh>>,
    layer: &'static str,
    request: &Request<Body>,
) -> Response<Body> {
    let mesh: Option<&Mesh> = mesh.into();
    if let Some(mesh) = mesh {
        mesh.metrics().server.rejected(Reject::WIRING.reason);
    }
    tracing::error!(
        layer,
        reason = Reject::WIRING.reason,
        "request refused: this layer works only below TelemetryLayer, and that only on connections that \
         mesh_tower::serve accepted"
    );
    Reject::WIRING.into_response(grpc::is_grpc(request.headers()))
}
