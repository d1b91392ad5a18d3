//! Documents compiled for one workload, and Istio's order of evaluation.

use std::sync::Arc;

use super::compile::{CompiledRule, Token};
use super::index::RuleSet;
use super::{Action, AuthorizationPolicy, Decision, PeerView, Reach, Reason, Request, Verdict};
use crate::config::{NoPolicy, Place, Workload};
use crate::identity::TrustDomain;

/// What evaluation depends on beside the documents.
#[derive(Debug, Clone)]
pub struct EngineOptions {
    /// Policies of this namespace hold for every workload. Default `istio-system`.
    pub root_namespace: String,
    /// `cluster.local` in a principal means this domain.
    pub trust_domain: TrustDomain,
    /// The verdict where no policy selects the workload.
    pub no_policy: NoPolicy,
}

impl EngineOptions {
    /// Istio's root namespace, for reading its policies unchanged.
    pub const ROOT_NAMESPACE: &'static str = "istio-system";

    /// Istio's defaults, except that a workload that no policy selects denies.
    pub fn new(trust_domain: TrustDomain) -> Self {
        Self { root_namespace: Self::ROOT_NAMESPACE.to_owned(), trust_domain, no_policy: NoPolicy::Deny }
    }
}

/// The policies that select one workload, compiled. Immutable; replaced as a whole on reload.
///
/// Rules that name their callers are found by the caller's name, so that they cost nothing to anybody else; many rules
/// of one caller are found by their paths.
#[derive(Debug)]
pub struct PolicyEngine {
    policies: Vec<PolicySummary>,
    deny: RuleSet,
    allow: RuleSet,
    allow_policies: usize,
    /// Whether any rule looks at the token at all.
    asks_for_tokens: bool,
    no_policy: NoPolicy,
}

/// A policy in force, for reports.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PolicySummary {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// What its rules do.
    pub action: Action,
    /// How many rules it has.
    pub rules: usize,
    /// Where it stands.
    pub place: Place,
}

impl PolicyEngine {
    /// Keeps the documents that select `workload` and compiles them.
    pub fn compile(documents: &[AuthorizationPolicy], workload: &Workload, options: &EngineOptions) -> Self {
        let mut engine = Self {
            policies: Vec::new(),
            deny: RuleSet::default(),
            allow: RuleSet::default(),
            allow_policies: 0,
            asks_for_tokens: false,
            no_policy: options.no_policy,
        };
        for document in documents.iter().filter(|document| document.selects(workload, &options.root_namespace)) {
            let policy = engine.policies.len();
            let rules = match document.action {
                Action::Allow => {
                    engine.allow_policies += 1;
                    &mut engine.allow
                }
                Action::Deny => &mut engine.deny,
            };
            for (index, rule) in (0..).zip(&document.rules) {
                rules.push(CompiledRule::new(policy, index, rule, options.trust_domain.as_str()));
            }
            engine.policies.push(PolicySummary {
                name: Arc::clone(&document.name),
                action: document.action,
                rules: document.rules.len(),
                place: document.place.clone(),
            });
        }
        let asks_for_tokens = engine.rules().any(|(_, rule)| rule.asks_for_tokens());
        Self { asks_for_tokens, ..engine }
    }

    /// The verdict: any DENY rule denies; else without ALLOW policies `no_policy` or allow; else any ALLOW rule.
    ///
    /// Does not allocate. The first matching rule in the order of the documents is the one that is named.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        let mut decision = self.evaluate(request, Token::AsSent);
        decision.token_would_help = self.asks_for_tokens
            && decision.verdict == Verdict::Deny
            && request.token.is_none()
            && self.evaluate(request, Token::Ideal).verdict == Verdict::Allow;
        decision
    }

    fn evaluate(&self, request: &Request<'_>, token: Token) -> Decision {
        if let Some(rule) = self.deny.first_match(request, Action::Deny, token) {
            return self.decided(Verdict::Deny, Reason::DenyRule, Some(rule));
        }
        if self.policies.is_empty() {
            return match self.no_policy {
                NoPolicy::Deny => self.decided(Verdict::Deny, Reason::NoPolicyDeny, None),
                NoPolicy::Allow => self.decided(Verdict::Allow, Reason::NoPolicyAllow, None),
            };
        }
        if self.allow_policies == 0 {
            return self.decided(Verdict::Allow, Reason::NoPolicyAllow, None);
        }
        match self.allow.first_match(request, Action::Allow, token) {
            Some(rule) => self.decided(Verdict::Allow, Reason::AllowRule, Some(rule)),
            None => self.decided(Verdict::Deny, Reason::NoAllowRule, None),
        }
    }

    /// Whether any request of `caller` could be allowed, whatever token, path or header it came with.
    ///
    /// Errs on the side of [`Reach::Possible`]: where it says impossible, [`decide`](Self::decide) denies every request
    /// of this caller. Costs what the rules that name the caller cost.
    pub fn reach(&self, caller: &PeerView<'_>) -> Reach {
        let mut shut: Option<&CompiledRule> = None;
        self.deny.each_of(caller, &mut |rule| {
            let earlier = shut.is_none_or(|first| (rule.policy, rule.index) < (first.policy, first.index));
            if earlier && rule.must_match(caller) {
                shut = Some(rule);
            }
        });
        let impossible = |reason, rule: Option<&CompiledRule>| {
            let Decision { reason, policy, rule, .. } = self.decided(Verdict::Deny, reason, rule);
            Reach::Impossible { reason, policy, rule }
        };
        if shut.is_some() {
            return impossible(Reason::DenyRule, shut);
        }
        if self.policies.is_empty() && self.no_policy == NoPolicy::Deny {
            return impossible(Reason::NoPolicyDeny, None);
        }
        if self.allow_policies == 0 {
            return Reach::Possible;
        }
        let mut open = false;
        self.allow.each_of(caller, &mut |rule| open = open || rule.may_match(caller));
        if open { Reach::Possible } else { impossible(Reason::NoAllowRule, None) }
    }

    fn decided(&self, verdict: Verdict, reason: Reason, rule: Option<&CompiledRule>) -> Decision {
        Decision {
            verdict,
            reason,
            policy: rule.and_then(|rule| self.policies.get(rule.policy)).map(|policy| Arc::clone(&policy.name)),
            rule: rule.map(|rule| rule.index),
            token_would_help: false,
        }
    }

    /// The policies that select the workload, in the order of the documents.
    pub fn policies(&self) -> &[PolicySummary] {
        &self.policies
    }

    /// How many policies select the workload.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether no policy selects the workload.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Every rule in the order of evaluation: DENY before ALLOW.
    pub(super) fn rules(&self) -> impl Iterator<Item = (Action, &CompiledRule)> {
        let deny = self.deny.rules().iter().map(|rule| (Action::Deny, rule));
        deny.chain(self.allow.rules().iter().map(|rule| (Action::Allow, rule)))
    }
}

