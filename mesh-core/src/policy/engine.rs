//! Documents compiled for one workload, and Istio's order of evaluation.

use std::sync::Arc;

use super::compile::{Check, CompiledRule, Compiler, Token, TrustDomains};
use super::custom::{CustomAnswer, CustomAnswers, CustomMatch};
use super::decision::{DryRun, DryRunMatch};
use super::index::{Candidates, RuleSet};
use super::roles::Bound;
use super::{
    Action, AuthorizationPolicy, Decision, EngineOptions, PeerView, Reach, Reason, Request, RoleAnswer, Verdict,
};
use crate::config::{NoPolicy, Place, Workload};
use crate::identity::SpiffeId;
use crate::token::VerifiedToken;

/// The policies that select one workload, compiled. Immutable; replaced as a whole on reload.
///
/// Rules that name their callers are found by the caller's name, so that they cost nothing to anybody else; many rules
/// of one caller are found by their paths.
#[derive(Debug)]
pub struct PolicyEngine {
    policies: Vec<PolicySummary>,
    rules: Sets<RuleSet>,
    enforced: Count,
    dry_run: Count,
    /// Who has which role.
    roles: Bound,
    /// Whether any rule in force looks at the token at all.
    asks_for_tokens: bool,
    /// The policies of which a rule names a route.
    naming_routes: Vec<usize>,
    no_policy: NoPolicy,
}

/// CUSTOM, DENY and ALLOW policies, those without rules too.
#[derive(Debug, Default)]
struct Count {
    all: usize,
    allow: usize,
}

/// Something for each action.
#[derive(Debug, Default)]
pub(super) struct Sets<T> {
    custom: T,
    deny: T,
    allow: T,
    audit: T,
    dry_deny: T,
    dry_allow: T,
}

impl<T> Sets<T> {
    fn map<'a, U>(&'a self, make: impl Fn(&'a T) -> U) -> Sets<U> {
        let Self { custom, deny, allow, audit, dry_deny, dry_allow } = self;
        Sets {
            custom: make(custom),
            deny: make(deny),
            allow: make(allow),
            audit: make(audit),
            dry_deny: make(dry_deny),
            dry_allow: make(dry_allow),
        }
    }

    /// In the order of evaluation, then what decides nothing.
    fn iter(&self) -> impl Iterator<Item = &T> {
        [&self.custom, &self.deny, &self.allow, &self.audit, &self.dry_deny, &self.dry_allow].into_iter()
    }
}

/// What is left of the rules for the caller of a request, if somebody told them apart before.
type Known<'a> = Option<&'a Sets<Candidates>>;

/// A policy in force or under trial, for reports.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct PolicySummary {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// What its rules do.
    pub action: Action,
    /// Whom CUSTOM asks.
    pub provider: Option<Arc<str>>,
    /// Whether it is only under trial.
    pub dry_run: bool,
    /// How many rules it has.
    pub rules: usize,
    /// Where it stands.
    pub place: Place,
}

