//! The policies as one caller meets them: what its connection decides is decided once.

use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use super::custom::{CustomAnswers, CustomMatch};
use super::engine::Sets;
use super::index::Candidates;
use super::{Decision, PeerView, PolicyEngine, Request};
use crate::identity::SpiffeId;

/// A [`PolicyEngine`] for the requests of one caller.
///
/// Made once for a connection and a generation of policy. Rules that cannot match the caller are gone. Gives the same
/// answers as the engine: a request of somebody else - whom a gateway names, for instance - is handed to the engine.
#[derive(Debug)]
pub struct CallerPolicy {
    engine: Arc<PolicyEngine>,
    peer: Option<SpiffeId>,
    source_ip: Option<IpAddr>,
    destination_ip: Option<IpAddr>,
    port: u16,
    sni: Option<Box<str>>,
    known: Sets<Candidates>,
    /// Asked only where the decision waits for a route.
    open: OnceLock<bool>,
}

impl PolicyEngine {
    /// What of the policies concerns one caller.
    ///
    /// Costs a test of each rule that names it or names nobody, and 4 bytes for each that is left, at most 16 KiB for
    /// each action.
    pub fn for_peer(self: &Arc<Self>, caller: &PeerView<'_>) -> CallerPolicy {
        CallerPolicy {
            engine: Arc::clone(self),
            peer: caller.peer.cloned(),
            source_ip: caller.source_ip,
            destination_ip: caller.destination_ip,
            port: caller.port,
            sni: caller.sni.map(Into::into),
            known: self.told_apart(caller),
            open: OnceLock::new(),
        }
    }
}

impl CallerPolicy {
    /// Whether it was made from this engine: a newer one is another.
    pub fn is_of(&self, engine: &Arc<PolicyEngine>) -> bool {
        Arc::ptr_eq(&self.engine, engine)
    }

    /// As [`PolicyEngine::decide`].
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.decide_with(request, &CustomAnswers::NONE)
    }

    /// As [`PolicyEngine::decide_with`].
    pub fn decide_with(&self, request: &Request<'_>, answers: &CustomAnswers) -> Decision {
        self.engine.decide_of(request, answers, self.known(request))
    }

    /// As [`PolicyEngine::custom`].
    pub fn custom(&self, request: &Request<'_>) -> Vec<CustomMatch> {
        self.engine.custom_of(request, self.known(request))
    }

    /// Whether policy could allow any request of whoever makes this one.
    ///
    /// As [`PolicyEngine::reach`]: asked once of the caller, and of anybody else each time.
    pub fn may_allow(&self, request: &Request<'_>) -> bool {
        let ask = || self.engine.reach(&request.peer_view()).is_possible();
        if self.is_of_caller(request) { *self.open.get_or_init(ask) } else { ask() }
    }

    /// Nothing is known of anybody else.
    fn known(&self, request: &Request<'_>) -> Option<&Sets<Candidates>> {
        self.is_of_caller(request).then_some(&self.known)
    }

    fn is_of_caller(&self, request: &Request<'_>) -> bool {
        self.peer.as_ref() == request.peer
            && self.port == request.port
            && self.source_ip == request.source_ip
            && self.destination_ip == request.destination_ip
            && self.sni.as_deref() == request.sni
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Errors, Workload};
    use crate::identity::TrustDomain;
    use crate::policy::{EngineOptions, parse_documents};

    #[test]
    fn whether_anything_may_be_allowed_is_asked_once_of_the_caller_and_each_time_of_others() {
        let yaml = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: { name: p, namespace: shop }\n\
                    spec: { rules: [{ from: [{ source: { principals: [td/ns/shop/sa/web] } }] }] }";
        let documents = parse_documents("<test>", yaml, &mut Errors::default());
        let options = EngineOptions::new(TrustDomain::parse("td").unwrap());
        let engine = Arc::new(PolicyEngine::compile(&documents, &Workload::new("orders", "shop"), &options));
        let [web, batch] =
            ["web", "batch"].map(|name| SpiffeId::parse(&format!("spiffe://td/ns/shop/sa/{name}")).unwrap());
        let request = |peer| Request { peer: Some(peer), ..Request::UNKNOWN };
        for (own, other, expected) in [(&web, &batch, true), (&batch, &web, false)] {
            let policy = engine.for_peer(&request(own).peer_view());
            assert_eq!(policy.may_allow(&request(other)), !expected);
            assert_eq!(policy.open.get(), None, "somebody else's answer is not kept");
            assert_eq!(policy.may_allow(&request(own)), expected);
            assert_eq!(policy.open.get(), Some(&expected));
        }
    }
}
