//! Finds the rules that could match a request without looking at the others.

use std::collections::HashMap;
use std::sync::Arc;

use super::PeerView;
use super::account::ServiceAccount;
use super::compile::{Alternative, Check, CompiledRule, Token};
use super::pattern::{Pattern, PatternSet};
use super::request::{Protocol, Request};

/// The rules of one action, indexed by the callers they name, and where these are many, by the paths they name.
///
/// A rule whose every source names principals or namespaces can match nobody else; it is found through them. The same
/// holds of operations and their paths. What is found is only a candidate: the whole rule is tested. The rest is
/// looked at for every request.
#[derive(Debug, Default)]
pub(super) struct RuleSet {
    rules: Vec<CompiledRule>,
    by_principal: Index<Bucket>,
    by_namespace: Index<Bucket>,
    of_anybody: Bucket,
}

/// Looking at so many rules one by one costs no more than finding them by their path.
const FEW: usize = 8;

/// Rules of the same caller, each list ascending.
#[derive(Debug, Default)]
struct Bucket {
    /// The first ones, and those that name no path.
    plain: Vec<usize>,
    by_path: Index<Vec<usize>>,
}

/// What stands under patterns of a string. A lookup costs one hash for each length that prefixes and suffixes have.
#[derive(Debug)]
struct Index<T> {
    exact: HashMap<Arc<str>, T>,
    prefixes: Affixes<T>,
    suffixes: Affixes<T>,
}

#[derive(Debug)]
struct Affixes<T> {
    /// Every length that occurs, once.
    lengths: Vec<usize>,
    by_text: HashMap<Arc<str>, T>,
}

enum Key {
    Principal(Pattern),
    Namespace(Pattern),
}

impl RuleSet {
    pub(super) fn push(&mut self, rule: CompiledRule) {
        let id = self.rules.len();
        let paths = paths(&rule.to);
        match callers(&rule.from) {
            Some(keys) => {
                for key in &keys {
                    let bucket = match key {
                        Key::Principal(pattern) => self.by_principal.entry(pattern),
                        Key::Namespace(pattern) => self.by_namespace.entry(pattern),
                    };
                    // Always: `callers` gives no key that has no entry.
                    bucket.unwrap_or(&mut self.of_anybody).push(id, paths.as_deref());
                }
            }
            None => self.of_anybody.push(id, paths.as_deref()),
        }
        self.rules.push(rule);
    }

    pub(super) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    /// The first rule, in the order of the documents, that matches.
    pub(super) fn first_match(&self, request: &Request<'_>, token: Token) -> Option<&CompiledRule> {
        let mut first: Option<usize> = None;
        self.candidates(request, &mut |ids| {
            // Each list ascends: the first hit in it is its lowest, and nothing beyond the best so far is of interest.
            let hit = ids
                .iter()
                .copied()
                .take_while(|id| first.is_none_or(|best| *id < best))
                .find(|id| self.rules.get(*id).is_some_and(|rule| rule.matches(request, token)));
            first = hit.or(first);
        });
        first.and_then(|id| self.rules.get(id))
    }

    /// Calls `each` with every rule that matches, in no order, some of them twice.
    pub(super) fn each_match<'a>(
        &'a self,
        request: &Request<'_>,
        token: Token,
        each: &mut dyn FnMut(&'a CompiledRule),
    ) {
        self.candidates(request, &mut |ids| {
            let rules = ids.iter().filter_map(|id| self.rules.get(*id));
            rules.filter(|rule| rule.matches(request, token)).for_each(&mut *each);
        });
    }

    /// Calls `look` with lists of all rules that could match.
    fn candidates(&self, request: &Request<'_>, look: &mut dyn FnMut(&[usize])) {
        if self.rules.is_empty() {
            return;
        }
        let mut look_in = |bucket: &Bucket| {
            look(&bucket.plain);
            if request.protocol == Protocol::Tcp {
                // There is no path to look for, and rules that name one may match all the same.
                bucket.by_path.values().for_each(|ids| look(ids));
            } else {
                request.paths().for_each(|path| bucket.by_path.each(path, |ids| look(ids)));
            }
        };
        if let Some(principal) = request.peer_principal() {
            self.by_principal.each(principal, &mut look_in);
        }
        if let Some(namespace) = request.peer_namespace().filter(|_| !self.by_namespace.is_empty()) {
            self.by_namespace.each(namespace, &mut look_in);
        }
        look_in(&self.of_anybody);
    }
}

