//! `roles:` and `bindings:` of `mesh.yaml` as the policies that they are short for.
//!
//! | in `mesh.yaml` | in the policy |
//! |---|---|
//! | a binding of the role R, called B | ALLOW policy `NAMESPACE/role:R/B` of the own workload |
//! | a role without binding | ALLOW policy `NAMESPACE/role:R` without rules, which allows nothing |
//! | an entry of a role: `methods`, `paths` | `to[].operation` |
//! | `grpc: [ S/M ]` | `to[].operation` with method POST and path `/S/M` |
//! | `identities` | a rule with `from[].source.principals` |
//! | `request_principals` | a rule with `from[].source.requestPrincipals` |
//! | `groups` | a rule with `when: request.auth.claims[GROUPS_CLAIM]` |
//! | `scopes` | a rule with `when`: a word of `scope` or `scp` |
//!
//! No metadata name holds a `:`, so no document can be called like a binding. Values are read strictly in either mode.

mod values;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use values::{group, grpc, identity, method, path, request_principal, scope};

use super::Request;
use super::canonical::Canonicalization;
use super::compile::{CompiledRule, Compiler, Token};
use super::document::{Action, AuthorizationPolicy, Clause, Condition, Operation, Rule, Source};
use super::pattern::Pattern;
use crate::config::{Config, Node, PermissionConfig, Place, SubjectsConfig, place};

/// Whether a caller has a role, see [`PolicyEngine::role`](super::PolicyEngine::role).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RoleAnswer {
    /// It has.
    Held,
    /// It has not.
    NotHeld {
        /// No token came, and with the right one it would have.
        token_would_help: bool,
    },
    /// There is no such role; nobody has it.
    Unknown,
}

/// Who has which role: the rules of its bindings, whatever is called.
#[derive(Debug, Default)]
pub(super) struct Bound(BTreeMap<Arc<str>, Vec<CompiledRule>>);

impl Bound {
    /// Takes up a document that is a binding; `policy` is its index in the engine.
    pub(super) fn add(&mut self, document: &AuthorizationPolicy, policy: usize, compiler: &Compiler<'_>) {
        let Some(role) = &document.role else { return };
        let rules = (0..).zip(&document.rules).filter_map(|(index, rule)| {
            let rule = Rule { to: Vec::new(), ..rule.clone() };
            CompiledRule::new(policy, index, document.action, &rule, compiler)
        });
        self.0.entry(Arc::clone(role)).or_default().extend(rules);
    }

    /// Of `caller` only peer and token count.
    pub(super) fn answer(&self, role: &str, caller: &Request<'_>) -> RoleAnswer {
        let Some(rules) = self.0.get(role) else { return RoleAnswer::Unknown };
        let has = |token| rules.iter().any(|rule| rule.matches(caller, token));
        if has(Token::AsSent) {
            return RoleAnswer::Held;
        }
        RoleAnswer::NotHeld { token_would_help: caller.token.is_none() && has(Token::Ideal) }
    }
}

/// The policies that the roles and bindings of a checked configuration are short for; `root` is its file's tree, for
/// places. What [`Config::check`] refuses allows nothing here.
pub(crate) fn policies(config: &Config, root: Option<&Node>) -> Vec<AuthorizationPolicy> {
    let namespace: Arc<str> = config.workload.namespace.as_str().into();
    let policy = |role: &str, name: &str, rules: Vec<Rule>, place: Place| AuthorizationPolicy {
        name: format!("{namespace}/role:{name}").into(),
        namespace: Arc::clone(&namespace),
        selector: BTreeMap::new(),
        // Whatever else lives in the namespace has a `mesh.yaml` of its own.
        target_services: vec![config.workload.name.clone()],
        action: Action::Allow,
        provider: None,
        dry_run: false,
        rule_places: vec![place.clone(); rules.len()],
        rules,
        doubts: Vec::new(),
        role: Some(role.into()),
        place,
    };
    let bound = config.bindings.iter().enumerate().filter_map(|(index, binding)| {
        let permissions = config.roles.get(&binding.role)?;
        let to: Vec<Operation> = permissions.iter().filter_map(|entry| operation(entry, config.canonical)).collect();
        let name = format!("{}/{}", binding.role, binding.label(index));
        let rules = rules(&binding.to, &to, &config.groups_claim);
        Some(policy(&binding.role, &name, rules, place(root, &format!("bindings[{index}]"))))
    });
    let unbound = config.roles.keys().filter(|role| !config.bindings.iter().any(|binding| binding.role == **role));
    let unbound = unbound.map(|role| policy(role, role, Vec::new(), place(root, &format!("roles.{role}"))));
    bound.chain(unbound).collect()
}

/// One rule for each list: sources of one rule could not say who a token must be for.
fn rules(subjects: &SubjectsConfig, to: &[Operation], groups_claim: &[String]) -> Vec<Rule> {
    // An empty `to` would be everything.
    if to.is_empty() {
        return Vec::new();
    }
    let SubjectsConfig { identities, request_principals, groups, scopes } = subjects;
    let from = |source: Source| (vec![source], Vec::new());
    let when = |condition: Condition| (Vec::new(), vec![condition]);
    let parts = [
        list(identities, identity).map(|principals| from(Source { principals, ..Source::default() })),
        list(request_principals, request_principal)
            .map(|request_principals| from(Source { request_principals, ..Source::default() })),
        list(groups, group).map(|values| when(Condition::Claim { path: groups_claim.to_vec(), values })),
        list(scopes, scope).map(|values| when(Condition::Scope(values))),
    ];
    parts.into_iter().flatten().map(|(from, when)| Rule { from, to: to.to_vec(), when }).collect()
}

/// `None` where nothing is written, which would be everything.
fn operation(entry: &PermissionConfig, canonical: Canonicalization) -> Option<Operation> {
    let PermissionConfig { methods, paths, grpc: calls } = entry;
    if let Some(paths) = list(calls, grpc) {
        let methods = Clause::any_of(vec![Pattern::Exact("POST".into())]);
        return Some(Operation { methods, paths, ..Operation::default() });
    }
    let (methods, paths) = (list(methods, method), list(paths, |text| path(text, canonical)));
    if methods.is_none() && paths.is_none() {
        return None;
    }
    Some(Operation { methods: methods.unwrap_or_default(), paths: paths.unwrap_or_default(), ..Operation::default() })
}

/// A list that is written, less what is wrong with it: an empty one matches nothing.
fn list<T>(written: &Option<Vec<String>>, read: impl Fn(&str) -> Result<T, String>) -> Option<Clause<T>> {
    let written = written.as_ref()?;
    Some(Clause::any_of(written.iter().filter_map(|text| read(text).ok()).collect()))
}
