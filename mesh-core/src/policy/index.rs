//! Finds the rules that could match a request without looking at the others.

use super::PeerView;
use super::account::{self, ServiceAccount};
use super::compile::{Alternative, Check, CompiledRule, Test, Token};
use super::lookup::Lookup;
use super::pattern::{Pattern, PatternSet};
use super::request::{Protocol, Request};

/// The rules of one action, indexed by the callers they name, and where these are many, by the paths they name.
///
/// A rule whose every source names principals, accounts or namespaces can match nobody else; it is found through them.
/// The same holds of operations and their paths. What is found is only a candidate: the whole rule is tested. The rest
/// is looked at for every request of a caller that it may match.
#[derive(Debug)]
pub(super) struct RuleSet {
    rules: Vec<CompiledRule>,
    /// The first one is of anybody.
    buckets: Vec<Bucket>,
    by_principal: Lookup<u32>,
    by_namespace: Lookup<u32>,
    /// By what stands behind `/ns/`, wherever that is in a SPIFFE ID.
    by_place: Lookup<u32>,
}

/// Looking at so many rules one by one costs no more than finding them by their path.
const FEW: usize = 2;

/// So many rules are told apart for one caller at most; the rest is told apart at each of its requests. Costs 4 bytes
/// each, for each connection.
const TOLD_APART: usize = 4_096;

const ANYBODY: u32 = 0;

/// Rules of the same caller, each list ascending.
#[derive(Debug, Default)]
struct Bucket {
    /// Those that name no path, and a few that do.
    plain: Vec<u32>,
    by_path: Lookup<Vec<u32>>,
    /// Those that look at nothing but the connection, by which they may match whatever comes.
    shutting: Vec<u32>,
}

/// What is left of a [`RuleSet`] for one caller, after every test that its connection decides.
#[derive(Debug, Default)]
pub(super) struct Candidates {
    /// Whose caller fits; ascending.
    settled: Box<[u32]>,
    /// Of which only a request can say whether the caller fits; ascending.
    open: Box<[u32]>,
    /// Buckets whose rules are found by path, or are too many to be told apart.
    buckets: Box<[u32]>,
    /// Whether the plain rules of `buckets` are not in the lists above.
    many: bool,
}

/// Rules to look at, and whether their callers are known to fit.
type Found<'a> = (&'a [u32], bool);

enum Key {
    Principal(Pattern),
    Namespace(Pattern),
    Place(Pattern),
}

impl Default for RuleSet {
    fn default() -> Self {
        let buckets = vec![Bucket::default()];
        let (by_principal, by_namespace, by_place) = Default::default();
        Self { rules: Vec::new(), buckets, by_principal, by_namespace, by_place }
    }
}

impl RuleSet {
    pub(super) fn new(mut rules: Vec<CompiledRule>) -> Self {
        let mut set = Self::default();
        for (id, rule) in (0..).zip(&mut rules) {
            let keys = callers(&rule.from);
            rule.settled_by_name = keys.is_some() && says_only_names(&rule.from);
            for key in keys.iter().flatten() {
                let (lookup, pattern) = match key {
                    Key::Principal(pattern) => (&mut set.by_principal, pattern),
                    Key::Namespace(pattern) => (&mut set.by_namespace, pattern),
                    Key::Place(pattern) => (&mut set.by_place, pattern),
                };
                // Documents are far too small for more than `u32` counts.
                let next = u32::try_from(set.buckets.len()).unwrap_or(ANYBODY);
                // Always there: `callers` gives no key that cannot be looked up.
                let bucket = lookup.entry(pattern, || next).map_or(ANYBODY, |bucket| *bucket);
                if bucket == next {
                    set.buckets.push(Bucket::default());
                }
                set.push(bucket, id, rule);
            }
            if keys.is_none() {
                set.push(ANYBODY, id, rule);
            }
        }
        set.by_principal.finish();
        set.by_namespace.finish();
        set.by_place.finish();
        let paths: Vec<Option<Vec<Pattern>>> = rules.iter().map(|rule| paths(&rule.to)).collect();
        set.buckets.iter_mut().for_each(|bucket| bucket.finish(&paths));
        Self { rules, ..set }
    }

    fn push(&mut self, bucket: u32, id: u32, rule: &CompiledRule) {
        if let Some(bucket) = self.buckets.get_mut(bucket as usize) {
            add(&mut bucket.plain, id);
            if rule.is_of_connection() {
                add(&mut bucket.shutting, id);
            }
        }
    }

