//! Istio's `RequestAuthentication`: whose tokens a workload takes.
//!
//! Its rules become the same [`IssuerConfig`]s as `tokens:` in `mesh.yaml`, and stand beside those: one verifier judges.
//!
//! | | here | Istio |
//! |---|---|---|
//! | whom a document holds for | namespace, `selector`, `targetRefs` of services; the root namespace: every workload | the same |
//! | several documents | their rules together | the same |
//! | no token | passes, without a request principal | the same |
//! | a bad token, or one of an issuer that no rule has | 401 | the same |
//! | a bearer token in `Authorization`, where every rule has places of its own | 401 | left to the application |
//! | a rule without `audiences` | an error; in compat mode every audience, said at start | every audience |
//! | two rules of one issuer | one of them, where it says the same: they differ in audiences or in places alone; else an error | either accepts |
//! | an issuer that `tokens:` has too | an error | |
//! | neither `jwks` nor `jwksUri` | discovered, from the issuer's own URL | the same |
//! | `jwks` and `jwksUri` | an error | `jwks` |
//! | keys over plain HTTP | an error | fetched |
//! | keys at a private address | not fetched; an entry of `tokens:` with `allow_private` takes them | fetched |
//! | a rule without `issuer` | an error: keys vouch for an issuer | any issuer |
//! | `exp`, `typ`, algorithms, lifetime | as `tokens:` without them | only `exp`, where there is one |

use std::collections::BTreeMap;
use std::sync::Arc;

use super::scope::Scope;
use crate::config::{Config, ConfigIssue, Errors, IssuerConfig, Place, TokenHeader, Workload};

/// One document, validated.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct RequestAuthentication {
    /// `NAMESPACE/NAME`.
    pub name: Arc<str>,
    /// `metadata.namespace`.
    pub namespace: Arc<str>,
    /// `spec.selector.matchLabels`; empty selects every workload of the namespace.
    pub selector: BTreeMap<String, String>,
    /// `spec.targetRefs`: the services it holds for, each the workload of that name in the document's own namespace.
    /// Empty: the selector decides.
    pub target_services: Vec<String>,
    /// `spec.jwtRules`.
    pub rules: Vec<JwtRule>,
    /// What Istio takes for what its author hardly meant.
    pub doubts: Vec<ConfigIssue>,
    /// Where it stands.
    pub place: Place,
}

/// One of `spec.jwtRules`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct JwtRule {
    /// What it says.
    pub issuer: IssuerConfig,
    /// Where it stands.
    pub place: Place,
}

impl RequestAuthentication {
    /// Whether it holds for `workload`, as [`AuthorizationPolicy::selects`](super::AuthorizationPolicy::selects) says.
    pub fn selects(&self, workload: &Workload, root_namespace: &str) -> bool {
        self.scope().selects(workload, root_namespace)
    }

    pub(super) fn scope(&self) -> Scope<'_> {
        Scope { namespace: &self.namespace, selector: &self.selector, target_services: &self.target_services }
    }
}

/// The documents that hold for one workload.
#[derive(Debug)]
pub struct RequestPolicy<'a> {
    documents: Vec<&'a RequestAuthentication>,
}

impl<'a> RequestPolicy<'a> {
    /// The documents of `workload`.
    pub fn of(documents: &'a [RequestAuthentication], workload: &Workload, root_namespace: &str) -> Self {
        Self { documents: documents.iter().filter(|document| document.selects(workload, root_namespace)).collect() }
    }

    /// The documents, in the order of their files.
    pub fn documents(&self) -> impl Iterator<Item = &'a RequestAuthentication> {
        self.documents.iter().copied()
    }

    /// The issuers of all rules, each once; notes rules that contradict each other.
    pub fn issuers(&self, errors: &mut Errors) -> Vec<IssuerConfig> {
        let mut issuers: Vec<(IssuerConfig, &JwtRule)> = Vec::new();
        for rule in self.documents.iter().flat_map(|document| &document.rules) {
            let Some((known, first)) = issuers.iter_mut().find(|(known, _)| known.issuer == rule.issuer.issuer) else {
                issuers.push((rule.issuer.clone(), rule));
                continue;
            };
            if let Some(united) = unite(known, &rule.issuer) {
                *known = united;
                continue;
            }
            let Place { file, line, path, .. } = &first.place;
            let message = format!(
                "{:?} has a rule at {file}:{line} ({path}) that differs in more than audiences, or more than places of the \
                 token: which of them holds for a token is not to be guessed; write one rule",
                known.issuer
            );
            errors.push(&rule.place.field("issuer"), message);
        }
        issuers.into_iter().map(|(issuer, _)| issuer).collect()
    }

    /// Adds the issuers to those of `tokens:`, or notes why that cannot be.
    pub fn apply(&self, config: &mut Config, errors: &mut Errors) {
        for rule in self.documents.iter().flat_map(|document| &document.rules) {
            if let Some(index) = config.tokens.iter().position(|token| token.issuer == rule.issuer.issuer) {
                let message = format!(
                    "{:?} is `tokens[{index}]` of the configuration too: what holds for its tokens is written in one \
                     place, here or there",
                    rule.issuer.issuer
                );
                errors.push(&rule.place.field("issuer"), message);
            }
        }
        config.tokens.extend(self.issuers(errors));
    }
}

/// One rule that accepts what either does and nothing else; `None` where there is no such rule.
///
/// A token must meet one of the rules as a whole. So the union of audiences says the same only if the rest is equal, and so
/// does that of places.
fn unite(one: &IssuerConfig, other: &IssuerConfig) -> Option<IssuerConfig> {
    if rest(one) != rest(other) {
        return None;
    }
    let (mut united, other) = (with_places(one), with_places(other));
    let same_audiences =
        united.dangerous_any_audience == other.dangerous_any_audience && same(&united.audiences, &other.audiences);
    let same_places = same(&united.from_headers, &other.from_headers)
        && same(&united.from_params, &other.from_params)
        && same(&united.from_cookies, &other.from_cookies);
    if !same_audiences && !same_places {
        return None;
    }
    add(&mut united.audiences, &other.audiences);
    united.dangerous_any_audience |= other.dangerous_any_audience;
    if united.dangerous_any_audience {
        united.audiences.clear();
    }
    add(&mut united.from_headers, &other.from_headers);
    add(&mut united.from_params, &other.from_params);
    add(&mut united.from_cookies, &other.from_cookies);
    Some(united)
}

/// What two rules must share.
fn rest(issuer: &IssuerConfig) -> IssuerConfig {
    IssuerConfig {
        audiences: Vec::new(),
        dangerous_any_audience: false,
        from_headers: Vec::new(),
        from_params: Vec::new(),
        from_cookies: Vec::new(),
        ..issuer.clone()
    }
}

/// The same, with the places written out that hold by default.
fn with_places(issuer: &IssuerConfig) -> IssuerConfig {
    let mut issuer = issuer.clone();
    if issuer.has_default_places() {
        issuer.from_headers.push(TokenHeader::new("authorization", "Bearer "));
        issuer.from_params.push(IssuerConfig::ACCESS_TOKEN.to_owned());
    }
    issuer
}

/// Whether two lists hold the same, in whatever order.
fn same<T: PartialEq>(one: &[T], other: &[T]) -> bool {
    one.iter().all(|item| other.contains(item)) && other.iter().all(|item| one.contains(item))
}

fn add<T: Clone + PartialEq>(list: &mut Vec<T>, more: &[T]) {
    for item in more {
        if !list.contains(item) {
            list.push(item.clone());
        }
    }
}

#[cfg(test)]
mod tests;
