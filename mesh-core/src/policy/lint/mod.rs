//! Policies that are valid and yet may not do what their author thinks.
//!
//! A finding is no error: each of these policies is understood to the last field, and does what it says.
//!
//! | group | file |
//! |---|---|
//! | whom a policy holds for, and what is left without one | `scope` |
//! | who calls: anonymous callers, tokens | `identity` |
//! | whose tokens are taken, and whether anybody must bring one | `tokens` |
//! | paths, and what only some readers of a policy know | `paths` |
//! | hosts and methods | `operation` |
//! | rules against each other, and what they cost | `rules` |

mod code;
mod identity;
mod operation;
mod paths;
mod rules;
mod scope;
#[cfg(test)]
mod tests;
mod tokens;

use std::fmt;
use std::sync::Arc;

pub use code::{LintCode, Severity};

use super::{AuthorizationPolicy, RequestAuthentication};
use crate::config::{Config, Place, Workload};

/// What is known beside the documents.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct LintOptions<'a> {
    /// Policies of this namespace hold for every workload.
    pub root_namespace: &'a str,
    /// The workloads that there are; empty: nobody knows.
    pub workloads: &'a [Workload],
    /// Whether callers without a certificate get as far as policy: a listener with `mtls: permissive`.
    pub plaintext: bool,
    /// The documents that say whose tokens are taken; empty: nobody knows.
    pub requests: &'a [RequestAuthentication],
}

impl<'a> LintOptions<'a> {
    /// Nothing else is known, so plaintext may come.
    pub fn new(root_namespace: &'a str) -> Self {
        Self { root_namespace, workloads: &[], plaintext: true, requests: &[] }
    }
}

impl Default for LintOptions<'_> {
    /// [`new`](Self::new) with Istio's `istio-system`.
    fn default() -> Self {
        Self::new(Config::ROOT_NAMESPACE)
    }
}

/// Something that may surprise.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Finding {
    /// What it is.
    pub code: LintCode,
    /// `NAMESPACE/NAME`.
    pub policy: Arc<str>,
    /// 0-based index of its rule, if it is about one.
    pub rule: Option<u32>,
    /// Where the rule, or the policy, stands; the path is that of the field.
    pub place: Place,
    /// What was found, and what that means.
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (severity, code) = (self.code.severity().as_str(), self.code.as_str());
        write!(f, "{}: {severity} [{code}] {}", self.place, self.policy)?;
        if let Some(rule) = self.rule {
            write!(f, " rule {rule}")?;
        }
        write!(f, ": {}; {}", self.text, self.code.remedy())
    }
}

/// Everything that may surprise, in the order of the documents, those about tokens first.
///
/// Linear in the documents, but for the comparison of rules with each other, which stops at 2,000 rules and says so.
pub fn lint(documents: &[AuthorizationPolicy], options: &LintOptions<'_>) -> Vec<Finding> {
    let mut report = Report { findings: Vec::new() };
    scope::check(documents, options, &mut report);
    tokens::check(documents, options, &mut report);
    identity::check(documents, options, &mut report);
    for document in documents {
        paths::check(document, &mut report);
        operation::check(document, &mut report);
        for doubt in &document.doubts {
            report.findings.push(Finding {
                code: LintCode::Doubt,
                policy: Arc::clone(&document.name),
                rule: None,
                place: doubt.place.clone(),
                text: doubt.message.clone(),
            });
        }
    }
    rules::check(documents, options, &mut report);
    let mut findings = report.findings;
    let order = |name: &str| documents.iter().position(|document| *document.name == *name);
    findings.sort_by_cached_key(|finding| (order(&finding.policy), finding.rule));
    findings
}

struct Report {
    findings: Vec<Finding>,
}

impl Report {
    /// About a whole policy.
    fn policy(&mut self, code: LintCode, document: &AuthorizationPolicy, text: impl Into<String>) {
        let (policy, place) = (Arc::clone(&document.name), document.place.clone());
        self.findings.push(Finding { code, policy, rule: None, place, text: text.into() });
    }

    /// About what a document says of tokens.
    fn request(&mut self, code: LintCode, document: &RequestAuthentication, place: &Place, text: impl Into<String>) {
        let policy = Arc::clone(&document.name);
        self.findings.push(Finding { code, policy, rule: None, place: place.clone(), text: text.into() });
    }

    /// About a field of a rule; `field` as in `from[0].source.notPrincipals`, or empty.
    fn rule(
        &mut self,
        code: LintCode,
        document: &AuthorizationPolicy,
        rule: usize,
        field: &str,
        text: impl Into<String>,
    ) {
        let place = document.rule_places.get(rule).unwrap_or(&document.place);
        let place = if field.is_empty() { place.clone() } else { place.field(field) };
        let (policy, rule) = (Arc::clone(&document.name), u32::try_from(rule).ok());
        self.findings.push(Finding { code, policy, rule, place, text: text.into() });
    }
}