impl AuthorizationPolicy {
    /// Whether it holds for `workload`: its namespace (or the root's) and every label of the selector.
    pub fn selects(&self, workload: &Workload, root_namespace: &str) -> bool {
        (*self.namespace == *workload.namespace || *self.namespace == *root_namespace)
            && self.selector.iter().all(|(key, value)| workload.labels.get(key) == Some(value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Errors;
    use crate::identity::SpiffeId;
    use crate::policy::{NoHeaders, parse_documents};

    fn engine(yaml: &str, no_policy: NoPolicy) -> PolicyEngine {
        let mut errors = Errors::default();
        let documents = parse_documents("<test>", yaml, &mut errors);
        assert!(errors.is_empty(), "{:?}", errors.issues());
        let mut workload = Workload::new("orders", "shop");
        workload.labels.insert("app".to_owned(), "orders".to_owned());
        let options = EngineOptions { no_policy, ..EngineOptions::new(TrustDomain::parse("shop.example").unwrap()) };
        PolicyEngine::compile(&documents, &workload, &options)
    }

    fn policy(name: &str, spec: &str) -> String {
        format!(
            "---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{ name: {name}, namespace: \
             shop }}\nspec: {spec}\n"
        )
    }

    fn request(peer: Option<&SpiffeId>) -> Request<'_> {
        Request {
            peer,
            token: None,
            method: "GET",
            path: "/orders/7",
            host: "orders:8443",
            port: 8443,
            route: None,
            source_ip: None,
            headers: &NoHeaders,
        }
    }

    #[test]
    fn the_order_is_deny_then_allow_then_deny() {
        let allow_web =
            policy("web", "{ rules: [{ from: [{ source: { principals: [cluster.local/ns/shop/sa/web] } }] }] }");
        let deny_delete = policy("ro", "{ action: DENY, rules: [{ to: [{ operation: { notMethods: [GET] } }] }] }");
        let nothing = policy("nothing", "{}");
        let all = policy("all", "{ rules: [{}] }");
        let elsewhere = policy("x", "{ selector: { matchLabels: { app: other } }, action: DENY, rules: [{}] }");
        let web = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web").unwrap();
        let other = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        for (documents, peer, method, reason, decided_by) in [
            (vec![], Some(&web), "GET", Reason::NoPolicyDeny, None),
            (vec![&elsewhere], Some(&web), "GET", Reason::NoPolicyDeny, None),
            (vec![&nothing], Some(&web), "GET", Reason::NoAllowRule, None),
            (vec![&nothing, &all], None, "GET", Reason::AllowRule, Some(("shop/all", 0))),
            (vec![&allow_web], Some(&web), "GET", Reason::AllowRule, Some(("shop/web", 0))),
            (vec![&allow_web], Some(&other), "GET", Reason::NoAllowRule, None),
            (vec![&allow_web], None, "GET", Reason::NoAllowRule, None),
            (vec![&deny_delete], None, "GET", Reason::NoPolicyAllow, None),
            (vec![&all, &deny_delete], Some(&web), "DELETE", Reason::DenyRule, Some(("shop/ro", 0))),
        ] {
            let yaml: String = documents.iter().map(|text| text.as_str()).collect();
            let engine = engine(&yaml, NoPolicy::Deny);
            let request = Request { method, ..request(peer) };
            let decision = engine.decide(&request);
            assert_eq!(decision.reason, reason, "{yaml}");
            assert_eq!(decision.policy.as_deref().zip(decision.rule), decided_by, "{yaml}");
            let explanation = engine.explain(&request);
            assert_eq!(explanation.decision, decision);
            assert_eq!(explanation.steps.iter().any(|step| step.matched), decided_by.is_some());
        }
        assert_eq!(engine("", NoPolicy::Allow).decide(&request(None)).verdict, Verdict::Allow);
    }

    #[test]
    fn a_token_helps_exactly_where_nothing_else_is_missing() {
        let alice = crate::token::VerifiedToken {
            issuer: "https://idp.example".into(),
            subject: Some("alice".into()),
            audiences: vec![],
            expires: std::time::UNIX_EPOCH,
            claims: serde_json::Map::default(),
        };
        let any_token = "{ rules: [{ from: [{ source: { requestPrincipals: ['*'] } }] }] }";
        let token_and_get = "{ rules: [{ from: [{ source: { requestPrincipals: ['*'] } }], to: [{ operation: { \
                             methods: [GET] } }] }] }";
        let claim = "{ rules: [{ when: [{ key: 'request.auth.claims[role]', values: [admin] }] }] }";
        let bob = "{ rules: [{ from: [{ source: { requestPrincipals: ['https://idp.example/bob'] } }] }] }";
        // The usual way to demand a token in Istio, beside whatever allows.
        let demand = "{ action: DENY, rules: [{ from: [{ source: { notRequestPrincipals: ['*'] } }] }] }";
        let closed = "{ action: DENY, rules: [{ to: [{ operation: { methods: [POST] } }] }] }";
        for (specs, method, with_token, helps) in [
            (vec![any_token], "GET", false, true),
            (vec![any_token], "GET", true, false),
            (vec![token_and_get], "GET", false, true),
            (vec![token_and_get], "POST", false, false),
            (vec![claim], "GET", false, true),
            (vec![claim], "GET", true, false),
            (vec![bob], "GET", false, true),
            (vec![bob], "GET", true, false),
            (vec![demand], "GET", false, true),
            (vec![demand, any_token], "GET", false, true),
            (vec![demand, closed], "POST", false, false),
            (vec!["{}"], "GET", false, false),
            (vec![], "GET", false, false),
        ] {
            let yaml: String = specs.iter().enumerate().map(|(at, spec)| policy(&format!("p{at}"), spec)).collect();
            let engine = engine(&yaml, NoPolicy::Deny);
            let token = with_token.then_some(&alice);
            let decision = engine.decide(&Request { method, token, ..request(None) });
            assert_eq!(decision.token_would_help, helps, "{method} {specs:?}");
        }
    }

    #[test]
    fn an_explanation_names_the_nearest_rule_and_every_field_it_missed() {
        let far = "{ from: [{ source: { principals: [shop.example/ns/ops/sa/a] } }], to: [{ operation: { methods: \
                   [PUT], paths: [/x] } }] }";
        let near = "{ from: [{ source: { namespaces: [ops] } }, { source: { namespaces: [shop] } }], to: [{ \
                    operation: { methods: [PUT, DELETE], paths: ['/orders/*'] } }] }";
        let yaml = policy("orders", &format!("{{ rules: [{far}, {near}] }}")) + &policy("nothing", "{}");
        let web = SpiffeId::parse("spiffe://shop.example/ns/shop/sa/web").unwrap();
        let engine = engine(&yaml, NoPolicy::Deny);
        let explanation = engine.explain(&request(Some(&web)));
        assert_eq!(explanation.nearest, Some(1));
        assert_eq!(
            explanation.to_string(),
            "denied (no_allow_rule)\n\
             nearest: shop/orders rule 1\n  \
             to[0].operation.methods: the request has \"GET\", the rule wants one of `DELETE`, `PUT`\n\
             ALLOW shop/orders rule 0: no match: from[0].source.principals: the request has \
             \"shop.example/ns/shop/sa/web\", the rule wants one of `shop.example/ns/ops/sa/a` (and 2 more)\n\
             ALLOW shop/orders rule 1: no match: to[0].operation.methods: the request has \"GET\", the rule wants one \
             of `DELETE`, `PUT`\n\
             ALLOW shop/nothing: has no rules and allows nothing"
        );
        let json = serde_json::to_value(&explanation).unwrap();
        assert_eq!(json["decision"]["verdict"], "deny");
        assert_eq!(json["decision"]["reason"], "no_allow_rule");
        assert_eq!(json["steps"][0]["misses"][0]["found"], "shop.example/ns/shop/sa/web");
        assert_eq!(json["allow_nothing"][0], "shop/nothing");
        let summary: Vec<_> = engine.policies().iter().map(|policy| (&*policy.name, policy.rules)).collect();
        assert_eq!(summary, [("shop/orders", 2), ("shop/nothing", 0)]);
        // What a caller sends cannot write into a terminal.
        let forged = engine.explain(&Request { method: "GET\n\u{1b}[2Jallowed", ..request(Some(&web)) });
        assert!(!forged.to_string().contains('\u{1b}'));
    }
}
