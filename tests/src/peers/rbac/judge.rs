//! What this mesh makes of the same request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use mesh_core::config::{Errors, NoPolicy, Workload};
use mesh_core::identity::{SpiffeId, TrustDomain};
use mesh_core::policy::canonical::{self, Canonicalization};
use mesh_core::policy::{
    EngineOptions, Headers, Mode, PolicyEngine, Protocol, Reason, Request, Verdict, parse_documents_as,
};
use mesh_core::token::VerifiedToken;

use super::generate::{Connection, MAPPED, PolicySet, Sent};
use super::run::World;

/// One set of policies, compiled as Istio reads them and as this mesh does.
pub(super) struct Engines {
    pub(super) compat: Arc<PolicyEngine>,
    /// `None` where strict mode refuses a document.
    pub(super) strict: Option<Arc<PolicyEngine>>,
}

impl Engines {
    /// `None` where not even Istio would take the documents.
    pub(super) fn of(set: &PolicySet) -> Option<Self> {
        let compat = compile(set, Mode::Compat, NoPolicy::Allow)?;
        Some(Self { compat, strict: compile(set, Mode::Strict, NoPolicy::Deny) })
    }
}

/// JSON is YAML.
pub(super) fn yaml(set: &PolicySet) -> String {
    set.documents.iter().map(|document| format!("---\n{document:#}\n")).collect()
}

fn compile(set: &PolicySet, mode: Mode, no_policy: NoPolicy) -> Option<Arc<PolicyEngine>> {
    let mut errors = Errors::default();
    let documents = parse_documents_as(mode, Canonicalization::Base, "<test>", &yaml(set), &mut errors);
    let domain = |name: &&str| TrustDomain::parse(name).unwrap();
    let mut options = EngineOptions::new(domain(&set.trust_domains[0]));
    options.root_namespace = "root".to_owned();
    options.trust_domain_aliases = set.trust_domains[1..].iter().map(domain).collect();
    (options.mode, options.no_policy) = (mode, no_policy);
    let workload = Workload::new("orders", "shop");
    errors.is_empty().then(|| Arc::new(PolicyEngine::compile(&documents, &workload, &options)))
}

/// A request as policy sees it.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) peer: Option<SpiffeId>,
    token: Option<Arc<VerifiedToken>>,
    pub(super) method: &'static str,
    path: String,
    pub(super) host: String,
    port: u16,
    /// Of the source, the client and the destination.
    ips: [IpAddr; 3],
    sni: Option<&'static str>,
    pub(super) colours: Colours,
}

/// Values of `x-colour`.
#[derive(Debug, Clone)]
pub(super) struct Colours(pub(super) Vec<&'static str>);

impl Headers for Colours {
    fn values(&self, name: &str, each: &mut dyn FnMut(&[u8])) {
        if name == "x-colour" {
            self.0.iter().for_each(|value| each(value.as_bytes()));
        }
    }
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    /// Before policy is asked, by its status.
    Refused(u16),
    /// The documents were not taken.
    NoPolicies,
    Decided {
        allowed: bool,
        reason: Reason,
        token_would_help: bool,
    },
}

impl Ours {
    pub(super) fn allowed(self) -> bool {
        matches!(self, Self::Decided { allowed: true, .. })
    }

    /// The status that a caller would see.
    pub(super) fn status(self) -> u16 {
        match self {
            Self::Refused(status) => status,
            Self::NoPolicies => 503,
            Self::Decided { allowed: true, .. } => 200,
            Self::Decided { token_would_help: true, .. } => 401,
            Self::Decided { .. } => 403,
        }
    }
}

impl View {
    /// The status where it is refused before.
    pub(super) fn of(
        world: &World,
        connection: &Connection,
        sent: &Sent,
        token: Option<&str>,
        now: SystemTime,
    ) -> Result<Self, u16> {
        let raw = sent.target.split(['?', '#']).next().unwrap_or_default();
        let path = Canonicalization::Base.path(raw).map_err(|_| 400_u16)?.path.into_owned();
        let host = canonical::host(sent.host).ok_or(400_u16)?.into();
        let token = token.map(|token| world.verifier.verify(token, now)).transpose().map_err(|_| 401_u16)?;
        let (destination, port) = connection.destination;
        Ok(Self {
            peer: connection.peer.map(|peer| world.peers[peer].clone()),
            token,
            method: sent.method,
            path,
            host,
            port,
            ips: [connection.source.into(), sent.forwarded.unwrap_or(connection.client), destination],
            sni: connection.sni,
            colours: Colours(sent.colours.clone()),
        })
    }

    pub(super) fn judged(&self, engine: &Arc<PolicyEngine>) -> Ours {
        let [source_ip, remote_ip, destination_ip] = self.ips.map(Some);
        let request = Request {
            peer: self.peer.as_ref(),
            token: self.token.as_deref(),
            protocol: Protocol::Http,
            method: self.method,
            path: &self.path,
            resolved_path: None,
            host: &self.host,
            port: self.port,
            route: None,
            source_ip,
            remote_ip,
            destination_ip,
            sni: self.sni,
            headers: &self.colours,
        };
        let decision = engine.decide(&request);
        // What servers ask.
        assert_eq!(engine.for_peer(&request.peer_view()).decide(&request), decision);
        Ours::Decided {
            allowed: decision.verdict == Verdict::Allow,
            reason: decision.reason,
            token_would_help: decision.token_would_help,
        }
    }

    /// The same if IPv4 addresses in IPv6 form were IPv6 addresses, as in Envoy: another range stands for theirs.
    pub(super) fn judged_unmapped(&self, set: &PolicySet) -> Option<Ours> {
        let (mut view, mut set) = (self.clone(), set.clone());
        for ip in view.ips.iter_mut().filter(|ip| ip.is_ipv6() && ip.to_canonical().is_ipv4()) {
            *ip = "fd00::1".parse().unwrap();
        }
        for document in &mut set.documents {
            let text = document.to_string().replace(MAPPED, "fd00::/16");
            *document = serde_json::from_str(&text).unwrap();
        }
        Some(view.judged(&compile(&set, Mode::Compat, NoPolicy::Allow)?))
    }
}
