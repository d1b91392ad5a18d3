//! Who calls: what callers without an identity get, and tokens.

use super::super::pattern::Pattern;
use super::super::{Action, AuthorizationPolicy, Clause, Condition, RequestPrincipal, Rule, Source};
use super::scope::holds_wherever;
use super::{LintCode, LintOptions, Report};

pub(super) fn check(documents: &[AuthorizationPolicy], options: &LintOptions<'_>, report: &mut Report) {
    let shutting: Vec<&AuthorizationPolicy> = documents.iter().filter(|document| denies_anonymous(document)).collect();
    for document in documents {
        let shut = || shutting.iter().any(|other| holds_wherever(other, document, options.root_namespace));
        of_document(document, options.plaintext && !shut(), report);
    }
}

/// Whether no anonymous caller comes past it.
fn denies_anonymous(document: &AuthorizationPolicy) -> bool {
    let anonymous = |source: &Source| {
        let nobody = Clause { any_of: None, none_of: Some(vec![Pattern::Present]) };
        *source == Source { principals: nobody, ..Source::default() }
    };
    let shuts = |rule: &Rule| rule.to.is_empty() && rule.when.is_empty() && rule.from.iter().any(anonymous);
    document.action == Action::Deny && !document.dry_run && document.rules.iter().any(shuts)
}

/// `plaintext`: whether anonymous callers come as far as this.
fn of_document(document: &AuthorizationPolicy, plaintext: bool, report: &mut Report) {
    for (at, rule) in document.rules.iter().enumerate() {
        if plaintext {
            anonymous(document, at, rule, report);
        }
        tokens(document, at, rule, report);
        if document.action == Action::Custom && asks_who(rule) {
            let text = "Istio refuses identities and token claims in CUSTOM rules";
            report.rule(LintCode::CustomIdentity, document, at, "", text);
        }
    }
}

/// Whether a list demands an identity, and whether one excludes some.
#[derive(Debug, Clone, Copy, Default)]
struct Demands {
    positive: bool,
    negative: bool,
}

impl Demands {
    fn and<T>(self, clause: &Clause<T>) -> Self {
        Self { positive: self.positive || clause.any_of.is_some(), negative: self.negative || clause.none_of.is_some() }
    }

    fn of_source(source: &Source) -> Self {
        let Source { principals, namespaces, service_accounts, trust_domains, .. } = source;
        Self::default().and(principals).and(namespaces).and(service_accounts).and(trust_domains)
    }

    fn of_when(rule: &Rule) -> Self {
        rule.when.iter().fold(Self::default(), |demands, condition| match condition {
            Condition::SourcePrincipal(clause)
            | Condition::SourceNamespace(clause)
            | Condition::SourceTrustDomain(clause) => demands.and(clause),
            Condition::SourceServiceAccount(clause) => demands.and(clause),
            _ => demands,
        })
    }
}

pub(super) fn wants_token(rule: &Rule, source: Option<&Source>) -> bool {
    source.is_some_and(|source| source.request_principals.any_of.is_some())
        || rule.when.iter().any(|condition| match condition {
            Condition::RequestPrincipal(clause) => clause.any_of.is_some(),
            Condition::Claim { values, .. } | Condition::Scope(values) => values.any_of.is_some(),
            _ => false,
        })
}

fn anonymous(document: &AuthorizationPolicy, at: usize, rule: &Rule, report: &mut Report) {
    let when = Demands::of_when(rule);
    let sources: Vec<(String, Option<&Source>)> = if rule.from.is_empty() {
        vec![("when".to_owned(), None)]
    } else {
        rule.from.iter().enumerate().map(|(n, source)| (format!("from[{n}].source"), Some(source))).collect()
    };
    for (field, source) in sources {
        let own = source.map(Demands::of_source).unwrap_or_default();
        let (positive, negative) = (own.positive || when.positive, own.negative || when.negative);
        match document.action {
            Action::Allow if negative && !positive && !wants_token(rule, source) => {
                let text = "it excludes identities and demands none: a caller over plaintext has none, and is let in";
                report.rule(LintCode::AllowsAnonymous, document, at, &field, text);
            }
            Action::Deny | Action::Custom if positive => {
                let text = "it keeps identities out: over plaintext the same caller has none, and is not kept out";
                report.rule(LintCode::DenyMissesAnonymous, document, at, &field, text);
            }
            _ => {}
        }
    }
}

fn tokens(document: &AuthorizationPolicy, at: usize, rule: &Rule, report: &mut Report) {
    let clauses = rule.from.iter().map(|source| &source.request_principals);
    let conditions = rule.when.iter().filter_map(|condition| match condition {
        Condition::RequestPrincipal(clause) => Some(clause),
        _ => None,
    });
    for value in clauses.chain(conditions).flat_map(|clause| clause.any_of.iter().chain(&clause.none_of).flatten()) {
        if is_svid(value) {
            let text = format!(
                "`{value}` is split at its last `/`, so its subject is `{}`: no JWT-SVID has that",
                value.subject
            );
            report.rule(LintCode::JwtSvidSubject, document, at, "", text);
        }
    }
}

/// The issuer of a value whose subject was meant to be a SPIFFE ID holds the front of it.
fn is_svid(value: &RequestPrincipal) -> bool {
    match &value.issuer {
        Pattern::Exact(text) | Pattern::Prefix(text) | Pattern::Suffix(text) => text.contains("spiffe:/"),
        Pattern::Present => false,
    }
}

fn asks_who(rule: &Rule) -> bool {
    let who = |source: &Source| {
        let Demands { positive, negative } = Demands::of_source(source);
        positive || negative || !source.request_principals.is_empty()
    };
    let Demands { positive, negative } = Demands::of_when(rule);
    let token = |condition: &Condition| {
        matches!(condition, Condition::RequestPrincipal(_) | Condition::Claim { .. } | Condition::Scope(_))
    };
    positive || negative || rule.from.iter().any(who) || rule.when.iter().any(token)
}