    pub(super) fn rules(&self) -> &[CompiledRule] {
        &self.rules
    }

    fn rule(&self, id: u32) -> Option<&CompiledRule> {
        self.rules.get(id as usize)
    }

    fn bucket(&self, id: u32) -> Option<&Bucket> {
        self.buckets.get(id as usize)
    }

    /// The first rule, in the order of the documents, that matches. `known` is what is left of the set for the caller.
    pub(super) fn first_match(
        &self,
        request: &Request<'_>,
        token: Token,
        known: Option<&Candidates>,
    ) -> Option<&CompiledRule> {
        let mut first: Option<(u32, &CompiledRule)> = None;
        self.candidates(request, known, |(ids, settled)| {
            // Each list ascends: the first hit in it is its lowest, and nothing beyond the best so far is of interest.
            for id in ids.iter().copied().take_while(|id| first.is_none_or(|(best, _)| *id < best)) {
                if let Some(rule) = self.rule(id).filter(|rule| rule.matches_found(request, token, settled)) {
                    first = Some((id, rule));
                    break;
                }
            }
        });
        first.map(|(_, rule)| rule)
    }

    /// Calls `each` with every rule that matches, in no order, some of them twice.
    pub(super) fn each_match<'a>(
        &'a self,
        request: &Request<'_>,
        token: Token,
        known: Option<&Candidates>,
        mut each: impl FnMut(&'a CompiledRule),
    ) {
        self.candidates(request, known, |(ids, settled)| {
            let rules = ids.iter().filter_map(|id| self.rule(*id));
            rules.filter(|rule| rule.matches_found(request, token, settled)).for_each(&mut each);
        });
    }

    /// Calls `look` with lists of all rules that could match.
    fn candidates(&self, request: &Request<'_>, known: Option<&Candidates>, mut look: impl FnMut(Found<'_>)) {
        if self.rules.is_empty() {
            return;
        }
        let mut look_in = |bucket: &Bucket, plain: bool| {
            if plain {
                look((&bucket.plain, false));
            }
            if request.protocol == Protocol::Tcp {
                // There is no path to look for, and rules that name one may match all the same.
                bucket.by_path.values().for_each(|ids| look((ids, false)));
            } else {
                request.paths().for_each(|path| bucket.by_path.each(path, |ids| look((ids, false))));
            }
        };
        match known {
            None => self.of(&request.peer_view(), |bucket| look_in(bucket, true)),
            Some(Candidates { settled, open, buckets, many }) => {
                buckets.iter().filter_map(|id| self.bucket(*id)).for_each(|bucket| look_in(bucket, *many));
                look((settled, true));
                look((open, false));
            }
        }
    }

    /// The buckets of a caller.
    fn of<'a>(&'a self, caller: &PeerView<'_>, mut found: impl FnMut(&'a Bucket)) {
        self.ids_of(caller, |id| self.bucket(id).into_iter().for_each(&mut found));
    }

    fn ids_of(&self, caller: &PeerView<'_>, mut found: impl FnMut(u32)) {
        if !self.by_principal.is_empty()
            && let Some(principal) = caller.principal()
        {
            self.by_principal.each(principal, |id| found(*id));
        }
        if !self.by_namespace.is_empty()
            && let Some(namespace) = caller.namespace()
        {
            self.by_namespace.each(namespace, |id| found(*id));
        }
        if !self.by_place.is_empty()
            && let Some(id) = caller.peer
        {
            account::namespace_places(id).for_each(|behind| self.by_place.each(behind, |id| found(*id)));
        }
        found(ANYBODY);
    }

    /// What is left of the set for one caller. Costs a test of each of its rules.
    pub(super) fn told_apart(&self, caller: &PeerView<'_>) -> Candidates {
        self.told_apart_up_to(TOLD_APART, caller)
    }

    fn told_apart_up_to(&self, most: usize, caller: &PeerView<'_>) -> Candidates {
        let mut ids = Vec::new();
        self.ids_of(caller, |id| ids.push(id));
        let plain = || ids.iter().filter_map(|id| self.bucket(*id)).flat_map(|bucket| &bucket.plain);
        let found = |all: bool| {
            ids.iter()
                .copied()
                .filter(move |id| self.bucket(*id).is_some_and(|bucket| all || !bucket.by_path.is_empty()))
        };
        if plain().count() > most {
            return Candidates { buckets: found(true).collect(), many: true, ..Candidates::default() };
        }
        let mut all: Vec<u32> = plain().copied().collect();
        all.sort_unstable();
        all.dedup();
        all.retain(|id| self.rule(*id).is_some_and(|rule| rule.may_match(caller)));
        let fits = |id: &u32| self.rule(*id).is_some_and(|rule| rule.caller_fits(caller));
        let (settled, open) = all.into_iter().partition::<Vec<u32>, _>(fits);
        Candidates { settled: settled.into(), open: open.into(), buckets: found(false).collect(), many: false }
    }

    /// Calls `each` with every rule that could match all requests of `caller`, some of them twice.
    pub(super) fn each_shutting<'a>(&'a self, caller: &PeerView<'_>, mut each: impl FnMut(&'a CompiledRule)) {
        self.of(caller, |bucket| bucket.shutting.iter().filter_map(|id| self.rule(*id)).for_each(&mut each));
    }

    /// Whether a rule could match some request of `caller`. The first one is enough.
    pub(super) fn opens(&self, caller: &PeerView<'_>) -> bool {
        let mut open = false;
        self.of(caller, |bucket| {
            let mut ids = bucket.plain.iter().chain(bucket.by_path.values().flatten());
            open = open || ids.any(|id| self.rule(*id).is_some_and(|rule| rule.may_match(caller)));
        });
        open
    }

    /// Rules that are looked at for every caller: nobody is named in a way that can be looked up.
    pub(super) fn of_anybody(&self) -> impl Iterator<Item = &CompiledRule> {
        let bucket = self.bucket(ANYBODY).into_iter();
        let ids = bucket.flat_map(|bucket| bucket.plain.iter().chain(bucket.by_path.values().flatten()));
        ids.filter_map(|id| self.rule(*id))
    }
}

