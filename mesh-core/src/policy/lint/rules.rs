//! Rules against each other, and what they cost.

use super::super::pattern::Pattern;
use super::super::{Action, AuthorizationPolicy, Clause, Condition, Operation, PathPattern, Rule, Source};
use super::scope::holds_wherever;
use super::{LintCode, LintOptions, Report};

/// Every rule is compared with every other: so many at most.
const MAX_COMPARED: usize = 2_000;

/// Longer lists are compared as a whole.
const MAX_LIST: usize = 64;

/// Looking at so many rules for every request costs nothing to speak of.
const FEW: usize = 8;

#[derive(Clone, Copy)]
struct Place<'a> {
    document: &'a AuthorizationPolicy,
    at: usize,
    rule: &'a Rule,
}

pub(super) fn check(documents: &[AuthorizationPolicy], options: &LintOptions<'_>, report: &mut Report) {
    let all: Vec<Place<'_>> = documents
        .iter()
        .flat_map(|document| document.rules.iter().enumerate().map(move |(at, rule)| Place { document, at, rule }))
        .collect();
    let slow: Vec<&Place<'_>> = all.iter().filter(|place| is_slow(place.document.action, place.rule)).collect();
    if slow.len() > FEW {
        for Place { document, at, .. } in slow {
            let text = "it names no callers and no paths, so it is looked at for every request";
            report.rule(LintCode::NotIndexed, document, *at, "", text);
        }
    }
    if let Some(Place { document, at, .. }) = all.get(MAX_COMPARED) {
        let text = format!("{} rules; rules are compared with each other up to {MAX_COMPARED}", all.len());
        report.rule(LintCode::NotCompared, document, *at, "", text);
        return;
    }
    for (n, place) in all.iter().enumerate() {
        let wider = all.iter().enumerate().find(|(m, other)| {
            // Of two equal ones the later is one too many.
            *m != n && covers(other, place, options) && (*m < n || !covers(place, other, options))
        });
        if let Some((_, other)) = wider {
            let (code, what) = if covers(place, other, options) {
                (LintCode::DuplicateRule, "says the same")
            } else {
                (LintCode::ShadowedRule, "matches whenever it does")
            };
            let text = format!("rule {} of {} {what}", other.at, other.document.name);
            report.rule(code, place.document, place.at, "", text);
        }
    }
}

/// Whether nothing of a rule leads to it.
fn is_slow(action: Action, rule: &Rule) -> bool {
    let plain = |list: &Clause<Pattern>| list.any_of.as_ref().is_some_and(|all| !all.contains(&Pattern::Present));
    // To keep out, a namespace is looked for anywhere in a SPIFFE ID: its end stands nowhere in particular.
    let ends = |list: &Clause<Pattern>| list.any_of.iter().flatten().any(|one| matches!(one, Pattern::Suffix(_)));
    let caller = |source: &Source| {
        plain(&source.principals)
            || plain(&source.namespaces) && (action == Action::Allow || !ends(&source.namespaces))
            || source.service_accounts.any_of.is_some()
    };
    let any = |path: &PathPattern| *path == PathPattern::Text(Pattern::Present);
    let path = |operation: &Operation| operation.paths.any_of.as_ref().is_some_and(|all| !all.iter().any(any));
    let named = !rule.from.is_empty() && rule.from.iter().all(caller);
    let placed = !rule.to.is_empty() && rule.to.iter().all(path);
    !named && !placed
}

fn covers(wide: &Place<'_>, narrow: &Place<'_>, options: &LintOptions<'_>) -> bool {
    let (one, other) = (wide.document, narrow.document);
    one.action == other.action
        && one.dry_run == other.dry_run
        && one.provider == other.provider
        && holds_wherever(one, other, options.root_namespace)
        && matches_whenever(wide.rule, narrow.rule)
}

fn matches_whenever(wide: &Rule, narrow: &Rule) -> bool {
    let lost = |rule: &Rule| rule.when.iter().any(|condition| matches!(condition, Condition::Untranslatable { .. }));
    let from = |narrow: &Source| wide.from.iter().any(|wide| source(wide, narrow));
    let to = |narrow: &Operation| wide.to.iter().any(|wide| operation(wide, narrow));
    !lost(wide)
        && !lost(narrow)
        && (wide.from.is_empty() || !narrow.from.is_empty() && narrow.from.iter().all(from))
        && (wide.to.is_empty() || !narrow.to.is_empty() && narrow.to.iter().all(to))
        && wide.when.iter().all(|condition| narrow.when.contains(condition))
}

fn source(wide: &Source, narrow: &Source) -> bool {
    clause(&wide.principals, &narrow.principals)
        && clause(&wide.request_principals, &narrow.request_principals)
        && clause(&wide.namespaces, &narrow.namespaces)
        && clause(&wide.service_accounts, &narrow.service_accounts)
        && clause(&wide.trust_domains, &narrow.trust_domains)
        && clause(&wide.ip_blocks, &narrow.ip_blocks)
        && clause(&wide.remote_ip_blocks, &narrow.remote_ip_blocks)
}

fn operation(wide: &Operation, narrow: &Operation) -> bool {
    clause(&wide.hosts, &narrow.hosts)
        && clause(&wide.ports, &narrow.ports)
        && clause(&wide.methods, &narrow.methods)
        && clause(&wide.paths, &narrow.paths)
}

/// Whether every value that `narrow` lets through, `wide` does.
fn clause<T: PartialEq>(wide: &Clause<T>, narrow: &Clause<T>) -> bool {
    let within = |few: &[T], many: &[T]| {
        few == many || many.len() <= MAX_LIST && few.len() <= MAX_LIST && few.iter().all(|one| many.contains(one))
    };
    let any_of = match (&wide.any_of, &narrow.any_of) {
        (None, _) => true,
        (Some(_), None) => false,
        (Some(wide), Some(narrow)) => within(narrow, wide),
    };
    any_of
        && match (&wide.none_of, &narrow.none_of) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(wide), Some(narrow)) => within(wide, narrow),
        }
}
