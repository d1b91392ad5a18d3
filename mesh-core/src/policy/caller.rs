//! The policies as one caller meets them: what its connection decides is decided once.

use std::net::IpAddr;
use std::sync::Arc;

use super::custom::{CustomAnswers, CustomMatch};
use super::engine::Sets;
use super::index::Candidates;
use super::{Decision, PeerView, PolicyEngine, Request};
use crate::identity::SpiffeId;

/// A [`PolicyEngine`] for the requests of one caller, made once for a connection and a generation of policy.
///
/// Rules that cannot match the caller are gone. Gives the same answers as the engine: a request of somebody else - whom
/// a gateway names, for instance - is handed to the engine.
#[derive(Debug)]
pub struct CallerPolicy {
    engine: Arc<PolicyEngine>,
    peer: Option<SpiffeId>,
    source_ip: Option<IpAddr>,
    destination_ip: Option<IpAddr>,
    port: u16,
    sni: Option<Box<str>>,
    known: Sets<Candidates>,
}

impl PolicyEngine {
    /// What of the policies concerns one caller. Costs a test of each rule that names it or names nobody, and 4 bytes for
    /// each that is left, at most 16 KiB for each action.
    pub fn for_peer(self: &Arc<Self>, caller: &PeerView<'_>) -> CallerPolicy {
        CallerPolicy {
            engine: Arc::clone(self),
            peer: caller.peer.cloned(),
            source_ip: caller.source_ip,
            destination_ip: caller.destination_ip,
            port: caller.port,
            sni: caller.sni.map(Into::into),
            known: self.told_apart(caller),
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

    /// Nothing is known of anybody else.
    fn known(&self, request: &Request<'_>) -> Option<&Sets<Candidates>> {
        let same = self.peer.as_ref() == request.peer
            && self.port == request.port
            && self.source_ip == request.source_ip
            && self.destination_ip == request.destination_ip
            && self.sni.as_deref() == request.sni;
        same.then_some(&self.known)
    }
}