impl Bucket {
    /// After the last rule: where more than a few name paths, these are found by them. `paths` has those of every rule.
    fn finish(&mut self, paths: &[Option<Vec<Pattern>>]) {
        let Self { plain, by_path, .. } = self;
        let paths_of = |id: u32| paths.get(id as usize).and_then(Option::as_deref);
        if plain.iter().filter(|id| paths_of(**id).is_some()).count() <= FEW {
            return;
        }
        plain.retain(|id| {
            let mut file = |path| by_path.entry(path, Vec::new).map(|ids| add(ids, *id)).is_some();
            // One with a path that cannot be looked up stays.
            !paths_of(*id).is_some_and(|paths| paths.iter().all(&mut file))
        });
        plain.shrink_to_fit();
        by_path.finish();
    }
}

/// Adds the highest id so far; a rule that comes by two names is added once.
fn add(ids: &mut Vec<u32>, id: u32) {
    if ids.last() != Some(&id) {
        ids.push(id);
    }
}

/// Whether a name by which the rule was found is all that it asks of its caller.
fn says_only_names(from: &[Alternative]) -> bool {
    let named = |test: &Test| !test.negated && matches!(test.check, Check::Principal(_) | Check::Namespace(_));
    from.iter().all(|tests| matches!(&**tests, [only] if named(only)))
}

