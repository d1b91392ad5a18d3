//! What let a request in, asked again for as long as the request or its response lasts.
//!
//! A request is judged when it begins, and a stream may go on for days. A permit ends when a newer policy would not have
//! let the request in, or does not give its caller a role that the route requires; when the token that it came with
//! expires; and when the token's issuer, the gateway that named its caller, or the trust domain of a caller so named is
//! accepted no more.

use std::future::{Future, pending};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use mesh_core::policy::{Decision, Headers, Verdict};
use tokio::time::sleep;

use super::authorize::judge;
use super::exchange::Exchange;
use super::require::{ROLE_REASON, lost_role};
use crate::reject::{Kind, Reject};

const REVOKED: Reject = Reject::new(Kind::Forbidden, "permit_revoked");
const TOKEN_EXPIRED: Reject = Reject::new(Kind::Unauthenticated, "permit_token_expired");
const ISSUER_REMOVED: Reject = Reject::new(Kind::Unauthenticated, "permit_issuer_removed");

/// Calendar time may jump while timers do not: it is looked at this often.
const CLOCK_CHECK: Duration = Duration::from_secs(30);

/// Why a stream was cut; hyper resets it or closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("stream cut: {0}")]
pub(super) struct Cut(pub(super) &'static str);

/// The headers of a request that its handler has consumed. Notes whether a policy wanted to see them.
#[derive(Default)]
struct HeadersGone(AtomicBool);

impl Headers for HeadersGone {
    fn values(&self, _name: &str, _each: &mut dyn FnMut(&[u8])) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the permit of a stream has ended, and why. Logged and counted once for each request.
pub(super) fn revoked(exchange: &Exchange) -> Option<Reject> {
    revoked_with_token(exchange).or_else(|| revoked_by_policy(exchange))
}

/// Whether there is still a bundle of the trust domain of a caller that a gateway named. Whoever proved itself is judged
/// with its connection.
fn revoked_with_trust(exchange: &Exchange) -> Option<Reject> {
    let client = exchange.forwarded()?;
    let trusted = exchange.mesh.identity().peek().bundles.get(client.trust_domain()).is_some();
    (!trusted && exchange.permitted()).then(|| {
        report(exchange, None, "forwarded_trust_domain");
        REVOKED
    })
}

fn revoked_with_token(exchange: &Exchange) -> Option<Reject> {
    let reject = match token_end(exchange)? {
        None => ISSUER_REMOVED,
        Some(end) if end <= exchange.mesh.clock().now() => TOKEN_EXPIRED,
        Some(_) => return None,
    };
    exchange.permitted().then(|| {
        report(exchange, None, reject.reason);
        reject
    })
}

/// Whether newer trust in a forwarded caller, or a policy newer than the permit, would not have let the request in.
///
/// A policy that decides by headers, which are gone by now, revokes too: the caller may ask again and is judged anew. What
/// decides nothing, AUDIT and dry runs, revokes nothing.
pub(super) fn revoked_by_policy(exchange: &Exchange) -> Option<Reject> {
    if let Some(reject) = revoked_with_trust(exchange) {
        return Some(reject);
    }
    let revisions = exchange.mesh.revision();
    if !exchange.permitted() || revisions.generation() == exchange.permit_generation() {
        return None;
    }
    let revision = revisions.load();
    if exchange.forwarded().is_some() && exchange.connection.gateway(&revision.config).is_none() {
        report(exchange, None, "gateway_removed");
        return Some(REVOKED);
    }
    let headers = HeadersGone::default();
    let decision = judge(exchange, &revision.policy, &headers);
    if lost_role(exchange, &revision.policy) {
        report(exchange, None, ROLE_REASON);
        return Some(REVOKED);
    }
    if !headers.0.load(Ordering::Relaxed)
        && decision.as_ref().is_some_and(|decision| decision.verdict == Verdict::Allow)
    {
        exchange.renew_permit(revision.generation());
        return None;
    }
    let reason = decision.as_ref().map_or("wiring", |decision| decision.reason.as_str());
    report(exchange, decision.as_ref(), reason);
    Some(REVOKED)
}

fn report(exchange: &Exchange, decision: Option<&Decision>, reason: &'static str) {
    if !exchange.set_revoked() {
        return;
    }
    let policy = decision.and_then(|decision| decision.policy.as_deref()).unwrap_or("-");
    let rule = decision.and_then(|decision| decision.rule).map_or(-1, i64::from);
    let peer_id = exchange.principal().map(ToString::to_string);
    let path = exchange.canonical().map(|canonical| canonical.path());
    let generation = exchange.mesh.revision().generation();
    tracing::info!(policy, rule, reason, peer_id, path, generation, "permit revoked");
    exchange.mesh.metrics().server.streams_revoked.inc();
}

/// When the caller's token ends, if it came with one; the inner `None`: it is good no more, whatever the time.
fn token_end(exchange: &Exchange) -> Option<Option<SystemTime>> {
    let token = exchange.principal()?.token.as_deref()?;
    Some(exchange.mesh.revision().peek().tokens.good_until(token))
}

/// Asks again when a newer policy is in force, the token ends, or trust changes in whom a gateway may name.
///
/// Cheap while nothing changes: one atomic load for each frame, and a look at the clock where a token came. A wake-up is
/// asked for only by who has to wait.
#[derive(Default)]
pub(super) struct Recheck {
    changed: Option<Pin<Box<dyn Future<Output = ()> + Send>>>,
}

impl Recheck {
    /// [`revoked`], and wakes the task when the answer may be another.
    pub(super) fn poll_revoked(&mut self, exchange: &Exchange, cx: &mut Context<'_>) -> Option<Reject> {
        loop {
            let changed = self.changed.get_or_insert_with(|| {
                let mut changes = exchange.mesh.revision().subscribe();
                let trust = exchange.forwarded().map(|_| exchange.mesh.identity().subscribe());
                let end = token_end(exchange).flatten();
                let left = end.and_then(|end| end.duration_since(exchange.mesh.clock().now()).ok());
                Box::pin(async move {
                    let ended = async {
                        match left {
                            Some(left) => sleep(left.min(CLOCK_CHECK)).await,
                            None => pending().await,
                        }
                    };
                    let trust = async {
                        match trust {
                            Some(mut trust) => drop(trust.changed().await),
                            None => pending().await,
                        }
                    };
                    tokio::select! {
                        biased;
                        _ = changes.changed() => {}
                        () = trust => {}
                        () = ended => {}
                    }
                })
            });
            // Subscribed first, asked second: a revision published in between is seen by the question.
            if let Some(reject) = revoked(exchange) {
                return Some(reject);
            }
            match changed.as_mut().poll(cx) {
                Poll::Pending => return None,
                Poll::Ready(()) => self.changed = None,
            }
        }
    }
}
