//! Whether a caller could get any request through, from what its connection alone shows.
//!
//! A connection lasts longer than the policy it was accepted under. When policy changes, each open one is asked: is
//! there any request that its peer could still be allowed? What a connection cannot know - tokens, methods, paths,
//! hosts, headers - may be anything, so every test of it may hold and may fail. The answer errs on one side only: it
//! says [`Impossible`](Reach::Impossible) where [`decide`](super::PolicyEngine::decide) would deny every request.

use std::sync::Arc;

use super::compile::{Alternative, CompiledRule, Test};
use super::{PeerView, Reason};

/// Whether policy could allow any request of a caller.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Some request may be allowed. Which, only [`decide`](super::PolicyEngine::decide) knows.
    Possible,
    /// Every request would be denied.
    Impossible {
        /// Why.
        reason: Reason,
        /// `NAMESPACE/NAME` of the DENY policy that keeps everything out, if one does.
        policy: Option<Arc<str>>,
        /// 0-based index of its rule.
        rule: Option<u32>,
    },
}

impl Reach {
    /// Whether some request may be allowed.
    pub fn is_possible(&self) -> bool {
        matches!(self, Self::Possible)
    }
}

impl CompiledRule {
    /// Whether some request of the caller matches.
    pub(super) fn may_match(&self, caller: &PeerView<'_>) -> bool {
        let may = |tests: &[Test]| tests.iter().all(|test| test.outcome(caller) != Some(false));
        any(&self.from, may) && any(&self.to, may) && may(&self.when)
    }

    /// Whether one of its sources fits every request of the caller.
    pub(super) fn caller_fits(&self, caller: &PeerView<'_>) -> bool {
        any(&self.from, |tests| tests.iter().all(|test| test.outcome(caller) == Some(true)))
    }

    /// Whether it could match every request of some caller: it may by what the connection alone shows.
    pub(super) fn is_of_connection(&self) -> bool {
        let of_connection = |tests: &[Test]| tests.iter().all(Test::is_of_connection);
        any(&self.from, of_connection) && any(&self.to, of_connection) && of_connection(&self.when)
    }

    /// Whether every request of the caller matches.
    pub(super) fn must_match(&self, caller: &PeerView<'_>) -> bool {
        let must = |tests: &[Test]| tests.iter().all(|test| test.outcome(caller) == Some(true));
        self.caller_fits(caller) && any(&self.to, must) && must(&self.when)
    }
}

fn any(alternatives: &[Alternative], holds: impl Fn(&[Test]) -> bool) -> bool {
    alternatives.is_empty() || alternatives.iter().any(|alternative| holds(alternative))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Errors, NoPolicy, Workload};
    use crate::identity::{SpiffeId, TrustDomain};
    use crate::policy::{EngineOptions, PolicyEngine, parse_documents};

    /// Each policy as `ACTION rules`.
    fn engine(policies: &[&str], no_policy: NoPolicy) -> PolicyEngine {
        let document = |(at, text): (usize, &&str)| {
            let (action, rules) = text.split_once(' ').unwrap();
            format!(
                "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: p{at}, namespace: \
                 shop }}\nspec: {{ action: {action}, rules: {rules} }}\n"
            )
        };
        let yaml: String = policies.iter().enumerate().map(document).collect();
        let mut errors = Errors::default();
        let documents = parse_documents("<test>", &yaml, &mut errors);
        assert!(errors.is_empty(), "{:?}", errors.issues());
        let options = EngineOptions { no_policy, ..EngineOptions::new(TrustDomain::parse("td").unwrap()) };
        PolicyEngine::compile(&documents, &Workload::new("orders", "shop"), &options)
    }

    #[test]
    fn a_caller_is_out_of_reach_only_where_no_request_could_help() {
        use Reason::{DenyRule, NoAllowRule, NoPolicyDeny};
        const WEB: &str = "{ source: { principals: [td/ns/shop/sa/web] } }";
        let from_web = |action: &str| format!("{action} [{{ from: [{WEB}] }}]");
        let (allow_web, deny_web) = (from_web("ALLOW"), from_web("DENY"));
        let deny_post = format!("DENY [{{ from: [{WEB}], to: [{{ operation: {{ methods: [POST] }} }}] }}]");
        let deny_with_header =
            format!("DENY [{{ from: [{WEB}], when: [{{ key: 'request.headers[x]', values: ['*'] }}] }}]");
        let deny_on_port = format!("DENY [{{ from: [{WEB}], to: [{{ operation: {{ ports: ['8443'] }} }}] }}]");
        let token = "ALLOW [{ from: [{ source: { requestPrincipals: ['*'] } }] }]";
        let token_of_batch = "ALLOW [{ from: [{ source: { principals: [td/ns/shop/sa/batch], requestPrincipals: \
                              ['*'] } }] }]";
        let web_by_condition = "ALLOW [{ when: [{ key: source.principal, values: [td/ns/shop/sa/web] }] }]";
        let not_web = "ALLOW [{ from: [{ source: { notPrincipals: [td/ns/shop/sa/web] } }] }]";
        let of_ops = "ALLOW [{ from: [{ source: { namespaces: [ops] } }] }]";
        let all = "ALLOW [{}]";
        let stranger = PeerView { peer: None, source_ip: None, destination_ip: None, port: 8443, sni: None };
        for (policies, expected) in [
            (vec![], Some((NoPolicyDeny, None))),
            (vec![allow_web.as_str()], None),
            (vec![web_by_condition], None),
            (vec![token], None),
            (vec![token_of_batch], Some((NoAllowRule, None))),
            (vec![not_web], Some((NoAllowRule, None))),
            (vec![of_ops], Some((NoAllowRule, None))),
            (vec![of_ops, &allow_web], None),
            (vec![&deny_web], Some((DenyRule, Some("shop/p0")))),
            (vec![all, &deny_web], Some((DenyRule, Some("shop/p1")))),
            (vec![all, &deny_post], None),
            (vec![all, &deny_with_header], None),
            (vec![all, &deny_on_port], Some((DenyRule, Some("shop/p1")))),
            (vec![&deny_post], None),
        ] {
            let web = SpiffeId::parse("spiffe://td/ns/shop/sa/web").unwrap();
            let reach = engine(&policies, NoPolicy::Deny).reach(&PeerView { peer: Some(&web), ..stranger });
            let found = match &reach {
                Reach::Possible => None,
                Reach::Impossible { reason, policy, .. } => Some((*reason, policy.as_deref())),
            };
            assert_eq!(found, expected, "{policies:?}");
        }
        assert!(engine(&[], NoPolicy::Allow).reach(&stranger).is_possible());
        assert!(engine(&[not_web], NoPolicy::Deny).reach(&stranger).is_possible(), "no identity is not web's");
        assert!(!engine(&[&allow_web], NoPolicy::Deny).reach(&stranger).is_possible());
    }
}