/// The callers that a rule names, if it can match nobody else.
fn callers(from: &[Alternative]) -> Option<Vec<Key>> {
    named(from, |tests| {
        let positive = || tests.iter().filter(|test| !test.negated);
        let principals = positive().find_map(|test| match &test.check {
            Check::Principal(set) => Some(lookable(set)?.map(Key::Principal).collect()),
            // Whatever their trust domain.
            Check::ServiceAccount { accounts, anywhere: false } => {
                let end = |account: &ServiceAccount| format!("/ns/{}/sa/{}", account.namespace, account.name);
                Some(accounts.iter().map(|account| Key::Principal(Pattern::Suffix(end(account).into()))).collect())
            }
            Check::ServiceAccount { accounts, anywhere: true } => {
                let place = |account: &ServiceAccount| Pattern::Prefix(format!("{}/", account.namespace).into());
                Some(accounts.iter().map(|account| Key::Place(place(account))).collect())
            }
            _ => None,
        });
        let namespaces = || {
            positive().find_map(|test| match &test.check {
                Check::Namespace(set) => Some(lookable(set)?.map(Key::Namespace).collect()),
                Check::NamespaceAnywhere(all) => {
                    all.iter().map(|one| Some(Key::Place(Pattern::Prefix(one.start()?.into())))).collect()
                }
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

/// The keys of all alternatives; `None` if there is no alternative, or one without keys: what names nobody at all may still
/// match what has no name, as a DENY of paths does bytes that are no HTTP.
fn named<K>(alternatives: &[Alternative], keys: impl Fn(&Alternative) -> Option<Vec<K>>) -> Option<Vec<K>> {
    let all: Option<Vec<Vec<K>>> =
        alternatives.iter().map(|alternative| keys(alternative).filter(|keys| !keys.is_empty())).collect();
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
            1 => source("namespaces", &["a", "b*", "c", "a", "b*", "*a"]),
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

    /// Some in another shape than workloads have, and one that is no name at all.
    const PEERS: [&str; 11] = [
        "ns/a/sa/x",
        "ns/a/sa/y",
        "ns/b/sa/x",
        "ns/bb/sa/yy",
        "ns/c/sa/z",
        "other",
        "ns/d/sa/é",
        "zone/a/ns/a/sa/x/pod",
        "ns/ns/sa/x",
        "ns/c/ns/bb/y",
        "ns/b",
    ];

    fn of(rules: &str, action: Action) -> RuleSet {
        let head = "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\n\
                    metadata: { name: p, namespace: n }\nspec:\n  rules:\n";
        let mut errors = Errors::default();
        let documents = parse_documents("<test>", &format!("{head}{rules}"), &mut errors);
        assert!(errors.is_empty(), "{:?}\n{rules}", errors.issues());
        let domains = TrustDomains::new(&EngineOptions::new(TrustDomain::parse("td").unwrap()));
        let compiler = Compiler { mode: Mode::Strict, trust_domains: &domains };
        let numbered = (0..).zip(&documents[0].rules);
        let compiled = numbered.map(|(index, rule)| CompiledRule::new(0, index, action, rule, &compiler).unwrap());
        RuleSet::new(compiled.collect())
    }

    #[test]
    fn the_index_finds_what_looking_at_every_rule_finds() {
        let rng = Rng::seeded(11);
        let (mut found, mut crowded) = (0, 0);
        for rules in [1, 20, 150] {
            for _ in 0..20 {
                let text: String = (0..rules).map(|_| rule(&rng)).collect();
                // Of a path with two readings they differ.
                let action = [Action::Allow, Action::Deny][rng.below(2)];
                let set = of(&text, action);
                for peer in PEERS {
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
                        let naive = set.rules.iter().find(|rule| rule.matches(&request, Token::AsSent));
                        let naive = naive.map(|rule| rule.index);
                        let known = set.told_apart(&request.peer_view());
                        let seen = set.first_match(&request, Token::AsSent, None).map(|rule| rule.index);
                        let by_peer = set.first_match(&request, Token::AsSent, Some(&known)).map(|rule| rule.index);
                        let many = set.told_apart_up_to(2, &request.peer_view());
                        crowded += usize::from(many.many);
                        // At the limit they are still told apart.
                        let all = known.settled.len() + known.open.len();
                        assert!(!known.many && (all <= 2 || many.many), "{all}");
                        let by_many = set.first_match(&request, Token::AsSent, Some(&many)).map(|rule| rule.index);
                        assert_eq!([seen, by_peer, by_many], [naive; 3], "{action} {peer:?} {path}\n{text}");
                        found += usize::from(seen.is_some());
                    }
                }
            }
        }
        assert!(found > 1_000 && crowded > 1_000, "{found}, {crowded}");
    }

    #[test]
    fn whether_a_caller_is_shut_out_is_asked_of_few_rules() {
        let rng = Rng::seeded(12);
        let (mut shut, mut looked_at) = (0, 0);
        for _ in 0..20 {
            let set = of(&std::iter::repeat_with(|| rule(&rng)).take(200).collect::<String>(), Action::Deny);
            for peer in PEERS {
                let peer = SpiffeId::parse(&format!("spiffe://td/{peer}")).ok();
                let caller = PeerView::new(peer.as_ref(), None, 1);
                let ids = |rules: Vec<&CompiledRule>| {
                    let mut ids: Vec<u32> =
                        rules.into_iter().filter(|rule| rule.must_match(&caller)).map(|rule| rule.index).collect();
                    ids.sort_unstable();
                    ids.dedup();
                    ids
                };
                let mut few = Vec::new();
                set.each_shutting(&caller, |rule| few.push(rule));
                looked_at += few.len();
                let all = ids(set.rules.iter().collect());
                shut += all.len();
                assert_eq!(ids(few), all, "{peer:?}");
                assert_eq!(set.opens(&caller), set.rules.iter().any(|rule| rule.may_match(&caller)), "{peer:?}");
            }
        }
        // Of 200: rules with paths or methods, which are four in five, and those of others are not looked at.
        assert!(shut > 500 && looked_at < 20 * PEERS.len() * 40, "{shut} of {looked_at}");
    }

    fn rules_of(parts: &[&str]) -> RuleSet {
        of(&parts.iter().map(|part| format!("  - {{ {part} }}\n")).collect::<String>(), Action::Allow)
    }

    /// An index that finds nothing gives the same answers, and costs everybody every rule.
    #[test]
    fn rules_are_found_by_the_callers_they_name() {
        let source = |fields: &str| format!("from: [ {{ source: {{ {fields} }} }} ]");
        for (part, indexed) in [
            (source("principals: [td/ns/a/sa/x]"), true),
            (source("principals: ['td/ns/a*', '*/x']"), true),
            (source("principals: [td/a, '*']"), false),
            (source("notPrincipals: [td/a]"), false),
            (source("namespaces: [a]"), true),
            (source("notNamespaces: [a]"), false),
            (source("serviceAccounts: [a/x]"), true),
            (source("notServiceAccounts: [a/x]"), false),
            (source("principals: ['*'], namespaces: [a]"), true),
            (source("trustDomains: [a]"), false),
            (source("ipBlocks: [10.0.0.1]"), false),
            ("from: [ { source: { principals: [td/a] } }, { source: { namespaces: [a] } } ]".to_owned(), true),
            ("from: [ { source: { principals: [td/a] } }, { source: { trustDomains: [a] } } ]".to_owned(), false),
            ("to: [ { operation: { methods: [GET] } } ]".to_owned(), false),
        ] {
            let set = rules_of(&[&part]);
            assert_eq!(set.of_anybody().count(), usize::from(!indexed), "{part}");
            let stranger = SpiffeId::parse("spiffe://other/ns/b/sa/y").unwrap();
            let mut found = 0;
            set.of(&PeerView::new(Some(&stranger), None, 1), |bucket| {
                found += bucket.plain.len() + bucket.by_path.values().map(Vec::len).sum::<usize>();
            });
            assert_eq!(found, usize::from(!indexed), "{part}");
        }
    }

    #[test]
    fn many_rules_of_one_caller_are_found_by_the_paths_they_name() {
        let operation = |fields: &str| format!("to: [ {{ operation: {{ {fields} }} }} ]");
        for (part, indexed) in [
            (operation("paths: [/a]"), true),
            (operation("paths: ['/a/*', '*/b', '/c/{*}']"), true),
            (operation("paths: [/a, '*']"), false),
            (operation("notPaths: [/a]"), false),
            (operation("methods: [GET]"), false),
            ("to: [ { operation: { paths: [/a] } }, { operation: { paths: [/b] } } ]".to_owned(), true),
            ("to: [ { operation: { paths: [/a] } }, { operation: { methods: [GET] } } ]".to_owned(), false),
        ] {
            let few = rules_of(&[part.as_str(); FEW]);
            assert_eq!(few.bucket(ANYBODY).unwrap().plain.len(), FEW, "{part}");
            let set = rules_of(&[part.as_str(); FEW + 1]);
            let bucket = set.bucket(ANYBODY).unwrap();
            let by_path = bucket.by_path.values().map(Vec::len).max().unwrap_or(0);
            let expected = if indexed { (0, FEW + 1) } else { (FEW + 1, 0) };
            assert_eq!((bucket.plain.len(), by_path), expected, "{part}");
        }
    }

    #[test]
    fn as_many_as_the_limit_are_told_apart() {
        let set = rules_of(&["from: [ { source: { notNamespaces: [a] } } ]"; 3]);
        let caller = PeerView::new(None, None, 1);
        assert_eq!([2, 3, 4].map(|most| set.told_apart_up_to(most, &caller).many), [true, false, false]);
    }
}