impl RuleSet {
    /// Calls `each` with every rule that could match some request of `caller`, some of them twice.
    pub(super) fn each_of<'a>(&'a self, caller: &PeerView<'_>, each: &mut dyn FnMut(&'a CompiledRule)) {
        let mut look_in = |bucket: &'a Bucket| {
            let ids = bucket.plain.iter().chain(bucket.by_path.values().flatten());
            ids.filter_map(|id| self.rules.get(*id)).for_each(&mut *each);
        };
        if let Some(principal) = caller.principal() {
            self.by_principal.each(principal, &mut look_in);
        }
        if let Some(namespace) = caller.namespace() {
            self.by_namespace.each(namespace, &mut look_in);
        }
        look_in(&self.of_anybody);
    }
}

impl Bucket {
    /// Adds the highest id so far; a rule that comes here by two names is added once.
    fn push(&mut self, id: usize, paths: Option<&[Pattern]>) {
        let add = |ids: &mut Vec<usize>| {
            if ids.last() != Some(&id) {
                ids.push(id);
            }
        };
        let Some(paths) = paths.filter(|_| self.plain.len() >= FEW && self.plain.last() != Some(&id)) else {
            return add(&mut self.plain);
        };
        for path in paths {
            add(self.by_path.entry(path).unwrap_or(&mut self.plain));
        }
    }
}

impl<T> Default for Index<T> {
    fn default() -> Self {
        let affixes = || Affixes { lengths: Vec::new(), by_text: HashMap::new() };
        Self { exact: HashMap::new(), prefixes: affixes(), suffixes: affixes() }
    }
}

impl<T> Index<T> {
    fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.prefixes.lengths.is_empty() && self.suffixes.lengths.is_empty()
    }

    /// Calls `found` with what stands under each pattern that matches `value`.
    fn each<'a>(&'a self, value: &str, mut found: impl FnMut(&'a T)) {
        if !self.exact.is_empty()
            && let Some(exact) = self.exact.get(value)
        {
            found(exact);
        }
        // An affix that ends within a character is none.
        let heads = self.prefixes.lengths.iter().filter_map(|length| value.get(..*length));
        heads.filter_map(|head| self.prefixes.by_text.get(head)).for_each(&mut found);
        let starts = self.suffixes.lengths.iter().filter_map(|length| value.len().checked_sub(*length));
        let tails = starts.filter_map(|start| value.get(start..));
        tails.filter_map(|tail| self.suffixes.by_text.get(tail)).for_each(&mut found);
    }
}

impl<T> Index<T> {
    fn values(&self) -> impl Iterator<Item = &T> {
        let affixes = self.prefixes.by_text.values().chain(self.suffixes.by_text.values());
        self.exact.values().chain(affixes)
    }
}

impl<T: Default> Index<T> {
    /// `None` for `*`, which cannot be looked up.
    fn entry(&mut self, pattern: &Pattern) -> Option<&mut T> {
        match pattern {
            Pattern::Exact(text) => Some(self.exact.entry(Arc::clone(text)).or_default()),
            Pattern::Prefix(text) => Some(self.prefixes.entry(text)),
            Pattern::Suffix(text) => Some(self.suffixes.entry(text)),
            Pattern::Present => None,
        }
    }
}

impl<T: Default> Affixes<T> {
    fn entry(&mut self, text: &Arc<str>) -> &mut T {
        if !self.lengths.contains(&text.len()) {
            self.lengths.push(text.len());
        }
        self.by_text.entry(Arc::clone(text)).or_default()
    }
}

/// The callers that a rule names, if it can match nobody else.
fn callers(from: &[Alternative]) -> Option<Vec<Key>> {
    named(from, |tests| {
        let principals = tests.iter().filter(|test| !test.negated).find_map(|test| match &test.check {
            Check::Principal(set) => Some(lookable(set)?.map(Key::Principal).collect()),
            // Whatever their trust domain.
            Check::ServiceAccount { accounts, anywhere: false } => {
                let end = |account: &ServiceAccount| format!("/ns/{}/sa/{}", account.namespace, account.name);
                Some(accounts.iter().map(|account| Key::Principal(Pattern::Suffix(end(account).into()))).collect())
            }
            _ => None,
        });
        let namespaces = || {
            tests.iter().filter(|test| !test.negated).find_map(|test| match &test.check {
                Check::Namespace(set) => Some(lookable(set)?.map(Key::Namespace).collect()),
                _ => None,
            })
        };
        principals.or_else(namespaces)
    })
}

/// The paths that a rule names, if it can match no other.
fn paths(to: &[Alternative]) -> Option<Vec<Pattern>> {
    named(to, |tests| {
        tests.iter().filter(|test| !test.negated).find_map(|test| match &test.check {
            Check::Path { texts, templates } => {
                let starts = templates.iter().map(|template| Pattern::Prefix(template.prefix().into()));
                Some(lookable(texts)?.chain(starts).collect())
            }
            _ => None,
        })
    })
}

/// The keys of all alternatives; `None` if there is no alternative, or one without keys.
fn named<K>(alternatives: &[Alternative], keys: impl Fn(&Alternative) -> Option<Vec<K>>) -> Option<Vec<K>> {
    let all: Option<Vec<Vec<K>>> = alternatives.iter().map(keys).collect();
    all.filter(|all| !all.is_empty()).map(|all| all.into_iter().flatten().collect())
}

