//! `serviceAccounts` and `namespaces`, in the SPIFFE ID of a caller.

use std::fmt;
use std::sync::Arc;

use crate::identity::SpiffeId;

/// At most so many service accounts in one list. (Istio)
pub(super) const MAX_ACCOUNTS: usize = 16;

/// At most so many characters in one of them. (Istio)
const MAX_ACCOUNT: usize = 320;

/// One of `serviceAccounts`: `NAMESPACE/NAME`, or `NAME` in the namespace of its policy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl ServiceAccount {
    /// Reads a value of `serviceAccounts`; wildcards mean nothing there.
    pub fn parse(text: &str, policy_namespace: &str) -> Result<Self, String> {
        let (namespace, name) = text.split_once('/').unwrap_or((policy_namespace, text));
        let shown: String = text.chars().take(64).collect();
        if text.len() > MAX_ACCOUNT {
            return Err(format!("`{shown}...` is longer than {MAX_ACCOUNT} characters"));
        }
        if text.contains('*') {
            return Err(format!("`{shown}`: `*` means nothing in a service account; write `principals`"));
        }
        if namespace.is_empty() || name.is_empty() || name.contains('/') {
            return Err(format!("`{shown}`: expected NAMESPACE/SERVICE_ACCOUNT or SERVICE_ACCOUNT"));
        }
        Ok(Self { namespace: namespace.into(), name: name.into() })
    }

    /// Whether `id` is exactly `TRUST_DOMAIN/ns/NAMESPACE/sa/NAME`.
    pub(super) fn is(&self, id: &SpiffeId) -> bool {
        id.workload()
            .is_some_and(|workload| *workload.namespace == *self.namespace && *workload.service_account == *self.name)
    }

    /// Istio's reading: `/ns/NAMESPACE/`, and behind it, with or without other parts between and after,
    /// `sa/NAME`. Names are compared whole and letter by letter. (CVE-2026-39350)
    pub(super) fn is_in(&self, id: &SpiffeId) -> bool {
        let Some(text) = id.as_str().strip_prefix("spiffe://") else { return false };
        let (namespace, account) = (format!("/ns/{}/", self.namespace), format!("sa/{}", self.name));
        let whole = |rest: &str| rest.is_empty() || (rest.len() > 1 && rest.starts_with('/'));
        // The trust domain in front of it is not empty.
        places(text, &namespace).filter(|at| *at > 0).any(|at| {
            let rest = text.get(at + namespace.len()..).unwrap_or_default();
            rest.strip_prefix(&*account).is_some_and(whole)
                || places(rest, &format!("/{account}"))
                    .filter(|at| *at > 0)
                    .any(|at| rest.get(at + 1 + account.len()..).is_some_and(whole))
        })
    }
}

impl fmt::Display for ServiceAccount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

const NAMESPACE: &str = "/ns/";

/// What stands behind each `/ns/` of a SPIFFE ID, up to its end.
pub(super) fn namespace_places(id: &SpiffeId) -> impl Iterator<Item = &str> {
    places(id.as_str(), NAMESPACE).filter_map(|at| id.as_str().get(at + NAMESPACE.len()..))
}

/// Every place where `part` stands in `text`, overlapping ones too.
fn places<'a>(text: &'a str, part: &'a str) -> impl Iterator<Item = usize> {
    let mut from = 0;
    std::iter::from_fn(move || {
        let at = from + text.get(from..)?.find(part)?;
        // Every part begins with an ASCII character.
        from = at + 1;
        Some(at)
    })
}

/// Istio's reading of one of `namespaces`: `/ns/VALUE/` anywhere in the SPIFFE ID, where `*` is anything, also `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamespaceAnywhere {
    /// What stands between the stars; found one behind the other.
    parts: Box<[Box<str>]>,
}

impl NamespaceAnywhere {
    pub(super) fn new(value: &str) -> Self {
        Self { parts: format!("{NAMESPACE}{value}/").split('*').map(Into::into).collect() }
    }

    /// What must stand behind one of the [`namespace_places`] of a caller; `None` where anything may.
    pub(super) fn start(&self) -> Option<&str> {
        self.parts.first()?.strip_prefix(NAMESPACE).filter(|start| !start.is_empty())
    }

    pub(super) fn matches(&self, id: &SpiffeId) -> bool {
        let found = |rest: &str, part: &str| rest.find(part).and_then(|at| rest.get(at + part.len()..)).map(str::len);
        let text = id.as_str();
        let behind = self.parts.iter().try_fold(text.len(), |left, part| found(text.get(text.len() - left..)?, part));
        behind.is_some()
    }
}

impl fmt::Display for NamespaceAnywhere {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = self.parts.join("*");
        f.write_str(text.trim_start_matches("/ns/").trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> SpiffeId {
        SpiffeId::parse(&format!("spiffe://{text}")).unwrap()
    }

    #[test]
    fn accounts_are_whole_names() {
        for (account, caller, strict, anywhere) in [
            ("shop/web", "td/ns/shop/sa/web", true, true),
            ("web", "td/ns/own/sa/web", true, true),
            ("web", "td/ns/shop/sa/web", false, false),
            ("shop/web", "td/ns/shop/sa/web2", false, false),
            ("shop/w.b", "td/ns/shop/sa/web", false, false),
            ("shop/web", "td/ns/shop/cluster/a/sa/web", false, true),
            ("shop/web", "td/region/eu/ns/shop/sa/web", false, true),
            ("shop/web", "td/ns/shop/sa/web/pod/7", false, true),
            ("shop/web", "td/ns/shop/sa/web-x/sa/web", false, true),
            ("shop/web", "td/ns/ns/shop/sa/web", false, true),
            ("shop/web", "td/sa/web/ns/shop", false, false),
            ("shop/web", "td/gateway", false, false),
        ] {
            let (account, caller) = (ServiceAccount::parse(account, "own").unwrap(), id(caller));
            assert_eq!((account.is(&caller), account.is_in(&caller)), (strict, anywhere), "{account} {caller}");
        }
        assert!(ServiceAccount::parse(&format!("a/{}", "b".repeat(318)), "own").is_ok());
        let long = "a".repeat(321);
        for wrong in ["", "/", "a/", "/a", "a/b/c", "a*", "*/a", &long] {
            assert!(ServiceAccount::parse(wrong, "own").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_namespace_anywhere_is_found_as_istio_finds_it() {
        for (value, caller, expected) in [
            ("shop", "td/ns/shop/sa/web", true),
            ("shop", "td/ns/shop", false),
            ("shop", "td/x/ns/shop/y", true),
            ("shop", "td/ns/shop2/sa/web", false),
            ("shop", "ns/shop/x", true),
            ("sh*", "td/ns/shop/sa/web", true),
            ("*op", "td/ns/shop/sa/web", true),
            ("*eb", "td/ns/shop/sa/web", false),
            ("s*p", "td/ns/shop/sa/web", true),
            ("*web", "td/ns/shop/sa/web/x", true),
            ("*", "td/ns/shop/sa/web", true),
            ("*", "td/ns/shop", false),
            ("s.op", "td/ns/shop/sa/web", false),
        ] {
            let parsed = NamespaceAnywhere::new(value);
            assert_eq!((parsed.matches(&id(caller)), &*parsed.to_string()), (expected, value), "{caller}");
        }
    }
}
