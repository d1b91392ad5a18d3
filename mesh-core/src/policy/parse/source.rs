//! `from[].source`: who calls.

use super::{Reading, clause, matchable, noted, pattern, read_as, text};
use crate::config::{Errors, Fields, Node};
use crate::policy::account::MAX_ACCOUNTS;
use crate::policy::document::{Clause, Source};
use crate::policy::{Action, IpBlock, Mode, Pattern, RequestPrincipal, ServiceAccount, unmatched};

pub(super) fn source(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Source> {
    let mut fields = Fields::of(node, errors)?;
    let at = &mut fields;
    let source = Source {
        principals: clause(at, reading, ["principals", "notPrincipals"], |node, errors| {
            principal(node, reading, errors)
        }),
        request_principals: clause(at, reading, ["requestPrincipals", "notRequestPrincipals"], |node, errors| {
            request_principal(node, reading, errors)
        }),
        namespaces: clause(at, reading, ["namespaces", "notNamespaces"], |node, errors| {
            namespace(node, reading, errors)
        }),
        service_accounts: accounts(at, reading, ["serviceAccounts", "notServiceAccounts"]),
        trust_domains: clause(at, reading, ["trustDomains", "notTrustDomains"], |node, errors| {
            trust_domain(node, reading, errors)
        }),
        ip_blocks: clause(at, reading, ["ipBlocks", "notIpBlocks"], ip_block),
        remote_ip_blocks: clause(at, reading, ["remoteIpBlocks", "notRemoteIpBlocks"], ip_block),
    };
    if source == Source::default() {
        fields.error("an empty `source` is refused; leave `from` out to accept every caller");
    }
    let named = !source.principals.is_empty() || !source.namespaces.is_empty();
    if named && !source.service_accounts.is_empty() {
        fields.error("`serviceAccounts` excludes `principals` and `namespaces` in one source");
    }
    let Source { principals, request_principals, namespaces, service_accounts, trust_domains, .. } = &source;
    let identity = !principals.is_empty()
        || !request_principals.is_empty()
        || !namespaces.is_empty()
        || !service_accounts.is_empty()
        || !trust_domains.is_empty();
    if identity {
        refuse_identity(&mut fields, reading);
    }
    fields.finish();
    Some(source)
}

/// Istio asks external authorizers before it knows who calls. This mesh knows, so strict mode allows it.
pub(super) fn refuse_identity(fields: &mut Fields<'_>, reading: &Reading<'_>) {
    if reading.action == Action::Custom && reading.mode == Mode::Compat {
        fields.error("Istio refuses identities and token claims in CUSTOM rules");
    }
}

pub(super) fn principal(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Pattern> {
    matchable(node, reading, errors, unmatched::principal)
}

pub(super) fn request_principal(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<RequestPrincipal> {
    read_as(node, reading, errors, RequestPrincipal::parse_as)
}

/// In Istio a `*` stands for anything wherever it stands, so the text is kept as it is.
pub(super) fn namespace(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Pattern> {
    pattern(node, reading, errors)
}

/// A list of service accounts. Istio limits how many one may hold.
pub(super) fn accounts(
    fields: &mut Fields<'_>,
    reading: &Reading<'_>,
    names: [&'static str; 2],
) -> Clause<ServiceAccount> {
    let clause = clause(fields, reading, names, |node, errors| {
        noted(ServiceAccount::parse(text(node, errors)?, reading.namespace), node, errors)
    });
    for (name, list) in names.into_iter().zip([&clause.any_of, &clause.none_of]) {
        if list.as_ref().is_some_and(|list| list.len() > MAX_ACCOUNTS) {
            let place = fields.place(name);
            fields.errors().push(&place, format!("`{name}` holds at most {MAX_ACCOUNTS} values"));
        }
    }
    clause
}

/// A trust domain has no `/`. Istio checks that in sources and forgets it in conditions; here both are refused.
pub(super) fn trust_domain(node: &Node, reading: &Reading<'_>, errors: &mut Errors) -> Option<Pattern> {
    let text = text(node, errors)?;
    if text.contains('/') {
        errors.push(&node.place, format!("`{text}`: a trust domain holds no `/`"));
        return None;
    }
    // Istio refuses what `Pattern` does.
    let pattern = noted(Pattern::parse(text), node, errors)?;
    match unmatched::trust_domain(&pattern) {
        Ok(()) => Some(pattern),
        Err(doubt) => reading.doubt(&node.place, doubt, errors).map(|()| pattern),
    }
}

pub(super) fn ip_block(node: &Node, errors: &mut Errors) -> Option<IpBlock> {
    noted(IpBlock::parse(text(node, errors)?), node, errors)
}