impl PolicyEngine {
    /// Keeps the documents that select `workload` and compiles them.
    pub fn compile(documents: &[AuthorizationPolicy], workload: &Workload, options: &EngineOptions) -> Self {
        let compiler = Compiler { mode: options.mode, trust_domains: &TrustDomains::new(options) };
        let (mut policies, mut rules) = (Vec::new(), Sets::<Vec<CompiledRule>>::default());
        let (mut enforced, mut dry_run, mut roles) = (Count::default(), Count::default(), Bound::default());
        for document in documents.iter().filter(|document| document.selects(workload, &options.root_namespace)) {
            let trial = document.dry_run;
            let count = if trial { &mut dry_run } else { &mut enforced };
            // AUDIT changes no verdict: that it is there must not open a workload that no other policy selects.
            count.all += usize::from(document.action != Action::Audit);
            count.allow += usize::from(document.action == Action::Allow);
            let set = match document.action {
                Action::Custom => &mut rules.custom,
                Action::Deny if trial => &mut rules.dry_deny,
                Action::Deny => &mut rules.deny,
                Action::Allow if trial => &mut rules.dry_allow,
                Action::Allow => &mut rules.allow,
                Action::Audit => &mut rules.audit,
            };
            let numbered = (0..).zip(&document.rules);
            set.extend(numbered.filter_map(|(index, rule)| {
                CompiledRule::new(policies.len(), index, document.action, rule, &compiler)
            }));
            roles.add(document, policies.len(), &compiler);
            policies.push(PolicySummary {
                name: Arc::clone(&document.name),
                action: document.action,
                provider: document.provider.clone(),
                dry_run: trial,
                rules: document.rules.len(),
                place: document.place.clone(),
            });
        }
        let Sets { custom, deny, allow, .. } = &rules;
        let asks_for_tokens = [custom, deny, allow].into_iter().flatten().any(CompiledRule::asks_for_tokens);
        let names_route = |rule: &&CompiledRule| rule.tests().any(|test| matches!(test.check, Check::Route(_)));
        let mut naming_routes: Vec<usize> =
            rules.iter().flatten().filter(names_route).map(|rule| rule.policy).collect();
        naming_routes.sort_unstable();
        naming_routes.dedup();
        let Sets { custom, deny, allow, audit, dry_deny, dry_allow } = rules;
        let rules = Sets {
            custom: RuleSet::new(custom),
            deny: RuleSet::new(deny),
            allow: RuleSet::new(allow),
            audit: RuleSet::new(audit),
            dry_deny: RuleSet::new(dry_deny),
            dry_allow: RuleSet::new(dry_allow),
        };
        let no_policy = options.no_policy;
        Self { policies, rules, enforced, dry_run, roles, asks_for_tokens, naming_routes, no_policy }
    }

    /// The verdict where nobody was asked: [`decide_with`](Self::decide_with) no answers. A CUSTOM rule that matches
    /// denies.
    pub fn decide(&self, request: &Request<'_>) -> Decision {
        self.decide_with(request, &CustomAnswers::NONE)
    }

    /// The verdict, by the order of actions.
    ///
    /// Any CUSTOM rule whose provider did not allow denies, and any DENY rule; else without ALLOW policies `no_policy`
    /// or allow; else any ALLOW rule allows; else deny.
    ///
    /// Does not allocate unless an AUDIT rule matches or a policy is under trial. The first matching rule in the order
    /// of the documents is the one that is named.
    pub fn decide_with(&self, request: &Request<'_>, answers: &CustomAnswers) -> Decision {
        self.decide_of(request, answers, None)
    }

    /// The verdict of [`decide_with`](Self::decide_with) alone: AUDIT rules and policies under trial are not asked.
    pub fn judge_with(&self, request: &Request<'_>, answers: &CustomAnswers) -> Decision {
        self.evaluate(request, Token::AsSent, answers, None)
    }

    pub(super) fn decide_of(&self, request: &Request<'_>, answers: &CustomAnswers, known: Known<'_>) -> Decision {
        let mut decision = self.evaluate(request, Token::AsSent, answers, known);
        decision.token_would_help = self.asks_for_tokens
            && decision.verdict == Verdict::Deny
            && request.token.is_none()
            && self.evaluate(request, Token::Ideal, answers, known).verdict == Verdict::Allow;
        self.rules.audit.each_match(request, Token::AsSent, known.map(|known| &known.audit), |rule| {
            if let Some(policy) = self.name(rule).filter(|name| !decision.audit.contains(name)) {
                decision.audit.push(policy);
            }
        });
        decision.audit.sort_unstable();
        if self.dry_run.all > 0 {
            decision.dry_run = Some(Box::new(self.try_out(request, &decision, known)));
        }
        decision
    }

