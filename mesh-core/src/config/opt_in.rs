//! What a rule without audiences, `mtls`, `tls`, `forwarded_identity`, `trusted_hops` and `canonical` allow that their defaults do not: said at
//! start, at each reload, and by `mesh check`.

use std::time::SystemTime;

use super::checker::Checker;
use super::issue::Errors;
use super::yaml::Node;
use super::{Config, ConfigIssue};
use crate::policy::canonical::Canonicalization;

impl Config {
    /// Every setting that makes the mesh, a listener or a cluster trust more than by default, with its place in the file.
    pub(crate) fn opt_ins(&self, now: SystemTime, root: Option<&Node>) -> Vec<ConfigIssue> {
        let mut found = Errors::default();
        let at = &mut Checker::new(root, false, &mut found);
        for (name, listener) in &self.listeners {
            at.below(&format!("listeners.{name}"), |at| {
                listener.mtls.warn(now, at);
                listener.tls.warn(at);
                if let Some(forwarded) = &listener.forwarded_identity {
                    at.below("forwarded_identity", |at| forwarded.warn(at));
                }
                if listener.trusted_hops > 0 {
                    let message = "the client's address in x-forwarded-for is believed from every peer with an SVID";
                    at.error("trusted_hops", message);
                }
            });
        }
        for (name, cluster) in &self.clusters {
            at.below(&format!("clusters.{name}"), |at| cluster.tls.warn(at));
        }
        if self.canonical != Canonicalization::Reject {
            let costs = format!("`{}` lets paths in that have more than one reading", self.canonical);
            at.below("authorization", |at| at.error("canonical", costs));
        }
        for token in self.tokens.iter().filter(|token| token.dangerous_any_audience) {
            let message = format!("tokens of {:?} are accepted whatever service they are meant for", token.issuer);
            found.push(&token.jwks.settings.place, message);
        }
        found.issues().to_vec()
    }

    /// Notes what may not be said at `now`. What may stays allowed: a file that was good once is good at a restart.
    pub(crate) fn check_at(&self, now: SystemTime, root: Option<&Node>, errors: &mut Errors) {
        let at = &mut Checker::new(root, false, errors);
        for (name, listener) in &self.listeners {
            at.below(&format!("listeners.{name}"), |at| listener.mtls.check_at(now, at));
        }
    }
}