/// Every pattern, if each can be looked up.
fn lookable(set: &PatternSet) -> Option<impl Iterator<Item = Pattern>> {
    set.patterns().all(|pattern| pattern != Pattern::Present).then(|| set.patterns())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Errors;
    use crate::identity::{SpiffeId, TrustDomain};
    use crate::policy::compile::{Compiler, TrustDomains};
    use crate::policy::{Action, EngineOptions, Mode, parse_documents};
    use crate::rng::Rng;

    /// Few names and many rules, so that every list of the index fills and overflows.
    fn rule(rng: &Rng) -> String {
        let one = |from: &[&str]| from[rng.below(from.len())].to_owned();
        let some = |from: &[&str]| {
            let all: Vec<String> = (0..=rng.below(3)).map(|_| format!("\"{}\"", one(from))).collect();
            format!("[{}]", all.join(", "))
        };
        let principals = ["td/ns/a/sa/x", "td/ns/a/sa/y", "td/ns/a/*", "td/ns/b*", "*/sa/x", "*y", "td/ns/c/sa/z", "*"];
        let paths = ["/a", "/a/b", "/a/*", "/a*", "*/b", "*b", "/c", "/d", "/e", "*", "/a/{*}", "/{**}/b"];
        let source = |field: &str, from: &[&str]| format!("{{ source: {{ {field}: {} }} }}", some(from));
        let from = match rng.below(7) {
            0 => String::new(),
            1 => source("namespaces", &["a", "b*", "c"]),
            2 => format!("{}, {}", source("principals", &principals), source("namespaces", &["a", "b"])),
            3 => source("notPrincipals", &principals),
            4 => source("serviceAccounts", &["a/x", "b/x", "y"]),
            _ => source("principals", &principals),
        };
        let to = match rng.below(5) {
            0 => String::new(),
            1 => format!("{{ operation: {{ notPaths: {} }} }}", some(&paths)),
            2 => format!("{{ operation: {{ methods: [GET, POST], paths: {} }} }}", some(&paths)),
            3 => format!("{{ operation: {{ paths: {} }} }}, {{ operation: {{ methods: [PUT] }} }}", some(&paths)),
            _ => format!("{{ operation: {{ paths: {} }} }}", some(&paths)),
        };
        let clause = |name: &str, text: String| (!text.is_empty()).then(|| format!("{name}: [ {text} ]"));
        let clauses: Vec<String> = clause("from", from).into_iter().chain(clause("to", to)).collect();
        format!("  - {{ {} }}\n", clauses.join(", "))
    }

    #[test]
    fn the_index_finds_what_looking_at_every_rule_finds() {
        let rng = Rng::seeded(11);
        let mut found = 0;
        for rules in [1, 20, 150] {
            for _ in 0..20 {
                let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                            metadata: { name: p, namespace: n }\nspec:\n  rules:\n";
                let text: String = std::iter::once(head.to_owned()).chain((0..rules).map(|_| rule(&rng))).collect();
                let mut errors = Errors::default();
                let documents = parse_documents("<test>", &text, &mut errors);
                assert!(errors.is_empty(), "{:?}\n{text}", errors.issues());
                let mut set = RuleSet::default();
                let domains = TrustDomains::new(&EngineOptions::new(TrustDomain::parse("td").unwrap()));
                let compiler = Compiler { mode: Mode::Strict, trust_domains: &domains };
                for (index, rule) in (0..).zip(&documents[0].rules) {
                    set.push(CompiledRule::new(0, index, Action::Allow, rule, &compiler).unwrap());
                }
                for peer in ["ns/a/sa/x", "ns/a/sa/y", "ns/b/sa/x", "ns/bb/sa/yy", "ns/c/sa/z", "other", "ns/d/sa/é"] {
                    let peer = SpiffeId::parse(&format!("spiffe://td/{peer}")).ok();
                    for path in ["/a", "/a/b", "/a/", "/c", "/d/b", "/e", "/", "/f"] {
                        let request = Request {
                            resolved_path: (rng.below(4) == 0).then_some("/a/b"),
                            peer: peer.as_ref(),
                            method: "GET",
                            path,
                            host: "h",
                            port: 1,
                            ..Request::UNKNOWN
                        };
                        let seen = set.first_match(&request, Token::AsSent).map(|rule| rule.index);
                        let naive = set.rules.iter().find(|rule| rule.matches(&request, Token::AsSent));
                        assert_eq!(seen, naive.map(|rule| rule.index), "{peer:?} {path}\n{text}");
                        found += usize::from(seen.is_some());
                    }
                }
            }
        }
        assert!(found > 1_000, "{found}");
    }
}