    fn evaluate(&self, request: &Request<'_>, token: Token, answers: &CustomAnswers, known: Known<'_>) -> Decision {
        if let Some((reason, rule)) = self.refused(request, token, answers, known) {
            return self.decided(Verdict::Deny, reason, Some(rule));
        }
        if let Some(rule) = self.rules.deny.first_match(request, token, known.map(|known| &known.deny)) {
            return self.decided(Verdict::Deny, Reason::DenyRule, Some(rule));
        }
        if self.enforced.all == 0 {
            return match self.no_policy {
                NoPolicy::Deny => self.decided(Verdict::Deny, Reason::NoPolicyDeny, None),
                NoPolicy::Allow => self.decided(Verdict::Allow, Reason::NoPolicyAllow, None),
            };
        }
        if self.enforced.allow == 0 {
            return self.decided(Verdict::Allow, Reason::NoPolicyAllow, None);
        }
        match self.rules.allow.first_match(request, token, known.map(|known| &known.allow)) {
            Some(rule) => self.decided(Verdict::Allow, Reason::AllowRule, Some(rule)),
            None => self.decided(Verdict::Deny, Reason::NoAllowRule, None),
        }
    }

    /// The first CUSTOM rule that matches and was not answered with yes.
    fn refused(
        &self,
        request: &Request<'_>,
        token: Token,
        answers: &CustomAnswers,
        known: Known<'_>,
    ) -> Option<(Reason, &CompiledRule)> {
        let mut first: Option<(Reason, &CompiledRule)> = None;
        self.rules.custom.each_match(request, token, known.map(|known| &known.custom), |rule| {
            let earlier = first.is_none_or(|(_, first)| (rule.policy, rule.index) < (first.policy, first.index));
            let denies = || CustomAnswer::denies(self.provider(rule).and_then(|provider| answers.of(provider)));
            if let Some(reason) = earlier.then(denies).flatten() {
                first = Some((reason, rule));
            }
        });
        first
    }

    /// Who must be asked before [`decide_with`](Self::decide_with), each once. Allocates only where there is somebody.
    pub fn custom(&self, request: &Request<'_>) -> Vec<CustomMatch> {
        self.custom_of(request, None)
    }

    pub(super) fn custom_of(&self, request: &Request<'_>, known: Known<'_>) -> Vec<CustomMatch> {
        let mut rules: Vec<&CompiledRule> = Vec::new();
        let known = known.map(|known| &known.custom);
        self.rules.custom.each_match(request, Token::AsSent, known, |rule| rules.push(rule));
        rules.sort_unstable_by_key(|rule| (rule.policy, rule.index));
        let mut matches: Vec<CustomMatch> = Vec::new();
        for rule in rules {
            let Some((provider, policy)) = self.provider(rule).cloned().zip(self.name(rule)) else { continue };
            if !matches.iter().any(|known| known.provider == provider) {
                matches.push(CustomMatch { provider, policy, rule: rule.index });
            }
        }
        matches
    }

    fn provider(&self, rule: &CompiledRule) -> Option<&Arc<str>> {
        self.policies.get(rule.policy)?.provider.as_ref()
    }

    /// What would be decided if the policies under trial counted.
    fn try_out(&self, request: &Request<'_>, decision: &Decision, known: Known<'_>) -> DryRun {
        let Sets { dry_deny, dry_allow, .. } = &self.rules;
        let deny = dry_deny.first_match(request, Token::AsSent, known.map(|known| &known.dry_deny));
        let allow = dry_allow.first_match(request, Token::AsSent, known.map(|known| &known.dry_allow));
        let denied =
            decision.verdict == Verdict::Deny && !matches!(decision.reason, Reason::NoAllowRule | Reason::NoPolicyDeny);
        let no_allow = self.dry_run.allow + self.enforced.allow == 0;
        let allowed = no_allow || allow.is_some() || decision.reason == Reason::AllowRule;
        let verdict = if denied || deny.is_some() || !allowed { Verdict::Deny } else { Verdict::Allow };
        let matched = deny
            .into_iter()
            .chain(allow)
            .filter_map(|rule| Some(DryRunMatch { policy: self.name(rule)?, rule: rule.index, action: rule.action }));
        DryRun { verdict, matched: matched.collect() }
    }

