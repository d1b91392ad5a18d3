//! Trust domains that stand for each other, as Istio's `trustDomainAliases`.

use super::super::pattern::Pattern;
use super::super::{EngineOptions, Mode};

/// The own trust domain and its aliases.
#[derive(Debug)]
pub(in super::super) struct TrustDomains(Vec<String>);

impl TrustDomains {
    pub(in super::super) fn new(options: &EngineOptions) -> Self {
        let aliases = options.trust_domain_aliases.iter().filter(|alias| **alias != options.trust_domain);
        Self(std::iter::once(&options.trust_domain).chain(aliases).map(ToString::to_string).collect())
    }

    /// A principal under every name of the trust domain, if it names one of ours.
    ///
    /// As in Istio, only where it has five parts (`TRUST_DOMAIN/ns/N/sa/S`); `cluster.local` is always ours, and a
    /// trust domain with a `*` at an end is ours if it fits one of them.
    pub(super) fn principals(&self, pattern: &Pattern) -> Vec<Pattern> {
        let text = pattern.to_string();
        let parts = text.split_once('/').filter(|(_, rest)| rest.split('/').count() == 4);
        let Some((domain, rest)) = parts.filter(|(domain, _)| *domain != "*") else { return vec![pattern.clone()] };
        let fits = |own: &str| {
            own == domain
                || domain.strip_suffix('*').is_some_and(|start| own.starts_with(start))
                || domain.strip_prefix('*').is_some_and(|end| own.ends_with(end))
        };
        if domain != "cluster.local" && !self.0.iter().any(|own| fits(own)) {
            return vec![pattern.clone()];
        }
        let mut all = Vec::new();
        for own in &self.0 {
            let kept = domain.strip_prefix('*').is_some_and(|end| own.ends_with(end));
            let renamed = || Pattern::parse_as(Mode::Compat, &format!("{own}/{rest}")).ok();
            let name = if kept { Some(pattern.clone()) } else { renamed() };
            all.extend(name.filter(|name| !all.contains(name)));
        }
        all
    }

    /// A trust domain with its aliases, if it is one of ours.
    pub(super) fn domains(&self, pattern: &Pattern) -> Vec<Pattern> {
        match pattern {
            Pattern::Exact(text) if self.0.iter().any(|own| **own == **text) => {
                self.0.iter().map(|own| Pattern::Exact(own.as_str().into())).collect()
            }
            _ => vec![pattern.clone()],
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::TrustDomain;

    #[test]
    fn principals_are_rewritten_as_in_istio() {
        let domain = |text| TrustDomain::parse(text).unwrap();
        let mut options = EngineOptions::new(domain("new-td"));
        options.trust_domain_aliases = vec![domain("old-td"), domain("third")];
        let domains = TrustDomains::new(&options);
        let all = |rest: &str| ["new-td", "old-td", "third"].map(|name| format!("{name}/{rest}")).to_vec();
        let same = |text: &str| vec![text.to_owned()];
        for (principal, expected) in [
            ("new-td/ns/a/sa/b", all("ns/a/sa/b")),
            ("old-td/ns/a/sa/b", all("ns/a/sa/b")),
            ("cluster.local/ns/a/sa/b", all("ns/a/sa/b")),
            ("cluster.local/ns/a/sa/*", all("ns/a/sa/*")),
            ("other/ns/a/sa/b", same("other/ns/a/sa/b")),
            // Not five parts.
            ("cluster.local/ns/*", same("cluster.local/ns/*")),
            ("cluster.local/gateway", same("cluster.local/gateway")),
            ("*/ns/a/sa/b", same("*/ns/a/sa/b")),
            ("*", same("*")),
            ("*-td/ns/a/sa/b", vec!["*-td/ns/a/sa/b".to_owned(), "third/ns/a/sa/b".to_owned()]),
            ("thi*/ns/a/sa/b", all("ns/a/sa/b")),
        ] {
            let pattern = Pattern::parse_as(Mode::Compat, principal).unwrap();
            let found: Vec<String> = domains.principals(&pattern).iter().map(ToString::to_string).collect();
            assert_eq!(found, expected, "{principal}");
        }
        for (text, expected) in [("old-td", 3), ("cluster.local", 1), ("old*", 1), ("*", 1)] {
            assert_eq!(domains.domains(&Pattern::parse(text).unwrap()).len(), expected, "{text}");
        }
    }
}
