//! Finds the rules that could match a caller without looking at the others.

use std::collections::HashMap;
use std::sync::Arc;

use super::Action;
use super::compile::{Alternative, Check, CompiledRule, Token};
use super::request::Request;

/// The rules of one action, indexed by the callers they name.
///
/// A rule whose every source names exact principals or exact namespaces can match nobody else; it is found through
/// them. The rest is looked at for every request.
#[derive(Debug, Default)]
pub(super) struct RuleSet {
    rules: Vec<CompiledRule>,
    by_principal: HashMap<Arc<str>, Vec<usize>>,
    by_namespace: HashMap<Arc<str>, Vec<usize>>,
    unindexed: Vec<usize>,
}

enum Key {
    Principal(Arc<str>),
    Namespace(Arc<str>),
}

impl RuleSet {
    pub(super) fn push(&mut self, rule: CompiledRule) {
        let id = self.rules.len();
        match keys(&rule.from) {
            Some(keys) => {
                for key in keys {
                    let ids = match key {
                        Key::Principal(name) => self.by_principal.entry(name).or_default(),
                        Key::Namespace(name) => self.by_namespace.entry(name).or_default(),
                    };
                    if ids.last() != Some(&id) {
                        ids.push(id);
                    }
                }
            }
            None => self.unindexed.push(id),
        }
        self.rules.push(rule);
    }

    pub(super) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// The first rule, in the order of the documents, that matches.
    pub(super) fn first_match(&self, request: &Request<'_>, action: Action, token: Token) -> Option<&CompiledRule> {
        let named = request.peer_principal().and_then(|name| self.by_principal.get(name));
        let spaced = if self.by_namespace.is_empty() { None } else { request.peer_namespace() };
        let spaced = spaced.and_then(|namespace| self.by_namespace.get(namespace));
        let mut first: Option<usize> = None;
        // Each list ascends: the first hit in it is its lowest, and nothing beyond the best so far is of interest.
        for ids in [named, spaced, Some(&self.unindexed)].into_iter().flatten() {
            let hit = ids
                .iter()
                .copied()
                .take_while(|id| first.is_none_or(|best| *id < best))
                .find(|id| self.rules.get(*id).is_some_and(|rule| rule.matches(request, action, token)));
            first = hit.or(first);
        }
        first.and_then(|id| self.rules.get(id))
    }
}

/// The callers that a rule names, if it can match nobody else.
fn keys(from: &[Alternative]) -> Option<Vec<Key>> {
    if from.is_empty() {
        return None;
    }
    let mut keys = Vec::new();
    for tests in from {
        let principals = tests.iter().filter(|test| !test.negated).find_map(|test| match &test.check {
            Check::Principal(set) => set.exact_only().map(|all| all.cloned().map(Key::Principal).collect::<Vec<_>>()),
            _ => None,
        });
        let namespaces = || {
            tests.iter().filter(|test| !test.negated).find_map(|test| match &test.check {
                Check::Namespace(set) => set.exact_only().map(|all| all.cloned().map(Key::Namespace).collect()),
                _ => None,
            })
        };
        keys.extend(principals.or_else(namespaces)?);
    }
    Some(keys)
}