    /// What is left of the rules for one caller. Costs a test of each rule that may concern it.
    pub(super) fn told_apart(&self, caller: &PeerView<'_>) -> Sets<Candidates> {
        self.rules.map(|set| set.told_apart(caller))
    }

    /// Whether any request of `caller` could be allowed, whatever it came with.
    ///
    /// Errs on the side of [`Reach::Possible`]: where it says impossible, [`decide`](Self::decide) denies every request
    /// of this caller. What external authorizers would say is not known here. Costs a look at each DENY rule about callers
    /// alone that could name this one, and at ALLOW rules that could name it up to the first that may match.
    pub fn reach(&self, caller: &PeerView<'_>) -> Reach {
        let mut shut: Option<&CompiledRule> = None;
        self.rules.deny.each_shutting(caller, |rule| {
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
        if self.enforced.all == 0 && self.no_policy == NoPolicy::Deny {
            return impossible(Reason::NoPolicyDeny, None);
        }
        if self.enforced.allow == 0 {
            return Reach::Possible;
        }
        if self.rules.allow.opens(caller) { Reach::Possible } else { impossible(Reason::NoAllowRule, None) }
    }

    /// Whether a caller has a role of `mesh.yaml`, whatever it calls.
    ///
    /// What some binding of the role says of its SPIFFE ID and its verified token. Nobody has a role that there is none
    /// of.
    pub fn role(&self, role: &str, peer: Option<&SpiffeId>, token: Option<&VerifiedToken>) -> RoleAnswer {
        self.roles.answer(role, &Request { peer, token, ..Request::UNKNOWN })
    }

    fn name(&self, rule: &CompiledRule) -> Option<Arc<str>> {
        self.policies.get(rule.policy).map(|policy| Arc::clone(&policy.name))
    }

    fn decided(&self, verdict: Verdict, reason: Reason, rule: Option<&CompiledRule>) -> Decision {
        Decision {
            verdict,
            reason,
            policy: rule.and_then(|rule| self.name(rule)),
            rule: rule.map(|rule| rule.index),
            token_would_help: false,
            audit: Vec::new(),
            dry_run: None,
        }
    }

    /// The policies that select the workload, in the order of the documents.
    pub fn policies(&self) -> &[PolicySummary] {
        &self.policies
    }

    /// How many policies select the workload, those under trial too.
    pub fn len(&self) -> usize {
        self.policies.len()
    }

    /// Whether no policy selects the workload.
    pub fn is_empty(&self) -> bool {
        self.policies.is_empty()
    }

    /// Whether a policy that decides something is in force: no AUDIT, no dry run.
    pub fn enforces(&self) -> bool {
        self.enforced.all > 0
    }

    /// Whether any rule names a `route`.
    ///
    /// Where nobody knows routes, such a policy must be refused at start: its DENY rules would match everything, its
    /// ALLOW rules nothing.
    pub fn needs_route(&self) -> bool {
        !self.naming_routes.is_empty()
    }

    /// The policies that [need a route](Self::needs_route).
    pub fn naming_routes(&self) -> impl Iterator<Item = &PolicySummary> {
        self.naming_routes.iter().filter_map(|policy| self.policies.get(*policy))
    }

    /// Rules that every caller is held against, as policy and 0-based index.
    ///
    /// They name nobody, or name callers only by `*`, by trust domains, addresses, negative lists or headers, or to
    /// keep them out by the end of a namespace, which cannot be looked up.
    ///
    /// Each connection tests them once; what its peer decides costs its requests nothing.
    pub fn unindexed(&self) -> impl Iterator<Item = (&Arc<str>, u32)> {
        let rules = self.rules.iter().flat_map(RuleSet::of_anybody);
        rules.filter_map(|rule| Some((&self.policies.get(rule.policy)?.name, rule.index)))
    }

    /// Every rule in the order of evaluation - CUSTOM, DENY, ALLOW - then those that decide nothing.
    pub(super) fn rules(&self) -> impl Iterator<Item = &CompiledRule> {
        self.rules.iter().flat_map(RuleSet::rules)
    }
}
